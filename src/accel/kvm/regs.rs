//! Between KVM's register structures and [`CpuState`].

use std::ffi::c_char;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_PAYLOAD,
    KVM_VCPUEVENT_VALID_SHADOW, KVM_VCPUEVENT_VALID_SIPI_VECTOR, KVM_VCPUEVENT_VALID_SMM, kvm_debugregs, kvm_dtable,
    kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
};

use crate::cpu::{CpuEvents, CpuState, MpState, Segment, Table};

const ATTR_S: u32 = 1 << 4;
const ATTR_P: u32 = 1 << 7;
const ATTR_AVL: u32 = 1 << 12;
const ATTR_L: u32 = 1 << 13;
const ATTR_DB: u32 = 1 << 14;
const ATTR_G: u32 = 1 << 15;
const ATTR_UNUSABLE: u32 = 1 << 16;

fn from_segment(segment: &kvm_segment) -> Segment {
    let bit = |flag: u8, bit: u32| if flag != 0 { bit } else { 0 };
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: u32::from(segment.type_ & 15)
            | bit(segment.s, ATTR_S)
            | u32::from(segment.dpl & 3) << 5
            | bit(segment.present, ATTR_P)
            | bit(segment.avl, ATTR_AVL)
            | bit(segment.l, ATTR_L)
            | bit(segment.db, ATTR_DB)
            | bit(segment.g, ATTR_G)
            | bit(segment.unusable, ATTR_UNUSABLE),
    }
}

fn to_segment(segment: &Segment) -> kvm_segment {
    let bit = |bit: u32| u8::from(segment.attributes & bit != 0);
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: (segment.attributes & 15) as u8,
        present: bit(ATTR_P),
        dpl: (segment.attributes >> 5 & 3) as u8,
        db: bit(ATTR_DB),
        s: bit(ATTR_S),
        l: bit(ATTR_L),
        g: bit(ATTR_G),
        avl: bit(ATTR_AVL),
        unusable: bit(ATTR_UNUSABLE),
        padding: 0,
    }
}

fn from_table(table: &kvm_dtable) -> Table {
    Table { base: table.base, limit: table.limit }
}

fn to_table(table: &Table) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, padding: [0; 3] }
}

/// Takes the general registers over.
pub(super) fn get_regs(state: &mut CpuState, r: &kvm_regs) {
    state.gpr =
        [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
    state.rip = r.rip;
    state.rflags = r.rflags;
}

/// The general registers for KVM.
pub(super) fn put_regs(state: &CpuState) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = state.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: state.rip,
        rflags: state.rflags,
    }
}

/// Takes segments and control registers over, and an interrupt that is being delivered.
pub(super) fn get_sregs(state: &mut CpuState, s: &kvm_sregs) {
    state.segments = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs].map(from_segment);
    state.ldtr = from_segment(&s.ldt);
    state.tr = from_segment(&s.tr);
    state.gdtr = from_table(&s.gdt);
    state.idtr = from_table(&s.idt);
    state.cr0 = s.cr0;
    state.cr2 = s.cr2;
    state.cr3 = s.cr3;
    state.cr4 = s.cr4;
    state.cr8 = s.cr8;
    state.efer = s.efer;
    state.apic_base = s.apic_base;
}

/// Segments and control registers for KVM.
pub(super) fn put_sregs(state: &CpuState) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs] = state.segments.each_ref().map(to_segment);
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr: to_segment(&state.tr),
        ldt: to_segment(&state.ldtr),
        gdt: to_table(&state.gdtr),
        idt: to_table(&state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: state.cr8,
        efer: state.efer,
        apic_base: state.apic_base,
        // Pending interrupts go through KVM_SET_VCPU_EVENTS.
        interrupt_bitmap: [0; 4],
    }
}

/// Takes the debug registers over.
pub(super) fn get_debugregs(state: &mut CpuState, d: &kvm_debugregs) {
    state.dr[..4].copy_from_slice(&d.db);
    state.dr[6] = d.dr6;
    state.dr[7] = d.dr7;
}

/// The debug registers for KVM.
pub(super) fn put_debugregs(state: &CpuState) -> kvm_debugregs {
    let [dr0, dr1, dr2, dr3, _, _, dr6, dr7] = state.dr;
    kvm_debugregs { db: [dr0, dr1, dr2, dr3], dr6, dr7, ..Default::default() }
}

/// Takes XCR0 over.
pub(super) fn get_xcrs(state: &mut CpuState, xcrs: &kvm_xcrs) {
    let count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0).min(xcrs.xcrs.len());
    if let Some(xcr) = xcrs.xcrs[..count].iter().find(|xcr| xcr.xcr == 0) {
        state.xcr0 = xcr.value;
    }
}

/// XCR0 for KVM.
pub(super) fn put_xcrs(state: &CpuState) -> kvm_xcrs {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = kvm_xcr { xcr: 0, value: state.xcr0, ..Default::default() };
    xcrs
}

/// Takes what is being or waits to be delivered over.
pub(super) fn get_events(state: &mut CpuState, e: &kvm_vcpu_events) {
    let smm = e.flags & KVM_VCPUEVENT_VALID_SMM != 0;
    state.events = CpuEvents {
        exception_injected: e.exception.injected != 0,
        exception_pending: e.exception.pending != 0,
        exception_vector: e.exception.nr,
        exception_error: (e.exception.has_error_code != 0).then_some(e.exception.error_code),
        exception_payload: (e.exception_has_payload != 0).then_some(e.exception_payload),
        interrupt: (e.interrupt.injected != 0).then_some(e.interrupt.nr),
        interrupt_is_software: e.interrupt.soft != 0,
        interrupt_shadow: e.interrupt.shadow,
        nmi_injected: e.nmi.injected != 0,
        nmi_pending: e.nmi.pending != 0,
        nmi_masked: e.nmi.masked != 0,
        sipi_vector: (e.sipi_vector & 0xff) as u8,
        smm: smm && e.smi.smm != 0,
        smi_pending: smm && e.smi.pending != 0,
        smm_inside_nmi: smm && e.smi.smm_inside_nmi != 0,
        latched_init: smm && e.smi.latched_init != 0,
    };
}

/// What is being or waits to be delivered, for KVM. `payload` and `smm`: whether the host knows these.
pub(super) fn put_events(state: &CpuState, payload: bool, smm: bool) -> kvm_vcpu_events {
    let events = &state.events;
    let mut e = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW,
        sipi_vector: u32::from(events.sipi_vector),
        ..Default::default()
    };
    e.exception.injected = u8::from(events.exception_injected);
    e.exception.nr = events.exception_vector;
    e.exception.has_error_code = u8::from(events.exception_error.is_some());
    e.exception.error_code = events.exception_error.unwrap_or(0);
    if payload {
        e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
        e.exception.pending = u8::from(events.exception_pending);
        e.exception_has_payload = u8::from(events.exception_payload.is_some());
        e.exception_payload = events.exception_payload.unwrap_or(0);
    } else {
        e.exception.injected |= u8::from(events.exception_pending);
    }
    e.interrupt.injected = u8::from(events.interrupt.is_some());
    e.interrupt.nr = events.interrupt.unwrap_or(0);
    e.interrupt.soft = u8::from(events.interrupt_is_software);
    e.interrupt.shadow = events.interrupt_shadow;
    e.nmi.injected = u8::from(events.nmi_injected);
    e.nmi.pending = u8::from(events.nmi_pending);
    e.nmi.masked = u8::from(events.nmi_masked);
    if smm {
        e.flags |= KVM_VCPUEVENT_VALID_SMM;
        e.smi.smm = u8::from(events.smm);
        e.smi.pending = u8::from(events.smi_pending);
        e.smi.smm_inside_nmi = u8::from(events.smm_inside_nmi);
        e.smi.latched_init = u8::from(events.latched_init);
    }
    e
}

/// The run state.
pub(super) fn get_mp_state(mp: kvm_mp_state) -> MpState {
    match mp.mp_state {
        KVM_MP_STATE_HALTED => MpState::Halted,
        KVM_MP_STATE_UNINITIALIZED => MpState::Uninitialized,
        KVM_MP_STATE_INIT_RECEIVED | KVM_MP_STATE_SIPI_RECEIVED => MpState::InitReceived,
        _ => MpState::Runnable,
    }
}

/// The run state for KVM.
pub(super) fn put_mp_state(mp: MpState) -> kvm_mp_state {
    let mp_state = match mp {
        MpState::Runnable => KVM_MP_STATE_RUNNABLE,
        MpState::Halted => KVM_MP_STATE_HALTED,
        MpState::Uninitialized => KVM_MP_STATE_UNINITIALIZED,
        MpState::InitReceived => KVM_MP_STATE_INIT_RECEIVED,
    };
    kvm_mp_state { mp_state }
}

/// The local APIC's register page.
pub(super) fn get_lapic(lapic: &kvm_lapic_state) -> Vec<u8> {
    lapic.regs.iter().map(|byte| byte.cast_unsigned()).collect()
}

/// The local APIC's register page for KVM. What is missing is zero.
pub(super) fn put_lapic(bytes: &[u8]) -> kvm_lapic_state {
    let mut lapic = kvm_lapic_state::default();
    for (to, from) in lapic.regs.iter_mut().zip(bytes) {
        *to = from.cast_signed() as c_char;
    }
    lapic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_survive_the_way_there_and_back() {
        let segment = Segment { selector: 8, base: 0x1234, limit: 0xffff_ffff, attributes: 0xa09b };
        assert_eq!(from_segment(&to_segment(&segment)), segment);
        let unusable = Segment { attributes: ATTR_UNUSABLE, ..Segment::default() };
        assert_eq!(from_segment(&to_segment(&unusable)), unusable);
    }

    #[test]
    fn general_registers_keep_their_places() {
        let state = CpuState { gpr: std::array::from_fn(|i| i as u64), rip: 0xfff0, rflags: 2, ..CpuState::default() };
        let regs = put_regs(&state);
        assert_eq!((regs.rcx, regs.rbx, regs.rsp, regs.r15), (1, 3, 4, 15));
        let mut back = CpuState::default();
        get_regs(&mut back, &regs);
        assert_eq!(back, state);
    }

    #[test]
    fn events_survive_the_way_there_and_back() {
        let events = CpuEvents {
            exception_pending: true,
            exception_vector: 14,
            exception_error: Some(2),
            exception_payload: Some(0xdead_beef),
            interrupt: Some(0x30),
            nmi_masked: true,
            sipi_vector: 0x9f,
            smi_pending: true,
            ..CpuEvents::default()
        };
        let state = CpuState { events, ..CpuState::default() };
        let mut back = CpuState::default();
        get_events(&mut back, &put_events(&state, true, true));
        assert_eq!(back, state);
    }

    #[test]
    fn a_short_lapic_page_is_filled_with_zeros() {
        let lapic = get_lapic(&put_lapic(&[1, 0x80]));
        assert_eq!((lapic.len(), &lapic[..3]), (1024, [1, 0x80, 0].as_slice()));
    }
}
