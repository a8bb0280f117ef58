//! Every option, and the two passes that read them.

use super::help;
use super::low::Low;
use super::stop::{Origin, Step, Stop};
use super::{
    blockdev, boot, chardev, device, display, drive, firmware, gdb, icount, logging, machine, memory, monitor, network,
    object, process, qtest, readconfig, smp,
};
use crate::keyval::nearest;

/// What an option does.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// It is read by this function; the text is its argument, or empty.
    Read(fn(&mut Low<'_>, &str) -> Step),
    /// QEMU has it, this version does not.
    Refuse,
    /// QEMU has it for other targets only.
    OtherTarget,
}

/// One option.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its name, without dashes.
    pub(super) name: &'static str,
    /// How its argument is called in the help; empty: it takes none.
    pub(super) argument: &'static str,
    /// What the help says; lines after the first are continued below it.
    pub(super) help: &'static str,
    /// What it does.
    pub(super) act: Act,
}

/// A heading of the help and its options.
pub(super) type Section = (&'static str, &'static [Row]);

const fn row(
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    read: fn(&mut Low<'_>, &str) -> Step,
) -> Row {
    Row { name, argument, help, act: Act::Read(read) }
}

const fn refused(name: &'static str, argument: &'static str) -> Row {
    Row { name, argument, help: "", act: Act::Refuse }
}

const fn other(name: &'static str, argument: &'static str) -> Row {
    Row { name, argument, help: "", act: Act::OtherTarget }
}

const STANDARD: &[Row] = &[
    row("h", "", "print this help", help::print),
    row("help", "", "print this help", help::print),
    row("version", "", "print the version", help::print_version),
    row(
        "machine",
        "[type=]NAME[,PROP=VALUE...]",
        "the board ('-machine help' lists them; '-machine NAME,help' its properties);\naccel=A[:B...] is the list of accelerators to try",
        machine::read_machine,
    ),
    row("M", "[type=]NAME[,PROP=VALUE...]", "same as -machine", machine::read_machine),
    row(
        "cpu",
        "MODEL[,+FEATURE][,-FEATURE][,PROP=VALUE...]",
        "the processor ('-cpu help' lists them)",
        machine::read_cpu,
    ),
    row("accel", "[accel=]NAME[,PROP=VALUE...]", "an accelerator; give several to try in order", machine::read_accel),
    row(
        "smp",
        "[cpus=]N[,maxcpus=N][,sockets=N][,dies=N][,modules=N][,cores=N][,threads=N]",
        "how many processors, and how they are arranged",
        smp::read,
    ),
    row("set", "GROUP.ID.KEY=VALUE", "change a key of an earlier option", device::read_set),
    row("global", "DRIVER.PROP=VALUE", "a default for a property of a device class", device::read_global),
    row(
        "boot",
        "[order=LETTERS][,once=LETTERS][,menu=on|off][,splash=FILE][,splash-time=MS]\n      [,reboot-timeout=MS][,strict=on|off]",
        "what to boot from: a floppy, c disk, d CD-ROM, n network",
        boot::read_boot,
    ),
    row("m", "[size=]MEGS[,slots=N,maxmem=SIZE]", "memory; 128 MiB without this option", memory::read),
    row("k", "LANGUAGE", "keyboard layout of viewers that send symbols", display::read_keymap),
    row("device", "CLASS[,PROP=VALUE...]", "add a device ('-device help', '-device CLASS,help')", device::read_device),
    row(
        "object",
        "TYPE,id=ID[,PROP=VALUE...]",
        "a thing that devices refer to ('-object help' lists the types)",
        object::read,
    ),
    row(
        "name",
        "NAME[,process=NAME][,debug-threads=on|off]",
        "the machine's name, and the process's",
        process::read_name,
    ),
    row("uuid", "UUID", "the machine's UUID", firmware::read_uuid),
];

const BLOCK: &[Row] = &[
    row("hda", "FILE", "first disk of the first IDE channel", drive::read_hda),
    row("hdb", "FILE", "second disk of the first IDE channel", drive::read_hdb),
    row("hdc", "FILE", "first disk of the second IDE channel", drive::read_hdc),
    row("hdd", "FILE", "second disk of the second IDE channel", drive::read_hdd),
    row("cdrom", "FILE", "CD-ROM image, in the first place of the second IDE channel", drive::read_cdrom),
    row("pflash", "FILE", "flash memory: the first is the firmware, the second its variables", drive::read_pflash),
    row("blockdev", "[driver=]DRIVER,node-name=NAME[,KEY=VALUE...]", "a block node; also as JSON", blockdev::read),
    row(
        "drive",
        "[file=FILE][,if=ide|virtio|none][,bus=N][,unit=N][,index=N][,media=disk|cdrom]\n       [,format=FORMAT][,snapshot=on|off][,cache=MODE][,aio=ENGINE][,readonly=on|off]\n       [,rerror=ACTION][,werror=ACTION][,discard=ignore|unmap][,detect-zeroes=MODE]\n       [,id=NAME][,KEY=VALUE...]",
        "a disk or CD-ROM drive and its medium",
        drive::read,
    ),
    row("snapshot", "", "keep what is written to disks in temporary files", drive::read_snapshot),
];

const DISPLAY: &[Row] = &[
    row(
        "display",
        "none|vnc=ADDRESS[,KEY=VALUE...]",
        "where the screen is shown; VNC on port 5900 without this option",
        display::read_display,
    ),
    row("nographic", "", "no screen; serial port and monitor on the terminal", display::read_nographic),
    row("vga", "std|none", "the graphics adapter", display::read_vga),
    row("vnc", "HOST:NUMBER|unix:PATH|none[,KEY=VALUE...]", "same as -display vnc=", display::read_vnc),
];

const NETWORK: &[Row] = &[
    row(
        "netdev",
        "TYPE,id=ID[,KEY=VALUE...]",
        "the host's side of a network ('-netdev help' lists the types); -device CLASS,netdev=ID\nis the guest's",
        network::read_netdev,
    ),
    row(
        "nic",
        "TYPE[,model=CLASS][,mac=ADDRESS][,KEY=VALUE...]|none",
        "both sides in one; none: no network adapter",
        network::read_nic,
    ),
    row(
        "net",
        "nic[,macaddr=ADDRESS][,model=CLASS][,addr=SLOT][,netdev=ID]|TYPE[,KEY=VALUE...]|none",
        "a network adapter or a host's side, on hub 0; none: no network adapter",
        network::read_net,
    ),
];

const CHARACTER: &[Row] = &[
    row(
        "chardev",
        "BACKEND,id=ID[,mux=on|off][,logfile=FILE][,logappend=on|off][,KEY=VALUE...]",
        "a character device ('-chardev help' lists the back ends)",
        chardev::read_chardev,
    ),
    row("serial", "DEVICE", "where a serial port leads; up to four", chardev::read_serial),
    row("parallel", "DEVICE", "where a parallel port leads; up to three", chardev::read_parallel),
    row("debugcon", "DEVICE", "where the debug console at port 0xe9 leads", chardev::read_debugcon),
    row("monitor", "DEVICE", "where the monitor is", monitor::read_monitor),
    row("qmp", "DEVICE", "a QMP monitor", monitor::read_qmp),
    row("qmp-pretty", "DEVICE", "a QMP monitor with indented JSON", monitor::read_qmp_pretty),
    row("mon", "[chardev=]ID[,mode=readline|control][,pretty=on|off]", "a monitor on a chardev", monitor::read_mon),
];

const BOOT: &[Row] = &[
    row("bios", "FILE", "the firmware", firmware::read_bios),
    row("L", "FOLDER", "where to look for firmware and ROMs ('-L help' lists the folders)", firmware::read_folder),
    row("kernel", "FILE", "start this kernel", boot::read_kernel),
    row("shim", "FILE", "EFI shim that starts the kernel", boot::read_shim),
    row("append", "TEXT", "the kernel's command line", boot::read_append),
    row("initrd", "FILE", "the kernel's initial RAM disk", boot::read_initrd),
    row(
        "fw_cfg",
        "[name=]NAME,file=FILE|string=TEXT",
        "an item for the firmware configuration device",
        firmware::read_fw_cfg,
    ),
    row("smbios", "file=FILE|type=N[,FIELD=VALUE...]", "an SMBIOS structure or its fields", firmware::read_smbios),
    row("acpitable", "[sig=TEXT][,KEY=VALUE...],data=FILE|file=FILE", "an additional ACPI table", firmware::read_acpi),
    row(
        "rtc",
        "[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew]",
        "where the real-time clock starts and what it follows",
        boot::read_rtc,
    ),
];

const PROCESS: &[Row] = &[
    row("enable-kvm", "", "same as -accel kvm", machine::read_enable_kvm),
    row("S", "", "do not start the processors ('cont' in the monitor does)", process::read_paused),
    row("no-reboot", "", "end when the guest reboots", process::read_no_reboot),
    row("no-shutdown", "", "stop instead of ending when the guest powers off", process::read_no_shutdown),
    row(
        "action",
        "EVENT=ACTION[,EVENT=ACTION...]",
        "reboot=reset|shutdown, shutdown=poweroff|pause,\npanic=pause|shutdown|exit-failure|none,\nwatchdog=reset|shutdown|poweroff|inject-nmi|pause|debug|none",
        process::read_action,
    ),
    row("watchdog-action", "ACTION", "same as -action watchdog=", process::read_watchdog_action),
    row("daemonize", "", "go on in the background once all is set up", process::read_daemonize),
    row("pidfile", "FILE", "write the process's number there", process::read_pidfile),
    row(
        "run-with",
        "[chroot=FOLDER][,user=NAME|UID:GID]",
        "privileges to give up before the machine starts",
        process::read_run_with,
    ),
    row("runas", "NAME|UID:GID", "same as -run-with user=", process::read_runas),
    row("chroot", "FOLDER", "same as -run-with chroot=", process::read_chroot),
    row("sandbox", "off", "no system call filter", process::read_sandbox),
    row(
        "overcommit",
        "[mem-lock=off][,cpu-pm=off]",
        "hints about the host's memory and power",
        process::read_overcommit,
    ),
    row("nodefaults", "", "none of the machine's default devices", process::read_nodefaults),
    row("no-user-config", "", "no configuration file of the user (there is none)", process::read_no_user_config),
    row("readconfig", "FILE", "read options from a file", readconfig::read),
    row("msg", "[timestamp=on|off][,guest-name=on|off]", "what messages start with", logging::read_msg),
    row("d", "ITEM[,ITEM...]", "what to log ('-d help' lists the items)", logging::read_items),
    row("icount", "[shift=]0-10,sleep=off", "machine time by executed instructions (with -accel tcg)", icount::read),
    row("gdb", "DEVICE", "serve gdb there: tcp:[HOST]:PORT, stdio, any -chardev address, or none", gdb::read_gdb),
    row("qtest", "DEVICE", "serve a test program there (QEMU's qtest protocol)", qtest::read),
    row("qtest-log", "FILE", "where the protocol is logged (standard error), or none", qtest::read_log),
    row("s", "", "same as -gdb tcp::1234", gdb::read_s),
    row(
        "dfilter",
        "RANGE[,RANGE...]",
        "log code at these addresses only: FIRST..LAST, FIRST+LENGTH or LAST-LENGTH",
        logging::read_filter,
    ),
    row("D", "FILE", "where the log goes; standard error without this option", logging::read_file),
    row(
        "trace",
        "[[enable=]PATTERN][,events=FILE][,file=FILE]",
        "trace points ('-trace help' lists them)",
        logging::read_trace,
    ),
];

/// What QEMU has and this version does not.
const REFUSED: &[Row] = &[
    refused("numa", "x"),
    refused("add-fd", "x"),
    refused("mem-path", "x"),
    refused("mem-prealloc", ""),
    refused("audio", "x"),
    refused("audiodev", "x"),
    refused("fda", "x"),
    refused("fdb", "x"),
    refused("mtdblock", "x"),
    refused("sd", "x"),
    refused("fsdev", "x"),
    refused("virtfs", "x"),
    refused("iscsi", "x"),
    refused("usb", ""),
    refused("usbdevice", "x"),
    refused("spice", "x"),
    refused("full-screen", ""),
    refused("win2k-hack", ""),
    refused("no-fd-bootchk", ""),
    refused("tpmdev", "x"),
    refused("dtb", "x"),
    refused("compat", "x"),
    refused("preconfig", ""),
    refused("seed", "x"),
    refused("xen-domid", "x"),
    refused("loadvm", "x"),
    refused("option-rom", "x"),
    refused("echr", "x"),
    refused("incoming", "x"),
    refused("only-migratable", ""),
    refused("plugin", "x"),
    refused("dump-vmstate", "x"),
    refused("enable-sync-profile", ""),
    refused("perfmap", ""),
    refused("jitdump", ""),
    other("prom-env", "x"),
    other("semihosting", ""),
    other("semihosting-config", "x"),
    other("old-param", ""),
    other("g", "x"),
    other("xen-attach", ""),
    other("xen-domid-restrict", ""),
];

/// All options, by the headings of the help.
pub(super) const SECTIONS: &[Section] = &[
    ("Standard options:", STANDARD),
    ("Disks:", BLOCK),
    ("Display:", DISPLAY),
    ("Network:", NETWORK),
    ("Character devices and monitors:", CHARACTER),
    ("Firmware and kernel:", BOOT),
    ("Process and debugging:", PROCESS),
    ("", REFUSED),
];

/// What QEMU removed, and what does the same today.
const REMOVED: &[(&str, &str)] = &[
    ("no-hpet", "-machine hpet=off"),
    ("no-acpi", "-machine acpi=off"),
    ("no-kvm", "-accel tcg"),
    ("no-kvm-irqchip", "-machine kernel-irqchip=off"),
    ("no-quit", "-display ...,window-close=off"),
    ("localtime", "-rtc base=localtime"),
    ("startdate", "-rtc base=DATE"),
    ("rtc-td-hack", "-rtc driftfix=slew"),
    ("curses", "-display curses"),
    ("sdl", "-display sdl"),
    ("soundhw", "-audio"),
    ("balloon", "-device virtio-balloon"),
    ("watchdog", "-device"),
    ("singlestep", "-accel tcg,one-insn-per-tb=on"),
    ("async-teardown", "-run-with async-teardown=on"),
    ("nouserconfig", "-no-user-config"),
    ("vnc-display", "-vnc"),
];

fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|(_, rows)| rows.iter())
}

/// An argument, taken apart.
struct Taken<'a> {
    /// The row, or `None` for a bare argument: a disk image.
    row: Option<&'static Row>,
    value: &'a str,
    /// As messages show it.
    origin: String,
}

fn take<'a>(arg: &'a str, next: &mut std::slice::Iter<'a, String>) -> Step<Taken<'a>> {
    let Some(name) = arg.strip_prefix('-') else {
        return Ok(Taken { row: None, value: arg, origin: arg.into() });
    };
    let name = name.strip_prefix('-').unwrap_or(name);
    let Some(row) = rows().find(|row| row.name == name) else {
        return Err(unknown(name).of_option(arg));
    };
    if row.argument.is_empty() {
        return Ok(Taken { row: Some(row), value: "", origin: arg.into() });
    }
    match next.next() {
        Some(value) => Ok(Taken { row: Some(row), value, origin: format!("{arg} {value}") }),
        None => Err(Stop::at(arg, "requires an argument")),
    }
}

fn unknown(name: &str) -> Stop {
    if let Some((_, instead)) = REMOVED.iter().find(|(old, _)| *old == name) {
        return Stop::here(format!("invalid option\nUse '{instead}' instead."));
    }
    let (bare, _) = name.split_once('=').unwrap_or((name, ""));
    let near = rows()
        .find(|row| row.name == bare)
        .map(|row| row.name)
        .or_else(|| nearest(bare, rows().filter(|r| matches!(r.act, Act::Read(_))).map(|r| r.name)));
    match near {
        Some(name) => Stop::here(format!("invalid option\nDid you mean '-{name}'?")),
        None => Stop::here("invalid option"),
    }
}

/// Both passes over the arguments.
pub(super) fn read(low: &mut Low<'_>, args: &[String]) -> Step {
    let mut next = args.iter();
    let mut taken = Vec::new();
    while let Some(arg) = next.next() {
        taken.push(take(arg, &mut next)?);
    }
    for Taken { row, value, origin } in taken {
        low.origin.clone_from(&origin);
        let result = match row {
            None => drive::read_hda(low, value),
            Some(row) => run(low, row, value),
        };
        result.map_err(|stop| stop.of_option(&origin))?;
    }
    low.origin.clear();
    Ok(())
}

/// Reads one option by name, as a configuration file has it.
pub(super) fn read_one(low: &mut Low<'_>, name: &str, value: &str) -> Step {
    match rows().find(|row| row.name == name) {
        Some(row) => run(low, row, value),
        None => Err(Stop::Fault(vec![(Origin::Here, "invalid option".into())])),
    }
}

fn run(low: &mut Low<'_>, row: &'static Row, value: &str) -> Step {
    match row.act {
        Act::Read(read) => read(low, value),
        Act::Refuse => Err(Stop::unsupported(format_args!("-{}", row.name))),
        Act::OtherTarget => Err(Stop::here("Option not supported for this target")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_table_once() {
        let mut names: Vec<&str> = rows().map(|row| row.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn no_removed_option_is_in_the_table() {
        assert!(REMOVED.iter().all(|(old, _)| rows().all(|row| row.name != *old)));
    }
}
