//! Changes of the disk's length, and storage that is reserved before it is needed.

use std::io;
use std::sync::atomic::Ordering;

use super::Image;
use super::entry::{ALL_ALLOCATED, Entry, OFFSET};
use super::meta::L1_COPIED;
use super::switch::{By, Next};
use crate::block::create::Preallocation;
use crate::block::error::OpenError;
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// QEMU opens no longer L1 tables.
const MAX_L1_ENTRIES: u32 = 4 << 20;

impl Image {
    /// Changes the length of the disk, without storage for what is new.
    pub(super) fn set_size(&self, size: u64) -> Result<(), OpenError> {
        self.resize_to(size, Preallocation::Off)
    }

    pub(super) fn resize_to(&self, size: u64, how: Preallocation) -> Result<(), OpenError> {
        let failed = || OpenError::io("Failed to resize the image");
        let old = self.disk_size();
        let header = self.header();
        if !size.is_multiple_of(512) {
            return Err(OpenError::Invalid("The new size must be a multiple of 512".to_owned()));
        }
        if header.version < 3 && header.snapshots > 0 && size != old {
            return Err(OpenError::Invalid("Can't resize a v2 image which has snapshots".to_owned()));
        }
        if header.l1_entries_needed(size).is_none_or(|entries| entries > MAX_L1_ENTRIES) {
            return Err(OpenError::Io {
                what: "Failed to grow the L1 table".to_owned(),
                error: io::Error::from_raw_os_error(27),
            });
        }
        if size < old {
            if how != Preallocation::Off {
                return Err(OpenError::Invalid("Preallocation can't be used for shrinking an image".to_owned()));
            }
            self.shrink(size).map_err(failed())?;
        } else if size > old {
            self.grow(old, size, how).map_err(failed())?;
        }
        self.resize_bitmaps(size);
        Ok(())
    }

    /// Room in the L1 table first, then zeros where something else would show, then the length.
    fn grow(&self, old: u64, size: u64, how: Preallocation) -> IoResult<()> {
        let g = self.geometry();
        if let Some(data) = self.data.as_ref().filter(|_| self.data_is_raw) {
            data.truncate(size)?;
        }
        self.exclusively(|meta| {
            let needed = meta.header.l1_entries_needed(size).ok_or_else(|| io::Error::from_raw_os_error(27))?;
            if needed > meta.header.l1_size {
                let mut next = Next::of(self, meta)?;
                next.l1.resize(needed as usize, 0);
                next.move_l1()?;
                next.enter(meta)?;
            }
            Ok(())
        })?;
        let cluster_end = old.next_multiple_of(g.cluster());
        let shows = match &self.backing {
            Some(backing) => backing.len()? > old,
            None => false,
        };
        if old < cluster_end {
            self.zero_tail(old, cluster_end)?;
        }
        let later = shows && g.version < 3;
        if shows && !later && cluster_end < size {
            let end = size.min(self.backing_len()?).next_multiple_of(g.cluster());
            self.zero_to(cluster_end, end)?;
        }
        let preallocates = how != Preallocation::Off || self.data_is_raw;
        if preallocates {
            self.reserve(cluster_end, size, how)?;
        }
        self.flush_all()?;
        self.store_size(size)?;
        if later && !preallocates {
            self.zero(cluster_end.min(size), size - cluster_end.min(size), false)?;
            self.flush_all()?;
        }
        Ok(())
    }

    fn backing_len(&self) -> IoResult<u64> {
        self.backing.as_ref().map_or(Ok(0), |backing| backing.len())
    }

    fn store_size(&self, size: u64) -> IoResult<()> {
        self.exclusively(|meta| {
            meta.header.size = size;
            self.file.write_at(24, &size.to_be_bytes(), true)?;
            self.size.store(size, Ordering::Release);
            Ok(())
        })
    }

    fn shrink(&self, size: u64) -> IoResult<()> {
        let freed = self.exclusively(|meta| {
            let g = self.geometry();
            let table_bytes = g.cluster() << g.l2_bits;
            let mut next = Next::of(self, meta)?;
            next.header.size = size;
            let needed = usize::try_from(size.div_ceil(table_bytes)).unwrap_or(usize::MAX);
            if needed < next.l1.len() {
                let gone = next.l1.split_off(needed);
                next.count_tree(&gone, By::MinusOne)?;
            }
            let kept = (size % table_bytes).div_ceil(g.cluster());
            let last = next.l1.last().copied().unwrap_or(0);
            if kept > 0 && last & OFFSET != 0 && size.div_ceil(table_bytes) as usize == next.l1.len() {
                let place = self.cut_table(&mut next, last & OFFSET, kept)?;
                if let Some(entry) = next.l1.last_mut() {
                    *entry = place | L1_COPIED;
                }
            }
            next.move_l1()?;
            next.enter(meta)
        })?;
        if self.file.len()? > freed.end() && self.file.info().driver != "host_device" {
            self.file.truncate(freed.end())?;
            lock(&self.meta).note_end(freed.end());
        }
        for range in freed.ranges().iter().filter(|range| range.end <= freed.end()) {
            if self.options.pass_requests() {
                self.file.discard(range.start, range.end - range.start)?;
            }
        }
        match self.data.as_ref().filter(|_| self.data_is_raw) {
            Some(data) => data.truncate(size),
            None => Ok(()),
        }
    }

    /// A copy of an L2 table with its first `kept` entries.
    fn cut_table(&self, next: &mut Next<'_>, table: u64, kept: u64) -> IoResult<u64> {
        let g = self.geometry();
        let mut bytes = vec![0; usize::try_from(g.cluster()).unwrap_or(0)];
        self.file.read_at(table, &mut bytes)?;
        let start = usize::try_from(kept * g.entry_bytes()).unwrap_or(usize::MAX).min(bytes.len());
        for raw in bytes[start..].chunks_exact(usize::try_from(g.entry_bytes()).unwrap_or(8)) {
            let word = raw[..8].try_into().map_or(0, u64::from_be_bytes);
            next.count_entry(Entry { word, bitmap: 0 }, By::MinusOne)?;
        }
        bytes[start..].fill(0);
        next.replace_table(table, &bytes)
    }

    /// Gives every cluster of a guest range a place, and storage as `how` says.
    pub(super) fn reserve(&self, start: u64, end: u64, how: Preallocation) -> IoResult<()> {
        let g = self.geometry();
        let mut file_end = 0;
        let mut offset = start / g.cluster() * g.cluster();
        while offset < end {
            let is_full = {
                let _in_use = self.enter();
                let mut meta = self.wait_idle(lock(&self.meta), &(offset..offset + 1));
                let (host, len) = self.reserve_some(&mut meta, offset, end)?;
                offset += len;
                if let Some(host) = host {
                    file_end = file_end.max(host + len);
                    if matches!(how, Preallocation::Falloc | Preallocation::Full) {
                        self.data().preallocate(host, len, how)?;
                    }
                }
                meta.is_full()
            };
            if is_full {
                self.flush_all()?;
            }
        }
        if self.data.is_none() && self.file.len()? < file_end {
            self.file.truncate(file_end)?;
        }
        Ok(())
    }

    /// Gives some clusters from `offset` on a place. Returns it, unless the first one had one, and for how many bytes.
    fn reserve_some(&self, meta: &mut super::meta::Meta, offset: u64, end: u64) -> IoResult<(Option<u64>, u64)> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        let place = meta.own_entry_place(file, offset)?;
        let old = meta.entry(file, place)?;
        if old.host(g).is_some() || old.compressed() {
            return Ok((None, g.cluster()));
        }
        let wanted = self.count_foreign(meta, place, offset, end - offset)?;
        let (host, count, _) = self.take_clusters(meta, offset, wanted)?;
        for index in 0..count {
            let at = place + index * g.entry_bytes();
            let old = meta.entry(file, at)?;
            let bitmap = if g.extended { old.bitmap | ALL_ALLOCATED & !(old.bitmap >> 32) } else { 0 };
            let zero = old.word & if g.extended { 0 } else { super::entry::ZERO };
            let entry = Entry::owned((host + (index << g.cluster_bits)) | zero, bitmap);
            meta.set_entry(file, at, entry)?;
            meta.retire(old, super::meta::Reason::Other);
        }
        Ok((Some(host), count << g.cluster_bits))
    }

    /// Gives every cluster of a new image a place.
    ///
    /// # Errors
    /// As for writes.
    pub fn preallocate_all(&self, how: Preallocation) -> IoResult<()> {
        self.reserve(0, self.disk_size(), how)?;
        self.flush_all()
    }
}
