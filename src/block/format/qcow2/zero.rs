//! Zeros and discards (qcow2.rst, "L2 table entry" and "Extended L2 Entries").
//!
//! A range is zeroed without writing where entries can say so: in whole clusters, in whole subclusters where there are
//! any. A discard frees whole clusters; what is discarded reads as zeros, but version 2 cannot say so over a backing
//! file and keeps the data.

use super::entry::{ALL_ZERO, Entry, Kind, ZERO};
use super::meta::{Meta, Reason};
use super::{Geometry, Image};
use crate::block::lock;
use crate::block::node::IoResult;

/// What entries say after a range was zeroed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// `may_unmap`: places may be given up.
    Zero { may_unmap: bool },
    /// By the guest's discard.
    Discard,
}

/// What came of one cluster.
enum Step {
    /// Nothing is left to do before `to`; `is_full`: the tables should be written.
    Done { to: u64, is_full: bool },
    /// Its entry cannot say it.
    MustWrite,
}

impl Image {
    pub(super) fn zero_range(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        if len == 0 {
            return Ok(());
        }
        let (g, end, size) = (self.geometry(), offset + len, self.disk_size());
        let unit = g.unit();
        let first = offset.next_multiple_of(unit);
        // The last unit is whole if all of it that the guest sees is meant.
        let last = if end == size { end.next_multiple_of(unit) } else { end / unit * unit };
        if first >= last {
            return self.zero_part(offset, len);
        }
        if first > offset {
            self.zero_part(offset, first - offset)?;
        }
        self.zero_units(first, last, How::Zero { may_unmap })?;
        if last < end { self.zero_part(last, end - last) } else { Ok(()) }
    }

    /// The end of a cluster that the disk did not reach: it reads as zeros from now on.
    pub(super) fn zero_tail(&self, offset: u64, end: u64) -> IoResult<()> {
        self.zero_part(offset, end - offset)
    }

    /// Whole clusters behind the end of the disk.
    pub(super) fn zero_to(&self, first: u64, last: u64) -> IoResult<()> {
        self.zero_units(first, last, How::Zero { may_unmap: false })
    }

    /// Parts of units: nothing to do where the tables say that they read as zeros.
    fn zero_part(&self, offset: u64, len: u64) -> IoResult<()> {
        let unit = self.geometry().unit();
        let mut at = offset;
        while at < offset + len {
            let end = ((at / unit + 1) * unit).min(offset + len);
            if !self.reads_zero(at)? {
                self.write_data(at, &vec![0; usize::try_from(end - at).unwrap_or(0)])?;
            }
            at = end;
        }
        Ok(())
    }

    /// Whether the tables say that the unit around `offset` reads as zeros from there on.
    fn reads_zero(&self, offset: u64) -> IoResult<bool> {
        let g = self.geometry();
        let _in_use = self.enter();
        let mut meta = self.wait_idle(lock(&self.meta), &(offset..offset + 1));
        let entry = meta.entry_at(self.file.as_ref(), offset)?;
        Ok(match (entry.kind(g, g.in_cluster(offset) / g.unit()), &self.backing) {
            (Kind::Zero, _) | (Kind::Unallocated, None) => true,
            (Kind::Unallocated, Some(backing)) => backing.len()? <= offset,
            _ => false,
        })
    }

    fn can_mark_zero(&self) -> bool {
        self.geometry().version >= 3 || self.backing.is_none()
    }

    /// Whole clusters only: a discard is a hint.
    pub(super) fn discard_range(&self, offset: u64, len: u64) -> IoResult<()> {
        let g = self.geometry();
        let (end, size) = (offset + len, self.disk_size());
        let first = offset.next_multiple_of(g.cluster());
        let last = if end == size { end.next_multiple_of(g.cluster()) } else { end / g.cluster() * g.cluster() };
        if first >= last || !self.can_mark_zero() {
            return Ok(());
        }
        self.zero_units(first, last, How::Discard)
    }

    /// Makes whole units read as zeros, a cluster at a time.
    fn zero_units(&self, first: u64, last: u64, how: How) -> IoResult<()> {
        let g = self.geometry();
        if !self.can_mark_zero() {
            let end = last.min(self.disk_size());
            return self.write_zeros(first, end - first);
        }
        let mut at = first;
        while at < last {
            let end = last.min((at / g.cluster() + 1) * g.cluster());
            match self.zero_step(at, end, last, how)? {
                Step::Done { to, is_full } => {
                    if is_full {
                        self.flush_all()?;
                    }
                    at = to;
                }
                Step::MustWrite => {
                    self.write_zeros(at, end - at)?;
                    at = end;
                }
            }
        }
        self.release_many()
    }

    /// Makes units of the cluster at `at` read as zeros, up to `end`; looks no further than `last`.
    fn zero_step(&self, at: u64, end: u64, last: u64, how: How) -> IoResult<Step> {
        let g = self.geometry();
        let _in_use = self.enter();
        let mut meta = self.wait_idle(lock(&self.meta), &(at..end));
        let is_bare = self.backing.is_none() && self.data.is_none();
        if how == How::Discard && is_bare && meta.entry_place(at)?.is_none() {
            // Nothing there, all of it reads as zeros already.
            let table = g.cluster() << g.l2_bits;
            return Ok(Step::Done { to: (at / table + 1).saturating_mul(table).min(last), is_full: false });
        }
        if !self.zero_in_cluster(&mut meta, at, end, how)? {
            return Ok(Step::MustWrite);
        }
        Ok(Step::Done { to: end, is_full: meta.is_full() })
    }

    fn write_zeros(&self, mut offset: u64, mut len: u64) -> IoResult<()> {
        let zeros = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or(0)];
        while len > 0 {
            let step = len.min(zeros.len() as u64);
            self.write_data(offset, &zeros[..usize::try_from(step).unwrap_or(0)])?;
            (offset, len) = (offset + step, len - step);
        }
        Ok(())
    }

    /// Makes units of one cluster read as zeros, if its entry can say so.
    fn zero_in_cluster(&self, meta: &mut Meta, at: u64, end: u64, how: How) -> IoResult<bool> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        let old = meta.entry_at(file, at)?;
        let whole = g.in_cluster(at) == 0 && end - at == g.cluster();
        if !whole && old.compressed() {
            return Ok(false);
        }
        let new = if whole { self.zeroed(g, old, how) } else { with_zero_subclusters(g, old, at, end) };
        if new == old {
            return Ok(true);
        }
        if let (Some(data), Some(host)) = (&self.data, old.host(g)) {
            // The place stays where it is, so that what is there must not show again.
            let (at, len) = (host + g.in_cluster(at), end - at);
            match how {
                How::Zero { .. } if self.data_is_raw => data.zero(at, len.min(data.len()?.saturating_sub(at)), true)?,
                How::Discard if self.options.pass_requests() => data.discard(at, len)?,
                _ => {}
            }
        }
        let place = meta.own_entry_place(file, at)?;
        meta.set_entry(file, place, new)?;
        if new.host(g) != old.host(g) || old.compressed() {
            let reason = if how == How::Discard { Reason::Request } else { Reason::Other };
            meta.retire(old, reason);
        }
        Ok(true)
    }

    /// The entry of a cluster that reads as zeros from now on.
    fn zeroed(&self, g: Geometry, old: Entry, how: How) -> Entry {
        let has_place = old.host(g).is_some() && !old.compressed();
        let keep = match how {
            How::Zero { may_unmap } => has_place && (!may_unmap || self.options.discard_no_unref),
            How::Discard => has_place && self.options.discard_no_unref,
        };
        if g.version < 3 {
            return Entry::default();
        }
        let word = if keep { old.word & !ZERO } else { 0 };
        let nothing = word == 0 && self.backing.is_none() && !self.data_is_raw;
        let was_nothing = !has_place && !old.compressed() && old.kind(g, 0) == Kind::Unallocated && old.bitmap == 0;
        // A discard of what was never written leaves it so; what was written is marked, as QEMU does.
        if nothing && how == How::Discard && was_nothing {
            return Entry { word, bitmap: 0 };
        }
        if g.extended { Entry { word, bitmap: ALL_ZERO } } else { Entry { word: word | ZERO, bitmap: 0 } }
    }
}

/// The entry with some subclusters zero; the cluster keeps its place.
fn with_zero_subclusters(g: Geometry, old: Entry, at: u64, end: u64) -> Entry {
    let unit = g.unit();
    let (from, to) = (g.in_cluster(at) / unit, (g.in_cluster(end - 1)) / unit);
    let bits = u64::MAX >> (63 - (to - from)) << from;
    Entry { word: old.word, bitmap: old.bitmap & !bits | bits << 32 }
}
