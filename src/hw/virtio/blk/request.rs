//! Requests (5.2.6): from a descriptor chain to what the disk shall do, checked against the disk.

use super::super::Chain;
use super::{ID_LEN, Options, SECTOR, STATUS_IOERR, STATUS_UNSUPP};
use crate::mem::{GuestRam, Sg};

/// Request types.
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
    /// Legacy: a barrier, which drivers that were never offered it do not set; it changes no type.
    pub const BARRIER: u32 = 1 << 31;
}

/// Type, reserved, sector.
const HEADER_LEN: u64 = 16;
/// A discard or write zeroes segment: sector, number of sectors, flags.
const SEGMENT_LEN: usize = 16;
/// Segment flags: storage may be given back.
const UNMAP: u32 = 1;

/// What the disk shall do. Offsets and lengths are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read {
        offset: u64,
        data: Sg,
    },
    Write {
        offset: u64,
        data: Sg,
    },
    Flush,
    Discard {
        offset: u64,
        len: u64,
    },
    WriteZeroes {
        offset: u64,
        len: u64,
        may_unmap: bool,
    },
    /// The serial number.
    Id,
    /// Nothing: the answer is this status.
    Answer(u8),
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parsed {
    pub kind: Kind,
    /// Bytes that the driver gets if it goes well, without the status.
    pub written: u32,
}

/// The chain has no room for header or status: no answer is possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken;

/// Reads a request.
pub(super) fn parse(ram: &GuestRam, chain: &Chain, options: &Options, capacity: u64) -> Result<Parsed, Broken> {
    let mut header = [0; 16];
    if chain.readable.len() < HEADER_LEN || chain.writable.is_empty() || chain.read(ram, 0, &mut header).is_err() {
        return Err(Broken);
    }
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    let (request, sector) = (u32::from_le_bytes([a, b, c, d]) & !kind::BARRIER, u64::from_le_bytes(sector));
    let room = chain.writable.len() - 1;
    let written = u32::try_from(room).unwrap_or(u32::MAX);
    let plain = |kind| Ok(Parsed { kind, written: 0 });
    let disk = Limits { block: options.logical_block_size.max(512).into(), capacity };
    match request {
        kind::IN => Ok(match disk.range(sector, room) {
            Some(offset) => Parsed { kind: Kind::Read { offset, data: chain.writable.slice(0, room) }, written },
            None => Parsed { kind: Kind::Answer(STATUS_IOERR), written: 0 },
        }),
        kind::OUT => {
            let data = chain.readable.slice(HEADER_LEN, chain.readable.len() - HEADER_LEN);
            plain(match disk.range(sector, data.len()) {
                Some(offset) if !options.read_only => Kind::Write { offset, data },
                _ => Kind::Answer(STATUS_IOERR),
            })
        }
        kind::FLUSH => plain(Kind::Flush),
        kind::GET_ID => Ok(Parsed { kind: Kind::Id, written: written.min(u32::try_from(ID_LEN).unwrap_or(0)) }),
        kind::DISCARD | kind::WRITE_ZEROES => {
            plain(parse_segment(ram, chain, request, options, disk).unwrap_or_else(Kind::Answer))
        }
        _ => plain(Kind::Answer(STATUS_UNSUPP)),
    }
}

#[derive(Clone, Copy)]
struct Limits {
    block: u64,
    capacity: u64,
}

impl Limits {
    /// The offset of `len` bytes from `sector` on, if they are whole blocks of the disk.
    fn range(self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(len)?;
        (end <= self.capacity && offset.is_multiple_of(self.block) && len.is_multiple_of(self.block)).then_some(offset)
    }
}

/// The one segment of a discard or write zeroes request; what is wrong with it is a status.
fn parse_segment(ram: &GuestRam, chain: &Chain, request: u32, options: &Options, disk: Limits) -> Result<Kind, u8> {
    let discard = request == kind::DISCARD;
    let max = if discard { options.discard.map(|limits| limits.max_sectors) } else { options.write_zeroes };
    let max = max.ok_or(STATUS_UNSUPP)?;
    if options.read_only {
        return Err(STATUS_IOERR);
    }
    // The configuration allows one segment; drivers that send more are told so.
    if chain.readable.len() != HEADER_LEN + SEGMENT_LEN as u64 {
        return Err(if chain.readable.len() > HEADER_LEN { STATUS_UNSUPP } else { STATUS_IOERR });
    }
    let mut segment = [0; SEGMENT_LEN];
    chain.read(ram, HEADER_LEN, &mut segment).map_err(|_| STATUS_IOERR)?;
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = segment;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let (count, flags) = (u32::from_le_bytes([n0, n1, n2, n3]), u32::from_le_bytes(flags));
    // 5.2.6.2: unknown flags are unsupported, and so is unmap on a discard.
    if flags & !UNMAP != 0 || (discard && flags != 0) {
        return Err(STATUS_UNSUPP);
    }
    let len = u64::from(count) * SECTOR;
    let offset = disk.range(sector, len).filter(|_| count <= max).ok_or(STATUS_IOERR)?;
    Ok(match discard {
        true => Kind::Discard { offset, len },
        false => Kind::WriteZeroes { offset, len, may_unmap: flags & UNMAP != 0 },
    })
}
