//! Everything that needs the host operating system beyond what rustix offers safely: all other `libc` calls and their
//! `unsafe` live here, each wrapped once.

pub mod barrier;
pub mod code;
pub mod fd;
pub mod lock;
pub mod process;
pub mod signal;
pub mod tap;
pub mod trap;
pub mod tty;
pub mod zone;

/// The host's words for an error, as C programs print them: without Rust's "(os error n)".
#[must_use]
pub fn reason(error: &std::io::Error) -> String {
    if error.raw_os_error().is_none() && error.get_ref().is_none() {
        // An error of ours: the words of the errno that stands for it.
        return plain_reason(error);
    }
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

pub use libc::{EACCES, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, ENOTSUP, EPERM, EROFS, ESHUTDOWN};

/// The errno that stands for an error; EIO where the host has none.
#[must_use]
pub fn errno(error: &std::io::Error) -> i32 {
    use std::io::ErrorKind;
    if let Some(code) = error.raw_os_error() {
        return code;
    }
    match error.kind() {
        ErrorKind::Unsupported => libc::ENOTSUP,
        ErrorKind::PermissionDenied => libc::EPERM,
        ErrorKind::InvalidInput => libc::EINVAL,
        ErrorKind::OutOfMemory => libc::ENOMEM,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        _ => libc::EIO,
    }
}

/// The host's words for an error, as a C program has them that knows its errno only.
#[must_use]
pub fn plain_reason(error: &std::io::Error) -> String {
    reason(&std::io::Error::from_raw_os_error(errno(error)))
}
