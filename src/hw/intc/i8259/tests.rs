use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::bus::Width;
use crate::hw::bench::Random;

struct Bench {
    pair: Arc<PicPair>,
    ports: PicPorts,
    intr: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        let intr = Arc::new(AtomicBool::new(false));
        let sink = Arc::clone(&intr);
        let pair = PicPair::new(Box::new(move |high| sink.store(high, Ordering::Relaxed)));
        Self { ports: PicPorts::new(Arc::clone(&pair)), pair, intr }
    }

    /// As a PC's BIOS leaves it: vectors 08h and 70h, everything unmasked.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.initialize(0x01, 0x01);
        bench
    }

    fn initialize(&mut self, master_icw4: u8, slave_icw4: u8) {
        for (port, words) in [(0x20, [0x11, 0x08, 0x04, master_icw4]), (0xa0, [0x11, 0x70, 0x02, slave_icw4])] {
            self.outb(port, words[0]);
            words[1..].iter().for_each(|word| self.outb(port + 1, *word));
            self.outb(port + 1, 0);
        }
    }

    fn at(port: u16) -> At {
        let (region, base) = match port {
            0x20 | 0x21 => (MASTER, 0x20),
            0xa0 | 0xa1 => (SLAVE, 0xa0),
            _ => (ELCR, 0x4d0),
        };
        At { region, offset: u64::from(port - base), width: Width::B1 }
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.ports.write(Self::at(port), value.into());
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.ports.read(Self::at(port)).to_le_bytes()[0]
    }

    fn edge(&self, irq: u8) {
        self.pair.set_irq(irq, true);
        self.pair.set_irq(irq, false);
    }

    fn intr(&self) -> bool {
        self.intr.load(Ordering::Relaxed)
    }

    fn isr(&mut self, port: u16) -> u8 {
        self.outb(port, 0x0b);
        let isr = self.inb(port);
        self.outb(port, 0x0a);
        isr
    }
}

#[test]
fn power_on_is_all_zeros() {
    let mut b = Bench::new();
    assert_eq!([0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1].map(|port| b.inb(port)), [0; 6]);
    assert!(!b.intr());
}

#[test]
fn an_edge_raises_intr_until_it_is_acknowledged() {
    let mut b = Bench::ready();
    b.pair.set_irq(1, true);
    assert!(b.intr());
    assert_eq!(b.inb(0x20), 0x02);
    assert_eq!(b.pair.acknowledge(), Some(0x09));
    assert!(!b.intr());
    assert_eq!((b.inb(0x20), b.isr(0x20)), (0, 0x02));
    b.outb(0x20, 0x20);
    assert_eq!(b.isr(0x20), 0);
    assert!(!b.intr(), "a level that stays is no second edge");
    assert_eq!(b.pair.acknowledge(), None);
}

#[test]
fn a_pulse_stays_latched() {
    let b = Bench::ready();
    b.edge(0);
    assert!(b.intr());
    assert_eq!(b.pair.acknowledge(), Some(0x08));
}

#[test]
fn a_level_asks_until_it_falls() {
    let mut b = Bench::ready();
    b.outb(0x4d1, 0x02); // IRQ 9
    b.pair.set_irq(9, true);
    assert_eq!(b.pair.acknowledge(), Some(0x71));
    assert!(!b.intr());
    b.outb(0xa0, 0x20);
    b.outb(0x20, 0x20);
    assert!(b.intr());
    b.pair.set_irq(9, false);
    assert!(!b.intr());
}

#[test]
fn only_interrupts_that_can_be_levels_are() {
    let mut b = Bench::new();
    b.outb(0x4d0, 0xff);
    b.outb(0x4d1, 0xff);
    assert_eq!((b.inb(0x4d0), b.inb(0x4d1)), (0xf8, 0xde));
}

#[test]
fn the_slave_goes_through_input_2() {
    let mut b = Bench::ready();
    b.edge(12);
    assert_eq!((b.inb(0x20), b.inb(0xa0)), (0x04, 0x10));
    assert_eq!(b.pair.acknowledge(), Some(0x74));
    assert_eq!((b.isr(0x20), b.isr(0xa0)), (0x04, 0x10));
    b.edge(2);
    assert_eq!(b.inb(0x20), 0);
}

#[test]
fn priorities_nest() {
    let mut b = Bench::ready();
    b.edge(4);
    assert_eq!(b.pair.acknowledge(), Some(0x0c));
    b.edge(5);
    assert!(!b.intr());
    b.edge(3);
    assert_eq!(b.pair.acknowledge(), Some(0x0b));
    b.outb(0x20, 0x20);
    assert_eq!(b.isr(0x20), 0x10);
    b.outb(0x20, 0x64); // specific, 4
    assert_eq!(b.pair.acknowledge(), Some(0x0d));
}

#[test]
fn a_masked_input_waits() {
    let mut b = Bench::ready();
    b.outb(0x21, 0x10);
    b.edge(4);
    assert!(!b.intr());
    b.outb(0x21, 0);
    assert!(b.intr());
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let mut b = Bench::new();
    b.initialize(0x03, 0x03);
    b.edge(6);
    assert_eq!(b.pair.acknowledge(), Some(0x0e));
    assert_eq!(b.isr(0x20), 0);
    b.outb(0x20, 0x80); // rotate in automatic EOI
    b.edge(6);
    assert_eq!(b.pair.acknowledge(), Some(0x0e));
    b.edge(0);
    b.edge(7);
    assert_eq!(b.pair.acknowledge(), Some(0x0f), "input 6 is now the lowest");
    b.outb(0x20, 0x00);
    assert_eq!(b.pair.acknowledge(), Some(0x08));
    b.edge(0);
    b.edge(1);
    assert_eq!(b.pair.acknowledge(), Some(0x08), "no rotation any more");
}

#[test]
fn a_second_slave_interrupt_follows_automatic_eoi() {
    let mut b = Bench::new();
    b.initialize(0x03, 0x03);
    b.edge(8);
    b.edge(9);
    assert_eq!(b.pair.acknowledge(), Some(0x70));
    assert!(b.intr());
    assert_eq!(b.pair.acknowledge(), Some(0x71));
}

#[test]
fn rotation_moves_priorities() {
    let mut b = Bench::ready();
    b.edge(3);
    assert_eq!(b.pair.acknowledge(), Some(0x0b));
    b.outb(0x20, 0xa0); // rotate on non-specific EOI
    b.edge(3);
    b.edge(4);
    assert_eq!(b.pair.acknowledge(), Some(0x0c));
    b.outb(0x20, 0xe4); // rotate on specific EOI of 4
    b.outb(0x20, 0xc1); // lowest is 1
    b.edge(1);
    b.edge(2);
    assert_eq!(b.pair.acknowledge(), Some(0x0b));
    assert_eq!(b.pair.registers()[0].priority_add, 2);
}

#[test]
fn special_mask_mode_lets_lower_inputs_through() {
    let mut b = Bench::ready();
    b.edge(3);
    assert_eq!(b.pair.acknowledge(), Some(0x0b));
    b.edge(5);
    assert!(!b.intr());
    b.outb(0x21, 0x08);
    b.outb(0x20, 0x68);
    assert!(b.intr());
    b.outb(0x20, 0x20);
    assert_eq!(b.isr(0x20), 0x08, "a non-specific EOI passes over masked inputs");
    b.outb(0x20, 0x48);
    assert!(!b.intr());
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut b = Bench::ready();
    b.edge(12);
    assert_eq!(b.pair.acknowledge(), Some(0x74));
    b.edge(8);
    assert!(!b.intr());
    b.initialize(0x11, 0x01);
    b.edge(12);
    assert_eq!(b.pair.acknowledge(), Some(0x74));
    b.edge(8);
    assert_eq!(b.pair.acknowledge(), Some(0x70));
}

#[test]
fn polling_acknowledges() {
    let mut b = Bench::ready();
    b.outb(0x20, 0x0c);
    assert_eq!(b.inb(0x20), 0);
    b.edge(5);
    b.outb(0x20, 0x0c);
    assert_eq!(b.inb(0x20), 0x85);
    assert_eq!(b.isr(0x20), 0x20);
    assert!(!b.intr());
    b.edge(14);
    b.outb(0xa0, 0x0c);
    assert_eq!(b.inb(0xa0), 0x86);
    assert_eq!(b.inb(0xa1), 0, "only the next read polls");
}

#[test]
fn a_level_that_goes_away_is_not_acknowledged() {
    let mut b = Bench::ready();
    b.outb(0x4d1, 0x04);
    b.pair.set_irq(10, true);
    b.outb(0x21, 0);
    b.pair.set_irq(10, false);
    assert_eq!(b.pair.acknowledge(), None);
}

#[test]
fn initialization_clears_masks_and_requests_but_not_levels() {
    let mut b = Bench::ready();
    b.outb(0x4d0, 0x20);
    b.edge(4);
    b.pair.set_irq(5, true);
    b.outb(0x21, 0xff);
    b.outb(0x20, 0x11);
    assert_eq!(b.inb(0x20), 0x20);
    b.outb(0x21, 0x40);
    b.outb(0x21, 0x04);
    b.outb(0x21, 0x01);
    assert_eq!(b.inb(0x21), 0);
    assert_eq!(b.pair.acknowledge(), Some(0x45));
}

#[test]
fn without_icw4_the_next_word_is_a_mask() {
    let mut b = Bench::new();
    [(0x20, 0x12), (0x21, 0x40), (0x21, 0xfe)].into_iter().for_each(|(port, word)| b.outb(port, word));
    assert_eq!(b.inb(0x21), 0xfe);
}

#[test]
fn reset_is_power_on() {
    let mut b = Bench::ready();
    b.outb(0x4d0, 0xf8);
    b.pair.set_irq(5, true);
    assert!(b.intr());
    b.ports.reset(Reset::System);
    assert!(!b.intr());
    assert_eq!(b.pair.registers(), [PicRegisters::default(); 2]);
}

#[test]
fn rubbish_never_panics() {
    let mut b = Bench::new();
    let mut random = Random(0x8259);
    for _ in 0..20_000 {
        let [port, value, irq, what, ..] = random.next().to_le_bytes();
        let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][usize::from(port) % 6];
        match what % 4 {
            0 => b.outb(port, value),
            1 => b.pair.set_irq(irq, value & 1 != 0),
            2 => {
                b.inb(port);
            }
            _ => {
                let waits = b.intr();
                assert_eq!(b.pair.acknowledge().is_some(), waits);
            }
        }
    }
}
