//! `-accel qtest`: a machine whose processors execute nothing. A program at the other end of the `-qtest` stream does
//! what they would do: it reads and writes ports and memory, and moves the machine's clock.
//!
//! - [`Qtest`]: the accelerator. Its processors stand at the reset vector for ever.
//! - [`IrqTap`]: tells the program of interrupt lines instead of an interrupt controller.
//! - [`Server`]: the stream, its lines and its log. It serves machines of other accelerators too; their clock then
//!   goes by itself.
//!
//! The line protocol is QEMU's (documentation "QTest Device Emulation Testing Framework", section "qtest protocol").

mod command;
mod server;
mod tap;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::{AccelError, Accelerator, Exit, IoEvent, Vcpu};
use crate::bus::{CpuPins, GuestBus, LineSink};
use crate::cpu::{CpuModel, CpuState};
use crate::event::Clock;
use crate::mem::RamRange;

pub use server::{Log, Server, Wires};
pub use tap::IrqTap;

/// The accelerator.
#[derive(Default)]
pub struct Qtest {
    model: OnceLock<Arc<CpuModel>>,
}

impl std::fmt::Debug for Qtest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Qtest")
    }
}

fn unsupported<T>() -> Result<T, AccelError> {
    Err(AccelError::Unsupported("qtest has no event descriptors".to_owned()))
}

impl Accelerator for Qtest {
    fn name(&self) -> &'static str {
        "qtest"
    }

    /// The program's accesses go through the board.
    fn set_memory(&self, _ranges: &[RamRange]) -> Result<(), AccelError> {
        Ok(())
    }

    fn sync_dirty(&self) {}

    fn set_cpu_model(&self, model: Arc<CpuModel>) {
        // The machine names its model once.
        let _ = self.model.set(model);
    }

    fn create_vcpu(&self, _index: u32) -> Result<Box<dyn Vcpu>, AccelError> {
        let leaf = self.model.get().and_then(|model| model.cpuid(0, 0).iter().find(|leaf| leaf.function == 1).copied());
        let signature = leaf.map_or(0, |leaf| leaf.eax);
        Ok(Box::new(Standing { signature, state: CpuState::power_on(signature), kicked: Arc::default() }))
    }

    fn irqchip(&self) -> Option<Arc<dyn LineSink>> {
        None
    }

    fn cpu_pins(&self, _index: u32) -> Option<Arc<dyn CpuPins>> {
        Some(Arc::new(Deaf))
    }

    /// Time moves by command only.
    fn attach_clock(&self, clock: Clock) {
        clock.make_manual();
    }

    fn add_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        unsupported()
    }

    fn remove_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        unsupported()
    }

    fn add_irqfd(&self, _gsi: u32, _fd: BorrowedFd<'_>, _resample: Option<BorrowedFd<'_>>) -> Result<(), AccelError> {
        unsupported()
    }
}

/// Pins of a processor that takes no interrupts.
struct Deaf;

impl CpuPins for Deaf {
    fn set_interrupt(&self, _waiting: bool) {}
    fn nmi(&self) {}
    fn smi(&self) {}
    fn init(&self) {}
    fn start_up(&self, _vector: u8) {}
}

/// Whether the processor is to come back from [`Vcpu::run`].
#[derive(Default)]
struct Kicked {
    flag: Mutex<bool>,
    changed: Condvar,
}

/// A processor that executes nothing.
struct Standing {
    signature: u32,
    state: CpuState,
    kicked: Arc<Kicked>,
}

impl Vcpu for Standing {
    fn run(&mut self, _bus: &dyn GuestBus) -> Result<Exit, AccelError> {
        let mut kicked = self.kicked.flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*kicked {
            kicked = self.kicked.changed.wait(kicked).unwrap_or_else(PoisonError::into_inner);
        }
        *kicked = false;
        Ok(Exit::Kicked)
    }

    fn state(&mut self) -> Result<CpuState, AccelError> {
        Ok(self.state.clone())
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), AccelError> {
        self.state = state.clone();
        Ok(())
    }

    fn reset(&mut self) -> Result<(), AccelError> {
        self.state = CpuState::power_on(self.signature);
        Ok(())
    }

    fn inject_nmi(&mut self) -> Result<(), AccelError> {
        Ok(())
    }

    /// Paging is off.
    fn translate(&mut self, gva: u64) -> Option<u64> {
        Some(gva)
    }

    fn kicker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let kicked = Arc::clone(&self.kicked);
        Arc::new(move || {
            *kicked.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
            kicked.changed.notify_all();
        })
    }
}
