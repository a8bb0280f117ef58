//! Keys from a viewer to the guest.
//!
//! Those for GRUB's menu are tested in `grub`, on the software CPU only: with a serial terminal it enables interrupts for
//! a few instructions at a time, and the build machines' KVM then delivers none, with QEMU as with us.

use crate::machine::{Folder, PATIENCE, accelerators, wait_for};
use crate::rfb::Viewer;

#[test]
fn what_the_viewer_types_reaches_the_guest() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("keys16");
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 32 -vnc unix:vnc -debugcon file:debugcon -drive file=keys16.bin,format=raw"
        ));
        let mut viewer = Viewer::connect(&folder);
        wait_for("the prompt", PATIENCE, || (folder.text("debugcon") == ">").then_some(()));
        viewer.type_text("Hello, machine!");
        viewer.wait_for_text("Hello, machine!");
        assert_eq!(folder.text("debugcon"), ">Hello, machine!");
        machine.signal("TERM");
        assert_eq!(machine.exit_code(), 0);
    }
}
