//! The network outside of the guest: the wire that network cards hang on, and what is at its other end.
//!
//! A network card holds a [`Link`]; back ends hold the other [`Port`] of its [`Wire`] on threads of their own, without
//! the board lock.

mod checksum;
mod datagram;
mod dump;
mod link;
mod offload;
mod packet;
mod pump;
mod registry;
mod stream;
mod tap;
pub mod user;
pub mod vnet;
mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use checksum::Sum;
pub use dump::Dump;
pub use link::{Caller, Link, Notify, RxFilter};
pub use offload::{ETHERNET, Layout, fill_ipv4_checksum, ipv4_checksum_over, long_tcp};
pub use packet::{Checksum, Offload, Offloads, Packet, SegmentKind, Segmentation};
pub use registry::{ClientInfo, KINDS, Networks, Peer, PeerError, Spec};
pub use wire::{Port, PortHandle, Role, Tap, Wire};

/// Locks; what a panicking thread left is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
