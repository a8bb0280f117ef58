//! RESET, INIT and start-up interrupts (Intel SDM volume 3, 9.4.4 and 10.1; table 10-1).

use crate::cpu::{APIC_BASE_BSP, APIC_BASE_ENABLE, CpuState, Segment};

use super::super::cpu::{Activity, Cpu, segment};
use super::paravirtual::ParavirtualRegisters;
use super::registers::SystemRegisters;

/// CR0.CD and CR0.NW, which INIT leaves alone.
const CACHE_BITS: u64 = 3 << 29;
/// The local APIC's page.
const APIC_PAGE: u64 = 0xfee0_0000;

impl Cpu {
    /// This module's part of RESET.
    pub fn reset_system(&mut self) {
        let table = self.system.cpuid.take();
        self.system = SystemRegisters::power_on();
        self.system.cpuid = table;
        let bootstrap = if self.index == 0 { APIC_BASE_BSP } else { 0 };
        self.system.apic_base = APIC_PAGE | APIC_BASE_ENABLE | bootstrap;
        self.set_tsc_offset(self.system.tsc_offset);
        self.mmu.flush_all();
    }

    /// INIT: the registers of RESET, except the caches' bits, the vector registers, the time-stamp counter and the MSRs
    /// other than EFER and the paravirtual ones. The bootstrap processor begins at the reset vector, others wait for a start-up interrupt.
    pub fn init_reset(&mut self) {
        let mut state = CpuState::power_on(self.model.signature());
        state.cr0 = state.cr0 & !CACHE_BITS | self.cr0 & CACHE_BITS;
        self.load_registers(&state);
        let system = &mut self.system;
        (system.nmi_blocked, system.debug_hits, system.step_after) = (false, 0, None);
        // KVM does so; guests that bring a processor back write them again.
        system.paravirtual = ParavirtualRegisters::RESET;
        self.mmu.flush_all();
        if let Some(apic) = &self.apic {
            apic.init();
        }
        let bootstrap = self.apic_base() & APIC_BASE_BSP != 0;
        self.activity = if bootstrap { Activity::Running } else { Activity::WaitForStartUp };
    }

    /// A start-up interrupt: execution begins at physical address `vector << 12`.
    pub fn start_up(&mut self, vector: u8) {
        let old = self.segments[segment::CS].loaded;
        let code = Segment { selector: u16::from(vector) << 8, base: u64::from(vector) << 12, ..old };
        self.set_segment(segment::CS, code);
        self.rip = 0;
        self.activity = Activity::Running;
    }
}
