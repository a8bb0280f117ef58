//! The table of internal snapshots (qcow2.rst, "Snapshots").

use std::io;

use super::header::Header;
use crate::block::image::SnapshotInfo;
use crate::block::node::{BlockNode, IoResult};

/// Bytes of an entry before its extra data.
const FIXED_BYTES: usize = 40;
/// Extra data that is known: size of the machine state, size of the disk, instruction count.
const KNOWN_EXTRA: usize = 24;
/// QEMU refuses more extra data.
const MAX_EXTRA: usize = 1024;
/// QEMU refuses longer tables.
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// QEMU refuses longer L1 tables.
const MAX_L1_ENTRIES: u32 = 4 << 20;

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Stored {
    pub(super) info: SnapshotInfo,
    /// Bytes of the disk; `None` in old entries.
    pub(super) disk_size: Option<u64>,
    /// Extra data that we do not know.
    unknown: Vec<u8>,
}

impl std::ops::Deref for Stored {
    type Target = SnapshotInfo;

    fn deref(&self) -> &SnapshotInfo {
        &self.info
    }
}

impl Stored {
    pub(super) fn new(info: SnapshotInfo, disk_size: u64) -> Self {
        Self { info, disk_size: Some(disk_size), unknown: Vec::new() }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let info = &self.info;
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let (id, name) = (short(info.id.len()), short(info.name.len()));
        let extra = KNOWN_EXTRA + self.unknown.len();
        into.extend(info.l1_offset.to_be_bytes());
        into.extend(info.l1_size.to_be_bytes());
        into.extend(id.to_be_bytes());
        into.extend(name.to_be_bytes());
        into.extend(info.date_sec.to_be_bytes());
        into.extend(info.date_nsec.to_be_bytes());
        into.extend(info.vm_clock_nsec.to_be_bytes());
        into.extend(u32::try_from(info.vm_state_size).unwrap_or(0).to_be_bytes());
        into.extend(u32::try_from(extra).unwrap_or(0).to_be_bytes());
        into.extend(info.vm_state_size.to_be_bytes());
        into.extend(self.disk_size.unwrap_or(0).to_be_bytes());
        into.extend(info.icount.unwrap_or(u64::MAX).to_be_bytes());
        into.extend(&self.unknown);
        into.extend(&info.id.as_bytes()[..usize::from(id)]);
        into.extend(&info.name.as_bytes()[..usize::from(name)]);
        into.resize(into.len().next_multiple_of(8), 0);
    }
}

/// The table as bytes.
pub(super) fn encode_table(snapshots: &[Stored]) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshots.iter().for_each(|snapshot| snapshot.encode(&mut bytes));
    bytes
}

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

fn parse_rest(fixed: Fixed, rest: &[u8]) -> Stored {
    let Fixed { mut info, extra, id, name } = fixed;
    let word = |at: usize| (at + 8 <= extra).then(|| rest[at..at + 8].try_into().map_or(0, u64::from_be_bytes));
    info.vm_state_size = word(0).unwrap_or(info.vm_state_size);
    info.icount = word(16).filter(|count| *count != u64::MAX);
    let text = |at: usize, len: usize| String::from_utf8_lossy(&rest[at..at + len]).into_owned();
    info.id = text(extra, id);
    info.name = text(extra + id, name);
    let unknown = rest[extra.min(KNOWN_EXTRA)..extra].to_vec();
    Stored { info, disk_size: word(8), unknown }
}

/// Reads the table. Returns the snapshots and the table's length in bytes.
pub(super) fn read_table(file: &dyn BlockNode, header: &Header) -> IoResult<(Vec<Stored>, u64)> {
    let too_large = || io::Error::from_raw_os_error(27); // EFBIG
    let mut at = header.snapshots_offset;
    let mut snapshots = Vec::new();
    for _ in 0..header.snapshots {
        let mut bytes = [0; FIXED_BYTES];
        file.read_at(at, &mut bytes)?;
        let fixed = parse_fixed(&bytes);
        if fixed.extra > MAX_EXTRA || fixed.info.l1_size > MAX_L1_ENTRIES {
            return Err(too_large());
        }
        let len = fixed.extra + fixed.id + fixed.name;
        let mut rest = vec![0; len];
        file.read_at(at + FIXED_BYTES as u64, &mut rest)?;
        snapshots.push(parse_rest(fixed, &rest));
        at += (FIXED_BYTES + len).next_multiple_of(8) as u64;
        if at - header.snapshots_offset > MAX_TABLE_BYTES {
            return Err(too_large());
        }
    }
    Ok((snapshots, at - header.snapshots_offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    #[test]
    fn entries_come_back_with_what_is_not_known() {
        let info = SnapshotInfo {
            id: "7".to_owned(),
            name: "before the update".to_owned(),
            vm_state_size: 5 << 30,
            date_sec: 1,
            date_nsec: 2,
            vm_clock_nsec: 3,
            icount: None,
            l1_offset: 65536,
            l1_size: 9,
        };
        let stored = Stored { info, disk_size: Some(1 << 40), unknown: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        let bytes = encode_table(&[stored.clone(), stored.clone()]);
        let mut header = super::super::create::CreateOptions::new(0).header();
        header.snapshots = 2;
        let (back, len) = read_table(MemoryNode::from_bytes(bytes.clone()).as_ref(), &header).unwrap();
        assert_eq!((back, len), (vec![stored.clone(), stored], bytes.len() as u64));
    }
}
