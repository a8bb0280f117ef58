//! Chips: each a `bus::Device`, written from its data sheet.

pub mod acpi;
pub mod display;
pub mod firmware;
pub mod ide;
pub mod smbios;
