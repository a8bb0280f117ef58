//! Each paging mode: the entries used, accessed and dirty bits, error codes of what is missing or reserved.

use super::*;

#[test]
fn without_paging_linear_addresses_are_physical() {
    let mut b = Bench::max();
    b.load(0x1234, &[1, 2, 3, 4]);
    assert_eq!(b.cpu.read_linear::<u32>(0x1234, Privilege::Current), Ok(0x0403_0201));
    b.cpu.write_linear(0x1fff, 0xaabbu16, Privilege::Current).unwrap();
    assert_eq!((b.ram.byte(0x1fff), b.ram.byte(0x2000)), (0xbb, 0xaa));
}

#[test]
fn four_levels_lead_to_the_page_and_are_marked_accessed() {
    let mut p = Paged::long();
    let linear = 0xffff_8123_4567_8000;
    let pte = p.map(linear, 0x5000 | P);
    p.b.load(0x5010, &[7]);
    assert_eq!(p.read::<u8>(linear + 0x10), Ok(7));
    assert_eq!(p.word(pte), 0x5000 | P | A);
    let upper: Vec<u64> = (2..=4).map(|level| p.entry(linear, level)).collect();
    assert!(upper.iter().all(|&entry| p.word(entry) & (A | D) == A));
}

#[test]
fn five_levels_reach_57_bits() {
    let mut p = Paged::new(5, CR4_PAE | CR4_LA57, LMA | NXE);
    let linear = 0x00ab_cdef_0123_4000;
    p.map(linear, 0x5000 | ALL);
    p.b.load(0x5000, &[9]);
    assert_eq!(p.read::<u8>(linear), Ok(9));
    assert_eq!(p.read::<u8>(1 << 56), Err(Exception::gp(0)));
}

#[test]
fn a_write_sets_the_dirty_bit_also_after_a_read() {
    let mut p = Paged::long();
    let pte = p.map(0x40_0000, 0x5000 | ALL);
    p.read::<u8>(0x40_0000).unwrap();
    assert_eq!(p.word(pte) & (A | D), A);
    p.write::<u8>(0x40_0000, 1).unwrap();
    assert_eq!(p.word(pte) & (A | D), A | D);
}

#[test]
fn an_access_that_faults_leaves_the_tables_alone() {
    let mut p = Paged::long();
    let pte = p.map(0x40_0000, 0x5000 | P | US);
    assert_eq!(p.write::<u8>(0x40_0000, 1), Err(Exception::pf(3, 0x40_0000)));
    assert_eq!(p.word(pte), 0x5000 | P | US);
}

#[test]
fn large_pages_of_2_mib_and_1_gib() {
    let mut p = Paged::long();
    let pde = p.map_at(0x4000_0000, 2, 0x20_0000 | ALL | PS);
    let pdpte = p.map_at(0x8000_0000, 3, ALL | PS);
    p.b.load(0x21_2345, &[0x11]);
    p.write::<u8>(0x4001_2346, 0x22).unwrap();
    assert_eq!(p.read::<u16>(0x4001_2345), Ok(0x2211));
    assert_eq!(p.read::<u16>(0x8021_2345), Ok(0x2211));
    assert_eq!(p.word(pde) & (A | D), A | D);
    assert_eq!(p.word(pdpte) & (A | D), A);
}

#[test]
fn missing_entries_of_any_level_are_not_present() {
    let mut p = Paged::long();
    assert_eq!(p.read::<u8>(0x1234_5678), Err(Exception::pf(0, 0x1234_5678)));
    p.map(0x40_0000, 0);
    assert_eq!(p.write::<u8>(0x40_0001, 0), Err(Exception::pf(2, 0x40_0001)));
    assert_eq!(p.fetch(0x40_0002), Err(Exception::pf(0x10, 0x40_0002)));
    p.level(3);
    assert_eq!(p.read::<u8>(0x40_0003), Err(Exception::pf(4, 0x40_0003)));
    assert_eq!(p.fetch(0x40_0003), Err(Exception::pf(0x14, 0x40_0003)));
}

#[test]
fn reserved_bits_fault_with_the_present_bit() {
    let mut p = Paged::long();
    let bits = p.b.cpu.model.phys_bits();
    p.map(0x40_0000, 0x5000 | ALL | 1 << bits);
    assert_eq!(p.read::<u8>(0x40_0000), Err(Exception::pf(9, 0x40_0000)));
    p.map_at(0x4000_0000, 2, 0x20_2000 | ALL | PS);
    assert_eq!(p.write::<u8>(0x4000_0000, 0), Err(Exception::pf(0xb, 0x4000_0000)));
    p.map_at(1 << 39, 4, 0x5000 | ALL | PS);
    assert_eq!(p.read::<u8>(1 << 39), Err(Exception::pf(9, 1 << 39)));
}

#[test]
fn execute_disable_is_reserved_while_it_is_off() {
    let mut p = Paged::new(4, CR4_PAE, LMA);
    p.map(0x40_0000, 0x5000 | ALL | XD);
    assert_eq!(p.read::<u8>(0x40_0000), Err(Exception::pf(9, 0x40_0000)));
    assert_eq!(p.fetch(0x50_0000), Err(Exception::pf(0, 0x50_0000)));
}

#[test]
fn non_canonical_addresses_are_general_protection_or_stack_faults() {
    let mut p = Paged::long();
    assert_eq!(p.read::<u8>(0x8000_0000_0000), Err(Exception::gp(0)));
    p.map(0x7fff_ffff_f000, 0x5000 | ALL);
    assert_eq!(p.read::<u32>(0x7fff_ffff_fffd), Err(Exception::gp(0)));
    let result = p.b.cpu.read::<u8>(segment::SS as u8, 1 << 63);
    assert_eq!(p.why(result), Err(Exception::ss(0)));
    assert_eq!(p.fetch(1 << 62), Err(Exception::gp(0)));
}

#[test]
fn an_access_may_go_around_the_end_of_the_64_bit_address_space() {
    let mut p = Paged::long();
    p.map(0xffff_ffff_ffff_f000, 0x5000 | ALL);
    p.map(0, 0x6000 | ALL);
    p.b.load(0x5ffe, &[1, 2]);
    p.b.load(0x6000, &[3, 4]);
    let result = p.b.cpu.read::<u32>(segment::DS as u8, 0xffff_ffff_ffff_fffe);
    assert_eq!(p.why(result), Ok(0x0403_0201));
}

fn pae() -> Paged {
    let mut p = Paged::new(2, CR4_PAE, NXE);
    p.set_word(ROOT, 0x18_0000 | P);
    p.set_word(ROOT + 24, 0x18_1000 | P);
    p.b.cpu.load_pdptes(ROOT).unwrap();
    p
}

#[test]
fn pae_starts_from_registers() {
    let mut p = pae();
    p.set_word(0x18_1000 + 0x1ff * 8, 0x18_2000 | ALL);
    p.set_word(0x18_2000 + 0x1ff * 8, 0x5000 | ALL | XD);
    p.b.load(0x5ffc, &[1, 2, 3, 4]);
    p.set_word(ROOT + 24, 0);
    assert_eq!(p.read::<u32>(0xffff_fffc), Ok(0x0403_0201));
    assert_eq!(p.fetch(0xffff_fffc), Err(Exception::pf(0x11, 0xffff_fffc)));
    assert_eq!(p.read::<u8>(0x4000_0000), Err(Exception::pf(0, 0x4000_0000)));
    p.set_word(0x18_2000 + 0x1ff * 8, 0x5000 | ALL | 1 << 52);
    p.b.cpu.mmu.flush_all();
    assert_eq!(p.read::<u8>(0xffff_f000), Err(Exception::pf(9, 0xffff_f000)));
}

#[test]
fn pae_registers_refuse_reserved_bits() {
    let mut p = pae();
    p.set_word(ROOT + 8, 0x5000 | P | RW);
    let result = p.b.cpu.load_pdptes(ROOT);
    assert_eq!(p.why(result), Err(Exception::gp(0)));
    p.set_word(ROOT + 8, 0x5000 | RW);
    assert_eq!(p.b.cpu.load_pdptes(ROOT), Ok(()));
}

fn narrow(cr4: u64) -> Paged {
    Paged::new(2, cr4, 0)
}

#[test]
fn two_levels_of_32_bit_entries() {
    let mut p = narrow(0);
    p.b.load(ROOT + 4, &(0x18_0000u32 | 7 | 0x80).to_le_bytes());
    p.b.load(0x18_0000 + 4, &(0x5000u32 | 7).to_le_bytes());
    p.write::<u32>(0x40_1ffc, 0x1122_3344).unwrap();
    assert_eq!(p.word(0x5ffc) as u32, 0x1122_3344);
    assert_eq!(p.word(0x18_0004) as u32, 0x5000 | 7 | 0x60);
    assert_eq!(p.word(ROOT + 4) as u32, 0x18_0000 | 7 | 0xa0);
    assert_eq!(p.fetch(0x40_2000), Err(Exception::pf(0, 0x40_2000)));
}

#[test]
fn four_mib_pages_and_their_40_bit_addresses() {
    let mut p = narrow(CR4_PSE);
    p.b.load(ROOT + 4, &(0x40_0000u32 | 7 | 0x80).to_le_bytes());
    p.b.load(ROOT + 8, &(0x40_0000u32 | 7 | 0x80 | 1 << 13).to_le_bytes());
    p.b.load(ROOT + 12, &(0x40_0000u32 | 7 | 0x80 | 1 << 21).to_le_bytes());
    p.b.load(0x41_2345, &[0x77]);
    assert_eq!(p.read::<u8>(0x41_2345), Ok(0x77));
    assert_eq!(p.b.cpu.translate(0x81_2345), Some(0x1_0041_2345));
    assert_eq!(p.read::<u8>(0xc1_2345), Err(Exception::pf(9, 0xc1_2345)));
}

#[test]
fn a_debugger_translates_without_traces() {
    let mut p = Paged::long();
    let pte = p.map(0x40_0000, 0x5000 | P);
    p.level(3);
    assert_eq!(p.b.cpu.translate(0x40_0123), Some(0x5123));
    assert_eq!(p.word(pte), 0x5000 | P);
    assert_eq!(p.b.cpu.translate(0x80_0000), None);
    assert_eq!(p.b.cpu.translate(1 << 60), None);
}

#[test]
fn tables_outside_of_ram_are_read_over_the_bus() {
    let mut p = Paged::long();
    let notes = with_notes(&mut p.b);
    p.map_at(0x4000_0000, 2, 0xfd00_0000 | ALL);
    // The bus reads as 00 01 .. 07 there, so the entry is not present.
    assert_eq!(p.read::<u8>(0x4000_0000), Err(Exception::pf(0, 0x4000_0000)));
    assert_eq!(notes.take(), [Seen::Read(0xfd00_0000, 8)]);
}
