//! The card by its registers.

use super::*;
use crate::bus::{Probe, Width};
use crate::hw::bench::{Random, TimeBench};
use crate::net::{Packet, Port, Role, Wire};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const TX_RING: u64 = 0x1000;
const RX_RING: u64 = 0x2000;
const BUFFERS: u64 = 0x1_0000;

struct Bench {
    card: E1000,
    host: Port,
    ram: GuestRam,
    irq: Arc<Probe>,
    time: TimeBench,
}

impl Bench {
    fn new() -> Self {
        let (wire, time, irq) = (Wire::new(), TimeBench::new(), Probe::new());
        let (nic, host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        let ram = GuestRam::for_test(1 << 20).unwrap();
        let wires = Wires {
            irq: irq.line(0),
            ram: ram.clone(),
            link: Box::new(nic),
            throttle: time.timer(THROTTLE_TOKEN),
            work: time.timer(WORK_TOKEN),
        };
        let mut card = E1000::new(wires, MAC, None);
        card.config.set_u16(4, 7);
        card.chip.bus_master = true;
        let mut bench = Self { card, host, ram, irq, time };
        for (at, value) in [
            (reg::TDBAL, TX_RING as u32),
            (reg::TDLEN, 256),
            (reg::RDBAL, RX_RING as u32),
            (reg::RDLEN, 256),
            (reg::TCTL, 0xa),
            (reg::IMS, 0xffff),
        ] {
            bench.write(at, value);
        }
        for index in 0..16 {
            bench.ram.write(RX_RING + index * 16, &(BUFFERS + index * 2048).to_le_bytes()).unwrap();
        }
        bench.write(reg::RCTL, rctl::EN | rctl::BAM | rctl::SECRC);
        bench.read(reg::ICR);
        bench
    }

    fn at(offset: u32) -> At {
        At { region: REGISTERS, offset: offset.into(), width: Width::B4 }
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.card.read(Self::at(offset)) as u32
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.card.write(Self::at(offset), value.into());
    }

    /// Puts descriptors into the ring from its start and rings the bell.
    fn send(&mut self, descriptors: &[[u8; 16]]) {
        for (index, descriptor) in descriptors.iter().enumerate() {
            self.ram.write(TX_RING + index as u64 * 16, descriptor).unwrap();
        }
        self.write(reg::TDT, descriptors.len() as u32);
    }

    fn arrives(&mut self, frame: &[u8]) {
        self.host.send(Packet::from(frame.to_vec())).unwrap();
        self.card.event(LINK_TOKEN);
    }
}

fn legacy(buffer: u64, len: u16, command: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&buffer.to_le_bytes());
    bytes[8..10].copy_from_slice(&len.to_le_bytes());
    bytes[11] = command;
    bytes
}

fn frame_to(mac: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = mac.to_vec();
    frame.resize(len, 0x5a);
    frame
}

#[test]
fn a_frame_of_two_descriptors_is_sent_and_reported() {
    let mut bench = Bench::new();
    bench.ram.write(BUFFERS, &frame_to([0xff; 6], 100)).unwrap();
    bench.send(&[legacy(BUFFERS, 40, 0), legacy(BUFFERS + 40, 60, 9)]);
    assert_eq!(bench.host.receive().unwrap().into_bytes(), frame_to([0xff; 6], 100));
    assert!(bench.irq.is_high(0));
    assert_eq!(bench.ram.read_u32(TX_RING + 16 + 12), Ok(1));
    assert_eq!(bench.read(reg::ICR), cause::TXDW | cause::TXQE | cause::ASSERTED);
    assert!(!bench.irq.is_high(0));
    assert_eq!((bench.read(reg::STATISTICS + 0x80), bench.read(reg::STATISTICS + 0x80)), (1, 0));
}

#[test]
fn short_frames_are_padded() {
    let mut bench = Bench::new();
    bench.send(&[legacy(BUFFERS, 20, 9)]);
    assert_eq!(bench.host.receive().unwrap().len(), 60);
}

#[test]
fn a_frame_for_the_card_is_stored() {
    let mut bench = Bench::new();
    bench.write(reg::RDT, 15);
    bench.arrives(&frame_to(MAC, 80));
    let mut stored = [0; 80];
    bench.ram.read(BUFFERS, &mut stored).unwrap();
    assert_eq!(stored[..], frame_to(MAC, 80));
    assert_eq!(bench.ram.read_u32(RX_RING + 8), Ok(80));
    assert_eq!(bench.ram.read_u32(RX_RING + 12).unwrap() & 0xff, u32::from(rx_status()));
    assert_eq!(bench.read(reg::ICR) & cause::RXT0, cause::RXT0);
    assert_eq!(bench.read(reg::RDH), 1);
}

fn rx_status() -> u8 {
    spec::rx::DD | spec::rx::EOP | spec::rx::IXSM
}

#[test]
fn filters_hold_back_what_is_for_others() {
    let mut bench = Bench::new();
    bench.write(reg::RDT, 15);
    bench.arrives(&frame_to([2, 0, 0, 0, 0, 1], 60));
    bench.arrives(&frame_to([1, 0, 0x5e, 0, 0, 1], 60));
    assert_eq!(bench.read(reg::RDH), 0);
    bench.write(reg::MTA, 1 << 16);
    bench.arrives(&frame_to([1, 0, 0x5e, 0, 0, 1], 60));
    bench.arrives(&frame_to([0xff; 6], 60));
    bench.write(reg::RCTL, rctl::EN | rctl::UPE);
    bench.arrives(&frame_to([2, 0, 0, 0, 0, 1], 60));
    assert_eq!(bench.read(reg::RDH), 3);
}

#[test]
fn a_frame_waits_for_descriptors() {
    let mut bench = Bench::new();
    bench.arrives(&frame_to(MAC, 60));
    assert_eq!(bench.read(reg::RDH), 0);
    bench.write(reg::RDT, 4);
    assert_eq!(bench.read(reg::RDH), 1);
}

#[test]
fn tags_are_taken_out_and_put_in() {
    let mut bench = Bench::new();
    bench.write(reg::CTRL, ctrl::VME);
    bench.write(reg::RDT, 15);
    let mut frame = frame_to(MAC, 80);
    frame[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
    bench.arrives(&frame);
    assert_eq!(bench.ram.read_u32(RX_RING + 8), Ok(76));
    assert_eq!(bench.ram.read_u32(RX_RING + 12).unwrap() >> 16, 7);
    let mut descriptor = legacy(BUFFERS, 64, 9 | spec::tx::VLE);
    descriptor[14] = 9;
    bench.send(&[descriptor]);
    assert_eq!(bench.host.receive().unwrap().head()[12..16], [0x81, 0, 0, 9]);
}

#[test]
fn a_long_segment_is_cut() {
    let mut bench = Bench::new();
    let mut frame = frame_to([0xff; 6], 54 + 3000);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    frame[34..54].copy_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    bench.ram.write(BUFFERS, &frame).unwrap();
    let mut context = [0; 16];
    context[..8].copy_from_slice(&[14, 24, 33, 0, 34, 50, 0, 0]);
    context[8..12].copy_from_slice(&(3000u32 | 0x2700_0000).to_le_bytes());
    context[13] = 54;
    context[14..].copy_from_slice(&1460u16.to_le_bytes());
    let mut data = legacy(BUFFERS, 3054, 0x2d);
    data[10] = 0x10;
    data[13] = 3;
    bench.send(&[context, data]);
    let sizes: Vec<_> = std::iter::from_fn(|| bench.host.receive()).map(|packet| packet.len()).collect();
    assert_eq!(sizes, [1514, 1514, 134]);
}

#[test]
fn interrupts_keep_their_distance() {
    let mut bench = Bench::new();
    bench.write(reg::ITR, 100);
    bench.write(reg::ICS, cause::LSC);
    assert!(bench.irq.is_high(0));
    bench.read(reg::ICR);
    bench.write(reg::ICS, cause::LSC);
    assert!(!bench.irq.is_high(0));
    let Bench { card, time, .. } = &mut bench;
    time.advance(25_600, 25_600, |token| card.event(token));
    assert!(bench.irq.is_high(0));
}

#[test]
fn a_pulled_cable_is_reported() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(reg::STATUS) & status::LU, status::LU);
    bench.host.handle().set_down(true);
    bench.card.event(LINK_TOKEN);
    assert_eq!((bench.read(reg::STATUS) & status::LU, bench.read(reg::ICR) & cause::LSC), (0, cause::LSC));
}

#[test]
fn a_reset_gives_the_power_on_state() {
    let mut bench = Bench::new();
    bench.write(reg::RA, 0x1234);
    bench.write(reg::CTRL, ctrl::RST);
    assert_eq!((bench.read(reg::TCTL), bench.read(reg::IMS), bench.read(reg::RA)), (0, 0, 0x1200_5452));
    assert_eq!(bench.read(reg::RA + 4), 0x8000_5634);
}

/// Random register and ring programs: nothing panics or hangs, whatever the descriptors say.
#[test]
fn hostile_programs_do_no_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..8 {
        let mut bench = Bench::new();
        let noise: Vec<u8> = (0..0x4000).map(|_| random.next() as u8).collect();
        bench.ram.write(0x1000, &noise).unwrap();
        for _ in 0..100 {
            let value = random.next() as u32;
            let at = match random.next() % 4 {
                0 => [reg::TDT, reg::TDH, reg::TDLEN, reg::TCTL][random.next() as usize % 4],
                1 => [reg::RDT, reg::RDH, reg::RDLEN, reg::RCTL][random.next() as usize % 4],
                _ => random.next() as u32 & 0xfffc,
            };
            bench.write(at, if random.next() & 1 == 0 { value } else { value & 0xff });
            bench.read(random.next() as u32 & 0xfffc);
            bench.arrives(&frame_to([0xff; 6], 1 + random.next() as usize % 3000));
            while bench.host.receive().is_some() {}
        }
    }
}
