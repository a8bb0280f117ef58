//! Posted writes: guest writes that an accelerator takes without leaving the guest, and delivers later.
//!
//! Only what no one notices is posted: memory that is looked at when the display is drawn, and index registers that do
//! nothing by themselves. Whoever takes the board lock gets a board that has seen them all, in the order in which the
//! guest made them ([`super::BoardCell::lock`]). Plain memory is not behind the lock: a processor that writes through
//! the VGA window and reads the same byte through the linear frame buffer may be too early, as on QEMU.

use std::sync::Arc;

use super::device::Width;

/// Where writes may be posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostedRange {
    /// Guest physical addresses.
    Memory {
        /// First address.
        gpa: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Ports.
    Ports {
        /// First port.
        base: u16,
        /// How many.
        len: u16,
    },
}

/// One write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostedWrite {
    /// To memory.
    Memory {
        /// Address.
        gpa: u64,
        /// Data; the first `len` bytes count.
        data: [u8; 8],
        /// Length in bytes, at most 8.
        len: usize,
    },
    /// To a port.
    Port {
        /// Port.
        port: u16,
        /// Width; at most 32 bits.
        width: Width,
        /// Value.
        value: u32,
    },
}

/// An accelerator's queue of posted writes.
pub trait PostedWrites: Send + Sync {
    /// How many wait.
    fn waiting(&self) -> usize;

    /// The oldest.
    fn take(&self) -> Option<PostedWrite>;
}

/// The queue of a board, once there is one.
pub(super) type Queue = std::sync::OnceLock<Arc<dyn PostedWrites>>;
