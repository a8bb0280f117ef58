//! Decimal arithmetic (SDM volume 2, AAA to DAS). Undefined flags: SF, ZF and PF follow AL, the others are 0 (AAD: those of its
//! addition).

use iced_x86::{Instruction, Mnemonic};

use super::super::cpu::{Cpu, Exception, Flow, Status, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::Int;

const RAX: u8 = gpr::RAX as u8;
const AH: u8 = RAX | super::super::op::HIGH_BYTE;

/// SF, ZF and PF of `result`, CF and AF as given.
fn set_flags(cpu: &mut Cpu, result: u8, carry: bool, adjust: bool) {
    let (_, status) = result.or(0);
    cpu.status = Status(status.0 & !0x1100 | u16::from(carry) << 8 | u16::from(adjust) << 12);
}

fn daa(cpu: &mut Cpu, _op: &Op) -> Step {
    let (old, carry) = (cpu.reg8(RAX), cpu.status.cf());
    let adjust = old & 15 > 9 || cpu.status.af();
    let high = old > 0x99 || carry;
    let result = old.wrapping_add(if adjust { 6 } else { 0 }).wrapping_add(if high { 0x60 } else { 0 });
    cpu.set_reg8(RAX, result);
    set_flags(cpu, result, high, adjust);
    Ok(Flow::Next)
}

fn das(cpu: &mut Cpu, _op: &Op) -> Step {
    let (old, carry) = (cpu.reg8(RAX), cpu.status.cf());
    let adjust = old & 15 > 9 || cpu.status.af();
    let high = old > 0x99 || carry;
    let result = old.wrapping_sub(if adjust { 6 } else { 0 }).wrapping_sub(if high { 0x60 } else { 0 });
    cpu.set_reg8(RAX, result);
    set_flags(cpu, result, high || adjust && old < 6, adjust);
    Ok(Flow::Next)
}

fn aaa(cpu: &mut Cpu, _op: &Op) -> Step {
    let adjust = cpu.reg8(RAX) & 15 > 9 || cpu.status.af();
    let ax = cpu.reg16(RAX).wrapping_add(if adjust { 0x106 } else { 0 }) & 0xff0f;
    cpu.set_reg16(RAX, ax);
    set_flags(cpu, ax as u8, adjust, adjust);
    Ok(Flow::Next)
}

fn aas(cpu: &mut Cpu, _op: &Op) -> Step {
    let adjust = cpu.reg8(RAX) & 15 > 9 || cpu.status.af();
    let ax = cpu.reg16(RAX).wrapping_sub(if adjust { 0x106 } else { 0 }) & 0xff0f;
    cpu.set_reg16(RAX, ax);
    set_flags(cpu, ax as u8, adjust, adjust);
    Ok(Flow::Next)
}

fn aam(cpu: &mut Cpu, op: &Op) -> Step {
    let (al, base) = (cpu.reg8(RAX), op.imm as u8);
    let Some(quotient) = al.checked_div(base) else { return Err(cpu.raise(Exception::DE)) };
    let remainder = al % base;
    cpu.set_reg16(RAX, u16::from(quotient) << 8 | u16::from(remainder));
    set_flags(cpu, remainder, false, false);
    Ok(Flow::Next)
}

fn aad(cpu: &mut Cpu, op: &Op) -> Step {
    let (result, status) = cpu.reg8(RAX).add(cpu.reg8(AH).wrapping_mul(op.imm as u8));
    cpu.set_reg16(RAX, u16::from(result));
    // Undefined are OF, AF and CF: processors of Intel leave what the addition gives.
    cpu.status = status;
    Ok(Flow::Next)
}

/// What executes a decimal instruction; `None`: it is not one.
pub fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Daa => daa,
        Mnemonic::Das => das,
        Mnemonic::Aaa => aaa,
        Mnemonic::Aas => aas,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        _ => return None,
    };
    Some(handler)
}
