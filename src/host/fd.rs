//! Descriptors that this process inherited and is told about by number (`fd=33`).
#![expect(unsafe_code)] // UNSAFE: only the caller's word says that a number is a descriptor of its own

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::FdFlags;
use rustix::net::SocketType;

/// Numbers that were taken: each has one owner.
static TAKEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Takes the inherited stream or datagram socket with this number; it will not be inherited any further.
///
/// # Errors
/// `ENOTSOCK`: it is no socket. `EBUSY`: it was taken before.
pub fn take_socket(number: i32) -> io::Result<(OwnedFd, SocketType)> {
    if number < 0 {
        return Err(rustix::io::Errno::NOTSOCK.into());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(rustix::io::Errno::BUSY.into());
    }
    // SAFETY: the borrow ends with the two calls below; a number that is not open makes them fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let kind = rustix::net::sockopt::socket_type(borrowed)?;
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    taken.insert(number);
    // SAFETY: it is an open socket that whoever started us meant for this use, and `TAKEN` lets nobody else own it.
    Ok((unsafe { OwnedFd::from_raw_fd(number) }, kind))
}

/// Takes an inherited descriptor of any kind, as [`take_socket`].
///
/// # Errors
/// `EBADF`: it is not open. `EBUSY`: it was taken before.
pub fn take(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(rustix::io::Errno::BUSY.into());
    }
    // SAFETY: the borrow ends with the call below; a number that is not open makes it fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    taken.insert(number);
    // SAFETY: it is open, whoever started us meant it for this use, and `TAKEN` lets nobody else own it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_socket_is_taken_once() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = ours.into_raw_fd();
        let (_fd, kind) = take_socket(number).unwrap();
        assert_eq!(kind, SocketType::STREAM);
        assert_eq!(take_socket(number).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn what_is_no_socket_stays() {
        assert_eq!(take_socket(-1).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(take_socket(1 << 20).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
