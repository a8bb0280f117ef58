//! Serial lines: what termios has no call for.
#![expect(unsafe_code)] // UNSAFE: rustix has no TIOCSBRK

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Starts or ends a break on a serial line (tty_ioctl(4)).
///
/// # Errors
/// It is no serial line.
pub fn set_break(fd: impl AsFd, on: bool) -> io::Result<()> {
    let request = if on { libc::TIOCSBRK } else { libc::TIOCCBRK };
    // SAFETY: the descriptor is open while it is borrowed, and these requests take no argument.
    if unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pipe_has_no_break() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(super::set_break(&reader, true).is_err());
    }
}
