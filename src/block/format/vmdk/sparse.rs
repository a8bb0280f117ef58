//! Hosted sparse extents and stream-optimized ones ("Hosted Sparse Extents", "Stream-Optimized Compressed Sparse
//! Extents"): a header, a directory of tables of grains, and grains of usually 64 KiB.

use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::block::error::OpenError;
use crate::block::format::blocks::pages::Pages;
use crate::block::format::blocks::parts::{Space, corrupt, inside, le16, le32, le64, length, set};
use crate::block::format::blocks::{Codec, Map, Place};
use crate::block::image::{CheckReport, Details, Repair};
use crate::block::node::{BlockNode, IoResult};

pub(super) const MAGIC: &[u8; 4] = b"KDMV";
pub(super) const SECTOR: u64 = 512;
/// Entries of a grain table, always.
pub(super) const TABLE_ENTRIES: u64 = 512;
/// The directory is at the end of the file; its place is in the footer.
const DIRECTORY_AT_END: u64 = u64::MAX;
/// A grain that reads as zeros.
const ZERO_GRAIN: u32 = 1;
/// Grains are unpacked in memory.
const MAX_PACKED_GRAIN: u64 = 2 << 20;
const MAX_GRAIN_SECTORS: u64 = 0x0020_0000;
/// Bytes of a grain marker: the first sector's number and the length of what follows.
const MARKER: usize = 12;

/// Bits of `flags`.
pub(super) mod flag {
    pub(crate) const NEWLINE_TEST: u32 = 1;
    pub(crate) const REDUNDANT_TABLES: u32 = 1 << 1;
    pub(crate) const ZERO_GRAINS: u32 = 1 << 2;
    pub(crate) const COMPRESSED: u32 = 1 << 16;
    pub(crate) const MARKERS: u32 = 1 << 17;
}

/// The header (`SparseExtentHeader`), validated. Lengths and offsets are in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) descriptor: u64,
    pub(super) descriptor_len: u64,
    pub(super) redundant_directory: u64,
    pub(super) directory: u64,
    pub(super) overhead: u64,
}

impl Header {
    pub(super) const BYTES: usize = 512;

    fn decode(head: &[u8]) -> Self {
        Self {
            version: le32(head, 4),
            flags: le32(head, 8),
            capacity: le64(head, 12),
            grain: le64(head, 20),
            descriptor: le64(head, 28),
            descriptor_len: le64(head, 36),
            redundant_directory: le64(head, 48),
            directory: le64(head, 56),
            overhead: le64(head, 64),
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut head = [0; Self::BYTES];
        set(&mut head, 0, MAGIC);
        set(&mut head, 4, &self.version.to_le_bytes());
        set(&mut head, 8, &self.flags.to_le_bytes());
        let places = [(12, self.capacity), (20, self.grain), (28, self.descriptor), (36, self.descriptor_len)];
        let more = [(48, self.redundant_directory), (56, self.directory), (64, self.overhead)];
        for (at, value) in places.into_iter().chain(more) {
            set(&mut head, at, &value.to_le_bytes());
        }
        set(&mut head, 44, &512_u32.to_le_bytes());
        set(&mut head, 73, b"\n \r\n");
        set(&mut head, 77, &u16::from(self.flags & flag::COMPRESSED != 0).to_le_bytes());
        head
    }

    /// Reads the header, or the footer that it refers to.
    pub(super) fn read(file: &dyn BlockNode) -> Result<Self, OpenError> {
        let failed = || OpenError::io("Could not read header from file");
        let mut head = [0; Self::BYTES];
        file.read_at(0, &mut head).map_err(failed())?;
        if !head.starts_with(MAGIC) {
            return Err(OpenError::Image(format!("'{}' is not a sparse VMDK extent", file.info().filename)));
        }
        if le64(&head, 56) == DIRECTORY_AT_END {
            // A footer marker, the footer and an end-of-stream marker are the last three sectors.
            let at = length(file)?.checked_sub(2 * SECTOR);
            let at = at.ok_or_else(|| OpenError::Image("Footer of the VMDK image is missing".to_owned()))?;
            let descriptor = head;
            file.read_at(at, &mut head).map_err(failed())?;
            if !head.starts_with(MAGIC) {
                return Err(OpenError::Image("Footer of the VMDK image is damaged".to_owned()));
            }
            head[28..44].copy_from_slice(&descriptor[28..44]);
        }
        Self::decode(&head).check(&head)
    }

    fn check(self, head: &[u8]) -> Result<Self, OpenError> {
        let bad = |text: &str| Err(OpenError::Image(text.to_owned()));
        if !(1..=3).contains(&self.version) {
            return Err(OpenError::Image(format!("Unsupported VMDK version {}", self.version)));
        }
        if u64::from(le32(head, 44)) != TABLE_ENTRIES {
            return bad("L2 table size too big");
        }
        if self.grain == 0 || !self.grain.is_power_of_two() || self.grain > MAX_GRAIN_SECTORS {
            return bad("Invalid granularity, image may be corrupt");
        }
        if self.flags & flag::COMPRESSED != 0 {
            let algorithm = le16(head, 77);
            if algorithm != 1 {
                return Err(OpenError::Unsupported(format!("Compression algorithm {algorithm} of a VMDK extent")));
            }
            if self.grain * SECTOR > MAX_PACKED_GRAIN {
                return bad("Invalid granularity, image may be corrupt");
            }
        }
        let most = i64::MAX.cast_unsigned() / SECTOR;
        if self.capacity > most || self.directory > most || self.redundant_directory > most || self.descriptor > most {
            return bad("L1 entry size is invalid");
        }
        Ok(self)
    }

    pub(super) fn directory_entries(&self) -> u64 {
        self.capacity.div_ceil(self.grain * TABLE_ENTRIES)
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags & flag::COMPRESSED != 0
    }
}

/// The directory and the tables.
pub(super) struct SparseMap {
    file: Arc<dyn BlockNode>,
    header: Header,
    pages: Pages,
    space: Space,
}

impl SparseMap {
    pub(super) fn open(file: &Arc<dyn BlockNode>, header: Header) -> Result<Self, OpenError> {
        let len = header.directory_entries() * 4;
        inside(file.as_ref(), "The grain directory", header.directory * SECTOR, len)?;
        if header.flags & flag::REDUNDANT_TABLES != 0 {
            inside(file.as_ref(), "The redundant grain directory", header.redundant_directory * SECTOR, len)?;
        }
        let tables = (header.directory * SECTOR + len).max(SECTOR);
        let mut space = Space::new(Arc::clone(file), tables)?;
        space.align(SECTOR);
        Ok(Self { file: Arc::clone(file), header, pages: Pages::new(Arc::clone(file)), space })
    }

    fn grain_bytes(&self) -> u64 {
        self.header.grain * SECTOR
    }

    /// The offset of the table that a directory names for a grain.
    fn table(&mut self, directory: u64, grain: u64) -> IoResult<Option<u64>> {
        let entry = directory * SECTOR + grain / TABLE_ENTRIES * 4;
        let sector = u32::from_le_bytes(self.pages.get(entry)?);
        Ok((sector != 0).then(|| u64::from(sector) * SECTOR))
    }

    /// A table for the grain, new if there is none.
    fn table_or_new(&mut self, directory: u64, grain: u64) -> IoResult<u64> {
        if let Some(table) = self.table(directory, grain)? {
            return Ok(table);
        }
        let table = self.space.take(TABLE_ENTRIES * 4, 0, SECTOR)?;
        let sector = self.sector(table)?;
        self.file.write_at(table, &vec![0; (TABLE_ENTRIES * 4) as usize], false)?;
        self.pages.put(directory * SECTOR + grain / TABLE_ENTRIES * 4, &sector.to_le_bytes())?;
        Ok(table)
    }

    fn sector(&self, offset: u64) -> IoResult<u32> {
        u32::try_from(offset / SECTOR).map_err(|_| {
            corrupt(
                "vmdk",
                self.file.as_ref(),
                &format!("offset {offset} does not fit a grain table of 32-bit sectors"),
            )
        })
    }

    fn entry(&mut self, grain: u64) -> IoResult<Option<u32>> {
        let Some(table) = self.table(self.header.directory, grain)? else { return Ok(None) };
        self.pages.get(table + grain % TABLE_ENTRIES * 4).map(u32::from_le_bytes).map(Some)
    }

    fn zero_grains(&self) -> bool {
        self.header.flags & flag::ZERO_GRAINS != 0
    }
}

impl Map for SparseMap {
    fn driver(&self) -> &'static str {
        "vmdk"
    }

    fn place(&mut self, grain: u64, count: u64) -> IoResult<(Place, u64)> {
        let Some(entry) = self.entry(grain)? else {
            return Ok((Place::Absent, count.min(TABLE_ENTRIES - grain % TABLE_ENTRIES)));
        };
        let at = u64::from(entry) * SECTOR;
        let place = match entry {
            0 => Place::Absent,
            ZERO_GRAIN if self.zero_grains() => Place::Zero,
            _ if self.header.is_compressed() => {
                // Only its marker says how long it is; data that cannot be packed grows by very little.
                let grain = self.grain_bytes();
                Place::Packed { at, len: grain + grain / 8 + SECTOR }
            }
            _ => Place::At(at),
        };
        Ok((place, 1))
    }

    fn reserve(&mut self, _grain: u64, count: u64) -> IoResult<(u64, u64)> {
        let at = self.space.take(count * self.grain_bytes(), 0, self.header.grain.min(128) * SECTOR)?;
        self.sector(at + count * self.grain_bytes())?;
        Ok((at, count))
    }

    fn point(&mut self, grain: u64, place: Place) -> IoResult<()> {
        let entry = match place {
            Place::At(at) | Place::Packed { at, .. } => self.sector(at)?,
            Place::Zero => ZERO_GRAIN,
            Place::Absent => 0,
        };
        let mut directories = vec![self.header.directory];
        if self.header.flags & flag::REDUNDANT_TABLES != 0 {
            directories.push(self.header.redundant_directory);
        }
        for directory in directories {
            let table = self.table_or_new(directory, grain)?;
            self.pages.put(table + grain % TABLE_ENTRIES * 4, &entry.to_le_bytes())?;
        }
        Ok(())
    }

    fn reserve_packed(&mut self, len: u64) -> IoResult<u64> {
        let at = self.space.take(len.next_multiple_of(SECTOR), 0, SECTOR)?;
        self.sector(at + len).map(|_| at)
    }

    fn has_zero(&self) -> bool {
        self.zero_grains()
    }

    fn is_dirty(&self) -> bool {
        self.pages.is_dirty()
    }

    fn is_full(&self) -> bool {
        self.pages.is_full()
    }

    fn store(&mut self) -> IoResult<()> {
        self.space.settle()?;
        self.pages.store()
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details { cluster_size: Some(self.grain_bytes()), ..Details::default() })
    }

    fn can_check(&self) -> bool {
        true
    }

    /// Grains lie inside the file. A repair could only invent what should be there.
    fn check(&mut self, repair: Option<Repair>) -> IoResult<CheckReport> {
        if repair.is_some() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let mut report = CheckReport::default();
        let end = self.file.len()?;
        let grains = self.header.capacity.div_ceil(self.header.grain);
        let mut grain = 0;
        while grain < grains {
            let (place, known) = self.place(grain, grains - grain)?;
            if let Place::At(at) | Place::Packed { at, .. } = place
                && at >= end
            {
                report.corruptions += 1;
                report.messages.push(format!("ERROR: cluster offset after file size. offset {at}"));
            }
            grain += known;
        }
        Ok(report)
    }
}

/// Compressed grains: a marker, if the extent has markers, and a zlib stream.
pub(super) struct GrainCodec {
    pub(super) markers: bool,
    pub(super) grain_sectors: u64,
}

impl Codec for GrainCodec {
    fn unpack(&self, _grain: u64, packed: &[u8], out: &mut [u8]) -> IoResult<()> {
        let damaged = || std::io::Error::from_raw_os_error(5); // EIO
        let data = if self.markers {
            let len = usize::try_from(le32(packed, 8)).map_err(|_| damaged())?;
            packed.get(MARKER..).and_then(|rest| rest.get(..len)).ok_or_else(damaged)?
        } else {
            packed
        };
        let mut decoder = ZlibDecoder::new(data);
        let mut done = 0;
        while done < out.len() {
            match decoder.read(&mut out[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(_) => return Err(damaged()),
            }
        }
        // The last grain of a disk may be short.
        if done == 0 {
            return Err(damaged());
        }
        out[done..].fill(0);
        Ok(())
    }

    fn pack(&self, grain: u64, content: &[u8]) -> IoResult<Option<Vec<u8>>> {
        let mut packed = Vec::with_capacity(content.len() / 2);
        if self.markers {
            packed.extend((grain * self.grain_sectors).to_le_bytes());
            packed.extend([0; 4]);
        }
        let start = packed.len();
        let mut encoder = ZlibEncoder::new(packed, Compression::default());
        encoder.write_all(content)?;
        let mut packed = encoder.finish()?;
        if self.markers {
            let len = u32::try_from(packed.len() - start).map_err(|_| std::io::ErrorKind::InvalidData)?;
            packed[8..MARKER].copy_from_slice(&len.to_le_bytes());
        }
        Ok(Some(packed))
    }

    fn always(&self) -> bool {
        true
    }
}
