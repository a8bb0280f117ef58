//! The high precision event timer: a 64-bit counter at 100 MHz and up to 32 comparators (QEMU's `pc` has 3).
//!
//! Documents: Intel IA-PC HPET Specification 1.0a, sections 2.3 (registers) and 2.2 (non-periodic, periodic mode).
//!
//! Front-side-bus (MSI) delivery is not offered: the capability bit is 0. A periodic timer interrupts at most ten
//! thousand times a second whatever its period, as in QEMU, so that a guest cannot drown the host; the comparator
//! still advances by its period.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{At, Device, LineSink, Region, Reset, Token, Width};
use crate::event::{Clock, Timer};

/// 1 KiB of registers at FED00000h. Decode 4 and 8 bytes.
pub const REGISTERS: Region = Region(0);
/// Where firmware and guests look for it.
pub const BASE: u64 = 0xfed0_0000;
/// Length of the registers.
pub const LEN: u64 = 0x400;
/// The interrupts that timers can be routed to on the i440FX machine: QEMU's IRQ 2 only.
pub const ROUTES_I440FX: u32 = 0x4;
/// On the Q35 machine: QEMU's IRQ 2, 8 and 16-23.
pub const ROUTES_Q35: u32 = 0x00ff_0104;

/// Comparator n is due: `Token(n)`.
#[must_use]
pub fn timer_token(index: u8) -> Token {
    Token(u64::from(index))
}

/// Counter period (10 ns) in femtoseconds.
const PERIOD_FS: u64 = 10_000_000;
const NS_PER_TICK: u64 = 10;
/// No periodic timer is served more often than this.
const MIN_PERIOD_NS: u64 = 100_000;

/// A match that was missed by less (10 ms) is made up for.
const LATE_TICKS: u64 = 1_000_000;

/// Register offsets (2.3.2).
mod reg {
    pub const CAPABILITIES: u64 = 0x000;
    pub const CONFIG: u64 = 0x010;
    pub const STATUS: u64 = 0x020;
    pub const COUNTER: u64 = 0x0f0;
    pub const TIMERS: u64 = 0x100;
    pub const TIMER_STRIDE: u64 = 0x20;
    pub const TIMER_CONFIG: u64 = 0x00;
    pub const TIMER_COMPARATOR: u64 = 0x08;
}

/// General configuration (2.3.5).
mod config {
    pub const ENABLE: u64 = 1 << 0;
    pub const LEGACY: u64 = 1 << 1;
    pub const WRITABLE: u64 = ENABLE | LEGACY;
}

/// Timer configuration and capabilities (2.3.8).
mod tn {
    pub const LEVEL: u64 = 1 << 1;
    pub const ENABLE: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const PERIODIC_CAPABLE: u64 = 1 << 4;
    pub const SIZE_64: u64 = 1 << 5;
    pub const SET_VALUE: u64 = 1 << 6;
    pub const MODE_32: u64 = 1 << 8;
    pub const ROUTE: u64 = 0x1f << 9;
    pub const WRITABLE: u64 = LEVEL | ENABLE | PERIODIC | SET_VALUE | MODE_32 | ROUTE;
}

/// Takes an ISA interrupt away from its chip while the HPET replaces it (legacy replacement route, 2.3.5): the RTC's
/// IRQ 8 goes through one of these. A leaf.
pub struct LegacyGate {
    sink: Arc<dyn LineSink>,
    blocked: AtomicBool,
    levels: Mutex<u64>,
}

impl LegacyGate {
    /// An open gate in front of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn LineSink>) -> Arc<Self> {
        Arc::new(Self { sink, blocked: AtomicBool::new(false), levels: Mutex::new(0) })
    }

    /// Blocks or opens it: inputs that are high fall or rise behind it.
    pub fn set_blocked(&self, blocked: bool) {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if self.blocked.swap(blocked, Ordering::Relaxed) == blocked {
            return;
        }
        for input in (0..64).filter(|input| *levels >> input & 1 != 0) {
            self.sink.set_level(input, !blocked);
        }
    }
}

impl LineSink for LegacyGate {
    fn set_level(&self, input: u32, high: bool) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let bit = 1 << (input % 64);
        *levels = if high { *levels | bit } else { *levels & !bit };
        if !self.blocked.load(Ordering::Relaxed) {
            self.sink.set_level(input, high);
        }
    }
}

/// Called with whether the HPET replaces the PIT's IRQ 0 and the RTC's IRQ 8. A leaf.
pub type LegacySink = Box<dyn Fn(bool) + Send>;

/// The timer block.
pub struct Hpet {
    // Wires.
    interrupts: Arc<dyn LineSink>,
    clock: Clock,
    legacy: LegacySink,
    // Guest-visible state.
    regs: Regs,
    // Derived: which interrupt inputs are held high.
    driven: u32,
    timers: Vec<Comparator>,
    routes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    config: u64,
    status: u32,
    /// The counter while it stands.
    stopped_at: u64,
    /// Machine time minus the counter's, in nanoseconds, while it runs.
    offset_ns: u64,
}

impl Regs {
    const COLD: Self = Self { config: 0, status: 0, stopped_at: 0, offset_ns: 0 };
}

struct Comparator {
    timer: Timer,
    regs: TimerRegs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TimerRegs {
    config: u64,
    comparator: u64,
    period: u64,
}

impl TimerRegs {
    const COLD: Self = Self { config: tn::PERIODIC_CAPABLE | tn::SIZE_64, comparator: u64::MAX, period: 0 };

    fn is(&self, bit: u64) -> bool {
        self.config & bit != 0
    }

    /// The bits of the counter that it compares.
    fn mask(&self) -> u64 {
        if self.is(tn::MODE_32) { 0xffff_ffff } else { u64::MAX }
    }
}

impl Hpet {
    /// A block with one comparator for each of `timers` (3 to 32; token n by [`timer_token`]; virtual clock).
    /// `interrupts` takes inputs 0 and 8 for the legacy routes and those of `routes` otherwise.
    #[must_use]
    pub fn new(
        interrupts: Arc<dyn LineSink>,
        clock: Clock,
        timers: Vec<Timer>,
        routes: u32,
        legacy: LegacySink,
    ) -> Self {
        let timers = timers.into_iter().take(32).map(|timer| Comparator { timer, regs: TimerRegs::COLD }).collect();
        Self { interrupts, clock, legacy, regs: Regs::COLD, driven: 0, timers, routes }
    }

    /// The general capabilities register (2.3.4): revision 1, legacy routes, 64 bits, Intel.
    #[must_use]
    pub fn capabilities(&self) -> u64 {
        let last = (self.timers.len().max(1) - 1) as u64;
        PERIOD_FS << 32 | 0x8086_a001 | last << 8
    }

    /// What fw_cfg's HPET item says about one block at [`BASE`].
    #[must_use]
    pub fn fw_cfg_item(&self) -> Vec<u8> {
        let mut item = vec![0; 1 + 8 * 15];
        item[0] = 1;
        item[1..5].copy_from_slice(&self.capabilities().to_le_bytes()[..4]);
        item[5..13].copy_from_slice(&BASE.to_le_bytes());
        item
    }

    fn is_running(&self) -> bool {
        self.regs.config & config::ENABLE != 0
    }

    fn counter(&self) -> u64 {
        if self.is_running() {
            self.clock.now_ns().wrapping_sub(self.regs.offset_ns) / NS_PER_TICK
        } else {
            self.regs.stopped_at
        }
    }

    fn set_counter(&mut self, value: u64) {
        self.regs.stopped_at = value;
        self.regs.offset_ns = self.clock.now_ns().wrapping_sub(value.wrapping_mul(NS_PER_TICK));
    }

    // -- interrupts ----------------------------------------------------------------------------------------------

    fn is_legacy(&self) -> bool {
        self.regs.config & config::LEGACY != 0
    }

    fn route(&self, index: usize) -> u32 {
        match (self.is_legacy(), index) {
            (true, 0) => 0,
            (true, 1) => 8,
            _ => u32::try_from((self.timers[index].regs.config & tn::ROUTE) >> 9).unwrap_or(0),
        }
    }

    /// Comparator `index` has matched.
    fn fire(&mut self, index: usize) {
        let regs = self.timers[index].regs;
        if !self.is_running() {
            return;
        }
        if regs.is(tn::LEVEL) {
            self.regs.status |= 1 << index;
        } else if regs.is(tn::ENABLE) {
            let route = self.route(index);
            self.interrupts.set_level(route, true);
            self.interrupts.set_level(route, false);
        }
    }

    /// The only place that drives level-triggered lines.
    fn update_lines(&mut self) {
        let mut wanted = 0;
        for index in 0..self.timers.len() {
            let regs = self.timers[index].regs;
            let active = self.regs.status >> index & 1 != 0 && regs.is(tn::LEVEL) && regs.is(tn::ENABLE);
            if active && self.is_running() {
                wanted |= 1 << self.route(index);
            }
        }
        let changed = wanted ^ self.driven;
        self.driven = wanted;
        for input in (0..32).filter(|input| changed >> input & 1 != 0) {
            self.interrupts.set_level(input, wanted >> input & 1 != 0);
        }
    }

    /// Sets the host timer for the next match.
    fn arm(&mut self, index: usize) {
        let running = self.is_running();
        let counter = self.counter();
        let Some(Comparator { timer, regs }) = self.timers.get(index) else { return };
        if !running || !regs.is(tn::ENABLE) {
            timer.cancel();
            return;
        }
        let mut left = regs.comparator.wrapping_sub(counter) & regs.mask();
        if left == 0 {
            left = regs.mask();
        }
        let mut wait_ns = left.saturating_mul(NS_PER_TICK);
        if regs.is(tn::PERIODIC) {
            wait_ns = wait_ns.max(MIN_PERIOD_NS);
        }
        // A match in 5,000 years needs no timer, and the sum must not wrap.
        timer.set(self.clock.now_ns().saturating_add(wait_ns));
    }

    fn arm_all(&mut self) {
        (0..self.timers.len()).for_each(|index| self.arm(index));
    }

    /// Moves a periodic comparator on to its next match after now.
    fn advance(&mut self, index: usize) {
        let counter = self.counter();
        let Some(Comparator { regs, .. }) = self.timers.get_mut(index) else { return };
        let mask = regs.mask();
        if !regs.is(tn::PERIODIC) || regs.period & mask == 0 {
            return;
        }
        let period = regs.period & mask;
        let late = counter.wrapping_sub(regs.comparator) & mask;
        // More than half the range late is not late at all: the comparator lies ahead.
        if late <= mask / 2 {
            let steps = late / period + 1;
            regs.comparator = regs.comparator.wrapping_add(steps.wrapping_mul(period)) & mask;
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn read64(&mut self, offset: u64) -> u64 {
        match offset {
            reg::CAPABILITIES => self.capabilities(),
            reg::CONFIG => self.regs.config,
            reg::STATUS => u64::from(self.regs.status),
            reg::COUNTER => self.counter(),
            _ => {
                let Some((index, register)) = self.timer_register(offset) else { return 0 };
                match register {
                    reg::TIMER_CONFIG => self.timers[index].regs.config | u64::from(self.routes) << 32,
                    reg::TIMER_COMPARATOR => {
                        if self.is_running() {
                            self.advance(index);
                        }
                        self.timers[index].regs.comparator
                    }
                    _ => 0,
                }
            }
        }
    }

    fn timer_register(&self, offset: u64) -> Option<(usize, u64)> {
        let inside = offset.checked_sub(reg::TIMERS)?;
        let index = usize::try_from(inside / reg::TIMER_STRIDE).ok()?;
        (index < self.timers.len()).then_some((index, inside % reg::TIMER_STRIDE))
    }

    /// A write of the bits in `mask` of the 64-bit register at `offset`.
    fn write64(&mut self, offset: u64, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        match offset {
            reg::CONFIG => self.write_config(merge(self.regs.config)),
            reg::STATUS => {
                let cleared = u32::try_from(value & mask & 0xffff_ffff).unwrap_or(0);
                self.regs.status &= !cleared;
            }
            // The counter can only be set while it stands (2.3.7).
            reg::COUNTER if !self.is_running() => self.set_counter(merge(self.regs.stopped_at)),
            _ => {
                let Some((index, register)) = self.timer_register(offset) else { return };
                match register {
                    reg::TIMER_CONFIG => self.write_timer_config(index, merge(self.timers[index].regs.config)),
                    reg::TIMER_COMPARATOR => self.write_comparator(index, value, mask),
                    _ => {}
                }
                self.arm(index);
                if register == reg::TIMER_COMPARATOR {
                    self.catch_up(index);
                }
            }
        }
    }

    /// A one-shot match that went by while the guest was writing it still comes: on a loaded host that is no fault of
    /// the guest's.
    fn catch_up(&mut self, index: usize) {
        let counter = self.counter();
        let Comparator { timer, regs } = &self.timers[index];
        let late = counter.wrapping_sub(regs.comparator) & regs.mask();
        if self.is_running() && regs.is(tn::ENABLE) && !regs.is(tn::PERIODIC) && late < LATE_TICKS {
            timer.set(self.clock.now_ns());
        }
    }

    fn write_config(&mut self, value: u64) {
        let value = value & config::WRITABLE;
        let changed = value ^ self.regs.config;
        let counter = self.counter();
        self.regs.config = value;
        if changed & config::ENABLE != 0 {
            self.set_counter(counter);
            self.arm_all();
        }
        if changed & config::LEGACY != 0 {
            (self.legacy)(value & config::LEGACY != 0);
        }
    }

    fn write_timer_config(&mut self, index: usize, value: u64) {
        let regs = &mut self.timers[index].regs;
        regs.config = regs.config & !tn::WRITABLE | value & tn::WRITABLE;
        if regs.is(tn::MODE_32) {
            regs.comparator &= 0xffff_ffff;
            regs.period &= 0xffff_ffff;
        }
        if !regs.is(tn::LEVEL) {
            self.regs.status &= !(1 << index);
        }
    }

    /// A periodic timer takes the value as its period, and as its next match only after SET_VALUE (2.3.9.2.2).
    fn write_comparator(&mut self, index: usize, value: u64, mask: u64) {
        let regs = &mut self.timers[index].regs;
        let merge = |old: u64| (old & !mask | value & mask) & regs.mask();
        let (comparator, period) = (merge(regs.comparator), merge(regs.period));
        if !regs.is(tn::PERIODIC) || regs.is(tn::SET_VALUE) {
            regs.comparator = comparator;
        }
        if regs.is(tn::PERIODIC) {
            regs.period = period;
        }
        regs.config &= !tn::SET_VALUE;
    }
}

impl Device for Hpet {
    fn read(&mut self, at: At) -> u64 {
        let value = self.read64(at.offset & !7);
        if at.width == Width::B8 { value } else { value >> (8 * (at.offset & 4)) & 0xffff_ffff }
    }

    fn write(&mut self, at: At, value: u64) {
        let shift = if at.width == Width::B8 { 0 } else { 8 * (at.offset & 4) };
        self.write64(at.offset & !7, value << shift, at.width.ones() << shift);
        self.update_lines();
    }

    fn event(&mut self, token: Token) {
        let Ok(index) = usize::try_from(token.0) else { return };
        if index >= self.timers.len() {
            return;
        }
        self.fire(index);
        self.advance(index);
        self.arm(index);
        self.update_lines();
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { interrupts: _, clock: _, legacy, regs, driven: _, timers, routes: _ } = self;
        *regs = Regs::COLD;
        for Comparator { timer, regs } in timers {
            *regs = TimerRegs::COLD;
            timer.cancel();
        }
        legacy(false);
        self.update_lines();
    }
}

#[cfg(test)]
mod tests;
