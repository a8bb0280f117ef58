//! Whole machines: what a configuration says, built and run.

use std::sync::OnceLock;

mod assemble;
mod build;
mod chips;
pub mod config;
mod console;
mod control;
mod devices;
mod disks;
mod drives;
mod fabric;
mod firmware;
mod flash;
mod input;
mod intc;
mod iothread;
mod layout;
mod network;
mod nvme;
mod objects;
mod pc;
mod props;
mod q35;
mod rom;
mod scsi;
mod serial;
mod vcpu;
mod virtio;

pub use assemble::Assembled;
pub use build::{BuildError, Built, Surroundings, build, build_on};
pub use chips::ChipOptions;
pub use console::PortBus;
pub use control::{Cause, ControlError, EventListener, Machine, MachineEvent, MachineTime, Parts, RunState};
pub use devices::{Placed, PlacedDevice, PlacedDrive};
pub use disks::PlacedDisk;
pub use drives::{Drive, Drives, open_another};
pub use flash::PlacedFlash;
pub use iothread::IoThread;
pub use layout::{RamLayout, effective_order};
pub use network::{open_networks, spec as network_spec};
pub use nvme::NvmeBus;
pub use objects::Objects;
pub use pc::{Pc, South};
pub use rom::{RomError, RomSearch};
pub use scsi::ScsiBus;
pub use vcpu::{VcpuEvent, VcpuListener, Vcpus};

/// The name that the program was called by, without folders.
#[must_use]
pub fn program_name() -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(std::path::Path::file_name).and_then(std::ffi::OsStr::to_str);
    name.unwrap_or("qemu-kvm").to_owned()
}

/// What stands before messages (`-msg`): set once, when the command line is read.
static MESSAGE_STYLE: OnceLock<MessageStyle> = OnceLock::new();

/// What messages start with, besides the program's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MessageStyle {
    /// The time (`-msg timestamp=on`).
    pub timestamp: bool,
    /// The machine's name (`-msg guest-name=on`).
    pub guest_name: Option<String>,
}

/// Chooses what messages start with. The first choice stays.
pub fn set_message_style(style: MessageStyle) {
    // The process makes this call once.
    let _ = MESSAGE_STYLE.set(style);
}

/// A message of the program's own as people see it on standard error.
#[must_use]
pub fn message(text: &str) -> String {
    let style = MESSAGE_STYLE.get().cloned().unwrap_or_default();
    style.message(text)
}

impl MessageStyle {
    fn message(&self, text: &str) -> String {
        // QEMU prints this warning bare.
        if text.starts_with("WARNING: ") {
            return text.to_owned();
        }
        let stamp = if self.timestamp { format!("{} ", crate::trace::timestamp()) } else { String::new() };
        let guest = self.guest_name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
        format!("{stamp}{guest}{}: {text}", program_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_guest_and_program() {
        let plain = MessageStyle::default().message("x");
        assert_eq!(plain, format!("{}: x", program_name()));
        let named = MessageStyle { timestamp: false, guest_name: Some("g".to_owned()) };
        assert_eq!(named.message("x"), format!("g {plain}"));
        assert_eq!(named.message("WARNING: Image"), "WARNING: Image");
        let stamped = MessageStyle { timestamp: true, guest_name: None }.message("x");
        assert!(stamped.ends_with(&plain) && stamped.len() > plain.len() + 20, "{stamped}");
    }
}
