//! What other threads do to a processor: interrupt it, wake it, ask it to leave the guest.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::bus::CpuPins;

/// The requests to one processor; each is a bit of one word that the processor looks at between blocks.
#[derive(Debug, Default)]
pub struct Signals {
    bits: AtomicU32,
    sipi_vector: AtomicU8,
    sleeping: Mutex<()>,
    woken: Condvar,
}

impl Signals {
    /// The local APIC has an interrupt to deliver.
    pub const INTERRUPT: u32 = 1 << 0;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 1 << 1;
    /// System management interrupt.
    pub const SMI: u32 = 1 << 2;
    /// INIT.
    pub const INIT: u32 = 1 << 3;
    /// Start-up interrupt.
    pub const START_UP: u32 = 1 << 4;
    /// Leave `Vcpu::run`.
    pub const KICK: u32 = 1 << 5;
    /// The memory map changed: translations are stale.
    pub const MEMORY: u32 = 1 << 6;
    /// Another processor needs all others to stand still for a moment.
    pub const EXCLUSIVE: u32 = 1 << 7;

    /// All pending requests.
    #[must_use]
    #[inline(always)]
    pub fn pending(&self) -> u32 {
        self.bits.load(Ordering::Relaxed)
    }

    /// Makes requests and wakes the processor.
    pub fn raise(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
        // The lock orders this with a processor between its last look and its wait.
        drop(self.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_all();
    }

    /// Takes requests back: those of `bits` that were pending.
    pub fn take(&self, bits: u32) -> u32 {
        self.bits.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Sleeps until one of `bits` is pending or `timeout` is over.
    pub fn wait(&self, bits: u32, timeout: Option<Duration>) {
        let guard = self.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |(): &mut ()| self.bits.load(Ordering::SeqCst) & bits == 0;
        match timeout {
            None => drop(self.woken.wait_while(guard, idle)),
            Some(timeout) => drop(self.woken.wait_timeout_while(guard, timeout, idle)),
        }
    }

    /// The vector of the last start-up interrupt.
    #[must_use]
    pub fn sipi_vector(&self) -> u8 {
        self.sipi_vector.load(Ordering::Acquire)
    }
}

impl CpuPins for Signals {
    fn set_interrupt(&self, waiting: bool) {
        if waiting {
            self.raise(Self::INTERRUPT);
        } else {
            self.take(Self::INTERRUPT);
        }
    }

    fn nmi(&self) {
        self.raise(Self::NMI);
    }

    fn smi(&self) {
        self.raise(Self::SMI);
    }

    fn init(&self) {
        self.raise(Self::INIT);
    }

    fn start_up(&self, vector: u8) {
        self.sipi_vector.store(vector, Ordering::Release);
        self.raise(Self::START_UP);
    }
}
