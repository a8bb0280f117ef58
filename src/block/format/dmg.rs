//! `dmg`: Apple's disk images (UDIF: the "koly" trailer, a property list, and "mish" tables of chunks), for reading.
//!
//! Chunks may be zeros, raw, ADC, zlib, bzip2 or LZFSE; LZMA and images whose tables are in a resource fork only are
//! refused by name.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::blocks::parts::{be32, be64, inside, length};
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{Details, ImageOps};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};

const SECTOR: u64 = 512;
const TRAILER: u64 = 512;
/// The longest chunk, packed or not, as QEMU has it.
const MAX_CHUNK: u64 = 64 << 20;
/// The longest property list.
const MAX_PLIST: u64 = 16 << 20;
const MAX_CHUNKS: usize = 1 << 20;
/// Offsets in the "mish" table.
const MISH_CHUNKS: usize = 204;
const CHUNK_BYTES: usize = 40;

/// How a chunk is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    Zero,
    Raw,
    Adc,
    Zlib,
    Bzip2,
    Lzfse,
}

/// A run of the disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Chunk {
    start: u64,
    len: u64,
    packing: Packing,
    at: u64,
    packed: u64,
}

struct DmgNode {
    file: Arc<dyn BlockNode>,
    chunks: Vec<Chunk>,
    size: u64,
    /// The chunk that was unpacked last, by its number.
    unpacked: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

impl DmgNode {
    fn open(file: &Arc<dyn BlockNode>) -> Result<Self, OpenError> {
        let bad = |text: &str| OpenError::Image(text.to_owned());
        let end = length(file.as_ref())?;
        let at = end.checked_sub(TRAILER).ok_or_else(|| bad("dmg file must be at least 512 bytes long"))?;
        let mut trailer = [0; TRAILER as usize];
        file.read_at(at, &mut trailer).map_err(OpenError::io("Could not read DMG trailer"))?;
        if !trailer.starts_with(b"koly") {
            return Err(bad("Could not locate UDIF trailer in dmg file"));
        }
        let data = be64(&trailer, 24);
        let (plist, len) = (be64(&trailer, 216), be64(&trailer, 224));
        if len == 0 {
            return Err(OpenError::Unsupported("A dmg file with a resource fork only".to_owned()));
        }
        if len > MAX_PLIST {
            return Err(OpenError::Image(format!("dmg property list at offset {plist} has {len} bytes")));
        }
        inside(file.as_ref(), "The property list", plist, len)?;
        let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_at(plist, &mut text).map_err(OpenError::io("Could not read DMG property list"))?;
        let mut chunks = Vec::new();
        for table in tables(&String::from_utf8_lossy(&text)) {
            read_table(&table, data, end, &mut chunks)?;
        }
        chunks.sort_by_key(|chunk| chunk.start);
        let mut size = 0;
        for chunk in &chunks {
            if chunk.start < size {
                return Err(OpenError::Image(format!("dmg chunks overlap at byte {} of the disk", chunk.start)));
            }
            size = chunk.start + chunk.len;
        }
        Ok(Self { file: Arc::clone(file), chunks, size, unpacked: Mutex::new(None) })
    }

    /// The chunk at an offset and for how many bytes it holds; `None`: a gap.
    fn find(&self, offset: u64) -> (Option<usize>, u64) {
        let next = self.chunks.partition_point(|chunk| chunk.start + chunk.len <= offset);
        match self.chunks.get(next) {
            Some(chunk) if chunk.start <= offset => (Some(next), chunk.start + chunk.len - offset),
            Some(chunk) => (None, chunk.start - offset),
            None => (None, self.size.saturating_sub(offset)),
        }
    }

    fn content(&self, number: usize, chunk: Chunk) -> IoResult<Arc<Vec<u8>>> {
        if let Some((cached, content)) = &*lock(&self.unpacked)
            && *cached == number
        {
            return Ok(Arc::clone(content));
        }
        let size = |len: u64| usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory);
        let mut packed = vec![0; size(chunk.packed)?];
        self.file.read_at(chunk.at, &mut packed)?;
        let content = unpack(chunk.packing, &packed, size(chunk.len)?).map_err(|_| {
            log::error!("dmg: {}: damaged chunk at offset {}", self.file.info().filename, chunk.at);
            io::Error::from_raw_os_error(5) // EIO
        })?;
        let content = Arc::new(content);
        *lock(&self.unpacked) = Some((number, Arc::clone(&content)));
        Ok(content)
    }

    fn bounds(&self, offset: u64, len: u64) -> IoResult<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn unpack(packing: Packing, packed: &[u8], len: usize) -> IoResult<Vec<u8>> {
    let mut out = vec![0; len];
    match packing {
        Packing::Zlib => flate2::read::ZlibDecoder::new(packed).read_exact(&mut out)?,
        Packing::Bzip2 => bzip2::read::BzDecoder::new(packed).read_exact(&mut out)?,
        Packing::Lzfse => {
            let mut decoder = lzfse_rust::LzfseRingDecoder::default();
            decoder.reader_bytes(packed).read_exact(&mut out)?;
        }
        Packing::Adc => unpack_adc(packed, &mut out).ok_or(io::ErrorKind::InvalidData)?,
        Packing::Zero | Packing::Raw => return Err(io::ErrorKind::InvalidData.into()),
    }
    Ok(out)
}

/// Apple Data Compression: literal runs, and copies from up to 1 KiB or 64 KiB back.
fn unpack_adc(packed: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut from, mut to) = (0, 0);
    while to < out.len() {
        let code = usize::from(*packed.get(from)?);
        let byte = |at: usize| packed.get(from + at).map(|byte| usize::from(*byte));
        if code & 0x80 != 0 {
            let len = (code & 0x7f) + 1;
            out.get_mut(to..to + len)?.copy_from_slice(packed.get(from + 1..from + 1 + len)?);
            (from, to) = (from + 1 + len, to + len);
            continue;
        }
        let (len, back, used) = if code & 0x40 != 0 {
            ((code & 0x3f) + 4, (byte(1)? << 8 | byte(2)?) + 1, 3)
        } else {
            ((code >> 2 & 0xf) + 3, ((code & 3) << 8 | byte(1)?) + 1, 2)
        };
        for _ in 0..len {
            let copied = *out.get(to.checked_sub(back)?)?;
            *out.get_mut(to)? = copied;
            to += 1;
        }
        from += used;
    }
    Some(())
}

/// The tables in the list's "blkx" array.
fn tables(plist: &str) -> Vec<Vec<u8>> {
    let Some(start) = plist.find("<key>blkx</key>") else { return Vec::new() };
    let array = &plist[start..];
    let array = &array[..array.find("</array>").unwrap_or(array.len())];
    let pieces = array.split("<data>").skip(1);
    pieces.filter_map(|piece| piece.split("</data>").next()).map(base64).collect()
}

/// RFC 4648 4; what is not of the alphabet (white space) is skipped.
fn base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    out
}

/// The chunks of one table. `data`: where the data fork begins; `end`: where the file ends.
fn read_table(table: &[u8], data: u64, end: u64, chunks: &mut Vec<Chunk>) -> Result<(), OpenError> {
    let bad = |text: String| Err(OpenError::Image(text));
    if !table.starts_with(b"mish") {
        return Ok(()); // others are checksums of partitions that have none
    }
    let (first, base) = (be64(table, 8), be64(table, 24));
    let count = be32(table, 200) as usize;
    let room = table.len().saturating_sub(MISH_CHUNKS) / CHUNK_BYTES;
    if count > room || chunks.len() + count > MAX_CHUNKS {
        return bad(format!("dmg table has {count} chunks, and room for {room}"));
    }
    for number in 0..count {
        let at = MISH_CHUNKS + number * CHUNK_BYTES;
        let packing = match be32(table, at) {
            0 | 2 => Packing::Zero,
            1 => Packing::Raw,
            0x8000_0004 => Packing::Adc,
            0x8000_0005 => Packing::Zlib,
            0x8000_0006 => Packing::Bzip2,
            0x8000_0007 => Packing::Lzfse,
            0x7fff_fffe | 0xffff_ffff => continue, // comment, end
            0x8000_0008 => return Err(OpenError::Unsupported("LZMA compression of dmg files".to_owned())),
            other => return bad(format!("dmg chunk type {other:#x} is unknown")),
        };
        let sum = |a: u64, b: u64| a.checked_add(b);
        let start = sum(first, be64(table, at + 8)).and_then(|sector| sector.checked_mul(SECTOR));
        let len = be64(table, at + 16).checked_mul(SECTOR);
        let place = sum(data, base).and_then(|place| sum(place, be64(table, at + 24)));
        let packed = be64(table, at + 32);
        let (Some(start), Some(len), Some(place)) = (start, len, place) else {
            return bad(format!("dmg chunk {number} lies outside of everything"));
        };
        if len == 0 {
            continue;
        }
        let disk_end = sum(start, len).is_some_and(|end| i64::try_from(end).is_ok());
        let unpackable = matches!(packing, Packing::Zero | Packing::Raw) || len <= MAX_CHUNK && packed <= MAX_CHUNK;
        let stored = packing == Packing::Zero || sum(place, packed).is_some_and(|last| last <= end);
        let whole = packing != Packing::Raw || packed >= len;
        if !disk_end || !unpackable || !stored || !whole {
            return bad(format!(
                "dmg chunk {number} (disk offset {start}, {len} bytes; file offset {place}, {packed} bytes) is invalid"
            ));
        }
        chunks.push(Chunk { start, len, packing, at: place, packed });
    }
    Ok(())
}

impl BlockNode for DmgNode {
    fn len(&self) -> IoResult<u64> {
        Ok(self.size)
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> IoResult<()> {
        self.bounds(offset, buf.len() as u64)?;
        while !buf.is_empty() {
            let (number, len) = self.find(offset);
            let (head, rest) = buf.split_at_mut(usize::try_from(len.min(buf.len() as u64)).unwrap_or(0));
            match number.map(|number| (number, self.chunks[number])) {
                None | Some((_, Chunk { packing: Packing::Zero, .. })) => head.fill(0),
                Some((_, chunk)) if chunk.packing == Packing::Raw => {
                    self.file.read_at(chunk.at + (offset - chunk.start), head)?;
                }
                Some((number, chunk)) => {
                    let content = self.content(number, chunk)?;
                    let from = usize::try_from(offset - chunk.start).unwrap_or(0);
                    head.copy_from_slice(&content[from..from + head.len()]);
                }
            }
            offset += head.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _buf: &[u8], _fua: bool) -> IoResult<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn zero(&self, _offset: u64, _len: u64, _may_unmap: bool) -> IoResult<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn discard(&self, _offset: u64, _len: u64) -> IoResult<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> IoResult<()> {
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.bounds(offset, len)?;
        let (number, known) = self.find(offset);
        let data = number.is_some_and(|number| self.chunks[number].packing != Packing::Zero);
        let compressed =
            number.is_some_and(|number| !matches!(self.chunks[number].packing, Packing::Zero | Packing::Raw));
        let extent = Extent { allocated: true, zero: !data, data, compressed, offset: None };
        Ok((extent, known.max(1).min(len.max(1))))
    }

    fn image(&self) -> Option<&dyn ImageOps> {
        Some(self)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "dmg", filename: self.file.info().filename, read_only: true }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        vec![("file", Arc::clone(&self.file))]
    }
}

impl ImageOps for DmgNode {
    fn details(&self) -> IoResult<Details> {
        Ok(Details::default())
    }
}

/// `dmg`.
pub struct Dmg;

impl Driver for Dmg {
    fn name(&self) -> &'static str {
        "dmg"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    /// What tells a dmg file is at its end.
    fn probe(&self, _head: &[u8], filename: &str) -> u8 {
        if filename.ends_with(".dmg") { 2 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        context.finish()?;
        context.share(&file.node, true)?;
        let node = DmgNode::open(&file.node)?;
        Ok(Opened::new(Arc::new(node), file.filename).over(file.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adc_copies_from_what_it_wrote() {
        let mut out = [0; 10];
        // "ab", then 4 bytes from 2 back (short form), then 4 from 6 back (long form).
        unpack_adc(&[0x81, b'a', b'b', 0x04, 0x01, 0x40, 0x00, 0x05], &mut out).unwrap();
        assert_eq!(&out, b"ababababab");
        assert!(unpack_adc(&[0x04, 0x01], &mut out).is_none());
    }

    #[test]
    fn base64_skips_white_space() {
        assert_eq!(base64("bWlz\n\t aA=="), b"mish");
    }
}
