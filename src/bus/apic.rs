//! Where a processor meets its local APIC when the machine emulates the interrupt controllers (software CPU, KVM with
//! `kernel-irqchip=off`), and where message-signalled interrupts go.
//!
//! Implementations are leaves: they may take a lock of their own but never the board's, and they may be called from
//! any thread.

/// The asynchronous inputs of a processor (Intel SDM volume 3, 7.3.2 and 11.5). Each call may come at any time and
/// takes effect at the next boundary between two instructions; it wakes a processor that sleeps in HLT.
pub trait CpuPins: Send + Sync {
    /// Whether an interrupt waits that the local APIC would deliver now if the processor's flags allow it. The
    /// processor asks [`LocalApic::acknowledge`] for its vector.
    fn set_interrupt(&self, waiting: bool);
    /// A non-maskable interrupt.
    fn nmi(&self);
    /// A system management interrupt.
    fn smi(&self);
    /// INIT: back to the state after reset, without the caches and the floating-point unit.
    fn init(&self);
    /// A start-up interrupt: a processor that waits after INIT begins at physical address `vector << 12`.
    fn start_up(&self, vector: u8);
}

/// A local APIC as its own processor sees it (Intel SDM volume 3, chapter 11).
pub trait LocalApic: Send + Sync {
    /// Reads a register of the memory-mapped page; `offset` is 0 to FFFh.
    fn read(&self, offset: u16) -> u32;
    /// Writes a register of the memory-mapped page.
    fn write(&self, offset: u16, value: u32);
    /// IA32_APIC_BASE.
    fn base(&self) -> u64;
    /// Writes IA32_APIC_BASE. `false`: a reserved bit or an illegal transition of modes, a general protection fault.
    fn set_base(&self, value: u64) -> bool;
    /// Reads one of the MSRs 800h to 8FFh (x2APIC) or 6E0h (IA32_TSC_DEADLINE). `None`: a general protection fault.
    fn read_msr(&self, msr: u32) -> Option<u64>;
    /// Writes one of those MSRs. `false`: a general protection fault.
    fn write_msr(&self, msr: u32, value: u64) -> bool;
    /// CR8: bits 7-4 of the task priority register.
    fn task_priority(&self) -> u8;
    /// Writes CR8; only bits 3-0 of `priority` count.
    fn set_task_priority(&self, priority: u8);
    /// The processor takes the interrupt of highest priority: its vector, now in service. External interrupts of the
    /// 8259s come through here too (the acknowledge cycle of LINT0's ExtINT mode). `None`: nothing waits any more.
    fn acknowledge(&self) -> Option<u8>;
    /// The guest's time-stamp counter is the virtual clock's nanoseconds plus `offset` (it counts at 1 GHz): what
    /// IA32_TSC_DEADLINE is compared with.
    fn set_tsc_offset(&self, offset: u64);
    /// INIT: the registers of 11.4.7.3; IA32_APIC_BASE and the id stay.
    fn init(&self);
    /// The 1024 bytes of the register page as KVM_GET_LAPIC lays them out, for monitors.
    fn registers(&self) -> Vec<u8>;
}

/// Takes message-signalled interrupts: memory writes to FEExxxxxh (Intel SDM volume 3, 11.11).
pub trait MsiSink: Send + Sync {
    /// A write of `data` to `address`.
    fn send(&self, address: u64, data: u32);
    /// The level-triggered inputs of the I/O APIC now send these messages (address and data, by input): local APICs in
    /// the kernel must know whose EOIs to report.
    fn set_level_routes(&self, _routes: &[Option<(u64, u32)>]) {}
}

/// Told a level-triggered vector that a processor ended. A leaf, as all here.
pub type EoiSink = Box<dyn Fn(u8) + Send + Sync>;

/// The acknowledge cycle of an external interrupt: its vector, if one still waits.
pub type Acknowledge = Box<dyn Fn() -> Option<u8> + Send + Sync>;
