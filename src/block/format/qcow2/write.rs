//! Writing: in place where a cluster is ours alone, else to new clusters with what was around it.
//!
//! The tables are locked while places are looked up and entered, not while data moves. A range that is being given
//! places is in [`Meta::busy`](super::meta::Meta): whoever wants to give it another waits.

use std::io;
use std::ops::Range;
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard};

use super::entry::{ALL_ALLOCATED, Entry, Kind, ZERO};
use super::meta::{Meta, Reason};
use super::{Geometry, Image, Run};
use crate::block::lock;
use crate::block::node::IoResult;

/// The most that one allocation covers, in bytes, so that nothing waits long.
const MAX_ALLOCATION: u64 = 2 << 20;

/// Zeros of this length are made by the host, not copied.
const LONG_ZEROS: u64 = 128 << 10;

/// Clusters that are being filled, not yet known to any table.
struct Job {
    /// Guest bytes of the clusters.
    range: Range<u64>,
    /// Where the first one is.
    host: u64,
    /// They are new; else it is one cluster that had its place.
    is_new: bool,
    /// They read as zeros by themselves.
    untouched: bool,
    /// What goes around the data: guest offset, length, and what it is now.
    around: Vec<(u64, u64, Run)>,
}

/// What to do with the bytes at an offset.
enum Plan {
    InPlace(u64, u64),
    Allocate(Job),
}

impl Image {
    /// For as long as this lives, no host offset that was looked up becomes something else.
    pub(super) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_writable(&self, offset: u64, len: u64) -> IoResult<()> {
        if self.options.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if lock(&self.meta).corrupt {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.bounds(offset, len)
    }

    /// Waits until nothing in `range` is being given a place.
    pub(super) fn wait_idle<'a>(&'a self, mut meta: MutexGuard<'a, Meta>, range: &Range<u64>) -> MutexGuard<'a, Meta> {
        while meta.is_busy(range) {
            meta = self.idle.wait(meta).unwrap_or_else(PoisonError::into_inner);
        }
        meta
    }

    pub(super) fn write_data(&self, mut offset: u64, mut buf: &[u8]) -> IoResult<()> {
        while !buf.is_empty() {
            let (len, is_full) = self.write_some(offset, buf)?;
            offset += len as u64;
            buf = &buf[len..];
            if is_full {
                self.flush_all()?;
            }
        }
        self.release_many()
    }

    /// Gives back what became free, once there is a lot of it.
    pub(super) fn release_many(&self) -> IoResult<()> {
        if lock(&self.meta).retired.len() > 256 { self.flush_all() } else { Ok(()) }
    }

    /// Writes as much as lies in one place. Returns how much, and whether the tables should be written.
    fn write_some(&self, offset: u64, buf: &[u8]) -> IoResult<(usize, bool)> {
        let _in_use = self.enter();
        match self.plan(offset, buf.len() as u64)? {
            Plan::InPlace(host, len) => {
                let len = usize::try_from(len).unwrap_or(0);
                self.write_host(host, offset, &buf[..len])?;
                Ok((len, false))
            }
            Plan::Allocate(job) => {
                let len = usize::try_from(job.range.end - offset).unwrap_or(usize::MAX).min(buf.len());
                let filled = self.fill(&job, offset, &buf[..len]);
                let mut meta = lock(&self.meta);
                let linked = filled.and_then(|()| self.link(&mut meta, &job, offset..offset + len as u64));
                meta.end_busy(&job.range);
                self.idle.notify_all();
                if let Err(error) = linked {
                    if job.is_new && self.data.is_none() {
                        meta.release(self.file.as_ref(), job.host, job.range.end - job.range.start)?;
                    }
                    return Err(error);
                }
                Ok((len, meta.is_full()))
            }
        }
    }

    fn plan(&self, offset: u64, len: u64) -> IoResult<Plan> {
        let g = self.geometry();
        let mut meta = lock(&self.meta);
        meta.clean(self.options.clean_interval);
        loop {
            if let Some((host, len)) = self.map_own(&mut meta, offset, len)? {
                self.check_place(&mut meta, host, len)?;
                return Ok(Plan::InPlace(host, len));
            }
            let cluster = offset & !(g.cluster() - 1);
            if !meta.is_busy(&(cluster..cluster + g.cluster())) {
                break;
            }
            meta = self.idle.wait(meta).unwrap_or_else(PoisonError::into_inner);
        }
        let job = self.allocate(&mut meta, offset, len)?;
        meta.busy.push(job.range.clone());
        Ok(Plan::Allocate(job))
    }

    /// The place for a guest offset if it may be written at once.
    fn own_place(&self, meta: &mut Meta, offset: u64) -> IoResult<Option<u64>> {
        let g = self.geometry();
        if meta.l1_entry(offset) & super::meta::L1_COPIED == 0 {
            return Ok(None);
        }
        let Some(place) = meta.entry_place(offset)? else { return Ok(None) };
        let entry = meta.entry(self.file.as_ref(), place)?;
        if !entry.copied() {
            return Ok(None);
        }
        match entry.kind(g, g.in_cluster(offset) / g.unit()) {
            Kind::Normal(host) if host & (g.cluster() - 1) != 0 => Err(self.unaligned(meta, offset, host)),
            Kind::Normal(host) => Ok(Some(host + g.in_cluster(offset))),
            _ => Ok(None),
        }
    }

    /// Where the bytes at `offset` may be written in place, and how many of them.
    fn map_own(&self, meta: &mut Meta, offset: u64, len: u64) -> IoResult<Option<(u64, u64)>> {
        let unit = self.geometry().unit();
        let Some(host) = self.own_place(meta, offset)? else { return Ok(None) };
        let mut end = (offset / unit + 1) * unit;
        while end - offset < len && self.own_place(meta, end)? == Some(host + (end - offset)) {
            end += unit;
        }
        Ok(Some((host, len.min(end - offset))))
    }

    /// Chooses places for clusters that are not ours yet, from the one at `offset` on.
    fn allocate(&self, meta: &mut Meta, offset: u64, len: u64) -> IoResult<Job> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        let start = offset & !(g.cluster() - 1);
        let place = meta.own_entry_place(file, offset)?;
        let entry = meta.entry(file, place)?;
        let own = entry.host(g).filter(|_| entry.copied());
        let (host, count, untouched) = match own {
            Some(host) if host & (g.cluster() - 1) != 0 => return Err(self.unaligned(meta, offset, host)),
            Some(host) => (host, 1, false),
            None => {
                let wanted = self.count_foreign(meta, place, offset, len)?;
                self.take_clusters(meta, start, wanted)?
            }
        };
        let range = start..start + (count << g.cluster_bits);
        let mut job = Job { host, is_new: own.is_none(), untouched, around: Vec::new(), range };
        let written = offset..(offset + len).min(job.range.end);
        let prepared =
            self.check_place(meta, host, count << g.cluster_bits).and_then(|()| self.around(meta, &job, &written));
        match prepared {
            Ok(around) => {
                job.around = around;
                Ok(job)
            }
            Err(error) => {
                if job.is_new && self.data.is_none() {
                    meta.release(file, host, count << g.cluster_bits)?;
                }
                Err(error)
            }
        }
    }

    /// Up to `wanted` new clusters for the guest's from `start` on: where, how many, and whether they read as zeros.
    /// In an external data file every cluster has the guest's own offset.
    pub(super) fn take_clusters(&self, meta: &mut Meta, start: u64, wanted: u64) -> IoResult<(u64, u64, bool)> {
        if self.data.is_some() {
            return Ok((start, wanted, false));
        }
        let g = self.geometry();
        let (first, count) = meta.refcounts.allocate(self.file.as_ref(), wanted)?;
        let (host, len) = (first << g.cluster_bits, count << g.cluster_bits);
        if host == 0 {
            return Err(self.mark_corrupt(meta, "Preventing invalid allocation of data cluster at offset 0"));
        }
        let untouched = meta.touch(host, len) && self.crypt.is_none();
        Ok((host, count, untouched))
    }

    /// The clusters, from the one at `place` on, that the write touches and that have no place of their own; within
    /// one table and the limit for one allocation.
    pub(super) fn count_foreign(&self, meta: &mut Meta, place: u64, offset: u64, len: u64) -> IoResult<u64> {
        let g = self.geometry();
        let touched = (g.in_cluster(offset) + len).div_ceil(g.cluster());
        let in_table = (1 << g.l2_bits) - (offset >> g.cluster_bits & ((1 << g.l2_bits) - 1));
        let most = touched.min(in_table).min((MAX_ALLOCATION >> g.cluster_bits).max(1));
        let start = offset & !(g.cluster() - 1);
        let mut count = 1;
        while count < most {
            let at = start + (count << g.cluster_bits);
            let entry = meta.entry(self.file.as_ref(), place + count * g.entry_bytes())?;
            if entry.copied() || meta.is_busy(&(at..at + g.cluster())) {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// What must be copied around `written` so that the clusters of a job hold what the guest sees.
    fn around(&self, meta: &mut Meta, job: &Job, written: &Range<u64>) -> IoResult<Vec<(u64, u64, Run)>> {
        let g = self.geometry();
        let mut around = Vec::new();
        let first = job.range.start;
        let last = job.range.end - g.cluster();
        for cluster in if first == last { vec![first] } else { vec![first, last] } {
            let entry = meta.entry_at(self.file.as_ref(), cluster)?;
            for sub in 0..g.cluster() / g.unit() {
                let unit = cluster + sub * g.unit()..cluster + (sub + 1) * g.unit();
                if !needs_content(g, entry, sub, job.is_new, &unit, written) {
                    continue;
                }
                let before = unit.start..unit.end.min(written.start);
                let after = unit.start.max(written.end)..unit.end;
                for part in [before, after] {
                    self.add_runs(meta, part, &mut around)?;
                }
            }
        }
        Ok(around)
    }

    fn add_runs(&self, meta: &mut Meta, part: Range<u64>, into: &mut Vec<(u64, u64, Run)>) -> IoResult<()> {
        let mut at = part.start;
        while at < part.end {
            let (run, len) = self.map(meta, at, part.end - at)?;
            into.push((at, len, run));
            at += len;
        }
        Ok(())
    }

    /// Writes the data of a job and what goes around it.
    fn fill(&self, job: &Job, offset: u64, buf: &[u8]) -> IoResult<()> {
        let host = |guest: u64| job.host + (guest - job.range.start);
        let mut gathered: Option<(u64, Vec<u8>)> = None;
        let mut is_written = false;
        for (at, len, run) in &job.around {
            if *at > offset && !is_written {
                self.gather(&mut gathered, offset, buf, host)?;
                is_written = true;
            }
            let is_zero = self.is_zero_run(*run, *at)?;
            if is_zero && (job.untouched || *len >= LONG_ZEROS && self.crypt.is_none()) {
                if !job.untouched {
                    self.data().zero(host(*at), *len, false)?;
                }
                continue;
            }
            let mut content = vec![0; usize::try_from(*len).unwrap_or(0)];
            self.read_run(*run, *at, &mut content)?;
            self.gather(&mut gathered, *at, &content, host)?;
        }
        if !is_written {
            if gathered.is_none() {
                return self.write_host(host(offset), offset, buf);
            }
            self.gather(&mut gathered, offset, buf, host)?;
        }
        match gathered {
            Some((at, content)) => self.write_host(host(at), at, &content),
            None => Ok(()),
        }
    }

    /// Adds bytes to what will be written at once; what does not follow on is written before.
    fn gather(
        &self,
        gathered: &mut Option<(u64, Vec<u8>)>,
        at: u64,
        bytes: &[u8],
        host: impl Fn(u64) -> u64,
    ) -> IoResult<()> {
        if let Some((start, content)) = gathered {
            if *start + content.len() as u64 == at {
                content.extend_from_slice(bytes);
                return Ok(());
            }
            self.write_host(host(*start), *start, content)?;
        }
        *gathered = Some((at, bytes.to_vec()));
        Ok(())
    }

    /// Enters the clusters of a job in the tables.
    fn link(&self, meta: &mut Meta, job: &Job, written: Range<u64>) -> IoResult<()> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        // With all entries at hand nothing can fail in the middle.
        let mut entries = Vec::new();
        let mut cluster = job.range.start;
        while cluster < job.range.end {
            let place = meta.own_entry_place(file, cluster)?;
            let old = meta.entry(file, place)?;
            let host = job.host + (cluster - job.range.start);
            entries.push((place, old, linked_entry(g, old, host, job.is_new, cluster, &written)));
            cluster += g.cluster();
        }
        for (place, old, new) in entries {
            meta.set_entry(file, place, new)?;
            if job.is_new {
                meta.retire(old, Reason::Other);
            }
        }
        Ok(())
    }
}

/// Whether a unit of a cluster that is written to, in part or at all, must hold what it reads as now.
fn needs_content(g: Geometry, old: Entry, sub: u64, is_new: bool, unit: &Range<u64>, written: &Range<u64>) -> bool {
    let is_touched = unit.start < written.end && written.start < unit.end;
    match old.kind(g, sub) {
        Kind::Normal(_) => is_new,
        Kind::Compressed => true,
        Kind::Unallocated | Kind::Zero => is_touched,
    }
}

/// The entry of a cluster after a write to some of it.
fn linked_entry(g: Geometry, old: Entry, host: u64, is_new: bool, cluster: u64, written: &Range<u64>) -> Entry {
    if !g.extended {
        let word = if is_new { host } else { old.word & !ZERO };
        return Entry::owned(word, 0);
    }
    let (from, to) = (written.start.max(cluster), written.end.min(cluster + g.cluster()));
    let (first, last) = ((from - cluster) / g.unit(), (to - 1 - cluster) / g.unit());
    let touched = u64::MAX >> (63 - (last - first)) << first;
    if old.compressed() {
        return Entry::owned(host, ALL_ALLOCATED);
    }
    let data = old.data_bits(g) | touched;
    Entry::owned(host, data | old.bitmap & !(touched << 32) & !ALL_ALLOCATED)
}
