//! All registers between a processor and [`CpuState`].

use crate::cpu::{CpuEvents, CpuState, MpState};

use super::super::cpu::{Activity, Cpu, Exception};
use super::super::signals::Signals;
use super::msr::number;
use super::registers::BANKS;

/// The MSRs that a state holds, where the model has them, in ascending order. EFER and the bases of FS and GS are among
/// the other registers; those of the local APIC are its own.
fn saved_msrs() -> impl Iterator<Item = u32> {
    let low = [
        number::TSC,
        number::FEATURE_CONTROL,
        number::TSC_ADJUST,
        number::SPEC_CTRL,
        number::TSX_CTRL,
        number::MISC_FEATURES,
        number::SYSENTER_CS,
        number::SYSENTER_ESP,
        number::SYSENTER_EIP,
        number::MCG_STATUS,
        number::MCG_CTL,
        number::MISC_ENABLE,
    ];
    let mtrrs = (number::MTRR_VARIABLE..0x210).chain([0x250, 0x258, 0x259]).chain(0x268..=0x26f);
    let middle = [number::PAT, number::MTRR_DEF_TYPE];
    let banks = number::MC_BANKS..number::MC_BANKS + 4 * BANKS as u32;
    let high = [
        number::TSC_DEADLINE,
        number::PKRS,
        number::XSS,
        number::STAR,
        number::LSTAR,
        number::CSTAR,
        number::FMASK,
        number::KERNEL_GS_BASE,
        number::TSC_AUX,
        number::HWCR,
        number::VIRT_SPEC_CTRL,
        number::DE_CFG,
    ];
    low.into_iter().chain(mtrrs).chain(middle).chain(banks).chain(high)
}

impl Cpu {
    /// All registers, between two instructions.
    pub fn save_state(&mut self) -> CpuState {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.gpr[..16]);
        let msrs = saved_msrs().filter_map(|msr| Some((msr, self.read_msr(msr)?))).collect();
        CpuState {
            gpr,
            rip: self.rip,
            rflags: self.rflags(),
            segments: std::array::from_fn(|number| self.segments[number].loaded),
            ldtr: self.ldtr,
            tr: self.tr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            cr8: self.cr8(),
            xcr0: self.vector.xcr0(),
            efer: self.efer,
            dr: self.dr,
            apic_base: self.apic_base(),
            xsave: self.save_xsave(),
            msrs,
            mp_state: match self.activity {
                Activity::Running | Activity::Shutdown => MpState::Runnable,
                Activity::Halted => MpState::Halted,
                Activity::WaitForStartUp => MpState::InitReceived,
            },
            lapic: self.apic.as_ref().map(|apic| apic.registers()).unwrap_or_default(),
            events: self.save_events(),
        }
    }

    fn save_events(&self) -> CpuEvents {
        let pending = self.signals.pending();
        CpuEvents {
            interrupt_shadow: self.shadow,
            nmi_pending: pending & Signals::NMI != 0,
            nmi_masked: self.system.nmi_blocked,
            sipi_vector: self.signals.sipi_vector(),
            smm: self.system.smm,
            smi_pending: pending & Signals::SMI != 0,
            smm_inside_nmi: self.system.smm_in_nmi,
            latched_init: self.system.smm && pending & Signals::INIT != 0,
            // Delivery is one step here: nothing is under way between two instructions.
            exception_injected: false,
            exception_pending: false,
            exception_vector: 0,
            exception_error: None,
            exception_payload: None,
            interrupt: None,
            interrupt_is_software: false,
            nmi_injected: false,
        }
    }

    /// Takes all registers. Those of the local APIC are its own, except CR8 and IA32_APIC_BASE.
    pub fn load_state(&mut self, state: &CpuState) {
        self.load_registers(state);
        self.debug_registers_changed();
        for (msr, value) in &state.msrs {
            self.load_msr(*msr, *value);
        }
        self.system.apic_base = state.apic_base;
        if let Some(apic) = &self.apic {
            apic.set_base(state.apic_base);
            apic.set_task_priority((state.cr8 & 15) as u8);
        }
        self.vector.load_xcr0(state.xcr0);
        self.load_xsave(&state.xsave);
        self.activity = match state.mp_state {
            MpState::Runnable => Activity::Running,
            MpState::Halted => Activity::Halted,
            MpState::Uninitialized | MpState::InitReceived => Activity::WaitForStartUp,
        };
        self.load_events(&state.events);
    }

    /// A register of a saved state: what instructions may not write is taken, and each for itself.
    fn load_msr(&mut self, msr: u32, value: u64) {
        match msr {
            number::TSC => {
                let offset = value.wrapping_sub(self.clock.now_ns());
                self.set_tsc_offset(offset);
            }
            number::TSC_ADJUST => self.system.tsc_adjust = value,
            number::FEATURE_CONTROL => self.system.feature_control = value,
            number::MC_BANKS.. if msr < number::MC_BANKS + 4 * BANKS as u32 => {
                let at = (msr - number::MC_BANKS) as usize;
                self.system.machine_check.banks[at / 4][at % 4] = value;
            }
            number::EFER | number::FS_BASE | number::GS_BASE => {}
            _ => {
                if !self.write_msr(msr, value) {
                    log::debug!("MSR {msr:#x} does not take the value {value:#x} of a saved state");
                }
            }
        }
    }

    /// Takes what is held back or waits; what was under way elsewhere is delivered now.
    fn load_events(&mut self, events: &CpuEvents) {
        self.system.nmi_blocked = events.nmi_masked;
        self.system.smm = events.smm;
        self.system.smm_in_nmi = events.smm_inside_nmi;
        (self.system.debug_hits, self.system.step_after) = (0, None);
        for (pending, bit) in [
            (events.nmi_pending, Signals::NMI),
            (events.smi_pending, Signals::SMI),
            (events.latched_init, Signals::INIT),
        ] {
            if pending { self.signals.raise(bit) } else { _ = self.signals.take(bit) }
        }
        if events.exception_injected || events.exception_pending {
            self.exception = Exception {
                vector: events.exception_vector,
                error: events.exception_error,
                payload: events.exception_payload.unwrap_or(if events.exception_vector == 14 { self.cr2 } else { 0 }),
            };
            self.deliver_exception();
        } else if events.nmi_injected {
            self.deliver_nmi();
        } else if let Some(vector) = events.interrupt {
            self.deliver_interrupt(vector);
        }
    }
}
