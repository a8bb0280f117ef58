//! HMP.

use std::sync::atomic::Ordering;

use super::{Bench, Mode};

fn bench() -> Bench {
    let bench = Bench::new(Mode::Human);
    assert_eq!(bench.seen(), "QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ");
    bench
}

/// The answer to a line, without its echo and the next prompt, with plain line ends.
fn answer(bench: &Bench, line: &str) -> String {
    let text = bench.send(&format!("{line}\r"));
    let text = text.strip_prefix(&format!("{line}\r\n")).unwrap().strip_suffix("(qemu) ").unwrap();
    text.replace("\r\n", "\n")
}

#[test]
fn queries_answer_as_qemu_does() {
    let bench = bench();
    assert_eq!(answer(&bench, "info name"), "test\n");
    assert_eq!(answer(&bench, "info status"), "VM status: paused (prelaunch)\n");
    assert_eq!(answer(&bench, "info version"), "10.0.2\n");
    assert_eq!(answer(&bench, "info kvm"), "kvm support: enabled\n");
    assert_eq!(answer(&bench, "info uuid"), "ab000000-0000-0000-0000-000000000000\n");
    assert_eq!(answer(&bench, "info cpus"), "* CPU #0: thread_id=100\n  CPU #1: thread_id=101\n");
    assert_eq!(answer(&bench, "info mem"), "PG disabled\n");
    assert_eq!(answer(&bench, "info chardev"), "mon: filename=vc\n");
    assert_eq!(answer(&bench, "info vnc"), "None\n");
    assert_eq!(answer(&bench, "info mice"), "* Mouse #2: QEMU PS/2 Mouse\n");
    assert_eq!(answer(&bench, "info qtree"), "bus: main-system-bus\n  type System\n");
    assert_eq!(answer(&bench, "info memory_size_summary"), "base memory: 134217728\nplugged memory: 0\n");
    assert!(answer(&bench, "info block -v ide0-hd0").starts_with("ide0-hd0 (#block129): d.qcow2 (qcow2)\n"));
    assert_eq!(answer(&bench, "info block -n"), "#block129: d.qcow2 (qcow2)\n    Cache mode:       writeback\n");
    assert!(answer(&bench, "info registers").starts_with("\nCPU#0\nEAX=00000000 "));
    assert_eq!(answer(&bench, "info registers -a").matches("CPU#").count(), 2);
    assert_eq!(answer(&bench, "info registers 5"), "CPU#5 not available\n");
    assert!(answer(&bench, "info history").starts_with("0: 'info name'\n1: 'info status'\n"));
}

#[test]
fn wrong_command_lines_are_refused_with_qemus_words() {
    let bench = bench();
    let try_help = |name: &str| format!("Try \"help {name}\" for more information\n");
    assert_eq!(answer(&bench, ""), "");
    assert_eq!(answer(&bench, "foo bar"), "unknown command: 'foo'\n");
    assert_eq!(answer(&bench, "info foo"), "unknown command: 'info foo'\n");
    assert_eq!(answer(&bench, "info -f"), "unknown command: 'info -f'\n");
    let extra = "extraneous characters at the end of line\n";
    assert_eq!(answer(&bench, "stop foo"), format!("stop|s: {extra}{}", try_help("stop")));
    assert_eq!(answer(&bench, "q x"), format!("quit|q: {extra}{}", try_help("q")));
    assert_eq!(answer(&bench, "info name x"), format!("name: {extra}{}", try_help("info name")));
    assert_eq!(answer(&bench, "eject"), format!("eject: block device name expected\n{}", try_help("eject")));
    assert_eq!(answer(&bench, "p $foo"), format!("unknown register\n{}", try_help("p")));
    assert_eq!(
        answer(&bench, "memsave 0 16 \"/nonexist/m\""),
        "Error: Could not open '/nonexist/m': No such file or directory\n"
    );
    assert_eq!(answer(&bench, "cpu 7"), "invalid CPU index\n");
    assert_eq!(answer(&bench, "sendkey ctrl-foo"), "invalid parameter: foo\n");
    assert_eq!(answer(&bench, "screendump x.ppm -f foo"), "Error: invalid parameter value: foo\n");
    assert_eq!(answer(&bench, "screendump x.ppm nodev"), "Error: Device 'nodev' not found\n");
    assert_eq!(answer(&bench, "mouse_set 5"), "Error: Mouse at index '5' not found\n");
    assert_eq!(answer(&bench, "eject foo"), "Error: Device 'foo' not found\n");
    assert_eq!(answer(&bench, "boot_set z"), "Invalid boot device 'z'\n");
    assert_eq!(answer(&bench, "boot_set c"), "boot device list now set to c\n");
    assert_eq!(answer(&bench, "logfile /x/y"), "Error opening logfile /x/y: No such file or directory\n");
    assert!(answer(&bench, "log nope").starts_with("Log items (comma separated):\n"));
    assert_eq!(answer(&bench, "change vnc :5"), "Error: Expected 'password' after 'vnc'\n");
    assert_eq!(answer(&bench, "set_password foo x"), "Error: invalid parameter value: foo\n");
    assert_eq!(bench.calls(), Vec::<String>::new());
}

#[test]
fn commands_reach_the_machine() {
    let bench = bench();
    for line in [
        "c",
        "s",
        "system_reset",
        "system_powerdown",
        "nmi",
        "o/w 0x80 0x1234",
        "mouse_move 1 -2 1",
        "mouse_button 5",
        "mouse_button 4",
        "eject -f ide1-cd0",
        "change ide1-cd0 a.iso raw read-only",
        "set_password vnc geheim",
        "expire_password vnc now",
    ] {
        assert_eq!(answer(&bench, line), "", "{line}");
    }
    // The end of the machine is no place for another prompt.
    assert_eq!(bench.send("quit\r"), "quit\r\n");
    assert_eq!(
        bench.calls(),
        [
            "cont",
            "stop",
            "reset",
            "powerdown",
            "nmi",
            "out 0x80 Long 0x1234",
            "MoveBy { dx: 1, dy: -2 }",
            "Button { button: WheelUp, down: true }",
            "Button { button: WheelUp, down: false }",
            "Button { button: Left, down: true }",
            "Button { button: Right, down: true }",
            "Button { button: Left, down: false }",
            "eject true",
            "change ide1-cd0 a.iso Some(\"raw\") true",
            "password geheim",
            "expire now",
            "quit",
        ]
    );
}

#[test]
fn memory_ports_and_expressions() {
    let bench = bench();
    assert_eq!(answer(&bench, "xp/2xw 0x10"), "0000000000000010: 0x13121110 0x17161514\n");
    assert_eq!(answer(&bench, "x/2xb $pc"), "00000000fffffff0: 0xf0 0xf1\n");
    assert_eq!(answer(&bench, "x/1i 0x90"), "0x00000090:  90                       nop      \n");
    assert_eq!(answer(&bench, "p/x $cs.base+$eip"), "0xfffffff0\n");
    assert_eq!(answer(&bench, "i/b 0x64"), "portb[0x0064] = 0x18\n");
    assert_eq!(answer(&bench, "i/w 0x60"), "portl[0x0060] = 0x00000018\n");
    assert_eq!(answer(&bench, "gva2gpa 0x100"), "gpa: 0x100\n");
    assert_eq!(answer(&bench, "cpu 1"), "");
    assert_eq!(answer(&bench, "p/x $pc"), "0x1000a8\n");
}

#[test]
fn memory_is_saved_to_files() {
    let bench = bench();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    let name = path.to_str().unwrap();
    assert_eq!(answer(&bench, &format!("pmemsave 0x10 4 \"{name}\"")), "");
    assert_eq!(std::fs::read(&path).unwrap(), [0x10, 0x11, 0x12, 0x13]);
    assert_eq!(answer(&bench, &format!("memsave 0x20 2 \"{name}\"")), "");
    assert_eq!(std::fs::read(&path).unwrap(), [0x20, 0x21]);
    assert_eq!(
        answer(&bench, &format!("memsave 0x200000000000 16 \"{name}\"")),
        "Error: Invalid addr 0x0000200000000000/size 16 specified\n"
    );
}

#[test]
fn keys_are_held_and_released_by_the_machines_clock() {
    let bench = bench();
    answer(&bench, "sendkey ctrl-a 50");
    answer(&bench, "sendkey b");
    assert_eq!(bench.calls(), ["key 0x1d down", "key 0x1e down"]);
    bench.clock.advance(50_000_000);
    bench.turn();
    assert_eq!(bench.calls(), ["key 0x1e up", "key 0x1d up"]);
    bench.clock.advance(50_000_000);
    bench.turn();
    assert_eq!(bench.calls(), ["key 0x30 down"]);
    bench.clock.advance(100_000_000);
    bench.turn();
    assert_eq!(bench.calls(), ["key 0x30 up"]);
    bench.clock.advance(100_000_000);
    bench.turn();
    answer(&bench, "sendkey c");
    assert_eq!(bench.calls(), ["key 0x2e down"]);
}

#[test]
fn help_names_what_exists() {
    let bench = bench();
    assert_eq!(answer(&bench, "help stop"), "stop|s  -- stop emulation\n");
    assert_eq!(answer(&bench, "? quit"), "quit|q  -- quit the emulator\n");
    assert_eq!(answer(&bench, "help info name"), "info name  -- show the current VM name\n");
    assert_eq!(answer(&bench, "help foo"), "unknown command: 'foo'\n");
    assert_eq!(answer(&bench, "help info foo"), "unknown command: 'info foo'\n");
    assert_eq!(answer(&bench, "info"), answer(&bench, "help info"));
    let all = answer(&bench, "help");
    let names: Vec<_> = all.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.contains(&"info") && names.is_sorted());
}

#[test]
fn the_password_is_asked_for() {
    let bench = bench();
    assert_eq!(bench.send("change vnc password\r"), "change vnc password\r\nPassword: ");
    assert_eq!(bench.send("geheim\r"), "******\r\n(qemu) ");
    assert_eq!(bench.calls(), ["password geheim"]);
    assert!(!answer(&bench, "info history").contains("geheim"));
}

#[test]
fn tab_completes_commands_arguments_and_drives() {
    let bench = bench();
    assert_eq!(bench.send("info sta\t\r"), "info status \r\nVM status: paused (prelaunch)\r\n(qemu) ");
    assert_eq!(bench.send("eject -f ide1\t\x15"), "eject -f ide1-cd0 \x1b[18D\x1b[K");
    assert_eq!(bench.send("system_\t\x15").lines().count(), 3);
    assert_eq!(bench.send("help inf\t\x15"), "help info \x1b[10D\x1b[K");
    assert_eq!(bench.send("sendkey ctrl-num\t\x15"), "sendkey ctrl-num_lock \x1b[22D\x1b[K");
}

#[test]
fn a_slow_terminal_stops_the_commands_and_not_the_machine() {
    let bench = bench();
    bench.terminal.room.store(10, Ordering::Relaxed);
    bench.request.input.push("help\r".repeat(500).as_bytes());
    bench.turn();
    assert_eq!(bench.seen().len(), 10);
    bench.terminal.room.store(usize::MAX, Ordering::Relaxed);
    bench.monitors.event("STOP", None);
    let text = bench.send("");
    assert!(text.is_empty());
}
