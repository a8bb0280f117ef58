//! Requests (5.6.6.1): a command goes to its unit, the plan is carried out, the answer goes back.

use std::sync::Arc;

use super::super::{Chain, Queue};
use super::{Address, Attached, Inner};
use crate::block::{Op, Payload};
use crate::hw::scsi::{self, Plan, SENSE_LEN, Sense, Step, status};
use crate::hw::storage::Ended;
use crate::mem::{GuestRam, Sg};

/// Bytes of a request before the command: lun, id, task_attr, prio, crn.
const REQUEST_HEADER: u64 = 19;
/// Bytes of a response before the sense data.
const RESPONSE_HEADER: u64 = 12;
/// Bytes of a command that units see; shorter ones are filled with zeros.
const CDB: usize = 32;
/// Bytes of a parameter list at most.
const MAX_PARAMETERS: usize = 32 << 20;

/// Response codes (5.6.6.1).
pub(super) mod response {
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const BAD_TARGET: u8 = 3;
    pub const RESET: u8 = 4;
    pub const FAILURE: u8 = 9;
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    pub const FUNCTION_REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

/// A request that a disk works on.
#[derive(Clone, Debug)]
pub(super) struct Running {
    request: Request,
    /// Bytes that are in the initiator's memory when it ends well.
    moved: u64,
    /// What is still to be done after this.
    steps: Vec<Step>,
    /// What a read should have found.
    expected: Option<Vec<u8>>,
}

impl Running {
    pub(super) fn queue(&self) -> usize {
        self.request.queue
    }

    pub(super) fn id(&self) -> u64 {
        self.request.id
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    queue: usize,
    chain: Chain,
    id: u64,
    address: Option<Address>,
    cdb: [u8; CDB],
    /// The initiator's data.
    out: Sg,
    /// Room for the device's data.
    input: Sg,
    sense_size: u32,
}

fn parse(inner: &Inner, index: usize, ram: &GuestRam, chain: Chain) -> Option<Request> {
    let header_len = REQUEST_HEADER + u64::from(inner.cdb_size);
    let response_len = RESPONSE_HEADER + u64::from(inner.sense_size);
    if chain.readable.len() < header_len || chain.writable.len() < response_len {
        return None;
    }
    let mut header = [0; REQUEST_HEADER as usize + CDB];
    let len = usize::try_from(header_len).ok()?.min(header.len());
    chain.read(ram, 0, &mut header[..len]).ok()?;
    let mut cdb = [0; CDB];
    cdb.copy_from_slice(&header[REQUEST_HEADER as usize..]);
    let [l0, l1, l2, l3, l4, l5, l6, l7, i0, i1, i2, i3, i4, i5, i6, i7, ..] = header;
    let out = chain.readable.slice(header_len, chain.readable.len() - header_len);
    let input = chain.writable.slice(response_len, chain.writable.len() - response_len);
    Some(Request {
        queue: index,
        id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        address: Address::parse([l0, l1, l2, l3, l4, l5, l6, l7]),
        cdb,
        out,
        input,
        sense_size: inner.sense_size,
        chain,
    })
}

/// How a command ended.
struct Outcome {
    response: u8,
    status: u8,
    sense: Option<Sense>,
    /// Bytes of data that moved.
    moved: u64,
}

impl Outcome {
    fn good(moved: u64) -> Self {
        Self { response: response::OK, status: status::GOOD, sense: None, moved }
    }

    fn check(sense: Sense) -> Self {
        Self { response: response::OK, status: status::CHECK_CONDITION, sense: Some(sense), moved: 0 }
    }

    fn transport(response: u8) -> Self {
        Self { response, status: status::GOOD, sense: None, moved: 0 }
    }
}

/// Writes the response (5.6.6.1) and gives the request back.
fn answer(queue: &Queue, request: &Request, outcome: &Outcome) {
    let sense = outcome.sense.map(Sense::fixed);
    let sense_len = sense.map_or(0, |_| SENSE_LEN.min(usize::try_from(request.sense_size).unwrap_or(0)));
    let data = request.out.len().max(request.input.len());
    let resid = data.saturating_sub(outcome.moved);
    let mut bytes = vec![0; usize::try_from(RESPONSE_HEADER).unwrap_or(12) + sense_len];
    bytes[..4].copy_from_slice(&u32::try_from(sense_len).unwrap_or(0).to_le_bytes());
    bytes[4..8].copy_from_slice(&u32::try_from(resid).unwrap_or(u32::MAX).to_le_bytes());
    bytes[10] = outcome.status;
    bytes[11] = outcome.response;
    if let Some(sense) = sense {
        bytes[12..].copy_from_slice(&sense[..sense_len]);
    }
    if request.chain.write(queue.ram(), 0, &bytes).is_err() {
        queue.fail("a SCSI response is not in RAM");
        return;
    }
    let read = if request.input.is_empty() { 0 } else { outcome.moved };
    let written = RESPONSE_HEADER + u64::from(request.sense_size) + read;
    queue.push(&request.chain, u32::try_from(written).unwrap_or(u32::MAX));
}

impl Inner {
    pub(super) fn serve_requests(&mut self, index: usize, queue: &Arc<Queue>) {
        let mut answered = false;
        queue.serve(|chain| {
            match parse(self, index, queue.ram(), chain) {
                Some(request) => answered |= self.start(queue, request),
                None => queue.fail("a SCSI request without header or response"),
            }
            true
        });
        if answered {
            queue.signal();
        }
    }

    /// Starts a request, or answers it at once (true).
    fn start(&mut self, queue: &Queue, request: Request) -> bool {
        let plan = match self.plan(queue.ram(), &request) {
            Ok(plan) => plan,
            Err(response) => {
                answer(queue, &request, &Outcome::transport(response));
                return true;
            }
        };
        let attached = request.address.and_then(|address| self.units.get_mut(&address));
        match carry_out(attached, queue, request, plan) {
            None => false,
            Some((request, outcome)) => {
                answer(queue, &request, &outcome);
                true
            }
        }
    }

    fn plan(&mut self, ram: &GuestRam, request: &Request) -> Result<Plan, u8> {
        let address = request.address.ok_or(response::BAD_TARGET)?;
        let out = |len: usize| {
            let have = usize::try_from(request.out.len()).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len.min(have).min(MAX_PARAMETERS)];
            // What is not RAM any more reads as zeros.
            let _ = request.out.read(ram, 0, &mut bytes);
            bytes
        };
        let of_target = |units: &std::collections::BTreeMap<Address, Attached>| -> Vec<u16> {
            units.keys().filter(|other| other.target == address.target).map(|other| other.lun).collect()
        };
        if request.cdb[0] == scsi::op::REPORT_LUNS {
            let mut luns = of_target(&self.units);
            if luns.is_empty() {
                return Err(response::BAD_TARGET);
            }
            // Unit 0 is always told (SPC-4 6.33): it answers INQUIRY.
            if luns.first() != Some(&0) {
                luns.insert(0, 0);
            }
            return Ok(scsi::report_luns(&request.cdb, luns.into_iter()));
        }
        if let Some(attached) = self.units.get_mut(&address) {
            let medium = attached.medium();
            return Ok(attached.unit.plan(&request.cdb, medium, &out));
        }
        match (of_target(&self.units).is_empty(), request.cdb[0]) {
            (true, _) => Err(response::BAD_TARGET),
            (false, scsi::op::INQUIRY) => Ok(scsi::absent_inquiry(&request.cdb)),
            (false, scsi::op::REQUEST_SENSE) => Ok(Plan::Reply(Sense::BAD_LUN.fixed().to_vec())),
            (false, _) => Ok(Plan::Check(Sense::BAD_LUN)),
        }
    }

    /// Takes what a unit's disk is done with.
    pub(super) fn complete(&mut self, address: Address) {
        let Some(attached) = self.units.get_mut(&address) else { return };
        let mut touched = vec![false; self.queues.len()];
        for ended in attached.port.completed() {
            let index = ended.tag.queue();
            let Some(queue) = self.queues.get(index) else { continue };
            if let Some((request, outcome)) = finish(attached, ended) {
                answer(queue, &request, &outcome);
                touched[index] = true;
            }
        }
        for (queue, touched) in self.queues.iter().zip(touched) {
            if touched {
                queue.signal();
            }
        }
    }

    /// Answers requests that were taken away from a disk.
    pub(super) fn answer_cancelled(&self, requests: Vec<Running>, response: u8) {
        for running in requests {
            if let Some(queue) = self.queues.get(running.queue()) {
                answer(queue, running.request(), &Outcome::transport(response));
                queue.signal();
            }
        }
    }
}

/// Starts what a plan asks of the disk; `Some` if the command is done.
fn carry_out(
    attached: Option<&mut Attached>,
    queue: &Queue,
    request: Request,
    plan: Plan,
) -> Option<(Request, Outcome)> {
    let (op, offset, payload, moved, steps, expected) = match plan {
        Plan::Reply(bytes) => {
            let len = usize::try_from(request.input.len()).unwrap_or(usize::MAX).min(bytes.len());
            let outcome = match request.input.write(queue.ram(), 0, &bytes[..len]) {
                // A command without data in took all that it was given.
                Ok(()) if bytes.is_empty() => Outcome::good(request.out.len()),
                Ok(()) => Outcome::good(len as u64),
                Err(_) => Outcome::transport(response::FAILURE),
            };
            return Some((request, outcome));
        }
        Plan::Check(sense) => return Some((request, Outcome::check(sense))),
        Plan::Read { len, .. } if len > request.input.len() => {
            return Some((request, Outcome::transport(response::OVERRUN)));
        }
        Plan::Write { len, .. } if len > request.out.len() => {
            return Some((request, Outcome::transport(response::OVERRUN)));
        }
        Plan::Read { offset, len } => {
            (Op::Read, offset, Payload::Guest(request.input.slice(0, len)), len, Vec::new(), None)
        }
        Plan::Write { offset, len, fua } => {
            let op = if fua { Op::WriteFua } else { Op::Write };
            (op, offset, Payload::Guest(request.out.slice(0, len)), len, Vec::new(), None)
        }
        Plan::Compare { offset, expected } => {
            let (len, room) = (expected.len() as u64, vec![0; expected.len()]);
            (Op::Read, offset, Payload::Buffer(room), len, Vec::new(), Some(expected))
        }
        Plan::Steps(mut steps) => {
            steps.reverse();
            let Some(Step { op, offset, payload }) = steps.pop() else {
                return Some((request, Outcome::good(0)));
            };
            let moved = request.out.len();
            (op, offset, payload, moved, steps, None)
        }
    };
    let Some(attached) = attached else { return Some((request, Outcome::transport(response::FAILURE))) };
    attached.port.submit(Running { request, moved, steps, expected }, op, offset, payload);
    None
}

/// The disk did its part: the next step, or the end of the command.
fn finish(attached: &mut Attached, ended: Ended<Running>) -> Option<(Request, Outcome)> {
    let Ended { tag: mut running, result, payload } = ended;
    if let Err(error) = result {
        let sense = match error.kind() {
            std::io::ErrorKind::StorageFull => Sense::SPACE_ALLOCATION,
            _ if running.request.input.is_empty() => Sense::WRITE_ERROR,
            _ => Sense::READ_ERROR,
        };
        return Some((running.request, Outcome::check(sense)));
    }
    if let (Some(expected), Payload::Buffer(found)) = (&running.expected, &payload)
        && expected != found
    {
        return Some((running.request, Outcome::check(Sense::MISCOMPARE)));
    }
    match running.steps.pop() {
        None => Some((running.request, Outcome::good(running.moved))),
        Some(Step { op, offset, payload }) => {
            attached.port.submit(running, op, offset, payload);
            None
        }
    }
}
