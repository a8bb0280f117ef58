//! Writing compressed clusters (qcow2.rst, "Compressed Clusters Descriptor"). Packing and writing happen with the
//! tables unlocked: several threads do it at once.

use std::io;

use super::Image;
use super::compress;
use super::entry::Entry;
use super::meta::{Meta, Reason};
use crate::block::image::Packed;
use crate::block::lock;
use crate::block::node::IoResult;

impl Image {
    /// Stores one whole cluster (the last one may be short) packed, if that makes it smaller.
    ///
    /// # Errors
    /// As for writes; `InvalidInput` if it is not one whole cluster; ENOTSUP with encryption or an external data file.
    pub fn write_compressed_cluster(&self, offset: u64, buf: &[u8]) -> IoResult<()> {
        self.write_packed_cluster(offset, buf, &self.pack_cluster(buf)?)
    }

    /// Packs a cluster, or the short one at the end of the disk, if that makes it smaller.
    pub(super) fn pack_cluster(&self, buf: &[u8]) -> IoResult<Packed> {
        let g = self.geometry();
        if buf.len() as u64 > g.cluster() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let padded;
        let cluster = if buf.len() as u64 == g.cluster() {
            buf
        } else {
            let mut copy = buf.to_vec();
            copy.resize(usize::try_from(g.cluster()).unwrap_or(0), 0);
            padded = copy;
            &padded
        };
        Ok(compress::pack(g.compression, cluster)?.map_or(Packed::Plain, Packed::Bytes))
    }

    /// Stores a whole cluster that is packed already.
    pub(super) fn write_packed_cluster(&self, offset: u64, buf: &[u8], packed: &Packed) -> IoResult<()> {
        self.check_writable(offset, buf.len() as u64)?;
        let g = self.geometry();
        let whole = buf.len() as u64 == g.cluster() || offset + buf.len() as u64 == self.disk_size();
        if g.in_cluster(offset) != 0 || buf.len() as u64 > g.cluster() || !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.data.is_some() || self.crypt.is_some() {
            return Err(io::Error::from_raw_os_error(95)); // ENOTSUP
        }
        self.note_write(offset, buf.len() as u64);
        match packed {
            Packed::Bytes(packed) => self.place_and_write(offset, packed)?,
            Packed::Plain => return self.write_data(offset, buf),
        }
        if lock(&self.meta).is_full() { self.flush_all() } else { Ok(()) }
    }

    fn place_and_write(&self, offset: u64, packed: &[u8]) -> IoResult<()> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        let range = offset..offset + g.cluster();
        let _in_use = self.enter();
        let (at, entry) = {
            let mut meta = self.wait_idle(lock(&self.meta), &range);
            let at = self.place_packed(&mut meta, packed.len() as u64)?;
            let Some(entry) = Entry::for_packed(g.cluster_bits, at, packed.len() as u64) else {
                meta.release(file, at, packed.len() as u64)?;
                return Err(io::Error::from_raw_os_error(27)); // EFBIG
            };
            self.check_place(&mut meta, at, packed.len() as u64)?;
            meta.packed_end = at + packed.len() as u64;
            meta.busy.push(range.clone());
            (at, entry)
        };
        let written = file.write_at(at, packed, false);
        let mut meta = lock(&self.meta);
        meta.end_busy(&range);
        self.idle.notify_all();
        let linked = written.and_then(|()| {
            let place = meta.own_entry_place(file, offset)?;
            let old = meta.entry(file, place)?;
            meta.set_entry(file, place, entry)?;
            meta.retire(old, Reason::Other);
            Ok(())
        });
        if linked.is_err() {
            meta.release(file, at, packed.len() as u64)?;
        }
        linked
    }

    /// A place for packed bytes: behind the last ones if there is room (and a count left) in that cluster, and it or
    /// its end in the next cluster, if that follows; else a new cluster. Every cluster that it touches is counted.
    fn place_packed(&self, meta: &mut Meta, len: u64) -> IoResult<u64> {
        let (g, file) = (self.geometry(), self.file.as_ref());
        let end = meta.packed_end;
        let room = if end == 0 { 0 } else { end.next_multiple_of(g.cluster()) - end };
        let last = end >> g.cluster_bits;
        let may_share = room > 0 && meta.refcounts.get(file, last)? < meta.refcounts.max();
        if may_share && room >= len {
            meta.refcounts.increment(file, last)?;
            return Ok(end);
        }
        let (first, _) = meta.refcounts.allocate(file, 1)?;
        meta.touch(first << g.cluster_bits, g.cluster());
        if may_share && first == last + 1 {
            meta.refcounts.increment(file, last)?;
            return Ok(end);
        }
        Ok(first << g.cluster_bits)
    }
}
