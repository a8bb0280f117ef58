//! The 8254 programmable interval timer and the PC's port 61h, computed from the virtual clock: nothing ticks.
//!
//! Documents: Intel 8254 data sheet (231164); Intel 82371SB (PIIX3) data sheet, section 2.5.4 for port 61h.
//!
//! Counter 0 drives IRQ 0, counter 1 nothing (it refreshed memory once), counter 2 the speaker, which is silent here;
//! gates of 0 and 1 are high. One host timer raises IRQ 0: its deadlines lie on the ideal times of the output's edges,
//! and edges that the host was too late for are left out, as QEMU discards them. A period under 100 µs interrupts once
//! in 100 µs, so that a guest cannot drown the host.

mod counter;

use crate::bus::{At, Device, IrqLine, Region, Reset, Token};
use crate::event::{Clock, NS_PER_SEC, Timer};

use self::counter::Counter;

/// Ports 40h-43h. Decode bytes.
pub const COUNTERS: Region = Region(0);
/// Port 61h. Decode bytes.
pub const SYSTEM_CONTROL: Region = Region(1);
/// The next edge of counter 0's output is due.
pub const TIMER_TOKEN: Token = Token(0);

/// Frequency of the counters' clock input, in hertz.
const FREQUENCY: u64 = 1_193_182;
/// Half a period of the memory refresh that port 61h shows.
const REFRESH_NS: u64 = 15_085;
/// No output is followed more often than this: 120 ticks, 100 µs.
const MIN_PERIOD: u64 = 120;

/// Control words (data sheet, figures 7, 10 and 11).
mod control {
    pub const COUNTER_SHIFT: u8 = 6;
    pub const READ_BACK: u8 = 3;
    pub const NO_LATCH_COUNT: u8 = 1 << 5;
    pub const NO_LATCH_STATUS: u8 = 1 << 4;
}

/// Port 61h (82371SB 2.5.4).
mod port61 {
    pub const GATE2: u8 = 1 << 0;
    pub const SPEAKER: u8 = 1 << 1;
    pub const REFRESH: u8 = 1 << 4;
    pub const OUT2: u8 = 1 << 5;
    /// Gate, speaker, and the masks of the parity and channel checks, which never come.
    pub const WRITABLE: u8 = 0x0f;
}

/// Clock ticks in that many nanoseconds, rounded down.
fn ticks(ns: u64) -> u64 {
    u64::try_from(u128::from(ns) * u128::from(FREQUENCY) / u128::from(NS_PER_SEC)).unwrap_or(u64::MAX)
}

/// The first nanosecond at which that many ticks have passed.
fn nanoseconds(ticks: u64) -> u64 {
    let ns = (u128::from(ticks) * u128::from(NS_PER_SEC)).div_ceil(u128::from(FREQUENCY));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// The chip.
pub struct I8254 {
    // Wires.
    irq: IrqLine,
    clock: Clock,
    timer: Timer,
    // Guest-visible state.
    counters: [Counter; 3],
    port61: u8,
    // Pending host work.
    /// The tick of counter 0's next edge, which the timer is set for.
    edge_at: Option<u64>,
}

impl I8254 {
    /// The chip at power-on; `timer` delivers [`TIMER_TOKEN`] on the virtual clock.
    #[must_use]
    pub fn new(irq: IrqLine, clock: Clock, timer: Timer) -> Self {
        Self { irq, clock, timer, counters: Self::cold_counters(), port61: 0, edge_at: None }
    }

    /// Mode 3 with the longest count, as firmware finds it on QEMU's machines; counter 2's gate is closed.
    fn cold_counters() -> [Counter; 3] {
        [Counter::cold(true), Counter::cold(true), Counter::cold(false)]
    }

    fn now(&self) -> u64 {
        ticks(self.clock.now_ns())
    }

    /// The only place that drives IRQ 0; call it after any change of counter 0.
    fn update_irq(&mut self) {
        let now = self.now();
        let high = self.counters[0].output(now);
        if self.edge_at.is_some_and(|at| at <= now) && self.irq.is_high() == high {
            // The output moved away and back: a pulse of one tick, or the host was late.
            self.irq.set(!high);
        }
        self.irq.set(high);
        self.edge_at = self.next_edge(now);
        match self.edge_at {
            None => self.timer.cancel(),
            Some(at) => self.timer.set(nanoseconds(at)),
        }
    }

    /// The tick of the next edge to be served.
    fn next_edge(&self, now: u64) -> Option<u64> {
        let mut counter = self.counters[0];
        let at = counter.next_edge(now)?;
        if counter.is_fast(MIN_PERIOD) {
            return counter.next_edge(now.saturating_add(MIN_PERIOD));
        }
        Some(at)
    }

    fn write_control(&mut self, value: u8) {
        let now = self.now();
        let number = value >> control::COUNTER_SHIFT;
        if number == control::READ_BACK {
            for (bit, counter) in [2, 4, 8].into_iter().zip(&mut self.counters) {
                if value & bit == 0 {
                    continue;
                }
                if value & control::NO_LATCH_COUNT == 0 {
                    counter.latch_count(now);
                }
                if value & control::NO_LATCH_STATUS == 0 {
                    counter.latch_status(now);
                }
            }
            return;
        }
        let counter = &mut self.counters[usize::from(number)];
        if value >> 4 & 3 == 0 {
            counter.latch_count(now);
            return;
        }
        counter.program(value, now);
        if number == 0 {
            self.update_irq();
        }
    }

    fn read_port61(&mut self) -> u8 {
        let now = self.now();
        let refresh = if (self.clock.now_ns() / REFRESH_NS) & 1 != 0 { port61::REFRESH } else { 0 };
        let out2 = if self.counters[2].output(now) { port61::OUT2 } else { 0 };
        self.port61 | refresh | out2
    }

    fn write_port61(&mut self, value: u8) {
        let now = self.now();
        self.port61 = value & port61::WRITABLE;
        self.counters[2].set_gate(value & port61::GATE2 != 0, now);
    }

    /// Whether the speaker's amplifier is on.
    #[must_use]
    pub fn speaker_enabled(&self) -> bool {
        self.port61 & port61::SPEAKER != 0
    }
}

impl Device for I8254 {
    fn read(&mut self, at: At) -> u64 {
        if at.region == SYSTEM_CONTROL {
            return self.read_port61().into();
        }
        let now = self.now();
        match self.counters.get_mut(usize::try_from(at.offset & 3).unwrap_or(3)) {
            Some(counter) => counter.read(now).into(),
            // The control word register cannot be read; the bus floats.
            None => 0xff,
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        if at.region == SYSTEM_CONTROL {
            self.write_port61(value);
            return;
        }
        let now = self.now();
        let number = usize::try_from(at.offset & 3).unwrap_or(3);
        let Some(counter) = self.counters.get_mut(number) else {
            self.write_control(value);
            return;
        };
        counter.write(value, now);
        if number == 0 {
            self.update_irq();
        }
    }

    fn event(&mut self, token: Token) {
        if token == TIMER_TOKEN {
            self.update_irq();
        }
    }

    fn reset(&mut self, _kind: Reset) {
        let now = self.now();
        let Self { irq: _, clock: _, timer: _, counters, port61, edge_at } = self;
        *counters = Self::cold_counters();
        counters.iter_mut().for_each(|counter| counter.restart(now));
        *port61 = 0;
        *edge_at = None;
        self.update_irq();
    }
}

#[cfg(test)]
mod tests;
