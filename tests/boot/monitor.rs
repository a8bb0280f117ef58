//! The monitors of a running machine: people's on a socket, programs' QMP, and both at once.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::machine::{Folder, PATIENCE, accelerators, wait_for};
use crate::rfb::Viewer;

/// Connects to a socket of the machine once it is there.
pub fn connect(folder: &Folder, name: &str) -> UnixStream {
    let stream = wait_for("a monitor's socket", PATIENCE, || UnixStream::connect(folder.path(name)).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The human monitor at the other end of a socket.
pub struct Hmp(UnixStream);

impl Hmp {
    pub fn connect(folder: &Folder) -> Self {
        let mut monitor = Self(connect(folder, "hmp"));
        let greeting = monitor.answer();
        assert!(greeting.starts_with("QEMU ") && greeting.ends_with("monitor - type 'help' for more information\r\n"));
        monitor
    }

    /// What it says up to its prompt.
    fn answer(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"(qemu) ") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        text.truncate(text.len() - b"(qemu) ".len());
        String::from_utf8(text).unwrap()
    }

    /// A command's answer without its echo.
    pub fn run(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\n").as_bytes()).unwrap();
        let answer = self.answer();
        answer.split_once("\r\n").unwrap().1.to_owned()
    }
}

/// QMP at the other end of a socket.
pub struct Qmp {
    stream: UnixStream,
    /// Names of the events that came.
    events: Vec<String>,
}

impl Qmp {
    /// Connects and reads the greeting.
    fn greeted(folder: &Folder) -> (Self, Value) {
        let mut qmp = Self { stream: connect(folder, "qmp"), events: Vec::new() };
        let greeting = qmp.message();
        (qmp, greeting)
    }

    /// Connects and leaves the negotiation behind.
    pub fn connect(folder: &Folder) -> Self {
        let (mut qmp, _) = Self::greeted(folder);
        assert_eq!(qmp.run("qmp_capabilities", json!({})), json!({"return": {}}));
        qmp
    }

    fn message(&mut self) -> Value {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        serde_json::from_slice(&line).unwrap()
    }

    /// Runs a command; events that come before its answer are kept.
    pub fn run(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        self.stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let message = self.message();
            match message.get("event") {
                Some(event) => self.events.push(event.as_str().unwrap().to_owned()),
                None => return message,
            }
        }
    }

    /// Waits for an event unless it has come.
    pub fn wait_for_event(&mut self, name: &str) {
        while !self.events.iter().any(|event| event == name) {
            let message = self.message();
            self.events.push(message["event"].as_str().unwrap().to_owned());
        }
    }
}

#[test]
fn people_talk_to_the_monitor_on_a_socket() {
    for accel in accelerators() {
        let folder = Folder::new();
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 32 -S -name test -display none -monitor unix:hmp,server=on,wait=off"
        ));
        let mut monitor = Hmp::connect(&folder);
        assert_eq!(monitor.run("info name"), "test\r\n");
        assert_eq!(monitor.run("info status"), "VM status: paused (prelaunch)\r\n");
        let kvm = if *accel == "kvm" { "enabled" } else { "disabled" };
        assert_eq!(monitor.run("info kvm"), format!("kvm support: {kvm}\r\n"));
        assert_eq!(monitor.run("cont"), "");
        assert_eq!(monitor.run("info status"), "VM status: running\r\n");
        assert_eq!(monitor.run("stop"), "");
        assert_eq!(monitor.run("info status"), "VM status: paused\r\n");
        assert_eq!(monitor.run("nonsense"), "unknown command: 'nonsense'\r\n");
        monitor.0.write_all(b"quit\n").unwrap();
        assert_eq!(machine.exit_code(), 0);
    }
}

#[test]
fn the_monitor_is_behind_ctrl_alt_2() {
    for accel in accelerators() {
        let folder = Folder::new();
        let mut machine = folder.start_line(&format!("-accel {accel} -m 32 -S -name test -vnc unix:vnc"));
        let mut viewer = Viewer::connect(&folder);
        viewer.update();
        let (_, before) = viewer.picture();
        let before = before.to_vec();
        viewer.press_with_ctrl_alt(u32::from('2'));
        wait_for("another picture", PATIENCE, || {
            viewer.update();
            (viewer.picture().1 != before).then_some(())
        });
        // The text console has a font of its own, so the monitor shows that it reads by what it does.
        viewer.type_line("quit");
        assert_eq!(machine.exit_code(), 0, "{}", folder.text("stderr"));
    }
}

#[test]
fn qmp_negotiates_first() {
    for accel in accelerators() {
        let folder = Folder::new();
        let _machine =
            folder.start_line(&format!("-accel {accel} -m 32 -S -display none -qmp unix:qmp,server=on,wait=off"));
        let (mut qmp, greeting) = Qmp::greeted(&folder);
        assert_eq!(greeting["QMP"]["capabilities"], json!(["oob"]));
        assert_eq!(qmp.run("query-status", json!({}))["error"]["class"], "CommandNotFound");
        assert_eq!(qmp.run("qmp_capabilities", json!({})), json!({"return": {}}));
        let status = qmp.run("query-status", json!({}));
        assert_eq!(status, json!({"return": {"status": "prelaunch", "running": false}}));
        assert_eq!(qmp.run("nonsense", json!({}))["error"]["class"], "CommandNotFound");
    }
}

#[test]
fn qmp_stops_resets_and_ends_the_machine_with_events() {
    for accel in accelerators() {
        let folder = Folder::new();
        let mut machine =
            folder.start_line(&format!("-accel {accel} -m 32 -display none -qmp unix:qmp,server=on,wait=off"));
        let mut qmp = Qmp::connect(&folder);
        assert_eq!(qmp.run("stop", json!({})), json!({"return": {}}));
        qmp.wait_for_event("STOP");
        assert_eq!(qmp.run("query-status", json!({}))["return"]["status"], "paused");
        assert_eq!(qmp.run("cont", json!({})), json!({"return": {}}));
        qmp.wait_for_event("RESUME");
        assert_eq!(qmp.run("system_reset", json!({})), json!({"return": {}}));
        qmp.wait_for_event("RESET");
        assert_eq!(qmp.run("quit", json!({})), json!({"return": {}}));
        qmp.wait_for_event("SHUTDOWN");
        assert_eq!(machine.exit_code(), 0);
    }
}

#[test]
fn a_screendump_is_what_the_viewer_sees() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("sector16");
        let _machine = folder.start_line(&format!(
            "-accel {accel} -m 32 -vnc unix:vnc -qmp unix:qmp,server=on,wait=off -drive file=sector16.bin,format=raw"
        ));
        let mut qmp = Qmp::connect(&folder);
        let mut viewer = Viewer::connect(&folder);
        let screen = viewer.wait_for_text("Sector two was read.");
        assert!(screen.contains("Hello from 16-bit mode."), "{screen}");
        assert_eq!(qmp.run("stop", json!({})), json!({"return": {}}));
        assert_eq!(qmp.run("screendump", json!({"filename": folder.arg("dump.ppm")})), json!({"return": {}}));
        let dump = fs::read(folder.path("dump.ppm")).unwrap();
        assert!(dump.starts_with(b"P6\n720 400\n255\n"));
        let pixels: Vec<_> = dump[15..].chunks_exact(3).map(|p| u32::from_be_bytes([0, p[0], p[1], p[2]])).collect();
        let (width, seen) = viewer.picture();
        assert_eq!((width, pixels.len()), (720, seen.len()));
        // The cursor may blink between the two, in one cell.
        let different = pixels.iter().zip(seen).filter(|(dumped, seen)| dumped != seen).count();
        assert!(different <= 9 * 16, "{different} pixels differ");
    }
}
