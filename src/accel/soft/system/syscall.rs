//! Fast system calls and the bases of FS and GS (Intel SDM volume 2: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS,
//! RDFSBASE; AMD APM volume 2, 6.1 for the differences).

use iced_x86::Mnemonic;

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, attributes, gpr, rflags, segment};
use super::super::op::Op;
use super::control::{cr4, efer};
use super::instruction;

/// How a flat code segment is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CodeSize {
    Bits32,
    Bits64,
}

/// A flat code segment: execute/read, accessed, present.
fn flat_code(selector: u16, level: u8, size: CodeSize) -> Segment {
    let bits = if size == CodeSize::Bits64 { attributes::LONG } else { attributes::BIG };
    let attributes = 0x9b | u32::from(level) << 5 | bits | attributes::GRANULARITY;
    Segment { selector: selector & !3 | u16::from(level), base: 0, limit: u32::MAX, attributes }
}

/// A flat stack segment: read/write, accessed, present.
fn flat_stack(selector: u16, level: u8) -> Segment {
    let attributes = 0x93 | u32::from(level) << 5 | attributes::BIG | attributes::GRANULARITY;
    Segment { selector: selector & !3 | u16::from(level), base: 0, limit: u32::MAX, attributes }
}

impl Cpu {
    fn enter_flat(&mut self, code: Segment, stack: Segment, rip: u64) {
        self.segments[segment::CS].loaded = code;
        self.segments[segment::SS].loaded = stack;
        self.mode_changed();
        self.rip = rip;
        // Whether a single-step trap follows is for the new TF to say.
        self.system.step_after = Some(self.flags & rflags::TF != 0);
    }
}

/// SYSCALL. Intel's processors have it in 64-bit mode only.
pub(super) fn syscall(cpu: &mut Cpu, op: &Op) -> Step {
    let here = match cpu.mode {
        Mode::Long64 => true,
        Mode::Real | Mode::Virtual8086 => false,
        _ => cpu.is_amd(),
    };
    if !here || cpu.efer & efer::SCE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    let next = cpu.rip_at(op.end());
    let selector = (cpu.system.star >> 32) as u16;
    cpu.gpr[gpr::RCX] = next;
    let (target, size) = if cpu.is_long() {
        cpu.gpr[11] = cpu.rflags() & !rflags::RF;
        let target = if cpu.mode == Mode::Long64 { cpu.system.lstar } else { cpu.system.cstar };
        let kept = cpu.rflags() & !(cpu.system.fmask | rflags::RF);
        cpu.set_rflags(kept);
        (target, CodeSize::Bits64)
    } else {
        cpu.flags &= !(rflags::IF | rflags::RF | rflags::VM);
        (cpu.system.star & 0xffff_ffff, CodeSize::Bits32)
    };
    cpu.enter_flat(flat_code(selector, 0, size), flat_stack((selector & !3).wrapping_add(8), 0), target);
    Ok(Flow::Jump)
}

/// SYSRET.
pub(super) fn sysret(cpu: &mut Cpu, op: &Op) -> Step {
    let long = cpu.mode == Mode::Long64;
    let here = long || cpu.is_amd() && !matches!(cpu.mode, Mode::Real | Mode::Virtual8086);
    if !here || cpu.efer & efer::SCE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    cpu.require_level_0()?;
    let to_64 = instruction(op).mnemonic() == Mnemonic::Sysretq;
    let selector = (cpu.system.star >> 48) as u16;
    let target = cpu.gpr[gpr::RCX];
    // On AMD's processors the fetch at level 3 faults instead.
    if to_64 && !cpu.is_amd() && !cpu.is_canonical(target) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let (code, target) = if to_64 {
        (flat_code(selector.wrapping_add(16), 3, CodeSize::Bits64), target)
    } else {
        (flat_code(selector, 3, CodeSize::Bits32), target & 0xffff_ffff)
    };
    if cpu.is_long() {
        let flags = cpu.gpr[11];
        cpu.set_rflags(flags & 0x3c_7fd7);
    } else {
        cpu.flags |= rflags::IF;
    }
    cpu.enter_flat(code, flat_stack(selector.wrapping_add(8), 3), target);
    Ok(Flow::Jump)
}

/// SYSENTER. AMD's processors have it outside long mode only.
pub(super) fn sysenter(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_feature("sep")?;
    if cpu.is_amd() && cpu.is_long() {
        return Err(cpu.raise(Exception::UD));
    }
    let selector = cpu.system.sysenter_cs as u16 & !3;
    if cpu.mode == Mode::Real || selector == 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.flags &= !(rflags::VM | rflags::IF | rflags::RF);
    let (size, mask) = if cpu.is_long() { (CodeSize::Bits64, u64::MAX) } else { (CodeSize::Bits32, 0xffff_ffff) };
    cpu.gpr[gpr::RSP] = cpu.system.sysenter_esp & mask;
    let target = cpu.system.sysenter_eip & mask;
    cpu.enter_flat(flat_code(selector, 0, size), flat_stack(selector.wrapping_add(8), 0), target);
    Ok(Flow::Jump)
}

/// SYSEXIT.
pub(super) fn sysexit(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_feature("sep")?;
    if cpu.is_amd() && cpu.is_long() {
        return Err(cpu.raise(Exception::UD));
    }
    let selector = cpu.system.sysenter_cs as u16 & !3;
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) || selector == 0 || cpu.cpl != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let (target, pointer) = (cpu.gpr[gpr::RDX], cpu.gpr[gpr::RCX]);
    let to_64 = instruction(op).mnemonic() == Mnemonic::Sysexitq;
    if to_64 && !(cpu.is_canonical(target) && cpu.is_canonical(pointer)) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let (offset, size, mask) =
        if to_64 { (32, CodeSize::Bits64, u64::MAX) } else { (16, CodeSize::Bits32, 0xffff_ffff) };
    cpu.gpr[gpr::RSP] = pointer & mask;
    let code = selector.wrapping_add(offset);
    cpu.enter_flat(flat_code(code, 3, size), flat_stack(code.wrapping_add(8), 3), target & mask);
    Ok(Flow::Jump)
}

/// SWAPGS.
pub(super) fn swapgs(cpu: &mut Cpu, _op: &Op) -> Step {
    if cpu.mode != Mode::Long64 {
        return Err(cpu.raise(Exception::UD));
    }
    cpu.require_level_0()?;
    let base = &mut cpu.segments[segment::GS].loaded.base;
    std::mem::swap(base, &mut cpu.system.kernel_gs_base);
    cpu.segment_changed(segment::GS);
    Ok(Flow::Next)
}

fn check_base_access(cpu: &mut Cpu) -> Result<(), Fault> {
    if cpu.mode != Mode::Long64 || cpu.cr4 & cr4::FSGSBASE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    Ok(())
}

/// RDFSBASE and RDGSBASE.
pub(super) fn read_base(cpu: &mut Cpu, op: &Op) -> Step {
    check_base_access(cpu)?;
    let number = if instruction(op).mnemonic() == Mnemonic::Rdfsbase { segment::FS } else { segment::GS };
    let base = cpu.segments[number].loaded.base;
    match instruction(op).op0_register().size() {
        4 => cpu.set_reg32(op.a, base as u32),
        _ => cpu.set_reg64(op.a, base),
    }
    Ok(Flow::Next)
}

/// WRFSBASE and WRGSBASE.
pub(super) fn write_base(cpu: &mut Cpu, op: &Op) -> Step {
    check_base_access(cpu)?;
    let number = if instruction(op).mnemonic() == Mnemonic::Wrfsbase { segment::FS } else { segment::GS };
    let base = match instruction(op).op0_register().size() {
        4 => u64::from(cpu.reg32(op.a)),
        _ => cpu.reg64(op.a),
    };
    if !cpu.is_canonical(base) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.segments[number].loaded.base = base;
    cpu.segment_changed(number);
    Ok(Flow::Next)
}
