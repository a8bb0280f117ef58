//! PCI functions: configuration space with its write masks, base address registers, and addresses.
//!
//! Documents: PCI Local Bus Specification 3.0 (chapter 6).

use std::fmt;
use std::ops::Range;

use super::device::{Region, Reset};

/// Command register (6.2.2): respond to I/O space accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command register: respond to memory space accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: may be a bus master.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command register: may not assert INTx#.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status register (6.2.3): there is a capability list.
pub const CAP_LIST: u16 = 1 << 4;

/// Bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    /// Bus, 0-255.
    pub bus: u8,
    /// Device (slot), 0-31.
    pub device: u8,
    /// Function, 0-7.
    pub function: u8,
}

impl PciAddress {
    /// An address on bus 0.
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Self {
        Self { bus: 0, device, function }
    }

    /// The 16-bit form: bus in bits 15-8, device in 7-3, function in 2-0.
    #[must_use]
    pub fn bdf(self) -> u16 {
        u16::from(self.bus) << 8 | u16::from(self.device & 31) << 3 | u16::from(self.function & 7)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// What a base address register asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes this register and the next.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// The expansion ROM register (30h).
    Rom,
}

/// A base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// What it asks for.
    pub kind: BarKind,
    /// Length in bytes, a power of two.
    pub len: u64,
    /// The device's region behind it; RAM behind a BAR is mapped by the board and has none.
    pub region: Region,
}

/// What a configuration write changed, for [`PciFunction::config_written`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigChange {
    /// First byte written.
    pub offset: u16,
    /// Bytes written.
    pub len: u16,
}

impl ConfigChange {
    /// Whether the byte at `offset` was written.
    #[must_use]
    pub fn touches(self, offset: u16) -> bool {
        offset >= self.offset && offset - self.offset < self.len
    }
}

/// 256 bytes of configuration space with what guests may write, and the base address registers in it.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; 256],
    writable: [u8; 256],
    clear_on_one: [u8; 256],
    power_on: Option<Box<[u8; 256]>>,
    /// What a wake-up from suspend to RAM leaves alone.
    resume_well: Range<usize>,
    /// Registers 0-5, and 6 for the expansion ROM.
    bars: [Option<Bar>; 7],
    /// A PCI Express function: there is configuration space behind byte 255, all zeros.
    express: bool,
}

/// Offsets (6.1, figure 6-1).
mod reg {
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION: usize = 0x08;
    pub const CLASS: usize = 0x09;
    pub const HEADER_TYPE: usize = 0x0e;
    pub const BAR0: usize = 0x10;
    pub const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub const ROM: usize = 0x30;
    pub const CAPABILITIES: usize = 0x34;
    pub const INTERRUPT_LINE: usize = 0x3c;
    pub const INTERRUPT_PIN: usize = 0x3d;
}

/// Offsets of a type 1 header (PCI-to-PCI Bridge 1.2, 3.2.5).
mod bridge {
    pub const PRIMARY: usize = 0x18;
    pub const IO_BASE: usize = 0x1c;
    pub const SECONDARY_STATUS: usize = 0x1e;
    pub const MEMORY_BASE: usize = 0x20;
    pub const PREFETCHABLE_BASE: usize = 0x24;
    pub const PREFETCHABLE_UPPER: usize = 0x28;
    pub const IO_UPPER: usize = 0x30;
    pub const CONTROL: usize = 0x3e;
}

impl ConfigSpace {
    /// A type 0 header. `class` is the 24-bit class code (base, sub, interface: 0x010180). Command, cache line size,
    /// latency timer and interrupt line are writable.
    #[must_use]
    pub fn new(vendor: u16, device: u16, revision: u8, class: u32) -> Self {
        let mut config = Self {
            bytes: [0; 256],
            writable: [0; 256],
            clear_on_one: [0; 256],
            power_on: None,
            resume_well: 0..0,
            bars: [None; 7],
            express: false,
        };
        config.set_u16(0, vendor);
        config.set_u16(2, device);
        config.bytes[reg::REVISION] = revision;
        let [interface, sub, base, _] = class.to_le_bytes();
        config.bytes[reg::CLASS..reg::CLASS + 3].copy_from_slice(&[interface, sub, base]);
        config.allow_write(reg::COMMAND, &[0x07 | 0x40, 0x05]); // parity response, SERR#, INTx disable
        config.allow_write(0x0c, &[0xff, 0xff]);
        config.allow_write(reg::INTERRUPT_LINE, &[0xff]);
        // Error bits of the status register are cleared by writing ones (6.2.3).
        config.clear_on_one[reg::STATUS + 1] = 0xf9;
        config
    }

    /// Sets the subsystem vendor and device.
    #[must_use]
    pub fn with_subsystem(mut self, vendor: u16, device: u16) -> Self {
        self.set_u16(reg::SUBSYSTEM_VENDOR, vendor);
        self.set_u16(reg::SUBSYSTEM_VENDOR + 2, device);
        self
    }

    /// Sets the interrupt pin: 1 is INTA#, 4 is INTD#.
    #[must_use]
    pub fn with_interrupt_pin(mut self, pin: u8) -> Self {
        self.bytes[reg::INTERRUPT_PIN] = pin;
        self
    }

    /// Registers `offsets` keep their content while the machine is suspended to RAM.
    #[must_use]
    pub fn with_resume_well(mut self, offsets: Range<usize>) -> Self {
        self.resume_well = offsets;
        self
    }

    /// Sets the header type's multi-function bit.
    #[must_use]
    pub fn multi_function(mut self) -> Self {
        self.bytes[reg::HEADER_TYPE] |= 0x80;
        self
    }

    /// Makes it a PCI Express function: its extended configuration space holds no capability (PCI Express 3.0, 7.9.1).
    #[must_use]
    pub fn express(mut self) -> Self {
        self.express = true;
        self
    }

    /// Makes it the type 1 header of a PCI-to-PCI bridge (PCI-to-PCI Bridge 1.2, 3.2), with 32-bit I/O addresses and
    /// 64-bit prefetchable ones. Base address registers 0 and 1 may be declared.
    #[must_use]
    pub fn bridge(mut self) -> Self {
        self.bytes[reg::HEADER_TYPE] = self.bytes[reg::HEADER_TYPE] & 0x80 | 1;
        // Bus numbers and the secondary latency timer.
        self.allow_write(bridge::PRIMARY, &[0xff; 4]);
        self.allow_write(bridge::IO_BASE, &[0xf0, 0xf0]);
        self.allow_write(bridge::MEMORY_BASE, &[0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff]);
        self.allow_write(bridge::PREFETCHABLE_UPPER, &[0xff; 8]);
        // 32-bit I/O addresses, 64-bit prefetchable addresses.
        self.allow_write(bridge::IO_UPPER, &[0xff; 4]);
        (self.bytes[bridge::IO_BASE], self.bytes[bridge::IO_BASE + 1]) = (1, 1);
        (self.bytes[bridge::PREFETCHABLE_BASE], self.bytes[bridge::PREFETCHABLE_BASE + 2]) = (1, 1);
        self.clear_on_one[bridge::SECONDARY_STATUS + 1] = 0xf9;
        self.allow_write(bridge::CONTROL, &[0x7f, 0x0f]);
        self
    }

    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.bytes[reg::HEADER_TYPE] & 0x7f == 1
    }

    /// A bridge's secondary and subordinate bus numbers.
    #[must_use]
    pub fn bus_range(&self) -> (u8, u8) {
        (self.bytes[bridge::PRIMARY + 1], self.bytes[bridge::PRIMARY + 2])
    }

    /// Whether a bridge passes accesses to `first..=last` down to its secondary bus.
    #[must_use]
    pub fn forwards(&self, kind: BarKind, first: u64, last: u64) -> bool {
        let within = |base: u64, limit: u64| base <= limit && first >= base && last <= limit;
        if kind == BarKind::Io {
            let upper = |at: usize| u64::from(self.u16(at)) << 16;
            let base = u64::from(self.u8(bridge::IO_BASE) & 0xf0) << 8 | upper(bridge::IO_UPPER);
            let limit = u64::from(self.u8(bridge::IO_BASE + 1)) << 8 | 0xfff | upper(bridge::IO_UPPER + 2);
            return self.command() & COMMAND_IO != 0 && within(base, limit);
        }
        let window = |at: usize| {
            let base = u64::from(self.u16(at) & 0xfff0) << 16;
            (base, u64::from(self.u16(at + 2) & 0xfff0) << 16 | 0xf_ffff)
        };
        let (base, limit) = window(bridge::MEMORY_BASE);
        let (low_base, low_limit) = window(bridge::PREFETCHABLE_BASE);
        let upper = |at: usize| u64::from(self.u32(at)) << 32;
        let base64 = low_base | upper(bridge::PREFETCHABLE_UPPER);
        let limit64 = low_limit | upper(bridge::PREFETCHABLE_UPPER + 4);
        self.command() & COMMAND_MEMORY != 0 && (within(base, limit) || within(base64, limit64))
    }

    /// Declares base address register `index` (0-5, or 6 for the expansion ROM).
    #[must_use]
    pub fn with_bar(mut self, index: usize, bar: Bar) -> Self {
        let at = Self::bar_offset(index);
        let mask = !(bar.len - 1);
        let low = u32::try_from(mask & 0xffff_ffff).expect("masked to 32 bits");
        let (kind_bits, kind_mask) = match bar.kind {
            BarKind::Io => (1, 3),
            BarKind::Memory32 { prefetchable } => (u32::from(prefetchable) << 3, 15),
            BarKind::Memory64 { prefetchable } => (4 | u32::from(prefetchable) << 3, 15),
            BarKind::Rom => (0, 0x7fe),
        };
        self.bytes[at..at + 4].copy_from_slice(&kind_bits.to_le_bytes());
        let writable = low & !kind_mask | u32::from(bar.kind == BarKind::Rom);
        self.allow_write(at, &writable.to_le_bytes());
        if matches!(bar.kind, BarKind::Memory64 { .. }) {
            let high = u32::try_from(mask >> 32).expect("the upper half has 32 bits");
            self.allow_write(at + 4, &high.to_le_bytes());
        }
        self.bars[index] = Some(bar);
        self
    }

    fn bar_offset(index: usize) -> usize {
        if index == 6 { reg::ROM } else { reg::BAR0 + 4 * index }
    }

    /// Appends a capability (6.7) at `offset` with `body` after its two header bytes.
    pub fn add_capability(&mut self, offset: u8, id: u8, body: &[u8]) {
        let at = usize::from(offset);
        self.bytes[at] = id;
        self.bytes[at + 1] = self.bytes[reg::CAPABILITIES];
        self.bytes[at + 2..at + 2 + body.len()].copy_from_slice(body);
        self.bytes[reg::CAPABILITIES] = offset;
        self.set_u16(reg::STATUS, self.u16(reg::STATUS) | CAP_LIST);
    }

    /// Lets guests write the bits set in `mask`, from `offset` on.
    pub fn allow_write(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Lets guests clear the bits set in `mask` by writing ones, from `offset` on.
    pub fn allow_clear(&mut self, offset: usize, mask: &[u8]) {
        self.clear_on_one[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// A byte.
    #[must_use]
    pub fn u8(&self, offset: usize) -> u8 {
        self.bytes[offset & 0xff]
    }

    /// A little-endian word; `offset` is even.
    #[must_use]
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset + 1)])
    }

    /// A little-endian double word; `offset` is a multiple of 4.
    #[must_use]
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Sets a byte, whatever guests may write.
    pub fn set_u8(&mut self, offset: usize, value: u8) {
        self.bytes[offset & 0xff] = value;
    }

    /// Sets a little-endian word, whatever guests may write.
    pub fn set_u16(&mut self, offset: usize, value: u16) {
        self.bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets a little-endian double word, whatever guests may write.
    pub fn set_u32(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.u16(reg::COMMAND)
    }

    /// Whether the function may do DMA now.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// The interrupt pin: 0 none, 1 INTA# … 4 INTD#.
    #[must_use]
    pub fn interrupt_pin(&self) -> u8 {
        self.bytes[reg::INTERRUPT_PIN]
    }

    /// The 24-bit class code.
    #[must_use]
    pub fn class(&self) -> u32 {
        u32::from_le_bytes([self.bytes[9], self.bytes[10], self.bytes[11], 0])
    }

    /// The base address registers, 6 being the expansion ROM.
    #[must_use]
    pub fn bars(&self) -> [Option<Bar>; 7] {
        self.bars
    }

    /// The address in base address register `index`, without its kind bits.
    #[must_use]
    pub fn bar_address(&self, index: usize) -> u64 {
        let Some(bar) = self.bars.get(index).copied().flatten() else { return 0 };
        let at = Self::bar_offset(index);
        let low = u64::from(self.u32(at));
        match bar.kind {
            BarKind::Io => low & !3,
            BarKind::Memory32 { .. } => low & !15,
            BarKind::Memory64 { .. } => (low & !15) | u64::from(self.u32(at + 4)) << 32,
            BarKind::Rom => low & !0x7ff,
        }
    }

    /// Where base address register `index` decodes now; `None` while it does not: the command register's bit is
    /// off, the address is 0 or still the size probe's all ones.
    #[must_use]
    pub fn bar_mapping(&self, index: usize) -> Option<u64> {
        let bar = self.bars.get(index).copied().flatten()?;
        let needed = if bar.kind == BarKind::Io { COMMAND_IO } else { COMMAND_MEMORY };
        if self.command() & needed == 0 || (bar.kind == BarKind::Rom && self.u32(reg::ROM) & 1 == 0) {
            return None;
        }
        let address = self.bar_address(index);
        let last = address.checked_add(bar.len - 1)?;
        let limit = match bar.kind {
            BarKind::Io => 0xffff,
            BarKind::Memory32 { .. } | BarKind::Rom => 0xffff_fffe,
            BarKind::Memory64 { .. } => u64::MAX - 1,
        };
        (address != 0 && last <= limit).then_some(address)
    }

    /// A guest's read of up to 4 bytes.
    #[must_use]
    pub fn guest_read(&self, offset: u16, len: u16) -> u32 {
        if offset > 0xff {
            return if self.express { 0 } else { u32::MAX >> (32 - 8 * len.clamp(1, 4)) };
        }
        (0..len.min(4)).fold(0, |value, i| value | u32::from(self.u8(usize::from(offset + i))) << (8 * i))
    }

    /// A guest's write of up to 4 bytes: only writable bits change.
    pub fn guest_write(&mut self, offset: u16, len: u16, value: u32) {
        if offset > 0xff {
            return;
        }
        for i in 0..len.min(4) {
            let at = usize::from(offset + i) & 0xff;
            let byte = value.to_le_bytes()[usize::from(i)];
            let mask = self.writable[at];
            let kept = self.bytes[at] & !mask & !(byte & self.clear_on_one[at]);
            self.bytes[at] = kept | byte & mask;
        }
    }

    /// Remembers the present content as what [`ConfigSpace::reset`] goes back to. The board calls it when the
    /// function is plugged in.
    pub fn set_power_on(&mut self) {
        self.power_on = Some(Box::new(self.bytes));
    }

    /// Back to the power-on content.
    pub fn reset(&mut self, kind: Reset) {
        let Some(power_on) = &self.power_on else { return };
        let kept = match kind {
            Reset::System => 0..0,
            Reset::Wakeup => self.resume_well.clone(),
        };
        for (offset, (byte, cold)) in self.bytes.iter_mut().zip(power_on.iter()).enumerate() {
            if !kept.contains(&offset) {
                *byte = *cold;
            }
        }
    }
}

/// A device that is a PCI function. The bus does configuration accesses and maps base address registers.
pub trait PciFunction {
    /// The configuration space.
    fn config(&mut self) -> &mut ConfigSpace;

    /// A guest is about to read the configuration space: the time to bring registers up to date that are windows on
    /// something else.
    fn config_read(&mut self, _access: ConfigChange) {}

    /// A guest wrote the configuration space; standard registers have taken effect.
    fn config_written(&mut self, _change: ConfigChange) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> ConfigSpace {
        let bar = Bar { kind: BarKind::Memory32 { prefetchable: true }, len: 0x100_0000, region: Region(0) };
        ConfigSpace::new(0x1234, 0x1111, 2, 0x03_0000).with_bar(0, bar)
    }

    #[test]
    fn a_size_probe_reads_back_the_mask() {
        let mut config = function();
        config.guest_write(0x10, 4, 0xffff_ffff);
        assert_eq!(config.guest_read(0x10, 4), 0xff00_0008);
        config.guest_write(4, 2, u32::from(COMMAND_MEMORY));
        assert_eq!(config.bar_mapping(0), None);
        config.guest_write(0x10, 4, 0xfd00_0000);
        assert_eq!(config.bar_mapping(0), Some(0xfd00_0000));
    }

    #[test]
    fn identification_cannot_be_written() {
        let mut config = function();
        config.guest_write(0, 4, 0);
        assert_eq!(config.guest_read(0, 4), 0x1111_1234);
    }

    #[test]
    fn reset_restores_the_power_on_content() {
        let mut config = function();
        config.set_power_on();
        config.guest_write(4, 2, 7);
        config.reset(Reset::System);
        assert_eq!(config.command(), 0);
    }

    #[test]
    fn a_wake_up_leaves_the_resume_well_alone() {
        let mut config = function().with_resume_well(0x40..0x42);
        config.allow_write(0x40, &[0xff; 4]);
        config.set_power_on();
        config.guest_write(4, 2, 7);
        config.guest_write(0x40, 4, 0x1122_3344);
        config.reset(Reset::Wakeup);
        assert_eq!((config.command(), config.u32(0x40)), (0, 0x3344));
        config.reset(Reset::System);
        assert_eq!(config.u32(0x40), 0);
    }
}
