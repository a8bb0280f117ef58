//! Faults on the way: page faults of transfers and deliveries, and what they leave behind.

use super::super::super::cpu::{Activity, rflags, segment};
use super::{CODE, HANDLERS, IDT, IST, Kit, PAGES, STACK, descriptor, gate, selector};

/// A linear address of no page.
const NOWHERE: u64 = 0x4000_0000;

#[test]
fn a_page_fault_pushes_its_error_code_and_sets_cr2() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().gpr[0] = NOWHERE;
    kit.run(&[0x8b, 0x18]); // mov ebx, [rax]
    assert_eq!((kit.vector(), kit.stack64(0), kit.cpu().cr2), (Some(14), 0, NOWHERE));
    assert_eq!((kit.stack64(1), kit.stack64(3) & rflags::RF), (CODE, rflags::RF));
}

#[test]
fn a_page_fault_on_the_way_to_a_page_fault_is_a_double_fault() {
    let mut kit = Kit::long("max", 0);
    kit.put(IDT + 16 * 8, gate(selector::CODE64, HANDLERS + 16 * 8, 0x8e, 1));
    kit.cpu().gpr[4] = NOWHERE + 0x1000;
    kit.cpu().gpr[0] = NOWHERE + 0x100_0000;
    kit.run(&[0x8b, 0x18]); // mov ebx, [rax]
    assert_eq!((kit.vector(), kit.stack64(0), kit.cpu().gpr[4]), (Some(8), 0, IST - 48));
    assert_eq!(kit.cpu().cr2, NOWHERE + 0xff8);
}

#[test]
fn a_page_fault_on_the_way_to_an_interrupt_is_delivered_in_its_place() {
    let mut kit = Kit::long("max", 3);
    kit.put(IDT + 16 * 14, gate(selector::CODE64, HANDLERS + 16 * 14, 0x8e, 1));
    kit.put(super::TSS + 4, NOWHERE + 0x1000);
    kit.run(&[0xcd, 0x30]); // int 0x30
    assert_eq!((kit.vector(), kit.stack64(0), kit.stack64(1)), (Some(14), 2, CODE));
    assert_eq!((kit.cpu().cr2, kit.stack64(4)), (NOWHERE + 0xff8, STACK));
}

#[test]
fn the_third_fault_shuts_the_processor_down() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().gpr[4] = NOWHERE;
    kit.cpu().gpr[0] = NOWHERE + 0x100_0000;
    kit.run(&[0x8b, 0x18]); // mov ebx, [rax]
    assert_eq!((kit.cpu().activity, kit.cpu().rip), (Activity::Shutdown, CODE));
}

#[test]
fn a_missing_idt_page_is_a_fault_of_its_own() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().idtr.base = NOWHERE;
    kit.run(&[0xcc]); // int3
    assert_eq!(kit.cpu().activity, Activity::Shutdown);
    assert_eq!(kit.cpu().cr2, NOWHERE + 16 * 8);
}

#[test]
fn an_iret_that_faults_leaves_registers_alone() {
    let mut kit = Kit::long("max", 0);
    for (value, at) in [0x9000, 0x43, 0x202, 0x2_2000, u64::from(selector::CODE32)].into_iter().zip(0..) {
        kit.put(STACK + 8 * at, value);
    }
    kit.run(&[0x48, 0xcf]); // iretq with a code segment for SS
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), u64::from(selector::CODE32)));
    assert_eq!((kit.stack64(1), kit.stack64(2), kit.stack64(4)), (CODE, 0x38, STACK));
}

#[test]
fn iretq_refuses_a_non_canonical_address() {
    let mut kit = Kit::long("max", 0);
    for (value, at) in [1 << 60, 0x38, 0x202, STACK, 0x10].into_iter().zip(0..) {
        kit.put(STACK + 8 * at, value);
    }
    kit.run(&[0x48, 0xcf]);
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), 0));
}

#[test]
fn iretq_goes_to_compatibility_mode() {
    let mut kit = Kit::long("max", 0);
    for (value, at) in [0x9000, 0x1b, 0x3246, 0x2_2000, 0x23].into_iter().zip(0..) {
        kit.put(STACK + 8 * at, value);
    }
    kit.run(&[0x48, 0xcf]);
    assert_eq!((kit.cpu().mode, kit.cpu().cpl), (crate::cpu::Mode::Compatibility32, 3));
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[4], kit.cpu().rflags()), (0x9000, 0x2_2000, 0x3246));
}

#[test]
fn programs_change_neither_iopl_nor_if() {
    let mut kit = Kit::long("max", 3);
    kit.put(STACK, 0x3ed7);
    kit.run(&[0x9d]); // popfq
    assert_eq!(kit.cpu().rflags(), 0xcd7);
    let mut kit = Kit::long("max", 0);
    kit.put(STACK, 0x3ed7);
    kit.run(&[0x9d]);
    assert_eq!(kit.cpu().rflags(), 0x3ed7);
}

#[test]
fn a_descriptor_is_marked_accessed_in_memory() {
    let mut kit = Kit::long("max", 0);
    kit.cpu().gpr[0] = u64::from(selector::DATA32);
    kit.run(&[0x8e, 0xe0]); // mov fs, eax
    assert_eq!(kit.get_descriptor(selector::DATA32) >> 40 & 0xff, 0x93);
}

#[test]
fn a_code_segment_that_is_both_sizes_is_refused() {
    let mut kit = Kit::long("max", 0);
    kit.set_descriptor(selector::ABSENT, descriptor(0, 0, 0x9a, 0x6));
    kit.put(STACK, 0x9000);
    kit.put(STACK + 8, u64::from(selector::ABSENT));
    kit.run(&[0x48, 0xcb]); // retfq
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), u64::from(selector::ABSENT)));
}

#[test]
fn a_16_bit_stack_keeps_the_upper_half_of_esp() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().gpr[4] = 0x1234_8000;
    kit.cpu().gpr[0] = u64::from(selector::DATA16);
    kit.run(&[0x8e, 0xd0]).run(&[0x1e]); // mov ss, ax; push ds
    assert_eq!((kit.cpu().gpr[4], kit.get16(0x7ffc)), (0x1234_7ffc, selector::DATA32));
}

#[test]
fn a_32_bit_interrupt_gate_clears_if_and_a_trap_gate_does_not() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().flags |= rflags::IF;
    kit.run(&[0xcd, 0x30]); // int 0x30
    assert_eq!(kit.cpu().flags & rflags::IF, 0);
    let mut kit = Kit::protected("max", 0);
    kit.put(IDT + 8 * 0x30, gate(selector::CODE32, HANDLERS + 16 * 0x30, 0xef, 0));
    kit.cpu().flags |= rflags::IF;
    kit.run(&[0xcd, 0x30]);
    assert_eq!((kit.vector(), kit.cpu().flags & rflags::IF), (Some(0x30), rflags::IF));
}

#[test]
fn sysenter_and_sysexit_go_there_and_back() {
    let mut kit = Kit::protected("Nehalem", 3);
    kit.cpu().system.sysenter_cs = 8;
    kit.cpu().system.sysenter_eip = 0x9000;
    kit.cpu().system.sysenter_esp = 0x2_8000;
    kit.run(&[0x0f, 0x34]); // sysenter
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[4], kit.cpu().cpl), (0x9000, 0x2_8000, 0));
    kit.cpu().gpr[2] = 0x9100;
    kit.cpu().gpr[1] = 0x2_2000;
    kit.run(&[0x0f, 0x35]); // sysexit
    assert_eq!((kit.cpu().rip, kit.cpu().gpr[4], kit.cpu().cpl), (0x9100, 0x2_2000, 3));
    assert_eq!((kit.selector(segment::CS), kit.selector(segment::SS)), (0x1b, 0x23));
}

#[test]
fn syscall_from_compatibility_mode_follows_the_vendor() {
    for (model, vector) in [("Nehalem", Some(6)), ("EPYC", None)] {
        let mut kit = Kit::long(model, 3);
        kit.cpu().segments[segment::CS].loaded.attributes = 0xc0fb;
        kit.cpu().mode_changed();
        kit.cpu().system.star = 0x0030_0008_0000_0000;
        kit.cpu().system.cstar = 0x9400;
        kit.run(&[0x0f, 0x05]); // syscall
        assert_eq!(kit.vector(), vector, "{model}");
        if vector.is_none() {
            assert_eq!((kit.cpu().rip, kit.cpu().cpl), (0x9400, 0));
        }
    }
}

#[test]
fn int1_looks_at_no_level_and_leaves_dr6_alone() {
    let mut kit = Kit::protected("max", 3);
    kit.put(IDT + 8, gate(selector::CODE32, HANDLERS + 16, 0x8e, 0));
    kit.run(&[0xf1]); // int1
    assert_eq!((kit.vector(), kit.stack32(0), kit.cpu().dr[6]), (Some(1), CODE as u32 + 1, 0xffff_0ff0));
}

#[test]
fn pae_pointers_are_checked_when_paging_begins() {
    let mut kit = Kit::protected("max", 0);
    kit.cpu().cr4 = 0x20;
    kit.cpu().cr3 = PAGES + 0x3000;
    kit.put(PAGES + 0x3000, (PAGES + 0x2000) | 3); // a reserved bit in the first pointer
    kit.cpu().gpr[0] = 0x8000_0031;
    kit.run(&[0x0f, 0x22, 0xc0]); // mov cr0, eax
    assert_eq!((kit.faulted32(), kit.cpu().cr0), (Some((13, 0)), 0x31));
    kit.put(PAGES + 0x3000, (PAGES + 0x2000) | 1);
    kit.cpu().rip = CODE;
    kit.steps(1);
    assert_eq!((kit.cpu().rip, kit.cpu().cr0), (CODE + 3, 0x8000_0031));
}

#[test]
fn umip_hides_the_tables_from_programs() {
    let mut kit = Kit::long("max", 3);
    kit.cpu().cr4 |= 1 << 11;
    kit.run(&[0x0f, 0x01, 0x04, 0x24]); // sgdt [rsp]
    assert_eq!((kit.vector(), kit.stack64(0)), (Some(13), 0));
}

#[test]
fn tables_are_loaded_and_stored_whole() {
    let mut kit = Kit::long("max", 0);
    kit.put16(0x7000, 0x1ff);
    kit.put(0x7002, 0xffff_8000_1234_5678);
    kit.run(&[0x0f, 0x01, 0x14, 0x25, 0, 0x70, 0, 0]); // lgdt [0x7000]
    kit.run(&[0x0f, 0x01, 0x04, 0x25, 0x10, 0x70, 0, 0]); // sgdt [0x7010]
    assert_eq!((kit.get16(0x7010), kit.get(0x7012)), (0x1ff, 0xffff_8000_1234_5678));
}
