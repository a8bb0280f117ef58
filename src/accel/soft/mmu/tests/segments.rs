//! Segment limits and rights outside of 64-bit mode, and page crossings.

use super::*;

const DS: u8 = segment::DS as u8;
const SS: u8 = segment::SS as u8;

/// 32-bit protected mode without paging, and a data segment.
fn protected(base: u64, limit: u32, attributes: u32) -> Paged {
    let mut p = Paged::new(2, 0, 0);
    p.control(CR0_PE, 0);
    for number in [segment::DS, segment::SS] {
        let loaded = &mut p.b.cpu.segments[number].loaded;
        (loaded.base, loaded.limit, loaded.attributes) = (base, limit, attributes);
    }
    p.b.cpu.mode_changed();
    p
}

const DATA: u32 = attributes::PRESENT | attributes::APPLICATION | attributes::READ_WRITE | attributes::BIG;

fn read(p: &mut Paged, number: u8, offset: u64) -> Result<u32, Exception> {
    let result = p.b.cpu.read(number, offset);
    p.why(result)
}

fn write(p: &mut Paged, number: u8, offset: u64) -> Result<(), Exception> {
    let result = p.b.cpu.write(number, offset, 0u32);
    p.why(result)
}

#[test]
fn limits_are_for_the_last_byte() {
    let mut p = protected(0x1000, 0xff, DATA);
    assert_eq!(read(&mut p, DS, 0xfc), Ok(0));
    assert_eq!(read(&mut p, DS, 0xfd), Err(Exception::gp(0)));
    assert_eq!(write(&mut p, SS, 0xfd), Err(Exception::ss(0)));
    assert_eq!(read(&mut p, DS, 0xffff_ffff), Err(Exception::gp(0)));
}

#[test]
fn a_segment_of_4_gib_has_no_end() {
    let mut p = protected(0, u32::MAX, DATA);
    let _notes = with_notes(&mut p.b);
    p.b.load(0, &[1, 2]);
    assert_eq!(read(&mut p, DS, 0xffff_fffe), Ok(0x0201_fffe));
}

#[test]
fn expand_down_segments_begin_after_their_limit() {
    let mut p = protected(0, 0xff, DATA | attributes::EXPAND_DOWN);
    assert_eq!(read(&mut p, DS, 0xff), Err(Exception::gp(0)));
    assert_eq!(read(&mut p, DS, 0x100), Ok(0));
    assert_eq!(write(&mut p, SS, 0xffff_fffd), Err(Exception::ss(0)));
    let mut p = protected(0, 0xff, (DATA | attributes::EXPAND_DOWN) & !attributes::BIG);
    assert_eq!(read(&mut p, DS, 0xfffc), Ok(0));
    assert_eq!(read(&mut p, DS, 0xfffd), Err(Exception::gp(0)));
}

#[test]
fn rights_of_segments() {
    let mut p = protected(0, 0xffff, DATA & !attributes::READ_WRITE);
    assert_eq!(read(&mut p, DS, 0), Ok(0));
    assert_eq!(write(&mut p, DS, 0), Err(Exception::gp(0)));
    let mut p = protected(0, 0xffff, DATA & !attributes::READ_WRITE | attributes::CODE);
    assert_eq!(read(&mut p, DS, 0), Err(Exception::gp(0)));
    let mut p = protected(0, 0xffff, DATA | attributes::CODE);
    assert_eq!(read(&mut p, DS, 0), Ok(0));
    assert_eq!(write(&mut p, DS, 0), Err(Exception::gp(0)));
    let mut p = protected(0, 0xffff, DATA | attributes::UNUSABLE);
    assert_eq!(read(&mut p, DS, 0), Err(Exception::gp(0)));
}

#[test]
fn real_mode_checks_limits_only() {
    let mut b = Bench::max();
    assert_eq!(b.cpu.read::<u16>(DS, 0xfffe), Ok(0));
    assert!(b.cpu.read::<u16>(DS, 0xffff).is_err());
    assert_eq!(b.cpu.exception, Exception::gp(0));
    assert!(b.cpu.write::<u16>(SS, 0xffff, 0).is_err());
    assert_eq!(b.cpu.exception, Exception::ss(0));
}

#[test]
fn a_write_across_two_pages_happens_in_both_or_in_none() {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    let second = p.map(0x40_1000, 0x9000 | P);
    assert_eq!(p.write(0x40_0ffd, 0x4433_2211u32), Err(Exception::pf(3, 0x40_1000)));
    assert_eq!(p.b.ram.byte(0x5ffd), 0);
    p.set_word(second, 0x9000 | ALL);
    assert_eq!(p.write(0x40_0ffd, 0x4433_2211u32), Ok(()));
    assert_eq!((p.b.ram.byte(0x5ffd), p.b.ram.byte(0x5fff), p.b.ram.byte(0x9000)), (0x11, 0x33, 0x44));
    assert_eq!(p.read::<u32>(0x40_0ffd), Ok(0x4433_2211));
}

#[test]
fn changes_across_two_pages_give_the_old_value() {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    p.map(0x40_1000, 0x9000 | ALL);
    p.write(0x40_0ffc, 0x1111_2222_3333_4444u64).unwrap();
    assert_eq!(p.b.cpu.update::<u64, true>(DS, 0x40_0ffc, |x| x + 1), Ok(0x1111_2222_3333_4444));
    assert_eq!(p.b.cpu.update::<u64, false>(DS, 0x40_0ffc, |x| x << 4), Ok(0x1111_2222_3333_4445));
    assert_eq!(p.read::<u64>(0x40_0ffc), Ok(0x1112_2223_3334_4450));
}

#[test]
fn blocks_of_bytes_are_checked_as_one() {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    let result = p.b.cpu.write_bytes(DS, 0x40_0f00, &[7; 0x101]);
    assert_eq!(p.why(result), Err(Exception::pf(2, 0x40_1000)));
    assert_eq!(p.b.ram.byte(0x5f00), 0);
    let result = p.b.cpu.probe_write(DS, 0x40_0f00, 0x101);
    assert_eq!(p.why(result), Err(Exception::pf(2, 0x40_1000)));
    let mut back = [0; 0x100];
    p.b.cpu.write_bytes(DS, 0x40_0f00, &[7; 0x100]).unwrap();
    p.b.cpu.read_bytes(DS, 0x40_0f00, &mut back).unwrap();
    assert_eq!(back, [7; 0x100]);
}

#[test]
fn sixteen_bytes_are_exchanged_if_they_are_aligned() {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    assert_eq!(p.b.cpu.update::<u128, true>(DS, 0x40_0010, |x| x + (1 << 70)), Ok(0));
    assert_eq!(p.word(0x5018), 1 << 6);
    let result = p.b.cpu.update::<u128, true>(DS, 0x40_0008, |x| x);
    assert_eq!(p.why(result), Err(Exception::gp(0)));
}
