//! `-daemonize`, `-pidfile`, `-chroot`, `-runas`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::host::lock;
use crate::host::process::{self, Fork, User};
use crate::host::reason;
use crate::machine::config::ProcessSpec;

use super::start::StartError;

/// What the child tells the waiting parent: one byte, 0 for "runs".
#[derive(Debug)]
pub struct Parent {
    pipe: File,
}

/// Goes to the background. The parent waits until the machine runs, or its start fails, and ends with that status:
/// then this returns its status. In the child it returns the means to tell it.
///
/// # Errors
/// The host has no process or pipe left.
pub fn daemonize() -> Result<Result<Parent, u8>, StartError> {
    let host = |what| move |source: io::Error| StartError::Host { what, source };
    let (reader, writer): (OwnedFd, OwnedFd) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| host("daemonize")(e.into()))?;
    match process::fork().map_err(host("fork"))? {
        Fork::Parent => {
            drop(writer);
            let mut status = [1];
            // A child that dies without a word has failed.
            let _ = File::from(reader).read_exact(&mut status);
            Ok(Err(status[0]))
        }
        Fork::Child => {
            drop(reader);
            // Only a process group's leader could fail here, and a child is none.
            let _ = rustix::process::setsid();
            Ok(Ok(Parent { pipe: File::from(writer) }))
        }
    }
}

impl Parent {
    /// The machine runs: the parent may go, and the terminal with it.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn release(mut self) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        std::env::set_current_dir("/")?;
        // A parent that was killed needs no answer.
        let _ = self.pipe.write_all(&[0]);
        Ok(())
    }
}

/// A file with the process's number; it goes when the process ends in order.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Holds the lock that keeps a second process from the same file.
    _file: File,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written, or another process has it.
    pub fn create(path: &Path) -> Result<Self, StartError> {
        let fail = |what: &str, error: &io::Error| {
            StartError::Text(format!("cannot create PID file: {what}: {}", reason(error)))
        };
        let typed = path;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| fail(&format!("Could not create '{}'", typed.display()), &error))?;
        lock::lock_exclusive(std::os::fd::AsFd::as_fd(&file), 0, 0)
            .map_err(|error| fail("Cannot lock pid file", &error))?;
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| fail("Failed to write pid file", &error))?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have taken it away already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Finds the user of `-runas` before anything is built, as QEMU does.
///
/// # Errors
/// There is no such user.
pub fn find_user(spec: &ProcessSpec) -> Result<Option<User>, StartError> {
    let Some(name) = &spec.run_as else { return Ok(None) };
    let found = process::find_user(name);
    found.map(Some).ok_or_else(|| StartError::Text(format!("User \"{name}\" doesn't exist (and is not <uid>:<gid>)")))
}

/// Shuts the process in a folder and makes it another user's, once everything is open.
///
/// # Errors
/// The process may not.
pub fn drop_privileges(spec: &ProcessSpec, user: Option<&User>) -> Result<(), StartError> {
    if let Some(folder) = &spec.chroot {
        let entered = rustix::process::chroot(folder).and_then(|()| rustix::process::chdir("/"));
        entered.map_err(|_| StartError::Text("chroot failed".to_owned()))?;
    }
    if let Some(user) = user {
        process::become_user(user).map_err(|source| StartError::Host { what: "-runas", source })?;
    }
    Ok(())
}
