//! Delivery of exceptions and interrupts (Intel SDM volume 3, chapter 6; 20.1.4 and 20.3 for real and virtual-8086 mode).

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Activity, Cpu, Exception, Fault, attributes, gpr, rflags, segment};
use super::super::mmu::Privilege;
use super::descriptor::{Descriptor, is_null, kind, null_segment, rpl, selector_error};
use super::stack::Stack;

/// What is delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// The vector.
    pub vector: u8,
    /// The error code that is pushed.
    pub error: Option<u32>,
    /// INT n, INT3 or INTO: the gate's privilege level counts.
    pub software: bool,
    /// Where the handler returns to.
    pub return_to: u64,
    /// RF in the pushed flags.
    pub resume: bool,
}

/// How exceptions combine (SDM volume 3, table 6-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    fn of(vector: u8) -> Self {
        match vector {
            0 | 10..=13 | 21 => Self::Contributory,
            14 | 20 => Self::PageFault,
            8 => Self::DoubleFault,
            _ => Self::Benign,
        }
    }

    /// Whether a second exception, raised by the delivery of this one, makes it worse (SDM volume 3, table 6-5).
    fn combines_with(self, second: Self) -> bool {
        match self {
            Self::Benign => false,
            Self::Contributory => second == Self::Contributory,
            Self::PageFault | Self::DoubleFault => matches!(second, Self::Contributory | Self::PageFault),
        }
    }
}

/// Whether an exception's handler returns to the instruction that raised it, so that its breakpoint must not hit again.
fn is_fault(exception: &Exception) -> bool {
    const GENERAL_DETECT: u64 = 1 << 13;
    match exception.vector {
        1 => exception.payload & GENERAL_DETECT != 0,
        2 | 3 | 4 | 8 | 18 => false,
        _ => true,
    }
}

impl Cpu {
    /// Delivers [`Cpu::exception`], raised by the instruction at [`Cpu::rip`]: pushes the frame and goes to the handler,
    /// or on to a double fault or shutdown.
    pub fn deliver_exception(&mut self) {
        let exception = self.exception;
        self.log_check(None, exception.vector);
        self.deliver_first(exception);
    }

    fn deliver_first(&mut self, mut exception: Exception) {
        // Each turn the exception's class gets worse or the second one is delivered in its own right; a guest can make
        // those alternate at most between benign ones, which do not raise others of the same kind: a bound is enough.
        for _ in 0..8 {
            self.note_exception(&exception);
            let event = Event {
                vector: exception.vector,
                error: exception.error,
                software: false,
                return_to: self.rip,
                resume: is_fault(&exception) || self.flags & rflags::RF != 0,
            };
            self.log_event(&event, self.rip);
            if self.deliver(&event).is_ok() {
                return;
            }
            match self.combine(exception.vector) {
                Some(next) => exception = next,
                None => return self.shut_down(),
            }
        }
        self.shut_down();
    }

    /// What to deliver after the delivery of `first` raised [`Cpu::exception`]; `None`: the processor shuts down.
    fn combine(&mut self, first: u8) -> Option<Exception> {
        let mut second = self.exception;
        self.log_check(Some(first), second.vector);
        let (class, other) = (Class::of(first), Class::of(second.vector));
        if !class.combines_with(other) {
            // EXT: the event came from outside the program (SDM volume 3, 6.13).
            if other == Class::Contributory {
                second.error = second.error.map(|error| error | 1);
            }
            return Some(second);
        }
        self.note_exception(&second);
        let double_fault = Exception { vector: 8, error: Some(0), payload: 0 };
        (class != Class::DoubleFault).then_some(double_fault)
    }

    /// What an exception leaves in registers besides the frame: CR2 of a page fault, DR6 of a debug exception.
    fn note_exception(&mut self, exception: &Exception) {
        match exception.vector {
            14 => self.cr2 = exception.payload,
            1 => self.note_debug(exception.payload),
            _ => {}
        }
    }

    /// Triple fault.
    fn shut_down(&mut self) {
        self.activity = Activity::Shutdown;
    }

    /// Delivers an external interrupt between two instructions.
    pub fn deliver_interrupt(&mut self, vector: u8) {
        self.log_interrupt(vector);
        self.deliver_external(vector);
    }

    /// Delivers a non-maskable interrupt between two instructions; others are held back until IRET (SDM volume 3, 6.7.1).
    pub fn deliver_nmi(&mut self) {
        self.system.nmi_blocked = true;
        self.deliver_external(2);
    }

    fn deliver_external(&mut self, vector: u8) {
        self.activity = Activity::Running;
        let resume = self.flags & rflags::RF != 0;
        let event = Event { vector, error: None, software: false, return_to: self.rip, resume };
        self.log_event(&event, self.rip);
        if self.deliver(&event).is_err()
            && let Some(next) = self.combine(vector.max(32))
        {
            self.deliver_first(next);
        }
    }

    /// Whether non-maskable interrupts are held back.
    #[must_use]
    pub fn nmi_blocked(&self) -> bool {
        self.system.nmi_blocked
    }

    /// Goes to the handler of an event. On `Err` nothing has changed but the pushed bytes.
    pub(super) fn deliver(&mut self, event: &Event) -> Result<(), Fault> {
        self.system.task_switched = false;
        match self.mode {
            Mode::Real => self.deliver_real(event)?,
            _ if self.is_long() => self.deliver_long(event)?,
            _ => self.deliver_protected(event)?,
        }
        self.shadow = 0;
        self.system.debug_hits = 0;
        self.mmu.watches.registers = 0;
        Ok(())
    }

    /// The flags image that is pushed.
    pub(super) fn pushed_flags(&self, resume: bool) -> u64 {
        let flags = self.rflags() & !rflags::RF;
        if resume { flags | rflags::RF } else { flags }
    }

    /// Through the interrupt vector table (SDM volume 3, 20.1.4).
    fn deliver_real(&mut self, event: &Event) -> Result<(), Fault> {
        let entry = u64::from(event.vector) * 4;
        if entry + 3 > u64::from(self.idtr.limit) {
            return Err(self.raise(Exception::gp(u32::from(event.vector) * 8 + 2)));
        }
        self.deliver_vector(event.return_to, self.idtr.base.wrapping_add(entry), self.pushed_flags(event.resume))?;
        self.flags &= !(rflags::IF | rflags::TF | rflags::AC | rflags::RF);
        Ok(())
    }

    /// Pushes flags, CS and IP, and goes to the far address at linear address `entry`.
    pub(super) fn deliver_vector(&mut self, return_to: u64, entry: u64, flags: u64) -> Result<(), Fault> {
        let target: u32 = self.read_linear(entry & 0xffff_ffff, Privilege::System)?;
        let mut stack = self.stack();
        self.push_to(&mut stack, 2, flags)?;
        self.push_to(&mut stack, 2, u64::from(self.segments[segment::CS].loaded.selector))?;
        self.push_to(&mut stack, 2, return_to)?;
        self.use_stack(&stack);
        let code = self.real_segment(segment::CS, (target >> 16) as u16);
        self.set_segment(segment::CS, code);
        self.rip = u64::from(target & 0xffff);
        Ok(())
    }

    /// The gate of a vector after the checks of SDM volume 3, 6.12 and 6.14.
    fn gate(&mut self, event: &Event) -> Result<Descriptor, Fault> {
        let long = self.is_long();
        let (size, wide) = if long { (16, 8) } else { (8, 0) };
        let error = u32::from(event.vector) * 8 + 2;
        let entry = u64::from(event.vector) * size;
        if entry + size - 1 > u64::from(self.idtr.limit) {
            return Err(self.raise(Exception::gp(error)));
        }
        let address = self.system_address(self.idtr.base, entry);
        let low = self.read_linear(address, Privilege::System)?;
        let high = if wide == 0 { 0 } else { self.read_linear(address.wrapping_add(wide), Privilege::System)? };
        let gate = Descriptor { low, high };
        let narrow = [kind::TASK, kind::INTERRUPT16, kind::TRAP16, kind::INTERRUPT32, kind::TRAP32];
        let kinds = if long { &narrow[3..] } else { &narrow[..] };
        if !gate.is_system(kinds) || event.software && gate.dpl() < self.cpl {
            return Err(self.raise(Exception::gp(error)));
        }
        if !gate.is_present() {
            return Err(self.raise(Exception::np(error)));
        }
        Ok(gate)
    }

    /// The code segment that an interrupt or trap gate names.
    fn gate_target(&mut self, gate: Descriptor) -> Result<Descriptor, Fault> {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(self.raise(Exception::gp(0)));
        }
        let target = self.descriptor(selector, Exception::gp)?;
        let wrong_size = self.is_long() && (!target.has(attributes::LONG) || target.has(attributes::BIG));
        if !target.is_code() || target.dpl() > self.cpl || wrong_size {
            return Err(self.raise(Exception::gp(selector_error(selector))));
        }
        if !target.is_present() {
            return Err(self.raise(Exception::np(selector_error(selector))));
        }
        Ok(target)
    }

    /// Through a gate of protected mode (SDM volume 3, 6.12.1 and 20.3.1).
    fn deliver_protected(&mut self, event: &Event) -> Result<(), Fault> {
        let gate = self.gate(event)?;
        if gate.kind() == kind::TASK {
            return self.deliver_task(event, gate.gate_selector());
        }
        let target = self.gate_target(gate)?;
        let selector = gate.gate_selector();
        let size = if gate.kind() & 8 != 0 { 4 } else { 2 };
        let virtual_8086 = self.mode == Mode::Virtual8086;
        let level = if target.is_conforming() { self.cpl } else { target.dpl() };
        if virtual_8086 && level != 0 {
            return Err(self.raise(Exception::gp(selector_error(selector))));
        }
        let inner = if level < self.cpl { Some(self.inner_stack(level)?) } else { None };
        let mut stack = match inner {
            Some(segment) => Stack::inner(segment.0, segment.1, selector_error(segment.0.selector)),
            None => self.stack(),
        };
        if virtual_8086 {
            for number in [segment::GS, segment::FS, segment::DS, segment::ES] {
                self.push_to(&mut stack, size, u64::from(self.segments[number].loaded.selector))?;
            }
        }
        if inner.is_some() {
            self.push_to(&mut stack, size, u64::from(self.segments[segment::SS].loaded.selector))?;
            self.push_to(&mut stack, size, self.gpr[gpr::RSP])?;
        }
        self.push_to(&mut stack, size, self.pushed_flags(event.resume))?;
        self.push_to(&mut stack, size, u64::from(self.segments[segment::CS].loaded.selector))?;
        self.push_to(&mut stack, size, event.return_to)?;
        if let Some(error) = event.error {
            self.push_to(&mut stack, size, u64::from(error))?;
        }
        let offset = if size == 2 { gate.gate_offset() & 0xffff } else { gate.gate_offset() & 0xffff_ffff };
        if offset > u64::from(target.limit()) {
            return Err(self.raise(Exception::gp(0)));
        }
        let code = self.code_segment(selector, target, level)?;
        self.enter_handler(code, inner.map(|inner| inner.0), gate);
        if virtual_8086 {
            for number in [segment::GS, segment::FS, segment::DS, segment::ES] {
                self.set_segment(number, null_segment(0, 0));
            }
        }
        self.use_stack(&stack);
        self.rip = offset;
        Ok(())
    }

    /// Loads what a handler runs with; an interrupt gate also clears IF.
    fn enter_handler(&mut self, code: Segment, stack: Option<Segment>, gate: Descriptor) {
        self.flags &= !(rflags::TF | rflags::NT | rflags::RF | rflags::VM);
        if gate.kind() & 1 == 0 {
            self.flags &= !rflags::IF;
        }
        self.segments[segment::CS].loaded = code;
        if let Some(stack) = stack {
            self.segments[segment::SS].loaded = stack;
        }
        self.mode_changed();
    }

    /// The stack segment and pointer that the TSS holds for an inner level (SDM volume 3, 5.8.5).
    pub(super) fn inner_stack(&mut self, level: u8) -> Result<(Segment, u64), Fault> {
        let wide = self.tr.attributes & 8 != 0;
        let (at, len) = if wide { (4 + 8 * u64::from(level), 6) } else { (2 + 4 * u64::from(level), 4) };
        if at + len - 1 > u64::from(self.tr.limit) {
            return Err(self.raise(Exception::ts(selector_error(self.tr.selector))));
        }
        let address = self.system_address(self.tr.base, at);
        let (pointer, selector) = if wide {
            let pointer: u32 = self.read_linear(address, Privilege::System)?;
            (pointer, self.read_linear::<u16>(address.wrapping_add(4) & 0xffff_ffff, Privilege::System)?)
        } else {
            let both: u32 = self.read_linear(address, Privilege::System)?;
            (both & 0xffff, (both >> 16) as u16)
        };
        if is_null(selector) || rpl(selector) != level {
            return Err(self.raise(Exception::ts(selector_error(selector))));
        }
        let segment = self.checked_stack(selector, level, Exception::ts, false)?;
        Ok((segment, u64::from(pointer)))
    }

    /// A stack pointer from a 64-bit TSS (SDM volume 3, 8.7): of a level, or of the interrupt stack table.
    pub(super) fn long_stack(&mut self, at: u64) -> Result<u64, Fault> {
        if at + 7 > u64::from(self.tr.limit) {
            return Err(self.raise(Exception::ts(selector_error(self.tr.selector))));
        }
        let address = self.system_address(self.tr.base, at);
        self.read_linear(address, Privilege::System)
    }

    /// Through a gate of IA-32e mode (SDM volume 3, 6.14).
    fn deliver_long(&mut self, event: &Event) -> Result<(), Fault> {
        let gate = self.gate(event)?;
        let target = self.gate_target(gate)?;
        let selector = gate.gate_selector();
        let level = if target.is_conforming() { self.cpl } else { target.dpl() };
        let ist = gate.low >> 32 & 7;
        let pointer = match ist {
            0 if level < self.cpl => self.long_stack(4 + 8 * u64::from(level))?,
            0 => self.gpr[gpr::RSP],
            _ => self.long_stack(0x1c + 8 * ist)?,
        };
        let mut stack = Stack::long(pointer & !15, level == self.cpl);
        self.push_to(&mut stack, 8, u64::from(self.segments[segment::SS].loaded.selector))?;
        self.push_to(&mut stack, 8, self.gpr[gpr::RSP])?;
        self.push_to(&mut stack, 8, self.pushed_flags(event.resume))?;
        self.push_to(&mut stack, 8, u64::from(self.segments[segment::CS].loaded.selector))?;
        self.push_to(&mut stack, 8, event.return_to)?;
        if let Some(error) = event.error {
            self.push_to(&mut stack, 8, u64::from(error))?;
        }
        if !self.is_canonical(gate.gate_offset()) {
            return Err(self.raise(Exception::gp(0)));
        }
        let code = self.code_segment(selector, target, level)?;
        let inner = (level != self.cpl).then(|| null_segment(u16::from(level), level));
        self.enter_handler(code, inner, gate);
        self.use_stack(&stack);
        self.rip = gate.gate_offset();
        Ok(())
    }
}
