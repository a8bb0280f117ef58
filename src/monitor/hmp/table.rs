//! The commands: names, arguments, help, and what runs them. The help texts are QEMU's.

use super::commands as run;
use super::information as info;
use super::lex::{Arg, Args, Kind, arg};
use super::{CommandResult, Hmp};

/// What a command does.
#[derive(Clone, Copy)]
enum Action {
    Run(fn(&mut Hmp<'_>, &Args) -> CommandResult),
    Subcommands(&'static [Command]),
}

/// A command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its names, separated by bars: "stop|s".
    pub name: &'static str,
    /// Its arguments, as help shows them.
    pub params: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
    action: Action,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.name)
    }
}

impl Command {
    const fn new(
        name: &'static str,
        params: &'static str,
        help: &'static str,
        args: &'static [Arg],
        run: fn(&mut Hmp<'_>, &Args) -> CommandResult,
    ) -> Self {
        Self { name, params, help, args, action: Action::Run(run) }
    }

    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.name.split('|')
    }

    /// The commands of its second word.
    #[must_use]
    pub fn subcommands(&self) -> Option<&'static [Command]> {
        match self.action {
            Action::Subcommands(table) => Some(table),
            Action::Run(_) => None,
        }
    }

    pub(super) fn run(&self, hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
        match self.action {
            Action::Run(run) => run(hmp, args),
            Action::Subcommands(_) => Ok(()),
        }
    }

    fn help_line(&self, prefix: &str) -> String {
        format!("{prefix}{} {} -- {}\n", self.name, self.params, self.help)
    }
}

/// A command by one of its names.
#[must_use]
pub fn find(table: &'static [Command], name: &str) -> Option<&'static Command> {
    table.iter().find(|command| command.names().any(|n| n == name))
}

/// Whether there is such a command.
#[must_use]
pub fn is_command(name: &str) -> bool {
    find(COMMANDS, name).is_some()
}

/// A line for each command.
#[must_use]
pub fn help_all(table: &[Command], prefix: &str) -> String {
    table.iter().map(|command| command.help_line(prefix)).collect()
}

/// `help` with a command's name.
#[must_use]
pub fn help(topic: &str) -> String {
    let mut words = topic.split_whitespace();
    let Some(name) = words.next() else { return help_all(COMMANDS, "") };
    if name == "log" {
        return log_help();
    }
    let Some(command) = find(COMMANDS, name) else { return format!("unknown command: '{name}'\n") };
    match (command.subcommands(), words.next()) {
        (Some(table), None) => help_all(table, &format!("{name} ")),
        (Some(table), Some(sub)) => match find(table, sub) {
            Some(found) => found.help_line(&format!("{name} ")),
            None => format!("unknown command: '{name} {sub}'\n"),
        },
        (None, _) => command.help_line(""),
    }
}

/// `help log`: what can be logged.
pub(super) fn log_help() -> String {
    let none = format!("{:<15} remove all logs\n", "none");
    let items = crate::trace::items_help().replace("Use \"-d trace:help\"", "Use \"log trace:help\"");
    match items.split_once('\n') {
        Some((title, rest)) => format!("{title}\n{none}{rest}"),
        None => items,
    }
}

/// All commands, sorted by name.
pub static COMMANDS: &[Command] = &[
    Command::new(
        "boot_set",
        "bootdevice",
        "define new values for the boot device list",
        &[arg("bootdevice", Kind::Text)],
        run::boot_set,
    ),
    Command::new(
        "change",
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format, use -f to force the operation",
        &[
            arg("device", Kind::Drive),
            arg("force", Kind::Flag('f')),
            arg("target", Kind::File),
            arg("arg", Kind::OptionalText),
            arg("read-only-mode", Kind::OptionalText),
        ],
        run::change,
    ),
    Command::new("chardev-add", "args", "add chardev", &[arg("args", Kind::Text)], run::chardev_add),
    Command::new("chardev-remove", "id", "remove chardev", &[arg("id", Kind::Text)], run::chardev_remove),
    Command::new(
        "chardev-send-break",
        "id",
        "send a break on chardev",
        &[arg("id", Kind::Text)],
        run::chardev_send_break,
    ),
    Command::new("cont|c", "", "resume emulation", &[], run::cont),
    Command::new("cpu", "index", "set the default CPU", &[arg("index", Kind::Int)], run::cpu),
    Command::new(
        "eject",
        "[-f] device",
        "eject a removable medium (use -f to force it)",
        &[arg("force", Kind::Flag('f')), arg("device", Kind::Drive)],
        run::eject,
    ),
    Command::new(
        "expire_password",
        "protocol time [-d display]",
        "set spice/vnc password expire-time",
        &[arg("protocol", Kind::Text), arg("time", Kind::Text), arg("display", Kind::FlagText('d'))],
        run::expire_password,
    ),
    Command::new(
        "gdbserver",
        "[device]",
        "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
        &[arg("device", Kind::OptionalText)],
        run::gdbserver,
    ),
    Command::new(
        "gva2gpa",
        "addr",
        "print the guest physical address corresponding to a guest virtual address",
        &[arg("addr", Kind::Long)],
        run::gva2gpa,
    ),
    Command::new("help|?", "[cmd]", "show the help", &[arg("name", Kind::OptionalRest)], run::help),
    Command::new(
        "hostfwd_add",
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "redirect TCP or UDP connections from host to guest (requires -net user)",
        &[arg("arg1", Kind::Text), arg("arg2", Kind::OptionalText)],
        run::hostfwd_add,
    ),
    Command::new(
        "hostfwd_remove",
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove host-to-guest TCP or UDP redirection",
        &[arg("arg1", Kind::Text), arg("arg2", Kind::OptionalText)],
        run::hostfwd_remove,
    ),
    Command::new(
        "i",
        "/fmt addr",
        "I/O port read",
        &[arg("fmt", Kind::Format), arg("addr", Kind::Int)],
        run::port_read,
    ),
    Command {
        name: "info",
        params: "[subcommand]",
        help: "show various information about the system state",
        args: &[],
        action: Action::Subcommands(INFO),
    },
    Command::new(
        "log",
        "item1[,...]",
        "activate logging of the specified items",
        &[arg("items", Kind::Text)],
        run::log,
    ),
    Command::new("logfile", "filename", "output logs to 'filename'", &[arg("filename", Kind::File)], run::logfile),
    Command::new(
        "memsave",
        "addr size file",
        "save to disk virtual memory dump starting at 'addr' of size 'size'",
        &[arg("val", Kind::Long), arg("size", Kind::Int), arg("filename", Kind::Text)],
        run::memsave,
    ),
    Command::new(
        "mouse_button",
        "state",
        "change mouse button state (1=L, 2=M, 4=R)",
        &[arg("button_state", Kind::Int)],
        run::mouse_button,
    ),
    Command::new(
        "mouse_move",
        "dx dy [dz]",
        "send mouse move events",
        &[arg("dx_str", Kind::Text), arg("dy_str", Kind::Text), arg("dz_str", Kind::OptionalText)],
        run::mouse_move,
    ),
    Command::new(
        "mouse_set",
        "index",
        "set which mouse device receives events",
        &[arg("index", Kind::Int)],
        run::mouse_set,
    ),
    Command::new(
        "netdev_add",
        "[user|tap|socket|stream|dgram|vde|bridge|hubport|netmap|vhost-user],id=str[,prop=value][,...]",
        "add host network device",
        &[arg("netdev", Kind::Text)],
        run::netdev_add,
    ),
    Command::new("netdev_del", "id", "remove host network device", &[arg("id", Kind::Text)], run::netdev_del),
    Command::new("nmi", "", "inject an NMI", &[], run::nmi),
    Command::new(
        "o",
        "/fmt addr value",
        "I/O port write",
        &[arg("fmt", Kind::Format), arg("addr", Kind::Int), arg("val", Kind::Int)],
        run::port_write,
    ),
    Command::new(
        "pmemsave",
        "addr size file",
        "save to disk physical memory dump starting at 'addr' of size 'size'",
        &[arg("val", Kind::Long), arg("size", Kind::Int), arg("filename", Kind::Text)],
        run::pmemsave,
    ),
    Command::new(
        "print|p",
        "/fmt expr",
        "print expression value (use $reg for CPU register access)",
        &[arg("fmt", Kind::Format), arg("val", Kind::Long)],
        run::print,
    ),
    Command::new("quit|q", "", "quit the emulator", &[], run::quit),
    Command::new(
        "ringbuf_read",
        "device size",
        "Read from a ring buffer character device",
        &[arg("device", Kind::Text), arg("size", Kind::Int)],
        run::ringbuf_read,
    ),
    Command::new(
        "ringbuf_write",
        "device data",
        "Write to a ring buffer character device",
        &[arg("device", Kind::Text), arg("data", Kind::Text)],
        run::ringbuf_write,
    ),
    Command::new(
        "screendump",
        "filename [-f format] [device [head]]",
        "save screen from head 'head' of display device 'device'in specified format 'format' as image \
         'filename'.Currently only 'png' and 'ppm' formats are supported.",
        &[
            arg("filename", Kind::File),
            arg("format", Kind::FlagText('f')),
            arg("device", Kind::OptionalText),
            arg("head", Kind::OptionalInt),
        ],
        run::screendump,
    ),
    Command::new(
        "sendkey",
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        &[arg("keys", Kind::Text), arg("hold-time", Kind::OptionalInt)],
        run::sendkey,
    ),
    Command::new(
        "set_link",
        "name on|off",
        "change the link status of a network adapter",
        &[arg("name", Kind::Text), arg("up", Kind::Text)],
        run::set_link,
    ),
    Command::new(
        "set_password",
        "protocol password [-d display] [action-if-connected]",
        "set spice/vnc password",
        &[
            arg("protocol", Kind::Text),
            arg("password", Kind::Text),
            arg("display", Kind::FlagText('d')),
            arg("connected", Kind::OptionalText),
        ],
        run::set_password,
    ),
    Command::new("stop|s", "", "stop emulation", &[], run::stop),
    Command::new(
        "sum",
        "addr size",
        "compute the checksum of a memory region",
        &[arg("start", Kind::Int), arg("size", Kind::Int)],
        run::sum,
    ),
    Command::new("system_powerdown", "", "send system power down event", &[], run::system_powerdown),
    Command::new("system_reset", "", "reset the system", &[], run::system_reset),
    Command::new("system_wakeup", "", "wakeup guest from suspend", &[], run::system_wakeup),
    Command::new(
        "x",
        "/fmt addr",
        "virtual memory dump starting at 'addr'",
        &[arg("fmt", Kind::Format), arg("addr", Kind::Long)],
        run::x,
    ),
    Command::new(
        "xp",
        "/fmt addr",
        "physical memory dump starting at 'addr'",
        &[arg("fmt", Kind::Format), arg("addr", Kind::Long)],
        run::xp,
    ),
];

/// `info`, sorted by name.
pub static INFO: &[Command] = &[
    Command::new(
        "block",
        "[-n] [-v] [device]",
        "show info of one block device or all block devices (-n: show named nodes; -v: show details)",
        &[arg("nodes", Kind::Flag('n')), arg("verbose", Kind::Flag('v')), arg("device", Kind::OptionalDrive)],
        info::block,
    ),
    Command::new("blockstats", "", "show block device statistics", &[], info::blockstats),
    Command::new("chardev", "", "show the character devices", &[], info::chardev),
    Command::new("cpus", "", "show infos for each CPU", &[], info::cpus),
    Command::new("history", "", "show the command line history", &[], info::history),
    Command::new("hotpluggable-cpus", "", "Show information about hotpluggable CPUs", &[], info::hotpluggable_cpus),
    Command::new("irq", "", "show the interrupts statistics (if available)", &[], info::irq),
    Command::new("kvm", "", "show KVM information", &[], info::kvm),
    Command::new(
        "lapic",
        "[apic-id]",
        "show local apic state (apic-id: local apic to read, default is which of current CPU)",
        &[arg("apic-id", Kind::OptionalInt)],
        info::lapic,
    ),
    Command::new("mem", "", "show the active virtual memory mappings", &[], info::mem),
    Command::new(
        "memory_size_summary",
        "",
        "show the amount of initially allocated and present hotpluggable (if enabled) memory in bytes.",
        &[],
        info::memory_size_summary,
    ),
    Command::new("mice", "", "show which guest mouse is receiving events", &[], info::mice),
    Command::new(
        "mtree",
        "[-f]",
        "show memory tree (-f: dump flat view for address spaces)",
        &[arg("flatview", Kind::Flag('f'))],
        info::mtree,
    ),
    Command::new("name", "", "show the current VM name", &[], info::name),
    Command::new("network", "", "show the network state", &[], info::network),
    Command::new("pci", "", "show PCI info", &[], info::pci),
    Command::new("pic", "", "show PIC state", &[], info::pic),
    Command::new(
        "qtree",
        "[-b]",
        "show device tree (-b: brief, omit properties)",
        &[arg("brief", Kind::Flag('b'))],
        info::qtree,
    ),
    Command::new(
        "registers",
        "[-a|vcpu]",
        "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to query; show the current \
         CPU's registers if no argument is specified)",
        &[arg("cpustate_all", Kind::Flag('a')), arg("vcpu", Kind::OptionalInt)],
        info::registers,
    ),
    Command::new("roms", "", "show roms", &[], info::roms),
    Command::new("status", "", "show the current VM status (running|paused)", &[], info::status),
    Command::new("tlb", "", "show virtual to physical memory mappings", &[], info::tlb),
    Command::new("usernet", "", "show user network stack connection states", &[], info::usernet),
    Command::new("uuid", "", "show the current VM UUID", &[], info::uuid),
    Command::new("version", "", "show the version of QEMU", &[], info::version),
    Command::new("vnc", "", "show the vnc server status", &[], info::vnc),
];
