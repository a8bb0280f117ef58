//! Saved states, system management mode, RESET and INIT.

use super::super::super::cpu::{Activity, rflags, segment};
use super::{CODE, Kit};
use crate::cpu::Mode;

/// Where the registers of system management mode are after reset.
const SMBASE: u64 = 0x30000;

#[test]
fn a_state_survives_the_way_there_and_back() {
    let mut kit = Kit::long("max", 3);
    let cpu = kit.cpu();
    cpu.gpr[11] = 0x1234;
    cpu.system.star = 5;
    cpu.system.lstar = 6;
    cpu.system.tsc_adjust = 7;
    cpu.system.mtrrs.fixed[3] = 0x0606_0606_0606_0606;
    cpu.system.nmi_blocked = true;
    cpu.shadow = 2;
    cpu.clock.clone().advance(55);
    let state = cpu.save_state();
    let mut other = Kit::new("max");
    other.cpu().load_state(&state);
    assert_eq!((other.cpu().mode, other.cpu().cpl, other.cpu().rip), (Mode::Long64, 3, CODE));
    assert!(other.cpu().nmi_blocked());
    assert_eq!(other.cpu().tsc(), 55);
    assert_eq!(other.cpu().save_state(), state);
}

#[test]
fn an_exception_under_way_elsewhere_is_delivered() {
    let mut kit = Kit::long("max", 3);
    let mut state = kit.cpu().save_state();
    state.events.exception_pending = true;
    state.events.exception_vector = 14;
    state.events.exception_error = Some(6);
    state.events.exception_payload = Some(0x1234);
    kit.cpu().load_state(&state);
    assert_eq!((kit.vector(), kit.stack64(0), kit.cpu().cr2), (Some(14), 6, 0x1234));
}

#[test]
fn a_system_management_interrupt_keeps_all_registers() {
    let mut kit = Kit::long("max", 3);
    kit.cpu().gpr[15] = 0xfeed_0000_1111_2222;
    kit.cpu().flags |= rflags::IF;
    let before = kit.cpu().save_state();
    kit.cpu().enter_smm();
    assert_eq!((kit.cpu().mode, kit.cpu().rip, kit.cpu().cr4), (Mode::Real, 0x8000, 0));
    assert!(kit.cpu().in_smm() && kit.cpu().nmi_blocked());
    assert_eq!((kit.get(SMBASE + 0xff80), kit.get32(SMBASE + 0xfefc)), (0xfeed_0000_1111_2222, 0x2_0064));
    assert_eq!((kit.get(SMBASE + 0xff78), kit.get(SMBASE + 0xff50)), (CODE, super::PAGES));
    kit.run(&[0x0f, 0xaa]); // rsm
    assert!(!kit.cpu().in_smm());
    assert_eq!(kit.cpu().save_state(), before);
}

#[test]
fn rsm_moves_the_base_and_is_undefined_elsewhere() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().enter_smm();
    kit.put32(SMBASE + 0xff00, 0xa0000);
    kit.run(&[0x0f, 0xaa]); // rsm
    assert_eq!(kit.cpu().system.smbase, 0xa0000);
    kit.run(&[0x0f, 0xaa]);
    assert_eq!(kit.vector(), Some(6));
}

#[test]
fn a_state_that_does_not_exist_shuts_the_processor_down() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().enter_smm();
    kit.put32(SMBASE + 0xff58, 0x8000_0000); // CR0: paging without protection
    kit.run(&[0x0f, 0xaa]);
    assert_eq!(kit.cpu().activity, Activity::Shutdown);
}

#[test]
fn rsm_returns_to_hlt() {
    let mut kit = Kit::protected("max", 0);
    kit.run(&[0xf4]); // hlt
    kit.cpu().enter_smm();
    assert_eq!(kit.cpu().activity, Activity::Running);
    kit.run(&[0x0f, 0xaa]); // rsm
    assert_eq!(kit.cpu().activity, Activity::Halted);
}

#[test]
fn init_keeps_what_reset_does_not() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().system.pat = 6;
    kit.cpu().system.tsc_offset = 9;
    kit.cpu().init_reset();
    assert_eq!((kit.cpu().mode, kit.cpu().rip, kit.selector(segment::CS)), (Mode::Real, 0xfff0, 0xf000));
    assert_eq!((kit.cpu().system.pat, kit.cpu().system.tsc_offset, kit.cpu().efer), (6, 9, 0));
    kit.cpu().reset();
    assert_eq!(kit.cpu().system.pat, 0x0007_0406_0007_0406);
    assert_eq!(kit.selector(segment::DS), 0);
}

#[test]
fn processors_that_are_reset_at_different_times_agree_on_the_tsc() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().clock.clone().advance(1000);
    kit.cpu().shift_tsc(5);
    kit.cpu().reset();
    assert_eq!((kit.cpu().tsc(), kit.cpu().system.tsc_adjust), (1000, 0));
}
