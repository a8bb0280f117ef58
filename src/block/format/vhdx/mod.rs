//! `vhdx`: Hyper-V's disks ([MS-VHDX], 2018). Differencing disks are refused by name.
//!
//! Changes of the block allocation table (BAT) go through the log, so that other programs find a whole table after a
//! power cut. An entry lies in one half of the log, the next one in the other: one of them is always valid.

mod layout;
mod log;

use std::sync::Arc;

use super::blocks::pages::Pages;
use super::blocks::parts::{Space, corrupt, no_preallocation, random_guid, while_creating};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::create::{CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{CheckReport, Details, Repair};
use crate::block::node::{BlockNode, IoResult};
use layout::{Header, MAX_SIZE, MIB, Metadata, Region, SIGNATURE};
use log::Replay;

/// A BAT entry's state (2.5.1.1): zeros.
const ZERO: u64 = 2;
/// The block has its place.
const FULLY_PRESENT: u64 = 6;
/// Of a differencing disk.
const PARTIALLY_PRESENT: u64 = 7;
const STATE: u64 = 7;
/// QEMU leaves this much behind the metadata.
const SPARE: u64 = 4 * MIB;

struct VhdxMap {
    file: Arc<dyn BlockNode>,
    header: Header,
    bat: Region,
    metadata: Metadata,
    pages: Pages,
    space: Space,
    /// The sequence number of the last entry of the log.
    logged: u64,
    replayed: bool,
}

impl VhdxMap {
    fn open(file: &Arc<dyn BlockNode>, read_only: bool) -> Result<Self, OpenError> {
        let mut header = Header::read(file.as_ref())?;
        let replayed = replay(file.as_ref(), &mut header, read_only)?;
        let (bat, region) = layout::read_regions(file.as_ref())?;
        let metadata = Metadata::read(file.as_ref(), region)?;
        if metadata.entries() * 8 > bat.length {
            let text = format!("The VHDX BAT at offset {} is too short ({} bytes)", bat.offset, bat.length);
            return Err(OpenError::Image(text));
        }
        let tables = [bat.offset + bat.length, region.offset + region.length, header.log_offset + header.log_length];
        let start = tables.into_iter().max().unwrap_or(MIB);
        let mut space = Space::new(Arc::clone(file), start)?;
        space.align(MIB);
        let pages = Pages::new(Arc::clone(file));
        Ok(Self { file: Arc::clone(file), header, bat, metadata, pages, space, logged: 0, replayed })
    }

    fn entry(&mut self, block: u64) -> IoResult<u64> {
        let at = self.bat.offset + self.metadata.entry(block) * 8;
        self.pages.get(at).map(u64::from_le_bytes)
    }

    /// Writes changed sectors to the log, and then where they belong.
    fn commit(&mut self, sectors: &[(u64, Vec<u8>)]) -> IoResult<()> {
        self.logged += 1;
        // An entry in the half that the last one is not in.
        let tail = (self.logged % 2) * (self.header.log_length / 2);
        let fresh = self.header.log == [0; 16];
        let id = if fresh { random_guid()? } else { self.header.log };
        let sectors: Vec<(u64, &[u8])> = sectors.iter().map(|(at, data)| (*at, data.as_slice())).collect();
        let entry = log::encode(&id, self.logged, tail, self.file.len()?, &sectors);
        self.file.write_at(self.header.log_offset + tail, &entry, true)?;
        if fresh {
            // From now on the log counts; it has a valid entry.
            self.header.log = id;
            self.header.store(self.file.as_ref())?;
        }
        for (at, data) in sectors {
            self.file.write_at(at, data, false)?;
        }
        self.file.flush()
    }
}

/// Does what the log says was not done; whether there was something.
fn replay(file: &dyn BlockNode, header: &mut Header, read_only: bool) -> Result<bool, OpenError> {
    if header.log == [0; 16] {
        return Ok(false);
    }
    let replay = Replay::find(file, header)?;
    if read_only {
        if replay.is_empty() {
            return Ok(false);
        }
        let name = file.info().filename;
        return Err(OpenError::Image(format!(
            "VHDX image file '{name}' opened read-only, but contains a log that needs to be replayed\nTo replay the log, \
             run:\nqemu-img check -r all '{name}'"
        )));
    }
    let failed = || OpenError::io("Could not replay VHDX log");
    replay.apply(file).map_err(failed())?;
    header.log = [0; 16];
    header.store(file).map_err(failed())?;
    Ok(true)
}

impl Map for VhdxMap {
    fn driver(&self) -> &'static str {
        "vhdx"
    }

    fn place(&mut self, block: u64, _count: u64) -> IoResult<(Place, u64)> {
        let entry = self.entry(block)?;
        let offset = entry & !(MIB - 1);
        let place = match entry & STATE {
            FULLY_PRESENT if offset >= MIB => Place::At(offset),
            FULLY_PRESENT | PARTIALLY_PRESENT => {
                let what = format!("the BAT entry {entry:#x} of block {block} is invalid");
                return Err(corrupt("vhdx", self.file.as_ref(), &what));
            }
            _ => Place::Absent,
        };
        Ok((place, 1))
    }

    fn reserve(&mut self, _block: u64, count: u64) -> IoResult<(u64, u64)> {
        Ok((self.space.take(count * self.metadata.block, 0, MIB)?, count))
    }

    fn point(&mut self, block: u64, place: Place) -> IoResult<()> {
        let entry = match place {
            Place::At(at) => at | FULLY_PRESENT,
            _ => ZERO,
        };
        self.pages.put(self.bat.offset + self.metadata.entry(block) * 8, &entry.to_le_bytes())
    }

    /// Who holds copies of the file or the disk sees by these identifiers that it changed (2.2.2).
    fn begin(&mut self) -> IoResult<()> {
        self.header.file_write = random_guid()?;
        self.header.data_write = random_guid()?;
        self.header.store(self.file.as_ref())
    }

    fn is_dirty(&self) -> bool {
        self.pages.is_dirty()
    }

    fn is_full(&self) -> bool {
        self.pages.is_full()
    }

    fn store(&mut self) -> IoResult<()> {
        self.space.settle()?;
        let sectors: Vec<(u64, Vec<u8>)> = self.pages.changed_pages().map(|(at, data)| (at, data.to_vec())).collect();
        for part in sectors.chunks(log::sectors_in_half(self.header.log_length)) {
            self.commit(part)?;
        }
        self.pages.mark_stored();
        Ok(())
    }

    fn close(&mut self) -> IoResult<()> {
        if self.header.log == [0; 16] {
            return Ok(());
        }
        self.header.log = [0; 16];
        self.header.store(self.file.as_ref())
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details { cluster_size: Some(self.metadata.block), ..Details::default() })
    }

    fn can_check(&self) -> bool {
        true
    }

    /// Blocks are inside the file; a log that had to be replayed counts as repaired.
    fn check(&mut self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let mut report = CheckReport::default();
        if self.replayed && repair.is_some() {
            report.corruptions_fixed += 1;
            self.replayed = false;
        }
        let end = self.file.len()?;
        for block in 0..self.metadata.blocks() {
            let entry = self.entry(block)?;
            let offset = entry & !(MIB - 1);
            let present = entry & STATE == FULLY_PRESENT;
            if entry & STATE == PARTIALLY_PRESENT || present && (offset < MIB || offset >= end) {
                report.corruptions += 1;
                report.messages.push(format!("ERROR: BAT entry {entry:#x} of block {block} is invalid"));
            }
        }
        Ok(report)
    }
}

/// `vhdx`.
pub struct Vhdx;

impl Driver for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(SIGNATURE) { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        context.finish()?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let mut signature = [0; 8];
        file.node.read_at(0, &mut signature).map_err(OpenError::io("Could not read VHDX signature"))?;
        if &signature != SIGNATURE {
            return Err(OpenError::Image("Invalid VHDX signature".to_owned()));
        }
        let map = VhdxMap::open(&file.node, read_only)?;
        let Metadata { size, block, fixed, .. } = map.metadata;
        let parts = Parts { fixed, ..Parts::new(&file.node, map, size, block, read_only) };
        Ok(Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node))
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

/// In the order of QEMU's "Formatting" line.
const OPTIONS: &[CreateOption] = &[
    CreateOption::new("size", OptionKind::Size, "Virtual disk size; max of 64TB."),
    CreateOption::new("log_size", OptionKind::Size, "Log size; min 1MB.").default("1048576"),
    CreateOption::new(
        "block_size",
        OptionKind::Size,
        "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
    )
    .default("0"),
    CreateOption::new(
        "subformat",
        OptionKind::Text,
        "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
    ),
    CreateOption::new(
        "block_state_zero",
        OptionKind::Switch,
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using 'qemu-img \
         convert' with subformat=dynamic.",
    ),
];

fn block_size(options: &CreateOptions, size: u64) -> Result<u64, OpenError> {
    let automatic = if size > 32 << 40 {
        64
    } else if size > 100 << 30 {
        32
    } else if size > 1 << 30 {
        16
    } else {
        8
    };
    match options.number("block_size") {
        None | Some(0) => Ok(automatic * MIB),
        Some(given) if !given.is_power_of_two() => {
            Err(OpenError::Invalid("Block size must be a power of two".to_owned()))
        }
        Some(given) => Ok(given.clamp(MIB, 256 * MIB)),
    }
}

impl Creation for Vhdx {
    fn options(&self) -> &'static [CreateOption] {
        OPTIONS
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let invalid = |text: String| Err(OpenError::Invalid(text));
        let size = options.whole_sectors()?;
        if size > MAX_SIZE {
            return invalid("Image size too large; max of 64TB".to_owned());
        }
        let fixed = match options.get("subformat") {
            None | Some("dynamic") => false,
            Some("fixed") => true,
            Some(other) => return invalid(format!("Parameter 'subformat' does not accept value '{other}'")),
        };
        let reserve = if fixed {
            options.preallocation(&[Preallocation::Off, Preallocation::Falloc, Preallocation::Full])?
        } else {
            no_preallocation(options)?;
            Preallocation::Off
        };
        let log = options.number("log_size").unwrap_or(MIB).checked_next_multiple_of(MIB).unwrap_or(u64::MAX);
        if log < MIB || log > u64::from(u32::MAX) {
            return invalid("Log size must be a multiple of 1 MB".to_owned());
        }
        let metadata = Metadata { block: block_size(options, size)?, fixed, size, sector: 512 };
        let bat = Region { offset: MIB + log, length: (metadata.entries() * 8).next_multiple_of(MIB).max(MIB) };
        let zero = options.get("block_state_zero") != Some("off");
        let file = place.file(filename, options)?;
        let make = || {
            let data = bat.offset + bat.length + MIB + SPARE;
            let end = if fixed { data + metadata.blocks() * metadata.block } else { data };
            file.truncate(end)?;
            if fixed && reserve != Preallocation::Off && end > data {
                file.preallocate(data, end - data, reserve)?;
            }
            write_bat(file.as_ref(), bat, &metadata, data, zero)?;
            layout::write_new(file.as_ref(), log, bat, bat.offset + bat.length, metadata)
        };
        make().map_err(while_creating())
    }
}

/// The BAT of a new image: blocks in order, or none.
fn write_bat(file: &dyn BlockNode, bat: Region, metadata: &Metadata, data: u64, zero: bool) -> IoResult<()> {
    if !metadata.fixed && !zero {
        return Ok(()); // "not present" is 0
    }
    let ratio = metadata.chunk_ratio();
    let mut entries = Vec::new();
    let mut at = bat.offset;
    for block in 0..metadata.blocks() {
        let entry = if metadata.fixed { (data + block * metadata.block) | FULLY_PRESENT } else { ZERO };
        entries.extend(entry.to_le_bytes());
        if (block + 1).is_multiple_of(ratio) {
            entries.extend([0; 8]); // the sector bitmap of the chunk
        }
        if entries.len() >= 1 << 20 {
            file.write_at(at, &entries, false)?;
            at += entries.len() as u64;
            entries.clear();
        }
    }
    file.write_at(at, &entries, false)
}
