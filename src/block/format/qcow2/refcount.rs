//! Reference counts of host clusters, and their allocation (qcow2.rst, "Host cluster management").
//!
//! Changes stay in memory until [`Refcounts::write`]; new refcount blocks are written as zeros when they are made and
//! are not referenced before their content is on the disk.

use std::collections::BTreeSet;
use std::io;

use super::cache::{SLICE_BYTES, SliceCache};
use super::counts::{self, Counts};
use super::header::Header;
use crate::block::node::{BlockNode, IoResult};

/// A bit of a refcount table entry: where its block is.
const BLOCK_MASK: u64 = 0xffff_ffff_ffff_fe00;

/// The most that all counts take in memory at once: those of 32 TiB with the default sizes.
const MAX_COUNT_BYTES: usize = 1 << 30;

/// The refcount table, its blocks, and where to look for free clusters.
#[derive(Debug)]
pub(super) struct Refcounts {
    cluster_bits: u32,
    order: u32,
    /// The table; longer than what is on the disk while it waits for its new place.
    table: Vec<u64>,
    table_offset: u64,
    table_clusters: u32,
    table_dirty: BTreeSet<usize>,
    cache: SliceCache,
    /// No cluster below this one is free.
    hint: u64,
    /// Blocks that were made.
    made: Vec<u64>,
    /// Ranges of clusters whose references are gone once what is written now is on the disk.
    retired: Vec<(u64, u64)>,
}

impl Refcounts {
    /// Reads the table.
    pub(super) fn load(file: &dyn BlockNode, header: &Header, cache_bytes: u64) -> IoResult<Self> {
        let len = (header.refcount_table_clusters as usize) << header.cluster_bits;
        let mut bytes = vec![0; len];
        file.read_at(header.refcount_table_offset, &mut bytes)?;
        let table = bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_be_bytes)).collect();
        Ok(Self {
            cluster_bits: header.cluster_bits,
            order: header.refcount_order,
            table,
            table_offset: header.refcount_table_offset,
            table_clusters: header.refcount_table_clusters,
            table_dirty: BTreeSet::new(),
            cache: SliceCache::new(SLICE_BYTES.min(1 << header.cluster_bits), cache_bytes),
            hint: 0,
            made: Vec::new(),
            retired: Vec::new(),
        })
    }

    /// log2 of the clusters that one block counts.
    fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.order
    }

    /// The largest count.
    pub(super) fn max(&self) -> u64 {
        counts::max(self.order)
    }

    pub(super) fn table(&self) -> &[u64] {
        &self.table
    }

    /// Clusters that the table has room for.
    pub(super) fn counted(&self) -> u64 {
        (self.table.len() as u64) << self.block_bits()
    }

    /// `cluster` if a block counts it, else the first cluster that the next block counts.
    pub(super) fn next_block(&self, cluster: u64) -> IoResult<u64> {
        if self.block(cluster)?.is_some() {
            return Ok(cluster);
        }
        let index = usize::try_from(cluster >> self.block_bits()).unwrap_or(usize::MAX);
        let next = self.table.iter().skip(index.saturating_add(1)).position(|entry| *entry != 0);
        Ok(next.map_or(u64::MAX, |skipped| ((index + 1 + skipped) as u64) << self.block_bits()))
    }

    pub(super) fn location(&self) -> (u64, u32) {
        (self.table_offset, self.table_clusters)
    }

    fn block(&self, cluster: u64) -> IoResult<Option<u64>> {
        let index = usize::try_from(cluster >> self.block_bits()).unwrap_or(usize::MAX);
        let entry = self.table.get(index).copied().unwrap_or(0) & BLOCK_MASK;
        if entry & ((1 << self.cluster_bits) - 1) != 0 || entry > i64::MAX as u64 - (1 << self.cluster_bits) {
            return Err(super::corrupt(format!("Refblock offset {entry:#x} unaligned (reftable index: {index:#x})")));
        }
        Ok((entry != 0).then_some(entry))
    }

    /// Where in its block the count of a cluster is: byte offset of its word, width in bytes, shift in it.
    fn place(&self, cluster: u64) -> (u64, usize, u32) {
        counts::place(self.order, cluster & ((1 << self.block_bits()) - 1))
    }

    /// The count of a cluster.
    pub(super) fn get(&mut self, file: &dyn BlockNode, cluster: u64) -> IoResult<u64> {
        let Some(block) = self.block(cluster)? else { return Ok(0) };
        let (at, width, shift) = self.place(cluster);
        Ok(self.cache.word(file, block + at, width)? >> shift & self.max())
    }

    /// Stores a count; the block is made if there is none.
    pub(super) fn set(&mut self, file: &dyn BlockNode, cluster: u64, count: u64) -> IoResult<()> {
        if count > self.max() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let block = match self.block(cluster)? {
            Some(block) => block,
            None if count == 0 => return Ok(()),
            None => self.make_block(file, cluster)?,
        };
        let (at, width, shift) = self.place(cluster);
        let old = self.cache.word(file, block + at, width)?;
        let mask = self.max() << shift;
        self.cache.set_word(file, block + at, width, old & !mask | count << shift)?;
        if count == 0 {
            self.hint = self.hint.min(cluster);
        }
        Ok(())
    }

    /// A block for the range around `cluster`. It takes the first free place that another block counts, or else the
    /// first cluster of its own range that no one uses, and counts itself.
    fn make_block(&mut self, file: &dyn BlockNode, cluster: u64) -> IoResult<u64> {
        let index = usize::try_from(cluster >> self.block_bits()).map_err(|_| io::ErrorKind::StorageFull)?;
        if index >= self.table.len() {
            let limit = (8_usize << 20) / 8; // QEMU opens no larger table
            if index >= limit {
                return Err(io::Error::from_raw_os_error(27)); // EFBIG
            }
            let per_cluster = (1_usize << self.cluster_bits) / 8;
            let longer = (index + 1).max(self.table.len() * 3 / 2).next_multiple_of(per_cluster).min(limit);
            self.table.resize(longer.max(index + 1), 0);
        }
        let first = (index as u64) << self.block_bits();
        let place = self.block_place(file, first, cluster)?;
        let offset = place << self.cluster_bits;
        self.clear_block(file, offset)?;
        self.table[index] = offset;
        self.table_dirty.insert(index);
        self.made.push(offset);
        if place >> self.block_bits() == index as u64 {
            let (at, width, shift) = self.place(place);
            self.cache.set_word(file, offset + at, width, 1 << shift)?;
        } else {
            self.set(file, place, 1)?;
        }
        Ok(offset)
    }

    fn clear_block(&mut self, file: &dyn BlockNode, offset: u64) -> IoResult<()> {
        let cluster = 1_u64 << self.cluster_bits;
        file.write_at(offset, &vec![0; usize::try_from(cluster).unwrap_or(0)], false)?;
        self.cache.know_zeros(offset, cluster);
        Ok(())
    }

    /// Blocks that were made since the last call: they must not be written over.
    pub(super) fn take_made(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.made)
    }

    /// A free cluster for a block that counts the range from `first`; not `cluster`, which gets a count.
    fn block_place(&mut self, file: &dyn BlockNode, first: u64, cluster: u64) -> IoResult<u64> {
        let mut at = self.hint;
        while at < first {
            if self.block(at)?.is_none() {
                break;
            }
            if at != cluster && self.get(file, at)? == 0 {
                return Ok(at);
            }
            at += 1;
        }
        // Nothing in this range has a count yet, so all of it from the hint on is free, but for `cluster`.
        let place = first.max(self.hint);
        let place = if place == cluster { place + 1 } else { place };
        if place >> self.block_bits() == first >> self.block_bits() {
            return Ok(place);
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Takes up to `want` free clusters that follow each other and gives them a count of 1. Returns the first and how
    /// many there are (at least one).
    pub(super) fn allocate(&mut self, file: &dyn BlockNode, want: u64) -> IoResult<(u64, u64)> {
        let first = self.next_free(file, self.hint)?;
        self.hint = first;
        let mut count = 0;
        while count < want {
            let cluster = first + count;
            if count > 0 && self.get(file, cluster)? != 0 {
                break;
            }
            self.set(file, cluster, 1)?;
            count += 1;
        }
        self.hint = first + count;
        Ok((first, count))
    }

    /// Exactly `count` clusters that follow each other.
    pub(super) fn allocate_exactly(&mut self, file: &dyn BlockNode, count: u64) -> IoResult<u64> {
        let mut first = self.next_free(file, self.hint)?;
        while let Some(used) = self.first_used(file, first, count)? {
            first = self.next_free(file, used + 1)?;
        }
        // Counting may make refcount blocks, and one may land inside the run: then look again from behind it.
        let mut taken = 0;
        while taken < count && self.get(file, first + taken)? == 0 {
            self.set(file, first + taken, 1)?;
            taken += 1;
        }
        if taken == count {
            return Ok(first);
        }
        for cluster in first..first + taken {
            self.set(file, cluster, 0)?;
        }
        self.allocate_exactly(file, count)
    }

    fn first_used(&mut self, file: &dyn BlockNode, first: u64, count: u64) -> IoResult<Option<u64>> {
        for cluster in first..first + count {
            if self.get(file, cluster)? != 0 {
                return Ok(Some(cluster));
            }
        }
        Ok(None)
    }

    /// The first free cluster from `from` on. Where there is no block yet, one is made, so that it does not take the
    /// cluster that the caller has in mind.
    fn next_free(&mut self, file: &dyn BlockNode, from: u64) -> IoResult<u64> {
        let mut cluster = from;
        loop {
            if self.block(cluster)?.is_none() {
                let range = cluster >> self.block_bits() << self.block_bits();
                if from == self.hint {
                    self.hint = cluster;
                }
                // The block takes the range's first cluster (or an older free one).
                self.make_block(file, range.max(cluster).max(range + 1))?;
            }
            if self.get(file, cluster)? == 0 {
                return Ok(cluster);
            }
            cluster += 1;
            if cluster >> (63 - self.cluster_bits) != 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
    }

    /// Adds one reference.
    ///
    /// # Errors
    /// The count cannot grow, or the host fails.
    pub(super) fn increment(&mut self, file: &dyn BlockNode, cluster: u64) -> IoResult<()> {
        let count = self.get(file, cluster)?;
        if count >= self.max() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.set(file, cluster, count + 1)
    }

    /// Drops one reference to each cluster of a range of bytes. Calls `freed` for clusters that have none left.
    pub(super) fn release(
        &mut self,
        file: &dyn BlockNode,
        offset: u64,
        len: u64,
        mut freed: impl FnMut(u64),
    ) -> IoResult<()> {
        if len == 0 {
            return Ok(());
        }
        for cluster in offset >> self.cluster_bits..=(offset + len - 1) >> self.cluster_bits {
            let count = self.get(file, cluster)?;
            if count == 0 {
                return Err(super::corrupt(format!("refcount of cluster {cluster:#x} is already 0")));
            }
            self.set(file, cluster, count - 1)?;
            if count == 1 {
                freed(cluster);
            }
        }
        Ok(())
    }

    pub(super) fn drop_unused(&mut self) {
        self.cache.drop_unused();
    }

    pub(super) fn is_full(&self) -> bool {
        self.cache.is_full()
    }

    /// Writes all changes: blocks, then (after a flush) the table, then (after a flush) the header, if the table had
    /// to move. Returns the byte range that the old table took.
    pub(super) fn write(&mut self, file: &dyn BlockNode) -> IoResult<Option<(u64, u64)>> {
        let per_cluster = (1_usize << self.cluster_bits) / 8;
        let mut moved = None;
        let mut place = None;
        // Making room for the table may lengthen it once more.
        while self.table.len() > place.map_or(self.table_clusters as usize, |(_, clusters)| clusters) * per_cluster {
            if let Some((first, clusters)) = place {
                self.retired.push((first << self.cluster_bits, (clusters as u64) << self.cluster_bits));
            }
            let clusters = self.table.len().div_ceil(per_cluster);
            place = Some((self.allocate_exactly(file, clusters as u64)?, clusters));
        }
        self.cache.write_dirty(file)?;
        if let Some((first, clusters)) = place {
            self.table.resize(clusters * per_cluster, 0);
            let offset = first << self.cluster_bits;
            let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            file.write_at(offset, &bytes, false)?;
            file.flush()?;
            let clusters = u32::try_from(clusters).map_err(|_| io::ErrorKind::StorageFull)?;
            let mut field = offset.to_be_bytes().to_vec();
            field.extend(clusters.to_be_bytes());
            file.write_at(48, &field, false)?;
            moved = Some((self.table_offset, u64::from(self.table_clusters) << self.cluster_bits));
            (self.table_offset, self.table_clusters) = (offset, clusters);
            self.table_dirty.clear();
        }
        if !self.table_dirty.is_empty() {
            file.flush()?;
            while let Some(index) = self.table_dirty.first().copied() {
                let entry = self.table.get(index).copied().unwrap_or(0);
                file.write_at(self.table_offset + 8 * index as u64, &entry.to_be_bytes(), false)?;
                self.table_dirty.remove(&index);
            }
        }
        Ok(moved)
    }

    /// All counts of the image. Blocks that cannot be read, and those in `skip`, count nothing.
    pub(super) fn all(&mut self, file: &dyn BlockNode, skip: &[usize]) -> IoResult<Counts> {
        let mut all = Counts::new(self.order);
        let mut block = vec![0; 1 << self.cluster_bits];
        for index in 0..self.table.len() {
            let first = (index as u64) << self.block_bits();
            if skip.contains(&index) {
                continue;
            }
            if self.block(first)?.is_some() && index > MAX_COUNT_BYTES >> self.cluster_bits {
                return Err(io::Error::from_raw_os_error(27)); // EFBIG
            }
            if let Some(at) = self.block(first)? {
                file.read_at(at, &mut block)?;
                all.put_block(index, &block);
            }
        }
        Ok(all)
    }

    /// What [`Refcounts::write`] gave up on the way.
    pub(super) fn take_retired(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.retired)
    }
}
