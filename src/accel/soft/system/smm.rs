//! System management mode (AMD APM volume 2, chapter 10; Intel SDM volume 3, chapter 32).
//!
//! The registers are kept in the layout of AMD's 64-bit processors (table 10-1), which QEMU has too for processors with
//! long mode. The memory map has no view of its own for SMRAM yet: the area at SMBASE is what everybody sees there.

use crate::cpu::{Segment, Table};

use super::super::cpu::{Activity, Cpu, Exception, Fault, Flow, Step, rflags, segment};
use super::super::mmu::Privilege;
use super::super::op::Op;
use super::control::{cr0, efer};

/// Offsets from SMBASE.
mod area {
    /// Where execution begins.
    pub const ENTRY: u64 = 0x8000;
    /// ES, CS, SS, DS, FS, GS: selector, attributes, limit, base; 16 bytes each.
    pub const SEGMENTS: u64 = 0xfe00;
    /// GDTR.
    pub const GDTR: u64 = 0xfe60;
    /// LDTR.
    pub const LDTR: u64 = 0xfe70;
    /// IDTR.
    pub const IDTR: u64 = 0xfe80;
    /// TR.
    pub const TR: u64 = 0xfe90;
    /// Auto-halt restart: the processor was in HLT.
    pub const AUTO_HALT: u64 = 0xfec9;
    /// EFER.
    pub const EFER: u64 = 0xfed0;
    /// Revision identifier.
    pub const REVISION: u64 = 0xfefc;
    /// SMBASE.
    pub const SMBASE: u64 = 0xff00;
    /// CR4, CR3, CR0, DR7, DR6, RFLAGS, RIP: 8 bytes each.
    pub const CR4: u64 = 0xff48;
    /// CR3.
    pub const CR3: u64 = 0xff50;
    /// CR0.
    pub const CR0: u64 = 0xff58;
    /// DR7.
    pub const DR7: u64 = 0xff60;
    /// DR6.
    pub const DR6: u64 = 0xff68;
    /// RFLAGS.
    pub const RFLAGS: u64 = 0xff70;
    /// RIP.
    pub const RIP: u64 = 0xff78;
    /// RAX; the others are below it, 8 bytes each.
    pub const RAX: u64 = 0xfff8;
}

/// The layout's number, with the bit that SMBASE can be moved.
const REVISION: u32 = 0x0002_0064;

impl Cpu {
    /// Whether the processor is in system management mode, where system management interrupts and INIT wait.
    #[must_use]
    pub fn in_smm(&self) -> bool {
        self.system.smm
    }

    /// Takes a system management interrupt between two instructions: keeps the registers in SMRAM and goes to the handler.
    pub fn enter_smm(&mut self) {
        self.log_smm("enter");
        let old = SavedRegisters::of(self);
        self.system.smm = true;
        self.system.smm_in_nmi = self.system.nmi_blocked;
        self.system.nmi_blocked = true;
        self.activity = Activity::Running;
        self.shadow = 0;
        let smbase = self.system.smbase;
        let flat = Segment { selector: 0, base: 0, limit: u32::MAX, attributes: 0x8093 };
        for register in &mut self.segments[..6] {
            register.loaded = flat;
        }
        let selector = (smbase >> 4) as u16;
        self.segments[segment::CS].loaded = Segment { selector, base: smbase, attributes: 0x809b, ..flat };
        self.rip = area::ENTRY;
        self.set_rflags(rflags::ONE);
        self.cr0 &= !(cr0::PE | cr0::PG | cr0::TS | 1 << 2);
        (self.cr4, self.efer, self.dr[7]) = (0, 0, 0x400);
        self.debug_registers_changed();
        self.mode_changed();
        // Without paging no access faults.
        let _ = old.store(self, smbase);
    }

    /// Reads at an offset from SMBASE; paging is off.
    fn smram<const LEN: usize>(&mut self, offset: u64) -> Result<u64, Fault> {
        let address = self.system.smbase.wrapping_add(offset) & 0xffff_ffff;
        match LEN {
            1 => Ok(u64::from(self.read_linear::<u8>(address, Privilege::System)?)),
            2 => Ok(u64::from(self.read_linear::<u16>(address, Privilege::System)?)),
            4 => Ok(u64::from(self.read_linear::<u32>(address, Privilege::System)?)),
            _ => self.read_linear(address, Privilege::System),
        }
    }

    fn smram_segment(&mut self, offset: u64) -> Result<Segment, Fault> {
        let selector = self.smram::<2>(offset)? as u16;
        let attributes = self.smram::<2>(offset + 2)? as u32;
        let limit = self.smram::<4>(offset + 4)? as u32;
        Ok(Segment { selector, base: self.smram::<8>(offset + 8)?, limit, attributes: unpack(attributes) })
    }

    fn smram_table(&mut self, offset: u64) -> Result<Table, Fault> {
        let limit = self.smram::<2>(offset + 4)? as u16;
        Ok(Table { base: self.smram::<8>(offset + 8)?, limit })
    }

    /// Whether control registers from SMRAM make a state that exists (APM volume 2, 10.3.6).
    fn is_valid_control(&self, saved: &SavedRegisters) -> bool {
        let paging = saved.cr0 & cr0::PG != 0;
        let long = saved.efer & efer::LMA != 0;
        let lacking = saved.cr4 & !self.cr4_known() | saved.efer & !self.efer_known();
        lacking == 0
            && saved.cr0 & !cr0::KNOWN == 0
            && (!paging || saved.cr0 & cr0::PE != 0)
            && saved.cr0 & (cr0::NW | cr0::CD) != cr0::NW
            && long == (paging && saved.efer & efer::LME != 0)
    }
}

/// Attributes as SMRAM has them: bit 15 is G, as in [`Segment::attributes`]; a segment that is unusable has P clear.
fn pack(attributes: u32) -> u32 {
    use super::super::cpu::attributes::{PRESENT, UNUSABLE};
    let present = if attributes & UNUSABLE != 0 { attributes & !PRESENT } else { attributes };
    present & 0xf0ff
}

fn unpack(attributes: u32) -> u32 {
    use super::super::cpu::attributes::{PRESENT, UNUSABLE};
    let unusable = if attributes & PRESENT == 0 { UNUSABLE } else { 0 };
    attributes & 0xf0ff | unusable
}

/// What SMRAM keeps.
#[derive(Clone, Debug)]
struct SavedRegisters {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    segments: [Segment; 6],
    ldtr: Segment,
    tr: Segment,
    gdtr: Table,
    idtr: Table,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    dr6: u64,
    dr7: u64,
    halted: bool,
}

impl SavedRegisters {
    fn of(cpu: &Cpu) -> Self {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&cpu.gpr[..16]);
        Self {
            gpr,
            rip: cpu.rip,
            rflags: cpu.rflags(),
            segments: std::array::from_fn(|number| cpu.segments[number].loaded),
            ldtr: cpu.ldtr,
            tr: cpu.tr,
            gdtr: cpu.gdtr,
            idtr: cpu.idtr,
            cr0: cpu.cr0,
            cr3: cpu.cr3,
            cr4: cpu.cr4,
            efer: cpu.efer,
            dr6: cpu.dr[6],
            dr7: cpu.dr[7],
            halted: cpu.activity == Activity::Halted,
        }
    }

    fn store(&self, cpu: &mut Cpu, smbase: u64) -> Result<(), Fault> {
        let at = |offset: u64| smbase.wrapping_add(offset) & 0xffff_ffff;
        let named = (0..).step_by(16).map(|offset| area::SEGMENTS + offset).zip(self.segments);
        for (offset, held) in named.chain([(area::LDTR, self.ldtr), (area::TR, self.tr)]) {
            cpu.write_linear(at(offset), held.selector, Privilege::System)?;
            cpu.write_linear(at(offset + 2), pack(held.attributes) as u16, Privilege::System)?;
            cpu.write_linear(at(offset + 4), held.limit, Privilege::System)?;
            cpu.write_linear(at(offset + 8), held.base, Privilege::System)?;
        }
        for (offset, table) in [(area::GDTR, self.gdtr), (area::IDTR, self.idtr)] {
            cpu.write_linear(at(offset + 4), u32::from(table.limit), Privilege::System)?;
            cpu.write_linear(at(offset + 8), table.base, Privilege::System)?;
        }
        for (offset, value) in [
            (area::EFER, self.efer),
            (area::CR4, self.cr4),
            (area::CR3, self.cr3),
            (area::CR0, self.cr0),
            (area::DR7, self.dr7),
            (area::DR6, self.dr6),
            (area::RFLAGS, self.rflags),
            (area::RIP, self.rip),
        ] {
            cpu.write_linear(at(offset), value, Privilege::System)?;
        }
        for (number, value) in (0..).zip(self.gpr) {
            cpu.write_linear(at(area::RAX - 8 * number), value, Privilege::System)?;
        }
        cpu.write_linear(at(area::AUTO_HALT), u8::from(self.halted), Privilege::System)?;
        cpu.write_linear(at(area::REVISION), REVISION, Privilege::System)?;
        cpu.write_linear(at(area::SMBASE), smbase as u32, Privilege::System)
    }

    fn load(cpu: &mut Cpu) -> Result<Self, Fault> {
        let mut gpr = [0; 16];
        for (number, value) in (0..).zip(&mut gpr) {
            *value = cpu.smram::<8>(area::RAX - 8 * number)?;
        }
        let mut segments = [Segment::default(); 6];
        for (offset, held) in (0..).step_by(16).zip(&mut segments) {
            *held = cpu.smram_segment(area::SEGMENTS + offset)?;
        }
        Ok(Self {
            gpr,
            rip: cpu.smram::<8>(area::RIP)?,
            rflags: cpu.smram::<4>(area::RFLAGS)?,
            segments,
            ldtr: cpu.smram_segment(area::LDTR)?,
            tr: cpu.smram_segment(area::TR)?,
            gdtr: cpu.smram_table(area::GDTR)?,
            idtr: cpu.smram_table(area::IDTR)?,
            cr0: cpu.smram::<4>(area::CR0)?,
            cr3: cpu.smram::<8>(area::CR3)?,
            cr4: cpu.smram::<4>(area::CR4)?,
            efer: cpu.smram::<8>(area::EFER)?,
            dr6: cpu.smram::<4>(area::DR6)?,
            dr7: cpu.smram::<4>(area::DR7)?,
            halted: cpu.smram::<1>(area::AUTO_HALT)? & 1 != 0,
        })
    }

    fn restore(&self, cpu: &mut Cpu) {
        cpu.gpr[..16].copy_from_slice(&self.gpr);
        for (register, loaded) in cpu.segments.iter_mut().zip(self.segments) {
            register.loaded = loaded;
        }
        (cpu.ldtr, cpu.tr, cpu.gdtr, cpu.idtr) = (self.ldtr, self.tr, self.gdtr, self.idtr);
        (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer) = (self.cr0 | cr0::ET, self.cr3, self.cr4, self.efer);
        (cpu.dr[6], cpu.dr[7]) = (self.dr6, self.dr7);
        cpu.rip = self.rip;
        cpu.set_rflags(self.rflags & 0x3f_7fd7);
        cpu.debug_registers_changed();
        cpu.mode_changed();
        if self.halted {
            cpu.activity = Activity::Halted;
        }
    }
}

/// RSM: back to what SMRAM says. A state that does not exist shuts the processor down.
pub(super) fn rsm(cpu: &mut Cpu, _op: &Op) -> Step {
    if !cpu.system.smm {
        return Err(cpu.raise(Exception::UD));
    }
    // The handler may have turned paging on; SMRAM is read by physical addresses.
    cpu.cr0 &= !(cr0::PE | cr0::PG);
    cpu.efer = 0;
    cpu.mode_changed();
    let saved = SavedRegisters::load(cpu)?;
    let smbase = cpu.smram::<4>(area::SMBASE)?;
    cpu.system.smm = false;
    cpu.system.nmi_blocked = cpu.system.smm_in_nmi;
    cpu.system.smbase = smbase;
    if !cpu.is_valid_control(&saved) {
        cpu.activity = Activity::Shutdown;
        return Ok(Flow::End);
    }
    saved.restore(cpu);
    cpu.log_smm("after RSM");
    cpu.shadow = 0;
    // A single step that was on goes on with the interrupted program's next instruction.
    cpu.system.step_after = Some(false);
    Ok(Flow::Jump)
}
