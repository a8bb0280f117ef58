//! The structures at fixed places: headers, region tables, metadata ([MS-VHDX] 2.2 and 2.6).

use crate::block::error::OpenError;
use crate::block::format::blocks::parts::{bytes_at, inside, le16, le32, le64, random_guid, set};
use crate::block::node::{BlockNode, IoResult};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const SIGNATURE: &[u8; 8] = b"vhdxfile";
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER_BYTES: usize = 4096;
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const REGION_TABLE_BYTES: usize = 64 << 10;
/// The most that a region table or the metadata table may list.
const MAX_ENTRIES: u32 = 2047;
pub(super) const MAX_SIZE: u64 = 64 << 40;

/// Identifiers, in the byte order of the file.
mod guid {
    pub(super) const BAT: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
    pub(super) const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    pub(super) const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    pub(super) const DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    pub(super) const DISK_ID: [u8; 16] = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
    pub(super) const LOGICAL_SECTOR: [u8; 16] = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
    pub(super) const PHYSICAL_SECTOR: [u8; 16] = *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
}

/// CRC-32C with the field at `at` taken as zeros.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let crc = crc32c::crc32c(&bytes[..at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[at + 4..])
}

/// The current header (2.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) file_write: [u8; 16],
    pub(super) data_write: [u8; 16],
    pub(super) log: [u8; 16],
    pub(super) log_length: u64,
    pub(super) log_offset: u64,
    /// Which of the two copies it is.
    copy: usize,
}

impl Header {
    fn decode(bytes: &[u8], copy: usize) -> Option<Self> {
        let valid = bytes.starts_with(b"head") && le32(bytes, 4) == checksum(bytes, 4);
        // Log version 0 and version 1 are all there are.
        (valid && le16(bytes, 64) == 0 && le16(bytes, 66) == 1).then(|| Self {
            sequence: le64(bytes, 8),
            file_write: bytes_at(bytes, 16),
            data_write: bytes_at(bytes, 32),
            log: bytes_at(bytes, 48),
            log_length: le32(bytes, 68).into(),
            log_offset: le64(bytes, 72),
            copy,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        set(&mut bytes, 0, b"head");
        set(&mut bytes, 8, &self.sequence.to_le_bytes());
        set(&mut bytes, 16, &self.file_write);
        set(&mut bytes, 32, &self.data_write);
        set(&mut bytes, 48, &self.log);
        set(&mut bytes, 66, &1_u16.to_le_bytes());
        set(&mut bytes, 68, &u32::try_from(self.log_length).unwrap_or(0).to_le_bytes());
        set(&mut bytes, 72, &self.log_offset.to_le_bytes());
        let crc = checksum(&bytes, 4);
        set(&mut bytes, 4, &crc.to_le_bytes());
        bytes
    }

    /// The valid copy with the higher sequence number.
    pub(super) fn read(file: &dyn BlockNode) -> Result<Self, OpenError> {
        let mut found: Option<Self> = None;
        for (copy, at) in HEADERS.into_iter().enumerate() {
            let mut bytes = vec![0; HEADER_BYTES];
            file.read_at(at, &mut bytes).map_err(OpenError::io("Could not read VHDX header"))?;
            if let Some(header) = Self::decode(&bytes, copy)
                && found.is_none_or(|other| header.sequence > other.sequence)
            {
                found = Some(header);
            }
        }
        let header = found.ok_or_else(|| OpenError::Image("No valid VHDX header found".to_owned()))?;
        let placed = header.log_offset >= MIB && header.log_offset.is_multiple_of(MIB);
        if !placed || !header.log_length.is_multiple_of(MIB) {
            let (offset, length) = (header.log_offset, header.log_length);
            return Err(OpenError::Image(format!("VHDX log at offset {offset} with {length} bytes is misplaced")));
        }
        inside(file, "The log", header.log_offset, header.log_length)?;
        Ok(header)
    }

    /// Stores the header in both copies, one after the other: one of them is valid at any time (2.2.2).
    pub(super) fn store(&mut self, file: &dyn BlockNode) -> IoResult<()> {
        for _ in 0..2 {
            self.sequence = self.sequence.wrapping_add(1);
            self.copy ^= 1;
            file.write_at(HEADERS[self.copy], &self.encode(), true)?;
        }
        Ok(())
    }
}

/// A part of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The BAT's and the metadata's regions (2.2.3).
pub(super) fn read_regions(file: &dyn BlockNode) -> Result<(Region, Region), OpenError> {
    let mut bytes = vec![0; REGION_TABLE_BYTES];
    let mut found = false;
    for at in REGION_TABLES {
        file.read_at(at, &mut bytes).map_err(OpenError::io("Could not read VHDX region table"))?;
        found = bytes.starts_with(b"regi") && le32(&bytes, 4) == checksum(&bytes, 4) && le32(&bytes, 8) <= MAX_ENTRIES;
        if found {
            break;
        }
    }
    if !found {
        return Err(OpenError::Image("No valid VHDX region table found".to_owned()));
    }
    let (mut bat, mut metadata) = (None, None);
    for number in 0..le32(&bytes, 8) as usize {
        let at = 16 + number * 32;
        let region = Region { offset: le64(&bytes, at + 16), length: le32(&bytes, at + 24).into() };
        let place = match bytes_at::<16>(&bytes, at) {
            guid::BAT => &mut bat,
            guid::METADATA => &mut metadata,
            _ if le32(&bytes, at + 28) & 1 == 0 => continue,
            _ => return Err(OpenError::Unsupported("A required region of this VHDX image".to_owned())),
        };
        if place.is_some() {
            return Err(OpenError::Image("VHDX region table lists a region twice".to_owned()));
        }
        if region.offset < MIB || !region.offset.is_multiple_of(MIB) {
            return Err(OpenError::Image(format!("VHDX region at offset {} is misplaced", region.offset)));
        }
        inside(file, "A region", region.offset, region.length)?;
        *place = Some(region);
    }
    let missing = || OpenError::Image("VHDX region table lacks the BAT or the metadata".to_owned());
    Ok((bat.ok_or_else(missing)?, metadata.ok_or_else(missing)?))
}

/// What the disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Metadata {
    pub(super) block: u64,
    pub(super) fixed: bool,
    pub(super) size: u64,
    pub(super) sector: u64,
}

impl Metadata {
    /// Reads the metadata items (2.6).
    pub(super) fn read(file: &dyn BlockNode, region: Region) -> Result<Self, OpenError> {
        let bad = |text: &str| OpenError::Image(format!("VHDX metadata at offset {}: {text}", region.offset));
        let mut table = vec![0; 64 << 10];
        file.read_at(region.offset, &mut table).map_err(OpenError::io("Could not read VHDX metadata"))?;
        if !table.starts_with(b"metadata") || u32::from(le16(&table, 10)) > MAX_ENTRIES {
            return Err(bad("no valid table"));
        }
        let item = |wanted: [u8; 16]| -> Result<[u8; 8], OpenError> {
            let entries = (0..usize::from(le16(&table, 10))).map(|number| 32 + number * 32);
            let at = entries.into_iter().find(|at| bytes_at::<16>(&table, *at) == wanted);
            let at = at.ok_or_else(|| bad("an item is missing"))?;
            let offset = u64::from(le32(&table, at + 16));
            if offset < 64 << 10 || offset + 8 > region.length {
                return Err(bad("an item is misplaced"));
            }
            let mut value = [0; 8];
            file.read_at(region.offset + offset, &mut value).map_err(OpenError::io("Could not read VHDX metadata"))?;
            Ok(value)
        };
        let parameters = item(guid::FILE_PARAMETERS)?;
        let flags = le32(&parameters, 4);
        if flags & 2 != 0 {
            return Err(OpenError::Unsupported("A differencing VHDX".to_owned()));
        }
        let metadata = Self {
            block: le32(&parameters, 0).into(),
            fixed: flags & 1 != 0,
            size: u64::from_le_bytes(item(guid::DISK_SIZE)?),
            sector: le32(&item(guid::LOGICAL_SECTOR)?, 0).into(),
        };
        if !metadata.block.is_power_of_two() || !(MIB..=256 * MIB).contains(&metadata.block) {
            return Err(bad("the block size is invalid"));
        }
        if metadata.sector != 512 && metadata.sector != 4096 {
            return Err(bad("the logical sector size is invalid"));
        }
        if metadata.size > MAX_SIZE || !metadata.size.is_multiple_of(metadata.sector) {
            return Err(bad("the disk size is invalid"));
        }
        Ok(metadata)
    }

    /// Payload blocks before an entry for a sector bitmap (2.5).
    pub(super) fn chunk_ratio(&self) -> u64 {
        (self.sector << 23) / self.block
    }

    pub(super) fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    /// Where a block's entry is in the BAT.
    pub(super) fn entry(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio()
    }

    /// Entries of the BAT.
    pub(super) fn entries(&self) -> u64 {
        self.blocks().checked_sub(1).map_or(0, |last| self.entry(last) + 1)
    }
}

/// Writes everything but the BAT of a new image; the file identifier last, so that what was cut off before is no image.
pub(super) fn write_new(
    file: &dyn BlockNode,
    log_length: u64,
    bat: Region,
    metadata_at: u64,
    metadata: Metadata,
) -> IoResult<()> {
    let mut header = Header {
        sequence: u64::from(u32::from_le_bytes(bytes_at(&random_guid()?, 0))),
        file_write: random_guid()?,
        data_write: random_guid()?,
        log: [0; 16],
        log_length,
        log_offset: MIB,
        copy: 1,
    };
    let metadata_region = Region { offset: metadata_at, length: MIB };
    file.write_at(metadata_at, &encode_metadata(metadata)?, false)?;
    for at in REGION_TABLES {
        file.write_at(at, &encode_regions(bat, metadata_region), false)?;
    }
    header.store(file)?;
    let mut identifier = SIGNATURE.to_vec();
    identifier.extend("Dromaius".encode_utf16().flat_map(u16::to_le_bytes));
    file.write_at(0, &identifier, false)
}

fn encode_regions(bat: Region, metadata: Region) -> Vec<u8> {
    let mut bytes = vec![0; REGION_TABLE_BYTES];
    set(&mut bytes, 0, b"regi");
    set(&mut bytes, 8, &2_u32.to_le_bytes());
    for (at, id, region) in [(16, guid::BAT, bat), (48, guid::METADATA, metadata)] {
        set(&mut bytes, at, &id);
        set(&mut bytes, at + 16, &region.offset.to_le_bytes());
        set(&mut bytes, at + 24, &u32::try_from(region.length).unwrap_or(0).to_le_bytes());
        set(&mut bytes, at + 28, &1_u32.to_le_bytes());
    }
    let crc = checksum(&bytes, 4);
    set(&mut bytes, 4, &crc.to_le_bytes());
    bytes
}

fn encode_metadata(metadata: Metadata) -> IoResult<Vec<u8>> {
    /// It must be understood, and of these it belongs to the virtual disk.
    const REQUIRED: u32 = 4;
    const OF_THE_DISK: u32 = 6;
    let small = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let mut parameters = small(metadata.block).to_vec();
    parameters.extend(u32::from(metadata.fixed).to_le_bytes());
    let items = [
        (guid::FILE_PARAMETERS, REQUIRED, parameters),
        (guid::DISK_SIZE, OF_THE_DISK, metadata.size.to_le_bytes().to_vec()),
        (guid::DISK_ID, OF_THE_DISK, random_guid()?.to_vec()),
        (guid::LOGICAL_SECTOR, OF_THE_DISK, small(metadata.sector).to_vec()),
        (guid::PHYSICAL_SECTOR, OF_THE_DISK, small(512).to_vec()),
    ];
    let mut bytes = vec![0; 64 << 10];
    set(&mut bytes, 0, b"metadata");
    set(&mut bytes, 10, &u16::try_from(items.len()).unwrap_or(0).to_le_bytes());
    for (number, (id, flags, value)) in items.into_iter().enumerate() {
        let at = 32 + number * 32;
        let place = bytes.len() as u64;
        set(&mut bytes, at, &id);
        set(&mut bytes, at + 16, &small(place));
        set(&mut bytes, at + 20, &small(value.len() as u64));
        set(&mut bytes, at + 24, &flags.to_le_bytes());
        bytes.extend(value);
    }
    Ok(bytes)
}
