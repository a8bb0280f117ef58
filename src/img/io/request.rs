//! Requests to an open image: bounds, read-only images and cache modes as a disk's user meets them.

use std::io;
use std::sync::Arc;

use crate::block::{BlockNode, Image};
use crate::host;

/// What requests go to; clones go to threads.
#[derive(Clone)]
pub(super) struct Target {
    node: Arc<dyn BlockNode>,
    write_through: bool,
    detect_zeroes: &'static str,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Target {
    pub(super) fn new(image: &Image) -> Self {
        Self {
            node: Arc::clone(&image.node),
            write_through: !image.cache.writeback,
            detect_zeroes: image.detect_zeroes,
        }
    }

    /// Refuses what is not all on the disk (EIO, as QEMU).
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.node.len()? => Ok(()),
            _ => Err(errno(host::EIO)),
        }
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.node.read_at(offset, buf)
    }

    pub(super) fn write(&self, offset: u64, buf: &[u8], fua: bool) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        if self.detect_zeroes != "off" && buf.iter().all(|byte| *byte == 0) {
            return self.zero(offset, buf.len() as u64, self.detect_zeroes == "unmap", fua, false);
        }
        self.node.write_at(offset, buf, fua || self.write_through)
    }

    pub(super) fn write_compressed(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len() as u64)?;
        let ops = self.node.image().ok_or(errno(host::ENOTSUP))?;
        let unit = ops.compressed_unit().filter(|unit| *unit > 0).ok_or(errno(host::ENOTSUP))?;
        let at_end = offset + data.len() as u64 == self.node.len()?;
        if !offset.is_multiple_of(unit) || !((data.len() as u64).is_multiple_of(unit) || at_end) {
            return Err(errno(host::EINVAL));
        }
        let unit = usize::try_from(unit).map_err(|_| errno(host::EINVAL))?;
        let mut at = offset;
        for piece in data.chunks(unit) {
            ops.write_compressed(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Writes zeros; with `fast_only` it fails where they would have to be written as data.
    pub(super) fn zero(&self, offset: u64, len: u64, unmap: bool, fua: bool, fast_only: bool) -> io::Result<()> {
        self.check(offset, len)?;
        if fast_only {
            self.node.zero_fast(offset, len, unmap)?;
        } else {
            self.node.zero(offset, len, unmap)?;
        }
        if fua || self.write_through { self.node.flush() } else { Ok(()) }
    }

    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        self.node.discard(offset, len)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.node.flush()
    }

    pub(super) fn read_state(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.node.image().ok_or(errno(host::ENOTSUP))?.read_vm_state(offset, buf)
    }

    pub(super) fn write_state(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.node.image().ok_or(errno(host::ENOTSUP))?.write_vm_state(offset, buf)
    }
}
