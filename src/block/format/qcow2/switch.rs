//! Whole operations on an image (snapshots, sizes, widths of counts, repairs) in one step: everything new is written to
//! clusters that the old state counts as free, with reference counts of its own, and one write of the header enters it.
//! Before that write the image is what it was; after it nothing of the old state is left over.
//!
//! That works because the places of the active L1 table, of the refcount table and of the snapshot table are next to
//! each other in the first sector (qcow2.rst, "Header").

use std::io;
use std::ops::Range;

use super::Image;
use super::counts::{self, Counts};
use super::entry::{COPIED, Entry, OFFSET};
use super::header::Header;
use super::meta::{L1_COPIED, Meta, read_l1};
use super::refcount::Refcounts;
use crate::block::node::IoResult;
use std::sync::atomic::Ordering;

/// The state that is being built.
pub(super) struct Next<'a> {
    image: &'a Image,
    pub(super) header: Header,
    /// The active L1 table to be.
    pub(super) l1: Vec<u64>,
    /// What must stay as it is until the header says otherwise.
    old: Counts,
    pub(super) new: Counts,
    /// Nothing below is free.
    cursor: u64,
}

/// By how much references change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    One,
    MinusOne,
}

impl<'a> Next<'a> {
    /// The state as it is; everything in memory is on the disk.
    pub(super) fn of(image: &'a Image, meta: &mut Meta) -> IoResult<Self> {
        let old = meta.refcounts.all(image.file.as_ref(), &[])?;
        let mut next =
            Self { image, header: meta.header.clone(), l1: meta.l1.clone(), new: old.clone(), old, cursor: 0 };
        next.drop_refcounts(meta)?;
        Ok(next)
    }

    /// For a repair: `references` are what the new counts are to be, without the refcount structures.
    pub(super) fn with_counts(image: &'a Image, meta: &Meta, references: Counts, reserved: &[Range<u64>]) -> Self {
        let mut old = references.clone();
        for range in reserved {
            range.clone().for_each(|cluster| old.set(cluster, 1));
        }
        Self { image, header: meta.header.clone(), l1: meta.l1.clone(), new: references, old, cursor: 0 }
    }

    fn drop_refcounts(&mut self, meta: &Meta) -> IoResult<()> {
        let (offset, clusters) = meta.refcounts.location();
        let bits = self.image.fixed.cluster_bits;
        self.count(offset, u64::from(clusters) << bits, By::MinusOne)?;
        for block in meta.refcounts.table().iter().filter(|block| **block != 0) {
            self.count(block & !0x1ff, 1 << bits, By::MinusOne)?;
        }
        Ok(())
    }

    /// The counts get another width.
    ///
    /// # Errors
    /// The number of a cluster whose count does not fit.
    pub(super) fn widen(&mut self, order: u32) -> Result<(), u64> {
        self.new = self.new.widened(order)?;
        self.header.refcount_order = order;
        Ok(())
    }

    /// Takes free clusters that follow each other. Returns their offset.
    pub(super) fn take(&mut self, clusters: u64) -> IoResult<u64> {
        let mut first = self.cursor;
        let mut count = 0;
        while count < clusters {
            let cluster = first + count;
            if self.old.get(cluster) == 0 && self.new.get(cluster) == 0 {
                count += 1;
            } else {
                if first == self.cursor && count == 0 {
                    self.cursor += 1;
                }
                (first, count) = (cluster + 1, 0);
            }
        }
        if (first + clusters) >> (55 - self.image.fixed.cluster_bits) != 0 {
            return Err(io::Error::from_raw_os_error(27)); // EFBIG
        }
        (first..first + clusters).for_each(|cluster| self.new.set(cluster, 1));
        Ok(first << self.image.fixed.cluster_bits)
    }

    /// Changes the references to the clusters that a range of bytes touches.
    ///
    /// # Errors
    /// A count would be too large or below zero: EINVAL.
    pub(super) fn count(&mut self, offset: u64, len: u64, by: By) -> IoResult<()> {
        if len == 0 {
            return Ok(());
        }
        let bits = self.image.fixed.cluster_bits;
        let most = counts::max(self.new.order());
        for cluster in offset >> bits..=(offset + len - 1) >> bits {
            let count = self.new.get(cluster);
            let changed = match by {
                By::One => count.checked_add(1).filter(|count| *count <= most && cluster < 1 << 46),
                By::MinusOne => count.checked_sub(1),
            };
            self.new.set(cluster, changed.ok_or_else(|| io::Error::from_raw_os_error(22))?); // EINVAL
        }
        Ok(())
    }

    fn read_table(&self, l1_entry: u64) -> IoResult<Vec<u8>> {
        let table = l1_entry & OFFSET;
        let cluster = self.image.fixed.cluster();
        if table & (cluster - 1) != 0 {
            return Err(super::corrupt(format!("L2 table offset {table:#x} unaligned")));
        }
        let mut bytes = vec![0; usize::try_from(cluster).unwrap_or(0)];
        self.image.file.read_at(table, &mut bytes)?;
        Ok(bytes)
    }

    /// Changes the references to everything that an L1 table leads to.
    pub(super) fn count_tree(&mut self, l1: &[u64], by: By) -> IoResult<()> {
        let g = self.image.geometry();
        let step = usize::try_from(g.entry_bytes()).unwrap_or(8);
        for l1_entry in l1.iter().copied().filter(|entry| entry & OFFSET != 0) {
            for raw in self.read_table(l1_entry)?.chunks_exact(step) {
                let entry = Entry { word: word(raw), bitmap: 0 };
                self.count_entry(entry, by)?;
            }
            self.count(l1_entry & OFFSET, g.cluster(), by)?;
        }
        Ok(())
    }

    /// Changes the references to what one L2 entry leads to.
    pub(super) fn count_entry(&mut self, entry: Entry, by: By) -> IoResult<()> {
        let g = self.image.geometry();
        if entry.compressed() {
            let (offset, len) = entry.packed(g.cluster_bits);
            return self.count(offset, len, by);
        }
        match entry.host(g) {
            Some(host) if !g.external => self.count(host, g.cluster(), by),
            _ => Ok(()),
        }
    }

    /// Makes the flags of the active tables say which clusters are theirs alone. Tables that change are copied.
    pub(super) fn set_flags(&mut self) -> IoResult<()> {
        let g = self.image.geometry();
        let step = usize::try_from(g.entry_bytes()).unwrap_or(8);
        for index in 0..self.l1.len() {
            let l1_entry = self.l1[index];
            let table = l1_entry & OFFSET;
            if table == 0 {
                continue;
            }
            let mut bytes = self.read_table(l1_entry)?;
            let mut is_changed = false;
            for raw in bytes.chunks_exact_mut(step) {
                let entry = Entry { word: word(raw), bitmap: 0 };
                let Some(host) = entry.host(g) else { continue };
                if g.external {
                    continue;
                }
                let is_ours = self.new.get(host >> g.cluster_bits) == 1;
                if is_ours != entry.copied() {
                    raw[..8].copy_from_slice(&(entry.word ^ COPIED).to_be_bytes());
                    is_changed = true;
                }
            }
            let place = if is_changed { self.replace_table(table, &bytes)? } else { table };
            let is_ours = self.new.get(place >> g.cluster_bits) == 1;
            self.l1[index] = place | if is_ours { L1_COPIED } else { 0 };
        }
        Ok(())
    }

    /// Writes another content of an L2 table of the active disk to a new place.
    pub(super) fn replace_table(&mut self, table: u64, bytes: &[u8]) -> IoResult<u64> {
        let place = self.take(1)?;
        self.image.file.write_at(place, bytes, false)?;
        self.count(table, self.image.fixed.cluster(), By::MinusOne)?;
        Ok(place)
    }

    /// Writes bytes to new clusters. Returns where.
    pub(super) fn store(&mut self, bytes: &[u8]) -> IoResult<u64> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(1 << self.image.fixed.cluster_bits), 0);
        let offset = self.take((padded.len() as u64) >> self.image.fixed.cluster_bits)?;
        self.image.file.write_at(offset, &padded, false)?;
        Ok(offset)
    }

    /// Puts the active L1 table, `l1`, in a new place, with room for the whole disk.
    pub(super) fn move_l1(&mut self) -> IoResult<()> {
        let needed = self.header.l1_entries_needed(self.header.size);
        let needed = needed.ok_or_else(|| io::Error::from_raw_os_error(27))?; // EFBIG
        if self.l1.len() < needed as usize {
            self.l1.resize(needed as usize, 0);
        }
        self.count(self.header.l1_offset, u64::from(self.header.l1_size) * 8, By::MinusOne)?;
        let bytes: Vec<u8> = self.l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.header.l1_size = u32::try_from(self.l1.len()).map_err(|_| io::Error::from_raw_os_error(27))?;
        self.header.l1_offset = self.store(&bytes)?;
        Ok(())
    }

    /// Writes the reference counts and enters the new state.
    pub(super) fn enter(mut self, meta: &mut Meta) -> IoResult<Freed> {
        let file = self.image.file.as_ref();
        self.store_counts()?;
        if let Some(data) = &self.image.data {
            data.flush()?;
        }
        file.flush()?;
        let head = self.header.encode().ok_or(io::ErrorKind::StorageFull)?;
        file.write_at(0, &head, false)?;
        file.flush()?;
        self.adopt(meta)?;
        Ok(Freed { old: self.old, new: self.new, cluster_bits: self.image.fixed.cluster_bits })
    }

    fn adopt(&self, meta: &mut Meta) -> IoResult<()> {
        let image = self.image;
        let cache = super::options::Caches::of(&image.options.caches, image.fixed, self.header.size);
        let refcount_bytes = cache.map_or(1 << 20, |caches| caches.refcount_bytes);
        meta.refcounts = Refcounts::load(image.file.as_ref(), &self.header, refcount_bytes)?;
        meta.l1 = read_l1(image.file.as_ref(), self.header.l1_offset, self.header.l1_size)?;
        meta.header = self.header.clone();
        meta.geometry.version = self.header.version;
        meta.l1_dirty.clear();
        meta.l2.clear();
        meta.guard.invalidate();
        meta.packed_end = 0;
        if meta.untouched != u64::MAX {
            meta.untouched = meta.untouched.max(self.new.end() << image.fixed.cluster_bits);
        }
        image.version.store(self.header.version, Ordering::Relaxed);
        image.size.store(self.header.size, Ordering::Release);
        Ok(())
    }

    /// Blocks for all counts, those of the blocks and of their table included.
    fn store_counts(&mut self) -> IoResult<()> {
        let bits = self.image.fixed.cluster_bits;
        let cluster = 1_usize << bits;
        let mut places: Vec<u64> = Vec::new();
        let mut table: Option<(u64, u64)> = None;
        loop {
            let len = usize::try_from(self.new.end().div_ceil((cluster as u64 * 8) >> self.new.order()));
            let len = len.map_err(|_| io::ErrorKind::OutOfMemory)?;
            places.resize(len.max(places.len()), 0);
            let mut is_settled = true;
            for (index, place) in places.iter_mut().enumerate().filter(|(_, place)| **place == 0) {
                if self.new.block(index, cluster).is_some() {
                    *place = self.take(1)?;
                    is_settled = false;
                }
            }
            let needed = (places.len() as u64 * 8).div_ceil(cluster as u64).max(1);
            match table {
                Some((_, clusters)) if clusters >= needed => {}
                _ => {
                    if let Some((offset, clusters)) = table {
                        self.count(offset, clusters << bits, By::MinusOne)?;
                    }
                    table = Some((self.take(needed)?, needed));
                    is_settled = false;
                }
            }
            if is_settled {
                break;
            }
        }
        let (offset, clusters) = table.unwrap_or_default();
        if clusters << bits > super::header::MAX_REFCOUNT_TABLE_BYTES {
            return Err(io::Error::from_raw_os_error(27)); // EFBIG
        }
        for (index, place) in places.iter().enumerate().filter(|(_, place)| **place != 0) {
            let block = self.new.block(index, cluster).unwrap_or_else(|| vec![0; cluster]);
            self.image.file.write_at(*place, &block, false)?;
        }
        let mut bytes: Vec<u8> = places.iter().flat_map(|place| place.to_be_bytes()).collect();
        bytes.resize(usize::try_from(clusters << bits).unwrap_or(0), 0);
        self.image.file.write_at(offset, &bytes, false)?;
        self.header.refcount_table_offset = offset;
        self.header.refcount_table_clusters = u32::try_from(clusters).map_err(|_| io::ErrorKind::StorageFull)?;
        Ok(())
    }
}

fn word(raw: &[u8]) -> u64 {
    raw[..8].try_into().map_or(0, u64::from_be_bytes)
}

/// What became free.
pub(super) struct Freed {
    old: Counts,
    new: Counts,
    cluster_bits: u32,
}

impl Freed {
    /// The end of the last cluster in use.
    pub(super) fn end(&self) -> u64 {
        self.new.end() << self.cluster_bits
    }

    /// Ranges of bytes that were in use and are not any more.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for cluster in (0..self.old.end()).filter(|at| self.old.get(*at) > 0 && self.new.get(*at) == 0) {
            let (start, end) = (cluster << self.cluster_bits, (cluster + 1) << self.cluster_bits);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }
}
