//! Shifts, rotates, and single bits.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Flow, Status, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::{Int, Wide};
use super::operand::{by_size, by_wide_size, modify, stored};

/// A shift or rotate.
trait Shift {
    fn apply<T: Int>(a: T, count: u8, status: Status) -> (T, Status);
}

macro_rules! shift {
    ($($name:ident $method:ident;)*) => {$(
        struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn apply<T: Int>(a: T, count: u8, status: Status) -> (T, Status) {
                a.$method(count, status)
            }
        }
    )*};
}

shift! {
    Rol rol;
    Ror ror;
    Rcl rcl;
    Rcr rcr;
    Shl shl;
    Shr shr;
    Sar sar;
}

#[inline(always)]
fn count<const CL: bool>(cpu: &Cpu, op: &Op) -> u8 {
    if CL { cpu.reg8(gpr::RCX as u8) } else { op.imm as u8 }
}

fn shift<T: Int, O: Shift, const CL: bool, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let count = count::<CL>(cpu, op);
    let before = cpu.status;
    let mut after = before;
    let flow = modify::<T, MEM>(cpu, op, |a| {
        let (result, status) = O::apply(a, count, before);
        after = status;
        result
    })?;
    cpu.status = after;
    Ok(flow)
}

fn double_shift<T: Wide, const RIGHT: bool, const CL: bool, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let count = count::<CL>(cpu, op);
    let other = T::reg(cpu, op.b);
    let before = cpu.status;
    let mut after = before;
    let flow = modify::<T, MEM>(cpu, op, |a| {
        let (result, status) = if RIGHT { a.shrd(other, count, before) } else { a.shld(other, count, before) };
        after = status;
        result
    })?;
    cpu.status = after;
    Ok(flow)
}

/// BT, BTS, BTR or BTC.
trait Bit {
    const WRITES: bool = true;
    fn apply<T: Wide>(a: T, bit: T, status: Status) -> (T, Status);
}

macro_rules! bit {
    ($($name:ident $method:ident $writes:literal;)*) => {$(
        struct $name;
        impl Bit for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Wide>(a: T, bit: T, status: Status) -> (T, Status) {
                a.$method(bit, status)
            }
        }
    )*};
}

bit! {
    Bt bt false;
    Bts bts true;
    Btr btr true;
    Btc btc true;
}

fn bit_register<T: Wide, O: Bit, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let bit = if IMM { T::truncate(op.imm) } else { T::reg(cpu, op.b) };
    let (result, status) = O::apply(T::reg(cpu, op.a), bit, cpu.status);
    cpu.status = status;
    if O::WRITES {
        result.set_reg(cpu, op.a);
    }
    Ok(Flow::Next)
}

/// A bit number in a register is signed and reaches beyond the operand (SDM volume 1, 3.1.1.9 "Bit(BitBase, BitOffset)").
fn bit_memory<T: Wide, O: Bit, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let mut address = cpu.effective_address(&op.mem);
    let mut bit = T::truncate(op.imm);
    if !IMM {
        bit = T::reg(cpu, op.b);
        let unit = (bit.sign_extend() as i64) >> T::BITS.trailing_zeros();
        let sum = address.wrapping_add((unit as u64).wrapping_mul(T::LEN as u64));
        address = sum << (op.mem.cut & 63) >> (op.mem.cut & 63);
    }
    // The host's instruction takes the bit number modulo the width when the operand is a register.
    let before = cpu.status;
    let mut after = before;
    if !O::WRITES {
        let a = cpu.read::<T>(op.mem.segment, address)?;
        cpu.status = O::apply(a, bit, before).1;
        return Ok(Flow::Next);
    }
    let change = |a| {
        let (result, status) = O::apply(a, bit, before);
        after = status;
        result
    };
    if op.prefixes & Op::LOCK != 0 {
        cpu.update::<T, true>(op.mem.segment, address, change)?;
    } else {
        cpu.update::<T, false>(op.mem.segment, address, change)?;
    }
    cpu.status = after;
    stored(cpu)
}

/// What executes a shift, rotate or bit test with operands of `size` bytes; `None`: it is not one.
pub fn handler(instruction: &Instruction, size: u8) -> Option<Handler> {
    let memory = instruction.op0_kind() == OpKind::Memory;
    let last = instruction.op_kind(instruction.op_count().saturating_sub(1));
    let by_register = last == OpKind::Register;
    macro_rules! pick {
        ($by:ident, $handler:ident, $operation:tt) => {
            match (by_register, memory) {
                (true, true) => $by!(size, $handler, $operation, true, true),
                (true, false) => $by!(size, $handler, $operation, true, false),
                (false, true) => $by!(size, $handler, $operation, false, true),
                (false, false) => $by!(size, $handler, $operation, false, false),
            }
        };
    }
    macro_rules! bits {
        ($operation:tt) => {
            match (by_register, memory) {
                (true, true) => by_wide_size!(size, bit_memory, $operation, false),
                (true, false) => by_wide_size!(size, bit_register, $operation, false),
                (false, true) => by_wide_size!(size, bit_memory, $operation, true),
                (false, false) => by_wide_size!(size, bit_register, $operation, true),
            }
        };
    }
    match instruction.mnemonic() {
        Mnemonic::Rol => pick!(by_size, shift, Rol),
        Mnemonic::Ror => pick!(by_size, shift, Ror),
        Mnemonic::Rcl => pick!(by_size, shift, Rcl),
        Mnemonic::Rcr => pick!(by_size, shift, Rcr),
        Mnemonic::Shl | Mnemonic::Sal => pick!(by_size, shift, Shl),
        Mnemonic::Shr => pick!(by_size, shift, Shr),
        Mnemonic::Sar => pick!(by_size, shift, Sar),
        Mnemonic::Shld => pick!(by_wide_size, double_shift, false),
        Mnemonic::Shrd => pick!(by_wide_size, double_shift, true),
        Mnemonic::Bt => bits!(Bt),
        Mnemonic::Bts => bits!(Bts),
        Mnemonic::Btr => bits!(Btr),
        Mnemonic::Btc => bits!(Btc),
        _ => None,
    }
}
