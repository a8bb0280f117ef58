//! The real-time clock and CMOS RAM of a PC: Motorola's MC146818 with a century byte.
//!
//! Documents: Motorola MC146818A data sheet; IBM Personal Computer AT Technical Reference (CMOS layout, port 70h's
//! NMI mask).
//!
//! The time is an offset from a [`TimeSource`]; registers are computed when they are read, and timers run only while
//! an interrupt is enabled. Flags of register C are brought up to date whenever the chip is looked at, so a guest
//! that polls sees them too. The square wave output and the 4.194 and 1.049 MHz time bases are not modelled: the
//! divider either runs or is held.

use crate::bus::{At, Device, IrqLine, Region, Reset, Token};
use crate::event::{Clock, NS_PER_SEC, Timer, monotonic_ns, realtime_ns};

mod calendar;

use calendar::Moment;

/// Ports 70h (index) and 71h (data).
pub const PORTS: Region = Region(0);
/// The next interrupt is due.
pub const TIMER_TOKEN: Token = Token(0);

/// Indices of the CMOS RAM that the chip itself knows.
mod index {
    pub const SECONDS: u8 = 0x00;
    pub const SECONDS_ALARM: u8 = 0x01;
    pub const MINUTES: u8 = 0x02;
    pub const MINUTES_ALARM: u8 = 0x03;
    pub const HOURS: u8 = 0x04;
    pub const HOURS_ALARM: u8 = 0x05;
    pub const DAY_OF_WEEK: u8 = 0x06;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0a;
    pub const B: u8 = 0x0b;
    pub const C: u8 = 0x0c;
    pub const D: u8 = 0x0d;
    pub const CENTURY: u8 = 0x32;
    /// The PS/2's place for the century: the same byte.
    pub const CENTURY_PS2: u8 = 0x37;
}

/// Register A.
mod a {
    pub const UPDATE_IN_PROGRESS: u8 = 1 << 7;
    pub const DIVIDER: u8 = 0x70;
    /// 32.768 kHz.
    pub const DIVIDER_RUNS: u8 = 0x20;
    pub const DIVIDER_RESET: u8 = 0x60;
    pub const RATE: u8 = 0x0f;
}

/// Register B.
mod b {
    pub const SET: u8 = 1 << 7;
    pub const PERIODIC: u8 = 1 << 6;
    pub const ALARM: u8 = 1 << 5;
    pub const UPDATE: u8 = 1 << 4;
    pub const SQUARE_WAVE: u8 = 1 << 3;
    pub const BINARY: u8 = 1 << 2;
    pub const HOURS_24: u8 = 1 << 1;
}

/// Register C.
mod c {
    pub const INTERRUPT: u8 = 1 << 7;
    pub const PERIODIC: u8 = 1 << 6;
    pub const ALARM: u8 = 1 << 5;
    pub const UPDATE: u8 = 1 << 4;
}

/// Register D: the battery is good.
const VALID_RAM_AND_TIME: u8 = 0x80;
/// The divider's input.
const CRYSTAL_HZ: u64 = 32_768;
/// The update-in-progress bit shows this long before an update (244 us, data sheet "Update cycle").
const UPDATE_WARNING_NS: i128 = 8 * 1_000_000_000 / 32_768;
/// After the divider is let go, the first update comes half a second later.
const HALF_SECOND_NS: i128 = 500_000_000;
/// At most so many lost ticks are made up for between two ticks that are due.
const REINJECT_LIMIT: u32 = 20;

/// What the clock follows (`-rtc clock=`).
#[derive(Clone, Debug)]
pub enum TimeSource {
    /// The host's wall clock: steps with it.
    Host,
    /// The host's monotonic clock.
    Monotonic,
    /// Machine time: stands still while the machine is stopped.
    Virtual,
}

/// What happens to periodic interrupts that the guest was too slow to take (`-rtc driftfix=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LostTicks {
    /// They are lost, as on hardware.
    #[default]
    Discard,
    /// They are made up for.
    Slew,
}

/// The clock.
pub struct Mc146818 {
    // Wires.
    irq: IrqLine,
    clock: Clock,
    timer: Timer,
    // Options.
    source: TimeSource,
    lost_ticks: LostTicks,
    // Guest-visible state; the battery keeps the RAM and the time over a reset.
    cmos: [u8; 128],
    /// Guest time minus source time, while the clock runs.
    offset_ns: i128,
    regs: Regs,
    // Pending: where flags were last computed.
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    index: u8,
    nmi_masked: bool,
    /// Periodic interrupts that are owed.
    owed_ticks: u32,
    /// How many were made up for since the last one that was due.
    reinjected: u32,
}

impl Regs {
    const COLD: Self = Self { index: 0, nmi_masked: false, owed_ticks: 0, reinjected: 0 };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// Crystal ticks of machine time.
    ticks: u64,
    /// Guest seconds.
    seconds: i64,
}

impl Mc146818 {
    /// A clock that shows `start_ns` (nanoseconds since 1970-01-01 00:00) now. Everything else in the CMOS RAM is 0
    /// until [`Mc146818::set_cmos`].
    #[must_use]
    pub fn new(
        irq: IrqLine,
        clock: Clock,
        timer: Timer,
        source: TimeSource,
        start_ns: i64,
        lost_ticks: LostTicks,
    ) -> Self {
        let mut cmos = [0; 128];
        cmos[usize::from(index::A)] = a::DIVIDER_RUNS | 6;
        cmos[usize::from(index::B)] = b::HOURS_24;
        cmos[usize::from(index::D)] = VALID_RAM_AND_TIME;
        let seen = Seen { ticks: 0, seconds: 0 };
        let mut chip = Self { irq, clock, timer, source, lost_ticks, cmos, offset_ns: 0, regs: Regs::COLD, seen };
        chip.offset_ns = i128::from(start_ns) - chip.source_ns();
        chip.store_time();
        chip.seen = chip.now();
        chip
    }

    // -- the machine's side --------------------------------------------------------------------------------------

    /// Sets a byte of the CMOS RAM (0Eh-7Fh: memory size, disk types, boot order; the clock's own registers are not
    /// for this).
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        self.cmos[usize::from(index & 0x7f)] = value;
    }

    /// A byte of the CMOS RAM.
    #[must_use]
    pub fn cmos(&self, index: u8) -> u8 {
        self.cmos[usize::from(index & 0x7f)]
    }

    /// Whether port 70h's bit 7 keeps non-maskable interrupts from the processor.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.regs.nmi_masked
    }

    /// What the guest's clock shows, in seconds since 1970-01-01 00:00.
    #[must_use]
    pub fn guest_seconds(&self) -> i64 {
        if self.is_running() { self.now().seconds } else { self.registers_as_moment().seconds() }
    }

    // -- time ----------------------------------------------------------------------------------------------------

    fn source_ns(&self) -> i128 {
        i128::from(match self.source {
            TimeSource::Host => realtime_ns(),
            TimeSource::Monotonic => monotonic_ns(),
            TimeSource::Virtual => self.clock.now_ns(),
        })
    }

    fn guest_ns(&self) -> i128 {
        self.source_ns() + self.offset_ns
    }

    fn now(&self) -> Seen {
        let ticks = u128::from(self.clock.now_ns()) * u128::from(CRYSTAL_HZ) / u128::from(NS_PER_SEC);
        Seen {
            ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
            seconds: i64::try_from(self.guest_ns().div_euclid(i128::from(NS_PER_SEC))).unwrap_or(0),
        }
    }

    fn register(&self, index: u8) -> u8 {
        self.cmos[usize::from(index)]
    }

    fn b(&self, bit: u8) -> bool {
        self.register(index::B) & bit != 0
    }

    /// The time goes on: SET is off and the divider counts.
    fn is_running(&self) -> bool {
        !self.b(b::SET) && !self.divider_held()
    }

    fn divider_held(&self) -> bool {
        self.register(index::A) & a::DIVIDER_RESET == a::DIVIDER_RESET
    }

    fn encode(&self, value: u8) -> u8 {
        if self.b(b::BINARY) { value } else { ((value / 10 % 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.b(b::BINARY) { value } else { (value >> 4) * 10 + (value & 15) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b(b::HOURS_24) {
            return self.encode(hour);
        }
        let twelve = (hour + 11) % 12 + 1;
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.b(b::HOURS_24) {
            return self.decode(value);
        }
        self.decode(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
    }

    /// Puts the running time into the registers.
    fn store_time(&mut self) {
        if !self.is_running() {
            return;
        }
        let moment = Moment::from_seconds(self.now().seconds);
        let Moment { year, month, day, hour, minute, second } = moment;
        let century = u8::try_from(year / 100 % 100).unwrap_or(0);
        let year = u8::try_from(year % 100).unwrap_or(0);
        let values = [
            (index::SECONDS, self.encode(second)),
            (index::MINUTES, self.encode(minute)),
            (index::HOURS, self.encode_hour(hour)),
            (index::DAY_OF_WEEK, self.encode(moment.day_of_week())),
            (index::DAY, self.encode(day)),
            (index::MONTH, self.encode(month)),
            (index::YEAR, self.encode(year)),
            (index::CENTURY, self.encode(century)),
        ];
        for (at, value) in values {
            self.cmos[usize::from(at)] = value;
        }
    }

    fn registers_as_moment(&self) -> Moment {
        let value = |at| self.decode(self.register(at));
        Moment {
            year: u16::from(value(index::CENTURY)) * 100 + u16::from(value(index::YEAR)),
            month: value(index::MONTH),
            day: value(index::DAY),
            hour: self.decode_hour(self.register(index::HOURS)),
            minute: value(index::MINUTES),
            second: value(index::SECONDS),
        }
    }

    /// Lets the time go on from the registers, `fraction_ns` into the second.
    fn load_time(&mut self, fraction_ns: i128) {
        let seconds = i128::from(self.registers_as_moment().seconds());
        self.offset_ns = seconds * i128::from(NS_PER_SEC) + fraction_ns - self.source_ns();
        self.seen.seconds = self.now().seconds;
    }

    // -- interrupts ----------------------------------------------------------------------------------------------

    /// The periodic interrupt's period in crystal ticks (data sheet, table 5).
    fn period(&self) -> Option<u64> {
        if self.register(index::A) & a::DIVIDER != a::DIVIDER_RUNS {
            return None;
        }
        match self.register(index::A) & a::RATE {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The first alarm after `after`, in guest seconds. Values from C0h on match anything.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let wanted = |at, limit: u8, hour: bool| {
            let raw = self.register(at);
            if raw >= 0xc0 {
                return Some(None);
            }
            let value = if hour { self.decode_hour(raw) } else { self.decode(raw) };
            (value < limit).then_some(Some(i64::from(value)))
        };
        let second = wanted(index::SECONDS_ALARM, 60, false)?;
        let minute = wanted(index::MINUTES_ALARM, 60, false)?;
        let hour = wanted(index::HOURS_ALARM, 24, true)?;
        calendar::next_match(after, hour, minute, second)
    }

    /// Sets the flags of register C for what has passed since they were last computed.
    fn update_flags(&mut self) {
        let now = self.now();
        let mut flags = 0;
        if let Some(period) = self.period() {
            let passed = now.ticks / period - self.seen.ticks.min(now.ticks) / period;
            if passed > 0 {
                flags |= c::PERIODIC;
                self.count_lost(passed);
            }
        }
        if self.is_running() && now.seconds > self.seen.seconds {
            flags |= c::UPDATE;
            if self.next_alarm(self.seen.seconds).is_some_and(|at| at <= now.seconds) {
                flags |= c::ALARM;
            }
        }
        self.seen = now;
        self.cmos[usize::from(index::C)] |= flags;
    }

    fn count_lost(&mut self, passed: u64) {
        self.regs.reinjected = 0;
        if self.lost_ticks == LostTicks::Discard || !self.b(b::PERIODIC) {
            return;
        }
        let unread = self.register(index::C) & c::PERIODIC != 0;
        let lost = u32::try_from(passed).unwrap_or(u32::MAX) - u32::from(!unread);
        self.regs.owed_ticks = self.regs.owed_ticks.saturating_add(lost);
    }

    /// Drives the line and sets the timer; call it after any change. Only [`Mc146818::acknowledge`] lowers it besides.
    fn update(&mut self) {
        self.update_flags();
        let enabled = self.register(index::B) & (b::PERIODIC | b::ALARM | b::UPDATE);
        let pending = self.register(index::C) & enabled != 0;
        let flags = self.register(index::C) & !c::INTERRUPT | if pending { c::INTERRUPT } else { 0 };
        self.cmos[usize::from(index::C)] = flags;
        self.irq.set(pending);
        match self.next_deadline() {
            Some(at) => self.timer.set(at),
            None => self.timer.cancel(),
        }
    }

    /// When machine time comes to the next enabled interrupt whose flag is not set yet. With lost ticks to count,
    /// every tick matters.
    fn next_deadline(&self) -> Option<u64> {
        let now_ns = self.clock.now_ns();
        let flags = self.register(index::C);
        let periodic = self
            .period()
            .filter(|_| self.b(b::PERIODIC) && (flags & c::PERIODIC == 0 || self.lost_ticks == LostTicks::Slew))
            .map(|period| {
                let next = (self.seen.ticks / period + 1) * period;
                let ns = (u128::from(next) * u128::from(NS_PER_SEC)).div_ceil(u128::from(CRYSTAL_HZ));
                u64::try_from(ns).unwrap_or(u64::MAX)
            });
        if !self.is_running() {
            return periodic;
        }
        let in_guest_seconds = |seconds: i64| {
            let left = i128::from(seconds) * i128::from(NS_PER_SEC) - self.guest_ns();
            now_ns.saturating_add(u64::try_from(left.max(0)).unwrap_or(u64::MAX))
        };
        let update = (self.b(b::UPDATE) && flags & c::UPDATE == 0).then(|| in_guest_seconds(self.seen.seconds + 1));
        let alarm = (self.b(b::ALARM) && flags & c::ALARM == 0)
            .then(|| self.next_alarm(self.seen.seconds))
            .flatten()
            .map(in_guest_seconds);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn read_register(&mut self) -> u8 {
        let at = if self.regs.index == index::CENTURY_PS2 { index::CENTURY } else { self.regs.index };
        match at {
            index::A => {
                let to_update = i128::from(NS_PER_SEC) - self.guest_ns().rem_euclid(i128::from(NS_PER_SEC));
                let soon = self.is_running() && to_update <= UPDATE_WARNING_NS;
                self.register(at) | if soon { a::UPDATE_IN_PROGRESS } else { 0 }
            }
            index::C => self.acknowledge(),
            index::SECONDS
            | index::MINUTES
            | index::HOURS
            | index::DAY_OF_WEEK
            | index::DAY
            | index::MONTH
            | index::YEAR
            | index::CENTURY => {
                self.store_time();
                self.register(at)
            }
            _ => self.register(at),
        }
    }

    /// Reading register C clears it; with ticks owed, the next follows at once.
    fn acknowledge(&mut self) -> u8 {
        self.update();
        let flags = std::mem::take(&mut self.cmos[usize::from(index::C)]);
        // A tick may be due by now. Interrupt controllers see it as an edge only if the line was low in between.
        self.irq.set(false);
        self.update();
        let free = self.register(index::C) & c::PERIODIC == 0;
        if free && self.regs.owed_ticks > 0 && self.b(b::PERIODIC) && self.regs.reinjected < REINJECT_LIMIT {
            self.regs.owed_ticks -= 1;
            self.regs.reinjected += 1;
            self.cmos[usize::from(index::C)] |= c::PERIODIC;
            self.update();
        }
        flags
    }

    fn write_register(&mut self, value: u8) {
        let at = if self.regs.index == index::CENTURY_PS2 { index::CENTURY } else { self.regs.index };
        // Flags up to now belong to the old settings.
        self.update_flags();
        match at {
            index::A => self.write_a(value),
            index::B => self.write_b(value),
            index::C | index::D => {}
            index::SECONDS
            | index::MINUTES
            | index::HOURS
            | index::DAY_OF_WEEK
            | index::DAY
            | index::MONTH
            | index::YEAR
            | index::CENTURY => {
                self.store_time();
                self.cmos[usize::from(at)] = value;
                if self.is_running() {
                    let fraction = self.guest_ns().rem_euclid(i128::from(NS_PER_SEC));
                    self.load_time(fraction);
                }
            }
            _ => self.cmos[usize::from(at)] = value,
        }
        self.update();
    }

    fn write_a(&mut self, value: u8) {
        self.store_time();
        let was_held = self.divider_held();
        self.cmos[usize::from(index::A)] = value & !a::UPDATE_IN_PROGRESS;
        if was_held && !self.divider_held() && !self.b(b::SET) {
            self.load_time(HALF_SECOND_NS);
        }
    }

    fn write_b(&mut self, value: u8) {
        self.store_time();
        let was_set = self.b(b::SET);
        let was_periodic = self.b(b::PERIODIC);
        // Setting SET clears the update interrupt's enable.
        let value = if value & b::SET != 0 { value & !b::UPDATE } else { value };
        let fraction = self.guest_ns().rem_euclid(i128::from(NS_PER_SEC));
        self.cmos[usize::from(index::B)] = value;
        if was_set && value & b::SET == 0 && !self.divider_held() {
            self.load_time(fraction);
        }
        if !was_periodic || value & b::PERIODIC == 0 {
            self.regs.owed_ticks = 0;
        }
    }
}

impl Device for Mc146818 {
    fn read(&mut self, at: At) -> u64 {
        // The index is write-only.
        if at.offset & 1 == 0 { 0xff } else { u64::from(self.read_register()) }
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        if at.offset & 1 == 0 {
            self.regs.index = value & 0x7f;
            self.regs.nmi_masked = value & 0x80 != 0;
        } else {
            self.write_register(value);
        }
    }

    fn event(&mut self, _token: Token) {
        self.update();
    }

    /// The RESET# pin (data sheet, "RESET"): interrupts and flags off; the battery keeps the rest.
    fn reset(&mut self, _kind: Reset) {
        let Self { irq: _, clock: _, timer: _, source: _, lost_ticks: _, cmos, offset_ns: _, regs, seen: _ } = self;
        cmos[usize::from(index::B)] &= !(b::PERIODIC | b::ALARM | b::UPDATE | b::SQUARE_WAVE);
        *regs = Regs::COLD;
        self.seen = self.now();
        self.cmos[usize::from(index::C)] = 0;
        self.update();
    }
}

#[cfg(test)]
mod tests;
