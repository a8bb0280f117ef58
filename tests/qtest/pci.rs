//! PCI functions of a machine under test: configuration by mechanism #1 (PCI 3.0, 3.2.2.3.2), base address registers.

use crate::client::Qtest;

/// A function: bus, device, function.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    machine: &'a Qtest,
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

impl std::fmt::Debug for Function<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Where a base address register was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// A port.
    Io(u16),
    /// A memory address.
    Memory(u64),
}

impl Bar {
    /// The memory address.
    pub fn memory(self) -> u64 {
        match self {
            Self::Memory(base) => base,
            Self::Io(_) => panic!("a register in I/O space"),
        }
    }

    /// The port.
    pub fn port(self) -> u16 {
        match self {
            Self::Io(base) => base,
            Self::Memory(_) => panic!("a register in memory space"),
        }
    }
}

impl<'a> Function<'a> {
    /// A function on bus 0.
    pub fn new(machine: &'a Qtest, device: u8, function: u8) -> Self {
        Self::on(machine, 0, device, function)
    }

    /// A function on any bus.
    pub fn on(machine: &'a Qtest, bus: u8, device: u8, function: u8) -> Self {
        Self { machine, bus, device, function }
    }

    /// The first function on bus 0 with these identifications.
    pub fn find(machine: &'a Qtest, vendor: u16, device: u16) -> Self {
        let all = (0..32).flat_map(|slot| (0..8).map(move |function| Self::new(machine, slot, function)));
        let wanted = u32::from(device) << 16 | u32::from(vendor);
        all.into_iter().find(|f| f.read32(0) == wanted).unwrap_or_else(|| panic!("no function {wanted:08x}"))
    }

    fn select(&self, offset: u8) -> u16 {
        let address = 1 << 31
            | u32::from(self.bus) << 16
            | u32::from(self.device) << 11
            | u32::from(self.function) << 8
            | u32::from(offset & 0xfc);
        self.machine.outl(0xcf8, address);
        0xcfc + u16::from(offset & 3)
    }

    pub fn read8(&self, offset: u8) -> u8 {
        let port = self.select(offset);
        self.machine.inb(port)
    }

    pub fn read16(&self, offset: u8) -> u16 {
        let port = self.select(offset);
        self.machine.inw(port)
    }

    pub fn read32(&self, offset: u8) -> u32 {
        let port = self.select(offset);
        self.machine.inl(port)
    }

    pub fn write8(&self, offset: u8, value: u8) {
        let port = self.select(offset);
        self.machine.outb(port, value);
    }

    pub fn write16(&self, offset: u8, value: u16) {
        let port = self.select(offset);
        self.machine.outw(port, value);
    }

    pub fn write32(&self, offset: u8, value: u32) {
        let port = self.select(offset);
        self.machine.outl(port, value);
    }

    /// The offset of a capability (6.7).
    pub fn capability(&self, id: u8) -> Option<u8> {
        let mut at = self.read8(0x34);
        for _ in 0..48 {
            match (at, self.read8(at)) {
                (0, _) => return None,
                (_, found) if found == id => return Some(at),
                _ => at = self.read8(at + 1),
            }
        }
        panic!("the capabilities of {self:?} have no end");
    }

    /// Whether 64 bits are in the register (6.2.5.1).
    fn is_wide(low: u32) -> bool {
        low & 7 == 4
    }

    /// The size of base address register `index` (0-5), by its own probe; 0 if there is none.
    pub fn bar_size(&self, index: u8) -> u64 {
        let at = 0x10 + 4 * index;
        let before = self.read32(at);
        self.write32(at, u32::MAX);
        let mask = self.read32(at);
        self.write32(at, before);
        if mask == 0 {
            return 0;
        }
        let mask = if mask & 1 != 0 { mask & !3 | 0xffff_0000 } else { mask & !15 };
        u64::from(!mask) + 1
    }

    /// Puts base address register `index` at a place of its own (below 4 GiB).
    pub fn map_bar(&self, index: u8) -> Bar {
        let at = 0x10 + 4 * index;
        let kind = self.read32(at);
        let size = self.bar_size(index);
        assert_ne!(size, 0, "{self:?} has no base address register {index}");
        let (io, memory) = self.machine.next_bar.get();
        if kind & 1 != 0 {
            let base = io.next_multiple_of(size.max(4));
            self.machine.next_bar.set((base + size, memory));
            self.write32(at, base as u32);
            return Bar::Io(base as u16);
        }
        let base = memory.next_multiple_of(size.max(0x1000));
        self.machine.next_bar.set((io, base + size));
        self.write32(at, base as u32);
        if Self::is_wide(kind) {
            self.write32(at + 4, 0);
        }
        Bar::Memory(base)
    }

    /// Lets the function answer in I/O and memory space, and be a bus master.
    pub fn enable(&self) {
        self.write16(4, self.read16(4) | 7);
    }
}
