//! SMBIOS tables, for the firmware to publish.
//!
//! Documents: System Management BIOS Reference Specification 2.8 (DSP0134; chapter 5 the entry point, chapter 7 the
//! structures). They reach the firmware through fw_cfg as `etc/smbios/smbios-anchor` and `etc/smbios/smbios-tables`.
//! Strings and defaults are QEMU's: guests recognise their hypervisor by them.

mod fields;
mod tables;

pub use fields::SmbiosError;
pub use tables::{Processors, SmbiosBlobs, SmbiosConfig, build};
