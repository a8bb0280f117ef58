//! The answers to queries: plain data, as QMP's schema has it. `hmp::format` and `qmp::json` turn them into text and
//! JSON.

use crate::block::Stats;
use serde_json::Value;

use crate::bus::{IoApicRegisters, PicRegisters};

/// Whether a machine runs, and if not, why (QMP's RunState).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RunState {
    /// A debugger stopped it.
    Debug,
    /// Waits for an incoming migration.
    InMigrate,
    /// The accelerator could not go on.
    InternalError,
    /// A disk error with `werror=stop` or `rerror=stop`.
    IoError,
    /// `stop`.
    Paused,
    /// Migrated away.
    PostMigrate,
    /// Never started (`-S`).
    #[default]
    Prelaunch,
    /// The end of a migration.
    FinishMigrate,
    /// A snapshot is being restored.
    RestoreVm,
    /// Runs.
    Running,
    /// A snapshot is being saved.
    SaveVm,
    /// Shut down, with `-no-shutdown`.
    Shutdown,
    /// In S3.
    Suspended,
    /// The watchdog's `pause`.
    Watchdog,
    /// The guest reported a crash.
    GuestPanicked,
}

impl RunState {
    /// QMP's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::InMigrate => "inmigrate",
            Self::InternalError => "internal-error",
            Self::IoError => "io-error",
            Self::Paused => "paused",
            Self::PostMigrate => "postmigrate",
            Self::Prelaunch => "prelaunch",
            Self::FinishMigrate => "finish-migrate",
            Self::RestoreVm => "restore-vm",
            Self::Running => "running",
            Self::SaveVm => "save-vm",
            Self::Shutdown => "shutdown",
            Self::Suspended => "suspended",
            Self::Watchdog => "watchdog",
            Self::GuestPanicked => "guest-panicked",
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(self) -> bool {
        self == Self::Running
    }
}

/// Whether KVM is there and used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KvmInfo {
    /// The machine runs on it.
    pub enabled: bool,
    /// This program has it.
    pub present: bool,
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuInfo {
    /// Index from 0.
    pub index: u32,
    /// The host's thread id.
    pub thread_id: i64,
    /// Waits in HLT, or for its start-up.
    pub halted: bool,
    /// Place in the topology.
    pub place: CpuPlace,
    /// Path in the object tree: "/machine/unattached/device[0]".
    pub qom_path: String,
}

/// A place in the CPU topology.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuPlace {
    /// Socket.
    pub socket: u32,
    /// Die, where the machine has more than one a socket.
    pub die: Option<u32>,
    /// Module, where the machine has more than one a die.
    pub module: Option<u32>,
    /// Core.
    pub core: u32,
    /// Thread.
    pub thread: u32,
}

/// A place for a CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HotpluggableCpu {
    /// The device that fits ("qemu64-x86_64-cpu").
    pub kind: String,
    /// Place in the topology.
    pub place: CpuPlace,
    /// Path of the CPU that is there.
    pub qom_path: Option<String>,
}

/// Memory sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemorySize {
    /// At start.
    pub base: u64,
    /// Plugged later.
    pub plugged: u64,
}

/// The machine's type.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CurrentMachine {
    /// "pc-i440fx-10.0".
    pub kind: String,
    /// Whether the guest can be woken from S3.
    pub wakeup_suspend_support: bool,
}

/// A machine type.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineInfo {
    /// Name.
    pub name: String,
    /// Other name.
    pub alias: Option<String>,
    /// Whether it is the default.
    pub is_default: bool,
    /// CPUs at most.
    pub cpu_max: u32,
    /// CPUs can be plugged while it runs.
    pub hotpluggable_cpus: bool,
    /// `-numa node,mem=` works.
    pub numa_mem_supported: bool,
    /// Will go away.
    pub deprecated: bool,
    /// "qemu64-x86_64-cpu".
    pub default_cpu_type: Option<String>,
    /// "pc.ram".
    pub default_ram_id: Option<String>,
    /// Has ACPI.
    pub acpi: bool,
}

/// A CPU model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuDefinition {
    /// "qemu64".
    pub name: String,
    /// "qemu64-x86_64-cpu".
    pub type_name: String,
    /// `max` and `host` depend on the host.
    pub is_static: bool,
    /// Works with live migration.
    pub migration_safe: bool,
    /// Features that the host lacks; `None` if that is not known.
    pub unavailable_features: Option<Vec<String>>,
    /// The versioned model that an alias stands for.
    pub alias_of: Option<String>,
    /// Will go away.
    pub deprecated: bool,
}

/// A mapping of an address space, before flattening.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryNode {
    /// Name.
    pub name: String,
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// Priority.
    pub priority: i32,
    /// "ram", "rom", "romd" or "i/o".
    pub kind: &'static str,
    /// Where it shows part of another region: that region's name, and the first and last offset in it.
    pub alias: Option<(String, u64, u64)>,
    /// What is inside.
    pub children: Vec<Self>,
}

/// An address space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressSpace {
    /// "memory", "I/O", or a device's name.
    pub name: String,
    /// Its root.
    pub root: MemoryNode,
}

/// What address spaces come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlatView {
    /// Name and root of each address space that shows it.
    pub spaces: Vec<(String, String)>,
    /// The root region's name.
    pub root: Option<String>,
    /// Sorted ranges.
    pub ranges: Vec<FlatNode>,
}

/// A range of a flat view.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlatNode {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// Priority.
    pub priority: i32,
    /// "ram", "rom", "romd" or "i/o".
    pub kind: &'static str,
    /// The region's name.
    pub name: String,
    /// Offset in the region.
    pub offset: u64,
    /// KVM has it as memory.
    pub kvm: bool,
}

/// How often each input of an interrupt controller was raised.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IrqStatistics {
    /// "kvm-ioapic", "kvm-i8259", "ioapic", "isa-i8259".
    pub controller: String,
    /// Input and count; zeros are left out in the text.
    pub counts: Vec<(u32, u64)>,
}

/// The state of an interrupt controller, numbered from 0 in its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InterruptController {
    /// An 8259A; 0 is the master.
    Pic(u32, PicRegisters),
    /// An I/O APIC.
    IoApic(u32, IoApicRegisters),
}

/// A PCI function.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciDevice {
    /// Bus.
    pub bus: u8,
    /// Slot.
    pub slot: u8,
    /// Function.
    pub function: u8,
    /// Class and subclass.
    pub class: u16,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem vendor and device, of an ordinary function.
    pub subsystem: Option<(u16, u16)>,
    /// Interrupt pin, 1-4; 0: none.
    pub irq_pin: u8,
    /// Interrupt line register.
    pub irq_line: u8,
    /// The device's id, or nothing.
    pub id: String,
    /// Base address registers that exist; 6 is the expansion ROM.
    pub bars: Vec<PciBar>,
}

/// A base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PciBar {
    /// 0-6.
    pub index: u8,
    /// Ports, not memory.
    pub io: bool,
    /// 64 bits wide.
    pub wide: bool,
    /// Prefetchable.
    pub prefetch: bool,
    /// Where it is, if it is mapped.
    pub address: Option<u64>,
    /// Length in bytes.
    pub len: u64,
}

/// A bus of the device tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QtreeBus {
    /// "main-system-bus", "pci.0".
    pub name: String,
    /// "System", "PCI", "ISA", "IDE".
    pub kind: String,
    /// In the order they are printed: QEMU has the newest first.
    pub devices: Vec<QtreeDevice>,
}

/// A device of the device tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QtreeDevice {
    /// Class.
    pub driver: String,
    /// Id, or nothing.
    pub id: String,
    /// Inputs and outputs, as ("gpio-in", name, count).
    pub gpios: Vec<(&'static str, String, u32)>,
    /// Properties as (name, printed value).
    pub properties: Vec<(String, String)>,
    /// Further lines: "mmio 00000000fed00000/0000000000000400".
    pub lines: Vec<String>,
    /// The PCI function it is; its class, address and base registers are printed.
    pub pci: Option<PciDevice>,
    /// Buses that it makes.
    pub buses: Vec<QtreeBus>,
}

/// A ROM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rom {
    /// In guest memory.
    Mapped {
        /// Guest physical address.
        address: u64,
        /// Bytes.
        len: u64,
        /// Guests cannot write it.
        read_only: bool,
        /// Name.
        name: String,
    },
    /// In fw_cfg, from a file.
    FwCfg {
        /// Folder ("genroms").
        folder: String,
        /// File.
        file: String,
        /// Bytes.
        len: u64,
        /// Name.
        name: String,
    },
    /// A memory region of its own.
    Region {
        /// "/rom@etc/acpi/tables".
        region: String,
        /// Bytes.
        len: u64,
        /// Name.
        name: String,
    },
}

/// A mouse or tablet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mouse {
    /// Number.
    pub index: u32,
    /// "QEMU PS/2 Mouse".
    pub name: String,
    /// It receives the events.
    pub current: bool,
    /// It takes absolute positions.
    pub absolute: bool,
}

/// A drive.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BlockDevice {
    /// "ide0-hd0"; empty for `-blockdev` with a device.
    pub device: String,
    /// The device that it belongs to: its id, or "/machine/unattached/device[6]".
    pub qdev: Option<String>,
    /// A CD or floppy drive.
    pub removable: bool,
    /// The guest locked the tray.
    pub locked: bool,
    /// The tray is open; `None`: no tray.
    pub tray_open: Option<bool>,
    /// "ok", "failed" or "nospace", for devices that keep it.
    pub io_status: Option<&'static str>,
    /// The medium.
    pub inserted: Option<InsertedMedium>,
}

/// A medium.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InsertedMedium {
    /// The node's name, given or "#block129".
    pub node_name: String,
    /// File name as given.
    pub file: String,
    /// Format driver.
    pub driver: String,
    /// Write-protected.
    pub read_only: bool,
    /// Encrypted.
    pub encrypted: bool,
    /// Backing file.
    pub backing_file: Option<String>,
    /// How many images are below it.
    pub backing_depth: u32,
    /// Writes complete before they are flushed.
    pub writeback: bool,
    /// Past the host's cache.
    pub direct: bool,
    /// Flushes are ignored.
    pub no_flush: bool,
    /// "off", "on" or "unmap".
    pub detect_zeroes: &'static str,
    /// QMP's ImageInfo.
    pub image: Value,
    /// What `qemu-img info` says of it, for `info block -v`.
    pub image_text: String,
}

/// What a drive did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockStats {
    /// The drive's name.
    pub device: String,
    /// The device that it belongs to.
    pub qdev: Option<String>,
    /// The medium's node.
    pub node_name: Option<String>,
    /// Counters of the drive.
    pub counters: Stats,
    /// Driver and counters of the file below the medium's node.
    pub parent: Option<(String, Stats)>,
}

/// An address of a VNC server or viewer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VncAddress {
    /// Host, or the path of a Unix socket.
    pub host: String,
    /// Port.
    pub service: String,
    /// "ipv4", "ipv6", "unix".
    pub family: &'static str,
    /// Through a WebSocket.
    pub websocket: bool,
}

/// A VNC server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VncServer {
    /// "default".
    pub id: String,
    /// "none", "vnc".
    pub auth: &'static str,
    /// Where it listens.
    pub listeners: Vec<VncAddress>,
    /// Who is connected.
    pub clients: Vec<VncAddress>,
}
