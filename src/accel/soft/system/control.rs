//! Control registers (Intel SDM volume 3, 2.5 and 4.1; AMD APM volume 2, chapter 14 for the ways into and out of long
//! mode).

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, attributes, segment};
use super::super::mmu::InvPcid;
use super::super::op::Op;
use super::descriptor::kind;
use super::instruction;

/// Bits of CR0.
pub(super) mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1 << 0;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Always 1.
    pub const ET: u64 = 1 << 4;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
    /// All that exist: PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG.
    pub const KNOWN: u64 = 0xe005_003f;
}

/// Bits of CR4.
pub(super) mod cr4 {
    /// Time-stamp disable.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// Page size extensions.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Page global enable.
    pub const PGE: u64 = 1 << 7;
    /// User-mode instruction prevention.
    pub const UMIP: u64 = 1 << 11;
    /// 57-bit linear addresses.
    pub const LA57: u64 = 1 << 12;
    /// RDFSBASE and its like.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
    /// Protection keys for user pages.
    pub const PKE: u64 = 1 << 22;
    /// Protection keys for supervisor pages.
    pub const PKS: u64 = 1 << 24;
    /// The bits that need a feature.
    pub const FEATURES: [(u64, &str); 19] = [
        (1 << 0, "vme"),
        (1 << 1, "vme"),
        (TSD, "tsc"),
        (DE, "de"),
        (PSE, "pse"),
        (PAE, "pae"),
        (1 << 6, "mce"),
        (PGE, "pge"),
        (1 << 9, "fxsr"),
        (1 << 10, "sse"),
        (UMIP, "umip"),
        (LA57, "la57"),
        (FSGSBASE, "fsgsbase"),
        (PCIDE, "pcid"),
        (1 << 18, "xsave"),
        (SMEP, "smep"),
        (SMAP, "smap"),
        (PKE, "pku"),
        (PKS, "pks"),
    ];
    /// PCE, which needs none.
    pub const ALWAYS: u64 = 1 << 8;
}

/// Bits of IA32_EFER.
pub(super) mod efer {
    /// SYSCALL enable.
    pub const SCE: u64 = 1 << 0;
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// No-execute enable.
    pub const NXE: u64 = 1 << 11;

    /// The bits that need a feature.
    pub const FEATURES: [(u64, &str); 6] =
        [(SCE, "syscall"), (LME, "lm"), (NXE, "nx"), (1 << 14, "fxsr-opt"), (1 << 15, "tce"), (1 << 21, "auto-ibrs")];
}

/// A MOV's general register, whole in 64-bit mode and else 32 bits of it.
fn source(cpu: &Cpu, number: u8) -> u64 {
    if cpu.mode == Mode::Long64 { cpu.reg64(number) } else { u64::from(cpu.reg32(number)) }
}

/// MOV CRn, r.
pub(super) fn mov_to_control(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source(cpu, op.b);
    let number = instruction(op).op0_register().number();
    if !matches!(number, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.raise(Exception::UD));
    }
    cpu.require_level_0()?;
    match number {
        0 => cpu.write_cr0(value)?,
        2 => cpu.cr2 = value,
        3 => cpu.write_cr3(value)?,
        4 => cpu.write_cr4(value)?,
        _ => cpu.write_cr8(value)?,
    }
    Ok(Flow::End)
}

/// MOV r, CRn.
pub(super) fn mov_from_control(cpu: &mut Cpu, op: &Op) -> Step {
    let number = instruction(op).op1_register().number();
    if !matches!(number, 0 | 2 | 3 | 4 | 8) {
        return Err(cpu.raise(Exception::UD));
    }
    cpu.require_level_0()?;
    let value = match number {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        _ => cpu.cr8(),
    };
    if cpu.mode == Mode::Long64 {
        cpu.set_reg64(op.a, value)
    } else {
        cpu.set_reg32(op.a, value as u32)
    }
    Ok(Flow::Next)
}

/// LMSW: the low four bits of CR0; it cannot leave protected mode.
pub(super) fn lmsw(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_level_0()?;
    let value = u64::from(cpu.operand16(op, 0)?);
    let kept = cpu.cr0 & !0xe;
    cpu.write_cr0(kept | value & 0xf)?;
    Ok(Flow::End)
}

/// SMSW.
pub(super) fn smsw(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_umip()?;
    cpu.store_word(op, cpu.cr0)?;
    Ok(Flow::Next)
}

/// CLTS.
pub(super) fn clts(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_level_0()?;
    cpu.cr0 &= !cr0::TS;
    Ok(Flow::End)
}

/// INVLPG: the segment's limit does not count.
pub(super) fn invlpg(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_level_0()?;
    let offset = cpu.effective_address(&op.mem);
    let base = cpu.segments[usize::from(op.mem.segment & 7)].base;
    let linear = base.wrapping_add(offset) & cpu.linear_mask;
    if cpu.is_canonical(linear) {
        cpu.mmu.flush_page(linear);
    }
    Ok(Flow::End)
}

/// INVPCID (SDM volume 2).
pub(super) fn invpcid(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_feature("invpcid")?;
    cpu.require_level_0()?;
    let offset = cpu.effective_address(&op.mem);
    let operand: u128 = cpu.read(op.mem.segment, offset)?;
    let (low, linear) = (operand as u64, (operand >> 64) as u64);
    let kind = source(cpu, op.a);
    let pcid = low & 0xfff;
    let pcid_off = kind < 2 && pcid != 0 && cpu.cr4 & cr4::PCIDE == 0;
    if kind > 3 || low & !0xfff != 0 || pcid_off || kind == 0 && !cpu.is_canonical(linear) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let pcid = pcid as u16;
    cpu.mmu.invpcid(match kind {
        0 => InvPcid::Address { pcid, linear },
        1 => InvPcid::Space { pcid },
        2 => InvPcid::All,
        _ => InvPcid::NonGlobal,
    });
    Ok(Flow::End)
}

/// Paging with PAE, but for long mode.
fn is_pae(cr0: u64, cr4: u64) -> bool {
    cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0
}

impl Cpu {
    /// #GP(0) where CR4.UMIP keeps programs from system registers.
    pub(super) fn check_umip(&mut self) -> Result<(), Fault> {
        if self.cr4 & cr4::UMIP != 0 && self.cpl != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(())
    }

    /// Writes CR0 (SDM volume 3, 2.5; volume 2, MOV to control registers).
    pub(super) fn write_cr0(&mut self, value: u64) -> Result<(), Fault> {
        let changed = (value ^ self.cr0) & cr0::KNOWN;
        let illegal = value >> 32 != 0
            || value & (cr0::PG | cr0::PE) == cr0::PG
            || value & (cr0::NW | cr0::CD) == cr0::NW
            || changed & cr0::PG != 0 && !self.may_change_paging(value & cr0::PG != 0);
        if illegal {
            return Err(self.raise(Exception::gp(0)));
        }
        let value = value & cr0::KNOWN | cr0::ET;
        let becomes_long = value & cr0::PG != 0 && self.efer & efer::LME != 0;
        if !becomes_long && is_pae(value, self.cr4) && changed & (cr0::PG | cr0::NW | cr0::CD) != 0 {
            self.load_pdptes(self.cr3)?;
        }
        self.efer = if becomes_long { self.efer | efer::LMA } else { self.efer & !efer::LMA };
        self.cr0 = value;
        self.log_cr0();
        self.mode_changed();
        Ok(())
    }

    /// Whether paging may be turned on or off now (SDM volume 3, 10.8.5 and 4.1.2).
    fn may_change_paging(&self, on: bool) -> bool {
        let code = self.segments[segment::CS].loaded.attributes;
        if !on {
            return self.mode != Mode::Long64 && self.cr4 & cr4::PCIDE == 0;
        }
        let wide_task = self.tr.attributes & 0xd != kind::TSS16;
        self.efer & efer::LME == 0 || self.cr4 & cr4::PAE != 0 && code & attributes::LONG == 0 && wide_task
    }

    /// Writes CR3.
    pub(super) fn write_cr3(&mut self, value: u64) -> Result<(), Fault> {
        let with_pcid = self.cr4 & cr4::PCIDE != 0;
        let keep = with_pcid && value >> 63 != 0;
        let address = if with_pcid { value & !(1 << 63) } else { value };
        if self.is_long() && address >> self.model.phys_bits() != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        if !self.is_long() && is_pae(self.cr0, self.cr4) {
            self.load_pdptes(address)?;
        }
        self.cr3 = address;
        self.log_cr3();
        self.switch_cr3(keep);
        Ok(())
    }

    /// The bits of CR4 that the model has.
    pub(super) fn cr4_known(&self) -> u64 {
        let has = |(bit, name): &(u64, &str)| if self.model.has(name) { *bit } else { 0 };
        cr4::FEATURES.iter().map(has).fold(cr4::ALWAYS, |known, bit| known | bit)
    }

    /// Writes CR4.
    pub(super) fn write_cr4(&mut self, value: u64) -> Result<(), Fault> {
        let changed = value ^ self.cr4;
        let turned_on = changed & value;
        let long_change = changed & cr4::LA57 != 0 || changed & self.cr4 & cr4::PAE != 0;
        let illegal = value & !self.cr4_known() != 0
            || self.is_long() && long_change
            || turned_on & cr4::PCIDE != 0 && (!self.is_long() || self.cr3 & 0xfff != 0);
        if illegal {
            return Err(self.raise(Exception::gp(0)));
        }
        let reload = cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP;
        if !self.is_long() && is_pae(self.cr0, value) && changed & reload != 0 {
            self.load_pdptes(self.cr3)?;
        }
        self.cr4 = value;
        self.mode_changed();
        Ok(())
    }

    /// CR8: the task priority.
    #[must_use]
    pub fn cr8(&self) -> u64 {
        self.apic.as_ref().map_or(0, |apic| u64::from(apic.task_priority()))
    }

    fn write_cr8(&mut self, value: u64) -> Result<(), Fault> {
        if value > 15 {
            return Err(self.raise(Exception::gp(0)));
        }
        if let Some(apic) = &self.apic {
            apic.set_task_priority(value as u8);
        }
        Ok(())
    }

    /// The bits of IA32_EFER that the model has.
    pub(super) fn efer_known(&self) -> u64 {
        let has = |(bit, name): &(u64, &str)| if self.model.has(name) { *bit } else { 0 };
        efer::FEATURES.iter().map(has).fold(efer::LMA, |known, bit| known | bit)
    }

    /// Writes IA32_EFER; `false`: #GP.
    pub(super) fn write_efer(&mut self, value: u64) -> bool {
        let changed = value ^ self.efer;
        if value & !self.efer_known() != 0 || changed & efer::LME != 0 && self.cr0 & cr0::PG != 0 {
            return false;
        }
        self.efer = value & !efer::LMA | self.efer & efer::LMA;
        self.mode_changed();
        true
    }
}
