//! `compress`: everything that is written is written compressed, where the format can.

use std::io;
use std::sync::{Arc, Mutex};

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

/// A node whose writes are compressed.
pub struct CompressNode {
    file: Arc<dyn BlockNode>,
    unit: u64,
    /// Writes of parts of a unit read it first.
    writing: Mutex<()>,
}

impl CompressNode {
    fn write_unit(&self, start: u64, data: &[u8]) -> IoResult<()> {
        self.file.image().ok_or(io::ErrorKind::Unsupported)?.write_compressed(start, data)
    }
}

impl BlockNode for CompressNode {
    forward!(file: len read_at zero zero_fast discard flush extent allocated_bytes truncate set_sharing preallocate image event
        children);

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        let _alone = lock(&self.writing);
        let len = self.file.len()?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
            let start = at - at % self.unit;
            let whole = self.unit.min(len.saturating_sub(start));
            let inside = usize::try_from(at - start).map_err(|_| io::ErrorKind::InvalidInput)?;
            let whole_len = usize::try_from(whole).map_err(|_| io::ErrorKind::InvalidInput)?;
            let step = whole_len.saturating_sub(inside).min(buf.len() - done);
            if step == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if step == whole_len {
                self.write_unit(start, &buf[done..done + step])?;
            } else {
                let mut unit = vec![0; whole_len];
                self.file.read_at(start, &mut unit)?;
                unit[inside..inside + step].copy_from_slice(&buf[done..done + step]);
                self.write_unit(start, &unit)?;
            }
            done += step;
        }
        if fua { self.file.flush() } else { Ok(()) }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "compress", ..self.file.info() }
    }
}

/// `compress`.
pub struct Compress;

impl Driver for Compress {
    fn name(&self) -> &'static str {
        "compress"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.filtered("file")?;
        context.finish()?;
        let unit = file.ops().and_then(|ops| ops.compressed_unit()).filter(|unit| *unit > 0);
        let unit = unit.ok_or_else(|| {
            OpenError::Invalid("Compression is not supported for underlying format: ".to_owned() + file.driver)
        })?;
        let node = CompressNode { file: Arc::clone(&file.node), unit, writing: Mutex::new(()) };
        Ok(Opened::new(Arc::new(node), file.filename).over(file.file))
    }
}
