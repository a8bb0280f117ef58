//! Pieces of L2 tables and refcount blocks in memory, bounded: clean ones go when room is needed, dirty ones are
//! written by the image's commit, which knows the order.

use std::collections::{BTreeSet, HashMap};

use crate::block::node::{BlockNode, IoResult};

/// The most that one piece holds; a cluster may be less.
pub(super) const SLICE_BYTES: u64 = 4096;

#[derive(Debug)]
struct Slice {
    bytes: Box<[u8]>,
    used: u64,
}

/// A cache of slices by their offset in the file.
#[derive(Debug)]
pub(super) struct SliceCache {
    slices: HashMap<u64, Slice>,
    dirty: BTreeSet<u64>,
    slice_bytes: u64,
    limit: usize,
    tick: u64,
}

impl SliceCache {
    pub(super) fn new(cluster_bits: u32, limit_bytes: u64) -> Self {
        let slice_bytes = SLICE_BYTES.min(1 << cluster_bits);
        let limit = usize::try_from(limit_bytes / slice_bytes).unwrap_or(usize::MAX).max(16);
        Self { slices: HashMap::new(), dirty: BTreeSet::new(), slice_bytes, limit, tick: 0 }
    }

    /// The big-endian word of `width` bytes (a power of two, at most 8) at `offset` in the file, which is a multiple
    /// of `width`.
    pub(super) fn word(&mut self, file: &dyn BlockNode, offset: u64, width: usize) -> IoResult<u64> {
        let (slice, at) = self.load(file, offset)?;
        let bytes = &slice.bytes[at..at + width];
        Ok(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    /// Stores such a word.
    pub(super) fn set_word(&mut self, file: &dyn BlockNode, offset: u64, width: usize, value: u64) -> IoResult<()> {
        let (slice, at) = self.load(file, offset)?;
        slice.bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        let start = offset - at as u64;
        self.dirty.insert(start);
        Ok(())
    }

    fn load(&mut self, file: &dyn BlockNode, offset: u64) -> IoResult<(&mut Slice, usize)> {
        let start = offset & !(self.slice_bytes - 1);
        let at = usize::try_from(offset - start).unwrap_or(0);
        self.tick += 1;
        if !self.slices.contains_key(&start) {
            self.make_room();
            let mut bytes = vec![0; usize::try_from(self.slice_bytes).unwrap_or(0)].into_boxed_slice();
            file.read_at(start, &mut bytes)?;
            self.slices.insert(start, Slice { bytes, used: 0 });
        }
        let tick = self.tick;
        let slice = self.slices.get_mut(&start).ok_or(std::io::ErrorKind::OutOfMemory)?;
        slice.used = tick;
        Ok((slice, at))
    }

    /// Forgets the least recently used eighth once the limit is reached.
    fn make_room(&mut self) {
        if self.slices.len() < self.limit {
            return;
        }
        let mut clean: Vec<(u64, u64)> = self
            .slices
            .iter()
            .filter(|(offset, _)| !self.dirty.contains(offset))
            .map(|(offset, slice)| (slice.used, *offset))
            .collect();
        clean.sort_unstable();
        for (_, offset) in clean.into_iter().take(self.limit / 8 + 1) {
            self.slices.remove(&offset);
        }
    }

    /// Forgets what is known of a range of the file: it is something else now.
    pub(super) fn forget(&mut self, offset: u64, len: u64) {
        let mut at = offset;
        while at < offset + len {
            self.slices.remove(&at);
            self.dirty.remove(&at);
            at += self.slice_bytes;
        }
    }

    /// Writes the dirty slices in the order of their offsets.
    pub(super) fn write_dirty(&mut self, file: &dyn BlockNode) -> IoResult<()> {
        while let Some(offset) = self.dirty.first().copied() {
            if let Some(slice) = self.slices.get(&offset) {
                file.write_at(offset, &slice.bytes, false)?;
            }
            self.dirty.remove(&offset);
        }
        Ok(())
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// So many dirty slices that they should be written.
    pub(super) fn is_full(&self) -> bool {
        self.dirty.len() > self.limit / 2
    }
}
