//! `check` and its repairs: counts that differ are set, flags follow from the counts, and reference counts that are
//! beyond that are built anew in one step.

use std::io;

use super::Image;
use super::check::{Counted, Counter, Difference};
use super::entry::{COPIED, OFFSET};
use super::header::incompatible;
use super::meta::{L1_COPIED, Meta};
use super::references::References;
use super::switch::Next;
use crate::block::image::{CheckFailed, CheckReport, Repair};
use crate::block::node::IoResult;

impl Image {
    /// Checks the image, and repairs what `repair` says.
    ///
    /// # Errors
    /// The host fails, or the image is so damaged that it cannot be checked.
    pub fn check_tables(&self, repair: Option<Repair>) -> IoResult<CheckReport> {
        if repair.is_some() && self.options.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.options.read_only {
            return self.check_now(&mut crate::block::lock(&self.meta), repair);
        }
        self.exclusively(|meta| self.check_now(meta, repair))
    }

    fn count_references(&self, meta: &Meta, report: &mut CheckReport) -> IoResult<Counted> {
        let mut counter = Counter::new(self.file.as_ref(), self.geometry(), report)?;
        counter.count_all(meta)?;
        counter.count_refcounts(meta)
    }

    fn check_now(&self, meta: &mut Meta, repair: Option<Repair>) -> IoResult<CheckReport> {
        let mut report =
            CheckReport { total_clusters: meta.header.size.div_ceil(self.fixed.cluster()), ..CheckReport::default() };
        let Counted { references, bad_blocks } = self.count_references(meta, &mut report)?;
        let rebuild = self.compare(meta, &references, &mut report)? || !bad_blocks.is_empty();
        match repair {
            Some(Repair::All) if rebuild => self.rebuild(meta, &mut report)?,
            Some(_) if rebuild => {
                report.messages.push("ERROR need to rebuild refcount structures".to_owned());
                return Err(io::Error::other(CheckFailed(report.messages)));
            }
            Some(repair) => self.set_counts(meta, &references, repair, &mut report)?,
            None => {}
        }
        // Flags follow from the counts; those must be right before.
        let is_consistent = (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0);
        self.check_flags(meta, repair == Some(Repair::All) || repair.is_some() && is_consistent, &mut report)?;
        if repair.is_some() {
            self.settle(meta)?;
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
    fn compare(&self, meta: &mut Meta, references: &References, report: &mut CheckReport) -> IoResult<bool> {
        let mut rebuild = false;
        let end = self.differences(meta, references, |_, difference| {
            match difference {
                Difference::Unreadable(cluster) => {
                    report.check_errors += 1;
                    rebuild = true;
                    report.messages.push(format!("Can't get refcount for cluster {cluster}: Input/output error"));
                }
                Difference::Wrong(cluster, count, reference) if count < reference => {
                    rebuild |= count == 0;
                    report.corruptions += 1;
                    report.messages.push(format!("ERROR cluster {cluster} refcount={count} reference={reference}"));
                }
                Difference::Wrong(cluster, count, reference) => {
                    report.leaks += 1;
                    report.messages.push(format!("Leaked cluster {cluster} refcount={count} reference={reference}"));
                }
            }
            Ok(())
        })?;
        report.image_end_offset = end;
        Ok(rebuild)
    }

    fn set_counts(
        &self,
        meta: &mut Meta,
        references: &References,
        repair: Repair,
        report: &mut CheckReport,
    ) -> IoResult<()> {
        let file = self.file.as_ref();
        self.differences(meta, references, |meta, difference| {
            let Difference::Wrong(cluster, count, reference) = difference else { return Ok(()) };
            if count < reference && repair != Repair::All {
                return Ok(());
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
            Ok(())
        })?;
        Ok(())
    }

    /// New reference counts for everything that is used.
    fn rebuild(&self, meta: &mut Meta, report: &mut CheckReport) -> IoResult<()> {
        report.messages.push("Rebuilding refcount structure".to_owned());
        let mut again = CheckReport::default();
        let mut counter = Counter::new(self.file.as_ref(), self.geometry(), &mut again)?;
        counter.count_all(meta)?;
        let (counts, clamped) = counter.into_references().packed(meta.header.refcount_order);
        if !clamped.is_empty() {
            return Err(io::Error::from_raw_os_error(22)); // EINVAL
        }
        let (fixed, leaks) = (report.corruptions, report.leaks);
        let bits = self.fixed.cluster_bits;
        let (table, clusters) = meta.refcounts.location();
        // What the header still leads to must outlast the change.
        let end = self.file.len()?.div_ceil(self.fixed.cluster());
        let blocks = meta.refcounts.table().iter().map(|entry| entry >> bits).filter(|block| *block < end);
        let table = std::iter::once(table >> bits..(table >> bits) + u64::from(clusters));
        let reserved: Vec<_> = table.chain(blocks.map(|block| block..block + 1)).collect();
        let mut next = Next::with_counts(self, meta, counts, &reserved);
        next.header.incompatible &= !incompatible::DIRTY;
        next.enter(meta)?;
        let mut after = CheckReport::default();
        let Counted { references, .. } = self.count_references(meta, &mut after)?;
        self.compare(meta, &references, &mut after)?;
        report.corruptions = after.corruptions;
        report.leaks = after.leaks;
        report.check_errors = after.check_errors;
        report.corruptions_fixed += fixed.saturating_sub(after.corruptions);
        report.leaks_fixed += leaks.saturating_sub(after.leaks);
        report.image_end_offset = after.image_end_offset;
        Ok(())
    }

    /// The flag that says "refcount is exactly one", in the active tables.
    fn check_flags(&self, meta: &mut Meta, repair: bool, report: &mut CheckReport) -> IoResult<()> {
        let (file, g) = (self.file.as_ref(), self.geometry());
        let mut note = |kind: String| {
            let word = if repair { "Repairing" } else { "ERROR" };
            report.messages.push(format!("{word} OFLAG_COPIED {kind}"));
            if repair {
                report.corruptions_fixed += 1;
            } else {
                report.corruptions += 1;
            }
        };
        let mut seen = std::collections::HashSet::new();
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
            if !seen.insert(table) || g.external {
                continue;
            }
            for at in 0..1_u64 << g.l2_bits {
                let place = table + at * g.entry_bytes();
                let mut entry = meta.entry(file, place)?;
                let Some(host) = entry.host(g) else { continue };
                let Ok(count) = meta.refcounts.get(file, host >> g.cluster_bits) else { continue };
                if (count == 1) == entry.copied() {
                    continue;
                }
                note(format!("data cluster: l2_entry={:x} refcount={count}", entry.word));
                if repair {
                    entry.word ^= COPIED;
                    meta.set_entry(file, place, entry)?;
                    if meta.is_full() {
                        self.settle(meta)?;
                    }
                }
            }
        }
        Ok(())
    }
}
