//! The ACPI fixed hardware of Intel's south bridges: PM1 events, PM1 control, and the PM timer.
//!
//! Documents: ACPI 6.5, 4.8 (fixed hardware). The sleep types are those of QEMU's tables.
//!
//! ACPI mode is always on, as where there is no SMM: SCI_EN cannot be cleared.

use crate::bus::{IrqLine, PowerRequest, PowerSink};
use crate::event::{Clock, NS_PER_SEC, Timer};

/// The PM timer's frequency (ACPI 4.8.3.3).
pub const PM_TIMER_HZ: u64 = 3_579_545;
const PM_TIMER_MASK: u64 = 0xff_ffff;
/// The status bit is set whenever the timer's highest bit, number 23, changes.
const PM_TIMER_HALF: u64 = 1 << 23;

/// PM1 status and enable (ACPI 4.8.3.1).
pub(super) mod pm1 {
    pub const TIMER: u16 = 1 << 0;
    pub const GLOBAL_LOCK: u16 = 1 << 5;
    pub const POWER_BUTTON: u16 = 1 << 8;
    pub const RTC: u16 = 1 << 10;
    pub const WAKE: u16 = 1 << 15;
    /// What raises the SCI.
    pub const EVENTS: u16 = TIMER | GLOBAL_LOCK | POWER_BUTTON | RTC;
}

/// PM1 control (ACPI 4.8.3.2.1).
mod control {
    pub const SCI_ENABLE: u16 = 1 << 0;
    pub const SLEEP_ENABLE: u16 = 1 << 13;

    pub fn sleep_type(value: u16) -> u16 {
        value >> 10 & 7
    }
}

/// Sleep types of QEMU's \_S5 and \_S3 objects.
const SLEEP_S5: u16 = 0;
const SLEEP_S3: u16 = 1;

/// Why the machine wakes from suspend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WakeCause {
    /// The real-time clock's alarm.
    Rtc,
    /// The PM timer.
    PmTimer,
    /// The power button, a key, or the monitor.
    Other,
}

/// What a guest may ask for by the sleep types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SleepOptions {
    /// Suspend to RAM is refused.
    pub disable_s3: bool,
    /// Suspend to disk is refused.
    pub disable_s4: bool,
    /// The sleep type of suspend to disk.
    pub s4_type: u8,
}

/// What [`AcpiPm`] is connected to.
pub(super) struct PmWires {
    /// The system control interrupt.
    pub sci: IrqLine,
    /// Machine time.
    pub clock: Clock,
    /// Raises an event of the chip, which calls [`AcpiPm::update`].
    pub timer: Timer,
    /// The power switch.
    pub power: PowerSink,
}

/// The registers.
pub(super) struct AcpiPm {
    // Wires.
    wires: PmWires,
    // Options.
    sleep: SleepOptions,
    // Guest-visible state.
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    status: u16,
    enable: u16,
    control: u16,
    /// The PM timer count from which the next overflow is seen.
    overflow_at: u64,
}

impl Regs {
    fn cold(ticks: u64) -> Self {
        Self { status: 0, enable: 0, control: control::SCI_ENABLE, overflow_at: next_overflow(ticks) }
    }
}

fn next_overflow(ticks: u64) -> u64 {
    (ticks / PM_TIMER_HALF + 1) * PM_TIMER_HALF
}

fn ticks_at(now_ns: u64) -> u64 {
    let ticks = u128::from(now_ns) * u128::from(PM_TIMER_HZ) / u128::from(NS_PER_SEC);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The first time at which the timer shows `ticks`.
fn time_of(ticks: u64) -> u64 {
    let ns = (u128::from(ticks) * u128::from(NS_PER_SEC)).div_ceil(u128::from(PM_TIMER_HZ));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Replaces byte `index` (0 or 1) of a word.
pub(super) fn set_byte(word: &mut u16, index: u64, byte: u8) {
    let [low, high] = word.to_le_bytes();
    *word = if index == 0 { u16::from_le_bytes([byte, high]) } else { u16::from_le_bytes([low, byte]) };
}

impl AcpiPm {
    /// The registers after power-on.
    pub fn new(wires: PmWires, sleep: SleepOptions) -> Self {
        let regs = Regs::cold(ticks_at(wires.clock.now_ns()));
        Self { wires, sleep, regs }
    }

    /// The user pressed the power button. Without ACPI in the guest nothing comes of it. [`AcpiPm::update`] must
    /// follow, as after all calls that change something.
    pub fn press_power_button(&mut self) {
        if self.hears_power_button() {
            self.regs.status |= pm1::POWER_BUTTON;
        }
    }

    /// The machine wakes from suspend to RAM.
    pub fn wake(&mut self, cause: WakeCause) {
        self.regs.status |= pm1::WAKE
            | match cause {
                WakeCause::Rtc => pm1::RTC,
                WakeCause::PmTimer => pm1::TIMER,
                WakeCause::Other => pm1::POWER_BUTTON,
            };
    }

    /// Whether the guest listens to the power button: ACPI is in use.
    pub fn hears_power_button(&self) -> bool {
        self.regs.enable & pm1::POWER_BUTTON != 0
    }

    fn ticks(&self) -> u64 {
        ticks_at(self.wires.clock.now_ns())
    }

    /// The PM1 status with the timer's bit brought up to date.
    fn refresh_status(&mut self) {
        if self.ticks() >= self.regs.overflow_at {
            self.regs.status |= pm1::TIMER;
        }
    }

    /// The only place that drives the SCI and sets the timer. `others`: general purpose events want the SCI.
    pub fn update(&mut self, others: bool) {
        self.refresh_status();
        let regs = &self.regs;
        let fixed = regs.status & regs.enable & pm1::EVENTS != 0;
        self.wires.sci.set(fixed || others);
        if regs.enable & pm1::TIMER != 0 && regs.status & pm1::TIMER == 0 {
            self.wires.timer.set(time_of(regs.overflow_at));
        } else {
            self.wires.timer.cancel();
        }
    }

    /// The register block: status, enable, control, and the timer at 8.
    pub fn bytes(&mut self) -> [u8; 12] {
        self.refresh_status();
        let regs = &self.regs;
        let timer = u32::try_from(self.ticks() & PM_TIMER_MASK).unwrap_or(0);
        let mut bytes = [0xff; 12];
        bytes[0..2].copy_from_slice(&regs.status.to_le_bytes());
        bytes[2..4].copy_from_slice(&regs.enable.to_le_bytes());
        bytes[4..6].copy_from_slice(&regs.control.to_le_bytes());
        bytes[8..12].copy_from_slice(&timer.to_le_bytes());
        bytes
    }

    /// A write of one byte of the block.
    pub fn write_byte(&mut self, offset: u64, byte: u8) {
        match offset {
            0 | 1 => {
                self.refresh_status();
                let cleared = u16::from(byte) << (8 * offset);
                if cleared & self.regs.status & pm1::TIMER != 0 {
                    self.regs.overflow_at = next_overflow(self.ticks());
                }
                self.regs.status &= !cleared;
            }
            2 | 3 => set_byte(&mut self.regs.enable, offset - 2, byte),
            4 | 5 => {
                set_byte(&mut self.regs.control, offset - 4, byte);
                let value = self.regs.control;
                self.regs.control = value & !control::SLEEP_ENABLE | control::SCI_ENABLE;
                if value & control::SLEEP_ENABLE != 0 {
                    self.fall_asleep(control::sleep_type(value));
                }
            }
            _ => {}
        }
    }

    fn fall_asleep(&self, kind: u16) {
        let request = match kind {
            SLEEP_S5 => PowerRequest::Shutdown,
            SLEEP_S3 if !self.sleep.disable_s3 => PowerRequest::Suspend,
            // Suspend to disk: the guest has saved itself, so the power goes off.
            kind if kind == u16::from(self.sleep.s4_type) && !self.sleep.disable_s4 => PowerRequest::Shutdown,
            _ => return,
        };
        (self.wires.power)(request);
    }

    /// Back to the power-on state.
    pub fn reset(&mut self) {
        self.regs = Regs::cold(self.ticks());
    }
}
