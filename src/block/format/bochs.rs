//! `bochs`: the growing images of the Bochs emulator (Bochs user manual, "Redolog" headers), for reading.
//!
//! A catalog of extents; each extent is a bitmap of its written sectors, and the sectors.

use std::sync::Arc;

use super::blocks::pages::Pages;
use super::blocks::parts::{bytes_at, head, inside, le32, le64};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::node::IoResult;

const MAGIC: &[u8] = b"Bochs Virtual HD Image\0";
const SECTOR: u64 = 512;
const UNUSED: u32 = 0xffff_ffff;
const VERSION_1: u32 = 0x0001_0000;
const VERSION_2: u32 = 0x0002_0000;
const MAX_EXTENT: u64 = 0x80_0000;
const MAX_CATALOG: u64 = 0x10_0000;

struct BochsMap {
    pages: Pages,
    catalog: u64,
    data: u64,
    extent_sectors: u64,
    bitmap_sectors: u64,
}

impl BochsMap {
    /// The tables and the disk's length.
    fn open(file: &Arc<dyn crate::block::node::BlockNode>) -> Result<(Self, u64), OpenError> {
        let bad = |text: String| Err(OpenError::Image(text));
        let head = head::<512>(file.as_ref())?;
        let text = |at: usize, wanted: &[u8]| bytes_at::<16>(&head, at).starts_with(wanted);
        let version = le32(&head, 64);
        if !head.starts_with(MAGIC)
            || !text(32, b"Redolog\0")
            || !text(48, b"Growing\0")
            || version != VERSION_1 && version != VERSION_2
        {
            return bad("Image not in Bochs format".to_owned());
        }
        let size = if version == VERSION_1 { le64(&head, 84) } else { le64(&head, 88) };
        let [catalog, entries, bitmap, extent] = [68, 72, 76, 80].map(|at| u64::from(le32(&head, at)));
        if extent < SECTOR {
            return bad("Extent size must be at least 512".to_owned());
        }
        if !extent.is_power_of_two() {
            return bad(format!("Extent size {extent} is not a power of two"));
        }
        if extent > MAX_EXTENT {
            return bad(format!("Extent size {extent} is too large"));
        }
        if entries > MAX_CATALOG {
            return bad("Catalog size is too large".to_owned());
        }
        if entries < size.div_ceil(extent) {
            return bad("Catalog size is too small for this disk size".to_owned());
        }
        if bitmap == 0 || bitmap * 8 < extent / SECTOR {
            return bad(format!("Bitmap size {bitmap} is too small for extents of {extent} bytes"));
        }
        inside(file.as_ref(), "The catalog", catalog, entries * 4)?;
        let map = Self {
            pages: Pages::new(Arc::clone(file)),
            catalog,
            data: catalog + entries * 4,
            extent_sectors: extent / SECTOR,
            bitmap_sectors: bitmap.div_ceil(SECTOR),
        };
        Ok((map, size / SECTOR * SECTOR))
    }
}

impl Map for BochsMap {
    fn driver(&self) -> &'static str {
        "bochs"
    }

    fn place(&mut self, sector: u64, count: u64) -> IoResult<(Place, u64)> {
        let (extent, inside) = (sector / self.extent_sectors, sector % self.extent_sectors);
        let entry = u32::from_le_bytes(self.pages.get(self.catalog + extent * 4)?);
        if entry == UNUSED {
            return Ok((Place::Absent, count.min(self.extent_sectors - inside)));
        }
        let start = self.data + u64::from(entry) * (self.extent_sectors + self.bitmap_sectors) * SECTOR;
        let [bits] = self.pages.get(start + inside / 8)?;
        let written = bits & 1 << (inside % 8) != 0;
        let at = start + (self.bitmap_sectors + inside) * SECTOR;
        Ok((if written { Place::At(at) } else { Place::Absent }, 1))
    }
}

/// `bochs`.
pub struct Bochs;

impl Driver for Bochs {
    fn name(&self) -> &'static str {
        "bochs"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(MAGIC) && bytes_at::<8>(head, 32) == *b"Redolog\0" { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        context.finish()?;
        context.share(&file.node, true)?;
        let (map, size) = BochsMap::open(&file.node)?;
        let parts = Parts::new(&file.node, map, size, SECTOR, true);
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }
}
