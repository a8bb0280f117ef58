//! Stores into decoded code.

use super::super::events;
use super::*;

fn decoded(b: &mut Bench, linear: u64) -> (super::super::CodePage, u32) {
    let page = b.cpu.code_page(linear).unwrap();
    let version = page.version();
    b.cpu.fetch(linear, &mut [0; 15]).unwrap();
    (page, version)
}

#[test]
fn a_store_into_decoded_code_is_noticed_at_once() {
    let mut b = Bench::max();
    b.cpu.write_linear(0x5000, 0u8, Privilege::Current).unwrap();
    let (page, version) = decoded(&mut b, 0x5100);
    b.cpu.write_linear(0x5200, 0u64, Privilege::Current).unwrap();
    assert!(page.is_current(version) && b.cpu.mmu.events == 0);
    b.cpu.write_linear(0x50fd, 0u32, Privilege::Current).unwrap();
    assert!(!page.is_current(version));
    assert_eq!(b.cpu.mmu.events, events::CODE_WRITTEN);
}

#[test]
fn each_kind_of_store_is_noticed() {
    let mut b = Bench::max();
    let (page, version) = decoded(&mut b, 0x5100);
    b.cpu.update::<u32, true>(segment::DS as u8, 0x5100, |x| x).unwrap();
    assert!(!page.is_current(version));
    let (page, version) = decoded(&mut b, 0x5100);
    b.cpu.write_bytes(segment::DS as u8, 0x5000, &[0; 0x101]).unwrap();
    assert!(!page.is_current(version));
    let (page, version) = decoded(&mut b, 0x6000);
    b.cpu.write_linear(0x5fff, 0u16, Privilege::Current).unwrap();
    assert!(!page.is_current(version));
    let (page, version) = decoded(&mut b, 0x5100);
    b.ram.write(0x5000, &[0; 0x1000]);
    assert!(!page.is_current(version));
}

#[test]
fn code_of_a_device_is_not_cacheable() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    let page = b.cpu.code_page(0xf000_0010).unwrap();
    assert!(!page.is_cacheable());
    let mut bytes = [0; 4];
    assert_eq!(b.cpu.fetch(0xf000_0010, &mut bytes), Ok(4));
    assert_eq!(bytes, [0x10, 0x11, 0x12, 0x13]);
    assert_eq!(notes.take(), [Seen::Read(0xf000_0010, 4)]);
    assert!(b.cpu.code_page(0x5000).unwrap().is_cacheable());
}

#[test]
fn a_fetch_ends_with_the_page() {
    let mut b = Bench::max();
    assert_eq!(b.cpu.fetch(0x5ffd, &mut [0; 15]), Ok(3));
    assert_eq!(b.cpu.fetch(0x5ff0, &mut [0; 15]), Ok(15));
}
