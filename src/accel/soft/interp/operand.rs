//! Operands: registers or memory, chosen when the handler is.

use super::super::cpu::{Cpu, Fault, Flow, Step};
use super::super::mmu::Value;
use super::super::op::Op;
use super::alu::Int;

/// Picks `handler::<uN, ..>` for an operand size in bytes; `None` for other sizes.
macro_rules! by_size {
    ($size:expr, $handler:ident $(, $generic:tt)*) => {
        match $size {
            1 => Some($handler::<u8 $(, $generic)*> as $crate::accel::soft::op::Handler),
            2 => Some($handler::<u16 $(, $generic)*> as $crate::accel::soft::op::Handler),
            4 => Some($handler::<u32 $(, $generic)*> as $crate::accel::soft::op::Handler),
            8 => Some($handler::<u64 $(, $generic)*> as $crate::accel::soft::op::Handler),
            _ => None,
        }
    };
}

/// As `by_size`, for instructions without a form for bytes.
macro_rules! by_wide_size {
    ($size:expr, $handler:ident $(, $generic:tt)*) => {
        match $size {
            2 => Some($handler::<u16 $(, $generic)*> as $crate::accel::soft::op::Handler),
            4 => Some($handler::<u32 $(, $generic)*> as $crate::accel::soft::op::Handler),
            8 => Some($handler::<u64 $(, $generic)*> as $crate::accel::soft::op::Handler),
            _ => None,
        }
    };
}

/// As `by_size`, for instructions with 32- and 64-bit forms only.
macro_rules! by_long_size {
    ($size:expr, $handler:ident $(, $generic:tt)*) => {
        match $size {
            4 => Some($handler::<u32 $(, $generic)*> as $crate::accel::soft::op::Handler),
            8 => Some($handler::<u64 $(, $generic)*> as $crate::accel::soft::op::Handler),
            _ => None,
        }
    };
}

pub(super) use by_long_size;
pub(super) use by_size;
pub(super) use by_wide_size;

/// What follows an instruction that wrote memory: the block ends if its own code may have changed.
#[inline(always)]
pub fn stored(cpu: &Cpu) -> Step {
    if cpu.mmu.events == 0 { Ok(Flow::Next) } else { Ok(Flow::End) }
}

/// Reads the memory operand.
#[inline(always)]
pub fn load<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<T, Fault> {
    let address = cpu.effective_address(&op.mem);
    cpu.read(op.mem.segment, address)
}

/// Writes the memory operand.
#[inline(always)]
pub fn store<T: Value>(cpu: &mut Cpu, op: &Op, value: T) -> Result<(), Fault> {
    let address = cpu.effective_address(&op.mem);
    cpu.write(op.mem.segment, address, value)
}

/// The memory operand if `MEM`, else register `number`.
#[inline(always)]
pub fn source<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op, number: u8) -> Result<T, Fault> {
    if MEM { load(cpu, op) } else { Ok(T::reg(cpu, number)) }
}

/// Replaces the memory operand, atomically with a LOCK prefix; returns the old value.
#[inline(always)]
pub fn update<T: Value>(cpu: &mut Cpu, op: &Op, change: impl FnMut(T) -> T) -> Result<T, Fault> {
    let address = cpu.effective_address(&op.mem);
    if op.prefixes & Op::LOCK != 0 {
        cpu.update::<T, true>(op.mem.segment, address, change)
    } else {
        cpu.update::<T, false>(op.mem.segment, address, change)
    }
}

/// Replaces operand 0: memory if `MEM` (atomically with a LOCK prefix), else register [`Op::a`].
#[inline(always)]
pub fn modify<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op, mut change: impl FnMut(T) -> T) -> Step {
    if MEM {
        update(cpu, op, change)?;
        return stored(cpu);
    }
    change(T::reg(cpu, op.a)).set_reg(cpu, op.a);
    Ok(Flow::Next)
}
