//! Interrupt lines on their way to the I/O APIC, where a test program can take them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::LineSink;

/// Hears of lines that change: input, level.
pub type Listener = Arc<dyn Fn(u32, bool) + Send + Sync>;

#[derive(Default)]
struct State {
    /// Levels of the inputs as the listener knows them.
    high: u64,
    listener: Option<Listener>,
}

/// Stands before an interrupt controller. A leaf, as all sinks are; so is the listener.
pub struct IrqTap {
    controller: Arc<dyn LineSink>,
    state: Mutex<State>,
}

impl std::fmt::Debug for IrqTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IrqTap")
    }
}

impl IrqTap {
    /// Passes all lines on to `controller` as long as nobody listens.
    #[must_use]
    pub fn new(controller: Arc<dyn LineSink>) -> Arc<Self> {
        Arc::new(Self { controller, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A word and a pointer, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `listener` hears, and the controller does not. All lines count as low until they change.
    pub fn intercept(&self, listener: Listener) {
        *self.lock() = State { high: 0, listener: Some(listener) };
    }

    /// All lines count as low again: another program listens.
    pub fn forget_levels(&self) {
        self.lock().high = 0;
    }
}

impl LineSink for IrqTap {
    fn set_level(&self, input: u32, high: bool) {
        let mut state = self.lock();
        let Some(listener) = state.listener.clone() else {
            drop(state);
            self.controller.set_level(input, high);
            return;
        };
        let bit = 1u64 << (input % 64);
        let before = state.high & bit != 0;
        if before == high {
            return;
        }
        state.high ^= bit;
        // Under the lock, so that two changes at once are told in their order.
        listener(input, high);
    }
}
