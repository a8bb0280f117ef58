//! Counts all references anew and compares them with the reference counts of the image; repairs them if asked.

use std::io;

use super::entry::{COPIED, Entry, OFFSET};
use super::header::{Header, autoclear, extension, incompatible};
use super::meta::{L1_COPIED, Meta, read_l1};
use super::snapshot::read_table;
use super::{Geometry, Image};
use crate::block::image::{CheckFailed, CheckReport, Repair};
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// Bits of L1 entries that must be 0.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of L2 entries that must be 0.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// Clusters that a check counts at most (a count takes 4 bytes).
const MAX_CLUSTERS: u64 = 1 << 30;

struct Counter<'a> {
    file: &'a dyn BlockNode,
    file_len: u64,
    geometry: Geometry,
    counts: Vec<u32>,
    report: CheckReport,
    next_contiguous: u64,
}

impl Counter<'_> {
    fn corruption(&mut self, message: String) {
        self.report.corruptions += 1;
        self.report.messages.push(message);
    }

    /// One more reference to each cluster that a range of the file touches.
    fn count(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let end = offset.saturating_add(len);
        if end.saturating_sub(self.file_len) > self.geometry.cluster() {
            self.corruption(format!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset \
                 {offset:#x} size {len:#x}"
            ));
            return;
        }
        let bits = self.geometry.cluster_bits;
        for cluster in offset >> bits..=(end - 1) >> bits {
            let index = usize::try_from(cluster).unwrap_or(usize::MAX);
            if index >= self.counts.len() {
                self.counts.resize(index + 1, 0);
            }
            self.counts[index] = self.counts[index].saturating_add(1);
        }
    }

    fn count_l1(&mut self, offset: u64, l1: &[u64], active: bool) -> IoResult<()> {
        self.count(offset, l1.len() as u64 * 8);
        for entry in l1.iter().copied().filter(|entry| *entry != 0) {
            if entry & L1_RESERVED != 0 {
                self.corruption(format!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            }
            let table = entry & OFFSET;
            self.count(table, self.geometry.cluster());
            if table & (self.geometry.cluster() - 1) != 0 {
                self.corruption(format!("ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"));
            }
            self.count_l2(table, active)?;
        }
        Ok(())
    }

    fn count_l2(&mut self, table: u64, active: bool) -> IoResult<()> {
        let mut bytes = vec![0; usize::try_from(self.geometry.cluster()).unwrap_or(0)];
        self.file.read_at(table, &mut bytes)?;
        let step = usize::try_from(self.geometry.entry_bytes()).unwrap_or(8);
        for raw in bytes.chunks_exact(step) {
            let word = raw[..8].try_into().map_or(0, u64::from_be_bytes);
            if word != 0 {
                self.count_entry(Entry { word, bitmap: 0 }, active);
            }
        }
        Ok(())
    }

    fn count_entry(&mut self, entry: Entry, active: bool) {
        if entry.compressed() {
            let (offset, len) = entry.packed(self.geometry.cluster_bits);
            if entry.copied() {
                self.corruption(format!(
                    "ERROR: coffset={offset:#x}: copied flag must never be set for compressed clusters"
                ));
            }
            self.count(offset, len);
            if active {
                self.report.allocated_clusters += 1;
                self.report.compressed_clusters += 1;
                self.report.fragmented_clusters += 1;
            }
            return;
        }
        if entry.word & L2_RESERVED != 0 {
            self.corruption(format!("ERROR found l2 entry with reserved bits set: {:x}", entry.word));
        }
        let Some(host) = entry.host() else { return };
        if host & (self.geometry.cluster() - 1) != 0 {
            self.corruption(format!(
                "ERROR offset={host:x}: Data cluster is not properly aligned; L2 entry corrupted."
            ));
        }
        if active {
            self.report.allocated_clusters += 1;
            if self.next_contiguous != 0 && host != self.next_contiguous {
                self.report.fragmented_clusters += 1;
            }
            self.next_contiguous = host + self.geometry.cluster();
        }
        self.count(host, self.geometry.cluster());
    }

    /// Everything that extensions point at.
    fn count_extensions(&mut self, header: &Header) -> IoResult<()> {
        for known in &header.extensions {
            let word = |at: usize| known.data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            match known.kind {
                extension::ENCRYPTION => self.count(word(0).unwrap_or(0), word(8).unwrap_or(0)),
                extension::BITMAPS if header.autoclear & autoclear::BITMAPS != 0 => {
                    let (len, offset) = (word(8).unwrap_or(0), word(16).unwrap_or(0));
                    self.count(offset, len);
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
            self.count(table, entries * 8);
            for index in 0..entries.min(budget) {
                let Some(place) = table.checked_add(index * 8) else { break };
                let mut word = [0; 8];
                self.file.read_at(place, &mut word)?;
                let cluster = u64::from_be_bytes(word) & OFFSET;
                if cluster != 0 {
                    self.count(cluster, self.geometry.cluster());
                }
            }
            budget = budget.saturating_sub(entries);
            at += (24 + extra + name).next_multiple_of(8);
        }
        Ok(())
    }

    /// The refcount table and its blocks. Blocks whose place cannot be are returned.
    fn count_refcounts(&mut self, meta: &Meta) -> Vec<usize> {
        let (offset, clusters) = meta.refcounts.location();
        self.count(offset, u64::from(clusters) << self.geometry.cluster_bits);
        let mut bad = Vec::new();
        for (index, entry) in meta.refcounts.table().iter().copied().enumerate().filter(|(_, entry)| *entry != 0) {
            if entry & 0x1ff != 0 {
                self.corruption(format!("ERROR refcount table entry {index} has reserved bits set"));
            }
            let block = entry & !0x1ff;
            if block & (self.geometry.cluster() - 1) != 0 {
                self.corruption(format!(
                    "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
                ));
                bad.push(index);
            } else if block >= self.file_len.next_multiple_of(self.geometry.cluster()) {
                self.corruption(format!("ERROR refcount block {index} is outside image"));
                bad.push(index);
            } else {
                self.count(block, self.geometry.cluster());
                let cluster = usize::try_from(block >> self.geometry.cluster_bits).unwrap_or(usize::MAX);
                if let Some(count) = self.counts.get(cluster).filter(|count| **count != 1) {
                    let message = format!("ERROR refcount block {index} refcount={count}");
                    self.corruption(message);
                    bad.push(index);
                }
            }
        }
        bad
    }
}

impl Image {
    /// Checks the image, and repairs what `repair` says. No one may use the image meanwhile.
    ///
    /// # Errors
    /// The host fails, or the image is so damaged that it cannot be checked.
    pub fn check_tables(&self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let mut meta = lock(&self.meta);
        let meta = &mut *meta;
        let file = self.file.as_ref();
        if repair.is_some() && self.options.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if !self.options.read_only {
            meta.commit_and_flush(file)?;
        }
        let file_len = file.len()?;
        if file_len >> self.geometry.cluster_bits > MAX_CLUSTERS {
            return Err(io::Error::from_raw_os_error(27)); // EFBIG
        }
        let mut counter = Counter {
            file,
            file_len,
            geometry: self.geometry,
            counts: Vec::new(),
            report: CheckReport::default(),
            next_contiguous: 0,
        };
        counter.report.total_clusters = meta.header.size.div_ceil(self.geometry.cluster());
        counter.count(0, self.geometry.cluster());
        counter.count_l1(meta.header.l1_offset, &meta.l1, true)?;
        let (snapshots, table_len) = read_table(file, &meta.header)?;
        for snapshot in &snapshots {
            let l1 = read_l1(file, snapshot.l1_offset, snapshot.l1_size)?;
            counter.count_l1(snapshot.l1_offset, &l1, false)?;
        }
        counter.count(meta.header.snapshots_offset, table_len);
        counter.count_extensions(&meta.header)?;
        let bad_blocks = counter.count_refcounts(meta);
        let Counter { mut counts, mut report, .. } = counter;
        let in_file = usize::try_from(file_len.div_ceil(self.geometry.cluster())).unwrap_or(usize::MAX);
        if counts.len() < in_file {
            counts.resize(in_file, 0);
        }
        let rebuild = self.compare(meta, &counts, &mut report) || !bad_blocks.is_empty();
        if let Some(repair) = repair {
            if rebuild && repair != Repair::All {
                report.messages.push("ERROR need to rebuild refcount structures".to_owned());
                return Err(io::Error::other(CheckFailed(report.messages)));
            }
            self.repair_counts(meta, &counts, &bad_blocks, repair, &mut report)?;
        }
        // Flags follow from the counts; those must be right before.
        let consistent = (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0);
        let repair_flags = repair == Some(Repair::All) || repair.is_some() && consistent;
        self.check_copied(meta, repair_flags, &mut report)?;
        if repair.is_some() {
            meta.commit_and_flush(file)?;
            let damage = incompatible::DIRTY | incompatible::CORRUPT;
            if report.corruptions == 0 && report.check_errors == 0 && meta.header.incompatible & damage != 0 {
                meta.header.incompatible &= !damage;
                meta.corrupt = false;
                self.write_features(meta)?;
            }
        }
        Ok(report)
    }

    /// Reports the differences between counts and references. Returns whether a cluster in use has no count.
    fn compare(&self, meta: &mut Meta, counts: &[u32], report: &mut CheckReport) -> bool {
        let mut rebuild = false;
        let mut highest = 0;
        for (cluster, reference) in counts.iter().copied().enumerate() {
            let Ok(count) = meta.refcounts.get(self.file.as_ref(), cluster as u64) else {
                report.check_errors += 1;
                report.messages.push(format!("Can't get refcount for cluster {cluster}: Input/output error"));
                continue;
            };
            let reference = u64::from(reference);
            if count > 0 || reference > 0 {
                highest = cluster;
            }
            if count < reference {
                rebuild |= count == 0;
                report.corruptions += 1;
                report.messages.push(format!("ERROR cluster {cluster} refcount={count} reference={reference}"));
            } else if count > reference {
                report.leaks += 1;
                report.messages.push(format!("Leaked cluster {cluster} refcount={count} reference={reference}"));
            }
        }
        report.image_end_offset = (highest as u64 + 1) << self.geometry.cluster_bits;
        rebuild
    }

    fn repair_counts(
        &self,
        meta: &mut Meta,
        counts: &[u32],
        bad_blocks: &[usize],
        repair: Repair,
        report: &mut CheckReport,
    ) -> IoResult<()> {
        let file = self.file.as_ref();
        let all = repair == Repair::All;
        if all {
            // New blocks go behind everything else, where nothing can be in the way.
            meta.refcounts.rebuild_blocks(file, counts, bad_blocks)?;
            report.check_errors = 0;
            report.corruptions -= (bad_blocks.len() as u64).min(report.corruptions);
            report.corruptions_fixed += bad_blocks.len() as u64;
        }
        for (cluster, reference) in counts.iter().copied().enumerate() {
            let (cluster, reference) = (cluster as u64, u64::from(reference));
            let count = meta.refcounts.get(file, cluster)?;
            if count == reference || count < reference && !all {
                continue;
            }
            report.messages.push(format!("Repairing cluster {cluster} refcount={count} reference={reference}"));
            meta.refcounts.set(file, cluster, reference)?;
            if count < reference {
                report.corruptions_fixed += 1;
                report.corruptions = report.corruptions.saturating_sub(1);
            } else {
                report.leaks_fixed += 1;
                report.leaks = report.leaks.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// The flag that says "refcount is exactly one", in the active tables.
    fn check_copied(&self, meta: &mut Meta, repair: bool, report: &mut CheckReport) -> IoResult<()> {
        let (file, g) = (self.file.as_ref(), self.geometry);
        let mut note = |kind: String| {
            let word = if repair { "Repairing" } else { "ERROR" };
            report.messages.push(format!("{word} OFLAG_COPIED {kind}"));
            if repair {
                report.corruptions_fixed += 1;
            } else {
                report.corruptions += 1;
            }
        };
        for index in 0..meta.l1.len() {
            let l1_entry = meta.l1[index];
            let table = l1_entry & OFFSET;
            if table == 0 || table & (g.cluster() - 1) != 0 {
                continue;
            }
            let Ok(count) = meta.refcounts.get(file, table >> g.cluster_bits) else { continue };
            if (count == 1) != (l1_entry & L1_COPIED != 0) {
                note(format!("L2 cluster: l1_index={index} l1_entry={l1_entry:x} refcount={count}"));
                if repair {
                    meta.l1[index] = l1_entry ^ L1_COPIED;
                    meta.l1_dirty.insert(index);
                }
            }
            for at in 0..1_u64 << g.l2_bits {
                let place = table + at * g.entry_bytes();
                let mut entry = meta.entry(file, place)?;
                let Some(host) = entry.host() else { continue };
                let Ok(count) = meta.refcounts.get(file, host >> g.cluster_bits) else { continue };
                if (count == 1) != entry.copied() {
                    note(format!("data cluster: l2_entry={:x} refcount={count}", entry.word));
                    if repair {
                        entry.word ^= COPIED;
                        meta.set_entry(file, place, entry)?;
                    }
                }
            }
        }
        Ok(())
    }
}
