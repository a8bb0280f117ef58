//! qcow2, versions 2 and 3 (QEMU docs/interop/qcow2.rst, cited as "qcow2.rst").
//!
//! Guests rely on three things: a flush makes all earlier writes last; after a kill or a power cut at any moment the
//! image opens and holds at least what was flushed (clusters may leak, nothing else may be wrong); and other programs
//! read the image. The order of writes in [`Image::commit`] gives the second: content and reference counts first,
//! then what points at them, then the counts that fall. `tests.rs` cuts the log of writes at every place.
//!
//! Locks: `gate` is held shared by everything that uses host offsets it looked up, and exclusively while clusters
//! become free; `meta` guards the tables and is taken after it.
//!
//! Refused by name: encryption, external data files. Persistent bitmaps are marked as inconsistent
//! when the image is opened for writing, as the specification tells programs that do not know them.

mod cache;
mod check;
mod compress;
pub mod create;
mod driver;
mod entry;
pub mod header;
mod meta;
mod refcount;
mod snapshot;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::sync::{Arc, Mutex, RwLock};

use crate::block::error::OpenError;
use crate::block::image::{ImageOps, Repair};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use entry::Kind;
use header::{Compression, Header, incompatible};
use meta::Meta;

pub use driver::Qcow2;

/// Sizes that follow from the header and never change while the image is open.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    version: u32,
    cluster_bits: u32,
    l2_bits: u32,
    extended: bool,
    compression: Compression,
}

impl Geometry {
    fn of(header: &Header) -> Self {
        Self {
            version: header.version,
            cluster_bits: header.cluster_bits,
            l2_bits: header.l2_bits(),
            extended: header.extended_l2(),
            compression: header.compression,
        }
    }

    fn cluster(self) -> u64 {
        1 << self.cluster_bits
    }

    fn in_cluster(self, offset: u64) -> u64 {
        offset & (self.cluster() - 1)
    }

    /// Bytes that one state covers: a cluster, or a subcluster.
    fn unit(self) -> u64 {
        if self.extended { self.cluster() / entry::SUBCLUSTERS } else { self.cluster() }
    }

    fn entry_bytes(self) -> u64 {
        if self.extended { 16 } else { 8 }
    }
}

/// How an image is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// No writes at all.
    pub read_only: bool,
    /// The guest's discards free clusters.
    pub unmap: bool,
    /// Open an image that is marked as damaged, to read or check it.
    pub for_check: bool,
}

/// An open qcow2 image.
pub struct Image {
    file: Arc<dyn BlockNode>,
    backing: Option<Arc<dyn BlockNode>>,
    geometry: Geometry,
    options: OpenOptions,
    gate: RwLock<()>,
    meta: Mutex<Meta>,
    /// The cluster that was unpacked last, by its L2 word.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

/// What a run of guest bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Unallocated,
    Zero,
    Host(u64),
    Compressed(entry::Entry),
}

/// The image contradicts itself.
fn corrupt(text: String) -> io::Error {
    log::warn!("qcow2: {text}");
    io::Error::from_raw_os_error(5) // EIO
}

/// Reads and validates the header of a file.
///
/// # Errors
/// It is not a qcow2 image, or not one that can be opened.
pub fn read_header(file: &dyn BlockNode) -> Result<Header, OpenError> {
    let failed = || OpenError::io("Could not read qcow2 header");
    let len = file.len().map_err(failed())?;
    let mut head = vec![0; usize::try_from(len.min(512)).unwrap_or(512)];
    file.read_at(0, &mut head).map_err(failed())?;
    if let Some(bits) = header::claimed_cluster_bits(&head) {
        let whole = usize::try_from(len.min(1 << bits)).unwrap_or(512);
        if whole > head.len() {
            head.resize(whole, 0);
            file.read_at(0, &mut head).map_err(failed())?;
        }
    }
    Header::parse(&head)
}

impl Image {
    /// Opens an image. `backing` is the node for the header's backing file, if the caller wants one.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn open(
        file: Arc<dyn BlockNode>,
        backing: Option<Arc<dyn BlockNode>>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let header = read_header(file.as_ref())?;
        if header.crypt_method != 0 {
            let method = if header.crypt_method == 1 { "AES-CBC" } else { "LUKS" };
            return Err(OpenError::Unsupported(format!("{method} encryption of qcow2 images")));
        }
        if header.incompatible & incompatible::DATA_FILE != 0 {
            return Err(OpenError::Unsupported("An external data file of a qcow2 image".to_owned()));
        }
        if header.incompatible & incompatible::CORRUPT != 0 && !options.read_only && !options.for_check {
            return Err(OpenError::Image("qcow2: Image is corrupt; cannot be opened read/write".to_owned()));
        }
        let geometry = Geometry::of(&header);
        let meta = Meta::load(file.as_ref(), header, geometry)?;
        let image = Self {
            file,
            backing,
            geometry,
            options,
            gate: RwLock::new(()),
            meta: Mutex::new(meta),
            unpacked: Mutex::new(None),
        };
        if !options.read_only && !options.for_check {
            image.prepare_for_writing()?;
        }
        Ok(image)
    }

    /// What must be put right before the first write: features that we do not keep up, and counts of an image that
    /// was not closed.
    fn prepare_for_writing(&self) -> Result<(), OpenError> {
        let (dirty, stale) = {
            let meta = lock(&self.meta);
            (meta.header.incompatible & incompatible::DIRTY != 0, meta.header.autoclear != 0)
        };
        if dirty {
            let failed = || OpenError::Image("Could not repair dirty image: Input/output error".to_owned());
            let report = self.check_tables(Some(Repair::All)).map_err(|_| failed())?;
            for message in &report.messages {
                log::warn!("{message}");
            }
            if report.corruptions > 0 {
                return Err(failed());
            }
        }
        if dirty || stale {
            let mut meta = lock(&self.meta);
            meta.header.incompatible &= !incompatible::DIRTY;
            meta.header.autoclear = 0;
            self.write_features(&meta).map_err(OpenError::io("Could not update qcow2 header"))?;
        }
        Ok(())
    }

    /// Stores the feature bits, on stable storage.
    fn write_features(&self, meta: &Meta) -> IoResult<()> {
        let mut bits = meta.header.incompatible.to_be_bytes().to_vec();
        bits.extend(meta.header.compatible.to_be_bytes());
        bits.extend(meta.header.autoclear.to_be_bytes());
        self.file.write_at(72, &bits, true)
    }

    /// A copy of the header as it is now.
    #[must_use]
    pub fn header(&self) -> Header {
        lock(&self.meta).header.clone()
    }

    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster()
    }

    fn bounds(&self, offset: u64, len: u64) -> IoResult<()> {
        let size = lock(&self.meta).header.size;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// What the bytes at `offset` are and for how many of at most `len` that holds.
    fn map(&self, meta: &mut Meta, offset: u64, len: u64) -> IoResult<(Run, u64)> {
        let g = self.geometry;
        let unit = g.unit();
        let run_at = |meta: &mut Meta, at: u64| -> IoResult<Option<Run>> {
            let Some(place) = meta.entry_place(at)? else { return Ok(None) };
            let entry = meta.entry(self.file.as_ref(), place)?;
            Ok(Some(match entry.kind(g.extended, g.version, g.in_cluster(at) / unit) {
                Kind::Unallocated => Run::Unallocated,
                Kind::Zero => Run::Zero,
                Kind::Normal(host) if host & (g.cluster() - 1) != 0 => {
                    return Err(self.mark_corrupt(
                        meta,
                        &format!("Cluster allocation offset {host:#x} unaligned (L2 offset: {place:#x})"),
                    ));
                }
                Kind::Normal(host) => Run::Host(host + g.in_cluster(at)),
                Kind::Compressed => Run::Compressed(entry),
            }))
        };
        let Some(first) = run_at(meta, offset)? else {
            let table = g.cluster() << g.l2_bits;
            return Ok((Run::Unallocated, len.min(table - offset % table)));
        };
        let mut end = (offset / unit + 1) * unit;
        if matches!(first, Run::Compressed(_)) {
            end = (offset / g.cluster() + 1) * g.cluster();
            return Ok((first, len.min(end - offset)));
        }
        while end - offset < len {
            let next = run_at(meta, end)?;
            let same = match (first, next) {
                (Run::Host(host), Some(Run::Host(next))) => next == host + (end - offset),
                (Run::Unallocated, Some(Run::Unallocated)) | (Run::Zero, Some(Run::Zero)) => true,
                _ => false,
            };
            if !same {
                break;
            }
            end += unit;
        }
        Ok((first, len.min(end - offset)))
    }

    /// Marks the image so that no one writes to it before it is repaired, and returns the error for the request.
    fn mark_corrupt(&self, meta: &mut Meta, what: &str) -> io::Error {
        if !meta.corrupt {
            meta.corrupt = true;
            log::error!("qcow2: Marking image as corrupt: {what}; further corruption events will be suppressed");
            if !self.options.read_only && self.geometry.version >= 3 {
                meta.header.incompatible |= incompatible::CORRUPT;
                // The request fails in any case, and later ones are refused in memory.
                let _ = self.write_features(meta);
            }
        }
        io::Error::from_raw_os_error(5) // EIO
    }

    fn read_run(&self, run: Run, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        match run {
            Run::Zero => buf.fill(0),
            Run::Host(host) => self.file.read_at(host, buf)?,
            Run::Unallocated => self.read_backing(offset, buf)?,
            Run::Compressed(entry) => {
                let cluster = self.unpack(entry)?;
                let at = usize::try_from(self.geometry.in_cluster(offset)).unwrap_or(0);
                buf.copy_from_slice(&cluster[at..at + buf.len()]);
            }
        }
        Ok(())
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

    fn unpack(&self, entry: entry::Entry) -> IoResult<Arc<Vec<u8>>> {
        if let Some((word, cluster)) = &*lock(&self.unpacked)
            && *word == entry.word
        {
            return Ok(Arc::clone(cluster));
        }
        let (offset, len) = entry.packed(self.geometry.cluster_bits);
        let mut packed = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.file.read_at(offset, &mut packed)?;
        let mut cluster = vec![0; usize::try_from(self.geometry.cluster()).unwrap_or(0)];
        compress::unpack(self.geometry.compression, &packed, &mut cluster)?;
        let cluster = Arc::new(cluster);
        *lock(&self.unpacked) = Some((entry.word, Arc::clone(&cluster)));
        Ok(cluster)
    }
}

impl BlockNode for Image {
    fn len(&self) -> IoResult<u64> {
        Ok(lock(&self.meta).header.size)
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> IoResult<()> {
        self.bounds(offset, buf.len() as u64)?;
        let _in_use = self.enter();
        while !buf.is_empty() {
            let (run, len) = self.map(&mut lock(&self.meta), offset, buf.len() as u64)?;
            let (head, rest) = buf.split_at_mut(usize::try_from(len).unwrap_or(0));
            self.read_run(run, offset, head)?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.check_writable(offset, buf.len() as u64)?;
        self.write_data(offset, buf)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.check_writable(offset, len)?;
        self.zero_range(offset, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.check_writable(offset, len)?;
        if self.options.unmap { self.discard_range(offset, len) } else { Ok(()) }
    }

    fn flush(&self) -> IoResult<()> {
        self.flush_all()
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.bounds(offset, len)?;
        let _in_use = self.enter();
        let (run, len) = self.map(&mut lock(&self.meta), offset, len.max(1))?;
        let extent = match run {
            Run::Unallocated => Extent { zero: self.backing.is_none(), ..Extent::default() },
            Run::Zero => Extent { allocated: true, zero: true, ..Extent::default() },
            Run::Host(host) => Extent { allocated: true, data: true, offset: Some(host), ..Extent::default() },
            Run::Compressed(_) => Extent { allocated: true, data: true, compressed: true, ..Extent::default() },
        };
        Ok((extent, len))
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        self.check_writable(0, 0)?;
        self.resize(len)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "qcow2", filename: self.file.info().filename, read_only: self.options.read_only }
    }

    fn image(&self) -> Option<&dyn ImageOps> {
        Some(self)
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        let mut children = vec![("file", Arc::clone(&self.file))];
        children.extend(self.backing.iter().map(|backing| ("backing", Arc::clone(backing))));
        children
    }
}

impl Drop for Image {
    /// Puts the tables on the disk; who must know whether that worked flushes before.
    fn drop(&mut self) {
        if !self.options.read_only {
            let _ = self.flush_all();
        }
    }
}
