//! The interrupt input of a vCPU whose interrupt controllers, or some of them, are not the kernel's.
//!
//! With `kernel-irqchip=off` the local APIC is the machine's: everything that it asks of the processor comes through
//! here. With `split` the local APICs are the kernel's, and only the 8259s' INTR does, to the bootstrap processor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::bus::{Acknowledge, CpuPins, LocalApic};

use super::kick::Kicker;

/// Requests since the vCPU last looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Requests {
    pub(super) nmi: bool,
    pub(super) smi: bool,
    pub(super) init: bool,
    pub(super) start_up: Option<u8>,
}

/// One vCPU's input.
#[derive(Default)]
pub(super) struct Input {
    pub(super) kicker: Arc<Kicker>,
    /// The vCPU runs or is about to: a request has to get it out.
    in_guest: AtomicBool,
    waiting: AtomicBool,
    requests: Mutex<Requests>,
    changed: Condvar,
    apic: OnceLock<Arc<dyn LocalApic>>,
    acknowledge: OnceLock<Acknowledge>,
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        // A few flags, whole after any panic.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's local APIC for this vCPU; once.
    pub(super) fn attach_apic(&self, apic: Arc<dyn LocalApic>) {
        // A second call would be a mistake of the builder; the first stays.
        let _ = self.apic.set(apic);
    }

    /// The 8259s' acknowledge cycle; once.
    pub(super) fn attach_pics(&self, acknowledge: Acknowledge) {
        // As above.
        let _ = self.acknowledge.set(acknowledge);
    }

    /// The local APIC, if it is the machine's.
    pub(super) fn apic(&self) -> Option<&dyn LocalApic> {
        self.apic.get().map(|apic| &**apic)
    }

    /// Whether an interrupt waits.
    pub(super) fn waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Takes its vector.
    pub(super) fn acknowledge(&self) -> Option<u8> {
        match (self.apic.get(), self.acknowledge.get()) {
            (Some(apic), _) => apic.acknowledge(),
            (None, Some(acknowledge)) => acknowledge(),
            (None, None) => None,
        }
    }

    /// The vCPU is about to enter the guest: from now on requests interrupt it.
    pub(super) fn enter(&self) {
        self.in_guest.store(true, Ordering::SeqCst);
    }

    /// It is out again.
    pub(super) fn leave(&self) {
        self.in_guest.store(false, Ordering::SeqCst);
    }

    /// Takes the requests.
    pub(super) fn take(&self) -> Requests {
        std::mem::take(&mut self.lock())
    }

    /// Sleeps until there is a request or a kick, or with `interrupts` an interrupt.
    pub(super) fn sleep(&self, interrupts: bool) {
        let mut requests = self.lock();
        while *requests == Requests::default() && !self.kicker.is_kicked() && !(interrupts && self.waits()) {
            requests = self.changed.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a vCPU that sleeps or runs look at what changed.
    pub(super) fn wake(&self) {
        // With the lock, a vCPU that is about to sleep has either seen the change or hears this.
        let requests = self.lock();
        self.changed.notify_all();
        drop(requests);
        if self.in_guest.load(Ordering::SeqCst) {
            self.kicker.nudge();
        }
    }

    fn request(&self, set: impl FnOnce(&mut Requests)) {
        set(&mut self.lock());
        self.wake();
    }
}

impl CpuPins for Input {
    fn set_interrupt(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::SeqCst);
        if waiting {
            self.wake();
        }
    }

    fn nmi(&self) {
        self.request(|requests| requests.nmi = true);
    }

    fn smi(&self) {
        self.request(|requests| requests.smi = true);
    }

    fn init(&self) {
        self.request(|requests| {
            requests.init = true;
            requests.start_up = None;
        });
    }

    fn start_up(&self, vector: u8) {
        self.request(|requests| requests.start_up = Some(vector));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_once_and_init_forgets_an_earlier_start() {
        let input = Input::default();
        input.start_up(8);
        input.init();
        input.nmi();
        let expected = Requests { nmi: true, init: true, ..Requests::default() };
        assert_eq!(input.take(), expected);
        assert_eq!(input.take(), Requests::default());
        input.init();
        input.start_up(0x10);
        assert_eq!(input.take(), Requests { init: true, start_up: Some(0x10), ..Requests::default() });
    }

    #[test]
    fn sleep_ends_at_once_when_there_is_a_reason() {
        let input = Input::default();
        input.set_interrupt(true);
        input.sleep(true);
        input.set_interrupt(false);
        input.smi();
        input.sleep(false);
        input.take();
        input.kicker.kick();
        input.sleep(true);
    }

    #[test]
    fn another_thread_wakes_the_sleeper() {
        let input = Arc::new(Input::default());
        let waker = Arc::clone(&input);
        let thread = std::thread::spawn(move || waker.set_interrupt(true));
        input.sleep(true);
        assert!(input.waits());
        thread.join().unwrap();
    }
}
