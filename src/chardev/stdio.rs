//! `stdio`: the process's own terminal, or whatever its standard input and output are.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags};

use crate::event::LoopHandle;

use super::backend::{Backend, open_now};
use super::handle::CharOutput;
use super::inlet::Inlet;
use super::spec::{OpenError, Spec};
use super::stream::{AtEnd, Descriptors, Stream};
use super::terminal::Terminal;
use crate::host::reason;

/// The process has one standard input.
static IN_USE: AtomicBool = AtomicBool::new(false);

struct Stdio {
    stream: Arc<Stream>,
    terminal: Terminal,
    /// The output's flags before, where they are shared with whoever started us.
    flags: Option<(Arc<OwnedFd>, OFlags)>,
    closed: AtomicBool,
}

fn failed(error: rustix::io::Errno) -> OpenError {
    OpenError(format!("cannot use stdio: {}", reason(&error.into())))
}

/// The output: of its own and non-blocking where that can be had, so that the shell's terminal stays as it is.
fn open_output(flags: &mut Option<(Arc<OwnedFd>, OFlags)>) -> Result<Arc<OwnedFd>, OpenError> {
    let stdout = rustix::stdio::stdout();
    let kind = FileType::from_raw_mode(rustix::fs::fstat(stdout).map_err(failed)?.st_mode);
    if matches!(kind, FileType::CharacterDevice | FileType::Fifo) {
        let how = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Ok(own) = rustix::fs::open("/proc/self/fd/1", how, Mode::empty()) {
            return Ok(Arc::new(own));
        }
    }
    let output = Arc::new(rustix::io::fcntl_dupfd_cloexec(stdout, 3).map_err(failed)?);
    if kind != FileType::RegularFile {
        let before = rustix::fs::fcntl_getfl(&output).map_err(failed)?;
        rustix::fs::fcntl_setfl(&output, before | OFlags::NONBLOCK).map_err(failed)?;
        *flags = Some((Arc::clone(&output), before));
    }
    Ok(output)
}

/// Opens `stdio`.
pub(super) fn open(spec: &Spec, handle: &LoopHandle, inlet: &Arc<Inlet>) -> Result<Arc<dyn Backend>, OpenError> {
    let signals = spec.flag("signal")?.unwrap_or(true);
    if IN_USE.swap(true, Ordering::AcqRel) {
        return Err(OpenError("cannot use stdio by multiple character devices".to_owned()));
    }
    let open = || {
        let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin().as_fd(), 3).map_err(failed)?;
        let input = Arc::new(input);
        let mut flags = None;
        let output = open_output(&mut flags)?;
        let terminal = Terminal::make_raw(Arc::clone(&input), signals);
        let stream = Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::KeepOutput, || ());
        stream.connect(Descriptors { input: Some(input), output: Some(output) }, None);
        Ok(Stdio { stream, terminal, flags, closed: AtomicBool::new(false) })
    };
    match open() {
        Ok(stdio) => Ok(open_now(inlet, stdio)),
        Err(error) => {
            IN_USE.store(false, Ordering::Release);
            Err(error)
        }
    }
}

impl CharOutput for Stdio {
    fn write(&self, data: &[u8]) -> usize {
        self.stream.write(data)
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }
}

impl Backend for Stdio {
    fn filename(&self) -> String {
        "stdio".to_owned()
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.stream.drain();
        self.stream.drop_connection();
        self.terminal.suspend();
        if let Some((fd, before)) = &self.flags {
            // Best effort: the descriptor may be gone with its terminal.
            let _ = rustix::fs::fcntl_setfl(fd, *before);
        }
        IN_USE.store(false, Ordering::Release);
    }

    fn terminal(&self) -> Option<&Terminal> {
        Some(&self.terminal)
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        self.close();
    }
}
