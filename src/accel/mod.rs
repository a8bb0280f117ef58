//! Accelerators: what executes the guest's instructions.

mod choose;
mod debug;
pub mod kvm;
pub mod qtest;
pub mod soft;
mod tcg;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::bus::{
    Acknowledge, CpuPins, EoiSink, GuestBus, IrqChipState, LineSink, LocalApic, MsiSink, PostedRange, PostedWrites,
};
use crate::cpu::{CpuModel, CpuState, HostCpu};
use crate::event::{Clock, LoopHandle};
use crate::mem::RamRange;

pub use choose::{AccelRequest, Chosen, choose, virtualization_flag};
pub use debug::{Breakpoint, BreakpointKind, DebugError, DebugStop, GuestDebug, WatchKind, Watchpoint};
pub use tcg::{Icount, TcgSettings, TcgThreads};

/// Why an accelerator cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// The host's kernel or hardware refused.
    #[error("{what}: {source}")]
    Host {
        /// What was tried ("KVM_CREATE_VM").
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The accelerator has no such thing.
    #[error("{0}")]
    Unsupported(String),
}

/// Why a vCPU stopped running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Its kicker was called, or a signal came.
    Kicked,
    /// It is halted and waits for an interrupt (only where interrupts are delivered by us).
    Halted,
    /// Triple fault.
    Shutdown,
    /// What the debugger asked for with [`Vcpu::set_debug`] happened.
    Debug(DebugStop),
    /// The accelerator cannot go on; the text names the instruction's bytes, address and mode.
    InternalError(String),
}

/// Which writes an ioeventfd takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoEvent {
    /// Writes to a port.
    Port {
        /// The port.
        port: u16,
        /// Width in bytes; 0 for any.
        len: u8,
        /// Only this value, if given.
        value: Option<u64>,
    },
    /// Writes to a memory address.
    Mmio {
        /// Guest physical address.
        gpa: u64,
        /// Width in bytes; 0 for any.
        len: u8,
        /// Only this value, if given.
        value: Option<u64>,
    },
}

/// A machine's means of execution.
pub trait Accelerator: Send + Sync {
    /// "kvm", "tcg", "qtest".
    fn name(&self) -> &'static str;

    /// The RAM and ROM of the guest are now these (sorted, disjoint, page aligned). Called under the board lock.
    ///
    /// # Errors
    /// The host refuses.
    fn set_memory(&self, ranges: &[RamRange]) -> Result<(), AccelError>;

    /// Marks the pages that the guest wrote since the last call, in the bitmap of each tracked block.
    fn sync_dirty(&self);

    /// What the host's processor and this accelerator can give a guest, for [`crate::cpu::resolve`].
    ///
    /// # Errors
    /// The host refuses to tell.
    fn host_cpu(&self) -> Result<HostCpu, AccelError> {
        Ok(HostCpu::default())
    }

    /// The processor that the vCPUs are to be. Called once, before the first of them is made.
    fn set_cpu_model(&self, _model: Arc<CpuModel>) {}

    /// Puts the chips that the accelerator holds (interrupt controllers, timer) into their power-on state. Called with
    /// the vCPUs stopped, before they are reset.
    ///
    /// # Errors
    /// The host refuses.
    fn reset_chips(&self) -> Result<(), AccelError> {
        Ok(())
    }

    /// Whether the host can run that many processors: warnings if it had better not.
    ///
    /// # Errors
    /// It cannot.
    fn check_cpu_count(&self, _cpus: u32, _max_cpus: u32) -> Result<Vec<String>, AccelError> {
        Ok(Vec::new())
    }

    /// Makes vCPU `index` (also its position in the topology). Called on the thread that will run it.
    ///
    /// # Errors
    /// The host refuses.
    fn create_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, AccelError>;

    /// The in-kernel interrupt controllers: input n is global system interrupt n. `None`: the machine emulates them.
    fn irqchip(&self) -> Option<Arc<dyn LineSink>>;

    /// The asynchronous inputs of vCPU `index`, where the machine emulates its local APIC ([`Accelerator::irqchip`] is
    /// `None`). It may be asked for before the vCPU exists.
    fn cpu_pins(&self, _index: u32) -> Option<Arc<dyn CpuPins>> {
        None
    }

    /// The local APIC of vCPU `index`. Called before the vCPU is made, where the machine emulates the local APICs.
    fn attach_local_apic(&self, _index: u32, _apic: Arc<dyn LocalApic>) {}

    /// The local APICs, where they alone are in the kernel: the machine emulates the 8259s and the I/O APIC, which sends
    /// its interrupts there, and INTR goes to the pins of vCPU 0. `None` with [`Accelerator::irqchip`] `None`: the
    /// machine emulates the local APICs too.
    fn msi_sink(&self) -> Option<Arc<dyn MsiSink>> {
        None
    }

    /// Where message-signalled interrupts go, where the local APICs are in the kernel, alone or not.
    fn message_sink(&self) -> Option<Arc<dyn MsiSink>> {
        self.msi_sink()
    }

    /// What such local APICs need of the machine's chips. Called before the first vCPU is made.
    fn attach_io_controllers(&self, _eoi: EoiSink, _acknowledge: Acknowledge) {}

    /// Machine time, which the guest's time-stamp counters follow. Called before the first vCPU is made; accelerators
    /// with a time-stamp counter of their own ignore it.
    fn attach_clock(&self, _clock: Clock) {}

    /// The main loop's timers, for `-icount`. Called before the first vCPU is made.
    fn attach_timers(&self, _timers: &LoopHandle) {}

    /// The registers of the in-kernel interrupt controllers, if there are any.
    fn irqchip_state(&self) -> Option<IrqChipState> {
        None
    }

    /// Lets `fd` (an eventfd) take matching writes instead of an exit.
    ///
    /// # Errors
    /// The host refuses.
    fn add_ioevent(&self, event: IoEvent, fd: BorrowedFd<'_>) -> Result<(), AccelError>;

    /// Undoes [`Accelerator::add_ioevent`].
    ///
    /// # Errors
    /// The host refuses.
    fn remove_ioevent(&self, event: IoEvent, fd: BorrowedFd<'_>) -> Result<(), AccelError>;

    /// Lets `fd` (an eventfd) raise a global system interrupt; with `resample`, a level-triggered one whose
    /// end-of-interrupt signals that eventfd.
    ///
    /// # Errors
    /// The host refuses.
    fn add_irqfd(&self, gsi: u32, fd: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> Result<(), AccelError>;

    /// Undoes [`Accelerator::add_irqfd`].
    ///
    /// # Errors
    /// The host refuses.
    fn remove_irqfd(&self, _gsi: u32, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        Err(AccelError::Unsupported(format!("{} has no interrupt descriptors", self.name())))
    }

    /// Keeps the in-kernel PIT's interrupt 0 back while the HPET's legacy replacement is on. Called under the board
    /// lock. Without an in-kernel PIT there is nothing to do.
    ///
    /// # Errors
    /// The host refuses.
    fn set_pit_replaced(&self, _replaced: bool) -> Result<(), AccelError> {
        Ok(())
    }

    /// Whether ticks of the in-kernel PIT that the guest was too slow for are lost, instead of delivered later (the
    /// default). Returns false if there is no such PIT. Called before the first vCPU is made.
    ///
    /// # Errors
    /// The host refuses.
    fn set_pit_discards_lost_ticks(&self, _discards: bool) -> Result<bool, AccelError> {
        Ok(false)
    }

    /// Posts the guest's writes to these ranges from now on, if it can: the queue. Called once, before the first vCPU is
    /// made.
    ///
    /// # Errors
    /// The host refuses.
    fn post_writes(&self, _ranges: &[PostedRange]) -> Result<Option<Arc<dyn PostedWrites>>, AccelError> {
        Ok(None)
    }

    /// The machine stopped: guest-visible clocks stand still.
    fn machine_stopped(&self) {}

    /// The machine runs on.
    fn machine_started(&self) {}
}

/// One virtual processor. It stays on the thread that made it.
pub trait Vcpu {
    /// Runs until something needs the machine's attention; device accesses go to `bus` meanwhile.
    ///
    /// # Errors
    /// The host refuses to run the vCPU at all.
    fn run(&mut self, bus: &dyn GuestBus) -> Result<Exit, AccelError>;

    /// All registers.
    ///
    /// # Errors
    /// The host refuses.
    fn state(&mut self) -> Result<CpuState, AccelError>;

    /// Replaces all registers.
    ///
    /// # Errors
    /// The host refuses.
    fn set_state(&mut self, state: &CpuState) -> Result<(), AccelError>;

    /// The power-on state: the bootstrap processor at the reset vector, others waiting for INIT and SIPI.
    ///
    /// # Errors
    /// The host refuses.
    fn reset(&mut self) -> Result<(), AccelError>;

    /// Raises a non-maskable interrupt.
    ///
    /// # Errors
    /// The host refuses.
    fn inject_nmi(&mut self) -> Result<(), AccelError>;

    /// Raises a system management interrupt.
    ///
    /// # Errors
    /// The host refuses, or has no system management mode.
    fn inject_smi(&mut self) -> Result<(), AccelError> {
        Err(AccelError::Unsupported("system management mode is not available".to_owned()))
    }

    /// Replaces what a debugger wants. Called between two instructions, with the same breakpoints and watchpoints on
    /// each vCPU; the first vCPU that is asked for a breakpoint must be one whose page tables map it. If it fails,
    /// what was wanted before stays, but for breakpoints that are gone.
    ///
    /// # Errors
    /// The accelerator has no such thing, or not so many, or there is no memory at a breakpoint's address.
    fn set_debug(&mut self, _debug: &GuestDebug) -> Result<(), DebugError> {
        Err(DebugError::Unsupported("breakpoints"))
    }

    /// The guest physical address behind a linear address, by the vCPU's present page tables.
    fn translate(&mut self, gva: u64) -> Option<u64>;

    /// What makes [`Vcpu::run`] return soon, from any thread, even if it is called just before the vCPU enters.
    fn kicker(&self) -> Arc<dyn Fn() + Send + Sync>;
}
