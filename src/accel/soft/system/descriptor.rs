//! Descriptors and the tables that hold them (Intel SDM volume 3, 3.4.5, 3.5 and 8.2; AMD APM volume 2, 4.7 and 4.8).

use crate::cpu::Segment;

use super::super::cpu::{Cpu, Exception, Fault, attributes};
use super::super::mmu::Privilege;

/// Types of system descriptors (SDM volume 3, table 3-2).
pub(super) mod kind {
    /// Available 16-bit TSS.
    pub const TSS16: u32 = 1;
    /// LDT.
    pub const LDT: u32 = 2;
    /// Busy 16-bit TSS.
    pub const TSS16_BUSY: u32 = 3;
    /// 16-bit call gate.
    pub const CALL16: u32 = 4;
    /// Task gate.
    pub const TASK: u32 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT16: u32 = 6;
    /// 16-bit trap gate.
    pub const TRAP16: u32 = 7;
    /// Available 32-bit TSS; 64-bit in IA-32e mode.
    pub const TSS32: u32 = 9;
    /// Busy 32-bit TSS; 64-bit in IA-32e mode.
    pub const TSS32_BUSY: u32 = 11;
    /// 32-bit call gate; 64-bit in IA-32e mode.
    pub const CALL32: u32 = 12;
    /// 32-bit interrupt gate; 64-bit in IA-32e mode.
    pub const INTERRUPT32: u32 = 14;
    /// 32-bit trap gate; 64-bit in IA-32e mode.
    pub const TRAP32: u32 = 15;
    /// The bit that makes a TSS busy.
    pub const BUSY: u32 = 2;
}

/// Exceptions whose error code is a selector.
pub(super) type SelectorFault = fn(u32) -> Exception;

/// The error code that names a selector: its index and table (SDM volume 3, 6.13).
pub(super) fn selector_error(selector: u16) -> u32 {
    u32::from(selector & 0xfffc)
}

/// Whether a selector names no descriptor.
pub(super) fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// A selector's requested privilege level.
pub(super) fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// What a segment register holds after a null selector was loaded. SS keeps the privilege level.
pub(super) fn null_segment(selector: u16, level: u8) -> Segment {
    Segment { selector, base: 0, limit: 0, attributes: attributes::UNUSABLE | u32::from(level) << 5 }
}

/// A segment descriptor or gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    /// The first 8 bytes.
    pub low: u64,
    /// The second 8 bytes of the system descriptors of IA-32e mode, else 0.
    pub high: u64,
}

impl Descriptor {
    /// Bits as [`Segment::attributes`] has them.
    pub fn attributes(self) -> u32 {
        (self.low >> 40 & 0xff) as u32 | ((self.low >> 52 & 15) as u32) << 12
    }

    /// The type.
    pub fn kind(self) -> u32 {
        self.attributes() & 15
    }

    /// Descriptor privilege level.
    pub fn dpl(self) -> u8 {
        (self.low >> 45 & 3) as u8
    }

    /// Whether all bits of `mask` are set in the attributes.
    pub fn has(self, mask: u32) -> bool {
        self.attributes() & mask == mask
    }

    /// P.
    pub fn is_present(self) -> bool {
        self.has(attributes::PRESENT)
    }

    /// Code or data, not a system descriptor.
    pub fn is_application(self) -> bool {
        self.has(attributes::APPLICATION)
    }

    /// A code segment.
    pub fn is_code(self) -> bool {
        self.has(attributes::APPLICATION | attributes::CODE)
    }

    /// A conforming code segment.
    pub fn is_conforming(self) -> bool {
        self.has(attributes::APPLICATION | attributes::CODE | attributes::CONFORMING)
    }

    /// A data segment that can be written.
    pub fn is_writable(self) -> bool {
        self.has(attributes::APPLICATION | attributes::READ_WRITE) && !self.has(attributes::CODE)
    }

    /// A data segment, or a code segment that can be read.
    pub fn is_readable(self) -> bool {
        self.is_application() && (!self.has(attributes::CODE) || self.has(attributes::READ_WRITE))
    }

    /// A system descriptor of one of these types.
    pub fn is_system(self, kinds: &[u32]) -> bool {
        !self.is_application() && kinds.contains(&self.kind())
    }

    /// The limit in bytes.
    pub fn limit(self) -> u32 {
        let limit = (self.low & 0xffff) as u32 | (self.low >> 32) as u32 & 0xf_0000;
        if self.has(attributes::GRANULARITY) { limit << 12 | 0xfff } else { limit }
    }

    /// The base.
    pub fn base(self) -> u64 {
        self.low >> 16 & 0xff_ffff | self.low >> 32 & 0xff00_0000 | self.high << 32
    }

    /// A gate's selector.
    pub fn gate_selector(self) -> u16 {
        (self.low >> 16) as u16
    }

    /// A gate's offset.
    pub fn gate_offset(self) -> u64 {
        let low = self.low & 0xffff;
        match self.kind() {
            kind::CALL16 | kind::INTERRUPT16 | kind::TRAP16 => low,
            _ => low | self.low >> 32 & 0xffff_0000 | self.high << 32,
        }
    }

    /// A call gate's number of parameters.
    pub fn gate_parameters(self) -> u64 {
        self.low >> 32 & 0x1f
    }

    /// The segment register's content for it.
    pub fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base(), limit: self.limit(), attributes: self.attributes() }
    }
}

impl Cpu {
    /// IA-32e mode (EFER.LMA).
    pub(super) fn is_long(&self) -> bool {
        self.efer & 1 << 10 != 0
    }

    /// Whether an address is canonical (SDM volume 1, 3.3.7.1).
    pub(super) fn is_canonical(&self, address: u64) -> bool {
        let unused = if self.cr4 & 1 << 12 != 0 { 7 } else { 16 };
        (address << unused).cast_signed() >> unused == address.cast_signed()
    }

    /// The linear address of a place in a table of the system.
    pub(super) fn system_address(&self, base: u64, offset: u64) -> u64 {
        let address = base.wrapping_add(offset);
        if self.is_long() { address } else { address & 0xffff_ffff }
    }

    /// Where a selector's descriptor is; `None` beyond its table.
    pub(super) fn descriptor_address(&self, selector: u16) -> Option<u64> {
        let offset = u64::from(selector & 0xfff8);
        let table = if selector & 4 == 0 {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        } else if self.ldtr.attributes & attributes::UNUSABLE != 0 || is_null(self.ldtr.selector) {
            return None;
        } else {
            (self.ldtr.base, u64::from(self.ldtr.limit))
        };
        (offset + 7 <= table.1).then(|| self.system_address(table.0, offset))
    }

    /// Reads the descriptor of a selector, or raises `fault` with the selector if it is beyond the table. In IA-32e mode
    /// system descriptors have 16 bytes.
    pub(super) fn descriptor(&mut self, selector: u16, fault: SelectorFault) -> Result<Descriptor, Fault> {
        self.find_descriptor(selector)?.ok_or_else(|| self.raise(fault(selector_error(selector))))
    }

    /// As [`Cpu::descriptor`]; `None` beyond the table.
    pub(super) fn find_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Fault> {
        let Some(address) = self.descriptor_address(selector) else { return Ok(None) };
        let mut descriptor = Descriptor { low: self.read_linear(address, Privilege::System)?, high: 0 };
        let wide = [kind::LDT, kind::TSS32, kind::TSS32_BUSY, kind::CALL32];
        if self.is_long() && descriptor.is_system(&wide) {
            let Some(last) = self.descriptor_address(selector.wrapping_add(8)) else { return Ok(None) };
            descriptor.high = self.read_linear(last, Privilege::System)?;
        }
        Ok(Some(descriptor))
    }

    /// Sets the accessed bit of a code or data descriptor in its table (SDM volume 3, 3.4.5.1).
    pub(super) fn mark_accessed(&mut self, selector: u16, descriptor: &mut Descriptor) -> Result<(), Fault> {
        if descriptor.has(attributes::ACCESSED) {
            return Ok(());
        }
        if let Some(address) = self.descriptor_address(selector) {
            self.update_linear::<u8>(address.wrapping_add(5), |byte| byte | 1)?;
        }
        descriptor.low |= 1 << 40;
        Ok(())
    }

    /// Sets or clears the busy bit of a TSS descriptor in its table.
    pub(super) fn mark_busy(&mut self, selector: u16, busy: bool) -> Result<(), Fault> {
        let bit = kind::BUSY as u8;
        if let Some(address) = self.descriptor_address(selector) {
            let change = |byte: u8| if busy { byte | bit } else { byte & !bit };
            self.update_linear(address.wrapping_add(5), change)?;
        }
        Ok(())
    }
}
