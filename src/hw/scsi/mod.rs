//! SCSI logical units: disks and CD-ROM drives, by command descriptor blocks, for whatever bus they sit on.
//!
//! Documents: SPC-4 (primary commands), SBC-3 (disks), MMC-6 (CD-ROM). A controller gives [`Unit::plan`] a command and
//! carries out the plan; the unit itself moves no data. Not modelled: persistent reservations, task sets with ordering
//! (commands in flight together may be done in any order), audio, writing CDs. Their commands end with ILLEGAL REQUEST.

mod block;
mod inquiry;
mod mmc;
mod mode;
mod unit;

pub use unit::{Kind, Medium, Options, Unit};

use crate::block::{Op, Payload};

/// Status codes (SAM-5 5.3.1).
pub mod status {
    /// The command is done.
    pub const GOOD: u8 = 0x00;
    /// Sense data tells more.
    pub const CHECK_CONDITION: u8 = 0x02;
}

/// Bytes of fixed-format sense data (SPC-4 4.5.3).
pub const SENSE_LEN: usize = 18;

/// Sense key with its additional code and qualifier (SPC-4 annex F).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

impl Sense {
    const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// Nothing to tell.
    pub const NONE: Self = Self::new(0, 0, 0);
    /// No medium.
    pub const NOT_PRESENT: Self = Self::new(2, 0x3a, 0);
    /// The tray is open.
    pub const TRAY_OPEN: Self = Self::new(2, 0x3a, 2);
    /// Removal is prevented.
    pub const REMOVAL_PREVENTED: Self = Self::new(5, 0x53, 2);
    /// The host could not read.
    pub const READ_ERROR: Self = Self::new(3, 0x11, 0);
    /// The host could not write.
    pub const WRITE_ERROR: Self = Self::new(3, 0x0c, 0);
    /// The host's disk is full.
    pub const SPACE_ALLOCATION: Self = Self::new(7, 0x27, 7);
    /// Unknown command.
    pub const BAD_OPCODE: Self = Self::new(5, 0x20, 0);
    /// A block past the end.
    pub const OUT_OF_RANGE: Self = Self::new(5, 0x21, 0);
    /// A field of the command.
    pub const BAD_FIELD: Self = Self::new(5, 0x24, 0);
    /// No unit of that number.
    pub const BAD_LUN: Self = Self::new(5, 0x25, 0);
    /// A field of the parameter list.
    pub const BAD_PARAMETER: Self = Self::new(5, 0x26, 0);
    /// The parameter list's length.
    pub const BAD_PARAMETER_LENGTH: Self = Self::new(5, 0x1a, 0);
    /// No saved mode pages.
    pub const SAVING_NOT_SUPPORTED: Self = Self::new(5, 0x39, 0);
    /// Data does not match.
    pub const MISCOMPARE: Self = Self::new(14, 0x1d, 0);
    /// The medium may have changed.
    pub const MEDIUM_CHANGED: Self = Self::new(6, 0x28, 0);
    /// Power on or reset.
    pub const RESET: Self = Self::new(6, 0x29, 0);
    /// The capacity changed.
    pub const CAPACITY_CHANGED: Self = Self::new(6, 0x2a, 9);
    /// The disk cannot be written.
    pub const WRITE_PROTECTED: Self = Self::new(7, 0x27, 0);

    /// Fixed-format sense data.
    #[must_use]
    pub fn fixed(self) -> [u8; SENSE_LEN] {
        let mut bytes = [0; SENSE_LEN];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        bytes[7] = 10;
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        bytes
    }
}

/// What a command comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Done: this is for the initiator, cut to what the command allows.
    Reply(Vec<u8>),
    /// CHECK CONDITION.
    Check(Sense),
    /// Bytes of the disk for the initiator.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Bytes of the initiator for the disk.
    Write {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// On stable storage when it is done.
        fua: bool,
    },
    /// The disk's content is compared with bytes of the initiator.
    Compare {
        /// In bytes.
        offset: u64,
        /// What it should be.
        expected: Vec<u8>,
    },
    /// Things to do on the disk, one after the other, without the initiator's memory.
    Steps(Vec<Step>),
}

/// One of [`Plan::Steps`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What.
    pub op: Op,
    /// Where, in bytes.
    pub offset: u64,
    /// With what.
    pub payload: Payload,
}

/// Operation codes (SPC-4, SBC-3, MMC-6).
pub(crate) mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const SEEK_6: u8 = 0x0b;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const RESERVE_6: u8 = 0x16;
    pub const RELEASE_6: u8 = 0x17;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SEEK_10: u8 = 0x2b;
    pub const WRITE_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const RESERVE_10: u8 = 0x56;
    pub const RELEASE_10: u8 = 0x57;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    /// Service action of SERVICE ACTION IN(16).
    pub const READ_CAPACITY_16: u8 = 0x10;
}

/// Bytes of a command, by its operation code's group (SPC-4 4.2.5.1); `None` for vendors' and reserved groups.
#[must_use]
pub fn cdb_len(operation: u8) -> Option<usize> {
    match operation >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}

/// Big-endian numbers at a place; bytes that are not there are zero.
fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    (at..at + len).fold(0, |value, i| value << 8 | u64::from(bytes.get(i).copied().unwrap_or(0)))
}

/// [`be`] as a length.
fn be_len(bytes: &[u8], at: usize, len: usize) -> usize {
    usize::try_from(be(bytes, at, len)).unwrap_or(usize::MAX)
}

/// A reply cut to the allocation length of its command.
fn cut(mut reply: Vec<u8>, allocation: usize) -> Plan {
    reply.truncate(allocation);
    Plan::Reply(reply)
}

/// Text in a field of fixed length.
fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take(len).collect();
    bytes.resize(len, b' ');
    bytes
}

/// The units that a target has, for REPORT LUNS (SPC-4 6.33); `luns` are below 16384.
#[must_use]
pub fn report_luns(cdb: &[u8], luns: impl Iterator<Item = u16>) -> Plan {
    let allocation = be_len(cdb, 6, 4);
    if allocation < 16 || be(cdb, 2, 1) > 2 {
        return Plan::Check(Sense::BAD_FIELD);
    }
    let mut list = Vec::new();
    for lun in luns {
        let [high, low] = lun.to_be_bytes();
        // Peripheral device addressing up to 255, flat space addressing above (SAM-5 4.7).
        let high = if lun < 256 { 0 } else { high & 0x3f | 0x40 };
        list.extend_from_slice(&[high, low, 0, 0, 0, 0, 0, 0]);
    }
    let mut reply = u32::try_from(list.len()).unwrap_or(0).to_be_bytes().to_vec();
    reply.extend_from_slice(&[0; 4]);
    reply.extend(list);
    cut(reply, allocation)
}

/// INQUIRY to a unit that does not exist (SPC-4 6.6.2): peripheral qualifier 3.
#[must_use]
pub fn absent_inquiry(cdb: &[u8]) -> Plan {
    if be(cdb, 1, 1) & 1 != 0 {
        return Plan::Check(Sense::BAD_FIELD);
    }
    let mut reply = vec![0; 36];
    reply[0] = 0x7f;
    reply[4] = 31;
    cut(reply, be_len(cdb, 3, 2))
}

#[cfg(test)]
mod tests;
