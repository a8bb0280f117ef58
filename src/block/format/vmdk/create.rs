//! New disks: `qemu-img create -f vmdk`.

use std::fmt::Write;
use std::path::Path;

use super::descriptor::NewDescriptor;
use super::sparse::{Header, SECTOR, TABLE_ENTRIES, flag};
use super::{Vmdk, cid_of};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation};
use crate::block::error::OpenError;
use crate::block::format::blocks::parts::{no_preallocation, random, while_creating};
use crate::block::graph::{OpenFlags, backing_path};
use crate::block::node::{BlockNode, IoResult};
use crate::block::options::NodeOptions;

/// Sectors of a grain.
const GRAIN: u64 = 128;
/// Sectors of the embedded descriptor.
const DESCRIPTOR_SECTORS: u64 = 20;
/// The longest extent of the split formats.
const SPLIT_BYTES: u64 = 2 << 30;

/// In the order of QEMU's "Formatting" line.
const OPTIONS: &[CreateOption] = &[
    create::SIZE,
    CreateOption::new(
        "adapter_type",
        OptionKind::Text,
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    ),
    create::BACKING_FILE,
    CreateOption::new("backing_fmt", OptionKind::Text, "Must be 'vmdk' if present"),
    CreateOption::new("compat6", OptionKind::Switch, "VMDK version 6 image").default("off"),
    CreateOption::new("hwversion", OptionKind::Text, "VMDK hardware version").default("undefined"),
    CreateOption::new(
        "subformat",
        OptionKind::Text,
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | \
         twoGbMaxExtentFlat | streamOptimized} ",
    ),
    CreateOption::new("toolsversion", OptionKind::Text, "VMware guest tools version"),
    CreateOption::new(
        "zeroed_grain",
        OptionKind::Switch,
        "Enable efficient zero writes using the zeroed-grain GTE feature",
    ),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Subformat {
    name: &'static str,
    flat: bool,
    split: bool,
    compressed: bool,
}

const SUBFORMATS: &[Subformat] = &[
    Subformat { name: "monolithicSparse", flat: false, split: false, compressed: false },
    Subformat { name: "monolithicFlat", flat: true, split: false, compressed: false },
    Subformat { name: "twoGbMaxExtentSparse", flat: false, split: true, compressed: false },
    Subformat { name: "twoGbMaxExtentFlat", flat: true, split: true, compressed: false },
    Subformat { name: "streamOptimized", flat: false, split: false, compressed: true },
];

fn invalid<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Invalid(text.into()))
}

impl Creation for Vmdk {
    fn options(&self) -> &'static [CreateOption] {
        OPTIONS
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let name = options.get("subformat").unwrap_or("monolithicSparse");
        let Some(subformat) = SUBFORMATS.iter().find(|known| known.name == name) else {
            return invalid(format!("invalid parameter value: {name}"));
        };
        let adapter = options.get("adapter_type").unwrap_or("ide");
        if !["ide", "lsilogic", "buslogic", "legacyESX"].contains(&adapter) {
            return invalid(format!("invalid parameter value: {adapter}"));
        }
        let hardware = match (options.get("hwversion"), options.is_on("compat6")) {
            (Some("undefined") | None, true) => "6",
            (Some("undefined") | None, false) => "4",
            (Some(_), true) => return invalid("compat6 cannot be enabled with hwversion set"),
            (Some(version), false) => version,
        };
        let zeroed = options.is_on("zeroed_grain");
        let backing = options.get("backing_file");
        if subformat.flat && backing.is_some() {
            return invalid("Flat image can't have backing file");
        }
        if subformat.flat && zeroed {
            return invalid("Flat image can't enable zeroed grain");
        }
        if !subformat.flat {
            no_preallocation(options)?;
        }
        let parent_cid = backing.map(|backing| parent_cid(filename, backing, options, place)).transpose()?;
        let size = options.whole_sectors()?;
        let mut maker = Maker { filename, options, place, subformat: *subformat, zeroed, size };
        let extents = maker.extents()?;
        let text = NewDescriptor {
            cid: u32::from_le_bytes(random().map_err(while_creating())?),
            parent: backing.zip(parent_cid),
            create_type: subformat.name,
            extents,
            hardware,
            tools: options.get("toolsversion").unwrap_or("2147483647"),
            adapter,
            size,
        };
        maker.descriptor(&text.text())
    }
}

/// The content identifier of the disk below.
fn parent_cid(
    filename: &str,
    backing: &str,
    options: &CreateOptions,
    place: &mut CreatePlace,
) -> Result<u32, OpenError> {
    if options.get("backing_fmt").is_some_and(|format| format != "vmdk") {
        return invalid("backing_file must be a vmdk image");
    }
    let below = NodeOptions::file(backing_path(filename, backing));
    let flags = OpenFlags { read_only: true, no_backing: true, ..OpenFlags::default() };
    let image = place.opener.open(&below, flags)?;
    if image.driver != "vmdk" {
        return invalid("Invalid backing file for VMDK image creation. Must be a vmdk image");
    }
    cid_of(&image).ok_or_else(|| OpenError::Image(format!("Failed to read parent CID of '{backing}'")))
}

struct Maker<'a> {
    filename: &'a str,
    options: &'a CreateOptions,
    place: &'a mut CreatePlace,
    subformat: Subformat,
    zeroed: bool,
    size: u64,
}

impl Maker<'_> {
    /// Makes the extents; their lines.
    fn extents(&mut self) -> Result<String, OpenError> {
        let path = Path::new(self.filename);
        let own = path.file_name().map_or_else(|| self.filename.to_owned(), |name| name.to_string_lossy().into_owned());
        if own.contains(['"', '\n']) {
            return invalid(format!("File name '{own}' cannot be in a VMDK descriptor"));
        }
        let sectors = self.size / SECTOR;
        if !self.subformat.flat && !self.subformat.split {
            let file = self.place.file(self.filename, self.options)?;
            self.sparse(file.as_ref(), sectors)?;
            return Ok(format!("RW {sectors} SPARSE \"{own}\"\n"));
        }
        let folder = self.filename.strip_suffix(&own).unwrap_or_default().to_owned();
        let (stem, suffix) = own.rfind('.').map_or((own.as_str(), ""), |dot| own.split_at(dot));
        let mut lines = String::new();
        let mut left = self.size;
        for number in 1.. {
            let len = if self.subformat.split { left.min(SPLIT_BYTES) } else { left };
            let name = match (self.subformat.flat, self.subformat.split) {
                (true, false) => format!("{stem}-flat{suffix}"),
                (true, true) => format!("{stem}-f{number:03}{suffix}"),
                _ => format!("{stem}-s{number:03}{suffix}"),
            };
            let file = self.place.file(&format!("{folder}{name}"), self.options)?;
            if self.subformat.flat {
                self.flat(file.as_ref(), len)?;
                let _ = writeln!(lines, "RW {} FLAT \"{name}\" 0", len / SECTOR);
            } else {
                self.sparse(file.as_ref(), len / SECTOR)?;
                let _ = writeln!(lines, "RW {} SPARSE \"{name}\"", len / SECTOR);
            }
            left -= len;
            if left == 0 {
                break;
            }
        }
        Ok(lines)
    }

    fn flat(&self, file: &dyn BlockNode, len: u64) -> Result<(), OpenError> {
        let how = self.options.preallocation(&[Preallocation::Off, Preallocation::Falloc, Preallocation::Full])?;
        file.truncate(len).map_err(while_creating())?;
        if how == Preallocation::Off || len == 0 {
            return Ok(());
        }
        file.preallocate(0, len, how).map_err(while_creating())
    }

    fn sparse(&self, file: &dyn BlockNode, sectors: u64) -> Result<(), OpenError> {
        let header = self.header(sectors);
        if u32::try_from(header.overhead).is_err() {
            return invalid("The image size is too large for file format 'vmdk'");
        }
        write_tables(file, &header).map_err(while_creating())
    }

    fn header(&self, capacity: u64) -> Header {
        let entries = capacity.div_ceil(GRAIN * TABLE_ENTRIES);
        let directory = (entries * 4).div_ceil(SECTOR);
        let tables = entries * TABLE_ENTRIES * 4 / SECTOR;
        let redundant_directory = 1 + DESCRIPTOR_SECTORS;
        let (version, mut flags) = match (self.subformat.compressed, self.zeroed) {
            (true, _) => (3, flag::COMPRESSED | flag::MARKERS),
            (false, true) => (2, 0),
            (false, false) => (1, 0),
        };
        flags |= flag::NEWLINE_TEST | flag::REDUNDANT_TABLES | if self.zeroed { flag::ZERO_GRAINS } else { 0 };
        Header {
            version,
            flags,
            capacity,
            grain: GRAIN,
            descriptor: 1,
            descriptor_len: DESCRIPTOR_SECTORS,
            redundant_directory,
            directory: redundant_directory + directory + tables,
            overhead: (redundant_directory + 2 * (directory + tables)).next_multiple_of(GRAIN),
        }
    }

    /// Writes the descriptor where it belongs: last, so that what was cut off before is no disk.
    fn descriptor(&mut self, text: &str) -> Result<(), OpenError> {
        if self.subformat.flat || self.subformat.split {
            let file = self.place.file(self.filename, self.options)?;
            return file.write_at(0, text.as_bytes(), false).map_err(while_creating());
        }
        if text.len() as u64 > DESCRIPTOR_SECTORS * SECTOR {
            return invalid("The VMDK descriptor is too long");
        }
        let flags = OpenFlags::default();
        let file = self.place.opener.open_protocol(self.filename, flags)?;
        file.write_at(SECTOR, text.as_bytes(), false).map_err(while_creating())
    }
}

/// Both directories, each before its tables, which are holes of the file: zeros.
fn write_tables(file: &dyn BlockNode, header: &Header) -> IoResult<()> {
    file.truncate(header.overhead * SECTOR)?;
    let entries = header.directory_entries();
    for directory in [header.redundant_directory, header.directory] {
        let first = directory + (entries * 4).div_ceil(SECTOR);
        let tables = (0..entries).map(|number| first + number * TABLE_ENTRIES * 4 / SECTOR);
        let bytes: Vec<u8> = tables.flat_map(|sector| u32::try_from(sector).unwrap_or(0).to_le_bytes()).collect();
        file.write_at(directory * SECTOR, &bytes, false)?;
    }
    file.write_at(0, &header.encode(), false)
}
