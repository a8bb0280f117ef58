use super::*;
use std::sync::Arc;

use crate::bus::{Probe, Width};
use crate::hw::bench::{CharProbe, Random, TimeBench};

struct Bench {
    chip: Uart16550,
    irqs: Arc<Probe>,
    line: Arc<CharProbe>,
    time: TimeBench,
}

impl Bench {
    fn new() -> Self {
        let time = TimeBench::new();
        let irqs = Probe::new();
        let line = CharProbe::new();
        let wires = Wires {
            irq: irqs.line(4),
            clock: time.clock.clone(),
            timer: time.timer(TIMEOUT_TOKEN),
            output: line.handle(),
        };
        Self { chip: Uart16550::new(wires, BAUD_BASE), irqs, line, time }
    }

    fn inb(&mut self, offset: u64) -> u8 {
        self.chip.read(At { region: PORTS, offset, width: Width::B1 }).to_le_bytes()[0]
    }

    fn outb(&mut self, offset: u64, value: u8) {
        self.chip.write(At { region: PORTS, offset, width: Width::B1 }, u64::from(value));
    }

    fn advance(&mut self, ns: u64) {
        let chip = &mut self.chip;
        self.time.advance(ns, 50_000, |token| Device::event(chip, token));
    }
}

#[test]
fn power_on_registers_are_qemus() {
    let mut b = Bench::new();
    let values = [0, 1, 2, 3, 4, 5, 6, 7].map(|offset| b.inb(offset));
    assert_eq!(values, [0x00, 0x00, 0x01, 0x00, 0x08, 0x60, 0xb0, 0x00]);
}

#[test]
fn reading_the_byte_lowers_the_line() {
    let mut b = Bench::new();
    b.outb(reg::IER, 1);
    b.chip.receive(b"x");
    assert!(b.irqs.is_high(4));
    assert_eq!((b.inb(reg::IIR_FCR), b.inb(reg::LSR)), (0x04, 0x61));
    assert_eq!(b.inb(reg::DATA), b'x');
    assert!(!b.irqs.is_high(4));
}

#[test]
fn without_fifos_the_second_byte_overruns_the_first() {
    let mut b = Bench::new();
    b.outb(reg::IER, 4);
    assert_eq!(b.chip.room(), 1);
    b.chip.receive(b"ab");
    assert_eq!(b.inb(reg::IIR_FCR), 0x06);
    assert_eq!(b.inb(reg::LSR), 0x63);
    assert!(!b.irqs.is_high(4));
    assert_eq!(b.inb(reg::DATA), b'b');
}

#[test]
fn the_fifo_interrupts_at_its_trigger_level() {
    let mut b = Bench::new();
    b.outb(reg::IIR_FCR, 0x81); // 8 bytes
    b.outb(reg::IER, 1);
    b.chip.receive(b"1234567");
    assert!(!b.irqs.is_high(4));
    b.chip.receive(b"8");
    assert_eq!(b.inb(reg::IIR_FCR), 0xc4);
    assert_eq!(b.inb(reg::DATA), b'1');
    assert!(!b.irqs.is_high(4));
}

#[test]
fn bytes_below_the_level_time_out_after_four_characters() {
    let mut b = Bench::new();
    b.outb(reg::LCR, 3); // 9600 8N1: a character takes 1.04 ms
    b.outb(reg::IIR_FCR, 0xc1);
    b.outb(reg::IER, 1);
    b.chip.receive(b"ab");
    b.advance(4_000_000);
    assert!(!b.irqs.is_high(4));
    b.advance(300_000);
    assert_eq!(b.inb(reg::IIR_FCR), 0xcc);
    assert_eq!(b.inb(reg::DATA), b'a');
    assert!(!b.irqs.is_high(4));
    b.advance(4_300_000);
    assert!(b.irqs.is_high(4));
}

#[test]
fn a_full_fifo_drops_what_comes_after() {
    let mut b = Bench::new();
    b.outb(reg::IIR_FCR, 1);
    assert_eq!(b.chip.room(), 16);
    b.chip.receive(b"0123456789abcdefg");
    assert_eq!(b.chip.room(), 0);
    assert_eq!(b.inb(reg::LSR) & 2, 2);
    assert_eq!(b.line.state().accepts, 0);
    let bytes: Vec<u8> = (0..16).map(|_| b.inb(reg::DATA)).collect();
    assert_eq!(bytes, b"0123456789abcdef");
    assert_eq!(b.line.state().accepts, 1);
}

#[test]
fn each_byte_sent_gives_an_interrupt_edge() {
    let mut b = Bench::new();
    b.outb(reg::IER, 2);
    assert_eq!(b.inb(reg::IIR_FCR), 0x02);
    assert!(!b.irqs.is_high(4));
    b.outb(reg::DATA, b'h');
    b.outb(reg::DATA, b'i');
    assert_eq!(b.irqs.rising_edges(), 3);
    assert_eq!(b.line.state().output, b"hi");
    b.outb(reg::IER, 0);
    assert!(!b.irqs.is_high(4));
}

#[test]
fn a_full_back_end_holds_the_transmitter() {
    let mut b = Bench::new();
    b.line.set_room(1);
    b.outb(reg::IIR_FCR, 1);
    b.outb(reg::IER, 2);
    let _ = b.inb(reg::IIR_FCR);
    b.outb(reg::DATA, b'a');
    b.outb(reg::DATA, b'b');
    assert_eq!(b.inb(reg::LSR), 0);
    assert!(!b.irqs.is_high(4));
    b.line.set_room(usize::MAX);
    b.chip.writable();
    assert_eq!(b.line.state().output, b"ab");
    assert_eq!(b.inb(reg::LSR), 0x60);
    assert!(b.irqs.is_high(4));
}

#[test]
fn the_divisor_and_line_control_reach_the_back_end() {
    let mut b = Bench::new();
    b.outb(reg::LCR, 0x80);
    b.outb(0, 1);
    b.outb(1, 0);
    assert_eq!((b.inb(0), b.inb(1)), (1, 0));
    b.outb(reg::LCR, 0x1f);
    let expected = SerialParameters { speed: 115_200, data_bits: 8, stop_bits: 2, parity: 'E' };
    assert_eq!(b.line.state().parameters, Some(expected));
    b.outb(reg::LCR, 0x5f);
    assert!(b.line.state().breaking);
}

#[test]
fn loop_back_returns_bytes_and_modem_lines() {
    let mut b = Bench::new();
    b.outb(reg::MCR, 0x10);
    assert_eq!(b.inb(reg::MSR), 0x0b);
    b.outb(reg::DATA, 0x5a);
    b.chip.receive(b"x");
    assert_eq!(b.inb(reg::DATA), 0x5a);
    assert_eq!(b.inb(reg::LSR), 0x60);
    b.outb(reg::MCR, 0x15);
    assert_eq!(b.inb(reg::MSR), 0x62);
    b.outb(reg::MCR, 0x11);
    assert_eq!(b.inb(reg::MSR), 0x24);
    assert!(b.line.state().output.is_empty());
    assert_eq!(b.chip.room(), 0);
}

#[test]
fn modem_changes_interrupt_until_they_are_read() {
    let mut b = Bench::new();
    b.outb(reg::IER, 8);
    b.outb(reg::MCR, 0x10);
    assert_eq!(b.inb(reg::IIR_FCR), 0);
    assert!(b.irqs.is_high(4));
    let _ = b.inb(reg::MSR);
    assert!(!b.irqs.is_high(4));
}

#[test]
fn a_break_is_a_zero_with_its_status_bit() {
    let mut b = Bench::new();
    b.chip.event(CharEvent::Break);
    assert_eq!(b.inb(reg::LSR), 0x71);
    assert_eq!((b.inb(reg::DATA), b.inb(reg::LSR)), (0, 0x60));
}

#[test]
fn the_scratch_register_keeps_its_value() {
    let mut b = Bench::new();
    b.outb(7, 0xa5);
    assert_eq!(b.inb(7), 0xa5);
}

#[test]
fn reset_is_power_on_and_lowers_the_line() {
    let mut b = Bench::new();
    b.outb(reg::IIR_FCR, 0xc1);
    b.outb(reg::IER, 0x0f);
    b.chip.receive(&[1; 16]);
    Device::reset(&mut b.chip, Reset::System);
    assert_eq!(b.chip.regs, Regs::cold());
    assert!(!b.irqs.is_high(4));
    assert_eq!(b.line.state().accepts, 1);
}

/// What vm-superio's serial port has in common with a 16550A: without FIFOs it does as we do.
#[test]
fn vm_superio_agrees_where_it_models_the_chip() {
    struct Trigger(std::sync::atomic::AtomicU32);
    impl vm_superio::Trigger for Trigger {
        type E = std::io::Error;
        fn trigger(&self) -> Result<(), Self::E> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }
    let mut theirs = vm_superio::Serial::new(Trigger(Default::default()), Vec::new());
    let mut b = Bench::new();
    let writes = [(reg::LCR, 0x83), (0, 1), (1, 0), (reg::LCR, 0x03), (reg::MCR, 0x0b), (7, 0x42), (reg::DATA, b'A')];
    for (offset, value) in writes {
        b.outb(offset, value);
        theirs.write(u8::try_from(offset).unwrap(), value).unwrap();
    }
    for offset in [reg::IER, reg::IIR_FCR, reg::LCR, reg::MCR, reg::LSR, reg::MSR, 7] {
        let mine = b.inb(offset);
        let other = theirs.read(u8::try_from(offset).unwrap());
        // Theirs always claims to have FIFOs.
        let mask = if offset == reg::IIR_FCR { 0x0f } else { 0xff };
        assert_eq!(mine & mask, other & mask, "register {offset}");
    }
    b.chip.receive(b"z");
    theirs.enqueue_raw_bytes(b"z").unwrap();
    assert_eq!(b.inb(reg::LSR), theirs.read(5));
    assert_eq!(b.inb(reg::DATA), theirs.read(0));
    assert_eq!(b.inb(reg::LSR), theirs.read(5));
    assert_eq!(b.line.state().output, *theirs.writer());
}

#[test]
fn random_programs_never_panic_and_stay_bounded() {
    let mut b = Bench::new();
    let mut random = Random(17);
    for _ in 0..50_000 {
        let [offset, value, choice, ..] = random.next().to_le_bytes();
        match choice % 6 {
            0 | 1 => b.outb(u64::from(offset % 8), value),
            2 | 3 => drop(b.inb(u64::from(offset % 8))),
            4 => b.line.set_room(usize::from(value % 4)),
            _ => b.chip.receive(&[value; 3]),
        }
        assert!(b.chip.regs.received.len() <= FIFO && b.chip.regs.to_send.len() <= FIFO);
    }
}
