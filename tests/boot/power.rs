//! The power button, suspend to RAM, and a guest that was too busy for its clock's ticks.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::machine::{Folder, PATIENCE, accelerators, has_kvm, wait_for};
use crate::monitor::{Hmp, Qmp};

const MACHINE: &str = "-m 32 -nodefaults -vga none -display none -debugcon file:debugcon \
                       -device isa-debug-exit,iobase=0xf4";

#[test]
fn a_guest_hears_the_power_button_and_powers_off() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("button16");
        let mut machine = folder.start_line(&format!(
            "-accel {accel} {MACHINE} -drive file=button16.bin,format=raw,snapshot=on -monitor unix:hmp,server=on,wait=off"
        ));
        wait_for("the guest to listen", PATIENCE, || folder.text("debugcon").contains("Waiting. ").then_some(()));
        let mut monitor = Hmp::connect(&folder);
        assert_eq!(monitor.run("system_powerdown"), "");
        assert_eq!(machine.exit_code(), 0);
        assert_eq!(folder.text("debugcon"), "Waiting. The power button was pressed.");
    }
}

#[test]
fn a_guest_sleeps_and_wakes_where_it_told_the_firmware() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("sleep16");
        let mut machine = folder.start_line(&format!(
            "-accel {accel} {MACHINE} -drive file=sleep16.bin,format=raw,snapshot=on -S -qmp unix:qmp,server=on,wait=off"
        ));
        let mut qmp = Qmp::connect(&folder);
        // Before it sleeps: awake again, the guest ends the machine at once.
        let early = qmp.run("system_wakeup", json!({}));
        assert_eq!(early["error"]["desc"], "Unable to wake up: guest is not in suspended state");
        assert_eq!(qmp.run("cont", json!({})), json!({"return": {}}));
        qmp.wait_for_event("SUSPEND");
        assert_eq!(qmp.run("query-status", json!({}))["return"]["status"], "suspended");
        assert_eq!(qmp.run("system_wakeup", json!({})), json!({"return": {}}));
        qmp.wait_for_event("WAKEUP");
        assert_eq!(machine.exit_code(), 35);
        assert_eq!(folder.text("debugcon"), "Asleep. Awake.");
    }
}

/// The last words of the guest that loses ticks, and its exit status, on a host with two busy threads.
fn outcome_of_lost_ticks(driftfix: &str) -> (String, i32) {
    let folder = Folder::new();
    folder.assemble("ticks16");
    let ended = Arc::new(AtomicBool::new(false));
    let busy = [0, 1].map(|_| {
        let ended = Arc::clone(&ended);
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                black_box((0..1000).sum::<u32>());
            }
        })
    });
    let mut machine = folder.start_line(&format!(
        "-accel kvm {MACHINE} -rtc driftfix={driftfix} -drive file=ticks16.bin,format=raw,snapshot=on"
    ));
    let status = machine.exit_code();
    ended.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
    (folder.text("debugcon"), status)
}

#[test]
fn lost_ticks_are_made_up_for_with_slew_only() {
    if !has_kvm() {
        return;
    }
    assert_eq!(outcome_of_lost_ticks("slew"), ("Made up for.".to_owned(), 35));
    assert_eq!(outcome_of_lost_ticks("none"), ("Lost.".to_owned(), 255));
}
