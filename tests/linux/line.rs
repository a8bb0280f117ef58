//! The guest's serial line.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::machine::{Folder, PATIENCE, wait_for};

/// Options that connect the first serial port with a [`Line`].
pub const SERIAL: &str = "-chardev socket,id=line,path=line,server=on,wait=off -serial chardev:line";

/// The other end of the line.
pub struct Line {
    stream: UnixStream,
    /// All that came, without the terminal's commands.
    text: String,
    filter: Filter,
    /// What was looked at already.
    seen: usize,
}

impl Line {
    /// Connects to a machine that was started with [`SERIAL`].
    pub fn connect(folder: &Folder) -> Self {
        let stream = wait_for("the serial socket", PATIENCE, || UnixStream::connect(folder.path("line")).ok());
        Self { stream, text: String::new(), filter: Filter::default(), seen: 0 }
    }

    /// Waits until `text` has come, and returns what came before it since the last wait.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.text[self.seen..].find(text) {
                let before = self.text[self.seen..self.seen + at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "'{text}' did not come in {} s; the line said:\n{}", limit.as_secs(), self.tail());
            assert!(self.receive(left), "the line was closed before '{text}'; it said:\n{}", self.tail());
        }
    }

    /// Reads what there is; false when the line was closed.
    fn receive(&mut self, limit: Duration) -> bool {
        let mut data = [0; 4096];
        self.stream.set_read_timeout(Some(limit)).unwrap();
        match self.stream.read(&mut data) {
            Ok(0) => false,
            Ok(length) => {
                self.filter.add(&data[..length], &mut self.text);
                true
            }
            Err(_) => true, // the limit, which the caller checks
        }
    }

    /// Reads to the end of the line: the machine ended.
    pub fn read_to_end(&mut self, limit: Duration) -> &str {
        let end = Instant::now() + limit;
        while self.receive(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))) {
            assert!(Instant::now() < end, "the machine goes on; the line said:\n{}", self.tail());
        }
        &self.text[self.seen..]
    }

    /// Types text.
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn tail(&self) -> &str {
        let start = self.text.len().saturating_sub(4000);
        let start = (start..self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        &self.text[start..]
    }
}

/// Takes the terminal's commands (ECMA-48) out; each leaves a space, so that words do not run together.
#[derive(Default)]
struct Filter(State);

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Filter {
    fn add(&mut self, data: &[u8], text: &mut String) {
        for byte in data {
            self.0 = match (self.0, byte) {
                (State::Text, 0x1b) => State::Escape,
                (State::Text, b'\n' | 0x20..=0x7e) => {
                    text.push(char::from(*byte));
                    State::Text
                }
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, b'(' | b')') => State::Escape,
                (State::Sequence, 0x20..=0x3f) => State::Sequence,
                (State::Escape | State::Sequence, _) => {
                    text.push(' ');
                    State::Text
                }
                (State::Text, _) => State::Text,
            };
        }
    }
}
