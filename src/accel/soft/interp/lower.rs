//! From iced-x86's decoding to an [`Op`].

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, OpKind, Register};

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Exception, Flow, Step};
use super::super::op::{BLOCK_START, Cold, HIGH_BYTE, Handler, Mem, NO_REGISTER, Op};
use super::super::{system, vector};
use super::{arithmetic, bits, branch, data, decimal, flags, hint, operand, port, shift, stack, string};

/// Code size in bits.
#[must_use]
pub fn bits(mode: Mode) -> u32 {
    match mode {
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 | Mode::Compatibility16 => 16,
        Mode::Protected32 | Mode::Compatibility32 => 32,
        Mode::Long64 => 64,
    }
}

fn undefined(cpu: &mut Cpu, _op: &Op) -> Step {
    Err(cpu.raise(Exception::UD))
}

/// Whether nothing executes an operation.
#[cfg(test)]
pub fn is_undefined(op: &Op) -> bool {
    std::ptr::fn_addr_eq(op.handler, undefined as Handler)
}

/// The number by which [`Op`] names a register.
#[must_use]
pub fn number(register: Register) -> u8 {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => (register as u8 - Register::AH as u8) | HIGH_BYTE,
        // iced numbers byte registers with AH to BH among them.
        _ if register.is_gpr8() => u8::try_from(register.full_register().number()).unwrap_or(0),
        _ => u8::try_from(register.number()).unwrap_or(0),
    }
}

/// The segment register of a memory operand. In 64-bit mode the prefixes of all but FS and GS are ignored, also for which
/// fault an address that is not canonical raises (SDM volume 2, 2.1.1).
#[must_use]
pub fn segment(instruction: &Instruction) -> u8 {
    let named = instruction.memory_segment();
    let ignored =
        instruction.code_size() == iced_x86::CodeSize::Code64 && !matches!(named, Register::FS | Register::GS);
    let register = match instruction.memory_base() {
        _ if !ignored => named,
        Register::RSP | Register::RBP | Register::ESP | Register::EBP => Register::SS,
        _ => Register::DS,
    };
    u8::try_from(register.number()).unwrap_or(3)
}

fn memory(instruction: &Instruction, at: u16) -> Mem {
    let segment = segment(instruction);
    let scale = u8::try_from(instruction.memory_index_scale().trailing_zeros()).unwrap_or(0);
    let base = instruction.memory_base();
    let index = instruction.memory_index();
    let displacement = instruction.memory_displacement64();
    if base == Register::RIP || base == Register::EIP {
        // iced gives the target as if the instruction were at address 0.
        let cut = if base == Register::EIP { 32 } else { 0 };
        return Mem {
            disp: displacement.wrapping_add(u64::from(at)),
            base: BLOCK_START,
            index: NO_REGISTER,
            scale: 0,
            segment,
            cut,
        };
    }
    let gpr = |register: Register| if register.is_gpr() { number(register) } else { NO_REGISTER };
    let cut = match base.size().max(if index.is_gpr() { index.size() } else { 0 }).max(address_size(instruction)) {
        2 => 48,
        4 => 32,
        _ => 0,
    };
    Mem { disp: displacement, base: gpr(base), index: gpr(index), scale, segment, cut }
}

/// The address size in bytes, as far as the displacement tells it.
fn address_size(instruction: &Instruction) -> usize {
    if instruction.memory_base() != Register::None || instruction.memory_index().is_gpr() {
        return 0;
    }
    match (instruction.memory_displ_size(), instruction.code_size()) {
        (size @ (2 | 4 | 8), _) => size as usize,
        (_, iced_x86::CodeSize::Code16) => 2,
        (_, iced_x86::CodeSize::Code32) => 4,
        _ => 8,
    }
}

/// The handler of a system or vector instruction, and what [`Cold::extra`] is for it.
fn rare(instruction: &Instruction) -> Option<(Handler, u64)> {
    if let Some(handler) = system::handler(instruction) {
        return Some((handler, 0));
    }
    let mut extra = 0;
    vector::handler(instruction, &mut extra).map(|handler| (handler, extra))
}

/// Whether an instruction writes memory, explicitly or not.
fn stores(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let written =
        |access| !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
    factory.info(instruction).used_memory().iter().any(|memory| written(memory.access()))
}

/// Executes an instruction that may store; the block ends if code was hit.
fn storing(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return undefined(cpu, op) };
    match (cold.inner)(cpu, op)? {
        Flow::Next => operand::stored(cpu),
        flow => Ok(flow),
    }
}

/// Lowers an instruction that begins `at` bytes into its block and was decoded at address 0; `bytes` begins with it.
#[must_use]
pub fn lower(instruction: &Instruction, bytes: &[u8; 15], at: u16) -> Op {
    let mut op = Op {
        handler: undefined,
        imm: 0,
        mem: Mem::NONE,
        a: 0,
        b: 0,
        c: 0,
        size: 0,
        at,
        len: u8::try_from(instruction.len()).unwrap_or(15),
        prefixes: 0,
        cold: None,
    };
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::Register => {
                let register = number(instruction.op_register(operand));
                match operand {
                    0 => op.a = register,
                    1 => op.b = register,
                    2 => op.c = register,
                    _ => {}
                }
            }
            OpKind::Memory => op.mem = memory(instruction, at),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = instruction.near_branch_target().wrapping_add(u64::from(at));
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => {}
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => op.imm = instruction.immediate(operand),
            _ => {}
        }
    }
    if instruction.has_lock_prefix() {
        op.prefixes |= Op::LOCK;
    }
    if instruction.has_rep_prefix() {
        op.prefixes |= Op::REP;
    }
    if instruction.has_repne_prefix() {
        op.prefixes |= Op::REPNE;
    }
    if let Some((inner, extra)) = rare(instruction) {
        op.handler = if stores(instruction) { storing } else { inner };
        op.cold = Some(Box::new(Cold { instruction: *instruction, bytes: *bytes, inner, extra }));
        return op;
    }
    op.size = operand_size(instruction);
    if let Some(handler) = integer(instruction, &mut op) {
        op.handler = handler;
    }
    op
}

/// The size in bytes of operand 0.
fn operand_size(instruction: &Instruction) -> u8 {
    let size = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        _ => instruction.memory_size().size(),
    };
    u8::try_from(size).unwrap_or(0)
}

fn integer(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let size = op.size;
    arithmetic::handler(instruction, size)
        .or_else(|| data::handler(instruction, op, size))
        .or_else(|| branch::handler(instruction, op))
        .or_else(|| stack::handler(instruction, op))
        .or_else(|| shift::handler(instruction, size))
        .or_else(|| bits::handler(instruction, size))
        .or_else(|| string::handler(instruction, op))
        .or_else(|| flags::handler(instruction))
        .or_else(|| decimal::handler(instruction))
        .or_else(|| port::handler(instruction))
        .or_else(|| hint::handler(instruction, op, size))
}
