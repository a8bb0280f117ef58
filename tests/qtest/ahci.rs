//! AHCI: the Q35 board's controller with disks and CD-ROM drives.

use std::fs;

use tempfile::TempDir;

use crate::client::Qtest;
use crate::pci::Function;
use crate::random::Random;

const PORT: u64 = 0x100;
const IS: u64 = 0x10;
const IE: u64 = 0x14;
const CMD: u64 = 0x18;
const TFD: u64 = 0x20;
const SIG: u64 = 0x24;
const SSTS: u64 = 0x28;
const SCTL: u64 = 0x2c;
const SERR: u64 = 0x30;
const SACT: u64 = 0x34;
const CI: u64 = 0x38;

const READ_DMA_EXT: u8 = 0x25;
const READ_LOG_EXT: u8 = 0x2f;
const WRITE_DMA_EXT: u8 = 0x35;
const READ_FPDMA_QUEUED: u8 = 0x60;
const WRITE_FPDMA_QUEUED: u8 = 0x61;
const PACKET: u8 = 0xa0;
const IDENTIFY: u8 = 0xec;

/// A folder with a disk of 4 MiB whose sector n is full of the byte n, and a CD of 64 blocks, block n full of n + 1.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let disk: Vec<u8> = (0..8192u32).flat_map(|sector| [sector as u8; 512]).collect();
    fs::write(folder.path().join("disk.img"), disk).unwrap();
    let cd: Vec<u8> = (0..64u8).flat_map(|block| [block + 1; 2048]).collect();
    fs::write(folder.path().join("cd.iso"), cd).unwrap();
    folder
}

const DISKS: &str = "-M q35 -drive file=disk.img,format=raw,if=ide -drive file=cd.iso,media=cdrom,if=ide,index=2";

/// A port that runs.
struct Port<'a> {
    m: &'a Qtest,
    base: u64,
    list: u64,
    received: u64,
    tables: u64,
}

/// The controller's registers, with interrupts on.
fn controller(m: &Qtest) -> u64 {
    let function = Function::new(m, 31, 2);
    assert_eq!(function.read32(0), 0x2922_8086);
    let base = function.map_bar(5).memory();
    function.enable();
    m.writel(base + 4, 0x8000_0002);
    base
}

impl<'a> Port<'a> {
    fn start(m: &'a Qtest, controller: u64, index: u64) -> Self {
        let base = controller + PORT + 0x80 * index;
        let port =
            Self { m, base, list: m.alloc(1024, 1024), received: m.alloc(256, 256), tables: m.alloc(32 * 256, 256) };
        port.restart();
        port
    }

    fn restart(&self) {
        self.write(CMD, 0);
        self.write(0x00, self.list as u32);
        self.write(0x08, self.received as u32);
        self.write(SERR, u32::MAX);
        self.write(IS, u32::MAX);
        self.write(IE, 0x7dc0_00ff);
        self.write(CMD, 0x10);
        self.write(CMD, 0x11);
    }

    fn read(&self, register: u64) -> u32 {
        self.m.readl(self.base + register)
    }

    fn write(&self, register: u64, value: u32) {
        self.m.writel(self.base + register, value);
    }

    /// Lays a command out in a slot: `frame` is command, features, count and sector; `regions` are addresses and lengths.
    fn prepare(&self, slot: u32, frame: &[u8; 20], flags: u16, regions: &[(u64, u32)]) {
        let table = self.tables + 256 * u64::from(slot);
        self.m.write(table, frame);
        for (index, (address, len)) in regions.iter().enumerate() {
            let at = table + 0x80 + 16 * index as u64;
            self.m.writeq(at, *address);
            self.m.writel(at + 12, len - 1);
        }
        let header = self.list + 32 * u64::from(slot);
        self.m.writel(header, (regions.len() as u32) << 16 | u32::from(flags) | 5);
        self.m.writel(header + 4, 0);
        self.m.writeq(header + 8, table);
    }

    fn wait(&self, register: u64, mask: u32) {
        self.m.wait("a command", || self.read(register) & mask == 0 || self.read(IS) & 0x7800_0000 != 0);
    }

    /// Does one command in slot 0: the task file afterwards.
    fn run(&self, frame: &[u8; 20], flags: u16, regions: &[(u64, u32)]) -> u32 {
        self.prepare(0, frame, flags, regions);
        self.write(CI, 1);
        self.wait(CI, 1);
        self.read(TFD)
    }
}

/// A command's frame with 48 bits of address.
fn frame(command: u8, lba: u64, count: u16) -> [u8; 20] {
    let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
    let [low, high] = count.to_le_bytes();
    [0x27, 0x80, command, 0, a, b, c, 0x40, d, e, f, 0, low, high, 0, 0, 0, 0, 0, 0]
}

fn queued(command: u8, lba: u64, count: u16, tag: u8) -> [u8; 20] {
    let mut frame = frame(command, lba, u16::from(tag) << 3);
    [frame[3], frame[11]] = count.to_le_bytes();
    frame
}

#[test]
fn ports_show_what_is_connected() {
    let m = Qtest::start_in(folder(), DISKS);
    let hba = controller(&m);
    assert_eq!(m.readl(hba), 0xc014_1f05);
    assert_eq!((m.readl(hba + 0x0c), m.readl(hba + 0x10)), (0x3f, 0x1_0000));
    let disk = Port::start(&m, hba, 0);
    assert_eq!((disk.read(SSTS), disk.read(SIG), disk.read(TFD)), (0x113, 0x101, 0x150));
    let empty = Port::start(&m, hba, 1);
    assert_eq!((empty.read(SSTS), empty.read(TFD)), (0, 0x7f));
    let cd = Port::start(&m, hba, 2);
    assert_eq!((cd.read(SSTS), cd.read(SIG)), (0x113, 0xeb14_0101));
}

#[test]
fn a_disk_identifies_itself_by_pio() {
    let m = Qtest::start_in(folder(), DISKS);
    m.intercept();
    let port = Port::start(&m, controller(&m), 0);
    let buffer = m.alloc(512, 4096);
    assert_eq!(port.run(&frame(IDENTIFY, 0, 1), 0, &[(buffer, 512)]) & 0x89, 0);
    let words = m.read(buffer, 512);
    let word = |index: usize| u16::from_le_bytes([words[2 * index], words[2 * index + 1]]);
    assert_eq!((word(75), word(76) & 0x100, word(100)), (31, 0x100, 8192));
    assert_eq!(&words[20..40], b"MQ0000 1            ");
    assert_eq!(m.readl(port.list + 4), 512);
    // A PIO Setup frame came, and the interrupt of slot 31, function 2: PIRQA#.
    assert_eq!(m.readb(port.received + 0x20), 0x5f);
    assert!(m.irq(16));
    port.write(IS, u32::MAX);
    m.writel(port.base - PORT + 8, 1);
    assert!(!m.irq(16));
}

#[test]
fn dma_goes_through_pieces_of_memory() {
    let m = Qtest::start_in(folder(), DISKS);
    let port = Port::start(&m, controller(&m), 0);
    let buffer = m.alloc(0x3000, 4096);
    let pieces = [(buffer, 512), (buffer + 0x1000, 1024), (buffer + 0x2000, 512)];
    assert_eq!(port.run(&frame(READ_DMA_EXT, 5, 4), 0, &pieces) & 0xff, 0x50);
    assert_eq!(m.read(buffer, 512), [5; 512]);
    assert_eq!(m.read(buffer + 0x1000, 1024), [[6; 512], [7; 512]].concat());
    assert_eq!(m.read(buffer + 0x2000, 512), [8; 512]);
    m.memset(buffer, 1024, 0xaa);
    assert_eq!(port.run(&frame(WRITE_DMA_EXT, 100, 2), 1 << 6, &[(buffer, 1024)]) & 0xff, 0x50);
    assert_eq!(port.run(&frame(0xea, 0, 0), 0, &[]) & 0xff, 0x50);
    let disk = fs::read(m.end().path().join("disk.img")).unwrap();
    assert_eq!(disk[100 * 512..102 * 512], [0xaa; 1024]);
    assert_eq!(disk[102 * 512], 102);
}

#[test]
fn thirty_two_queued_commands_end_each_with_its_bit() {
    let m = Qtest::start_in(folder(), DISKS);
    let port = Port::start(&m, controller(&m), 0);
    let buffer = m.alloc(32 * 1024, 4096);
    for slot in 0..32u32 {
        let place = buffer + 1024 * u64::from(slot);
        let lba = u64::from(slot) * 7;
        if slot % 4 == 3 {
            m.memset(place, 1024, 0xc0 + slot as u8);
            port.prepare(slot, &queued(WRITE_FPDMA_QUEUED, 4000 + lba, 2, slot as u8), 1 << 6, &[(place, 1024)]);
        } else {
            port.prepare(slot, &queued(READ_FPDMA_QUEUED, lba, 2, slot as u8), 0, &[(place, 1024)]);
        }
    }
    port.write(SACT, u32::MAX);
    port.write(CI, u32::MAX);
    port.wait(SACT, u32::MAX);
    assert_eq!((port.read(CI), port.read(SACT), port.read(IS) & 0x4000_0008), (0, 0, 8));
    for slot in (0..32u64).filter(|slot| slot % 4 != 3) {
        assert_eq!(m.read(buffer + 1024 * slot, 1024), [[(slot * 7) as u8; 512], [(slot * 7 + 1) as u8; 512]].concat());
    }
    let disk = fs::read(m.end().path().join("disk.img")).unwrap();
    assert_eq!(disk[(4000 + 21) * 512..(4000 + 23) * 512], [0xc3; 1024]);
}

#[test]
fn a_queued_command_that_fails_is_in_the_log() {
    let m = Qtest::start_in(folder(), DISKS);
    let port = Port::start(&m, controller(&m), 0);
    let buffer = m.alloc(4096, 4096);
    port.prepare(3, &queued(READ_FPDMA_QUEUED, 8191, 2, 3), 0, &[(buffer, 1024)]);
    port.write(SACT, 8);
    port.write(CI, 8);
    port.wait(SACT, 8);
    assert_eq!((port.read(IS) & 0x4000_0000, port.read(TFD) & 1), (0x4000_0000, 1));
    port.restart();
    assert_eq!(port.read(SACT), 0);
    assert_eq!(port.run(&frame(READ_LOG_EXT, 0x10, 1), 0, &[(buffer, 512)]) & 0x89, 0);
    let log = m.read(buffer, 512);
    assert_eq!((log[0], log[2] & 1, log[4], log[5]), (3, 1, 0xff, 0x1f));
    assert_eq!(log.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

#[test]
fn a_cd_is_read_by_packets() {
    let m = Qtest::start_in(folder(), DISKS);
    let port = Port::start(&m, controller(&m), 2);
    let buffer = m.alloc(4096, 4096);
    let packet = |bytes: &[u8]| {
        let mut all = [0u8; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        m.write(port.tables + 0x40, &all);
    };
    // The medium is new: the first commands tell so (TEST UNIT READY).
    let mut ready = frame(PACKET, 0, 0);
    (ready[5], ready[6]) = (0xfe, 0xff);
    for _ in 0..3 {
        packet(&[0]);
        if port.run(&ready, 1 << 5, &[]) & 1 == 0 {
            break;
        }
        port.restart();
    }
    let mut read = frame(PACKET, 0, 0);
    read[3] = 1;
    packet(&[0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0]);
    assert_eq!(port.run(&read, 1 << 5, &[(buffer, 4096)]) & 0x89, 0);
    assert_eq!(m.read(buffer, 4096), [[10; 2048], [11; 2048]].concat());
    // READ CAPACITY by PIO.
    packet(&[0x25]);
    assert_eq!(port.run(&ready, 1 << 5, &[(buffer, 8)]) & 0x89, 0);
    assert_eq!(m.read(buffer, 8), [0, 0, 0, 63, 0, 0, 8, 0]);
}

#[test]
fn resets_forget_commands_and_bring_the_signature_back() {
    let m = Qtest::start_in(folder(), DISKS);
    let hba = controller(&m);
    let port = Port::start(&m, hba, 0);
    let buffer = m.alloc(0x10_0000, 4096);
    port.prepare(0, &frame(READ_DMA_EXT, 0, 2048), 0, &[(buffer, 0x10_0000)]);
    port.write(CI, 1);
    port.write(CMD, 0x10);
    assert_eq!((port.read(CI), port.read(CMD) & 0x8001), (0, 0));
    port.write(SCTL, 1);
    assert_eq!(port.read(SSTS), 0);
    port.write(SCTL, 0);
    assert_eq!((port.read(SSTS), port.read(TFD), port.read(SIG)), (0x113, 0x150, 0x101));
    assert_ne!(port.read(SERR) & 1 << 26, 0);
    port.restart();
    assert_eq!(port.run(&frame(READ_DMA_EXT, 1, 1), 0, &[(buffer, 512)]) & 0xff, 0x50);
    // A soft reset has two halves.
    let mut control = [0; 20];
    (control[0], control[15]) = (0x27, 4);
    port.run(&control, 1 << 8 | 1 << 10, &[]);
    control[15] = 0;
    assert_eq!(port.run(&control, 0, &[]) & 0xff, 0x50);
    m.writel(hba + 4, 0x8000_0001);
    assert_eq!((m.readl(hba + 4), port.read(CMD)), (0x8000_0000, 0));
}

#[test]
fn structures_and_buffers_outside_memory_are_bus_errors() {
    let m = Qtest::start_in(folder(), DISKS);
    let hba = controller(&m);
    let port = Port::start(&m, hba, 0);
    // A buffer on the controller's own registers.
    port.prepare(0, &frame(READ_DMA_EXT, 0, 1), 0, &[(hba, 512)]);
    port.write(CI, 1);
    port.wait(CI, 1);
    assert_ne!(port.read(IS) & 1 << 29, 0);
    port.restart();
    // A list nowhere.
    port.write(CMD, 0);
    port.write(4, 0xffff_ff00);
    port.write(CMD, 0x11);
    port.write(CI, 0xff);
    assert_ne!(port.read(IS) & 1 << 29, 0);
    port.write(CMD, 0);
    port.write(4, 0);
    port.restart();
    // A table that is too short.
    let buffer = m.alloc(512, 512);
    port.prepare(0, &frame(READ_DMA_EXT, 0, 2), 0, &[(buffer, 256)]);
    port.write(CI, 1);
    port.wait(CI, 1);
    assert_ne!(port.read(IS) & 1 << 24, 0);
    port.restart();
    assert_eq!(port.run(&frame(READ_DMA_EXT, 1, 1), 0, &[(buffer, 512)]) & 0xff, 0x50);
    assert_eq!(m.read(buffer, 512), [1; 512]);
}

#[test]
fn random_programs_leave_the_controller_alive() {
    let m = Qtest::start_in(folder(), DISKS);
    let hba = controller(&m);
    let mut random = Random(0x5eed);
    let ports = [Port::start(&m, hba, 0), Port::start(&m, hba, 2)];
    let memory = m.alloc(0x1_0000, 4096);
    let commands = [0x25, 0x35, 0x60, 0x61, 0xa0, 0xec, 0xc8, 0x20, 0x30, 0x2f, 0x06, 0x90, 0xef, 0xe7, 0xb0, 0x08];
    for _ in 0..1500 {
        let port = &ports[random.below(2) as usize];
        match random.below(6) {
            0 => port.write(4 * random.below(32), random.next() as u32),
            1 => m.writel(hba + 4 * random.below(0x100), random.next() as u32),
            2 => port.restart(),
            _ => {
                let slot = random.below(32) as u32;
                let mut fis: [u8; 20] = std::array::from_fn(|_| random.next() as u8);
                (fis[0], fis[1]) = (0x27, 0x80 & random.next() as u8 | 0x80);
                fis[2] = commands[random.below(16) as usize];
                if random.below(2) == 0 {
                    (fis[6], fis[8], fis[9], fis[10], fis[13]) = (0, 0, 0, 0, 0);
                }
                let regions: Vec<(u64, u32)> = (0..random.below(6))
                    .map(|_| (memory + random.below(0x1_0100), 1 + random.below(0x4000) as u32))
                    .collect();
                port.prepare(slot, &fis, random.next() as u16 & 0xe0, &regions);
                port.write(SACT, random.next() as u32);
                port.write(CI, 1 << slot);
            }
        }
    }
    m.writel(hba + 4, 0x8000_0001);
    let port = Port::start(&m, hba, 0);
    port.write(SCTL, 1);
    port.write(SCTL, 0);
    port.restart();
    let buffer = m.alloc(512, 512);
    assert_eq!(port.run(&frame(IDENTIFY, 0, 1), 0, &[(buffer, 512)]) & 0x89, 0);
}
