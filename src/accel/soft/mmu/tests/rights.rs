//! Who may do what: U/S, R/W, XD, CR0.WP, SMEP, SMAP, protection keys, alignment.

use crate::cpu::Mode;

use super::super::super::cpu::rflags;
use super::*;

const AT: u64 = 0x40_0000;

/// The error codes of a read, a write and a fetch; 0 for those that pass.
fn codes(p: &mut Paged) -> [u32; 3] {
    let code = |result: Result<(), Exception>| match result {
        Ok(()) => 0,
        Err(exception) => {
            assert_eq!((exception.vector, exception.payload), (14, AT));
            exception.error.unwrap()
        }
    };
    let read = p.read::<u8>(AT).map(drop);
    let write = p.write::<u8>(AT, 0);
    let fetch = p.fetch(AT).map(drop);
    [code(read), code(write), code(fetch)]
}

fn page(bits: u64) -> Paged {
    let mut p = Paged::long();
    p.map(AT, 0x5000 | bits);
    p
}

#[test]
fn supervisor_pages() {
    let mut p = page(P | RW);
    assert_eq!(codes(&mut p), [0, 0, 0]);
    p.level(3);
    assert_eq!(codes(&mut p), [5, 7, 0x15]);
}

#[test]
fn read_only_pages_and_write_protection_of_the_supervisor() {
    let mut p = page(P | US);
    assert_eq!(codes(&mut p), [0, 3, 0]);
    p.control(CR0_PE | CR0_PG, CR4_PAE);
    assert_eq!(codes(&mut p), [0, 0, 0]);
    p.level(3);
    assert_eq!(codes(&mut p), [0, 7, 0]);
}

#[test]
fn rights_are_those_of_all_levels_together() {
    let mut p = page(ALL);
    let pde = p.entry(AT, 2);
    let table = p.word(pde);
    p.set_word(pde, table & !RW | XD);
    p.level(3);
    assert_eq!(codes(&mut p), [0, 7, 0x15]);
    p.set_word(pde, table & !US);
    p.b.cpu.mmu.flush_all();
    assert_eq!(codes(&mut p), [5, 7, 0x15]);
}

#[test]
fn execute_disable() {
    let mut p = page(ALL | XD);
    assert_eq!(codes(&mut p), [0, 0, 0x11]);
    p.level(3);
    assert_eq!(codes(&mut p), [0, 0, 0x15]);
}

#[test]
fn the_supervisor_does_not_execute_user_pages_under_smep() {
    let mut p = page(ALL);
    p.control(p.b.cpu.cr0, CR4_PAE | CR4_SMEP);
    assert_eq!(codes(&mut p), [0, 0, 0x11]);
    p.level(3);
    assert_eq!(codes(&mut p), [0, 0, 0]);
}

#[test]
fn the_supervisor_touches_user_pages_under_smap_only_with_ac() {
    let mut p = page(ALL);
    p.control(p.b.cpu.cr0, CR4_PAE | CR4_SMAP);
    assert_eq!(codes(&mut p), [1, 3, 0]);
    p.b.cpu.set_rflags(rflags::AC);
    assert_eq!(codes(&mut p), [0, 0, 0]);
    p.b.cpu.set_rflags(0);
    assert_eq!(codes(&mut p), [1, 3, 0]);
    p.level(3);
    assert_eq!(codes(&mut p), [0, 0, 0]);
}

#[test]
fn the_processors_own_accesses_are_the_supervisors() {
    let mut p = page(P | RW);
    p.level(3);
    let result = p.b.cpu.read_linear::<u8>(AT, Privilege::System);
    assert_eq!(p.why(result), Ok(0));
    p.map(AT, 0x5000 | ALL);
    p.control(p.b.cpu.cr0, CR4_PAE | CR4_SMAP);
    p.b.cpu.set_rflags(rflags::AC);
    let result = p.b.cpu.write_linear::<u8>(AT, 0, Privilege::System);
    assert_eq!(p.why(result), Err(Exception::pf(3, AT)));
}

#[test]
fn protection_keys_of_user_pages() {
    let mut p = page(ALL | 5 << 59);
    p.control(p.b.cpu.cr0, CR4_PAE | CR4_PKE);
    p.level(3);
    p.b.cpu.mmu.set_pkru(2 << 10);
    assert_eq!(codes(&mut p), [0, 0x27, 0]);
    p.b.cpu.mmu.set_pkru(1 << 10);
    assert_eq!(codes(&mut p), [0x25, 0x27, 0]);
    p.level(0);
    assert_eq!(codes(&mut p), [0x21, 0x23, 0]);
    p.b.cpu.mmu.set_pkru(2 << 10);
    p.control(CR0_PE | CR0_PG, CR4_PAE | CR4_PKE);
    assert_eq!(codes(&mut p), [0, 0, 0]);
}

#[test]
fn protection_keys_of_supervisor_pages() {
    let mut p = page(P | RW | 15 << 59);
    p.b.cpu.mmu.set_pkru(u32::MAX);
    p.control(p.b.cpu.cr0, CR4_PAE | CR4_PKE | CR4_PKS);
    assert_eq!(codes(&mut p), [0, 0, 0]);
    p.b.cpu.mmu.set_pkrs(2 << 30);
    assert_eq!(codes(&mut p), [0, 0x23, 0]);
    p.b.cpu.mmu.set_pkrs(1 << 30);
    assert_eq!(codes(&mut p), [0x21, 0x23, 0]);
}

#[test]
fn misaligned_accesses_of_a_program_that_wants_to_know() {
    let mut p = page(ALL);
    p.control(p.b.cpu.cr0 | CR0_AM, CR4_PAE);
    p.b.cpu.set_rflags(rflags::AC);
    assert_eq!(p.read::<u32>(AT + 1), Ok(0));
    p.level(3);
    assert_eq!(p.read::<u32>(AT + 1), Err(Exception::AC));
    assert_eq!(p.read::<u32>(AT + 4), Ok(0));
    assert_eq!(p.write::<u16>(AT + 3, 0), Err(Exception::AC));
    let result = p.b.cpu.update::<u64, true>(3, AT + 4, |x| x);
    assert_eq!(p.why(result), Err(Exception::AC));
    p.b.cpu.set_rflags(0);
    assert_eq!(p.read::<u32>(AT + 1), Ok(0));
    assert_eq!(p.b.cpu.mode, Mode::Long64);
}
