//! A guest that writes rubbish to every port.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::machine::{Folder, PATIENCE, accelerators, wait_for};
use crate::rfb::Viewer;

/// How long the guest may try.
const TRIAL: Duration = Duration::from_secs(8);

fn survives_rubbish_from(seed: u32) {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("rubbish16");
        let mut image = fs::read(folder.path("rubbish16.bin")).unwrap();
        image[4..8].copy_from_slice(&seed.to_le_bytes());
        fs::write(folder.path("rubbish16.bin"), image).unwrap();
        fs::write(folder.path("other"), vec![0; 1 << 20]).unwrap();
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 32 -vnc unix:vnc -debugcon file:debugcon -serial file:serial -parallel file:parallel \
             -drive file=rubbish16.bin,format=raw,snapshot=on -drive file=other,format=raw,snapshot=on",
        ));
        wait_for("the first 256 accesses", PATIENCE, || folder.text("debugcon").contains('.').then_some(()));
        // A viewer looks on while it goes on.
        let mut viewer = Viewer::connect(&folder);
        viewer.update();
        thread::sleep(TRIAL);
        assert!(machine.is_running(), "{}", folder.text("stderr"));
        drop(viewer);
        Viewer::connect(&folder).update();
        machine.signal("TERM");
        assert_eq!(machine.exit_code(), 0, "{}", folder.text("stderr"));
        let said = folder.text("stderr");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn rubbish_to_every_port_does_no_harm() {
    survives_rubbish_from(0x1234_5678);
}

#[test]
fn other_rubbish_does_no_harm_either() {
    survives_rubbish_from(0x0bad_cafe);
}
