//! Software interrupts, IRET, PUSHF, POPF, CLI, STI (Intel SDM volume 2; volume 3, chapter 20 for virtual-8086 mode).

use iced_x86::Mnemonic;

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, rflags, segment};
use super::super::mmu::Value;
use super::super::op::Op;
use super::event::Event;
use super::far::Return;
use super::stack::Stack;
use super::{instruction, operand_size};

/// CR4.VME.
const CR4_VME: u64 = 1 << 0;
/// CR4.PVI.
const CR4_PVI: u64 = 1 << 1;
/// Flags that every IRET and POPF sets.
const ALWAYS: u64 = rflags::STATUS | rflags::TF | rflags::DF | rflags::NT;

/// INT n.
pub(super) fn int_n(cpu: &mut Cpu, op: &Op) -> Step {
    let vector = op.imm as u8;
    if cpu.mode == Mode::Virtual8086 {
        if cpu.cr4 & CR4_VME != 0 && cpu.is_redirected(vector)? {
            let next = cpu.rip_at(op.end());
            return cpu.deliver_redirected(vector, next);
        }
        cpu.check_virtual_iopl()?;
    }
    cpu.software_interrupt(vector, op)
}

/// INT3.
pub(super) fn int3(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.software_interrupt(3, op)
}

/// INTO.
pub(super) fn into(cpu: &mut Cpu, op: &Op) -> Step {
    if !cpu.status.of() {
        return Ok(Flow::Next);
    }
    cpu.software_interrupt(4, op)
}

/// INT1 (ICEBP): a debug exception that leaves DR6 alone; the gate's level does not count.
pub(super) fn int1(cpu: &mut Cpu, op: &Op) -> Step {
    let event = Event { vector: 1, error: None, software: false, return_to: cpu.rip_at(op.end()), resume: false };
    cpu.log_event(&event, cpu.rip_at(u64::from(op.at)));
    let outcome = cpu.deliver(&event);
    cpu.settle(outcome)?;
    cpu.system.step_after = Some(false);
    Ok(Flow::Jump)
}

/// One of BOUND's two bounds, each aligned by itself; the offset of the second wraps with the address size.
fn read_bound<T: Value>(cpu: &mut Cpu, op: &Op, number: u64) -> Result<T, Fault> {
    let cut = op.mem.cut & 63;
    let offset = cpu.effective_address(&op.mem).wrapping_add(number * T::LEN as u64) << cut >> cut;
    cpu.read(op.mem.segment, offset)
}

/// BOUND. The upper bound is not looked at if the index is below the lower one.
pub(super) fn bound(cpu: &mut Cpu, op: &Op) -> Step {
    let outside = if instruction(op).op0_register().size() == 2 {
        let index = cpu.reg16(op.a).cast_signed();
        index < read_bound::<u16>(cpu, op, 0)?.cast_signed() || index > read_bound::<u16>(cpu, op, 1)?.cast_signed()
    } else {
        let index = cpu.reg32(op.a).cast_signed();
        index < read_bound::<u32>(cpu, op, 0)?.cast_signed() || index > read_bound::<u32>(cpu, op, 1)?.cast_signed()
    };
    if outside { Err(cpu.raise(Exception::BR)) } else { Ok(Flow::Next) }
}

/// IRET, IRETD, IRETQ.
pub(super) fn iret(cpu: &mut Cpu, op: &Op) -> Step {
    // Even an IRET that faults ends the blocking of NMIs (SDM volume 3, 6.7.1).
    cpu.system.nmi_blocked = false;
    let size = operand_size(instruction(op));
    match cpu.mode {
        Mode::Real => cpu.iret_real(size)?,
        Mode::Virtual8086 => cpu.iret_virtual(size)?,
        _ if cpu.flags & rflags::NT != 0 => {
            if cpu.is_long() {
                return Err(cpu.raise(Exception::gp(0)));
            }
            let next = cpu.rip_at(op.end());
            cpu.return_from_task(next)?;
        }
        _ => cpu.iret_protected(size)?,
    }
    cpu.shadow = 0;
    Ok(Flow::Jump)
}

impl Cpu {
    fn iopl(&self) -> u8 {
        (self.flags >> 12 & 3) as u8
    }

    /// #GP(0) in virtual-8086 mode with IOPL below 3.
    fn check_virtual_iopl(&mut self) -> Result<(), Fault> {
        if self.iopl() == 3 { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    fn software_interrupt(&mut self, vector: u8, op: &Op) -> Step {
        let return_to = self.rip_at(op.end());
        let event = Event { vector, error: None, software: true, return_to, resume: false };
        self.log_event(&event, self.rip_at(u64::from(op.at)));
        let outcome = self.deliver(&event);
        self.settle(outcome)?;
        self.system.step_after = Some(false);
        Ok(Flow::Jump)
    }

    /// INT n straight to the virtual-8086 program's own handler (SDM volume 3, 20.3.3.4).
    fn deliver_redirected(&mut self, vector: u8, next: u64) -> Step {
        let mut flags = self.rflags() & !(rflags::RF | rflags::VM);
        let independent = self.iopl() == 3;
        if !independent {
            flags = self.virtual_flags(flags);
        }
        self.deliver_vector(next, u64::from(vector) * 4, flags)?;
        self.flags &= !(rflags::TF | rflags::NT | if independent { rflags::IF } else { rflags::VIF });
        self.system.step_after = Some(false);
        Ok(Flow::Jump)
    }

    /// The flags as a program with virtual interrupts sees them: IF is VIF, IOPL is 3.
    fn virtual_flags(&self, flags: u64) -> u64 {
        let interrupts = if self.flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        flags & !rflags::IF | interrupts | rflags::IOPL
    }

    /// Replaces the flags of `mask`; RF is not kept.
    fn change_flags(&mut self, value: u64, mask: u64) {
        let old = self.rflags() & !rflags::RF;
        self.set_rflags(old & !mask | value & mask);
    }

    /// What IRET and POPF may change at level `level`.
    fn changeable(&self, level: u8, size: u8) -> u64 {
        let mut mask = ALWAYS;
        if size != 2 {
            mask |= rflags::AC | rflags::ID;
        }
        if level <= self.iopl() {
            mask |= rflags::IF;
        }
        if level == 0 {
            mask |= rflags::IOPL;
        }
        mask
    }

    /// Takes a virtual program's new IF, or faults where the monitor has to see it (SDM volume 3, 20.3.2).
    fn set_virtual_interrupts(&mut self, flags: u64) -> Result<u64, Fault> {
        let pending = self.flags & rflags::VIP != 0 && flags & rflags::IF != 0;
        if pending || flags & rflags::TF != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(if flags & rflags::IF != 0 { flags | rflags::VIF } else { flags & !rflags::VIF })
    }

    fn iret_real(&mut self, size: u8) -> Result<(), Fault> {
        let mut stack = self.stack();
        let (offset, selector, flags) = self.pop_frame(&mut stack, size)?;
        self.check_real_offset(offset)?;
        let resume = if size == 2 { 0 } else { rflags::RF };
        self.use_stack(&stack);
        self.load_real_code(selector, offset);
        self.change_flags(flags, self.changeable(0, size) | resume);
        Ok(())
    }

    fn pop_frame(&mut self, stack: &mut Stack, size: u8) -> Result<(u64, u16, u64), Fault> {
        let offset = self.pop_from(stack, size)?;
        let selector = self.pop_from(stack, size)? as u16;
        let flags = self.pop_from(stack, size)?;
        Ok((offset, selector, flags))
    }

    fn check_real_offset(&mut self, offset: u64) -> Result<(), Fault> {
        if offset > u64::from(self.segments[segment::CS].loaded.limit) {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(())
    }

    fn load_real_code(&mut self, selector: u16, offset: u64) {
        let code = self.real_segment(segment::CS, selector);
        self.set_segment(segment::CS, code);
        self.rip = offset;
    }

    fn iret_virtual(&mut self, size: u8) -> Result<(), Fault> {
        let independent = self.iopl() == 3;
        if !independent && (self.cr4 & CR4_VME == 0 || size != 2) {
            return Err(self.raise(Exception::gp(0)));
        }
        let mut stack = self.stack();
        let (offset, selector, mut flags) = self.pop_frame(&mut stack, size)?;
        let mut mask = self.changeable(3, size) | if size == 2 { 0 } else { rflags::RF };
        if !independent {
            flags = self.set_virtual_interrupts(flags)?;
            mask |= rflags::VIF;
        }
        self.check_real_offset(offset)?;
        self.use_stack(&stack);
        self.load_real_code(selector, offset);
        self.change_flags(flags, mask);
        Ok(())
    }

    fn iret_protected(&mut self, size: u8) -> Result<(), Fault> {
        let mut stack = self.stack();
        let (offset, selector, flags) = self.pop_frame(&mut stack, size)?;
        let level = self.cpl;
        if size != 2 && flags & rflags::VM != 0 && level == 0 && !self.is_long() {
            return self.return_to_virtual(offset, selector, flags, stack);
        }
        let mut mask = self.changeable(level, size);
        if size != 2 {
            mask |= rflags::RF;
            if level == 0 {
                mask |= rflags::VIF | rflags::VIP;
            }
        }
        self.log_far("iret", selector, offset);
        self.return_interrupt(Return { selector, offset, size, release: 0 }, stack)?;
        self.change_flags(flags, mask);
        Ok(())
    }

    /// IRETD to virtual-8086 mode (SDM volume 3, 20.2.5).
    fn return_to_virtual(&mut self, offset: u64, code: u16, flags: u64, mut stack: Stack) -> Result<(), Fault> {
        let pointer = self.pop_from(&mut stack, 4)?;
        let stack_selector = self.pop_from(&mut stack, 4)? as u16;
        let mut selectors = [(segment::ES, 0), (segment::DS, 0), (segment::FS, 0), (segment::GS, 0)];
        for (_, selector) in &mut selectors {
            *selector = self.pop_from(&mut stack, 4)? as u16;
        }
        if offset > 0xffff {
            return Err(self.raise(Exception::gp(0)));
        }
        self.change_flags(flags, 0x3f_7fd5);
        for (number, selector) in selectors.into_iter().chain([(segment::CS, code), (segment::SS, stack_selector)]) {
            let base = u64::from(selector) << 4;
            self.segments[number].loaded = Segment { selector, base, limit: 0xffff, attributes: 0xf3 };
        }
        self.gpr[super::super::cpu::gpr::RSP] = pointer;
        self.rip = offset;
        self.mode_changed();
        Ok(())
    }
}

/// PUSHF, PUSHFD, PUSHFQ.
pub(super) fn pushf(cpu: &mut Cpu, op: &Op) -> Step {
    let size = operand_size(instruction(op));
    let mut flags = cpu.rflags() & !(rflags::RF | rflags::VM);
    if cpu.mode == Mode::Virtual8086 && cpu.iopl() < 3 {
        if cpu.cr4 & CR4_VME == 0 || size != 2 {
            return Err(cpu.raise(Exception::gp(0)));
        }
        flags = cpu.virtual_flags(flags);
    }
    let mut stack = cpu.stack();
    cpu.push_to(&mut stack, size, flags)?;
    cpu.use_stack(&stack);
    Ok(Flow::Next)
}

/// POPF, POPFD, POPFQ.
pub(super) fn popf(cpu: &mut Cpu, op: &Op) -> Step {
    let size = operand_size(instruction(op));
    let virtual_interrupts = cpu.mode == Mode::Virtual8086 && cpu.iopl() < 3;
    if virtual_interrupts && (cpu.cr4 & CR4_VME == 0 || size != 2) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let mut stack = cpu.stack();
    let mut flags = cpu.pop_from(&mut stack, size)?;
    let mut mask = cpu.changeable(cpu.cpl, size);
    if virtual_interrupts {
        flags = cpu.set_virtual_interrupts(flags)?;
        mask |= rflags::VIF;
    }
    cpu.use_stack(&stack);
    cpu.change_flags(flags, mask);
    Ok(Flow::End)
}

/// What CLI and STI change.
enum Gate {
    /// IF.
    Real,
    /// VIF.
    Virtual,
}

impl Cpu {
    /// Which flag CLI and STI change (SDM volume 2, CLI, table 3-7).
    fn interrupt_flag(&mut self) -> Result<Gate, Fault> {
        let allowed = match self.mode {
            Mode::Real => true,
            Mode::Virtual8086 => self.iopl() == 3,
            _ => self.cpl <= self.iopl(),
        };
        let extension = if self.mode == Mode::Virtual8086 { CR4_VME } else { CR4_PVI };
        match (allowed, self.cpl == 3 && self.cr4 & extension != 0) {
            (true, _) => Ok(Gate::Real),
            (false, true) => Ok(Gate::Virtual),
            (false, false) => Err(self.raise(Exception::gp(0))),
        }
    }
}

/// CLI and STI. STI holds interrupts back for one more instruction.
pub(super) fn cli_sti(cpu: &mut Cpu, op: &Op) -> Step {
    let set = instruction(op).mnemonic() == Mnemonic::Sti;
    let flag = match cpu.interrupt_flag()? {
        Gate::Real => rflags::IF,
        Gate::Virtual if set && cpu.flags & rflags::VIP != 0 => return Err(cpu.raise(Exception::gp(0))),
        Gate::Virtual => rflags::VIF,
    };
    if set && flag == rflags::IF && cpu.flags & rflags::IF == 0 {
        cpu.shadow |= 2;
    }
    cpu.flags = if set { cpu.flags | flag } else { cpu.flags & !flag };
    Ok(Flow::End)
}
