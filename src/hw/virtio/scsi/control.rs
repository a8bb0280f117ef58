//! The control queue (5.6.6.2): task management and asynchronous notification. The event queue (5.6.6.3).

use std::sync::Arc;

use super::super::{Chain, Queue};
use super::request::response;
use super::{Address, EVENT, Inner, bit};
use crate::mem::GuestRam;

/// Bytes of an event: event, lun, reason.
pub(super) const EVENT_LEN: usize = 16;

/// Control request types.
mod request_type {
    pub const TASK_MANAGEMENT: u32 = 0;
    pub const QUERY_NOTIFICATION: u32 = 1;
    pub const SUBSCRIBE_NOTIFICATION: u32 = 2;
}

/// Task management functions.
mod function {
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_ACA: u32 = 2;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const NEXUS_RESET: u32 = 4;
    pub const LOGICAL_UNIT_RESET: u32 = 5;
    pub const QUERY_TASK: u32 = 6;
    pub const QUERY_TASK_SET: u32 = 7;
}

/// Events.
mod event {
    pub const MISSED: u32 = 1 << 31;
    pub const PARAMETER_CHANGE: u32 = 3;
}

/// Reason of a parameter change: additional sense code and qualifier of "medium may have changed".
const MEDIUM_CHANGED: u32 = 0x28;

fn field<const N: usize>(ram: &GuestRam, chain: &Chain, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    chain.read(ram, at, &mut bytes).ok().map(|()| bytes)
}

impl Inner {
    pub(super) fn serve_control(&mut self, queue: &Arc<Queue>) {
        let mut answered = false;
        queue.serve(|chain| {
            match self.control(queue.ram(), &chain) {
                Some(reply) if chain.write(queue.ram(), 0, &reply).is_ok() => {
                    queue.push(&chain, u32::try_from(reply.len()).unwrap_or(0));
                    answered = true;
                }
                _ => queue.fail("a SCSI control request without header or response"),
            }
            true
        });
        if answered {
            queue.signal();
        }
    }

    fn control(&mut self, ram: &GuestRam, chain: &Chain) -> Option<Vec<u8>> {
        match u32::from_le_bytes(field(ram, chain, 0)?) {
            request_type::TASK_MANAGEMENT => {
                let function = u32::from_le_bytes(field(ram, chain, 4)?);
                let address = Address::parse(field(ram, chain, 8)?);
                let id = u64::from_le_bytes(field(ram, chain, 16)?);
                Some(vec![self.manage(function, address, id)])
            }
            request_type::QUERY_NOTIFICATION | request_type::SUBSCRIBE_NOTIFICATION => {
                // No unit of ours sends such events: none of those asked for.
                field::<8>(ram, chain, 4)?;
                field::<4>(ram, chain, 12)?;
                Some(vec![0, 0, 0, 0, response::OK])
            }
            _ => Some(vec![response::FAILURE]),
        }
    }

    /// A task management function: its response.
    fn manage(&mut self, function: u32, address: Option<Address>, id: u64) -> u8 {
        let Some(address) = address else { return response::BAD_TARGET };
        if !self.units.keys().any(|other| other.target == address.target) {
            return response::BAD_TARGET;
        }
        if function == function::NEXUS_RESET {
            let targets: Vec<Address> =
                self.units.keys().copied().filter(|other| other.target == address.target).collect();
            for unit in targets {
                self.reset_unit(unit);
            }
            return response::OK;
        }
        let Some(attached) = self.units.get_mut(&address) else { return response::INCORRECT_LUN };
        match function {
            function::ABORT_TASK => {
                let dropped = attached.port.cancel(|running| running.id() == id);
                self.answer_cancelled(dropped, response::ABORTED);
                response::OK
            }
            function::ABORT_TASK_SET | function::CLEAR_TASK_SET => {
                let dropped = attached.port.cancel(|_| true);
                self.answer_cancelled(dropped, response::ABORTED);
                response::OK
            }
            function::LOGICAL_UNIT_RESET => {
                self.reset_unit(address);
                response::OK
            }
            function::QUERY_TASK => {
                let known = attached.port.tags().any(|running| running.id() == id);
                if known { response::FUNCTION_SUCCEEDED } else { response::OK }
            }
            function::QUERY_TASK_SET => {
                if attached.port.is_idle() {
                    response::OK
                } else {
                    response::FUNCTION_SUCCEEDED
                }
            }
            function::CLEAR_ACA => response::FUNCTION_REJECTED,
            _ => response::FUNCTION_REJECTED,
        }
    }

    fn reset_unit(&mut self, address: Address) {
        let Some(attached) = self.units.get_mut(&address) else { return };
        let dropped = attached.port.cancel(|_| true);
        attached.unit.reset();
        self.answer_cancelled(dropped, response::RESET);
    }

    /// The driver gave new event buffers: one is for what was missed.
    pub(super) fn serve_events(&mut self, queue: &Arc<Queue>) {
        if !self.events_missed {
            return;
        }
        let mut bytes = [0; EVENT_LEN];
        bytes[..4].copy_from_slice(&event::MISSED.to_le_bytes());
        if send(queue, &bytes) {
            self.events_missed = false;
        }
    }

    /// Tells the driver that a unit has another medium.
    pub(super) fn medium_changed(&mut self, address: Address) {
        if self.features & bit::CHANGE == 0 {
            return;
        }
        let Some(queue) = self.queues.get(EVENT).cloned() else { return };
        let mut bytes = [0; EVENT_LEN];
        let missed = if self.events_missed { event::MISSED } else { 0 };
        bytes[..4].copy_from_slice(&(event::PARAMETER_CHANGE | missed).to_le_bytes());
        bytes[4..12].copy_from_slice(&address.bytes());
        bytes[12..].copy_from_slice(&MEDIUM_CHANGED.to_le_bytes());
        self.events_missed = !send(&queue, &bytes);
    }
}

/// Puts an event into a buffer of the driver's, if there is one.
fn send(queue: &Queue, bytes: &[u8]) -> bool {
    let Some(chain) = queue.pop() else { return false };
    if chain.writable.len() < bytes.len() as u64 || chain.write(queue.ram(), 0, bytes).is_err() {
        queue.fail("a SCSI event buffer is too short");
        return false;
    }
    queue.push(&chain, u32::try_from(bytes.len()).unwrap_or(0));
    queue.signal();
    true
}
