//! Disks.

use super::*;

#[test]
fn a_disk_shows_its_signature_at_power_on() {
    let mut b = Bench::new();
    assert_eq!(b.regs(), [1, 1, 1, 0, 0, 0xa0, 0x50]);
    assert!(!b.irq());
}

#[test]
fn identify_comes_by_pio_with_one_interrupt() {
    let mut b = Bench::new();
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x58);
    assert!(!b.irq());
    let data = b.data_in(512);
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert!(!b.irq());
    assert_eq!(&data[54..68], b"EQUMH RADDSI K");
    assert_eq!(&data[20..28], b"MQ0000 1");
    assert_eq!((word(&data, 0), word(&data, 49), word(&data, 88)), (0x40, 0x0b00, 0x203f));
    assert_eq!(word(&data, 60), (SECTORS & 0xffff) as u16);
    assert_eq!(word(&data, 61), 1);
}

#[test]
fn read_sectors_interrupts_for_each_sector_and_asks_the_disk_once() {
    let mut b = Bench::new();
    b.command(cmd::READ_SECTORS, 2, 5);
    assert_eq!(b.alt(), 0xd0);
    b.run();
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x58);
    assert_eq!(b.data_in(512), pattern(5));
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x58);
    assert_eq!(b.data_in(512), pattern(6));
    assert!(!b.irq());
    assert_eq!(b.regs()[5..], [0xe0, 0x50]);
    assert_eq!(b.disk.with(|s| s.seen.clone()), [(Op::Read, 5 * 512, 1024)]);
}

#[test]
fn a_count_of_zero_reads_256_sectors() {
    let mut b = Bench::new();
    b.command(cmd::READ_SECTORS, 0, 0);
    let data = b.data_in(256 * 512);
    assert_eq!(data[255 * 512..], pattern(255));
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.disk.with(|s| s.seen.len()), 2);
}

#[test]
fn write_sectors_asks_for_data_without_an_interrupt_first() {
    let mut b = Bench::new();
    b.command(cmd::WRITE_SECTORS, 2, 9);
    assert!(!b.irq());
    assert_eq!(b.inb(Reg::Status), 0x58);
    b.data_out(&[1; 512]);
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x58);
    b.data_out(&[2; 512]);
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert!(!b.irq());
    assert_eq!(b.disk.with(|s| (s.data[9 * 512], s.data[10 * 512])), (1, 2));
}

#[test]
fn chs_addresses_follow_the_translation() {
    let mut b = Bench::new();
    let Geometry { heads, secs, .. } = Geometry::of(SECTORS);
    let lba = (2 * u64::from(heads) + 3) * u64::from(secs) + 4;
    b.outb(Reg::Device, 0xa3);
    b.outb(Reg::Count, 1);
    b.outb(Reg::LbaLow, 5);
    b.outb(Reg::LbaMid, 2);
    b.outb(Reg::LbaHigh, 0);
    b.outb(Reg::Status, cmd::READ_SECTORS);
    assert_eq!(b.data_in(512), pattern(lba));
}

#[test]
fn dma_reads_into_the_descriptors_and_sets_the_interrupt_bit() {
    let mut b = Bench::new();
    b.table(&[(0x2000, 512, false), (0x4000, 512, true)]);
    b.command(cmd::READ_DMA, 2, 7);
    assert_eq!(b.alt(), 0x58);
    b.start_dma();
    assert_eq!(b.bm_status(), 1);
    b.run();
    assert!(b.irq());
    assert_eq!(b.bm_status(), 4);
    b.stop_dma();
    b.bm_out(2, Width::B1, 4);
    assert_eq!(b.bm_status(), 0);
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert!(!b.irq());
    assert_eq!(b.guest(0x2000, 512), pattern(7));
    assert_eq!(b.guest(0x4000, 512), pattern(8));
}

#[test]
fn dma_writes_48_bit_addresses() {
    let mut b = Bench::new();
    b.ram.write(0x8000, &[0x5a; 1024]).unwrap();
    b.table(&[(0x8000, 1024, true)]);
    b.start_dma();
    b.command48(cmd::WRITE_DMA_EXT, 2, 65_700);
    b.run();
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.disk.with(|s| s.data[65_701 * 512 + 511]), 0x5a);
}

#[test]
fn an_address_past_the_end_is_not_found() {
    let mut b = Bench::new();
    b.command(cmd::READ_SECTORS, 2, u32::try_from(SECTORS).unwrap() - 1);
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Error), 0x10);
    assert_eq!(b.inb(Reg::Status), 0x41);
    assert!(!b.irq());
    assert!(b.disk.with(|s| s.seen.is_empty()));
}

#[test]
fn nien_holds_the_interrupt_back_and_lets_it_go_later() {
    let mut b = Bench::new();
    b.control(2);
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert!(!b.irq());
    b.control(0);
    assert!(b.irq());
    assert_eq!(b.alt(), 0x58);
    assert!(b.irq());
    b.inb(Reg::Status);
    assert!(!b.irq());
}

#[test]
fn hob_shows_the_bytes_written_before() {
    let mut b = Bench::new();
    b.outb(Reg::LbaLow, 0x12);
    b.outb(Reg::LbaLow, 0x34);
    assert_eq!(b.inb(Reg::LbaLow), 0x34);
    b.control(0x80);
    assert_eq!(b.inb(Reg::LbaLow), 0x12);
    b.outb(Reg::Count, 1);
    assert_eq!(b.inb(Reg::LbaLow), 0x34);
}

#[test]
fn native_max_ext_is_the_last_sector() {
    let mut b = Bench::new();
    b.command48(cmd::READ_NATIVE_MAX_EXT, 0, 0);
    let low = [Reg::LbaLow, Reg::LbaMid, Reg::LbaHigh].map(|reg| b.inb(reg));
    b.control(0x80);
    let high = [Reg::LbaLow, Reg::LbaMid, Reg::LbaHigh].map(|reg| b.inb(reg));
    assert_eq!((low, high), ([0x6f, 0x11, 0x01], [0, 0, 0]));
}

#[test]
fn flush_cache_reaches_the_disk() {
    let mut b = Bench::new();
    b.command(cmd::FLUSH_CACHE_EXT, 0, 0);
    assert_eq!(b.alt(), 0xd0);
    assert!(!b.irq());
    b.run();
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.disk.with(|s| s.seen.clone()), [(Op::Flush, 0, 0)]);
}

#[test]
fn without_the_write_cache_writes_go_to_stable_storage() {
    let mut b = Bench::new();
    b.outb(Reg::Error, 0x82);
    b.command(cmd::SET_FEATURES, 0, 0);
    b.run();
    b.command(cmd::WRITE_SECTORS, 1, 4);
    b.data_out(&[9; 512]);
    assert_eq!(b.disk.with(|s| s.seen.clone()), [(Op::Flush, 0, 0), (Op::WriteFua, 2048, 512)]);
    b.outb(Reg::Error, 0x02);
    b.command(cmd::SET_FEATURES, 0, 0);
    b.command(cmd::WRITE_SECTORS, 1, 4);
    b.data_out(&[9; 512]);
    assert_eq!(b.disk.with(|s| s.seen[2].0), Op::Write);
}

#[test]
fn trim_discards_the_ranges_of_its_list() {
    let mut b = Bench::new();
    let mut list = vec![0; 512];
    list[..8].copy_from_slice(&(8u64 | 4 << 48).to_le_bytes());
    list[8..16].copy_from_slice(&(100u64 | 1 << 48).to_le_bytes());
    b.ram.write(0x5000, &list).unwrap();
    b.table(&[(0x5000, 512, true)]);
    b.outb(Reg::Error, 1);
    b.command48(cmd::DATA_SET_MANAGEMENT, 1, 0);
    b.start_dma();
    b.run();
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.disk.with(|s| s.seen.clone()), [(Op::Discard, 4096, 2048), (Op::Discard, 51200, 512)]);
}

#[test]
fn a_trim_past_the_end_fails() {
    let mut b = Bench::new();
    let mut list = vec![0; 512];
    list[..8].copy_from_slice(&(SECTORS | 1 << 48).to_le_bytes());
    b.ram.write(0x5000, &list).unwrap();
    b.table(&[(0x5000, 512, true)]);
    b.outb(Reg::Error, 1);
    b.command48(cmd::DATA_SET_MANAGEMENT, 1, 0);
    b.start_dma();
    b.run();
    assert_eq!(b.inb(Reg::Status), 0x41);
}

#[test]
fn a_large_dma_read_is_cut_and_comes_whole() {
    let mut b = Bench::new();
    let mut entries: Vec<_> = (0..40u32).map(|i| (0x10_0000 + i * 0x1_0000, 0u16, false)).collect();
    entries[39].2 = true;
    b.table(&entries);
    b.command48(cmd::READ_DMA_EXT, 5000, 10);
    b.start_dma();
    b.run();
    assert_eq!(b.bm_status(), 5); // the table has 5120 sectors: the engine waits for more
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.guest(0x10_0000 + 4999 * 512, 512), pattern(5009));
    assert_eq!(b.disk.with(|s| s.seen.len()), 3);
}

#[test]
fn the_options_show_in_identify() {
    let options = DriveOptions {
        serial: Some("abc".to_owned()),
        model: Some("disk of mine".to_owned()),
        version: Some("9".to_owned()),
        wwn: 0x5000_1234_5678_9abc,
        physical_block_size: 4096,
        rotation_rate: 1,
        geometry: Some(Geometry { cyls: 100, heads: 4, secs: 17 }),
        trim: false,
        ..DriveOptions::new(DriveKind::Disk)
    };
    let mut b = Bench::with(options, DriveOptions::new(DriveKind::Cdrom));
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    let data = b.data_in(512);
    assert_eq!(&data[20..24], b"ba c");
    assert_eq!(&data[54..58], b"idks");
    assert_eq!(&data[46..48], b" 9");
    assert_eq!([1, 3, 6].map(|i| word(&data, i)), [100, 4, 17]);
    assert_eq!([106, 108, 111, 169, 217].map(|i| word(&data, i)), [0x6003, 0x5000, 0x9abc, 0, 1]);
    assert_eq!(word(&data, 84) & 0x100, 0x100);
}

#[test]
fn standby_shows_until_the_disk_is_used() {
    let mut b = Bench::new();
    b.command(cmd::STANDBY_IMMEDIATE, 0, 0);
    b.command(cmd::CHECK_POWER_MODE, 0, 0);
    assert_eq!(b.inb(Reg::Count), 0);
    b.command(cmd::READ_SECTORS, 1, 0);
    b.data_in(512);
    b.command(cmd::CHECK_POWER_MODE, 0, 0);
    assert_eq!(b.inb(Reg::Count), 0xff);
}

#[test]
fn a_sleeping_drive_wakes_by_reset_only() {
    let mut b = Bench::new();
    b.command(cmd::SLEEP, 0, 0);
    b.inb(Reg::Status);
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert_eq!(b.inb(Reg::Status), 0x50);
    b.control(4);
    b.control(0);
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert_eq!(b.inb(Reg::Status), 0x58);
}

#[test]
fn a_self_test_shows_in_its_log() {
    let mut b = Bench::new();
    b.outb(Reg::Error, 0xd4);
    b.command(cmd::SMART, 1, 0x00c2_4f01);
    assert_eq!(b.inb(Reg::Status), 0x50);
    b.outb(Reg::Error, 0xd5);
    b.command(cmd::SMART, 1, 0x00c2_4f06);
    let page = b.data_in(512);
    assert_eq!((page[2], page[3], page[508]), (1, 0, 1));
    assert_eq!(page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

#[test]
fn string_accesses_move_whole_blocks() {
    let mut board = crate::bus::Board::new();
    let b = Bench::new();
    let disk = b.disk.clone();
    let ide = board.add("ide", b.ide);
    for (region, base, len) in LEGACY_PORTS {
        board.map_ports(ide.id(), region, DECODE, base, len);
    }
    board.port_write(0x1f6, Width::B1, 0xe0);
    board.port_write(0x1f2, Width::B1, 2);
    board.port_write(0x1f3, Width::B1, 3);
    board.port_write(0x1f7, Width::B1, 0x20);
    disk.work();
    board.event(ide.id(), PiixIde::token(0));
    let mut data = vec![0; 1024];
    board.port_read_string(0x1f0, Width::B2, &mut data[..512]);
    board.port_read_string(0x1f0, Width::B4, &mut data[512..]);
    assert_eq!(data, [pattern(3), pattern(4)].concat());
    assert_eq!(board.port_read(0x1f7, Width::B1), 0x50);
    board.port_write(0x1f2, Width::B1, 1);
    board.port_write(0x1f3, Width::B1, 8);
    board.port_write(0x1f7, Width::B1, 0x30);
    board.port_write_string(0x1f0, Width::B2, &data[..512]);
    disk.work();
    assert_eq!(disk.with(|s| s.data[8 * 512..9 * 512].to_vec()), pattern(3));
}
