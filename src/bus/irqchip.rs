//! The registers of interrupt controllers as monitors show them, whoever holds them: the kernel or our own chips.

/// The registers of an 8259A (Intel 8259A data sheet).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PicRegisters {
    /// Interrupt requests.
    pub irr: u8,
    /// Mask.
    pub imr: u8,
    /// In service.
    pub isr: u8,
    /// The input of highest priority.
    pub priority_add: u8,
    /// First vector.
    pub irq_base: u8,
    /// A read gives ISR.
    pub read_isr: bool,
    /// Level-triggered inputs.
    pub elcr: u8,
    /// Special fully nested mode.
    pub special_fully_nested: bool,
}

/// The registers of an I/O APIC (Intel 82093AA data sheet).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IoApicRegisters {
    /// Version register, bits 7-0.
    pub version: u8,
    /// Id.
    pub id: u8,
    /// Register select.
    pub select: u8,
    /// Redirection table.
    pub redirections: Vec<u64>,
    /// Pending inputs.
    pub irr: u32,
}

/// The interrupt controllers of a PC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IrqChipState {
    /// Master and slave.
    pub pics: [PicRegisters; 2],
    /// The I/O APIC.
    pub ioapic: IoApicRegisters,
}
