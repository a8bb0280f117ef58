//! Byte-range locks that belong to an open file description (`F_OFD_SETLK`, fcntl(2)): what QEMU's image locking is
//! made of, and what keeps a process's number file. Who conflicts with whom is the caller's protocol.

#![expect(unsafe_code)] // UNSAFE: fcntl with a flock

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes a shared lock on `len` bytes at `start`.
///
/// # Errors
/// Another description holds an exclusive lock there, or the file system has no locks.
pub fn lock_shared(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    set(fd, libc::F_RDLCK, start, len)
}

/// Takes an exclusive lock on `len` bytes at `start`; 0 bytes reach to the end of the file.
///
/// # Errors
/// Another description holds a lock there, or the file system has no locks.
pub fn lock_exclusive(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    set(fd, libc::F_WRLCK, start, len)
}

/// Drops this description's locks on `len` bytes at `start`.
///
/// # Errors
/// The file system has no locks.
pub fn unlock(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    set(fd, libc::F_UNLCK, start, len)
}

/// Whether another description holds any lock in the range.
///
/// # Errors
/// The file system has no locks.
pub fn others_hold(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<bool> {
    let mut range = flock(libc::F_WRLCK, start, len)?;
    // SAFETY: the descriptor is borrowed for the call and `range` is a live, initialised `flock`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut range) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::from(range.l_type) != libc::F_UNLCK) }
}

fn set(fd: BorrowedFd<'_>, kind: i32, start: u64, len: u64) -> io::Result<()> {
    let range = flock(kind, start, len)?;
    // SAFETY: the descriptor is borrowed for the call and `range` is a live, initialised `flock`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn flock(kind: i32, start: u64, len: u64) -> io::Result<libc::flock> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(invalid)?,
        l_whence: 0, // SEEK_SET
        l_start: i64::try_from(start).map_err(invalid)?,
        l_len: i64::try_from(len).map_err(invalid)?,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn another_description_sees_the_lock_until_it_is_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (File::open(file.path()).unwrap(), File::open(file.path()).unwrap());
        lock_shared(a.as_fd(), 100, 2).unwrap();
        assert!(others_hold(b.as_fd(), 101, 1).unwrap());
        assert!(!others_hold(a.as_fd(), 101, 1).unwrap());
        assert!(!others_hold(b.as_fd(), 102, 1).unwrap());
        unlock(a.as_fd(), 101, 1).unwrap();
        assert!(!others_hold(b.as_fd(), 101, 1).unwrap());
    }
}
