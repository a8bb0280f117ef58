//! `preallocate`: a file that grows gets storage ahead of the writes, in large pieces, and loses what was not needed when
//! it is closed.

use std::sync::{Arc, Mutex};

use crate::block::create::Preallocation;
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

/// A file with storage ahead of it.
pub struct PreallocateNode {
    file: Arc<dyn BlockNode>,
    size: u64,
    align: u64,
    /// The length that the user sees, and up to where there is storage.
    ends: Mutex<Ends>,
}

#[derive(Clone, Copy)]
struct Ends {
    data: u64,
    storage: u64,
}

impl PreallocateNode {
    /// A write up to `end` is coming.
    fn reserve(&self, end: u64) -> IoResult<()> {
        let mut ends = lock(&self.ends);
        if end > ends.storage {
            let wanted = end.saturating_add(self.size);
            let wanted = wanted.checked_next_multiple_of(self.align).unwrap_or(end);
            let from = self.file.len()?.max(ends.storage);
            // Without storage the write itself extends the file.
            if self.file.preallocate(from, wanted.saturating_sub(from), Preallocation::Falloc).is_ok() {
                ends.storage = wanted;
            }
        }
        ends.data = ends.data.max(end);
        Ok(())
    }
}

impl BlockNode for PreallocateNode {
    forward!(file: flush allocated_bytes set_sharing image event children);

    fn len(&self) -> IoResult<u64> {
        Ok(lock(&self.ends).data)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.reserve(offset.saturating_add(buf.len() as u64))?;
        self.file.write_at(offset, buf, fua)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.reserve(offset.saturating_add(len))?;
        self.file.zero(offset, len, may_unmap)
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.reserve(offset.saturating_add(len))?;
        self.file.zero_fast(offset, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.file.discard(offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.file.extent(offset, len)
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        let mut ends = lock(&self.ends);
        if len > ends.data && len <= ends.storage {
            // What lies there was given storage by `fallocate`: it reads as zeros.
            ends.data = len;
            return Ok(());
        }
        self.file.truncate(len)?;
        *ends = Ends { data: len, storage: len };
        Ok(())
    }

    fn preallocate(&self, offset: u64, len: u64, how: Preallocation) -> IoResult<()> {
        self.file.preallocate(offset, len, how)?;
        let end = offset.saturating_add(len);
        let mut ends = lock(&self.ends);
        *ends = Ends { data: ends.data.max(end), storage: ends.storage.max(end) };
        Ok(())
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "preallocate", ..self.file.info() }
    }
}

impl Drop for PreallocateNode {
    fn drop(&mut self) {
        let ends = *lock(&self.ends);
        if ends.storage > ends.data && !self.file.info().read_only {
            // Nobody is left to tell; the file is longer than it need be, and all of it is there.
            let _ = self.file.truncate(ends.data);
        }
    }
}

/// `preallocate`.
pub struct PreallocateDriver;

impl Driver for PreallocateDriver {
    fn name(&self) -> &'static str {
        "preallocate"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[("file", KeyKind::Node), ("prealloc-align", KeyKind::Size), ("prealloc-size", KeyKind::Size)]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let align = context.options.take_size("prealloc-align")?.unwrap_or(1 << 20);
        let size = context.options.take_size("prealloc-size")?.unwrap_or(128 << 20);
        if align == 0 || !align.is_multiple_of(512) {
            let text = format!("prealloc-align parameter of preallocate filter is not aligned to {}", 512);
            return Err(OpenError::Invalid(text));
        }
        let file = context.filtered("file")?;
        context.finish()?;
        let data = file.node.len().map_err(OpenError::io("Could not get image size"))?;
        let ends = Mutex::new(Ends { data, storage: data });
        let node = PreallocateNode { file: Arc::clone(&file.node), size, align, ends };
        Ok(Opened::new(Arc::new(node), file.filename).over(file.file))
    }
}
