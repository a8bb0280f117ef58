//! The table-loader script: records of 128 bytes that tell the firmware to allocate a blob, add the address of one to
//! a pointer in another, and make checksums.

/// Where the firmware shall put a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// In F0000h-FFFFFh, where operating systems look for the RSDP.
    FSegment = 2,
}

const RECORD: usize = 128;
const NAME: usize = 56;

/// A script under construction.
#[derive(Clone, Default, Debug)]
pub struct Script {
    bytes: Vec<u8>,
}

impl Script {
    /// Allocate `file` aligned to `align` bytes (a power of two). Allocations come before pointers.
    pub fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        self.record(1, &[file], &[&align.to_le_bytes(), &[zone as u8]]);
    }

    /// Add the address of `target` to the `size` bytes at `offset` of `file`.
    pub fn add_pointer(&mut self, file: &str, target: &str, offset: u32, size: u8) {
        self.record(2, &[file, target], &[&offset.to_le_bytes(), &[size]]);
    }

    /// Make the sum of `len` bytes from `start` of `file` zero by the byte at `offset`.
    pub fn checksum(&mut self, file: &str, offset: u32, start: u32, len: u32) {
        self.record(3, &[file], &[&offset.to_le_bytes(), &start.to_le_bytes(), &len.to_le_bytes()]);
    }

    fn record(&mut self, command: u32, names: &[&str], fields: &[&[u8]]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&command.to_le_bytes());
        for name in names {
            let mut padded = [0; NAME];
            let len = name.len().min(NAME - 1);
            padded[..len].copy_from_slice(&name.as_bytes()[..len]);
            self.bytes.extend_from_slice(&padded);
        }
        for field in fields {
            self.bytes.extend_from_slice(field);
        }
        self.bytes.resize(start + RECORD, 0);
    }

    /// The script, padded to a whole page.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len().next_multiple_of(4096);
        self.bytes.resize(len, 0);
        self.bytes
    }
}
