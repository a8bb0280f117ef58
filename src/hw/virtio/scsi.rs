//! The SCSI host device (5.6): a bus of logical units behind request queues, with task management and events.
//!
//! As the block device, requests are parsed where the notification arrives and completed by the disks' workers, without
//! the board lock: see [`Plane`].

mod control;
mod request;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use self::request::Running;
use super::{DeviceType, Negotiated, Queue, VirtioDevice};
use crate::block::{BlockQueue, Notify};
use crate::bus::Token;
use crate::event::LoopHandle;
use crate::hw::scsi::{Medium, Options as UnitOptions, Unit};
use crate::hw::storage::{DiskPort, FaultSink, Policies, RESUME};

/// What this device is.
pub const TYPE: DeviceType = DeviceType { id: 8, transitional_id: 0x1004, class: 0x01_0000, name: "scsi" };

/// Feature bits (5.6.3).
mod bit {
    pub const INOUT: u64 = 1 << 0;
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
}

/// Queues before the request queues.
const CONTROL: usize = 0;
const EVENT: usize = 1;
const FIRST_REQUEST: usize = 2;

/// Bytes of the configuration space (5.6.4).
const CONFIG_LEN: usize = 36;
const CONFIG_SENSE_SIZE: usize = 20;
const CONFIG_CDB_SIZE: usize = 24;
/// Defaults of sense and command sizes.
const SENSE_SIZE: u32 = 96;
const CDB_SIZE: u32 = 32;
/// Sizes that a driver may ask for.
const MAX_SENSE_SIZE: u32 = 96;
const MAX_CDB_SIZE: u32 = 32;
/// Targets are 0 to 255, units 0 to 16383.
pub const MAX_TARGET: u16 = 255;
/// See [`MAX_TARGET`].
pub const MAX_LUN: u16 = 16383;

/// What the host adapter is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Request queues.
    pub queues: u16,
    /// Entries of each queue.
    pub queue_size: u16,
    /// Segments of a request follow the queue size (`seg_max_adjust`).
    pub seg_max_adjust: bool,
    /// Sectors of a request at most.
    pub max_sectors: u32,
    /// Commands of a unit at once.
    pub cmd_per_lun: u32,
    /// Units may come and go (`hotplug`).
    pub hotplug: bool,
    /// Changes of media are told (`param_change`).
    pub param_change: bool,
}

/// A unit's place on the bus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// Target (`scsi-id`).
    pub target: u8,
    /// Unit (`lun`).
    pub lun: u16,
}

impl Address {
    /// From the first four bytes of a request's LUN field (5.6.6.1).
    fn parse(bytes: [u8; 8]) -> Option<Self> {
        let [one, target, high, low, ..] = bytes;
        let lun = u16::from_be_bytes([high & 0x3f, low]);
        let format_ok = high & 0xc0 == 0x40 || high == 0;
        (one == 1 && format_ok).then_some(Self { target, lun })
    }

    /// The LUN field.
    fn bytes(self) -> [u8; 8] {
        let [high, low] = self.lun.to_be_bytes();
        [1, self.target, high | 0x40, low, 0, 0, 0, 0]
    }
}

/// A unit and its disk.
struct Attached {
    unit: Unit,
    port: DiskPort<Running>,
}

impl Attached {
    fn medium(&self) -> Medium {
        Medium { present: self.port.has_medium(), capacity: self.port.capacity(), read_only: self.port.read_only() }
    }
}

struct Inner {
    options: Options,
    units: BTreeMap<Address, Attached>,
    queues: Vec<Arc<Queue>>,
    features: u64,
    sense_size: u32,
    cdb_size: u32,
    /// An event found no buffer.
    events_missed: bool,
}

/// The part that works without the board lock.
pub struct Plane(Mutex<Inner>);

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

impl Plane {
    /// An empty bus.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            options,
            units: BTreeMap::new(),
            queues: Vec::new(),
            features: 0,
            sense_size: SENSE_SIZE,
            cdb_size: CDB_SIZE,
            events_missed: false,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a unit on the bus. `connect` makes its disk's queue, given what it calls when requests ended.
    pub fn attach(
        self: &Arc<Self>,
        address: Address,
        unit: UnitOptions,
        policies: Policies,
        faults: FaultSink,
        connect: impl FnOnce(Notify) -> Box<dyn BlockQueue>,
    ) {
        let plane: Weak<Self> = Arc::downgrade(self);
        let notify: Notify = Arc::new(move || {
            if let Some(plane) = plane.upgrade() {
                plane.inner().complete(address);
            }
        });
        let port = DiskPort::new(connect(notify), policies, faults);
        self.inner().units.insert(address, Attached { unit: Unit::new(unit), port });
    }

    /// The places that are taken.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.inner().units.keys().copied().collect()
    }

    /// Calls `f` with a unit, for monitors; afterwards the driver is told of a change of medium.
    pub fn with_unit<R>(&self, address: Address, changed: bool, f: impl FnOnce(&mut Unit) -> R) -> Option<R> {
        let mut inner = self.inner();
        let result = f(&mut inner.units.get_mut(&address)?.unit);
        if changed {
            inner.medium_changed(address);
        }
        Some(result)
    }

    fn serve(&self, queue: usize) {
        self.inner().serve(queue);
    }
}

impl Inner {
    fn serve(&mut self, index: usize) {
        let Some(queue) = self.queues.get(index).cloned() else { return };
        match index {
            CONTROL => self.serve_control(&queue),
            EVENT => self.serve_events(&queue),
            _ => self.serve_requests(index, &queue),
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct Scsi {
    plane: Arc<Plane>,
    thread: Option<LoopHandle>,
}

impl Scsi {
    /// The device before a plane. With `thread`, requests are parsed there.
    #[must_use]
    pub fn new(plane: Arc<Plane>, thread: Option<LoopHandle>) -> Self {
        Self { plane, thread }
    }
}

impl VirtioDevice for Scsi {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        let Options { hotplug, param_change, .. } = self.plane.inner().options;
        bit::INOUT | if hotplug { bit::HOTPLUG } else { 0 } | if param_change { bit::CHANGE } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let Options { queues, queue_size, .. } = self.plane.inner().options;
        vec![queue_size; usize::from(queues) + FIRST_REQUEST]
    }

    fn config(&self) -> Vec<u8> {
        let inner = self.plane.inner();
        let Options { queues, queue_size, seg_max_adjust, max_sectors, cmd_per_lun, .. } = inner.options;
        let seg_max = if seg_max_adjust { u32::from(queue_size).saturating_sub(2) } else { 126 };
        let mut bytes = Vec::with_capacity(CONFIG_LEN);
        let event_size = u32::try_from(control::EVENT_LEN).unwrap_or(16);
        for value in
            [u32::from(queues), seg_max, max_sectors, cmd_per_lun, event_size, inner.sense_size, inner.cdb_size]
        {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        // One channel.
        for value in [0, MAX_TARGET] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&u32::from(MAX_LUN).to_le_bytes());
        bytes
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let (value, mut inner) = (u32::from_le_bytes(bytes), self.plane.inner());
        match offset {
            CONFIG_SENSE_SIZE if value <= MAX_SENSE_SIZE => inner.sense_size = value,
            CONFIG_CDB_SIZE if (16..=MAX_CDB_SIZE).contains(&value) => inner.cdb_size = value,
            _ => {}
        }
    }

    fn activate(&mut self, negotiated: Negotiated) {
        let mut inner = self.plane.inner();
        inner.features = negotiated.features;
        inner.queues = negotiated.queues;
    }

    fn notify(&mut self, queue: usize) {
        match &self.thread {
            None => self.plane.serve(queue),
            Some(thread) => {
                let plane = Arc::clone(&self.plane);
                thread.post(move || plane.serve(queue));
            }
        }
    }

    fn event(&mut self, token: Token) {
        if token == RESUME {
            for attached in self.plane.inner().units.values_mut() {
                attached.port.retry_held();
            }
        }
    }

    fn reset_queue(&mut self, queue: usize) {
        for attached in self.plane.inner().units.values_mut() {
            attached.port.cancel(|running| running.queue() == queue);
        }
    }

    fn reset(&mut self) {
        let mut inner = self.plane.inner();
        for attached in inner.units.values_mut() {
            attached.port.cancel_all();
            attached.unit.reset();
        }
        inner.queues.clear();
        inner.features = 0;
        inner.sense_size = SENSE_SIZE;
        inner.cdb_size = CDB_SIZE;
        inner.events_missed = false;
    }
}

#[cfg(test)]
mod tests;
