//! Where a command's data is: physical region pages and scatter-gather lists (NVMe 1.4 4.3, 4.4), as a list of pieces of
//! guest memory.

use super::spec::Status;
use crate::mem::{GuestRam, Sg};

/// Bytes of a command.
pub const COMMAND_LEN: usize = 64;
/// Segments of a scatter-gather list, and descriptors in all of them, at most.
const MAX_SEGMENTS: usize = 64;
const MAX_DESCRIPTORS: usize = 2048;

/// Descriptor types of scatter-gather lists (4.4.1).
mod sgl {
    pub const DATA_BLOCK: u8 = 0;
    pub const BIT_BUCKET: u8 = 1;
    pub const SEGMENT: u8 = 2;
    pub const LAST_SEGMENT: u8 = 3;
}

/// A submission queue entry (4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command(pub [u8; COMMAND_LEN]);

impl Command {
    /// Double word n.
    pub fn dword(&self, n: usize) -> u32 {
        let bytes = self.0.get(4 * n..4 * n + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    /// Double words n and n + 1.
    pub fn qword(&self, n: usize) -> u64 {
        u64::from(self.dword(n)) | u64::from(self.dword(n + 1)) << 32
    }

    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    pub fn id(&self) -> u16 {
        (self.dword(0) >> 16) as u16
    }

    pub fn namespace(&self) -> u32 {
        self.dword(1)
    }

    /// PSDT: PRPs, or SGLs with two ways of metadata.
    fn uses_sgl(&self) -> bool {
        self.0[1] >> 6 != 0
    }

    /// The memory of `len` bytes of data; `page` is the memory page size.
    pub fn data(&self, ram: &GuestRam, len: u64, page: u64) -> Result<Sg, Status> {
        if len == 0 {
            return Ok(Sg::new());
        }
        let list = if self.uses_sgl() { self.sgl_list(ram, len)? } else { self.prp_list(ram, len, page)? };
        let in_ram = list.pieces().iter().all(|(gpa, len)| ram.contains(*gpa, (*len).into()));
        if in_ram { Ok(list) } else { Err(Status::DATA_TRANSFER) }
    }

    fn prp_list(&self, ram: &GuestRam, len: u64, page: u64) -> Result<Sg, Status> {
        let (first, second) = (self.qword(6), self.qword(8));
        let mut list = Sg::new();
        let mut left = len;
        let mut push = |gpa: u64, bytes: u64| list.push(gpa, u32::try_from(bytes).unwrap_or(u32::MAX));
        if !first.is_multiple_of(4) {
            return Err(Status::PRP_OFFSET);
        }
        let step = (page - first % page).min(left);
        push(first, step);
        left -= step;
        if left == 0 {
            return Ok(list);
        }
        if left <= page {
            if !second.is_multiple_of(page) {
                return Err(Status::PRP_OFFSET);
            }
            push(second, left);
            return Ok(list);
        }
        // A list; its last entry leads to the next page of it while more than one entry is needed.
        let mut at = second;
        if !at.is_multiple_of(8) {
            return Err(Status::PRP_OFFSET);
        }
        while left > 0 {
            let mut entry = ram.read_u64(at).map_err(|_| Status::DATA_TRANSFER)?;
            if at % page == page - 8 && left > page {
                if !entry.is_multiple_of(page) {
                    return Err(Status::PRP_OFFSET);
                }
                at = entry;
                entry = ram.read_u64(at).map_err(|_| Status::DATA_TRANSFER)?;
            }
            if !entry.is_multiple_of(page) {
                return Err(Status::PRP_OFFSET);
            }
            let step = left.min(page);
            push(entry, step);
            left -= step;
            at = at.checked_add(8).ok_or(Status::DATA_TRANSFER)?;
        }
        Ok(list)
    }

    fn sgl_list(&self, ram: &GuestRam, len: u64) -> Result<Sg, Status> {
        let mut walk = Walk { list: Sg::new(), left: len, descriptors: 0 };
        let mut next = walk.descriptor(self.qword(6), self.qword(8), false)?;
        let mut segments = 0;
        while let Some(Segment { gpa, len, last }) = next {
            segments += 1;
            if segments > MAX_SEGMENTS || !len.is_multiple_of(16) || len == 0 {
                return Err(Status::SGL_SEGMENT);
            }
            next = None;
            for index in 0..len / 16 {
                let at = gpa.checked_add(u64::from(index) * 16).ok_or(Status::DATA_TRANSFER)?;
                let low = ram.read_u64(at).map_err(|_| Status::DATA_TRANSFER)?;
                let high = ram.read_u64(at.wrapping_add(8)).map_err(|_| Status::DATA_TRANSFER)?;
                let is_end = index + 1 == len / 16;
                let found = walk.descriptor(low, high, !is_end || last)?;
                next = found;
            }
        }
        if walk.left > 0 { Err(Status::SGL_LENGTH) } else { Ok(walk.list) }
    }
}

/// A further segment of a list.
struct Segment {
    gpa: u64,
    len: u32,
    last: bool,
}

struct Walk {
    list: Sg,
    left: u64,
    descriptors: usize,
}

impl Walk {
    /// Takes a descriptor: its address, and its other half (length, type). `data_only`: no further segment may start.
    fn descriptor(&mut self, gpa: u64, rest: u64, data_only: bool) -> Result<Option<Segment>, Status> {
        self.descriptors += 1;
        if self.descriptors > MAX_DESCRIPTORS {
            return Err(Status::SGL_SEGMENT);
        }
        let (len, kind) = ((rest & 0xffff_ffff) as u32, (rest >> 60) as u8);
        if rest >> 56 & 0xf != 0 {
            return Err(Status::SGL_TYPE); // an address sub-type: offsets into controller memory
        }
        match kind {
            sgl::DATA_BLOCK => {
                let step = u64::from(len).min(self.left);
                self.list.push(gpa, u32::try_from(step).unwrap_or(u32::MAX));
                self.left -= step;
                Ok(None)
            }
            sgl::SEGMENT | sgl::LAST_SEGMENT if data_only => Err(Status::SGL_SEGMENT),
            sgl::SEGMENT => Ok(Some(Segment { gpa, len, last: false })),
            sgl::LAST_SEGMENT => Ok(Some(Segment { gpa, len, last: true })),
            sgl::BIT_BUCKET => Err(Status::SGL_TYPE),
            _ => Err(Status::SGL_TYPE),
        }
    }
}
