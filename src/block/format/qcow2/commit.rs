//! How changes reach the disk: at every moment the file is a valid image, and after a flush it holds what was written
//! before.
//!
//! Content and reference counts come first; then, after a flush, the tables that refer to them; then, after another,
//! the counts that fall. The tables are copied while they are locked and written while they are not, so that requests
//! go on meanwhile. With lazy reference counts the counts come last, and the header says so before the tables do
//! (qcow2.rst, "Dirty bit").
//!
//! Locks, in their order: [`Flushes`], the gate, the tables.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Image;
use super::cache::{Copies, write_copies};
use super::header::incompatible;
use super::meta::{Meta, Reason, Retired};
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// Who asked for a flush and who got it: one flush serves all that waited for the one before.
#[derive(Default)]
pub(super) struct Flushes {
    asked: AtomicU64,
    /// The last request that was served. Whoever changes what the file holds has this lock.
    pub(super) served: Mutex<u64>,
}

/// What leaves the memory for the file.
struct Departing {
    l2: Copies,
    l1: Vec<(usize, u64)>,
    retired: Vec<Retired>,
}

impl Image {
    /// Puts everything that was written on stable storage. The caller holds no lock of the image.
    pub(super) fn flush_all(&self) -> IoResult<()> {
        let mine = self.flushes.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = lock(&self.flushes.served);
        if *served >= mine {
            return Ok(());
        }
        let all = self.flushes.asked.load(Ordering::SeqCst);
        self.commit()?;
        *served = all;
        Ok(())
    }

    fn commit(&self) -> IoResult<()> {
        let file = self.file.as_ref();
        let departing = {
            let mut meta = lock(&self.meta);
            self.depart(&mut meta)?
        };
        self.flush_data()?;
        file.flush()?;
        let Departing { l2, l1, mut retired } = departing;
        if !l2.is_empty() || !l1.is_empty() {
            let l1_offset = lock(&self.meta).header.l1_offset;
            let written = write_copies(file, &l2)
                .and_then(|()| write_l1_entries(file, l1_offset, &l1))
                .and_then(|()| file.flush());
            let mut meta = lock(&self.meta);
            meta.l2.arrived(&l2, written.is_ok());
            if let Err(error) = written {
                meta.l1_dirty.extend(l1.iter().map(|(index, _)| *index));
                meta.retired.append(&mut retired);
                return Err(error);
            }
        }
        let is_any = {
            let mut meta = lock(&self.meta);
            meta.free.append(&mut retired);
            !meta.free.is_empty()
        };
        if is_any { self.release_free() } else { Ok(()) }
    }

    fn flush_data(&self) -> IoResult<()> {
        self.data.as_ref().map_or(Ok(()), |data| data.flush())
    }

    /// Writes what may be written now, and copies what must wait for a flush.
    fn depart(&self, meta: &mut Meta) -> IoResult<Departing> {
        let file = self.file.as_ref();
        let l2 = meta.l2.take_dirty();
        let l1 = meta.take_l1();
        let is_any = !l2.is_empty() || !l1.is_empty();
        let ready = if self.is_lazy(meta) {
            if is_any { self.mark_dirty(meta) } else { Ok(()) }
        } else {
            meta.write_refcounts(file)
        };
        if let Err(error) = ready {
            meta.l2.arrived(&l2, false);
            meta.l1_dirty.extend(l1.iter().map(|(index, _)| *index));
            return Err(error);
        }
        Ok(Departing { l2, l1, retired: std::mem::take(&mut meta.retired) })
    }

    /// Whether reference counts may be wrong on the disk while the image is open.
    fn is_lazy(&self, meta: &Meta) -> bool {
        self.lazy && !meta.refcounts.is_full()
    }

    fn mark_dirty(&self, meta: &mut Meta) -> IoResult<()> {
        if meta.header.incompatible & incompatible::DIRTY == 0 {
            meta.header.incompatible |= incompatible::DIRTY;
            self.write_features(meta)?;
        }
        Ok(())
    }

    /// Reference counts are right on the disk from now on, until the next change.
    pub(super) fn mark_clean(&self, meta: &mut Meta) -> IoResult<()> {
        if meta.header.incompatible & incompatible::DIRTY != 0 {
            meta.write_refcounts(self.file.as_ref())?;
            self.file.flush()?;
            meta.header.incompatible &= !incompatible::DIRTY;
            self.write_features(meta)?;
        }
        Ok(())
    }

    /// Gives back what no table refers to any more, once nobody can be at it.
    fn release_free(&self) -> IoResult<()> {
        let free = std::mem::take(&mut lock(&self.meta).free);
        // Whoever looked up these places before has left when the gate was ours.
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
        lock(&self.unpacked).clear();
        let file = self.file.as_ref();
        let passed = self.passed_on(&mut lock(&self.meta), &free)?;
        for (offset, len) in passed {
            file.discard(offset, len)?;
        }
        let mut meta = lock(&self.meta);
        for range in free {
            meta.release(file, range.offset, range.len)?;
        }
        if self.is_lazy(&meta) { Ok(()) } else { meta.write_refcounts(file) }
    }

    /// The clusters among `free` that nothing else uses and that the file is told of, neighbours joined.
    fn passed_on(&self, meta: &mut Meta, free: &[Retired]) -> IoResult<Vec<(u64, u64)>> {
        let g = self.fixed;
        let mut last = Vec::new();
        for range in free {
            let passes = match range.reason {
                Reason::Request => self.options.pass_requests(),
                Reason::Other => self.options.pass_discard.other,
            };
            let whole = range.len.is_multiple_of(g.cluster());
            if passes && whole && meta.refcounts.get(self.file.as_ref(), range.offset >> g.cluster_bits)? == 1 {
                last.push((range.offset, range.len));
            }
        }
        last.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (offset, len) in last {
            match joined.last_mut() {
                Some((start, before)) if *start + *before == offset => *before += len,
                _ => joined.push((offset, len)),
            }
        }
        Ok(joined)
    }

    /// Runs `change` with nothing in memory that is not on the disk, and with nobody else at the image.
    pub(super) fn exclusively<T>(&self, change: impl FnOnce(&mut Meta) -> IoResult<T>) -> IoResult<T> {
        self.flush_all()?;
        let _no_flush = lock(&self.flushes.served);
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        lock(&self.unpacked).clear();
        let mut meta = lock(&self.meta);
        self.settle(&mut meta)?;
        change(&mut meta)
    }

    /// As a flush, for a caller who is alone.
    pub(super) fn settle(&self, meta: &mut Meta) -> IoResult<()> {
        let file = self.file.as_ref();
        meta.write_refcounts(file)?;
        self.flush_data()?;
        file.flush()?;
        meta.l2.write_dirty(file)?;
        let l1 = meta.take_l1();
        let written = write_l1_entries(file, meta.header.l1_offset, &l1).and_then(|()| file.flush());
        if let Err(error) = written {
            meta.l1_dirty.extend(l1.iter().map(|(index, _)| *index));
            return Err(error);
        }
        let mut free = std::mem::take(&mut meta.free);
        free.append(&mut meta.retired);
        for range in free {
            meta.release(file, range.offset, range.len)?;
        }
        meta.write_refcounts(file)?;
        file.flush()
    }
}

fn write_l1_entries(file: &dyn BlockNode, table: u64, entries: &[(usize, u64)]) -> IoResult<()> {
    entries.iter().try_for_each(|(index, entry)| file.write_at(table + 8 * *index as u64, &entry.to_be_bytes(), false))
}

impl Meta {
    /// The L1 entries that changed; they count as written.
    fn take_l1(&mut self) -> Vec<(usize, u64)> {
        let dirty = std::mem::take(&mut self.l1_dirty);
        dirty.into_iter().map(|index| (index, self.l1.get(index).copied().unwrap_or(0))).collect()
    }

    /// Writes the reference counts that changed; the place of the old table, if it moved, becomes free.
    pub(super) fn write_refcounts(&mut self, file: &dyn BlockNode) -> IoResult<()> {
        if let Some((offset, len)) = self.refcounts.write(file)? {
            self.retired.push(Retired { offset, len, reason: Reason::Other });
            let (offset, clusters) = self.refcounts.location();
            (self.header.refcount_table_offset, self.header.refcount_table_clusters) = (offset, clusters);
            self.touch(offset, u64::from(clusters) << self.geometry.cluster_bits);
            self.guard.invalidate();
        }
        let given_up = self.refcounts.take_retired();
        self.retired.extend(given_up.into_iter().map(|(offset, len)| Retired { offset, len, reason: Reason::Other }));
        Ok(())
    }
}
