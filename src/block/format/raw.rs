//! `raw`: the file is the disk, or a window of it.

use std::io;
use std::sync::Arc;

use crate::block::create::{self, CreateOption, CreateOptions, Preallocation};
use crate::block::debug::Event;
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{Measure, MeasureSource};
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::probe;

/// The unit that a raw disk's length is rounded up to.
const SECTOR: u64 = 512;

/// A raw disk.
pub struct RawNode {
    file: Arc<dyn BlockNode>,
    /// First byte in the file (`offset=`).
    start: u64,
    /// Length (`size=`), else up to the end of the file.
    fixed_len: Option<u64>,
    read_only: bool,
    /// The format was guessed: a guest that writes another format's header into its first sector would choose what
    /// the host opens next time.
    guessed: bool,
}

impl RawNode {
    /// The whole file.
    #[must_use]
    pub fn new(file: Arc<dyn BlockNode>, read_only: bool) -> Self {
        Self { file, start: 0, fixed_len: None, read_only, guessed: false }
    }

    /// A window of it.
    #[must_use]
    pub fn window(mut self, start: u64, len: Option<u64>) -> Self {
        (self.start, self.fixed_len) = (start, len);
        self
    }

    /// The format was probed, not named: the first sector is guarded.
    #[must_use]
    pub fn guessed(mut self) -> Self {
        self.guessed = true;
        self
    }

    fn place(&self, offset: u64, len: u64) -> IoResult<u64> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.start.checked_add(offset).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn writable(&self, offset: u64, len: u64) -> IoResult<u64> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.place(offset, len)
    }

    /// Refuses (`EPERM`) to make the first sector look like another format.
    fn guard(&self, offset: u64, buf: &[u8]) -> IoResult<()> {
        if !self.guessed || offset >= SECTOR || buf.is_empty() {
            return Ok(());
        }
        let mut sector = [0; SECTOR as usize];
        self.file.read_at(self.start, &mut sector)?;
        let at = usize::try_from(offset).unwrap_or(0);
        let len = buf.len().min(sector.len() - at);
        sector[at..at + len].copy_from_slice(&buf[..len]);
        if probe::guess(&sector, "").is_none() { Ok(()) } else { Err(io::Error::from_raw_os_error(1)) }
    }
}

impl BlockNode for RawNode {
    fn len(&self) -> IoResult<u64> {
        match self.fixed_len {
            Some(len) => Ok(len),
            None => Ok(self.file.len()?.saturating_sub(self.start).next_multiple_of(SECTOR)),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let at = self.place(offset, buf.len() as u64)?;
        self.file.event(Event::ReadAio);
        self.file.read_at(at, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        let at = self.writable(offset, buf.len() as u64)?;
        self.guard(offset, buf)?;
        self.file.event(Event::WriteAio);
        self.file.write_at(at, buf, fua)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let at = self.writable(offset, len)?;
        self.file.zero(at, len, may_unmap)
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let at = self.writable(offset, len)?;
        self.file.zero_fast(at, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        let at = self.writable(offset, len)?;
        self.file.discard(at, len)
    }

    fn flush(&self) -> IoResult<()> {
        self.file.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        let at = self.place(offset, len)?;
        self.file.extent(at, len)
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        if self.fixed_len.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.file.truncate(self.start.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn preallocate(&self, offset: u64, len: u64, how: Preallocation) -> IoResult<()> {
        let at = self.start.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.preallocate(at, len, how)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "raw", filename: self.file.info().filename, read_only: self.read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        vec![("file", Arc::clone(&self.file))]
    }
}

/// `raw`.
pub struct Raw;

impl Driver for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        &[("file", KeyKind::Node), ("offset", KeyKind::Size), ("size", KeyKind::Size)]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        let read_only = context.read_only() || file.node.info().read_only;
        let start = context.options.take_size("offset")?.unwrap_or(0);
        let len = context.options.take_size("size")?;
        context.finish()?;
        if let Some(len) = len {
            let real = file.node.len().map_err(OpenError::io("Could not get image size"))?;
            if start.checked_add(len).is_none_or(|end| end > real) {
                let text = format!(
                    "The sum of offset ({start}) and size ({len}) has to be smaller or equal to the  actual size of the \
                     containing file ({real})"
                );
                return Err(OpenError::Invalid(text));
            }
        }
        context.share(&file.node, false)?;
        let mut raw = RawNode::new(Arc::clone(&file.node), read_only).window(start, len);
        if context.guessed() && !read_only {
            raw = raw.guessed();
        }
        Ok(Opened::new(Arc::new(raw), file.filename).over(file.node))
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

/// What a raw image can be reserved by.
const PREALLOCATION: &[Preallocation] = &[Preallocation::Off, Preallocation::Falloc, Preallocation::Full];

impl Creation for Raw {
    fn options(&self) -> &'static [CreateOption] {
        const { &[create::SIZE] }
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        if options.get("preallocation") == Some("metadata") {
            return Err(OpenError::Invalid("Unsupported preallocation mode: metadata".to_owned()));
        }
        let preallocation = options.preallocation(PREALLOCATION)?;
        let size = options.whole_sectors()?;
        let file = place.file(filename, options)?;
        file.truncate(size).map_err(OpenError::io(format!("Could not resize '{filename}'")))?;
        if preallocation == Preallocation::Off && size > 0 {
            // As QEMU: the first block has storage, so that the host's alignment can be told.
            file.preallocate(0, size.min(4096), Preallocation::Full)
                .map_err(OpenError::io("Could not write to image"))?;
        }
        if size == 0 {
            return Ok(());
        }
        file.preallocate(0, size, preallocation).map_err(OpenError::io("Could not write to image"))
    }

    /// As many bytes as the disk has, whatever is in them.
    fn measure(&self, options: &CreateOptions, source: &mut MeasureSource<'_>) -> Result<Measure, OpenError> {
        let size = source.size.checked_next_multiple_of(512);
        let size = size.ok_or_else(|| OpenError::Invalid("Image is too big".to_owned()))?;
        options.preallocation(PREALLOCATION)?;
        Ok(Measure { required: size, fully_allocated: size, bitmaps: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn a_guessed_raw_disk_cannot_become_a_qcow2_header() {
        let raw = RawNode::new(MemoryNode::new(4096), false).guessed();
        raw.write_at(0, b"QFI", false).unwrap();
        assert_eq!(raw.write_at(3, b"\xfb\0\0\0\x03", false).unwrap_err().raw_os_error(), Some(1));
        raw.write_at(512, b"QFI\xfb\0\0\0\x03", false).unwrap();
        let named = RawNode::new(MemoryNode::new(4096), false);
        named.write_at(0, b"QFI\xfb\0\0\0\x03", false).unwrap();
    }

    #[test]
    fn lengths_round_up_to_sectors_and_the_rest_reads_as_zeros() {
        let raw = RawNode::new(MemoryNode::new(700), false);
        assert_eq!(raw.len().unwrap(), 1024);
        let mut buf = [1; 512];
        raw.read_at(512, &mut buf).unwrap();
        assert_eq!(buf, [0; 512]);
        assert!(raw.read_at(1000, &mut buf).is_err());
    }
}
