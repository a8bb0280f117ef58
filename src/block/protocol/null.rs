//! `null-co` and `null-aio`: reads as whatever, forgets what is written; for measuring and for tests of machines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::options::Options;

/// A medium without storage.
#[derive(Debug)]
pub struct NullNode {
    len: u64,
    read_zeroes: bool,
    read_only: bool,
    driver: &'static str,
    latency: Duration,
}

impl NullNode {
    /// `len` bytes; with `read_zeroes` they read as zeros, else reads leave the buffer as it is.
    #[must_use]
    pub fn new(len: u64, read_zeroes: bool, read_only: bool) -> Self {
        Self { len, read_zeroes, read_only, driver: "null-co", latency: Duration::ZERO }
    }

    fn check(&self, offset: u64, len: u64) -> IoResult<()> {
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
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
        NodeInfo { driver: self.driver, filename: format!("{}://", self.driver), read_only: self.read_only }
    }
}

/// `null-co`, `null-aio`.
pub struct Null {
    name: &'static str,
}

/// `null-co`.
pub static NULL_CO: Null = Null { name: "null-co" };
/// `null-aio`.
pub static NULL_AIO: Null = Null { name: "null-aio" };

impl Driver for Null {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        &[("size", KeyKind::Size), ("read-zeroes", KeyKind::Switch), ("latency-ns", KeyKind::Integer)]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        if self.name == "null-co" { &["null-co"] } else { &["null-aio"] }
    }

    fn parse_filename(&self, filename: &str, _options: &mut Options) -> Result<(), OpenError> {
        let only = format!("{}://", self.name());
        if filename == only {
            return Ok(());
        }
        Err(OpenError::Invalid(format!("The only allowed filename for this driver is '{only}'")))
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        if let Some(filename) = context.options.take_str("filename")? {
            self.parse_filename(&filename, &mut Options::default())?;
        }
        let len = context.options.take_size("size")?.unwrap_or(1 << 30);
        let zeroes = context.options.take_bool("read-zeroes")?.unwrap_or(true);
        let latency = context.options.take_size("latency-ns")?.unwrap_or(0);
        context.finish()?;
        let mut node = NullNode::new(len, zeroes, context.read_only());
        node.driver = self.name();
        node.latency = Duration::from_nanos(latency);
        let filename = node.info().filename;
        Ok(Opened::new(Arc::new(node), filename))
    }
}
