//! The tables of an open image: header, L1, L2 and reference counts, and what is about to change in them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::time::Instant;

use super::Geometry;
use super::cache::SliceCache;
use super::entry::{Entry, OFFSET};
use super::header::Header;
use super::options::Caches;
use super::overlap::{Guard, Section};
use super::refcount::Refcounts;
use crate::block::error::OpenError;
use crate::block::node::{BlockNode, IoResult};

/// Ranges of the file that wait to become free, at most.
const MAX_FREES: usize = 4096;

/// Bit 63 of an L1 entry: the table's refcount is exactly one.
pub(super) const L1_COPIED: u64 = 1 << 63;

/// Why clusters become free: decides whether the file below is told (`pass-discard-*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// The guest discarded them.
    Request,
    /// Anything else.
    Other,
}

/// A range of the file that is or becomes free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retired {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) reason: Reason,
}

pub(super) struct Meta {
    pub(super) header: Header,
    pub(super) geometry: Geometry,
    pub(super) l1: Vec<u64>,
    pub(super) l1_dirty: BTreeSet<usize>,
    pub(super) l2: SliceCache,
    pub(super) refcounts: Refcounts,
    /// Ranges of the file that the tables in memory no longer use, but those on the disk do.
    pub(super) retired: Vec<Retired>,
    /// Ranges that no table uses any more: they become free when no request can be at them.
    pub(super) free: Vec<Retired>,
    /// A table contradicts itself: no more writes.
    pub(super) corrupt: bool,
    /// Where the next compressed cluster may begin: bytes left in the last host cluster that holds some; 0: nowhere.
    pub(super) packed_end: u64,
    /// Guest ranges that are being given places, with the tables unlocked.
    pub(super) busy: Vec<Range<u64>>,
    /// From here on nothing has been written to the file: it reads as zeros.
    pub(super) untouched: u64,
    /// What must not be written over.
    pub(super) guard: Guard,
    /// When the caches were cleaned.
    cleaned: Instant,
}

impl Meta {
    pub(super) fn load(
        file: &dyn BlockNode,
        header: Header,
        geometry: Geometry,
        caches: &Caches,
        guard: Guard,
    ) -> Result<Self, OpenError> {
        let l1 = read_l1(file, header.l1_offset, header.l1_size).map_err(OpenError::io("Could not read L1 table"))?;
        let refcounts = Refcounts::load(file, &header, caches.refcount_bytes)
            .map_err(OpenError::io("Could not initialize refcount handling"))?;
        Ok(Self {
            l1,
            l1_dirty: BTreeSet::new(),
            l2: SliceCache::new(caches.l2_slice_bytes, caches.l2_bytes),
            refcounts,
            retired: Vec::new(),
            free: Vec::new(),
            corrupt: false,
            packed_end: 0,
            busy: Vec::new(),
            untouched: u64::MAX,
            guard,
            cleaned: Instant::now(),
            header,
            geometry,
        })
    }

    fn l1_index(&self, offset: u64) -> usize {
        usize::try_from(offset >> (self.geometry.cluster_bits + self.geometry.l2_bits)).unwrap_or(usize::MAX)
    }

    fn place_in(&self, table: u64, offset: u64) -> u64 {
        let g = self.geometry;
        table + (offset >> g.cluster_bits & ((1 << g.l2_bits) - 1)) * g.entry_bytes()
    }

    /// The L1 entry for a guest offset, 0 past the table's end.
    pub(super) fn l1_entry(&self, offset: u64) -> u64 {
        self.l1.get(self.l1_index(offset)).copied().unwrap_or(0)
    }

    /// Where the L2 entry for a guest offset is, if there is an L2 table.
    pub(super) fn entry_place(&self, offset: u64) -> IoResult<Option<u64>> {
        self.place_by(self.l1_entry(offset), offset)
    }

    /// As [`Meta::entry_place`], by an L1 entry of another table.
    pub(super) fn place_by(&self, l1_entry: u64, offset: u64) -> IoResult<Option<u64>> {
        let table = l1_entry & OFFSET;
        if table & (self.geometry.cluster() - 1) != 0 {
            let index = self.l1_index(offset);
            return Err(super::corrupt(format!("L2 table offset {table:#x} unaligned (L1 index: {index:#x})")));
        }
        Ok((table != 0).then(|| self.place_in(table, offset)))
    }

    /// As [`Meta::entry_place`], in a table that belongs to the active disk alone: made or copied if it must be.
    pub(super) fn own_entry_place(&mut self, file: &dyn BlockNode, offset: u64) -> IoResult<u64> {
        let index = self.l1_index(offset);
        let old = self.l1.get(index).copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (table, cluster) = (old & OFFSET, self.geometry.cluster());
        self.entry_place(offset)?; // refuses an unaligned table
        if table != 0 && old & L1_COPIED != 0 {
            return Ok(self.place_in(table, offset));
        }
        let new = self.allocate_table(file)?;
        let mut content = vec![0; usize::try_from(cluster).unwrap_or(0)];
        let filled = if table == 0 { Ok(()) } else { file.read_at(table, &mut content) };
        if let Err(error) = filled.and_then(|()| file.write_at(new, &content, false)) {
            self.release(file, new, cluster)?;
            return Err(error);
        }
        if table == 0 {
            self.l2.know_zeros(new, cluster);
        } else {
            self.l2.forget(new, cluster);
            self.retired.push(Retired { offset: table, len: cluster, reason: Reason::Other });
            self.guard.remove(table >> self.geometry.cluster_bits);
        }
        self.guard.insert(new >> self.geometry.cluster_bits, Section::ActiveL2);
        self.l1[index] = new | L1_COPIED;
        self.l1_dirty.insert(index);
        Ok(self.place_in(new, offset))
    }

    fn allocate_table(&mut self, file: &dyn BlockNode) -> IoResult<u64> {
        let new = self.refcounts.allocate_exactly(file, 1)? << self.geometry.cluster_bits;
        self.touch(new, self.geometry.cluster());
        if new == 0 {
            return Err(super::corrupt("Preventing invalid allocation of L2 table at offset 0".to_owned()));
        }
        Ok(new)
    }

    /// A range of the file is about to be written. Returns whether it was untouched, so that it reads as zeros.
    pub(super) fn touch(&mut self, offset: u64, len: u64) -> bool {
        self.note_blocks();
        let fresh = offset >= self.untouched;
        if self.untouched != u64::MAX {
            self.untouched = self.untouched.max(offset + len);
        }
        fresh
    }

    /// The file ends here now.
    pub(super) fn note_end(&mut self, end: u64) {
        if self.untouched != u64::MAX {
            self.untouched = end;
        }
    }

    /// Refcount blocks that were made along the way.
    fn note_blocks(&mut self) {
        for block in self.refcounts.take_made() {
            if self.untouched != u64::MAX {
                self.untouched = self.untouched.max(block + self.geometry.cluster());
            }
            self.guard.insert(block >> self.geometry.cluster_bits, Section::RefcountBlock);
        }
    }

    pub(super) fn entry(&mut self, file: &dyn BlockNode, place: u64) -> IoResult<Entry> {
        let word = self.l2.word(file, place, 8)?;
        let bitmap = if self.geometry.extended { self.l2.word(file, place + 8, 8)? } else { 0 };
        Ok(Entry { word, bitmap })
    }

    /// The entry for a guest offset; an empty one where there is no table.
    pub(super) fn entry_at(&mut self, file: &dyn BlockNode, offset: u64) -> IoResult<Entry> {
        match self.entry_place(offset)? {
            Some(place) => self.entry(file, place),
            None => Ok(Entry::default()),
        }
    }

    pub(super) fn set_entry(&mut self, file: &dyn BlockNode, place: u64, entry: Entry) -> IoResult<()> {
        self.l2.set_word(file, place, 8, entry.word)?;
        if self.geometry.extended {
            self.l2.set_word(file, place + 8, 8, entry.bitmap)?;
        }
        Ok(())
    }

    /// The range that an entry referred to is no longer used. Clusters of an external data file are not counted.
    pub(super) fn retire(&mut self, entry: Entry, reason: Reason) {
        let g = self.geometry;
        let (offset, len) = match entry.host(g) {
            _ if entry.compressed() => entry.packed(g.cluster_bits),
            Some(host) if !g.external => (host, g.cluster()),
            _ => return,
        };
        self.retired.push(Retired { offset, len, reason });
    }

    /// So much is only in memory that it should be written.
    pub(super) fn is_full(&self) -> bool {
        self.l2.is_full() || self.refcounts.is_full() || self.retired.len() > MAX_FREES
    }

    /// Drops what the caches have not been asked for, if `seconds` (0: never) went by since the last time.
    pub(super) fn clean(&mut self, seconds: u64) {
        if seconds > 0 && self.cleaned.elapsed().as_secs() >= seconds {
            self.cleaned = Instant::now();
            self.l2.drop_unused();
            self.refcounts.drop_unused();
        }
    }

    /// Whether something in a guest range is being given a place.
    pub(super) fn is_busy(&self, range: &Range<u64>) -> bool {
        self.busy.iter().any(|busy| busy.start < range.end && range.start < busy.end)
    }

    pub(super) fn end_busy(&mut self, range: &Range<u64>) {
        if let Some(at) = self.busy.iter().position(|busy| busy == range) {
            self.busy.swap_remove(at);
        }
    }

    /// Drops a reference to a range of bytes.
    pub(super) fn release(&mut self, file: &dyn BlockNode, offset: u64, len: u64) -> IoResult<()> {
        let Self { refcounts, l2, guard, packed_end, geometry, .. } = self;
        refcounts.release(file, offset, len, |cluster| {
            // What is packed next must not land in a cluster that holds something else by then.
            if packed_end.saturating_sub(1) >> geometry.cluster_bits == cluster {
                *packed_end = 0;
            }
            guard.remove(cluster);
            l2.forget(cluster << geometry.cluster_bits, geometry.cluster());
        })
    }
}

/// Reads an L1 table, the active one or a snapshot's.
pub(super) fn read_l1(file: &dyn BlockNode, offset: u64, entries: u32) -> IoResult<Vec<u64>> {
    let mut bytes = vec![0; entries as usize * 8];
    file.read_at(offset, &mut bytes)?;
    Ok(bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_be_bytes)).collect())
}
