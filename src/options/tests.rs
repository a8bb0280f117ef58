//! Command lines and what they come to. `golden.txt` holds refusals whose text was taken from QEMU 10.0.2 by running
//! `qemu-system-x86_64`; its program name is replaced by ours.

use serde_json::json;

use super::*;
use crate::accel::Icount;
use crate::machine::config::{
    DisplaySpec, DriveInterface, FwCfgSource, PanicAction, RtcBase, RtcClock, VgaKind, WatchdogAction,
};

fn run_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Parsed, Failure> {
    let args = std::iter::once("/usr/bin/qemu-kvm").chain(words).map(OsString::from);
    parse(args, &Tables::of_this_build())
}

fn run(line: &str) -> Result<Parsed, Failure> {
    run_words(line.split_whitespace())
}

fn config(line: &str) -> Config {
    match run(line) {
        Ok(Parsed::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match run(line) {
        Err(failure) => {
            assert_eq!(failure.status, 1);
            failure.text
        }
        other => panic!("{line}: {other:?}"),
    }
}

fn printed(line: &str) -> (String, u8) {
    match run(line) {
        Ok(Parsed::Print { text, status }) => (text, status),
        other => panic!("{line}: {other:?}"),
    }
}

/// Our text without what we add to QEMU's.
fn without_hints(text: &str) -> String {
    let ours = |line: &&str| !(line.starts_with("Did you mean '") || line.starts_with("Use '"));
    text.lines().filter(ours).collect::<Vec<_>>().join("\n")
}

fn golden() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("golden.txt")
        .split("\n$ ")
        .map(|case| case.trim_start_matches("$ ").split_once('\n').unwrap())
        .map(|(line, expected)| (line, expected.trim_end_matches('\n')))
}

#[test]
fn refusals_read_as_qemus() {
    let mut wrong = Vec::new();
    for (line, expected) in golden() {
        let ours = match run_words(line.split(' ')) {
            Err(failure) => without_hints(&failure.text),
            Ok(Parsed::Run(_)) => "(runs)".to_owned(),
            Ok(Parsed::Print { .. }) => "(prints)".to_owned(),
        };
        if ours != expected {
            wrong.push(format!("{line}\n  QEMU: {expected}\n  ours: {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_truncation_of_an_option_panics() {
    for (line, _) in golden() {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = words.split_last().unwrap();
        for end in 0..=last.len() {
            let Some(cut) = last.get(..end) else { continue };
            let _ = run_words(before.iter().copied().chain([cut]));
        }
    }
}

#[test]
fn the_first_command_of_the_manual_makes_its_machine() {
    let config = config("-m 128 -smp 2 -name test -hda disk.qcow2");
    assert_eq!(config.program, "qemu-kvm");
    assert_eq!(config.name.as_deref(), Some("test"));
    assert_eq!(config.machine.kind, "pc-i440fx-10.0");
    assert_eq!(config.memory.size, 128 << 20);
    assert_eq!((config.smp.cpus, config.smp.levels.cores, config.smp.levels.sockets), (2, 2, 1));
    assert_eq!(config.vga, VgaKind::Std);
    assert!(config.accelerators.is_empty());
    assert!(config.warnings.is_empty());
    let disk = &config.drives[0];
    assert_eq!((disk.id.as_str(), disk.cdrom, disk.bus, disk.unit), ("ide0-hd0", false, 0, 0));
    let node = disk.node.as_ref().unwrap();
    assert_eq!((node.filename.as_deref(), node.driver.as_deref()), (Some("disk.qcow2"), None));
    let cd = &config.drives[1];
    assert_eq!((cd.id.as_str(), cd.cdrom, cd.bus, cd.unit), ("ide1-cd0", true, 1, 0));
    assert!(cd.node.is_none());
}

#[test]
fn consoles_come_in_the_order_of_their_keys() {
    let config = config("");
    let ids: Vec<&str> = config.chardevs.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["compat_monitor0", "serial0", "parallel0"]);
    assert!(config.chardevs.iter().all(|c| c.backend == "vc"));
    assert_eq!(config.serials, [Some("serial0".to_owned())]);
    assert_eq!(config.parallels, [Some("parallel0".to_owned())]);
    assert_eq!(config.monitors[0].chardev, "compat_monitor0");
}

#[test]
fn vnc_is_the_default_display() {
    let config = config("");
    let DisplaySpec::Vnc(vnc) = &config.displays[0] else { panic!("no VNC") };
    assert_eq!((vnc.address.as_str(), vnc.to, vnc.id.as_deref()), ("localhost:0", Some(99), Some("default")));
}

#[test]
fn nodefaults_leaves_nothing() {
    let config = config("-nodefaults -display none");
    assert!(config.drives.is_empty());
    assert!(config.chardevs.is_empty());
    assert!(config.monitors.is_empty());
    assert!(config.serials.is_empty());
    assert_eq!(config.vga, VgaKind::None);
    assert_eq!(config.displays, [DisplaySpec::None]);
    assert!(!config.defaults);
}

#[test]
fn nographic_puts_serial_port_and_monitor_on_the_terminal() {
    let config = config("-nographic");
    let serial = config.chardevs.iter().find(|c| c.id == "serial0").unwrap();
    assert_eq!((serial.backend.as_str(), serial.mux), ("stdio", true));
    assert_eq!(serial.options, [("signal".to_owned(), "off".to_owned())]);
    assert_eq!(config.monitors.len(), 1);
    assert_eq!(config.monitors[0].chardev, "serial0");
    assert_eq!(config.parallels, [Some("parallel0".to_owned())]);
    assert_eq!(config.displays, [DisplaySpec::None]);
    assert_eq!(config.machine.property("graphics"), Some("off"));
    assert!(config.process.nographic);
}

#[test]
fn the_machine_of_a_cd_takes_the_place_of_the_default_drive() {
    let config = config("-cdrom x.iso -boot d");
    assert_eq!(config.drives.len(), 1);
    assert_eq!((config.drives[0].id.as_str(), config.drives[0].read_only), ("ide1-cd0", true));
    assert_eq!(config.boot.order, "d");
}

#[test]
fn a_bare_argument_is_the_first_disk() {
    let config = config("disk.img");
    assert_eq!(config.drives[0].id, "ide0-hd0");
    assert_eq!(config.drives[0].origin, "disk.img");
}

#[test]
fn drives_fill_the_channels_in_order() {
    let config = config("-drive file=a -drive file=b -drive file=c");
    let ids: Vec<&str> = config.drives.iter().map(|d| d.id.as_str()).collect();
    assert_eq!(ids, ["ide0-hd0", "ide0-hd1", "ide1-hd0"]);
}

#[test]
fn the_keys_of_a_drive_reach_its_node() {
    let config = config(
        "-drive file=a,,b,format=qcow2,if=none,id=d,cache=none,discard=unmap,detect-zeroes=unmap,werror=stop,\
         rerror=report,snapshot=on,file.locking=off,aio=threads",
    );
    let drive = &config.drives[0];
    assert_eq!((drive.id.as_str(), drive.interface, drive.snapshot), ("d", DriveInterface::None, true));
    assert_eq!((drive.write_error.as_deref(), drive.read_error.as_deref()), (Some("stop"), Some("report")));
    let node = drive.node.as_ref().unwrap();
    assert_eq!((node.driver.as_deref(), node.filename.as_deref()), (Some("qcow2"), Some("a,b")));
    assert_eq!(
        serde_json::Value::Object(node.options.clone()),
        json!({
            "discard": "unmap",
            "detect-zeroes": "unmap",
            "file": {"locking": "off", "aio": "threads"},
            "cache": {"writeback": true, "direct": true, "no-flush": false},
        })
    );
}

#[test]
fn snapshot_is_for_all_drives_but_those_that_say_otherwise() {
    let config = config("-snapshot -hda a -drive file=b,snapshot=off");
    assert!(config.drives[0].snapshot);
    assert!(!config.drives[1].snapshot);
}

#[test]
fn a_json_file_name_is_a_node() {
    let mut words = vec!["-drive"];
    words.push("file=json:{'driver':'qcow2',,'file':{'driver':'file',,'filename':'x'}}");
    let Ok(Parsed::Run(config)) = run_words(words.into_iter()) else { panic!("refused") };
    let node = config.drives[0].node.as_ref().unwrap();
    assert_eq!(node.driver.as_deref(), Some("qcow2"));
    assert_eq!(node.options["file"], json!({"driver": "file", "filename": "x"}));
}

#[test]
fn blockdev_reads_keys_and_json_alike() {
    let keys = config("-blockdev qcow2,node-name=n,file.driver=file,file.filename=x,read-only=on,cache.direct=off");
    let json = config(
        r#"-blockdev {"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"x"},"read-only":true,"cache":{"direct":false}}"#,
    );
    assert_eq!(keys.nodes[0].options, json.nodes[0].options);
    assert_eq!(keys.nodes[0].driver.as_deref(), Some("qcow2"));
    assert_eq!(json.nodes[0].options["read-only"], json!(true));
}

#[test]
fn a_device_names_its_drive() {
    let config = config("-nodefaults -drive file=x,if=none,id=d -device ide-hd,drive=d,id=disk,bus=ide.1,bootindex=1");
    let device = &config.devices[0];
    assert_eq!(
        (device.driver.as_str(), device.id.as_deref(), device.bus.as_deref()),
        ("ide-hd", Some("disk"), Some("ide.1"))
    );
    assert_eq!(device.properties, [("drive".to_owned(), "d".to_owned()), ("bootindex".to_owned(), "1".to_owned())]);
}

#[test]
fn devices_of_ones_own_replace_the_defaults() {
    let config = config("-device VGA -device ide-cd");
    assert_eq!(config.vga, VgaKind::None);
    assert!(config.drives.is_empty());
}

#[test]
fn json_devices_keep_numbers() {
    let config = config(r#"-device {"driver":"isa-debug-exit","iobase":244,"iosize":4}"#);
    assert_eq!(config.devices[0].properties[0], ("iobase".to_owned(), "244".to_owned()));
}

#[test]
fn topology_is_completed_as_qemu_does() {
    let counts = |line: &str| {
        let t = config(line).smp;
        let l = t.levels;
        (t.cpus, t.max_cpus, l.sockets, l.dies, l.modules, l.cores, l.threads)
    };
    assert_eq!(counts("-smp 4"), (4, 4, 1, 1, 1, 4, 1));
    assert_eq!(counts("-smp 8,sockets=2,threads=2"), (8, 8, 2, 1, 1, 2, 2));
    assert_eq!(counts("-smp cores=2,threads=2"), (4, 4, 1, 1, 1, 2, 2));
    assert_eq!(counts("-smp 2,maxcpus=8,dies=2"), (2, 8, 1, 2, 1, 4, 1));
    assert_eq!(counts("-smp 4 -machine pc-i440fx-6.1"), (4, 4, 4, 1, 1, 1, 1));
    assert_eq!(counts("-smp 2 -smp maxcpus=4"), (2, 4, 1, 1, 1, 4, 1));
    assert_eq!(counts("-machine smp.cpus=3"), (3, 3, 1, 1, 1, 3, 1));
}

#[test]
fn sockets_grow_to_what_people_ask_for_as_the_maximum() {
    let config = config("-smp 2,sockets=1,cores=2,threads=1,maxcpus=8");
    assert_eq!(
        (config.smp.cpus, config.smp.max_cpus, config.smp.levels.sockets, config.smp.levels.cores),
        (2, 8, 4, 2)
    );
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn memory_is_in_mebibytes_without_a_suffix() {
    assert_eq!(config("-m 512").memory.size, 512 << 20);
    assert_eq!(config("-m 2G").memory.size, 2 << 30);
    assert_eq!(config("").memory.size, 128 << 20);
    assert_eq!(config("-m 64 -m 1.5G").memory.size, 3 << 29);
    let memory = config("-m size=1G,slots=4,maxmem=8G").memory;
    assert_eq!((memory.size, memory.slots, memory.max), (1 << 30, 4, 8 << 30));
}

#[test]
fn accelerators_keep_their_order() {
    let names = |line: &str| config(line).accelerators.into_iter().map(|a| a.name).collect::<Vec<_>>();
    assert_eq!(names("-enable-kvm"), ["kvm"]);
    assert_eq!(names("-machine accel=kvm:tcg"), ["kvm", "tcg"]);
    assert_eq!(names("-accel tcg -accel kvm"), ["tcg", "kvm"]);
}

#[test]
fn cpu_features_become_properties() {
    let cpu = config("-cpu qemu64,+avx,-sse4.2,level=10,vmx").cpu;
    assert_eq!(cpu.model.as_deref(), Some("qemu64"));
    let pairs: Vec<(&str, &str)> = cpu.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("avx", "on"), ("sse4.2", "off"), ("level", "10"), ("vmx", "on")]);
}

#[test]
fn old_machines_are_named_in_a_warning() {
    let config = config("-machine pc-i440fx-2.4,hpet=off");
    assert_eq!(config.machine.kind, "pc-i440fx-2.4");
    assert!(!config.machine.switch("hpet", true));
    assert_eq!(
        config.warnings,
        [
            "qemu-kvm: warning: Machine type 'pc-i440fx-2.4' is deprecated: machines more than 3 years old are subject to \
         deletion after 6 years"
        ]
    );
}

#[test]
fn a_socket_of_the_old_kind_is_a_chardev() {
    let config = config("-serial telnet:localhost:4446,server,nowait -serial none -serial unix:/tmp/s,server=on");
    let tcp = &config.chardevs.iter().find(|c| c.id == "serial0").unwrap();
    let get = |key: &str| tcp.options.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    assert_eq!((tcp.backend.as_str(), get("host"), get("port")), ("socket", Some("localhost"), Some("4446")));
    assert_eq!((get("server"), get("wait"), get("telnet")), (Some("on"), Some("off"), Some("on")));
    assert_eq!(config.serials, [Some("serial0".to_owned()), None, Some("serial2".to_owned())]);
    assert!(config.warnings.is_empty());
    assert_eq!(tcp.origin, "-serial telnet:localhost:4446,server,nowait");
}

#[test]
fn udp_addresses_have_two_ends() {
    let config = config("-serial udp:a:1@b:2");
    let options = &config.chardevs.iter().find(|c| c.id == "serial0").unwrap().options;
    let pairs: Vec<(&str, &str)> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("host", "a"), ("port", "1"), ("localaddr", "b"), ("localport", "2")]);
}

#[test]
fn monitors_are_of_two_kinds() {
    let config = config("-chardev null,id=a,mux=on -mon a,mode=control,pretty=on -qmp null -monitor chardev:a");
    let monitors: Vec<_> = config.monitors.iter().map(|m| (m.chardev.as_str(), m.qmp, m.pretty)).collect();
    assert_eq!(monitors, [("a", true, true), ("compat_monitor0", true, false), ("a", false, false)]);
}

#[test]
fn actions_are_read_from_both_spellings() {
    let actions = config("-no-reboot -action shutdown=pause,panic=exit-failure -watchdog-action none").actions;
    assert!(actions.reboot_shuts_down && actions.shutdown_pauses);
    assert_eq!((actions.panic, actions.watchdog), (PanicAction::ExitFailure, WatchdogAction::None));
}

#[test]
fn the_clock_is_described() {
    let rtc = config("-rtc base=2006-06-17T16:01:21,clock=vm,driftfix=slew").rtc;
    assert_eq!((rtc.base, rtc.clock, rtc.slew), (RtcBase::Date(1_150_560_081), RtcClock::Vm, true));
}

#[test]
fn firmware_is_told_what_was_asked() {
    let config = config(
        "-bios b -L /x -L /y -fw_cfg opt/a,string=t -smbios type=11,value=a,value=b -acpitable sig=SSDT,data=f -uuid \
         550e8400-e29b-41d4-a716-446655440000 -boot order=dc,once=n,menu=on,splash-time=5,reboot-timeout=-1,strict=on",
    );
    assert_eq!(config.bios.as_deref(), Some("b"));
    assert_eq!(config.data_dirs.len(), 2);
    assert_eq!(config.fw_cfg[0].source, FwCfgSource::Text("t".into()));
    assert_eq!(config.smbios[0].len(), 3);
    assert_eq!(config.acpi_tables[0][1], ("data".to_owned(), "f".to_owned()));
    assert_eq!(config.uuid.map(|u| u[0]), Some(0x55));
    assert_eq!((config.boot.order.as_str(), config.boot.once.as_deref()), ("dc", Some("n")));
    assert_eq!((config.boot.splash_time_ms, config.boot.reboot_timeout_ms), (Some(5), Some(u16::MAX)));
    assert!(config.boot.strict && config.boot.menu == Some(true));
}

#[test]
fn set_changes_an_earlier_option() {
    let config = config("-drive if=none,id=d -set drive.d.file=x -device ide-hd,id=h,drive=d -set device.h.serial=S");
    assert_eq!(config.drives[0].node.as_ref().unwrap().filename.as_deref(), Some("x"));
    assert_eq!(config.devices[0].properties[1], ("serial".to_owned(), "S".to_owned()));
}

#[test]
fn a_configuration_file_is_a_list_of_options() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "# a machine\n[machine]\n  hpet = \"off\"\n[drive \"d\"]\n  file = \"a,b\"\n  if = \"none\"\n[smp-opts]\n cpus = \"4\"\n",
    )
    .unwrap();
    let config = config(&format!("-readconfig {}", file.path().display()));
    assert_eq!(config.drives[0].id, "d");
    assert_eq!(config.drives[0].node.as_ref().unwrap().filename.as_deref(), Some("a,b"));
    assert_eq!(config.smp.cpus, 4);
    assert_eq!(config.machine.property("hpet"), Some("off"));
}

#[test]
fn a_fault_in_a_configuration_file_is_found_by_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[drive]\n\n[nonsense]\n").unwrap();
    let path = file.path().display();
    assert_eq!(
        refusal(&format!("-readconfig {path}")),
        format!("qemu-kvm:{path}:3: There is no option group 'nonsense'")
    );
}

#[test]
fn what_this_version_lacks_is_refused_by_name() {
    assert_eq!(refusal("-fsdev x"), "qemu-kvm: -fsdev x: -fsdev is not supported by this version");
    assert_eq!(
        refusal("-drive file=x,if=floppy"),
        "qemu-kvm: -drive file=x,if=floppy: if=floppy is not supported by this version"
    );
    assert_eq!(
        refusal("-machine microvm"),
        "qemu-kvm: machine type 'microvm' is not supported by this version\nUse -machine help to list supported machines"
    );
    assert_eq!(refusal("-vga cirrus"), "qemu-kvm: vga type 'cirrus' is not supported by this version");
    assert_eq!(
        refusal("-drive file=x,bps=1"),
        "qemu-kvm: -drive file=x,bps=1: throttling (throttling.bps-total) is not supported by this version"
    );
    assert_eq!(
        refusal("-drive file=x,format=luks"),
        "qemu-kvm: -drive file=x,format=luks: block driver 'luks' is not supported by this version"
    );
    assert_eq!(refusal("-nic vde"), "qemu-kvm: -nic vde: network back end 'vde' is not supported by this version");
    assert_eq!(refusal("-machine usb=on"), "qemu-kvm: machine property 'usb=on' is not supported by this version");
}

#[test]
fn a_misspelt_word_names_the_nearest_right_one() {
    assert_eq!(refusal("-mahcine pc"), "qemu-kvm: -mahcine: invalid option\nDid you mean '-machine'?");
    assert_eq!(
        refusal("-drive fiel=x"),
        "qemu-kvm: -drive fiel=x: Must specify either driver or file\nDid you mean 'file'?"
    );
    assert_eq!(
        refusal("-drive file=x,fomrat=raw"),
        "qemu-kvm: -drive file=x,fomrat=raw: Block format 'raw' does not support the option 'fomrat'\nDid you mean 'format'?"
    );
    assert_eq!(refusal("-cpu hots"), "qemu-kvm: unable to find CPU model 'hots'\nDid you mean 'host'?");
    assert_eq!(refusal("-no-hpet"), "qemu-kvm: -no-hpet: invalid option\nUse '-machine hpet=off' instead.");
    assert_eq!(
        refusal("-device isa-debug-exit,iobsae=1"),
        "qemu-kvm: -device isa-debug-exit,iobsae=1: Property 'isa-debug-exit.iobsae' not found\nDid you mean 'iobase'?"
    );
}

#[test]
fn every_option_of_qemu_is_known() {
    // `qemu-system-x86_64 --help | grep -oE '^-[a-zA-Z0-9_-]+'`, one of each pair.
    let all = "accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev compat cpu d D \
               daemonize debugcon device dfilter display drive dtb dump-vmstate echr enable-kvm enable-sync-profile fda \
               fdb fsdev full-screen fw_cfg gdb global h help hda hdb hdc hdd icount incoming initrd iscsi jitdump k \
               kernel L loadvm m machine M mem-path mem-prealloc mon monitor msg mtdblock name net netdev nic \
               no-fd-bootchk no-reboot no-shutdown no-user-config nodefaults nographic numa object only-migratable \
               option-rom overcommit parallel perfmap pflash pidfile plugin preconfig qmp qmp-pretty readconfig rtc \
               run-with s S sandbox sd seed serial set shim smbios smp snapshot spice tpmdev trace usb usbdevice uuid \
               version vga virtfs vnc watchdog-action win2k-hack xen-attach xen-domid xen-domid-restrict";
    let unknown: Vec<&str> = all
        .split_whitespace()
        .filter(|name| matches!(run(&format!("-{name} x")), Err(f) if f.text.contains("invalid option")))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn options_have_one_dash_or_two() {
    assert_eq!(config("--m 64 --S").memory.size, 64 << 20);
}

#[test]
fn messages_carry_the_time_when_asked_to() {
    let text = refusal("-msg timestamp=on -boot z");
    let (stamp, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, "qemu-kvm: Invalid boot device 'z'");
    assert_eq!((stamp.len(), stamp.ends_with('Z')), (27, true));
}

#[test]
fn the_log_is_described() {
    let log = config("-d unimp,trace:ide_* -D /tmp/x%d -trace enable=vga_*,file=/tmp/t").log;
    assert_eq!(log.items, ["unimp"]);
    assert_eq!(log.trace, ["vga_*", "ide_*"]);
    assert_eq!(log.trace_file.as_deref(), Some(Path::new("/tmp/t")));
    assert_eq!(refusal("-d op"), "qemu-kvm: log item 'op' is not supported by this version");
}

#[test]
fn help_comes_from_the_tables() {
    let (text, status) = printed("-help");
    assert_eq!(status, 0);
    assert!(text.starts_with("QEMU emulator version 10.0.2 (Dromaius "));
    assert!(text.contains("\n-hda FILE       first disk of the first IDE channel\n"));
    assert!(text.contains("-fsdev"));
    assert_eq!(printed("-version").0, version());
    assert!(
        printed("-machine help")
            .0
            .contains("\npc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)\n")
    );
    assert_eq!(printed("-accel help").0, "Accelerators supported in QEMU binary:\ntcg\nkvm\n");
    assert!(printed("-cpu help").0.starts_with("Available CPUs:\n  486 "));
    assert!(printed("-device help").0.contains("name \"isa-debug-exit\", bus ISA\n"));
    assert_eq!(
        printed("-device isa-debug-exit,help").0,
        "isa-debug-exit options:\n  iobase=<uint32>        -  (default: 1281)\n  iosize=<uint32>        -  (default: 2)\n"
    );
    assert!(printed("-machine pc,help").0.contains("  hpet=<bool>"));
    assert_eq!(printed("-rtc help"), ("rtc options:\n  base=<str>\n  clock=<str>\n  driftfix=<str>\n".to_owned(), 1));
    assert!(printed("-chardev help").0.starts_with("Available chardev backend types: \n  stdio\n"));
    assert!(printed("-vga help").0.contains("std                  standard VGA (default)\n"));
    assert_eq!(printed("-d help").1, 1);
    assert!(printed("-smp help").0.starts_with("smp-opts options:\n  books=<num>\n"));
}

#[test]
fn an_argument_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let args = vec![OsString::from("qemu-kvm"), OsString::from_vec(vec![b'-', 0xff])];
    let failure = parse(args, &Tables::of_this_build()).unwrap_err();
    assert_eq!(failure.text, "qemu-kvm: -\u{fffd}: argument is not valid UTF-8");
}

#[test]
fn this_builds_tables_have_what_the_modules_have() {
    let tables = Tables::of_this_build();
    let parse_line =
        |line: &str| parse(std::iter::once("qemu-kvm").chain(line.split_whitespace()).map(OsString::from), &tables);
    assert!(matches!(
        parse_line("-cpu Haswell -k de -device isa-serial,index=1 -global PIIX4_PM.disable_s3=1"),
        Ok(Parsed::Run(_))
    ));
    let Ok(Parsed::Print { text, status: 0 }) = parse_line("-cpu help") else { panic!("no help") };
    assert!(text.contains("Haswell") && text.contains("\nRecognized CPUID flags:\n"));
    assert_eq!(
        parse_line("-cpu Haswel").unwrap_err().text,
        "qemu-kvm: unable to find CPU model 'Haswel'\nDid you mean 'Haswell'?"
    );
    assert_eq!(
        parse_line("-device PIIX4_PM").unwrap_err().text,
        "qemu-kvm: -device PIIX4_PM: 'PIIX4_PM' is not a valid device model name"
    );
}

#[test]
fn instruction_counting_is_the_software_cpus() {
    let with_tcg = |line: &str| {
        let mut tables = Tables::of_this_build();
        tables.accelerators.push("tcg".to_owned());
        let args = ["qemu-kvm"].into_iter().chain(line.split(' ')).map(OsString::from);
        match parse(args, &tables) {
            Ok(Parsed::Run(config)) => Ok(*config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(failure) => Err(failure.text),
        }
    };
    let config = with_tcg("-icount shift=7,sleep=off").unwrap();
    assert_eq!(config.icount, Some(Icount { shift: 7 }));
    assert_eq!(config.accelerators[0].name, "tcg");
    assert_eq!(with_tcg("-icount sleep=off").unwrap().icount, None);
    let refused = |what: &str, option: &str| {
        assert_eq!(with_tcg(option), Err(format!("qemu-kvm: {option}: {what} is not supported by this version")));
    };
    refused("shift=auto", "-icount auto");
    refused("sleep=on", "-icount 3");
    refused("align=on", "-icount 3,align=on");
    refused("rr=record", "-icount 3,rr=record,rrfile=x");
    let settings = with_tcg("-accel tcg,thread=single,tb-size=64").unwrap();
    assert_eq!(settings.accelerators[0].properties.len(), 2);
}

#[test]
fn the_log_is_for_some_addresses() {
    let filter = config("-dfilter 0x1000+0x10,5..6 -dfilter 9-1").log.filter;
    assert_eq!(filter, [0x1000..=0x100f, 5..=6, 9..=9]);
}
