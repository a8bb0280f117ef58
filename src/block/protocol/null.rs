//! `null-co`: reads as whatever, forgets what is written; for measuring and for tests of machines.

use std::io;
use std::sync::Arc;

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

/// A medium without storage.
#[derive(Debug)]
pub struct NullNode {
    len: u64,
    read_zeroes: bool,
    read_only: bool,
}

impl NullNode {
    /// `len` bytes; with `read_zeroes` they read as zeros, else reads leave the buffer as it is.
    #[must_use]
    pub fn new(len: u64, read_zeroes: bool, read_only: bool) -> Self {
        Self { len, read_zeroes, read_only }
    }

    fn check(&self, offset: u64, len: u64) -> IoResult<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl BlockNode for NullNode {
    fn len(&self) -> IoResult<u64> {
        Ok(self.len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.check(offset, buf.len() as u64)?;
        if self.read_zeroes {
            buf.fill(0);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], _fua: bool) -> IoResult<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.check(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64, _may_unmap: bool) -> IoResult<()> {
        self.check(offset, len)
    }

    fn zero_fast(&self, offset: u64, len: u64, _may_unmap: bool) -> IoResult<()> {
        self.check(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.check(offset, len)
    }

    fn flush(&self) -> IoResult<()> {
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.check(offset, len)?;
        let extent = Extent { allocated: true, zero: self.read_zeroes, offset: Some(offset), ..Extent::default() };
        Ok((extent, len.max(1)))
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "null-co", filename: "null-co://".to_owned(), read_only: self.read_only }
    }
}

/// `null-co`.
pub struct NullCo;

impl Driver for NullCo {
    fn name(&self) -> &'static str {
        "null-co"
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        &[("size", KeyKind::Size), ("read-zeroes", KeyKind::Switch), ("latency-ns", KeyKind::Refused)]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["null-co"]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let len = context.options.take_size("size")?.unwrap_or(1 << 30);
        let zeroes = context.options.take_bool("read-zeroes")?.unwrap_or(true);
        let filename = context.options.take_str("filename")?.unwrap_or_else(|| "null-co://".to_owned());
        context.finish()?;
        Ok(Opened::new(Arc::new(NullNode::new(len, zeroes, context.read_only())), filename))
    }
}
