//! The table of internal snapshots (qcow2.rst, "Snapshots"): read and kept as it is.

use std::io;

use super::Image;
use super::header::Header;
use crate::block::image::SnapshotInfo;
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// Bytes of an entry before its extra data.
const FIXED_BYTES: usize = 40;
/// QEMU refuses more extra data.
const MAX_EXTRA: usize = 1024;
/// QEMU refuses longer L1 tables.
const MAX_L1_ENTRIES: u32 = 4 << 20;

/// The fixed part of an entry, and how many bytes of what follow.
struct Fixed {
    info: SnapshotInfo,
    extra: usize,
    id: usize,
    name: usize,
}

fn parse_fixed(bytes: &[u8; FIXED_BYTES]) -> Fixed {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let info = SnapshotInfo {
        l1_offset: u64_at(0),
        l1_size: u32_at(8),
        date_sec: u32_at(16),
        date_nsec: u32_at(20),
        vm_clock_nsec: u64_at(24),
        vm_state_size: u64::from(u32_at(32)),
        ..SnapshotInfo::default()
    };
    Fixed { info, extra: u32_at(36) as usize, id: u16_at(12), name: u16_at(14) }
}

fn parse_rest(fixed: Fixed, rest: &[u8]) -> SnapshotInfo {
    let Fixed { mut info, extra, id, name } = fixed;
    let word = |at: usize| (at + 8 <= extra).then(|| rest[at..at + 8].try_into().map_or(0, u64::from_be_bytes));
    info.vm_state_size = word(0).unwrap_or(info.vm_state_size);
    info.icount = word(16).filter(|count| *count != u64::MAX);
    let text = |at: usize, len: usize| String::from_utf8_lossy(&rest[at..at + len]).into_owned();
    info.id = text(extra, id);
    info.name = text(extra + id, name);
    info
}

/// Reads the table. Returns the snapshots and the table's length in bytes.
pub(super) fn read_table(file: &dyn BlockNode, header: &Header) -> IoResult<(Vec<SnapshotInfo>, u64)> {
    let mut at = header.snapshots_offset;
    let mut snapshots = Vec::new();
    for _ in 0..header.snapshots {
        let mut bytes = [0; FIXED_BYTES];
        file.read_at(at, &mut bytes)?;
        let fixed = parse_fixed(&bytes);
        if fixed.extra > MAX_EXTRA || fixed.info.l1_size > MAX_L1_ENTRIES {
            return Err(io::Error::from_raw_os_error(27)); // EFBIG
        }
        let len = fixed.extra + fixed.id + fixed.name;
        let mut rest = vec![0; len];
        file.read_at(at + FIXED_BYTES as u64, &mut rest)?;
        snapshots.push(parse_rest(fixed, &rest));
        at += (FIXED_BYTES + len).next_multiple_of(8) as u64;
    }
    Ok((snapshots, at - header.snapshots_offset))
}

impl Image {
    /// The internal snapshots.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn snapshots(&self) -> IoResult<Vec<SnapshotInfo>> {
        let header = lock(&self.meta).header.clone();
        Ok(read_table(self.file.as_ref(), &header)?.0)
    }
}
