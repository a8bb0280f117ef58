//! What a disk controller holds: requests go in, completions come out, and nothing blocks.

use std::io;

use crate::mem::Sg;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Fill the payload.
    Read,
    /// Store the payload.
    Write,
    /// Store the payload on stable storage.
    WriteFua,
    /// Put what was written on stable storage.
    Flush,
    /// Forget `len` bytes.
    Discard,
    /// Make `len` bytes zero.
    WriteZeroes {
        /// Storage may be given back.
        may_unmap: bool,
    },
}

/// Where the data of a request is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// No data, but this many bytes are meant: flush (0), discard, write zeroes.
    Len(u64),
    /// Guest memory: DMA.
    Guest(Sg),
    /// The controller's own buffer (PIO), given back with the completion.
    Buffer(Vec<u8>),
}

/// A request. The controller chooses `token` and gets it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// Where, in bytes from the start of the medium.
    pub offset: u64,
    /// With what.
    pub payload: Payload,
    /// Whose.
    pub token: u64,
}

/// A request that ended.
#[derive(Debug)]
pub struct Completion {
    /// The request's token.
    pub token: u64,
    /// How it ended.
    pub result: io::Result<()>,
    /// The request's payload; a read's buffer is filled.
    pub payload: Payload,
}

/// The controller's end of a disk: non-blocking, in-order submission, completion in any order.
///
/// Requests that are in flight together may be done in any order; a flush covers the writes that completed before
/// it was submitted. When something completes, the queue raises the event that it was built with, and the controller
/// calls [`BlockQueue::completed`].
pub trait BlockQueue: Send {
    /// Starts a request.
    fn submit(&mut self, request: Request);

    /// What ended since the last call.
    fn completed(&mut self) -> Vec<Completion>;

    /// Drops all requests: none of them touches guest memory or shows up in [`BlockQueue::completed`] any more,
    /// though writes that were started may still reach the medium.
    fn cancel_all(&mut self);

    /// Length of the medium in bytes; 0 with no medium.
    fn capacity(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Whether a medium is there: always, but for CD and floppy drives.
    fn has_medium(&self) -> bool {
        true
    }
}
