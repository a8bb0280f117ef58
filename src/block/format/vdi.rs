//! `vdi`: VirtualBox's images, version 1.1 (VirtualBox, include/VBox/vd VDI headers: VDIPREHEADER, VDIHEADER1PLUS).
//!
//! A header, a map of little-endian block numbers in the order of the disk, and blocks of 1 MiB in the order in which
//! they were written. Differencing images (a parent UUID) are refused, as QEMU does.

use std::sync::Arc;

use super::blocks::pages::Pages;
use super::blocks::parts::{
    Space, bytes_at, corrupt, head, inside, le32, le64, no_preallocation, random_guid, set, while_creating,
};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{CheckReport, Details, Repair};
use crate::block::node::{BlockNode, IoResult};

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
const TYPE_DYNAMIC: u32 = 1;
const TYPE_STATIC: u32 = 2;
const BLOCK: u64 = 1 << 20;
/// A map entry: no storage, content undefined (zeros).
const UNALLOCATED: u32 = 0xffff_ffff;
/// A map entry: zeros.
const DISCARDED: u32 = 0xffff_fffe;
const MAX_BLOCKS: u32 = 0x1fff_ff80;
const MAX_SIZE: u64 = MAX_BLOCKS as u64 * BLOCK;
const TEXT: &[u8] = b"<<< QEMU VM Virtual Disk Image >>>\n";

/// Offsets in the header.
mod field {
    pub(super) const SIGNATURE: usize = 0x40;
    pub(super) const VERSION: usize = 0x44;
    pub(super) const HEADER_SIZE: usize = 0x48;
    pub(super) const IMAGE_TYPE: usize = 0x4c;
    pub(super) const OFFSET_BMAP: usize = 0x154;
    pub(super) const OFFSET_DATA: usize = 0x158;
    pub(super) const SECTOR_SIZE: usize = 0x168;
    pub(super) const DISK_SIZE: usize = 0x170;
    pub(super) const BLOCK_SIZE: usize = 0x178;
    pub(super) const BLOCKS_IN_IMAGE: usize = 0x180;
    pub(super) const BLOCKS_ALLOCATED: usize = 0x184;
    pub(super) const UUID_IMAGE: usize = 0x188;
    pub(super) const UUID_LAST_SNAP: usize = 0x198;
    pub(super) const UUID_LINK: usize = 0x1a8;
    pub(super) const UUID_PARENT: usize = 0x1b8;
}

/// What the header says, validated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    map: u64,
    data: u64,
    size: u64,
    blocks: u32,
    allocated: u32,
    fixed: bool,
}

impl Header {
    fn parse(head: &[u8; 512]) -> Result<Self, OpenError> {
        let bad = |text: String| Err(OpenError::Image(text));
        let signature = le32(head, field::SIGNATURE);
        if signature != SIGNATURE {
            return bad(format!("Image not in VDI format (bad signature {signature:08x})"));
        }
        let version = le32(head, field::VERSION);
        if version != VERSION {
            return bad(format!("unsupported VDI image (version {}.{})", version >> 16, version & 0xffff));
        }
        let size = le64(head, field::DISK_SIZE);
        if size > MAX_SIZE {
            return bad(format!("Unsupported VDI image size (size is {size:#x}, max supported is {MAX_SIZE:#x})"));
        }
        let header = Self {
            map: le32(head, field::OFFSET_BMAP).into(),
            data: le32(head, field::OFFSET_DATA).into(),
            size: size.next_multiple_of(512),
            blocks: le32(head, field::BLOCKS_IN_IMAGE),
            allocated: le32(head, field::BLOCKS_ALLOCATED),
            fixed: le32(head, field::IMAGE_TYPE) == TYPE_STATIC,
        };
        header.check(head)?;
        Ok(header)
    }

    fn check(&self, head: &[u8]) -> Result<(), OpenError> {
        let bad = |text: String| Err(OpenError::Image(format!("unsupported VDI image ({text})")));
        if !self.map.is_multiple_of(512) {
            return bad(format!("unaligned block map offset {:#x}", self.map));
        }
        if !self.data.is_multiple_of(512) {
            return bad(format!("unaligned data offset {:#x}", self.data));
        }
        let sector = le32(head, field::SECTOR_SIZE);
        if sector != 512 {
            return bad(format!("sector size {sector} is not 512"));
        }
        let block = le32(head, field::BLOCK_SIZE);
        if u64::from(block) != BLOCK {
            return bad(format!("block size {block} is not {BLOCK}"));
        }
        let room = u64::from(self.blocks) * BLOCK;
        if self.size > room {
            return bad(format!("disk size {}, image bitmap has room for {room}", self.size));
        }
        if bytes_at::<16>(head, field::UUID_LINK) != [0; 16] {
            return bad("non-NULL link UUID".to_owned());
        }
        if bytes_at::<16>(head, field::UUID_PARENT) != [0; 16] {
            return bad("non-NULL parent UUID".to_owned());
        }
        if self.blocks > MAX_BLOCKS {
            return bad(format!("too many blocks {}, max is {MAX_BLOCKS}", self.blocks));
        }
        if self.map < 512 {
            return bad(format!("block map offset {:#x} is inside the header", self.map));
        }
        if self.data < self.map + u64::from(self.blocks) * 4 {
            return bad(format!("data offset {:#x} is inside the block map at {:#x}", self.data, self.map));
        }
        Ok(())
    }
}

/// The block map.
struct VdiMap {
    file: Arc<dyn BlockNode>,
    header: Header,
    pages: Pages,
    /// The next block number that no block has.
    next: u32,
    space: Space,
}

impl VdiMap {
    fn open(file: &Arc<dyn BlockNode>) -> Result<Self, OpenError> {
        let header = Header::parse(&head(file.as_ref())?)?;
        inside(file.as_ref(), "The block map", header.map, u64::from(header.blocks) * 4)?;
        let space = Space::new(Arc::clone(file), header.data)?;
        // Blocks that the header does not count are not used again: what is there is not known.
        let past = (space.end() - header.data).div_ceil(BLOCK);
        let next = header.allocated.max(u32::try_from(past).unwrap_or(u32::MAX));
        Ok(Self { file: Arc::clone(file), header, pages: Pages::new(Arc::clone(file)), next, space })
    }

    fn entry(&mut self, block: u64) -> IoResult<u32> {
        self.pages.get(self.header.map + block * 4).map(u32::from_le_bytes)
    }

    fn offset(&self, number: u32) -> u64 {
        self.header.data + u64::from(number) * BLOCK
    }
}

impl Map for VdiMap {
    fn driver(&self) -> &'static str {
        "vdi"
    }

    fn place(&mut self, block: u64, _count: u64) -> IoResult<(Place, u64)> {
        let entry = self.entry(block)?;
        let place = if entry >= DISCARDED { Place::Absent } else { Place::At(self.offset(entry)) };
        Ok((place, 1))
    }

    fn reserve(&mut self, _block: u64, count: u64) -> IoResult<(u64, u64)> {
        let number = self.next;
        if number >= MAX_BLOCKS {
            let what = format!("no block number below {MAX_BLOCKS} is free");
            return Err(corrupt("vdi", self.file.as_ref(), &what));
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(MAX_BLOCKS - number);
        let at = self.space.take(u64::from(count) * BLOCK, self.header.data, BLOCK)?;
        self.next = number + count;
        Ok((at, count.into()))
    }

    fn point(&mut self, block: u64, place: Place) -> IoResult<()> {
        let entry = match place {
            Place::At(at) => u32::try_from((at - self.header.data) / BLOCK).unwrap_or(UNALLOCATED),
            _ => UNALLOCATED,
        };
        self.pages.put(self.header.map + block * 4, &entry.to_le_bytes())?;
        self.header.allocated += 1;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.pages.is_dirty()
    }

    fn is_full(&self) -> bool {
        self.pages.is_full()
    }

    fn store(&mut self) -> IoResult<()> {
        self.space.settle()?;
        self.pages.put(field::BLOCKS_ALLOCATED as u64, &self.header.allocated.to_le_bytes())?;
        self.pages.store()
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details { cluster_size: Some(BLOCK), ..Details::default() })
    }

    fn can_check(&self) -> bool {
        true
    }

    /// Block numbers in range, used once, and as many as the header says. There is nothing that a repair could know.
    fn check(&mut self, repair: Option<Repair>) -> IoResult<CheckReport> {
        if repair.is_some() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let blocks = self.header.blocks;
        let mut report = CheckReport::default();
        let mut used = vec![0_u64; blocks.div_ceil(64) as usize];
        let mut count = 0;
        for block in 0..blocks {
            let entry = self.entry(block.into())?;
            if entry >= DISCARDED {
                continue;
            }
            if entry >= blocks {
                report.corruptions += 1;
                report.messages.push(format!("ERROR: block index {block} too large, is {entry}"));
                continue;
            }
            count += 1;
            let (word, bit) = (entry as usize / 64, 1 << (entry % 64));
            if used[word] & bit != 0 {
                report.corruptions += 1;
                report.messages.push(format!("ERROR: block index {entry} also used by {entry}"));
            }
            used[word] |= bit;
        }
        if count != self.header.allocated {
            report.corruptions += 1;
            let said = self.header.allocated;
            report.messages.push(format!("ERROR: allocated blocks mismatch, is {count}, should be {said}"));
        }
        Ok(report)
    }
}

/// `vdi`.
pub struct Vdi;

impl Driver for Vdi {
    fn name(&self) -> &'static str {
        "vdi"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if le32(head, field::SIGNATURE) == SIGNATURE { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        context.finish()?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let map = VdiMap::open(&file.node)?;
        let (size, fixed) = (map.header.size, map.header.fixed);
        let parts = Parts { fixed, ..Parts::new(&file.node, map, size, BLOCK, read_only) };
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

impl Creation for Vdi {
    fn options(&self) -> &'static [CreateOption] {
        const {
            &[
                create::SIZE,
                CreateOption::new("static", OptionKind::Switch, "VDI static (pre-allocated) image").default("off"),
            ]
        }
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let size = options.whole_sectors()?;
        if size > MAX_SIZE {
            let text = format!("Unsupported VDI image size (size is {size:#x}, max supported is {MAX_SIZE:#x})");
            return Err(OpenError::Invalid(text));
        }
        let fixed = options.is_on("static");
        let reserve = if fixed {
            options.preallocation(&[Preallocation::Off, Preallocation::Falloc, Preallocation::Full])?
        } else {
            no_preallocation(options)?;
            Preallocation::Off
        };
        let file = place.file(filename, options)?;
        let blocks = u32::try_from(size.div_ceil(BLOCK)).unwrap_or(MAX_BLOCKS);
        let map_bytes = (u64::from(blocks) * 4).next_multiple_of(512);
        let data = 512 + map_bytes;
        write_map(file.as_ref(), blocks, map_bytes, fixed).map_err(while_creating())?;
        if fixed {
            let end = data + u64::from(blocks) * BLOCK;
            file.truncate(end).map_err(while_creating())?;
            if reserve != Preallocation::Off {
                file.preallocate(data, end - data, reserve).map_err(while_creating())?;
            }
        }
        // Last: what was cut off before has no signature.
        let header = new_header(size, blocks, data, fixed).map_err(while_creating())?;
        file.write_at(0, &header, false).map_err(while_creating())
    }
}

fn new_header(size: u64, blocks: u32, data: u64, fixed: bool) -> IoResult<[u8; 512]> {
    let mut head = [0; 512];
    set(&mut head, 0, TEXT);
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let words = [
        (field::SIGNATURE, SIGNATURE),
        (field::VERSION, VERSION),
        (field::HEADER_SIZE, 0x180),
        (field::IMAGE_TYPE, if fixed { TYPE_STATIC } else { TYPE_DYNAMIC }),
        (field::OFFSET_BMAP, 512),
        (field::OFFSET_DATA, small(data)),
        (field::SECTOR_SIZE, 512),
        (field::BLOCK_SIZE, small(BLOCK)),
        (field::BLOCKS_IN_IMAGE, blocks),
        (field::BLOCKS_ALLOCATED, if fixed { blocks } else { 0 }),
    ];
    for (at, value) in words {
        set(&mut head, at, &value.to_le_bytes());
    }
    set(&mut head, field::DISK_SIZE, &size.to_le_bytes());
    set(&mut head, field::UUID_IMAGE, &random_guid()?);
    set(&mut head, field::UUID_LAST_SNAP, &random_guid()?);
    Ok(head)
}

/// Writes the block map: all blocks in order, or none.
fn write_map(file: &dyn BlockNode, blocks: u32, map_bytes: u64, fixed: bool) -> IoResult<()> {
    let mut at = 512;
    for start in (0..blocks).step_by(1 << 18) {
        let numbers = start..blocks.min(start + (1 << 18));
        let bytes: Vec<u8> = numbers.flat_map(|n| if fixed { n } else { UNALLOCATED }.to_le_bytes()).collect();
        file.write_at(at, &bytes, false)?;
        at += bytes.len() as u64;
    }
    let padding = 512 + map_bytes - at;
    if padding == 0 { Ok(()) } else { file.write_at(at, &vec![0; usize::try_from(padding).unwrap_or(0)], false) }
}
