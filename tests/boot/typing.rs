//! Keys from a viewer to the guest.
//!
//! GRUB's menu is no test of them here: with a serial terminal it enables interrupts only for a few instructions at a
//! time, and the build machines' KVM then delivers none, with QEMU as with us.

use crate::machine::{Folder, has_kvm};
use crate::rfb::Viewer;

const ESCAPE: u32 = 0xff1b;

#[test]
fn what_the_viewer_types_reaches_the_guest() {
    let folder = Folder::new();
    folder.assemble("keys16");
    if !has_kvm() {
        return;
    }
    let mut machine = folder.start_line(
        "-accel kvm -m 32 -vnc unix:vnc -device isa-debug-exit,iobase=0xf4,iosize=1 -debugcon file:debugcon \
         -drive file=keys16.bin,format=raw",
    );
    let mut viewer = Viewer::connect(&folder);
    viewer.wait_for_text("Booting from Hard Disk...");
    viewer.wait_for_text(">");
    viewer.type_text("Hello, machine!");
    viewer.wait_for_text(">Hello, machine!");
    viewer.press(ESCAPE);
    assert_eq!(machine.exit_code(), 41);
    assert_eq!(folder.text("debugcon"), ">Hello, machine!");
}
