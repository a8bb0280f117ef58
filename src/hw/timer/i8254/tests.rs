use std::sync::Arc;

use super::*;
use crate::bus::{Probe, Width};
use crate::hw::bench::{Random, TimeBench};

struct Bench {
    time: TimeBench,
    irq: Arc<Probe>,
    pit: I8254,
}

impl Bench {
    fn new() -> Self {
        let (time, irq) = (TimeBench::new(), Probe::new());
        let mut pit = I8254::new(irq.line(0), time.clock.clone(), time.timer(TIMER_TOKEN));
        pit.reset(Reset::System);
        Self { time, irq, pit }
    }

    fn at(port: u8) -> At {
        let (region, offset) = if port == 0x61 { (SYSTEM_CONTROL, 0) } else { (COUNTERS, u64::from(port & 3)) };
        At { region, offset, width: Width::B1 }
    }

    fn outb(&mut self, port: u8, value: u8) {
        self.pit.write(Self::at(port), value.into());
    }

    fn inb(&mut self, port: u8) -> u8 {
        self.pit.read(Self::at(port)).to_le_bytes()[0]
    }

    /// Lets that many clock ticks pass, to the nanosecond after.
    fn ticks(&mut self, count: u64) {
        let now = ticks(self.time.clock.now_ns());
        let ns = nanoseconds(now + count) - self.time.clock.now_ns();
        self.time.advance(ns, ns.max(1), |token| self.pit.event(token));
    }

    /// Programs counter 2, whose output port 61h shows.
    fn counter2(&mut self, mode: u8, count: u16) {
        self.outb(0x43, 0xb0 | mode << 1);
        let [low, high] = count.to_le_bytes();
        self.outb(0x42, low);
        self.outb(0x42, high);
    }

    fn out2(&mut self) -> bool {
        self.inb(0x61) & 0x20 != 0
    }

    fn read2(&mut self) -> u16 {
        u16::from_le_bytes([self.inb(0x42), self.inb(0x42)])
    }

    fn gate2(&mut self, open: bool) {
        self.outb(0x61, open.into());
    }

    /// The output of counter 2 at each of `count` ticks.
    fn wave2(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| {
                let level = if self.out2() { 'H' } else { 'l' };
                self.ticks(1);
                level
            })
            .collect()
    }
}

#[test]
fn time_is_never_early() {
    for count in [1, 2, 3, 1193, 65536, 1_193_182, 123_456_789] {
        assert!(ticks(nanoseconds(count)) == count && ticks(nanoseconds(count) - 1) < count);
    }
}

#[test]
fn power_on_runs_at_18_hertz() {
    let mut b = Bench::new();
    assert_eq!(b.irq.rising_edges(), 1);
    b.ticks(65535);
    assert_eq!(b.irq.rising_edges(), 1);
    b.ticks(1);
    assert_eq!(b.irq.rising_edges(), 2);
    b.outb(0x43, 0xe2); // status of counter 0
    assert_eq!(b.inb(0x40), 0xb6);
    assert_eq!(b.inb(0x61) & 0x2f, 0x20);
    assert_eq!(b.inb(0x43), 0xff);
}

#[test]
fn mode_0_raises_its_output_at_the_end() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(0, 5);
    assert_eq!(b.wave2(8), "lllllHHH");
    assert_eq!(b.read2(), 0xfffd, "it goes on counting");
    b.outb(0x42, 9);
    assert!(!b.out2(), "the first byte of a new count stops it");
    b.ticks(100);
    b.outb(0x42, 0);
    assert_eq!(b.read2(), 9);
}

#[test]
fn a_low_gate_holds_modes_0_and_4() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(0, 10);
    b.ticks(4);
    b.gate2(false);
    b.ticks(50);
    assert_eq!(b.read2(), 6);
    b.gate2(true);
    assert_eq!(b.wave2(7), "llllllH");
}

#[test]
fn mode_1_is_a_shot_for_each_rising_gate() {
    let mut b = Bench::new();
    b.counter2(1, 3);
    assert_eq!(b.wave2(4), "HHHH");
    b.gate2(true);
    assert_eq!(b.wave2(2), "ll");
    b.gate2(false);
    b.gate2(true);
    assert_eq!(b.wave2(5), "lllHH", "retriggered");
}

#[test]
fn mode_2_is_low_for_one_tick() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(2, 4);
    assert_eq!(b.wave2(9), "HHHlHHHlH");
    assert_eq!(b.read2(), 3);
    b.gate2(false);
    assert_eq!(b.wave2(5), "HHHHH");
    b.gate2(true);
    assert_eq!(b.read2(), 4);
}

#[test]
fn mode_3_is_a_square_with_the_odd_tick_high() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(3, 5);
    assert_eq!(b.wave2(10), "HHHllHHHll");
    b.counter2(3, 8);
    assert_eq!((b.read2(), b.out2()), (8, true));
    b.ticks(3);
    assert_eq!((b.read2(), b.out2()), (2, true));
    b.ticks(1);
    assert_eq!((b.read2(), b.out2()), (8, false));
}

#[test]
fn modes_4_and_5_strobe_once() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(4, 3);
    assert_eq!(b.wave2(7), "HHHlHHH");
    b.gate2(false);
    b.counter2(5, 2);
    assert_eq!(b.wave2(4), "HHHH");
    b.gate2(true);
    assert_eq!(b.wave2(5), "HHlHH");
}

#[test]
fn a_new_count_of_a_running_period_waits_for_its_end() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(2, 4);
    b.ticks(5);
    b.outb(0x42, 6);
    b.outb(0x42, 0);
    b.outb(0x43, 0xe8);
    assert_eq!(b.inb(0x42) & 0x40, 0x40, "null count");
    assert_eq!(b.wave2(10), "HHlHHHHHlH");
    b.outb(0x43, 0xe8);
    assert_eq!(b.inb(0x42) & 0x40, 0);
}

#[test]
fn counts_are_binary_or_decimal_and_zero_is_the_longest() {
    let mut b = Bench::new();
    b.gate2(true);
    b.outb(0x43, 0xb5); // mode 2, BCD
    b.outb(0x42, 0x00);
    b.outb(0x42, 0x10);
    b.ticks(1);
    assert_eq!(b.read2(), 0x0999);
    b.outb(0x43, 0xb5);
    b.outb(0x42, 0);
    b.outb(0x42, 0);
    b.ticks(1);
    assert_eq!(b.read2(), 0x9999);
    b.counter2(2, 0);
    b.ticks(2);
    assert_eq!(b.read2(), 0xfffe);
}

#[test]
fn one_byte_formats_leave_the_other_byte_zero() {
    let mut b = Bench::new();
    b.gate2(true);
    b.outb(0x43, 0x94); // low byte, mode 2
    b.outb(0x42, 200);
    b.ticks(1);
    assert_eq!((b.inb(0x42), b.inb(0x42)), (199, 199));
    b.outb(0x43, 0xa4); // high byte, mode 2
    b.outb(0x42, 2);
    b.ticks(1);
    assert_eq!(b.inb(0x42), 1);
}

#[test]
fn a_latched_count_waits_for_its_reads() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(2, 1000);
    b.ticks(1);
    b.outb(0x43, 0x80);
    b.ticks(100);
    b.outb(0x43, 0x80);
    assert_eq!(b.read2(), 999);
    assert_eq!(b.read2(), 899);
}

#[test]
fn read_back_gives_status_before_count() {
    let mut b = Bench::new();
    b.gate2(true);
    b.counter2(2, 1000);
    b.ticks(1);
    b.outb(0x43, 0xce); // status and count of all three
    b.ticks(1);
    assert_eq!(b.inb(0x42), 0xb4);
    assert_eq!(b.read2(), 999);
    assert_eq!(b.read2(), 998);
    assert_eq!(b.inb(0x41), 0xb6);
}

#[test]
fn irq_0_follows_a_rate_generator() {
    let mut b = Bench::new();
    b.outb(0x43, 0x34);
    b.outb(0x40, 0xa9); // 1193
    b.outb(0x40, 0x04);
    let before = b.irq.rising_edges();
    for period in 1..=5 {
        b.ticks(1193);
        assert_eq!(b.irq.rising_edges(), before + period);
    }
    assert!(b.irq.is_high(0));
}

#[test]
fn ticks_that_the_host_missed_are_lost_and_the_phase_stays() {
    let mut b = Bench::new();
    b.outb(0x43, 0x34);
    b.outb(0x40, 0xa9);
    b.outb(0x40, 0x04);
    let before = b.irq.rising_edges();
    b.ticks(1193 * 10 + 500);
    assert_eq!(b.irq.rising_edges(), before + 1);
    b.ticks(1193 - 500);
    assert_eq!(b.irq.rising_edges(), before + 2);
}

#[test]
fn a_short_period_cannot_drown_the_host() {
    let mut b = Bench::new();
    b.outb(0x43, 0x14);
    b.outb(0x40, 2);
    let before = b.irq.rising_edges();
    (0..12_000).for_each(|_| b.ticks(1));
    let edges = b.irq.rising_edges() - before;
    assert!((90..=110).contains(&edges), "{edges} edges in 10 ms");
}

#[test]
fn mode_0_interrupts_once() {
    let mut b = Bench::new();
    b.outb(0x43, 0x30);
    assert!(!b.irq.is_high(0));
    b.outb(0x40, 100);
    b.outb(0x40, 0);
    let before = b.irq.rising_edges();
    b.ticks(99);
    assert_eq!(b.irq.rising_edges(), before);
    b.ticks(1);
    assert!(b.irq.is_high(0));
    b.ticks(1_000_000);
    assert_eq!(b.irq.rising_edges(), before + 1);
}

#[test]
fn port_61_keeps_its_low_bits_and_toggles_with_refresh() {
    let mut b = Bench::new();
    b.outb(0x61, 0xff);
    assert_eq!(b.inb(0x61) & 0xcf, 0x0f);
    assert!(b.pit.speaker_enabled());
    let first = b.inb(0x61) & 0x10;
    b.time.pass(REFRESH_NS);
    assert_ne!(b.inb(0x61) & 0x10, first);
}

#[test]
fn reset_is_power_on() {
    let mut b = Bench::new();
    b.outb(0x61, 3);
    b.outb(0x43, 0x30);
    b.ticks(1000);
    b.pit.reset(Reset::System);
    assert_eq!(b.inb(0x61) & 0x0f, 0);
    b.outb(0x43, 0xe2);
    assert_eq!(b.inb(0x40), 0xb6);
    let before = b.irq.rising_edges();
    b.ticks(65536);
    assert_eq!(b.irq.rising_edges(), before + 1);
}

#[test]
fn rubbish_never_panics() {
    let mut b = Bench::new();
    let mut random = Random(0x8254);
    for _ in 0..30_000 {
        let [port, value, what, steps, ..] = random.next().to_le_bytes();
        let port = [0x40, 0x41, 0x42, 0x43, 0x61][usize::from(port) % 5];
        match what % 4 {
            0 | 1 => b.outb(port, value),
            2 => {
                b.inb(port);
            }
            _ => b.ticks(u64::from(steps) * u64::from(steps)),
        }
    }
}
