//! A disk as controllers with many requests in flight hold it: requests by tag, what to do about errors, requests that
//! wait for the machine to go on.

#[cfg(test)]
pub(crate) mod bench;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::block::{BlockQueue, Completion, ErrorAction, ErrorPolicy, Op, Payload, Request};
use crate::bus::Token;

/// The event that tells a device that the machine goes on: requests that an error policy kept are tried again.
pub const RESUME: Token = Token(u64::MAX);

/// A request that failed, for the machine: it reports it and stops if the policy says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whether data went to the disk: writes, flushes, discards.
    pub write: bool,
    /// What was done. With [`ErrorAction::Stop`] the request waits for [`DiskPort::retry_held`].
    pub action: ErrorAction,
    /// The host is out of space.
    pub no_space: bool,
    /// The host's error.
    pub reason: String,
}

/// Hears of failed requests. A leaf.
pub type FaultSink = Arc<dyn Fn(Fault) + Send + Sync>;

/// `rerror=` and `werror=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policies {
    /// Of reads.
    pub read: ErrorPolicy,
    /// Of everything else.
    pub write: ErrorPolicy,
}

impl Default for Policies {
    fn default() -> Self {
        Self { read: ErrorPolicy::Report, write: ErrorPolicy::Enospc }
    }
}

struct InFlight<T> {
    tag: T,
    op: Op,
    offset: u64,
    again: Again,
}

/// What to start a request again with.
enum Again {
    Payload(Payload),
    /// A buffer that the queue fills.
    ReadBuffer(usize),
}

impl Again {
    fn of(op: Op, payload: &Payload) -> Self {
        match payload {
            Payload::Buffer(buffer) if op == Op::Read => Self::ReadBuffer(buffer.len()),
            other => Self::Payload(other.clone()),
        }
    }

    fn payload(self) -> Payload {
        match self {
            Self::Payload(payload) => payload,
            Self::ReadBuffer(len) => Payload::Buffer(vec![0; len]),
        }
    }
}

/// A request that ended.
#[derive(Debug)]
pub struct Ended<T> {
    /// Whose it was.
    pub tag: T,
    /// How it ended; ignored errors are none.
    pub result: io::Result<()>,
    /// Its payload; a read's buffer is filled.
    pub payload: Payload,
}

/// A disk with the requests of one controller in it.
pub struct DiskPort<T> {
    queue: Box<dyn BlockQueue>,
    policies: Policies,
    faults: FaultSink,
    next: u64,
    in_flight: BTreeMap<u64, InFlight<T>>,
    held: Vec<(T, Op, u64, Payload)>,
}

impl<T> std::fmt::Debug for DiskPort<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskPort({} requests, {} held)", self.in_flight.len(), self.held.len())
    }
}

impl<T> DiskPort<T> {
    /// A port to the disk behind `queue`.
    #[must_use]
    pub fn new(queue: Box<dyn BlockQueue>, policies: Policies, faults: FaultSink) -> Self {
        Self { queue, policies, faults, next: 0, in_flight: BTreeMap::new(), held: Vec::new() }
    }

    /// Starts a request.
    pub fn submit(&mut self, tag: T, op: Op, offset: u64, payload: Payload) {
        let token = self.next;
        self.next = self.next.wrapping_add(1);
        let again = Again::of(op, &payload);
        self.in_flight.insert(token, InFlight { tag, op, offset, again });
        self.queue.submit(Request { op, offset, payload, token });
    }

    /// What ended since the last call.
    pub fn completed(&mut self) -> Vec<Ended<T>> {
        let done = self.queue.completed();
        done.into_iter().filter_map(|completion| self.end(completion)).collect()
    }

    fn end(&mut self, completion: Completion) -> Option<Ended<T>> {
        let Completion { token, result, payload } = completion;
        let InFlight { tag, op, offset, .. } = self.in_flight.remove(&token)?;
        let Err(error) = result else { return Some(Ended { tag, result: Ok(()), payload }) };
        let write = op != Op::Read;
        let policy = if write { self.policies.write } else { self.policies.read };
        let action = policy.action(&error);
        (self.faults)(Fault {
            write,
            action,
            no_space: error.kind() == io::ErrorKind::StorageFull,
            reason: crate::host::reason(&error),
        });
        match action {
            ErrorAction::Stop => {
                self.held.push((tag, op, offset, payload));
                None
            }
            ErrorAction::Ignore => Some(Ended { tag, result: Ok(()), payload }),
            ErrorAction::Report => Some(Ended { tag, result: Err(error), payload }),
        }
    }

    /// The machine goes on: what an error policy kept is tried again.
    pub fn retry_held(&mut self) {
        for (tag, op, offset, payload) in std::mem::take(&mut self.held) {
            self.submit(tag, op, offset, payload);
        }
    }

    /// Drops all requests. None of them touches guest memory any more.
    pub fn cancel_all(&mut self) {
        self.queue.cancel_all();
        self.in_flight.clear();
        self.held.clear();
    }

    /// Drops the requests that `which` names and returns their tags. The others start again: the queue can only drop all
    /// of them, and a request may be done twice while it is in flight.
    pub fn cancel(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut dropped, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(tag, ..)| which(tag));
        self.held = kept;
        let mut cancelled: Vec<T> = dropped.drain(..).map(|(tag, ..)| tag).collect();
        if !self.in_flight.values().any(|request| which(&request.tag)) {
            return cancelled;
        }
        self.queue.cancel_all();
        for (_, request) in std::mem::take(&mut self.in_flight) {
            if which(&request.tag) {
                cancelled.push(request.tag);
            } else {
                self.submit(request.tag, request.op, request.offset, request.again.payload());
            }
        }
        cancelled
    }

    /// The tags of what is in flight or held.
    pub fn tags(&self) -> impl Iterator<Item = &T> {
        self.in_flight.values().map(|request| &request.tag).chain(self.held.iter().map(|(tag, ..)| tag))
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.held.is_empty()
    }

    /// Length of the medium in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.queue.capacity()
    }

    /// Whether writes are refused.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.queue.read_only()
    }

    /// Whether there is a medium.
    #[must_use]
    pub fn has_medium(&self) -> bool {
        self.queue.has_medium()
    }
}
