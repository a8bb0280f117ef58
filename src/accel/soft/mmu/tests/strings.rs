//! Runs of string instructions.

use super::super::events;
use super::*;

const DS: u8 = segment::DS as u8;
const ES: u8 = segment::ES as u8;

fn copied(p: &mut Paged, from: u64, to: u64, size: u64, count: u64) -> Result<u64, Exception> {
    let result = p.b.cpu.copy_units((DS, from), (ES, to), size, count);
    p.why(result)
}

fn two_pages() -> Paged {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    p.map(0x80_0000, 0x9000 | ALL);
    p.b.load(0x5000, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    p
}

#[test]
fn units_are_copied_up_to_the_end_of_the_nearer_page() {
    let mut p = two_pages();
    assert_eq!(copied(&mut p, 0x40_0000, 0x80_0100, 4, 2), Ok(2));
    assert_eq!((p.word(0x9100), p.b.ram.byte(0x9108)), (0x0807_0605_0403_0201, 0));
    assert_eq!(copied(&mut p, 0x40_0000, 0x80_0ff0, 4, 1000), Ok(4));
    assert_eq!(copied(&mut p, 0x40_0ffa, 0x80_0000, 4, 1000), Ok(1));
    assert_eq!(copied(&mut p, 0x40_0ffe, 0x80_0000, 4, 1000), Ok(0));
}

#[test]
fn overlapping_places_repeat_a_pattern() {
    let mut p = two_pages();
    assert_eq!(copied(&mut p, 0x40_0000, 0x40_0001, 1, 7), Ok(7));
    assert_eq!(p.word(0x5000), 0x0101_0101_0101_0101);
    p.b.load(0x5000, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(copied(&mut p, 0x40_0000, 0x40_0002, 2, 3), Ok(3));
    assert_eq!(p.word(0x5000), 0x0201_0201_0201_0201);
}

#[test]
fn a_run_that_cannot_begin_faults_and_copies_nothing() {
    let mut p = two_pages();
    p.map(0x80_0000, 0x9000 | P);
    assert_eq!(copied(&mut p, 0x40_0000, 0x80_0000, 1, 5), Err(Exception::pf(3, 0x80_0000)));
    assert_eq!(copied(&mut p, 0x70_0000, 0x80_0000, 1, 5), Err(Exception::pf(0, 0x70_0000)));
    assert_eq!(p.word(0x9000), 0);
}

#[test]
fn devices_are_left_to_single_accesses() {
    let mut p = two_pages();
    let notes = with_notes(&mut p.b);
    p.map(0x80_0000, 0xf000_0000 | ALL);
    assert_eq!(copied(&mut p, 0x40_0000, 0x80_0000, 1, 5), Ok(0));
    assert_eq!(copied(&mut p, 0x80_0000, 0x40_0000, 1, 5), Ok(0));
    assert_eq!(p.b.cpu.fill_units((ES, 0x80_0000), 0, 1, 5), Ok(0));
    assert_eq!(notes.take(), []);
}

#[test]
fn fills_of_each_width() {
    let mut p = two_pages();
    let value = 0x1122_3344_5566_7788;
    assert_eq!(p.b.cpu.fill_units((ES, 0x40_0001), value, 1, 2), Ok(2));
    assert_eq!(p.word(0x5000), 0x0807_0605_0488_8801);
    assert_eq!(p.b.cpu.fill_units((ES, 0x40_0000), value, 2, 2), Ok(2));
    assert_eq!(p.b.cpu.fill_units((ES, 0x40_0004), value, 4, 1), Ok(1));
    assert_eq!(p.word(0x5000), 0x5566_7788_7788_7788);
    assert_eq!(p.b.cpu.fill_units((ES, 0x40_0f00), value, 8, 1000), Ok(32));
    assert_eq!(p.word(0x5ff8), value);
}

#[test]
fn limits_end_a_run() {
    let mut b = Bench::max();
    b.cpu.segments[segment::ES].loaded.limit = 0x10f;
    b.cpu.mode_changed();
    assert_eq!(b.cpu.fill_units((ES, 0x100), 0xff, 1, 100), Ok(16));
    assert_eq!(b.cpu.fill_units((ES, 0x10e), 0xff, 4, 100), Ok(0));
    assert_eq!(b.cpu.fill_units((ES, 0x110), 0xff, 1, 100), Ok(0));
    assert_eq!((b.ram.byte(0x10f), b.ram.byte(0x110)), (0xff, 0));
}

#[test]
fn a_run_over_decoded_code_is_noticed() {
    let mut p = two_pages();
    let page = p.b.cpu.code_page(0x80_0000).unwrap();
    let version = page.version();
    p.fetch(0x80_0200).unwrap();
    copied(&mut p, 0x40_0000, 0x80_0000, 1, 0x200).unwrap();
    assert!(page.is_current(version));
    copied(&mut p, 0x40_0000, 0x80_0000, 1, 0x201).unwrap();
    assert!(!page.is_current(version));
    assert_eq!(p.b.cpu.mmu.events, events::CODE_WRITTEN);
}
