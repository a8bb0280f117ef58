//! Submission and completion queues (NVMe 1.4 4.1).

use std::collections::VecDeque;

use super::data::{COMMAND_LEN, Command};
use super::spec::Status;
use crate::mem::GuestRam;

/// Bytes of a completion.
const COMPLETION_LEN: u64 = 16;

/// A submission queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Submission {
    pub base: u64,
    /// Entries.
    pub size: u16,
    pub head: u16,
    pub tail: u16,
    /// Its completion queue.
    pub completion: u16,
    /// Commands that disks work on: at most as many as there are entries.
    pub in_flight: u16,
}

impl Submission {
    /// The next command, if there is one; a queue outside RAM has none.
    pub(super) fn fetch(&mut self, ram: &GuestRam) -> Option<Command> {
        if self.head == self.tail || self.in_flight >= self.size {
            return None;
        }
        let mut bytes = [0; COMMAND_LEN];
        let at = self.base.checked_add(u64::from(self.head) * COMMAND_LEN as u64)?;
        ram.read(at, &mut bytes).ok()?;
        self.head = (self.head + 1) % self.size;
        Some(Command(bytes))
    }
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub result: u32,
    pub queue: u16,
    pub command: u16,
    pub status: Status,
}

/// A completion queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Completion {
    pub base: u64,
    pub size: u16,
    pub head: u16,
    pub tail: u16,
    pub phase: bool,
    pub vector: u16,
    pub interrupts: bool,
    /// What waits for room.
    pub waiting: VecDeque<Entry>,
}

impl Completion {
    fn is_full(&self) -> bool {
        (self.tail + 1) % self.size == self.head
    }

    /// Writes what waits, as far as there is room; `head_of` tells a submission queue's head. Returns whether anything
    /// was written.
    pub(super) fn flush(&mut self, ram: &GuestRam, head_of: impl Fn(u16) -> u16) -> bool {
        let mut written = false;
        while !self.is_full()
            && let Some(entry) = self.waiting.pop_front()
        {
            let mut bytes = [0; COMPLETION_LEN as usize];
            bytes[..4].copy_from_slice(&entry.result.to_le_bytes());
            bytes[8..10].copy_from_slice(&head_of(entry.queue).to_le_bytes());
            bytes[10..12].copy_from_slice(&entry.queue.to_le_bytes());
            bytes[12..14].copy_from_slice(&entry.command.to_le_bytes());
            let failed = if entry.status == Status::OK { 0 } else { Status::DNR };
            let status = (entry.status.0 | failed) << 1 | u16::from(self.phase);
            bytes[14..].copy_from_slice(&status.to_le_bytes());
            // A queue outside RAM swallows its completions.
            let _ = ram.write(self.base.wrapping_add(u64::from(self.tail) * COMPLETION_LEN), &bytes);
            self.tail = (self.tail + 1) % self.size;
            self.phase ^= self.tail == 0;
            written = true;
        }
        written
    }

    pub(super) fn has_entries(&self) -> bool {
        self.head != self.tail
    }
}
