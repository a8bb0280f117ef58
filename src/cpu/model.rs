//! A processor as a guest sees it: what both accelerators take.

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

/// What the host and the accelerator can give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostCpu {
    /// The CPUID table of all that the accelerator supports on this host; `None`: it is software and gives what it
    /// implements.
    pub(super) supported: Option<Vec<CpuidLeaf>>,
    /// The APIC timer's TSC deadline mode is available though the table does not say so.
    pub(super) tsc_deadline: bool,
}

impl HostCpu {
    /// KVM's: the table of KVM_GET_SUPPORTED_CPUID, and whether the kernel has KVM_CAP_TSC_DEADLINE_TIMER.
    #[must_use]
    pub fn kvm(supported: Vec<CpuidLeaf>, tsc_deadline: bool) -> Self {
        Self { supported: Some(supported), tsc_deadline }
    }
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
