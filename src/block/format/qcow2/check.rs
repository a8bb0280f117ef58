//! Counts all references anew and compares them with the reference counts of the image. Texts are QEMU's.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::entry::{ALL_ALLOCATED, Entry, OFFSET, ZERO};
use super::header::{Header, autoclear, extension};
use super::meta::{Meta, read_l1};
use super::references::References;
use super::snapshot_table::{Stored, read_table};
use super::{Geometry, Image};
use crate::block::image::CheckReport;
use crate::block::node::{BlockNode, IoResult};

/// Bits of L1 entries that must be 0.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of L2 entries that must be 0.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// What was counted.
pub(super) struct Counted {
    pub(super) references: References,
    /// Numbers of refcount blocks whose place cannot be.
    pub(super) bad_blocks: Vec<usize>,
}

pub(super) struct Counter<'a> {
    file: &'a dyn BlockNode,
    file_len: u64,
    geometry: Geometry,
    references: References,
    report: &'a mut CheckReport,
    next_contiguous: u64,
    /// L2 tables that were looked into.
    seen: HashSet<u64>,
}

impl<'a> Counter<'a> {
    pub(super) fn new(file: &'a dyn BlockNode, geometry: Geometry, report: &'a mut CheckReport) -> IoResult<Self> {
        Ok(Self {
            file,
            file_len: file.len()?,
            geometry,
            references: References::default(),
            report,
            next_contiguous: 0,
            seen: HashSet::new(),
        })
    }

    fn corruption(&mut self, message: String) {
        self.report.corruptions += 1;
        self.report.messages.push(message);
    }

    /// More references to each cluster that a range of the file touches.
    fn count(&mut self, offset: u64, len: u64, times: u32) -> IoResult<()> {
        if len == 0 {
            return Ok(());
        }
        let end = offset.saturating_add(len);
        if end.saturating_sub(self.file_len.next_multiple_of(self.geometry.cluster())) >= self.geometry.cluster() {
            self.corruption(format!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset \
                 {offset:#x} size {len:#x}"
            ));
            return Ok(());
        }
        let bits = self.geometry.cluster_bits;
        (offset >> bits..=(end - 1) >> bits).try_for_each(|cluster| self.references.add(cluster, times))
    }

    /// Everything that the image leads to but its reference counts.
    pub(super) fn count_all(&mut self, meta: &Meta) -> IoResult<()> {
        let (file, cluster) = (self.file, self.geometry.cluster());
        self.count(0, cluster, 1)?;
        self.count_l1(meta.header.l1_offset, &meta.l1, true)?;
        let (snapshots, table_len) = read_table(file, &meta.header)?;
        let mut uses: BTreeMap<u64, u32> = BTreeMap::new();
        for snapshot in &snapshots {
            self.count_snapshot(snapshot, &mut uses)?;
        }
        for (table, times) in uses {
            self.count_l2(table, times, false)?;
        }
        self.count(meta.header.snapshots_offset, table_len, 1)?;
        self.count_extensions(&meta.header)
    }

    fn count_snapshot(&mut self, snapshot: &Stored, uses: &mut BTreeMap<u64, u32>) -> IoResult<()> {
        let (id, name) = (&snapshot.id, &snapshot.name);
        if snapshot.l1_offset & (self.geometry.cluster() - 1) != 0 {
            self.corruption(format!(
                "ERROR snapshot {id} ({name}) l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry \
                 corrupted",
                snapshot.l1_offset
            ));
            return Ok(());
        }
        let l1 = read_l1(self.file, snapshot.l1_offset, snapshot.l1_size)?;
        self.count(snapshot.l1_offset, l1.len() as u64 * 8, 1)?;
        for entry in self.sound_entries(&l1) {
            *uses.entry(entry).or_default() += 1;
        }
        Ok(())
    }

    /// The L2 tables of an L1 table.
    fn sound_entries(&mut self, l1: &[u64]) -> Vec<u64> {
        let mut tables = Vec::new();
        for entry in l1.iter().copied().filter(|entry| *entry != 0) {
            if entry & L1_RESERVED != 0 {
                self.corruption(format!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            }
            let table = entry & OFFSET;
            if table & (self.geometry.cluster() - 1) != 0 {
                self.corruption(format!("ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"));
            }
            tables.push(table);
        }
        tables
    }

    fn count_l1(&mut self, offset: u64, l1: &[u64], active: bool) -> IoResult<()> {
        self.count(offset, l1.len() as u64 * 8, 1)?;
        let tables = self.sound_entries(l1);
        // A table in two places is counted twice and looked into once: a hostile image has it in millions.
        let mut uses: BTreeMap<u64, u32> = BTreeMap::new();
        tables.iter().for_each(|table| *uses.entry(*table).or_default() += 1);
        for table in tables {
            if let Some(times) = uses.remove(&table) {
                self.count_l2(table, times, active)?;
            }
        }
        Ok(())
    }

    fn count_l2(&mut self, table: u64, times: u32, active: bool) -> IoResult<()> {
        let cluster = self.geometry.cluster();
        self.count(table, cluster, times)?;
        if table >= self.file_len {
            return Ok(());
        }
        let is_quiet = !self.seen.insert(table);
        let before = (self.report.corruptions, self.report.messages.len());
        let mut bytes = vec![0; usize::try_from(cluster).unwrap_or(0)];
        self.file.read_at(table, &mut bytes)?;
        let step = usize::try_from(self.geometry.entry_bytes()).unwrap_or(8);
        for (index, raw) in bytes.chunks_exact(step).enumerate() {
            let word_at = |at: usize| raw.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
            let entry = Entry { word: word_at(0), bitmap: word_at(8) };
            if entry != Entry::default() {
                self.count_entry(entry, index, times, active)?;
            }
        }
        if is_quiet {
            self.report.corruptions = before.0;
            self.report.messages.truncate(before.1);
        }
        Ok(())
    }

    fn count_entry(&mut self, entry: Entry, index: usize, times: u32, active: bool) -> IoResult<()> {
        if entry.compressed() {
            return self.count_packed(entry, index, times, active);
        }
        let g = self.geometry;
        if g.extended {
            self.check_bitmap(entry);
        }
        if entry.word & L2_RESERVED != 0 || entry.word & ZERO != 0 && (g.extended || g.version < 3) {
            self.corruption(format!("ERROR found l2 entry with reserved bits set: {:x}", entry.word));
        }
        let Some(host) = entry.host(g) else { return Ok(()) };
        if host & (g.cluster() - 1) != 0 {
            let what = if entry.data_bits(g) == 0 { "Preallocated cluster" } else { "Data cluster" };
            self.corruption(format!("ERROR offset={host:x}: {what} is not properly aligned; L2 entry corrupted."));
        }
        if active {
            self.report.allocated_clusters += 1;
            if self.next_contiguous != 0 && host != self.next_contiguous {
                self.report.fragmented_clusters += 1;
            }
            self.next_contiguous = host + g.cluster();
        }
        if g.external { Ok(()) } else { self.count(host, g.cluster(), times) }
    }

    fn check_bitmap(&mut self, entry: Entry) {
        let g = self.geometry;
        let both = entry.bitmap >> 32 & entry.bitmap & ALL_ALLOCATED;
        match entry.host(g) {
            Some(host) if both != 0 => self.corruption(format!(
                "ERROR offset={host:x}: Allocated cluster with corrupted subcluster allocation bitmap"
            )),
            None if entry.bitmap & ALL_ALLOCATED != 0 => {
                self.corruption("ERROR: Unallocated cluster with non-zero subcluster allocation map".to_owned());
            }
            _ => {}
        }
    }

    fn count_packed(&mut self, entry: Entry, index: usize, times: u32, active: bool) -> IoResult<()> {
        let (offset, len) = entry.packed(self.geometry.cluster_bits);
        if entry.copied() {
            self.corruption(format!(
                "ERROR: coffset={offset:#x}: copied flag must never be set for compressed clusters"
            ));
        }
        if self.geometry.external {
            self.corruption(format!("ERROR compressed cluster {index} with data file, entry={:#x}", entry.word));
            return Ok(());
        }
        if entry.bitmap != 0 {
            self.corruption(format!(
                "ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry={:#x}",
                entry.word
            ));
            return Ok(());
        }
        if active {
            self.report.allocated_clusters += 1;
            self.report.compressed_clusters += 1;
            self.report.fragmented_clusters += 1;
        }
        self.count(offset, len, times)
    }

    /// Everything that extensions point at.
    fn count_extensions(&mut self, header: &Header) -> IoResult<()> {
        for known in &header.extensions {
            let word = |at: usize| known.data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            match known.kind {
                extension::ENCRYPTION => self.count(word(0).unwrap_or(0), word(8).unwrap_or(0), 1)?,
                extension::BITMAPS if header.autoclear & autoclear::BITMAPS != 0 => {
                    let (len, offset) = (word(8).unwrap_or(0), word(16).unwrap_or(0));
                    self.count(offset, len, 1)?;
                    self.count_bitmaps(offset, len.min(64 << 20))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The tables and the clusters of persistent bitmaps (qcow2.rst, "Bitmap directory").
    fn count_bitmaps(&mut self, offset: u64, len: u64) -> IoResult<()> {
        // No file has more entries than it has words.
        let mut budget = self.file_len / 8;
        let mut at = offset;
        let end = offset.saturating_add(len).min(self.file_len);
        while at.saturating_add(24) <= end {
            let mut fixed = [0; 24];
            self.file.read_at(at, &mut fixed)?;
            let table = fixed[..8].try_into().map_or(0, u64::from_be_bytes);
            let entries = u64::from(fixed[8..12].try_into().map_or(0, u32::from_be_bytes));
            let name = u64::from(u16::from_be_bytes([fixed[18], fixed[19]]));
            let extra = u64::from(fixed[20..24].try_into().map_or(0, u32::from_be_bytes));
            self.count(table, entries * 8, 1)?;
            for index in 0..entries.min(budget) {
                let Some(place) = table.checked_add(index * 8) else { break };
                let mut word = [0; 8];
                self.file.read_at(place, &mut word)?;
                let cluster = u64::from_be_bytes(word) & OFFSET;
                if cluster != 0 {
                    self.count(cluster, self.geometry.cluster(), 1)?;
                }
            }
            budget = budget.saturating_sub(entries);
            at += (24 + extra + name).next_multiple_of(8);
        }
        Ok(())
    }

    /// What was counted so far.
    pub(super) fn into_references(self) -> References {
        self.references
    }

    /// The refcount table and its blocks.
    pub(super) fn count_refcounts(mut self, meta: &Meta) -> IoResult<Counted> {
        let (offset, clusters) = meta.refcounts.location();
        self.count(offset, u64::from(clusters) << self.geometry.cluster_bits, 1)?;
        let mut bad_blocks = Vec::new();
        for (index, entry) in meta.refcounts.table().iter().copied().enumerate().filter(|(_, entry)| *entry != 0) {
            if self.count_block(index, entry)? {
                bad_blocks.push(index);
            }
        }
        Ok(Counted { references: self.references, bad_blocks })
    }

    /// Counts a refcount block. Returns whether it cannot be one.
    fn count_block(&mut self, index: usize, entry: u64) -> IoResult<bool> {
        if entry & 0x1ff != 0 {
            self.corruption(format!("ERROR refcount table entry {index} has reserved bits set"));
        }
        let block = entry & !0x1ff;
        let cluster = self.geometry.cluster();
        if block & (cluster - 1) != 0 {
            self.corruption(format!(
                "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
            ));
            return Ok(true);
        }
        if block >= self.file_len.next_multiple_of(cluster) {
            self.corruption(format!("ERROR refcount block {index} is outside image"));
            return Ok(true);
        }
        self.count(block, cluster, 1)?;
        let count = self.references.get(block >> self.geometry.cluster_bits);
        if count == 1 {
            return Ok(false);
        }
        self.corruption(format!("ERROR refcount block {index} refcount={count}"));
        Ok(true)
    }
}

/// What differs between references and counts.
pub(super) enum Difference {
    /// The count cannot be read.
    Unreadable(u64),
    /// Cluster, count, references.
    Wrong(u64, u64, u64),
}

impl Image {
    /// Calls `each` for every cluster whose count is wrong. Returns the end of the last cluster in use.
    pub(super) fn differences(
        &self,
        meta: &mut Meta,
        references: &References,
        mut each: impl FnMut(&mut Meta, Difference) -> io::Result<()>,
    ) -> IoResult<u64> {
        let file = self.file.as_ref();
        let in_file = file.len()?.div_ceil(self.fixed.cluster());
        let end = references.end().max(meta.refcounts.counted().min(in_file));
        let mut highest = 0;
        let mut cluster = 0;
        while cluster < end {
            let count = match meta.refcounts.get(file, cluster) {
                Ok(count) => count,
                Err(_) => {
                    each(meta, Difference::Unreadable(cluster))?;
                    cluster += 1;
                    continue;
                }
            };
            let reference = references.get(cluster);
            if count > 0 || reference > 0 {
                highest = cluster;
            } else if let Ok(next) = meta.refcounts.next_block(cluster) {
                // Nothing counted and nothing used up to there.
                cluster = next.min(references.next(cluster + 1)).max(cluster + 1);
                continue;
            }
            if count != reference {
                each(meta, Difference::Wrong(cluster, count, reference))?;
            }
            cluster += 1;
        }
        Ok((highest + 1) << self.fixed.cluster_bits)
    }
}
