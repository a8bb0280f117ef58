//! Stacks that instructions with several pushes or pops work on, without touching RSP before they are done.

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Cpu, Exception, Fault, attributes, gpr, segment};
use super::super::mmu::Privilege;

/// A stack: the present one, or one that is about to become it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    /// The stack pointer.
    pub pointer: u64,
    /// The width of the stack pointer.
    mask: u64,
    /// The stack segment; in 64-bit mode it is not looked at.
    segment: Segment,
    long: bool,
    privilege: Privilege,
    /// Error code of a stack fault.
    error: u32,
}

impl Stack {
    /// A stack of 64-bit mode: at the present privilege level, or at an inner one.
    pub fn long(pointer: u64, same_level: bool) -> Self {
        let privilege = if same_level { Privilege::Current } else { Privilege::System };
        Self { pointer, mask: u64::MAX, segment: Segment::default(), long: true, privilege, error: 0 }
    }

    /// A stack in a segment that is about to be loaded for an inner privilege level; `error` names it in faults.
    pub fn inner(segment: Segment, pointer: u64, error: u32) -> Self {
        let mask = if segment.attributes & attributes::BIG != 0 { 0xffff_ffff } else { 0xffff };
        Self { pointer, mask, segment, long: false, privilege: Privilege::System, error }
    }

    /// Moves the pointer, within its width.
    pub fn adjust(&mut self, by: u64) {
        self.pointer = self.pointer & !self.mask | self.pointer.wrapping_add(by) & self.mask;
    }

    /// Whether `len` bytes at `offset` are within the segment.
    fn contains(&self, offset: u64, len: u64) -> bool {
        let last = offset + (len - 1);
        let limit = u64::from(self.segment.limit);
        let expand_down = attributes::EXPAND_DOWN | attributes::CODE;
        if self.segment.attributes & expand_down != attributes::EXPAND_DOWN {
            return last <= limit;
        }
        let top = if self.segment.attributes & attributes::BIG != 0 { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    }
}

impl Cpu {
    /// The present stack.
    pub(super) fn stack(&self) -> Stack {
        Stack {
            pointer: self.gpr[gpr::RSP],
            mask: self.stack_mask,
            segment: self.segments[segment::SS].loaded,
            long: self.mode == Mode::Long64,
            privilege: Privilege::Current,
            error: 0,
        }
    }

    fn stack_linear(&mut self, stack: &Stack, len: u64) -> Result<u64, Fault> {
        let offset = stack.pointer & stack.mask;
        if stack.long {
            if self.is_canonical(offset) && self.is_canonical(offset.wrapping_add(len - 1)) {
                return Ok(offset);
            }
        } else if stack.contains(offset, len) {
            return Ok(stack.segment.base.wrapping_add(offset) & 0xffff_ffff);
        }
        Err(self.raise(Exception::ss(stack.error)))
    }

    /// Pushes the low `size` bytes (2, 4 or 8) of `value`.
    pub(super) fn push_to(&mut self, stack: &mut Stack, size: u8, value: u64) -> Result<(), Fault> {
        let mut next = *stack;
        next.adjust(u64::from(size).wrapping_neg());
        let linear = self.stack_linear(&next, u64::from(size))?;
        match size {
            2 => self.write_linear(linear, value as u16, stack.privilege)?,
            4 => self.write_linear(linear, value as u32, stack.privilege)?,
            _ => self.write_linear(linear, value, stack.privilege)?,
        }
        *stack = next;
        Ok(())
    }

    /// Pushes a selector with an operand size of 2, 4 or 8 bytes. With 4, processors of Intel move the stack pointer by 4
    /// and write the selector only (Intel SDM volume 2, PUSH); those of AMD extend it with zeros.
    pub(super) fn push_selector(&mut self, stack: &mut Stack, size: u8, selector: u16) -> Result<(), Fault> {
        if size != 4 || self.is_amd() {
            return self.push_to(stack, size, u64::from(selector));
        }
        let mut next = *stack;
        next.adjust(4u64.wrapping_neg());
        let linear = self.stack_linear(&next, 2)?;
        self.write_linear(linear, selector, stack.privilege)?;
        *stack = next;
        Ok(())
    }

    /// Pops `size` bytes (2, 4 or 8).
    pub(super) fn pop_from(&mut self, stack: &mut Stack, size: u8) -> Result<u64, Fault> {
        let linear = self.stack_linear(stack, u64::from(size))?;
        let value = match size {
            2 => u64::from(self.read_linear::<u16>(linear, stack.privilege)?),
            4 => u64::from(self.read_linear::<u32>(linear, stack.privilege)?),
            _ => self.read_linear::<u64>(linear, stack.privilege)?,
        };
        stack.adjust(u64::from(size));
        Ok(value)
    }

    /// Takes a stack's pointer as RSP: as much of it as the stack's width has.
    pub(super) fn use_stack(&mut self, stack: &Stack) {
        self.gpr[gpr::RSP] = match stack.mask {
            0xffff => self.gpr[gpr::RSP] & !0xffff | stack.pointer & 0xffff,
            mask => stack.pointer & mask,
        };
    }
}
