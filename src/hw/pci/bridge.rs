//! PCI-to-PCI bridges: PCI Express root ports, the conventional bridge, and the bridge from Express to conventional.
//!
//! Documents: PCI-to-PCI Bridge Architecture 1.2; PCI Express Base 3.0 (7.8, the capability). The identifications are
//! QEMU's.
//!
//! The windows, bus numbers and the command register's enables work; the bus master enable does not hold DMA back. There
//! is no hot plug, no error reporting and no power management: their capabilities are left out, so that nobody waits
//! for interrupts that never come.

use crate::bus::{At, ConfigSpace, Device, PciFunction, Reset};

/// Which bridge it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BridgeKind {
    /// `pcie-root-port`.
    RootPort,
    /// `ioh3420`: Intel's 5520 root port.
    Ioh3420,
    /// `pci-bridge`.
    Pci,
    /// `pcie-pci-bridge`.
    PciePci,
}

impl BridgeKind {
    /// The kind behind a class name.
    #[must_use]
    pub fn named(class: &str) -> Option<Self> {
        match class {
            "pcie-root-port" => Some(Self::RootPort),
            "ioh3420" => Some(Self::Ioh3420),
            "pci-bridge" => Some(Self::Pci),
            "pcie-pci-bridge" => Some(Self::PciePci),
            _ => None,
        }
    }

    /// Whether the bus behind it is one link: only slot 0 exists there.
    #[must_use]
    pub fn is_port(self) -> bool {
        matches!(self, Self::RootPort | Self::Ioh3420)
    }

    /// Vendor, device, revision; where its capabilities are: Express (0: none), and subsystem ids or slot numbers.
    fn identity(self) -> (u16, u16, u8, u8, u8) {
        match self {
            Self::RootPort => (0x1b36, 0x000c, 0, 0x54, 0x40),
            Self::Ioh3420 => (0x8086, 0x3420, 2, 0x90, 0x40),
            Self::Pci => (0x1b36, 0x0001, 0, 0, 0x40),
            Self::PciePci => (0x1b36, 0x000e, 0, 0x40, 0),
        }
    }
}

/// What the command line says of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgeOptions {
    /// `chassis=`, `chassis_nr=`.
    pub chassis: u8,
    /// `slot=`: the physical slot's number.
    pub slot: u16,
    /// `port=`: the link's number.
    pub port: u8,
    /// `multifunction=on`.
    pub multi_function: bool,
}

/// A bridge: nothing but its configuration space, which the board reads.
#[derive(Debug)]
pub struct Bridge {
    config: ConfigSpace,
}

/// Device/port types of the Express capability (7.8.2).
const TYPE_ROOT_PORT: u16 = 4;
const TYPE_PCIE_TO_PCI: u16 = 7;

/// The Express capability, version 2 (7.8): 32 lanes of 16 GT/s for ports, as QEMU says.
fn add_express(config: &mut ConfigSpace, at: u8, kind: u16, options: BridgeOptions) {
    let port = kind == TYPE_ROOT_PORT;
    let mut body = [0; 0x3a];
    // Offsets are those of the capability; its two header bytes are not in the body.
    let mut word = |offset: usize, value: u16| body[offset - 2..offset].copy_from_slice(&value.to_le_bytes());
    word(2, 2 | kind << 4 | u16::from(port) << 8);
    // Role-based error reporting.
    word(4, 0x8000);
    let (speed, width) = if port { (4, 32) } else { (1, 1) };
    word(0x0c, speed | width << 4);
    word(0x0e, u16::from(options.port) << 8);
    word(0x12, speed | width << 4);
    if port {
        // The slot's number; power limits and hot plug are left out. A device is there.
        word(0x16, options.slot << 3);
        word(0x1a, 1 << 6);
    }
    config.add_capability(at, 0x10, &body[..]);
    let start = usize::from(at);
    config.allow_write(start + 8, &[0xff, 0x7f]);
    config.allow_write(start + 0x10, &[0xcb, 0x0f]);
    if port {
        config.allow_write(start + 0x18, &[0xff, 0x1f]);
        config.allow_write(start + 0x1c, &[0x1f, 0]);
    }
}

impl Bridge {
    /// A bridge; the board has to be told of its bus ([`crate::bus::Board::add_pci_bus`]).
    #[must_use]
    pub fn new(kind: BridgeKind, options: BridgeOptions) -> Self {
        let (vendor, device, revision, express, other) = kind.identity();
        let mut config = ConfigSpace::new(vendor, device, revision, 0x06_0400).with_interrupt_pin(1).bridge();
        if options.multi_function {
            config = config.multi_function();
        }
        match kind {
            BridgeKind::RootPort | BridgeKind::Ioh3420 => {
                // Subsystem ids (PCI-to-PCI Bridge 1.2, 13.2.1).
                let [low, high] = vendor.to_le_bytes();
                config.add_capability(other, 0x0d, &[0, 0, low, high, 0, 0]);
            }
            // Slot numbering (PCI 3.0, appendix H): no expansion slots, the first of its chassis.
            BridgeKind::Pci => config.add_capability(other, 0x04, &[0x20, options.chassis]),
            BridgeKind::PciePci => {}
        }
        if express != 0 {
            let kind = if kind.is_port() { TYPE_ROOT_PORT } else { TYPE_PCIE_TO_PCI };
            add_express(&mut config, express, kind, options);
            config = config.express();
        }
        Self { config }
    }
}

impl Device for Bridge {
    fn read(&mut self, at: At) -> u64 {
        at.width.ones()
    }

    fn write(&mut self, _at: At, _value: u64) {}

    /// The board resets the configuration space.
    fn reset(&mut self, _kind: Reset) {}

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Bridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}
