//! Bit scans and counts, BMI1 and BMI2, CRC32.
//!
//! Where flags are left undefined, the host's instruction decides; a host without it sets the defined flags only.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Flow, Status, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::{Int, Long, Wide};
use super::operand::{by_long_size, by_size, by_wide_size, source};

/// BSF, BSR, TZCNT, LZCNT or POPCNT.
trait Scan {
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status);
}

struct Bsf;
impl Scan for Bsf {
    #[inline(always)]
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status) {
        value.bsf(old, status)
    }
}

struct Bsr;
impl Scan for Bsr {
    #[inline(always)]
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status) {
        value.bsr(old, status)
    }
}

struct Tzcnt;
impl Scan for Tzcnt {
    #[inline(always)]
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status) {
        if is_x86_feature_detected!("bmi1") {
            return value.tzcnt(old, status);
        }
        let value = value.zero_extend();
        counted(value, u64::from(value.trailing_zeros().min(T::BITS)))
    }
}

struct Lzcnt;
impl Scan for Lzcnt {
    #[inline(always)]
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status) {
        if is_x86_feature_detected!("lzcnt") {
            return value.lzcnt(old, status);
        }
        let value = value.zero_extend();
        counted(value, u64::from(value.leading_zeros() + T::BITS - 64))
    }
}

struct Popcnt;
impl Scan for Popcnt {
    #[inline(always)]
    fn apply<T: Wide>(value: T, old: u64, status: Status) -> (u64, Status) {
        if is_x86_feature_detected!("popcnt") {
            return value.popcnt(old, status);
        }
        let value = value.zero_extend();
        (u64::from(value.count_ones()), flags(false, value == 0, false))
    }
}

/// The flags CF, ZF, SF; the others are 0.
fn flags(carry: bool, zero: bool, sign: bool) -> Status {
    Status(0x0200 | u16::from(carry) << 8 | u16::from(zero) << 14 | u16::from(sign) << 15)
}

/// A count of zeros and its flags.
fn counted(value: u64, count: u64) -> (u64, Status) {
    (count, flags(value == 0, count == 0, false))
}

fn scan<T: Wide, O: Scan, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    let old = cpu.reg64(op.a);
    let (result, status) = O::apply(value, old, cpu.status);
    cpu.status = status;
    if T::BITS == 16 {
        cpu.set_reg16(op.a, result as u16);
    } else {
        cpu.set_reg64(op.a, result);
    }
    Ok(Flow::Next)
}

/// Sets the result and the flags of a logical instruction; `carry` as given.
fn logical<T: Int>(result: u64, carry: bool) -> (T, Status) {
    let result = T::truncate(result);
    (result, flags(carry, result.zero_extend() == 0, result.sign_extend() >> 63 != 0))
}

fn low_mask(bits: u64) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// ANDN, BEXTR and BZHI without the host's help.
fn andn_software<T: Long>(a: T, b: T) -> (T, Status) {
    logical(!a.zero_extend() & b.zero_extend(), false)
}

fn bextr_software<T: Long>(value: T, control: T) -> (T, Status) {
    let (start, length) = (control.zero_extend() & 0xff, control.zero_extend() >> 8 & 0xff);
    let shifted = if start >= 64 { 0 } else { value.zero_extend() >> start };
    logical(shifted & low_mask(length), false)
}

fn bzhi_software<T: Long>(value: T, index: T) -> (T, Status) {
    let index = index.zero_extend() & 0xff;
    logical(value.zero_extend() & low_mask(index), index >= u64::from(T::BITS))
}

fn andn<T: Long, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = source::<T, MEM>(cpu, op, op.c)?;
    let a = T::reg(cpu, op.b);
    let native = is_x86_feature_detected!("bmi1");
    let (result, status) = if native { a.andn(b, cpu.status) } else { andn_software(a, b) };
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

fn bextr<T: Long, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    let control = T::reg(cpu, op.c);
    let native = is_x86_feature_detected!("bmi1");
    let (result, status) = if native { value.bextr(control, cpu.status) } else { bextr_software(value, control) };
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

fn bzhi<T: Long, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    let index = T::reg(cpu, op.c);
    let native = is_x86_feature_detected!("bmi2");
    let (result, status) = if native { value.bzhi(index, cpu.status) } else { bzhi_software(value, index) };
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

/// BLSI (`KIND` 0), BLSR (1), BLSMSK (2).
fn lowest_bit<T: Long, const KIND: u8, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    let (result, status) = if is_x86_feature_detected!("bmi1") {
        match KIND {
            0 => value.blsi(cpu.status),
            1 => value.blsr(cpu.status),
            _ => value.blsmsk(cpu.status),
        }
    } else {
        let wide = value.zero_extend();
        match KIND {
            0 => logical(wide & wide.wrapping_neg(), wide != 0),
            1 => logical(wide & wide.wrapping_sub(1), wide == 0),
            _ => logical(wide ^ wide.wrapping_sub(1), wide == 0),
        }
    };
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

/// MULX: the high half goes to operand 0, which wins if both are the same register.
fn mulx<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let a = source::<T, MEM>(cpu, op, op.c)?.zero_extend();
    let b = T::reg(cpu, gpr::RDX as u8).zero_extend();
    let product = u128::from(a) * u128::from(b);
    T::truncate(product as u64).set_reg(cpu, op.b);
    T::truncate((product >> T::BITS) as u64).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// PDEP: the low bits of `value` go where `mask` has ones.
fn deposit(value: u64, mut mask: u64) -> u64 {
    let (mut result, mut next) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if value >> next & 1 != 0 {
            result |= lowest;
        }
        next += 1;
        mask ^= lowest;
    }
    result
}

/// PEXT: the bits of `value` where `mask` has ones.
fn extract(value: u64, mut mask: u64) -> u64 {
    let (mut result, mut next) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= u64::from(value & lowest != 0) << next;
        next += 1;
        mask ^= lowest;
    }
    result
}

fn scatter<T: Int, const EXTRACT: bool, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let mask = source::<T, MEM>(cpu, op, op.c)?.zero_extend();
    let value = T::reg(cpu, op.b).zero_extend();
    T::truncate(if EXTRACT { extract(value, mask) } else { deposit(value, mask) }).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// RORX: the count is the immediate.
fn rorx<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    value.ror(op.imm as u8, Status::CLEAR).0.set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// SHLX (`KIND` 0), SHRX (1), SARX (2): the count is a register.
fn shift_by_register<T: Int, const KIND: u8, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?;
    let count = T::reg(cpu, op.c).zero_extend() as u8;
    let (result, _) = match KIND {
        0 => value.shl(count, Status::CLEAR),
        1 => value.shr(count, Status::CLEAR),
        _ => value.sar(count, Status::CLEAR),
    };
    result.set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// CRC32 with the polynomial 11EDC6F41h, reflected (SDM volume 2, CRC32).
fn crc32<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, MEM>(cpu, op, op.b)?.zero_extend();
    let mut crc = cpu.reg32(op.a);
    for byte in 0..T::LEN {
        crc ^= (value >> (8 * byte)) as u8 as u32;
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    cpu.set_reg32(op.a, crc);
    Ok(Flow::Next)
}

/// What executes an instruction on bits; `None`: it is not one.
pub fn handler(instruction: &Instruction, size: u8) -> Option<Handler> {
    let memory = (1..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    macro_rules! pick {
        ($by:ident, $size:expr, $handler:ident $(, $generic:tt)*) => {
            if memory { $by!($size, $handler $(, $generic)*, true) } else { $by!($size, $handler $(, $generic)*, false) }
        };
    }
    match instruction.mnemonic() {
        Mnemonic::Bsf => pick!(by_wide_size, size, scan, Bsf),
        Mnemonic::Bsr => pick!(by_wide_size, size, scan, Bsr),
        Mnemonic::Tzcnt => pick!(by_wide_size, size, scan, Tzcnt),
        Mnemonic::Lzcnt => pick!(by_wide_size, size, scan, Lzcnt),
        Mnemonic::Popcnt => pick!(by_wide_size, size, scan, Popcnt),
        Mnemonic::Andn => pick!(by_long_size, size, andn),
        Mnemonic::Bextr if size >= 4 => pick!(by_long_size, size, bextr),
        Mnemonic::Bzhi => pick!(by_long_size, size, bzhi),
        Mnemonic::Blsi => pick!(by_long_size, size, lowest_bit, 0),
        Mnemonic::Blsr => pick!(by_long_size, size, lowest_bit, 1),
        Mnemonic::Blsmsk => pick!(by_long_size, size, lowest_bit, 2),
        Mnemonic::Mulx => pick!(by_long_size, size, mulx),
        Mnemonic::Pdep => pick!(by_long_size, size, scatter, false),
        Mnemonic::Pext => pick!(by_long_size, size, scatter, true),
        Mnemonic::Rorx => pick!(by_long_size, size, rorx),
        Mnemonic::Shlx => pick!(by_long_size, size, shift_by_register, 0),
        Mnemonic::Shrx => pick!(by_long_size, size, shift_by_register, 1),
        Mnemonic::Sarx => pick!(by_long_size, size, shift_by_register, 2),
        Mnemonic::Crc32 => {
            let from = if memory { instruction.memory_size().size() } else { instruction.op1_register().size() };
            pick!(by_size, from, crc32)
        }
        _ => None,
    }
}
