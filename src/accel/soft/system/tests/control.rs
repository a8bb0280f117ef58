//! Control registers, MSRs, CPUID, time and the rest.

use super::super::super::cpu::{Activity, rflags, segment};
use super::{CODE, Kit, selector};
use crate::cpu::Mode;

pub(super) fn rdmsr(kit: &mut Kit, msr: u32) -> u64 {
    kit.cpu().gpr[1] = u64::from(msr);
    kit.run(&[0x0f, 0x32]); // rdmsr
    assert_eq!(kit.vector(), None, "rdmsr {msr:x}");
    kit.cpu().gpr[2] << 32 | kit.cpu().gpr[0]
}

/// Whether it was accepted.
pub(super) fn wrmsr(kit: &mut Kit, msr: u32, value: u64) -> bool {
    let rip = kit.cpu().rip;
    kit.cpu().gpr[1] = u64::from(msr);
    kit.cpu().gpr[0] = value & 0xffff_ffff;
    kit.cpu().gpr[2] = value >> 32;
    kit.run(&[0x0f, 0x30]); // wrmsr
    kit.cpu().rip == rip + 2
}

#[test]
fn long_mode_is_entered_and_left() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().cr4 = 0x20;
    kit.cpu().cr3 = super::PAGES;
    assert!(wrmsr(&mut kit, 0xc000_0080, 0x100));
    kit.cpu().gpr[0] = 0x8000_0031;
    kit.run(&[0x0f, 0x22, 0xc0]); // mov cr0, eax
    assert_eq!((kit.cpu().mode, kit.cpu().efer), (Mode::Compatibility32, 0x500));
    let rip = kit.cpu().rip as u32 + 7;
    let [a, b, c, d] = rip.to_le_bytes();
    kit.run(&[0xea, a, b, c, d, 0x38, 0]); // jmp 38:next
    assert_eq!(kit.cpu().mode, Mode::Long64);
    kit.cpu().gpr[0] = 0x31;
    kit.run(&[0x0f, 0x22, 0xc0]); // mov cr0, rax: not from 64-bit code
    assert_eq!(kit.cpu().cr0, 0x8000_0031);
    let mut kit = Kit::long("max", 0);
    kit.put(0x7000, 0x0008_0000_9000);
    kit.run(&[0xff, 0x2c, 0x25, 0x00, 0x70, 0x00, 0x00]); // jmp far [0x7000]: 8:9000
    assert_eq!(kit.cpu().mode, Mode::Compatibility32);
    kit.cpu().gpr[0] = 0x31;
    kit.run(&[0x0f, 0x22, 0xc0]); // mov cr0, eax
    assert_eq!((kit.cpu().mode, kit.cpu().efer & 0x400), (Mode::Protected32, 0));
}

#[test]
fn control_registers_refuse_reserved_bits() {
    let cases: [(&[u8], u64); 5] = [
        (&[0x0f, 0x22, 0xc0], 1 << 32 | 0x8001_0031), // mov cr0, rax
        (&[0x0f, 0x22, 0xc0], 0xa001_0031),           // NW without CD
        (&[0x0f, 0x22, 0xe0], 1 << 30 | 0x620),       // mov cr4, rax
        (&[0x0f, 0x22, 0xe0], 0x600),                 // PAE in long mode
        (&[0x0f, 0x22, 0xd8], 1 << 60),               // mov cr3, rax
    ];
    for (code, value) in cases {
        let mut kit = Kit::long("max", 0);
        kit.cpu().gpr[0] = value;
        kit.run(code);
        assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), 0), "{code:x?} {value:x}");
    }
}

#[test]
fn control_instructions_are_for_level_0() {
    let codes: [&[u8]; 10] = [
        &[0x0f, 0x20, 0xc0],
        &[0x0f, 0x22, 0xc0],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0xf4],
        &[0x0f, 0x06],
        &[0x0f, 0x08],
        &[0x0f, 0x01, 0xf8],
        &[0x0f, 0x21, 0xc0],
        &[0x0f, 0x01, 0x38],
    ];
    for code in codes {
        let mut kit = Kit::long("max", 3);
        kit.run(code);
        assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), 0), "{code:x?}");
    }
}

#[test]
fn hlt_waits_and_an_interrupt_goes_on_behind_it() {
    let mut kit = Kit::long("max", 0);
    kit.run(&[0xf4]); // hlt
    assert_eq!((kit.cpu().activity, kit.cpu().rip), (Activity::Halted, CODE + 1));
    kit.cpu().deliver_interrupt(0x20);
    assert_eq!((kit.cpu().activity, kit.vector(), kit.stack64(0)), (Activity::Running, Some(0x20), CODE + 1));
}

#[test]
fn the_tsc_follows_the_clock_and_its_registers() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().clock.clone().advance(1000);
    assert_eq!(rdmsr(&mut kit, 0x10), 1000);
    assert!(wrmsr(&mut kit, 0x10, 5000));
    assert_eq!((rdmsr(&mut kit, 0x10), rdmsr(&mut kit, 0x3b)), (5000, 4000));
    assert!(wrmsr(&mut kit, 0x3b, 0));
    kit.run(&[0x0f, 0x31]); // rdtsc
    assert_eq!((kit.cpu().gpr[0], kit.cpu().gpr[2]), (1000, 0));
}

#[test]
fn rdtsc_can_be_kept_from_programs() {
    let mut kit = Kit::long("max", 3);
    kit.cpu().cr4 |= 4;
    kit.run(&[0x0f, 0x31]); // rdtsc
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), 0));
}

#[test]
fn bases_have_to_be_canonical() {
    let mut kit = Kit::long("max", 0);
    assert!(wrmsr(&mut kit, 0xc000_0101, 0xffff_8000_0000_1000));
    assert_eq!(kit.cpu().segments[segment::GS].base, 0xffff_8000_0000_1000);
    kit.run(&[0x0f, 0x01, 0xf8]); // swapgs
    assert_eq!(rdmsr(&mut kit, 0xc000_0102), 0xffff_8000_0000_1000);
    assert!(!wrmsr(&mut kit, 0xc000_0101, 1 << 60));
    assert_eq!(kit.vector(), Some(13));
}

#[test]
fn an_unknown_msr_faults() {
    let mut kit = Kit::long("max", 0);
    assert!(!wrmsr(&mut kit, 0x1234_5678, 0));
    assert_eq!(kit.vector(), Some(13));
}

#[test]
fn mtrrs_keep_valid_types_only() {
    let mut kit = Kit::long("max", 0);
    assert!(wrmsr(&mut kit, 0x2ff, 0xc06));
    assert_eq!(rdmsr(&mut kit, 0x2ff), 0xc06);
    assert!(!wrmsr(&mut kit, 0x250, 2));
}

#[test]
fn cpuid_follows_control_registers() {
    let mut kit = Kit::long("max", 0);
    let leaf = |kit: &mut Kit| kit.cpu().cpuid_leaf(1, 0)[2] >> 27 & 1;
    assert_eq!(leaf(&mut kit), 0);
    kit.cpu().cr4 |= 1 << 18;
    assert_eq!(leaf(&mut kit), 1);
    kit.cpu().gpr[0] = 0;
    kit.run(&[0x0f, 0xa2]); // cpuid
    let vendor = kit.bench.cpu.model.vendor();
    assert_eq!(kit.cpu().gpr[3] as u32, u32::from_le_bytes([vendor[0], vendor[1], vendor[2], vendor[3]]));
}

#[test]
fn lar_and_lsl_see_what_the_program_may() {
    let mut kit = Kit::protected("max", 3);
    kit.cpu().gpr[1] = u64::from(selector::DATA32_USER);
    kit.run(&[0x0f, 0x02, 0xc1]).run(&[0x0f, 0x03, 0xd1]); // lar eax, cx; lsl edx, cx
    assert_eq!((kit.cpu().gpr[0], kit.cpu().gpr[2]), (0xcf_f200, 0xffff_ffff));
    assert!(kit.cpu().status.zf());
    kit.cpu().gpr[1] = u64::from(selector::DATA32);
    kit.run(&[0x0f, 0x02, 0xc1]); // lar eax, cx
    assert!(!kit.cpu().status.zf());
}

#[test]
fn ltr_marks_the_task_busy() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().gpr[0] = u64::from(selector::TSS_OTHER);
    kit.run(&[0x0f, 0x00, 0xd8]); // ltr ax
    assert_eq!((kit.cpu().tr.selector, kit.get_descriptor(selector::TSS_OTHER) >> 40 & 0xf), (0x80, 0xb));
    kit.run(&[0x0f, 0x00, 0xd8]); // ltr ax: it is busy
    assert_eq!(kit.faulted32(), Some((13, 0x80)));
}

#[test]
fn single_step_traps_after_the_next_instruction() {
    let mut kit = Kit::protected("max", 0);
    kit.put(super::STACK - 4, 0x102);
    kit.cpu().gpr[4] = super::STACK - 4;
    kit.code(&[0x9d, 0x40, 0x40]).steps(1); // popfd; inc eax
    assert_eq!((kit.vector(), kit.cpu().flags & rflags::TF), (None, rflags::TF));
    kit.steps(1);
    assert_eq!((kit.vector(), kit.stack32(0)), (Some(1), CODE as u32 + 2));
    assert_eq!(kit.cpu().dr[6], 0xffff_4ff0);
}

#[test]
fn an_instruction_breakpoint_hits_before_and_rf_lets_it_pass() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().dr[0] = CODE;
    kit.cpu().dr[7] = 0x402;
    kit.code(&[0x40, 0x40]).steps(1); // inc eax
    assert_eq!((kit.vector(), kit.stack32(0)), (Some(1), CODE as u32));
    assert_eq!(kit.cpu().dr[6], 0xffff_0ff1);
    kit.cpu().rip = CODE;
    kit.cpu().flags |= rflags::RF;
    kit.steps(1);
    assert_eq!((kit.vector(), kit.cpu().rip, kit.cpu().flags & rflags::RF), (None, CODE + 1, 0));
}

#[test]
fn general_detect_guards_the_debug_registers() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().dr[7] = 0x2400;
    kit.run(&[0x0f, 0x21, 0xc0]); // mov eax, dr0
    assert_eq!((kit.vector(), kit.stack32(0)), (Some(1), CODE as u32));
    assert_eq!((kit.cpu().dr[6], kit.cpu().dr[7]), (0xffff_2ff0, 0x400));
}

#[test]
fn a_data_breakpoint_hits_after_the_instruction() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().gpr[0] = 0x7004;
    kit.run(&[0x0f, 0x23, 0xc0]); // mov dr0, eax
    kit.cpu().gpr[0] = 0x000d_0402; // 4 bytes, writes, global
    kit.run(&[0x0f, 0x23, 0xf8]); // mov dr7, eax
    kit.cpu().gpr[3] = 0x7006;
    kit.run(&[0x8a, 0x0b]); // mov cl, [ebx]: a read
    assert_eq!(kit.vector(), None);
    let next = kit.cpu().rip + 2;
    kit.run(&[0x88, 0x0b]); // mov [ebx], cl
    assert_eq!((kit.vector(), u64::from(kit.stack32(0))), (Some(1), next));
    assert_eq!(kit.cpu().dr[6], 0xffff_0ff1);
}

#[test]
fn a_port_breakpoint_needs_de() {
    for (cr4, vector) in [(0, None), (8, Some(1))] {
        let mut kit = Kit::protected("max", 0);
        kit.cpu().cr4 = cr4;
        kit.cpu().dr[1] = 0x80;
        kit.cpu().dr[7] = 0x0020_0404;
        assert!(kit.cpu().check_io(0x80, 1).is_ok());
        kit.run(&[0x40]); // inc eax
        assert_eq!(kit.vector(), vector);
    }
}

#[test]
fn mov_ss_holds_a_breakpoint_back() {
    let mut kit = Kit::protected("max", 0);
    kit.put16(0x7000, selector::DATA32);
    kit.cpu().dr[0] = 0x7000;
    kit.cpu().dr[7] = 0x0003_0402;
    kit.cpu().debug_registers_changed();
    kit.code(&[0x8e, 0x15, 0, 0x70, 0, 0, 0x40]).steps(1); // mov ss, [0x7000]; inc eax
    assert_eq!((kit.vector(), kit.cpu().shadow), (None, 1));
    kit.steps(1);
    assert_eq!((kit.vector(), u64::from(kit.stack32(0))), (Some(1), CODE + 7));
}
