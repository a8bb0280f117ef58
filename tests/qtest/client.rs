//! A machine that does what a test says: our binary with `-accel qtest`, and the other end of its streams.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stream of lines.
struct Lines {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Lines {
    fn accept(listener: &UnixListener, child: &mut Child) -> Self {
        listener.set_nonblocking(true).unwrap();
        let end = Instant::now() + PATIENCE;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the machine ended: {status}");
            }
            assert!(Instant::now() < end, "the machine does not connect");
            thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }

    fn send(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream ended after {line:?}");
        line.pop();
        line
    }
}

/// A machine. It is killed when it is dropped.
pub struct Qtest {
    child: Child,
    lines: RefCell<Lines>,
    qmp: RefCell<Lines>,
    /// QMP events that nobody asked for yet.
    events: RefCell<VecDeque<String>>,
    /// Levels of the I/O APIC's inputs, and how often each was raised, since [`Qtest::intercept`].
    irqs: RefCell<BTreeMap<u32, (bool, u32)>>,
    /// Where [`Qtest::alloc`] goes on.
    free: Cell<u64>,
    /// Where [`super::pci`] puts the next I/O and memory base address registers.
    pub next_bar: Cell<(u64, u64)>,
    folder: TempDir,
}

/// The program under test: `DROMAIUS_TEST_QEMU`, or the binary that was built with the tests.
pub fn program() -> PathBuf {
    std::env::var_os("DROMAIUS_TEST_QEMU").unwrap_or_else(|| env!("CARGO_BIN_EXE_qemu-kvm").into()).into()
}

impl Qtest {
    /// Starts a machine with these arguments (words between blanks) and nothing that they do not name.
    pub fn start(arguments: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), arguments)
    }

    /// As [`Qtest::start`], in a folder that holds the files that the arguments name.
    pub fn start_in(folder: TempDir, arguments: &str) -> Self {
        let path = |name: &str| folder.path().join(name);
        let (test, qmp) =
            (UnixListener::bind(path("qtest.sock")).unwrap(), UnixListener::bind(path("qmp.sock")).unwrap());
        let fixed = "-accel qtest -display none -nodefaults -qtest unix:qtest.sock -qtest-log qtest.log \
                     -chardev socket,path=qmp.sock,id=char0 -mon chardev=char0,mode=control";
        let mut child = Command::new(program())
            .args(fixed.split_whitespace())
            .args(arguments.split_whitespace())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let lines = RefCell::new(Lines::accept(&test, &mut child));
        let qmp = RefCell::new(Lines::accept(&qmp, &mut child));
        let machine = Self {
            child,
            lines,
            qmp,
            events: RefCell::default(),
            irqs: RefCell::default(),
            free: Cell::new(0x10_0000),
            next_bar: Cell::new((0xc000, 0xe000_0000)),
            folder,
        };
        assert!(machine.qmp.borrow_mut().receive().contains("\"QMP\""));
        machine.qmp("qmp_capabilities", "{}");
        machine
    }

    /// Ends the machine; what its folder holds is kept for another.
    pub fn end(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, TempDir::new().unwrap())
    }

    /// The path of a file in the machine's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    // -- QMP -----------------------------------------------------------------------------------------------------

    /// A QMP command with its arguments as JSON; the line of its answer. Events are kept.
    pub fn qmp(&self, command: &str, arguments: &str) -> String {
        let mut qmp = self.qmp.borrow_mut();
        qmp.send(&format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}}}"));
        loop {
            let line = qmp.receive();
            if !line.contains("\"event\"") {
                return line;
            }
            self.events.borrow_mut().push_back(line);
        }
    }

    /// The next QMP event that holds `text`; those before it are gone.
    pub fn qmp_event(&self, text: &str) -> String {
        loop {
            let kept = self.events.borrow_mut().pop_front();
            let line = kept.unwrap_or_else(|| self.qmp.borrow_mut().receive());
            if line.contains(text) {
                return line;
            }
        }
    }

    // -- lines ---------------------------------------------------------------------------------------------------

    fn note_irq(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        if words.next() != Some("IRQ") {
            return false;
        }
        let raised = words.next() == Some("raise");
        let input = words.next().unwrap().parse().unwrap();
        let mut irqs = self.irqs.borrow_mut();
        let (level, count) = irqs.entry(input).or_default();
        *level = raised;
        *count += u32::from(raised);
        true
    }

    /// Sends a line: the answer. Interrupts that are told meanwhile are noted.
    pub fn raw(&self, line: &str) -> String {
        let mut lines = self.lines.borrow_mut();
        lines.send(line);
        loop {
            let answer = lines.receive();
            if !self.note_irq(&answer) {
                return answer;
            }
        }
    }

    /// Sends a line that must succeed: what follows "OK".
    pub fn ok(&self, line: &str) -> String {
        let answer = self.raw(line);
        let rest = answer.strip_prefix("OK").unwrap_or_else(|| panic!("{line}: {answer}"));
        rest.trim_start().to_owned()
    }

    fn number(&self, line: &str) -> u64 {
        let answer = self.ok(line);
        u64::from_str_radix(answer.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{line}: {answer}"))
    }

    // -- ports ---------------------------------------------------------------------------------------------------

    pub fn outb(&self, port: u16, value: u8) {
        self.ok(&format!("outb {port:#x} {value:#x}"));
    }

    pub fn outw(&self, port: u16, value: u16) {
        self.ok(&format!("outw {port:#x} {value:#x}"));
    }

    pub fn outl(&self, port: u16, value: u32) {
        self.ok(&format!("outl {port:#x} {value:#x}"));
    }

    pub fn inb(&self, port: u16) -> u8 {
        self.number(&format!("inb {port:#x}")) as u8
    }

    pub fn inw(&self, port: u16) -> u16 {
        self.number(&format!("inw {port:#x}")) as u16
    }

    pub fn inl(&self, port: u16) -> u32 {
        self.number(&format!("inl {port:#x}")) as u32
    }

    // -- memory --------------------------------------------------------------------------------------------------

    pub fn writeb(&self, gpa: u64, value: u8) {
        self.ok(&format!("writeb {gpa:#x} {value:#x}"));
    }

    pub fn writew(&self, gpa: u64, value: u16) {
        self.ok(&format!("writew {gpa:#x} {value:#x}"));
    }

    pub fn writel(&self, gpa: u64, value: u32) {
        self.ok(&format!("writel {gpa:#x} {value:#x}"));
    }

    pub fn writeq(&self, gpa: u64, value: u64) {
        self.ok(&format!("writeq {gpa:#x} {value:#x}"));
    }

    pub fn readb(&self, gpa: u64) -> u8 {
        self.number(&format!("readb {gpa:#x}")) as u8
    }

    pub fn readw(&self, gpa: u64) -> u16 {
        self.number(&format!("readw {gpa:#x}")) as u16
    }

    pub fn readl(&self, gpa: u64) -> u32 {
        self.number(&format!("readl {gpa:#x}")) as u32
    }

    pub fn readq(&self, gpa: u64) -> u64 {
        self.number(&format!("readq {gpa:#x}"))
    }

    /// Reads guest memory.
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let answer = self.ok(&format!("read {gpa:#x} {len:#x}"));
        let digits = answer.strip_prefix("0x").unwrap().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// Writes guest memory.
    pub fn write(&self, gpa: u64, data: &[u8]) {
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ok(&format!("write {gpa:#x} {:#x} 0x{digits}", data.len()));
    }

    /// Fills guest memory.
    pub fn memset(&self, gpa: u64, len: usize, pattern: u8) {
        self.ok(&format!("memset {gpa:#x} {len:#x} {pattern:#x}"));
    }

    /// Room in guest memory (above 1 MiB) that nobody else has, filled with zeros. `align` is a power of two.
    pub fn alloc(&self, len: u64, align: u64) -> u64 {
        let start = self.free.get().next_multiple_of(align);
        self.free.set(start + len);
        self.memset(start, len as usize, 0);
        start
    }

    // -- time ----------------------------------------------------------------------------------------------------

    /// Moves the machine's clock on by `ns`: what it shows then.
    pub fn clock_step(&self, ns: u64) -> u64 {
        self.ok(&format!("clock_step {ns}")).parse().unwrap()
    }

    /// Moves it on to the next timer.
    pub fn clock_step_next(&self) -> u64 {
        self.ok("clock_step").parse().unwrap()
    }

    // -- interrupts ----------------------------------------------------------------------------------------------

    /// From now on the inputs of the I/O APIC are told.
    pub fn intercept(&self) {
        self.ok("irq_intercept_in ioapic");
    }

    /// The level of an input, as of the last line that came.
    pub fn irq(&self, input: u32) -> bool {
        self.irqs.borrow().get(&input).is_some_and(|(level, _)| *level)
    }

    /// How often an input was raised so far.
    pub fn irq_count(&self, input: u32) -> u32 {
        self.irqs.borrow().get(&input).map_or(0, |(_, count)| *count)
    }

    /// Waits until an input is high: for chips that ask host threads.
    pub fn wait_irq(&self, input: u32) {
        self.wait(&format!("interrupt {input}"), || {
            self.ok("endianness");
            self.irq(input)
        });
    }

    /// Waits until `done`, for at most the time that a test may take.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "waited too long for {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
