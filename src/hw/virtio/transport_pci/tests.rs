use super::*;
use crate::bus::Width;
use crate::hw::bench::Random;
use crate::hw::virtio::bench::{Bench, Piece};
use crate::hw::virtio::spec::common;
use crate::mem::Sg;

const TYPE: DeviceType = DeviceType { id: 4, transitional_id: 0x1005, class: 0x00_ff00, name: "test" };

/// Answers each request with its own readable part, as far as it fits.
#[derive(Default)]
struct Echo {
    queues: Vec<Arc<Queue>>,
    features: u64,
    written: Vec<(usize, Vec<u8>)>,
    queue_resets: Vec<usize>,
    held: Vec<Chain>,
    hold: bool,
}

use crate::hw::virtio::Chain;

impl VirtioDevice for Echo {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        1 | 1 << 35
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 8]
    }

    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5, 6]
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.written.push((offset, data.to_vec()));
    }

    fn activate(&mut self, negotiated: Negotiated) {
        self.features = negotiated.features;
        self.queues = negotiated.queues;
    }

    fn notify(&mut self, index: usize) {
        let queue = Arc::clone(&self.queues[index]);
        queue.serve(|chain| {
            if self.hold {
                self.held.push(chain);
                return true;
            }
            let len = chain.readable.len().min(chain.writable.len()).min(4096);
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            chain.read(queue.ram(), 0, &mut bytes).unwrap();
            chain.write(queue.ram(), 0, &bytes).unwrap();
            queue.push(&chain, u32::try_from(len).unwrap());
            queue.signal();
            true
        });
    }

    fn reset_queue(&mut self, queue: usize) {
        self.queue_resets.push(queue);
    }

    fn reset(&mut self) {
        self.queues.clear();
    }
}

fn ready(features: u64) -> Bench {
    Bench::ready(Box::<Echo>::default(), features)
}

fn cold(options: Options) -> Bench {
    Bench::new(Box::<Echo>::default(), options)
}

fn echo(bench: &mut Bench) -> &mut Echo {
    bench.chip.device::<Echo>().unwrap()
}

#[test]
fn a_transitional_device_has_qemus_header_and_capabilities() {
    let mut bench = cold(Options::new(2));
    let config = bench.chip.config();
    assert_eq!((config.u32(0), config.u32(8), config.u32(0x2c)), (0x1005_1af4, 0x00ff_0000, 0x0004_1af4));
    assert_eq!(config.u8(0x34), 0x98);
    let dwords: Vec<u32> = (0x40..0xa4).step_by(4).map(|at| config.u32(at)).collect();
    // As QEMU 10.0.2 shows them for virtio-rng-pci.
    let expected = [
        0x0110_0009,
        4,
        0,
        0x1000,
        0x0310_4009,
        4,
        0x1000,
        0x1000,
        0x0410_5009,
        4,
        0x2000,
        0x1000,
        0x0214_6009,
        4,
        0x3000,
        0x1000,
        4,
        0x0514_7009,
        0,
        0,
        0,
        0,
        0x0001_8411,
        1,
        0x801,
    ];
    assert_eq!(dwords, expected);
    assert_eq!(config.bars()[0].map(|bar| bar.len), Some(32));
    assert_eq!(config.bars()[4].map(|bar| bar.len), Some(0x4000));
}

#[test]
fn a_modern_device_has_its_own_id_and_no_legacy_interface() {
    let mut bench = cold(Options { legacy: false, vectors: 0, ..Options::new(0) });
    let config = bench.chip.config();
    assert_eq!((config.u32(0), config.u8(8), config.u32(0x2c)), (0x1044_1af4, 1, 0x1100_1af4));
    assert_eq!((config.bars()[0], config.u8(0x34)), (None, 0x84));
}

#[test]
fn the_notification_port_and_pages_are_where_qemu_puts_them() {
    let mut bench = cold(Options { page_per_queue: true, port_notify: true, ..Options::new(200) });
    let config = bench.chip.config();
    assert_eq!(
        (config.u8(0x34), config.u32(0x70), config.u32(0x7c), config.u32(0x80)),
        (0xac, 0x0214_6009, 0x40_0000, 0x1000)
    );
    assert_eq!((config.u32(0x84), config.u32(0x88), config.u32(0xb4)), (0x0214_7009, 2, 0xc81));
    assert_eq!(config.bars()[4].map(|bar| bar.len), Some(0x80_0000));
}

#[test]
fn features_are_offered_by_words_and_legacy_ones_only_to_legacy_drivers() {
    let mut bench = cold(Options::new(2));
    let mut word = |select: u64| {
        bench.common_write(common::DEVICE_FEATURE_SELECT, Width::B4, select);
        bench.common_read(common::DEVICE_FEATURE, Width::B4)
    };
    assert_eq!((word(0), word(1), word(2)), (0x3000_0001, 0x109, 0));
    assert_eq!(bench.read(LEGACY, 0, Width::B4), 0x7900_0001);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut bench = cold(Options::new(2));
    bench.common_write(common::STATUS, Width::B1, 3);
    bench.common_write(common::DRIVER_FEATURE, Width::B4, 2);
    bench.common_write(common::STATUS, Width::B1, 11);
    assert_eq!(bench.common_read(common::STATUS, Width::B1), 3);
}

#[test]
fn a_request_comes_back_with_an_interrupt() {
    let mut bench = ready(1);
    assert_eq!(echo(&mut bench).features, 1 | feature::VERSION_1);
    let at = bench.offer(1, &[Piece::readable(b"hello"), Piece::writable(3), Piece::writable(8)]);
    bench.kick(1);
    assert_eq!(bench.used(1), [(0, 5)]);
    assert_eq!((bench.bytes(at[1], 3), bench.bytes(at[2], 2)), (b"hel".to_vec(), b"lo".to_vec()));
    assert_eq!(bench.msi.take(), [(0xfee0_0000, 2)]);
}

#[test]
fn without_msix_the_pin_rises_and_reading_isr_lowers_it() {
    let mut bench = cold(Options::new(3));
    bench.negotiate(feature::VERSION_1);
    bench.enable_queue(0);
    bench.common_write(common::STATUS, Width::B1, 15);
    bench.offer(0, &[Piece::readable(b"x"), Piece::writable(1)]);
    bench.kick(0);
    assert!(bench.probe.is_high(0));
    bench.config_write(4, 2, 0x407);
    assert!(!bench.probe.is_high(0));
    bench.config_write(4, 2, 7);
    assert_eq!(bench.read(MODERN, 0x1000, Width::B1), 1);
    assert!(!bench.probe.is_high(0));
    assert_eq!(bench.read(MODERN, 0x1000, Width::B1), 0);
}

#[test]
fn a_driver_that_suppresses_interrupts_gets_none() {
    let mut bench = ready(0);
    bench.ram.write(Bench::avail(0), &[1, 0]).unwrap();
    bench.offer(0, &[Piece::readable(b"x"), Piece::writable(1)]);
    bench.kick(0);
    assert_eq!((bench.used(0).len(), bench.messages()), (1, 0));
}

#[test]
fn the_event_index_tells_which_request_interrupts() {
    let mut bench = ready(feature::EVENT_IDX);
    // used_event: interrupt when the second one is used.
    bench.ram.write(Bench::avail(0) + 4 + 2 * 16, &[1, 0]).unwrap();
    bench.offer(0, &[Piece::readable(b"x"), Piece::writable(1)]);
    bench.kick(0);
    assert_eq!((bench.used(0).len(), bench.messages()), (1, 0));
    bench.offer(0, &[Piece::readable(b"y"), Piece::writable(1)]);
    bench.kick(0);
    assert_eq!((bench.used(0).len(), bench.messages()), (1, 1));
    // avail_event follows what the device has seen.
    assert_eq!(bench.bytes(Bench::used_ring(0) + 4 + 8 * 16, 2), [2, 0]);
}

#[test]
fn indirect_descriptors_are_followed() {
    let mut bench = ready(feature::INDIRECT_DESC);
    let table = bench.buffer(64);
    let (from, to) = (bench.buffer(64), bench.buffer(64));
    bench.ram.write(from, b"abc").unwrap();
    bench.put_descriptor(table, 0, from, 3, 1, 1);
    bench.put_descriptor(table, 1, to, 3, 2, 0);
    bench.put_descriptor(Bench::desc(0), 5, table, 32, 4, 0);
    bench.offer_head(0, 5);
    bench.kick(0);
    assert_eq!(bench.used(0), [(5, 3)]);
    assert_eq!(bench.bytes(to, 3), b"abc");
}

#[test]
fn the_configuration_is_read_and_written_inside_its_length() {
    let mut bench = ready(0);
    assert_eq!(bench.read(MODERN, 0x2000, Width::B4), 0x0403_0201);
    assert_eq!(bench.read(MODERN, 0x2004, Width::B4), 0x0605);
    bench.write(MODERN, 0x2002, Width::B2, 0x1234);
    bench.write(MODERN, 0x2004, Width::B4, 0);
    assert_eq!(echo(&mut bench).written, [(2, vec![0x34, 0x12])]);
}

#[test]
fn a_queue_can_be_reset_alone() {
    let mut bench = ready(feature::RING_RESET);
    echo(&mut bench).hold = true;
    bench.offer(0, &[Piece::readable(b"x"), Piece::writable(1)]);
    bench.kick(0);
    bench.common_write(common::QUEUE_SELECT, Width::B2, 0);
    bench.common_write(common::QUEUE_RESET, Width::B2, 1);
    assert_eq!(bench.common_read(common::QUEUE_RESET, Width::B2), 0);
    assert_eq!(bench.common_read(common::QUEUE_ENABLE, Width::B2), 0);
    assert_eq!(echo(&mut bench).queue_resets, [0]);
    let chain = echo(&mut bench).held.remove(0);
    echo(&mut bench).queues[0].push(&chain, 1);
    assert_eq!(bench.bytes(Bench::used_ring(0), 4), [0; 4]);
    echo(&mut bench).hold = false;
    bench.enable_queue(0);
    bench.offer(0, &[Piece::readable(b"x"), Piece::writable(1)]);
    bench.kick(0);
    assert_eq!(bench.used(0), [(0, 1)]);
}

#[test]
fn a_reset_forgets_the_driver() {
    let mut bench = ready(1);
    bench.common_write(common::STATUS, Width::B1, 0);
    assert_eq!(bench.common_read(common::STATUS, Width::B1), 0);
    assert_eq!(bench.common_read(common::QUEUE_ENABLE, Width::B2), 0);
    assert_eq!(bench.common_read(common::QUEUE_VECTOR, Width::B2), 0xffff);
    bench.kick(0);
    assert!(echo(&mut bench).queues.is_empty());
}

#[test]
fn a_legacy_driver_works_through_ports() {
    let mut bench = cold(Options::new(0));
    bench.write(LEGACY, 18, Width::B1, 3);
    bench.write(LEGACY, 4, Width::B4, 1);
    bench.write(LEGACY, 14, Width::B2, 1);
    assert_eq!(bench.read(LEGACY, 12, Width::B2), 8);
    let base = 0x20_0000;
    bench.write(LEGACY, 8, Width::B4, base / 4096);
    bench.write(LEGACY, 18, Width::B1, 7);
    let (from, to) = (bench.buffer(8), bench.buffer(8));
    bench.ram.write(from, b"old").unwrap();
    bench.put_descriptor(base, 0, from, 3, 1, 1);
    bench.put_descriptor(base, 1, to, 3, 2, 0);
    bench.ram.write(base + 128, &[0, 0, 1, 0, 0, 0]).unwrap();
    bench.write(LEGACY, 16, Width::B2, 1);
    assert_eq!(bench.bytes(to, 3), b"old");
    assert_eq!(bench.bytes(base + 4096, 12), [0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(bench.read(LEGACY, 19, Width::B1), 1);
    assert_eq!(bench.read(LEGACY, 20, Width::B4), 0x0403_0201);
    bench.write(LEGACY, 8, Width::B4, 0);
    assert_eq!(bench.read(LEGACY, 18, Width::B1), 0);
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let mut bench = cold(Options::new(2));
    let window = 0x84;
    bench.config_write(window + 4, 1, 4);
    bench.config_write(window + 8, 4, 0x2000);
    bench.config_write(window + 12, 4, 4);
    let access = ConfigChange { offset: window + 16, len: 4 };
    bench.chip.config_read(access);
    assert_eq!(bench.chip.config().u32(0x94), 0x0403_0201);
    bench.config_write(window + 8, 4, 0x14);
    bench.config_write(window + 12, 4, 1);
    bench.config_write(window + 16, 4, 3);
    assert_eq!(bench.common_read(common::STATUS, Width::B1), 3);
}

// -- hostile drivers -------------------------------------------------------------------------------------------------

fn breaks(setup: impl FnOnce(&mut Bench)) -> bool {
    let mut bench = ready(feature::INDIRECT_DESC);
    setup(&mut bench);
    bench.kick(0);
    let broken = bench.needs_reset();
    if broken {
        assert_eq!(bench.used(0), []);
        // A configuration interrupt told it, and only a reset helps.
        bench.kick(0);
        bench.common_write(common::STATUS, Width::B1, 0);
        assert!(!bench.needs_reset());
    }
    broken
}

#[test]
fn rings_that_no_driver_may_build_break_the_device() {
    let table = |bench: &mut Bench, descriptors: &[(u64, u32, u16, u16)]| {
        for (index, (gpa, len, flags, next)) in (0u16..).zip(descriptors) {
            bench.put_descriptor(Bench::desc(0), index, *gpa, *len, *flags, *next);
        }
        bench.offer_head(0, 0);
    };
    assert!(breaks(|b| table(b, &[(0x1000, 1, 1, 1), (0x1000, 1, 1, 0)])), "a loop");
    assert!(breaks(|b| table(b, &[(0x1000, 1, 1, 99)])), "a next descriptor outside the table");
    assert!(breaks(|b| table(b, &[(u64::MAX - 1, 4, 0, 0)])), "an address that wraps");
    assert!(breaks(|b| table(b, &[(0x7fff_0000, 4, 2, 0)])), "a buffer outside RAM");
    assert!(breaks(|b| table(b, &[(0x1000, u32::MAX, 2, 0)])), "a buffer longer than RAM");
    assert!(breaks(|b| table(b, &[(0x1000, 1, 3, 1), (0x1000, 1, 0, 0)])), "a readable part after a writable one");
    assert!(breaks(|b| table(b, &[(0x1000, 24, 4, 0)])), "an indirect table of one and a half entries");
    assert!(breaks(|b| table(b, &[(u64::MAX - 15, 16, 4, 0)])), "an indirect table outside RAM");
    assert!(breaks(|b| b.offer_head(0, 1000)), "a head outside the table");
    assert!(breaks(|b| b.ram.write(Bench::avail(0) + 2, &[0xff, 0xff]).unwrap()), "an index that jumps");
    assert!(
        breaks(|b| {
            b.put_descriptor(0x3000, 0, 0x3000, 16, 4, 0);
            table(b, &[(0x3000, 16, 4, 0)]);
        }),
        "an indirect table in an indirect table"
    );
    assert!(!breaks(|b| table(b, &[(0x1000, 1, 2, 0)])), "an innocent request");
}

#[test]
fn queues_outside_ram_break_the_device_and_nothing_else() {
    let mut bench = cold(Options::new(3));
    bench.negotiate(feature::VERSION_1);
    bench.common_write(common::QUEUE_DESC, Width::B8, 0xffff_ffff_ffff_fff0);
    bench.common_write(common::QUEUE_DRIVER, Width::B8, 0xffff_ffff_ffff_fffe);
    bench.common_write(common::QUEUE_DEVICE, Width::B8, 0xffff_ffff_ffff_fffc);
    bench.common_write(common::QUEUE_ENABLE, Width::B2, 1);
    bench.common_write(common::STATUS, Width::B1, 15);
    bench.kick(0);
    assert!(bench.needs_reset());
    let mut bench = cold(Options::new(3));
    bench.negotiate(feature::VERSION_1);
    bench.common_write(common::QUEUE_DESC, Width::B8, 0x1001);
    bench.common_write(common::QUEUE_ENABLE, Width::B2, 1);
    assert!(bench.needs_reset());
}

#[test]
fn random_programs_leave_the_device_alive() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..200 {
        let mut bench = ready(feature::INDIRECT_DESC | feature::EVENT_IDX);
        for _ in 0..60 {
            random_step(&mut bench, &mut random);
        }
        bench.common_write(common::STATUS, Width::B1, 0);
        assert_eq!(bench.common_read(common::STATUS, Width::B1), 0);
    }
}

fn random_step(bench: &mut Bench, random: &mut Random) {
    let (what, a, b) = (random.next() % 8, random.next(), random.next());
    let widths = [Width::B1, Width::B2, Width::B4, Width::B8];
    let width = widths[(a % 4) as usize];
    match what {
        0 => bench.write(MODERN, (a % 0x60) & !(width.bytes() - 1), width, b & width.ones()),
        1 => bench.write(LEGACY, (a % 0x20) & !(width.bytes() - 1), width, b & width.ones()),
        2 => {
            bench.read(MODERN, (a % 0x4000) & !(width.bytes() - 1), width);
        }
        3 => {
            let index = (a % 16) as u16;
            let gpa = if b % 4 == 0 { b } else { b % crate::hw::virtio::bench::RAM };
            bench.put_descriptor(
                Bench::desc(0),
                index,
                gpa,
                (a >> 32) as u32 % 9000,
                (b >> 60) as u16,
                (b % 17) as u16,
            );
        }
        4 => bench.offer_head(0, (a % 18) as u16),
        5 => bench.ram.write(Bench::avail(0) + a % 64, &b.to_le_bytes()).unwrap(),
        6 => bench.config_write((a % 0xfc) as u16 & !3, 4, (b & 0xffff_ffff) as u32),
        _ => bench.kick((a % 3) as u16),
    }
}

#[test]
fn a_chain_keeps_the_parts_of_a_request_apart() {
    let mut bench = ready(0);
    echo(&mut bench).hold = true;
    let at = bench.offer(0, &[Piece::readable(b"abcd"), Piece::writable(512)]);
    bench.kick(0);
    let chain = &echo(&mut bench).held[0];
    let mut writable = Sg::new();
    writable.push(at[1], 512);
    assert_eq!((chain.readable.len(), &chain.writable), (4, &writable));
}
