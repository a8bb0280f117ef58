//! What the translation cache keeps and forgets.

use super::super::InvPcid;
use super::*;

const AT: u64 = 0x40_0000;

/// A page that reads as 1 and whose entry is then changed, unseen, to a page that reads as 2.
fn stale(p: &mut Paged, linear: u64, bits: u64) {
    p.b.load(0x5000, &[1]);
    p.b.load(0x6000, &[2]);
    let entry = p.map(linear, 0x5000 | bits);
    assert_eq!(p.read::<u8>(linear), Ok(1));
    p.set_word(entry, 0x6000 | bits);
    assert_eq!(p.read::<u8>(linear), Ok(1));
}

#[test]
fn a_page_is_forgotten_by_its_address() {
    let mut p = Paged::long();
    stale(&mut p, AT, ALL);
    p.b.cpu.mmu.flush_page(AT + 0x1000);
    assert_eq!(p.read::<u8>(AT), Ok(1));
    p.b.cpu.mmu.flush_page(AT + 0xfff);
    assert_eq!(p.read::<u8>(AT), Ok(2));
}

#[test]
fn loading_cr3_forgets_all_but_global_pages() {
    let mut p = Paged::long();
    stale(&mut p, AT, ALL);
    stale(&mut p, AT + 0x1000, ALL | G);
    p.b.cpu.switch_cr3(true);
    assert_eq!(p.read::<u8>(AT), Ok(2));
    assert_eq!(p.read::<u8>(AT + 0x1000), Ok(1));
    p.b.cpu.mmu.flush_page(AT + 0x1000);
    assert_eq!(p.read::<u8>(AT + 0x1000), Ok(2));
}

#[test]
fn global_is_nothing_without_cr4_pge() {
    let mut p = Paged::new(4, CR4_PAE, LMA | NXE);
    stale(&mut p, AT, ALL | G);
    p.b.cpu.switch_cr3(false);
    assert_eq!(p.read::<u8>(AT), Ok(2));
}

#[test]
fn a_change_of_cr4_forgets_global_pages_too() {
    let mut p = Paged::long();
    stale(&mut p, AT, ALL | G);
    p.control(p.b.cpu.cr0, CR4_PAE);
    assert_eq!(p.read::<u8>(AT), Ok(2));
}

#[test]
fn any_address_of_a_large_page_forgets_all_of_it() {
    let mut p = Paged::long();
    p.b.load(0x20_0000, &[1]);
    p.b.load(0x40_0000, &[2]);
    let entry = p.map_at(0x4000_0000, 2, 0x20_0000 | ALL | PS);
    assert_eq!(p.read::<u8>(0x4000_0000), Ok(1));
    p.set_word(entry, 0x40_0000 | ALL | PS);
    p.b.cpu.mmu.flush_page(0x4012_3000);
    assert_eq!(p.read::<u8>(0x4000_0000), Ok(2));
}

#[test]
fn any_address_of_a_global_large_page_forgets_all_of_it() {
    let mut p = Paged::long();
    p.b.load(0x20_0000, &[1]);
    p.b.load(0x40_0000, &[2]);
    let entry = p.map_at(0x4000_0000, 2, 0x20_0000 | ALL | PS | G);
    assert_eq!(p.read::<u8>(0x4000_0000), Ok(1));
    p.set_word(entry, 0x40_0000 | ALL | PS | G);
    p.b.cpu.switch_cr3(false);
    assert_eq!(p.read::<u8>(0x4000_0000), Ok(1));
    p.b.cpu.mmu.flush_page(0x4012_3000);
    assert_eq!(p.read::<u8>(0x4000_0000), Ok(2));
}

/// Address spaces 1 and 2, both of the tables at [`ROOT`].
fn spaces() -> Paged {
    let mut p = Paged::new(4, CR4_PAE | CR4_PGE | CR4_PCIDE, LMA | NXE);
    enter(&mut p, 1, false);
    p
}

fn enter(p: &mut Paged, pcid: u64, keep: bool) {
    p.b.cpu.cr3 = ROOT | pcid;
    p.b.cpu.switch_cr3(keep);
}

#[test]
fn address_spaces_keep_their_translations() {
    let mut p = spaces();
    stale(&mut p, AT, ALL);
    enter(&mut p, 2, false);
    assert_eq!(p.read::<u8>(AT), Ok(2));
    enter(&mut p, 1, true);
    assert_eq!(p.read::<u8>(AT), Ok(1));
    enter(&mut p, 1, false);
    assert_eq!(p.read::<u8>(AT), Ok(2));
}

#[test]
fn global_pages_are_in_all_address_spaces() {
    let mut p = spaces();
    stale(&mut p, AT, ALL | G);
    enter(&mut p, 2, false);
    assert_eq!(p.read::<u8>(AT), Ok(1));
    p.b.cpu.mmu.flush_page(AT);
    enter(&mut p, 1, true);
    assert_eq!(p.read::<u8>(AT), Ok(2));
}

#[test]
fn more_address_spaces_than_are_kept_stay_apart() {
    let mut p = spaces();
    stale(&mut p, AT, ALL);
    for pcid in 2..40 {
        enter(&mut p, pcid, true);
        assert_eq!(p.read::<u8>(AT), Ok(2));
    }
}

#[test]
fn thousands_of_switches_do_not_bring_old_translations_back() {
    let mut p = spaces();
    for _ in 0..1500 {
        enter(&mut p, 1, false);
        stale(&mut p, AT, ALL);
        enter(&mut p, 1, false);
        assert_eq!(p.read::<u8>(AT), Ok(2));
    }
}

#[test]
fn invpcid_forgets_what_it_names() {
    let mut p = spaces();
    stale(&mut p, AT, ALL);
    stale(&mut p, AT + 0x1000, ALL | G);
    p.b.cpu.mmu.invpcid(InvPcid::Address { pcid: 2, linear: AT });
    p.b.cpu.mmu.invpcid(InvPcid::Space { pcid: 2 });
    assert_eq!(p.read::<u8>(AT), Ok(1));
    p.b.cpu.mmu.invpcid(InvPcid::Address { pcid: 1, linear: AT });
    assert_eq!(p.read::<u8>(AT), Ok(2));
    stale(&mut p, AT + 0x2000, ALL);
    p.b.cpu.mmu.invpcid(InvPcid::Space { pcid: 1 });
    assert_eq!((p.read::<u8>(AT + 0x2000), p.read::<u8>(AT + 0x1000)), (Ok(2), Ok(1)));
    stale(&mut p, AT + 0x3000, ALL);
    p.b.cpu.mmu.invpcid(InvPcid::NonGlobal);
    assert_eq!((p.read::<u8>(AT + 0x3000), p.read::<u8>(AT + 0x1000)), (Ok(2), Ok(1)));
    p.b.cpu.mmu.invpcid(InvPcid::All);
    assert_eq!(p.read::<u8>(AT + 0x1000), Ok(2));
}

#[test]
fn a_page_that_misses_only_a_right_is_looked_up_again() {
    let mut p = Paged::long();
    let entry = p.map(AT, 0x5000 | P | US);
    p.read::<u8>(AT).unwrap();
    p.set_word(entry, 0x5000 | ALL);
    // A spurious fault would be allowed too; but software that raised a right need not flush.
    assert_eq!(p.write::<u8>(AT, 3), Ok(()));
    assert_eq!(p.b.ram.byte(0x5000), 3);
}

#[test]
fn rights_that_a_higher_level_gains_count_without_a_flush() {
    let mut p = Paged::long();
    p.map(AT, 0x5000 | ALL);
    p.map(AT + 0x1000, 0x6000 | ALL);
    let pde = p.entry(AT, 2);
    let table = p.word(pde);
    p.set_word(pde, table & !RW);
    p.read::<u8>(AT).unwrap();
    p.set_word(pde, table);
    assert_eq!(p.write::<u8>(AT + 0x1000, 3), Ok(()));
}

#[test]
fn a_table_is_forgotten_with_any_page_or_by_loading_cr3() {
    let mut p = Paged::long();
    stale(&mut p, AT, ALL);
    let pde = p.entry(AT, 2);
    p.set_word(0x18_0000, 0x7000 | ALL);
    p.set_word(0x18_0008, 0x7000 | ALL);
    p.b.load(0x7000, &[3]);
    p.map(AT + 0x1000, 0x5000 | ALL);
    p.set_word(pde, 0x18_0000 | ALL);
    p.b.cpu.mmu.flush_page(AT + 0x5000);
    assert_eq!(p.read::<u8>(AT + 0x1000), Ok(3));
    p.b.cpu.switch_cr3(false);
    assert_eq!(p.read::<u8>(AT), Ok(3));
}
