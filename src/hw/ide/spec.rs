//! Registers, bits and command codes.
//!
//! Documents: ATA/ATAPI-6 (T13/1410D), ATA8-ACS (T13/1699D), INCITS 335 / SFF-8020i (ATAPI), MMC-6, SPC-3,
//! "Programming Interface for Bus Master IDE Controller" revision 1.0, 82371FB/SB (PIIX/PIIX3) data sheet.

use crate::bus::{Decode, Region};

/// Bytes of an ATA sector.
pub const SECTOR: u64 = 512;
/// Bytes of a CD-ROM user data block.
pub const CD_BLOCK: u64 = 2048;

/// Primary channel's command block: 8 ports, at 1F0h on a PC.
pub const PRIMARY_COMMAND: Region = Region(0);
/// Primary channel's device control: 1 port, at 3F6h.
pub const PRIMARY_CONTROL: Region = Region(1);
/// Secondary channel's command block: 8 ports, at 170h.
pub const SECONDARY_COMMAND: Region = Region(2);
/// Secondary channel's device control: 1 port, at 376h.
pub const SECONDARY_CONTROL: Region = Region(3);
/// Bus master registers of both channels: 16 ports behind BAR 4.
pub const BUS_MASTER: Region = Region(4);
/// What every region decodes: the data ports take 16 and 32 bits, wide accesses elsewhere are split here.
pub const DECODE: Decode = Decode::UP_TO_4;

/// Legacy ports as (region, first port, number of ports): what the machine maps with [`DECODE`].
pub const LEGACY_PORTS: [(Region, u16, u32); 4] = [
    (PRIMARY_COMMAND, 0x1f0, 8),
    (PRIMARY_CONTROL, 0x3f6, 1),
    (SECONDARY_COMMAND, 0x170, 8),
    (SECONDARY_CONTROL, 0x376, 1),
];

/// ISA interrupts of the two channels.
pub const LEGACY_IRQS: [u8; 2] = [14, 15];

/// Offsets in the command block (ATA/ATAPI-6 7.1, table 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Reg {
    Data,
    /// Error when read, Features when written.
    Error,
    /// Sector count; interrupt reason of a packet command.
    Count,
    LbaLow,
    /// Also byte count, bits 7-0.
    LbaMid,
    /// Also byte count, bits 15-8.
    LbaHigh,
    Device,
    /// Status when read, Command when written.
    Status,
}

impl Reg {
    pub fn at(offset: u64) -> Self {
        match offset & 7 {
            0 => Self::Data,
            1 => Self::Error,
            2 => Self::Count,
            3 => Self::LbaLow,
            4 => Self::LbaMid,
            5 => Self::LbaHigh,
            6 => Self::Device,
            _ => Self::Status,
        }
    }
}

/// Status register (ATA/ATAPI-6 7.15).
pub(in crate::hw) mod status {
    /// Error; CHECK CONDITION of a packet command.
    pub const ERR: u8 = 1 << 0;
    pub const DRQ: u8 = 1 << 3;
    /// Device seek complete; SERV of a packet device.
    pub const DSC: u8 = 1 << 4;
    pub const DRDY: u8 = 1 << 6;
    pub const BSY: u8 = 1 << 7;
    /// Nothing to do.
    pub const READY: u8 = DRDY | DSC;
}

/// Error register (ATA/ATAPI-6 7.9).
pub(in crate::hw) mod error {
    pub const ABRT: u8 = 1 << 2;
    /// Address not found, or out of range.
    pub const IDNF: u8 = 1 << 4;
    /// Data could not be corrected.
    pub const UNC: u8 = 1 << 6;
}

/// Device register (ATA/ATAPI-6 7.7).
pub(in crate::hw) mod device {
    pub const DEV: u8 = 1 << 4;
    pub const LBA: u8 = 1 << 6;
    /// Obsolete bits that old devices keep at one.
    pub const OBSOLETE: u8 = 0xa0;
}

/// Device control register (ATA/ATAPI-6 7.8).
pub(in crate::hw) mod control {
    /// Interrupts are off.
    pub const NIEN: u8 = 1 << 1;
    pub const SRST: u8 = 1 << 2;
    /// Reads of the command block give the previous content.
    pub const HOB: u8 = 1 << 7;
}

/// Interrupt reason, in the count register (ATA/ATAPI-6 7.12).
pub(in crate::hw) mod reason {
    /// Command, not data.
    pub const CD: u8 = 1 << 0;
    /// To the host.
    pub const IO: u8 = 1 << 1;
}

/// Command codes (ATA8-ACS annex, ATA/ATAPI-6 annex E for the old ones).
pub(in crate::hw) mod cmd {
    pub const NOP: u8 = 0x00;
    pub const CFA_REQUEST_EXTENDED_ERROR: u8 = 0x03;
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub const DEVICE_RESET: u8 = 0x08;
    pub const RECALIBRATE: u8 = 0x10;
    pub const RECALIBRATE_LAST: u8 = 0x1f;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_NO_RETRY: u8 = 0x21;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const READ_LOG_EXT: u8 = 0x2f;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_NO_RETRY: u8 = 0x31;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const CFA_WRITE_SECTORS: u8 = 0x38;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const WRITE_VERIFY: u8 = 0x3c;
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub const READ_VERIFY: u8 = 0x40;
    pub const READ_VERIFY_NO_RETRY: u8 = 0x41;
    pub const READ_VERIFY_EXT: u8 = 0x42;
    pub const SEEK: u8 = 0x70;
    pub const SEEK_LAST: u8 = 0x7f;
    pub const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;
    pub const INITIALIZE_DEVICE_PARAMETERS: u8 = 0x91;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
    pub const READ_FPDMA_QUEUED: u8 = 0x60;
    pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
    pub const SMART: u8 = 0xb0;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE_MODE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const READ_DMA_NO_RETRY: u8 = 0xc9;
    pub const WRITE_DMA: u8 = 0xca;
    pub const WRITE_DMA_NO_RETRY: u8 = 0xcb;
    pub const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    pub const SLEEP: u8 = 0xe6;
    pub const FLUSH_CACHE: u8 = 0xe7;
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    pub const IDENTIFY_DEVICE: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
    pub const READ_NATIVE_MAX: u8 = 0xf8;
    /// The power commands' codes before ATA-2 (ATA-1 table 10).
    pub const OLD_STANDBY_IMMEDIATE: u8 = 0x94;
    pub const OLD_IDLE_IMMEDIATE: u8 = 0x95;
    pub const OLD_STANDBY: u8 = 0x96;
    pub const OLD_IDLE: u8 = 0x97;
    pub const OLD_CHECK_POWER_MODE: u8 = 0x98;
    pub const OLD_SLEEP: u8 = 0x99;
}
