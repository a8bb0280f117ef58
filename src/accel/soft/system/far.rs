//! Far jumps, calls and returns (Intel SDM volume 2: JMP, CALL, RET; volume 3, 5.8).

use iced_x86::{Instruction, OpKind};

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, attributes, gpr, segment};
use super::super::op::Op;
use super::descriptor::{Descriptor, is_null, kind, null_segment, rpl, selector_error};
use super::stack::Stack;
use super::task::Reason;
use super::{instruction, operand_size};

/// Where a far transfer goes.
#[derive(Clone, Copy, Debug)]
struct Target {
    selector: u16,
    offset: u64,
    /// Operand size in bytes.
    size: u8,
}

/// The operand of JMP FAR or CALL FAR.
fn far_target(cpu: &mut Cpu, op: &Op) -> Result<Target, Fault> {
    let instruction = instruction(op);
    match instruction.op0_kind() {
        OpKind::FarBranch16 => Ok(Target {
            selector: instruction.far_branch_selector(),
            offset: u64::from(instruction.far_branch16()),
            size: 2,
        }),
        OpKind::FarBranch32 => Ok(Target {
            selector: instruction.far_branch_selector(),
            offset: u64::from(instruction.far_branch32()),
            size: 4,
        }),
        _ => {
            let size = far_pointer_size(instruction);
            let (selector, offset) = cpu.far_pointer(op, usize::from(size))?;
            Ok(Target { selector, offset, size })
        }
    }
}

fn far_pointer_size(instruction: &Instruction) -> u8 {
    match instruction.memory_size() {
        iced_x86::MemorySize::SegPtr16 => 2,
        iced_x86::MemorySize::SegPtr32 => 4,
        _ => 8,
    }
}

/// JMP ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub(super) fn jump(cpu: &mut Cpu, op: &Op) -> Step {
    let target = far_target(cpu, op)?;
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) {
        return cpu.jump_real(target);
    }
    cpu.log_far("ljmp", target.selector, target.offset);
    cpu.jump_protected(target, cpu.rip_at(op.end()))
}

/// CALL ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub(super) fn call(cpu: &mut Cpu, op: &Op) -> Step {
    let target = far_target(cpu, op)?;
    let return_to = cpu.rip_at(op.end());
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) {
        let mut stack = cpu.stack();
        cpu.push_return(&mut stack, target.size, return_to)?;
        cpu.jump_real(target)?;
        cpu.use_stack(&stack);
        return Ok(Flow::Jump);
    }
    cpu.log_far("lcall", target.selector, target.offset);
    cpu.call_protected(target, return_to)
}

/// RETF and RETF imm16.
pub(super) fn ret(cpu: &mut Cpu, op: &Op) -> Step {
    let size = operand_size(instruction(op));
    let release = op.imm & 0xffff;
    let mut stack = cpu.stack();
    let offset = cpu.pop_from(&mut stack, size)?;
    let selector = cpu.pop_from(&mut stack, size)? as u16;
    stack.adjust(release);
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) {
        cpu.jump_real(Target { selector, offset, size })?;
        cpu.use_stack(&stack);
        return Ok(Flow::Jump);
    }
    let back = Return { selector, offset, size, release };
    cpu.log_far("lret", selector, offset);
    cpu.return_far(back, stack)?;
    Ok(Flow::Jump)
}

/// What a far return or IRET takes from the stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return {
    pub selector: u16,
    pub offset: u64,
    /// Operand size in bytes.
    pub size: u8,
    /// Bytes to release on the outer stack.
    pub release: u64,
}

impl Cpu {
    fn jump_real(&mut self, target: Target) -> Step {
        if target.offset > u64::from(self.segments[segment::CS].loaded.limit) {
            return Err(self.raise(Exception::gp(0)));
        }
        let code = self.real_segment(segment::CS, target.selector);
        self.set_segment(segment::CS, code);
        self.rip = target.offset;
        Ok(Flow::Jump)
    }

    fn push_return(&mut self, stack: &mut Stack, size: u8, return_to: u64) -> Result<(), Fault> {
        self.push_to(stack, size, u64::from(self.segments[segment::CS].loaded.selector))?;
        self.push_to(stack, size, return_to)
    }

    /// Checks that `offset` is within a code segment, or canonical if that is 64-bit code.
    pub(super) fn check_code_offset(&mut self, descriptor: Descriptor, offset: u64) -> Result<(), Fault> {
        let good = if self.is_long() && descriptor.has(attributes::LONG) {
            self.is_canonical(offset)
        } else {
            offset <= u64::from(descriptor.limit())
        };
        if good { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// In IA-32e mode a code segment is not both 64-bit and 32-bit.
    fn has_valid_size(&self, descriptor: Descriptor) -> bool {
        !self.is_long() || !descriptor.has(attributes::LONG | attributes::BIG)
    }

    /// The code segment of a direct far jump or call.
    fn direct_code(&mut self, target: Target, descriptor: Descriptor) -> Result<Segment, Fault> {
        let error = selector_error(target.selector);
        let (level, dpl) = (self.cpl, descriptor.dpl());
        let allowed =
            if descriptor.is_conforming() { dpl <= level } else { dpl == level && rpl(target.selector) <= level };
        if !allowed || !self.has_valid_size(descriptor) {
            return Err(self.raise(Exception::gp(error)));
        }
        if !descriptor.is_present() {
            return Err(self.raise(Exception::np(error)));
        }
        self.check_code_offset(descriptor, target.offset)?;
        self.code_segment(target.selector, descriptor, level)
    }

    /// The descriptor of a far jump's or call's selector.
    fn far_descriptor(&mut self, target: Target) -> Result<Descriptor, Fault> {
        if is_null(target.selector) {
            return Err(self.raise(Exception::gp(0)));
        }
        self.descriptor(target.selector, Exception::gp)
    }

    /// Checks a gate or TSS that a far jump or call names.
    fn check_system(&mut self, target: Target, descriptor: Descriptor) -> Result<(), Fault> {
        let error = selector_error(target.selector);
        let narrow =
            [kind::CALL32, kind::CALL16, kind::TASK, kind::TSS16, kind::TSS32, kind::TSS16_BUSY, kind::TSS32_BUSY];
        let kinds = if self.is_long() { &narrow[..1] } else { &narrow[..] };
        if !descriptor.is_system(kinds) || descriptor.dpl() < self.cpl.max(rpl(target.selector)) {
            return Err(self.raise(Exception::gp(error)));
        }
        if !descriptor.is_present() {
            return Err(self.raise(Exception::np(error)));
        }
        Ok(())
    }

    fn jump_protected(&mut self, target: Target, next: u64) -> Step {
        let descriptor = self.far_descriptor(target)?;
        if descriptor.is_code() {
            let code = self.direct_code(target, descriptor)?;
            self.set_segment(segment::CS, code);
            self.rip = target.offset;
            return Ok(Flow::Jump);
        }
        self.check_system(target, descriptor)?;
        match descriptor.kind() {
            kind::CALL16 | kind::CALL32 => {
                let code = self.gate_code(descriptor)?;
                let conforming = code.is_conforming();
                let selector = descriptor.gate_selector();
                if !conforming && code.dpl() != self.cpl {
                    return Err(self.raise(Exception::gp(selector_error(selector))));
                }
                self.check_code_offset(code, descriptor.gate_offset())?;
                let code = self.code_segment(selector, code, self.cpl)?;
                self.set_segment(segment::CS, code);
                self.rip = descriptor.gate_offset();
            }
            kind::TASK => self.switch_task_now(descriptor.gate_selector(), Reason::Jump, next)?,
            _ => self.switch_task_now(target.selector, Reason::Jump, next)?,
        }
        Ok(Flow::Jump)
    }

    fn call_protected(&mut self, target: Target, return_to: u64) -> Step {
        let descriptor = self.far_descriptor(target)?;
        if descriptor.is_code() {
            let code = self.direct_code(target, descriptor)?;
            let mut stack = self.stack();
            self.push_return(&mut stack, target.size, return_to)?;
            self.use_stack(&stack);
            self.set_segment(segment::CS, code);
            self.rip = target.offset;
            return Ok(Flow::Jump);
        }
        self.check_system(target, descriptor)?;
        match descriptor.kind() {
            kind::CALL16 | kind::CALL32 => self.call_gate(descriptor, return_to)?,
            kind::TASK => self.switch_task_now(descriptor.gate_selector(), Reason::Call, return_to)?,
            _ => self.switch_task_now(target.selector, Reason::Call, return_to)?,
        }
        Ok(Flow::Jump)
    }

    /// The code segment that a call gate names (SDM volume 3, 5.8.4).
    fn gate_code(&mut self, gate: Descriptor) -> Result<Descriptor, Fault> {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(self.raise(Exception::gp(0)));
        }
        let code = self.descriptor(selector, Exception::gp)?;
        let wrong_size = self.is_long() && (!code.has(attributes::LONG) || code.has(attributes::BIG));
        if !code.is_code() || code.dpl() > self.cpl || wrong_size {
            return Err(self.raise(Exception::gp(selector_error(selector))));
        }
        if !code.is_present() {
            return Err(self.raise(Exception::np(selector_error(selector))));
        }
        Ok(code)
    }

    fn call_gate(&mut self, gate: Descriptor, return_to: u64) -> Result<(), Fault> {
        let code = self.gate_code(gate)?;
        let selector = gate.gate_selector();
        let size = match gate.kind() {
            kind::CALL16 => 2,
            _ if self.is_long() => 8,
            _ => 4,
        };
        let level = if code.is_conforming() { self.cpl } else { code.dpl() };
        let (mut stack, inner) =
            if level < self.cpl { self.call_inner_stack(gate, level, size)? } else { (self.call_stack(), None) };
        self.push_return(&mut stack, size, return_to)?;
        self.check_code_offset(code, gate.gate_offset())?;
        let code = self.code_segment(selector, code, level)?;
        self.segments[segment::CS].loaded = code;
        if let Some(inner) = inner {
            self.segments[segment::SS].loaded = inner;
        }
        self.mode_changed();
        self.use_stack(&stack);
        self.rip = gate.gate_offset();
        Ok(())
    }

    /// The present stack as a call gate's target sees it: that is 64-bit code in IA-32e mode.
    fn call_stack(&self) -> Stack {
        if self.is_long() { Stack::long(self.gpr[gpr::RSP], true) } else { self.stack() }
    }

    /// The stack of an inner level with the old one's pointer and the parameters on it (SDM volume 3, 5.8.5).
    fn call_inner_stack(&mut self, gate: Descriptor, level: u8, size: u8) -> Result<(Stack, Option<Segment>), Fault> {
        let old = self.segments[segment::SS].loaded.selector;
        if self.is_long() {
            let pointer = self.long_stack(4 + 8 * u64::from(level))?;
            let mut stack = Stack::long(pointer, false);
            self.push_to(&mut stack, 8, u64::from(old))?;
            self.push_to(&mut stack, 8, self.gpr[gpr::RSP])?;
            return Ok((stack, Some(null_segment(u16::from(level), level))));
        }
        let (segment, pointer) = self.inner_stack(level)?;
        let mut stack = Stack::inner(segment, pointer, selector_error(segment.selector));
        self.push_to(&mut stack, size, u64::from(old))?;
        self.push_to(&mut stack, size, self.gpr[gpr::RSP])?;
        for parameter in (0..gate.gate_parameters()).rev() {
            let mut from = self.stack();
            from.adjust(parameter * u64::from(size));
            let value = self.pop_from(&mut from, size)?;
            self.push_to(&mut stack, size, value)?;
        }
        Ok((stack, Some(segment)))
    }

    /// The checks of a code selector that comes from the stack, and its descriptor.
    fn return_code(&mut self, back: Return) -> Result<Descriptor, Fault> {
        if is_null(back.selector) {
            return Err(self.raise(Exception::gp(0)));
        }
        let code = self.descriptor(back.selector, Exception::gp)?;
        let level = rpl(back.selector);
        let allowed = if code.is_conforming() { code.dpl() <= level } else { code.dpl() == level };
        if level < self.cpl || !code.is_code() || !allowed || !self.has_valid_size(code) {
            return Err(self.raise(Exception::gp(selector_error(back.selector))));
        }
        if !code.is_present() {
            return Err(self.raise(Exception::np(selector_error(back.selector))));
        }
        self.check_code_offset(code, back.offset)?;
        Ok(code)
    }

    /// Returns to the same or an outer level (SDM volume 2, RET and IRET); `stack` is past what `back` holds.
    pub(super) fn return_far(&mut self, back: Return, mut stack: Stack) -> Result<(), Fault> {
        let code = self.return_code(back)?;
        if rpl(back.selector) == self.cpl {
            return self.return_inside(back, code, &stack);
        }
        self.pop_and_return_outer(back, code, &mut stack)
    }

    /// Goes on in the same level, on the same stack.
    fn return_inside(&mut self, back: Return, code: Descriptor, stack: &Stack) -> Result<(), Fault> {
        let code = self.code_segment(back.selector, code, rpl(back.selector))?;
        self.use_stack(stack);
        self.set_segment(segment::CS, code);
        self.rip = back.offset;
        Ok(())
    }

    fn pop_and_return_outer(&mut self, back: Return, code: Descriptor, stack: &mut Stack) -> Result<(), Fault> {
        let pointer = self.pop_from(stack, back.size)?;
        let selector = self.pop_from(stack, back.size)? as u16;
        self.return_outer(back, code, selector, pointer)
    }

    /// Checks and loads the code and stack segment of the level that `back` names.
    pub(super) fn return_outer(
        &mut self,
        back: Return,
        code: Descriptor,
        stack_selector: u16,
        pointer: u64,
    ) -> Result<(), Fault> {
        let level = rpl(back.selector);
        let to_long = self.is_long() && code.has(attributes::LONG);
        let loaded = self.checked_stack(stack_selector, level, Exception::gp, to_long)?;
        let code = self.code_segment(back.selector, code, level)?;
        self.segments[segment::CS].loaded = code;
        self.segments[segment::SS].loaded = loaded;
        self.mode_changed();
        self.load_stack_pointer(pointer.wrapping_add(back.release));
        self.drop_private_segments(level);
        self.rip = back.offset;
        Ok(())
    }

    /// RSP for a stack that was just loaded: a 16-bit one leaves the upper part alone.
    fn load_stack_pointer(&mut self, pointer: u64) {
        let old = self.gpr[gpr::RSP];
        self.gpr[gpr::RSP] = match self.stack_mask {
            0xffff => old & !0xffff | pointer & 0xffff,
            mask => pointer & mask,
        };
    }

    /// IRET to the same or an outer level: as a far return, with the flags between. In 64-bit mode the stack pointer is
    /// always popped.
    pub(super) fn return_interrupt(&mut self, back: Return, mut stack: Stack) -> Result<(), Fault> {
        let code = self.return_code(back)?;
        if rpl(back.selector) == self.cpl && self.mode != Mode::Long64 {
            return self.return_inside(back, code, &stack);
        }
        self.pop_and_return_outer(back, code, &mut stack)
    }
}
