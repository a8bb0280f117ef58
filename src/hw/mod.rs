//! Chips: each a `bus::Device`, written from its data sheet. Constructors take everything the chip touches.

pub mod acpi;
pub mod char;
pub mod chipset;
pub mod display;
pub mod firmware;
pub mod flash;
pub mod ide;
pub mod input;
pub mod intc;
pub mod props;
pub mod registry;
pub mod smbios;
pub mod timer;

#[cfg(test)]
mod bench;
