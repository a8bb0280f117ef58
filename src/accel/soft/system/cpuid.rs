//! CPUID (Intel SDM volume 2): the model's table with the bits that follow the processor's state.

use super::super::cpu::{Cpu, Exception, Flow, Step, gpr};
use super::super::op::Op;
use crate::cpu::{APIC_BASE_ENABLE, CpuidLeaf};

/// CR4.OSXSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.PKE.
const CR4_PKE: u64 = 1 << 22;
/// The time-stamp counter's frequency in kHz.
const TSC_KHZ: u32 = 1_000_000;
/// Signature and features of the hypervisor.
const HYPERVISOR: u32 = 0x4000_0000;

/// The table of one processor.
#[derive(Clone, Debug)]
pub(super) struct CpuidTable {
    /// Sorted by function and index.
    leaves: Vec<CpuidLeaf>,
    /// The highest basic leaf.
    last_basic: u32,
}

impl CpuidTable {
    fn new(mut leaves: Vec<CpuidLeaf>) -> Self {
        leaves.sort_by_key(|leaf| (leaf.function, leaf.index.unwrap_or(0)));
        let last_basic = leaves.first().map_or(0, |leaf| leaf.eax);
        Self { leaves, last_basic }
    }

    /// The exact row, or the only one of a function without subleaves.
    fn find(&self, function: u32, index: u32) -> Option<&CpuidLeaf> {
        let start = self.leaves.partition_point(|leaf| leaf.function < function);
        let rows = self.leaves[start..].iter().take_while(|leaf| leaf.function == function);
        rows.into_iter().find(|leaf| leaf.index.is_none_or(|its| its == index))
    }

    /// The function that answers: beyond the last one of its range Intel's processors give the last basic leaf.
    fn answering(&self, function: u32, amd: bool) -> u32 {
        let range = function & 0xffff_0000;
        let last = match range {
            0 => self.last_basic,
            HYPERVISOR | 0x8000_0000 | 0xc000_0000 => self.find(range, 0).map_or(0, |leaf| leaf.eax),
            _ => 0,
        };
        if function <= last || amd { function } else { self.last_basic }
    }
}

/// CPUID.
pub(super) fn cpuid(cpu: &mut Cpu, _op: &Op) -> Step {
    if cpu.system.misc_features & 1 != 0 && cpu.cpl != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let (function, index) = (cpu.reg32(gpr::RAX as u8), cpu.reg32(gpr::RCX as u8));
    let [eax, ebx, ecx, edx] = cpu.cpuid_leaf(function, index);
    cpu.set_reg32(gpr::RAX as u8, eax);
    cpu.set_reg32(gpr::RBX as u8, ebx);
    cpu.set_reg32(gpr::RCX as u8, ecx);
    cpu.set_reg32(gpr::RDX as u8, edx);
    Ok(Flow::Next)
}

impl Cpu {
    fn cpuid_table(&mut self) -> &CpuidTable {
        let (model, index) = (&self.model, self.index);
        self.system.cpuid.get_or_insert_with(|| {
            let khz = if model.tells_frequency() { TSC_KHZ } else { 0 };
            Box::new(CpuidTable::new(model.cpuid(index, khz)))
        })
    }

    /// What CPUID answers: EAX, EBX, ECX, EDX.
    pub fn cpuid_leaf(&mut self, function: u32, index: u32) -> [u32; 4] {
        let amd = self.is_amd();
        let table = self.cpuid_table();
        let function = table.answering(function, amd);
        let Some(leaf) = table.find(function, index).copied() else {
            return self.missing_leaf(function, index);
        };
        let CpuidLeaf { eax, mut ebx, mut ecx, mut edx, .. } = leaf;
        match (function, index) {
            (1, _) => {
                ecx = ecx & !(1 << 27) | u32::from(self.cr4 & CR4_OSXSAVE != 0) << 27;
                if !self.is_apic_enabled() {
                    edx &= !(1 << 9);
                }
            }
            (7, 0) => ecx = ecx & !(1 << 4) | u32::from(self.cr4 & CR4_PKE != 0) << 4,
            (0xd, 0) => ebx = self.xsave_size(false),
            (0xd, 1) if eax & 0xa != 0 => ebx = self.xsave_size(true),
            (0x8000_0001, _) if amd && !self.is_apic_enabled() => edx &= !(1 << 9),
            _ => {}
        }
        [eax, ebx, ecx, edx]
    }

    /// A subleaf beyond the last: zeros, except that the topology leaves repeat the subleaf's number and the APIC id.
    fn missing_leaf(&mut self, function: u32, index: u32) -> [u32; 4] {
        if !matches!(function, 0xb | 0x1f) {
            return [0; 4];
        }
        match self.cpuid_table().find(function, 0).copied() {
            Some(first) => [0, 0, index & 0xff, first.edx],
            None => [0; 4],
        }
    }

    fn is_apic_enabled(&self) -> bool {
        self.apic_base() & APIC_BASE_ENABLE != 0
    }

    /// Bytes of the XSAVE area for the components that XCR0 enables, in standard or compacted form (SDM volume 1, 13.4).
    fn xsave_size(&mut self, compacted: bool) -> u32 {
        const LEGACY_AND_HEADER: u32 = 0x240;
        let enabled = self.vector.xcr0();
        let table = self.cpuid_table();
        (2..63).filter(|number| enabled >> number & 1 != 0).fold(LEGACY_AND_HEADER, |end, number| {
            match table.find(0xd, number) {
                None => end,
                Some(component) if compacted => {
                    let start = if component.ecx & 2 != 0 { end.next_multiple_of(64) } else { end };
                    start + component.eax
                }
                Some(component) => end.max(component.ebx + component.eax),
            }
        })
    }
}
