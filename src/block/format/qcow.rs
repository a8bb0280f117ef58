//! `qcow`: QEMU's first copy-on-write format (the header and tables of qcow version 1, big-endian).
//!
//! A header, an L1 table right behind it, L2 tables, and clusters, which may be compressed (raw deflate, 12-bit window).
//! Legacy AES encryption is refused by name.

use std::io;
use std::sync::Arc;

use super::blocks::levels::{Levels, Shape};
use super::blocks::parts::{Space, be32, be64, corrupt, head, inside, no_preallocation, set, while_creating};
use super::blocks::{Blocks, Codec, Map, Parts, Place};
use super::qcow2::compress::{pack, unpack};
use super::qcow2::header::Compression;
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::Details;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, IoResult};

const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER_BYTES: u64 = 48;
/// An L2 entry of a compressed cluster.
const COMPRESSED: u64 = 1 << 63;

/// The header, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Header {
    size: u64,
    cluster_bits: u32,
    l2_bits: u32,
    l1: u64,
    backing: Option<String>,
}

impl Header {
    fn read(file: &dyn BlockNode) -> Result<Self, OpenError> {
        let bad = |text: &str| Err(OpenError::Image(text.to_owned()));
        let head = head::<48>(file)?;
        if !head.starts_with(MAGIC) {
            return bad("Image not in qcow format");
        }
        let version = be32(&head, 4);
        if version != 1 {
            return Err(OpenError::Image(format!("qcow (v1) does not support qcow version {version}")));
        }
        let size = be64(&head, 24);
        if size <= 1 {
            return bad("Image size is too small (must be at least 2 bytes)");
        }
        let (cluster_bits, l2_bits) = (u32::from(head[32]), u32::from(head[33]));
        if !(9..=16).contains(&cluster_bits) {
            return bad("Cluster size must be between 512 and 64k");
        }
        if !(6..=13).contains(&l2_bits) {
            return bad("L2 table size must be between 512 and 64k");
        }
        match be32(&head, 36) {
            0 => {}
            1 => return Err(OpenError::Unsupported("AES encryption of qcow images".to_owned())),
            _ => return bad("invalid encryption method in qcow header"),
        }
        let l1 = be64(&head, 40);
        let header = Self { size, cluster_bits, l2_bits, l1, backing: None };
        if i64::try_from(size).is_err() || header.l1_entries() > 1 << 28 {
            return bad("Image too large");
        }
        if l1 < HEADER_BYTES {
            return bad("L1 table offset is inside the header");
        }
        inside(file, "The L1 table", l1, header.l1_entries() * 8)?;
        header.with_backing(file, &head)
    }

    fn l1_entries(&self) -> u64 {
        self.size.div_ceil(1 << (self.cluster_bits + self.l2_bits))
    }

    fn with_backing(mut self, file: &dyn BlockNode, head: &[u8]) -> Result<Self, OpenError> {
        let (at, len) = (be64(head, 8), u64::from(be32(head, 16)));
        if at == 0 {
            return Ok(self);
        }
        if len > 1023 {
            return Err(OpenError::Image("Backing file name too long".to_owned()));
        }
        let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_at(at, &mut name).map_err(OpenError::io("Could not read backing filename"))?;
        self.backing = Some(String::from_utf8_lossy(&name).into_owned());
        Ok(self)
    }
}

struct QcowMap {
    file: Arc<dyn BlockNode>,
    cluster_bits: u32,
    levels: Levels,
}

impl QcowMap {
    /// Where a compressed cluster's length begins in an entry.
    fn length_shift(&self) -> u32 {
        63 - self.cluster_bits
    }

    fn bad(&self, cluster: u64, offset: u64) -> io::Error {
        let what = format!("the offset {offset} of cluster {cluster} is not inside the file");
        corrupt("qcow", self.file.as_ref(), &what)
    }
}

impl Map for QcowMap {
    fn driver(&self) -> &'static str {
        "qcow"
    }

    fn place(&mut self, cluster: u64, count: u64) -> IoResult<(Place, u64)> {
        let entry = match self.levels.entry(cluster)? {
            Err(run) => return Ok((Place::Absent, run.min(count))),
            Ok(entry) => entry,
        };
        let shift = self.length_shift();
        let place = if entry == 0 {
            Place::Absent
        } else if entry & COMPRESSED != 0 {
            let len = (entry & !COMPRESSED) >> shift & ((1 << self.cluster_bits) - 1);
            Place::Packed { at: entry & ((1 << shift) - 1), len }
        } else {
            Place::At(entry)
        };
        let end = self.levels.space.end();
        let low = self.levels.shape.l1_offset + self.levels.shape.l1_entries * 8;
        match place {
            Place::At(at) | Place::Packed { at, .. } if at < low || at >= end => Err(self.bad(cluster, at)),
            _ => Ok((place, 1)),
        }
    }

    fn reserve(&mut self, _cluster: u64, count: u64) -> IoResult<(u64, u64)> {
        let size = self.levels.shape.cluster;
        Ok((self.levels.space.take(count * size, 0, size)?, count))
    }

    fn point(&mut self, cluster: u64, place: Place) -> IoResult<()> {
        let value = match place {
            Place::At(at) => at,
            Place::Packed { at, len } => {
                if at >> self.length_shift() != 0 {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                COMPRESSED | len << self.length_shift() | at
            }
            _ => 0,
        };
        self.levels.set(cluster, value)
    }

    fn reserve_packed(&mut self, len: u64) -> IoResult<u64> {
        self.levels.space.take(len, 0, 1)
    }

    fn is_dirty(&self) -> bool {
        self.levels.is_dirty()
    }

    fn is_full(&self) -> bool {
        self.levels.is_full()
    }

    fn store(&mut self) -> IoResult<()> {
        self.levels.store()
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details { cluster_size: Some(self.levels.shape.cluster), ..Details::default() })
    }
}

/// Raw deflate.
struct Deflate;

impl Codec for Deflate {
    fn unpack(&self, _cluster: u64, packed: &[u8], out: &mut [u8]) -> IoResult<()> {
        unpack(Compression::Zlib, packed, out)
    }

    fn pack(&self, _cluster: u64, content: &[u8]) -> IoResult<Option<Vec<u8>>> {
        pack(Compression::Zlib, content)
    }

    fn always(&self) -> bool {
        false
    }
}

const KEYS: Keys = &[("file", KeyKind::Node), ("backing", KeyKind::Node), ("encrypt", KeyKind::Refused)];

/// `qcow`.
pub struct Qcow;

impl Driver for Qcow {
    fn name(&self) -> &'static str {
        "qcow"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(MAGIC) && be32(head, 4) == 1 { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        let read_only = context.read_only() || file.node.info().read_only;
        let header = Header::read(file.node.as_ref())?;
        context.share(&file.node, true)?;
        let backing = context.backing(&file.filename, header.backing.as_deref(), None)?;
        context.finish()?;
        let (size, cluster) = (header.size.next_multiple_of(512), 1 << header.cluster_bits);
        let shape = Shape {
            driver: "qcow",
            l1_offset: header.l1,
            l1_entries: header.l1_entries(),
            l2_entries: 1 << header.l2_bits,
            cluster,
            big_endian: true,
        };
        let space = Space::new(Arc::clone(&file.node), header.l1 + shape.l1_entries * 8)?;
        let levels = Levels::new(&file.node, shape, space);
        let map = QcowMap { file: Arc::clone(&file.node), cluster_bits: header.cluster_bits, levels };
        let parts = Parts {
            codec: Some(Box::new(Deflate)),
            ..Parts::new(&file.node, map, size, cluster, read_only)
                .over(backing.as_ref().map(|image| Arc::clone(&image.node)))
        };
        let mut opened = Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node);
        (opened.backing, opened.backing_name) = (backing, header.backing);
        Ok(opened)
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

/// In the order of QEMU's "Formatting" line.
const OPTIONS: &[CreateOption] = &[
    create::SIZE,
    create::BACKING_FILE,
    CreateOption::new("backing_fmt", OptionKind::Text, "Format of the backing image"),
    CreateOption::new(
        "encryption",
        OptionKind::Switch,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    CreateOption::new("encrypt.format", OptionKind::Text, "Encrypt the image, format choices: 'aes'"),
    CreateOption::new("encrypt.key-secret", OptionKind::Text, "ID of the secret that provides the AES encryption key"),
];

impl Creation for Qcow {
    fn options(&self) -> &'static [CreateOption] {
        OPTIONS
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        if options.is_on("encryption")
            || options.given("encrypt.format").is_some()
            || options.given("encrypt.key-secret").is_some()
        {
            return Err(OpenError::Unsupported("AES encryption of qcow images".to_owned()));
        }
        no_preallocation(options)?;
        let size = options.whole_sectors()?;
        if size == 0 {
            return Err(OpenError::Invalid("Image size is too small, cannot be zero length".to_owned()));
        }
        let backing = options.get("backing_file").filter(|name| !name.is_empty());
        // Over a backing file small clusters copy less; without one, larger ones need fewer tables.
        let (cluster_bits, l2_bits) = if backing.is_some() { (9, 12) } else { (12, 9) };
        let name = backing.unwrap_or_default();
        if name.len() > 1023 {
            return Err(OpenError::Invalid("Backing file name too long".to_owned()));
        }
        let l1 = (HEADER_BYTES + name.len() as u64).next_multiple_of(8);
        let header = Header { size, cluster_bits, l2_bits, l1, backing: None };
        if i64::try_from(size).is_err() || header.l1_entries() > 1 << 28 {
            return Err(OpenError::Invalid("Image too large".to_owned()));
        }
        let mut head = vec![0; usize::try_from(l1).unwrap_or(0)];
        set(&mut head, 0, MAGIC);
        set(&mut head, 4, &1_u32.to_be_bytes());
        if backing.is_some() {
            set(&mut head, 8, &HEADER_BYTES.to_be_bytes());
            set(&mut head, 16, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            set(&mut head, 48, name.as_bytes());
        }
        set(&mut head, 24, &size.to_be_bytes());
        set(&mut head, 32, &[cluster_bits.to_le_bytes()[0], l2_bits.to_le_bytes()[0]]);
        set(&mut head, 40, &l1.to_be_bytes());
        let file = place.file(filename, options)?;
        file.truncate(l1 + header.l1_entries() * 8).map_err(while_creating())?;
        file.write_at(0, &head, false).map_err(while_creating())
    }
}
