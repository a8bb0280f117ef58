//! `-gdb`: our own client of the protocol, and gdb itself, on the guest `debug64`.
//!
//! The accelerator is a parameter. On the KVM of the build machines (shared/KVM-HERE.md) software breakpoints and
//! watchpoints do not work at privilege level 0; they are asked for where [`Accel`] says that they do.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::machine::{Folder, Machine, PATIENCE, has_kvm, wait_for};
use crate::rsp::Client;

/// What runs the guest, and what it can do for a debugger.
#[derive(Clone, Copy)]
struct Accel {
    name: &'static str,
    /// Software breakpoints and watchpoints stop the guest.
    all: bool,
}

/// The accelerators that can be tested here.
fn accelerators() -> Vec<Accel> {
    let mut accelerators = vec![Accel { name: "tcg", all: true }];
    if has_kvm() {
        accelerators.push(Accel { name: "kvm", all: false });
    }
    accelerators
}

/// Addresses in `tests/guests/debug64.s`.
const MAIN: u64 = 0x10_1000;
const WORK: u64 = 0x10_1040;
const READ: u64 = 0x10_1048;
const COUNTER: u64 = 0x10_2000;

/// Numbers of registers.
const RAX: u32 = 0;
const R8: u32 = 8;
const RIP: u32 = 16;

fn start<'a>(folder: &'a Folder, accel: Accel, more: &str) -> Machine<'a> {
    folder.assemble("debug64");
    folder.start_line(&format!(
        "-accel {} -display none -nodefaults -kernel debug64.elf -gdb unix:gdb,server=on,wait=off {more}",
        accel.name
    ))
}

/// A guest that stands at `main`.
fn at_main(folder: &Folder) -> Client {
    let mut gdb = Client::connect(&folder.path("gdb"));
    assert!(gdb.ask("qSupported:multiprocess+;swbreak+;hwbreak+").contains("qXfer:features:read+"));
    assert_eq!(gdb.ask("?"), "T05thread:p01.01;");
    assert_eq!(gdb.ask(&format!("Z1,{MAIN:x},1")), "OK");
    assert_eq!(gdb.ask("vCont;c"), "T05thread:p01.01;hwbreak:;");
    assert_eq!(gdb.ask(&format!("z1,{MAIN:x},1")), "OK");
    assert_eq!(gdb.register(RIP), MAIN);
    gdb
}

#[test]
fn a_hardware_breakpoint_stops_and_steps_go_one_instruction() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        assert_eq!(gdb.monitor("info status"), "VM status: paused (debug)\n");
        assert_eq!(gdb.ask("vCont;s:1;c"), "T05thread:p01.01;");
        assert_eq!((gdb.register(RIP), gdb.register(R8)), (MAIN + 10, 0x1122_3344_5566_7788));
        assert_eq!(gdb.ask("s"), "T05thread:p01.01;");
        assert_eq!(gdb.register(RIP), WORK);
        assert_eq!(gdb.memory(COUNTER), 0);
        assert_eq!(gdb.ask("vCont;s:p1.1"), "T05thread:p01.01;");
        assert_eq!((gdb.register(RIP), gdb.memory(COUNTER)), (READ, 1));
    }
}

#[test]
fn registers_and_memory_change_what_the_guest_does() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        // Its page tables map the first 2 MiB once more at 2 MiB.
        assert_eq!(gdb.ask(&format!("M{:x},8:3412000000000000", COUNTER + 0x20_0000)), "OK");
        assert_eq!(gdb.memory(COUNTER), 0x1234);
        assert_eq!(gdb.ask("m400000,8"), "E14", "there is nothing at 4 MiB");
        assert_eq!(gdb.ask(&format!("P{RIP:x}={:016x}", READ.swap_bytes())), "OK");
        assert_eq!(gdb.ask("s"), "T05thread:p01.01;");
        assert_eq!((gdb.register(RIP), gdb.register(RAX)), (READ + 8, 0x1234));
        assert_eq!(gdb.ask("Qqemu.PhyMemMode:1"), "OK");
        assert_eq!(gdb.ask("m400000,8"), "0000000000000000");
    }
}

#[test]
fn an_interrupt_stops_what_runs_and_a_detached_guest_runs_on() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        gdb.send("vCont;c");
        assert!(gdb.is_silent());
        gdb.raw(b"\x03");
        assert_eq!(gdb.receive(), "T02thread:p01.01;");
        let counted = gdb.memory(COUNTER);
        assert!(counted > 0);
        assert_eq!(gdb.monitor("info status"), "VM status: paused\n");
        assert_eq!(gdb.ask("D;1"), "OK");
        wait_for("the guest to count on", PATIENCE, || (gdb.memory(COUNTER) > counted).then_some(()));
        drop(gdb);
        // Whoever connects stops it again.
        let mut gdb = Client::connect(&folder.path("gdb"));
        assert_eq!(gdb.ask("?"), "T05thread:01;");
        let counted = gdb.memory(COUNTER);
        assert_eq!(gdb.memory(COUNTER), counted);
    }
}

#[test]
fn vcpus_are_threads_and_a_step_of_one_leaves_the_others() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S -smp 2");
        let mut gdb = at_main(&folder);
        assert_eq!(gdb.ask("qfThreadInfo"), "mp01.01,p01.02");
        assert_eq!(gdb.ask("Hgp1.2"), "OK");
        // Where the BIOS left it.
        let second = gdb.register(RIP);
        assert_eq!(gdb.ask("Hgp1.1"), "OK");
        assert_eq!(gdb.ask("vCont;s:p1.1"), "T05thread:p01.01;");
        assert_eq!(gdb.register(RIP), MAIN + 10);
        assert_eq!(gdb.ask("Hgp1.2"), "OK");
        assert_eq!(gdb.register(RIP), second);
    }
}

#[test]
fn the_monitor_stops_and_starts_what_the_debugger_runs() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        assert_eq!(gdb.monitor("cont"), "");
        assert_eq!(gdb.monitor("info status"), "VM status: running\n");
        assert_eq!(gdb.monitor("stop"), "");
        // gdb did not ask for that run: it hears of no stop.
        assert!(gdb.is_silent());
        assert_eq!(gdb.ask("qqemu.sstep"), "0x7");
        assert_eq!(gdb.monitor("gdbserver none"), "Could not open gdbserver on device 'none'\n");
    }
}

#[test]
fn killing_ends_the_machine() {
    for accel in accelerators() {
        let folder = Folder::new();
        let mut machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        gdb.send("k");
        assert_eq!(machine.exit_code(), 0);
        assert!(folder.text("stderr").contains("QEMU: Terminated via GDBstub"));
    }
}

#[test]
fn software_breakpoints_and_watchpoints_stop() {
    for accel in accelerators().into_iter().filter(|accel| accel.all) {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S");
        let mut gdb = at_main(&folder);
        assert_eq!(gdb.ask(&format!("Z0,{READ:x},1")), "OK");
        assert_eq!(gdb.ask("vCont;c"), "T05thread:p01.01;swbreak:;");
        assert_eq!(gdb.register(RIP), READ);
        assert_eq!(gdb.ask(&format!("z0,{READ:x},1")), "OK");
        assert_eq!(gdb.ask(&format!("Z2,{COUNTER:x},8")), "OK");
        assert_eq!(gdb.ask("vCont;c"), format!("T05thread:p01.01;watch:{COUNTER:x};"));
        assert_eq!(gdb.register(RIP), READ);
        assert_eq!(gdb.ask(&format!("z2,{COUNTER:x},8")), "OK");
        assert_eq!(gdb.ask(&format!("Z3,{COUNTER:x},8")), "OK");
        assert_eq!(gdb.ask("vCont;c"), format!("T05thread:p01.01;rwatch:{COUNTER:x};"));
    }
}

/// How KVM gets its software breakpoints; whether the guest stops there depends on the host.
#[test]
fn under_kvm_a_software_breakpoint_is_an_int3_until_the_debugger_goes() {
    for accel in accelerators().into_iter().filter(|accel| accel.name == "kvm") {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S -smp 2");
        let mut gdb = at_main(&folder);
        let before = gdb.memory(READ);
        assert_eq!(gdb.ask(&format!("Z0,{READ:x},1")), "OK");
        assert_eq!(gdb.memory(READ), before & !0xff | 0xcc);
        assert_eq!(gdb.ask("Z0,400000,1"), "E22", "there is nothing at 4 MiB");
        assert_eq!(gdb.memory(READ), before & !0xff | 0xcc);
        assert_eq!(gdb.ask(&format!("z0,{READ:x},1")), "OK");
        assert_eq!(gdb.memory(READ), before);
        assert_eq!(gdb.ask(&format!("Z0,{READ:x},1")), "OK");
        drop(gdb);
        let mut gdb = Client::connect(&folder.path("gdb"));
        assert_eq!(gdb.ask("Hg1"), "OK");
        assert_eq!(gdb.memory(READ), before);
    }
}

#[test]
fn the_monitor_opens_and_closes_the_server() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S -monitor unix:hmp,server=on,wait=off");
        let mut gdb = Client::connect(&folder.path("gdb"));
        let other = folder.arg("other");
        let device = format!("unix:{other},server=on,wait=off");
        // Not through the server that would go.
        assert_eq!(
            gdb.monitor(&format!("gdbserver {device}")),
            format!("Could not open gdbserver on device '{device}'\n")
        );
        let mut hmp = UnixStream::connect(folder.path("hmp")).unwrap();
        hmp.write_all(format!("gdbserver {device}\n").as_bytes()).unwrap();
        let mut second = Client::connect(&folder.path("other"));
        assert_eq!(second.ask("?"), "T05thread:01;");
        assert!(second.monitor("info chardev").contains(&format!("gdb: filename=unix:{other},server=on")));
        hmp.write_all(b"gdbserver none\n").unwrap();
        wait_for("the server to go", PATIENCE, || UnixStream::connect(folder.path("other")).is_err().then_some(()));
    }
}

#[test]
fn rubbish_does_not_disturb_the_machine() {
    for accel in accelerators() {
        let folder = Folder::new();
        let mut machine = start(&folder, accel, "-S");
        let mut gdb = Client::connect(&folder.path("gdb"));
        let mut noise: Vec<u8> = (0..=255).cycle().take(60_000).collect();
        noise
            .iter_mut()
            .zip(0u32..)
            .for_each(|(byte, at)| *byte ^= u8::try_from(at.wrapping_mul(40_503) >> 7 & 0xff).unwrap());
        gdb.raw(&noise);
        drop(gdb);
        let mut gdb = Client::connect(&folder.path("gdb"));
        assert_eq!(gdb.ask("?"), "T05thread:01;");
        assert!(machine.is_running());
    }
}

/// What gdb prints for these commands; `None`: gdb is not installed.
fn gdb(folder: &Folder, commands: &[&str]) -> Option<String> {
    let socket = folder.path("gdb");
    wait_for("the gdb server", PATIENCE, || socket.exists().then_some(()));
    let target = format!("target remote {}", folder.arg("gdb"));
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx", "-ex", "set confirm off", "-ex", &target]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(folder.path("debug64.elf")).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        println!("gdb is not installed: not tested");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn gdb_itself_understands_the_machine() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = start(&folder, accel, "-S -smp 2");
        let commands = [
            "hbreak main",
            "continue",
            "info threads",
            "info registers rip cr0 efer",
            "stepi",
            "print/x $r8",
            "set var *(long*)0x302000 = 77",
            "print *(long*)&counter",
            "set var $xmm3.uint128 = 5",
            "print $xmm3.uint128",
            "monitor info status",
            "maintenance packet Qqemu.PhyMemMode:1",
            "x/gx 0x102000",
            "kill",
        ];
        let Some(text) = gdb(&folder, &commands) else { return };
        for expected in [
            "Thread 1 hit Breakpoint 1, 0x0000000000101000 in main ()",
            "2    Thread 1.2 (CPU#1 [halted ])",
            "rip            0x101000            0x101000 <main>",
            "cr0            0x80000011          [ PG ET PE ]",
            "efer           0x500               [ LMA LME ]",
            "in again ()",
            "$1 = 0x1122334455667788",
            "$2 = 77",
            "$3 = 5",
            "VM status: paused (debug)",
            "received: \"OK\"",
            "0x102000 <counter>:\t0x000000000000004d",
        ] {
            assert!(text.contains(expected), "no \"{expected}\" in:\n{text}");
        }
    }
}
