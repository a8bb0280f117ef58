//! The standard parallel port (SPP): data, status and control, with what the guest prints going to a character
//! device.
//!
//! Documents: IEEE 1284-1994, annex C (register model); IBM Personal Computer AT Technical Reference, "Parallel
//! printer adapter".
//!
//! The printer is always selected and has paper. The strobe takes the byte; then each look at the status moves the
//! handshake on: busy, acknowledge, ready. (SeaBIOS's INT 17h waits for the acknowledge, Linux for "not busy".)

use crate::bus::{At, Device, IrqLine, Region, Reset};
use crate::chardev::CharHandle;

/// The ports: 8 at 378h, of which three exist. Decode bytes.
pub const PORTS: Region = Region(0);

/// Offsets from the base port.
mod reg {
    pub const DATA: u64 = 0;
    pub const STATUS: u64 = 1;
    pub const CONTROL: u64 = 2;
}

mod status {
    /// The EPP time-out; QEMU's port shows it at power-on.
    pub const TIMEOUT: u8 = 1 << 0;
    pub const NO_ERROR: u8 = 1 << 3;
    pub const ONLINE: u8 = 1 << 4;
    pub const NO_ACKNOWLEDGE: u8 = 1 << 6;
    pub const NOT_BUSY: u8 = 1 << 7;
    pub const READY: u8 = TIMEOUT | NO_ERROR | ONLINE | NO_ACKNOWLEDGE | NOT_BUSY;
}

mod control {
    pub const STROBE: u8 = 1 << 0;
    pub const NOT_INIT: u8 = 1 << 2;
    pub const SELECT: u8 = 1 << 3;
    pub const INTERRUPT: u8 = 1 << 4;
    pub const DIRECTION_IN: u8 = 1 << 5;
    /// Bits 6 and 7 do not exist and read as ones.
    pub const ONES: u8 = 0xc0;
}

/// The port.
#[derive(Debug)]
pub struct Parallel {
    // Wires.
    irq: IrqLine,
    output: CharHandle,
    // Guest-visible state.
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    data: u8,
    control: u8,
    handshake: Handshake,
    /// The end of the strobe has latched the interrupt; reading the status ends it.
    acknowledged: bool,
}

/// How far the printer is with the last byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handshake {
    Ready,
    Busy,
    Acknowledging,
}

impl Regs {
    const COLD: Self = Self {
        data: 0xff,
        control: control::SELECT | control::NOT_INIT | control::ONES,
        handshake: Handshake::Ready,
        acknowledged: false,
    };
}

impl Parallel {
    /// A port that prints to `output`.
    #[must_use]
    pub fn new(irq: IrqLine, output: CharHandle) -> Self {
        Self { irq, output, regs: Regs::COLD }
    }

    /// The only place that drives the line.
    fn update_irq(&mut self) {
        self.irq.set(self.regs.acknowledged && self.regs.control & control::INTERRUPT != 0);
    }

    fn write_control(&mut self, value: u8) {
        let before = self.regs.control;
        self.regs.control = value | control::ONES;
        if value & control::NOT_INIT == 0 {
            // The printer starts over.
            self.regs.handshake = Handshake::Ready;
            return;
        }
        let strobed = before & control::STROBE == 0 && value & control::STROBE != 0;
        if strobed && value & control::SELECT != 0 && value & control::DIRECTION_IN == 0 {
            // The port has no flow control of its own that guests wait for: what finds no room is lost.
            let _ = self.output.write(&[self.regs.data]);
            self.regs.handshake = Handshake::Busy;
        }
        let strobe_ended = before & control::STROBE != 0 && value & control::STROBE == 0;
        self.regs.acknowledged |= strobe_ended && self.regs.handshake == Handshake::Busy;
    }

    fn read_status(&mut self) -> u8 {
        self.regs.acknowledged = false;
        let strobing = self.regs.control & control::STROBE != 0;
        let (value, next) = match self.regs.handshake {
            Handshake::Ready => (status::READY, Handshake::Ready),
            Handshake::Busy if strobing => (status::READY & !status::NOT_BUSY, Handshake::Busy),
            Handshake::Busy => (status::READY & !status::NOT_BUSY, Handshake::Acknowledging),
            Handshake::Acknowledging => (status::READY & !status::NOT_BUSY & !status::NO_ACKNOWLEDGE, Handshake::Ready),
        };
        self.regs.handshake = next;
        value
    }
}

impl Device for Parallel {
    fn read(&mut self, at: At) -> u64 {
        let value = match at.offset {
            reg::DATA => self.regs.data,
            reg::STATUS => self.read_status(),
            reg::CONTROL => self.regs.control,
            _ => 0xff,
        };
        self.update_irq();
        u64::from(value)
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        match at.offset {
            reg::DATA => self.regs.data = value,
            reg::CONTROL => self.write_control(value),
            _ => {}
        }
        self.update_irq();
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { irq: _, output: _, regs } = self;
        *regs = Regs::COLD;
        self.update_irq();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::bus::{Probe, Width};
    use crate::hw::bench::{CharProbe, Random};

    struct Bench {
        chip: Parallel,
        irqs: Arc<Probe>,
        printer: Arc<CharProbe>,
    }

    impl Bench {
        fn new() -> Self {
            let irqs = Probe::new();
            let printer = CharProbe::new();
            Self { chip: Parallel::new(irqs.line(7), printer.handle()), irqs, printer }
        }

        fn inb(&mut self, offset: u64) -> u64 {
            self.chip.read(At { region: PORTS, offset, width: Width::B1 })
        }

        fn outb(&mut self, offset: u64, value: u64) {
            self.chip.write(At { region: PORTS, offset, width: Width::B1 }, value);
        }
    }

    #[test]
    fn power_on_registers_are_qemus() {
        let mut b = Bench::new();
        assert_eq!([0, 1, 2].map(|offset| b.inb(offset)), [0xff, 0xd9, 0xcc]);
    }

    #[test]
    fn the_strobe_prints_the_byte_once() {
        let mut b = Bench::new();
        b.outb(0, u64::from(b'p'));
        b.outb(2, 0x0d);
        b.outb(2, 0x0d);
        b.outb(2, 0x0c);
        assert_eq!(b.printer.state().output, b"p");
    }

    #[test]
    fn the_status_goes_through_busy_and_acknowledge_as_qemus_does() {
        let mut b = Bench::new();
        b.outb(2, 0x0d);
        assert_eq!(b.inb(1), 0x59);
        b.outb(2, 0x0c);
        assert_eq!([1, 1, 1, 1].map(|offset| b.inb(offset)), [0x59, 0x19, 0xd9, 0xd9]);
    }

    #[test]
    fn the_acknowledge_interrupts_until_the_status_is_read() {
        let mut b = Bench::new();
        b.outb(2, 0x1d);
        assert!(!b.irqs.is_high(7));
        b.outb(2, 0x1c);
        assert!(b.irqs.is_high(7));
        let _ = b.inb(1);
        assert!(!b.irqs.is_high(7));
    }

    #[test]
    fn reset_is_power_on_and_lowers_the_line() {
        let mut b = Bench::new();
        b.outb(0, 1);
        b.outb(2, 0x1d);
        b.outb(2, 0x1c);
        b.chip.reset(Reset::System);
        assert_eq!(b.chip.regs, Regs::COLD);
        assert!(!b.irqs.is_high(7));
    }

    #[test]
    fn random_programs_never_panic() {
        let mut b = Bench::new();
        let mut random = Random(23);
        for _ in 0..10_000 {
            let [offset, value, ..] = random.next().to_le_bytes();
            b.outb(u64::from(offset % 8), u64::from(value));
            let _ = b.inb(u64::from(value % 8));
        }
    }
}
