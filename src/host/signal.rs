//! Signals as a file descriptor (signalfd(2)).
#![expect(unsafe_code)] // UNSAFE: rustix offers neither signal masks nor signalfd

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signals that ask the process to end.
pub const TERMINATION: &[i32] = &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Asks a long command how far it is.
pub const REPORT: &[i32] = &[libc::SIGUSR1];

/// A terminal's job control: stop, and go on.
pub const JOB_CONTROL: &[i32] = &[libc::SIGTSTP, libc::SIGCONT];

/// What a signal asks of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// End in order.
    End,
    /// Say how far it is.
    Report,
    /// Stop until it is continued.
    Stop,
    /// It was stopped and goes on.
    Continue,
}

/// Blocked signals, read as messages. Threads started after [`SignalFd::block`] inherit the block.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

/// A signal that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// The process that sent it, 0 if the kernel did.
    pub sender: u32,
}

impl Signal {
    /// What it asks for.
    #[must_use]
    pub fn meaning(self) -> Meaning {
        match self.number {
            libc::SIGUSR1 => Meaning::Report,
            libc::SIGTSTP => Meaning::Stop,
            libc::SIGCONT => Meaning::Continue,
            _ => Meaning::End,
        }
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        name(self.number)
    }
}

/// A signal's name, for messages.
#[must_use]
pub fn name(number: i32) -> &'static str {
    match number {
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        _ => "signal",
    }
}

impl SignalFd {
    /// Blocks `signals` in this thread and reads them from a descriptor instead.
    ///
    /// # Errors
    /// A signal number is invalid or the host has no descriptors left.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal, if one waits.
    #[must_use]
    pub fn read(&self) -> Option<Signal> {
        // struct signalfd_siginfo (signalfd(2)): ssi_signo at 0, ssi_pid at 12, 128 bytes in all.
        let mut bytes = [0u8; 128];
        match rustix::io::read(&self.fd, &mut bytes) {
            Ok(128) => Some(Signal {
                number: i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                sender: u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
            }),
            _ => None,
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in signals {
        // SAFETY: `set` is an initialised signal set of this frame.
        if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; a null old set is allowed (pthread_sigmask(3)).
    match unsafe { libc::pthread_sigmask(how, std::ptr::from_ref(set), std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Lets a SIGTSTP that was read have its effect: the process stops, and this returns when it goes on. At once where
/// there is no shell that could continue it (setpgid(2), orphaned process groups).
///
/// # Errors
/// The host refuses.
pub fn stop_for_terminal() -> io::Result<()> {
    let set = set_of(&[libc::SIGTSTP])?;
    // SAFETY: the signal goes to this thread, which blocks it until the next line.
    unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTSTP) };
    mask(libc::SIG_UNBLOCK, &set)?;
    mask(libc::SIG_BLOCK, &set)
}

/// Ends the process by a signal that was read, so that whoever waits for it sees how it ended.
pub fn end_by(number: i32) -> ! {
    // SAFETY: SIG_DFL is a valid disposition; the handlers that Rust's start-up set are not for these signals.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    if let Ok(set) = set_of(&[number]) {
        // A mask that cannot be changed leaves the exit below.
        let _ = mask(libc::SIG_UNBLOCK, &set);
    }
    // SAFETY: the signal goes to this thread and ends the process.
    unsafe { libc::pthread_kill(libc::pthread_self(), number) };
    // Where it is ignored: the status that shells show for it.
    std::process::exit(128 + number)
}

/// Lets writes to closed pipes and sockets fail instead of ending the process.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition and no handler of ours is replaced; Rust's start-up does the same.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        let signals = SignalFd::block(&[libc::SIGWINCH]).unwrap();
        assert_eq!(signals.read(), None);
        // SAFETY: the signal goes to this thread, which blocks it.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGWINCH) };
        assert_eq!(signals.read().map(|s| s.number), Some(libc::SIGWINCH));
    }
}
