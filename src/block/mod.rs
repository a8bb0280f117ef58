//! Disk images: protocols, formats and filters as a graph of blocking nodes, and the queue that a disk controller
//! holds.

pub mod create;
pub mod crypto;
mod debug;
pub mod dirty;
pub mod driver;
mod error;
pub mod filter;
pub mod format;
mod graph;
pub mod image;
pub mod keys;
#[cfg(test)]
pub(crate) mod memory;
pub mod nbd;
mod node;
mod options;
pub mod probe;
pub mod protocol;
mod queue;
mod sharing;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use debug::{DebugOps, Event};
pub use driver::{Kind, is_known_driver};
pub use error::{LockKind, OpenError};
pub use graph::{Image, OpenContext, OpenFlags, Opener, Share, Status, backing_path, open};
pub use image::{CheckFailed, CheckReport, Details, ImageOps, Repair, SnapshotInfo};
pub use node::{BlockNode, Extent, IoResult, NodeInfo};
pub use options::{CacheMode, NodeOptions, Options, parse_size};
pub use queue::{BlockQueue, Completion, Op, Payload, Request};
pub use sharing::{Permissions, Sharing};
pub use worker::{Disk, DiskError, DiskOptions, ErrorAction, ErrorPolicy, Notify, OnError, Stats};

/// Locks; what a panicking thread left is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
