use super::*;
use crate::bus::{Probe, Width};
use crate::hw::bench::{MessageProbe, Random};
use crate::hw::storage::bench::DiskBench;

const RAM: u64 = 4 << 20;
const ADMIN_SQ: u64 = 0x1_0000;
const ADMIN_CQ: u64 = 0x1_1000;
const IO_SQ: u64 = 0x1_2000;
const IO_CQ: u64 = 0x1_3000;
const DATA: u64 = 0x10_0000;

/// A driver with one pair of I/O queues of 16 entries each.
struct Bench {
    chip: Nvme,
    ram: GuestRam,
    disk: DiskBench,
    probe: Arc<Probe>,
    msi: Arc<MessageProbe>,
    tails: [u16; 2],
    heads: [u16; 2],
    phases: [u16; 2],
}

impl Bench {
    fn cold() -> Self {
        let ram = GuestRam::for_test(RAM).unwrap();
        let (probe, msi, disk) = (Probe::new(), MessageProbe::new(), DiskBench::new(1 << 20));
        let options = Options { serial: "abc".to_owned(), queue_pairs: 4, vectors: 5, mdts: 7 };
        let wires = Wires { irq: probe.line(0), msi: msi.clone(), ram: ram.clone() };
        let mut chip = Nvme::new(options, wires);
        chip.config().set_power_on();
        let namespace = NamespaceOptions { block_size: 512, eui64: 0, uuid: [7; 16], write_cache: true };
        disk.share_memory(&ram);
        chip.plane().clone().attach(1, namespace, Policies::default(), disk.faults(), |notify| disk.queue(notify));
        let mut bench = Self { chip, ram, disk, probe, msi, tails: [0; 2], heads: [0; 2], phases: [1; 2] };
        bench.chip.reset(Reset::System);
        bench.chip.config().guest_write(4, 2, 6);
        bench.chip.config_written(ConfigChange { offset: 4, len: 2 });
        bench
    }

    fn enabled() -> Self {
        let mut bench = Self::cold();
        bench.write(0x24, 0x000f_000f);
        bench.write(0x28, u32::try_from(ADMIN_SQ).unwrap());
        bench.write(0x30, u32::try_from(ADMIN_CQ).unwrap());
        bench.write(0x14, 0x0046_0001);
        assert_eq!(bench.read(0x1c), 1);
        bench
    }

    fn ready() -> Self {
        let mut bench = Self::enabled();
        assert_eq!(bench.admin(&[5, 0, 0, 0, 0, 0, IO_CQ as u32, 0, 0, 0, 0x000f_0001, 3]), 0);
        assert_eq!(bench.admin(&[1, 0, 0, 0, 0, 0, IO_SQ as u32, 0, 0, 0, 0x000f_0001, 0x0001_0001]), 0);
        bench
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.chip.read(At { region: REGISTERS, offset, width: Width::B4 }) as u32
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.chip.write(At { region: REGISTERS, offset, width: Width::B4 }, value.into());
    }

    fn submit(&mut self, queue: usize, dwords: &[u32]) {
        let mut bytes = [0; 64];
        for (slot, dword) in bytes.chunks_exact_mut(4).zip(dwords) {
            slot.copy_from_slice(&dword.to_le_bytes());
        }
        let base = [ADMIN_SQ, IO_SQ][queue];
        self.ram.write(base + 64 * u64::from(self.tails[queue]), &bytes).unwrap();
        self.tails[queue] = (self.tails[queue] + 1) % 16;
        self.write(0x1000 + 8 * queue as u64, self.tails[queue].into());
    }

    /// The next completion: double word 0, command, status.
    fn completion(&mut self, queue: usize) -> Option<(u32, u16, u16)> {
        let at = [ADMIN_CQ, IO_CQ][queue] + 16 * u64::from(self.heads[queue]);
        let (result, last) = (self.ram.read_u32(at).unwrap(), self.ram.read_u32(at + 12).unwrap());
        let status = (last >> 16) as u16;
        if status & 1 != self.phases[queue] {
            return None;
        }
        self.heads[queue] = (self.heads[queue] + 1) % 16;
        self.phases[queue] ^= u16::from(self.heads[queue] == 0);
        self.write(0x1004 + 8 * queue as u64, self.heads[queue].into());
        Some((result, (last & 0xffff) as u16, status >> 1 & 0x3fff))
    }

    fn admin(&mut self, dwords: &[u32]) -> u16 {
        self.submit(0, dwords);
        self.completion(0).unwrap().2
    }

    fn io(&mut self, dwords: &[u32]) -> u16 {
        self.submit(1, dwords);
        self.disk.work();
        self.completion(1).unwrap().2
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(at, &mut bytes).unwrap();
        bytes
    }
}

/// A command with one or two PRPs.
fn prp(opcode: u32, first: u64, second: u64, lba: u32, blocks: u32) -> [u32; 16] {
    [opcode, 1, 0, 0, 0, 0, first as u32, (first >> 32) as u32, second as u32, 0, lba, 0, blocks - 1, 0, 0, 0]
}

#[test]
fn the_header_is_qemus() {
    let mut bench = Bench::cold();
    let config = bench.chip.config();
    assert_eq!((config.u32(0), config.u32(8), config.u32(0x2c)), (0x0010_1b36, 0x0108_0202, 0x1100_1af4));
    assert_eq!((config.u32(0x40) & 0xffff, config.u32(0x44), config.u32(0x48)), (0x0011, 0x2000, 0x3000));
    assert_eq!((bench.read(0), bench.read(4), bench.read(8)), (0x0f01_07ff, 0x0040_0020, 0x0001_0400));
}

#[test]
fn identify_tells_controller_and_namespace() {
    let mut bench = Bench::enabled();
    let identify = |cns: u32, nsid: u32| [6, nsid, 0, 0, 0, 0, DATA as u32, 0, 0, 0, cns];
    assert_eq!(bench.admin(&identify(1, 0)), 0);
    assert_eq!(bench.bytes(DATA + 4, 20), b"abc                 ");
    assert_eq!(bench.bytes(DATA + 24, 14), b"QEMU NVMe Ctrl");
    assert_eq!(bench.admin(&identify(0, 1)), 0);
    assert_eq!((bench.bytes(DATA, 3), bench.bytes(DATA + 130, 1)), (vec![0, 8, 0], vec![9]));
    assert_eq!(bench.admin(&identify(2, 0)), 0);
    assert_eq!(bench.bytes(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.admin(&identify(3, 1)), 0);
    assert_eq!(bench.bytes(DATA, 8), [3, 16, 0, 0, 7, 7, 7, 7]);
    assert_eq!(bench.admin(&identify(0, 0)), 0x0b);
    assert_eq!(bench.admin(&identify(0x55, 0)), 2);
}

#[test]
fn blocks_are_written_and_read_through_prps() {
    let mut bench = Bench::ready();
    bench.ram.write(DATA + 0xe00, &[5; 1024]).unwrap();
    assert_eq!(bench.io(&prp(1, DATA + 0xe00, DATA + 0x1000, 4, 2)), 0);
    assert_eq!(bench.disk.bytes()[2048..3072], [5; 1024]);
    // 33 blocks over a list of pages.
    bench.disk.set_bytes(0, &[9; 33 * 512]);
    for page in 0..5u64 {
        bench.ram.write(DATA + 0x8000 + 8 * page, &(DATA + 0x2_0000 + 0x2000 * page).to_le_bytes()).unwrap();
    }
    assert_eq!(bench.io(&prp(2, DATA + 0x200, DATA + 0x8000, 0, 33)), 0);
    assert_eq!(bench.bytes(DATA + 0x200, 0xe00), [9; 0xe00]);
    assert_eq!(bench.bytes(DATA + 0x2_2000, 4096), [9; 4096]);
}

#[test]
fn scatter_gather_lists_are_followed_and_bounded() {
    let mut bench = Bench::ready();
    bench.disk.set_bytes(0, &[3; 1024]);
    let put = |at: u64, address: u64, len: u32, kind: u8| {
        bench.ram.write(at, &address.to_le_bytes()).unwrap();
        bench.ram.write(at + 8, &len.to_le_bytes()).unwrap();
        bench.ram.write(at + 12, &[0, 0, 0, kind << 4]).unwrap();
    };
    put(DATA, DATA + 0x1000, 512, 0);
    put(DATA + 16, DATA + 0x100, 16, 3);
    put(DATA + 0x100, DATA + 0x3000, 512, 0);
    put(DATA + 0x200, DATA + 0x200, 16, 2);
    let sgl = |at: u64, len: u32, kind: u32| {
        let mut command = prp(2 | 0x4000, at, u64::from(len), 0, 2);
        command[9] = kind << 28;
        command
    };
    assert_eq!(bench.io(&sgl(DATA, 32, 2)), 0);
    assert_eq!((bench.bytes(DATA + 0x11ff, 2), bench.bytes(DATA + 0x3000, 512)), (vec![3, 0], vec![3; 512]));
    assert_eq!(bench.io(&sgl(DATA + 0x200, 16, 2)), 0x0d, "a list that leads to itself");
    assert_eq!(bench.io(&sgl(DATA, 512, 0)), 0x0f, "too short");
    assert_eq!(bench.io(&sgl(1 << 40, 1024, 0)), 4, "outside RAM");
}

#[test]
fn ranges_namespaces_and_opcodes_are_checked() {
    let mut bench = Bench::ready();
    assert_eq!(bench.io(&prp(2, DATA, 0, 2048, 1)), 0x80);
    assert_eq!(bench.io(&prp(2, DATA, 0, u32::MAX, 8)), 0x80);
    assert_eq!(bench.io(&prp(2, DATA + 1, 0, 0, 1)), 0x13);
    assert_eq!(bench.io(&prp(2, 1 << 40, 0, 0, 1)), 4);
    assert_eq!(bench.io(&prp(2, DATA, 0, 0, 1025)), 2, "more than MDTS");
    let mut command = prp(2, DATA, 0, 0, 1);
    command[1] = 2;
    assert_eq!(bench.io(&command), 2);
    command[1] = 0;
    assert_eq!(bench.io(&command), 0x0b);
    assert_eq!(bench.io(&prp(0x77, DATA, 0, 0, 1)), 1);
}

#[test]
fn flush_zeroes_discard_and_compare() {
    let mut bench = Bench::ready();
    bench.disk.set_bytes(0, &[1; 4096]);
    let mut flush = prp(0, 0, 0, 0, 1);
    flush[1] = u32::MAX;
    assert_eq!(bench.io(&flush), 0);
    assert_eq!(bench.io(&prp(8, 0, 0, 1, 2)), 0);
    assert_eq!(bench.disk.bytes()[..2048], [vec![1; 512], vec![0; 1024], vec![1; 512]].concat());
    let range = |blocks: u32, lba: u64| [&[0; 4][..], &blocks.to_le_bytes(), &lba.to_le_bytes()].concat();
    bench.ram.write(DATA, &[range(1, 0), range(2, 4)].concat()).unwrap();
    let mut dsm = prp(9, DATA, 0, 1, 1);
    dsm[11] = 4;
    assert_eq!(bench.io(&dsm), 0);
    assert_eq!(bench.disk.operations(), ["flush", "zero", "discard", "discard"]);
    bench.ram.write(DATA, &range(1, 5000)).unwrap();
    dsm[10] = 0;
    assert_eq!(bench.io(&dsm), 0x80);
    bench.ram.write(DATA, &[1; 512]).unwrap();
    assert_eq!((bench.io(&prp(5, DATA, 0, 0, 1)), bench.io(&prp(5, DATA, 0, 1, 1))), (0, 0x285));
}

#[test]
fn the_write_cache_is_a_feature() {
    let mut bench = Bench::ready();
    bench.io(&prp(1, DATA, 0, 0, 1));
    assert_eq!(bench.admin(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0]), 0);
    bench.submit(0, &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6]);
    assert_eq!(bench.completion(0).unwrap().0, 0);
    bench.io(&prp(1, DATA, 0, 0, 1));
    assert_eq!(bench.disk.operations(), ["write", "write fua"]);
    bench.submit(0, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x0007_0007]);
    assert_eq!(bench.completion(0).unwrap().0, 0x0003_0003);
}

#[test]
fn queues_are_checked_when_they_are_made_and_deleted() {
    let mut bench = Bench::ready();
    let mut create = |opcode: u32, id: u32, size: u32, flags: u32, base: u32| {
        bench.admin(&[opcode, 0, 0, 0, 0, 0, base, 0, 0, 0, size << 16 | id, flags])
    };
    assert_eq!(create(5, 1, 15, 1, 0x2000), 0x101, "it exists");
    assert_eq!(create(5, 9, 15, 1, 0x2000), 0x101, "too many");
    assert_eq!(create(5, 2, 0, 1, 0x2000), 0x102);
    assert_eq!(create(5, 2, 0x800, 1, 0x2000), 0x102);
    assert_eq!(create(5, 2, 15, 0, 0x2000), 2, "not contiguous");
    assert_eq!(create(5, 2, 15, 1, 0x2001), 0x13);
    assert_eq!(create(5, 2, 15, 0x0009_0001, 0x2000), 0x108, "no such vector");
    assert_eq!(create(1, 2, 15, 0x0002_0001, 0x2000), 0x100, "no such completion queue");
    assert_eq!(bench.admin(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 0x10c, "in use");
    assert_eq!(bench.admin(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 0);
    assert_eq!(bench.admin(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 0);
}

#[test]
fn completions_interrupt_by_pin_and_by_message() {
    let mut bench = Bench::ready();
    assert!(!bench.probe.is_high(0));
    bench.submit(1, &prp(2, DATA, 0, 0, 1));
    bench.disk.work();
    assert!(bench.probe.is_high(0));
    bench.write(0x0c, 1);
    assert!(!bench.probe.is_high(0));
    bench.write(0x10, 1);
    assert!(bench.completion(1).is_some());
    assert!(!bench.probe.is_high(0));
    bench.write(0x2000, 0xfee0_0000);
    bench.write(0x2008, 0x55);
    bench.write(0x200c, 0);
    bench.chip.config().guest_write(0x42, 2, 0x8000);
    bench.chip.config_written(ConfigChange { offset: 0x42, len: 2 });
    assert_eq!(bench.io(&prp(2, DATA, 0, 0, 1)), 0);
    assert_eq!(bench.msi.take(), [(0xfee0_0000, 0x55)]);
    assert!(!bench.probe.is_high(0));
}

#[test]
fn commands_can_be_aborted_and_resets_drop_them() {
    let mut bench = Bench::ready();
    let mut command = prp(2, DATA, 0, 0, 1);
    command[0] |= 0x1234 << 16;
    bench.submit(1, &command);
    bench.submit(0, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1234_0001]);
    assert_eq!(bench.completion(0), Some((0, 0, 0)));
    assert_eq!(bench.completion(1), Some((0, 0x1234, 7)));
    bench.disk.set_bytes(0, &[9; 512]);
    bench.submit(1, &command);
    bench.write(0x14, 0);
    bench.disk.work();
    assert_eq!(bench.bytes(DATA, 512), [0; 512]);
    assert_eq!(bench.read(0x1c), 0);
}

#[test]
fn a_shutdown_flushes_first() {
    let mut bench = Bench::ready();
    bench.write(0x14, 0x0046_4001);
    assert_eq!(bench.read(0x1c), 5);
    bench.disk.work();
    assert_eq!((bench.read(0x1c), bench.disk.operations()), (9, vec!["flush".to_owned()]));
}

#[test]
fn event_requests_wait_and_have_a_limit() {
    let mut bench = Bench::ready();
    for _ in 0..4 {
        bench.submit(0, &[12]);
    }
    assert_eq!(bench.completion(0), None);
    assert_eq!(bench.admin(&[12]), 0x105);
}

#[test]
fn more_commands_than_a_queue_has_wait() {
    let mut bench = Bench::ready();
    for _ in 0..3 {
        for _ in 0..15 {
            bench.submit(1, &prp(2, DATA, 0, 0, 1));
        }
    }
    bench.disk.work();
    let ended = std::iter::from_fn(|| {
        bench.disk.work();
        bench.completion(1)
    });
    assert!(ended.count() >= 15);
}

#[test]
fn random_programs_leave_the_controller_alive() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    for _ in 0..100 {
        let mut bench = Bench::ready();
        for _ in 0..100 {
            let (what, a, b) = (random.next() % 5, random.next(), random.next());
            match what {
                0 => bench.write((a % 0x40) & !3, (b >> (b % 32)) as u32),
                1 => bench.write(0x1000 + a % 0x40, (b % 20) as u32),
                2 => drop(bench.read((a % 0x4000) & !3)),
                3 => bench.ram.write((IO_SQ + a % 1024) & !3, &b.to_le_bytes()).unwrap(),
                _ => {
                    let mut command =
                        prp((a % 16) as u32, b % (RAM * 2), a % RAM, (b % 4096) as u32, 1 + (a % 64) as u32);
                    command[0] |= ((b % 4) as u32) << 14;
                    command[1] = (a % 3) as u32;
                    command[11] = (b % 8) as u32;
                    bench.submit((a % 2) as usize, &command);
                }
            }
            bench.disk.work();
        }
        bench.write(0x14, 0);
        assert_eq!(bench.read(0x1c), 0);
    }
}
