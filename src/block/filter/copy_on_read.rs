//! `copy-on-read`: what is read from backing files is written to the image, so that the next read finds it there.

use std::sync::{Arc, PoisonError, RwLock};

use crate::block::debug::Event;
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

/// Bytes that one copy moves at most.
const COPY_BYTES: u64 = 1 << 20;

/// A node that keeps what is read.
pub struct CopyOnReadNode {
    file: Arc<dyn BlockNode>,
    /// Copies are made in whole units of the image.
    unit: u64,
    /// Held for writing while something is copied, for reading while something is written: a copy must not replace what
    /// was written meanwhile.
    copying: RwLock<()>,
}

impl CopyOnReadNode {
    /// Over an image.
    ///
    /// # Errors
    /// The image is read-only.
    pub fn new(file: Arc<dyn BlockNode>) -> Result<Self, OpenError> {
        if file.info().read_only {
            return Err(OpenError::Invalid("Block node is read-only".to_owned()));
        }
        let unit = file.image().and_then(|image| image.details().ok()).and_then(|details| details.cluster_size);
        Ok(Self { file, unit: unit.unwrap_or(512).clamp(512, COPY_BYTES), copying: RwLock::new(()) })
    }

    /// Copies what is not in the image itself, from `offset` to `end`.
    fn fetch(&self, offset: u64, end: u64) -> IoResult<()> {
        let len = self.file.len()?;
        let mut at = offset - offset % self.unit;
        let end = end.checked_next_multiple_of(self.unit).unwrap_or(len).min(len);
        let mut buffer = Vec::new();
        while at < end {
            let (extent, known) = self.file.extent(at, end - at)?;
            let known = known.clamp(1, end - at);
            if extent.allocated {
                at += known;
                continue;
            }
            let step = known.min(COPY_BYTES);
            let _alone = self.copying.write().unwrap_or_else(PoisonError::into_inner);
            let (extent, step) = self.file.extent(at, step)?;
            if !extent.allocated {
                buffer.resize(usize::try_from(step).unwrap_or(0), 0);
                self.file.read_at(at, &mut buffer)?;
                self.file.event(Event::CorWrite);
                if buffer.iter().all(|byte| *byte == 0) {
                    self.file.zero(at, step, false)?;
                } else {
                    self.file.write_at(at, &buffer, false)?;
                }
            }
            at += step.max(1);
        }
        Ok(())
    }
}

impl BlockNode for CopyOnReadNode {
    forward!(file: len flush extent allocated_bytes truncate set_sharing preallocate image event children);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.fetch(offset, offset.saturating_add(buf.len() as u64))?;
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        let _shared = self.copying.read().unwrap_or_else(PoisonError::into_inner);
        self.file.write_at(offset, buf, fua)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let _shared = self.copying.read().unwrap_or_else(PoisonError::into_inner);
        self.file.zero(offset, len, may_unmap)
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let _shared = self.copying.read().unwrap_or_else(PoisonError::into_inner);
        self.file.zero_fast(offset, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        let _shared = self.copying.read().unwrap_or_else(PoisonError::into_inner);
        self.file.discard(offset, len)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "copy-on-read", ..self.file.info() }
    }
}

/// `copy-on-read`.
pub struct CopyOnRead;

impl Driver for CopyOnRead {
    fn name(&self) -> &'static str {
        "copy-on-read"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[("file", KeyKind::Node), ("bottom", KeyKind::Refused)]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        if context.options.take_str("bottom")?.is_some() {
            return Err(OpenError::Unsupported("copy-on-read's bottom".to_owned()));
        }
        let file = context.filtered("file")?;
        context.finish()?;
        let node = CopyOnReadNode::new(Arc::clone(&file.node))?;
        Ok(Opened::new(Arc::new(node), file.filename).over(file.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::format::qcow2;
    use crate::block::format::qcow2::create;
    use crate::block::memory::MemoryNode;

    #[test]
    fn what_was_read_is_in_the_image_afterwards() {
        let below = MemoryNode::new(1 << 20);
        below.write_at(100, b"below", false).unwrap();
        let file = MemoryNode::new(0);
        create::create(file.as_ref(), &create::CreateOptions::new(1 << 20)).unwrap();
        let options = qcow2::OpenOptions::default();
        let image: Arc<dyn BlockNode> = Arc::new(qcow2::Image::open(file, Some(below.clone()), options).unwrap());
        let node = CopyOnReadNode::new(Arc::clone(&image)).unwrap();
        let mut buf = [0; 5];
        node.read_at(100, &mut buf).unwrap();
        assert_eq!(&buf, b"below");
        let (extent, len) = image.extent(0, 1 << 20).unwrap();
        assert!(extent.allocated && len == 65536);
        below.write_at(100, b"other", false).unwrap();
        node.read_at(100, &mut buf).unwrap();
        assert_eq!(&buf, b"below");
    }
}
