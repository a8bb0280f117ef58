//! `pty`: a pseudo-terminal for somebody else to open.
//!
//! While nobody has the other side open, output is lost. Linux tells us when the last user closes it (POLLHUP) but
//! not when one opens it, so that is looked at once a second, and at every write.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::event::{ClockKind, LoopHandle, NS_PER_SEC, Timer};

use super::backend::Backend;
use super::handle::CharOutput;
use super::inlet::{Inlet, lock};
use super::registry::Hooks;
use super::spec::OpenError;
use super::stream::{AtEnd, Descriptors, Stream};
use crate::host::reason;

pub(super) struct Pty {
    master: OwnedFd,
    name: String,
    handle: LoopHandle,
    inlet: Arc<Inlet>,
    stream: Arc<Stream>,
    timer: Mutex<Option<Timer>>,
    me: Weak<Self>,
}

impl Pty {
    /// Opens a pseudo-terminal and says where.
    pub(super) fn open(
        label: &str,
        handle: &LoopHandle,
        inlet: &Arc<Inlet>,
        hooks: &Hooks,
    ) -> Result<Arc<dyn Backend>, OpenError> {
        let (master, name) = make().map_err(|e| OpenError(format!("Failed to create PTY: {}", reason(&e.into()))))?;
        super::file::set_nonblocking(&master)?;
        let pty = Arc::new_cyclic(|me: &Weak<Self>| {
            let for_end = me.clone();
            let closed = move || {
                if let Some(pty) = for_end.upgrade() {
                    pty.look_later();
                }
            };
            Self {
                master,
                name,
                handle: handle.clone(),
                inlet: Arc::clone(inlet),
                stream: Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::Close, closed),
                timer: Mutex::default(),
                me: me.clone(),
            }
        });
        let for_timer = pty.me.clone();
        let timer = handle.timer(ClockKind::Host, move || {
            if let Some(pty) = for_timer.upgrade() {
                pty.look();
            }
        });
        timer.set(timer.now_ns());
        *lock(&pty.timer) = Some(timer);
        (hooks.print)(&format!("char device redirected to {} (label {label})", pty.name));
        Ok(pty)
    }

    /// Whether somebody has the other side open.
    fn is_used(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
    }

    fn look(&self) {
        if self.stream.is_connected() || (self.is_used() && self.connect()) {
            self.inlet.opened();
        } else {
            self.look_later();
        }
    }

    fn look_later(&self) {
        if let Some(timer) = &*lock(&self.timer) {
            timer.set(timer.now_ns().saturating_add(NS_PER_SEC));
        }
    }

    fn connect(&self) -> bool {
        let Ok(master) = rustix::io::fcntl_dupfd_cloexec(&self.master, 3) else { return false };
        self.stream.connect(Descriptors::both(master), None);
        true
    }
}

/// A master and the name of its slave, which is raw.
fn make() -> Result<(OwnedFd, String), rustix::io::Errno> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    // Opened and closed once: from now on the master reports that nobody has it.
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut modes = tcgetattr(&slave)?;
    modes.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    Ok((master, name.to_string_lossy().into_owned()))
}

impl CharOutput for Pty {
    fn write(&self, data: &[u8]) -> usize {
        if !self.stream.is_connected() && self.is_used() && self.connect() {
            let me = self.me.clone();
            self.handle.post(move || {
                if let Some(pty) = me.upgrade() {
                    pty.look();
                }
            });
        }
        self.stream.write(data)
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }
}

impl Backend for Pty {
    fn filename(&self) -> String {
        format!("pty:{}", self.name)
    }

    fn close(&self) {
        self.stream.drop_connection();
        *lock(&self.timer) = None;
    }

    fn pty(&self) -> Option<String> {
        Some(self.name.clone())
    }
}
