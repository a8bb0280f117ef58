//! `vpc`: Virtual PC's and Hyper-V's VHD (Microsoft, "Virtual Hard Disk Image Format Specification", 1.0).
//!
//! A fixed disk is its content and a footer; a dynamic one is a copy of the footer, a header, a block allocation table
//! of big-endian sector numbers, and blocks, each behind a bitmap of the sectors that were written, with the footer at
//! the end. Differencing disks are refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::blocks::pages::Pages;
use super::blocks::parts::{
    Space, be32, be64, bytes_at, corrupt, head, inside, length, no_preallocation, random, set, while_creating,
};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::Details;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, IoResult};

const COOKIE: &[u8; 8] = b"conectix";
const HEADER_COOKIE: &[u8; 8] = b"cxsparse";
const SECTOR: u64 = 512;
const FOOTER_BYTES: usize = 512;
const HEADER_BYTES: usize = 1024;
const TYPE_FIXED: u32 = 2;
const TYPE_DYNAMIC: u32 = 3;
const UNUSED: u32 = 0xffff_ffff;
const DEFAULT_BLOCK: u32 = 2 << 20;
/// Sectors that CHS addresses can tell (specification, "CHS Calculation").
const MAX_CHS_SECTORS: u64 = 65535 * 16 * 255;
/// 2040 GiB.
const MAX_SECTORS: u64 = 0xff00_0000;
/// Seconds from 1970 to 2000, the format's epoch.
const EPOCH: u64 = 946_684_800;

/// Offsets in the footer.
mod footer {
    pub(super) const FEATURES: usize = 8;
    pub(super) const VERSION: usize = 12;
    pub(super) const DATA_OFFSET: usize = 16;
    pub(super) const TIMESTAMP: usize = 24;
    pub(super) const CREATOR: usize = 28;
    pub(super) const CREATOR_VERSION: usize = 32;
    pub(super) const CREATOR_OS: usize = 36;
    pub(super) const ORIGINAL_SIZE: usize = 40;
    pub(super) const CURRENT_SIZE: usize = 48;
    pub(super) const GEOMETRY: usize = 56;
    pub(super) const TYPE: usize = 60;
    pub(super) const CHECKSUM: usize = 64;
    pub(super) const UUID: usize = 68;
}

/// Offsets in the dynamic disk header.
mod header {
    pub(super) const DATA_OFFSET: usize = 8;
    pub(super) const TABLE_OFFSET: usize = 16;
    pub(super) const VERSION: usize = 24;
    pub(super) const MAX_ENTRIES: usize = 28;
    pub(super) const BLOCK_SIZE: usize = 32;
    pub(super) const CHECKSUM: usize = 36;
}

/// One's complement of the sum of all bytes but the checksum's own ("Checksum").
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    !sum(&bytes[..at]).wrapping_add(sum(&bytes[at + 4..]))
}

/// Cylinders, heads and sectors a track ("CHS Calculation").
fn geometry(sectors: u64) -> (u64, u64, u64) {
    let sectors = sectors.min(MAX_CHS_SECTORS);
    let (per_track, heads, tracks) = if sectors >= 65535 * 16 * 63 {
        (255, 16, sectors / 255)
    } else {
        let tracks = sectors / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            (17, heads, tracks)
        } else if sectors / 31 < 16 * 1024 {
            (31, 16, sectors / 31)
        } else {
            (63, 16, sectors / 63)
        }
    };
    (tracks / heads, heads, per_track)
}

/// The smallest geometry that has room for that many sectors, as QEMU looks for it.
fn geometry_with_room(sectors: u64) -> (u64, u64, u64) {
    let room = |more: u64| geometry(sectors + more);
    (0..).map(room).find(|(c, h, s)| c * h * s >= sectors.min(MAX_CHS_SECTORS)).unwrap_or((65535, 16, 255))
}

/// How the disk's length is told (`force_size_calc`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SizeFrom {
    /// By who made it.
    Creator,
    /// "current size".
    Current,
    /// The geometry.
    Chs,
}

/// What the footer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Footer {
    raw: [u8; FOOTER_BYTES],
    size: u64,
    kind: u32,
}

impl Footer {
    fn parse(raw: [u8; FOOTER_BYTES], from: SizeFrom) -> Result<Self, OpenError> {
        let bad = |text: &str| Err(OpenError::Image(text.to_owned()));
        if be32(&raw, footer::CHECKSUM) != checksum(&raw, footer::CHECKSUM) {
            return bad("Incorrect header checksum");
        }
        let [high, low, heads, sectors] = bytes_at(&raw, footer::GEOMETRY).map(u64::from);
        let chs = (high << 8 | low) * heads * sectors;
        let current = be64(&raw, footer::CURRENT_SIZE);
        let by_geometry = match from {
            SizeFrom::Chs => true,
            SizeFrom::Current => false,
            // These write a geometry that means nothing; so does who wanted more than a geometry can say.
            SizeFrom::Creator => {
                let creator = bytes_at::<4>(&raw, footer::CREATOR);
                ![b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"].contains(&&creator) && chs != MAX_CHS_SECTORS
            }
        };
        let sectors = if by_geometry { chs } else { current / SECTOR };
        if sectors > MAX_SECTORS {
            return bad("VHD disk is larger than 2040 GiB");
        }
        Ok(Self { raw, size: sectors * SECTOR, kind: be32(&raw, footer::TYPE) })
    }
}

/// The block allocation table.
struct Table {
    offset: u64,
    entries: u32,
    /// Bytes of a block's bitmap.
    bitmap: u64,
    pages: Pages,
    space: Space,
    /// Blocks whose bitmap says that all sectors were written.
    whole: BTreeSet<u64>,
    /// The footer must be written again at the end of the file.
    moved: bool,
}

struct VpcMap {
    file: Arc<dyn BlockNode>,
    footer: Footer,
    block: u64,
    table: Option<Table>,
}

impl VpcMap {
    fn open(file: &Arc<dyn BlockNode>, from: SizeFrom) -> Result<Self, OpenError> {
        let mut raw = head::<FOOTER_BYTES>(file.as_ref())?;
        let mut dynamic = true;
        if !raw.starts_with(COOKIE) {
            dynamic = false;
            let end = length(file.as_ref())?;
            let at = end.checked_sub(FOOTER_BYTES as u64);
            let at = at.ok_or_else(|| OpenError::Image("File too small for a VHD header".to_owned()))?;
            file.read_at(at, &mut raw).map_err(OpenError::io("Could not read image header"))?;
            if !raw.starts_with(COOKIE) || be32(&raw, footer::TYPE) != TYPE_FIXED {
                return Err(OpenError::Image("invalid VPC image".to_owned()));
            }
        }
        let footer = Footer::parse(raw, from)?;
        let mut map = Self { file: Arc::clone(file), footer, block: DEFAULT_BLOCK.into(), table: None };
        match footer.kind {
            TYPE_FIXED if !dynamic => inside(file.as_ref(), "The content", 0, footer.size)?,
            TYPE_FIXED => {
                let text = "A fixed VHD with its footer at the beginning".to_owned();
                return Err(OpenError::Unsupported(text));
            }
            TYPE_DYNAMIC => map.table = Some(map.open_table()?),
            4 => return Err(OpenError::Unsupported("A differencing VHD".to_owned())),
            other => return Err(OpenError::Image(format!("Unknown VHD disk type {other}"))),
        }
        Ok(map)
    }

    fn open_table(&mut self) -> Result<Table, OpenError> {
        let bad = |text: String| Err(OpenError::Image(text));
        let at = be64(&self.footer.raw, footer::DATA_OFFSET);
        inside(self.file.as_ref(), "The dynamic disk header", at, HEADER_BYTES as u64)?;
        let mut head = [0; HEADER_BYTES];
        self.file.read_at(at, &mut head).map_err(OpenError::io("Error reading dynamic VHD header"))?;
        if !head.starts_with(HEADER_COOKIE) {
            return bad("Invalid header magic".to_owned());
        }
        let block = be32(&head, header::BLOCK_SIZE);
        if !block.is_power_of_two() || u64::from(block) < SECTOR {
            return bad(format!("Invalid block size {block}"));
        }
        self.block = block.into();
        let entries = be32(&head, header::MAX_ENTRIES);
        if u64::from(entries) * self.block < self.footer.size {
            return bad("Page table too small".to_owned());
        }
        let offset = be64(&head, header::TABLE_OFFSET);
        let len = u64::from(entries) * 4;
        inside(self.file.as_ref(), "The block allocation table", offset, len)?;
        // New blocks go where the last footer is.
        let end = length(self.file.as_ref())?;
        let mut last = [0; 8];
        let trailer = end.saturating_sub(FOOTER_BYTES as u64);
        self.file.read_at(trailer, &mut last).map_err(OpenError::io("Could not read image footer"))?;
        let tables = (offset + len).max(at + HEADER_BYTES as u64).next_multiple_of(SECTOR);
        let start = if &last == COOKIE { trailer.max(tables) } else { end.max(tables) };
        let mut space = Space::at(Arc::clone(&self.file), start);
        space.align(SECTOR);
        let bitmap = (self.block / (8 * SECTOR)).next_multiple_of(SECTOR);
        let pages = Pages::new(Arc::clone(&self.file));
        Ok(Table { offset, entries, bitmap, pages, space, whole: BTreeSet::new(), moved: false })
    }
}

impl Map for VpcMap {
    fn driver(&self) -> &'static str {
        "vpc"
    }

    fn place(&mut self, block: u64, count: u64) -> IoResult<(Place, u64)> {
        let Some(table) = &mut self.table else { return Ok((Place::At(block * self.block), count)) };
        let entry = u32::from_be_bytes(table.pages.get(table.offset + block * 4)?);
        let place = if entry == UNUSED { Place::Absent } else { Place::At(u64::from(entry) * SECTOR + table.bitmap) };
        Ok((place, 1))
    }

    fn reserve(&mut self, block: u64, _count: u64) -> IoResult<(u64, u64)> {
        let Some(table) = &mut self.table else { return Err(std::io::ErrorKind::Unsupported.into()) };
        let at = table.space.take(table.bitmap + self.block, 0, SECTOR)?;
        if block >= u64::from(table.entries) || at / SECTOR >= u64::from(UNUSED) {
            let what = format!("no room for a block in the block allocation table at offset {}", table.offset);
            return Err(corrupt("vpc", self.file.as_ref(), &what));
        }
        let bitmap = vec![0xff; usize::try_from(table.bitmap).unwrap_or(0)];
        self.file.write_at(at, &bitmap, false)?;
        table.whole.insert(block);
        Ok((at + table.bitmap, 1))
    }

    fn point(&mut self, block: u64, place: Place) -> IoResult<()> {
        let (Some(table), Place::At(at)) = (&mut self.table, place) else {
            return Err(std::io::ErrorKind::Unsupported.into());
        };
        let sector = u32::try_from((at - table.bitmap) / SECTOR).unwrap_or(UNUSED);
        table.moved = true;
        table.pages.put(table.offset + block * 4, &sector.to_be_bytes())
    }

    /// Sectors that were never written read as zeros elsewhere: what other programs left so is marked as written.
    fn touch(&mut self, block: u64, count: u64) -> IoResult<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        for block in block..block + count {
            if table.whole.contains(&block) {
                continue;
            }
            let entry = u32::from_be_bytes(table.pages.get(table.offset + block * 4)?);
            let at = u64::from(entry) * SECTOR;
            let mut bitmap = vec![0; usize::try_from(table.bitmap).unwrap_or(0)];
            self.file.read_at(at, &mut bitmap)?;
            if bitmap.iter().any(|byte| *byte != 0xff) {
                bitmap.fill(0xff);
                self.file.write_at(at, &bitmap, false)?;
            }
            table.whole.insert(block);
        }
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.pages.is_dirty())
    }

    fn is_full(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.pages.is_full())
    }

    /// The footer first: a table that points behind it would be refused.
    fn store(&mut self) -> IoResult<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        if table.moved {
            table.space.settle()?;
            self.file.write_at(table.space.end(), &self.footer.raw, false)?;
            table.moved = false;
        }
        table.pages.store()
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details { cluster_size: self.table.is_some().then_some(self.block), ..Details::default() })
    }
}

const KEYS: Keys = &[("file", KeyKind::Node), ("force_size_calc", KeyKind::Text)];

/// `vpc`.
pub struct Vpc;

impl Driver for Vpc {
    fn name(&self) -> &'static str {
        "vpc"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    /// A fixed disk has its footer at the end, where no one looks.
    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(COOKIE) { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        let from = match context.options.take_str("force_size_calc")?.as_deref() {
            None => SizeFrom::Creator,
            Some("current_size") => SizeFrom::Current,
            Some("chs") => SizeFrom::Chs,
            Some(_) => return Err(OpenError::Invalid("Invalid size calculation algorithm".to_owned())),
        };
        context.finish()?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let map = VpcMap::open(&file.node, from)?;
        let (size, block, fixed) = (map.footer.size, map.block, map.table.is_none());
        let parts = Parts { fixed, ..Parts::new(&file.node, map, size, block, read_only) };
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

/// In the order of QEMU's "Formatting" line.
const OPTIONS: &[CreateOption] = &[
    create::SIZE,
    CreateOption::new(
        "subformat",
        OptionKind::Text,
        "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
    ),
    CreateOption::new(
        "force_size",
        OptionKind::Switch,
        "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based \
         calculation",
    ),
];

impl Creation for Vpc {
    fn options(&self) -> &'static [CreateOption] {
        OPTIONS
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let fixed = match options.get("subformat") {
            None | Some("dynamic") => false,
            Some("fixed") => true,
            Some(other) => {
                return Err(OpenError::Invalid(format!("Parameter 'subformat' does not accept value '{other}'")));
            }
        };
        let exact = options.is_on("force_size");
        let sectors = options.whole_sectors()? / SECTOR;
        let (c, h, s) = if exact { (65535, 16, 255) } else { geometry_with_room(sectors) };
        let sectors = if exact || sectors > MAX_CHS_SECTORS { sectors } else { c * h * s };
        if sectors > MAX_SECTORS {
            return Err(OpenError::Invalid("The image size is too large for file format 'vpc'".to_owned()));
        }
        let reserve = if fixed {
            options.preallocation(&[Preallocation::Off, Preallocation::Falloc, Preallocation::Full])?
        } else {
            no_preallocation(options)?;
            Preallocation::Off
        };
        let size = sectors * SECTOR;
        let footer = new_footer(size, (c, h, s), exact, fixed).map_err(while_creating())?;
        let file = place.file(filename, options)?;
        let made = if fixed {
            file.truncate(size)
                .and_then(|()| {
                    if size > 0 && reserve != Preallocation::Off { file.preallocate(0, size, reserve) } else { Ok(()) }
                })
                .and_then(|()| file.write_at(size, &footer, false))
        } else {
            write_dynamic(file.as_ref(), size, &footer)
        };
        made.map_err(while_creating())
    }
}

fn new_footer(size: u64, geometry: (u64, u64, u64), exact: bool, fixed: bool) -> IoResult<[u8; FOOTER_BYTES]> {
    let mut raw = [0; FOOTER_BYTES];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let [.., a, b, c, d] = now.saturating_sub(EPOCH).to_be_bytes();
    let (cylinders, heads, sectors) = geometry;
    let [.., high, low] = cylinders.to_be_bytes();
    let [.., heads] = heads.to_be_bytes();
    let [.., sectors] = sectors.to_be_bytes();
    set(&mut raw, 0, COOKIE);
    set(&mut raw, footer::FEATURES, &2_u32.to_be_bytes()); // reserved, always set
    set(&mut raw, footer::VERSION, &0x0001_0000_u32.to_be_bytes());
    set(&mut raw, footer::DATA_OFFSET, &if fixed { u64::MAX } else { FOOTER_BYTES as u64 }.to_be_bytes());
    set(&mut raw, footer::TIMESTAMP, &[a, b, c, d]);
    // Readers take the size from the geometry unless this one made it.
    set(&mut raw, footer::CREATOR, if exact { b"qem2" } else { b"qemu" });
    set(&mut raw, footer::CREATOR_VERSION, &[0, 5, 0, 3]);
    set(&mut raw, footer::CREATOR_OS, b"Wi2k");
    set(&mut raw, footer::ORIGINAL_SIZE, &size.to_be_bytes());
    set(&mut raw, footer::CURRENT_SIZE, &size.to_be_bytes());
    set(&mut raw, footer::GEOMETRY, &[high, low, heads, sectors]);
    set(&mut raw, footer::TYPE, &if fixed { TYPE_FIXED } else { TYPE_DYNAMIC }.to_be_bytes());
    set(&mut raw, footer::UUID, &random::<16>()?);
    let sum = checksum(&raw, footer::CHECKSUM);
    set(&mut raw, footer::CHECKSUM, &sum.to_be_bytes());
    Ok(raw)
}

fn write_dynamic(file: &dyn BlockNode, size: u64, footer: &[u8; FOOTER_BYTES]) -> IoResult<()> {
    let entries = size.div_ceil(u64::from(DEFAULT_BLOCK));
    let table = (FOOTER_BYTES + HEADER_BYTES) as u64;
    let len = (entries * 4).next_multiple_of(SECTOR);
    let mut head = [0; HEADER_BYTES];
    set(&mut head, 0, HEADER_COOKIE);
    set(&mut head, header::DATA_OFFSET, &u64::MAX.to_be_bytes());
    set(&mut head, header::TABLE_OFFSET, &table.to_be_bytes());
    set(&mut head, header::VERSION, &0x0001_0000_u32.to_be_bytes());
    set(&mut head, header::MAX_ENTRIES, &u32::try_from(entries).unwrap_or(0).to_be_bytes());
    set(&mut head, header::BLOCK_SIZE, &DEFAULT_BLOCK.to_be_bytes());
    let sum = checksum(&head, header::CHECKSUM);
    set(&mut head, header::CHECKSUM, &sum.to_be_bytes());
    file.write_at(table + len, footer, false)?;
    file.write_at(table, &vec![0xff; usize::try_from(len).unwrap_or(0)], false)?;
    file.write_at(FOOTER_BYTES as u64, &head, false)?;
    file.write_at(0, footer, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_that_qemu_writes() {
        let sectors = |mib: u64| geometry_with_room(mib * 2048);
        assert_eq!(sectors(1), (0x1f, 4, 17));
        assert_eq!(sectors(100), (0x3ec, 12, 17));
        assert_eq!(sectors(511), (0x40f, 16, 63));
        assert_eq!(sectors(127 << 10), (0xfeff, 16, 255));
        assert_eq!(sectors(200 << 10), (65535, 16, 255));
    }
}
