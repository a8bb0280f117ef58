//! Whole machines: what a configuration says, built and run.

pub mod config;
mod control;
mod layout;
mod rom;
mod vcpu;

pub use control::{Cause, ControlError, EventListener, Machine, MachineEvent, Parts, RunState};
pub use layout::{DiskGeometry, RamLayout, boot_order_cmos, cpus_cmos, disks_cmos, effective_order};
pub use rom::{RomError, RomSearch};
pub use vcpu::{VcpuEvent, VcpuListener, Vcpus};

/// A message of the program's own as people see it on standard error.
fn message(text: &str) -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(std::path::Path::file_name).and_then(std::ffi::OsStr::to_str);
    format!("{}: {text}", name.unwrap_or("qemu-kvm"))
}
