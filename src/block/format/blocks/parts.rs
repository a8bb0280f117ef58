//! Small things that several formats need: numbers in headers, the end of a file, what to say of a damaged one.

use std::io;
use std::sync::Arc;

use crate::block::create::{CreateOptions, Preallocation};
use crate::block::error::OpenError;
use crate::block::node::{BlockNode, IoResult};

/// Bytes at a place in a header; zeros where it is too short.
pub(in crate::block::format) fn bytes_at<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// A little-endian number of a header.
pub(in crate::block::format) fn le16(head: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(head, at))
}

/// A little-endian number of a header.
pub(in crate::block::format) fn le32(head: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(head, at))
}

/// A little-endian number of a header.
pub(in crate::block::format) fn le64(head: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(head, at))
}

/// A big-endian number of a header.
pub(in crate::block::format) fn be32(head: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(head, at))
}

/// A big-endian number of a header.
pub(in crate::block::format) fn be64(head: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes_at(head, at))
}

/// Overwrites a part of a header that is long enough.
pub(in crate::block::format) fn set(head: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The first bytes of a file; zeros where it is shorter.
pub(in crate::block::format) fn head<const N: usize>(file: &dyn BlockNode) -> Result<[u8; N], OpenError> {
    let mut head = [0; N];
    file.read_at(0, &mut head).map_err(OpenError::io("Could not read image header"))?;
    Ok(head)
}

/// The length of a file.
pub(in crate::block::format) fn length(file: &dyn BlockNode) -> Result<u64, OpenError> {
    file.len().map_err(OpenError::io("Could not get image size"))
}

/// The image contradicts itself: the log says how, the request fails.
pub(in crate::block::format) fn corrupt(driver: &str, file: &dyn BlockNode, what: &str) -> io::Error {
    log::error!("{driver}: {}: {what}", file.info().filename);
    io::Error::from_raw_os_error(5) // EIO
}

/// A table lies in the file: the file name, place and length are in the text if it does not.
pub(in crate::block::format) fn inside(
    file: &dyn BlockNode,
    what: &str,
    offset: u64,
    len: u64,
) -> Result<(), OpenError> {
    let end = length(file)?;
    if offset.checked_add(len).is_some_and(|table_end| table_end <= end) {
        return Ok(());
    }
    let name = file.info().filename;
    Err(OpenError::Image(format!(
        "{what} of '{name}' (offset {offset}, {len} bytes) is outside the file, which has {end} bytes"
    )))
}

/// Random bytes for identifiers.
pub(in crate::block::format) fn random<const N: usize>() -> IoResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// A random identifier in the byte order that Microsoft's and VirtualBox's formats use.
pub(in crate::block::format) fn random_guid() -> IoResult<[u8; 16]> {
    let bytes = random::<16>()?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_bytes_le())
}

/// A format whose storage cannot be reserved says so.
pub(in crate::block::format) fn no_preallocation(options: &CreateOptions) -> Result<(), OpenError> {
    options.preallocation(&[Preallocation::Off]).map(drop)
}

/// An image could not be written while it was made.
pub(in crate::block::format) fn while_creating() -> impl FnOnce(io::Error) -> OpenError {
    OpenError::io("Could not write to image")
}

/// The end of a file, where new blocks go.
pub(in crate::block::format) struct Space {
    file: Arc<dyn BlockNode>,
    end: u64,
    /// The file may be shorter than what was given away.
    grown: bool,
}

impl Space {
    /// Begins at `start` or at the end of the file, whichever is later.
    pub(in crate::block::format) fn new(file: Arc<dyn BlockNode>, start: u64) -> Result<Self, OpenError> {
        let end = length(file.as_ref())?.max(start);
        Ok(Self { file, end, grown: false })
    }

    /// Begins at `start`, whatever is behind it.
    pub(in crate::block::format) fn at(file: Arc<dyn BlockNode>, start: u64) -> Self {
        Self { file, end: start, grown: false }
    }

    /// What is given away next begins at a multiple of `align` (not 0).
    pub(in crate::block::format) fn align(&mut self, align: u64) {
        self.end = self.end.checked_next_multiple_of(align).unwrap_or(u64::MAX);
    }

    /// Where the next block would go.
    pub(in crate::block::format) fn end(&self) -> u64 {
        self.end
    }

    /// Gives away `len` bytes, beginning at a multiple of `align` (not 0) after `base`.
    pub(in crate::block::format) fn take(&mut self, len: u64, base: u64, align: u64) -> IoResult<u64> {
        let full = || io::Error::from(io::ErrorKind::FileTooLarge);
        let start = self.end.saturating_sub(base).checked_next_multiple_of(align).ok_or_else(full)?;
        let start = start.checked_add(base).ok_or_else(full)?;
        let end = start.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or_else(full)?;
        self.end = end;
        self.grown = true;
        Ok(start)
    }

    /// Makes the file as long as what was given away.
    pub(in crate::block::format) fn settle(&mut self) -> IoResult<()> {
        if self.grown && self.file.len()? < self.end {
            self.file.truncate(self.end)?;
        }
        self.grown = false;
        Ok(())
    }
}
