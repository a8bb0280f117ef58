//! `cloop`: the compressed loop device's images, version 2 (Knoppix cloop, compressed_loop.h), for reading.
//!
//! A shell script of 128 bytes, big-endian block length, count and offsets, and zlib streams.

use std::io::{self, Read};
use std::sync::Arc;

use flate2::read::ZlibDecoder;

use super::blocks::pages::Pages;
use super::blocks::parts::{be32, corrupt, head, inside};
use super::blocks::{Blocks, Codec, Map, Parts, Place};
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::node::{BlockNode, IoResult};

const MAGIC: &[u8] = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
/// Where the offsets are.
const OFFSETS: u64 = 136;
const MAX_BLOCK: u64 = 64 << 20;

struct CloopMap {
    file: Arc<dyn BlockNode>,
    pages: Pages,
    block: u64,
}

impl Map for CloopMap {
    fn driver(&self) -> &'static str {
        "cloop"
    }

    fn place(&mut self, block: u64, _count: u64) -> IoResult<(Place, u64)> {
        let at = u64::from_be_bytes(self.pages.get(OFFSETS + block * 8)?);
        let end = u64::from_be_bytes(self.pages.get(OFFSETS + block * 8 + 8)?);
        match end.checked_sub(at) {
            Some(len) if len <= 2 * self.block => Ok((Place::Packed { at, len }, 1)),
            _ => {
                let what = format!("block {block} from offset {at} to {end} is too long");
                Err(corrupt("cloop", self.file.as_ref(), &what))
            }
        }
    }
}

/// zlib streams, for reading.
struct Inflate;

impl Codec for Inflate {
    fn unpack(&self, _block: u64, packed: &[u8], out: &mut [u8]) -> IoResult<()> {
        ZlibDecoder::new(packed).read_exact(out).map_err(|_| io::Error::from_raw_os_error(5)) // EIO
    }

    fn pack(&self, _block: u64, _content: &[u8]) -> IoResult<Option<Vec<u8>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn always(&self) -> bool {
        true
    }
}

/// `cloop`.
pub struct Cloop;

impl Driver for Cloop {
    fn name(&self) -> &'static str {
        "cloop"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(MAGIC) { 2 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let bad = |text: String| Err(OpenError::Image(text));
        let file = context.file()?;
        context.finish()?;
        context.share(&file.node, true)?;
        let head = head::<136>(file.node.as_ref())?;
        let (block, blocks) = (u64::from(be32(&head, 128)), u64::from(be32(&head, 132)));
        if block == 0 {
            return bad("block_size cannot be zero".to_owned());
        }
        if !block.is_multiple_of(512) {
            return bad(format!("block_size {block} must be a multiple of 512"));
        }
        if block > MAX_BLOCK {
            return bad(format!("block_size {block} must be {} MB or less", MAX_BLOCK >> 20));
        }
        inside(file.node.as_ref(), "The offsets", OFFSETS, (blocks + 1) * 8)?;
        let map = CloopMap { file: Arc::clone(&file.node), pages: Pages::new(Arc::clone(&file.node)), block };
        let parts =
            Parts { codec: Some(Box::new(Inflate)), ..Parts::new(&file.node, map, blocks * block, block, true) };
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }
}
