//! Disks that fail, and what the error policies make of it.

use super::*;

fn disk_with(rerror: OnError, werror: OnError) -> Bench {
    let options = DriveOptions { rerror, werror, ..DriveOptions::new(DriveKind::Disk) };
    Bench::with(options, DriveOptions::new(DriveKind::Cdrom))
}

fn fault(b: &Bench) -> IoFault {
    b.faults.lock().unwrap()[0].clone()
}

#[test]
fn a_failed_read_is_uncorrectable() {
    let mut b = Bench::new();
    b.disk.with(|s| s.fail = Some(io::ErrorKind::Other));
    b.command(cmd::READ_SECTORS, 2, 300);
    b.run();
    assert!(b.irq());
    assert_eq!(b.regs(), [0x40, 2, 44, 1, 0, 0xe0, 0x41]);
    assert!(!b.irq());
    assert_eq!((fault(&b).drive, fault(&b).write, fault(&b).action), (0, false, ErrorAction::Report));
}

#[test]
fn a_failed_write_aborts() {
    let mut b = Bench::new();
    b.disk.with(|s| s.fail = Some(io::ErrorKind::Other));
    b.command(cmd::WRITE_SECTORS, 1, 3);
    b.data_out(&[0; 512]);
    assert_eq!(b.inb(Reg::Error), 4);
    assert_eq!(b.inb(Reg::Status), 0x41);
    assert!(fault(&b).write);
}

#[test]
fn a_full_host_keeps_the_write_until_the_machine_goes_on() {
    let mut b = Bench::new();
    b.disk.with(|s| s.fail = Some(io::ErrorKind::StorageFull));
    b.command(cmd::WRITE_SECTORS, 1, 3);
    b.data_out(&[7; 512]);
    assert_eq!(b.alt(), 0xd0);
    assert!(!b.irq());
    assert!(b.ide.drives()[0].holds_request);
    assert_eq!((fault(&b).action, fault(&b).no_space), (ErrorAction::Stop, true));
    b.disk.with(|s| s.fail = None);
    b.ide.retry_held();
    b.run();
    assert!(b.irq());
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(b.disk.with(|s| s.data[3 * 512]), 7);
    assert!(!b.ide.drives()[0].holds_request);
}

#[test]
fn a_stopped_dma_read_is_tried_again_into_the_same_memory() {
    let mut b = disk_with(OnError::Stop, OnError::Report);
    b.disk.with(|s| s.fail = Some(io::ErrorKind::Other));
    b.table(&[(0x6000, 512, true)]);
    b.command(cmd::READ_DMA, 1, 11);
    b.start_dma();
    b.run();
    assert!(!b.irq());
    b.disk.with(|s| s.fail = None);
    b.ide.retry_held();
    b.run();
    assert_eq!(b.bm_status(), 4);
    assert_eq!(b.guest(0x6000, 512), pattern(11));
}

#[test]
fn an_ignored_error_is_a_success() {
    let mut b = disk_with(OnError::Report, OnError::Ignore);
    b.disk.with(|s| s.fail = Some(io::ErrorKind::Other));
    b.command(cmd::FLUSH_CACHE, 0, 0);
    b.run();
    assert_eq!(b.inb(Reg::Status), 0x50);
    assert_eq!(fault(&b).action, ErrorAction::Ignore);
}

#[test]
fn a_reset_forgets_the_kept_request() {
    let mut b = disk_with(OnError::Stop, OnError::Stop);
    b.disk.with(|s| s.fail = Some(io::ErrorKind::Other));
    b.command(cmd::READ_SECTORS, 1, 1);
    b.run();
    b.ide.reset(Reset::System);
    b.ide.retry_held();
    b.run();
    assert_eq!(b.disk.with(|s| s.seen.len()), 1);
    assert_eq!(b.inb(Reg::Status), 0x50);
}

#[test]
fn a_failed_cd_read_is_a_medium_error() {
    let mut b = Bench::on_cd();
    b.cd.with(|s| s.fail = Some(io::ErrorKind::Other));
    let (data, error) = b.packet(&[0x28, 0, 0, 0, 0, 3, 0, 0, 1]);
    assert_eq!((data.len(), error), (0, 0x30));
    assert_eq!(b.sense(), (3, 0x11));
}
