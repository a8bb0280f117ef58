//! `file` and `pipe`: output to a file or a fifo, input from another.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::event::LoopHandle;

use super::backend::{Backend, Plain, open_now};
use super::inlet::Inlet;
use super::spec::{OpenError, Spec};
use super::stream::{AtEnd, Descriptors, Stream};

/// Reads and writes of this descriptor's open file description fail instead of waiting.
pub(super) fn set_nonblocking(fd: &OwnedFd) -> Result<(), OpenError> {
    let set = || rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK);
    set().map_err(|e: rustix::io::Errno| {
        OpenError(format!("Failed to set FD nonblocking: {}", crate::host::reason(&e.into())))
    })
}

fn plain(
    handle: &LoopHandle,
    inlet: &Arc<Inlet>,
    filename: &'static str,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
) -> Result<Arc<dyn Backend>, OpenError> {
    for fd in [&input, &output].into_iter().flatten() {
        set_nonblocking(fd)?;
    }
    let stream = Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::KeepOutput, || ());
    stream.connect(Descriptors { input: input.map(Arc::new), output: output.map(Arc::new) }, None);
    Ok(open_now(inlet, Plain { stream, filename }))
}

/// `file`.
pub(super) fn open_file(spec: &Spec, handle: &LoopHandle, inlet: &Arc<Inlet>) -> Result<Arc<dyn Backend>, OpenError> {
    let Some(path) = spec.get("path") else {
        return Err(OpenError("chardev: file: no filename given".to_owned()));
    };
    let append = spec.flag("append")?.unwrap_or(false);
    let output = OpenOptions::new()
        .write(true)
        .create(true)
        .append(append)
        .truncate(!append)
        .mode(0o666)
        .open(path)
        .map_err(|e| OpenError::open(path, &e))?;
    let input = match spec.get("input-path") {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().read(true).open(path).map_err(|e| OpenError::open(path, &e))?;
            Some(OwnedFd::from(file))
        }
    };
    plain(handle, inlet, "file", input, Some(output.into()))
}

/// `pipe`: the fifos `path.in` and `path.out`, or one path for both directions.
pub(super) fn open_pipe(spec: &Spec, handle: &LoopHandle, inlet: &Arc<Inlet>) -> Result<Arc<dyn Backend>, OpenError> {
    let Some(path) = spec.get("path") else {
        return Err(OpenError("chardev: pipe: no device path given".to_owned()));
    };
    // Reading and writing, so that opening a fifo does not wait and its end is never seen.
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path);
    if let (Ok(input), Ok(output)) = (open(&format!("{path}.in")), open(&format!("{path}.out"))) {
        return plain(handle, inlet, "pipe", Some(input.into()), Some(output.into()));
    }
    let both = open(path).map_err(|e| OpenError::open(path, &e))?;
    let is_fifo = both.metadata().is_ok_and(|data| data.file_type().is_fifo());
    let both = OwnedFd::from(both);
    if is_fifo {
        // One fifo, opened for both, would echo our own output.
        log::warn!("{path}: a single fifo gives back what is written to it; make {path}.in and {path}.out");
    }
    set_nonblocking(&both)?;
    let stream = Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::KeepOutput, || ());
    stream.connect(Descriptors::both(both), None);
    Ok(open_now(inlet, Plain { stream, filename: "pipe" }))
}
