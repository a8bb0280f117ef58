//! `-icount`: the processor's instructions are the virtual clock.
//!
//! Each instruction takes `2^shift` virtual nanoseconds. Timers are run by the processor's own thread at the
//! instruction at which they are due, so a run repeats exactly as long as nothing from outside comes in. While the
//! processor is halted, time jumps to the next timer.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Clock, LoopHandle};

use super::cpu::{Activity, Cpu, rflags};
use super::signals::Signals;

/// The most instructions between two looks at the timers.
const SLICE: u64 = 1 << 20;

/// How instructions and time belong together.
#[derive(Clone, Debug)]
pub struct Counting {
    /// Virtual nanoseconds of an instruction, as a power of two: 0 to 10.
    pub shift: u32,
    /// The timers.
    pub timers: LoopHandle,
    /// Instructions that the clock has counted.
    counted: u64,
}

impl Counting {
    /// Counts from now on.
    #[must_use]
    pub fn new(shift: u32, timers: LoopHandle) -> Self {
        Self { shift, timers, counted: 0 }
    }

    fn clock(&self) -> Clock {
        self.timers.clock()
    }

    /// How many instructions there are up to the next timer, as far as the clock has counted; 0: it is due.
    fn left(&self) -> u64 {
        let now = self.clock().now_ns();
        let next = self.timers.next_virtual_deadline();
        next.map_or(SLICE, |at| at.saturating_sub(now).div_ceil(1 << self.shift)).min(SLICE)
    }
}

impl Cpu {
    /// Lets the clock show the instructions executed so far. Devices and the time-stamp counter are asked after it.
    #[inline(always)]
    pub fn count_time(&mut self) {
        if self.counting.is_some() {
            self.count_time_slowly();
        }
    }

    #[cold]
    fn count_time_slowly(&mut self) {
        let executed = self.executed;
        if let Some(counting) = &mut self.counting {
            let new = executed.wrapping_sub(counting.counted);
            counting.counted = executed;
            counting.clock().advance(new << counting.shift);
        }
    }

    /// After an access that may have set a timer: the processor stops for it in time.
    #[inline(always)]
    pub fn follow_timers(&mut self) {
        if let Some(counting) = &self.counting {
            self.budget = self.budget.min(counting.left());
        }
    }

    /// Executes up to the next timer, and runs the timers that are due then. Without `-icount` there is no limit.
    pub fn execute_counted(&mut self) {
        let Some(counting) = &self.counting else {
            self.budget = if self.one_instruction_blocks { 1 } else { u64::MAX };
            self.execute();
            return;
        };
        let timers = counting.timers.clone();
        self.budget = if self.one_instruction_blocks { 1 } else { counting.left().max(1) };
        self.execute();
        self.count_time();
        timers.run_virtual_timers();
    }

    /// Executes one instruction, and runs the timers that are due then.
    pub fn step_counted(&mut self) {
        self.step();
        if let Some(counting) = &self.counting {
            let timers = counting.timers.clone();
            self.count_time();
            timers.run_virtual_timers();
        }
    }

    /// The processor is halted until one of `wakes`: the clock goes on to the next timer.
    pub fn halt_counted(&mut self, wakes: u32) {
        let signals = Arc::clone(&self.signals);
        let Some(counting) = &self.counting else {
            signals.wait(wakes, None);
            return;
        };
        halt(counting, &signals, wakes);
    }

    /// What ends the wait of a halted processor.
    #[must_use]
    pub fn wakes(&self) -> u32 {
        let always = Signals::INIT | Signals::KICK | Signals::MEMORY;
        match self.activity {
            Activity::WaitForStartUp => always | Signals::START_UP,
            _ if self.flags & rflags::IF == 0 => always | Signals::NMI | Signals::SMI,
            _ => always | Signals::NMI | Signals::SMI | Signals::INTERRUPT,
        }
    }
}

fn halt(counting: &Counting, signals: &Signals, wakes: u32) {
    if signals.pending() & wakes != 0 {
        return;
    }
    let clock = counting.clock();
    let Some(deadline) = counting.timers.next_virtual_deadline() else {
        // Only something from outside can go on from here, or a timer that it sets: look again now and then.
        signals.wait(wakes, Some(Duration::from_millis(10)));
        return;
    };
    clock.advance(deadline.saturating_sub(clock.now_ns()));
    counting.timers.run_virtual_timers();
}
