//! Real and virtual-8086 mode.

use super::super::super::bench::Bench;
use super::super::super::cpu::{Activity, rflags, segment};
use super::{CODE, HANDLERS, INNER_STACK, Kit, TSS, selector};

/// Real mode at 0000:1000 with the stack at 0000:8000.
fn real() -> Kit {
    let mut kit = Kit { bench: Bench::max() };
    kit.cpu().segments[segment::CS].loaded.base = 0;
    kit.cpu().segments[segment::CS].loaded.selector = 0;
    kit.cpu().mode_changed();
    kit.cpu().rip = 0x1000;
    kit.cpu().gpr[4] = 0x8000;
    kit
}

#[test]
fn an_interrupt_goes_through_the_vector_table_and_iret_comes_back() {
    let mut kit = real();
    kit.put32(0x21 * 4, 0x3000_0010);
    kit.cpu().flags |= rflags::IF;
    kit.run(&[0xcd, 0x21]); // int 0x21
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS)), (0x10, 0x3000));
    assert_eq!((kit.get16(0x7ffa), kit.get16(0x7ffc), kit.get16(0x7ffe)), (0x1002, 0, 0x202));
    assert_eq!(kit.cpu().flags & rflags::IF, 0);
    kit.run(&[0xcf]); // iret
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS), kit.cpu().gpr[4]), (0x1002, 0, 0x8000));
    assert_ne!(kit.cpu().flags & rflags::IF, 0);
}

#[test]
fn far_calls_and_returns_change_cs() {
    let mut kit = real();
    kit.run(&[0x9a, 0x34, 0x12, 0x00, 0x20]); // call 2000:1234
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS)), (0x1234, 0x2000));
    assert_eq!(kit.cpu().segments[segment::CS].base, 0x20000);
    kit.run(&[0xca, 4, 0]); // retf 4
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS), kit.cpu().gpr[4]), (0x1005, 0, 0x8004));
}

#[test]
fn a_limit_from_protected_mode_stays() {
    let mut kit = real();
    kit.cpu().segments[segment::DS].loaded.limit = u32::MAX;
    kit.run(&[0x8e, 0xd8]); // mov ds, ax
    assert_eq!(kit.cpu().segments[segment::DS].loaded.limit, u32::MAX);
}

#[test]
fn an_interrupt_without_a_table_shuts_the_processor_down() {
    let mut kit = real();
    kit.cpu().idtr.limit = 0;
    kit.run(&[0xcc]); // int3
    assert_eq!(kit.cpu().activity, Activity::Shutdown);
}

#[test]
fn the_switch_to_protected_mode() {
    let mut kit = real();
    kit.descriptors();
    kit.cpu().rip = 0x5000;
    kit.cpu().gdtr = crate::cpu::Table { base: super::GDT, limit: selector::END - 1 };
    kit.code(&[
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x40, // inc ax
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0x66, 0xea, 0x00, 0x00, 0x01, 0x00, 0x08, 0x00, // jmp 8:00010000
    ]);
    kit.steps(4);
    assert_eq!((kit.cpu().mode, kit.cpu().rip), (crate::cpu::Mode::Protected32, CODE));
    assert_eq!(kit.get_descriptor(selector::CODE32) >> 40 & 1, 1, "accessed");
}

#[test]
fn virtual_8086_mode_leaves_through_the_inner_stack_and_comes_back() {
    let mut kit = Kit::virtual_8086("max", rflags::IOPL | rflags::IF);
    kit.run(&[0xcd, 0x20]); // int 0x20
    assert_eq!((kit.vector(), kit.cpu().cpl, kit.cpu().flags & rflags::VM), (Some(0x20), 0, 0));
    assert_eq!(kit.cpu().gpr[4], INNER_STACK - 36);
    let frame: Vec<u32> = (0..9).map(|i| kit.stack32(i)).collect();
    assert_eq!(frame, [2, 0x1000, 0x23202, 0x8000, 0x2000, 0x2000, 0x2000, 0x2000, 0x2000]);
    assert_eq!(kit.selector(segment::DS), 0);
    kit.run(&[0xcf]); // iretd
    assert_eq!((kit.cpu().mode, kit.cpu().rip), (crate::cpu::Mode::Virtual8086, 2));
    assert_eq!((kit.selector(segment::GS), kit.cpu().gpr[4]), (0x2000, 0x8000));
}

#[test]
fn virtual_8086_programs_fault_where_iopl_is_below_3() {
    for code in [&[0xcd, 0x20][..], &[0xfa], &[0xfb], &[0x9c], &[0x9d], &[0xcf]] {
        let mut kit = Kit::virtual_8086("max", 0);
        kit.run(code);
        assert_eq!(kit.faulted32(), Some((13, 0)), "{code:x?}");
    }
    let mut kit = Kit::virtual_8086("max", 0);
    kit.run(&[0xcc]); // int3 does not look at IOPL
    assert_eq!(kit.vector(), Some(3));
}

#[test]
fn virtual_interrupts_of_vme() {
    let mut kit = Kit::virtual_8086("max", rflags::VIF);
    kit.cpu().cr4 |= 1;
    kit.put16(TSS + 0x66, 0x88);
    kit.cpu().tr.limit = 0x88 + 0x2000;
    kit.put32(0x21 * 4, 0x3000_0010);
    kit.run(&[0xcd, 0x21]); // int 0x21, redirected to the program
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS)), (0x10, 0x3000));
    assert_eq!(kit.get16(0x27ffe), 0x3202);
    assert_eq!(kit.cpu().flags & rflags::VIF, 0);
    kit.run(&[0xfb]); // sti
    assert_ne!(kit.cpu().flags & rflags::VIF, 0);
    kit.cpu().flags |= rflags::VIP;
    kit.run(&[0xfb]); // sti with an interrupt pending
    assert_eq!((kit.cpu().rip, kit.selector(segment::CS)), (HANDLERS + 16 * 13, selector::CODE32));
}

#[test]
fn start_up_begins_where_the_vector_says() {
    let mut kit = real();
    kit.cpu().init_reset();
    kit.cpu().start_up(0x9f);
    assert_eq!((kit.cpu().segments[segment::CS].base, kit.cpu().rip), (0x9_f000, 0));
    assert_eq!(kit.selector(segment::CS), 0x9f00);
}
