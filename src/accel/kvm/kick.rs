//! Getting a vCPU out of the guest, from any thread.
//!
//! A kick sets a flag, then `immediate_exit` in the vCPU's shared page, then sends the thread a signal. Whatever the
//! vCPU thread does meanwhile, one of the three stops it: before `KVM_RUN` the flag, on its way into the kernel
//! `immediate_exit`, in the guest the signal. The signal's handler does nothing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// The running vCPU thread.
#[derive(Debug)]
struct Target {
    process: libc::pid_t,
    thread: libc::pid_t,
    /// `kvm_run::immediate_exit`.
    immediate_exit: *mut u8,
}

// SAFETY: the pointer is used only while the target is in `Kicker::target`, that is while the mapping exists, and only
// for atomic accesses to one byte that only user space writes.
unsafe impl Send for Target {}

/// One vCPU's kicker. It outlives the vCPU and its thread; kicks after that do nothing.
#[derive(Debug, Default)]
pub(super) struct Kicker {
    kicked: AtomicBool,
    target: Mutex<Option<Target>>,
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// The signal that interrupts `KVM_RUN`: a real-time one that neither libc nor Rust's runtime uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is valid (no flags, empty mask); its fields are set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // Other system calls that a late kick meets go on; KVM_RUN returns EINTR all the same.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` is initialised, its handler does nothing and so is async-signal-safe.
        unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
    });
}

/// Lets the kick signal reach the calling thread, which may have inherited a mask that blocks it.
fn unblock_signal() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is valid storage, which sigemptyset initialises next.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: `set` is a valid signal set and the number is that of a real-time signal.
    unsafe { libc::sigaddset(&raw mut set, signal()) };
    // SAFETY: `set` is a valid signal set; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

impl Kicker {
    /// Makes the calling thread the target. `immediate_exit` is the vCPU's byte of that name.
    ///
    /// # Safety
    /// The byte stays mapped until [`Kicker::detach`] has returned, and nobody makes a Rust reference to it.
    pub(super) unsafe fn attach(self: &Arc<Self>, immediate_exit: *mut u8) -> io::Result<()> {
        install_handler();
        unblock_signal()?;
        // SAFETY: gettid has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        // SAFETY: getpid has no arguments and cannot fail.
        let process = unsafe { libc::getpid() };
        *self.lock() = Some(Target { process, thread, immediate_exit });
        Ok(())
    }

    /// The vCPU is about to go away.
    pub(super) fn detach(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Target>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the vCPU's `run` return `Exit::Kicked`.
    pub(super) fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.nudge();
    }

    /// Interrupts `KVM_RUN` once, without a reason that `run` would report.
    pub(super) fn nudge(&self) {
        let target = self.lock();
        let Some(target) = target.as_ref() else { return };
        // SAFETY: the byte is mapped while the target is set (contract of `attach`), and it is only accessed atomically.
        let immediate_exit = unsafe { AtomicU8::from_ptr(target.immediate_exit) };
        immediate_exit.store(1, Ordering::SeqCst);
        // SAFETY: sends a signal whose handler does nothing; the thread lives while the target is set.
        unsafe { libc::syscall(libc::SYS_tgkill, target.process, target.thread, signal()) };
    }

    /// Whether there was a kick that nobody took yet.
    pub(super) fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::SeqCst)
    }

    /// Whether there was a kick since the last call.
    pub(super) fn take(&self) -> bool {
        // The load keeps the common case free of a locked instruction.
        self.kicked.load(Ordering::SeqCst) && self.kicked.swap(false, Ordering::SeqCst)
    }

    /// Clears `immediate_exit` after it did its work. What was kicked before is then visible to [`Kicker::take`].
    pub(super) fn rearm(&self) {
        if let Some(target) = self.lock().as_ref() {
            // SAFETY: as in `nudge`.
            unsafe { AtomicU8::from_ptr(target.immediate_exit) }.swap(0, Ordering::SeqCst);
        }
    }
}
