//! How the process ends.

use crate::machine::{Folder, PATIENCE, accelerator, wait_for};

/// Starts a machine that does nothing, sends it a signal once it listens, and checks its last words.
fn ends_in_order_on(name: &str, number: u32) {
    let folder = Folder::new();
    let mut machine = folder.start_line(&format!("-accel {} -S -vnc unix:vnc", accelerator()));
    wait_for("the VNC socket", PATIENCE, || folder.path("vnc").exists().then_some(()));
    machine.signal(name);
    assert_eq!(machine.exit_code(), 0);
    let said = folder.text("stderr");
    let words = said.lines().last().unwrap();
    let start = format!("qemu-kvm: terminating on signal {number} from pid ");
    assert!(words.starts_with(&start) && words.ends_with(')'), "{words}");
}

#[test]
fn sigterm_ends_it_in_order() {
    ends_in_order_on("TERM", 15);
}

#[test]
fn sigint_ends_it_in_order() {
    ends_in_order_on("INT", 2);
}

#[test]
fn sighup_ends_it_in_order() {
    ends_in_order_on("HUP", 1);
}
