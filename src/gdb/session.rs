//! A debugger's session: bytes in, bytes out, and the machine in between.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub};

use crate::chardev::Outbox;
use crate::chardev::{CharEvent, CharHandle, CharSink};
use crate::event::LoopHandle;
use crate::machine::{Machine, RunState};
use crate::monitor::hmp::Environment;

use super::guest::{Guest, MachineGuest};
use super::packet::{Framer, Incoming, MAX_PACKET, frame, two_numbers};
use super::target::{Debuggee, StepFlags};

/// Input that is taken at once.
const INPUT_LIMIT: usize = MAX_PACKET;
/// With this much output waiting, nothing more is read.
const OUTPUT_ENOUGH: usize = 256 << 10;
/// The most memory that one packet asks for: two digits a byte, and the frame.
const MAX_READ: u64 = (MAX_PACKET as u64 - 5) / 2;

/// Where the crate writes.
#[derive(Debug, Default)]
struct Wire(Vec<u8>);

impl Connection for Wire {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

type Stub = GdbStubStateMachine<'static, Debuggee, Wire>;

/// What a packet comes to that is not for the crate.
enum Ours {
    /// This answer.
    Answer(String),
    /// The crate shall see this packet instead.
    Instead(Vec<u8>),
    /// This answer, and the process ends.
    End(Option<String>),
}

/// The protocol's side of a session, without a character device.
pub(super) struct Core {
    pub(super) target: Debuggee,
    /// `None`: nobody is connected.
    stub: Option<Stub>,
    framer: Framer,
    /// Packets are not acknowledged (`QStartNoAckMode`).
    no_ack: bool,
    /// `qSupported` as the debugger sent it.
    supported: Option<Vec<u8>>,
    out: Vec<u8>,
    /// The last packet that went out, for a debugger that did not get it.
    last: Vec<u8>,
}

impl Core {
    pub(super) fn new(guest: Box<dyn Guest>) -> Self {
        Self {
            target: Debuggee::new(guest),
            stub: None,
            framer: Framer::default(),
            no_ack: false,
            supported: None,
            out: Vec::new(),
            last: Vec::new(),
        }
    }

    /// A debugger is there: the machine stops.
    pub(super) fn connected(&mut self) {
        self.no_ack = false;
        self.supported = None;
        self.framer = Framer::default();
        self.last.clear();
        self.out.clear();
        self.target.current = 0;
        self.target.physical = false;
        self.start();
        self.target.guest.stop();
    }

    /// It is gone, and with it what only it could handle. The machine stays as it is.
    pub(super) fn disconnected(&mut self) {
        self.stub = None;
        self.target.forget_breakpoints();
    }

    /// A new state machine of the crate, that has seen what the debugger agreed on with the old one.
    fn start(&mut self) {
        let stub = GdbStub::builder(Wire::default()).packet_buffer_size(MAX_PACKET).build();
        // Neither can fail: the buffer is the crate's own, software breakpoints are offered, the wire takes all.
        self.stub = stub.ok().and_then(|stub| stub.run_state_machine(&mut self.target).ok());
        let agreed = self.supported.clone().into_iter();
        let agreed: Vec<Vec<u8>> = agreed.chain(self.no_ack.then(|| b"QStartNoAckMode".to_vec())).collect();
        // The debugger had these answers before.
        let (out, last) = (std::mem::take(&mut self.out), std::mem::take(&mut self.last));
        for packet in agreed {
            self.feed(&frame(&packet));
        }
        (self.out, self.last) = (out, last);
    }

    fn is_running(&self) -> bool {
        matches!(self.stub, Some(GdbStubStateMachine::Running(_)))
    }

    /// Takes input and returns output.
    pub(super) fn receive(&mut self, data: &[u8]) -> Vec<u8> {
        for byte in data {
            if self.stub.is_none() {
                break;
            }
            match self.framer.push(*byte) {
                None => {}
                Some(Incoming::Damaged) => self.out.push(b'-'),
                Some(Incoming::Again) => self.out.extend_from_slice(&self.last),
                Some(Incoming::Interrupt) if self.is_running() => self.interrupt(),
                Some(Incoming::Interrupt) => {}
                // While the machine runs gdb says nothing; whatever comes stops it, as in QEMU.
                Some(Incoming::Packet(_)) if self.is_running() => self.interrupt(),
                Some(Incoming::Packet(body)) => self.packet(&body),
            }
        }
        std::mem::take(&mut self.out)
    }

    fn interrupt(&mut self) {
        self.target.guest.stop();
        self.check();
    }

    /// Tells the debugger that the machine stopped, if it waits for that.
    fn check(&mut self) {
        if !self.is_running() || self.target.guest.run_state() == RunState::Running {
            return;
        }
        let reason = self.target.stopped();
        if let Some(GdbStubStateMachine::Running(stub)) = self.stub.take() {
            self.stub = stub.report_stop(&mut self.target, reason).ok();
        }
        self.collect();
    }

    /// As [`Core::check`], for whoever hears that the machine stopped. Returns output.
    pub(super) fn machine_stopped(&mut self) -> Vec<u8> {
        self.check();
        std::mem::take(&mut self.out)
    }

    fn packet(&mut self, body: &[u8]) {
        match self.ours(body) {
            Some(Ours::Answer(text)) => self.answer(&text),
            Some(Ours::End(text)) => {
                if let Some(text) = text {
                    self.answer(&text);
                }
                self.target.guest.quit();
                self.stub = None;
            }
            Some(Ours::Instead(body)) => self.pass(&body),
            None => self.pass(body),
        }
    }

    fn answer(&mut self, text: &str) {
        if !self.no_ack {
            self.out.push(b'+');
        }
        self.last = frame(text.as_bytes());
        self.out.extend_from_slice(&self.last);
    }

    /// Lets the crate handle a packet. It gives up on what it does not expect; the session goes on.
    fn pass(&mut self, body: &[u8]) {
        if self.feed(&frame(body)) {
            match body {
                b"QStartNoAckMode" => self.no_ack = true,
                _ if body.starts_with(b"qSupported") => self.supported = Some(body.to_vec()),
                _ => {}
            }
        } else {
            self.start();
            self.answer("E22");
        }
        if let Some(GdbStubStateMachine::Disconnected(stub)) = &self.stub {
            let leaves = stub.get_reason() == DisconnectReason::Disconnect;
            self.target.forget_breakpoints();
            if leaves {
                self.target.run_all();
            }
            self.start();
        }
        self.check();
    }

    /// Feeds the crate; `false`: it gave up.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            let next = match self.stub.take() {
                Some(GdbStubStateMachine::Idle(stub)) => stub.incoming_data(&mut self.target, *byte),
                other => {
                    self.stub = other;
                    break;
                }
            };
            let Ok(next) = next else { return false };
            self.stub = Some(next);
        }
        self.collect();
        true
    }

    /// Takes what the crate wrote.
    fn collect(&mut self) {
        let wire = match &mut self.stub {
            Some(GdbStubStateMachine::Idle(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::Running(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::CtrlCInterrupt(stub)) => stub.borrow_conn(),
            Some(GdbStubStateMachine::Disconnected(stub)) => stub.borrow_conn(),
            None => return,
        };
        let written = std::mem::take(&mut wire.0);
        if let Some(start) = written.iter().position(|byte| *byte == b'$') {
            self.last = written[start..].to_vec();
        }
        self.out.extend_from_slice(&written);
    }

    /// What QEMU adds to the protocol, and what the crate would not do as QEMU does.
    fn ours(&mut self, body: &[u8]) -> Option<Ours> {
        let answer = |text: &str| Some(Ours::Answer(text.to_owned()));
        match body {
            b"!" => answer("OK"),
            b"k" => Some(Ours::End(None)),
            b"?" => {
                // A debugger that asks begins; what an earlier one left is not its own.
                self.target.forget_breakpoints();
                None
            }
            b"Hg-1" | b"Hgp1.-1" | b"Hgp-1.-1" => Some(Ours::Instead(b"Hg0".to_vec())),
            b"qqemu.Supported" => answer("sstepbits;sstep;PhyMemMode"),
            b"qqemu.sstepbits" => answer(&format!(
                "ENABLE={:x},NOIRQ={:x},NOTIMER={:x}",
                StepFlags::ENABLE,
                StepFlags::NO_IRQ,
                StepFlags::NO_TIMER
            )),
            b"qqemu.sstep" => answer(&format!("0x{:x}", self.target.step_flags.0)),
            b"qqemu.PhyMemMode" => answer(if self.target.physical { "1" } else { "0" }),
            _ if body.starts_with(b"vKill") => Some(Ours::End(Some("OK".to_owned()))),
            _ if body.starts_with(b"Qqemu.") => Some(Ours::Answer(self.set_qemu(&body[b"Qqemu.".len()..]).to_owned())),
            [b'm', rest @ ..] => check_read(rest).map(|text| Ours::Answer(text.to_owned())),
            [b'c', address @ ..] => self.old_resume(b'c', address),
            [b's', address @ ..] => self.old_resume(b's', address),
            // A signal means nothing to a machine.
            [b'C', rest @ ..] => {
                let address = rest.split(|byte| *byte == b';').nth(1).unwrap_or(&[]);
                self.old_resume(b'c', address)
            }
            _ => None,
        }
    }

    /// `Qqemu.sstep=`, `Qqemu.PhyMemMode:`.
    fn set_qemu(&mut self, text: &[u8]) -> &'static str {
        let number = |text: &[u8]| u8::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok();
        if let Some(flags) = text.strip_prefix(b"sstep=") {
            let all = StepFlags::ENABLE | StepFlags::NO_IRQ | StepFlags::NO_TIMER;
            return match number(flags).filter(|flags| flags & !all == 0) {
                Some(flags) => {
                    self.target.step_flags = StepFlags(flags);
                    "OK"
                }
                None => "E22",
            };
        }
        match text.strip_prefix(b"PhyMemMode:").map(number) {
            Some(Some(mode)) => {
                self.target.physical = mode != 0;
                "OK"
            }
            Some(None) => "E22",
            None => "",
        }
    }

    /// `c` and `s`, which debuggers without `vCont` send: all run, one of them a single step; from another address if
    /// there is one.
    fn old_resume(&mut self, kind: u8, address: &[u8]) -> Option<Ours> {
        if !address.is_empty() {
            let address = std::str::from_utf8(address).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
            let Some(address) = address else { return Some(Ours::Answer("E22".to_owned())) };
            self.target.set_pc(address);
        }
        let packet = match kind {
            b's' => format!("vCont;s:{:x};c", self.target.current + 1),
            _ => "vCont;c".to_owned(),
        };
        Some(Ours::Instead(packet.into_bytes()))
    }
}

/// What is wrong with `m addr,len`, if anything: the crate would read without limit.
fn check_read(rest: &[u8]) -> Option<&'static str> {
    match two_numbers(rest) {
        None => Some("E22"),
        Some((_, len)) if len > MAX_READ => Some("E22"),
        Some((address, len)) if address.checked_add(len).is_none() => Some("E14"),
        Some(_) => None,
    }
}

/// The server on one character device.
pub struct Server {
    core: Mutex<Core>,
    outbox: Outbox,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gdb::Server")
    }
}

impl Server {
    /// A server that answers on `output`. It is the sink of the same device, and hears of the machine's stops as long as
    /// it lives.
    #[must_use]
    pub fn new(
        machine: &Arc<Machine>,
        environment: Environment,
        loop_handle: LoopHandle,
        output: CharHandle,
    ) -> Arc<Self> {
        let guest = MachineGuest { machine: Arc::clone(machine), environment };
        let server = Arc::new(Self { core: Mutex::new(Core::new(Box::new(guest))), outbox: Outbox::new(output) });
        let weak = Arc::downgrade(&server);
        // Later, on an empty stack: the stop may be a command's that came through this very session.
        machine.add_listener(Arc::new(move |_| {
            let weak = weak.clone();
            loop_handle.post(move || {
                if let Some(server) = weak.upgrade() {
                    let out = server.lock().machine_stopped();
                    server.outbox.push(&out);
                }
            });
        }));
        server
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under this lock ends the process; in tests the state is whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the guest: no breakpoint stays. `false`: a command of this very session asks for it.
    #[must_use]
    pub fn close(&self) -> bool {
        // All of it happens on the main loop's thread: the lock is held only by a caller further up the stack.
        let Ok(mut core) = self.core.try_lock() else { return false };
        core.disconnected();
        true
    }
}

impl CharSink for Server {
    fn room(&self) -> usize {
        if self.outbox.len() < OUTPUT_ENOUGH { INPUT_LIMIT } else { 0 }
    }

    fn receive(&self, data: &[u8]) {
        let out = self.lock().receive(data);
        self.outbox.push(&out);
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Opened => self.lock().connected(),
            CharEvent::Closed => {
                self.lock().disconnected();
                self.outbox.clear();
            }
            CharEvent::MuxIn => self.outbox.hold(false),
            CharEvent::MuxOut => self.outbox.hold(true),
            CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.outbox.flush();
        self.outbox.accept_input();
    }
}
