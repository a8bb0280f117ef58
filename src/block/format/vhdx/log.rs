//! The log: changes of the BAT and the metadata are written here first ([MS-VHDX] 2.3).

use super::layout::{Header, checksum};
use crate::block::error::OpenError;
use crate::block::format::blocks::parts::{bytes_at, le32, le64, set};
use crate::block::node::{BlockNode, IoResult};

const SECTOR: usize = 4096;
const ENTRY_HEADER: usize = 64;
const DESCRIPTOR: usize = 32;
/// Logs are read into memory.
const MAX_LOG: u64 = 64 << 20;
/// A zero descriptor writes at most this: more than any table has.
const MAX_ZEROS: u64 = 1 << 40;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Change {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

/// An entry of the log, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    start: usize,
    len: usize,
    tail: usize,
    sequence: u64,
    flushed_len: u64,
    last_len: u64,
    changes: Vec<Change>,
}

/// The log as it is in the file; it wraps.
struct Log {
    bytes: Vec<u8>,
}

impl Log {
    fn piece(&self, at: usize, len: usize) -> Vec<u8> {
        let first = len.min(self.bytes.len() - at);
        let mut piece = self.bytes[at..at + first].to_vec();
        piece.extend_from_slice(&self.bytes[..len - first]);
        piece
    }

    /// A valid entry at a place (2.3.1). `budget`: bytes that may still be looked at.
    fn entry(&self, at: usize, id: &[u8; 16], budget: &mut usize) -> Option<Entry> {
        let head = &self.bytes[at..at + ENTRY_HEADER];
        let len = usize::try_from(le32(head, 8)).ok()?;
        let count = usize::try_from(le32(head, 24)).ok()?;
        let tail = usize::try_from(le32(head, 12)).ok()?;
        let whole = head.starts_with(b"loge") && bytes_at::<16>(head, 32) == *id && le64(head, 16) != 0;
        let sized = len >= SECTOR && len.is_multiple_of(SECTOR) && len <= self.bytes.len();
        if !whole || !sized || !tail.is_multiple_of(SECTOR) || tail >= self.bytes.len() {
            return None;
        }
        *budget = budget.checked_sub(len)?;
        let bytes = self.piece(at, len);
        if le32(&bytes, 4) != checksum(&bytes, 4) {
            return None;
        }
        let sequence = le64(&bytes, 16);
        Some(Entry {
            start: at,
            len,
            tail,
            sequence,
            flushed_len: le64(&bytes, 48),
            last_len: le64(&bytes, 56),
            changes: changes(&bytes, count, sequence)?,
        })
    }

    /// The active sequence: the entries from the tail that the newest entry names (2.3.2).
    fn active(&self, id: &[u8; 16]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut budget = self.bytes.len().saturating_mul(16);
        let mut at = 0;
        while at < self.bytes.len() {
            match self.entry(at, id, &mut budget) {
                Some(entry) => {
                    at += entry.len;
                    entries.push(entry);
                }
                None => at += SECTOR,
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
        for head in &entries {
            if let Some(sequence) = sequence(&entries, head, self.bytes.len()) {
                return sequence;
            }
        }
        Vec::new()
    }
}

/// The entries from `head`'s tail to `head`, if they are there, one behind the other.
fn sequence(entries: &[Entry], head: &Entry, log_len: usize) -> Option<Vec<Entry>> {
    let mut found = vec![head.clone()];
    let mut first = head;
    while first.start != head.tail {
        let before = first.sequence.checked_sub(1)?;
        first = entries.iter().find(|e| e.sequence == before && (e.start + e.len) % log_len == first.start)?;
        found.push(first.clone());
    }
    found.reverse();
    Some(found)
}

/// What an entry's descriptors say (2.3.1.2, 2.3.1.3); `None`: they are not valid.
fn changes(bytes: &[u8], count: usize, sequence: u64) -> Option<Vec<Change>> {
    let descriptors = count.checked_mul(DESCRIPTOR)?.checked_add(ENTRY_HEADER)?;
    let mut data_at = descriptors.checked_next_multiple_of(SECTOR)?;
    if data_at > bytes.len() {
        return None;
    }
    let mut changes = Vec::new();
    for number in 0..count {
        let at = ENTRY_HEADER + number * DESCRIPTOR;
        let place = le64(bytes, at + 16);
        if le64(bytes, at + 24) != sequence || !place.is_multiple_of(SECTOR as u64) {
            return None;
        }
        match &bytes[at..at + 4] {
            b"zero" => changes.push(Change::Zero(place, le64(bytes, at + 8))),
            b"desc" => {
                let sector = bytes.get(data_at..data_at + SECTOR)?;
                let [high, low] = [le32(sector, 4), le32(sector, SECTOR - 4)].map(u64::from);
                if !sector.starts_with(b"data") || high << 32 | low != sequence {
                    return None;
                }
                let mut data = bytes[at + 8..at + 16].to_vec();
                data.extend_from_slice(&sector[8..SECTOR - 4]);
                data.extend_from_slice(&bytes[at + 4..at + 8]);
                changes.push(Change::Data(place, data));
                data_at += SECTOR;
            }
            _ => return None,
        }
    }
    Some(changes)
}

/// Finds what was logged and may not have been done.
pub(super) struct Replay {
    entries: Vec<Entry>,
}

impl Replay {
    /// Reads the log that a header names.
    pub(super) fn find(file: &dyn BlockNode, header: &Header) -> Result<Self, OpenError> {
        if header.log_length > MAX_LOG {
            return Err(OpenError::Unsupported(format!("A VHDX log of {} bytes", header.log_length)));
        }
        let mut bytes = vec![0; usize::try_from(header.log_length).unwrap_or(0)];
        file.read_at(header.log_offset, &mut bytes).map_err(OpenError::io("Could not read VHDX log"))?;
        let entries = Log { bytes }.active(&header.log);
        if let Some(last) = entries.last()
            && file.len().map_err(OpenError::io("Could not get image size"))? < last.flushed_len
        {
            let text = format!("VHDX file is shorter than its log says ({} bytes)", last.flushed_len);
            return Err(OpenError::Image(text));
        }
        Ok(Self { entries })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Does it all again, on stable storage.
    pub(super) fn apply(&self, file: &dyn BlockNode) -> IoResult<()> {
        for entry in &self.entries {
            for change in &entry.changes {
                match change {
                    Change::Data(at, data) => file.write_at(*at, data, false)?,
                    Change::Zero(at, len) if *len <= MAX_ZEROS => file.zero(*at, *len, true)?,
                    Change::Zero(..) => return Err(std::io::ErrorKind::InvalidData.into()),
                }
            }
            if file.len()? < entry.last_len && entry.last_len - entry.flushed_len <= MAX_ZEROS {
                file.truncate(entry.last_len)?;
            }
        }
        file.flush()
    }
}

/// How many sectors one entry can take in half a log.
pub(super) fn sectors_in_half(log_length: u64) -> usize {
    let sectors = usize::try_from(log_length / 2).unwrap_or(0) / SECTOR;
    // A sector of descriptors is for at least 126 sectors of data.
    sectors.saturating_sub(1 + sectors / 126).max(1)
}

/// An entry of changed sectors (offset and 4096 bytes each), to be written at `tail` of the log.
pub(super) fn encode(id: &[u8; 16], sequence: u64, tail: u64, file_len: u64, sectors: &[(u64, &[u8])]) -> Vec<u8> {
    let descriptors = (ENTRY_HEADER + sectors.len() * DESCRIPTOR).next_multiple_of(SECTOR);
    let mut bytes = vec![0; descriptors + sectors.len() * SECTOR];
    let small = |value: usize| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let length = small(bytes.len());
    set(&mut bytes, 0, b"loge");
    set(&mut bytes, 8, &length);
    set(&mut bytes, 12, &u32::try_from(tail).unwrap_or(0).to_le_bytes());
    set(&mut bytes, 16, &sequence.to_le_bytes());
    set(&mut bytes, 24, &small(sectors.len()));
    set(&mut bytes, 32, id);
    set(&mut bytes, 48, &file_len.to_le_bytes());
    set(&mut bytes, 56, &file_len.to_le_bytes());
    let [low, high] = [sequence.to_le_bytes()[..4].to_vec(), sequence.to_le_bytes()[4..].to_vec()];
    for (number, (at, data)) in sectors.iter().enumerate() {
        let descriptor = ENTRY_HEADER + number * DESCRIPTOR;
        set(&mut bytes, descriptor, b"desc");
        set(&mut bytes, descriptor + 4, &data[SECTOR - 4..]);
        set(&mut bytes, descriptor + 8, &data[..8]);
        set(&mut bytes, descriptor + 16, &at.to_le_bytes());
        set(&mut bytes, descriptor + 24, &sequence.to_le_bytes());
        let sector = descriptors + number * SECTOR;
        set(&mut bytes, sector, b"data");
        set(&mut bytes, sector + 4, &high);
        set(&mut bytes, sector + 8, &data[8..SECTOR - 4]);
        set(&mut bytes, sector + SECTOR - 4, &low);
    }
    let crc = checksum(&bytes, 4);
    set(&mut bytes, 4, &crc.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_found_and_the_newest_sequence_wins() {
        let id = [7; 16];
        let (old, new) = (vec![1; SECTOR], (0..4096_u32).map(|i| i.to_le_bytes()[0]).collect::<Vec<u8>>());
        let mut bytes = vec![0; 1 << 20];
        let first = encode(&id, 5, 0, 1 << 22, &[(1 << 21, &old)]);
        let second = encode(&id, 6, 1 << 19, 1 << 22, &[(1 << 21, &new), (3 << 21, &old)]);
        bytes[..first.len()].copy_from_slice(&first);
        bytes[1 << 19..(1 << 19) + second.len()].copy_from_slice(&second);
        let log = Log { bytes: bytes.clone() };
        let active = log.active(&id);
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].changes, [Change::Data(1 << 21, new), Change::Data(3 << 21, old.clone())]);
        bytes[(1 << 19) + 5000] ^= 1;
        let torn = Log { bytes }.active(&id);
        assert_eq!(torn[0].changes, [Change::Data(1 << 21, old)]);
        assert!(log.active(&[8; 16]).is_empty());
    }
}
