//! Commands, status bits and the query table of Intel's command set.

/// Bytes that one erase clears.
pub const SECTOR: u64 = 4096;

/// Bytes of the buffer for programming, and the alignment that a buffer's window has.
pub const BUFFER: u64 = 256;

/// Commands (28F640J3 data sheet, table "Command Bus Operations").
pub mod command {
    /// Word or byte program, with two codes.
    pub const PROGRAM_ALTERNATE: u8 = 0x10;
    /// Block erase, first cycle.
    pub const ERASE: u8 = 0x20;
    /// Word or byte program.
    pub const PROGRAM: u8 = 0x40;
    /// Clear status register.
    pub const CLEAR_STATUS: u8 = 0x50;
    /// Set or clear block lock bits, first cycle.
    pub const LOCK: u8 = 0x60;
    /// Lock: second cycle of `LOCK`.
    pub const LOCK_SET: u8 = 0x01;
    /// Read status register.
    pub const READ_STATUS: u8 = 0x70;
    /// Read identifier codes.
    pub const READ_ID: u8 = 0x90;
    /// Read query (CFI).
    pub const QUERY: u8 = 0x98;
    /// Confirm: the last cycle of erase, buffered program and clear lock bits.
    pub const CONFIRM: u8 = 0xd0;
    /// Write to buffer.
    pub const BUFFER: u8 = 0xe8;
    /// Read array. AMD's chips reset with F0h, which lands there as well: every code without a meaning does.
    pub const READ_ARRAY: u8 = 0xff;
}

/// Status register (28F640J3 data sheet, "Status Register Definitions").
pub mod status {
    /// SR.7: the write state machine is ready.
    pub const READY: u8 = 1 << 7;
    /// SR.5: erasing failed, or with SR.4 a command sequence was wrong.
    pub const ERASE_ERROR: u8 = 1 << 5;
    /// SR.4: programming failed.
    pub const PROGRAM_ERROR: u8 = 1 << 4;
    /// SR.1: the block is protected.
    pub const PROTECTED: u8 = 1 << 1;
}

/// Length of the query table; what follows reads as zeros.
const QUERY_LEN: usize = 0x40;

/// The byte at `offset` of the query table of a chip with `len` bytes (CFI publication 100, JEDEC JESD68.01).
#[must_use]
pub fn query(len: u64, offset: u64) -> u8 {
    let table = query_table(len);
    usize::try_from(offset).ok().and_then(|offset| table.get(offset)).copied().unwrap_or(0)
}

fn query_table(len: u64) -> [u8; QUERY_LEN] {
    let mut table = [0; QUERY_LEN];
    let mut put = |at: usize, bytes: &[u8]| table[at..at + bytes.len()].copy_from_slice(bytes);
    let log2 = |value: u64| u8::try_from(value.next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX);
    let last_sector = u16::try_from((len / SECTOR).saturating_sub(1)).unwrap_or(u16::MAX);
    let sector_units = u16::try_from(SECTOR / 256).unwrap_or(u16::MAX);
    // 10h: identification; primary command set 0001h (Intel extended) with its table at 31h, no alternate one.
    put(0x10, b"QRY");
    put(0x13, &[0x01, 0x00, PRIMARY_TABLE, 0x00]);
    // 1Bh: supply of 4.5 to 5.5 V; typical times as powers of two (byte 128 us, buffer 128 us, block 1 s), then how
    // many times longer it may take at most (16).
    put(0x1b, &[0x45, 0x55, 0x00, 0x00]);
    put(0x1f, &[0x07, 0x07, 0x0a, 0x00]);
    put(0x23, &[0x04, 0x04, 0x04, 0x00]);
    // 27h: length as a power of two, 8- and 16-bit interface, buffer as a power of two, one region of equal blocks:
    // their number less one, their length in 256-byte units.
    put(0x27, &[log2(len), 0x02, 0x00, log2(BUFFER), 0x00, 0x01]);
    put(0x2d, &last_sector.to_le_bytes());
    put(0x2f, &sector_units.to_le_bytes());
    // 31h: version 1.0, and no optional feature: no suspend and no locks, so lock commands change nothing. One field
    // of protection registers.
    put(usize::from(PRIMARY_TABLE), b"PRI10");
    put(0x3f, &[0x01]);
    table
}

const PRIMARY_TABLE: u8 = 0x31;
