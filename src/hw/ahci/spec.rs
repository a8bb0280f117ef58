//! Registers and structures of AHCI.
//!
//! Documents: Serial ATA Advanced Host Controller Interface (AHCI) 1.3.1; Serial ATA 3.0, chapter 10 (frame information
//! structures).

use crate::bus::{Decode, Region};

/// Base address register 5: the memory-mapped registers.
pub const ABAR: Region = Region(0);
/// What [`ABAR`] decodes.
pub const ABAR_DECODE: Decode = Decode::DWORDS;
/// Base address register 4: index and data ports (ICH9 data sheet, 14.1.19).
pub const INDEX: Region = Region(1);

/// Command slots of a port.
pub(super) const SLOTS: u32 = 32;

/// Generic host control (3.1).
pub(super) mod hba {
    pub const CAP: u64 = 0x00;
    pub const GHC: u64 = 0x04;
    pub const IS: u64 = 0x08;
    pub const PI: u64 = 0x0c;
    pub const VS: u64 = 0x10;
    /// The first port's registers.
    pub const PORTS: u64 = 0x100;
    /// Bytes of a port's registers.
    pub const PORT_LEN: u64 = 0x80;
}

/// CAP (3.1.1): 64-bit addresses, queued commands, first generation, AHCI only, 32 slots.
pub(super) const CAP: u32 = 1 << 31 | 1 << 30 | 1 << 20 | 1 << 18 | 31 << 8;
/// Version 1.0 (3.1.5).
pub(super) const VERSION: u32 = 0x0001_0000;

/// GHC (3.1.2).
pub(super) mod ghc {
    pub const RESET: u32 = 1 << 0;
    pub const INTERRUPTS: u32 = 1 << 1;
    pub const AHCI: u32 = 1 << 31;
}

/// Port registers (3.3).
pub(super) mod port {
    pub const CLB: u64 = 0x00;
    pub const CLBU: u64 = 0x04;
    pub const FB: u64 = 0x08;
    pub const FBU: u64 = 0x0c;
    pub const IS: u64 = 0x10;
    pub const IE: u64 = 0x14;
    pub const CMD: u64 = 0x18;
    pub const TFD: u64 = 0x20;
    pub const SIG: u64 = 0x24;
    pub const SSTS: u64 = 0x28;
    pub const SCTL: u64 = 0x2c;
    pub const SERR: u64 = 0x30;
    pub const SACT: u64 = 0x34;
    pub const CI: u64 = 0x38;
}

/// PxIS and PxIE (3.3.5, 3.3.6).
pub(super) mod irq {
    pub const D2H: u32 = 1 << 0;
    pub const PIO_SETUP: u32 = 1 << 1;
    pub const SET_DEVICE_BITS: u32 = 1 << 3;
    /// Follows PxSERR.DIAG.X.
    pub const PORT_CONNECT: u32 = 1 << 6;
    pub const OVERFLOW: u32 = 1 << 24;
    pub const HOST_BUS_FATAL: u32 = 1 << 29;
    pub const TASK_FILE_ERROR: u32 = 1 << 30;
    /// Bits that are there.
    pub const ALL: u32 = 0xfdc0_00ff;
}

/// PxCMD (3.3.7).
pub(super) mod cmd {
    pub const START: u32 = 1 << 0;
    pub const SPIN_UP: u32 = 1 << 1;
    pub const POWER_ON: u32 = 1 << 2;
    pub const LIST_OVERRIDE: u32 = 1 << 3;
    pub const FIS_ENABLE: u32 = 1 << 4;
    pub const CURRENT_SHIFT: u32 = 8;
    pub const FIS_RUNNING: u32 = 1 << 14;
    pub const LIST_RUNNING: u32 = 1 << 15;
    pub const ATAPI: u32 = 1 << 24;
    /// ATAPI and its LED, power management bits: kept for the guest.
    pub const WRITABLE: u32 = START | SPIN_UP | POWER_ON | FIS_ENABLE | ATAPI | 7 << 25;
}

/// PxSSTS: a device is there and talks, first generation, active (3.3.10).
pub(super) const SSTS_ACTIVE: u32 = 0x113;
/// PxSCTL.DET: the interface is being reset (3.3.11).
pub(super) const DET_RESET: u32 = 1;
/// PxSERR.DIAG.X: a device was seen (3.3.12).
pub(super) const SERR_EXCHANGED: u32 = 1 << 26;

/// Kinds of frames (Serial ATA 3.0, 10.4.4).
pub(super) mod fis {
    pub const H2D: u8 = 0x27;
    pub const D2H: u8 = 0x34;
    pub const PIO_SETUP: u8 = 0x5f;
    pub const SET_DEVICE_BITS: u8 = 0xa1;
    /// In the second byte of [`H2D`]: it is a command.
    pub const COMMAND: u8 = 1 << 7;
    /// In the second byte of the others: an interrupt is wanted.
    pub const INTERRUPT: u8 = 1 << 6;
    /// In [`PIO_SETUP`]: data goes to the host.
    pub const TO_HOST: u8 = 1 << 5;

    /// Where received frames are (AHCI 4.2.1).
    pub const PIO_SETUP_AT: u64 = 0x20;
    pub const D2H_AT: u64 = 0x40;
    pub const SET_DEVICE_BITS_AT: u64 = 0x58;
    /// Bytes of the area.
    pub const AREA: u64 = 0x100;
}

/// A command header (4.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub flags: u16,
    /// Entries of the region descriptor table.
    pub entries: u16,
    /// The command table.
    pub table: u64,
}

impl Header {
    pub const LEN: u64 = 32;
    /// A packet is in the table.
    pub const ATAPI: u16 = 1 << 5;

    pub fn parse(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, _, _, _, _, table @ ..] = bytes;
        Self {
            flags: u16::from_le_bytes([a, b]),
            entries: u16::from_le_bytes([c, d]),
            table: u64::from_le_bytes(table) & !0x7f,
        }
    }
}

/// Offsets in a command table (4.2.3).
pub(super) mod table {
    pub const PACKET: u64 = 0x40;
    pub const REGIONS: u64 = 0x80;
    /// Bytes of a region descriptor.
    pub const REGION_LEN: u64 = 16;
}
