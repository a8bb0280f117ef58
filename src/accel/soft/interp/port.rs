//! IN and OUT.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Flow, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::Int;
use crate::bus::Width;

const RAX: u8 = gpr::RAX as u8;

/// The width of a port access of `T`.
pub fn width<T: Int>() -> Width {
    match T::LEN {
        1 => Width::B1,
        2 => Width::B2,
        _ => Width::B4,
    }
}

fn port<const DX: bool>(cpu: &Cpu, op: &Op) -> u16 {
    if DX { cpu.reg16(gpr::RDX as u8) } else { op.imm as u16 & 0xff }
}

/// The block ends: a device may have changed what the processor sees, and what it waits for.
fn input<T: Int, const DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let port = port::<DX>(cpu, op);
    cpu.check_io(port, T::LEN as u64)?;
    let value = cpu.port_read(port, width::<T>());
    T::truncate(u64::from(value)).set_reg(cpu, RAX);
    Ok(Flow::End)
}

fn output<T: Int, const DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let port = port::<DX>(cpu, op);
    cpu.check_io(port, T::LEN as u64)?;
    let value = T::reg(cpu, RAX).zero_extend();
    cpu.port_write(port, width::<T>(), value as u32);
    Ok(Flow::End)
}

macro_rules! by_port_size {
    ($size:expr, $handler:ident, $dx:expr) => {
        match ($size, $dx) {
            (1, true) => Some($handler::<u8, true> as Handler),
            (2, true) => Some($handler::<u16, true> as Handler),
            (4, true) => Some($handler::<u32, true> as Handler),
            (1, false) => Some($handler::<u8, false> as Handler),
            (2, false) => Some($handler::<u16, false> as Handler),
            (4, false) => Some($handler::<u32, false> as Handler),
            _ => None,
        }
    };
}

/// What executes IN or OUT; `None`: it is neither.
pub fn handler(instruction: &Instruction) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::In => {
            by_port_size!(instruction.op0_register().size(), input, instruction.op1_kind() == OpKind::Register)
        }
        Mnemonic::Out => {
            by_port_size!(instruction.op1_register().size(), output, instruction.op0_kind() == OpKind::Register)
        }
        _ => None,
    }
}
