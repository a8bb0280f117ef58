//! Model-specific registers (Intel SDM volume 4; AMD APM volume 2, appendix A): the architectural ones, and what Linux,
//! Windows and the BSDs touch unasked on the models we have. Those not listed raise #GP, as KVM does it.

use crate::cpu::{APIC_BASE_BSP, APIC_BASE_ENABLE, Place};

use super::super::cpu::{Cpu, Exception, Flow, Step, gpr, segment};
use super::super::op::Op;
use super::registers::BANKS;

/// Numbers.
pub(super) mod number {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const UCODE_TRIGGER: u32 = 0x79;
    pub const UCODE_REVISION: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const FLUSH_CMD: u32 = 0x10b;
    pub const TSX_CTRL: u32 = 0x122;
    pub const MISC_FEATURES: u32 = 0x140;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const PERF_STATUS: u32 = 0x198;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const MTRR_VARIABLE: u32 = 0x200;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const MC_BANKS: u32 = 0x400;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const PKRS: u32 = 0x6e1;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const HWCR: u32 = 0xc001_0015;
    pub const VIRT_SPEC_CTRL: u32 = 0xc001_011f;
    pub const DE_CFG: u32 = 0xc001_1029;
}

/// IA32_MCG_CAP as the KVM accelerator sets it: ten banks, IA32_MCG_CTL present, software error recovery.
const MCG_CAP: u64 = BANKS as u64 | 1 << 8 | 1 << 24;
/// IA32_MTRRCAP: eight variable ranges, the fixed ones, write-combining.
const MTRR_CAP: u64 = 0x508;
/// The processor's microcode revision, as QEMU has it.
const UCODE_INTEL: u64 = 0x1_0000_0000;
const UCODE_AMD: u64 = 0x0100_0065;
/// MSR_PLATFORM_INFO: CPUID can be made to fault.
const CPUID_FAULTING: u64 = 1 << 31;
/// HWCR: IgnneEm, HLTXSPCYCEN, FFDIS, McStatusWrEn, TscFreqSel: those that guests write.
const HWCR_WRITABLE: u64 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 18 | 1 << 24;
/// DE_CFG: LFENCE serializes.
const DE_CFG_LFENCE: u64 = 1 << 1;

/// RDMSR.
pub(super) fn rdmsr(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_feature("msr")?;
    cpu.require_level_0()?;
    let Some(value) = cpu.read_msr(cpu.reg32(gpr::RCX as u8)) else {
        return Err(cpu.raise(Exception::gp(0)));
    };
    cpu.set_reg32(gpr::RAX as u8, value as u32);
    cpu.set_reg32(gpr::RDX as u8, (value >> 32) as u32);
    Ok(Flow::Next)
}

/// WRMSR.
pub(super) fn wrmsr(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_feature("msr")?;
    cpu.require_level_0()?;
    let value = u64::from(cpu.reg32(gpr::RDX as u8)) << 32 | u64::from(cpu.reg32(gpr::RAX as u8));
    cpu.count_time();
    let known = cpu.write_msr(cpu.reg32(gpr::RCX as u8), value);
    cpu.follow_timers();
    if !known {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(Flow::End)
}

/// The place in `Mtrrs::fixed` of a fixed-range register.
fn fixed_mtrr(msr: u32) -> Option<usize> {
    match msr {
        0x250 => Some(0),
        0x258 | 0x259 => Some((msr - 0x258) as usize + 1),
        0x268..=0x26f => Some((msr - 0x268) as usize + 3),
        _ => None,
    }
}

/// Whether each byte is a memory type that a fixed-range register takes.
fn are_mtrr_types(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4 | 5 | 6))
}

/// Whether each byte is a memory type that the PAT takes.
fn are_pat_types(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4 | 5 | 6 | 7))
}

impl Cpu {
    /// IA32_APIC_BASE.
    pub(super) fn apic_base(&self) -> u64 {
        match &self.apic {
            Some(apic) => apic.base(),
            None => self.system.apic_base,
        }
    }

    fn write_apic_base(&mut self, value: u64) -> bool {
        if let Some(good) = self.apic.as_ref().map(|apic| apic.set_base(value)) {
            // Its registers may now be at another page.
            self.mmu.flush_all();
            return good;
        }
        let reserved = !((1 << self.model.phys_bits()) - 1) | 0x2ff | 1 << 10;
        let good = value & reserved & !APIC_BASE_BSP == 0 && self.model.has("apic");
        if good {
            self.system.apic_base = value & (!0xfff | APIC_BASE_ENABLE | APIC_BASE_BSP);
        }
        good
    }

    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.model.has(name))
    }

    fn arch_capabilities(&self) -> u64 {
        u64::from(self.model.features().bits(Place::Msr(number::ARCH_CAPABILITIES)))
    }

    /// Reads a register; `None`: #GP.
    pub(super) fn read_msr(&mut self, msr: u32) -> Option<u64> {
        self.count_time();
        let system = &self.system;
        let value = match msr {
            number::TSC => self.tsc(),
            number::APIC_BASE => self.apic_base(),
            number::TSC_ADJUST if self.model.has("tsc-adjust") => system.tsc_adjust,
            number::EFER => self.efer,
            number::STAR => system.star,
            number::LSTAR if self.model.has("lm") => system.lstar,
            number::CSTAR if self.model.has("lm") => system.cstar,
            number::FMASK if self.model.has("lm") => system.fmask,
            number::FS_BASE if self.model.has("lm") => self.segments[segment::FS].loaded.base,
            number::GS_BASE if self.model.has("lm") => self.segments[segment::GS].loaded.base,
            number::KERNEL_GS_BASE if self.model.has("lm") => system.kernel_gs_base,
            number::TSC_AUX if self.has_any(&["rdtscp", "rdpid"]) => system.tsc_aux,
            number::SYSENTER_CS if self.model.has("sep") => system.sysenter_cs,
            number::SYSENTER_ESP if self.model.has("sep") => system.sysenter_esp,
            number::SYSENTER_EIP if self.model.has("sep") => system.sysenter_eip,
            number::PAT if self.model.has("pat") => system.pat,
            number::TSC_DEADLINE if !self.model.has("tsc-deadline") => return None,
            number::TSC_DEADLINE | 0x800..=0x8ff => return self.apic.as_ref()?.read_msr(msr),
            number::MISC_ENABLE => system.misc_enable,
            number::PLATFORM_INFO => CPUID_FAULTING,
            number::MISC_FEATURES => system.misc_features,
            number::UCODE_REVISION if self.is_amd() => UCODE_AMD,
            number::UCODE_REVISION => UCODE_INTEL,
            number::XSS if self.model.has("xsaves") => 0,
            number::PKRS if self.model.has("pks") => u64::from(self.mmu.pkrs()),
            number::DEBUGCTL => 0,
            _ => {
                return self
                    .read_memory_types(msr)
                    .or_else(|| self.read_machine_check(msr))
                    .or_else(|| self.read_mitigations(msr))
                    .or_else(|| self.read_paravirtual(msr))
                    .or_else(|| self.read_vendor(msr));
            }
        };
        Some(value)
    }

    /// Writes a register; `false`: #GP.
    pub(super) fn write_msr(&mut self, msr: u32, value: u64) -> bool {
        let canonical = self.is_canonical(value);
        let long = self.model.has("lm");
        match msr {
            number::TSC => {
                let delta = value.wrapping_sub(self.tsc());
                self.shift_tsc(delta);
            }
            number::TSC_ADJUST if self.model.has("tsc-adjust") => {
                let delta = value.wrapping_sub(self.system.tsc_adjust);
                self.shift_tsc(delta);
            }
            number::APIC_BASE => return self.write_apic_base(value),
            number::EFER => return self.write_efer(value),
            number::STAR => self.system.star = value,
            number::LSTAR if long && canonical => self.system.lstar = value,
            number::CSTAR if long && canonical => self.system.cstar = value,
            number::FMASK if long => self.system.fmask = value & 0xffff_ffff,
            number::FS_BASE if long && canonical => self.set_base(segment::FS, value),
            number::GS_BASE if long && canonical => self.set_base(segment::GS, value),
            number::KERNEL_GS_BASE if long && canonical => self.system.kernel_gs_base = value,
            number::TSC_AUX if self.has_any(&["rdtscp", "rdpid"]) && value >> 32 == 0 => self.system.tsc_aux = value,
            number::SYSENTER_CS if self.model.has("sep") => self.system.sysenter_cs = value & 0xffff_ffff,
            number::SYSENTER_ESP if self.model.has("sep") && canonical => self.system.sysenter_esp = value,
            number::SYSENTER_EIP if self.model.has("sep") && canonical => self.system.sysenter_eip = value,
            number::PAT if self.model.has("pat") && are_pat_types(value) => self.system.pat = value,
            number::TSC_DEADLINE if !self.model.has("tsc-deadline") => return false,
            number::TSC_DEADLINE | 0x800..=0x8ff => return self.apic.as_ref().is_some_and(|a| a.write_msr(msr, value)),
            number::MISC_ENABLE => self.system.misc_enable = value,
            number::MISC_FEATURES if value & !1 == 0 => self.system.misc_features = value,
            // An update for another processor: it does not apply.
            number::UCODE_TRIGGER | number::UCODE_REVISION => {}
            number::XSS => return self.model.has("xsaves") && value == 0,
            number::PKRS if self.model.has("pks") && value >> 32 == 0 => self.mmu.set_pkrs(value as u32),
            number::DEBUGCTL => return value == 0,
            _ => {
                return self.write_memory_types(msr, value)
                    || self.write_machine_check(msr, value)
                    || self.write_mitigations(msr, value)
                    || self.write_paravirtual(msr, value)
                    || self.write_vendor(msr, value);
            }
        }
        true
    }

    fn set_base(&mut self, number: usize, value: u64) {
        self.segments[number].loaded.base = value;
        self.segment_changed(number);
    }

    fn read_memory_types(&self, msr: u32) -> Option<u64> {
        let mtrrs = &self.system.mtrrs;
        if !self.model.has("mtrr") {
            return None;
        }
        match msr {
            number::MTRR_CAP => Some(MTRR_CAP),
            number::MTRR_DEF_TYPE => Some(mtrrs.default_type),
            number::MTRR_VARIABLE..=0x20f => Some(mtrrs.variable[(msr & 15) as usize]),
            _ => fixed_mtrr(msr).map(|at| mtrrs.fixed[at]),
        }
    }

    fn write_memory_types(&mut self, msr: u32, value: u64) -> bool {
        let beyond = value >> self.model.phys_bits() != 0;
        let known = self.model.has("mtrr");
        let mtrrs = &mut self.system.mtrrs;
        match msr {
            _ if !known => return false,
            number::MTRR_DEF_TYPE if value & !0xcff == 0 && are_mtrr_types(value & 0xff) => mtrrs.default_type = value,
            number::MTRR_VARIABLE..=0x20f if !beyond => {
                let is_base = msr & 1 == 0;
                if is_base && (value & 0xf00 != 0 || !are_mtrr_types(value & 0xff)) || !is_base && value & 0x7ff != 0 {
                    return false;
                }
                mtrrs.variable[(msr & 15) as usize] = value;
            }
            _ => match fixed_mtrr(msr) {
                Some(at) if are_mtrr_types(value) => mtrrs.fixed[at] = value,
                _ => return false,
            },
        }
        true
    }

    fn read_machine_check(&self, msr: u32) -> Option<u64> {
        let check = &self.system.machine_check;
        match msr {
            // P5_MC_ADDR and P5_MC_TYPE.
            0 | 1 => Some(0),
            number::MCG_CAP if self.model.has_machine_check() => Some(MCG_CAP),
            number::MCG_CAP => Some(0),
            number::MCG_STATUS => Some(check.status),
            number::MCG_CTL if self.model.has_machine_check() => Some(check.control),
            number::MC_BANKS.. if self.model.has_machine_check() => {
                let at = (msr - number::MC_BANKS) as usize;
                check.banks.get(at / 4).map(|bank| bank[at % 4])
            }
            _ => None,
        }
    }

    fn write_machine_check(&mut self, msr: u32, value: u64) -> bool {
        let known = self.model.has_machine_check();
        // HWCR.McStatusWrEn lets AMD's guests write what they like.
        let any = self.is_amd() && self.system.hwcr & 1 << 18 != 0;
        let check = &mut self.system.machine_check;
        match msr {
            0 | 1 => true,
            number::MCG_STATUS if value & !7 == 0 => {
                check.status = value;
                true
            }
            number::MCG_CTL if known => {
                check.control = value;
                true
            }
            number::MC_BANKS.. if known => {
                let at = (msr - number::MC_BANKS) as usize;
                let Some(bank) = check.banks.get_mut(at / 4) else { return false };
                // STATUS, ADDR and MISC are only cleared.
                let good = at.is_multiple_of(4) || value == 0 || any;
                if good {
                    bank[at % 4] = value;
                }
                good
            }
            _ => false,
        }
    }

    /// The bits of IA32_SPEC_CTRL that the model has.
    fn spec_ctrl_known(&self) -> u64 {
        let bit = |names: &[&str], bit: u64| if self.has_any(names) { bit } else { 0 };
        bit(&["spec-ctrl", "ibrs"], 1)
            | bit(&["stibp", "amd-stibp"], 2)
            | bit(&["ssbd", "amd-ssbd"], 4)
            | bit(&["ipred-ctrl"], 3 << 3)
            | bit(&["rrsba-ctrl"], 3 << 5)
            | bit(&["intel-psfd", "amd-psfd"], 1 << 7)
            | bit(&["ddpd-u"], 1 << 8)
            | bit(&["bhi-ctrl"], 1 << 10)
    }

    fn read_mitigations(&self, msr: u32) -> Option<u64> {
        let system = &self.system;
        match msr {
            number::SPEC_CTRL if self.spec_ctrl_known() != 0 => Some(system.spec_ctrl),
            number::ARCH_CAPABILITIES if self.model.has("arch-capabilities") => Some(self.arch_capabilities()),
            number::TSX_CTRL if self.model.has("tsx-ctrl") => Some(system.tsx_ctrl),
            number::VIRT_SPEC_CTRL if self.model.has("virt-ssbd") => Some(system.virt_spec_ctrl),
            _ => None,
        }
    }

    fn write_mitigations(&mut self, msr: u32, value: u64) -> bool {
        let predictors = self.has_any(&["spec-ctrl", "ibpb"]);
        match msr {
            number::SPEC_CTRL if self.spec_ctrl_known() != 0 && value & !self.spec_ctrl_known() == 0 => {
                self.system.spec_ctrl = value;
            }
            // Predictors and caches that nothing here has.
            number::PRED_CMD if value & !1 == 0 => return predictors,
            number::PRED_CMD if value & !0x81 == 0 => return predictors && self.model.has("sbpb"),
            number::FLUSH_CMD if value & !1 == 0 => return self.model.has("flush-l1d"),
            number::TSX_CTRL if self.model.has("tsx-ctrl") && value & !3 == 0 => self.system.tsx_ctrl = value,
            number::VIRT_SPEC_CTRL if self.model.has("virt-ssbd") && value & !4 == 0 => {
                self.system.virt_spec_ctrl = value;
            }
            _ => return false,
        }
        true
    }

    /// Registers of one vendor's processors, with the answers that KVM gives.
    fn read_vendor(&self, msr: u32) -> Option<u64> {
        if self.is_amd() {
            return match msr {
                number::HWCR => Some(self.system.hwcr),
                number::DE_CFG => Some(self.system.de_cfg),
                _ => amd_constant(msr),
            };
        }
        match msr {
            number::FEATURE_CONTROL => Some(self.system.feature_control),
            number::PERF_STATUS => Some(1000 | 4 << 40),
            _ => intel_constant(msr),
        }
    }

    fn write_vendor(&mut self, msr: u32, value: u64) -> bool {
        if self.is_amd() {
            match msr {
                number::HWCR if value & !HWCR_WRITABLE == 0 => self.system.hwcr = value,
                number::DE_CFG if value & !DE_CFG_LFENCE == 0 => self.system.de_cfg = value,
                _ => return amd_constant(msr).is_some(),
            }
            return true;
        }
        match msr {
            number::FEATURE_CONTROL if self.system.feature_control & 1 == 0 && value & !1 == 0 => {
                self.system.feature_control = value;
                true
            }
            number::FEATURE_CONTROL => false,
            _ => intel_constant(msr).is_some(),
        }
    }
}

/// Registers of AMD's processors that hold still here: writes are ignored.
fn amd_constant(msr: u32) -> Option<u64> {
    match msr {
        // Performance counters and their controls: there is no unit behind them.
        0xc001_0000..=0xc001_0007 => Some(0),
        // SYSCFG, TOP_MEM, TOP_MEM2, NB_CFG, interrupt pending message, MMIO configuration base, TSEG.
        0xc001_0010 | 0xc001_001a | 0xc001_001d | 0xc001_001f | 0xc001_0055 | 0xc001_0058 => Some(0),
        0xc001_0112 | 0xc001_0113 => Some(0),
        // LS_CFG, IC_CFG, DC_CFG, BU_CFG, BU_CFG2.
        0xc001_1020..=0xc001_1023 | 0xc001_102a => Some(0),
        _ => None,
    }
}

/// Registers of Intel's processors that hold still here: writes are ignored.
fn intel_constant(msr: u32) -> Option<u64> {
    match msr {
        // IA32_PLATFORM_ID, EBL_CR_POWERON.
        0x17 | 0x2a => Some(0),
        // EBC_FREQUENCY_ID: a 100 MHz bus. FSB_FREQ: likewise.
        0x2c => Some(1 << 24),
        0xcd => Some(3),
        // BBL_CR_CTL3: a level 2 cache that is there and on.
        0x11e => Some(0xbe70_2111),
        // Performance counters and their controls: there is no unit behind them.
        0xc1 | 0xc2 | 0x186 | 0x187 => Some(0),
        // IA32_PERF_CTL, last branches.
        0x199 | 0x1db..=0x1de => Some(0),
        _ => None,
    }
}
