//! The memory controller hub (82Q35 GMCH), function 00:00.0: the memory window on configuration space (PCIEXBAR), PAM,
//! SMRAM and TSEG.
//!
//! Documents: Intel 3 Series Express Chipset Family data sheet (316966), section 5.1 "DRAM controller registers".
//!
//! System management mode has no memory of its own here: SMRAM can be opened (D_OPEN) and locked, and TSEG, once it is
//! enabled, is hidden from everybody. DRAM timing and the graphics device do not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bus::{At, ConfigChange, ConfigSpace, Device, PciFunction, Region, RegionHandle, Reset};

use super::super::i440fx::PamSegment;

/// TSEG while it is hidden: reads as ones, writes are lost. Decode up to 8 bytes.
pub const TSEG: Region = Region(0);

/// Length of the memory window at most: 256 buses.
pub const ECAM_LEN: u64 = 256 << 20;

/// Configuration registers (5.1).
mod conf {
    /// QEMU's: the guest asks for the size of an extended TSEG here, in MiB.
    pub const EXT_TSEG_MIB: usize = 0x50;
    pub const PCIEXBAR: usize = 0x60;
    pub const PAM: usize = 0x90;
    pub const SMRAM: usize = 0x9d;
    pub const ESMRAMC: usize = 0x9e;
}

/// PCIEXBAR (5.1.16).
mod pciexbar {
    pub const ENABLE: u64 = 1;
    /// 256, 128 or 64 MiB.
    pub fn len(value: u64) -> Option<u64> {
        match value >> 1 & 3 {
            0 => Some(256 << 20),
            1 => Some(128 << 20),
            2 => Some(64 << 20),
            _ => None,
        }
    }
}

/// SMRAM (5.1.31).
mod smram {
    pub const GLOBAL_ENABLE: u8 = 1 << 3;
    pub const LOCK: u8 = 1 << 4;
    pub const CLOSED: u8 = 1 << 5;
    pub const OPEN: u8 = 1 << 6;
    pub const BASE_A0000: u8 = 2;
    pub const WRITABLE: u8 = GLOBAL_ENABLE | LOCK | CLOSED | OPEN;
}

/// ESMRAMC (5.1.32).
mod esmramc {
    pub const TSEG_ENABLE: u8 = 1 << 0;
    /// Cache bits, which read as ones (5.1.32, SM_CACHE, SM_L1, SM_L2).
    pub const FIXED: u8 = 0x38;
    pub const WRITABLE: u8 = 0x87;
}

/// Bytes of TSEG by ESMRAMC.TSEG_SZ; the last is QEMU's extended one.
#[must_use]
pub fn tseg_lengths(extended_mib: u16) -> [u64; 4] {
    [1, 2, 8, u64::from(extended_mib)].map(|mib| mib << 20)
}

/// Where the window was put, for the tables that firmware asks for; 0 while it is off.
pub type EcamBase = Arc<AtomicU64>;

/// What [`Mch`] moves.
#[derive(Debug)]
pub struct Wires {
    /// The PAM segments, in the order of [`super::super::i440fx::PAM_SEGMENTS`].
    pub segments: [PamSegment; 13],
    /// A mapping of RAM over [`super::super::i440fx::SMRAM_WINDOW`], above the display's, hidden.
    pub smram: RegionHandle,
    /// [`TSEG`] where it is with each of [`tseg_lengths`], hidden.
    pub tsegs: [RegionHandle; 4],
    /// The window on configuration space, [`ECAM_LEN`] bytes, hidden.
    pub ecam: RegionHandle,
    /// Told where that is.
    pub ecam_base: EcamBase,
}

/// The host bridge.
#[derive(Debug)]
pub struct Mch {
    // Wires.
    wires: Wires,
    // Options.
    extended_tseg_mib: u16,
    // Guest-visible state.
    config: ConfigSpace,
    // Derived from it.
    applied: [u8; 13],
}

impl Mch {
    /// The power-on place of the window, as far as firmware does not move it.
    pub const ECAM_DEFAULT: u64 = 0xb000_0000;

    /// The bridge; TSEG ends where RAM below 4 GiB does.
    #[must_use]
    pub fn new(extended_tseg_mib: u16, wires: Wires) -> Self {
        let mut config = ConfigSpace::new(0x8086, 0x29c0, 0, 0x06_0000)
            .with_subsystem(0x1af4, 0x1100)
            .with_resume_well(conf::PAM..conf::PAM + 7);
        config.set_u16(conf::EXT_TSEG_MIB, extended_tseg_mib);
        config.set_u32(conf::PCIEXBAR, u32::try_from(Self::ECAM_DEFAULT).unwrap_or(0));
        // Bits 25-3 are reserved (5.1.16); the bits for smaller windows count only with them, which is checked later.
        config.allow_write(conf::PCIEXBAR, &[0x07, 0, 0, 0xfc, 0x0f, 0, 0, 0]);
        config.allow_write(conf::PAM, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        config.set_u8(conf::SMRAM, smram::BASE_A0000);
        config.set_u8(conf::ESMRAMC, esmramc::FIXED);
        config.allow_write(conf::SMRAM, &[smram::WRITABLE, esmramc::WRITABLE]);
        Self { wires, extended_tseg_mib, config, applied: [0; 13] }
    }

    fn attributes(&self, index: usize) -> u8 {
        let byte = self.config.u8(conf::PAM + index.div_ceil(2));
        if index.is_multiple_of(2) { byte >> 4 & 3 } else { byte & 3 }
    }

    /// Makes PAM, SMRAM and TSEG follow the registers.
    fn update_memory(&mut self) {
        for index in 0..self.wires.segments.len() {
            let attributes = self.attributes(index);
            if self.applied[index] != attributes {
                self.applied[index] = attributes;
                self.wires.segments[index].apply(attributes);
            }
        }
        let control = self.config.u8(conf::SMRAM);
        let enabled = control & smram::GLOBAL_ENABLE != 0;
        self.wires.smram.set_enabled(enabled && control & smram::OPEN != 0);
        let extended = self.config.u8(conf::ESMRAMC);
        let chosen = (enabled && extended & esmramc::TSEG_ENABLE != 0).then_some(extended >> 1 & 3);
        for (size, tseg) in (0u8..).zip(&self.wires.tsegs) {
            tseg.set_enabled(chosen == Some(size));
        }
    }

    /// Makes the window follow PCIEXBAR. A window shorter than 256 MiB shows all buses here.
    fn update_window(&self) {
        let value = u64::from(self.config.u32(conf::PCIEXBAR)) | u64::from(self.config.u32(conf::PCIEXBAR + 4)) << 32;
        let base = match pciexbar::len(value) {
            Some(len) if value & pciexbar::ENABLE != 0 => value & !(len - 1),
            _ => 0,
        };
        self.wires.ecam_base.store(base, Ordering::Relaxed);
        if base != 0 {
            self.wires.ecam.move_to(base);
        }
        self.wires.ecam.set_enabled(base != 0);
    }

    /// SMRAM's lock and QEMU's way to ask for the extended TSEG's size.
    fn settle(&mut self, change: ConfigChange) {
        if change.touches(0x50) || change.touches(0x51) {
            // FFFFh asks; what is read is the size in MiB (QEMU, docs/specs: none; OVMF's SmmAccess driver does so).
            self.config.set_u16(conf::EXT_TSEG_MIB, self.extended_tseg_mib);
        }
        if !change.touches(0x9d) && !change.touches(0x9e) {
            return;
        }
        let value = self.config.u8(conf::SMRAM);
        if value & smram::LOCK != 0 {
            self.config.set_u8(conf::SMRAM, value & !smram::OPEN);
            // Locked until reset (5.1.31); SMRAM can still be closed.
            self.config.allow_write(conf::SMRAM, &[smram::CLOSED, 0]);
        }
    }
}

impl Device for Mch {
    fn read(&mut self, at: At) -> u64 {
        at.width.ones()
    }

    fn write(&mut self, _at: At, _value: u64) {}

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        self.config.allow_write(conf::SMRAM, &[smram::WRITABLE, esmramc::WRITABLE]);
        self.update_memory();
        self.update_window();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Mch {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        self.settle(change);
        if (0x60..0x68).any(|byte| change.touches(byte)) {
            self.update_window();
        }
        if (0x90..0x9f).any(|byte| change.touches(byte)) {
            self.update_memory();
        }
    }
}
