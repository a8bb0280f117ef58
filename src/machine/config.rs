//! What a machine is to be: pure data. `options` makes it from a command line, `machine::build` makes a machine of it.

use crate::cpu::Topology;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::accel::Icount;

/// Everything a command line says about one machine and its process.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// `-name guest=`.
    pub name: Option<String>,
    /// `-name process=`.
    pub process_name: Option<String>,
    /// `-machine`.
    pub machine: MachineSpec,
    /// `-accel`, best first; empty: the default rule.
    pub accelerators: Vec<AccelSpec>,
    /// `-icount`.
    pub icount: Option<Icount>,
    /// `-cpu`.
    pub cpu: CpuSpec,
    /// `-smp`, all counts resolved.
    pub smp: Smp,
    /// `-m`.
    pub memory: MemorySpec,
    /// `-rtc`.
    pub rtc: RtcSpec,
    /// `-boot`.
    pub boot: BootSpec,
    /// `-bios` or `-machine firmware=`.
    pub bios: Option<String>,
    /// `-L`, in the order given.
    pub data_dirs: Vec<PathBuf>,
    /// `-kernel` and company.
    pub kernel: Option<KernelSpec>,
    /// `-smbios`, in the order given, as key/value lists.
    pub smbios: Vec<Vec<(String, String)>>,
    /// `-acpitable`, in the order given.
    pub acpi_tables: Vec<Vec<(String, String)>>,
    /// `-fw_cfg`.
    pub fw_cfg: Vec<FwCfgSpec>,
    /// `-uuid`, in text order.
    pub uuid: Option<[u8; 16]>,
    /// Host sides of networks: `-netdev`, and those of `-nic` and `-net`.
    pub netdevs: Vec<NetdevSpec>,
    /// `-object filter-dump`.
    pub dumps: Vec<DumpSpec>,
    /// Network cards of `-nic` and `-net nic`.
    pub nics: Vec<NicSpec>,
    /// Host sides of disks: `-drive`, `-hda`, … and QEMU's default CD-ROM drive.
    pub drives: Vec<DriveSpec>,
    /// `-blockdev` nodes, in the order given.
    pub nodes: Vec<NodeSpec>,
    /// `-device`, and those that other options imply.
    pub devices: Vec<DeviceSpec>,
    /// `-object`, in the order given.
    pub objects: Vec<ObjectSpec>,
    /// `-global driver.property=value`.
    pub globals: Vec<GlobalSpec>,
    /// `-chardev`, and those that other options imply.
    pub chardevs: Vec<ChardevSpec>,
    /// `-serial` n: the chardev's id, or none.
    pub serials: Vec<Option<String>>,
    /// `-parallel` n: the chardev's id, or none.
    pub parallels: Vec<Option<String>>,
    /// `-debugcon`: the chardev's id.
    pub debugcon: Option<String>,
    /// `-monitor`, `-qmp`, `-mon`.
    pub monitors: Vec<MonitorSpec>,
    /// `-gdb`, `-s`.
    pub gdb: Option<GdbSpec>,
    /// `-qtest`.
    pub qtest: Option<QtestSpec>,
    /// `-qtest-log`.
    pub qtest_log: Option<String>,
    /// `-vga`.
    pub vga: VgaKind,
    /// `-display`, `-vnc`, `-nographic`.
    pub displays: Vec<DisplaySpec>,
    /// `-k`.
    pub keymap: Option<String>,
    /// Whether the machine's default devices are wanted (`-nodefaults` clears it).
    pub defaults: bool,
    /// `-S`.
    pub start_paused: bool,
    /// `-action` and its older forms.
    pub actions: Actions,
    /// The process's own settings.
    pub process: ProcessSpec,
    /// `-d`, `-D`, `-trace`, `-msg`.
    pub log: LogSpec,
    /// The program's name as messages start with it (`basename argv[0]`).
    pub program: String,
    /// What the command line earned in warnings, each as it goes to standard error.
    pub warnings: Vec<String>,
}

/// `-machine`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineSpec {
    /// The type's full name ("pc-i440fx-10.0"); aliases are resolved.
    pub kind: String,
    /// Its other properties, in the order given ("hpet" = "off").
    pub properties: Vec<(String, String)>,
}

/// The chipset of a board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chipset {
    /// `pc`: 440FX and PIIX3.
    I440fx,
    /// `q35`: Q35 MCH and ICH9.
    Q35,
}

impl MachineSpec {
    /// The chipset of the machine type.
    #[must_use]
    pub fn chipset(&self) -> Chipset {
        if self.kind.starts_with("pc-q35-") { Chipset::Q35 } else { Chipset::I440fx }
    }

    /// A property's value.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A switch; `default` if it was not given, or is "auto".
    #[must_use]
    pub fn switch(&self, name: &str, default: bool) -> bool {
        match self.property(name) {
            Some("on" | "yes" | "true" | "y") => true,
            Some("off" | "no" | "false" | "n") => false,
            _ => default,
        }
    }
}

/// One `-accel`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccelSpec {
    /// "kvm", "tcg", "qtest".
    pub name: String,
    /// Its properties.
    pub properties: Vec<(String, String)>,
}

/// `-cpu`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuSpec {
    /// The model; `None` is the machine's default.
    pub model: Option<String>,
    /// What follows, in order: (`+feat` and `feat=on` are "on", `-feat` is "off").
    pub properties: Vec<(String, String)>,
}

/// `-smp`, resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Smp {
    /// CPUs at start.
    pub cpus: u32,
    /// CPUs at most; the product of the levels.
    pub max_cpus: u32,
    /// How many of each level.
    pub levels: Topology,
}

impl Default for Smp {
    fn default() -> Self {
        Self { cpus: 1, max_cpus: 1, levels: Topology::default() }
    }
}

/// `-m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemorySpec {
    /// Bytes at start.
    pub size: u64,
    /// Hot-plug slots.
    pub slots: u32,
    /// Bytes at most.
    pub max: u64,
}

impl Default for MemorySpec {
    fn default() -> Self {
        Self { size: 128 << 20, slots: 0, max: 128 << 20 }
    }
}

/// `-rtc base=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RtcBase {
    /// The host's UTC.
    #[default]
    Utc,
    /// The host's local time.
    LocalTime,
    /// A fixed start: seconds since 1970-01-01 00:00.
    Date(i64),
}

/// `-rtc clock=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RtcClock {
    /// Follows the host's wall clock.
    #[default]
    Host,
    /// Follows the host's monotonic clock.
    Rt,
    /// Follows the virtual clock.
    Vm,
}

/// `-rtc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RtcSpec {
    /// Where it starts.
    pub base: RtcBase,
    /// What it follows.
    pub clock: RtcClock,
    /// `driftfix=slew`.
    pub slew: bool,
}

/// `-boot`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootSpec {
    /// Drive letters; empty: the machine's "cad".
    pub order: String,
    /// For the first boot only.
    pub once: Option<String>,
    /// Interactive menu.
    pub menu: Option<bool>,
    /// Picture file.
    pub splash: Option<String>,
    /// Milliseconds to show it.
    pub splash_time_ms: Option<u16>,
    /// Milliseconds until a failed boot starts over; -1 (as 65535) for never.
    pub reboot_timeout_ms: Option<u16>,
    /// Only boot from what has a boot index.
    pub strict: bool,
}

/// `-kernel`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelSpec {
    /// The kernel image.
    pub kernel: PathBuf,
    /// `-initrd`: one file, or multiboot modules.
    pub initrd: Option<String>,
    /// `-append`.
    pub append: String,
    /// `-dtb` is refused; `-shim`.
    pub shim: Option<PathBuf>,
}

/// Where `-fw_cfg` gets its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FwCfgSource {
    /// `string=`.
    Text(String),
    /// `file=`.
    File(PathBuf),
}

/// `-fw_cfg`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FwCfgSpec {
    /// Item name.
    pub name: String,
    /// Content.
    pub source: FwCfgSource,
}

/// The host side of a drive, before formats are probed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DriveSpec {
    /// The drive's name ("ide0-hd0", or `id=`).
    pub id: String,
    /// The medium; `None` is an empty CD-ROM or floppy drive.
    pub node: Option<NodeSpec>,
    /// `media=cdrom`.
    pub cdrom: bool,
    /// `read-only=on`.
    pub read_only: bool,
    /// `snapshot=on` or `-snapshot`.
    pub snapshot: bool,
    /// `rerror=`, `werror=`: what to do on errors ("report", "stop", "ignore", "enospc", "auto").
    pub read_error: Option<String>,
    /// As above.
    pub write_error: Option<String>,
    /// For `if=none` drives without a device: no complaint.
    pub interface: DriveInterface,
    /// Bus number, for `if=ide`.
    pub bus: u32,
    /// Unit on the bus.
    pub unit: u32,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// `-drive if=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DriveInterface {
    /// The machine's default bus.
    #[default]
    Ide,
    /// Only a name for `-device`.
    None,
    /// Floppy.
    Floppy,
    /// SCSI.
    Scsi,
    /// virtio-blk-pci.
    Virtio,
    /// Flash.
    Pflash,
    /// SD card.
    Sd,
}

/// A block node by driver and options, as `-blockdev` and `json:` say it; nested nodes are objects in `options`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeSpec {
    /// Format driver; `None`: probe.
    pub driver: Option<String>,
    /// File name or address of the protocol node, if it was given as one string.
    pub filename: Option<String>,
    /// All other options ("cache.direct" is nested), as QMP's blockdev-add has them.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// `-device`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceSpec {
    /// Class ("ide-hd"); aliases are resolved.
    pub driver: String,
    /// `id=`.
    pub id: Option<String>,
    /// `bus=`.
    pub bus: Option<String>,
    /// All other properties, in the order given.
    pub properties: Vec<(String, String)>,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// The host's side of a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetdevSpec {
    /// Type ("user").
    pub kind: String,
    /// `id=`, or one that was made up.
    pub id: String,
    /// Its options, in the order given.
    pub options: Vec<(String, String)>,
    /// The hub of `-net`.
    pub hub: Option<u32>,
    /// The option as typed, for messages; empty for a default.
    pub origin: String,
}

/// A recording of a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpSpec {
    /// Its id.
    pub id: String,
    /// The host's side that is recorded.
    pub netdev: String,
    /// The file.
    pub file: PathBuf,
    /// Bytes of each frame that are kept.
    pub max_len: u32,
    /// What the host's side sends, and what it receives.
    pub directions: (bool, bool),
    /// The option as typed, for messages.
    pub origin: String,
}

/// What a network card hangs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetPeer {
    /// A host's side, by id.
    Netdev(String),
    /// A hub.
    Hub(u32),
}

/// A network card of `-nic` or `-net nic`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicSpec {
    /// Class; `None`: the machine's default.
    pub model: Option<String>,
    /// Address.
    pub mac: Option<[u8; 6]>,
    /// `name=`, or nothing.
    pub id: String,
    /// PCI slot.
    pub addr: Option<String>,
    /// Where it leads.
    pub peer: NetPeer,
    /// The option as typed, for messages; empty for a default.
    pub origin: String,
}

/// `-object`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectSpec {
    /// Type ("iothread").
    pub kind: String,
    /// `id=`.
    pub id: String,
    /// All other properties, in the order given, checked against the type.
    pub properties: Vec<(String, String)>,
    /// The option as typed, for messages.
    pub origin: String,
}

impl ObjectSpec {
    /// A property's value.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// `-global`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GlobalSpec {
    /// Class.
    pub driver: String,
    /// Property.
    pub property: String,
    /// Value.
    pub value: String,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// `-chardev`, or what `-serial tcp:…` and company come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChardevSpec {
    /// `id=`.
    pub id: String,
    /// Back end ("stdio", "socket", "file", "pipe", "pty", "null", "vc", "ringbuf", "udp", "serial", "parallel").
    pub backend: String,
    /// Its options, in the order given, with QEMU's `-chardev` names.
    pub options: Vec<(String, String)>,
    /// `mux=on`.
    pub mux: bool,
    /// `logfile=`.
    pub logfile: Option<PathBuf>,
    /// `logappend=`.
    pub logappend: bool,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// Where a debugger connects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GdbSpec {
    /// The chardev's id.
    pub chardev: String,
    /// The option as typed, for messages.
    pub origin: String,
}

/// Where a test program connects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QtestSpec {
    /// The chardev's id.
    pub chardev: String,
    /// The option as typed, for messages.
    pub origin: String,
}

/// A monitor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MonitorSpec {
    /// `id=`.
    pub id: Option<String>,
    /// The chardev's id.
    pub chardev: String,
    /// `mode=control`: QMP.
    pub qmp: bool,
    /// `pretty=on`.
    pub pretty: bool,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// `-vga`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VgaKind {
    /// The machine's default: standard VGA, unless `-nodefaults`.
    #[default]
    Default,
    /// Standard VGA on PCI.
    Std,
    /// None.
    None,
}

/// A display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DisplaySpec {
    /// `-display none`.
    None,
    /// VNC.
    Vnc(VncSpec),
}

/// `-vnc`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VncSpec {
    /// `id=`.
    pub id: Option<String>,
    /// The address as typed: `host:display`, `unix:path`, `none`.
    pub address: String,
    /// `to=`: the highest display number to try.
    pub to: Option<u16>,
    /// The other options, in the order given ("password" = "on", "share" = "ignore", …).
    pub options: Vec<(String, String)>,
    /// The option as typed ("-drive file=x"), for messages; empty for a default.
    pub origin: String,
}

/// What an event of the machine does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actions {
    /// `reboot=shutdown` (`-no-reboot`).
    pub reboot_shuts_down: bool,
    /// `shutdown=pause` (`-no-shutdown`).
    pub shutdown_pauses: bool,
    /// `panic=`.
    pub panic: PanicAction,
    /// `watchdog=`, by QEMU's name.
    pub watchdog: WatchdogAction,
}

impl Default for Actions {
    fn default() -> Self {
        Self {
            reboot_shuts_down: false,
            shutdown_pauses: false,
            panic: PanicAction::Shutdown,
            watchdog: WatchdogAction::Reset,
        }
    }
}

/// `-action panic=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PanicAction {
    /// Report and go on.
    None,
    /// Pause.
    Pause,
    /// Exit.
    Shutdown,
    /// Exit with a failure status.
    ExitFailure,
}

/// `-action watchdog=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchdogAction {
    /// Reset the machine.
    Reset,
    /// Ask the guest to shut down.
    Shutdown,
    /// Exit.
    Poweroff,
    /// Pause.
    Pause,
    /// Report only.
    Debug,
    /// Nothing.
    None,
    /// Raise a non-maskable interrupt.
    InjectNmi,
}

impl WatchdogAction {
    /// QEMU's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Poweroff => "poweroff",
            Self::Pause => "pause",
            Self::Debug => "debug",
            Self::None => "none",
            Self::InjectNmi => "inject-nmi",
        }
    }
}

/// Settings of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProcessSpec {
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `-runas`.
    pub run_as: Option<String>,
    /// `-chroot`.
    pub chroot: Option<PathBuf>,
    /// `-nographic`: serial port and monitor share the terminal.
    pub nographic: bool,
    /// `-no-user-config` and friends need no field: we read no configuration file of our own.
    pub parent_pid: Option<u32>,
    /// `-name debug-threads=`.
    pub debug_threads: bool,
}

/// Logging.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogSpec {
    /// `-d` items.
    pub items: Vec<String>,
    /// `-dfilter`: linear addresses of code.
    pub filter: Vec<RangeInclusive<u64>>,
    /// `-D`.
    pub file: Option<PathBuf>,
    /// `-trace` patterns.
    pub trace: Vec<String>,
    /// `-msg timestamp=on`.
    pub timestamp: bool,
    /// `-msg guest-name=on`.
    pub guest_name: bool,
    /// `-trace file=`: where trace points go; without it, with the rest of the log.
    pub trace_file: Option<PathBuf>,
}
