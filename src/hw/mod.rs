//! Chips: each a `bus::Device`, written from its data sheet. Constructors take everything the chip touches.

pub mod acpi;
pub mod ahci;
pub mod char;
pub mod chipset;
pub mod display;
pub mod firmware;
pub mod flash;
pub mod ide;
pub mod input;
pub mod intc;
pub mod net;
pub mod nvme;
pub mod pci;
pub mod props;
pub mod registry;
pub mod scsi;
pub mod smbios;
pub mod storage;
pub mod timer;
pub mod virtio;

#[cfg(test)]
mod bench;
