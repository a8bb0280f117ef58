//! To be written.
pub mod acpi;
pub mod ide;
