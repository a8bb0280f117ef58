//! The timer (Intel SDM volume 3, 11.5.4), computed from the virtual clock: its input runs at 1 GHz of machine time, as
//! the time-stamp counter does.

use super::spec::lvt;

/// A periodic timer is served no more often than this, so that a guest cannot drown the host; the matches in between
/// are lost, the phase is kept.
const MIN_PERIOD_NS: u64 = 100_000;

/// The timer's registers and its next match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimerRegs {
    pub(super) initial: u32,
    pub(super) divide: u32,
    /// When the present count began, or would have, in nanoseconds of machine time (modulo 2^64).
    started_ns: u64,
    /// When it next reaches zero, or the deadline comes.
    due_ns: Option<u64>,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    pub(super) tsc_deadline: u64,
}

impl TimerRegs {
    pub(super) const COLD: Self = Self { initial: 0, divide: 0, started_ns: 0, due_ns: None, tsc_deadline: 0 };

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Nanoseconds a count, by the divide configuration register (figure 11-10): bits 3, 1 and 0.
    fn divisor(&self) -> u64 {
        let code = ((self.divide >> 1 & 4 | self.divide & 3) + 1) & 7;
        1 << code
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    /// The current count register.
    pub(super) fn current(&self, mode: u32, now: u64) -> u32 {
        if self.initial == 0 || mode == lvt::TIMER_TSC_DEADLINE {
            return 0;
        }
        let mut counted = now.wrapping_sub(self.started_ns) / self.divisor();
        if mode == lvt::TIMER_PERIODIC {
            counted %= u64::from(self.initial);
        }
        u32::try_from(u64::from(self.initial).saturating_sub(counted)).unwrap_or(0)
    }

    /// Starts a count, or stops the timer with 0.
    pub(super) fn start(&mut self, initial: u32, mode: u32, now: u64) {
        if mode == lvt::TIMER_TSC_DEADLINE {
            return;
        }
        self.initial = initial;
        self.started_ns = now;
        self.schedule(mode, now);
    }

    /// Changes the divisor; the count goes on from where it is.
    pub(super) fn set_divide(&mut self, divide: u32, mode: u32, now: u64) {
        let counted = u64::from(self.initial - self.current(mode, now));
        self.divide = divide & 0xb;
        self.started_ns = now.wrapping_sub(counted * self.divisor());
        if mode != lvt::TIMER_TSC_DEADLINE {
            self.schedule(mode, now);
        }
    }

    /// The local vector's mode changes. Between the deadline mode and the others the timer is disarmed (11.5.4.1).
    pub(super) fn change_mode(&mut self, old: u32, new: u32, now: u64) {
        if old == new {
            return;
        }
        if old == lvt::TIMER_TSC_DEADLINE || new == lvt::TIMER_TSC_DEADLINE {
            self.initial = 0;
            self.tsc_deadline = 0;
            self.due_ns = None;
            return;
        }
        self.schedule(new, now);
    }

    /// Finds the next match after `now`; a one-shot count that has ended has none.
    fn schedule(&mut self, mode: u32, now: u64) {
        let period = self.period_ns();
        let elapsed = now.wrapping_sub(self.started_ns);
        let left = match elapsed.checked_div(period) {
            Some(0) => period - elapsed,
            Some(_) if mode == lvt::TIMER_PERIODIC => period - elapsed % period,
            _ => {
                self.due_ns = None;
                return;
            }
        };
        self.due_ns = Some(now.saturating_add(left));
    }

    /// Writes IA32_TSC_DEADLINE. `tsc_now` is the guest's counter at `now`. Whether it is due at once.
    pub(super) fn set_tsc_deadline(&mut self, deadline: u64, tsc_now: u64, now: u64) -> bool {
        self.tsc_deadline = deadline;
        self.due_ns = None;
        if deadline == 0 {
            return false;
        }
        if deadline <= tsc_now {
            self.tsc_deadline = 0;
            return true;
        }
        self.due_ns = Some(now.saturating_add(deadline - tsc_now));
        false
    }

    /// Whether the match has come by `now`; if so, looks for the next.
    pub(super) fn expire(&mut self, mode: u32, now: u64) -> bool {
        if self.due_ns.is_none_or(|due| due > now) {
            return false;
        }
        self.due_ns = None;
        if mode == lvt::TIMER_TSC_DEADLINE {
            self.tsc_deadline = 0;
        } else if mode == lvt::TIMER_PERIODIC {
            // Matches lie on multiples of the period since the start, however late the host is.
            let pause = if self.period_ns() < MIN_PERIOD_NS { MIN_PERIOD_NS } else { 0 };
            self.schedule(mode, now.saturating_add(pause));
        }
        true
    }
}
