//! `parallels`: Parallels' expandable disks (QEMU docs/interop/parallels.rst).
//!
//! A header, the block allocation table (BAT), and clusters. `in_use` is set on the disk before the first change and
//! cleared when the image is closed; an image that has it set is checked and repaired before it is written to. The
//! bitmaps of the Format Extension are dropped then, as they do not know of the changes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::blocks::pages::Pages;
use super::blocks::parts::{Space, corrupt, head, inside, le32, le64, no_preallocation, set, while_creating};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{CheckReport, Details, Repair};
use crate::block::node::{BlockNode, IoResult};

const MAGIC: &[u8; 16] = b"WithoutFreeSpace";
const MAGIC_EXT: &[u8; 16] = b"WithouFreSpacExt";
const SECTOR: u64 = 512;
/// Where the BAT is.
const BAT: u64 = 64;
const IN_USE: u32 = 0x746f_6e59;
/// Offset of `in_use`.
const IN_USE_AT: u64 = 44;
const DATA_AT: u64 = 48;
const EXTENSION_AT: u64 = 56;
/// Bytes that are copied at a time.
const PIECE: u64 = 1 << 20;

/// The header, validated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    cluster: u64,
    entries: u32,
    size: u64,
    in_use: bool,
    /// First byte behind the BAT, where clusters may be.
    data: u64,
    /// What the header says of that is wrong.
    bad_data: bool,
    /// Bytes that a BAT entry counts in.
    unit: u64,
}

impl Header {
    fn read(file: &dyn BlockNode) -> Result<Self, OpenError> {
        let bad = |text: &str| Err(OpenError::Image(text.to_owned()));
        let head = head::<64>(file)?;
        let extended = head.starts_with(MAGIC_EXT);
        if !extended && !head.starts_with(MAGIC) || le32(&head, 16) != 2 {
            return bad("Image not in Parallels format");
        }
        let tracks = u64::from(le32(&head, 28));
        if tracks == 0 {
            return bad("Invalid image: Zero sectors per track");
        }
        if tracks > u64::from(i32::MAX.cast_unsigned()) / SECTOR {
            return bad("Invalid image: Too big cluster");
        }
        let entries = le32(&head, 32);
        if entries > i32::MAX.cast_unsigned() / 4 {
            return bad("Catalog too large");
        }
        let sectors = if extended { le64(&head, 36) } else { le32(&head, 36).into() };
        let size = sectors.checked_mul(SECTOR).filter(|size| i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| OpenError::Image("Image too large".to_owned()))?;
        inside(file, "The BAT", BAT, u64::from(entries) * 4)?;
        let tables = (BAT + u64::from(entries) * 4).next_multiple_of(SECTOR);
        let said = u64::from(le32(&head, 48)) * SECTOR;
        // Old images say 0: data begins behind the BAT.
        let bad_data = extended && said == 0 || said != 0 && said < tables;
        Ok(Self {
            cluster: tracks * SECTOR,
            entries,
            size,
            in_use: le32(&head, 44) == IN_USE,
            data: if said == 0 || bad_data { tables } else { said },
            bad_data,
            unit: if extended { tracks * SECTOR } else { SECTOR },
        })
    }
}

struct ParallelsMap {
    file: Arc<dyn BlockNode>,
    header: Header,
    pages: Pages,
    space: Space,
}

impl ParallelsMap {
    fn open(file: &Arc<dyn BlockNode>) -> Result<Self, OpenError> {
        let header = Header::read(file.as_ref())?;
        let space = Space::new(Arc::clone(file), header.data)?;
        Ok(Self { file: Arc::clone(file), header, pages: Pages::new(Arc::clone(file)), space })
    }

    fn offset(&mut self, cluster: u64) -> IoResult<u64> {
        if cluster >= self.header.entries.into() {
            return Ok(0);
        }
        let entry = u32::from_le_bytes(self.pages.get(BAT + cluster * 4)?);
        Ok(u64::from(entry) * self.header.unit)
    }

    fn set_offset(&mut self, cluster: u64, offset: u64) -> IoResult<()> {
        let entry = u32::try_from(offset / self.header.unit).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.pages.put(BAT + cluster * 4, &entry.to_le_bytes())
    }

    fn take(&mut self, count: u64) -> IoResult<u64> {
        let align = if self.header.unit == SECTOR { SECTOR } else { self.header.unit };
        self.space.take(count * self.header.cluster, 0, align)
    }

    fn mark(&mut self, in_use: bool) -> IoResult<()> {
        let value = if in_use { IN_USE } else { 0 };
        self.file.write_at(IN_USE_AT, &value.to_le_bytes(), true)?;
        self.header.in_use = in_use;
        Ok(())
    }

    /// Clusters that begin outside the file.
    fn check_outside(&mut self, fix: bool, report: &mut CheckReport) -> IoResult<()> {
        let end = self.file.len()?;
        for cluster in 0..u64::from(self.header.entries) {
            let offset = self.offset(cluster)?;
            if offset == 0 {
                continue;
            }
            if offset >= self.header.data && offset.checked_add(self.header.cluster).is_some_and(|last| last <= end) {
                report.image_end_offset = report.image_end_offset.max(offset + self.header.cluster);
                continue;
            }
            report.corruptions += 1;
            report.messages.push(format!("{} cluster {cluster} is outside image", verb(fix)));
            if fix {
                self.set_offset(cluster, 0)?;
                report.corruptions_fixed += 1;
            }
        }
        Ok(())
    }

    /// Clusters that two entries name: the second one gets a copy.
    fn check_duplicates(&mut self, fix: bool, report: &mut CheckReport) -> IoResult<()> {
        let mut seen = BTreeSet::new();
        for cluster in 0..u64::from(self.header.entries) {
            let offset = self.offset(cluster)?;
            if offset == 0 || seen.insert(offset) {
                continue;
            }
            report.corruptions += 1;
            report.messages.push(format!("{} duplicate offset in BAT entry {cluster}", verb(fix)));
            if fix {
                let copy = self.take(1)?;
                self.copy(offset, copy)?;
                self.set_offset(cluster, copy)?;
                report.image_end_offset = report.image_end_offset.max(copy + self.header.cluster);
                report.corruptions_fixed += 1;
            }
        }
        Ok(())
    }

    fn copy(&self, from: u64, to: u64) -> IoResult<()> {
        let mut done = 0;
        while done < self.header.cluster {
            let len = (self.header.cluster - done).min(PIECE);
            let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
            self.file.read_at(from + done, &mut piece)?;
            self.file.write_at(to + done, &piece, false)?;
            done += len;
        }
        self.file.flush()
    }

    /// What is behind the last cluster.
    fn check_tail(&mut self, fix: bool, report: &mut CheckReport) -> IoResult<()> {
        let end = self.file.len()?;
        let used = report.image_end_offset;
        if end <= used {
            return Ok(());
        }
        let leaks = (end - used).div_ceil(self.header.cluster);
        report.leaks += leaks;
        report.messages.push(format!("{} space leaked at the end of the image {}", verb(fix), end - used));
        if fix {
            self.file.truncate(used)?;
            self.space = Space::at(Arc::clone(&self.file), used);
            report.leaks_fixed += leaks;
        }
        Ok(())
    }

    fn count(&mut self, report: &mut CheckReport) -> IoResult<()> {
        report.total_clusters = self.header.entries.into();
        let mut last = 0;
        for cluster in 0..u64::from(self.header.entries) {
            let offset = self.offset(cluster)?;
            if offset == 0 {
                continue;
            }
            report.allocated_clusters += 1;
            report.fragmented_clusters += u64::from(last != 0 && offset != last + self.header.cluster);
            last = offset;
        }
        Ok(())
    }

    /// The header's own fields.
    fn check_header(&mut self, fix: bool, report: &mut CheckReport) -> IoResult<()> {
        if self.header.in_use {
            report.corruptions += 1;
            report.messages.push(format!("{} image was not closed correctly", verb(fix)));
            report.corruptions_fixed += u64::from(fix);
        }
        if self.header.bad_data {
            report.corruptions += 1;
            report.messages.push(format!("{} data_off field has incorrect value", verb(fix)));
            if fix {
                let sectors = u32::try_from(self.header.data / SECTOR).unwrap_or(0);
                self.file.write_at(DATA_AT, &sectors.to_le_bytes(), false)?;
                self.header.bad_data = false;
                report.corruptions_fixed += 1;
            }
        }
        Ok(())
    }
}

fn verb(fix: bool) -> &'static str {
    if fix { "Repairing" } else { "ERROR" }
}

impl Map for ParallelsMap {
    fn driver(&self) -> &'static str {
        "parallels"
    }

    fn place(&mut self, cluster: u64, count: u64) -> IoResult<(Place, u64)> {
        if cluster >= self.header.entries.into() {
            // The disk is longer than its table: what is there cannot be written.
            return Ok((Place::Absent, count));
        }
        let offset = self.offset(cluster)?;
        if offset == 0 {
            return Ok((Place::Absent, 1));
        }
        let end = self.space.end().max(self.file.len()?);
        if offset < self.header.data
            || offset
                .checked_add(self.header.cluster)
                .is_none_or(|last| last > end.next_multiple_of(self.header.cluster))
        {
            let what = format!("the offset {offset} of cluster {cluster} is not inside the file");
            return Err(corrupt("parallels", self.file.as_ref(), &what));
        }
        Ok((Place::At(offset), 1))
    }

    fn reserve(&mut self, cluster: u64, count: u64) -> IoResult<(u64, u64)> {
        let room = u64::from(self.header.entries).saturating_sub(cluster);
        if room == 0 {
            return Err(corrupt(
                "parallels",
                self.file.as_ref(),
                &format!("the BAT at offset {BAT} has no entry {cluster}"),
            ));
        }
        let count = count.min(room);
        Ok((self.take(count)?, count))
    }

    fn point(&mut self, cluster: u64, place: Place) -> IoResult<()> {
        let offset = if let Place::At(at) = place { at } else { 0 };
        self.set_offset(cluster, offset)
    }

    fn begin(&mut self) -> IoResult<()> {
        // Bitmaps would not know of what is written now.
        self.file.write_at(EXTENSION_AT, &[0; 8], false)?;
        self.mark(true)
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

    fn close(&mut self) -> IoResult<()> {
        self.mark(false)
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details::default())
    }

    fn can_check(&self) -> bool {
        true
    }

    fn check(&mut self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let fix = repair == Some(Repair::All);
        let mut report = CheckReport { image_end_offset: self.header.data, ..CheckReport::default() };
        let unclean = self.header.in_use;
        self.check_header(fix, &mut report)?;
        self.check_outside(fix, &mut report)?;
        self.check_tail(repair.is_some(), &mut report)?;
        self.check_duplicates(fix, &mut report)?;
        self.count(&mut report)?;
        if fix {
            self.file.flush()?;
            self.store()?;
            if unclean {
                self.mark(false)?;
            }
        }
        Ok(report)
    }
}

/// `parallels`.
pub struct Parallels;

impl Driver for Parallels {
    fn name(&self) -> &'static str {
        "parallels"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        let known = head.starts_with(MAGIC) || head.starts_with(MAGIC_EXT);
        if known && le32(head, 16) == 2 { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        context.finish()?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let mut map = ParallelsMap::open(&file.node)?;
        if !read_only && !context.for_check() && (map.header.in_use || map.header.bad_data) {
            let report = map.check(Some(Repair::All)).map_err(OpenError::io("Could not repair corrupted image"))?;
            for message in &report.messages {
                context.warn(message.clone());
            }
        }
        let (size, block) = (map.header.size, map.header.cluster);
        let parts = Parts::new(&file.node, map, size, block, read_only).over(None);
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

impl Creation for Parallels {
    fn options(&self) -> &'static [CreateOption] {
        const {
            &[
                create::SIZE,
                CreateOption::new("cluster_size", OptionKind::Size, "Parallels image cluster size").default("1048576"),
            ]
        }
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let invalid = |text: &str| Err(OpenError::Invalid(text.to_owned()));
        let size = options.whole_sectors()?;
        let cluster = options.number("cluster_size").unwrap_or(1 << 20).checked_next_multiple_of(SECTOR).unwrap_or(0);
        if cluster == 0 || cluster > u64::from(i32::MAX.cast_unsigned()) {
            return invalid("Cluster size is too large");
        }
        let Some(entries) = u32::try_from(size.div_ceil(cluster)).ok().filter(|n| *n <= i32::MAX.cast_unsigned() / 4)
        else {
            return invalid("Image size is too large for this cluster size");
        };
        no_preallocation(options)?;
        let data = (BAT + u64::from(entries) * 4).next_multiple_of(cluster);
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let mut head = [0; 64];
        set(&mut head, 0, MAGIC_EXT);
        set(&mut head, 16, &2_u32.to_le_bytes());
        set(&mut head, 20, &16_u32.to_le_bytes());
        set(&mut head, 24, &small(size / SECTOR / 16 / 32));
        set(&mut head, 28, &small(cluster / SECTOR));
        set(&mut head, 32, &entries.to_le_bytes());
        set(&mut head, 36, &(size / SECTOR).to_le_bytes());
        set(&mut head, 48, &small(data / SECTOR));
        let file = place.file(filename, options)?;
        let make = || {
            file.truncate(data)?;
            if file.info().driver != "file" {
                file.zero(0, data, false)?;
            }
            file.write_at(0, &head, false)
        };
        make().map_err(while_creating())
    }
}
