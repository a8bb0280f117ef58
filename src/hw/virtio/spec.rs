//! Registers of virtio over PCI (4.1.4, 4.1.5), as offsets in their regions.

use crate::bus::Region;

/// PCI vendor (4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// Added to a device type's number for the PCI device ID (4.1.2.1).
pub const MODERN_ID_BASE: u16 = 0x1040;
/// Subsystem ID of devices that are not transitional, as QEMU has it.
pub const MODERN_SUBSYSTEM: u16 = 0x1100;

/// The legacy interface, in I/O space (4.1.4.10).
pub const LEGACY: Region = Region(0);
/// MSI-X table and pending bits.
pub const MSIX: Region = Region(1);
/// The notification port of `modern-pio-notify`.
pub const PORT_NOTIFY: Region = Region(2);
/// The expansion ROM.
pub const ROM: Region = Region(3);
/// The modern structures.
pub const MODERN: Region = Region(4);

/// Base address register of each region.
pub const LEGACY_BAR: u8 = 0;
pub const MSIX_BAR: u8 = 1;
pub const PORT_NOTIFY_BAR: u8 = 2;
pub const MODERN_BAR: u8 = 4;

/// Where the structures lie in [`MODERN`], and how long they are.
pub const COMMON_OFFSET: u64 = 0x0000;
pub const ISR_OFFSET: u64 = 0x1000;
pub const DEVICE_OFFSET: u64 = 0x2000;
pub const NOTIFY_OFFSET: u64 = 0x3000;
pub const STRUCTURE_LEN: u32 = 0x1000;

/// Capability types (4.1.4).
pub const CAP_COMMON: u8 = 1;
pub const CAP_NOTIFY: u8 = 2;
pub const CAP_ISR: u8 = 3;
pub const CAP_DEVICE: u8 = 4;
pub const CAP_PCI: u8 = 5;
/// Vendor-specific capability.
pub const CAP_VENDOR: u8 = 9;

/// Offsets of `struct virtio_pci_common_cfg` (4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DESC_HIGH: u64 = 0x24;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x2c;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x34;
    pub const QUEUE_NOTIFY_DATA: u64 = 0x38;
    pub const QUEUE_RESET: u64 = 0x3a;
}

/// Offsets of the legacy interface (4.1.4.10). With MSI-X enabled, two vectors stand between it and the configuration.
pub mod legacy {
    pub const DEVICE_FEATURES: u64 = 0x00;
    pub const DRIVER_FEATURES: u64 = 0x04;
    pub const QUEUE_ADDRESS: u64 = 0x08;
    pub const QUEUE_SIZE: u64 = 0x0c;
    pub const QUEUE_SELECT: u64 = 0x0e;
    pub const QUEUE_NOTIFY: u64 = 0x10;
    pub const STATUS: u64 = 0x12;
    pub const ISR: u64 = 0x13;
    pub const CONFIG: u64 = 0x14;
    pub const CONFIG_VECTOR: u64 = 0x14;
    pub const QUEUE_VECTOR: u64 = 0x16;
    pub const CONFIG_WITH_MSIX: u64 = 0x18;
}

/// Device status bits (2.1).
pub mod status {
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const DEVICE_NEEDS_RESET: u8 = 64;
}
