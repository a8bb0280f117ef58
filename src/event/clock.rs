//! The clocks that devices see.
//!
//! The *virtual* clock is what every chip counts by: nanoseconds since the machine was built, standing
//! still while the machine is stopped. It never runs backwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const NS_PER_SEC: u64 = 1_000_000_000;

/// The host's monotonic clock, in nanoseconds from an arbitrary start.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The host's wall clock, in nanoseconds since 1970-01-01 00:00 UTC.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * NS_PER_SEC + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A handle on the machine's virtual clock. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Follows the host's monotonic clock, `offset` nanoseconds behind it.
    Running { offset: u64 },
    /// Stands still.
    Stopped { at: u64 },
    /// Moves only by [`Clock::advance`]: device tests and `-accel qtest`.
    Manual { at: u64 },
}

impl Clock {
    /// A stopped clock that shows 0.
    #[must_use]
    pub fn stopped() -> Self {
        Self { state: Arc::new(Mutex::new(State::Stopped { at: 0 })) }
    }

    /// A clock that shows 0 and moves by [`Clock::advance`] only.
    #[must_use]
    pub fn manual() -> Self {
        Self { state: Arc::new(Mutex::new(State::Manual { at: 0 })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is one word that is always whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds of machine time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match *self.lock() {
            State::Running { offset } => monotonic_ns().saturating_sub(offset),
            State::Stopped { at } | State::Manual { at } => at,
        }
    }

    /// Whether time passes by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(*self.lock(), State::Running { .. })
    }

    /// Lets time pass; no effect on a running or manual clock.
    pub fn start(&self) {
        let mut state = self.lock();
        if let State::Stopped { at } = *state {
            *state = State::Running { offset: monotonic_ns().saturating_sub(at) };
        }
    }

    /// Freezes the time; no effect on a stopped or manual clock.
    pub fn stop(&self) {
        let mut state = self.lock();
        if let State::Running { offset } = *state {
            *state = State::Stopped { at: monotonic_ns().saturating_sub(offset) };
        }
    }

    /// From now on it moves by [`Clock::advance`] only.
    pub fn make_manual(&self) {
        let mut state = self.lock();
        let at = match *state {
            State::Running { offset } => monotonic_ns().saturating_sub(offset),
            State::Stopped { at } | State::Manual { at } => at,
        };
        *state = State::Manual { at };
    }

    /// Moves a manual clock on by `ns`; no effect on the others.
    pub fn advance(&self, ns: u64) {
        if let State::Manual { at } = &mut *self.lock() {
            *at = at.saturating_add(ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_stands_still() {
        let clock = Clock::stopped();
        assert_eq!(clock.now_ns(), 0);
        clock.start();
        while clock.now_ns() == 0 {}
        clock.stop();
        let at = clock.now_ns();
        assert_eq!(clock.now_ns(), at);
    }

    #[test]
    fn a_manual_clock_moves_by_command_only() {
        let clock = Clock::manual();
        clock.start();
        assert_eq!(clock.now_ns(), 0);
        clock.advance(5);
        assert_eq!(clock.now_ns(), 5);
    }

    #[test]
    fn a_clock_that_becomes_manual_keeps_its_time() {
        let clock = Clock::stopped();
        clock.start();
        while clock.now_ns() == 0 {}
        clock.make_manual();
        let at = clock.now_ns();
        clock.start();
        assert!(at > 0 && clock.now_ns() == at);
    }
}
