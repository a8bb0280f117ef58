//! The software CPU as an accelerator: what all its processors share.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::accel::{AccelError, Accelerator, IoEvent, TcgSettings, TcgThreads, Vcpu};
use crate::bus::{CpuPins, LineSink, LocalApic};
use crate::cpu::{CpuModel, HostCpu};
use crate::event::{Clock, LoopHandle};
use crate::mem::RamRange;

use super::counting::Counting;
use super::cpu::Cpu;
use super::interp::Cache;
use super::mmu::PhysicalMap;
use super::signals::Signals;
use super::vcpu::SoftVcpu;
use super::vector;

/// What processors share.
struct Shared {
    map: Arc<PhysicalMap>,
    model: OnceLock<Arc<CpuModel>>,
    clock: OnceLock<Clock>,
    timers: OnceLock<LoopHandle>,
    sockets: Mutex<Vec<Socket>>,
    settings: TcgSettings,
}

/// A processor's place.
#[derive(Default)]
struct Socket {
    signals: Arc<Signals>,
    apic: Option<Arc<dyn LocalApic>>,
}

impl Shared {
    fn sockets(&self) -> MutexGuard<'_, Vec<Socket>> {
        // A list that only grows; whole after any panic.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_socket<R>(&self, index: u32, f: impl FnOnce(&mut Socket) -> R) -> R {
        let mut sockets = self.sockets();
        let index = index as usize;
        if sockets.len() <= index {
            sockets.resize_with(index + 1, Socket::default);
        }
        f(&mut sockets[index])
    }
}

/// The accelerator `tcg`.
pub struct Soft {
    shared: Shared,
}

impl std::fmt::Debug for Soft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Soft")
    }
}

impl Soft {
    /// An accelerator without processors and memory.
    ///
    /// # Errors
    /// The host has no means to make all processors pass a barrier.
    pub fn new(settings: TcgSettings) -> Result<Self, AccelError> {
        let map = PhysicalMap::new(&[]).map_err(|source| AccelError::Host { what: "membarrier", source })?;
        let shared = Shared {
            map: Arc::new(map),
            model: OnceLock::new(),
            clock: OnceLock::new(),
            timers: OnceLock::new(),
            sockets: Mutex::default(),
            settings,
        };
        Ok(Self { shared })
    }
}

impl Accelerator for Soft {
    fn name(&self) -> &'static str {
        "tcg"
    }

    fn set_memory(&self, ranges: &[RamRange]) -> Result<(), AccelError> {
        self.shared.map.set_ranges(ranges);
        for socket in self.shared.sockets().iter() {
            socket.signals.raise(Signals::MEMORY);
        }
        Ok(())
    }

    /// Stores mark their pages at once.
    fn sync_dirty(&self) {}

    fn host_cpu(&self) -> Result<HostCpu, AccelError> {
        Ok(vector::host_cpu())
    }

    fn set_cpu_model(&self, model: Arc<CpuModel>) {
        // The machine names its model once.
        let _ = self.shared.model.set(model);
    }

    fn create_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, AccelError> {
        let missing = |what: &str| AccelError::Unsupported(format!("the software CPU has no {what} yet"));
        let model = self.shared.model.get().ok_or_else(|| missing("processor model"))?;
        let clock = self.shared.clock.get().cloned().unwrap_or_else(Clock::stopped);
        let mut cpu = Cpu::new(index, Arc::clone(model), clock);
        (cpu.signals, cpu.apic) =
            self.shared.with_socket(index, |socket| (Arc::clone(&socket.signals), socket.apic.clone()));
        cpu.attach_memory(Arc::clone(&self.shared.map));
        cpu.one_instruction_blocks = self.shared.settings.one_instruction_per_block;
        cpu.blocks = self.shared.settings.code_cache_mib.map(|mib| Box::new(Cache::of_size(mib)));
        if let (Some(icount), Some(timers)) = (self.shared.settings.icount, self.shared.timers.get()) {
            cpu.counting = Some(Box::new(Counting::new(icount.shift, timers.clone())));
        }
        Ok(Box::new(SoftVcpu::new(cpu)))
    }

    fn irqchip(&self) -> Option<Arc<dyn LineSink>> {
        None
    }

    fn cpu_pins(&self, index: u32) -> Option<Arc<dyn CpuPins>> {
        Some(self.shared.with_socket(index, |socket| Arc::clone(&socket.signals) as Arc<dyn CpuPins>))
    }

    fn attach_local_apic(&self, index: u32, apic: Arc<dyn LocalApic>) {
        self.shared.with_socket(index, |socket| socket.apic = Some(apic));
    }

    fn attach_clock(&self, clock: Clock) {
        // The machine names its clock once.
        let _ = self.shared.clock.set(clock);
    }

    fn attach_timers(&self, timers: &LoopHandle) {
        // The machine has one main loop.
        let _ = self.shared.timers.set(timers.clone());
    }

    fn check_cpu_count(&self, cpus: u32, _max_cpus: u32) -> Result<Vec<String>, AccelError> {
        if self.shared.settings.threads == Some(TcgThreads::Single) && cpus > 1 {
            return Err(AccelError::Unsupported(
                "-accel tcg,thread=single with more than one CPU is not supported by this version".to_owned(),
            ));
        }
        if self.shared.settings.icount.is_some() && cpus > 1 {
            return Err(AccelError::Unsupported(
                "-icount with more than one CPU is not supported by this version".to_owned(),
            ));
        }
        Ok(Vec::new())
    }

    fn add_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        Err(AccelError::Unsupported("the software CPU has no I/O event descriptors".to_owned()))
    }

    fn remove_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        Err(AccelError::Unsupported("the software CPU has no I/O event descriptors".to_owned()))
    }

    fn add_irqfd(&self, _gsi: u32, _fd: BorrowedFd<'_>, _resample: Option<BorrowedFd<'_>>) -> Result<(), AccelError> {
        Err(AccelError::Unsupported("the software CPU has no interrupt descriptors".to_owned()))
    }
}
