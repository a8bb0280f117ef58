//! Recovery from exceptions in generated code: SIGFPE, SIGILL, SIGSEGV and SIGBUS that arise there go on at an address
//! that the code chose. All others go where they went before.
#![expect(unsafe_code)] // UNSAFE: signal handlers and the machine context they get

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use libc::{REG_RAX, REG_RIP, c_int, c_void, sigaction, siginfo_t, ucontext_t};

/// The signals of the exceptions that code can raise.
const SIGNALS: [c_int; 4] = [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS];

/// RAX at the address where execution goes on: this bit, and the signal's number.
pub const TRAPPED: u32 = 1 << 31;

/// A floating-point exception.
pub const SIGFPE: u32 = libc::SIGFPE as u32;

/// An instruction that the host's processor has not.
pub const SIGILL: u32 = libc::SIGILL as u32;

struct Recovery {
    code: Range<usize>,
    resume: usize,
    before: [sigaction; 4],
}

/// Written once, before any handler is installed: handlers only read it.
static RECOVERY: OnceLock<Recovery> = OnceLock::new();

/// From now on, exceptions of code in `code` continue at `resume`, with RAX telling which it was. The second call and
/// later ones do nothing.
///
/// # Errors
/// The host refuses a handler.
pub fn recover(code: Range<usize>, resume: usize) -> io::Result<()> {
    let mut before = [empty_action(); 4];
    for (signal, before) in SIGNALS.iter().zip(&mut before) {
        // SAFETY: a null new action only asks; `before` is writable.
        if unsafe { sigaction(*signal, ptr::null(), before) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if RECOVERY.set(Recovery { code, resume, before }).is_err() {
        return Ok(());
    }
    let mut action = empty_action();
    action.sa_sigaction = on_signal as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    for signal in SIGNALS {
        // SAFETY: the action is complete, and its handler touches only what is async-signal-safe.
        if unsafe { sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn empty_action() -> sigaction {
    // SAFETY: all zeros is a valid sigaction: SIG_DFL, no flags, an empty mask.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(recovery) = RECOVERY.get() else { return };
    // SAFETY: SA_SIGINFO handlers get the interrupted thread's context, which is theirs to change until they return.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    if recovery.code.contains(&(registers[REG_RIP as usize] as usize)) {
        registers[REG_RAX as usize] = i64::from(TRAPPED | signal as u32);
        registers[REG_RIP as usize] = recovery.resume as i64;
        return;
    }
    let place = SIGNALS.iter().position(|known| *known == signal).unwrap_or(0);
    pass_on(&recovery.before[place], signal, info, context);
}

/// What would have happened without us.
fn pass_on(before: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    if before.sa_sigaction == libc::SIG_IGN {
        return;
    }
    if before.sa_sigaction == libc::SIG_DFL {
        let action = empty_action();
        // SAFETY: the default action needs no handler.
        unsafe { sigaction(signal, &raw const action, ptr::null_mut()) };
        // SAFETY: the signal is blocked in its own handler; it arrives when this returns.
        unsafe { libc::raise(signal) };
        return;
    }
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with SA_SIGINFO the address is that of a function of three arguments.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: without it, of a function of one.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(signal);
    }
}
