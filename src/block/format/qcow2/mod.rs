//! qcow2, versions 2 and 3 (QEMU docs/interop/qcow2.rst, cited as "qcow2.rst").
//!
//! Guests rely on three things: a flush makes all earlier writes last; after a kill or a power cut at any moment the
//! image opens and holds at least what was flushed (clusters may leak, nothing else may be wrong); and other programs
//! read the image. Two mechanisms give the second: `commit` orders the writes of a running image, and `switch` builds
//! what whole operations change (snapshots, sizes, widths) beside the old state and enters it by one write of the
//! header. `tests` cuts the log of writes at every place.
//!
//! Locks, in their order: `flushes` for whoever changes what the file holds; `gate`, held shared by everything that
//! uses host offsets it looked up, and exclusively to wait for all of those; `meta`, the tables.

mod amend;
mod bitmap;
mod cache;
mod check;
mod commit;
pub(super) mod compress;
mod counts;
pub mod create;
mod crypt;
mod driver;
mod entry;
pub mod header;
mod measure;
mod meta;
mod options;
mod overlap;
mod packed;
mod read;
mod refcount;
mod references;
mod repair;
mod resize;
mod snapshot;
mod snapshot_table;
mod switch;
#[cfg(test)]
mod tests;
mod write;
mod zero;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use crate::block::crypto::Secrets;
use crate::block::error::OpenError;
use crate::block::image::ImageOps;
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use bitmap::Bitmaps;
use commit::Flushes;
use crypt::Crypt;
use header::{Compression, Header, incompatible};
use meta::Meta;
use overlap::Guard;
use read::{Run, Unpacked};

pub use driver::Qcow2;
pub use options::{CacheSizes, OpenOptions, PassDiscard};
pub use overlap::OverlapCheck;

/// Sizes that follow from the header.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    version: u32,
    cluster_bits: u32,
    l2_bits: u32,
    extended: bool,
    /// Guest data is in another file.
    external: bool,
    compression: Compression,
}

impl Geometry {
    fn of(header: &Header) -> Self {
        Self {
            version: header.version,
            cluster_bits: header.cluster_bits,
            l2_bits: header.l2_bits(),
            extended: header.extended_l2(),
            external: header.incompatible & incompatible::DATA_FILE != 0,
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

/// The nodes that an image is made of.
#[derive(Clone)]
pub struct Nodes {
    /// Header, tables and, unless there is a data file, data.
    pub file: Arc<dyn BlockNode>,
    /// What the header's backing file is, if the caller wants it.
    pub backing: Option<Arc<dyn BlockNode>>,
    /// The external data file, if the header asks for one.
    pub data: Option<Arc<dyn BlockNode>>,
}

impl Nodes {
    /// One file and nothing else.
    #[must_use]
    pub fn file(file: Arc<dyn BlockNode>) -> Self {
        Self { file, backing: None, data: None }
    }
}

/// An open qcow2 image.
pub struct Image {
    file: Arc<dyn BlockNode>,
    data: Option<Arc<dyn BlockNode>>,
    data_is_raw: bool,
    backing: Option<Arc<dyn BlockNode>>,
    /// Of the version only [`Image::geometry`] knows: `amend` changes it.
    fixed: Geometry,
    version: AtomicU32,
    size: AtomicU64,
    options: OpenOptions,
    lazy: bool,
    crypt: Option<Crypt>,
    flushes: Flushes,
    gate: RwLock<()>,
    meta: Mutex<Meta>,
    /// Something in [`Meta::busy`] ended.
    idle: Condvar,
    unpacked: Mutex<Unpacked>,
    bitmaps: Mutex<Bitmaps>,
    /// Read-modify-write of encrypted sectors.
    sectors: Mutex<()>,
}

/// The image contradicts itself.
fn corrupt(text: String) -> std::io::Error {
    log::warn!("qcow2: {text}");
    std::io::Error::from_raw_os_error(5) // EIO
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
    /// Opens an image that is in one file and not encrypted.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn open(
        file: Arc<dyn BlockNode>,
        backing: Option<Arc<dyn BlockNode>>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        Self::assemble(Nodes { file, backing, data: None }, options, &crate::block::crypto::NoSecrets)
    }

    /// Opens an image.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn assemble(nodes: Nodes, options: OpenOptions, secrets: &dyn Secrets) -> Result<Self, OpenError> {
        let Nodes { file, backing, data } = nodes;
        let header = read_header(file.as_ref())?;
        if header.incompatible & incompatible::DATA_FILE != 0 && data.is_none() && !options.for_check {
            return Err(OpenError::Invalid("'data-file' is required for this image".to_owned()));
        }
        if header.incompatible & incompatible::DATA_FILE == 0 && data.is_some() {
            return Err(OpenError::Invalid(
                "'data-file' can only be set for images with an external data file".to_owned(),
            ));
        }
        if header.incompatible & incompatible::CORRUPT != 0 && !options.read_only && !options.for_check {
            return Err(OpenError::Image("qcow2: Image is corrupt; cannot be opened read/write".to_owned()));
        }
        let fixed = Geometry::of(&header);
        let caches = options::Caches::of(&options.caches, fixed, header.size)?;
        let crypt = Crypt::open(file.as_ref(), &header, &options, secrets)?;
        let bitmaps = Bitmaps::load(file.as_ref(), &header, options.read_only)?;
        let lazy = header.version >= 3
            && options.lazy_refcounts.unwrap_or(header.compatible & header::compatible::LAZY_REFCOUNTS != 0);
        if options.lazy_refcounts == Some(true) && header.version < 3 {
            return Err(OpenError::Invalid(
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level".to_owned(),
            ));
        }
        let image = Self {
            data_is_raw: header.autoclear & header::autoclear::RAW_DATA != 0 && data.is_some(),
            version: AtomicU32::new(header.version),
            size: AtomicU64::new(header.size),
            meta: Mutex::new(Meta::load(file.as_ref(), header, fixed, &caches, Guard::new(options.overlap))?),
            file,
            data,
            backing,
            fixed,
            options,
            lazy,
            crypt,
            flushes: Flushes::default(),
            gate: RwLock::new(()),
            idle: Condvar::new(),
            unpacked: Mutex::new(Unpacked::default()),
            bitmaps: Mutex::new(bitmaps),
            sectors: Mutex::new(()),
        };
        if !image.options.read_only && !image.options.for_check {
            image.prepare_for_writing()?;
        }
        Ok(image)
    }

    fn geometry(&self) -> Geometry {
        Geometry { version: self.version.load(Ordering::Relaxed), ..self.fixed }
    }

    fn disk_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// A copy of the header as it is now.
    #[must_use]
    pub fn header(&self) -> Header {
        lock(&self.meta).header.clone()
    }

    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        self.fixed.cluster()
    }

    /// Where the guest's data is.
    fn data(&self) -> &dyn BlockNode {
        self.data.as_ref().map_or(self.file.as_ref(), |data| data.as_ref())
    }

    fn bounds(&self, offset: u64, len: u64) -> IoResult<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.disk_size() => Ok(()),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Marks the image so that no one writes to it before it is repaired, and returns the error for the request.
    fn mark_corrupt(&self, meta: &mut Meta, what: &str) -> std::io::Error {
        if !meta.corrupt {
            meta.corrupt = true;
            log::error!("qcow2: Marking image as corrupt: {what}; further corruption events will be suppressed");
            if !self.options.read_only && self.geometry().version >= 3 {
                meta.header.incompatible |= incompatible::CORRUPT;
                // The request fails in any case, and later ones are refused in memory.
                let _ = self.write_features(meta);
            }
        }
        std::io::Error::from_raw_os_error(5) // EIO
    }

    /// A data cluster's place is none.
    fn unaligned(&self, meta: &mut Meta, offset: u64, host: u64) -> std::io::Error {
        let g = self.geometry();
        let table = meta.l1_entry(offset) & entry::OFFSET;
        let index = offset >> g.cluster_bits & ((1 << g.l2_bits) - 1);
        let text =
            format!("Cluster allocation offset {host:#x} unaligned (L2 offset: {table:#x}, L2 index: {index:#x})");
        self.mark_corrupt(meta, &text)
    }

    /// Puts everything on the disk that an image needs to be closed.
    ///
    /// # Errors
    /// The host's.
    pub fn close(&self) -> IoResult<()> {
        self.flush_all()?;
        self.store_bitmaps()?;
        let mut meta = lock(&self.meta);
        self.mark_clean(&mut meta)
    }
}

impl BlockNode for Image {
    fn len(&self) -> IoResult<u64> {
        Ok(self.disk_size())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.bounds(offset, buf.len() as u64)?;
        self.read_data(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.check_writable(offset, buf.len() as u64)?;
        self.note_write(offset, buf.len() as u64);
        self.write_data(offset, buf)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.check_writable(offset, len)?;
        self.note_write(offset, len);
        self.zero_range(offset, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.check_writable(offset, len)?;
        if !self.options.unmap {
            return Ok(());
        }
        self.note_write(offset, len);
        self.discard_range(offset, len)
    }

    fn flush(&self) -> IoResult<()> {
        if self.options.read_only { Ok(()) } else { self.flush_all() }
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.bounds(offset, len)?;
        let _in_use = self.enter();
        let (run, len) = self.map(&mut lock(&self.meta), offset, len.max(1))?;
        let offset = |host: Option<u64>| host.filter(|_| self.crypt.is_none());
        let extent = match run {
            Run::Unallocated => Extent { zero: self.backing.is_none(), ..Extent::default() },
            Run::Zero(host) => Extent { allocated: true, zero: true, offset: offset(host), ..Extent::default() },
            Run::Host(host) => Extent { allocated: true, data: true, offset: offset(Some(host)), ..Extent::default() },
            Run::Compressed(_) => Extent { allocated: true, data: true, compressed: true, ..Extent::default() },
        };
        Ok((extent, len))
    }

    fn allocated_bytes(&self) -> IoResult<u64> {
        let data = self.data.as_ref().map_or(Ok(0), |data| data.allocated_bytes())?;
        Ok(self.file.allocated_bytes()? + data)
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        self.check_writable(0, 0)?;
        self.set_size(len).map_err(|error| match error {
            OpenError::Io { error, .. } => error,
            other => std::io::Error::other(other.to_string()),
        })
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "qcow2", filename: self.file.info().filename, read_only: self.options.read_only }
    }

    fn image(&self) -> Option<&dyn ImageOps> {
        Some(self)
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        let mut children = vec![("file", Arc::clone(&self.file))];
        children.extend(self.data.iter().map(|data| ("data-file", Arc::clone(data))));
        children.extend(self.backing.iter().map(|backing| ("backing", Arc::clone(backing))));
        children
    }
}

impl Drop for Image {
    /// Puts the tables on the disk; who must know whether that worked closes before.
    fn drop(&mut self) {
        if !self.options.read_only
            && !lock(&self.meta).corrupt
            && let Err(error) = self.close()
        {
            log::error!("qcow2: {}: {}", self.file.info().filename, crate::host::reason(&error));
        }
    }
}
