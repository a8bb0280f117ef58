//! Descriptor tables and what looks into them (Intel SDM volume 2: LGDT, LLDT, LTR, LAR, LSL, VERR, ARPL).

use iced_x86::{Code, Mnemonic};

use crate::cpu::{Mode, Table};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, rflags};
use super::super::op::Op;
use super::descriptor::{Descriptor, is_null, kind, null_segment, rpl, selector_error};
use super::instruction;

/// LGDT and LIDT.
pub(super) fn load_table(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_level_0()?;
    let instruction = instruction(op);
    let long = cpu.mode == Mode::Long64;
    let mut bytes = [0; 10];
    let len = if long { 10 } else { 6 };
    let address = cpu.effective_address(&op.mem);
    cpu.read_bytes(op.mem.segment, address, &mut bytes[..len])?;
    let [l0, l1, base @ ..] = bytes;
    let mut base = u64::from_le_bytes(base);
    if matches!(instruction.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base &= 0xff_ffff;
    }
    if long && !cpu.is_canonical(base) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let table = Table { base, limit: u16::from_le_bytes([l0, l1]) };
    if instruction.mnemonic() == Mnemonic::Lgdt {
        cpu.gdtr = table
    } else {
        cpu.idtr = table
    }
    Ok(Flow::Next)
}

/// SGDT and SIDT. Whatever the operand size, processors store all 32 bits of the base.
pub(super) fn store_table(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_umip()?;
    let table = if instruction(op).mnemonic() == Mnemonic::Sgdt { cpu.gdtr } else { cpu.idtr };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    let len = if cpu.mode == Mode::Long64 { 10 } else { 6 };
    let address = cpu.effective_address(&op.mem);
    cpu.write_bytes(op.mem.segment, address, &bytes[..len])?;
    Ok(Flow::Next)
}

/// The descriptor that LLDT or LTR loads.
fn system_descriptor(cpu: &mut Cpu, selector: u16, kinds: &[u32]) -> Result<Descriptor, Fault> {
    let error = selector_error(selector);
    if selector & 4 != 0 {
        return Err(cpu.raise(Exception::gp(error)));
    }
    let descriptor = cpu.descriptor(selector, Exception::gp)?;
    if !descriptor.is_system(kinds) || cpu.is_long() && !cpu.is_canonical(descriptor.base()) {
        return Err(cpu.raise(Exception::gp(error)));
    }
    if !descriptor.is_present() {
        return Err(cpu.raise(Exception::np(error)));
    }
    Ok(descriptor)
}

/// LLDT.
pub(super) fn lldt(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    cpu.require_level_0()?;
    let selector = cpu.operand16(op, 0)?;
    cpu.ldtr = if is_null(selector) {
        null_segment(selector, 0)
    } else {
        system_descriptor(cpu, selector, &[kind::LDT])?.segment(selector)
    };
    Ok(Flow::Next)
}

/// LTR.
pub(super) fn ltr(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    cpu.require_level_0()?;
    let selector = cpu.operand16(op, 0)?;
    if is_null(selector) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let kinds = [kind::TSS32, kind::TSS16];
    let kinds = if cpu.is_long() { &kinds[..1] } else { &kinds[..] };
    let descriptor = system_descriptor(cpu, selector, kinds)?;
    cpu.mark_busy(selector, true)?;
    cpu.tr = descriptor.segment(selector);
    cpu.tr.attributes |= kind::BUSY;
    Ok(Flow::Next)
}

/// SLDT and STR.
pub(super) fn store_selector(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let register = if instruction(op).mnemonic() == Mnemonic::Sldt { &cpu.ldtr } else { &cpu.tr };
    cpu.store_word(op, u64::from(register.selector))?;
    Ok(Flow::Next)
}

fn set_zero_flag(cpu: &mut Cpu, zero: bool) {
    let flags = cpu.rflags() & !rflags::ZF;
    cpu.set_rflags(if zero { flags | rflags::ZF } else { flags });
}

/// A descriptor that the program may see; system descriptors only of `kinds`.
fn visible(cpu: &mut Cpu, selector: u16, kinds: &[u32]) -> Result<Option<Descriptor>, Fault> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(descriptor) = cpu.find_descriptor(selector)? else { return Ok(None) };
    let known = descriptor.is_application() || descriptor.is_system(kinds);
    let allowed = descriptor.is_conforming() || descriptor.dpl() >= cpu.cpl.max(rpl(selector));
    Ok((known && allowed).then_some(descriptor))
}

/// The destination of LAR and LSL.
fn answer(cpu: &mut Cpu, op: &Op, value: Option<u32>) -> Step {
    if let Some(value) = value {
        match instruction(op).op0_register().size() {
            2 => cpu.set_reg16(op.a, value as u16),
            _ => cpu.set_reg32(op.a, value),
        }
    }
    set_zero_flag(cpu, value.is_some());
    Ok(Flow::Next)
}

/// LAR.
pub(super) fn lar(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    let selector = cpu.operand16(op, 1)?;
    let kinds = [
        kind::LDT,
        kind::TSS32,
        kind::TSS32_BUSY,
        kind::CALL32,
        kind::TSS16,
        kind::TSS16_BUSY,
        kind::CALL16,
        kind::TASK,
    ];
    let kinds = if cpu.is_long() { &kinds[..4] } else { &kinds[..] };
    let found = visible(cpu, selector, kinds)?;
    answer(cpu, op, found.map(|descriptor| (descriptor.low >> 32) as u32 & 0xff_ff00))
}

/// LSL.
pub(super) fn lsl(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    let selector = cpu.operand16(op, 1)?;
    let kinds = [kind::LDT, kind::TSS32, kind::TSS32_BUSY, kind::TSS16, kind::TSS16_BUSY];
    let kinds = if cpu.is_long() { &kinds[..3] } else { &kinds[..] };
    let found = visible(cpu, selector, kinds)?;
    answer(cpu, op, found.map(Descriptor::limit))
}

/// VERR and VERW.
pub(super) fn verify(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    let selector = cpu.operand16(op, 0)?;
    let write = instruction(op).mnemonic() == Mnemonic::Verw;
    let found = visible(cpu, selector, &[])?;
    let good = found.is_some_and(|d| if write { d.is_writable() } else { d.is_readable() });
    set_zero_flag(cpu, good);
    Ok(Flow::Next)
}

/// ARPL.
pub(super) fn arpl(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_protected()?;
    let level = cpu.reg16(op.b) & 3;
    let raise = |selector: u16| if selector & 3 < level { selector & !3 | level } else { selector };
    let old = if instruction(op).op0_kind() == iced_x86::OpKind::Register {
        let old = cpu.reg16(op.a);
        cpu.set_reg16(op.a, raise(old));
        old
    } else {
        let address = cpu.effective_address(&op.mem);
        let old: u16 = cpu.read(op.mem.segment, address)?;
        if raise(old) != old {
            cpu.write(op.mem.segment, address, raise(old))?;
        }
        old
    };
    set_zero_flag(cpu, old & 3 < level);
    Ok(Flow::Next)
}
