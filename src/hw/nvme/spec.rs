//! Registers, commands and status codes (NVMe 1.4; sections in parentheses).

use crate::bus::Region;

/// PCI identity, as QEMU's controller has it.
pub const VENDOR: u16 = 0x1b36;
pub const DEVICE: u16 = 0x0010;
/// Mass storage, non-volatile memory, NVMe.
pub const CLASS: u32 = 0x01_0802;

/// Base address register 0.
pub const REGISTERS: Region = Region(0);
/// Offsets in it: queues' doorbells, MSI-X table and pending bits; its length.
pub const DOORBELLS: u64 = 0x1000;
pub const MSIX_TABLE: u32 = 0x2000;
pub const MSIX_PBA: u32 = 0x3000;
pub const BAR_LEN: u64 = 0x4000;

/// Controller registers (3.1).
pub mod reg {
    pub const CAP: u64 = 0x00;
    pub const CAP_HIGH: u64 = 0x04;
    pub const VS: u64 = 0x08;
    pub const INTMS: u64 = 0x0c;
    pub const INTMC: u64 = 0x10;
    pub const CC: u64 = 0x14;
    pub const CSTS: u64 = 0x1c;
    pub const AQA: u64 = 0x24;
    pub const ASQ: u64 = 0x28;
    pub const ASQ_HIGH: u64 = 0x2c;
    pub const ACQ: u64 = 0x30;
    pub const ACQ_HIGH: u64 = 0x34;
}

/// Entries of a queue at most, less one (CAP.MQES).
pub const MQES: u16 = 0x7ff;
/// CAP (3.1.1): contiguous queues, 7.5 s to become ready, the NVM command set, pages up to 64 KiB.
pub const CAP: u64 = MQES as u64 | 1 << 16 | 0xf << 24 | 1 << 37 | 4 << 52;
/// Version 1.4.
pub const VERSION: u32 = 0x0001_0400;

/// CC (3.1.5).
pub const CC_EN: u32 = 1 << 0;
/// CSTS (3.1.6).
pub const CSTS_RDY: u32 = 1 << 0;
pub const CSTS_CFS: u32 = 1 << 1;
pub const CSTS_SHST_OCCURRING: u32 = 1 << 2;
pub const CSTS_SHST_COMPLETE: u32 = 2 << 2;

/// Admin commands (5).
pub mod admin {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT: u8 = 0x0c;
}

/// NVM commands (6).
pub mod nvm {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Features (5.21.1).
pub mod feature {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER_MANAGEMENT: u8 = 0x02;
    pub const TEMPERATURE: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const WRITE_CACHE: u8 = 0x06;
    pub const QUEUES: u8 = 0x07;
    pub const COALESCING: u8 = 0x08;
    pub const VECTOR: u8 = 0x09;
    pub const ATOMICITY: u8 = 0x0a;
    pub const EVENTS: u8 = 0x0b;
}

/// Status: code type and code, as in a completion's status field without phase (4.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u16);

impl Status {
    pub const OK: Self = Self(0);
    pub const INVALID_OPCODE: Self = Self(0x01);
    pub const INVALID_FIELD: Self = Self(0x02);
    pub const DATA_TRANSFER: Self = Self(0x04);
    pub const INTERNAL: Self = Self(0x06);
    pub const ABORTED: Self = Self(0x07);
    pub const INVALID_NAMESPACE: Self = Self(0x0b);
    pub const SGL_SEGMENT: Self = Self(0x0d);
    pub const SGL_LENGTH: Self = Self(0x0f);
    pub const SGL_TYPE: Self = Self(0x11);
    pub const PRP_OFFSET: Self = Self(0x13);
    pub const LBA_RANGE: Self = Self(0x80);
    pub const CQ_INVALID: Self = Self(0x100);
    pub const QUEUE_ID: Self = Self(0x101);
    pub const QUEUE_SIZE: Self = Self(0x102);
    pub const EVENT_LIMIT: Self = Self(0x105);
    pub const VECTOR: Self = Self(0x108);
    pub const LOG_PAGE: Self = Self(0x109);
    pub const QUEUE_DELETION: Self = Self(0x10c);
    pub const READ_ONLY: Self = Self(0x182);
    pub const WRITE_FAULT: Self = Self(0x280);
    pub const READ_ERROR: Self = Self(0x281);
    pub const COMPARE: Self = Self(0x285);
    /// Do not retry (bit 14 of the status field).
    pub const DNR: u16 = 0x4000;
}
