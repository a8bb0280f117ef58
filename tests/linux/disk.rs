//! A Debian on an IDE disk in a qcow2 image, by the first command of the manual.

use std::process::Command;

use crate::line::{Line, SERIAL};
use crate::machine::{Folder, PATIENCE};
use crate::rfb::Viewer;
use crate::{LONG, guest};

fn qemu_img(folder: &Folder, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-img"));
    let output = command.args(arguments).current_dir(folder.path("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn debian_boots_from_its_disk_to_a_login() {
    let Some(disk) = guest("debian-disk/disk.qcow2") else { return };
    let folder = Folder::new();
    std::fs::copy(disk, folder.path("disk.qcow2")).unwrap();
    assert!(qemu_img(&folder, &["info", "disk.qcow2"]).contains("compat: 0.10"));
    let board = format!("-accel tcg -m 128 -smp 2 -name test -hda disk.qcow2 -vnc unix:vnc {SERIAL}");
    let mut vm = folder.start_line(&board);
    let mut line = Line::connect(&folder);
    let mut viewer = Viewer::connect(&folder);
    line.wait_for("Debian GNU/Linux 12 debian ttyS0", LONG);
    line.wait_for("debian login:", LONG);
    viewer.wait_for_text_within("debian login:", LONG);
    line.send("root\n");
    line.wait_for("root@debian:~#", LONG);
    line.send("echo here are $(nproc) CPUs, $(systemctl is-system-running --wait)\n");
    line.wait_for("here are 2 CPUs, running", LONG);
    line.send("echo kept >/root/file; poweroff\n");
    line.read_to_end(LONG);
    assert_eq!(vm.exit_code(), 0);
    qemu_img(&folder, &["check", "disk.qcow2"]);
    // What it wrote is there after the machine.
    let _vm = folder.start_line(&board);
    let mut line = Line::connect(&folder);
    line.wait_for("debian login:", LONG);
    line.send("root\n");
    line.wait_for("root@debian:~#", LONG);
    line.send("cat /root/file\n");
    line.wait_for("kept", PATIENCE);
}
