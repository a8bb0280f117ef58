//! What a guest draws and what is typed to it, through the VGA BIOS and the keyboard's BIOS.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::machine::{Folder, PATIENCE, accelerators, wait_for};

const QUIET: &str = "-nodefaults -device VGA -display none -debugcon file:debugcon \
                     -monitor unix:monitor,server=on,wait=off";

/// The human monitor of a machine that was started with [`QUIET`].
struct Monitor(UnixStream);

impl Monitor {
    fn connect(folder: &Folder) -> Self {
        let stream = wait_for("the monitor", PATIENCE, || UnixStream::connect(folder.path("monitor")).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Self(stream);
        monitor.wait_for_prompt();
        monitor
    }

    fn wait_for_prompt(&mut self) {
        let mut text = Vec::new();
        while !text.ends_with(b"(qemu) ") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
    }

    fn command(&mut self, line: &str) {
        writeln!(self.0, "{line}").unwrap();
        // The line is echoed behind the old prompt, and the new one follows.
        self.wait_for_prompt();
    }
}

/// A picture in the binary PPM format.
struct Picture {
    width: usize,
    rgb: Vec<u8>,
}

impl Picture {
    fn of(folder: &Folder, monitor: &mut Monitor) -> Self {
        monitor.command("screendump picture.ppm");
        let bytes = std::fs::read(folder.path("picture.ppm")).unwrap();
        let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
        assert_eq!(lines.next(), Some(b"P6".as_slice()));
        let size = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
        let width = size.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(lines.next(), Some(b"255".as_slice()));
        Self { width, rgb: lines.next().unwrap().to_vec() }
    }

    fn height(&self) -> usize {
        self.rgb.len() / 3 / self.width
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}

/// A colour of six bits a channel, as the DAC has it, in eight.
fn wide(rgb: [u8; 3]) -> [u8; 3] {
    rgb.map(|value| (value << 2) | ((value & 1) * 3))
}

/// The BIOS's 16 colours.
fn ega(colour: u8) -> [u8; 3] {
    let bright = if colour & 8 != 0 { 0x15 } else { 0 };
    let channel = |bit: u8| bright + if colour & bit != 0 { 0x2a } else { 0 };
    wide(if colour == 6 { [0x2a, 0x15, 0] } else { [channel(4), channel(2), channel(1)] })
}

#[test]
fn the_bios_modes_show_what_is_drawn_in_them() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("vga16");
        let _machine = folder.start_line(&format!("-accel {accel} {QUIET} -drive file=vga16.bin,format=raw"));
        let mut monitor = Monitor::connect(&folder);
        let pictures = |count: usize| {
            wait_for("a picture", PATIENCE, || (folder.text("debugcon").matches('.').count() >= count).then_some(()));
        };

        pictures(1);
        let picture = Picture::of(&folder, &mut monitor);
        assert_eq!((picture.width, picture.height()), (640, 400));
        for y in 0..400 {
            for x in 0..640 {
                let colour = u8::try_from((200 - y / 2 + x / 2) % 256).unwrap();
                let rgb = wide([colour >> 2, (colour >> 2) ^ 0x3f, (colour >> 1) & 0x3f]);
                assert_eq!(picture.pixel(x, y), rgb, "mode 13h at {x}, {y}");
            }
        }

        monitor.command("sendkey 2");
        pictures(2);
        let picture = Picture::of(&folder, &mut monitor);
        assert_eq!((picture.width, picture.height()), (640, 480));
        for x in 0..640 {
            for y in 0..128 {
                assert_eq!(picture.pixel(x, y), ega(u8::try_from(y / 8).unwrap()), "set/reset at {x}, {y}");
            }
            for y in 208..248 {
                // Write mode 1 copied every third byte from the top.
                let source = ((y - 208) * 80 + x / 8) * 3 / 80;
                assert_eq!(picture.pixel(x, y), ega(u8::try_from(source / 8).unwrap()), "latches at {x}, {y}");
            }
            assert_eq!(picture.pixel(x, 400), [0; 3]);
        }
    }
}

#[test]
fn the_bios_understands_what_is_typed() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("keys16");
        let _machine = folder.start_line(&format!("-accel {accel} {QUIET} -drive file=keys16.bin,format=raw"));
        let mut monitor = Monitor::connect(&folder);
        let mut typed = String::from(">");
        wait_for("the guest", PATIENCE, || (folder.text("debugcon") == typed).then_some(()));
        for (key, text) in [
            ("a", "a"),
            ("shift-9", "("),
            ("shift-apostrophe", "\""),
            ("shift-minus", "_"),
            ("shift-backslash", "|"),
            ("up", "[48]"),
            ("delete", "[53]"),
            ("f1", "[3B]"),
            ("caps_lock", ""),
            ("b", "B"),
            ("ret", "\r"),
        ] {
            monitor.command(&format!("sendkey {key}"));
            typed.push_str(text);
            wait_for(key, PATIENCE, || (folder.text("debugcon") == typed).then_some(()));
        }
    }
}
