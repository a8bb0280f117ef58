//! Virtio devices and their PCI transport.
//!
//! Documents: Virtual I/O Device (VIRTIO) Version 1.2 (OASIS), and its appendix-like remarks on legacy interfaces;
//! section numbers below are that document's.
//!
//! [`transport_pci::VirtioPci`] is the chip on the board: registers, feature negotiation, reset. It owns a
//! [`VirtioDevice`], which sees only its queues, its configuration space and the driver's features. Everything that a
//! device calls while it works, [`Queue`] and [`Notifier`], is a leaf that may be used from any thread, so that a data
//! plane can leave the board lock.

pub mod blk;
pub mod classes;
mod interrupt;
pub mod net;
mod queue;
pub mod rng;
pub mod scsi;
pub mod serial;
mod spec;
pub mod transport_pci;

#[cfg(test)]
pub(crate) mod bench;

use std::any::Any;
use std::sync::Arc;

use crate::bus::Token;

pub use interrupt::Notifier;
pub use queue::{Chain, Queue};

/// Feature bits that do not belong to a device type (6).
pub mod feature {
    /// Legacy: interrupt when the available ring runs empty, suppressed or not.
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    /// Legacy: any number of descriptors for any part of a request.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Indirect descriptors (2.7.5.3).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` (2.7.7, 2.7.8).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Legacy: a driver that accepts this is broken.
    pub const BAD_FEATURE: u64 = 1 << 30;
    /// Not a legacy driver.
    pub const VERSION_1: u64 = 1 << 32;
    /// Single queues can be reset (2.6.1).
    pub const RING_RESET: u64 = 1 << 40;
}

/// What a device is, by number and name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceType {
    /// Device ID (5).
    pub id: u16,
    /// PCI device ID of the transitional device (4.1.2.1).
    pub transitional_id: u16,
    /// 24-bit PCI class code.
    pub class: u32,
    /// Name without "virtio-" and "-pci" ("rng").
    pub name: &'static str,
}

/// What the driver and the device agreed on, when the driver is ready (3.1.1).
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// Accepted features.
    pub features: u64,
    /// All queues of the device, in order; the driver may have left some of them off.
    pub queues: Vec<Arc<Queue>>,
    /// Tells the driver that the configuration changed.
    pub config: Notifier,
}

impl Negotiated {
    /// Whether the driver accepted all of these features.
    #[must_use]
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }
}

/// A device behind a transport. All calls come under the board lock; nothing that a guest does makes them fail.
pub trait VirtioDevice: Any + Send {
    /// What it is.
    fn device_type(&self) -> DeviceType;

    /// The features of the device type that it offers; the transport adds its own.
    fn features(&self) -> u64;

    /// The largest size of each queue, a power of two up to 1024.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The device configuration space (2.5) as it is now; its length never changes.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver wrote `data` at `offset` of the configuration space; both lie inside it.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// The driver accepted these features (FEATURES_OK; for a legacy driver, each time it writes them).
    fn features_accepted(&mut self, _features: u64) {}

    /// The driver is ready (DRIVER_OK). The device may use its queues until [`VirtioDevice::reset`].
    fn activate(&mut self, negotiated: Negotiated);

    /// The driver made buffers available in a queue. Only between [`VirtioDevice::activate`] and
    /// [`VirtioDevice::reset`].
    fn notify(&mut self, queue: usize);

    /// A timer, completion or descriptor that the device asked for; it may be late and come after a reset.
    fn event(&mut self, _token: Token) {}

    /// The driver takes one queue away (2.6.1): what is in flight in it must not touch guest memory any more. Pushes to
    /// it are ignored from now on.
    fn reset_queue(&mut self, _queue: usize) {}

    /// Back to the state before the driver came. Nothing in flight may touch guest memory afterwards.
    fn reset(&mut self);
}
