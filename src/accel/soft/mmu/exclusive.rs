//! Standing still: what no single instruction of the host can do under LOCK (an operand across two pages that are not
//! side by side in the host, or on a device), one processor does while no other executes.
//!
//! A processor is *active* from [`Cpu::begin_active`] to [`Cpu::end_active`]: while it executes instructions, not while
//! it sleeps in HLT. Who wants to be alone raises [`Signals::EXCLUSIVE`] at all others and waits until none is active;
//! an active one that sees the signal calls [`Cpu::stand_still`] between two instructions. Those that come back from
//! sleep wait as well. While one waits to be alone it counts as not active, so that two of them do not wait for each
//! other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::super::cpu::Cpu;
use super::super::signals::Signals;

/// Who executes, and whether somebody is alone.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Arc<Signals>>,
    active: u32,
    /// Somebody is alone or waits to be.
    claimed: bool,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed.wait_while(state, |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, signals: &Arc<Signals>) {
        self.lock().members.push(Arc::clone(signals));
    }

    pub(super) fn part(&self, signals: &Arc<Signals>) {
        self.lock().members.retain(|member| !Arc::ptr_eq(member, signals));
    }

    fn begin(&self) {
        self.wait_while(|state| state.claimed).active += 1;
    }

    fn end(&self) {
        self.lock().active -= 1;
        self.changed.notify_all();
    }

    /// Waits until nobody else executes. `active`: the caller does; `own`: its signals.
    fn claim(&self, active: bool, own: &Arc<Signals>) {
        if active {
            self.end();
        }
        let mut state = self.wait_while(|state| state.claimed);
        state.claimed = true;
        for member in state.members.iter().filter(|member| !Arc::ptr_eq(member, own)) {
            member.raise(Signals::EXCLUSIVE);
        }
        drop(self.changed.wait_while(state, |state| state.active != 0).unwrap_or_else(PoisonError::into_inner));
    }

    fn release(&self, active: bool) {
        let mut state = self.lock();
        state.claimed = false;
        state.active += u32::from(active);
        drop(state);
        self.changed.notify_all();
    }
}

impl Cpu {
    /// The processor is about to execute; waits while another one is alone.
    pub fn begin_active(&mut self) {
        if !self.mmu.active
            && let Some(shared) = &self.mmu.shared
        {
            shared.crowd().begin();
            self.mmu.active = true;
        }
    }

    /// It stops executing.
    pub fn end_active(&mut self) {
        if self.mmu.active
            && let Some(shared) = &self.mmu.shared
        {
            shared.crowd().end();
            self.mmu.active = false;
        }
    }

    /// Between two instructions, after [`Signals::EXCLUSIVE`]: waits for whoever wants to be alone.
    pub fn stand_still(&mut self) {
        self.signals.take(Signals::EXCLUSIVE);
        if self.mmu.active {
            self.end_active();
            self.begin_active();
        }
    }

    /// Calls `act` while no other processor executes.
    pub(super) fn alone<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let Some(shared) = self.mmu.shared.clone() else { return act(self) };
        let active = self.mmu.active;
        shared.crowd().claim(active, &self.signals);
        let result = act(self);
        shared.crowd().release(active);
        result
    }
}
