//! The protocol against a guest of one page of memory and two vCPUs.

use std::sync::{Arc, Mutex};

use crate::accel::{BreakpointKind, DebugError, DebugStop, GuestDebug, WatchKind};
use crate::cpu::{CpuState, MpState};
use crate::machine::{MachineTime, RunState};

use super::guest::Guest;
use super::packet::{Framer, Incoming, frame};
use super::session::Core;

/// What the fake machine remembers.
struct State {
    cpus: [CpuState; 2],
    debug: [GuestDebug; 2],
    memory: Vec<u8>,
    run: RunState,
    stop: Option<(u32, DebugStop)>,
    resumed: Vec<(Vec<bool>, MachineTime)>,
    may_run: bool,
    quit: bool,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

impl Guest for Fake {
    fn cpus(&self) -> u32 {
        2
    }
    fn state(&self, cpu: u32) -> Option<CpuState> {
        self.with(|s| s.cpus.get(cpu as usize).cloned())
    }
    fn set_state(&self, cpu: u32, state: CpuState) -> bool {
        self.with(|s| s.cpus[cpu as usize] = state);
        true
    }
    fn set_debug(&self, cpu: u32, debug: &GuestDebug) -> Result<(), DebugError> {
        if debug.watchpoints.iter().any(|w| w.kind == WatchKind::Read) {
            return Err(DebugError::Unsupported("watchpoints for reads"));
        }
        self.with(|s| s.debug[cpu as usize] = debug.clone());
        Ok(())
    }
    /// One page at 1000h, physical address 0.
    fn translate(&self, _: u32, gva: u64) -> Option<u64> {
        (gva & !0xfff == 0x1000).then_some(gva & 0xfff)
    }
    fn read_physical(&self, gpa: u64, buf: &mut [u8]) {
        self.with(|s| {
            for (i, byte) in buf.iter_mut().enumerate() {
                let at = usize::try_from(gpa).unwrap().wrapping_add(i);
                *byte = s.memory.get(at).copied().unwrap_or(0xff);
            }
        });
    }
    fn write_memory(&self, gpa: u64, data: &[u8]) {
        self.with(|s| {
            for (i, byte) in data.iter().enumerate() {
                if let Some(place) = s.memory.get_mut(usize::try_from(gpa).unwrap().wrapping_add(i)) {
                    *place = *byte;
                }
            }
        });
    }
    fn write_physical(&self, gpa: u64, data: &[u8]) {
        self.write_memory(gpa, data);
    }
    fn run_state(&self) -> RunState {
        self.with(|s| s.run)
    }
    fn debug_stop(&self) -> Option<(u32, DebugStop)> {
        self.with(|s| s.stop)
    }
    fn stop(&self) {
        self.with(|s| {
            if s.run == RunState::Running {
                s.run = RunState::Paused;
            }
        });
    }
    fn resume(&self, which: &[bool], time: MachineTime) -> bool {
        self.with(|s| {
            s.resumed.push((which.to_vec(), time));
            if s.may_run {
                s.run = RunState::Running;
            }
            s.may_run
        })
    }
    fn monitor(&self, line: &str) -> String {
        format!("you said {line}\n")
    }
    fn quit(&self) {
        self.with(|s| s.quit = true);
    }
}

struct Bench {
    fake: Fake,
    core: Core,
}

impl Bench {
    fn new() -> Self {
        let mut second = CpuState::power_on(0x663);
        second.mp_state = MpState::Halted;
        let state = State {
            cpus: [CpuState::power_on(0x663), second],
            debug: [GuestDebug::default(), GuestDebug::default()],
            memory: (0..=255).cycle().take(4096).collect(),
            run: RunState::Running,
            stop: None,
            resumed: Vec::new(),
            may_run: true,
            quit: false,
        };
        let fake = Fake(Arc::new(Mutex::new(state)));
        let mut core = Core::new(Box::new(fake.clone()));
        core.connected();
        Self { fake, core }
    }

    /// Sends a packet; the answers, which must be well framed.
    fn ask(&mut self, body: &str) -> Vec<String> {
        let out = self.core.receive(&frame(body.as_bytes()));
        assert_eq!(out.first(), Some(&b'+'), "no acknowledgement of {body}");
        packets(&out)
    }

    fn one(&mut self, body: &str) -> String {
        let answers = self.ask(body);
        assert_eq!(answers.len(), 1, "{body}: {answers:?}");
        answers[0].clone()
    }

    /// The machine stops by itself: what gdb hears.
    fn stops(&mut self, run: RunState, stop: Option<(u32, DebugStop)>) -> Vec<String> {
        self.fake.with(|s| (s.run, s.stop) = (run, stop));
        packets(&self.core.machine_stopped())
    }
}

fn packets(bytes: &[u8]) -> Vec<String> {
    let mut framer = Framer::default();
    let found = bytes.iter().filter_map(|byte| framer.push(*byte));
    found
        .map(|incoming| match incoming {
            Incoming::Packet(body) => String::from_utf8_lossy(&body).into_owned(),
            other => panic!("{other:?} in an answer"),
        })
        .collect()
}

#[test]
fn connecting_stops_the_machine_and_threads_are_vcpus() {
    let mut bench = Bench::new();
    assert_eq!(bench.fake.run_state(), RunState::Paused);
    let features = bench.one("qSupported:multiprocess+");
    assert!(features.contains("PacketSize=1000") && features.contains("qXfer:features:read+"), "{features}");
    assert_eq!(bench.one("?"), "T05thread:p01.01;");
    assert_eq!(bench.one("qfThreadInfo"), "mp01.01,p01.02");
    // "CPU#1 [halted ]"
    assert_eq!(bench.one("qThreadExtraInfo,p1.2"), "4350552331205b68616c746564205d");
    assert_eq!(bench.one("qAttached"), "1");
}

#[test]
fn registers_are_read_and_written() {
    let mut bench = Bench::new();
    assert_eq!(bench.one("Hg1"), "OK");
    assert_eq!(bench.one("g").len(), 1216);
    assert_eq!(bench.one("p10"), "f0ff000000000000");
    assert_eq!(bench.one("P10=3412000000000000"), "OK");
    assert_eq!(bench.fake.state(0).unwrap().rip, 0x1234);
    assert_eq!(bench.one("P12=0010"), "OK");
    assert_eq!(bench.fake.state(0).unwrap().segments[1].base, 0x10000);
    assert_eq!(bench.one("p42"), "");
    // All of them, as they were.
    let all = bench.one("g");
    assert_eq!(bench.one(&format!("G{all}")), "OK");
    assert_eq!(bench.one("g"), all);
}

#[test]
fn memory_is_virtual_or_physical() {
    let mut bench = Bench::new();
    assert_eq!(bench.one("m1010,4"), "10111213");
    assert_eq!(bench.one("m1ffe,4"), "E14");
    assert_eq!(bench.one("M1010,2:abcd"), "OK");
    assert_eq!(bench.one("m1010,3"), "abcd12");
    assert_eq!(bench.one("Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(bench.one("qqemu.PhyMemMode"), "1");
    assert_eq!(bench.one("m10,2"), "abcd");
    assert_eq!(bench.one("m0,ffffffffffffffff"), "E22");
    assert_eq!(bench.one("mffffffffffffffff,10"), "E14");
}

#[test]
fn breakpoints_go_to_all_vcpus_and_end_with_the_debugger() {
    let mut bench = Bench::new();
    assert_eq!(bench.one("Z0,1010,1"), "OK");
    assert_eq!(bench.one("Z1,1020,1"), "OK");
    assert_eq!(bench.one("Z2,1030,4"), "OK");
    assert_eq!(bench.one("Z3,1030,4"), "E22", "the accelerator has none");
    for cpu in 0..2 {
        let debug = bench.fake.with(|s| s.debug[cpu].clone());
        let kinds: Vec<_> = debug.breakpoints.iter().map(|b| (b.gva, b.kind)).collect();
        assert_eq!(kinds, [(0x1010, BreakpointKind::Software), (0x1020, BreakpointKind::Hardware)]);
        assert_eq!(debug.watchpoints.len(), 1);
    }
    assert_eq!(bench.one("z1,1020,1"), "OK");
    assert_eq!(bench.one("z1,1020,1"), "E22");
    bench.core.disconnected();
    assert!(bench.fake.with(|s| s.debug[1].is_idle()));
}

#[test]
fn stops_are_told_with_thread_and_reason() {
    let mut bench = Bench::new();
    bench.one("qSupported:multiprocess+;swbreak+;hwbreak+");
    bench.one("Z0,1010,1");
    assert_eq!(bench.ask("vCont;c"), [""; 0]);
    let stop = Some((1, DebugStop::Breakpoint(0x1010)));
    assert_eq!(bench.stops(RunState::Debug, stop), ["T05thread:p01.02;swbreak:;"]);
    bench.ask("vCont;c");
    let stop = Some((0, DebugStop::Watch { gva: 0x1030, kind: WatchKind::Write }));
    assert_eq!(bench.stops(RunState::Debug, stop), ["T05thread:p01.01;watch:1030;"]);
    bench.ask("vCont;c");
    let stop = Some((0, DebugStop::Watch { gva: 0x1030, kind: WatchKind::Access }));
    assert_eq!(bench.stops(RunState::Debug, stop), ["T05thread:p01.01;awatch:1030;"]);
    bench.ask("c");
    assert_eq!(bench.stops(RunState::Shutdown, None), ["T03thread:p01.01;"]);
    // Nobody waits for this one.
    assert!(bench.stops(RunState::Debug, stop).is_empty());
}

#[test]
fn a_step_is_one_vcpus_and_ends_with_the_stop() {
    let mut bench = Bench::new();
    bench.ask("vCont;s:2;c");
    let steps = |bench: &Bench| bench.fake.with(|s| [s.debug[0].single_step, s.debug[1].single_step]);
    assert_eq!(steps(&bench), [false, true]);
    assert_eq!(bench.fake.with(|s| s.resumed.pop()), Some((vec![true, true], MachineTime::StandsStill)));
    assert_eq!(bench.stops(RunState::Debug, Some((1, DebugStop::Step))), ["T05thread:02;"]);
    assert_eq!(steps(&bench), [false, false]);
    // Threads that are not named stay; without NOTIMER time passes.
    assert_eq!(bench.one("Qqemu.sstep=1"), "OK");
    bench.ask("vCont;s:1");
    assert_eq!(bench.fake.with(|s| s.resumed.pop()), Some((vec![true, false], MachineTime::Passes)));
    assert!(!bench.fake.with(|s| s.debug[0].mask_interrupts));
}

#[test]
fn an_interrupt_stops_the_machine() {
    let mut bench = Bench::new();
    bench.ask("c");
    let out = bench.core.receive(b"\x03");
    assert_eq!(packets(&out), ["T02thread:01;"]);
    assert_eq!(bench.fake.run_state(), RunState::Paused);
    assert!(bench.core.receive(b"\x03").is_empty(), "it is stopped already");
}

#[test]
fn a_machine_that_cannot_run_says_so_at_once() {
    let mut bench = Bench::new();
    bench.fake.with(|s| (s.may_run, s.run) = (false, RunState::InternalError));
    assert_eq!(bench.one("vCont;c"), "T06thread:01;");
}

#[test]
fn monitor_commands_run_and_print() {
    let mut bench = Bench::new();
    // "info status"
    let answers = bench.ask("qRcmd,696e666f20737461747573");
    let text = "you said info status\r\n";
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(answers, [format!("O{hex}"), "OK".to_owned()]);
}

#[test]
fn detaching_lets_the_machine_run_and_killing_ends_it() {
    let mut bench = Bench::new();
    bench.one("Z0,1010,1");
    assert_eq!(bench.one("D;1"), "OK");
    assert_eq!(bench.fake.run_state(), RunState::Running);
    assert!(bench.fake.with(|s| s.debug[0].is_idle()));
    assert_eq!(bench.one("vKill;1"), "OK");
    assert!(bench.fake.with(|s| s.quit));
}

#[test]
fn acknowledgements_end_when_the_debugger_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.one("QStartNoAckMode"), "OK");
    assert_eq!(bench.core.receive(&frame(b"qqemu.sstep")), frame(b"0x7"));
    // What the crate gives up on does not change that.
    assert_eq!(bench.core.receive(&frame(b"vCont;x:zz")), frame(b"E22"));
    assert_eq!(bench.core.receive(&frame(b"qC")), frame(b""));
}

#[test]
fn a_damaged_packet_is_asked_for_again_and_a_lost_answer_repeated() {
    let mut bench = Bench::new();
    assert_eq!(bench.core.receive(b"$qqemu.sstep#00"), b"-");
    let out = bench.core.receive(&frame(b"qqemu.sstep"));
    assert_eq!(out, [b"+".as_slice(), &frame(b"0x7")].concat());
    assert_eq!(bench.core.receive(b"-"), frame(b"0x7"));
}

#[test]
fn rubbish_neither_panics_nor_ends_the_session() {
    let samples: &[&str] = &[
        "qSupported:multiprocess+;swbreak+",
        "m1000,10",
        "M1000,2:1234",
        "X1000,2:ab",
        "P10=0011223344556677",
        "p1f",
        "G00112233",
        "Hgp1.2",
        "Hc-1",
        "T2",
        "Z2,1000,4",
        "z0,1000,1",
        "vCont;s:p1.1;c:p1.-1",
        "vCont;r1000,2000:1",
        "vCont;C05:2;t",
        "qRcmd,6162",
        "qXfer:features:read:target.xml:0,ffb",
        "qXfer:features:read:i386-64bit.xml:ffffffffffffffff,ffffffffffffffff",
        "qThreadExtraInfo,p1.1",
        "Qqemu.sstep=7",
        "c1234",
        "s",
        "C05;10",
        "D;1",
        "QStartNoAckMode",
        "vFile:open:2f,0,0",
        "qCRC:0,1",
        "?",
    ];
    let mut bench = Bench::new();
    let mut random = 0x9e37_79b9_u32;
    for round in 0..60 {
        for sample in samples {
            let mut body = sample.as_bytes().to_vec();
            // Rounds without change, with truncation, with changed bytes.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = usize::try_from(random >> 8).unwrap() % body.len();
            match round % 3 {
                0 if round > 0 => body.truncate(at),
                1 => body[at] ^= 1 << (random >> 4 & 7),
                2 => body.insert(at, b",:;=-0f"[usize::try_from(random >> 3 & 7).unwrap() % 7]),
                _ => {}
            }
            body.retain(|byte| *byte != b'#');
            let out = bench.core.receive(&frame(&body));
            assert!(out.len() < 64 << 10, "{} bytes for {:?}", out.len(), String::from_utf8_lossy(&body));
            if bench.fake.with(|s| std::mem::take(&mut s.quit)) {
                bench.core.connected();
            }
        }
    }
    bench.core.receive(b"\x03");
    bench.core.connected();
    assert_eq!(bench.one("?"), "T05thread:01;");
}
