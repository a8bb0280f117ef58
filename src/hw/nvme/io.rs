//! NVM commands (NVMe 1.4 6).

use std::collections::BTreeSet;

use super::controller::{Controller, Namespace};
use super::data::Command;
use super::spec::{Status, nvm};
use crate::block::{Op, Payload};
use crate::hw::storage::Ended;
use crate::mem::Sg;

/// Namespace ID that stands for all.
pub(super) const ALL: u32 = 0xffff_ffff;
/// Force unit access, and deallocate (double word 12).
const FUA: u32 = 1 << 30;
const DEAC: u32 = 1 << 25;
/// Dataset management: attribute deallocate (double word 11).
const DEALLOCATE: u32 = 1 << 2;
/// Bytes of a dataset management range.
const RANGE_LEN: usize = 16;

/// What a disk works on.
#[derive(Clone, Debug)]
pub(super) enum Tag {
    /// A command.
    Command(Work),
    /// The flush of a shutdown.
    Shutdown,
}

/// A command that a disk works on.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub queue: u16,
    pub command: u16,
    op: Op,
    /// Ranges of the same kind that are still to be done, last one first.
    ranges: Vec<(u64, u64)>,
    /// Other namespaces that are to be flushed.
    namespaces: Vec<u32>,
    /// What a read is compared with.
    compare: Option<Sg>,
}

impl Tag {
    /// Whether it is a command of this submission queue.
    pub(super) fn is_of(&self, queue: u16) -> bool {
        matches!(self, Self::Command(work) if work.queue == queue)
    }
}

/// What a command comes to on its namespace.
struct Start {
    op: Op,
    offset: u64,
    payload: Payload,
    ranges: Vec<(u64, u64)>,
    compare: Option<Sg>,
}

impl Start {
    fn new(op: Op, offset: u64, payload: Payload) -> Self {
        Self { op, offset, payload, ranges: Vec::new(), compare: None }
    }
}

impl Namespace {
    pub(super) fn block(&self) -> u64 {
        u64::from(self.options.block_size)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.port.capacity() / self.block()
    }

    /// Offset and length in bytes of blocks that exist.
    fn bytes(&self, lba: u64, blocks: u64) -> Result<(u64, u64), Status> {
        let end = lba.checked_add(blocks).filter(|end| *end <= self.blocks());
        end.map(|_| (lba * self.block(), blocks * self.block())).ok_or(Status::LBA_RANGE)
    }
}

impl Controller {
    pub(super) fn io(&mut self, queue: u16, command: Command) {
        match self.start(queue, &command) {
            Ok(true) => {
                if let Some(submission) = self.submissions.get_mut(&queue) {
                    submission.in_flight += 1;
                }
            }
            Ok(false) => self.end(queue, command.id(), Status::OK, 0),
            Err(status) => self.end(queue, command.id(), status, 0),
        }
    }

    /// Starts a command (true), or finds it done at once.
    fn start(&mut self, queue: u16, command: &Command) -> Result<bool, Status> {
        let (mut id, mut others) = (command.namespace(), Vec::new());
        if command.opcode() == nvm::FLUSH && id == ALL {
            others = self.namespace_ids();
            let Some(first) = others.pop() else { return Ok(false) };
            id = first;
        }
        let page = self.page();
        let (mdts, write_cache) = (self.options.mdts, self.write_cache);
        if id == 0 || id > super::MAX_NAMESPACES && id != ALL {
            return Err(Status::INVALID_NAMESPACE);
        }
        // A namespace that could exist and does not is an invalid field (6.1.4, as QEMU answers).
        let namespace = self.namespaces.get_mut(&id).ok_or(match id {
            ALL => Status::INVALID_NAMESPACE,
            _ => Status::INVALID_FIELD,
        })?;
        let Some(start) = plan(namespace, command, page, mdts, write_cache, &self.ram)? else { return Ok(false) };
        let Start { op, offset, payload, ranges, compare } = start;
        let work = Work { queue, command: command.id(), op, ranges, namespaces: others, compare };
        namespace.port.submit(Tag::Command(work), op, offset, payload);
        Ok(true)
    }

    /// Takes what a namespace's disk is done with.
    pub(super) fn complete(&mut self, id: u32) {
        let Some(namespace) = self.namespaces.get_mut(&id) else { return };
        let mut queues = BTreeSet::new();
        for Ended { tag, result, payload } in namespace.port.completed() {
            match tag {
                Tag::Shutdown => self.shutdown_progressed(),
                Tag::Command(work) => {
                    queues.insert(work.queue);
                    self.advance(id, work, result, &payload);
                }
            }
        }
        // Queues stand still while all their commands are in flight.
        for queue in queues {
            self.process(queue);
        }
    }

    /// Ends a command that a disk worked on.
    pub(super) fn end_started(&mut self, queue: u16, command: u16, status: Status) {
        if let Some(submission) = self.submissions.get_mut(&queue) {
            submission.in_flight = submission.in_flight.saturating_sub(1);
        }
        self.end(queue, command, status, 0);
    }

    fn advance(&mut self, id: u32, mut work: Work, result: std::io::Result<()>, payload: &Payload) {
        let (queue, command) = (work.queue, work.command);
        if result.is_err() {
            let status = if work.op == Op::Read { Status::READ_ERROR } else { Status::WRITE_FAULT };
            self.end_started(queue, command, status);
            return;
        }
        if let (Some(expected), Payload::Buffer(found)) = (&work.compare, payload) {
            let mut bytes = vec![0; found.len()];
            let status = match expected.read(&self.ram, 0, &mut bytes) {
                Err(_) => Status::DATA_TRANSFER,
                Ok(()) if bytes != *found => Status::COMPARE,
                Ok(()) => Status::OK,
            };
            self.end_started(queue, command, status);
            return;
        }
        if let Some((offset, len)) = work.ranges.pop()
            && let Some(namespace) = self.namespaces.get_mut(&id)
        {
            let op = work.op;
            namespace.port.submit(Tag::Command(work), op, offset, Payload::Len(len));
            return;
        }
        if let Some(next) = work.namespaces.pop()
            && let Some(namespace) = self.namespaces.get_mut(&next)
        {
            namespace.port.submit(Tag::Command(work), Op::Flush, 0, Payload::Len(0));
            return;
        }
        self.end_started(queue, command, Status::OK);
    }
}

/// What a command comes to; `None`: nothing has to be done.
fn plan(
    namespace: &Namespace,
    command: &Command,
    page: u64,
    mdts: u8,
    write_cache: bool,
    ram: &crate::mem::GuestRam,
) -> Result<Option<Start>, Status> {
    let lba = command.qword(10);
    let blocks = u64::from(command.dword(12) & 0xffff) + 1;
    let changes = matches!(command.opcode(), nvm::WRITE | nvm::WRITE_ZEROES | nvm::DATASET_MANAGEMENT);
    if changes && namespace.port.read_only() {
        return Err(Status::READ_ONLY);
    }
    let limit = if mdts == 0 { u64::MAX } else { 4096 << mdts.min(32) };
    let transfer = || -> Result<(u64, u64, Sg), Status> {
        let len = blocks * namespace.block();
        if len > limit {
            return Err(Status::INVALID_FIELD);
        }
        let (offset, len) = namespace.bytes(lba, blocks)?;
        Ok((offset, len, command.data(ram, len, page)?))
    };
    Ok(Some(match command.opcode() {
        nvm::FLUSH => Start::new(Op::Flush, 0, Payload::Len(0)),
        nvm::READ => {
            let (offset, _, data) = transfer()?;
            Start::new(Op::Read, offset, Payload::Guest(data))
        }
        nvm::WRITE => {
            let (offset, _, data) = transfer()?;
            let through = command.dword(12) & FUA != 0 || !write_cache;
            Start::new(if through { Op::WriteFua } else { Op::Write }, offset, Payload::Guest(data))
        }
        nvm::COMPARE => {
            let (offset, len, data) = transfer()?;
            let room = vec![0; usize::try_from(len).map_err(|_| Status::INTERNAL)?];
            Start { compare: Some(data), ..Start::new(Op::Read, offset, Payload::Buffer(room)) }
        }
        nvm::WRITE_ZEROES => {
            let (offset, len) = namespace.bytes(lba, blocks)?;
            let may_unmap = command.dword(12) & DEAC != 0;
            Start::new(Op::WriteZeroes { may_unmap }, offset, Payload::Len(len))
        }
        nvm::DATASET_MANAGEMENT => return dataset(namespace, command, page, ram),
        _ => return Err(Status::INVALID_OPCODE),
    }))
}

/// DATASET MANAGEMENT (6.7): only deallocation does anything.
fn dataset(
    namespace: &Namespace,
    command: &Command,
    page: u64,
    ram: &crate::mem::GuestRam,
) -> Result<Option<Start>, Status> {
    let count = usize::try_from(command.dword(10) & 0xff).unwrap_or(0) + 1;
    let mut bytes = vec![0; count * RANGE_LEN];
    let list = command.data(ram, bytes.len() as u64, page)?;
    list.read(ram, 0, &mut bytes).map_err(|_| Status::DATA_TRANSFER)?;
    if command.dword(11) & DEALLOCATE == 0 {
        return Ok(None);
    }
    let mut ranges = Vec::new();
    for range in bytes.chunks_exact(RANGE_LEN).rev() {
        let [_, _, _, _, n0, n1, n2, n3, lba @ ..] = range else { continue };
        let blocks = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
        let lba = <[u8; 8]>::try_from(lba).map_or(0, u64::from_le_bytes);
        let (offset, len) = namespace.bytes(lba, blocks.into())?;
        if len > 0 {
            ranges.push((offset, len));
        }
    }
    let Some((offset, len)) = ranges.pop() else { return Ok(None) };
    Ok(Some(Start { ranges, ..Start::new(Op::Discard, offset, Payload::Len(len)) }))
}
