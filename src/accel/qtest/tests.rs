use std::sync::{Arc, Mutex};

use super::command::{Command, CommandError, base64_text, parse};
use super::{IrqTap, Log, Qtest, Server, Wires};
use crate::accel::{Accelerator, Exit};
use crate::bus::{BoardCell, GuestBus, LineSink, Probe, Width};
use crate::chardev::{CharEvent, CharHandle, CharOutput, CharSink};
use crate::event::{Clock, ClockKind, EventLoop};
use crate::mem::GuestRam;

#[test]
fn words_become_commands() {
    assert_eq!(parse("outw 0x70 0x1234"), Ok(Command::PortWrite { port: 0x70, width: Width::B2, value: 0x1234 }));
    assert_eq!(parse("readq 4096"), Ok(Command::Load { gpa: 4096, width: Width::B8 }));
    assert_eq!(parse("write 0x10 3 0xab"), Ok(Command::Write { gpa: 16, data: vec![0xab, 0, 0] }));
    assert_eq!(parse("b64write 0 2 AQI="), Ok(Command::WriteBase64 { gpa: 0, len: 2, data: vec![1, 2] }));
    assert_eq!(parse("clock_step"), Ok(Command::ClockStep(None)));
    assert_eq!(parse("clock_step 5"), Ok(Command::ClockStep(Some(5))));
    assert_eq!(parse("nonsense 1"), Err(CommandError::Unknown("nonsense".to_owned())));
    assert_eq!(parse("inb"), Err(CommandError::Arguments("inb".to_owned())));
    assert_eq!(parse("write 0 4 0x"), Err(CommandError::ArgumentSize));
}

#[test]
fn base64_is_rfc_4648s() {
    // RFC 4648, section 10.
    assert_eq!(base64_text(b""), "");
    assert_eq!(base64_text(b"f"), "Zg==");
    assert_eq!(base64_text(b"fo"), "Zm8=");
    assert_eq!(base64_text(b"foobar"), "Zm9vYmFy");
}

#[test]
fn no_line_makes_the_parser_panic() {
    let lines =
        ["outb 0x80 1", "write 0x1000 0x4 0xdeadbeef", "b64write 1 2 AAA=", "clock_step -1", "set_irq_in a b 1 1"];
    for line in lines {
        for cut in 0..=line.len() {
            let _ = parse(&line[..cut]);
            for byte in [" ", "0", "-", "x", "~", "99999999999999999999"] {
                let _ = parse(&format!("{}{byte}{}", &line[..cut], &line[cut..]));
            }
        }
    }
}

#[test]
fn a_tap_passes_lines_on_until_somebody_listens() {
    let probe = Probe::new();
    let tap = IrqTap::new(Arc::clone(&probe) as Arc<dyn LineSink>);
    tap.set_level(3, true);
    assert!(probe.is_high(3));
    let heard: Arc<Mutex<Vec<(u32, bool)>>> = Arc::default();
    let list = Arc::clone(&heard);
    tap.intercept(Arc::new(move |input, high| list.lock().unwrap().push((input, high))));
    tap.set_level(4, true);
    tap.set_level(4, true);
    tap.set_level(4, false);
    tap.set_level(3, false);
    assert_eq!(*heard.lock().unwrap(), [(4, true), (4, false)]);
    assert!(probe.is_high(3) && !probe.is_high(4));
}

#[test]
fn a_standing_processor_comes_back_when_it_is_kicked() {
    let mut vcpu = Qtest::default().create_vcpu(0).unwrap();
    let kick = vcpu.kicker();
    kick();
    assert_eq!(vcpu.run(&*BoardCell::new(crate::bus::Board::new()) as &dyn GuestBus).unwrap(), Exit::Kicked);
    assert_eq!(vcpu.state().unwrap().rip, 0xfff0);
}

/// What the server sent.
#[derive(Default)]
struct Sent(Mutex<Vec<u8>>);

impl CharOutput for Sent {
    fn write(&self, data: &[u8]) -> usize {
        self.0.lock().unwrap().extend_from_slice(data);
        data.len()
    }

    fn accept_input(&self) {}
}

struct Bench {
    event_loop: EventLoop,
    sent: Arc<Sent>,
    server: Arc<Server>,
}

impl Bench {
    fn new(owns_clock: bool) -> Self {
        let event_loop = EventLoop::new(Clock::manual()).unwrap();
        let sent = Arc::<Sent>::default();
        let wires = Wires {
            board: Arc::default(),
            ram: GuestRam::for_test(0x1_0000).unwrap(),
            timers: event_loop.handle(),
            tap: Some(IrqTap::new(Probe::new())),
            owns_clock,
            reset: Box::new(|| {}),
        };
        let output = CharHandle::new(Arc::clone(&sent) as Arc<dyn CharOutput>);
        Self { event_loop, server: Server::new(wires, output, Log::Off), sent }
    }

    fn say(&self, text: &str) -> String {
        self.server.receive(text.as_bytes());
        String::from_utf8(std::mem::take(&mut *self.sent.0.lock().unwrap())).unwrap()
    }
}

#[test]
fn lines_may_come_in_pieces() {
    let b = Bench::new(true);
    assert_eq!(b.say("endia"), "");
    assert_eq!(b.say("nness\nendianness\nx"), "OK little\nOK little\n");
    b.server.event(CharEvent::Closed);
    assert_eq!(b.say("endianness\n"), "OK little\n");
}

#[test]
fn a_step_runs_timers_in_their_order() {
    let b = Bench::new(true);
    let order: Arc<Mutex<Vec<u64>>> = Arc::default();
    let timer = |at: u64| {
        let (order, clock) = (Arc::clone(&order), b.event_loop.handle().clock());
        let timer = b.event_loop.handle().timer(ClockKind::Virtual, move || order.lock().unwrap().push(clock.now_ns()));
        timer.set(at);
        timer
    };
    let timers = [timer(300), timer(100), timer(200), timer(900)];
    assert_eq!(b.say("clock_step 250\n"), "OK 250\n");
    assert_eq!(*order.lock().unwrap(), [100, 200]);
    assert_eq!(b.say("clock_step\n"), "OK 300\n");
    assert_eq!(b.say("clock_set 100\n"), "FAIL 300\n");
    assert_eq!(b.say("clock_set 1000\nclock_step\n"), "OK 1000\nFAIL 1000\n");
    assert_eq!(timers[3].deadline(), None);
}

#[test]
fn another_accelerators_clock_is_left_alone() {
    let b = Bench::new(false);
    assert_eq!(b.say("clock_step 1\n"), "FAIL Unknown command 'clock_step'\n");
    assert_eq!(b.say("clock_set 1\n"), "FAIL Unknown command 'clock_set'\n");
}
