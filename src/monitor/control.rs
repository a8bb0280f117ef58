//! What the monitor asks of a machine: one trait, answered with plain data.

use std::sync::Arc;

use crate::chardev::Chardevs;
use crate::cpu::CpuState;
use crate::net::Networks;
use crate::ui::{Display, InputEvent};

use super::info::{
    AddressSpace, BlockDevice, BlockStats, CpuDefinition, CpuInfo, CurrentMachine, FlatView, HotpluggableCpu,
    InterruptController, IrqStatistics, KvmInfo, MachineInfo, MemorySize, Mouse, PciDevice, QtreeBus, Rom, RunState,
    VncServer,
};

/// The class of an error, as QMP names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ErrorClass {
    /// Everything that needs no class of its own.
    #[default]
    GenericError,
    /// No such command.
    CommandNotFound,
    /// No such device.
    DeviceNotFound,
    /// The device is there, but has not been activated.
    DeviceNotActive,
}

impl ErrorClass {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
        }
    }
}

/// Why a command failed: QEMU's text, without "Error: ".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct CommandError {
    /// Class.
    pub class: ErrorClass,
    /// Text.
    pub text: String,
}

impl CommandError {
    /// A generic error.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, text: text.into() }
    }

    /// "Device 'x' not found".
    #[must_use]
    pub fn device_not_found(device: &str) -> Self {
        Self { class: ErrorClass::DeviceNotFound, text: format!("Device '{device}' not found") }
    }
}

/// What commands return.
pub type CommandResult<T = ()> = Result<T, CommandError>;

/// How `eject` and `change` name a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriveName<'a> {
    /// By the drive's name ("ide1-cd0").
    Device(&'a str),
    /// By the device's id or path.
    Id(&'a str),
}

impl DriveName<'_> {
    /// The name itself.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Device(name) | Self::Id(name) => name,
        }
    }
}

/// What `change` does with a new medium's write protection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadOnlyMode {
    /// As the old one.
    #[default]
    Retain,
    /// Read-only.
    ReadOnly,
    /// Writable.
    ReadWrite,
}

/// A new medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewMedium<'a> {
    /// Image file.
    pub filename: &'a str,
    /// Its format; `None`: probe.
    pub format: Option<&'a str>,
    /// Write protection.
    pub read_only: ReadOnlyMode,
    /// Open the tray though the guest locked it.
    pub force: bool,
}

/// What `set_password` does with viewers that are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IfConnected {
    /// They stay.
    #[default]
    Keep,
    /// The command fails.
    Fail,
    /// They are thrown out.
    Disconnect,
}

/// The width of a port access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortWidth {
    /// A byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Long,
}

/// A machine as its monitors see it.
///
/// Monitors call it on the main loop's thread and hold no lock meanwhile; an implementation takes the board lock as
/// it needs. What stops vCPUs may wait for them.
pub trait Control: Send + Sync {
    // -- what it is ----------------------------------------------------------------------------------------------

    /// `-name guest=`.
    fn name(&self) -> Option<String>;
    /// `-uuid`, in text order; zeros if there is none.
    fn uuid(&self) -> [u8; 16];
    /// Whether KVM is there and used.
    fn kvm(&self) -> KvmInfo;
    /// Whether the machine runs, and if not, why.
    fn run_state(&self) -> RunState;
    /// The machine type and what it can do.
    fn current_machine(&self) -> CurrentMachine;
    /// All machine types of this program.
    fn machines(&self) -> Vec<MachineInfo>;
    /// All CPU models of this program.
    fn cpu_definitions(&self) -> Vec<CpuDefinition>;

    // -- CPUs and memory -----------------------------------------------------------------------------------------

    /// The CPUs, by index.
    fn cpus(&self) -> Vec<CpuInfo>;
    /// Where CPUs are or could be plugged.
    fn hotpluggable_cpus(&self) -> Vec<HotpluggableCpu>;
    /// The registers of a CPU.
    ///
    /// # Errors
    /// There is no such CPU, or the host refuses.
    fn cpu_state(&self, index: u32) -> CommandResult<CpuState>;
    /// Initial and hot-plugged memory.
    fn memory_size(&self) -> MemorySize;
    /// Reads guest physical memory as a CPU would, device registers included. Returns whether all of it could be
    /// read.
    fn read_physical(&self, gpa: u64, buf: &mut [u8]) -> bool;
    /// A port read.
    fn port_read(&self, port: u16, width: PortWidth) -> u32;
    /// A port write.
    fn port_write(&self, port: u16, width: PortWidth, value: u32);

    // -- what is in it -------------------------------------------------------------------------------------------

    /// `info mtree`.
    fn memory_tree(&self) -> Vec<AddressSpace>;
    /// `info mtree -f`.
    fn flat_views(&self) -> Vec<FlatView>;
    /// `info irq`.
    fn irq_statistics(&self) -> Vec<IrqStatistics>;
    /// `info pic`.
    fn interrupt_controllers(&self) -> Vec<InterruptController>;
    /// PCI functions by bus, slot and function.
    fn pci_devices(&self) -> Vec<PciDevice>;
    /// `info qtree`: the root bus.
    fn qtree(&self) -> QtreeBus;
    /// ROMs.
    fn roms(&self) -> Vec<Rom>;
    /// Mice and tablets.
    fn mice(&self) -> Vec<Mouse>;
    /// Drives and what is in them.
    fn block_devices(&self) -> Vec<BlockDevice>;
    /// What the drives did.
    fn block_stats(&self) -> Vec<BlockStats>;
    /// VNC servers and their viewers.
    fn vnc_servers(&self) -> Vec<VncServer>;
    /// The character devices.
    fn chardevs(&self) -> Arc<Chardevs>;
    /// The networks.
    fn networks(&self) -> Arc<Networks>;
    /// Makes a network back end; the options are those of `-netdev`, as text or as a JSON object.
    ///
    /// # Errors
    /// QEMU's text.
    fn netdev_add(&self, options: &str) -> CommandResult;
    /// The display, if the machine has one.
    fn display(&self) -> Option<Arc<Display>>;

    // -- what it does --------------------------------------------------------------------------------------------

    /// Stops the machine and waits until its vCPUs stand; nothing if it does not run.
    fn stop(&self);
    /// Starts the machine again.
    ///
    /// # Errors
    /// It must be reset first, or cannot go on at all.
    fn cont(&self) -> CommandResult;
    /// Asks for a reset.
    fn system_reset(&self);
    /// Presses the power button.
    fn system_powerdown(&self);
    /// Wakes the guest from S3.
    ///
    /// # Errors
    /// It does not sleep.
    fn system_wakeup(&self) -> CommandResult;
    /// Ends the process, in order, soon after this returns.
    fn quit(&self);
    /// Raises an NMI on every CPU.
    ///
    /// # Errors
    /// The machine has no way to do so.
    fn nmi(&self) -> CommandResult;
    /// An input event for the guest's keyboard or mouse, whatever console is shown. It may take the board lock.
    fn input(&self, event: InputEvent);
    /// Chooses the mouse that receives events.
    ///
    /// # Errors
    /// There is no such mouse: "Mouse at index 'n' not found".
    fn mouse_set(&self, index: u32) -> CommandResult;
    /// Opens the tray and removes the medium.
    ///
    /// # Errors
    /// QEMU's: "Device 'x' not found", "Device 'x' is not removable", "Device 'x' is locked and force was not
    /// specified, wait for tray to open and try again".
    fn eject(&self, drive: DriveName<'_>, force: bool) -> CommandResult;
    /// Puts another medium into a drive.
    ///
    /// # Errors
    /// As [`Control::eject`], or the medium cannot be opened.
    fn change_medium(&self, drive: DriveName<'_>, medium: NewMedium<'_>) -> CommandResult;
    /// Another boot order, from now on.
    ///
    /// # Errors
    /// "Invalid boot device 'x'", "Boot device 'x' was given twice", "no function defined to set boot device list for
    /// this architecture".
    fn boot_set(&self, order: &str) -> CommandResult;
    /// `gdbserver`: serves debuggers on a device from now on, or no more ("none"). Returns QEMU's lines.
    fn gdb_server(&self, device: &str) -> String;
    /// `log`: which items are logged from now on ("none", or a list with commas).
    ///
    /// # Errors
    /// An item is unknown; the caller prints the list.
    fn set_log_items(&self, items: &str) -> CommandResult;
    /// The items that [`Control::set_log_items`] knows, with what each logs.
    fn log_items(&self) -> Vec<(String, String)>;
    /// `logfile`.
    ///
    /// # Errors
    /// The file cannot be written.
    fn set_log_file(&self, path: &str) -> CommandResult;
    /// Another VNC password. `server` is the server's id, the first one if `None`.
    ///
    /// # Errors
    /// QEMU's: "Could not set password", "'action-if-connected' …".
    fn set_vnc_password(&self, server: Option<&str>, password: &str, connected: IfConnected) -> CommandResult;
    /// When the VNC password ends: "now", "never", "+seconds" or "seconds since 1970".
    ///
    /// # Errors
    /// QEMU's: "Could not set password expire time".
    fn expire_vnc_password(&self, server: Option<&str>, time: &str) -> CommandResult;
}
