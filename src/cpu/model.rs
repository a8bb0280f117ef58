//! A processor as a guest sees it: what both accelerators take.

use super::features::{FeatureSet, Place, Reg};

/// One row of a CPUID table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidLeaf {
    /// EAX of the question.
    pub function: u32,
    /// ECX of the question, where the answer depends on it.
    pub index: Option<u32>,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

/// How many of each level there are inside the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Sockets.
    pub sockets: u32,
    /// Dies a socket.
    pub dies: u32,
    /// Modules a die.
    pub modules: u32,
    /// Cores a module.
    pub cores: u32,
    /// Threads a core.
    pub threads: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self { sockets: 1, dies: 1, modules: 1, cores: 1, threads: 1 }
    }
}

/// Bits that number `count` things.
fn width(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

impl Topology {
    /// Bits of an APIC id below the core's number.
    #[must_use]
    pub fn core_shift(&self) -> u32 {
        width(self.threads)
    }

    /// Bits of an APIC id below the module's number.
    #[must_use]
    pub fn module_shift(&self) -> u32 {
        self.core_shift() + width(self.cores)
    }

    /// Bits of an APIC id below the die's number.
    #[must_use]
    pub fn die_shift(&self) -> u32 {
        self.module_shift() + width(self.modules)
    }

    /// Bits of an APIC id below the socket's number.
    #[must_use]
    pub fn socket_shift(&self) -> u32 {
        self.die_shift() + width(self.dies)
    }

    /// Logical processors of a socket.
    #[must_use]
    pub fn threads_per_socket(&self) -> u32 {
        self.dies * self.modules * self.cores * self.threads
    }

    /// The APIC id of the `index`th logical processor, threads counting fastest.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        let (thread, rest) = (index % self.threads.max(1), index / self.threads.max(1));
        let (core, rest) = (rest % self.cores.max(1), rest / self.cores.max(1));
        let (module, rest) = (rest % self.modules.max(1), rest / self.modules.max(1));
        let (die, socket) = (rest % self.dies.max(1), rest / self.dies.max(1));
        thread
            | core << self.core_shift()
            | module << self.module_shift()
            | die << self.die_shift()
            | socket << self.socket_shift()
    }
}

/// What the host and the accelerator can give. The default is an accelerator that gives whatever is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostCpu {
    /// `None`: no limit.
    pub(super) limits: Option<Limits>,
    /// Whether it is KVM, whose paravirtual features guests can have.
    pub(super) is_kvm: bool,
}

/// The limits of an accelerator on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// Everything that can be had.
    pub(super) features: FeatureSet,
    /// The CPUID table that the accelerator gives, for leaves that are passed through.
    pub(super) table: Vec<CpuidLeaf>,
    /// The host's marketing name, 48 bytes.
    pub(super) brand: [u8; 48],
}

impl Limits {
    /// A leaf of the accelerator's table.
    pub(super) fn leaf(&self, function: u32, index: u32) -> CpuidLeaf {
        let find = |leaf: &&CpuidLeaf| leaf.function == function && leaf.index.unwrap_or(0) == index;
        self.table.iter().find(find).copied().unwrap_or_default()
    }

    /// Bits of a physical address.
    pub(super) fn phys_bits(&self) -> u32 {
        match self.leaf(0x8000_0008, 0).eax & 0xff {
            0 => 36,
            bits => bits,
        }
    }
}

/// The feature bits of leaf 1 EDX that AMD repeats in 8000_0001h EDX.
pub(super) const AMD_ALIASES: u32 = 0x0183_f3ff;

/// What only local APICs in the kernel give a guest of KVM.
pub(super) const KERNEL_APIC_FEATURES: &str =
    "x2apic tsc-deadline kvm-pv-eoi kvm-pv-unhalt kvm-pv-ipi kvm-asyncpf-int kvm-msi-ext-dest-id";

impl HostCpu {
    /// KVM's: the table of KVM_GET_SUPPORTED_CPUID, what the processor itself answers to CPUID, whether the kernel has
    /// KVM_CAP_TSC_DEADLINE_TIMER, and IA32_ARCH_CAPABILITIES of KVM_GET_MSRS.
    #[must_use]
    pub fn kvm(
        table: Vec<CpuidLeaf>,
        native: impl Fn(u32, u32) -> [u32; 4],
        tsc_deadline: bool,
        arch_capabilities: u64,
    ) -> Self {
        let mut limits = Limits { features: FeatureSet::default(), table, brand: brand(&native) };
        let register = |leaf: CpuidLeaf, reg: Reg| match reg {
            Reg::Eax => leaf.eax,
            Reg::Ebx => leaf.ebx,
            Reg::Ecx => leaf.ecx,
            Reg::Edx => leaf.edx,
        };
        let [_, native_ebx, _, native_edx] = native(7, 0);
        let native_7_1 = native(7, 1)[0];
        let one_edx = limits.leaf(1, 0).edx;
        let bits = |place: Place| match place {
            Place::Leaf { function, index, reg } => {
                let had = register(limits.leaf(function, index.unwrap_or(0)), reg);
                // The kernel tells only what it had to do something for; these need nothing from it, or come with the
                // in-kernel interrupt controllers.
                let more = match (function, index.unwrap_or(0), reg) {
                    // MCE, MTRR, MCA, PAT, HTT
                    (1, 0, Reg::Edx) => 1 << 7 | 1 << 12 | 1 << 14 | 1 << 16 | 1 << 28,
                    // x2APIC, TSC deadline timer, hypervisor
                    (1, 0, Reg::Ecx) => 1 << 21 | u32::from(tsc_deadline) << 24 | 1 << 31,
                    (6, 0, Reg::Eax) => 1 << 2, // ARAT
                    // ERMS and FSRM, FZRM, FSRS, FSRC are promises of speed
                    (7, 0, Reg::Ebx) => native_ebx & 1 << 9,
                    (7, 0, Reg::Edx) => native_edx & 1 << 4,
                    (7, 1, Reg::Eax) => native_7_1 & 7 << 10,
                    (0x8000_0001, 0, Reg::Edx) => one_edx & AMD_ALIASES,
                    (0x8000_0001, 0, Reg::Ecx) => 1 << 22, // TOPOEXT
                    (0x8000_0007, 0, Reg::Ebx) => 3,       // OVERFLOW_RECOV, SUCCOR
                    (0x4000_0001, 0, Reg::Edx) => 1,       // "dedicated" is a hint of the user
                    _ => 0,
                };
                had | more
            }
            Place::Msr(0x10a) => (arch_capabilities & 0xffff_ffff) as u32,
            Place::Msr(_) => 0,
        };
        limits.features = FeatureSet::default().map(|place, _| bits(place));
        Self { limits: Some(limits), is_kvm: true }
    }

    /// KVM's without local APICs in the kernel: what only those can do is gone.
    #[must_use]
    pub fn without_kernel_apic(mut self) -> Self {
        if let Some(limits) = &mut self.limits {
            limits.features = limits.features.without(&FeatureSet::from_names(KERNEL_APIC_FEATURES));
        }
        self
    }

    /// A software CPU that implements `features`.
    #[must_use]
    pub fn software(features: FeatureSet) -> Self {
        Self { limits: Some(Limits { features, table: Vec::new(), brand: [0; 48] }), is_kvm: false }
    }

    /// The limits of real hardware, from which more than features follows.
    pub(super) fn hardware(&self) -> Option<&Limits> {
        self.limits.as_ref().filter(|_| self.is_kvm)
    }

    /// What QEMU calls it where it refuses a feature.
    pub(super) fn refuser(&self) -> &'static str {
        if self.is_kvm { "host" } else { "TCG" }
    }
}

/// The host's marketing name (leaves 8000_0002h to 8000_0004h).
fn brand(native: &impl Fn(u32, u32) -> [u32; 4]) -> [u8; 48] {
    let mut brand = [0; 48];
    for (leaf, to) in (0x8000_0002u32..).zip(brand.chunks_exact_mut(16)) {
        for (register, to) in native(leaf, 0).iter().zip(to.chunks_exact_mut(4)) {
            to.copy_from_slice(&register.to_le_bytes());
        }
    }
    brand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apic_ids_leave_room_for_powers_of_two() {
        let topology = Topology { sockets: 2, dies: 1, modules: 1, cores: 3, threads: 2 };
        let ids: Vec<_> = (0..12).map(|i| topology.apic_id(i)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
    }
}
