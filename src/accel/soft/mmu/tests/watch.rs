//! Data breakpoints and watchpoints.

use crate::accel::{WatchKind, Watchpoint};

use super::super::events;
use super::*;

const DS: u8 = segment::DS as u8;

/// DR0 for writes of 2 bytes, DR1 for reads and writes of 8 bytes.
fn breakpoints() -> Bench {
    let mut b = Bench::max();
    b.cpu.dr[0] = 0x5002;
    b.cpu.dr[1] = 0x6008;
    b.cpu.dr[7] = 0x400 | 1 | 2 << 2 | 0b0101 << 16 | 0b1011 << 20;
    b.cpu.debug_registers_changed();
    b
}

fn hits(b: &mut Bench) -> u8 {
    b.cpu.mmu.events &= !events::WATCH_HIT;
    std::mem::take(&mut b.cpu.mmu.watches.registers)
}

fn read<T: Value>(b: &mut Bench, linear: u64) -> u8 {
    b.cpu.read_linear::<T>(linear, Privilege::Current).unwrap();
    hits(b)
}

#[test]
fn data_breakpoints_match_any_overlap_of_their_kind() {
    let mut b = breakpoints();
    assert_eq!(read::<u32>(&mut b, 0x5000), 0);
    b.cpu.write_linear(0x5000, 0u16, Privilege::Current).unwrap();
    assert_eq!(hits(&mut b), 0);
    b.cpu.write_linear(0x5003, 0u8, Privilege::Current).unwrap();
    assert_eq!(b.cpu.mmu.events, events::WATCH_HIT);
    assert_eq!(hits(&mut b), 1);
    b.cpu.write_linear(0x4fff, 0u32, Privilege::Current).unwrap();
    assert_eq!(hits(&mut b), 1);
    assert_eq!(read::<u8>(&mut b, 0x600f), 2);
    assert_eq!(read::<u8>(&mut b, 0x6010), 0);
    assert_eq!(read::<u16>(&mut b, 0x6007), 2);
}

#[test]
fn each_kind_of_access_is_compared() {
    let mut b = breakpoints();
    b.cpu.update::<u8, true>(DS, 0x5002, |x| x).unwrap();
    assert_eq!(hits(&mut b), 1);
    b.cpu.write_bytes(DS, 0x5000, &[0; 16]).unwrap();
    assert_eq!(hits(&mut b), 1);
    b.cpu.read_bytes(DS, 0x6000, &mut [0; 9]).unwrap();
    assert_eq!(hits(&mut b), 2);
    assert_eq!(b.cpu.fill_units((DS, 0x5000), 0, 1, 16), Ok(0));
    assert_eq!(b.cpu.copy_units((DS, 0x6000), (DS, 0x7000), 1, 16), Ok(0));
}

#[test]
fn breakpoints_that_are_turned_off_match_no_more() {
    let mut b = breakpoints();
    b.cpu.dr[7] = 0x400;
    b.cpu.debug_registers_changed();
    b.cpu.write_linear(0x5002, 0u16, Privilege::Current).unwrap();
    assert_eq!(hits(&mut b), 0);
}

#[test]
fn a_faulting_access_matches_nothing() {
    let mut p = Paged::long();
    p.map(0x40_0000, 0x5000 | ALL);
    p.b.cpu.dr[0] = 0x40_0fff;
    p.b.cpu.dr[7] = 1 | 1 << 16;
    p.b.cpu.debug_registers_changed();
    assert!(p.write::<u16>(0x40_0fff, 0).is_err());
    assert_eq!(p.b.cpu.mmu.events, 0);
}

#[test]
fn the_debugger_watches_any_range() {
    let mut b = breakpoints();
    let reads = Watchpoint { gva: 0x5ff0, len: 0x20, kind: WatchKind::Read };
    let writes = Watchpoint { gva: 0x7000, len: 1, kind: WatchKind::Write };
    b.cpu.set_watchpoints(&[reads, writes]);
    b.cpu.write_linear(0x6000, 0u32, Privilege::Current).unwrap();
    assert_eq!(b.cpu.mmu.watches.debugger, None);
    assert_eq!(read::<u8>(&mut b, 0x6000), 0);
    assert_eq!(b.cpu.mmu.watches.debugger.take(), Some(reads));
    b.cpu.update::<u8, false>(DS, 0x7000, |x| x).unwrap();
    assert_eq!(b.cpu.mmu.watches.debugger.take(), Some(writes));
    b.cpu.update::<u8, false>(DS, 0x5ff0, |x| x).unwrap();
    assert_eq!(b.cpu.mmu.watches.debugger.take(), Some(reads));
    b.cpu.set_watchpoints(&[]);
    assert_eq!(read::<u8>(&mut b, 0x6000), 0);
    assert_eq!(b.cpu.mmu.watches.debugger, None);
    assert_eq!(read::<u8>(&mut b, 0x6008), 2);
}
