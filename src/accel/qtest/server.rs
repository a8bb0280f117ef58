//! The `-qtest` stream: lines in, answers out, and the log of both.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::command::{self, Command, CommandError};
use super::tap::IrqTap;
use crate::bus::{BoardCell, LineSink, Width};
use crate::chardev::{CharEvent, CharHandle, CharSink, Outbox};
use crate::event::{LoopHandle, NS_PER_SEC, monotonic_ns};
use crate::mem::GuestRam;

/// How much input is taken at once.
const INPUT_LIMIT: usize = 1 << 16;
/// A program that does not read its answers is not served while this much waits.
const OUTPUT_ENOUGH: usize = 1 << 20;
/// A longer line is refused.
const LINE_LIMIT: usize = 1 << 28;
/// How much `memset` writes at once.
const FILL_PIECE: u64 = 1 << 20;

/// Where the log goes (`-qtest-log`).
#[derive(Debug, Default)]
pub enum Log {
    /// `-qtest-log none`.
    Off,
    /// Without the option.
    #[default]
    Stderr,
    /// The named file.
    File(File),
}

impl Log {
    /// The log that `-qtest-log` names.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(name: Option<&str>) -> io::Result<Self> {
        match name {
            None => Ok(Self::Stderr),
            Some("none") => Ok(Self::Off),
            Some(path) => File::create(path).map(Self::File),
        }
    }

    fn write(&mut self, line: &str) {
        // A log that cannot be written is no reason to end the test.
        let _ = match self {
            Self::Off => Ok(()),
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
            Self::File(file) => file.write_all(line.as_bytes()),
        };
    }
}

/// What the server works on.
pub struct Wires {
    /// The board.
    pub board: Arc<BoardCell>,
    /// RAM.
    pub ram: GuestRam,
    /// The machine's timers and clock.
    pub timers: LoopHandle,
    /// The lines of the I/O APIC; `None` where the kernel has it.
    pub tap: Option<Arc<IrqTap>>,
    /// Whether machine time moves by `clock_step` and `clock_set` only; else there are no such commands.
    pub owns_clock: bool,
    /// Resets the machine: another program connected.
    pub reset: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Journal {
    log: Log,
    opened: Option<u64>,
}

impl Journal {
    /// Writes an entry: `kind` is I (about the stream), R (received) or S (sent).
    fn entry(&mut self, kind: char, text: &str) {
        let ns = self.opened.map_or(0, |start| monotonic_ns().saturating_sub(start));
        let (seconds, micros) = (ns / NS_PER_SEC, ns % NS_PER_SEC / 1000);
        self.log.write(&format!("[{kind} +{seconds}.{micros:06}] {text}\n"));
    }
}

/// The way back to the program; interrupt lines use it from any thread.
struct Answers {
    outbox: Outbox,
    journal: Mutex<Journal>,
}

impl Answers {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        // A file and a number, whole after any panic.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, line: &str) {
        // Under the journal's lock, so that log and stream have one order.
        let mut journal = self.journal();
        journal.entry('S', line);
        self.outbox.push(format!("{line}\n").as_bytes());
    }
}

/// What came of a line so far.
#[derive(Default)]
struct Input {
    line: Vec<u8>,
    too_long: bool,
    was_open: bool,
}

/// The server of one `-qtest` stream. It is the stream's sink.
pub struct Server {
    wires: Wires,
    answers: Arc<Answers>,
    input: Mutex<Input>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("qtest::Server")
    }
}

/// How the I/O APIC is named: its own name, or with its path.
fn is_ioapic(device: &str) -> bool {
    device.rsplit('/').next() == Some("ioapic")
}

impl Server {
    /// A server that answers on `output`.
    #[must_use]
    pub fn new(wires: Wires, output: CharHandle, log: Log) -> Arc<Self> {
        let journal = Mutex::new(Journal { log, opened: None });
        let answers = Arc::new(Answers { outbox: Outbox::new(output), journal });
        Arc::new(Self { wires, answers, input: Mutex::default() })
    }

    fn input(&self) -> MutexGuard<'_, Input> {
        // Bytes, whole after any panic.
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.answers.journal().entry('R', &line);
        let answer = match command::parse(&line) {
            Ok(command) => self.execute(command),
            Err(error @ CommandError::ArgumentSize) => error.to_string(),
            Err(error) => format!("FAIL {error}"),
        };
        self.answers.send(&answer);
    }

    /// Carries a command out: the answer.
    fn execute(&self, command: Command) -> String {
        let ok = || "OK".to_owned();
        let hex = |data: &[u8]| {
            let mut text = String::with_capacity(data.len() * 2 + 5);
            text.push_str("OK 0x");
            for byte in data {
                text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
            }
            text
        };
        match command {
            Command::PortWrite { port, width, value } => {
                let ones = u32::try_from(width.ones() & 0xffff_ffff).unwrap_or(u32::MAX);
                self.wires.board.lock().port_write(port, width, value & ones);
                ok()
            }
            Command::PortRead { port, width } => {
                format!("OK {:#06x}", self.wires.board.lock().port_read(port, width))
            }
            Command::Store { gpa, width, value } => {
                self.write(gpa, &value.to_le_bytes()[..bytes_of(width)]);
                ok()
            }
            Command::Load { gpa, width } => {
                let mut bytes = [0; 8];
                self.read(gpa, &mut bytes[..bytes_of(width)]);
                format!("OK {:#018x}", u64::from_le_bytes(bytes))
            }
            Command::Read { gpa, len } => hex(&self.read_many(gpa, len)),
            Command::ReadBase64 { gpa, len } => format!("OK {}", command::base64_text(&self.read_many(gpa, len))),
            Command::Write { gpa, data } => {
                self.write(gpa, &data);
                ok()
            }
            Command::WriteBase64 { gpa, len, data } => self.write_base64(gpa, len, &data),
            Command::Fill { gpa, len, pattern } => {
                self.fill(gpa, len, pattern);
                ok()
            }
            Command::ClockStep(_) | Command::ClockSet(_) if !self.wires.owns_clock => {
                let name = if matches!(command, Command::ClockSet(_)) { "clock_set" } else { "clock_step" };
                format!("FAIL {}", CommandError::Unknown(name.to_owned()))
            }
            Command::ClockStep(ns) => self.step_clock(ns),
            Command::ClockSet(ns) => {
                let now = self.run_clock(u64::try_from(ns).unwrap_or(0));
                let verdict = if i64::try_from(now) == Ok(ns) { "OK" } else { "FAIL" };
                format!("{verdict} {now}")
            }
            Command::Intercept { device } => self.intercept(&device),
            Command::SetIrq { device, name, input, high } => self.set_irq(&device, &name, input, high),
            Command::Endianness => "OK little".to_owned(),
            // There are no modules to load.
            Command::ModuleLoad => "FAIL".to_owned(),
        }
    }

    // -- memory --------------------------------------------------------------------------------------------------

    fn read(&self, gpa: u64, data: &mut [u8]) {
        if self.wires.ram.read(gpa, data).is_err() {
            self.wires.board.lock().mmio_read(gpa, data);
        }
    }

    fn read_many(&self, gpa: u64, len: u64) -> Vec<u8> {
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read(gpa, &mut data);
        data
    }

    fn write(&self, gpa: u64, data: &[u8]) {
        let plain = self.wires.ram.contains(gpa, data.len() as u64);
        if !plain || self.wires.ram.write(gpa, data).is_err() {
            self.wires.board.lock().mmio_write(gpa, data);
        }
    }

    fn fill(&self, gpa: u64, len: u64, pattern: u8) {
        let piece = vec![pattern; usize::try_from(len.min(FILL_PIECE)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let now = usize::try_from(len - done).unwrap_or(piece.len()).min(piece.len());
            self.write(gpa.wrapping_add(done), &piece[..now]);
            done += now as u64;
        }
    }

    fn write_base64(&self, gpa: u64, len: u64, data: &[u8]) -> String {
        let told = usize::try_from(len).unwrap_or(usize::MAX);
        if told != data.len() {
            self.answers.send(&format!("b64write: data length mismatch (told {told}, found {})", data.len()));
        }
        self.write(gpa, &data[..data.len().min(told)]);
        "OK".to_owned()
    }

    // -- time ----------------------------------------------------------------------------------------------------

    fn step_clock(&self, ns: Option<i64>) -> String {
        let before = self.wires.timers.clock().now_ns();
        let target = match ns {
            Some(ns) => before.saturating_add_signed(ns),
            None => self.wires.timers.next_virtual_deadline().unwrap_or(before),
        };
        let now = self.run_clock(target);
        let verdict = if now > before { "OK" } else { "FAIL" };
        format!("{verdict} {now}")
    }

    /// Moves the clock to `target`, with a stop at each timer on the way: what it then shows. It does not go back.
    fn run_clock(&self, target: u64) -> u64 {
        let clock = self.wires.timers.clock();
        loop {
            self.wires.timers.run_virtual_timers();
            let now = clock.now_ns();
            if now >= target {
                return now;
            }
            let next = self.wires.timers.next_virtual_deadline().unwrap_or(target);
            clock.advance(next.clamp(now, target) - now);
        }
    }

    // -- interrupts ----------------------------------------------------------------------------------------------

    fn intercept(&self, device: &str) -> String {
        let tap = match &self.wires.tap {
            Some(tap) if is_ioapic(device) => tap,
            _ => return "FAIL Unknown device".to_owned(),
        };
        let answers: Weak<Answers> = Arc::downgrade(&self.answers);
        tap.intercept(Arc::new(move |input, high| {
            if let Some(answers) = answers.upgrade() {
                answers.send(&format!("IRQ {} {input}", if high { "raise" } else { "lower" }));
            }
        }));
        "OK".to_owned()
    }

    fn set_irq(&self, device: &str, name: &str, input: u32, high: bool) -> String {
        match &self.wires.tap {
            Some(tap) if is_ioapic(device) && name == "unnamed-gpio-in" => {
                tap.set_level(input, high);
                "OK".to_owned()
            }
            _ => "FAIL Unknown device".to_owned(),
        }
    }

    // -- the stream ----------------------------------------------------------------------------------------------

    fn opened(&self) {
        if std::mem::replace(&mut self.input().was_open, true) {
            if let Some(tap) = &self.wires.tap {
                tap.forget_levels();
            }
            (self.wires.reset)();
        }
        let mut journal = self.answers.journal();
        journal.log.write("[I 0.000000] OPENED\n");
        journal.opened = Some(monotonic_ns());
    }

    fn closed(&self) {
        let mut input = self.input();
        (input.line, input.too_long) = (Vec::new(), false);
        drop(input);
        self.answers.outbox.clear();
        self.answers.journal().entry('I', "CLOSED");
    }

    /// Adds input to the line so far. Gives a line that is complete, and what is left.
    fn take_line<'a>(&self, data: &'a [u8]) -> (Option<Vec<u8>>, &'a [u8]) {
        let mut input = self.input();
        let end = data.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = match end {
            Some(end) => (&data[..end], &data[end + 1..]),
            None => (data, &[][..]),
        };
        if input.line.len() + piece.len() > LINE_LIMIT {
            input.too_long = true;
            input.line = Vec::new();
        }
        if !input.too_long {
            input.line.extend_from_slice(piece);
        }
        if end.is_none() {
            return (None, rest);
        }
        let line = std::mem::take(&mut input.line);
        let whole = !std::mem::replace(&mut input.too_long, false);
        (Some(if whole { line } else { b"(line too long)".to_vec() }), rest)
    }
}

fn bytes_of(width: Width) -> usize {
    width as usize
}

impl CharSink for Server {
    fn room(&self) -> usize {
        if self.answers.outbox.len() < OUTPUT_ENOUGH { INPUT_LIMIT } else { 0 }
    }

    fn receive(&self, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let (line, after) = self.take_line(rest);
            rest = after;
            if let Some(line) = line {
                self.serve(&line);
            }
        }
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Opened => self.opened(),
            CharEvent::Closed => self.closed(),
            CharEvent::MuxIn => self.answers.outbox.hold(false),
            CharEvent::MuxOut => self.answers.outbox.hold(true),
            CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.answers.outbox.flush();
        self.answers.outbox.accept_input();
    }
}
