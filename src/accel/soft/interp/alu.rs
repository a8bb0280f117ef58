//! Integer arithmetic by the host's own instructions, so that results and flags (the undefined ones, too) are those of a
//! real processor. Flags come and go as [`Status`]: what `lahf; seto al` leaves in AX, and `add al, 127; sahf` takes.
#![expect(unsafe_code)] // UNSAFE: inline assembly; every block computes on registers only.

use std::arch::asm;

use super::super::cpu::{Cpu, Status};
use super::super::mmu::Value;

/// A general register's or operand's value: `u8`, `u16`, `u32`, `u64`.
pub trait Int: Value {
    /// Its width.
    const BITS: u32;
    /// The value of a general register ([`super::super::Op`]'s numbering).
    fn reg(cpu: &Cpu, number: u8) -> Self;
    /// Changes a general register.
    fn set_reg(self, cpu: &mut Cpu, number: u8);
    /// The low bits.
    fn truncate(value: u64) -> Self;
    /// With zeros above.
    fn zero_extend(self) -> u64;
    /// With copies of the sign bit above.
    fn sign_extend(self) -> u64;

    /// ADD.
    fn add(self, other: Self) -> (Self, Status);
    /// SUB, CMP.
    fn sub(self, other: Self) -> (Self, Status);
    /// AND, TEST.
    fn and(self, other: Self) -> (Self, Status);
    /// OR.
    fn or(self, other: Self) -> (Self, Status);
    /// XOR.
    fn xor(self, other: Self) -> (Self, Status);
    /// ADC.
    fn adc(self, other: Self, status: Status) -> (Self, Status);
    /// SBB.
    fn sbb(self, other: Self, status: Status) -> (Self, Status);
    /// INC.
    fn inc(self, status: Status) -> (Self, Status);
    /// DEC.
    fn dec(self, status: Status) -> (Self, Status);
    /// NEG.
    fn neg(self, status: Status) -> (Self, Status);
    /// ROL.
    fn rol(self, count: u8, status: Status) -> (Self, Status);
    /// ROR.
    fn ror(self, count: u8, status: Status) -> (Self, Status);
    /// RCL.
    fn rcl(self, count: u8, status: Status) -> (Self, Status);
    /// RCR.
    fn rcr(self, count: u8, status: Status) -> (Self, Status);
    /// SHL.
    fn shl(self, count: u8, status: Status) -> (Self, Status);
    /// SHR.
    fn shr(self, count: u8, status: Status) -> (Self, Status);
    /// SAR.
    fn sar(self, count: u8, status: Status) -> (Self, Status);
    /// MUL: low half, high half.
    fn mul(self, other: Self) -> (Self, Self, Status);
    /// IMUL: low half, high half.
    fn imul(self, other: Self) -> (Self, Self, Status);
}

/// What only operands of 16 bits and more have.
pub trait Wide: Int {
    /// SHLD: bits of `other` come in.
    fn shld(self, other: Self, count: u8, status: Status) -> (Self, Status);
    /// SHRD.
    fn shrd(self, other: Self, count: u8, status: Status) -> (Self, Status);
    /// BT with a bit number.
    fn bt(self, bit: Self, status: Status) -> (Self, Status);
    /// BTS.
    fn bts(self, bit: Self, status: Status) -> (Self, Status);
    /// BTR.
    fn btr(self, bit: Self, status: Status) -> (Self, Status);
    /// BTC.
    fn btc(self, bit: Self, status: Status) -> (Self, Status);
    /// IMUL with two or three operands.
    fn imul_low(self, other: Self) -> (Self, Status);
    /// BSF; `old` is the whole destination register, which stays as it is if `self` is 0.
    fn bsf(self, old: u64, status: Status) -> (u64, Status);
    /// BSR.
    fn bsr(self, old: u64, status: Status) -> (u64, Status);
    /// TZCNT; only if the host has it, as all that follow.
    fn tzcnt(self, old: u64, status: Status) -> (u64, Status);
    /// LZCNT.
    fn lzcnt(self, old: u64, status: Status) -> (u64, Status);
    /// POPCNT.
    fn popcnt(self, old: u64, status: Status) -> (u64, Status);
}

/// What only operands of 32 and 64 bits have: BMI1 and BMI2, if the host has them.
pub trait Long: Wide {
    /// ANDN: not `self`, and `other`.
    fn andn(self, other: Self, status: Status) -> (Self, Status);
    /// BEXTR: `control` is start and length.
    fn bextr(self, control: Self, status: Status) -> (Self, Status);
    /// BZHI.
    fn bzhi(self, index: Self, status: Status) -> (Self, Status);
    /// BLSI.
    fn blsi(self, status: Status) -> (Self, Status);
    /// BLSR.
    fn blsr(self, status: Status) -> (Self, Status);
    /// BLSMSK.
    fn blsmsk(self, status: Status) -> (Self, Status);
}

/// `op self, other`, whatever the flags were.
macro_rules! plain {
    ($name:ident, $class:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, other: Self) -> (Self, Status) {
            let flags: u16;
            // SAFETY: an arithmetic instruction on registers that are named as changed.
            unsafe {
                asm!(concat!(stringify!($name), " {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                    inout($class) self, in($class) other, out("ax") flags, options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op self, other` that takes the carry flag.
macro_rules! carry {
    ($name:ident, $class:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, other: Self, status: Status) -> (Self, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("bt ax, 8", concat!(stringify!($name), " {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                    inout($class) self, in($class) other, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op self` that keeps or ignores the carry flag.
macro_rules! unary {
    ($name:ident, $class:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, status: Status) -> (Self, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("bt ax, 8", concat!(stringify!($name), " {0", $m, "}"), "lahf", "seto al",
                    inout($class) self, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op self, cl`; a count of 0 keeps all flags, rotates keep most.
macro_rules! shift {
    ($name:ident, $class:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, count: u8, status: Status) -> (Self, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("add al, 127", "sahf", concat!(stringify!($name), " {0", $m, "}, cl"), "lahf", "seto al",
                    inout($class) self, in("cl") count, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op self, other, cl`.
macro_rules! double_shift {
    ($name:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, other: Self, count: u8, status: Status) -> (Self, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("add al, 127", "sahf", concat!(stringify!($name), " {0", $m, "}, {1", $m, "}, cl"),
                    "lahf", "seto al",
                    inout(reg) self, in(reg) other, in("cl") count, inout("ax") status.0 => flags,
                    options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op self, bit` that keeps the zero flag.
macro_rules! bit_test {
    ($name:ident, $m:literal) => {
        #[inline(always)]
        fn $name(mut self, bit: Self, status: Status) -> (Self, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("add al, 127", "sahf", concat!(stringify!($name), " {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                    inout(reg) self, in(reg) bit, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (self, Status(flags))
        }
    };
}

/// `op old, self`.
macro_rules! bit_scan {
    ($name:ident, $m:literal) => {
        #[inline(always)]
        fn $name(self, mut old: u64, status: Status) -> (u64, Status) {
            let flags: u16;
            // SAFETY: as for `plain`.
            unsafe {
                asm!("add al, 127", "sahf", concat!(stringify!($name), " {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                    inout(reg) old, in(reg) self, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (old, Status(flags))
        }
    };
}

/// `op other` on the accumulator.
macro_rules! multiply {
    ($name:ident, $class:ident, $m:literal) => {
        #[inline(always)]
        fn $name(self, other: Self) -> (Self, Self, Status) {
            let (low, flags, mut high): (u64, u64, u64);
            // SAFETY: as for `plain`.
            unsafe {
                asm!(concat!(stringify!($name), " {0", $m, "}"), "mov {1}, rax", "lahf", "seto al",
                    in($class) other, out(reg) low, inout("rax") self.zero_extend() => flags, inout("rdx") 0u64 => high,
                    options(pure, nomem, nostack));
            }
            if Self::BITS == 8 {
                high = low >> 8;
            }
            (Self::truncate(low), Self::truncate(high), Status(flags as u16))
        }
    };
}

macro_rules! int {
    ($type:ty, $signed:ty, $class:ident, $m:literal, $reg:ident, $set_reg:ident) => {
        impl Int for $type {
            const BITS: u32 = <$type>::BITS;
            #[inline(always)]
            fn reg(cpu: &Cpu, number: u8) -> Self {
                cpu.$reg(number)
            }
            #[inline(always)]
            fn set_reg(self, cpu: &mut Cpu, number: u8) {
                cpu.$set_reg(number, self);
            }
            #[inline(always)]
            fn truncate(value: u64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn zero_extend(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sign_extend(self) -> u64 {
                self as $signed as i64 as u64
            }
            plain!(add, $class, $m);
            plain!(sub, $class, $m);
            plain!(and, $class, $m);
            plain!(or, $class, $m);
            plain!(xor, $class, $m);
            carry!(adc, $class, $m);
            carry!(sbb, $class, $m);
            unary!(inc, $class, $m);
            unary!(dec, $class, $m);
            unary!(neg, $class, $m);
            shift!(rol, $class, $m);
            shift!(ror, $class, $m);
            shift!(rcl, $class, $m);
            shift!(rcr, $class, $m);
            shift!(shl, $class, $m);
            shift!(shr, $class, $m);
            shift!(sar, $class, $m);
            multiply!(mul, $class, $m);
            multiply!(imul, $class, $m);
        }
    };
}

macro_rules! wide {
    ($type:ty, $m:literal) => {
        impl Wide for $type {
            double_shift!(shld, $m);
            double_shift!(shrd, $m);
            bit_test!(bt, $m);
            bit_test!(bts, $m);
            bit_test!(btr, $m);
            bit_test!(btc, $m);
            bit_scan!(bsf, $m);
            bit_scan!(bsr, $m);
            bit_scan!(tzcnt, $m);
            bit_scan!(lzcnt, $m);
            bit_scan!(popcnt, $m);
            #[inline(always)]
            fn imul_low(mut self, other: Self) -> (Self, Status) {
                let flags: u16;
                // SAFETY: as for `plain`.
                unsafe {
                    asm!(concat!("imul {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                        inout(reg) self, in(reg) other, out("ax") flags, options(pure, nomem, nostack));
                }
                (self, Status(flags))
            }
        }
    };
}

/// `op result, self, other`.
macro_rules! three {
    ($name:ident, $m:literal) => {
        #[inline(always)]
        fn $name(self, other: Self, status: Status) -> (Self, Status) {
            let (result, flags): (Self, u16);
            // SAFETY: as for `plain`; the caller knows that the host has the instruction.
            unsafe {
                asm!("add al, 127", "sahf",
                    concat!(stringify!($name), " {0", $m, "}, {1", $m, "}, {2", $m, "}"), "lahf", "seto al",
                    out(reg) result, in(reg) self, in(reg) other, inout("ax") status.0 => flags,
                    options(pure, nomem, nostack));
            }
            (result, Status(flags))
        }
    };
}

/// `op result, self`.
macro_rules! two {
    ($name:ident, $m:literal) => {
        #[inline(always)]
        fn $name(self, status: Status) -> (Self, Status) {
            let (result, flags): (Self, u16);
            // SAFETY: as for `three`.
            unsafe {
                asm!("add al, 127", "sahf", concat!(stringify!($name), " {0", $m, "}, {1", $m, "}"), "lahf", "seto al",
                    out(reg) result, in(reg) self, inout("ax") status.0 => flags, options(pure, nomem, nostack));
            }
            (result, Status(flags))
        }
    };
}

macro_rules! long {
    ($type:ty, $m:literal) => {
        impl Long for $type {
            three!(andn, $m);
            three!(bextr, $m);
            three!(bzhi, $m);
            two!(blsi, $m);
            two!(blsr, $m);
            two!(blsmsk, $m);
        }
    };
}

int!(u8, i8, reg_byte, "", reg8, set_reg8);
int!(u16, i16, reg, ":x", reg16, set_reg16);
int!(u32, i32, reg, ":e", reg32, set_reg32);
int!(u64, i64, reg, ":r", reg64, set_reg64);
wide!(u16, ":x");
wide!(u32, ":e");
wide!(u64, ":r");
long!(u32, ":e");
long!(u64, ":r");

/// Whether condition `CC` (0-15 as in the opcode of Jcc: O NO B AE E NE BE A S NS P NP L GE LE G) holds.
#[inline(always)]
pub fn condition<const CC: u8>(status: Status) -> bool {
    let s = status.0;
    let less = (s >> 15 ^ s) & 1 != 0;
    let holds = match CC >> 1 {
        0 => s & 1 != 0,
        1 => s & 0x0100 != 0,
        2 => s & 0x4000 != 0,
        3 => s & 0x4100 != 0,
        4 => s & 0x8000 != 0,
        5 => s & 0x0400 != 0,
        6 => less,
        _ => less || s & 0x4000 != 0,
    };
    holds != (CC & 1 != 0)
}
