//! Segment loads, gates, privilege changes, interrupts and tasks in protected and long mode.

use super::super::super::cpu::{Activity, attributes, rflags, segment};
use super::{CODE, HANDLERS, IDT, INNER_STACK, IST, Kit, OTHER_TSS, STACK, TSS, descriptor, gate, selector};

#[test]
fn data_segment_loads_are_checked() {
    let cases = [
        (selector::END, Some((13, selector::END))),
        (selector::ABSENT, Some((11, selector::ABSENT))),
        (selector::TSS, Some((13, selector::TSS))),
        (selector::DATA32 | 4, Some((13, selector::DATA32 | 4))),
        (selector::CODE32, None),
        (3, None),
    ];
    for (value, fault) in cases {
        let mut kit = Kit::protected("max", 0);
        kit.cpu().gpr[0] = u64::from(value);
        kit.run(&[0x8e, 0xd8]); // mov ds, ax
        let expected = fault.map(|(vector, selector)| (vector, u32::from(selector)));
        assert_eq!(kit.faulted32(), expected, "{value:x}");
        let kept = if fault.is_some() { selector::DATA32 } else { value };
        assert_eq!(kit.selector(segment::DS), kept);
    }
}

#[test]
fn stack_segment_loads_are_checked() {
    let cases = [
        (0, (13, 0)),
        (selector::CODE32, (13, selector::CODE32)),
        (selector::DATA32_USER, (13, selector::DATA32_USER & !3)),
        (selector::ABSENT, (12, selector::ABSENT)),
    ];
    for (value, (vector, error)) in cases {
        let mut kit = Kit::protected("max", 0);
        kit.set_descriptor(selector::ABSENT, descriptor(0, 0xf_ffff, 0x12, 0xc));
        kit.cpu().gpr[0] = u64::from(value);
        kit.run(&[0x8e, 0xd0]); // mov ss, ax
        assert_eq!(kit.faulted32(), Some((vector, u32::from(error))), "{value:x}");
    }
}

#[test]
fn a_null_segment_cannot_be_used() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().gpr[0] = 0;
    kit.run(&[0x8e, 0xd8]).run(&[0x8a, 0x00]); // mov ds, ax; mov al, [eax]
    assert_eq!(kit.faulted32(), Some((13, 0)));
    assert_ne!(kit.bench.cpu.segments[segment::DS].loaded.attributes & attributes::UNUSABLE, 0);
}

#[test]
fn a_program_may_not_load_a_more_private_segment() {
    let mut kit = Kit::protected("max", 3);
    kit.cpu().gpr[0] = u64::from(selector::DATA32);
    kit.run(&[0x8e, 0xc0]); // mov es, ax
    assert_eq!(kit.faulted32(), Some((13, u32::from(selector::DATA32))));
}

#[test]
fn mov_ss_holds_interrupts_back() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().gpr[0] = u64::from(selector::DATA32);
    kit.run(&[0x8e, 0xd0]); // mov ss, ax
    assert_eq!(kit.cpu().shadow, 1);
}

#[test]
fn an_interrupt_to_an_inner_level_switches_stacks_and_iret_comes_back() {
    let mut kit = Kit::protected("max", 3);
    kit.cpu().flags |= rflags::IF;
    kit.run(&[0xcd, 0x30]); // int 0x30
    assert_eq!((kit.vector(), kit.cpu().cpl), (Some(0x30), 0));
    assert_eq!(kit.cpu().gpr[4], INNER_STACK - 20);
    let frame: Vec<u32> = (0..5).map(|i| kit.stack32(i)).collect();
    let expected = [CODE as u32 + 2, 0x1b, 0x202, STACK as u32, 0x23];
    assert_eq!(frame, expected);
    kit.cpu().gpr[0] = u64::from(selector::DATA32);
    kit.run(&[0x8e, 0xd8]).run(&[0xcf]); // mov ds, ax; iretd
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.cpu().gpr[4]), (CODE + 2, 3, STACK));
    assert_eq!((kit.selector(segment::DS), kit.selector(segment::ES)), (0, selector::DATA32_USER));
}

#[test]
fn a_gates_level_counts_for_software_only() {
    let mut kit = Kit::protected("max", 3);
    kit.put(IDT + 8 * 0x30, gate(selector::CODE32, HANDLERS + 16 * 0x30, 0x8e, 0));
    kit.run(&[0xcd, 0x30]); // int 0x30
    assert_eq!(kit.faulted32(), Some((13, 0x30 * 8 + 2)));
    let mut kit = Kit::protected("max", 3);
    kit.put(IDT + 8 * 0x30, gate(selector::CODE32, HANDLERS + 16 * 0x30, 0x8e, 0));
    kit.cpu().deliver_interrupt(0x30);
    assert_eq!(kit.vector(), Some(0x30));
}

#[test]
fn faults_push_rf_and_external_faults_say_so() {
    let mut kit = Kit::protected("max", 0);
    kit.run(&[0x0f, 0x0b]); // ud2
    assert_eq!((kit.vector(), kit.stack32(0), kit.stack32(2)), (Some(6), CODE as u32, 0x1_0002));
    let mut kit = Kit::protected("max", 0);
    kit.put(IDT + 8 * 0x30, gate(selector::CODE32, HANDLERS, 0x0e, 0));
    kit.cpu().deliver_interrupt(0x30);
    assert_eq!(kit.faulted32(), Some((11, 0x30 * 8 + 3)));
}

#[test]
fn contributory_faults_make_a_double_fault_and_then_a_shutdown() {
    let mut kit = Kit::protected("max", 0);
    kit.put(IDT + 8 * 13, 0);
    kit.cpu().gpr[0] = u64::from(selector::END);
    kit.run(&[0x8e, 0xd8]); // mov ds, ax: #GP without a gate
    assert_eq!(kit.faulted32(), Some((8, 0)));
    let mut kit = Kit::protected("max", 0);
    kit.put(IDT + 8 * 13, 0);
    kit.put(IDT + 8 * 8, 0);
    kit.cpu().gpr[0] = u64::from(selector::END);
    kit.run(&[0x8e, 0xd8]);
    assert_eq!(kit.cpu().activity, Activity::Shutdown);
}

#[test]
fn a_call_gate_copies_parameters_and_retf_releases_them() {
    let mut kit = Kit::protected("max", 3);
    kit.set_descriptor(selector::GATE, gate(selector::CODE32, 0x9000, 0xec, 2));
    kit.put32(STACK, 0x1111);
    kit.put32(STACK + 4, 0x2222);
    kit.run(&[0x9a, 0, 0, 0, 0, 0x5b, 0]); // call 5b:0
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.selector(segment::CS)), (0x9000, 0, selector::CODE32));
    let frame: Vec<u32> = (0..6).map(|i| kit.stack32(i)).collect();
    assert_eq!(frame, [CODE as u32 + 7, 0x1b, 0x1111, 0x2222, STACK as u32, 0x23]);
    kit.run(&[0xca, 8, 0]); // retf 8
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.cpu().gpr[4]), (CODE + 7, 3, STACK + 8));
}

#[test]
fn a_far_jump_cannot_change_the_level() {
    let mut kit = Kit::protected("max", 3);
    kit.run(&[0xea, 0, 0, 0, 0, 0x08, 0]); // jmp 8:0
    assert_eq!(kit.faulted32(), Some((13, 8)));
}

fn other_task(kit: &mut Kit) {
    let registers = [0x9000, 0x2, 0xa, 0xc, 0xd, 0xb, 0x2_4000, 5, 6, 7];
    for (value, at) in registers.into_iter().zip(0..) {
        kit.put32(OTHER_TSS + 0x20 + 4 * at, value);
    }
    for (value, at) in [0x10, 0x08, 0x10, 0x10, 0, 0, 0].into_iter().zip(0..) {
        kit.put32(OTHER_TSS + 0x48 + 4 * at, value);
    }
}

#[test]
fn a_call_through_a_task_gate_nests_and_iret_returns() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.set_descriptor(selector::TSS, descriptor(TSS, 0x67, 0x8b, 0));
    kit.cpu().gpr[3] = 0x77;
    kit.run(&[0x9a, 0, 0, 0, 0, 0x98, 0]); // call task gate
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[0], kit.cpu().gpr[4]), (0x9000, 0xa, 0x2_4000));
    assert_eq!((kit.cpu().tr.selector, kit.cpu().flags & rflags::NT), (selector::TSS_OTHER, rflags::NT));
    assert_eq!((kit.get16(OTHER_TSS), kit.get32(TSS + 0x34)), (selector::TSS, 0x77));
    assert_eq!(kit.get_descriptor(selector::TSS_OTHER) >> 40 & 0xf, 0xb);
    assert_eq!(kit.get_descriptor(selector::TSS) >> 40 & 0xf, 0xb);
    assert_ne!(kit.cpu().cr0 & 8, 0);
    kit.run(&[0xcf]); // iretd
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[3], kit.cpu().tr.selector), (CODE + 7, 0x77, selector::TSS));
    assert_eq!(kit.get_descriptor(selector::TSS_OTHER) >> 40 & 0xf, 9);
    assert_eq!(kit.cpu().flags & rflags::NT, 0);
}

#[test]
fn a_jump_to_a_task_ends_the_old_one() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.set_descriptor(selector::TSS, descriptor(TSS, 0x67, 0x8b, 0));
    kit.run(&[0xea, 0, 0, 0, 0, 0x80, 0]); // jmp TSS
    assert_eq!((kit.cpu().rip, kit.cpu().flags & rflags::NT), (0x9000, 0));
    assert_eq!(kit.get_descriptor(selector::TSS) >> 40 & 0xf, 9);
}

#[test]
fn a_16_bit_task_is_entered_and_left() {
    let mut kit = Kit::protected("max", 0);
    kit.set_descriptor(selector::TSS, descriptor(TSS, 0x67, 0x8b, 0));
    kit.set_descriptor(selector::TSS_OTHER, descriptor(OTHER_TSS, 0x2b, 0x81, 0));
    // IP, FLAGS, AX, CX, DX, BX, SP, BP, SI, DI, ES, CS, SS, DS, LDT.
    let image: [u16; 15] = [0x9000, 2, 0xa, 0xc, 0xd, 0xb, 0x4000, 5, 6, 7, 0x70, 0x68, 0x70, 0x70, 0];
    for (value, at) in image.into_iter().zip(0..) {
        kit.put16(OTHER_TSS + 0xe + 2 * at, value);
    }
    kit.cpu().gpr[3] = 0x0077_0077;
    kit.run(&[0x9a, 0, 0, 0, 0, 0x80, 0]); // call TSS
    assert_eq!((kit.cpu().mode, kit.cpu().rip), (crate::cpu::Mode::Protected16, 0x9000));
    assert_eq!((kit.cpu().reg16(0), kit.cpu().reg16(4), kit.selector(segment::DS)), (0xa, 0x4000, 0x70));
    assert_eq!((kit.get16(OTHER_TSS), kit.get_descriptor(selector::TSS_OTHER) >> 40 & 0xf), (selector::TSS, 3));
    kit.run(&[0xb8, 0x34, 0x12]).run(&[0xcf]); // mov ax, 0x1234; iret
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[3], kit.cpu().tr.selector), (CODE + 7, 0x0077_0077, selector::TSS));
    assert_eq!((kit.get16(OTHER_TSS + 0x12), kit.get16(OTHER_TSS + 0xe)), (0x1234, 0x9004));
    assert_eq!(kit.get_descriptor(selector::TSS_OTHER) >> 40 & 0xf, 1);
}

#[test]
fn the_trap_flag_of_a_task_raises_a_debug_exception_in_it() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.put32(OTHER_TSS + 0x64, 1);
    kit.run(&[0xea, 0, 0, 0, 0, 0x80, 0]); // jmp TSS
    assert_eq!((kit.vector(), kit.stack32(0), kit.cpu().tr.selector), (Some(1), 0x9000, selector::TSS_OTHER));
    assert_ne!(kit.cpu().dr[6] & 1 << 15, 0);
}

#[test]
fn programs_have_an_interrupt_flag_of_their_own_with_pvi() {
    let mut kit = Kit::protected("max", 3);
    kit.cpu().cr4 |= 2;
    kit.cpu().flags |= rflags::IF;
    kit.run(&[0xfb]); // sti
    assert_eq!((kit.vector(), kit.cpu().flags & (rflags::VIF | rflags::IF)), (None, rflags::VIF | rflags::IF));
    kit.run(&[0xfa]); // cli
    assert_eq!((kit.vector(), kit.cpu().flags & (rflags::VIF | rflags::IF)), (None, rflags::IF));
    kit.cpu().flags |= rflags::VIP;
    kit.run(&[0xfb]); // sti with an interrupt pending
    assert_eq!(kit.faulted32(), Some((13, 0)));
    // Without it, and with IOPL below the level, both are refused.
    let mut kit = Kit::protected("max", 3);
    kit.run(&[0xfa]);
    assert_eq!(kit.faulted32(), Some((13, 0)));
}

#[test]
fn a_bad_stack_of_a_new_task_faults_in_that_task() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.put32(OTHER_TSS + 0x50, u32::from(selector::CODE32));
    // The handler has to run on a stack that works: through a task of its own it would; here it shuts down.
    kit.run(&[0xea, 0, 0, 0, 0, 0x80, 0]); // jmp TSS
    assert_eq!(kit.cpu().tr.selector, selector::TSS_OTHER);
    assert_eq!(kit.cpu().activity, Activity::Shutdown);
}

#[test]
fn the_io_bitmap_opens_ports() {
    let mut kit = Kit::protected("max", 3);
    kit.put16(TSS + 0x66, 0x68);
    kit.cpu().tr.limit = 0x68 + 0xff;
    kit.put(TSS + 0x68, !0xff00);
    assert!(kit.cpu().check_io(8, 4).is_ok());
    assert!(kit.cpu().check_io(14, 4).is_err());
    assert!(kit.cpu().check_io(0x7ff, 2).is_err());
    kit.cpu().flags |= rflags::IOPL;
    assert!(kit.cpu().check_io(14, 4).is_ok());
}

#[test]
fn an_interrupt_in_64_bit_mode_pushes_the_whole_frame() {
    let mut kit = Kit::long("max", 3);
    kit.run(&[0xcd, 0x30]); // int 0x30
    assert_eq!((kit.vector(), kit.cpu().cpl, kit.selector(segment::SS)), (Some(0x30), 0, 0));
    let frame: Vec<u64> = (0..5).map(|i| kit.stack64(i)).collect();
    assert_eq!(frame, [CODE + 2, 0x43, 2, STACK, 0x23]);
    kit.run(&[0x48, 0xcf]); // iretq
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.cpu().gpr[4]), (CODE + 2, 3, STACK));
}

#[test]
fn the_same_level_aligns_the_stack_and_the_ist_replaces_it() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().gpr[4] = STACK - 3;
    kit.run(&[0x0f, 0x0b]); // ud2
    assert_eq!((kit.vector(), kit.cpu().gpr[4], kit.stack64(3)), (Some(6), STACK - 16 - 40, STACK - 3));
    let mut kit = Kit::long("max", 0);
    kit.put(IDT + 16 * 6, gate(selector::CODE64, HANDLERS + 16 * 6, 0x8e, 1));
    kit.run(&[0x0f, 0x0b]);
    assert_eq!((kit.cpu().gpr[4], kit.selector(segment::SS)), (IST - 40, selector::DATA32));
}

#[test]
fn a_non_canonical_stack_is_a_double_fault() {
    let mut kit = Kit::long("max", 0);
    kit.put(IDT + 16 * 8, gate(selector::CODE64, HANDLERS + 16 * 8, 0x8e, 1));
    kit.cpu().gpr[4] = 1 << 62;
    kit.cpu().gpr[0] = u64::from(selector::END);
    kit.run(&[0x8e, 0xd8]); // mov ds, ax
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(8), 0));
}

#[test]
fn far_returns_go_between_64_bit_and_compatibility_mode() {
    let mut kit = Kit::long("max", 0);
    kit.put(STACK, 0x9000);
    kit.put(STACK + 8, u64::from(selector::CODE32));
    kit.run(&[0x48, 0xcb]); // retfq
    assert_eq!((kit.cpu().mode, kit.cpu().rip), (crate::cpu::Mode::Compatibility32, 0x9000));
    kit.run(&[0xea, 0, 0, 1, 0, 0x38, 0]); // jmp 38:10000
    assert_eq!((kit.cpu().mode, kit.cpu().rip), (crate::cpu::Mode::Long64, CODE));
}

#[test]
fn a_64_bit_call_gate_takes_its_stack_from_the_tss() {
    let mut kit = Kit::long("max", 3);
    kit.set_descriptor(selector::GATE, gate(selector::CODE64, 0x9000, 0xec, 0));
    kit.put(0x7000, u64::from(selector::GATE | 3) << 32);
    kit.run(&[0xff, 0x1c, 0x25, 0x00, 0x70, 0x00, 0x00]); // call far [0x7000]
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.cpu().gpr[4]), (0x9000, 0, INNER_STACK - 32));
    let frame: Vec<u64> = (0..4).map(|i| kit.stack64(i)).collect();
    assert_eq!(frame, [CODE + 7, 0x43, STACK, 0x23]);
}

#[test]
fn syscall_and_sysret_go_there_and_back() {
    let mut kit = Kit::long("max", 3);
    let cpu = kit.cpu();
    cpu.system.star = 0x0030_0008_0000_0000;
    cpu.system.lstar = 0x9000;
    cpu.system.fmask = rflags::IF;
    cpu.flags |= rflags::IF;
    kit.run(&[0x0f, 0x05]); // syscall
    let cpu = kit.cpu();
    assert_eq!((cpu.rip, cpu.cpl, cpu.gpr[1], cpu.gpr[11]), (0x9000, 0, CODE + 2, 0x202));
    assert_eq!(cpu.flags & rflags::IF, 0);
    assert_eq!((kit.selector(segment::CS), kit.selector(segment::SS)), (8, 0x10));
    kit.run(&[0x48, 0x0f, 0x07]); // sysretq
    assert_eq!((kit.cpu().rip, kit.cpu().cpl, kit.cpu().flags & rflags::IF), (CODE + 2, 3, rflags::IF));
    assert_eq!((kit.selector(segment::CS), kit.selector(segment::SS)), (0x43, 0x3b));
}

#[test]
fn nmis_are_held_back_until_iret() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().deliver_nmi();
    assert_eq!((kit.vector(), kit.cpu().nmi_blocked()), (Some(2), true));
    kit.run(&[0x48, 0xcf]); // iretq
    assert_eq!((kit.cpu().rip, kit.cpu().nmi_blocked()), (CODE, false));
}

#[test]
fn a_data_segment_that_a_new_task_cannot_load_is_its_fault() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.put32(OTHER_TSS + 0x54, u32::from(selector::END));
    kit.run(&[0xea, 0, 0, 0, 0, 0x80, 0]); // jmp TSS
    assert_eq!(kit.faulted32(), Some((10, u32::from(selector::END))));
    assert_eq!((kit.cpu().tr.selector, kit.stack32(1)), (selector::TSS_OTHER, 0x9000));
}

#[test]
fn a_task_that_faults_while_it_is_to_handle_a_fault_makes_a_double_fault() {
    let mut kit = Kit::protected("max", 0);
    other_task(&mut kit);
    kit.put32(OTHER_TSS + 0x54, u32::from(selector::END));
    kit.put(IDT + 8 * 13, gate(selector::TSS_OTHER, 0, 0xe5, 0));
    kit.cpu().gpr[0] = u64::from(selector::END);
    kit.run(&[0x8e, 0xd8]); // mov ds, ax
    assert_eq!(kit.faulted32(), Some((8, 0)));
    assert_eq!(kit.cpu().tr.selector, selector::TSS_OTHER);
}
