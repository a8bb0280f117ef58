//! ICH9 function 00:1f.3: the SMBus host.
//!
//! Documents: Intel I/O Controller Hub 9 data sheet (316972), chapter 18. The registers are the PIIX4's as far as
//! firmware uses them.

use crate::bus::{At, Bar, BarKind, ConfigSpace, Decode, Device, PciFunction, Region, Reset};

use super::super::smbus::SmbusHost;

/// Base address register 4: 64 ports. Decode bytes.
pub const PORTS: Region = Region(0);
/// What [`PORTS`] decodes.
pub const DECODE: Decode = Decode::BYTES;

/// Host configuration (18.1.15): the host is enabled by bit 0.
const HOSTC: usize = 0x40;

/// The function.
#[derive(Debug)]
pub struct Ich9Smbus {
    config: ConfigSpace,
    host: SmbusHost,
}

impl Ich9Smbus {
    /// The host with SPD EEPROMs at addresses 50h and on.
    #[must_use]
    pub fn new(eeproms: Vec<[u8; 256]>) -> Self {
        let bar = Bar { kind: BarKind::Io, len: 64, region: PORTS };
        let mut config = ConfigSpace::new(0x8086, 0x2930, 2, 0x0c_0500)
            .with_subsystem(0x1af4, 0x1100)
            .with_interrupt_pin(1)
            .multi_function()
            .with_bar(4, bar);
        config.allow_write(HOSTC, &[0x1f]);
        Self { config, host: SmbusHost::new(eeproms) }
    }

    fn enabled(&self) -> bool {
        self.config.u8(HOSTC) & 1 != 0
    }
}

impl Device for Ich9Smbus {
    fn read(&mut self, at: At) -> u64 {
        if self.enabled() { u64::from(self.host.read(at.offset)) } else { at.width.ones() }
    }

    fn write(&mut self, at: At, value: u64) {
        if self.enabled() {
            let [byte, ..] = value.to_le_bytes();
            self.host.write(at.offset, byte);
        }
    }

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        self.host.reset();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Ich9Smbus {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}
