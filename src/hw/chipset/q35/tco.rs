//! The TCO watchdog of the ICH9.
//!
//! Documents: Intel I/O Controller Hub 9 data sheet (316972), section 13.9 "System Management TCO Registers".
//!
//! The timer counts in steps of 0.6 s. When it runs out a first time the status bit is set (an SMI would follow); a
//! second time, the board is reset, unless NO_REBOOT says otherwise. Intruder detection and the message registers
//! are storage.

use crate::bus::{PowerRequest, PowerSink};
use crate::event::{Clock, Timer};

/// A step of the counter (13.9.1): 0.6 s.
const TICK_NS: u64 = 600_000_000;
/// Length of the block.
pub(super) const LEN: u64 = 0x20;

/// Offsets (13.9).
mod reg {
    pub const RELOAD: usize = 0x00;
    pub const DATA_IN: usize = 0x02;
    pub const DATA_OUT: usize = 0x03;
    pub const STATUS1: usize = 0x04;
    pub const STATUS2: usize = 0x06;
    pub const CONTROL1: usize = 0x08;
    pub const CONTROL2: usize = 0x0a;
    pub const MESSAGE1: usize = 0x0c;
    pub const MESSAGE2: usize = 0x0d;
    pub const WATCHDOG: usize = 0x0e;
    pub const SW_IRQ: usize = 0x10;
    pub const TIMER: usize = 0x12;
}

/// TCO1_STS (13.9.4).
mod status1 {
    pub const SW_TO_SMI: u16 = 1 << 1;
    pub const OS_TO_SMI: u16 = 1 << 2;
    pub const TIMEOUT: u16 = 1 << 3;
    pub const CLEARABLE: u16 = 0x137f;
}

/// TCO2_STS (13.9.5).
mod status2 {
    pub const SECOND_TIMEOUT: u16 = 1 << 1;
    pub const CLEARABLE: u16 = 0x1f;
}

/// TCO1_CNT (13.9.6).
mod control1 {
    pub const HALT: u16 = 1 << 11;
    pub const LOCK: u16 = 1 << 12;
    pub const WRITABLE: u16 = 0x1b00;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    status1: u16,
    status2: u16,
    control1: u16,
    control2: u16,
    data: [u8; 2],
    message: [u8; 2],
    watchdog: u8,
    sw_irq: u8,
    /// The reload value, in steps.
    timer: u16,
    /// The count at the last reload or stop.
    count: u16,
    /// When the counter reaches zero; 0 while it stands.
    expires_ns: u64,
}

impl Regs {
    const COLD: Self = Self {
        status1: 0,
        status2: 0,
        control1: 0,
        control2: 8,
        data: [0; 2],
        message: [0; 2],
        watchdog: 0,
        sw_irq: 3,
        timer: 4,
        count: 0,
        expires_ns: 0,
    };
}

/// The watchdog.
pub(super) struct Tco {
    // Wires.
    clock: Clock,
    timer: Timer,
    power: PowerSink,
    // Guest-visible state.
    regs: Regs,
}

impl Tco {
    /// A watchdog that stands. `timer` raises the event that calls [`Tco::due`].
    pub fn new(clock: Clock, timer: Timer, power: PowerSink) -> Self {
        Self { clock, timer, power, regs: Regs::COLD }
    }

    pub fn reset(&mut self) {
        self.regs = Regs::COLD;
        self.timer.cancel();
    }

    fn halted(&self) -> bool {
        self.regs.control1 & control1::HALT != 0
    }

    /// Steps that are left now.
    fn count(&self) -> u16 {
        if self.regs.expires_ns == 0 {
            return self.regs.count;
        }
        let left = self.regs.expires_ns.saturating_sub(self.clock.now_ns());
        u16::try_from(left.div_ceil(TICK_NS)).unwrap_or(u16::MAX)
    }

    fn run_for(&mut self, steps: u16) {
        // The counter is loaded with at least 2 (13.9.10: smaller values are ignored).
        self.regs.count = steps;
        if self.halted() {
            self.regs.expires_ns = 0;
            self.timer.cancel();
            return;
        }
        self.regs.expires_ns = self.clock.now_ns() + u64::from(steps) * TICK_NS;
        self.timer.set(self.regs.expires_ns);
    }

    /// The timer's event; `no_reboot`: GCS.NO_REBOOT.
    pub fn due(&mut self, no_reboot: bool) {
        if self.regs.expires_ns == 0 || self.clock.now_ns() < self.regs.expires_ns {
            return;
        }
        let again = self.regs.status1 & status1::TIMEOUT != 0;
        if !again {
            self.regs.status1 |= status1::TIMEOUT;
            self.run_for(self.regs.timer);
            return;
        }
        self.regs.status2 |= status2::SECOND_TIMEOUT;
        if no_reboot {
            self.run_for(self.regs.timer);
            return;
        }
        (self.power)(PowerRequest::Watchdog);
        self.regs.count = 0;
        self.regs.expires_ns = 0;
        self.timer.cancel();
    }

    fn bytes(&self) -> [u8; LEN as usize] {
        let regs = &self.regs;
        let mut bytes = [0; LEN as usize];
        let mut word = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        word(reg::RELOAD, self.count());
        word(reg::STATUS1, regs.status1);
        word(reg::STATUS2, regs.status2);
        word(reg::CONTROL1, regs.control1);
        word(reg::CONTROL2, regs.control2);
        word(reg::TIMER, regs.timer);
        (bytes[reg::DATA_IN], bytes[reg::DATA_OUT]) = (regs.data[0], regs.data[1]);
        (bytes[reg::MESSAGE1], bytes[reg::MESSAGE2]) = (regs.message[0], regs.message[1]);
        (bytes[reg::WATCHDOG], bytes[reg::SW_IRQ]) = (regs.watchdog, regs.sw_irq);
        bytes
    }

    /// Reads `width` bytes (1, 2 or 4).
    pub fn read(&self, offset: u64, width: u64) -> u64 {
        let bytes = self.bytes();
        let byte = |i: u64| bytes.get(usize::try_from(offset + i).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        (0..width).fold(0, |value, i| value | u64::from(byte(i)) << (8 * i))
    }

    /// Writes `width` bytes (1, 2 or 4).
    pub fn write(&mut self, offset: u64, width: u64, value: u64) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(width).unwrap_or(0);
        let new = value.to_le_bytes();
        // Word registers are written as a whole, with the bytes that stay as they are; those that clear by ones get
        // zeros there.
        let touched = |at: usize| start < at + 2 && start + len > at;
        let mut merged = self.bytes();
        let mut ones = [0; LEN as usize];
        for (index, byte) in new.iter().take(len).enumerate() {
            if let (Some(old), Some(one)) = (merged.get_mut(start + index), ones.get_mut(start + index)) {
                (*old, *one) = (*byte, *byte);
            }
        }
        let word = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if touched(reg::CONTROL1) {
            self.write_control1(word(&merged, reg::CONTROL1));
        }
        if touched(reg::STATUS1) {
            self.regs.status1 &= !(word(&ones, reg::STATUS1) & status1::CLEARABLE);
        }
        if touched(reg::STATUS2) {
            self.regs.status2 &= !(word(&ones, reg::STATUS2) & status2::CLEARABLE);
        }
        if touched(reg::CONTROL2) {
            self.regs.control2 = word(&merged, reg::CONTROL2) & 0x3f;
        }
        if touched(reg::TIMER) {
            self.regs.timer = word(&merged, reg::TIMER) & 0x3ff;
        }
        if start < reg::RELOAD + 2 {
            self.run_for(self.regs.timer);
        }
        for at in start..start.saturating_add(len) {
            self.write_byte(at, merged.get(at).copied().unwrap_or(0));
        }
    }

    fn write_byte(&mut self, at: usize, value: u8) {
        match at {
            reg::DATA_IN => {
                self.regs.data[0] = value;
                self.regs.status1 |= status1::SW_TO_SMI;
            }
            reg::DATA_OUT => {
                self.regs.data[1] = value;
                self.regs.status1 |= status1::OS_TO_SMI;
            }
            reg::MESSAGE1 => self.regs.message[0] = value,
            reg::MESSAGE2 => self.regs.message[1] = value,
            reg::WATCHDOG => self.regs.watchdog = value,
            reg::SW_IRQ => self.regs.sw_irq = value & 3,
            _ => {}
        }
    }

    fn write_control1(&mut self, value: u16) {
        let locked = self.regs.control1 & control1::LOCK;
        let count = self.count();
        let was = self.halted();
        self.regs.control1 = value & control1::WRITABLE | locked;
        if was != self.halted() {
            // It stands, or goes on from where it stood.
            self.run_for(if was && count == 0 { self.regs.timer } else { count });
        }
    }
}
