//! `file` and `host_device`: a file or block device of the host, and QEMU's image locking.
//!
//! Image locking: each user of an image holds shared byte-range locks of its open file description: byte `100 + n`
//! while it uses permission n, byte `200 + n` while it does not let others have permission n. After taking its own
//! bytes it looks whether anyone else holds the opposite ones. The bytes and texts are as observed from QEMU 10.0
//! (`/proc/locks`), so that each side's tools refuse what the other side has open.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use serde_json::Value;

use crate::block::create;
use crate::block::create::{CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::{LockKind, OpenError};
use crate::block::graph::OpenContext;
use crate::block::keys::{self, KeyKind, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::options::Options;
use crate::block::sharing::{PERMISSIONS, Permissions, Sharing};
use crate::host::lock::{lock_shared, others_hold, unlock};

const USED_BASE: u64 = 100;
const UNSHARED_BASE: u64 = 200;

/// How to open a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileOptions {
    /// No writes.
    pub read_only: bool,
    /// Fall back to reading where the host refuses writing.
    pub auto_read_only: bool,
    /// Past the page cache.
    pub direct: bool,
    /// Flushes do nothing.
    pub no_flush: bool,
    /// `locking=`: `Some(true)` insists, `None` is "auto".
    pub locking: Option<bool>,
    /// The locks to hold.
    pub sharing: Sharing,
    /// `discard=unmap`: discards give storage back to the host.
    pub unmap: bool,
}

/// An open file or device.
#[derive(Debug)]
pub struct FileNode {
    file: fs::File,
    path: String,
    read_only: bool,
    device: bool,
    /// Alignment of offsets, lengths and addresses with `O_DIRECT`.
    align: Option<usize>,
    no_flush: bool,
    unmap: bool,
    locking: bool,
    held: Mutex<Sharing>,
    can_punch: AtomicBool,
    can_zero: AtomicBool,
    /// After a failed flush no one knows what is on the disk: all later ones fail, too.
    flush_failed: AtomicBool,
    /// A range without holes: where a hole begins takes the host long to tell. That there is data is never wrong to say.
    known_data: Mutex<Option<Range<u64>>>,
}

/// The most that one aligned transfer moves.
const BOUNCE_BYTES: usize = 1 << 20;

impl FileNode {
    /// Opens and locks.
    ///
    /// # Errors
    /// [`OpenError::Open`], [`OpenError::WrongKind`] and [`OpenError::Lock`].
    pub fn open(path: &str, options: &FileOptions) -> Result<Self, OpenError> {
        let refused = |error: io::Error| match error.kind() {
            // A folder cannot even be opened for writing.
            io::ErrorKind::IsADirectory => not_a_file(path),
            _ => OpenError::Open { filename: path.to_owned(), error },
        };
        let mut read_only = options.read_only;
        if fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo()) {
            // Opening it would wait for a writer, for ever.
            return Err(not_a_file(path));
        }
        let mut result = open_file(path, read_only, options.direct);
        if let Err(error) = &result
            && !read_only
            && options.auto_read_only
            && matches!(error.raw_os_error(), Some(e) if [13, 1, 30].contains(&e))
        {
            // EACCES, EPERM, EROFS
            read_only = true;
            result = open_file(path, read_only, options.direct);
        }
        let file = result.map_err(refused)?;
        let kind = file.metadata().map_err(refused)?.file_type();
        if !kind.is_file() && !kind.is_block_device() && !kind.is_char_device() {
            return Err(not_a_file(path));
        }
        let device = !kind.is_file();
        let align = if options.direct { Some(direct_alignment(&file)) } else { None };
        let node = Self {
            file,
            path: path.to_owned(),
            read_only,
            device,
            align,
            no_flush: options.no_flush,
            unmap: options.unmap,
            locking: options.locking.unwrap_or(true),
            held: Mutex::new(Sharing::default()),
            can_punch: AtomicBool::new(true),
            can_zero: AtomicBool::new(true),
            flush_failed: AtomicBool::new(false),
            known_data: Mutex::new(None),
        };
        node.set_sharing(options.sharing)?;
        Ok(node)
    }

    /// Makes an empty file of `len` bytes and opens it; what was there is lost, unless someone has it open.
    ///
    /// # Errors
    /// The host's, or the file is locked.
    pub fn create(path: &str, len: u64) -> Result<Self, OpenError> {
        let refused = |error| OpenError::Open { filename: path.to_owned(), error };
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(|error| OpenError::Io { what: format!("Could not create '{path}'"), error })?;
        let all = Permissions::WRITE.and(Permissions::RESIZE);
        let sharing = Sharing { used: all, unshared: all };
        let node = Self::open(path, &FileOptions { sharing, ..FileOptions::default() })?;
        if !node.device {
            node.file.set_len(0).map_err(refused)?;
            node.file
                .set_len(len)
                .map_err(|error| OpenError::Io { what: format!("Could not resize '{path}'"), error })?;
        }
        Ok(node)
    }

    /// Takes the locks of `wanted` and drops all others. If another process is in the way, the locks are as they were.
    fn share(&self, wanted: Sharing) -> Result<(), OpenError> {
        if !self.locking {
            return Ok(());
        }
        let mut held = lock(&self.held);
        match self.take(wanted).and_then(|()| self.conflicts(wanted)) {
            Ok(()) => {
                self.drop_all_but(wanted);
                *held = wanted;
                Ok(())
            }
            Err(error) => {
                self.drop_all_but(*held);
                Err(error)
            }
        }
    }

    fn take(&self, wanted: Sharing) -> Result<(), OpenError> {
        for (bit, permission) in PERMISSIONS.iter().enumerate() {
            for (set, base, kind) in
                [(wanted.used, USED_BASE, LockKind::Use), (wanted.unshared, UNSHARED_BASE, LockKind::Share)]
            {
                if set.has(bit)
                    && let Err(error) = lock_shared(self.file.as_fd(), base + bit as u64, 1)
                    && error.kind() == io::ErrorKind::WouldBlock
                {
                    // A file system without locks (any other error) cannot protect; QEMU goes on, too.
                    return Err(OpenError::Lock { kind, permission, filename: self.path.clone() });
                }
            }
        }
        Ok(())
    }

    fn conflicts(&self, wanted: Sharing) -> Result<(), OpenError> {
        for (set, base, kind) in
            [(wanted.used, UNSHARED_BASE, LockKind::Use), (wanted.unshared, USED_BASE, LockKind::Share)]
        {
            for (bit, permission) in PERMISSIONS.iter().enumerate() {
                if set.has(bit) && others_hold(self.file.as_fd(), base + bit as u64, 1).unwrap_or(false) {
                    return Err(OpenError::Lock { kind, permission, filename: self.path.clone() });
                }
            }
        }
        Ok(())
    }

    fn drop_all_but(&self, keep: Sharing) {
        for bit in 0..PERMISSIONS.len() {
            for (set, base) in [(keep.used, USED_BASE), (keep.unshared, UNSHARED_BASE)] {
                if !set.has(bit) {
                    // A file system without locks has none to drop.
                    let _ = unlock(self.file.as_fd(), base + bit as u64, 1);
                }
            }
        }
    }

    /// Whether it is a block or character device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// Runs `piece(aligned offset, buffer, first byte of the range in it, its length there, offset in the range)` over
    /// the aligned blocks that a range touches.
    fn bounce(
        &self,
        align: usize,
        offset: u64,
        len: usize,
        mut piece: impl FnMut(u64, &mut [u8], usize, usize, usize) -> IoResult<()>,
    ) -> IoResult<()> {
        let mask = align as u64 - 1;
        let span = BOUNCE_BYTES.min(len.saturating_add(2 * align)).next_multiple_of(align);
        let mut store = vec![0_u8; span + align];
        let skip = store.as_ptr().align_offset(align).min(align);
        let buffer = store.get_mut(skip..skip + span).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let start = at & !mask;
            #[expect(clippy::cast_possible_truncation, reason = "below the alignment")]
            let inside = (at - start) as usize;
            let step = (span - inside).min(len - done);
            let whole = (inside + step).next_multiple_of(align);
            piece(start, &mut buffer[..whole], inside, step, done)?;
            done += step;
        }
        Ok(())
    }

    /// Fills `buf`; what is past the end of the file reads as zeros.
    fn read_full(&self, mut offset: u64, mut buf: &mut [u8]) -> IoResult<()> {
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => {
                    buf.fill(0);
                    return Ok(());
                }
                Ok(count) => {
                    buf = &mut buf[count..];
                    offset += count as u64;
                    if self.align.is_some() && !buf.is_empty() && !offset.is_multiple_of(512) {
                        buf.fill(0); // the end of the file is not aligned
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_direct(&self, align: usize, offset: u64, buf: &[u8]) -> IoResult<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let before = self.len()?;
        self.bounce(align, offset, buf.len(), |start, block, inside, step, done| {
            if inside != 0 || step != block.len() {
                self.read_full(start, block)?;
            }
            block[inside..inside + step].copy_from_slice(&buf[done..done + step]);
            self.file.write_all_at(block, start)
        })?;
        if !self.device && end > before && !end.is_multiple_of(align as u64) {
            self.file.set_len(end)?; // the padding is not content
        }
        Ok(())
    }

    /// Writes zeros, whatever else the host could do.
    ///
    /// # Errors
    /// The host's.
    pub fn write_zeros(&self, offset: u64, len: u64) -> IoResult<()> {
        let zeros = vec![0; usize::try_from(len.min(BOUNCE_BYTES as u64)).unwrap_or(BOUNCE_BYTES)];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(zeros.len() as u64);
            self.write_at(offset + done, &zeros[..usize::try_from(step).unwrap_or(0)], false)?;
            done += step;
        }
        Ok(())
    }

    fn writable(&self) -> IoResult<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn fallocate(&self, works: &AtomicBool, mode: FallocateFlags, offset: u64, len: u64) -> IoResult<bool> {
        if !works.load(Ordering::Relaxed) || len == 0 {
            return Ok(len == 0);
        }
        match rustix::fs::fallocate(&self.file, mode, offset, len) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::NODEV) => {
                works.store(false, Ordering::Relaxed);
                Ok(false)
            }
            // Devices want whole sectors.
            Err(rustix::io::Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn not_a_file(path: &str) -> OpenError {
    OpenError::WrongKind { driver: "file", filename: path.to_owned(), wanted: "a regular file" }
}

fn open_file(path: &str, read_only: bool, direct: bool) -> io::Result<fs::File> {
    let mut flags = OFlags::CLOEXEC;
    if direct {
        flags |= OFlags::DIRECT;
    }
    OpenOptions::new().read(true).write(!read_only).custom_flags(flags.bits() as i32).open(path)
}

/// What `O_DIRECT` wants: statx(2) tells on newer kernels; else the block size that suits all.
fn direct_alignment(file: &fs::File) -> usize {
    let fallback = 4096;
    let Ok(metadata) = file.metadata() else { return fallback };
    if metadata.file_type().is_block_device() {
        return rustix::fs::ioctl_blksszget(file).map_or(fallback, |size| size as usize).max(512);
    }
    usize::try_from(metadata.blksize()).ok().filter(|size| size.is_power_of_two()).unwrap_or(fallback).min(fallback)
}

impl BlockNode for FileNode {
    fn len(&self) -> IoResult<u64> {
        if self.device { Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?) } else { Ok(self.file.metadata()?.len()) }
    }

    /// Past the end of the file it reads as zeros: formats round their lengths up.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        match self.align {
            None => self.read_full(offset, buf),
            Some(align) => {
                let len = buf.len();
                self.bounce(align, offset, len, |start, block, inside, step, done| {
                    self.read_full(start, block)?;
                    buf[done..done + step].copy_from_slice(&block[inside..inside + step]);
                    Ok(())
                })
            }
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.writable()?;
        match self.align {
            None => self.file.write_all_at(buf, offset)?,
            Some(align) => self.write_direct(align, offset, buf)?,
        }
        if fua { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        match self.zero_fast(offset, len, may_unmap) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.write_zeros(offset, len),
            done => done,
        }
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.writable()?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        *lock(&self.known_data) = None;
        if may_unmap && (self.device || end <= self.len()?) && self.fallocate(&self.can_punch, punch, offset, len)? {
            return Ok(());
        }
        match self.fallocate(&self.can_zero, FallocateFlags::ZERO_RANGE, offset, len)? {
            true => Ok(()),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.writable()?;
        if self.unmap {
            *lock(&self.known_data) = None;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            self.fallocate(&self.can_punch, punch, offset, len)?;
        }
        Ok(())
    }

    fn flush(&self) -> IoResult<()> {
        if self.no_flush || self.read_only {
            return Ok(());
        }
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.file.sync_data().inspect_err(|_| self.flush_failed.store(true, Ordering::Release))
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        let data = Extent { allocated: true, data: true, offset: Some(offset), ..Extent::default() };
        let hole = Extent { allocated: true, zero: true, offset: Some(offset), ..Extent::default() };
        let limit = |end: u64| (end - offset).clamp(1, len.max(1));
        let known = lock(&self.known_data).clone().filter(|known| known.contains(&offset));
        if let Some(known) = known {
            return Ok((data, limit(known.end)));
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) if at > offset => Ok((hole, limit(at))),
            Ok(_) => match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(at) if at > offset => {
                    *lock(&self.known_data) = Some(offset..at);
                    Ok((data, limit(at)))
                }
                _ => Ok((data, len.max(1))),
            },
            // There is no data up to the end of the file.
            Err(rustix::io::Errno::NXIO) => Ok((hole, len.max(1))),
            Err(_) => Ok((data, len.max(1))),
        }
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        self.writable()?;
        *lock(&self.known_data) = None;
        if self.device {
            return if len <= self.len()? { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) };
        }
        self.file.set_len(len)
    }

    fn allocated_bytes(&self) -> IoResult<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn preallocate(&self, offset: u64, len: u64, how: Preallocation) -> IoResult<()> {
        match how {
            Preallocation::Off | Preallocation::Metadata => Ok(()),
            Preallocation::Falloc => Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len)?),
            Preallocation::Full => self.write_zeros(offset, len),
        }
    }

    fn set_sharing(&self, mut sharing: Sharing) -> Result<(), OpenError> {
        if self.read_only {
            sharing.used = sharing.used.only(Permissions::CONSISTENT_READ);
        }
        self.share(sharing)
    }

    fn host_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            driver: if self.device { "host_device" } else { "file" },
            filename: self.path.clone(),
            read_only: self.read_only,
        }
    }
}

/// What files and host devices take.
const KEYS: Keys = &[
    ("filename", KeyKind::Text),
    ("aio", KeyKind::Word(keys::AIO)),
    ("locking", KeyKind::Word(&["auto", "on", "off"])),
    ("drop-cache", KeyKind::Refused),
    ("pr-manager", KeyKind::Refused),
    ("aio-max-batch", KeyKind::Refused),
];

/// `file`.
pub struct File;
/// `host_device`.
pub struct HostDevice;

impl Driver for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    fn required(&self) -> Option<&'static str> {
        Some("filename")
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        options.insert("filename", filename.strip_prefix("file:").unwrap_or(filename));
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        open(context)
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

impl Driver for HostDevice {
    fn name(&self) -> &'static str {
        "host_device"
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    fn required(&self) -> Option<&'static str> {
        Some("filename")
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["host_device"]
    }

    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        options.insert("filename", filename.strip_prefix("host_device:").unwrap_or(filename));
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        open(context)
    }
}

impl Creation for File {
    fn options(&self) -> &'static [CreateOption] {
        const {
            &[
                create::SIZE,
                CreateOption::new(
                    "preallocation",
                    OptionKind::Text,
                    "Preallocation mode (allowed values: off, falloc, full)",
                ),
            ]
        }
    }

    /// An empty file: the format above says how long it is to be.
    fn create(&self, filename: &str, _options: &CreateOptions, _place: &mut CreatePlace) -> Result<(), OpenError> {
        FileNode::create(filename.strip_prefix("file:").unwrap_or(filename), 0).map(drop)
    }
}

fn open(context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
    let options = &mut context.options;
    let filename = options
        .take_str("filename")?
        .ok_or_else(|| OpenError::Invalid("The 'file' block driver requires a file name".to_owned()))?;
    let locking = match options.take("locking") {
        None => None,
        Some(Value::String(text)) if text == "auto" => None,
        Some(Value::String(text)) if text == "on" => Some(true),
        Some(Value::String(text)) if text == "off" => Some(false),
        Some(Value::Bool(on)) => Some(on),
        Some(other) => {
            return Err(OpenError::Invalid(format!("Parameter 'locking' does not accept value '{other}'")));
        }
    };
    match options.take_str("aio")?.as_deref() {
        None | Some("threads") => {}
        Some(other @ ("native" | "io_uring")) => return Err(OpenError::Unsupported(format!("aio={other}"))),
        Some(other) => {
            return Err(OpenError::Invalid(format!("Parameter 'aio' does not accept value '{other}'")));
        }
    }
    let auto_read_only = options.take_bool("auto-read-only")?.unwrap_or(false);
    context.finish()?;
    let options = FileOptions {
        read_only: context.read_only(),
        auto_read_only,
        direct: context.cache.direct,
        no_flush: context.cache.no_flush,
        locking,
        sharing: context.protocol_sharing(),
        unmap: context.unmap,
    };
    let file = FileNode::open(&filename, &options)?;
    Ok(Opened::new(Arc::new(file), filename))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusive() -> FileOptions {
        let all = Permissions::WRITE.and(Permissions::RESIZE);
        let sharing = Sharing { used: Permissions::CONSISTENT_READ.and(all), unshared: all };
        FileOptions { sharing, ..FileOptions::default() }
    }

    fn temp(len: u64) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let (_file, path) = temp(4096);
        let first = FileNode::open(&path, &exclusive()).unwrap();
        let error = FileNode::open(&path, &exclusive()).unwrap_err();
        assert_eq!(
            error.full_text(),
            format!("Failed to get \"write\" lock\nIs another process using the image [{path}]?")
        );
        drop(first);
        FileNode::open(&path, &exclusive()).unwrap();
    }

    #[test]
    fn reads_past_the_end_are_zeros() {
        let (_file, path) = temp(0);
        let node = FileNode::open(&path, &exclusive()).unwrap();
        node.write_at(0, b"abc", false).unwrap();
        let mut buf = [9; 6];
        node.read_at(0, &mut buf).unwrap();
        assert_eq!(&buf, b"abc\0\0\0");
    }

    #[test]
    fn direct_access_takes_any_offset_and_length() {
        let (_file, path) = temp(0);
        let node = FileNode::open(&path, &FileOptions { direct: true, ..exclusive() }).unwrap();
        let pattern: Vec<u8> = (0..20_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
        node.write_at(777, &pattern, true).unwrap();
        assert_eq!(node.len().unwrap(), 20_777);
        let mut back = vec![0; pattern.len()];
        node.read_at(777, &mut back).unwrap();
        assert_eq!(back, pattern);
    }

    #[test]
    fn a_hole_is_seen_after_data_was_there() {
        let (_file, path) = temp(0);
        let node = FileNode::open(&path, &exclusive()).unwrap();
        node.write_at(0, &[7; 1 << 20], false).unwrap();
        assert!(node.extent(4096, 100).unwrap().0.data);
        node.zero(0, 1 << 20, true).unwrap();
        assert!(node.extent(4096, 100).unwrap().0.zero);
    }

    #[test]
    fn zeroed_ranges_read_as_zeros_and_keep_their_neighbours() {
        let (_file, path) = temp(0);
        let node = FileNode::open(&path, &exclusive()).unwrap();
        node.write_at(0, &[7; 100_000], false).unwrap();
        node.zero(10, 99_000, true).unwrap();
        let mut buf = vec![1; 100_000];
        node.read_at(0, &mut buf).unwrap();
        assert!(buf[..10].iter().chain(&buf[99_010..]).all(|b| *b == 7));
        assert!(buf[10..99_010].iter().all(|b| *b == 0));
    }
}
