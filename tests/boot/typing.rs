//! Keys from a viewer to the guest.
//!
//! GRUB's menu is no test of them here: with a serial terminal it enables interrupts only for a few instructions at a
//! time, and the build machines' KVM then delivers none, with QEMU as with us.

use crate::machine::{Folder, PATIENCE, has_kvm, wait_for};
use crate::rfb::Viewer;

#[test]
fn what_the_viewer_types_reaches_the_guest() {
    let folder = Folder::new();
    folder.assemble("keys16");
    if !has_kvm() {
        return;
    }
    let mut machine =
        folder.start_line("-accel kvm -m 32 -vnc unix:vnc -debugcon file:debugcon -drive file=keys16.bin,format=raw");
    let mut viewer = Viewer::connect(&folder);
    wait_for("the prompt", PATIENCE, || (folder.text("debugcon") == ">").then_some(()));
    viewer.type_text("Hello, machine!");
    viewer.wait_for_text("Hello, machine!");
    assert_eq!(folder.text("debugcon"), ">Hello, machine!");
    machine.signal("TERM");
    assert_eq!(machine.exit_code(), 0);
}
