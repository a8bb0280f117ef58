//! ACPI tables of the i440FX and Q35 boards, and the script by which the firmware places and links them.
//!
//! Documents: ACPI 6.5 (chapter 5 tables, chapter 19 ASL), IA-PC HPET 1.0a, 82371AB (PIIX4). The tables reach the
//! firmware through fw_cfg as `etc/acpi/tables`, `etc/acpi/rsdp` and `etc/table-loader`; SeaBIOS and OVMF follow the
//! script. Not modelled: CPU, memory and PCI hot-plug objects.

mod dsdt;
mod loader;
mod tables;

pub use tables::{AcpiBlobs, AcpiChipset, AcpiConfig, ECAM_LEN, ExtraTable, build};
