//! To be written.
pub mod acpi;
