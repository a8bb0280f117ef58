//! Reading: from guest offsets to runs of the file, and their content.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Image;
use super::compress;
use super::entry::{Entry, Kind};
use super::header::incompatible;
use super::meta::Meta;
use super::overlap::Section;
use crate::block::error::OpenError;
use crate::block::image::Repair;
use crate::block::lock;
use crate::block::node::IoResult;

/// What a run of guest bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Run {
    Unallocated,
    /// Zeros, and where they would be.
    Zero(Option<u64>),
    Host(u64),
    Compressed(Entry),
}

impl Run {
    /// What it is `by` bytes further on.
    fn after(self, by: u64) -> Self {
        match self {
            Self::Host(host) => Self::Host(host + by),
            Self::Zero(host) => Self::Zero(host.map(|host| host + by)),
            other => other,
        }
    }
}

/// Bytes of unpacked clusters that are kept.
const UNPACKED_BYTES: usize = 4 << 20;

/// The clusters that were unpacked last, by their L2 words.
#[derive(Default)]
pub(super) struct Unpacked {
    clusters: VecDeque<(u64, Arc<Vec<u8>>)>,
}

impl Unpacked {
    fn get(&self, word: u64) -> Option<Arc<Vec<u8>>> {
        self.clusters.iter().find(|(known, _)| *known == word).map(|(_, cluster)| Arc::clone(cluster))
    }

    fn put(&mut self, word: u64, cluster: Arc<Vec<u8>>) {
        let most = (UNPACKED_BYTES / cluster.len().max(1)).clamp(2, 64);
        while self.clusters.len() >= most {
            self.clusters.pop_front();
        }
        self.clusters.push_back((word, cluster));
    }

    pub(super) fn clear(&mut self) {
        self.clusters.clear();
    }
}

impl Image {
    pub(super) fn read_data(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let _in_use = self.enter();
        let mut runs = Vec::with_capacity(4);
        {
            let mut meta = lock(&self.meta);
            meta.clean(self.options.clean_interval);
            let mut at = 0;
            while at < buf.len() {
                let (run, len) = self.map(&mut meta, offset + at as u64, (buf.len() - at) as u64)?;
                let len = usize::try_from(len).unwrap_or(0);
                runs.push((run, len));
                at += len;
            }
        }
        let (mut offset, mut rest) = (offset, buf);
        for (run, len) in runs {
            let (head, tail) = rest.split_at_mut(len);
            self.read_run(run, offset, head)?;
            offset += len as u64;
            rest = tail;
        }
        Ok(())
    }

    /// What the bytes at `offset` are and for how many of at most `len` that holds.
    pub(super) fn map(&self, meta: &mut Meta, offset: u64, len: u64) -> IoResult<(Run, u64)> {
        let g = self.geometry();
        let unit = g.unit();
        let table = g.cluster() << g.l2_bits;
        let Some(place) = meta.entry_place(offset)? else {
            return Ok((Run::Unallocated, len.min(table - offset % table)));
        };
        let entry = meta.entry(self.file.as_ref(), place)?;
        let first = self.run_of(meta, entry, offset)?;
        if matches!(first, Run::Compressed(_)) {
            let end = (offset / g.cluster() + 1) * g.cluster();
            return Ok((first, len.min(end - offset)));
        }
        let mut end = (offset / unit + 1) * unit;
        while end - offset < len {
            let Some(place) = meta.entry_place(end)? else { break };
            let expected = |at: u64| first.after(at - offset);
            if g.extended {
                let entry = meta.entry(self.file.as_ref(), place)?;
                if self.peek(entry, end) != Some(expected(end)) {
                    break;
                }
                end += unit;
                continue;
            }
            let in_table = (1 << g.l2_bits) - (end >> g.cluster_bits & ((1 << g.l2_bits) - 1));
            let wanted = (offset + len - end).div_ceil(unit).min(in_table);
            let start = end;
            let mut looked = 0;
            let taken = meta.l2.scan(self.file.as_ref(), place, wanted, |index, word| {
                looked = index + 1;
                let at = start + index * unit;
                self.peek(Entry { word, bitmap: 0 }, at) == Some(expected(at))
            })?;
            end += taken * unit;
            if taken < looked || taken == 0 {
                break;
            }
        }
        Ok((first, len.min(end - offset)))
    }

    /// What the bytes at `offset`, of the cluster that `entry` is for, are.
    fn run_of(&self, meta: &mut Meta, entry: Entry, offset: u64) -> IoResult<Run> {
        match self.peek(entry, offset) {
            Some(run) => Ok(run),
            None => Err(self.unaligned(meta, offset, entry.host(self.geometry()).unwrap_or(0))),
        }
    }

    /// As [`Image::run_of`]; `None` if the entry's offset is none.
    fn peek(&self, entry: Entry, offset: u64) -> Option<Run> {
        let g = self.geometry();
        let inside = g.in_cluster(offset);
        let is_place = |host: u64| host & (g.cluster() - 1) == 0;
        match entry.kind(g, inside / g.unit()) {
            Kind::Unallocated => Some(Run::Unallocated),
            Kind::Zero => Some(Run::Zero(entry.host(g).filter(|host| is_place(*host)).map(|host| host + inside))),
            Kind::Normal(host) if is_place(host) => Some(Run::Host(host + inside)),
            Kind::Normal(_) => None,
            Kind::Compressed => Some(Run::Compressed(entry)),
        }
    }

    pub(super) fn read_run(&self, run: Run, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        match run {
            Run::Zero(_) => buf.fill(0),
            Run::Host(host) => self.read_host(host, offset, buf)?,
            Run::Unallocated => self.read_backing(offset, buf)?,
            Run::Compressed(entry) => {
                let cluster = self.unpack(entry)?;
                let at = usize::try_from(self.fixed.in_cluster(offset)).unwrap_or(0);
                buf.copy_from_slice(&cluster[at..at + buf.len()]);
            }
        }
        Ok(())
    }

    /// Whether a run at a guest offset reads as zeros without looking.
    pub(super) fn is_zero_run(&self, run: Run, offset: u64) -> IoResult<bool> {
        Ok(match (run, &self.backing) {
            (Run::Zero(_), _) | (Run::Unallocated, None) => true,
            (Run::Unallocated, Some(backing)) => backing.len()? <= offset,
            _ => false,
        })
    }

    fn read_backing(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let inside = backing.len()?.saturating_sub(offset).min(buf.len() as u64);
        let (head, tail) = buf.split_at_mut(usize::try_from(inside).unwrap_or(0));
        tail.fill(0);
        if head.is_empty() { Ok(()) } else { backing.read_at(offset, head) }
    }

    fn unpack(&self, entry: Entry) -> IoResult<Arc<Vec<u8>>> {
        if let Some(cluster) = lock(&self.unpacked).get(entry.word) {
            return Ok(cluster);
        }
        let (offset, len) = entry.packed(self.fixed.cluster_bits);
        let mut packed = vec![0; usize::try_from(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?];
        self.file.read_at(offset, &mut packed)?;
        let mut cluster = vec![0; usize::try_from(self.fixed.cluster()).unwrap_or(0)];
        compress::unpack(self.fixed.compression, &packed, &mut cluster)?;
        let cluster = Arc::new(cluster);
        lock(&self.unpacked).put(entry.word, Arc::clone(&cluster));
        Ok(cluster)
    }

    /// Refuses to write over the tables: the reference counts of this image are wrong.
    pub(super) fn check_place(&self, meta: &mut Meta, host: u64, len: u64) -> IoResult<()> {
        if self.data.is_some() || len == 0 {
            return Ok(());
        }
        if !meta.guard.is_known() {
            self.fill_guard(meta)?;
        }
        let bits = self.fixed.cluster_bits;
        match meta.guard.hit(host >> bits..=(host + len - 1) >> bits) {
            None => Ok(()),
            Some(section) => {
                let what = format!("Preventing invalid write on metadata (overlaps with {})", section.name());
                Err(self.mark_corrupt(meta, &what))
            }
        }
    }

    fn fill_guard(&self, meta: &mut Meta) -> IoResult<()> {
        let check = meta.guard.check();
        let bits = self.fixed.cluster_bits;
        let mut ranges: Vec<(Section, u64, u64)> = Vec::new();
        let header = &meta.header;
        let (table, clusters) = meta.refcounts.location();
        ranges.push((Section::Header, 0, 1 << bits));
        ranges.push((Section::ActiveL1, header.l1_offset, u64::from(header.l1_size) * 8));
        ranges.push((Section::RefcountTable, table, u64::from(clusters) << bits));
        ranges.extend(meta.l1.iter().map(|entry| (Section::ActiveL2, entry & super::entry::OFFSET, 1 << bits)));
        ranges.extend(meta.refcounts.table().iter().map(|at| (Section::RefcountBlock, at & !0x1ff, 1 << bits)));
        if header.snapshots > 0 {
            let (snapshots, len) = super::snapshot_table::read_table(self.file.as_ref(), header)?;
            ranges.push((Section::SnapshotTable, header.snapshots_offset, len));
            for snapshot in &snapshots {
                ranges.push((Section::InactiveL1, snapshot.l1_offset, u64::from(snapshot.l1_size) * 8));
                if check.has(Section::InactiveL2) {
                    let l1 = super::meta::read_l1(self.file.as_ref(), snapshot.l1_offset, snapshot.l1_size)?;
                    ranges.extend(l1.iter().map(|at| (Section::InactiveL2, at & super::entry::OFFSET, 1 << bits)));
                }
            }
        }
        if let Some((at, len)) = super::bitmap::directory_place(header) {
            ranges.push((Section::BitmapDirectory, at, len));
        }
        let guarded = ranges
            .into_iter()
            .filter(|(section, at, len)| check.has(*section) && *len > 0 && (*at > 0 || *section == Section::Header))
            .flat_map(|(section, at, len)| {
                (at >> bits..=at.saturating_add(len - 1) >> bits).map(move |c| (c, section))
            });
        meta.guard.fill(guarded);
        Ok(())
    }

    /// What must be put right before the first write: features that we do not keep up, and counts of an image that
    /// was not closed.
    pub(super) fn prepare_for_writing(&self) -> Result<(), OpenError> {
        let len = self.file.len().map_err(OpenError::io("Could not get image size"))?;
        let (dirty, stale) = {
            let mut meta = lock(&self.meta);
            if self.file.info().driver == "file" {
                meta.untouched = len.next_multiple_of(self.fixed.cluster());
            }
            let known = super::header::autoclear::BITMAPS | super::header::autoclear::RAW_DATA;
            (meta.header.incompatible & incompatible::DIRTY != 0, meta.header.autoclear & !known != 0)
        };
        if dirty {
            self.repair_dirty()?;
        }
        if dirty || stale {
            let mut meta = lock(&self.meta);
            meta.header.incompatible &= !incompatible::DIRTY;
            meta.header.autoclear &= super::header::autoclear::BITMAPS | super::header::autoclear::RAW_DATA;
            self.write_features(&meta).map_err(OpenError::io("Could not update qcow2 header"))?;
        }
        self.take_bitmaps().map_err(OpenError::io("Could not update bitmap directory"))
    }

    fn repair_dirty(&self) -> Result<(), OpenError> {
        let failed = || OpenError::Image("Could not repair dirty image: Input/output error".to_owned());
        let report = self.check_tables(Some(Repair::All)).map_err(|_| failed())?;
        for message in &report.messages {
            log::warn!("{message}");
        }
        if report.corruptions > 0 { Err(failed()) } else { Ok(()) }
    }

    /// Stores the feature bits, on stable storage.
    pub(super) fn write_features(&self, meta: &Meta) -> IoResult<()> {
        let mut bits = meta.header.incompatible.to_be_bytes().to_vec();
        bits.extend(meta.header.compatible.to_be_bytes());
        bits.extend(meta.header.autoclear.to_be_bytes());
        self.file.write_at(72, &bits, true)
    }
}
