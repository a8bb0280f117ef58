//! Bytes to and from file descriptors: the pump behind most back ends.
//!
//! Output goes to the descriptor at once as far as it takes it without blocking; up to [`OUTPUT_LIMIT`] bytes wait
//! here for the loop to write them. Input is read on the loop's thread, never more than the front end has room for.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;

use crate::event::{Interest, LoopHandle, Ready, Watch};

use super::inlet::{Inlet, lock};
use super::telnet::Telnet;

/// A peer that does not read costs this much memory and no more.
pub(super) const OUTPUT_LIMIT: usize = 64 << 10;

/// How much one turn of the loop reads from one back end.
const READ_CHUNK: usize = 4096;

/// What the end of the input means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AtEnd {
    /// Output goes on: files, terminals.
    KeepOutput,
    /// The connection is over.
    Close,
}

/// The descriptors of a stream.
pub(super) struct Descriptors {
    pub(super) input: Option<Arc<OwnedFd>>,
    pub(super) output: Option<Arc<OwnedFd>>,
}

impl Descriptors {
    /// One descriptor for both directions.
    pub(super) fn both(fd: OwnedFd) -> Self {
        let fd = Arc::new(fd);
        Self { input: Some(Arc::clone(&fd)), output: Some(fd) }
    }

    fn shared(&self) -> bool {
        matches!((&self.input, &self.output), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }
}

struct Connection {
    fds: Descriptors,
    watch_in: Option<Watch>,
    watch_out: Option<Watch>,
    wants_read: bool,
    pending: VecDeque<u8>,
    /// A write was cut short: the front end waits for room.
    short: bool,
    broken: bool,
    telnet: Option<Telnet>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections, so that a late callback of an old one is recognised.
    generation: u64,
}

type ClosedHook = Box<dyn Fn() + Send + Sync>;

/// A back end's connection, which may come and go.
pub(super) struct Stream {
    me: Weak<Self>,
    handle: LoopHandle,
    inlet: Arc<Inlet>,
    at_end: AtEnd,
    /// Called on the loop's thread, without locks, after a connection ended.
    closed: ClosedHook,
    state: Mutex<State>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream(connected: {})", self.is_connected())
    }
}

impl Stream {
    pub(super) fn new(
        handle: LoopHandle,
        inlet: Arc<Inlet>,
        at_end: AtEnd,
        closed: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            handle,
            inlet,
            at_end,
            closed: Box::new(closed),
            state: Mutex::default(),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        lock(&self.state).connection.is_some()
    }

    /// Starts a connection; an old one is dropped without ceremony. The caller tells the inlet that it is open.
    pub(super) fn connect(&self, fds: Descriptors, telnet: Option<Telnet>) {
        let mut state = lock(&self.state);
        state.generation += 1;
        let generation = state.generation;
        let mut connection = Connection {
            fds,
            watch_in: None,
            watch_out: None,
            wants_read: true,
            pending: VecDeque::new(),
            short: false,
            broken: false,
            telnet,
        };
        if let Some(telnet) = &mut connection.telnet {
            connection.pending.extend(telnet.greeting());
        }
        self.arm(&mut connection, generation);
        state.connection = Some(connection);
    }

    /// Brings the watches in line with what is wanted. Called with the state locked.
    fn arm(&self, connection: &mut Connection, generation: u64) {
        let read = connection.wants_read && connection.fds.input.is_some();
        let write = !connection.pending.is_empty() && !connection.broken;
        if connection.fds.shared() {
            let interest = match (read, write) {
                (false, false) => Interest::None,
                (true, false) => Interest::Read,
                (false, true) => Interest::Write,
                (true, true) => Interest::ReadWrite,
            };
            self.set_watch(&mut connection.watch_in, connection.fds.input.as_ref(), interest, generation);
            return;
        }
        let interest = if read { Interest::Read } else { Interest::None };
        self.set_watch(&mut connection.watch_in, connection.fds.input.as_ref(), interest, generation);
        let interest = if write { Interest::Write } else { Interest::None };
        self.set_watch(&mut connection.watch_out, connection.fds.output.as_ref(), interest, generation);
    }

    fn set_watch(&self, watch: &mut Option<Watch>, fd: Option<&Arc<OwnedFd>>, interest: Interest, generation: u64) {
        match (&*watch, fd) {
            (Some(watch), _) => watch.set_interest(interest),
            // A sleeping watch would still be woken by a hang-up, again and again.
            (None, _) if interest == Interest::None => {}
            (None, None) => {}
            (None, Some(fd)) => {
                let me = self.me.clone();
                let fd: Arc<dyn AsFd + Send + Sync> = Arc::clone(fd) as Arc<dyn AsFd + Send + Sync>;
                *watch = self
                    .handle
                    .watch(fd, interest, move |ready| {
                        if let Some(stream) = me.upgrade() {
                            stream.ready(generation, ready);
                        }
                    })
                    .inspect_err(|e| log::warn!("a character device cannot be polled: {e}"))
                    .ok();
            }
        }
    }

    /// On the loop's thread.
    fn ready(&self, generation: u64, ready: Ready) {
        if ready.write {
            self.flush(generation, ready.hang_up);
        }
        if ready.read {
            self.read(generation, ready.hang_up);
        }
    }

    fn flush(&self, generation: u64, hang_up: bool) {
        let tell = {
            let mut state = lock(&self.state);
            if state.generation != generation {
                return;
            }
            let Some(connection) = &mut state.connection else { return };
            write_pending(connection);
            self.arm(connection, generation);
            if hang_up && connection.pending.is_empty() {
                // The hang-up would be reported for ever; the next write finds out what it means.
                connection.watch_out = None;
            }
            let room = connection.pending.len() <= OUTPUT_LIMIT / 2;
            room && std::mem::replace(&mut connection.short, false)
        };
        if tell {
            self.inlet.writable();
        }
        if self.is_broken() {
            self.end(generation);
        }
    }

    fn is_broken(&self) -> bool {
        lock(&self.state).connection.as_ref().is_some_and(|connection| connection.broken)
    }

    fn read(&self, generation: u64, hang_up: bool) {
        // The front end is asked with no lock held: it may take the board lock.
        let room = self.inlet.room();
        let fd = {
            let mut state = lock(&self.state);
            if state.generation != generation {
                return;
            }
            let Some(connection) = &mut state.connection else { return };
            let Some(fd) = connection.fds.input.clone() else { return };
            if room == 0 {
                connection.wants_read = false;
                if hang_up && self.at_end == AtEnd::Close && was_reset(&fd) {
                    // Nobody waits for an answer any more, and another peer may want the line.
                    drop(state);
                    self.end(generation);
                    return;
                }
                if hang_up {
                    // What it sent before it left is for the front end, whenever that has room.
                    connection.watch_in = None;
                } else {
                    self.arm(connection, generation);
                }
                None
            } else {
                Some(fd)
            }
        };
        let Some(fd) = fd else {
            // The front end may have said "go on" between the question and the stop.
            if self.inlet.room() > 0 {
                self.accept_input();
            }
            return;
        };
        let mut buffer = [0; READ_CHUNK];
        let want = room.min(READ_CHUNK);
        match rustix::io::read(&fd, &mut buffer[..want]) {
            Ok(0) => self.input_ended(generation),
            Ok(count) => self.received(generation, &buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) if !hang_up => {}
            Err(_) => self.input_ended(generation),
        }
    }

    fn received(&self, generation: u64, data: &[u8]) {
        let mut events = Vec::new();
        let decoded;
        let data = {
            let mut state = lock(&self.state);
            if state.generation != generation {
                return;
            }
            let Some(connection) = &mut state.connection else { return };
            match &mut connection.telnet {
                None => data,
                Some(telnet) => {
                    let (text, found) = telnet.decode(data);
                    events = found;
                    decoded = text;
                    &decoded[..]
                }
            }
        };
        if !data.is_empty() {
            self.inlet.receive(data);
        }
        for event in events {
            self.inlet.event(event);
        }
    }

    fn input_ended(&self, generation: u64) {
        if self.at_end == AtEnd::Close {
            self.end(generation);
            return;
        }
        {
            let mut state = lock(&self.state);
            if state.generation != generation {
                return;
            }
            let Some(connection) = &mut state.connection else { return };
            if connection.fds.shared() {
                connection.wants_read = false;
                connection.watch_in = None;
                connection.fds.input = None;
                self.arm(connection, generation);
            } else {
                connection.watch_in = None;
                connection.fds.input = None;
            }
        }
        self.inlet.closed();
    }

    /// Ends the connection. On the loop's thread.
    fn end(&self, generation: u64) {
        let old = {
            let mut state = lock(&self.state);
            if state.generation != generation {
                return;
            }
            state.connection.take()
        };
        let Some(connection) = old else { return };
        let waits = connection.short;
        drop(connection);
        self.inlet.closed();
        if waits {
            // Without a connection output is taken and lost.
            self.inlet.writable();
        }
        (self.closed)();
    }

    /// Ends the connection from our side, silently.
    pub(super) fn drop_connection(&self) {
        let old = {
            let mut state = lock(&self.state);
            state.generation += 1;
            state.connection.take()
        };
        drop(old);
    }

    /// See [`super::CharOutput::write`].
    pub(super) fn write(&self, data: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let generation = state.generation;
        let Some(connection) = &mut state.connection else { return data.len() };
        if connection.fds.output.is_none() || connection.broken {
            return data.len();
        }
        let mut taken = 0;
        while taken < data.len() {
            let room = OUTPUT_LIMIT.saturating_sub(connection.pending.len());
            if room < 2 {
                break;
            }
            // With telnet, a byte may become two.
            let piece = &data[taken..][..(data.len() - taken).min(room / 2)];
            match &connection.telnet {
                Some(_) => connection.pending.extend(Telnet::encode(piece)),
                None => connection.pending.extend(piece),
            }
            taken += piece.len();
            write_pending(connection);
        }
        connection.short |= taken < data.len();
        self.arm(connection, generation);
        if connection.broken {
            let me = self.me.clone();
            self.handle.post(move || {
                if let Some(stream) = me.upgrade() {
                    stream.end(generation);
                }
            });
            return data.len();
        }
        taken
    }

    /// See [`super::CharOutput::accept_input`].
    pub(super) fn accept_input(&self) {
        let mut state = lock(&self.state);
        let generation = state.generation;
        if let Some(connection) = &mut state.connection {
            connection.wants_read = true;
            self.arm(connection, generation);
        }
    }

    /// Writes what waits, for a moment at most: the process ends.
    pub(super) fn drain(&self) {
        let mut state = lock(&self.state);
        let Some(connection) = &mut state.connection else { return };
        let Some(fd) = connection.fds.output.clone() else { return };
        while !connection.pending.is_empty() && !connection.broken {
            let mut poll = [rustix::event::PollFd::new(&*fd, rustix::event::PollFlags::OUT)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: DRAIN_WAIT_NS };
            if !matches!(rustix::event::poll(&mut poll, Some(&wait)), Ok(1)) {
                return;
            }
            write_pending(connection);
        }
    }
}

/// How long a reader may stand still before what it did not read is lost.
const DRAIN_WAIT_NS: i64 = 100_000_000;

/// Whether the peer broke a socket's connection off.
fn was_reset(fd: &OwnedFd) -> bool {
    matches!(rustix::net::sockopt::socket_error(fd), Ok(Err(_)))
}

fn write_pending(connection: &mut Connection) {
    let Some(fd) = &connection.fds.output else {
        connection.pending.clear();
        return;
    };
    while !connection.pending.is_empty() {
        let (piece, _) = connection.pending.as_slices();
        match rustix::io::write(fd, piece) {
            Ok(0) => return,
            Ok(count) => {
                connection.pending.drain(..count);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Err(_) => {
                connection.broken = true;
                connection.pending.clear();
                return;
            }
        }
    }
}
