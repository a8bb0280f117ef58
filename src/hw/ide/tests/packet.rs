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

#[test]
fn a_medium_change_is_told_in_two_steps() {
    let mut b = Bench::on_cd();
    b.ide.medium_changed(2);
    let (event, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event[4..6], [2, 2]); // new medium; present
    assert_eq!(b.packet(&[0]).1, 0x20);
    assert_eq!(b.sense(), (2, 0x3a));
    assert_eq!(b.packet(&[0]).1, 0x60);
    assert_eq!(b.sense(), (6, 0x28));
    assert_eq!(b.packet(&[0]).1, 0);
    assert_eq!(b.sense(), (0, 0));
}

#[test]
fn an_empty_drive_has_no_medium() {
    let mut b = Bench::on_cd();
    b.cd.with(|s| s.no_medium = true);
    assert_eq!(b.packet(&[0x25]).1, 0x20);
    assert_eq!(b.sense(), (2, 0x3a));
    let (event, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event[4..6], [0, 0]);
}

#[test]
fn a_locked_tray_needs_force_and_tells_the_guest() {
    let mut b = Bench::on_cd();
    b.packet(&[0x1e, 0, 0, 0, 1]);
    assert!(b.ide.drives()[1].locked);
    assert_eq!(b.ide.eject(2, false), Err(EjectError::Locked));
    let (event, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event[4..6], [1, 2]); // someone wants the medium; it is there
    assert_eq!(b.ide.eject(2, true), Ok(()));
    assert!(b.ide.drives()[1].tray_open);
    assert_eq!(b.ide.eject(0, true), Err(EjectError::NotRemovable));
}

#[test]
fn start_stop_moves_the_tray() {
    let mut b = Bench::on_cd();
    let moves: Arc<Mutex<Vec<(usize, bool)>>> = Arc::default();
    let sink: TraySink = {
        let moves = Arc::clone(&moves);
        Arc::new(move |drive, open| moves.lock().unwrap().push((drive, open)))
    };
    b.ide.on_tray_moved(&sink);
    b.packet(&[0x1b, 0, 0, 0, 2]);
    assert!(b.ide.drives()[1].tray_open);
    assert_eq!(b.packet(&[0]).1, 0x20);
    b.packet(&[0x1b, 0, 0, 0, 3]);
    assert_eq!(b.packet(&[0]).1, 0);
    assert_eq!(*moves.lock().unwrap(), [(2, true), (2, false)]);
}

#[test]
fn the_configuration_names_the_profile_of_the_medium() {
    let mut b = Bench::on_cd();
    let (data, _) = b.packet(&[0x46, 0, 0, 0, 0, 0, 0, 0, 200]);
    assert_eq!(data[..8], [0, 0, 0, 0x24, 0, 0, 0, 8]);
    assert_eq!(data[8..20], [0, 0, 3, 8, 0, 0x10, 0, 0, 0, 8, 1, 0]);
    b.cd.with(|s| s.no_medium = true);
    assert_eq!(b.packet(&[0x46, 2, 0, 0, 0, 0, 0, 0, 200]).0[6..8], [0, 0]);
}

#[test]
fn mode_select_takes_pages_by_pio() {
    let mut b = Bench::on_cd();
    b.outb(Reg::LbaMid, 0xfe);
    b.outb(Reg::LbaHigh, 0xff);
    b.outb(Reg::Status, cmd::PACKET);
    b.send_packet(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 16]);
    assert!(b.irq());
    assert_eq!((b.inb(Reg::Count), b.inb(Reg::Status)), (0, 0x58));
    b.data_out(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 5, 0, 0, 0, 0]);
    assert!(b.irq());
    assert_eq!((b.inb(Reg::Count), b.inb(Reg::Status)), (3, 0x50));
}

#[test]
fn a_reply_goes_by_dma_too() {
    let mut b = Bench::on_cd();
    b.table(&[(0x3000, 20, false), (0x3020, 16, true)]);
    b.outb(Reg::Error, 1);
    b.outb(Reg::Status, cmd::PACKET);
    b.send_packet(&[0x12, 0, 0, 0, 36]);
    b.start_dma();
    assert!(b.irq());
    assert_eq!(b.bm_status(), 4);
    assert_eq!(b.guest(0x3008, 8), b"QEMU    ");
    assert_eq!(b.guest(0x302c, 4), b"2.5+");
}

#[test]
fn device_reset_ends_a_packet_in_progress() {
    let mut b = Bench::on_cd();
    b.outb(Reg::Status, cmd::PACKET);
    b.outw(0x28);
    b.outb(Reg::Status, cmd::DEVICE_RESET);
    assert_eq!(b.regs(), [1, 1, 1, 0x14, 0xeb, 0xa0, 0]);
    assert!(!b.irq());
    assert_eq!(b.packet(&[0]).1, 0);
}

#[test]
fn an_ejected_and_exchanged_medium_is_told() {
    let mut b = Bench::on_cd();
    assert_eq!(b.ide.eject(2, false), Ok(()));
    let (event, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event[4..6], [3, 1]); // removed; tray open
    assert_eq!(b.packet(&[0]).1, 0x20);
    b.ide.medium_changed(2);
    assert_eq!(b.packet(&[0]).1, 0x20);
    assert_eq!(b.packet(&[0]).1, 0x60);
    assert_eq!(b.packet(&[0]).1, 0);
}

#[test]
fn a_large_medium_is_a_dvd() {
    let mut b = Bench::on_cd();
    b.cd.with(|s| s.capacity = Some(2048 * 400_000));
    assert_eq!(b.packet(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8]).0[6..8], [0, 0x10]);
    let (data, _) = b.packet(&[0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4]);
    assert_eq!(data.len(), 2052);
    assert_eq!(data[4..16], [1, 15, 1, 0, 0, 3, 0, 0, 0, 9, 0x1a, 0x7f]);
}
