//! The block device (5.2): disks with several queues, discard, write zeroes and a write cache that the driver can switch.
//!
//! Requests are parsed where the driver's notification arrives and are given back by the disk's worker, which does not
//! take the board lock: everything that both touch is in [`Plane`], behind a lock that is a leaf. With an I/O thread,
//! notifications only wake that thread. Not modelled: secure erase, zones, lifetime reports; their requests end as
//! unsupported.

mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use self::request::{Kind, Parsed, parse};
use super::{Chain, DeviceType, Negotiated, Notifier, Queue, VirtioDevice};
use crate::block::{BlockQueue, Notify, Op, Payload};
use crate::bus::Token;
use crate::event::LoopHandle;
use crate::hw::storage::{DiskPort, FaultSink, Policies, RESUME};

/// What this device is.
pub const TYPE: DeviceType = DeviceType { id: 2, transitional_id: 0x1001, class: 0x01_0000, name: "blk" };

/// Feature bits (5.2.3).
mod bit {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Status bytes of requests (5.2.6).
pub const STATUS_OK: u8 = 0;
/// See [`STATUS_OK`].
pub const STATUS_IOERR: u8 = 1;
/// See [`STATUS_OK`].
pub const STATUS_UNSUPP: u8 = 2;

/// Bytes of the configuration space: up to `write_zeroes_may_unmap`, as QEMU has it.
const CONFIG_LEN: usize = 60;
/// Offset of `writeback`.
const CONFIG_WRITEBACK: usize = 32;
/// Bytes of a sector in the protocol, whatever the block size (5.2.4).
pub const SECTOR: u64 = 512;
/// Bytes of a serial number (5.2.6).
const ID_LEN: usize = 20;

/// What the disk is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Request queues.
    pub queues: u16,
    /// Entries of each.
    pub queue_size: u16,
    /// `seg-max-adjust`: segments of a request follow the queue size.
    pub seg_max_adjust: bool,
    /// Serial number; at most 20 bytes count.
    pub serial: String,
    /// Bytes of a logical block.
    pub logical_block_size: u32,
    /// Bytes of a physical block.
    pub physical_block_size: u32,
    /// Smallest and best transfer in bytes; 0: not told.
    pub io_sizes: (u32, u32),
    /// Cylinders, heads, sectors.
    pub geometry: (u16, u8, u8),
    /// The driver may switch the write cache (`config-wce`).
    pub config_wce: bool,
    /// The write cache is on at reset.
    pub write_cache: bool,
    /// Discard is offered, with this many sectors of a request at most, and aligned to so many.
    pub discard: Option<DiscardLimits>,
    /// Write zeroes is offered, with this many sectors at most.
    pub write_zeroes: Option<u32>,
    /// The medium may be written.
    pub read_only: bool,
}

/// What discards are limited to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiscardLimits {
    /// Sectors of a request.
    pub max_sectors: u32,
    /// Sectors that discards should be aligned to.
    pub alignment: u32,
}

/// A request in flight.
#[derive(Clone, Debug)]
struct Tag {
    queue: usize,
    chain: Chain,
    /// Bytes that the driver sees as written, without the status byte.
    written: u32,
}

/// What notifications and completions share.
struct Inner {
    port: DiskPort<Tag>,
    queues: Vec<Arc<Queue>>,
    options: Options,
    write_cache: bool,
}

/// The part that works without the board lock.
pub struct Plane(Mutex<Inner>);

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

impl Plane {
    /// The disk with these options. `connect` makes the disk's queue, given what it calls when requests ended.
    #[must_use]
    pub fn new(
        options: Options,
        policies: Policies,
        faults: FaultSink,
        connect: impl FnOnce(Notify) -> Box<dyn BlockQueue>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|plane: &Weak<Self>| {
            let plane = Weak::clone(plane);
            let notify: Notify = Arc::new(move || {
                if let Some(plane) = plane.upgrade() {
                    plane.complete();
                }
            });
            let port = DiskPort::new(connect(notify), policies, faults);
            let write_cache = options.write_cache;
            Self(Mutex::new(Inner { port, queues: Vec::new(), options, write_cache }))
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the requests that wait in a queue.
    pub fn serve(&self, queue: usize) {
        self.inner().serve(queue);
    }

    fn complete(&self) {
        self.inner().complete();
    }
}

impl Inner {
    fn serve(&mut self, index: usize) {
        let Some(queue) = self.queues.get(index).cloned() else { return };
        let mut answered = false;
        queue.serve(|chain| {
            answered |= self.start(index, &queue, chain);
            true
        });
        if answered {
            queue.signal();
        }
    }

    /// Starts a request, or answers it at once (true).
    fn start(&mut self, index: usize, queue: &Arc<Queue>, chain: Chain) -> bool {
        let parsed = match parse(queue.ram(), &chain, &self.options, self.port.capacity()) {
            Ok(parsed) => parsed,
            Err(request::Broken) => {
                queue.fail("a block request without header or status");
                return false;
            }
        };
        let Parsed { kind, written } = parsed;
        let (op, offset, payload) = match kind {
            Kind::Read { offset, data } => (Op::Read, offset, Payload::Guest(data)),
            Kind::Write { offset, data } => {
                (if self.write_cache { Op::Write } else { Op::WriteFua }, offset, Payload::Guest(data))
            }
            Kind::Flush => (Op::Flush, 0, Payload::Len(0)),
            Kind::Discard { offset, len } => (Op::Discard, offset, Payload::Len(len)),
            Kind::WriteZeroes { offset, len, may_unmap } => (Op::WriteZeroes { may_unmap }, offset, Payload::Len(len)),
            Kind::Id => {
                let status = self.write_id(queue, &chain, written);
                finish(queue, &chain, written, status);
                return true;
            }
            Kind::Answer(status) => {
                finish(queue, &chain, 0, status);
                return true;
            }
        };
        self.port.submit(Tag { queue: index, chain, written }, op, offset, payload);
        false
    }

    fn write_id(&self, queue: &Queue, chain: &Chain, room: u32) -> u8 {
        let mut id = [0; ID_LEN];
        let serial = self.options.serial.as_bytes();
        let len = serial.len().min(ID_LEN);
        id[..len].copy_from_slice(&serial[..len]);
        let room = usize::try_from(room).unwrap_or(ID_LEN).min(ID_LEN);
        if chain.write(queue.ram(), 0, &id[..room]).is_ok() { STATUS_OK } else { STATUS_IOERR }
    }

    fn complete(&mut self) {
        let mut touched = vec![false; self.queues.len()];
        for ended in self.port.completed() {
            let Tag { queue: index, chain, written } = ended.tag;
            let Some(queue) = self.queues.get(index) else { continue };
            let (status, written) = if ended.result.is_ok() { (STATUS_OK, written) } else { (STATUS_IOERR, 0) };
            finish(queue, &chain, written, status);
            touched[index] = true;
        }
        for (queue, touched) in self.queues.iter().zip(touched) {
            if touched {
                queue.signal();
            }
        }
    }
}

/// The status is the last byte that the device writes.
fn finish(queue: &Queue, chain: &Chain, written: u32, status: u8) {
    let at = chain.writable.len().saturating_sub(1);
    if chain.write(queue.ram(), at, &[status]).is_ok() {
        queue.push(chain, written.saturating_add(1));
    } else {
        queue.fail("the status of a block request is not in RAM");
    }
}

/// The device.
#[derive(Debug)]
pub struct Blk {
    // Wires.
    plane: Arc<Plane>,
    thread: Option<LoopHandle>,
    // What the driver set up.
    config: Option<Notifier>,
}

impl Blk {
    /// The device before a plane. With `thread`, requests are parsed there.
    #[must_use]
    pub fn new(plane: Arc<Plane>, thread: Option<LoopHandle>) -> Self {
        Self { plane, thread, config: None }
    }

    /// The medium's length changed (`block_resize`): the driver is told.
    pub fn capacity_changed(&self) {
        if let Some(config) = &self.config {
            config.config_changed();
        }
    }

    /// Whether the write cache is on.
    #[must_use]
    pub fn write_cache(&self) -> bool {
        self.plane.inner().write_cache
    }
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        let options = &self.plane.inner().options;
        let offer = |bit: u64, condition: bool| if condition { bit } else { 0 };
        bit::SEG_MAX
            | bit::GEOMETRY
            | bit::BLK_SIZE
            | bit::TOPOLOGY
            | bit::FLUSH
            | offer(bit::RO, options.read_only)
            | offer(bit::CONFIG_WCE, options.config_wce)
            | offer(bit::MQ, options.queues > 1)
            | offer(bit::DISCARD, options.discard.is_some())
            | offer(bit::WRITE_ZEROES, options.write_zeroes.is_some())
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let options = &self.plane.inner().options;
        vec![options.queue_size; usize::from(options.queues)]
    }

    fn config(&self) -> Vec<u8> {
        let inner = self.plane.inner();
        config_space(&inner.options, inner.port.capacity(), inner.write_cache)
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let (CONFIG_WRITEBACK, [value]) = (offset, data) {
            let mut inner = self.plane.inner();
            if inner.options.config_wce {
                inner.write_cache = *value != 0;
            }
        }
    }

    fn features_accepted(&mut self, features: u64) {
        // A driver that cannot flush gets a disk that needs no flushing (5.2.6.2).
        if features & (bit::FLUSH | bit::CONFIG_WCE) == 0 {
            self.plane.inner().write_cache = false;
        }
    }

    fn activate(&mut self, negotiated: Negotiated) {
        self.plane.inner().queues = negotiated.queues;
        self.config = Some(negotiated.config);
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
            self.plane.inner().port.retry_held();
        }
    }

    fn reset_queue(&mut self, queue: usize) {
        self.plane.inner().port.cancel(|tag| tag.queue == queue);
    }

    fn reset(&mut self) {
        let mut inner = self.plane.inner();
        inner.port.cancel_all();
        inner.queues.clear();
        inner.write_cache = inner.options.write_cache;
        self.config = None;
    }
}

/// `struct virtio_blk_config` (5.2.4).
fn config_space(options: &Options, capacity: u64, write_cache: bool) -> Vec<u8> {
    let mut bytes = vec![0; CONFIG_LEN];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let block = options.logical_block_size.max(512);
    let seg_max = if options.seg_max_adjust { u32::from(options.queue_size).saturating_sub(2) } else { 126 };
    let (cylinders, heads, sectors) = options.geometry;
    put(0, &(capacity / SECTOR).to_le_bytes());
    put(12, &seg_max.to_le_bytes());
    put(16, &cylinders.to_le_bytes());
    put(18, &[heads, sectors]);
    put(20, &block.to_le_bytes());
    let exponent = (options.physical_block_size.max(block) / block).trailing_zeros();
    let blocks = |bytes: u32| bytes / block;
    put(24, &[u8::try_from(exponent).unwrap_or(0), 0]);
    put(26, &u16::try_from(blocks(options.io_sizes.0)).unwrap_or(u16::MAX).to_le_bytes());
    put(28, &blocks(options.io_sizes.1).to_le_bytes());
    put(CONFIG_WRITEBACK, &[u8::from(write_cache)]);
    put(34, &options.queues.to_le_bytes());
    if let Some(DiscardLimits { max_sectors, alignment }) = options.discard {
        put(36, &max_sectors.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &alignment.to_le_bytes());
    }
    if let Some(max_sectors) = options.write_zeroes {
        put(48, &max_sectors.to_le_bytes());
        put(52, &1u32.to_le_bytes());
        put(56, &[1]);
    }
    bytes
}

#[cfg(test)]
mod tests;
