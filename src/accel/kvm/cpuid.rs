//! CPUID tables between KVM and [`crate::cpu`].

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::accel::AccelError;
use crate::cpu::{CpuModel, CpuidLeaf};

/// The table of vCPU `index` for KVM_SET_CPUID2.
pub(super) fn table(model: &CpuModel, index: u32, tsc_khz: u32) -> Result<CpuId, AccelError> {
    let entries: Vec<_> = model.cpuid(index, tsc_khz).iter().map(entry).collect();
    CpuId::from_entries(&entries).map_err(|_| AccelError::Unsupported("KVM_SET_CPUID2: too many leaves".to_owned()))
}

fn entry(leaf: &CpuidLeaf) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: leaf.function,
        index: leaf.index.unwrap_or(0),
        flags: if leaf.index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
        ..Default::default()
    }
}

/// A table that KVM returned.
pub(super) fn leaves(table: &CpuId) -> Vec<CpuidLeaf> {
    let leaf = |entry: &kvm_cpuid_entry2| CpuidLeaf {
        function: entry.function,
        index: (entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(entry.index),
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
    };
    table.as_slice().iter().map(leaf).collect()
}

/// What this host's processor answers: EAX, EBX, ECX, EDX.
pub(super) fn native(function: u32, index: u32) -> [u32; 4] {
    let answer = std::arch::x86_64::__cpuid_count(function, index);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}
