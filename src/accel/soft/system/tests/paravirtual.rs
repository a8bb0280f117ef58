//! KVM's paravirtual registers and hypercalls.

use super::Kit;
use super::control::{rdmsr, wrmsr};
use crate::event::realtime_ns;

const MODEL: &str = "qemu64,+kvmclock,+kvmclock2,+kvmclock-stable-bit,+kvm-poll-control";
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const PAGE: u64 = 0x5000;

/// The guest's way from the page and its time-stamp counter to nanoseconds.
fn system_time(kit: &mut Kit) -> u64 {
    let ticks = kit.cpu().tsc().wrapping_sub(kit.get(PAGE + 8));
    let shift = kit.get(PAGE + 28) as u8;
    let scaled = (u128::from(ticks << shift) * u128::from(kit.get32(PAGE + 24))) >> 32;
    kit.get(PAGE + 16) + scaled as u64
}

#[test]
fn the_clocks_page_shows_machine_time_also_after_the_counter_was_written() {
    let mut kit = Kit::long(MODEL, 0);
    let clock = kit.cpu().clock.clone();
    clock.advance(1000);
    assert!(wrmsr(&mut kit, SYSTEM_TIME, PAGE | 1));
    clock.advance(5_000_000_000);
    assert_eq!(system_time(&mut kit), 5_000_001_000);
    assert_eq!((kit.get32(PAGE), kit.get(PAGE + 28) >> 8 & 0xff), (2, 1));
    assert!(wrmsr(&mut kit, 0x10, 77));
    clock.advance(10);
    assert_eq!(system_time(&mut kit), 5_000_001_010);
    assert_eq!(kit.get32(PAGE), 4);
    assert_eq!(rdmsr(&mut kit, 0x12), PAGE | 1);
}

#[test]
fn a_page_that_is_not_enabled_or_not_ram_is_left_alone() {
    let mut kit = Kit::long(MODEL, 0);
    assert!(wrmsr(&mut kit, SYSTEM_TIME, PAGE));
    assert_eq!(kit.get32(PAGE), 0);
    assert!(wrmsr(&mut kit, SYSTEM_TIME, 0xffff_ffff_f001));
}

#[test]
fn the_wall_clock_is_that_of_time_zero() {
    let mut kit = Kit::long(MODEL, 0);
    let before = realtime_ns();
    kit.cpu().clock.clone().advance(3_000_000_000);
    assert!(wrmsr(&mut kit, 0x11, PAGE));
    let shown = u64::from(kit.get32(PAGE + 4)) * 1_000_000_000 + u64::from(kit.get32(PAGE + 8));
    let range = before - 3_000_000_000..=realtime_ns() - 3_000_000_000;
    assert!(range.contains(&shown), "{shown} in {range:?}");
    assert_eq!(kit.get32(PAGE), 2);
}

#[test]
fn registers_are_there_where_their_feature_is() {
    // `-cpu ...,+kvmclock` means both clocks; each can be taken away.
    let mut kit = Kit::long("qemu64,+kvmclock2,-kvmclock", 0);
    assert!(!wrmsr(&mut kit, 0x12, PAGE));
    let mut kit = Kit::long("qemu64,+kvmclock,-kvmclock2", 0);
    assert!(!wrmsr(&mut kit, SYSTEM_TIME, PAGE));
    let mut kit = Kit::long("qemu64", 0);
    assert!(!wrmsr(&mut kit, 0x12, PAGE));
    let mut kit = Kit::long(MODEL, 0);
    assert_eq!(rdmsr(&mut kit, 0x4b56_4d05), 1);
    assert!(wrmsr(&mut kit, 0x4b56_4d05, 0));
    assert!(!wrmsr(&mut kit, 0x4b56_4d05, 2));
}

#[test]
fn hypercalls_answer() {
    const VMCALL: &[u8] = &[0x0f, 0x01, 0xc1];
    const VMMCALL: &[u8] = &[0x0f, 0x01, 0xd9];
    let call = |level, number: u64, code: &[u8]| {
        let mut kit = Kit::long(MODEL, level);
        kit.cpu().gpr[0] = number;
        kit.cpu().gpr[3] = PAGE;
        kit.cpu().gpr[1] = 0;
        kit.run(code);
        assert_eq!(kit.vector(), None);
        (kit.cpu().gpr[0] as i64, kit.get(PAGE))
    };
    assert_eq!(call(0, 1, VMCALL).0, 0);
    assert_eq!(call(0, 99, VMMCALL).0, -1000);
    assert_eq!(call(3, 1, VMCALL).0, -1);
    let (answer, seconds) = call(0, 9, VMCALL);
    assert_eq!(answer, 0);
    assert!(seconds.abs_diff(realtime_ns() / 1_000_000_000) <= 1);
    let mut kit = Kit::long("qemu64", 0);
    assert_eq!(kit.run(VMMCALL).vector(), Some(6));
}
