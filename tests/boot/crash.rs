//! What a disk image holds after a crash of the emulator in the middle of writes: everything that was flushed.

use std::fs;

use crate::grub::qemu_img;
use crate::machine::{Folder, PATIENCE, accelerators, wait_for};

/// What the guest allocates between two flushes: 16 writes, 129 sectors apart, to a cluster each, and a table for them.
const BATCH_CLUSTERS: usize = 17;

/// Lets the guest write until it reported `flushes` of 16 writes each, kills the machine, and looks at the image.
fn survives_a_kill_after(flushes: usize) {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("writer16");
        assert!(qemu_img(&folder, "create -f qcow2 disk.qcow2 64M").status.success());
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -display none -debugcon file:debugcon -drive file=writer16.bin,format=raw -hdb disk.qcow2"
        ));
        wait_for("the guest's flushes", PATIENCE, || (folder.text("debugcon").len() >= flushes).then_some(()));
        machine.kill();
        let flushed = folder.text("debugcon").len() * 16;
        assert!(!folder.text("debugcon").contains('!'));
        // Counts reach the disk before the tables that use the clusters: a kill between the two, which takes as long as
        // the disk's flush, leaves the clusters of one batch counted and unused. Nothing else may be wrong.
        let checked = qemu_img(&folder, "check disk.qcow2");
        let messages = String::from_utf8_lossy(&checked.stderr).into_owned();
        let leaks = messages.lines().filter(|line| line.starts_with("Leaked cluster ")).count();
        assert_eq!(messages.lines().count(), leaks, "{messages}");
        assert!(leaks <= BATCH_CLUSTERS, "{messages}");
        assert_eq!(checked.status.code(), Some(if leaks == 0 { 0 } else { 3 }), "{checked:?}");
        if leaks > 0 {
            assert_eq!(qemu_img(&folder, "check -r leaks disk.qcow2").status.code(), Some(0));
            assert_eq!(qemu_img(&folder, "check disk.qcow2").status.code(), Some(0));
        }
        assert!(qemu_img(&folder, "convert -O raw disk.qcow2 disk.raw").status.success());
        let image = fs::read(folder.path("disk.raw")).unwrap();
        let lost = (0..flushed.min(0x2_0000 / 129)).find(|&write| {
            let start = write * 129 * 512;
            let expected = u32::try_from(write).unwrap().to_le_bytes().repeat(128);
            image[start..start + 512] != expected
        });
        assert_eq!(lost, None, "of {flushed} writes");
    }
}

#[test]
fn an_image_is_clean_and_complete_after_a_kill() {
    survives_a_kill_after(3);
}

#[test]
fn an_image_is_clean_and_complete_after_a_later_kill() {
    survives_a_kill_after(30);
}
