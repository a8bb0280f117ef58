//! Going to the background and giving up privileges.
#![expect(unsafe_code)] // UNSAFE: fork and the C library's user database

use std::ffi::CString;
use std::io;

/// Which side of a fork this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// The old process.
    Parent,
    /// The new one.
    Child,
}

/// Makes a second process out of this one. Only before the first thread is started: other threads do not come along.
///
/// # Errors
/// The host has no process left.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the caller has a single thread, so no lock is held by a thread that does not exist in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        _ => Ok(Fork::Parent),
    }
}

/// A user's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Name, for the supplementary groups; `None` if numbers were given.
    pub name: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Finds a user by name, or by "uid:gid".
#[must_use]
pub fn find_user(text: &str) -> Option<User> {
    if let Some((uid, gid)) = text.split_once(':') {
        return Some(User { name: None, uid: uid.parse().ok()?, gid: gid.parse().ok()? });
    }
    let name = CString::new(text).ok()?;
    // SAFETY: `name` is a C string; the process has a single thread that uses the user database.
    let entry = unsafe { libc::getpwnam(name.as_ptr()) };
    if entry.is_null() {
        return None;
    }
    // SAFETY: getpwnam returned a valid entry, which stays until the next call.
    let (uid, gid) = unsafe { ((*entry).pw_uid, (*entry).pw_gid) };
    Some(User { name: Some(text.to_owned()), uid, gid })
}

/// Becomes `user` for good: groups, group, user.
///
/// # Errors
/// This process may not, or could come back.
pub fn become_user(user: &User) -> io::Result<()> {
    let groups = match &user.name {
        Some(name) => {
            let name = CString::new(name.as_str()).map_err(io::Error::other)?;
            // SAFETY: `name` is a C string that lives through the call.
            unsafe { libc::initgroups(name.as_ptr(), user.gid) }
        }
        // SAFETY: one group, read from a live variable.
        None => unsafe { libc::setgroups(1, &raw const user.gid) },
    };
    // SAFETY: setgid and setuid take plain numbers and change all threads of the process.
    if groups != 0 || unsafe { libc::setgid(user.gid) } != 0 || unsafe { libc::setuid(user.uid) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; it must fail now.
    if user.uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(io::Error::other("privileges could not be dropped"));
    }
    Ok(())
}

/// Ends the process by SIGABRT.
pub fn abort() -> ! {
    std::process::abort()
}

/// Sends this process a signal.
///
/// # Errors
/// There is no such signal.
pub fn raise(signal: i32) -> io::Result<()> {
    // SAFETY: raise(3) takes any number; what a handler does is the handler's business.
    if unsafe { libc::raise(signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_numbers() {
        assert_eq!(find_user("root").map(|u| (u.uid, u.gid)), Some((0, 0)));
        assert_eq!(find_user("12:34").map(|u| (u.uid, u.gid)), Some((12, 34)));
        assert_eq!(find_user("no such user"), None);
    }
}
