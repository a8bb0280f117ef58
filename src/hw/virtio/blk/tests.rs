use super::*;
use crate::bus::Width;
use crate::hw::bench::Random;
use crate::hw::storage::bench::DiskBench;
use crate::hw::virtio::bench::{Bench, Piece};
use crate::hw::virtio::spec::{MODERN, common};

fn options() -> Options {
    Options {
        queues: 2,
        queue_size: 64,
        seg_max_adjust: true,
        serial: "S123".to_owned(),
        logical_block_size: 512,
        physical_block_size: 4096,
        io_sizes: (0, 0),
        geometry: (2, 16, 63),
        config_wce: true,
        write_cache: true,
        discard: Some(DiscardLimits { max_sectors: 64, alignment: 1 }),
        write_zeroes: Some(64),
        read_only: false,
    }
}

struct Blks {
    bench: Bench,
    disk: DiskBench,
}

impl Blks {
    fn new(options: Options, features: u64) -> Self {
        let disk = DiskBench::new(1 << 20);
        let plane = Plane::new(options, Policies::default(), disk.faults(), |notify| disk.queue(notify));
        let bench = Bench::ready(Box::new(Blk::new(plane, None)), features);
        disk.share_memory(&bench.ram);
        bench.messages();
        Self { bench, disk }
    }

    fn request(kind: u32, sector: u64) -> Vec<u8> {
        let mut header = vec![0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    /// Does one request: status, used length, and what the device wrote before the status.
    fn run(&mut self, queue: u16, header: &[u8], data: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
        let mut pieces = vec![Piece::readable(header)];
        if !data.is_empty() {
            pieces.push(Piece::readable(data));
        }
        if room > 0 {
            pieces.push(Piece::writable(room));
        }
        pieces.push(Piece::writable(1));
        let at = self.bench.offer(queue, &pieces);
        self.bench.kick(queue);
        self.disk.work();
        let used = self.bench.used(queue);
        assert_eq!(used.len(), 1);
        let status = self.bench.bytes(*at.last().unwrap(), 1)[0];
        let reply = if room > 0 { self.bench.bytes(at[at.len() - 2], room as usize) } else { Vec::new() };
        (status, used[0].1, reply)
    }
}

const ALL: u64 = bit::FLUSH | bit::CONFIG_WCE | bit::MQ | bit::DISCARD | bit::WRITE_ZEROES;

#[test]
fn what_is_written_is_read_again_on_any_queue() {
    let mut b = Blks::new(options(), ALL);
    assert_eq!(b.run(0, &Blks::request(1, 3), &[7; 1024], 0), (0, 1, vec![]));
    assert_eq!(b.disk.bytes()[3 * 512..5 * 512], [7; 1024]);
    let (status, used, data) = b.run(1, &Blks::request(0, 4), &[], 512);
    assert_eq!((status, used, data), (0, 513, vec![7; 512]));
    assert_eq!(b.bench.messages(), 2);
}

#[test]
fn header_and_status_may_share_their_descriptors_with_data() {
    let mut b = Blks::new(options(), ALL);
    let mut all = Blks::request(1, 0);
    all.extend([9; 512]);
    let at = b.bench.offer(0, &[Piece::readable(&all[..3]), Piece::readable(&all[3..]), Piece::writable(1)]);
    b.bench.kick(0);
    b.disk.work();
    assert_eq!(b.bench.bytes(at[2], 1), [0]);
    let at = b.bench.offer(0, &[Piece::readable(&Blks::request(0, 0)), Piece::writable(513)]);
    b.bench.kick(0);
    b.disk.work();
    assert_eq!(b.bench.bytes(at[1], 513), [vec![9; 512], vec![0]].concat());
}

#[test]
fn ranges_outside_the_disk_fail() {
    let mut b = Blks::new(options(), ALL);
    for (kind, sector) in [(0, 2048), (0, u64::MAX), (0, u64::MAX / 512), (1, 2048)] {
        let (data, room) = if kind == 1 { (vec![0; 512], 0) } else { (vec![], 512) };
        assert_eq!(b.run(0, &Blks::request(kind, sector), &data, room).0, STATUS_IOERR);
    }
    assert_eq!(b.run(0, &Blks::request(0, 0), &[], 100).0, STATUS_IOERR);
    assert_eq!(b.run(0, &Blks::request(14, 0), &[], 0).0, STATUS_UNSUPP);
}

#[test]
fn flush_id_discard_and_zeroes() {
    let mut b = Blks::new(options(), ALL);
    assert_eq!(b.run(0, &Blks::request(4, 0), &[], 0).0, 0);
    assert_eq!(b.disk.operations(), ["flush"]);
    let (_, used, id) = b.run(0, &Blks::request(8, 0), &[], 20);
    assert_eq!((used, &id[..5]), (21, &b"S123\0"[..]));
    b.run(0, &Blks::request(1, 0), &[7; 4096], 0);
    let segment = |sector: u64, count: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    assert_eq!(b.run(0, &Blks::request(13, 0), &segment(1, 2, 1), 0).0, 0);
    assert_eq!(b.disk.bytes()[..2048], [vec![7; 512], vec![0; 1024], vec![7; 512]].concat());
    assert_eq!(b.run(0, &Blks::request(11, 0), &segment(4, 2, 0), 0).0, 0);
    assert_eq!(b.run(0, &Blks::request(11, 0), &segment(4, 2, 1), 0).0, STATUS_UNSUPP);
    assert_eq!(b.run(0, &Blks::request(13, 0), &segment(0, 65, 0), 0).0, STATUS_IOERR);
    assert_eq!(b.run(0, &Blks::request(13, 0), &segment(2047, 2, 0), 0).0, STATUS_IOERR);
    assert_eq!(b.run(0, &Blks::request(13, 0), &segment(0, 1, 2), 0).0, STATUS_UNSUPP);
    assert_eq!(b.run(0, &Blks::request(13, 0), &[0; 32], 0).0, STATUS_UNSUPP);
}

#[test]
fn the_write_cache_follows_the_driver() {
    let mut b = Blks::new(options(), ALL);
    b.run(0, &Blks::request(1, 0), &[1; 512], 0);
    assert_eq!(b.bench.read(MODERN, 0x2020, Width::B1), 1);
    b.bench.write(MODERN, 0x2020, Width::B1, 0);
    assert_eq!(b.bench.read(MODERN, 0x2020, Width::B1), 0);
    b.run(0, &Blks::request(1, 0), &[1; 512], 0);
    assert_eq!(b.disk.operations(), ["write", "write fua"]);
    let mut b = Blks::new(options(), 0);
    b.run(0, &Blks::request(1, 0), &[1; 512], 0);
    assert_eq!(b.disk.operations(), ["write fua"]);
}

#[test]
fn the_configuration_describes_the_disk() {
    let mut b = Blks::new(options(), ALL);
    let mut read = |offset: u64, width| b.bench.read(MODERN, 0x2000 + offset, width);
    assert_eq!((read(0, Width::B8), read(12, Width::B4), read(16, Width::B4)), (2048, 62, 0x3f10_0002));
    assert_eq!((read(20, Width::B4), read(24, Width::B1), read(34, Width::B2)), (512, 3, 2));
    assert_eq!((read(36, Width::B4), read(48, Width::B4), read(56, Width::B1)), (64, 64, 1));
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let mut b = Blks::new(Options { read_only: true, ..options() }, ALL | bit::RO);
    assert_eq!(b.run(0, &Blks::request(1, 0), &[0; 512], 0).0, STATUS_IOERR);
    assert_eq!(b.disk.bytes()[..512], [0; 512]);
}

#[test]
fn a_full_disk_holds_the_request_until_the_machine_goes_on() {
    let mut b = Blks::new(options(), ALL);
    b.disk.fail_with(Some(28));
    b.bench.offer(0, &[Piece::readable(&Blks::request(1, 0)), Piece::readable(&[5; 512]), Piece::writable(1)]);
    b.bench.kick(0);
    b.disk.work();
    assert_eq!(b.bench.used(0), []);
    assert_eq!(b.disk.take_faults(), ["write Stop nospace"]);
    b.disk.fail_with(None);
    b.bench.event(RESUME);
    b.disk.work();
    assert_eq!(b.bench.used(0), [(0, 1)]);
    assert_eq!(b.disk.bytes()[0], 5);
}

#[test]
fn errors_reach_the_driver() {
    let mut b = Blks::new(options(), ALL);
    b.disk.fail_with(Some(5));
    assert_eq!(b.run(0, &Blks::request(0, 0), &[], 512).0, STATUS_IOERR);
    assert_eq!(b.disk.take_faults(), ["read Report"]);
}

#[test]
fn a_reset_in_mid_transfer_leaves_guest_memory_alone() {
    let mut b = Blks::new(options(), ALL);
    b.disk.set_bytes(0, &[9; 512]);
    let at = b.bench.offer(0, &[Piece::readable(&Blks::request(0, 0)), Piece::writable(512), Piece::writable(1)]);
    b.bench.kick(0);
    b.bench.common_write(common::STATUS, Width::B1, 0);
    b.disk.work();
    assert_eq!(b.bench.bytes(at[1], 512), [0; 512]);
    assert_eq!(b.bench.used(0), []);
}

#[test]
fn a_queue_reset_drops_that_queues_requests_only() {
    let mut b = Blks::new(options(), ALL | crate::hw::virtio::feature::RING_RESET);
    for queue in 0..2 {
        b.bench.offer(queue, &[Piece::readable(&Blks::request(1, 0)), Piece::readable(&[6; 512]), Piece::writable(1)]);
        b.bench.kick(queue);
    }
    b.bench.common_write(common::QUEUE_SELECT, Width::B2, 0);
    b.bench.common_write(common::QUEUE_RESET, Width::B2, 1);
    b.disk.work();
    assert_eq!((b.bench.used(0), b.bench.used(1)), (vec![], vec![(0, 1)]));
}

#[test]
fn requests_without_header_or_status_break_the_device() {
    for pieces in [vec![Piece::readable(&[0; 15]), Piece::writable(1)], vec![Piece::readable(&[0; 16])]] {
        let mut b = Blks::new(options(), ALL);
        b.bench.offer(0, &pieces);
        b.bench.kick(0);
        assert!(b.bench.needs_reset());
    }
}

#[test]
fn random_requests_are_all_answered() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut b = Blks::new(options(), ALL);
    for _ in 0..400 {
        let kind = (random.next() % 16) as u32;
        let header = Blks::request(kind, random.next() >> (random.next() % 64));
        let data = vec![random.next() as u8; (random.next() % 3 * 512) as usize];
        let room = (random.next() % 3 * 256) as u32;
        let (status, ..) = b.run((random.next() % 2) as u16, &header, &data, room);
        assert!(status <= STATUS_UNSUPP);
    }
    assert!(!b.bench.needs_reset());
}
