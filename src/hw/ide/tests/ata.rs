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
