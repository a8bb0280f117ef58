//! `blklogwrites`: every write, flush and discard is recorded in a log of Linux's dm-log-writes format
//! (Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c's on-disk structures), which its
//! tools replay step by step.

use std::io;
use std::sync::{Arc, Mutex};

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;
const FLAG_FLUSH: u64 = 1;
const FLAG_FUA: u64 = 2;
const FLAG_DISCARD: u64 = 4;

/// A node whose writes are recorded.
pub struct BlklogwritesNode {
    file: Arc<dyn BlockNode>,
    log: Arc<dyn BlockNode>,
    sector: u64,
    /// Entries so far, and where the next one goes.
    place: Mutex<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    entries: u64,
    next: u64,
}

impl BlklogwritesNode {
    /// Writes the superblock and puts the log on stable storage.
    fn close_entry(&self, place: Place) -> IoResult<()> {
        let mut block = vec![0; usize::try_from(self.sector).map_err(|_| io::ErrorKind::InvalidInput)?];
        block[..8].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&place.entries.to_le_bytes());
        block[24..28].copy_from_slice(&u32::try_from(self.sector).unwrap_or(512).to_le_bytes());
        self.log.write_at(0, &block, false)?;
        self.log.flush()
    }

    /// Adds an entry about `len` bytes at `offset`, with the data of a write.
    fn record(&self, offset: u64, len: u64, flags: u64, data: &[u8]) -> IoResult<()> {
        let mut place = lock(&self.place);
        let mut entry = vec![0; usize::try_from(self.sector).map_err(|_| io::ErrorKind::InvalidInput)?];
        let fields = [offset / self.sector, len.div_ceil(self.sector), flags, 0];
        for (slot, field) in entry.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        self.log.write_at(place.next, &entry, false)?;
        let mut next = place.next + self.sector;
        if !data.is_empty() {
            self.log.write_at(next, data, false)?;
            let padded = (data.len() as u64).next_multiple_of(self.sector);
            let rest = padded - data.len() as u64;
            if rest > 0 {
                self.log.zero(next + data.len() as u64, rest, false)?;
            }
            next += padded;
        }
        *place = Place { entries: place.entries + 1, next };
        if flags & FLAG_FLUSH != 0 { self.close_entry(*place) } else { Ok(()) }
    }
}

impl BlockNode for BlklogwritesNode {
    forward!(file: len read_at extent allocated_bytes truncate set_sharing preallocate image event);

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.file.write_at(offset, buf, fua)?;
        self.record(offset, buf.len() as u64, if fua { FLAG_FUA } else { 0 }, buf)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.file.zero(offset, len, may_unmap)?;
        let mut done = 0;
        while done < len {
            let step = (len - done).min(1 << 20);
            let zeros = vec![0; usize::try_from(step).unwrap_or(0)];
            self.record(offset + done, step, 0, &zeros)?;
            done += step;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.file.discard(offset, len)?;
        self.record(offset, len, FLAG_DISCARD, &[])
    }

    fn flush(&self) -> IoResult<()> {
        self.file.flush()?;
        self.record(0, 0, FLAG_FLUSH, &[])
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "blklogwrites", ..self.file.info() }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        vec![("file", Arc::clone(&self.file)), ("log", Arc::clone(&self.log))]
    }
}

impl Drop for BlklogwritesNode {
    fn drop(&mut self) {
        let place = *lock(&self.place);
        // Nobody is left to tell; the log ends at its last flush then.
        let _ = self.close_entry(place);
    }
}

/// `blklogwrites`.
pub struct Blklogwrites;

impl Driver for Blklogwrites {
    fn name(&self) -> &'static str {
        "blklogwrites"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[
            ("file", KeyKind::Node),
            ("log", KeyKind::Node),
            ("log-append", KeyKind::Switch),
            ("log-sector-size", KeyKind::Integer),
            ("log-super-update-interval", KeyKind::Integer),
        ]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let append = context.options.take_bool("log-append")?.unwrap_or(false);
        let sector = context.options.take_size("log-sector-size")?.unwrap_or(512);
        if let Some(interval) = context.options.take_size("log-super-update-interval")?
            && interval != 4096
        {
            return Err(OpenError::Unsupported("blklogwrites' log-super-update-interval".to_owned()));
        }
        if append {
            return Err(OpenError::Unsupported("blklogwrites' log-append=on".to_owned()));
        }
        if !sector.is_power_of_two() || !(512..1 << 23).contains(&sector) {
            return Err(OpenError::Invalid(format!("Invalid log sector size {sector}")));
        }
        let file = context.filtered("file")?;
        let log = context.filtered("log")?;
        context.finish()?;
        let place = Mutex::new(Place { entries: 0, next: sector });
        let node = BlklogwritesNode { file: Arc::clone(&file.node), log: log.node, sector, place };
        Ok(Opened::new(Arc::new(node), file.filename).over(file.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn the_log_holds_what_was_written_in_order() {
        let (file, log) = (MemoryNode::new(1 << 20), MemoryNode::new(0));
        let place = Mutex::new(Place { entries: 0, next: 512 });
        let node = BlklogwritesNode { file, log: log.clone(), sector: 512, place };
        node.write_at(1024, &[7; 512], true).unwrap();
        node.discard(0, 1024).unwrap();
        node.flush().unwrap();
        let mut image = vec![0; 512 * 5];
        log.read_at(0, &mut image).unwrap();
        let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        assert_eq!([word(0), word(8), word(16)], [MAGIC, 1, 3]);
        assert_eq!([word(512), word(520), word(528)], [2, 1, FLAG_FUA]);
        assert_eq!(image[1024], 7);
        assert_eq!([word(1536), word(1544), word(1552)], [0, 2, FLAG_DISCARD]);
        assert_eq!(word(2048 + 16), FLAG_FLUSH);
    }
}
