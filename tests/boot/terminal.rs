//! The process under a shell's job control.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::machine::{Folder, PATIENCE, accelerator, wait_for};

/// A terminal: the person's end, and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (person, program)
}

/// Waits until the terminal edits lines and echoes, or until it does not.
fn wait_for_modes(person: &OwnedFd, raw: bool) {
    let what = if raw { "a raw terminal" } else { "the terminal's own modes" };
    wait_for(what, PATIENCE, || {
        let modes = tcgetattr(person).unwrap().local_modes;
        let cooked = LocalModes::ICANON | LocalModes::ECHO;
        (if raw { !modes.intersects(cooked) } else { modes.contains(cooked) }).then_some(())
    });
}

/// A shell with job control that does not touch the terminal's modes, as interactive ones do.
const SCRIPT: &str = r#"
set -m
"$QEMU" -accel "$ACCEL" -m 32 -nodefaults -display none -S -pidfile pid -serial stdio
echo stopped > stopped
while [ ! -e go ]; do sleep 0.1; done
fg
echo $? > ended
"#;

#[test]
fn a_stopped_process_leaves_the_terminal_as_it_was() {
    let folder = Folder::new();
    let (person, program) = terminal();
    fs::write(folder.path("script"), SCRIPT).unwrap();
    let output = || Stdio::from(program.try_clone().unwrap());
    let mut shell = Command::new("setsid")
        .args(["--ctty", "--wait", "dash", "script"])
        .env("QEMU", env!("CARGO_BIN_EXE_qemu-kvm"))
        .env("ACCEL", accelerator())
        .current_dir(folder.path(""))
        .stdin(output())
        .stdout(output())
        .stderr(File::create(folder.path("stderr")).unwrap())
        .spawn()
        .unwrap();
    wait_for_modes(&person, true);
    rustix::io::write(&person, b"\x1a").unwrap();
    wait_for("Ctrl-Z to stop it", PATIENCE, || folder.path("stopped").exists().then_some(()));
    wait_for_modes(&person, false);
    fs::write(folder.path("go"), "").unwrap();
    wait_for_modes(&person, true);
    let process = folder.text("pid");
    assert!(Command::new("kill").arg(process.trim()).status().unwrap().success());
    wait_for("its end", PATIENCE, || folder.text("ended").ends_with('\n').then_some(()));
    assert_eq!(folder.text("ended"), "0\n", "{}", folder.text("stderr"));
    wait_for_modes(&person, false);
    assert!(shell.wait().unwrap().success());
}
