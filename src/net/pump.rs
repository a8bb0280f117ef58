//! A thread that moves frames between an end of a wire and something of the host that has a file descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::link::Link;
use super::packet::{Offloads, Packet};
use super::wire::Port;

/// Frames that are read from the host before the guest's have their turn.
const BURST: usize = 256;

/// The host's side. All of it is called on the pump's thread and does not wait.
pub trait Medium: Send {
    /// What frames it takes as they are.
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    /// The descriptor to wait for; none while there is nothing to hope for.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether something is left to be written.
    fn wants_to_write(&self) -> bool {
        false
    }

    /// The descriptor can be written.
    fn writable(&mut self) {}

    /// The next frame; `None` for none now.
    fn receive(&mut self) -> Option<Packet>;

    /// Sends a frame. What nobody takes is lost, as on a wire.
    ///
    /// # Errors
    /// Not now: here it is again.
    fn send(&mut self, packet: Packet) -> Result<(), Packet>;
}

/// The thread; dropping it ends it and closes the medium.
pub struct Pump {
    wake: Arc<OwnedFd>,
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Release);
        ring(&self.wake);
        if let Some(thread) = self.thread.take() {
            // It panicked: nothing is left to end.
            let _ = thread.join();
        }
    }
}

fn ring(fd: &OwnedFd) {
    // A full counter wakes as well.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

impl Pump {
    /// Starts to move frames.
    ///
    /// # Errors
    /// The host has no descriptors or threads left.
    pub fn start(mut port: Port, medium: Box<dyn Medium>) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let quit = Arc::<AtomicBool>::default();
        port.set_offload(medium.offloads());
        let bell = Arc::clone(&wake);
        port.set_notify(Arc::new(move |_| ring(&bell)));
        let (event, stop) = (Arc::clone(&wake), Arc::clone(&quit));
        let thread = std::thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || Turn { port, medium, kept: None }.run(&event, &stop))?;
        Ok(Self { wake, quit, thread: Some(thread) })
    }
}

struct Turn {
    port: Port,
    medium: Box<dyn Medium>,
    /// A frame of the guest that the host does not take yet.
    kept: Option<Packet>,
}

impl Turn {
    fn run(mut self, event: &OwnedFd, quit: &AtomicBool) {
        while !quit.load(Ordering::Acquire) {
            let Ok((ready, rung)) = self.wait(event) else { return };
            if rung {
                let mut count = [0; 8];
                // It was reset already: nothing to do.
                let _ = rustix::io::read(event, &mut count);
                self.port.attend();
            }
            if ready.contains(PollFlags::OUT) {
                self.medium.writable();
            }
            self.serve_guest();
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.serve_host();
            }
        }
    }

    fn wait(&self, event: &OwnedFd) -> rustix::io::Result<(PollFlags, bool)> {
        let mut wanted = PollFlags::empty();
        if self.port.room() {
            wanted |= PollFlags::IN;
        }
        if self.kept.is_some() || self.medium.wants_to_write() {
            wanted |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(event, PollFlags::IN)];
        // A descriptor that nothing is wanted of would still report its end, over and over.
        if let Some(fd) = self.medium.fd().filter(|_| !wanted.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(fd, wanted));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = fds.get(1).map_or(PollFlags::empty(), PollFd::revents);
        Ok((ready, !fds[0].revents().is_empty()))
    }

    fn serve_guest(&mut self) {
        while let Some(packet) = self.kept.take().or_else(|| self.port.take()) {
            if let Err(packet) = self.medium.send(packet) {
                self.kept = Some(packet);
                return;
            }
        }
    }

    fn serve_host(&mut self) {
        for _ in 0..BURST {
            if !self.port.room() {
                break;
            }
            let Some(packet) = self.medium.receive() else { break };
            // Room was there; a frame that does not fit after all is lost, as on a wire.
            let _ = self.port.queue(packet);
        }
        self.port.kick();
    }
}

/// Makes a descriptor not wait.
///
/// # Errors
/// It cannot be changed.
pub fn do_not_wait(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}
