use super::*;

use crate::bus::Probe;
use crate::hw::bench::{Random, TimeBench};

struct Bench {
    chip: Hpet,
    irqs: Arc<Probe>,
    time: TimeBench,
    legacy: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        let time = TimeBench::new();
        let irqs = Probe::new();
        let legacy = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&legacy);
        let timers = (0..3).map(|index| time.timer(timer_token(index))).collect();
        let sink = Arc::clone(&irqs) as Arc<dyn LineSink>;
        let callback: LegacySink = Box::new(move |on| flag.store(on, Ordering::Relaxed));
        let chip = Hpet::new(sink, time.clock.clone(), timers, ROUTES_I440FX, callback);
        Self { chip, irqs, time, legacy }
    }

    fn get(&mut self, offset: u64) -> u64 {
        self.chip.read(At { region: REGISTERS, offset, width: Width::B8 })
    }

    fn set(&mut self, offset: u64, value: u64) {
        self.chip.write(At { region: REGISTERS, offset, width: Width::B8 }, value);
    }

    fn set32(&mut self, offset: u64, value: u64) {
        self.chip.write(At { region: REGISTERS, offset, width: Width::B4 }, value);
    }

    fn advance(&mut self, ns: u64) {
        let chip = &mut self.chip;
        self.time.advance(ns, 10_000, |token| chip.event(token));
    }
}

#[test]
fn capabilities_are_qemus() {
    let mut b = Bench::new();
    assert_eq!(b.get(0), 0x0098_9680_8086_a201);
    assert_eq!(b.get(0x100), 0x0000_0004_0000_0030);
    assert_eq!(b.get(0x108), u64::MAX);
    assert_eq!(b.chip.fw_cfg_item()[..13], [1, 1, 0xa2, 0x86, 0x80, 0, 0, 0xd0, 0xfe, 0, 0, 0, 0]);
    assert_eq!(b.chip.fw_cfg_item().len(), 121);
}

#[test]
fn the_counter_runs_at_100_mhz_while_enabled() {
    let mut b = Bench::new();
    b.set(0xf0, 1000);
    b.advance(50_000);
    assert_eq!(b.get(0xf0), 1000);
    b.set(0x10, 1);
    b.advance(50_000);
    assert_eq!(b.get(0xf0), 6000);
    b.set(0xf0, 5);
    b.set(0x10, 0);
    b.advance(50_000);
    assert_eq!(b.get(0xf0), 6000);
}

#[test]
fn a_one_shot_pulses_its_route_once() {
    let mut b = Bench::new();
    b.set(0x10, 1);
    b.set(0x100, 2 << 9 | tn::ENABLE);
    b.set(0x108, 10_000);
    b.advance(90_000);
    assert_eq!(b.irqs.rising_edges(), 0);
    b.advance(10_000);
    assert_eq!(b.irqs.rising_edges(), 1);
    assert!(!b.irqs.is_high(2));
    b.advance(1_000_000);
    assert_eq!(b.irqs.rising_edges(), 1);
}

#[test]
fn a_periodic_timer_takes_its_first_match_and_its_period() {
    let mut b = Bench::new();
    b.set(0x100, tn::PERIODIC | tn::ENABLE | tn::SET_VALUE);
    b.set(0x108, 20_000);
    b.set(0x108, 100_000);
    b.set(0x10, 3);
    assert!(b.legacy.load(Ordering::Relaxed));
    b.advance(210_000);
    assert_eq!((b.irqs.rising_edges(), b.get(0x108)), (1, 120_000));
    b.advance(3_000_000);
    assert_eq!(b.irqs.rising_edges(), 4);
}

#[test]
fn a_level_interrupt_stays_until_its_status_is_cleared() {
    let mut b = Bench::new();
    b.set(0x10, 1);
    b.set(0x120, 2 << 9 | tn::LEVEL | tn::ENABLE);
    b.set(0x128, 1000);
    b.advance(10_000);
    assert!(b.irqs.is_high(2));
    assert_eq!(b.get(0x20), 2);
    b.set32(0x20, 2);
    assert!(!b.irqs.is_high(2));
    assert_eq!(b.get(0x20), 0);
}

#[test]
fn halves_are_written_separately() {
    let mut b = Bench::new();
    b.set32(0x108, 0x1111_1111);
    b.set32(0x10c, 0x2222_2222);
    assert_eq!(b.get(0x108), 0x2222_2222_1111_1111);
    assert_eq!(b.chip.read(At { region: REGISTERS, offset: 4, width: Width::B4 }), 0x0098_9680);
    b.set(0x100, tn::MODE_32);
    assert_eq!(b.get(0x108), 0x1111_1111);
}

#[test]
fn a_32_bit_timer_matches_the_low_half() {
    let mut b = Bench::new();
    b.set(0xf0, 0x1_ffff_fff0);
    b.set(0x10, 1);
    b.set(0x100, tn::MODE_32 | tn::ENABLE);
    b.set(0x108, 1000);
    b.advance(20_000);
    assert_eq!(b.irqs.rising_edges(), 1);
}

#[test]
fn a_match_that_has_just_passed_still_comes() {
    let mut b = Bench::new();
    b.set(0x10, 1);
    b.set(0x100, 2 << 9 | tn::ENABLE);
    b.advance(100_000);
    b.set(0x108, 9_999);
    b.advance(10_000);
    assert_eq!(b.irqs.rising_edges(), 1);
    b.advance(50_000_000);
    b.set(0x108, 9_999);
    b.advance(1_000_000);
    assert_eq!(b.irqs.rising_edges(), 1);
}

#[test]
fn a_tiny_period_does_not_drown_the_host() {
    let mut b = Bench::new();
    b.set(0x10, 1);
    b.set(0x100, tn::PERIODIC | tn::ENABLE | tn::SET_VALUE);
    b.set(0x108, 1);
    b.advance(1_000_000);
    assert!(b.irqs.rising_edges() <= 11);
}

#[test]
fn reset_is_power_on_and_lowers_the_lines() {
    let mut b = Bench::new();
    b.set(0x10, 3);
    b.set(0x140, 2 << 9 | tn::LEVEL | tn::ENABLE);
    b.set(0x148, 10);
    b.advance(10_000);
    assert!(b.irqs.is_high(2));
    b.chip.reset(Reset::System);
    assert!(!b.irqs.is_high(2) && !b.legacy.load(Ordering::Relaxed));
    assert_eq!(b.chip.regs, Regs::COLD);
    assert_eq!(b.chip.timers[2].regs, TimerRegs::COLD);
}

#[test]
fn the_gate_takes_an_interrupt_away_and_gives_it_back() {
    let probe = Probe::new();
    let gate = LegacyGate::new(Arc::clone(&probe) as Arc<dyn LineSink>);
    gate.set_level(8, true);
    gate.set_blocked(true);
    assert!(!probe.is_high(8));
    gate.set_level(8, false);
    gate.set_level(8, true);
    assert!(!probe.is_high(8));
    gate.set_blocked(false);
    assert!(probe.is_high(8));
}

#[test]
fn random_programs_never_panic() {
    let mut b = Bench::new();
    let mut random = Random(19);
    for _ in 0..20_000 {
        let value = random.next();
        let offset = value >> 56 & 0x1f8 | value >> 48 & 0x100;
        match value % 4 {
            0 => b.set(offset, random.next()),
            1 => b.set32(offset + 4, random.next() & 0xffff_ffff),
            2 => drop(b.get(offset)),
            _ => b.time.advance(value >> 40, u64::MAX, |token| b.chip.event(token)),
        }
    }
}
