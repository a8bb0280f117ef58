//! Debian's kernels with a RAM disk: to a shell on the serial line, and powered off from there.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::line::{Line, SERIAL};
use crate::machine::Folder;
use crate::{LONG, guest};

/// Boots a kernel, lets it compute, and switches the machine off. `machine` is what `uname -m` says.
fn boots(name: &str, machine: &str, cpus: u32) {
    let Some(kernel) = guest(&format!("{name}/vmlinuz")) else { return };
    let initrd = guest(&format!("{name}/initrd")).unwrap();
    let folder = Folder::new();
    let smp = cpus.to_string();
    let kernel = ["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.to_str().unwrap(), "-append", "console=ttyS0"];
    let board = format!("-accel tcg -m 256 -display none -no-reboot -smp {smp} {SERIAL}");
    let mut vm = folder.start(board.split(' ').chain(kernel));
    let mut line = Line::connect(&folder);
    line.wait_for("Linux version 6.1", LONG);
    line.wait_for(&format!("guest: {machine}, {cpus} CPUs"), LONG);
    line.wait_for("guest: ready", LONG);
    line.send("echo sum $((6 * 7))\n");
    line.wait_for("sum 42", LONG);
    // As many processes at a time as there are CPUs, and one more.
    line.send(&format!("for i in $(seq 0 {cpus}); do seq 20000 | sha256sum & done; wait\n"));
    for _ in 0..=cpus {
        line.wait_for("f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a", LONG);
    }
    line.wait_for("guest: status 0", LONG);
    line.send("poweroff -f\n");
    let end = line.read_to_end(LONG);
    assert!(end.contains("reboot: Power down"), "{end}");
    assert_eq!(vm.exit_code(), 0);
}

#[test]
fn the_cloud_kernel_boots_with_one_cpu() {
    boots("linux-amd64", "x86_64", 1);
}

#[test]
fn the_cloud_kernel_boots_with_two_cpus() {
    boots("linux-amd64", "x86_64", 2);
}

#[test]
fn the_cloud_kernel_boots_with_four_cpus() {
    boots("linux-amd64", "x86_64", 4);
}

#[test]
fn the_cloud_kernel_counts_time_by_kvms_clock() {
    let Some(kernel) = guest("linux-amd64/vmlinuz") else { return };
    let initrd = guest("linux-amd64/initrd").unwrap();
    let folder = Folder::new();
    let kernel = ["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.to_str().unwrap(), "-append", "console=ttyS0"];
    let board = format!("-accel tcg -cpu max,kvm=on -m 256 -display none -no-reboot -smp 2 {SERIAL}");
    let mut vm = folder.start(board.split(' ').chain(kernel));
    let mut line = Line::connect(&folder);
    line.wait_for("Hypervisor detected: KVM", LONG);
    line.wait_for("clocksource: Switched to clocksource kvm-clock", LONG);
    line.wait_for("guest: ready", LONG);
    line.send("date +now=%s\n");
    line.wait_for("now=", LONG);
    let shown: u64 = line.wait_for("\n", LONG).trim().parse().unwrap();
    let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(shown.abs_diff(host) < 60, "the guest's wall clock shows {shown}, the host's {host}");
    line.send("poweroff -f\n");
    line.read_to_end(LONG);
    assert_eq!(vm.exit_code(), 0);
}

#[test]
fn the_i386_kernel_boots_with_two_level_pages() {
    boots("linux-686", "i686", 1);
}

#[test]
fn the_i386_kernel_boots_with_three_level_pages() {
    boots("linux-686-pae", "i686", 2);
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn the_installer_asks_its_first_question() {
    let Some(kernel) = guest("installer/vmlinuz") else { return };
    let initrd = guest("installer/initrd").unwrap();
    let folder = Folder::new();
    let kernel = ["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.to_str().unwrap(), "-append", "console=ttyS0"];
    let board = format!("-accel tcg -m 1024 -display none {SERIAL}");
    let _vm = folder.start(board.split(' ').chain(kernel));
    let mut line = Line::connect(&folder);
    line.wait_for("Select a language", LONG);
    line.wait_for("English", LONG);
}
