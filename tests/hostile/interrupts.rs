//! How the machine's own interrupt controllers and timers are wired to each other and to the processors.

use dromaius::bus::{GuestBus, Width};

use crate::machine::Bench;

fn outb(bus: &dyn GuestBus, writes: &[(u16, u32)]) {
    writes.iter().for_each(|(port, value)| bus.port_write(*port, Width::B1, *value));
}

/// As a BIOS does it: vectors 08h and 70h, only IRQ 0 and 2 open, and the bootstrap processor's LINT0.
fn set_up_pics(bench: &Bench) {
    let bus = bench.bus();
    let boot = bench.processors[0].apic();
    boot.write(0xf0, 0x1ff);
    boot.write(0x350, 0x700);
    let words = [(0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0xfa)];
    outb(bus, &words);
    outb(bus, &[(0xa0, 0x11), (0xa1, 0x70), (0xa1, 2), (0xa1, 1), (0xa1, 0xff)]);
}

fn route(bus: &dyn GuestBus, pin: u8, low: u32, high: u32) {
    for (register, value) in [(0x11 + 2 * pin, high), (0x10 + 2 * pin, low)] {
        bus.mmio_write(0xfec0_0000, &[register, 0, 0, 0]);
        bus.mmio_write(0xfec0_0010, &value.to_le_bytes());
    }
}

/// A tick of the timer at 1 kHz.
fn tick(bench: &Bench) {
    bench.clock.advance(1_000_000);
    bench.serve();
}

fn start_timer(bus: &dyn GuestBus) {
    outb(bus, &[(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)]);
}

#[test]
fn the_timer_reaches_the_bootstrap_processor_through_the_8259() {
    let bench = Bench::new("16");
    let (boot, other) = (&bench.processors[0], &bench.processors[1]);
    set_up_pics(&bench);
    start_timer(bench.bus());
    tick(&bench);
    assert_eq!((boot.pins.waiting(), other.pins.waiting()), (true, false));
    assert_eq!(boot.apic().acknowledge(), Some(8));
    assert!(!boot.pins.waiting());
    outb(bench.bus(), &[(0x20, 0x20)]);
    tick(&bench);
    assert_eq!(boot.apic().acknowledge(), Some(8));
}

#[test]
fn the_timer_is_on_pin_2_of_the_io_apic() {
    let bench = Bench::new("16");
    let other = &bench.processors[1];
    other.apic().write(0xf0, 0x1ff);
    route(bench.bus(), 2, 0x31, 0x0100_0000);
    start_timer(bench.bus());
    tick(&bench);
    assert_eq!(other.apic().acknowledge(), Some(0x31));
    other.apic().write(0xb0, 0);
    tick(&bench);
    assert!(other.pins.waiting());
}

#[test]
fn the_hpet_takes_the_timers_interrupt_away() {
    let bench = Bench::new("16");
    let boot = &bench.processors[0];
    set_up_pics(&bench);
    start_timer(bench.bus());
    bench.bus().mmio_write(0xfed0_0010, &2u32.to_le_bytes());
    while boot.apic().acknowledge().is_some() {
        outb(bench.bus(), &[(0x20, 0x20)]);
    }
    tick(&bench);
    assert!(!boot.pins.waiting());
    bench.bus().mmio_write(0xfed0_0010, &0u32.to_le_bytes());
    tick(&bench);
    assert!(boot.pins.waiting());
}

#[test]
fn a_level_triggered_interrupt_is_ended_without_the_board() {
    let bench = Bench::new("16");
    let boot = &bench.processors[0];
    boot.apic().write(0xf0, 0x1ff);
    // The clock's periodic interrupt stays asserted until register C is read.
    route(bench.bus(), 8, 0x8041, 0);
    outb(bench.bus(), &[(0x70, 0x0b), (0x71, 0x42)]);
    tick(&bench);
    assert_eq!(boot.apic().acknowledge(), Some(0x41));
    let board = bench.built.machine.board().lock();
    boot.apic().write(0xb0, 0);
    assert!(boot.pins.waiting(), "the level comes again at its EOI");
    drop(board);
    outb(bench.bus(), &[(0x70, 0x0c)]);
    bench.bus().port_read(0x71, Width::B1);
    boot.apic().acknowledge();
    boot.apic().write(0xb0, 0);
    assert!(!boot.pins.waiting());
}

#[test]
fn a_local_timer_needs_no_board() {
    let bench = Bench::new("16");
    let apic = bench.processors[1].apic();
    let board = bench.built.machine.board().lock();
    apic.write(0xf0, 0x1ff);
    apic.write(0x3e0, 0xb);
    apic.write(0x320, 0x41);
    apic.write(0x380, 1000);
    drop(board);
    bench.clock.advance(999);
    bench.serve();
    assert!(!bench.processors[1].pins.waiting());
    bench.clock.advance(1);
    bench.serve();
    assert_eq!(apic.acknowledge(), Some(0x41));
}

#[test]
fn a_write_to_the_message_window_is_an_interrupt() {
    let bench = Bench::new("16");
    let other = &bench.processors[1];
    other.apic().write(0xf0, 0x1ff);
    bench.bus().mmio_write(0xfee0_1000, &0x45u32.to_le_bytes());
    assert_eq!(other.apic().acknowledge(), Some(0x45));
}

#[test]
fn processors_start_each_other() {
    let bench = Bench::new("16");
    let boot = bench.processors[0].apic();
    boot.write(0x300, 0xc_4500);
    boot.write(0x300, 0xc_4610);
    assert_eq!((bench.processors[0].pins.calls(), bench.processors[1].pins.calls()), (0, 2));
}

#[test]
fn a_reset_forgets_what_was_pending() {
    let bench = Bench::new("16");
    let boot = &bench.processors[0];
    set_up_pics(&bench);
    start_timer(bench.bus());
    tick(&bench);
    boot.apic().write(0xf0, 0x1ff);
    bench.bus().mmio_write(0xfee0_0000, &0x45u32.to_le_bytes());
    bench.reset();
    assert_eq!((boot.apic().read(0xf0), boot.apic().read(0x220)), (0xff, 0));
    assert_eq!(bench.bus().port_read(0x21, Width::B1), 0);
}
