//! The tables of an open image: header, L1, L2 and reference counts, and the order in which they reach the disk.

use std::collections::BTreeSet;
use std::io;

use super::Geometry;
use super::cache::SliceCache;
use super::entry::{Entry, OFFSET};
use super::header::Header;
use super::refcount::Refcounts;
use crate::block::error::OpenError;
use crate::block::node::{BlockNode, IoResult};

/// L2 slices that are kept at most, in bytes: enough for 16 GiB of a disk with 64 KiB clusters.
const L2_CACHE_BYTES: u64 = 2 << 20;

/// Ranges of the file that wait to become free, at most.
const MAX_FREES: usize = 4096;

/// Bit 63 of an L1 entry: the table's refcount is exactly one.
pub(super) const L1_COPIED: u64 = 1 << 63;

pub(super) struct Meta {
    pub(super) header: Header,
    pub(super) geometry: Geometry,
    pub(super) l1: Vec<u64>,
    pub(super) l1_dirty: BTreeSet<usize>,
    pub(super) l2: SliceCache,
    pub(super) refcounts: Refcounts,
    /// Ranges of the file that the tables in memory no longer use, but those on the disk do.
    pub(super) retired: Vec<(u64, u64)>,
    /// Ranges that no table uses any more: they become free when no request can be at them.
    pub(super) free: Vec<(u64, u64)>,
    /// A table contradicts itself: no more writes.
    pub(super) corrupt: bool,
    /// Where the next compressed cluster may begin: bytes left in the last host cluster that holds some.
    pub(super) packed_end: u64,
}

impl Meta {
    pub(super) fn load(file: &dyn BlockNode, header: Header, geometry: Geometry) -> Result<Self, OpenError> {
        let l1 = read_l1(file, header.l1_offset, header.l1_size).map_err(OpenError::io("Could not read L1 table"))?;
        let refcounts =
            Refcounts::load(file, &header).map_err(OpenError::io("Could not initialize refcount handling"))?;
        Ok(Self {
            l1,
            l1_dirty: BTreeSet::new(),
            l2: SliceCache::new(geometry.cluster_bits, L2_CACHE_BYTES),
            refcounts,
            retired: Vec::new(),
            free: Vec::new(),
            corrupt: false,
            packed_end: 0,
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

    /// Where the L2 entry for a guest offset is, if there is an L2 table.
    pub(super) fn entry_place(&self, offset: u64) -> IoResult<Option<u64>> {
        let table = self.l1.get(self.l1_index(offset)).copied().unwrap_or(0) & OFFSET;
        if table & (self.geometry.cluster() - 1) != 0 {
            return Err(super::corrupt(format!("L2 table offset {table:#x} unaligned")));
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
        let bits = self.geometry.cluster_bits;
        let new = self.refcounts.allocate_exactly(file, 1)? << bits;
        let fill = || {
            if table == 0 {
                return file.zero(new, cluster, false);
            }
            let mut content = vec![0; usize::try_from(cluster).unwrap_or(0)];
            file.read_at(table, &mut content)?;
            file.write_at(new, &content, false)
        };
        if let Err(error) = fill() {
            self.refcounts.release(file, new, cluster)?;
            return Err(error);
        }
        self.l2.forget(new, cluster);
        if table != 0 {
            self.retired.push((table, cluster));
        }
        self.l1[index] = new | L1_COPIED;
        self.l1_dirty.insert(index);
        Ok(self.place_in(new, offset))
    }

    pub(super) fn entry(&mut self, file: &dyn BlockNode, place: u64) -> IoResult<Entry> {
        let word = self.l2.word(file, place, 8)?;
        let bitmap = if self.geometry.extended { self.l2.word(file, place + 8, 8)? } else { 0 };
        Ok(Entry { word, bitmap })
    }

    pub(super) fn set_entry(&mut self, file: &dyn BlockNode, place: u64, entry: Entry) -> IoResult<()> {
        self.l2.set_word(file, place, 8, entry.word)?;
        if self.geometry.extended {
            self.l2.set_word(file, place + 8, 8, entry.bitmap)?;
        }
        Ok(())
    }

    /// The range that an entry referred to is no longer used.
    pub(super) fn retire(&mut self, entry: Entry) {
        let range = if entry.compressed() {
            entry.packed(self.geometry.cluster_bits)
        } else {
            match entry.host() {
                Some(host) => (host, self.geometry.cluster()),
                None => return,
            }
        };
        self.retired.push(range);
    }

    /// So much is only in memory that it should be written.
    pub(super) fn is_full(&self) -> bool {
        self.l2.is_full() || self.refcounts.is_full() || self.retired.len() > MAX_FREES
    }

    /// Writes all changes so that at every moment the file is a valid image: reference counts and (by now) data first,
    /// then the tables that refer to them. Returns the ranges that those no longer refer to: once the file is flushed,
    /// they belong in [`Meta::free`].
    pub(super) fn commit(&mut self, file: &dyn BlockNode) -> IoResult<Vec<(u64, u64)>> {
        if let Some(old_table) = self.refcounts.write(file)? {
            self.retired.push(old_table);
            let (offset, clusters) = self.refcounts.location();
            (self.header.refcount_table_offset, self.header.refcount_table_clusters) = (offset, clusters);
        }
        self.retired.append(&mut self.refcounts.take_retired());
        if self.l2.is_dirty() || !self.l1_dirty.is_empty() {
            file.flush()?;
            self.l2.write_dirty(file)?;
            while let Some(index) = self.l1_dirty.first().copied() {
                let entry = self.l1.get(index).copied().unwrap_or(0);
                file.write_at(self.header.l1_offset + 8 * index as u64, &entry.to_be_bytes(), false)?;
                self.l1_dirty.remove(&index);
            }
        }
        Ok(std::mem::take(&mut self.retired))
    }

    /// As [`Meta::commit`], and all of it is on stable storage.
    pub(super) fn commit_and_flush(&mut self, file: &dyn BlockNode) -> IoResult<()> {
        let mut settled = self.commit(file)?;
        file.flush()?;
        self.free.append(&mut settled);
        Ok(())
    }

    /// Gives free ranges back. No request may be using an offset that it looked up before.
    pub(super) fn release_free(&mut self, file: &dyn BlockNode, unmap: bool) -> IoResult<()> {
        while let Some((offset, len)) = self.free.pop() {
            self.refcounts.release(file, offset, len)?;
            let cluster = self.geometry.cluster();
            if unmap && len == cluster && self.refcounts.get(file, offset >> self.geometry.cluster_bits)? == 0 {
                file.discard(offset, len)?;
            }
            self.l2.forget(offset & !(cluster - 1), cluster);
        }
        if let Some(old_table) = self.refcounts.write(file)? {
            self.free.push(old_table);
        }
        Ok(())
    }
}

/// Reads an L1 table, the active one or a snapshot's.
pub(super) fn read_l1(file: &dyn BlockNode, offset: u64, entries: u32) -> IoResult<Vec<u64>> {
    let mut bytes = vec![0; entries as usize * 8];
    file.read_at(offset, &mut bytes)?;
    Ok(bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_be_bytes)).collect())
}
