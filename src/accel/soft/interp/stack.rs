//! The stack: PUSH, POP, their families, ENTER and LEAVE.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Fault, Flow, Step, gpr, segment};
use super::super::op::{Handler, Op};
use super::alu::Int;
use super::operand::{by_wide_size, source, stored};

const SS: u8 = segment::SS as u8;
const RSP: u8 = gpr::RSP as u8;

impl Cpu {
    /// The stack pointer, cut to the stack's width, moved by `delta`.
    #[inline(always)]
    fn stack_pointer(&self, delta: u64) -> u64 {
        self.gpr[gpr::RSP].wrapping_add(delta) & self.stack_mask
    }

    /// Replaces the part of RSP that the stack's width covers.
    #[inline(always)]
    fn set_stack_pointer(&mut self, value: u64) {
        if self.stack_mask == 0xffff {
            self.set_reg16(RSP, value as u16);
        } else {
            self.gpr[gpr::RSP] = value & self.stack_mask;
        }
    }

    /// Moves the stack pointer.
    #[inline(always)]
    pub(super) fn add_to_stack_pointer(&mut self, delta: u64) {
        self.set_stack_pointer(self.gpr[gpr::RSP].wrapping_add(delta));
    }
}

/// Pushes a value.
#[inline(always)]
pub fn push_value<T: Int>(cpu: &mut Cpu, value: T) -> Result<(), Fault> {
    let top = cpu.stack_pointer((T::LEN as u64).wrapping_neg());
    cpu.write(SS, top, value)?;
    cpu.set_stack_pointer(top);
    Ok(())
}

/// Pops a value.
#[inline(always)]
pub fn pop_value<T: Int>(cpu: &mut Cpu) -> Result<T, Fault> {
    let top = cpu.stack_pointer(0);
    let value = cpu.read::<T>(SS, top)?;
    cpu.set_stack_pointer(top.wrapping_add(T::LEN as u64));
    Ok(value)
}

fn push_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = T::reg(cpu, op.a);
    push_value(cpu, value)?;
    stored(cpu)
}

fn push_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    push_value(cpu, T::truncate(op.imm))?;
    stored(cpu)
}

fn push_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<T, true>(cpu, op, 0)?;
    push_value(cpu, value)?;
    stored(cpu)
}

fn pop_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    // POP SP leaves what was popped, not the incremented value.
    pop_value::<T>(cpu)?.set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// An address with RSP as base is computed after RSP moved (SDM volume 2, POP).
fn pop_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let stack = cpu.gpr[gpr::RSP];
    let value = pop_value::<T>(cpu)?;
    let address = cpu.effective_address(&op.mem);
    cpu.write(op.mem.segment, address, value).inspect_err(|_| cpu.gpr[gpr::RSP] = stack)?;
    stored(cpu)
}

/// PUSHA: AX CX DX BX SP BP SI DI, the stack pointer as it was before.
fn push_all<T: Int>(cpu: &mut Cpu, _op: &Op) -> Step {
    let stack = cpu.gpr[gpr::RSP];
    for number in 0..8 {
        let value = if number == RSP { T::truncate(stack) } else { T::reg(cpu, number) };
        push_value(cpu, value).inspect_err(|_| cpu.gpr[gpr::RSP] = stack)?;
    }
    stored(cpu)
}

/// POPA: the stored stack pointer is skipped.
fn pop_all<T: Int>(cpu: &mut Cpu, _op: &Op) -> Step {
    let before = cpu.gpr;
    for number in (0..8).rev() {
        let value = pop_value::<T>(cpu).inspect_err(|_| cpu.gpr = before)?;
        if number != RSP {
            value.set_reg(cpu, number);
        }
    }
    Ok(Flow::Next)
}

/// ENTER (SDM volume 2): `imm` bytes of locals in [`Op::imm`], the nesting level in [`Op::c`].
fn enter<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let stack = cpu.gpr[gpr::RSP];
    enter_frame::<T>(cpu, op).inspect_err(|_| cpu.gpr[gpr::RSP] = stack)?;
    stored(cpu)
}

fn enter_frame<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Fault> {
    let frame_pointer = cpu.gpr[gpr::RBP];
    push_value(cpu, T::truncate(frame_pointer))?;
    let frame = cpu.gpr[gpr::RSP];
    let level = op.c & 31;
    for step in 1..level {
        let below = u64::from(step) * T::LEN as u64;
        let value = cpu.read::<T>(SS, frame_pointer.wrapping_sub(below) & cpu.stack_mask)?;
        push_value(cpu, value)?;
    }
    if level > 0 {
        push_value(cpu, T::truncate(frame))?;
    }
    cpu.add_to_stack_pointer((op.imm & 0xffff).wrapping_neg());
    // The new top must be writable; nothing is written (SDM: "#PF if ... the memory accesses of the new top").
    let top = cpu.stack_pointer(0);
    cpu.check_operand_alignment(SS, top, T::LEN)?;
    cpu.probe_write(SS, top, T::LEN as u64)?;
    T::truncate(frame).set_reg(cpu, gpr::RBP as u8);
    Ok(())
}

/// LEAVE.
fn leave<T: Int>(cpu: &mut Cpu, _op: &Op) -> Step {
    let frame = cpu.gpr[gpr::RBP] & cpu.stack_mask;
    let value = cpu.read::<T>(SS, frame)?;
    cpu.set_stack_pointer(frame.wrapping_add(T::LEN as u64));
    value.set_reg(cpu, gpr::RBP as u8);
    Ok(Flow::Next)
}

/// What executes a stack instruction; `None`: it is not one.
pub fn handler(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let size = instruction.stack_pointer_increment().unsigned_abs();
    match instruction.mnemonic() {
        Mnemonic::Push => match instruction.op0_kind() {
            OpKind::Register if instruction.op0_register().is_gpr() => by_wide_size!(size, push_register),
            OpKind::Register => None,
            OpKind::Memory => by_wide_size!(size, push_memory),
            _ => by_wide_size!(size, push_immediate),
        },
        Mnemonic::Pop => match instruction.op0_kind() {
            OpKind::Register if instruction.op0_register().is_gpr() => by_wide_size!(size, pop_register),
            OpKind::Memory => by_wide_size!(size, pop_memory),
            _ => None,
        },
        Mnemonic::Pusha => Some(push_all::<u16>),
        Mnemonic::Pushad => Some(push_all::<u32>),
        Mnemonic::Popa => Some(pop_all::<u16>),
        Mnemonic::Popad => Some(pop_all::<u32>),
        _ => frame_handler(instruction, op),
    }
}

fn frame_handler(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Enterw_imm16_imm8 => enter::<u16>,
        Code::Enterd_imm16_imm8 => enter::<u32>,
        Code::Enterq_imm16_imm8 => enter::<u64>,
        Code::Leavew => leave::<u16>,
        Code::Leaved => leave::<u32>,
        Code::Leaveq => leave::<u64>,
        _ => return None,
    };
    if instruction.mnemonic() == Mnemonic::Enter {
        op.imm = u64::from(instruction.immediate16());
        op.c = instruction.immediate8_2nd();
    }
    Some(handler)
}
