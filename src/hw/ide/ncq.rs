//! Native command queuing: READ and WRITE FPDMA QUEUED, up to 32 at once, in any order.
//!
//! Documents: Serial ATA 3.0, 13.6 (native command queuing), 13.7.5 (log 10h, queued error log).

use crate::block::{Completion, Op, Payload, Request};
use crate::mem::Sg;

use super::drive::{Drive, ErrorAction};
use super::spec::{SECTOR, error, status};

/// A queued command that the disk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queued {
    tag: u8,
    token: u64,
    op: Op,
    lba: u64,
}

/// How a queued command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Outcome {
    /// Well.
    Done(u8),
    /// Badly: the tag. All others are given up (13.6.1.1).
    Failed(u8),
}

/// The queue of a drive.
#[derive(Debug, Default)]
pub(in crate::hw) struct Ncq {
    commands: Vec<Queued>,
    outcomes: Vec<Outcome>,
    held: Vec<(Queued, Request)>,
    /// The last command that failed: tag, error register, sector.
    failure: Option<(u8, u8, u64)>,
}

impl Ncq {
    /// Whether the disk has commands.
    pub fn is_busy(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Whether an error policy keeps a request.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets all commands; the log of the last failure stays.
    pub fn drop_all(&mut self) {
        let Self { commands, outcomes, held, failure: _ } = self;
        commands.clear();
        outcomes.clear();
        held.clear();
    }

    fn fail(&mut self, tag: u8, error: u8, lba: u64) {
        self.failure = Some((tag, error, lba));
        self.outcomes.push(Outcome::Failed(tag));
    }
}

impl Drive {
    /// Begins a queued command on `sg`, which has room for all of it. A bad address ends it at once.
    pub fn queue_command(&mut self, tag: u8, op: Op, lba: u64, sg: Sg) {
        let sectors = sg.len() / SECTOR;
        if lba.checked_add(sectors).is_none_or(|end| end > self.sectors()) {
            self.ncq.fail(tag, error::IDNF, lba);
            return;
        }
        if op != Op::Read && self.queue.read_only() {
            self.ncq.fail(tag, error::ABRT, lba);
            return;
        }
        let token = self.new_token();
        self.ncq.commands.push(Queued { tag, token, op, lba });
        self.queue.submit(Request { op, offset: lba * SECTOR, payload: Payload::Guest(sg), token });
    }

    /// Whether writes of this drive go to stable storage.
    pub fn writes_through(&self) -> bool {
        !self.settings.write_cache
    }

    /// A queued command that cannot be begun.
    pub fn refuse_queued(&mut self, tag: u8, lba: u64) {
        self.ncq.fail(tag, error::ABRT, lba);
    }

    /// What became of queued commands since the last call.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.ncq.outcomes)
    }

    /// Takes a completion if it is a queued command's.
    pub fn collect_queued(&mut self, completion: Completion) -> Option<Completion> {
        let place = self.ncq.commands.iter().position(|queued| queued.token == completion.token);
        let Some(place) = place else { return Some(completion) };
        let queued = self.ncq.commands.swap_remove(place);
        let Completion { result, payload, .. } = completion;
        let Err(reason) = result else {
            self.ncq.outcomes.push(Outcome::Done(queued.tag));
            return None;
        };
        match self.report_fault(queued.op, &reason) {
            ErrorAction::Ignore => self.ncq.outcomes.push(Outcome::Done(queued.tag)),
            ErrorAction::Stop => {
                let request = Request { op: queued.op, offset: queued.lba * SECTOR, payload, token: 0 };
                self.ncq.held.push((queued, request));
            }
            ErrorAction::Report => {
                let error = if queued.op == Op::Read { error::UNC } else { error::ABRT };
                self.ncq.fail(queued.tag, error, queued.lba);
            }
        }
        None
    }

    /// Tries again what an error policy kept.
    pub fn retry_queued(&mut self) {
        for (mut queued, mut request) in std::mem::take(&mut self.ncq.held) {
            let token = self.new_token();
            (queued.token, request.token) = (token, token);
            self.ncq.commands.push(queued);
            self.queue.submit(request);
        }
    }

    /// READ LOG EXT (ATA8-ACS 7.26): the directory, and the log of the last queued command that failed.
    pub fn read_log(&mut self) {
        let (log, page) = (self.regs.low.now, u16::from_le_bytes([self.regs.mid.now, self.regs.mid.before]));
        let count = u16::from_le_bytes([self.regs.count.now, self.regs.count.before]);
        if count != 1 || page != 0 {
            self.abort();
            return;
        }
        let mut data = vec![0; 512];
        match log {
            0 => {
                data[0] = 1; // version
                data[0x20] = 1; // log 10h has one page
            }
            0x10 => self.queued_error_log(&mut data),
            _ => {
                self.abort();
                return;
            }
        }
        let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        data[511] = sum.wrapping_neg();
        self.reply(data);
    }

    fn queued_error_log(&self, data: &mut [u8]) {
        let Some((tag, error, lba)) = self.ncq.failure else {
            data[0] = 0x80; // no queued command failed
            return;
        };
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        data[0] = tag;
        data[2] = status::READY | status::ERR;
        data[3] = error;
        data[4..8].copy_from_slice(&[a, b, c, 0x40]);
        data[8..11].copy_from_slice(&[d, e, f]);
    }
}
