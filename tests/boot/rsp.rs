//! A client of gdb's remote serial protocol.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::machine::{PATIENCE, wait_for};

pub struct Client {
    stream: UnixStream,
    waiting: Vec<u8>,
}

impl Client {
    /// Connects to a server on a socket that may not be there yet.
    pub fn connect(path: &Path) -> Self {
        let stream = wait_for("the gdb server", PATIENCE, || UnixStream::connect(path).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, waiting: Vec::new() }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, body: &str) {
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        self.raw(format!("${body}#{sum:02x}").as_bytes());
    }

    fn byte(&mut self) -> u8 {
        if self.waiting.is_empty() {
            let mut buf = [0; 4096];
            let count = self.stream.read(&mut buf).unwrap();
            assert!(count > 0, "the server hung up");
            self.waiting = buf[..count].to_vec();
        }
        self.waiting.remove(0)
    }

    /// The next packet, acknowledged.
    pub fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        let sum = String::from_utf8(vec![self.byte(), self.byte()]).unwrap();
        let expected = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, format!("{expected:02x}"));
        self.raw(b"+");
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Sends a packet and returns the answer.
    pub fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.receive()
    }

    /// Whether nothing comes for a moment.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buf = [0; 1];
        let result = self.stream.read(&mut buf);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match result {
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            // Acknowledgements are no news.
            Ok(count) => count == 1 && buf[0] == b'+' && self.waiting.is_empty() && self.is_silent(),
        }
    }

    /// A 64-bit register by its number.
    pub fn register(&mut self, number: u32) -> u64 {
        let hex = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&hex, 16).unwrap_or_else(|_| panic!("p{number:x}: {hex}")).swap_bytes()
    }

    /// A quad word of memory.
    pub fn memory(&mut self, address: u64) -> u64 {
        let hex = self.ask(&format!("m{address:x},8"));
        u64::from_str_radix(&hex, 16).unwrap_or_else(|_| panic!("m{address:x}: {hex}")).swap_bytes()
    }

    /// Runs a command of the human monitor and returns what it prints.
    pub fn monitor(&mut self, line: &str) -> String {
        let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut answer = self.ask(&format!("qRcmd,{hex}"));
        let mut text = String::new();
        while let Some(hex) = answer.strip_prefix('O').filter(|rest| *rest != "K") {
            let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            text.extend(digits.map(|pair| char::from(u8::from_str_radix(pair, 16).unwrap())));
            answer = self.receive();
        }
        assert_eq!(answer, "OK");
        text.replace('\r', "")
    }
}
