//! Writing: allocation, copy-on-write, zeroing, discarding, resizing and flushing.

use std::io;
use std::sync::{PoisonError, RwLockReadGuard};

use super::compress;
use super::entry::{ALL_ZERO, Entry, Kind, ZERO};
use super::meta::{L1_COPIED, Meta};
use super::{Geometry, Image, Run};
use crate::block::lock;
use crate::block::node::IoResult;

/// The most that one allocation covers, in bytes, so that nothing waits long for the tables.
const MAX_ALLOCATION: u64 = 1 << 20;

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

    pub(super) fn write_data(&self, mut offset: u64, mut buf: &[u8]) -> IoResult<()> {
        while !buf.is_empty() {
            let len = self.write_some(offset, buf)?;
            offset += len as u64;
            buf = &buf[len..];
        }
        self.settle()
    }

    /// Writes as much as lies in one place, in place if it is ours already.
    fn write_some(&self, offset: u64, buf: &[u8]) -> IoResult<usize> {
        let _in_use = self.enter();
        let mut meta = lock(&self.meta);
        if let Some((host, len)) = self.map_own(&mut meta, offset, buf.len() as u64)? {
            drop(meta);
            let len = usize::try_from(len).unwrap_or(0);
            self.file.write_at(host, &buf[..len], false)?;
            return Ok(len);
        }
        let len = self.write_allocating(&mut meta, offset, buf)?;
        if meta.is_full() {
            meta.commit_and_flush(self.file.as_ref())?;
        }
        Ok(len)
    }

    /// Gives back what became free, once there is a lot of it.
    fn settle(&self) -> IoResult<()> {
        if lock(&self.meta).free.len() > 256 { self.release_free() } else { Ok(()) }
    }

    fn release_free(&self) -> IoResult<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        *lock(&self.unpacked) = None;
        lock(&self.meta).release_free(self.file.as_ref(), self.options.unmap)
    }

    pub(super) fn flush_all(&self) -> IoResult<()> {
        let mut settled = lock(&self.meta).commit(self.file.as_ref())?;
        self.file.flush()?;
        let free = {
            let mut meta = lock(&self.meta);
            meta.free.append(&mut settled);
            !meta.free.is_empty()
        };
        if free { self.release_free() } else { Ok(()) }
    }

    /// The entry for a guest offset if it may be written in place.
    fn own_entry(&self, meta: &mut Meta, offset: u64) -> IoResult<Option<u64>> {
        let g = self.geometry;
        let table = usize::try_from(offset >> (g.cluster_bits + g.l2_bits)).unwrap_or(usize::MAX);
        if meta.l1.get(table).is_none_or(|entry| entry & L1_COPIED == 0) {
            return Ok(None);
        }
        let Some(place) = meta.entry_place(offset)? else { return Ok(None) };
        let entry = meta.entry(self.file.as_ref(), place)?;
        if !entry.copied() {
            return Ok(None);
        }
        match entry.kind(g.extended, g.version, g.in_cluster(offset) / g.unit()) {
            Kind::Normal(host) if host & (g.cluster() - 1) != 0 => {
                let what = format!("Cluster allocation offset {host:#x} unaligned (L2 offset: {place:#x})");
                Err(self.mark_corrupt(meta, &what))
            }
            Kind::Normal(host) => Ok(Some(host + g.in_cluster(offset))),
            _ => Ok(None),
        }
    }

    /// Where the bytes at `offset` may be written in place, and how many of them.
    fn map_own(&self, meta: &mut Meta, offset: u64, len: u64) -> IoResult<Option<(u64, u64)>> {
        let unit = self.geometry.unit();
        let Some(host) = self.own_entry(meta, offset)? else { return Ok(None) };
        let mut end = (offset / unit + 1) * unit;
        while end - offset < len && self.own_entry(meta, end)? == Some(host + (end - offset)) {
            end += unit;
        }
        Ok(Some((host, len.min(end - offset))))
    }

    /// Writes to clusters that are not ours yet. Returns how many bytes of `buf` it did.
    fn write_allocating(&self, meta: &mut Meta, offset: u64, buf: &[u8]) -> IoResult<usize> {
        let (g, file) = (self.geometry, self.file.as_ref());
        let place = meta.own_entry_place(file, offset)?;
        let entry = meta.entry(file, place)?;
        if let (Some(host), true) = (entry.host(), entry.copied()) {
            return self.write_reusing(meta, offset, buf, place, entry, host);
        }
        let clusters = self.count_foreign(meta, place, offset, buf.len() as u64)?;
        let (first, count) = meta.refcounts.allocate(file, clusters)?;
        let (host, bytes) = (first << g.cluster_bits, count << g.cluster_bits);
        let room = bytes - g.in_cluster(offset);
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(buf.len());
        if let Err(error) = self
            .check_place(meta, host, bytes)
            .and_then(|()| self.fill_clusters(meta, offset, &buf[..len], host, bytes))
        {
            // No table refers to them.
            meta.refcounts.release(file, host, bytes)?;
            return Err(error);
        }
        for index in 0..count {
            let at = place + index * g.entry_bytes();
            let old = meta.entry(file, at)?;
            meta.set_entry(file, at, Entry::owned(host + (index << g.cluster_bits), g.extended))?;
            meta.retire(old);
        }
        Ok(len)
    }

    /// The clusters, from the one at `place` on, that the write touches and that have no place of their own; within
    /// one slice of the table and the limit for one allocation.
    fn count_foreign(&self, meta: &mut Meta, place: u64, offset: u64, len: u64) -> IoResult<u64> {
        let g = self.geometry;
        let touched = (g.in_cluster(offset) + len).div_ceil(g.cluster());
        let in_table = (1 << g.l2_bits) - (offset >> g.cluster_bits & ((1 << g.l2_bits) - 1));
        let most = touched.min(in_table).min((MAX_ALLOCATION >> g.cluster_bits).max(1));
        let mut count = 1;
        while count < most {
            let entry = meta.entry(self.file.as_ref(), place + count * g.entry_bytes())?;
            if entry.copied() {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Refuses to overwrite the tables in use: the reference counts of this image are wrong.
    fn check_place(&self, meta: &mut Meta, host: u64, bytes: u64) -> IoResult<()> {
        let header = &meta.header;
        let (refcounts, refcount_clusters) = meta.refcounts.location();
        let tables = [
            ("qcow2_header", 0, self.geometry.cluster()),
            ("active L1 table", header.l1_offset, u64::from(header.l1_size) * 8),
            ("refcount table", refcounts, u64::from(refcount_clusters) << header.cluster_bits),
        ];
        let hit = tables.iter().find(|(_, at, len)| host < at + len && *at < host + bytes);
        match hit {
            None => Ok(()),
            Some((name, _, _)) => {
                let what = format!("Preventing invalid write on metadata (overlaps with {name})");
                Err(self.mark_corrupt(meta, &what))
            }
        }
    }

    /// Writes `buf` for guest `offset` into fresh clusters at `host`, with what the guest sees around it.
    fn fill_clusters(&self, meta: &mut Meta, offset: u64, buf: &[u8], host: u64, bytes: u64) -> IoResult<()> {
        let skip = self.geometry.in_cluster(offset);
        if skip == 0 && buf.len() as u64 == bytes {
            return self.file.write_at(host, buf, false);
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?];
        let skip = usize::try_from(skip).unwrap_or(0);
        let end = skip + buf.len();
        self.read_locked(meta, offset - skip as u64, &mut content[..skip])?;
        self.read_locked(meta, offset + buf.len() as u64, &mut content[end..])?;
        content[skip..end].copy_from_slice(buf);
        self.file.write_at(host, &content, false)
    }

    /// What the guest sees, read while the tables are locked; it may go past the end of the disk in its last cluster.
    fn read_locked(&self, meta: &mut Meta, mut offset: u64, mut buf: &mut [u8]) -> IoResult<()> {
        while !buf.is_empty() {
            let (run, len) = self.map(meta, offset, buf.len() as u64)?;
            let (head, rest) = buf.split_at_mut(usize::try_from(len).unwrap_or(0));
            self.read_run(run, offset, head)?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }

    /// Writes into a cluster that has a place of its own but reads as something else: a zero cluster that kept its
    /// place, or subclusters without data.
    fn write_reusing(
        &self,
        meta: &mut Meta,
        offset: u64,
        buf: &[u8],
        place: u64,
        mut entry: Entry,
        host: u64,
    ) -> IoResult<usize> {
        let g = self.geometry;
        let unit = g.unit();
        let cluster_end = (offset / g.cluster() + 1) * g.cluster();
        let len = buf.len().min(usize::try_from(cluster_end - offset).unwrap_or(usize::MAX));
        let end = offset + len as u64;
        // Only (sub)clusters without data get some: others may be being written right now.
        let has_data = |at: u64| matches!(entry.kind(g.extended, g.version, g.in_cluster(at) / unit), Kind::Normal(_));
        let start_fill = if has_data(offset) { offset } else { offset / unit * unit };
        let end_fill = if has_data(end - 1) { end } else { end.next_multiple_of(unit) };
        let mut content = vec![0; usize::try_from(end_fill - start_fill).unwrap_or(0)];
        let (head, tail) =
            (usize::try_from(offset - start_fill).unwrap_or(0), usize::try_from(end - start_fill).unwrap_or(0));
        self.read_locked(meta, start_fill, &mut content[..head])?;
        self.read_locked(meta, end, &mut content[tail..])?;
        content[head..tail].copy_from_slice(&buf[..len]);
        self.file.write_at(host + g.in_cluster(start_fill), &content, false)?;
        if g.extended {
            for sub in g.in_cluster(offset) / unit..=g.in_cluster(end - 1) / unit {
                entry.bitmap = (entry.bitmap | 1 << sub) & !(1 << (sub + 32));
            }
        } else {
            entry.word &= !ZERO;
        }
        meta.set_entry(self.file.as_ref(), place, entry)?;
        Ok(len)
    }

    /// Splits a range into the parts of clusters at its ends (done by `partial`) and whole clusters (by `whole`).
    fn split(
        &self,
        offset: u64,
        len: u64,
        mut partial: impl FnMut(u64, u64) -> IoResult<()>,
        mut whole: impl FnMut(u64) -> IoResult<()>,
    ) -> IoResult<()> {
        let g = self.geometry;
        let size = lock(&self.meta).header.size;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let cluster_end = (at / g.cluster() + 1) * g.cluster();
            // The last cluster is whole if all of it that the guest sees is meant.
            if g.in_cluster(at) == 0 && (cluster_end <= end || end == size) {
                whole(at)?;
            } else {
                partial(at, cluster_end.min(end) - at)?;
            }
            at = cluster_end;
        }
        self.settle()
    }

    pub(super) fn zero_range(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let partial = |at: u64, len: u64| self.zero_part(at, len);
        self.split(offset, len, partial, |at| self.zero_cluster(at, may_unmap))
    }

    fn zero_part(&self, offset: u64, len: u64) -> IoResult<()> {
        let (run, same) = {
            let _in_use = self.enter();
            self.map(&mut lock(&self.meta), offset, len)?
        };
        let zero = run == Run::Zero || run == Run::Unallocated && self.backing.is_none();
        if zero && same == len {
            return Ok(());
        }
        self.write_data(offset, &vec![0; usize::try_from(len).unwrap_or(0)])
    }

    /// The entry that makes a whole cluster read as zeros, if there is one.
    fn zero_entry(&self, old: Entry, keep_place: bool) -> Option<Entry> {
        let Geometry { version, extended, .. } = self.geometry;
        let plain = Entry::default();
        let place = if keep_place && !old.compressed() && old.copied() { old.word & !ZERO } else { 0 };
        if place == 0 && self.backing.is_none() {
            return Some(plain);
        }
        match (version, extended) {
            (2, _) => None,
            (_, true) => Some(Entry { word: place, bitmap: ALL_ZERO }),
            (_, false) => Some(Entry { word: place | ZERO, bitmap: 0 }),
        }
    }

    fn zero_cluster(&self, offset: u64, may_unmap: bool) -> IoResult<()> {
        let g = self.geometry;
        let in_use = self.enter();
        let mut meta = lock(&self.meta);
        let file = self.file.as_ref();
        let old = match meta.entry_place(offset)? {
            Some(place) => meta.entry(file, place)?,
            None if self.backing.is_none() => return Ok(()),
            None => Entry::default(),
        };
        let Some(new) = self.zero_entry(old, !may_unmap) else {
            drop(meta);
            drop(in_use);
            let len = g.cluster().min(lock(&self.meta).header.size - offset);
            return self.write_data(offset, &vec![0; usize::try_from(len).unwrap_or(0)]);
        };
        self.replace(&mut meta, offset, old, new)
    }

    /// Puts `new` in the place of `old`, whose cluster is given up unless `new` has it.
    fn replace(&self, meta: &mut Meta, offset: u64, old: Entry, new: Entry) -> IoResult<()> {
        if old == new {
            return Ok(());
        }
        let file = self.file.as_ref();
        let place = meta.own_entry_place(file, offset)?;
        meta.set_entry(file, place, new)?;
        if new.host() != old.host() || old.compressed() {
            meta.retire(old);
        }
        if meta.is_full() { meta.commit_and_flush(file) } else { Ok(()) }
    }

    /// Whole clusters only: a discard is a hint.
    pub(super) fn discard_range(&self, offset: u64, len: u64) -> IoResult<()> {
        self.split(
            offset,
            len,
            |_, _| Ok(()),
            |at| {
                let _in_use = self.enter();
                let mut meta = lock(&self.meta);
                let old = match meta.entry_place(at)? {
                    Some(place) => meta.entry(self.file.as_ref(), place)?,
                    None => Entry::default(),
                };
                match self.zero_entry(old, false) {
                    Some(new) => self.replace(&mut meta, at, old, new),
                    None => Ok(()),
                }
            },
        )
    }

    /// Stores one whole cluster (the last one may be short) packed, if that makes it smaller. For images that are
    /// being made; the cluster must be unallocated.
    ///
    /// # Errors
    /// As for writes; `InvalidInput` if it is not one whole cluster.
    pub fn write_packed(&self, offset: u64, buf: &[u8]) -> IoResult<()> {
        self.check_writable(offset, buf.len() as u64)?;
        let g = self.geometry;
        let whole = buf.len() as u64 == g.cluster() || offset + buf.len() as u64 == self.header().size;
        if g.in_cluster(offset) != 0 || buf.len() as u64 > g.cluster() || !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut cluster = buf.to_vec();
        cluster.resize(usize::try_from(g.cluster()).unwrap_or(0), 0);
        let Some(packed) = compress::pack(g.compression, &cluster)? else {
            return self.write_data(offset, buf);
        };
        let _in_use = self.enter();
        let mut meta = lock(&self.meta);
        let file = self.file.as_ref();
        let place = meta.own_entry_place(file, offset)?;
        let old = meta.entry(file, place)?;
        let at = self.place_packed(&mut meta, packed.len() as u64)?;
        let Some(new) = Entry::for_packed(g.cluster_bits, at, packed.len() as u64) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        file.write_at(at, &packed, false)?;
        meta.packed_end = at + packed.len() as u64;
        meta.set_entry(file, place, new)?;
        meta.retire(old);
        if meta.is_full() { meta.commit_and_flush(file) } else { Ok(()) }
    }

    /// A place for packed bytes: behind the last ones if there is room (and a count left) in that cluster, and it or
    /// its end in the next cluster, if that follows; else a new cluster.
    fn place_packed(&self, meta: &mut Meta, len: u64) -> IoResult<u64> {
        let (g, file) = (self.geometry, self.file.as_ref());
        let room = meta.packed_end.next_multiple_of(g.cluster()) - meta.packed_end;
        let last = meta.packed_end >> g.cluster_bits;
        if room >= len && meta.refcounts.get(file, last)? < meta.refcounts.max() {
            meta.refcounts.increment(file, last)?;
            return Ok(meta.packed_end);
        }
        let (first, _) = meta.refcounts.allocate(file, 1)?;
        if room > 0 && first == last + 1 && meta.refcounts.get(file, last)? < meta.refcounts.max() {
            meta.refcounts.increment(file, last)?;
            return Ok(meta.packed_end);
        }
        Ok(first << g.cluster_bits)
    }

    /// Gives every cluster of a new image a place; `reserve` gives storage to ranges of the file.
    ///
    /// # Errors
    /// As for writes.
    pub fn preallocate(&self, reserve: &mut dyn FnMut(u64, u64) -> IoResult<()>) -> IoResult<()> {
        let g = self.geometry;
        let mut end_of_file = 0;
        let mut offset = 0;
        let size = self.header().size;
        while offset < size {
            let _in_use = self.enter();
            let mut meta = lock(&self.meta);
            let file = self.file.as_ref();
            let place = meta.own_entry_place(file, offset)?;
            let wanted = self.count_foreign(&mut meta, place, offset, size - offset)?;
            let (first, count) = meta.refcounts.allocate(file, wanted)?;
            let (host, bytes) = (first << g.cluster_bits, count << g.cluster_bits);
            for index in 0..count {
                let entry = Entry::owned(host + (index << g.cluster_bits), g.extended);
                meta.set_entry(file, place + index * g.entry_bytes(), entry)?;
            }
            reserve(host, bytes)?;
            end_of_file = end_of_file.max(host + bytes);
            offset += bytes;
            if meta.is_full() {
                meta.commit_and_flush(file)?;
            }
        }
        if self.file.len()? < end_of_file {
            self.file.truncate(end_of_file)?;
        }
        Ok(())
    }

    /// Changes the length of the disk: a longer L1 table if it must be, then the header in one write.
    pub(super) fn resize(&self, size: u64) -> IoResult<()> {
        let size = size.checked_next_multiple_of(512).ok_or(io::ErrorKind::InvalidInput)?;
        let old = self.header().size;
        if size < old {
            let start = size.next_multiple_of(self.geometry.cluster()).min(old);
            self.discard_range(start, old - start)?;
            self.flush_all()?;
        }
        let _in_use = self.enter();
        let mut meta = lock(&self.meta);
        let file = self.file.as_ref();
        let needed = meta.header.l1_entries_needed(size).filter(|entries| *entries <= 4 << 20);
        let needed = needed.ok_or_else(|| io::Error::from_raw_os_error(27))?; // EFBIG
        if needed > meta.header.l1_size {
            let bytes = u64::from(needed) * 8;
            let clusters = bytes.div_ceil(self.geometry.cluster());
            let offset = meta.refcounts.allocate_exactly(file, clusters)? << self.geometry.cluster_bits;
            meta.l1.resize(needed as usize, 0);
            let mut table: Vec<u8> = meta.l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            table.resize(usize::try_from(clusters << self.geometry.cluster_bits).unwrap_or(0), 0);
            meta.commit_and_flush(file)?;
            file.write_at(offset, &table, true)?;
            let old_len = u64::from(meta.header.l1_size) * 8;
            let old_table = (meta.header.l1_offset, old_len.max(1));
            (meta.header.l1_offset, meta.header.l1_size) = (offset, needed);
            meta.header.size = size;
            self.write_size(&meta)?;
            if old_len > 0 {
                meta.free.push(old_table);
            }
        } else {
            meta.header.size = size;
            self.write_size(&meta)?;
        }
        Ok(())
    }

    /// Size, encryption method, L1 size and offset are next to each other: one write.
    fn write_size(&self, meta: &Meta) -> IoResult<()> {
        let mut field = meta.header.size.to_be_bytes().to_vec();
        field.extend(meta.header.crypt_method.to_be_bytes());
        field.extend(meta.header.l1_size.to_be_bytes());
        field.extend(meta.header.l1_offset.to_be_bytes());
        self.file.write_at(24, &field, true)
    }
}
