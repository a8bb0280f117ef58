use super::*;
use crate::bus::Width;
use crate::hw::bench::Random;
use crate::hw::scsi::Kind;
use crate::hw::storage::bench::DiskBench;
use crate::hw::virtio::bench::{Bench, Piece};
use crate::hw::virtio::spec::{MODERN, common};

struct Bus {
    bench: Bench,
    disk: DiskBench,
    plane: Arc<Plane>,
}

const OPTIONS: Options = Options {
    queues: 1,
    queue_size: 64,
    seg_max_adjust: true,
    max_sectors: 0xffff,
    cmd_per_lun: 128,
    hotplug: true,
    param_change: true,
};
const REQUESTS: u16 = 2;

fn unit_options(kind: Kind) -> UnitOptions {
    UnitOptions {
        kind,
        vendor: "QEMU".to_owned(),
        product: "P".to_owned(),
        version: "1".to_owned(),
        serial: String::new(),
        device_id: String::new(),
        wwn: 0,
        logical_block_size: 512,
        physical_block_size: 512,
        io_sizes: (0, 0),
        discard_granularity: 512,
        max_unmap_size: 1 << 30,
        rotation_rate: 0,
        removable: false,
        dpofua: false,
        write_cache: true,
    }
}

impl Bus {
    /// Unit 1 of target 3.
    fn new() -> Self {
        let plane = Plane::new(OPTIONS);
        let disk = DiskBench::new(1 << 20);
        let address = Address { target: 3, lun: 1 };
        plane.attach(address, unit_options(Kind::Disk), Policies::default(), disk.faults(), |n| disk.queue(n));
        let bench = Bench::ready(Box::new(Scsi::new(Arc::clone(&plane), None)), bit::HOTPLUG | bit::CHANGE);
        disk.share_memory(&bench.ram);
        let mut bus = Self { bench, disk, plane };
        // Power-on is told once.
        assert_eq!(bus.run(3, 1, 1, &[0], &[], 0).0, (0, 2));
        bus
    }

    fn offer(&mut self, target: u8, lun: u8, id: u64, cdb: &[u8], out: &[u8], room: u32) -> Vec<u64> {
        let mut header = vec![0; 51];
        header[..4].copy_from_slice(&[1, target, 0x40, lun]);
        header[8..16].copy_from_slice(&id.to_le_bytes());
        header[19..19 + cdb.len()].copy_from_slice(cdb);
        let mut pieces = vec![Piece::readable(&header)];
        if !out.is_empty() {
            pieces.push(Piece::readable(out));
        }
        pieces.push(Piece::writable(108));
        if room > 0 {
            pieces.push(Piece::writable(room));
        }
        let at = self.bench.offer(REQUESTS, &pieces);
        self.bench.kick(REQUESTS);
        at[1 + usize::from(!out.is_empty())..].to_vec()
    }

    fn response(&self, at: u64) -> (u8, u8, u32, Vec<u8>) {
        let bytes = self.bench.bytes(at, 108);
        let len = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let resid = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        (bytes[11], bytes[10], resid, bytes[12..12 + len].to_vec())
    }

    /// Response and status, residual, data.
    fn run(&mut self, target: u8, lun: u8, id: u64, cdb: &[u8], out: &[u8], room: u32) -> ((u8, u8), u32, Vec<u8>) {
        let at = self.offer(target, lun, id, cdb, out, room);
        self.disk.work();
        assert_eq!(self.bench.used(REQUESTS).len(), 1);
        let (response, status, resid, _) = self.response(at[0]);
        let data = at.get(1).map(|at| self.bench.bytes(*at, room as usize)).unwrap_or_default();
        ((response, status), resid, data)
    }

    fn manage(&mut self, function: u32, target: u8, lun: u8, id: u64) -> u8 {
        let mut bytes = vec![0; 24];
        bytes[4..8].copy_from_slice(&function.to_le_bytes());
        bytes[8..12].copy_from_slice(&[1, target, 0x40, lun]);
        bytes[16..].copy_from_slice(&id.to_le_bytes());
        let at = self.bench.offer(0, &[Piece::readable(&bytes), Piece::writable(1)]);
        self.bench.kick(0);
        assert_eq!(self.bench.used(0).len(), 1);
        self.bench.bytes(at[1], 1)[0]
    }
}

#[test]
fn data_goes_to_the_disk_and_back() {
    let mut bus = Bus::new();
    assert_eq!(bus.run(3, 1, 1, &[0x2a, 0, 0, 0, 0, 4, 0, 0, 2], &[7; 1024], 0).0, (0, 0));
    assert_eq!(bus.disk.bytes()[2048..3072], [7; 1024]);
    let (status, resid, data) = bus.run(3, 1, 1, &[0x28, 0, 0, 0, 0, 5, 0, 0, 1], &[], 600);
    assert_eq!((status, resid, &data[..512]), ((0, 0), 88, &[7; 512][..]));
    assert_eq!(bus.run(3, 1, 1, &[0x28, 0, 0, 0, 0, 5, 0, 0, 2], &[], 512).0, (1, 0), "too little room");
    assert_eq!(bus.run(3, 1, 1, &[0x35], &[], 0).0, (0, 0));
    assert_eq!(bus.disk.operations().last().unwrap(), "flush");
}

#[test]
fn places_without_a_unit_answer_as_the_standard_says() {
    let mut bus = Bus::new();
    assert_eq!(bus.run(4, 0, 1, &[0x12, 0, 0, 0, 36], &[], 36).0, (3, 0));
    let (status, _, data) = bus.run(3, 0, 1, &[0x12, 0, 0, 0, 36], &[], 36);
    assert_eq!((status, data[0]), ((0, 0), 0x7f));
    assert_eq!(bus.run(3, 0, 1, &[0], &[], 0).0, (0, 2));
    let (_, _, luns) = bus.run(3, 0, 1, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], &[], 64);
    assert_eq!((luns[3], luns[8..16].to_vec(), luns[17]), (16, vec![0; 8], 1));
}

#[test]
fn several_steps_end_as_one_command() {
    let mut bus = Bus::new();
    bus.disk.set_bytes(0, &[5; 4096]);
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for lba in [0u64, 4] {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    }
    assert_eq!(bus.run(3, 1, 1, &[0x42, 0, 0, 0, 0, 0, 0, 0, 40], &list, 0).0, (0, 0));
    assert_eq!(bus.disk.operations(), ["discard", "discard"]);
    assert_eq!(bus.run(3, 1, 1, &[0x2f, 2, 0, 0, 0, 0, 0, 0, 1], &[6; 512], 0).0, (0, 2));
    assert_eq!(bus.run(3, 1, 1, &[0x2f, 2, 0, 0, 0, 0, 0, 0, 1], &[5; 512], 0).0, (0, 0));
}

#[test]
fn errors_come_with_sense_data() {
    let mut bus = Bus::new();
    bus.disk.fail_with(Some(5));
    let at = bus.offer(3, 1, 1, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[], 512);
    bus.disk.work();
    let (response, status, _, sense) = bus.response(at[0]);
    assert_eq!((response, status, sense[2], sense[12]), (0, 2, 3, 0x11));
}

#[test]
fn tasks_can_be_aborted_and_units_reset() {
    let mut bus = Bus::new();
    let first = bus.offer(3, 1, 77, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[], 512);
    let second = bus.offer(3, 1, 78, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[], 512);
    assert_eq!(bus.manage(6, 3, 1, 77), 10);
    assert_eq!(bus.manage(6, 3, 1, 99), 0);
    assert_eq!(bus.manage(0, 3, 1, 77), 0);
    assert_eq!(bus.bench.used(REQUESTS).len(), 1);
    assert_eq!(bus.response(first[0]).0, 2);
    assert_eq!(bus.manage(5, 3, 1, 0), 0);
    assert_eq!(bus.response(second[0]).0, 4);
    bus.disk.work();
    assert_eq!(bus.bench.used(REQUESTS).len(), 1);
    assert_eq!((bus.manage(5, 3, 0, 0), bus.manage(5, 9, 0, 0), bus.manage(99, 3, 1, 0)), (12, 3, 11));
    assert_eq!(bus.run(3, 1, 1, &[0], &[], 0).0, (0, 2), "unit attention after the reset");
}

#[test]
fn a_change_of_medium_is_an_event() {
    let mut bus = Bus::new();
    let address = Address { target: 3, lun: 1 };
    let at = bus.bench.offer(1, &[Piece::writable(16)]);
    bus.bench.kick(1);
    bus.plane.with_unit(address, true, Unit::medium_changed);
    assert_eq!(bus.bench.used(1), [(0, 16)]);
    assert_eq!(bus.bench.bytes(at[0], 16), [3, 0, 0, 0, 1, 3, 0x40, 1, 0, 0, 0, 0, 0x28, 0, 0, 0]);
    bus.plane.with_unit(address, true, Unit::medium_changed);
    let at = bus.bench.offer(1, &[Piece::writable(16)]);
    bus.bench.kick(1);
    assert_eq!(bus.bench.bytes(at[0], 4), [0, 0, 0, 0x80]);
}

#[test]
fn the_configuration_has_qemus_numbers() {
    let mut bus = Bus::new();
    let mut read = |offset: u64, width| bus.bench.read(MODERN, 0x2000 + offset, width);
    assert_eq!((read(0, Width::B4), read(4, Width::B4), read(8, Width::B4), read(12, Width::B4)), (1, 62, 0xffff, 128));
    assert_eq!((read(16, Width::B4), read(20, Width::B4), read(24, Width::B4)), (16, 96, 32));
    assert_eq!((read(28, Width::B4), read(32, Width::B4)), (0x00ff_0000, 16383));
}

#[test]
fn a_reset_in_mid_transfer_leaves_guest_memory_alone() {
    let mut bus = Bus::new();
    bus.disk.set_bytes(0, &[9; 512]);
    let at = bus.offer(3, 1, 1, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[], 512);
    bus.bench.common_write(common::STATUS, Width::B1, 0);
    bus.disk.work();
    assert_eq!(bus.bench.bytes(at[1], 512), [0; 512]);
}

#[test]
fn random_requests_are_answered_or_break_the_device() {
    let mut random = Random(0xdead_beef_cafe_f00d);
    for _ in 0..100 {
        let mut bus = Bus::new();
        for _ in 0..20 {
            let mut bytes = vec![0; (random.next() % 80) as usize];
            bytes.iter_mut().for_each(|byte| *byte = (random.next() >> (random.next() % 60)) as u8);
            if bytes.len() > 20 && !random.next().is_multiple_of(4) {
                bytes[..4].copy_from_slice(&[1, 3, 0x40, 1]);
            }
            let room = (random.next() % 1000) as u32 + 1;
            bus.bench.offer((random.next() % 3) as u16, &[Piece::readable(&bytes), Piece::writable(room)]);
            for queue in 0..3 {
                bus.bench.kick(queue);
            }
            bus.disk.work();
        }
        bus.bench.common_write(common::STATUS, Width::B1, 0);
        assert!(!bus.bench.needs_reset());
    }
}
