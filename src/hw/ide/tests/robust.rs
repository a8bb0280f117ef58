//! Hostile guests, resets in the middle, and descriptor tables that are wrong.

use super::*;

/// xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// One random access or event. Commands are real ones half of the time.
fn step(b: &mut Bench, random: &mut Random) {
    const COMMANDS: [u8; 24] = [
        0x20, 0x24, 0xc4, 0x29, 0xc8, 0x25, 0x30, 0x34, 0xc5, 0x39, 0xca, 0x35, 0x3d, 0x40, 0x42, 0x06, 0xa0, 0xa0,
        0xec, 0xa1, 0xb0, 0xef, 0xe7, 0x90,
    ];
    const PACKETS: [u8; 16] =
        [0x28, 0xa8, 0xbe, 0x12, 0x03, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x55, 0x5a, 0xad, 0xbd, 0x1b, 0x1e];
    let value = random.next();
    b.channel = (value >> 60 & 1) as usize;
    let byte = value.to_le_bytes()[0];
    match random.below(24) {
        0..=5 => b.outb(Reg::at(random.below(7)), byte),
        6 => b.outb(Reg::Status, byte),
        7..=8 => b.outb(Reg::Status, COMMANDS[usize::from(byte) % COMMANDS.len()]),
        9 => drop(b.inb(Reg::at(random.below(8)))),
        10 => b.control(byte & 0x86),
        11 => b.bm_out(random.below(8), Width::B1, u64::from(byte)),
        12 => b.bm_out(4, Width::B4, value & 0x3f_ffff),
        13 => b.start_dma(),
        14 => b.stop_dma(),
        15..=16 => drop((0..random.below(1200)).map(|_| b.inw()).collect::<Vec<_>>()),
        17 => (0..random.below(1200)).for_each(|i| b.outw((value >> (i & 31)) as u16)),
        18 => {
            let mut packet = value.to_le_bytes().map(|byte| byte & 0x13);
            packet[0] = PACKETS[usize::from(byte) % PACKETS.len()];
            b.send_packet(&packet);
        }
        19..=20 => drop((b.disk.work(), b.cd.work())),
        21 => b.run(),
        22 => (0..4).for_each(|unit| b.ide.event(PiixIde::token(unit))),
        _ if byte < 8 => b.ide.reset(Reset::System),
        _ if byte < 16 => b.ide.medium_changed(usize::from(byte % 4)),
        _ if byte < 24 => b.disk.with(|s| s.fail = (byte & 1 != 0).then_some(io::ErrorKind::Other)),
        _ if byte < 32 => b.cd.with(|s| s.no_medium = byte & 1 != 0),
        _ if byte < 40 => drop(b.ide.eject(2, byte & 1 != 0)),
        _ => b.ide.retry_held(),
    }
}

#[test]
fn no_program_makes_the_controller_panic() {
    let options = DriveOptions { rerror: OnError::Stop, ..DriveOptions::new(DriveKind::Disk) };
    let mut b = Bench::with(options, DriveOptions::new(DriveKind::Cdrom));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let noise: Vec<u8> = (0..1 << 20).map(|_| random.next().to_le_bytes()[3]).collect();
    b.ram.write(0, &noise).unwrap();
    (0..60_000).for_each(|_| step(&mut b, &mut random));
    // It still works afterwards.
    b.disk.with(|s| s.fail = None);
    b.ide.reset(Reset::System);
    b.channel = 0;
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert_eq!(b.data_in(512)[54..58], *b"EQUM");
}

#[test]
fn a_system_reset_is_the_power_on_state() {
    let mut b = Bench::new();
    b.outb(Reg::Error, 0x03);
    b.command(cmd::SET_FEATURES, 0x22, 0);
    b.command(cmd::SET_MULTIPLE_MODE, 2, 0);
    b.command(cmd::READ_SECTORS, 2, 0);
    b.bm_out(0, Width::B4, 0xffff_ffff);
    b.bm_out(4, Width::B4, 0x1234_5678);
    b.ide.reset(Reset::System);
    assert_eq!(b.disk.with(|s| s.cancelled), 1);
    b.run();
    let mut fresh = Bench::new();
    assert_eq!(b.regs(), fresh.regs());
    assert_eq!(b.bm_status(), 0);
    assert!(!b.irq());
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    fresh.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert_eq!(b.data_in(512), fresh.data_in(512));
}

#[test]
fn a_soft_reset_in_the_middle_of_a_read_leaves_a_signature() {
    let mut b = Bench::new();
    b.command(cmd::READ_SECTORS, 2, 0);
    b.run();
    b.inw();
    b.control(4);
    assert_eq!(b.alt(), 0x80);
    assert!(!b.irq());
    b.control(0);
    assert_eq!(b.regs(), [1, 1, 1, 0, 0, 0xa0, 0x50]);
    b.command(cmd::READ_SECTORS, 1, 8);
    assert_eq!(b.data_in(512), pattern(8));
}

#[test]
fn a_soft_reset_takes_a_dma_request_back() {
    let mut b = Bench::new();
    b.table(&[(0x6000, 512, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    b.control(4);
    b.control(0);
    b.run();
    assert_eq!(b.guest(0x6000, 512), vec![0; 512]);
    assert_eq!(b.disk.with(|s| s.cancelled), 1);
}

#[test]
fn stopping_the_engine_takes_the_request_back_and_starting_repeats_it() {
    let mut b = Bench::new();
    b.table(&[(0x6000, 512, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    b.stop_dma();
    b.run();
    assert_eq!(b.guest(0x6000, 512), vec![0; 512]);
    assert_eq!((b.alt(), b.bm_status()), (0x58, 0));
    b.start_dma();
    b.run();
    assert_eq!(b.guest(0x6000, 512), pattern(11));
    assert_eq!(b.inb(Reg::Status), 0x50);
}

#[test]
fn a_table_shorter_than_the_transfer_stops_the_engine_without_an_interrupt() {
    let mut b = Bench::new();
    b.table(&[(0x6000, 512, true)]);
    b.command(cmd::READ_DMA, 2, 11);
    b.start_dma();
    b.run();
    assert_eq!(b.bm_status(), 0);
    assert!(!b.irq());
    assert_eq!(b.guest(0x6000, 512), pattern(11));
    // A new table continues the transfer.
    b.stop_dma();
    b.table(&[(0x7000, 512, true)]);
    b.start_dma();
    b.run();
    assert!(b.irq());
    assert_eq!(b.guest(0x7000, 512), pattern(12));
}

#[test]
fn a_longer_table_leaves_the_engine_active() {
    let mut b = Bench::new();
    b.table(&[(0x6000, 4096, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    b.run();
    assert_eq!(b.bm_status(), 5);
    b.stop_dma();
    assert_eq!(b.bm_status(), 4);
}

#[test]
fn descriptors_outside_ram_are_a_bus_error() {
    let mut b = Bench::new();
    b.table(&[(0x7fff_f000, 512, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    assert_eq!(b.bm_status(), 2);
    b.stop_dma();
    b.bm_out(2, Width::B1, 2);
    b.bm_out(4, Width::B4, 0xfff0_0000);
    b.start_dma();
    assert_eq!(b.bm_status(), 2);
    assert!(b.disk.with(|s| s.seen.is_empty()));
}

#[test]
fn a_length_of_zero_is_64_kib() {
    let mut b = Bench::new();
    b.table(&[(0x1_0000, 0, true)]);
    b.command(cmd::READ_DMA, 128, 0);
    b.start_dma();
    b.run();
    assert_eq!(b.bm_status(), 4);
    assert_eq!(b.guest(0x1_0000 + 127 * 512, 512), pattern(127));
}

#[test]
fn a_table_of_two_byte_descriptors_is_served_in_bounded_requests() {
    let mut b = Bench::new();
    let entries: Vec<_> = (0..8192u32).map(|i| (0x10_0000 + i * 4, 2u16, false)).collect();
    b.bm_out(4, Width::B4, 0x2_0000);
    for (at, (gpa, len, _)) in (0x2_0000u64..).step_by(8).zip(&entries) {
        b.ram.write(at, &gpa.to_le_bytes()).unwrap();
        b.ram.write(at + 4, &u32::from(*len).to_le_bytes()).unwrap();
    }
    b.command(cmd::READ_DMA, 0, 0);
    b.start_dma();
    b.run();
    // The table ends at its 64 KiB: 8192 descriptors are 32 sectors.
    assert_eq!(b.bm_status(), 0);
    assert!(b.disk.with(|s| s.seen.iter().all(|(_, _, len)| *len <= 2560)));
    assert_eq!(b.disk.with(|s| s.seen.iter().map(|(_, _, len)| *len).sum::<u64>()), 32 * 512);
}

#[test]
fn the_engine_waits_for_bus_mastering() {
    let mut b = Bench::new();
    b.ide.config().guest_write(4, 2, u32::from(COMMAND_IO));
    b.ide.config_written(ConfigChange { offset: 4, len: 2 });
    b.table(&[(0x6000, 512, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    assert!(b.disk.with(|s| s.seen.is_empty()));
    b.ide.config().guest_write(4, 2, u32::from(COMMAND_IO | COMMAND_BUS_MASTER));
    b.ide.config_written(ConfigChange { offset: 4, len: 2 });
    b.run();
    assert_eq!(b.guest(0x6000, 512), pattern(11));
}

#[test]
fn a_channel_without_drives_reads_as_zero() {
    let probe = Probe::new();
    let ram = GuestRam::for_test(4096).unwrap();
    let mut ide = PiixIde::new(Chip::Piix3, [probe.line(14), probe.line(15)], ram, Arc::new(|_| ()));
    let seen: Vec<u64> =
        (0..8).map(|offset| ide.read(At { region: PRIMARY_COMMAND, offset, width: Width::B1 })).collect();
    assert_eq!(seen, [0; 8]);
}
