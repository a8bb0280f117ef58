//! Disks that are cut into blocks of one size, each of which has a place in the file or none: what vmdk, vdi, vpc,
//! vhdx, qcow, qed and parallels have in common. A format is a [`Map`]; [`Blocks`] reads and writes by it.
//!
//! Order of writes: a block's content is in the file before its map says so, and a flush puts content on stable
//! storage before the map that points at it. A file that was cut off at any write has whole tables and everything that
//! was flushed; what may be left behind is storage that nothing points at.
//!
//! Locks: `allocating` is held by who gives blocks a place; `map` is taken after it. Blocks never move, so places that
//! were looked up stay right without a lock.

pub(super) mod levels;
pub(super) mod pages;
pub(super) mod parts;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::block::image::{CheckReport, Details, ImageOps, Repair};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

/// Bytes that are copied or zeroed at a time.
const PIECE: u64 = 1 << 20;

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Nowhere: it is the backing file's, or zeros.
    Absent,
    /// Nowhere, and it is zeros.
    Zero,
    /// Its first byte's offset in the file.
    At(u64),
    /// Compressed: where that begins and how many bytes it takes at most.
    Packed {
        /// Offset in the file.
        at: u64,
        /// Bytes.
        len: u64,
    },
}

/// A format's tables.
pub(super) trait Map: Send {
    /// The driver's name.
    fn driver(&self) -> &'static str;

    /// Where `block` is, and for how many of at most `count` blocks that can be told at once; those have places that
    /// follow each other.
    fn place(&mut self, block: u64, count: u64) -> IoResult<(Place, u64)>;

    /// Finds storage for up to `count` blocks from `block` on, next to each other, at the end of the file or where
    /// nothing points at: where it begins, and for how many blocks it is.
    fn reserve(&mut self, _block: u64, _count: u64) -> IoResult<(u64, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Notes that a block is at `place` from now on.
    fn point(&mut self, _block: u64, _place: Place) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Finds `len` bytes for a compressed block.
    fn reserve_packed(&mut self, _len: u64) -> IoResult<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether [`Place::Zero`] can be noted.
    fn has_zero(&self) -> bool {
        false
    }

    /// Called before blocks that have places of their own are written, by formats that note which parts were.
    fn touch(&mut self, _block: u64, _count: u64) -> IoResult<()> {
        Ok(())
    }

    /// Called before the first write.
    fn begin(&mut self) -> IoResult<()> {
        Ok(())
    }

    /// Whether changes are in memory only.
    fn is_dirty(&self) -> bool {
        false
    }

    /// Whether these are so many that they should be stored.
    fn is_full(&self) -> bool {
        false
    }

    /// Writes the changes; what they point at is on stable storage.
    fn store(&mut self) -> IoResult<()> {
        Ok(())
    }

    /// Called when nothing is written any more and all is stored.
    fn close(&mut self) -> IoResult<()> {
        Ok(())
    }

    /// Changes the disk's length.
    fn resize(&mut self, _size: u64) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What there is to say about the image.
    fn details(&mut self) -> IoResult<Details> {
        Ok(Details::default())
    }

    /// Whether [`Map::check`] does something.
    fn can_check(&self) -> bool {
        false
    }

    /// Compares the tables with each other and with the file.
    fn check(&mut self, _repair: Option<Repair>) -> IoResult<CheckReport> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How a format stores compressed or encrypted blocks.
pub(super) trait Codec: Send + Sync {
    /// Fills `out`, a whole block, from what is stored.
    fn unpack(&self, block: u64, packed: &[u8], out: &mut [u8]) -> IoResult<()>;

    /// What to store for a whole block; `None`: it is stored as it is.
    fn pack(&self, block: u64, content: &[u8]) -> IoResult<Option<Vec<u8>>>;

    /// Whether blocks are stored compressed only.
    fn always(&self) -> bool;
}

/// What [`Blocks`] is made of.
pub(super) struct Parts<M> {
    /// The file.
    pub(super) file: Arc<dyn BlockNode>,
    /// The image below, of a format that has such.
    pub(super) backing: Option<Arc<dyn BlockNode>>,
    /// The tables.
    pub(super) map: M,
    /// The disk's length in bytes.
    pub(super) size: u64,
    /// Bytes of a block.
    pub(super) block: u64,
    /// No writes.
    pub(super) read_only: bool,
    /// The format can have a backing file.
    pub(super) layered: bool,
    /// All blocks have places, from the beginning on: the file below knows what is zeros.
    pub(super) fixed: bool,
    /// How compressed blocks are stored.
    pub(super) codec: Option<Box<dyn Codec>>,
}

impl<M> Parts<M> {
    /// A format without backing files and compression.
    pub(super) fn new(file: &Arc<dyn BlockNode>, map: M, size: u64, block: u64, read_only: bool) -> Self {
        let file = Arc::clone(file);
        Self { file, backing: None, map, size, block, read_only, layered: false, fixed: false, codec: None }
    }

    /// A format that can have a backing file.
    pub(super) fn over(mut self, backing: Option<Arc<dyn BlockNode>>) -> Self {
        (self.backing, self.layered) = (backing, true);
        self
    }
}

/// A block that was unpacked: its place, and its content.
type Unpacked = Option<(Place, Arc<Vec<u8>>)>;

/// An open image.
pub(super) struct Blocks<M: Map> {
    file: Arc<dyn BlockNode>,
    backing: Option<Arc<dyn BlockNode>>,
    size: AtomicU64,
    block: u64,
    read_only: bool,
    layered: bool,
    fixed: bool,
    /// What is past the end of the file reads as zeros once the file has grown.
    fresh_is_zero: bool,
    begun: AtomicBool,
    allocating: Mutex<()>,
    map: Mutex<M>,
    codec: Option<Box<dyn Codec>>,
    /// The block that was unpacked last.
    unpacked: Mutex<Unpacked>,
}

impl<M: Map> Blocks<M> {
    /// An image of these parts; `block` is not 0.
    pub(super) fn new(parts: Parts<M>) -> Self {
        let Parts { file, backing, map, size, block, read_only, layered, fixed, codec } = parts;
        Self {
            fresh_is_zero: file.info().driver == "file",
            file,
            backing,
            size: AtomicU64::new(size),
            block,
            read_only,
            layered,
            fixed,
            begun: AtomicBool::new(false),
            allocating: Mutex::new(()),
            map: Mutex::new(map),
            codec,
            unpacked: Mutex::new(None),
        }
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn bounds(&self, offset: u64, len: u64) -> IoResult<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn writable(&self, offset: u64, len: u64) -> IoResult<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.bounds(offset, len)?;
        if !self.begun.load(Ordering::Acquire) {
            let mut map = lock(&self.map);
            map.begin()?;
            self.begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Where the byte at `offset` is, and for how many of `len` (not 0) bytes that holds.
    fn run(&self, offset: u64, len: u64) -> IoResult<(Place, u64)> {
        let block = self.block;
        let (first, inside) = (offset / block, offset % block);
        let blocks = (inside + len).div_ceil(block);
        let mut map = lock(&self.map);
        let (place, mut count) = map.place(first, blocks)?;
        while count < blocks && !matches!(place, Place::Packed { .. }) {
            let (next, more) = map.place(first + count, blocks - count)?;
            let follows = match (place, next) {
                (Place::At(at), Place::At(next)) => {
                    Some(next) == count.checked_mul(block).and_then(|n| at.checked_add(n))
                }
                _ => place == next,
            };
            if !follows {
                break;
            }
            count += more;
        }
        let place = match place {
            Place::At(at) => Place::At(at.checked_add(inside).ok_or(io::ErrorKind::InvalidData)?),
            other => other,
        };
        Ok((place, len.min(count.saturating_mul(block) - inside)))
    }

    fn read_backing(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let inside = backing.len()?.saturating_sub(offset).min(buf.len() as u64);
        let (head, tail) = buf.split_at_mut(usize::try_from(inside).unwrap_or(0));
        tail.fill(0);
        if head.is_empty() { Ok(()) } else { backing.read_at(offset, head) }
    }

    /// The content of a compressed block.
    fn unpack(&self, block: u64, place: Place) -> IoResult<Arc<Vec<u8>>> {
        if let Some((cached, content)) = &*lock(&self.unpacked)
            && *cached == place
        {
            return Ok(Arc::clone(content));
        }
        let (Place::Packed { at, len }, Some(codec)) = (place, &self.codec) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut packed = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.file.read_at(at, &mut packed)?;
        let mut content = vec![0; usize::try_from(self.block).map_err(|_| io::ErrorKind::OutOfMemory)?];
        codec.unpack(block, &packed, &mut content).inspect_err(|_| {
            log::error!("{}: {}: damaged compressed block at offset {at}", self.driver(), self.file.info().filename);
        })?;
        let content = Arc::new(content);
        *lock(&self.unpacked) = Some((place, Arc::clone(&content)));
        Ok(content)
    }

    fn driver(&self) -> &'static str {
        lock(&self.map).driver()
    }

    fn read_run(&self, place: Place, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        match place {
            Place::Absent => self.read_backing(offset, buf),
            Place::Zero => {
                buf.fill(0);
                Ok(())
            }
            Place::At(at) => self.file.read_at(at, buf),
            Place::Packed { .. } => {
                let content = self.unpack(offset / self.block, place)?;
                let at = usize::try_from(offset % self.block).unwrap_or(0);
                buf.copy_from_slice(&content[at..at + buf.len()]);
                Ok(())
            }
        }
    }

    /// Reads what is on the disk; past its end are zeros.
    fn read_clipped(&self, mut offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let inside = self.size().saturating_sub(offset).min(buf.len() as u64);
        let (mut head, tail) = buf.split_at_mut(usize::try_from(inside).unwrap_or(0));
        tail.fill(0);
        while !head.is_empty() {
            let (place, len) = self.run(offset, head.len() as u64)?;
            let (now, rest) = head.split_at_mut(usize::try_from(len).unwrap_or(0));
            self.read_run(place, offset, now)?;
            offset += len;
            head = rest;
        }
        Ok(())
    }

    fn write(&self, mut offset: u64, mut buf: &[u8]) -> IoResult<()> {
        while !buf.is_empty() {
            let (place, len) = self.run(offset, buf.len() as u64)?;
            let head = &buf[..usize::try_from(len).unwrap_or(0)];
            let done = match place {
                Place::At(at) => {
                    self.touch(offset, len)?;
                    self.file.write_at(at, head, false).map(|()| head.len())?
                }
                _ => self.allocate(offset, head)?,
            };
            offset += done as u64;
            buf = &buf[done..];
        }
        Ok(())
    }

    fn touch(&self, offset: u64, len: u64) -> IoResult<()> {
        let first = offset / self.block;
        lock(&self.map).touch(first, (offset + len - 1) / self.block - first + 1)
    }

    /// Writes to blocks that have no place of their own, by giving them one; returns how many bytes.
    fn allocate(&self, offset: u64, buf: &[u8]) -> IoResult<usize> {
        let _alone = lock(&self.allocating);
        let (place, len) = self.run(offset, buf.len() as u64)?;
        let buf = &buf[..usize::try_from(len).unwrap_or(0)];
        if let Place::At(at) = place {
            // Somebody else was faster.
            return self.file.write_at(at, buf, false).map(|()| buf.len());
        }
        let first = offset / self.block;
        if self.codec.as_ref().is_some_and(|codec| codec.always()) {
            let len = buf.len().min(usize::try_from(self.block - offset % self.block).unwrap_or(0));
            return self.repack(offset, &buf[..len]).map(|()| len);
        }
        let wanted = (offset + len - 1) / self.block - first + 1;
        let (at, count) = lock(&self.map).reserve(first, wanted)?;
        let end = (first + count) * self.block;
        let buf = &buf[..buf.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX))];
        self.fill(place, first..first + count, at, offset, buf)?;
        let mut map = lock(&self.map);
        for index in 0..count {
            map.point(first + index, Place::At(at + index * self.block))?;
        }
        if map.is_full() {
            self.commit(&mut map)?;
        }
        Ok(buf.len())
    }

    /// Writes `buf` (disk offset `offset`) to new `blocks` at `at`, and what was there around it.
    fn fill(&self, was: Place, blocks: std::ops::Range<u64>, at: u64, offset: u64, buf: &[u8]) -> IoResult<()> {
        let (start, end) = (blocks.start * self.block, blocks.end * self.block);
        let whole = buf.len() as u64 == end - start;
        let zeros = was == Place::Zero || was == Place::Absent && self.backing.is_none();
        if whole || zeros && self.fresh_is_zero {
            return self.file.write_at(at + (offset - start), buf, false);
        }
        let buf_end = offset + buf.len() as u64;
        let mut piece = Vec::new();
        let mut now = start;
        while now < end {
            let next = (now + PIECE).min(end);
            piece.resize(usize::try_from(next - now).unwrap_or(0), 0);
            if now < offset || next > buf_end {
                self.read_clipped(now, &mut piece)?;
            }
            let (from, to) = (now.max(offset), next.min(buf_end));
            if from < to {
                let index = |base: u64, value: u64| usize::try_from(value - base).unwrap_or(0);
                piece[index(now, from)..index(now, to)].copy_from_slice(&buf[index(offset, from)..index(offset, to)]);
            }
            self.file.write_at(at + (now - start), &piece, false)?;
            now = next;
        }
        Ok(())
    }

    /// Changes part of a block that is stored compressed.
    fn repack(&self, offset: u64, buf: &[u8]) -> IoResult<()> {
        let inside = usize::try_from(offset % self.block).unwrap_or(0);
        let mut content = vec![0; usize::try_from(self.block).map_err(|_| io::ErrorKind::OutOfMemory)?];
        if buf.len() != content.len() {
            self.read_clipped(offset - offset % self.block, &mut content)?;
        }
        content[inside..inside + buf.len()].copy_from_slice(buf);
        let block = offset / self.block;
        let Some(packed) = self.codec.as_ref().map(|codec| codec.pack(block, &content)).transpose()?.flatten() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.store_packed(block, &packed)
    }

    fn store_packed(&self, block: u64, packed: &[u8]) -> IoResult<()> {
        let len = packed.len() as u64;
        let at = lock(&self.map).reserve_packed(len)?;
        self.file.write_at(at, packed, false)?;
        let mut map = lock(&self.map);
        map.point(block, Place::Packed { at, len })?;
        if map.is_full() { self.commit(&mut map) } else { Ok(()) }
    }

    /// Zeros some bytes at `offset` that are not zeros yet and have no place of their own; returns how many.
    fn zero_some(&self, offset: u64, len: u64) -> IoResult<u64> {
        let aligned = offset.is_multiple_of(self.block);
        let whole = if offset + len == self.size() { len.div_ceil(self.block) } else { len / self.block };
        let mut map = lock(&self.map);
        if aligned && whole > 0 && map.has_zero() {
            let first = offset / self.block;
            for block in first..first + whole {
                map.point(block, Place::Zero)?;
            }
            if map.is_full() {
                self.commit(&mut map)?;
            }
            return Ok(len.min(whole * self.block));
        }
        drop(map);
        let len = len.min(self.block - offset % self.block).min(PIECE);
        self.write(offset, &vec![0; usize::try_from(len).unwrap_or(0)])?;
        Ok(len)
    }

    fn commit(&self, map: &mut M) -> IoResult<()> {
        if map.is_dirty() {
            self.file.flush()?;
            map.store()?;
        }
        Ok(())
    }
}

impl<M: Map> BlockNode for Blocks<M> {
    fn len(&self) -> IoResult<u64> {
        Ok(self.size())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.bounds(offset, buf.len() as u64)?;
        self.read_clipped(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.writable(offset, buf.len() as u64)?;
        self.write(offset, buf)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn zero(&self, mut offset: u64, mut len: u64, may_unmap: bool) -> IoResult<()> {
        self.writable(offset, len)?;
        while len > 0 {
            let (place, run) = self.run(offset, len)?;
            let done = match place {
                Place::Zero => run,
                Place::Absent if self.backing.is_none() => run,
                Place::At(at) => {
                    self.touch(offset, run)?;
                    self.file.zero(at, run, may_unmap).map(|()| run)?
                }
                _ => self.zero_some(offset, run)?,
            };
            offset += done;
            len -= done;
        }
        Ok(())
    }

    /// Storage that was given to a block stays with it; the content may stay, too.
    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.writable(offset, len)
    }

    fn flush(&self) -> IoResult<()> {
        if !self.read_only {
            self.commit(&mut lock(&self.map))?;
        }
        self.file.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.bounds(offset, len)?;
        let (place, len) = self.run(offset, len.max(1))?;
        let extent = match place {
            Place::Absent => Extent { allocated: !self.layered, zero: self.backing.is_none(), ..Extent::default() },
            Place::Zero => Extent { allocated: true, zero: true, ..Extent::default() },
            Place::At(at) if self.fixed => {
                let (below, known) = self.file.extent(at, len)?;
                let extent =
                    Extent { allocated: true, data: true, zero: below.zero, offset: Some(at), compressed: false };
                return Ok((extent, known.min(len).max(1)));
            }
            Place::At(at) => Extent { allocated: true, data: true, offset: Some(at), ..Extent::default() },
            Place::Packed { .. } => Extent { allocated: true, data: true, compressed: true, ..Extent::default() },
        };
        Ok((extent, len))
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        self.writable(0, 0)?;
        let _alone = lock(&self.allocating);
        let mut map = lock(&self.map);
        self.commit(&mut map)?;
        map.resize(len)?;
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    fn image(&self) -> Option<&dyn ImageOps> {
        Some(self)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: self.driver(), filename: self.file.info().filename, read_only: self.read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        let mut children = vec![("file", Arc::clone(&self.file))];
        children.extend(self.backing.iter().map(|backing| ("backing", Arc::clone(backing))));
        children
    }
}

impl<M: Map> ImageOps for Blocks<M> {
    fn details(&self) -> IoResult<Details> {
        lock(&self.map).details()
    }

    fn can_check(&self) -> bool {
        lock(&self.map).can_check()
    }

    fn check(&self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let mut map = lock(&self.map);
        self.commit(&mut map)?;
        let report = map.check(repair)?;
        self.commit(&mut map)?;
        Ok(report)
    }

    fn compressed_unit(&self) -> Option<u64> {
        self.codec.as_ref().map(|_| self.block)
    }

    fn write_compressed(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.writable(offset, data.len() as u64)?;
        let Some(codec) = &self.codec else { return Err(io::ErrorKind::Unsupported.into()) };
        let whole = data.len() as u64 == self.block || offset + data.len() as u64 == self.size();
        if !offset.is_multiple_of(self.block) || !whole || data.len() as u64 > self.block {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let block = offset / self.block;
        let mut content = data.to_vec();
        content.resize(usize::try_from(self.block).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
        match codec.pack(block, &content)? {
            Some(packed) => {
                let _alone = lock(&self.allocating);
                self.store_packed(block, &packed)
            }
            None => self.write(offset, data),
        }
    }
}

impl<M: Map> Drop for Blocks<M> {
    /// Puts the tables on the disk; who must know whether that worked flushes before.
    fn drop(&mut self) {
        if self.read_only {
            return;
        }
        let stored = self.flush();
        if stored.is_ok() && self.begun.load(Ordering::Acquire) {
            let _ = lock(&self.map).close();
        }
    }
}
