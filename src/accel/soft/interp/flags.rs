//! Instructions on flags.

use iced_x86::{Code, Instruction};

use super::super::cpu::{Cpu, Flow, Status, Step, gpr, rflags};
use super::super::op::{Handler, Op};

/// The carry flag in [`Status`].
const CARRY: u16 = 0x0100;

fn clc(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.status = Status(cpu.status.0 & !CARRY);
    Ok(Flow::Next)
}

fn stc(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.status = Status(cpu.status.0 | CARRY);
    Ok(Flow::Next)
}

fn cmc(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.status = Status(cpu.status.0 ^ CARRY);
    Ok(Flow::Next)
}

fn cld(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.flags &= !rflags::DF;
    Ok(Flow::Next)
}

fn std(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.flags |= rflags::DF;
    Ok(Flow::Next)
}

/// LAHF: [`Status`] is that instruction's format.
fn lahf(cpu: &mut Cpu, _op: &Op) -> Step {
    let ax = cpu.reg16(gpr::RAX as u8) & 0xff | cpu.status.0 & 0xff00;
    cpu.set_reg16(gpr::RAX as u8, ax);
    Ok(Flow::Next)
}

fn sahf(cpu: &mut Cpu, _op: &Op) -> Step {
    let flags = cpu.reg16(gpr::RAX as u8) & 0xd500 | 0x0200;
    cpu.status = Status(flags | cpu.status.0 & 1);
    Ok(Flow::Next)
}

/// SALC: AL is 0 or FFh by the carry flag (AMD64 volume 3, not documented by Intel).
fn salc(cpu: &mut Cpu, _op: &Op) -> Step {
    let value = if cpu.status.cf() { 0xff } else { 0 };
    cpu.set_reg8(gpr::RAX as u8, value);
    Ok(Flow::Next)
}

/// What executes an instruction on flags; `None`: it is not one.
pub fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Clc => clc,
        Code::Stc => stc,
        Code::Cmc => cmc,
        Code::Cld => cld,
        Code::Std => std,
        Code::Lahf => lahf,
        Code::Sahf => sahf,
        Code::Salc => salc,
        _ => return None,
    };
    Some(handler)
}
