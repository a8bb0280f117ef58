//! Segment registers: loads with their checks (Intel SDM volume 3, 3.4.2-3.4.4 and 5.5-5.7; volume 2, MOV, POP, LDS).

use iced_x86::{Instruction, OpKind, Register};

use crate::cpu::{Mode, Segment};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, attributes, segment};
use super::super::op::Op;
use super::descriptor::{Descriptor, SelectorFault, is_null, null_segment, rpl, selector_error};
use super::instruction;

impl Cpu {
    /// What a segment register holds after `selector` was loaded in real or virtual-8086 mode.
    pub(super) fn real_segment(&self, number: usize, selector: u16) -> Segment {
        let base = u64::from(selector) << 4;
        if self.mode == Mode::Virtual8086 {
            // Present, privilege level 3, writable data (SDM volume 3, 20.2.1).
            return Segment { selector, base, limit: 0xffff, attributes: 0xf3 };
        }
        // Limit and attributes stay: "unreal" mode.
        let old = self.segments[number & 7].loaded;
        if old.attributes & attributes::UNUSABLE != 0 {
            return Segment { selector, base, limit: 0xffff, attributes: 0x93 };
        }
        Segment { selector, base, ..old }
    }

    fn is_real_or_virtual(&self) -> bool {
        matches!(self.mode, Mode::Real | Mode::Virtual8086)
    }

    /// Checks a selector for a segment register (not CS) and reads its descriptor.
    pub(super) fn checked_segment(&mut self, number: usize, selector: u16) -> Result<Segment, Fault> {
        if self.is_real_or_virtual() {
            return Ok(self.real_segment(number, selector));
        }
        if number == segment::SS {
            return self.checked_stack(selector, self.cpl, Exception::gp, self.mode == Mode::Long64);
        }
        self.checked_data(selector, self.cpl, Exception::gp)
    }

    /// A data segment for privilege level `level`; what is wrong with it raises `fault`.
    pub(super) fn checked_data(&mut self, selector: u16, level: u8, fault: SelectorFault) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(null_segment(selector, 0));
        }
        let mut descriptor = self.descriptor(selector, fault)?;
        let too_private = !descriptor.is_conforming() && level.max(rpl(selector)) > descriptor.dpl();
        if !descriptor.is_readable() || too_private {
            return Err(self.raise(fault(selector_error(selector))));
        }
        if !descriptor.is_present() {
            return Err(self.raise(Exception::np(selector_error(selector))));
        }
        self.mark_accessed(selector, &mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// A stack segment for privilege level `level`; what is wrong with it raises `fault`. `long`: for 64-bit mode, where
    /// a null selector does below level 3.
    pub(super) fn checked_stack(
        &mut self,
        selector: u16,
        level: u8,
        fault: SelectorFault,
        long: bool,
    ) -> Result<Segment, Fault> {
        if is_null(selector) {
            if long && level < 3 && rpl(selector) == level {
                return Ok(null_segment(selector, level));
            }
            return Err(self.raise(fault(0)));
        }
        let mut descriptor = self.descriptor(selector, fault)?;
        if rpl(selector) != level || descriptor.dpl() != level || !descriptor.is_writable() {
            return Err(self.raise(fault(selector_error(selector))));
        }
        if !descriptor.is_present() {
            return Err(self.raise(Exception::ss(selector_error(selector))));
        }
        self.mark_accessed(selector, &mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// A code segment's content with the privilege level in its selector.
    pub(super) fn code_segment(
        &mut self,
        selector: u16,
        mut descriptor: Descriptor,
        level: u8,
    ) -> Result<Segment, Fault> {
        self.mark_accessed(selector, &mut descriptor)?;
        Ok(descriptor.segment(selector & !3 | u16::from(level)))
    }

    /// Takes the content of a segment register; what depends on it follows.
    pub(super) fn set_segment(&mut self, number: usize, loaded: Segment) {
        self.segments[number & 7].loaded = loaded;
        if matches!(number, segment::CS | segment::SS) {
            self.mode_changed();
        } else {
            self.segment_changed(number);
        }
    }

    /// Makes the data segment registers null that a less privileged program may not have (SDM volume 3, 5.8.6).
    pub(super) fn drop_private_segments(&mut self, level: u8) {
        for number in [segment::ES, segment::DS, segment::FS, segment::GS] {
            let held = self.segments[number].loaded.attributes;
            let conforming = attributes::CODE | attributes::CONFORMING;
            let dpl = (held >> 5 & 3) as u8;
            let null = held & attributes::UNUSABLE != 0;
            if !null && held & conforming != conforming && dpl < level {
                self.set_segment(number, null_segment(0, 0));
            }
        }
    }
}

/// The register of [`Cpu::segments`] that an operand names.
fn segment_number(register: Register) -> usize {
    register.number() & 7
}

/// What changed with a load of segment register `number`: the shadow of SS, and the block's assumptions.
fn after_load(cpu: &mut Cpu, number: usize) -> Flow {
    if number == segment::SS {
        cpu.shadow |= 1;
    }
    Flow::End
}

/// MOV Sreg, r/m16.
pub(super) fn mov_to_segment(cpu: &mut Cpu, op: &Op) -> Step {
    let number = segment_number(instruction(op).op0_register());
    if number == segment::CS || number > segment::GS {
        return Err(cpu.raise(Exception::UD));
    }
    let selector = cpu.operand16(op, 1)?;
    let loaded = cpu.checked_segment(number, selector)?;
    cpu.set_segment(number, loaded);
    Ok(after_load(cpu, number))
}

/// MOV r/m, Sreg.
pub(super) fn mov_from_segment(cpu: &mut Cpu, op: &Op) -> Step {
    let number = segment_number(instruction(op).op1_register());
    if number > segment::GS {
        return Err(cpu.raise(Exception::UD));
    }
    let selector = cpu.segments[number].loaded.selector;
    cpu.store_word(op, u64::from(selector))?;
    Ok(Flow::Next)
}

/// The operand size of a push or pop of a segment register.
fn stack_operand_size(instruction: &Instruction) -> u8 {
    u8::try_from(instruction.stack_pointer_increment().unsigned_abs()).unwrap_or(8)
}

/// POP Sreg.
pub(super) fn pop_segment(cpu: &mut Cpu, op: &Op) -> Step {
    let number = segment_number(instruction(op).op0_register());
    let mut stack = cpu.stack();
    let selector = cpu.pop_from(&mut stack, stack_operand_size(instruction(op)))? as u16;
    let loaded = cpu.checked_segment(number, selector)?;
    cpu.use_stack(&stack);
    cpu.set_segment(number, loaded);
    Ok(after_load(cpu, number))
}

/// PUSH Sreg.
pub(super) fn push_segment(cpu: &mut Cpu, op: &Op) -> Step {
    let number = segment_number(instruction(op).op0_register());
    let selector = cpu.segments[number].loaded.selector;
    let mut stack = cpu.stack();
    cpu.push_selector(&mut stack, stack_operand_size(instruction(op)), selector)?;
    cpu.use_stack(&stack);
    Ok(Flow::Next)
}

/// LDS, LES, LFS, LGS, LSS.
pub(super) fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Step {
    use iced_x86::Mnemonic;
    let instruction = instruction(op);
    let number = match instruction.mnemonic() {
        Mnemonic::Les => segment::ES,
        Mnemonic::Lds => segment::DS,
        Mnemonic::Lss => segment::SS,
        Mnemonic::Lfs => segment::FS,
        _ => segment::GS,
    };
    let size = instruction.op0_register().size();
    let (selector, offset) = cpu.far_pointer(op, size)?;
    let loaded = cpu.checked_segment(number, selector)?;
    cpu.set_segment(number, loaded);
    match size {
        2 => cpu.set_reg16(op.a, offset as u16),
        4 => cpu.set_reg32(op.a, offset as u32),
        _ => cpu.set_reg64(op.a, offset),
    }
    // Unlike MOV SS, LSS holds no interrupts back.
    Ok(Flow::End)
}

impl Cpu {
    /// Reads a far pointer with an offset of `size` bytes: selector and offset.
    pub(super) fn far_pointer(&mut self, op: &Op, size: usize) -> Result<(u16, u64), Fault> {
        let address = self.effective_address(&op.mem);
        let mut bytes = [0; 10];
        self.read_bytes(op.mem.segment, address, &mut bytes[..size + 2])?;
        let mut offset = [0; 8];
        offset[..size].copy_from_slice(&bytes[..size]);
        Ok((u16::from_le_bytes([bytes[size], bytes[size + 1]]), u64::from_le_bytes(offset)))
    }

    /// Operand `number` (0 or 1), a 16-bit register or memory word.
    pub(super) fn operand16(&mut self, op: &Op, number: u32) -> Result<u16, Fault> {
        if instruction(op).op_kind(number) == OpKind::Register {
            return Ok(self.reg16(if number == 0 { op.a } else { op.b }));
        }
        let address = self.effective_address(&op.mem);
        self.read(op.mem.segment, address)
    }

    /// Stores to operand 0: a register takes as much of `value` as it has, memory the low 16 bits.
    pub(super) fn store_word(&mut self, op: &Op, value: u64) -> Result<(), Fault> {
        let instruction = instruction(op);
        if instruction.op0_kind() == OpKind::Register {
            match instruction.op0_register().size() {
                2 => self.set_reg16(op.a, value as u16),
                4 => self.set_reg32(op.a, value as u32),
                _ => self.set_reg64(op.a, value),
            }
            return Ok(());
        }
        let address = self.effective_address(&op.mem);
        self.write(op.mem.segment, address, value as u16)
    }
}
