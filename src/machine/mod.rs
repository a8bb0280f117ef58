//! Whole machines: what a configuration says, built and run.

mod assemble;
mod build;
pub mod config;
mod control;
mod devices;
mod drives;
mod fabric;
mod firmware;
mod input;
mod layout;
mod pc;
mod props;
mod rom;
mod serial;
mod vcpu;

pub use assemble::Assembled;
pub use build::{BuildError, Built, Surroundings, build, build_on};
pub use control::{Cause, ControlError, EventListener, Machine, MachineEvent, Parts, RunState};
pub use devices::{Placed, PlacedDevice, PlacedDrive};
pub use drives::{Drive, Drives, open_another};
pub use layout::{RamLayout, effective_order};
pub use pc::Pc;
pub use rom::{RomError, RomSearch};
pub use vcpu::{VcpuEvent, VcpuListener, Vcpus};

/// The name that the program was called by, without folders.
#[must_use]
pub fn program_name() -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(std::path::Path::file_name).and_then(std::ffi::OsStr::to_str);
    name.unwrap_or("qemu-kvm").to_owned()
}

/// A message of the program's own as people see it on standard error.
#[must_use]
pub fn message(text: &str) -> String {
    format!("{}: {text}", program_name())
}
