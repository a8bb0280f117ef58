use super::*;
use std::sync::{Arc, Mutex};

use crate::bus::{Board, Decode, DeviceRef, PciAddress, PowerRequest, Probe, Width};
use crate::event::NS_PER_SEC;
use crate::hw::bench::{Random, TimeBench, power_probe};

const PM_FUNCTION: PciAddress = PciAddress::new(1, 3);
const BASE: u16 = 0x600;

struct Bench {
    board: Board,
    device: DeviceRef<Piix4Pm>,
    irqs: Arc<Probe>,
    time: TimeBench,
    power: Arc<Mutex<Vec<PowerRequest>>>,
}

impl Bench {
    /// A board whose firmware has placed the registers at 600h.
    fn new() -> Self {
        let (sink, power) = power_probe();
        let irqs = Probe::new();
        let time = TimeBench::new();
        let mut board = Board::new();
        let id = board.reserve("PIIX4_PM");
        let pm_ports = board.map_ports(id, PM, Decode::UP_TO_4, 0, 64);
        let smbus_ports = board.map_ports(id, SMBUS, Decode::BYTES, 0, 64);
        board.map_ports(id, GPE0, Decode::UP_TO_4, 0xafe0, 4);
        board.map_ports(id, APM, Decode::BYTES, 0xb2, 2);
        let wires = Wires {
            sci: irqs.line(9),
            clock: time.clock.clone(),
            timer: time.timer(PM_TIMER_TOKEN),
            pm_ports,
            smbus_ports,
        };
        let mut spd = [0; 256];
        spd[2] = 7;
        let device = board.install(id, Piix4Pm::new(wires, sink, Options::default(), vec![spd; 8]));
        board.plug_pci(PM_FUNCTION, id, Decode::UP_TO_4, &[]);
        let mut bench = Self { board, device, irqs, time, power };
        bench.board.pci_config_write(PM_FUNCTION, 0x40, 4, u32::from(BASE) | 1);
        bench.board.pci_config_write(PM_FUNCTION, 0x80, 1, 1);
        bench
    }

    fn outw(&mut self, offset: u16, value: u32) {
        self.board.port_write(BASE + offset, Width::B2, value);
    }

    fn inw(&mut self, offset: u16) -> u32 {
        self.board.port_read(BASE + offset, Width::B2)
    }

    fn advance(&mut self, ns: u64) {
        let (board, id) = (&mut self.board, self.device.id());
        self.time.advance(ns, 10_000_000, |token| board.event(id, token));
    }
}

#[test]
fn power_on_registers_are_qemus() {
    let mut b = Bench::new();
    b.board.reset(Reset::System);
    let mut config = |at| b.board.pci_config_read(PM_FUNCTION, at, 4);
    assert_eq!((config(0), config(4), config(8)), (0x7113_8086, 0x0280_0000, 0x0680_0003));
    assert_eq!((config(0x0c), config(0x2c), config(0x3c)), (0, 0x1100_1af4, 0x0100));
    assert_eq!((config(0x40), config(0x58), config(0x5c)), (1, 0x0200_0000, 0x9000_0000));
    assert_eq!((config(0x60), config(0x64), config(0x80)), (0x6000_0000, 0x0800_0000, 0));
    assert_eq!((config(0x90), config(0xd0)), (0xb101, 0x0009_0000));
}

#[test]
fn the_ports_answer_only_where_and_while_enabled() {
    let mut b = Bench::new();
    assert_eq!(b.inw(0), 0);
    b.board.pci_config_write(PM_FUNCTION, 0x80, 1, 0);
    assert_eq!(b.inw(0), 0xffff);
    b.board.pci_config_write(PM_FUNCTION, 0x80, 1, 1);
    b.board.pci_config_write(PM_FUNCTION, 0x40, 4, 0xb000);
    assert_eq!(b.inw(0), 0xffff);
    assert_eq!(b.board.port_read(0xb000, Width::B2), 0);
    b.board.reset(Reset::System);
    assert_eq!(b.board.port_read(0xb000, Width::B2), 0xffff);
}

#[test]
fn the_timer_counts_3579545_times_a_second_in_24_bits() {
    let mut b = Bench::new();
    b.time.clock.advance(NS_PER_SEC);
    assert_eq!(b.board.port_read(BASE + 8, Width::B4), 3_579_545);
    b.time.clock.advance(4 * NS_PER_SEC);
    assert_eq!(b.board.port_read(BASE + 8, Width::B4), (5 * 3_579_545) & 0xff_ffff);
    b.board.port_write(BASE + 8, Width::B4, 0);
    assert_eq!(b.board.port_read(BASE + 8, Width::B4), (5 * 3_579_545) & 0xff_ffff);
}

#[test]
fn a_timer_overflow_raises_the_sci_until_it_is_acknowledged() {
    let mut b = Bench::new();
    b.outw(2, 1);
    b.advance(2_300_000_000);
    assert!(!b.irqs.is_high(9));
    b.advance(100_000_000);
    assert!(b.irqs.is_high(9));
    assert_eq!(b.inw(0), 1);
    b.outw(0, 1);
    assert!(!b.irqs.is_high(9));
    b.advance(2_400_000_000);
    assert!(b.irqs.is_high(9));
    b.outw(2, 0);
    assert!(!b.irqs.is_high(9));
}

#[test]
fn the_power_button_needs_a_guest_that_asked_for_it() {
    let mut b = Bench::new();
    b.board.with(&b.device, Piix4Pm::press_power_button);
    assert_eq!(b.inw(0), 0);
    b.outw(2, 0x100);
    b.board.with(&b.device, Piix4Pm::press_power_button);
    assert!(b.irqs.is_high(9));
    b.outw(0, 0x100);
    assert!(!b.irqs.is_high(9));
}

#[test]
fn sleep_types_become_power_requests() {
    let mut b = Bench::new();
    b.outw(4, 1 << 13);
    b.outw(4, 1 << 13 | 1 << 10);
    b.outw(4, 1 << 13 | 2 << 10);
    b.outw(4, 5 << 10);
    let expected = [PowerRequest::Shutdown, PowerRequest::Suspend, PowerRequest::Shutdown];
    assert_eq!(*b.power.lock().unwrap(), expected);
    assert_eq!(b.inw(4), 5 << 10 | 1);
}

#[test]
fn a_sleep_written_as_bytes_counts_once() {
    let mut b = Bench::new();
    b.board.port_write(BASE + 4, Width::B1, 1);
    b.board.port_write(BASE + 5, Width::B1, 0x20);
    assert_eq!(*b.power.lock().unwrap(), [PowerRequest::Shutdown]);
}

#[test]
fn acpi_is_always_on_and_the_apm_ports_hold_their_values() {
    let mut b = Bench::new();
    assert_eq!(b.inw(4), 1);
    b.board.port_write(0xb2, Width::B1, 0xf1);
    b.board.port_write(0xb3, Width::B1, 0x5a);
    assert_eq!(b.board.port_read(0xb2, Width::B2), 0x5af1);
    b.board.port_write(0xb2, Width::B1, 0xf0);
    b.outw(4, 0);
    assert_eq!(b.inw(4), 1);
}

#[test]
fn nothing_answers_between_and_behind_the_registers() {
    let mut b = Bench::new();
    assert_eq!((b.inw(6), b.inw(12), b.inw(62)), (0xffff, 0xffff, 0xffff));
}

#[test]
fn general_purpose_events_raise_the_sci() {
    let mut b = Bench::new();
    b.board.port_write(0xafe2, Width::B2, 1 << 2);
    b.board.with(&b.device, |d| d.raise_gpe(2));
    assert!(b.irqs.is_high(9));
    b.board.port_write(0xafe0, Width::B1, 1 << 2);
    assert!(!b.irqs.is_high(9));
}

#[test]
fn waking_leaves_its_mark() {
    let mut b = Bench::new();
    b.board.with(&b.device, |d| d.wake(WakeCause::Other));
    assert_eq!(b.inw(0), 0x8100);
}

#[test]
fn the_smbus_host_reads_an_spd_byte() {
    let mut b = Bench::new();
    let write = |b: &mut Bench, at: u16, value| b.board.port_write(0xb100 + at, Width::B1, value);
    write(&mut b, 4, 0x50 << 1 | 1);
    write(&mut b, 3, 2);
    write(&mut b, 2, 0x40 | 2 << 2);
    assert_eq!(b.board.port_read(0xb100, Width::B1), 2);
    assert_eq!(b.board.port_read(0xb105, Width::B1), 7);
}

#[test]
fn reset_is_power_on_and_lowers_the_sci() {
    let mut b = Bench::new();
    b.outw(2, 0x100);
    b.board.with(&b.device, Piix4Pm::press_power_button);
    b.board.reset(Reset::System);
    assert!(!b.irqs.is_high(9));
    let regs = b.board.with(&b.device, |d| d.regs).unwrap();
    assert_eq!(regs, Regs::COLD);
}

#[test]
fn random_programs_never_panic() {
    let mut b = Bench::new();
    let mut random = Random(9);
    for _ in 0..20_000 {
        let [low, high, port, choice, ..] = random.next().to_le_bytes();
        let base = [BASE, 0xb100, 0xafe0, 0xb2][usize::from(port >> 6)];
        let value = u32::from(low) << 8 | u32::from(high);
        match choice % 4 {
            0 => drop(b.board.port_read(base + u16::from(port & 63), Width::B4)),
            1 => b.board.port_write(base + u16::from(port & 63), Width::B2, value),
            2 => b.board.port_write(base + u16::from(port & 63), Width::B1, u32::from(low)),
            _ => b.advance(u64::from(value) * 1000),
        }
    }
}
