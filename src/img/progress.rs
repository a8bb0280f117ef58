//! How far a command is: the line of `-p`, the answer to SIGUSR1, and the end by a signal.
//!
//! A thread of its own reads the signals. Commands that change images ask [`Progress::check`] between their steps, so
//! that they end with everything in order; a second signal ends the process where it is.

use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};

use crate::host::signal;
use crate::host::signal::{Meaning, SignalFd};

/// Shared with the thread that reads the signals.
#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    /// The signal that asked for the end; 0: none yet.
    ended_by: AtomicI32,
}

impl Shared {
    fn hundredths(&self) -> u64 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if total == 0 {
            return 0;
        }
        u64::try_from(u128::from(done) * 10_000 / u128::from(total)).map_or(10_000, |part| part.min(10_000))
    }
}

/// How far a command is.
#[derive(Debug)]
pub(super) struct Progress {
    on: bool,
    shown: Option<u64>,
    shared: Arc<Shared>,
}

impl Progress {
    /// `on`: the line is shown. From now on signals are read instead of ending the process: call it before threads are
    /// started.
    pub(super) fn new(on: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let signals = [signal::TERMINATION, signal::REPORT].concat();
        // Without a descriptor for them, signals end the process as they do any other.
        if let Ok(signals) = SignalFd::block(&signals) {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || watch(&signals, &shared));
        }
        let mut progress = Self { on, shown: None, shared };
        progress.show(0, 1);
        progress
    }

    /// Without signals and without a line.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        Self { on: false, shown: None, shared: Arc::default() }
    }

    /// As if a signal had come.
    #[cfg(test)]
    pub(super) fn pretend_signal(&mut self, number: i32) {
        self.shared.ended_by.store(number, Ordering::Relaxed);
    }

    /// So much is done.
    pub(super) fn show(&mut self, done: u64, total: u64) {
        self.shared.done.store(done, Ordering::Relaxed);
        self.shared.total.store(total, Ordering::Relaxed);
        let now = if total == 0 { 10_000 } else { self.shared.hundredths() };
        // A change of less than one percent is not shown.
        let worth = self.shown.is_none_or(|shown| now > shown + 100) || now == 0 || now == 10_000;
        if self.on && worth {
            print!("    ({}.{:02}/100%)\r", now / 100, now % 100);
            // A closed standard output ends nothing here.
            let _ = io::stdout().flush();
            self.shown = Some(now);
        }
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        if self.on {
            println!();
        }
    }

    /// Whether the command may go on.
    ///
    /// # Errors
    /// [`Interrupted`] inside: a signal asked for the end.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.shared.ended_by.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(io::Error::other(Interrupted { signal })),
        }
    }
}

/// A signal asked for the end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted by {}", signal::name(*signal))]
pub(super) struct Interrupted {
    /// Its number.
    pub(super) signal: i32,
}

impl Interrupted {
    /// Whether that is what an error is about.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

fn watch(signals: &SignalFd, shared: &Shared) {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        // An interrupted call is tried again.
        let _ = poll(&mut fds, None);
        while let Some(signal) = signals.read() {
            if signal.meaning() == Meaning::Report {
                let now = shared.hundredths();
                eprintln!("    ({}.{:02}/100%)", now / 100, now % 100);
            } else if shared.ended_by.swap(signal.number, Ordering::Relaxed) != 0 {
                signal::end_by(signal.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_asked_for_the_end_stops_the_next_step() {
        let mut progress = Progress::silent();
        progress.check().unwrap();
        progress.pretend_signal(15);
        let error = progress.check().unwrap_err();
        assert_eq!(Interrupted::of(&error).unwrap().signal, 15);
        assert_eq!(error.to_string(), "interrupted by SIGTERM");
    }
}
