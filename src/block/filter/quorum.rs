//! `quorum`: writes go to all children, and reads are what enough of them agree on.

use std::io;
use std::sync::Arc;

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::host;

/// Children at most.
const MAX_CHILDREN: usize = 64;

/// Children that vote.
pub struct QuorumNode {
    children: Vec<Arc<dyn BlockNode>>,
    threshold: usize,
    /// The first child that can be read decides.
    fifo: bool,
    /// The process ends when two children differ.
    verify: bool,
    /// Children that were outvoted are written again.
    rewrite: bool,
}

impl QuorumNode {
    /// Runs a request on all children; enough of them must succeed.
    fn all(&self, act: impl Fn(&dyn BlockNode) -> IoResult<()>) -> IoResult<()> {
        let mut good = 0;
        let mut failure = None;
        for child in &self.children {
            match act(child.as_ref()) {
                Ok(()) => good += 1,
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if good < self.threshold => Err(error),
            _ => Ok(()),
        }
    }

    fn read_first(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let mut failure = io::Error::from_raw_os_error(host::EIO);
        for child in &self.children {
            match child.read_at(offset, buf) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn read_vote(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let mut versions: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
        let mut failure = None;
        for (index, child) in self.children.iter().enumerate() {
            let mut data = vec![0; buf.len()];
            match child.read_at(offset, &mut data) {
                Err(error) => {
                    failure.get_or_insert(error);
                }
                Ok(()) => match versions.iter_mut().find(|(known, _)| *known == data) {
                    Some((_, votes)) => votes.push(index),
                    None => versions.push((data, vec![index])),
                },
            }
        }
        if self.verify && versions.len() > 1 {
            let at = versions[0].0.iter().zip(&versions[1].0).position(|(a, b)| a != b).unwrap_or(0);
            let len = buf.len();
            eprintln!("quorum: offset={offset} bytes={len} contents mismatch at offset {}", offset + at as u64);
            std::process::exit(1);
        }
        let best = versions.iter().enumerate().max_by_key(|(index, (_, votes))| (votes.len(), usize::MAX - index));
        let Some((_, (data, votes))) = best.filter(|(_, (_, votes))| votes.len() >= self.threshold) else {
            return Err(failure.unwrap_or_else(|| io::Error::from_raw_os_error(host::EIO)));
        };
        buf.copy_from_slice(data);
        if self.rewrite {
            for (index, child) in self.children.iter().enumerate().filter(|(index, _)| !votes.contains(index)) {
                if let Err(error) = child.write_at(offset, data, false) {
                    log::warn!("quorum: child {index} could not be corrected: {error}");
                }
            }
        }
        Ok(())
    }
}

impl BlockNode for QuorumNode {
    /// All children have one length; else there is no answer.
    fn len(&self) -> IoResult<u64> {
        let mut len = None;
        for child in &self.children {
            let this = child.len()?;
            if *len.get_or_insert(this) != this {
                return Err(io::Error::from_raw_os_error(host::EIO));
            }
        }
        Ok(len.unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        if self.fifo { self.read_first(offset, buf) } else { self.read_vote(offset, buf) }
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.all(|child| child.write_at(offset, buf, fua))
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.all(|child| child.zero(offset, len, may_unmap))
    }

    fn discard(&self, _offset: u64, _len: u64) -> IoResult<()> {
        // What the children would read afterwards may differ.
        Ok(())
    }

    fn flush(&self) -> IoResult<()> {
        self.all(|child| child.flush())
    }

    /// Zeros only where all children have zeros.
    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        let mut known = len;
        let mut zero = true;
        for child in &self.children {
            let (extent, part) = child.extent(offset, known)?;
            known = part;
            zero &= extent.zero;
        }
        Ok((Extent { allocated: true, zero, data: !zero, ..Extent::default() }, known))
    }

    fn info(&self) -> NodeInfo {
        let read_only = self.children.iter().any(|child| child.info().read_only);
        NodeInfo { driver: "quorum", filename: String::new(), read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        self.children.iter().map(|child| ("children", Arc::clone(child))).collect()
    }
}

/// `quorum`.
pub struct Quorum;

fn invalid(text: &str) -> OpenError {
    OpenError::Invalid(text.to_owned())
}

impl Driver for Quorum {
    fn name(&self) -> &'static str {
        "quorum"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[
            ("children", KeyKind::Nodes),
            ("vote-threshold", KeyKind::Integer),
            ("blkverify", KeyKind::Switch),
            ("rewrite-corrupted", KeyKind::Switch),
            ("read-pattern", KeyKind::Word(&["quorum", "fifo"])),
        ]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let threshold = context.options.take_size("vote-threshold")?.unwrap_or(0);
        let fifo = match context.options.take_str("read-pattern")?.as_deref() {
            None | Some("quorum") => false,
            Some("fifo") => true,
            Some(_) => return Err(invalid("Please set read-pattern as fifo or quorum")),
        };
        let verify = context.options.take_bool("blkverify")?.unwrap_or(false);
        let rewrite = context.options.take_bool("rewrite-corrupted")?.unwrap_or(false);
        let mut children = Vec::new();
        while let Some(child) = context.child(&format!("children.{}", children.len()), true)? {
            if children.len() == MAX_CHILDREN {
                return Err(OpenError::Unsupported(format!("a quorum of more than {MAX_CHILDREN} children")));
            }
            children.push(child.node);
        }
        if children.is_empty() {
            return Err(invalid("Number of provided children must be 1 or more"));
        }
        if threshold < 1 {
            return Err(invalid("Parameter 'vote-threshold' expects a value >= 1"));
        }
        let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
        if threshold > children.len() {
            return Err(invalid("threshold may not exceed children count"));
        }
        if verify && (children.len() != 2 || threshold != 2) {
            let text = "blkverify=on can only be set if there are exactly two files and vote-threshold is 2";
            return Err(invalid(text));
        }
        if verify && rewrite {
            return Err(invalid("rewrite-corrupted=on cannot be used with blkverify=on"));
        }
        context.finish()?;
        Ok(Opened::new(Arc::new(QuorumNode { children, threshold, fifo, verify, rewrite }), String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn the_majority_decides_and_the_rest_is_corrected() {
        let children: Vec<_> = (0..3).map(|_| MemoryNode::new(4096)).collect();
        let nodes = children.iter().map(|child| Arc::clone(child) as Arc<dyn BlockNode>).collect();
        let node = QuorumNode { children: nodes, threshold: 2, fifo: false, verify: false, rewrite: true };
        node.write_at(0, b"same", false).unwrap();
        children[0].write_at(0, b"evil", false).unwrap();
        let mut buf = [0; 4];
        node.read_at(0, &mut buf).unwrap();
        assert_eq!(&buf, b"same");
        children[0].read_at(0, &mut buf).unwrap();
        assert_eq!(&buf, b"same");
        children[0].write_at(0, b"evil", false).unwrap();
        children[1].write_at(0, b"more", false).unwrap();
        assert!(node.read_at(0, &mut buf).is_err());
    }
}
