//! Pieces of L2 tables and refcount blocks in memory, bounded: clean ones go when room is needed, dirty ones are
//! written by the image's commit, which knows the order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::block::node::{BlockNode, IoResult};

/// The most that one piece holds unless `l2-cache-entry-size` says otherwise; a cluster may be less.
pub(super) const SLICE_BYTES: u64 = 4096;

/// Writes of neighbouring pieces are joined up to this length.
const JOINED_BYTES: usize = 1 << 20;

/// Hashes the offset of a piece: a multiplication spreads what is aligned.
#[derive(Default)]
pub(super) struct OffsetHash(u64);

impl Hasher for OffsetHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// A map by offsets in the file.
pub(super) type OffsetMap<T> = HashMap<u64, T, BuildHasherDefault<OffsetHash>>;

#[derive(Debug)]
struct Slice {
    bytes: Box<[u8]>,
    used: u64,
    dirty: bool,
    /// A copy of it is on its way to the file: what is there is older.
    leaving: bool,
}

/// Copies of dirty slices, in the order of their offsets.
pub(super) type Copies = Vec<(u64, Vec<u8>)>;

/// A cache of slices by their offset in the file.
#[derive(Debug)]
pub(super) struct SliceCache {
    slices: OffsetMap<Slice>,
    dirty: usize,
    slice_bytes: u64,
    limit: usize,
    tick: u64,
    /// The tick at the last [`SliceCache::drop_unused`].
    swept: u64,
}

impl SliceCache {
    /// `slice_bytes` is a power of two, at most a cluster.
    pub(super) fn new(slice_bytes: u64, limit_bytes: u64) -> Self {
        let limit = usize::try_from(limit_bytes / slice_bytes).unwrap_or(usize::MAX).max(4);
        Self { slices: OffsetMap::default(), dirty: 0, slice_bytes, limit, tick: 0, swept: 0 }
    }

    /// The big-endian word of `width` bytes (a power of two, at most 8) at `offset` in the file, which is a multiple
    /// of `width`.
    pub(super) fn word(&mut self, file: &dyn BlockNode, offset: u64, width: usize) -> IoResult<u64> {
        let (slice, at) = self.load(file, offset)?;
        let bytes = &slice.bytes[at..at + width];
        if let Ok(word) = <[u8; 8]>::try_from(bytes) {
            return Ok(u64::from_be_bytes(word));
        }
        Ok(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    /// Stores such a word.
    pub(super) fn set_word(&mut self, file: &dyn BlockNode, offset: u64, width: usize, value: u64) -> IoResult<()> {
        let (slice, at) = self.load(file, offset)?;
        slice.bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        let was = std::mem::replace(&mut slice.dirty, true);
        self.dirty += usize::from(!was);
        Ok(())
    }

    /// Calls `each(index, word)` for the 8-byte words from `offset` on, up to the end of their slice or `count`, until
    /// it says no. Returns how many words it took.
    pub(super) fn scan(
        &mut self,
        file: &dyn BlockNode,
        offset: u64,
        count: u64,
        mut each: impl FnMut(u64, u64) -> bool,
    ) -> IoResult<u64> {
        let (slice, at) = self.load(file, offset)?;
        let mut taken = 0;
        for word in slice.bytes[at..].chunks_exact(8).take(usize::try_from(count).unwrap_or(usize::MAX)) {
            if !each(taken, word.try_into().map_or(0, u64::from_be_bytes)) {
                break;
            }
            taken += 1;
        }
        Ok(taken)
    }

    fn load(&mut self, file: &dyn BlockNode, offset: u64) -> IoResult<(&mut Slice, usize)> {
        let start = offset & !(self.slice_bytes - 1);
        let at = usize::try_from(offset - start).unwrap_or(0);
        self.tick += 1;
        if !self.slices.contains_key(&start) {
            self.make_room();
            let mut bytes = vec![0; usize::try_from(self.slice_bytes).unwrap_or(0)].into_boxed_slice();
            file.read_at(start, &mut bytes)?;
            self.slices.insert(start, Slice { bytes, used: 0, dirty: false, leaving: false });
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
            .filter(|(_, slice)| !slice.dirty && !slice.leaving)
            .map(|(offset, slice)| (slice.used, *offset))
            .collect();
        clean.sort_unstable();
        for (_, offset) in clean.into_iter().take(self.limit / 8 + 1) {
            self.slices.remove(&offset);
        }
    }

    /// Forgets clean slices that nobody used since the last call (`cache-clean-interval`).
    pub(super) fn drop_unused(&mut self) {
        let swept = std::mem::replace(&mut self.swept, self.tick);
        self.slices.retain(|_, slice| slice.dirty || slice.leaving || slice.used > swept);
        self.slices.shrink_to_fit();
    }

    /// Forgets what is known of a range of the file: it is something else now.
    pub(super) fn forget(&mut self, offset: u64, len: u64) {
        if len / self.slice_bytes > self.slices.len() as u64 {
            let dirty = &mut self.dirty;
            self.slices.retain(|at, slice| {
                let gone = (offset..offset + len).contains(at);
                *dirty -= usize::from(gone && slice.dirty);
                !gone
            });
            return;
        }
        let mut at = offset;
        while at < offset + len {
            if self.slices.remove(&at).is_some_and(|slice| slice.dirty) {
                self.dirty -= 1;
            }
            at += self.slice_bytes;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
        self.dirty = 0;
    }

    /// What is at a range of the file is zeros now: nothing need be read.
    pub(super) fn know_zeros(&mut self, offset: u64, len: u64) {
        self.forget(offset, len);
        let mut at = offset;
        while at < offset + len && self.slices.len() < self.limit {
            let bytes = vec![0; usize::try_from(self.slice_bytes).unwrap_or(0)].into_boxed_slice();
            self.slices.insert(at, Slice { bytes, used: self.tick, dirty: false, leaving: false });
            at += self.slice_bytes;
        }
    }

    fn dirty_offsets(&self) -> Vec<u64> {
        let mut offsets: Vec<u64> =
            self.slices.iter().filter(|(_, slice)| slice.dirty).map(|(offset, _)| *offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Copies of the dirty slices, neighbours joined; the slices are clean from now on and stay until
    /// [`SliceCache::arrived`].
    pub(super) fn take_dirty(&mut self) -> Copies {
        let mut copies: Copies = Vec::new();
        for offset in if self.dirty > 0 { self.dirty_offsets() } else { Vec::new() } {
            let Some(slice) = self.slices.get_mut(&offset) else { continue };
            slice.dirty = false;
            slice.leaving = true;
            match copies.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == offset && bytes.len() < JOINED_BYTES => {
                    bytes.extend_from_slice(&slice.bytes);
                }
                _ => copies.push((offset, slice.bytes.to_vec())),
            }
        }
        self.dirty = 0;
        copies
    }

    /// The copies are in the file, or (`!written`) may not be: then the slices are dirty as before.
    pub(super) fn arrived(&mut self, copies: &Copies, written: bool) {
        for (start, bytes) in copies {
            let mut at = *start;
            while at < start + bytes.len() as u64 {
                if let Some(slice) = self.slices.get_mut(&at) {
                    slice.leaving = false;
                    if !written && !std::mem::replace(&mut slice.dirty, true) {
                        self.dirty += 1;
                    }
                }
                at += self.slice_bytes;
            }
        }
    }

    /// Writes the dirty slices in the order of their offsets.
    pub(super) fn write_dirty(&mut self, file: &dyn BlockNode) -> IoResult<()> {
        let copies = self.take_dirty();
        let written = write_copies(file, &copies);
        self.arrived(&copies, written.is_ok());
        written
    }

    /// So many dirty slices that they should be written.
    pub(super) fn is_full(&self) -> bool {
        self.dirty > self.limit / 2
    }
}

/// Puts copies of slices where they belong.
pub(super) fn write_copies(file: &dyn BlockNode, copies: &Copies) -> IoResult<()> {
    copies.iter().try_for_each(|(offset, bytes)| file.write_at(*offset, bytes, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn what_is_on_its_way_is_neither_forgotten_nor_lost() {
        let file = MemoryNode::new(64 << 10);
        let mut cache = SliceCache::new(512, 2048);
        cache.set_word(file.as_ref(), 1024, 8, 7).unwrap();
        let copies = cache.take_dirty();
        for at in 0..100 {
            cache.word(file.as_ref(), at * 512, 8).unwrap();
        }
        assert_eq!(cache.word(file.as_ref(), 1024, 8).unwrap(), 7);
        cache.arrived(&copies, false);
        cache.write_dirty(file.as_ref()).unwrap();
        assert_eq!(file.bytes()[1031], 7);
    }

    #[test]
    fn neighbours_are_written_at_once() {
        let file = MemoryNode::new(64 << 10);
        let mut cache = SliceCache::new(512, 65536);
        for at in [512, 0, 1024, 4096] {
            cache.set_word(file.as_ref(), at, 8, at + 1).unwrap();
        }
        let copies = cache.take_dirty();
        assert_eq!(copies.iter().map(|(at, bytes)| (*at, bytes.len())).collect::<Vec<_>>(), [(0, 1536), (4096, 512)]);
    }

    #[test]
    fn slices_that_nobody_used_are_dropped() {
        let file = MemoryNode::new(64 << 10);
        let mut cache = SliceCache::new(512, 65536);
        cache.word(file.as_ref(), 0, 8).unwrap();
        cache.drop_unused();
        assert_eq!(cache.slices.len(), 1);
        cache.word(file.as_ref(), 512, 8).unwrap();
        cache.drop_unused();
        assert_eq!(cache.slices.keys().copied().collect::<Vec<_>>(), [512]);
    }
}
