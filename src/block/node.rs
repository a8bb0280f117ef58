//! The one trait of protocols, formats and filters: positional, blocking, shareable between threads.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::create::Preallocation;
use super::debug::{DebugOps, Event};
use super::error::OpenError;
use super::image::ImageOps;
use super::sharing::Sharing;

/// What block operations return. Errors carry the host's errno where there is one.
pub type IoResult<T> = io::Result<T>;

/// What is known of a run of bytes without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// This node, not a backing file, decides the content.
    pub allocated: bool,
    /// It reads as zeros.
    pub zero: bool,
    /// There is data to read.
    pub data: bool,
    /// It is stored compressed.
    pub compressed: bool,
    /// Where it begins in the file below, if it is stored there as it is.
    pub offset: Option<u64>,
}

/// What a node is, for monitors and messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeInfo {
    /// The driver's name ("qcow2", "file").
    pub driver: &'static str,
    /// The file's name as QEMU shows it.
    pub filename: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A protocol, a format or a filter. Offsets and lengths are in bytes; nothing need be aligned.
pub trait BlockNode: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// The host cannot tell.
    fn len(&self) -> IoResult<u64>;

    /// Whether there are no bytes at all.
    ///
    /// # Errors
    /// As [`BlockNode::len`].
    fn is_empty(&self) -> IoResult<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`. Bytes past the end read as zeros only where the format says so; else it is
    /// `UnexpectedEof`.
    ///
    /// # Errors
    /// The host's, or the image is corrupt.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()>;

    /// Writes all of `buf`; with `fua` it is on stable storage before this returns.
    ///
    /// # Errors
    /// The host's, the image is corrupt or read-only.
    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()>;

    /// Makes a range read as zeros; `may_unmap` lets the node give its storage back.
    ///
    /// # Errors
    /// As [`BlockNode::write_at`].
    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()>;

    /// As [`BlockNode::zero`], but only where that is faster than writing zeros.
    ///
    /// # Errors
    /// `Unsupported` where zeros would have to be written; as [`BlockNode::write_at`].
    fn zero_fast(&self, _offset: u64, _len: u64, _may_unmap: bool) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The content of the range is no longer needed.
    ///
    /// # Errors
    /// As [`BlockNode::write_at`].
    fn discard(&self, offset: u64, len: u64) -> IoResult<()>;

    /// What was written before is on stable storage when this returns.
    ///
    /// # Errors
    /// The host's.
    fn flush(&self) -> IoResult<()>;

    /// What is known of the bytes at `offset`, and for how many of at most `len` bytes that holds (at least 1).
    ///
    /// # Errors
    /// The host's, or the image is corrupt.
    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)>;

    /// Bytes of storage that it takes on the host.
    ///
    /// # Errors
    /// The host's.
    fn allocated_bytes(&self) -> IoResult<u64> {
        Ok(0)
    }

    /// Changes the length.
    ///
    /// # Errors
    /// `Unsupported` where the node has a fixed length.
    fn truncate(&self, _len: u64) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes the image locks for what the node's user does with it, where the node has such locks.
    ///
    /// # Errors
    /// [`OpenError::Lock`].
    fn set_sharing(&self, _sharing: Sharing) -> Result<(), OpenError> {
        Ok(())
    }

    /// Gives the range storage, extending the node if it must: `Falloc` without writing, `Full` by zeros.
    ///
    /// # Errors
    /// The host's; `Unsupported` where it cannot.
    fn preallocate(&self, _offset: u64, _len: u64, _how: Preallocation) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The host's file whose bytes these are, at the same offsets: for copies that the host does by itself.
    fn host_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What the image can do beyond this, if it is one of a format.
    fn image(&self) -> Option<&dyn ImageOps> {
        None
    }

    /// The user of this node is at this place in its work; a test driver may hold it there.
    fn event(&self, _event: Event) {}

    /// Breakpoints at such places, if the node has them.
    fn debug(&self) -> Option<&dyn DebugOps> {
        None
    }

    /// What it is.
    fn info(&self) -> NodeInfo {
        NodeInfo::default()
    }

    /// The nodes below, by role ("file", "backing").
    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        Vec::new()
    }
}
