//! A node in memory that remembers what was written and when it was flushed, for tests of formats and queues.

use std::sync::{Arc, Mutex};

use super::lock;
use super::node::{BlockNode, Extent, IoResult, NodeInfo};

/// The disk that it is on is full then.
const MAX_BYTES: u64 = 64 << 20;

/// One thing that was done to a [`MemoryNode`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LogEntry {
    /// Bytes at an offset.
    Write(u64, Vec<u8>),
    /// A new length.
    Truncate(u64),
    /// Everything before is on the disk.
    Flush,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    log: Option<Vec<LogEntry>>,
}

/// Bytes.
#[derive(Default)]
pub(crate) struct MemoryNode {
    content: Mutex<Content>,
}

impl MemoryNode {
    pub(crate) fn new(len: usize) -> Arc<Self> {
        Self::from_bytes(vec![0; len])
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { content: Mutex::new(Content { bytes, log: None }) })
    }

    pub(crate) fn start_log(&self) {
        lock(&self.content).log = Some(Vec::new());
    }

    pub(crate) fn take_log(&self) -> Vec<LogEntry> {
        lock(&self.content).log.take().unwrap_or_default()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        lock(&self.content).bytes.clone()
    }
}

/// Does what an entry says.
pub(crate) fn replay(bytes: &mut Vec<u8>, entry: &LogEntry) {
    match entry {
        LogEntry::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        LogEntry::Truncate(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
        LogEntry::Flush => {}
    }
}

impl BlockNode for MemoryNode {
    fn len(&self) -> IoResult<u64> {
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        buf.fill(0);
        let content = lock(&self.content);
        let start = usize::try_from(offset).unwrap().min(content.bytes.len());
        let len = buf.len().min(content.bytes.len() - start);
        buf[..len].copy_from_slice(&content.bytes[start..start + len]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        let mut content = lock(&self.content);
        if offset.saturating_add(buf.len() as u64) > MAX_BYTES {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let entry = LogEntry::Write(offset, buf.to_vec());
        replay(&mut content.bytes, &entry);
        if let Some(log) = &mut content.log {
            log.push(entry);
            if fua {
                log.push(LogEntry::Flush);
            }
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _may_unmap: bool) -> IoResult<()> {
        if len > MAX_BYTES {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap()], false)
    }

    fn discard(&self, _offset: u64, _len: u64) -> IoResult<()> {
        Ok(())
    }

    fn flush(&self) -> IoResult<()> {
        if let Some(log) = &mut lock(&self.content).log {
            log.push(LogEntry::Flush);
        }
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        Ok((Extent { allocated: true, data: true, offset: Some(offset), ..Extent::default() }, len.max(1)))
    }

    /// As a file: what was never written reads as zeros.
    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "file", ..NodeInfo::default() }
    }

    fn truncate(&self, len: u64) -> IoResult<()> {
        if len > MAX_BYTES {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let mut content = lock(&self.content);
        let entry = LogEntry::Truncate(len);
        replay(&mut content.bytes, &entry);
        if let Some(log) = &mut content.log {
            log.push(entry);
        }
        Ok(())
    }
}
