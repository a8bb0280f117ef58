//! A VNC client (RFC 6143) of the simplest kind: raw pixels, and keys.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::machine::{Folder, PATIENCE, wait_for};
use crate::screen::Font;

/// `Return` as an X keysym.
const RETURN: u32 = 0xff0d;

const RAW: i32 = 0;
const DESKTOP_SIZE: i32 = -223;

/// A client that is connected.
pub struct Viewer {
    stream: UnixStream,
    font: Font,
    /// The desktop's name.
    pub name: String,
    width: usize,
    height: usize,
    /// 0x00RRGGBB.
    pixels: Vec<u32>,
    /// Whether `pixels` are the server's.
    whole: bool,
}

impl Viewer {
    /// Connects to the socket `vnc` in a machine's folder, once it is there.
    pub fn connect(folder: &Folder) -> Self {
        let path = folder.path("vnc");
        let stream = wait_for("the VNC server", PATIENCE, || UnixStream::connect(&path).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (font, name) = (Font::load(), String::new());
        let mut viewer = Self { stream, font, name, width: 0, height: 0, pixels: Vec::new(), whole: false };
        viewer.handshake();
        viewer
    }

    fn handshake(&mut self) {
        assert_eq!(&self.take(12), b"RFB 003.008\n");
        self.send(b"RFB 003.008\n");
        let count = usize::from(self.take(1)[0]);
        assert!(self.take(count).contains(&1), "the server offers no session without a password");
        self.send(&[1]);
        assert_eq!(self.take(4), [0; 4]);
        self.send(&[1]);
        let init = self.take(24);
        let name_length = u32::from_be_bytes(init[20..].try_into().unwrap());
        self.name = String::from_utf8(self.take(name_length as usize)).unwrap();
        self.resize(be16(&init[0..]), be16(&init[2..]));
        // SetPixelFormat: 32 bits, little-endian, red in bits 23-16. SetEncodings: two.
        self.send(&[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
        self.send(&[2, 0, 0, 2]);
        self.send(&RAW.to_be_bytes());
        self.send(&DESKTOP_SIZE.to_be_bytes());
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).unwrap();
        data
    }

    fn send(&mut self, data: &[u8]) {
        self.stream.write_all(data).unwrap();
    }

    fn resize(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.pixels = vec![0; width * height];
        self.whole = false;
    }

    /// Asks for what changed and waits for it.
    pub fn update(&mut self) {
        let size = [(self.width as u16).to_be_bytes(), (self.height as u16).to_be_bytes()].concat();
        self.send(&[&[3, u8::from(self.whole), 0, 0, 0, 0], size.as_slice()].concat());
        self.whole = true;
        loop {
            match self.take(1)[0] {
                0 => {
                    let rectangles = be16(&self.take(3)[1..]);
                    for _ in 0..rectangles {
                        self.rectangle();
                    }
                    return;
                }
                1 => {
                    let colours = be16(&self.take(5)[3..]);
                    self.take(colours * 6);
                }
                2 => {}
                3 => {
                    let length = u32::from_be_bytes(self.take(7)[3..].try_into().unwrap());
                    self.take(length as usize);
                }
                other => panic!("server message {other}"),
            }
        }
    }

    fn rectangle(&mut self) {
        let head = self.take(12);
        let (x, y, width, height) = (be16(&head[0..]), be16(&head[2..]), be16(&head[4..]), be16(&head[6..]));
        match i32::from_be_bytes(head[8..].try_into().unwrap()) {
            DESKTOP_SIZE => self.resize(width, height),
            RAW => {
                let data = self.take(width * height * 4);
                for (line, row) in data.chunks_exact((width * 4).max(1)).enumerate() {
                    let start = (y + line) * self.width + x;
                    for (pixel, bytes) in self.pixels[start..start + width].iter_mut().zip(row.chunks_exact(4)) {
                        *pixel = u32::from_le_bytes(bytes.try_into().unwrap()) & 0x00ff_ffff;
                    }
                }
            }
            other => panic!("encoding {other} was not asked for"),
        }
    }

    /// The text on the screen as of the last update.
    pub fn text(&self) -> String {
        self.font.read(self.width, &self.pixels)
    }

    /// The picture as of the last update: its width, and 0x00RRGGBB line by line.
    pub fn picture(&self) -> (usize, &[u32]) {
        (self.width, &self.pixels)
    }

    /// Waits until `text` is on the screen and returns all that is there.
    pub fn wait_for_text(&mut self, text: &str) -> String {
        self.wait_for_text_within(text, PATIENCE)
    }

    /// The same, with a limit of its own.
    pub fn wait_for_text_within(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let screen = self.text();
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < end, "'{text}' is not on the screen after {} s:\n{screen}", limit.as_secs());
            self.update();
        }
    }

    /// Presses and releases a key by its keysym.
    pub fn press(&mut self, keysym: u32) {
        for down in [1, 0] {
            self.key(down, keysym);
        }
    }

    fn key(&mut self, down: u8, keysym: u32) {
        self.send(&[&[4, down, 0, 0], keysym.to_be_bytes().as_slice()].concat());
    }

    /// Presses a key while Control and Alt are held.
    pub fn press_with_ctrl_alt(&mut self, keysym: u32) {
        const CONTROL: u32 = 0xffe3;
        const ALT: u32 = 0xffe9;
        self.key(1, CONTROL);
        self.key(1, ALT);
        self.press(keysym);
        self.key(0, ALT);
        self.key(0, CONTROL);
    }

    /// Types ASCII on a US keyboard.
    pub fn type_text(&mut self, text: &str) {
        const SHIFT: u32 = 0xffe1;
        for character in text.chars() {
            let shifted = character.is_ascii_uppercase() || "~!@#$%^&*()_+{}|:\"<>?".contains(character);
            if shifted {
                self.key(1, SHIFT);
            }
            self.press(u32::from(character));
            if shifted {
                self.key(0, SHIFT);
            }
        }
    }

    /// The same, then Return.
    pub fn type_line(&mut self, line: &str) {
        self.type_text(line);
        self.press(RETURN);
    }
}

fn be16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}
