//! One counter of the 8254: the six modes as functions of the ticks since counting began.
//!
//! A counting element that is loaded at a clock pulse after the write is loaded at once here, which moves everything by
//! less than a microsecond.

/// Modes (data sheet, "Mode Definitions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// 0: interrupt on terminal count.
    TerminalCount,
    /// 1: hardware retriggerable one-shot.
    OneShot,
    /// 2: rate generator.
    Rate,
    /// 3: square wave.
    Square,
    /// 4: software triggered strobe.
    SoftwareStrobe,
    /// 5: hardware triggered strobe.
    HardwareStrobe,
}

impl Mode {
    /// From bits 3-1 of a control word; 6 and 7 are 2 and 3.
    fn decode(control: u8) -> Self {
        match control >> 1 & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::TerminalCount => 0,
            Self::OneShot => 1,
            Self::Rate => 2,
            Self::Square => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::Rate | Self::Square)
    }

    /// A rising gate starts it; the gate's level does not matter afterwards.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Which bytes of a count are read and written (control word, bits 5-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Low,
    High,
    Both,
}

/// A counter. All times are in ticks of the clock input since power-on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counter {
    mode: Mode,
    bcd: bool,
    access: Access,
    gate: bool,
    /// The count in force, 1 to 65536; `None` between the control word and the count.
    count: Option<u32>,
    /// A count that waits for the end of the period, or for the trigger.
    next: Option<u32>,
    /// When counting began, if it runs.
    since: Option<u64>,
    /// Ticks counted before the gate closed.
    before: u64,
    /// The low byte of a two-byte count that is being written.
    written_low: Option<u8>,
    /// The next read gives the high byte.
    read_high: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
}

impl Counter {
    /// Mode 3, binary, count 65536, counting from tick 0 if the gate is open.
    pub(super) const fn cold(gate: bool) -> Self {
        Self {
            mode: Mode::Square,
            bcd: false,
            access: Access::Both,
            gate,
            count: Some(0x1_0000),
            next: None,
            since: if gate { Some(0) } else { None },
            before: 0,
            written_low: None,
            read_high: false,
            latched: None,
            latched_status: None,
        }
    }

    /// Counting begins anew.
    pub(super) fn restart(&mut self, now: u64) {
        self.before = 0;
        let runs = self.count.is_some() && (self.gate || self.mode.is_triggered());
        self.since = runs.then_some(now);
    }

    /// A control word other than a latch command.
    pub(super) fn program(&mut self, control: u8, now: u64) {
        let access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        let gate = self.gate;
        *self = Self { mode: Mode::decode(control), bcd: control & 1 != 0, access, ..Self::cold(gate) };
        self.count = None;
        self.restart(now);
    }

    // -- counting ------------------------------------------------------------------------------------------------

    /// Ticks counted so far.
    fn elapsed(&self, now: u64) -> u64 {
        self.before + self.since.map_or(0, |since| now.saturating_sub(since))
    }

    /// A periodic counter takes a new count at the end of its period (data sheet, modes 2 and 3).
    fn settle(&mut self, now: u64) {
        let (Some(next), Some(count), true) = (self.next, self.count, self.mode.is_periodic()) else { return };
        let elapsed = self.elapsed(now);
        if elapsed >= u64::from(count) {
            self.count = Some(next);
            self.next = None;
            self.before = 0;
            self.since = self.since.map(|_| now - (elapsed - u64::from(count)));
        }
    }

    /// Counts from the start of the period that `now` is in.
    fn begin_at_this_period(&mut self, now: u64) {
        if let (true, Some(since), Some(count)) = (self.mode.is_periodic(), self.since, self.count) {
            let inside = now.saturating_sub(since) % u64::from(count);
            self.since = Some(now.saturating_sub(inside));
        }
    }

    /// A whole count was written.
    fn load(&mut self, value: u16, now: u64) {
        let count = match (self.bcd, value) {
            (false, 0) => 0x1_0000,
            (true, 0) => 10_000,
            (false, value) => u32::from(value),
            (true, value) => from_bcd(value).max(1),
        };
        if self.mode.is_triggered() || self.mode.is_periodic() && self.count.is_some() {
            self.settle(now);
            self.begin_at_this_period(now);
            self.next = Some(count);
            return;
        }
        self.count = Some(count);
        self.restart(now);
    }

    /// Drives the gate.
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        self.settle(now);
        self.gate = gate;
        if self.mode.is_triggered() {
            if rises && (self.next.is_some() || self.count.is_some()) {
                self.count = self.next.take().or(self.count);
                self.restart(now);
            }
        } else if self.mode.is_periodic() {
            // A rising gate reloads; while it is low the output is high and nothing counts.
            if rises {
                self.count = self.next.take().or(self.count);
                self.restart(now);
            } else if falls {
                self.before = 0;
                self.since = None;
            }
        } else if falls {
            self.before = self.elapsed(now);
            self.since = None;
        } else if rises && self.count.is_some() {
            self.since = Some(now);
        }
    }

    /// The level of OUT.
    pub(super) fn output(&mut self, now: u64) -> bool {
        self.settle(now);
        let Some(count) = self.count.map(u64::from) else {
            return self.mode != Mode::TerminalCount;
        };
        let elapsed = self.elapsed(now);
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => elapsed >= count,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != count,
            Mode::Rate => !self.gate || elapsed % count != count - 1 || count == 1,
            Mode::Square => !self.gate || elapsed % count < count.div_ceil(2),
        }
    }

    /// The tick of OUT's next edge after `now`, if it moves by itself; a low pulse of one tick counts as its end.
    pub(super) fn next_edge(&mut self, now: u64) -> Option<u64> {
        self.settle(now);
        let (since, count) = (self.since?, u64::from(self.count?));
        let elapsed = self.elapsed(now);
        let target = match self.mode {
            Mode::TerminalCount | Mode::OneShot => (elapsed < count).then_some(count),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => (elapsed <= count).then_some(count + 1),
            Mode::Rate => Some(elapsed - elapsed % count + count),
            Mode::Square => {
                let (start, high) = (elapsed - elapsed % count, count.div_ceil(2));
                Some(if elapsed % count < high && high < count { start + high } else { start + count })
            }
        }?;
        Some(since + (target - self.before))
    }

    /// Whether it repeats with a period under `limit` ticks.
    pub(super) fn is_fast(&self, limit: u64) -> bool {
        self.mode.is_periodic() && self.count.is_some_and(|count| u64::from(count) < limit)
    }

    /// The counting element as software reads it.
    fn value(&mut self, now: u64) -> u16 {
        self.settle(now);
        let Some(count) = self.count.map(u64::from) else { return 0 };
        let elapsed = self.elapsed(now);
        let range = if self.bcd { 10_000 } else { 0x1_0000 };
        let left = match self.mode {
            Mode::Rate => count - elapsed % count,
            // It counts by two, twice through a period (data sheet, mode 3).
            Mode::Square => {
                let high = count.div_ceil(2);
                let inside = elapsed % count;
                let phase = if inside < high { inside } else { inside - high };
                (count & !1) - (2 * phase).min(count & !1)
            }
            _ => (count + range - elapsed % range) % range,
        };
        let left = u16::try_from(left % range).unwrap_or(0);
        if self.bcd { to_bcd(left) } else { left }
    }

    // -- reads and writes ----------------------------------------------------------------------------------------

    /// The counter latch command; a latched count stays until it is read.
    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.value(now));
        }
    }

    /// The status latch of the read-back command (data sheet, figure 12): OUT, null count, and the control word.
    pub(super) fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_some() {
            return;
        }
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        let out = self.output(now);
        let null_count = self.next.is_some() || self.count.is_none();
        self.latched_status = Some(
            u8::from(out) << 7 | u8::from(null_count) << 6 | access << 4 | self.mode.number() << 1 | u8::from(self.bcd),
        );
    }

    /// A read of the counter's port.
    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = match self.latched {
            Some(value) => value.to_le_bytes(),
            None => self.value(now).to_le_bytes(),
        };
        let high_now = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::Both => self.read_high,
        };
        let last = self.access != Access::Both || high_now;
        self.read_high = !last;
        if last {
            self.latched = None;
        }
        if high_now { high } else { low }
    }

    /// A write to the counter's port.
    pub(super) fn write(&mut self, value: u8, now: u64) {
        match (self.access, self.written_low.take()) {
            (Access::Low, _) => self.load(value.into(), now),
            (Access::High, _) => self.load(u16::from(value) << 8, now),
            (Access::Both, Some(low)) => self.load(u16::from_le_bytes([low, value]), now),
            (Access::Both, None) => {
                self.written_low = Some(value);
                if self.mode == Mode::TerminalCount {
                    // The first byte stops the count, and OUT goes low (data sheet, mode 0).
                    self.count = None;
                    self.since = None;
                    self.before = 0;
                }
            }
        }
    }
}

fn from_bcd(value: u16) -> u32 {
    (0..4).rev().fold(0, |sum, digit| sum * 10 + u32::from(value >> (4 * digit) & 0xf))
}

fn to_bcd(value: u16) -> u16 {
    let digit = |divisor: u16, shift: u32| (value / divisor % 10) << shift;
    digit(1000, 12) | digit(100, 8) | digit(10, 4) | digit(1, 0)
}
