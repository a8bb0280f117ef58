//! CD-ROM drives.

use super::*;

#[test]
fn identify_device_fails_with_the_packet_signature() {
    let mut b = Bench::on_cd();
    b.command(cmd::IDENTIFY_DEVICE, 0, 0);
    assert_eq!(b.regs(), [4, 1, 1, 0x14, 0xeb, 0xe0, 0x41]);
}

#[test]
fn a_block_is_read_by_pio_in_pieces_of_the_limit() {
    let mut b = Bench::on_cd();
    let (data, error) = b.packet_limit(&[0x28, 0, 0, 0, 0, 3, 0, 0, 2], 3000);
    assert_eq!(error, 0);
    let expected: Vec<u8> = (12..20).flat_map(pattern).collect();
    assert_eq!(data, expected);
}

#[test]
fn blocks_are_read_by_dma() {
    let mut b = Bench::on_cd();
    b.table(&[(0x3000, 4096, true)]);
    b.outb(Reg::Error, 1);
    b.outb(Reg::Status, cmd::PACKET);
    b.send_packet(&[0x28, 0, 0, 0, 0, 1, 0, 0, 2]);
    b.start_dma();
    b.run();
    assert!(b.irq());
    assert_eq!(b.bm_status(), 4);
    assert_eq!(b.inb(Reg::Count), 3);
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.guest(0x3000, 512), pattern(4));
    assert_eq!(b.guest(0x3000 + 7 * 512, 512), pattern(11));
}

#[test]
fn inquiry_tells_who_it_is() {
    let mut b = Bench::on_cd();
    let (data, _) = b.packet(&[0x12, 0, 0, 0, 36]);
    assert_eq!(&data[..8], &[5, 0x80, 0, 0x21, 31, 0, 0, 0]);
    assert_eq!(&data[8..], b"QEMU    QEMU DVD-ROM    2.5+");
}
