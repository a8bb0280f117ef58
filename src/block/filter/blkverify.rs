//! `blkverify`: writes go to two images, and what is read from both must be the same, or the process ends.

use std::sync::Arc;

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::options::Options;

/// Two images that must agree.
pub struct BlkverifyNode {
    /// The image under test.
    file: Arc<dyn BlockNode>,
    /// What it must be like.
    raw: Arc<dyn BlockNode>,
    filename: String,
}

/// Ends the process as QEMU does: the images differ, and nothing that follows would tell more.
fn differ(text: &str) -> ! {
    eprintln!("blkverify: {text}");
    std::process::exit(1);
}

fn agree(what: &str, offset: u64, len: u64, test: IoResult<()>, raw: IoResult<()>) -> IoResult<()> {
    let code = |result: &IoResult<()>| result.as_ref().err().map_or(0, |error| -crate::host::errno(error));
    let (a, b) = (code(&test), code(&raw));
    if a != b {
        differ(&format!("{what} offset={offset} bytes={len} return value mismatch {a} != {b}"));
    }
    test
}

impl BlockNode for BlkverifyNode {
    forward!(file: extent allocated_bytes set_sharing event);

    fn len(&self) -> IoResult<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let mut other = vec![0; buf.len()];
        let raw = self.raw.read_at(offset, &mut other);
        agree("read", offset, buf.len() as u64, self.file.read_at(offset, buf), raw)?;
        if let Some(at) = buf.iter().zip(&other).position(|(a, b)| a != b) {
            differ(&format!(
                "read offset={offset} bytes={} contents mismatch at offset {}",
                buf.len(),
                offset + at as u64
            ));
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        let raw = self.raw.write_at(offset, buf, fua);
        agree("write", offset, buf.len() as u64, self.file.write_at(offset, buf, fua), raw)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let raw = self.raw.zero(offset, len, may_unmap);
        agree("write", offset, len, self.file.zero(offset, len, may_unmap), raw)
    }

    fn discard(&self, _offset: u64, _len: u64) -> IoResult<()> {
        // What is discarded need not read the same afterwards: it stays.
        Ok(())
    }

    fn flush(&self) -> IoResult<()> {
        // Only the image under test matters after a crash.
        self.file.flush()
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "blkverify", filename: self.filename.clone(), read_only: self.file.info().read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        vec![("raw", Arc::clone(&self.raw)), ("test", Arc::clone(&self.file))]
    }
}

/// `blkverify`.
pub struct Blkverify;

impl Driver for Blkverify {
    fn name(&self) -> &'static str {
        "blkverify"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[("raw", KeyKind::Node), ("test", KeyKind::Node)]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["blkverify"]
    }

    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        let rest = filename.strip_prefix("blkverify:").unwrap_or(filename);
        let Some((raw, test)) = rest.split_once(':') else {
            let text = "blkverify requires raw copy and original image path";
            return Err(OpenError::Invalid(text.to_owned()));
        };
        options.insert("raw.filename", raw);
        options.insert("test.filename", test);
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let raw = context.filtered("raw")?;
        // The image under test is of a format; the copy is a plain file.
        let test = match context.child("test", true)? {
            Some(test) => test,
            None => return Err(OpenError::Invalid("A block device must be specified for \"test\"".to_owned())),
        };
        context.finish()?;
        let filename = format!("blkverify:{}:{}", raw.filename, test.filename);
        let node = BlkverifyNode { file: test.node, raw: raw.node, filename: filename.clone() };
        Ok(Opened::new(Arc::new(node), filename).over(test.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn writes_reach_both_and_reads_compare() {
        let (raw, test) = (MemoryNode::new(4096), MemoryNode::new(4096));
        let node = BlkverifyNode { file: test.clone(), raw: raw.clone(), filename: String::new() };
        node.write_at(5, b"abc", false).unwrap();
        let mut buf = [0; 3];
        raw.read_at(5, &mut buf).unwrap();
        assert_eq!(&buf, b"abc");
        node.read_at(5, &mut buf).unwrap();
        assert_eq!(&buf, b"abc");
    }
}
