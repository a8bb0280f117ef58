use super::*;
use std::sync::{Arc, Mutex};

use crate::bus::{LineSink, Probe, Width};
use crate::hw::bench::{Random, TimeBench};

struct Bench {
    chip: Mc146818,
    irqs: Arc<Probe>,
    time: TimeBench,
}

/// 2026-11-20 11:00:15 UTC, a Friday.
const START: i64 = 1795172415;

impl Bench {
    fn with(lost_ticks: LostTicks) -> Self {
        let time = TimeBench::new();
        let irqs = Probe::new();
        let start_ns = START * 1_000_000_000;
        let timer = time.timer(TIMER_TOKEN);
        let chip = Mc146818::new(irqs.line(8), time.clock.clone(), timer, TimeSource::Virtual, start_ns, lost_ticks);
        Self { chip, irqs, time }
    }

    fn new() -> Self {
        Self::with(LostTicks::Discard)
    }

    fn get(&mut self, index: u8) -> u8 {
        self.chip.write(At { region: PORTS, offset: 0, width: Width::B1 }, u64::from(index));
        self.chip.read(At { region: PORTS, offset: 1, width: Width::B1 }).to_le_bytes()[0]
    }

    fn set(&mut self, index: u8, value: u8) {
        self.chip.write(At { region: PORTS, offset: 0, width: Width::B1 }, u64::from(index));
        self.chip.write(At { region: PORTS, offset: 1, width: Width::B1 }, u64::from(value));
    }

    fn advance(&mut self, ns: u64) {
        let chip = &mut self.chip;
        self.time.advance(ns, 100_000, |token| chip.event(token));
    }

    fn seconds(&mut self, seconds: u64) {
        let chip = &mut self.chip;
        self.time.advance(seconds * NS_PER_SEC, NS_PER_SEC / 4, |token| chip.event(token));
    }
}

#[test]
fn power_on_registers_are_qemus() {
    let mut b = Bench::new();
    let head = [0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13].map(|index| b.get(index));
    assert_eq!(head, [0x15, 0x00, 0x11, 0x06, 0x20, 0x11, 0x26, 0x26, 0x02, 0x00, 0x80]);
    assert_eq!((b.get(0x32), b.get(0x37)), (0x20, 0x20));
    assert_eq!(b.chip.read(At { region: PORTS, offset: 0, width: Width::B1 }), 0xff);
}

#[test]
fn binary_and_12_hour_modes_show_the_same_time() {
    let mut b = Bench::new();
    b.seconds(2 * 3600);
    b.set(0x0b, 0x06);
    assert_eq!((b.get(4), b.get(9), b.get(0x32)), (13, 26, 20));
    b.set(0x0b, 0x04);
    assert_eq!(b.get(4), 0x81);
    b.set(0x0b, 0x00);
    assert_eq!(b.get(4), 0x81);
    b.seconds(11 * 3600);
    assert_eq!(b.get(4), 0x12);
}

#[test]
fn set_freezes_the_registers_and_writes_take_effect_at_its_end() {
    let mut b = Bench::new();
    b.set(0x0b, 0x82);
    b.seconds(5);
    assert_eq!(b.get(0), 0x15);
    for (index, value) in [(0, 0x58), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)] {
        b.set(index, value);
    }
    b.set(0x0b, 0x02);
    assert_eq!(b.get(0), 0x58);
    b.seconds(2);
    let now = [0, 2, 4, 6, 7, 8, 9, 0x37].map(|index| b.get(index));
    assert_eq!(now, [0, 0, 0, 0x07, 0x01, 0x01, 0x00, 0x20]);
}

#[test]
fn update_in_progress_shows_just_before_the_second() {
    let mut b = Bench::new();
    assert_eq!(b.get(0x0a), 0x26);
    b.advance(999_700_000);
    assert_eq!(b.get(0x0a), 0x26);
    b.advance(100_000);
    assert_eq!(b.get(0x0a), 0xa6);
    b.advance(200_000);
    assert_eq!(b.get(0x0a), 0x26);
}

#[test]
fn the_update_interrupt_comes_each_second_until_acknowledged() {
    let mut b = Bench::new();
    b.set(0x0b, 0x12);
    b.seconds(1);
    assert!(b.irqs.is_high(8));
    assert_eq!(b.get(0x0c), 0xd0);
    assert!(!b.irqs.is_high(8));
    assert_eq!(b.get(0x0c), 0);
    b.seconds(1);
    assert!(b.irqs.is_high(8));
    b.set(0x0b, 0x02);
    assert!(!b.irqs.is_high(8));
}

#[test]
fn flags_show_to_a_guest_that_polls() {
    let mut b = Bench::new();
    b.seconds(1);
    assert_eq!(b.get(0x0c), 0x50);
    assert_eq!(b.irqs.rising_edges(), 0);
}

#[test]
fn the_periodic_interrupt_has_its_rate() {
    let mut b = Bench::new();
    b.set(0x0a, 0x26); // 1024 Hz
    b.set(0x0b, 0x42);
    for _ in 0..1024 {
        b.advance(976_562);
        let _ = b.get(0x0c);
    }
    let edges = b.irqs.rising_edges();
    assert!((1022..=1024).contains(&edges), "{edges}");
}

#[test]
fn an_alarm_matches_with_wildcards() {
    let mut b = Bench::new();
    b.set(5, 0xff);
    b.set(3, 0xc0);
    b.set(1, 0x20);
    b.set(0x0b, 0x22);
    b.seconds(4);
    assert!(!b.irqs.is_high(8));
    b.seconds(1);
    assert!(b.irqs.is_high(8));
    assert_eq!(b.get(0x0c) & 0xa0, 0xa0);
    b.seconds(59);
    assert!(!b.irqs.is_high(8));
    b.seconds(1);
    assert!(b.irqs.is_high(8));
}

#[test]
fn an_impossible_alarm_never_comes() {
    let mut b = Bench::new();
    b.set(5, 0x77);
    b.set(0x0b, 0x22);
    b.seconds(90_000);
    assert!(!b.irqs.is_high(8));
}

#[test]
fn slewing_makes_up_for_lost_ticks() {
    let mut b = Bench::with(LostTicks::Slew);
    b.set(0x0a, 0x26);
    b.set(0x0b, 0x42);
    b.advance(10 * 976_563);
    let ticks = (0..30).filter(|_| b.get(0x0c) & 0x40 != 0).count();
    assert_eq!(ticks, 10);
}

#[test]
fn without_slewing_lost_ticks_are_lost() {
    let mut b = Bench::new();
    b.set(0x0a, 0x26);
    b.set(0x0b, 0x42);
    b.advance(10 * 976_563);
    let ticks = (0..30).filter(|_| b.get(0x0c) & 0x40 != 0).count();
    assert_eq!(ticks, 1);
}

#[test]
fn a_held_divider_stops_time_and_starts_half_a_second_early() {
    let mut b = Bench::new();
    b.set(0x0a, 0x76);
    b.seconds(3);
    assert_eq!(b.get(0), 0x15);
    b.set(0x0a, 0x26);
    b.advance(499_000_000);
    assert_eq!(b.get(0), 0x15);
    b.advance(2_000_000);
    assert_eq!(b.get(0), 0x16);
}

#[test]
fn port_70_masks_nmi_with_its_top_bit() {
    let mut b = Bench::new();
    b.set(0x80 | 0x0f, 5);
    assert!(b.chip.nmi_masked());
    assert_eq!(b.get(0x0f), 5);
    assert!(!b.chip.nmi_masked());
}

#[test]
fn reset_keeps_ram_and_time_but_no_interrupt() {
    let mut b = Bench::new();
    b.chip.set_cmos(0x5b, 9);
    b.set(0x0b, 0x12);
    b.seconds(1);
    b.chip.reset(Reset::System);
    assert!(!b.irqs.is_high(8));
    assert_eq!((b.get(0x5b), b.get(0), b.get(0x0b), b.get(0x0c)), (9, 0x16, 0x02, 0));
    assert_eq!(b.chip.guest_seconds(), START + 1);
}

#[test]
fn random_programs_never_panic() {
    let mut b = Bench::with(LostTicks::Slew);
    let mut random = Random(13);
    for _ in 0..20_000 {
        let [index, value, choice, low, high, ..] = random.next().to_le_bytes();
        match choice % 3 {
            0 => b.set(index % 0x40, value),
            1 => drop(b.get(index)),
            _ => b.time.advance(u64::from(low) << (high % 32), u64::MAX, |token| b.chip.event(token)),
        }
    }
}

/// Each first rise takes so long that the next tick is due meanwhile.
struct SlowController {
    clock: Clock,
    levels: Mutex<Vec<bool>>,
}

impl LineSink for SlowController {
    fn set_level(&self, _input: u32, high: bool) {
        let mut levels = self.levels.lock().unwrap();
        levels.push(high);
        if levels.len() == 1 {
            self.clock.advance(1_000_000);
        }
    }
}

#[test]
fn a_tick_that_is_due_while_register_c_is_read_is_an_edge_of_its_own() {
    let time = TimeBench::new();
    let controller = Arc::new(SlowController { clock: time.clock.clone(), levels: Mutex::default() });
    let line = IrqLine::new(Arc::clone(&controller) as Arc<dyn LineSink>, 8);
    let timer = time.timer(TIMER_TOKEN);
    let chip = Mc146818::new(line, time.clock.clone(), timer, TimeSource::Virtual, START, LostTicks::Discard);
    let mut b = Bench { chip, irqs: Probe::new(), time };
    b.set(0x0b, 0x42);
    b.time.clock.advance(1_000_000);
    assert_eq!(b.get(0x0c) & 0x40, 0x40);
    assert_eq!(*controller.levels.lock().unwrap(), [true, false, true]);
}
