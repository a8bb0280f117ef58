//! GRUB from disk images and from Debian's rescue CD: seen and typed to over VNC and over the serial line.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;

use crate::machine::{Folder, PATIENCE, accelerators, wait_for};
use crate::rfb::Viewer;

const RESCUE_CD: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";

/// Runs our qemu-img in the folder.
pub fn qemu_img(folder: &Folder, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-img"));
    command.args(line.split_whitespace()).current_dir(folder.path("")).output().unwrap()
}

/// The demo disk's bytes; `None` where GRUB is not installed.
fn demo_disk() -> Option<&'static [u8]> {
    static DISK: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    DISK.get_or_init(|| {
        if !Path::new("/usr/lib/grub/i386-pc/boot.img").exists() {
            println!("grub-pc-bin is not installed: nothing tested");
            return None;
        }
        let folder = Folder::new();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-demo-disk");
        let status = Command::new(script).arg(folder.path("disk.raw")).status().unwrap();
        assert!(status.success(), "scripts/make-demo-disk: {status}");
        Some(fs::read(folder.path("disk.raw")).unwrap())
    })
    .as_deref()
}

/// A folder with `disk.raw`, where the test can run.
fn folder_with_demo_disk() -> Option<Folder> {
    let disk = demo_disk()?;
    let folder = Folder::new();
    fs::write(folder.path("disk.raw"), disk).unwrap();
    Some(folder)
}

#[test]
fn grub_boots_from_a_raw_disk() {
    for accel in accelerators() {
        let Some(folder) = folder_with_demo_disk() else { return };
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 128 -smp 2 -name test -drive file=disk.raw,format=raw -vnc unix:vnc -serial file:serial"
        ));
        let mut viewer = Viewer::connect(&folder);
        assert_eq!(viewer.name, "QEMU (test)");
        viewer.wait_for_text("*Hello from a machine in Dromaius");
        wait_for("the menu on the serial line", PATIENCE, || {
            folder.text("serial").contains("What the BIOS found").then_some(())
        });
        machine.signal("TERM");
        assert_eq!(machine.exit_code(), 0);
    }
}

#[test]
fn grub_boots_from_a_qcow2_disk_and_obeys_the_serial_line() {
    for accel in accelerators() {
        let Some(folder) = folder_with_demo_disk() else { return };
        let made = qemu_img(&folder, "convert -f raw -O qcow2 disk.raw disk.qcow2");
        assert!(made.status.success(), "{made:?}");
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 128 -smp 2 -name test -hda disk.qcow2 -vnc unix:vnc \
             -chardev socket,id=line,path=serial,server=on,wait=off -serial chardev:line"
        ));
        let line = wait_for("the serial socket", PATIENCE, || UnixStream::connect(folder.path("serial")).ok());
        let mut viewer = Viewer::connect(&folder);
        // The guest's output has to go somewhere while the test looks elsewhere.
        let (mut reader, mut writer) = (line.try_clone().unwrap(), line);
        let mut log = File::create(folder.path("serial.log")).unwrap();
        let copy = thread::spawn(move || {
            let mut data = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut data) {
                log.write_all(&data[..length]).unwrap();
            }
        });
        viewer.wait_for_text("*Hello from a machine in Dromaius");
        wait_for("the menu on the serial line", PATIENCE, || {
            folder.text("serial.log").contains("Power off").then_some(())
        });
        writer.write_all(b"\r").unwrap();
        viewer.wait_for_text("It boots. Press a key to come back to the menu.");
        wait_for("the entry's text on the serial line", PATIENCE, || {
            folder.text("serial.log").contains("It boots.").then_some(())
        });
        machine.signal("TERM");
        assert_eq!(machine.exit_code(), 0);
        copy.join().unwrap();
        let checked = qemu_img(&folder, "check disk.qcow2");
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn the_rescue_cd_boots() {
    if !Path::new(RESCUE_CD).exists() {
        println!("grub-rescue-pc is not installed: nothing tested");
        return;
    }
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine = folder.start(["-accel", accel, "-cdrom", RESCUE_CD, "-vnc", "unix:vnc"]);
        let mut viewer = Viewer::connect(&folder);
        viewer.wait_for_text("Welcome to GRUB!");
    }
}

/// The arrow key as an X keysym.
const DOWN: u32 = 0xff54;

#[test]
fn grubs_menu_obeys_the_viewers_keys() {
    let Some(folder) = folder_with_demo_disk() else { return };
    let mut machine = folder.start_line("-accel tcg -m 128 -drive file=disk.raw,format=raw,snapshot=on -vnc unix:vnc");
    let mut viewer = Viewer::connect(&folder);
    viewer.wait_for_text("*Hello from a machine in Dromaius");
    viewer.press(DOWN);
    viewer.wait_for_text("*What the BIOS found");
    viewer.type_line("");
    let screen = viewer.wait_for_text("Press Enter to come back to the menu.");
    assert!(screen.contains("(hd0)"), "{screen}");
    viewer.type_line("");
    viewer.wait_for_text("Power off");
    machine.signal("TERM");
    assert_eq!(machine.exit_code(), 0, "{}", folder.text("stderr"));
}

#[test]
fn the_rescue_cd_obeys_what_is_typed() {
    if !Path::new(RESCUE_CD).exists() {
        println!("grub-rescue-pc is not installed: nothing tested");
        return;
    }
    let folder = Folder::new();
    let _machine = folder.start(["-accel", "tcg", "-cdrom", RESCUE_CD, "-vnc", "unix:vnc"]);
    let mut viewer = Viewer::connect(&folder);
    viewer.wait_for_text("*GNU/Linux");
    viewer.type_text("c");
    viewer.wait_for_text("grub>");
    viewer.type_line("echo typed ${grub_platform}");
    viewer.wait_for_text("typed pc");
}
