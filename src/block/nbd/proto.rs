//! Numbers and structures ("Values", "Protocol phases").

use std::io;
use std::io::{Read, Write};

use crate::host;

/// "NBDMAGIC".
pub(super) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT".
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags: fixed newstyle, and no 124 zeros after NBD_OPT_EXPORT_NAME.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

/// Bytes of a request's or chunk's data at most: what all implementations take.
pub(super) const MAX_DATA: u64 = 32 << 20;
/// Bytes of an option at most.
pub(super) const MAX_OPTION: u32 = 64 << 10;
/// Bytes of a string at most ("String" values).
pub(super) const MAX_STRING: usize = 4096;

/// Options ("Option types").
pub(super) mod opt {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const STARTTLS: u32 = 5;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options ("Option reply types").
pub(super) mod rep {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERROR: u32 = 1 << 31;
    pub(in super::super) const ERR_UNSUP: u32 = ERROR | 1;
    pub(in super::super) const ERR_POLICY: u32 = ERROR | 2;
    pub(in super::super) const ERR_INVALID: u32 = ERROR | 3;
    pub(in super::super) const ERR_TLS_REQD: u32 = ERROR | 5;
    pub(in super::super) const ERR_UNKNOWN: u32 = ERROR | 6;
    pub(in super::super) const ERR_TOO_BIG: u32 = ERROR | 9;
}

/// What NBD_REP_INFO tells.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub(super) mod flag {
    pub(in super::super) const HAS_FLAGS: u16 = 1;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
    pub(in super::super) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Requests ("Request types").
pub(super) mod cmd {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const CACHE: u16 = 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;

    pub(in super::super) const FLAG_FUA: u16 = 1;
    pub(in super::super) const FLAG_NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const FLAG_DF: u16 = 1 << 2;
    pub(in super::super) const FLAG_REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FLAG_FAST_ZERO: u16 = 1 << 4;
}

/// Chunks of structured replies ("Structured reply types").
pub(super) mod chunk {
    pub(in super::super) const FLAG_DONE: u16 = 1;
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const OFFSET_HOLE: u16 = 2;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = (1 << 15) | 1;
    pub(in super::super) const ERROR_BIT: u16 = 1 << 15;
}

/// `base:allocation`: nothing is stored.
pub(super) const STATE_HOLE: u32 = 1;
/// `base:allocation`: it reads as zeros.
pub(super) const STATE_ZERO: u32 = 2;

pub(super) const BASE_ALLOCATION: &str = "base:allocation";
pub(super) const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
pub(super) const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";

/// Big-endian numbers of a stream.
pub(super) trait ReadExt: Read {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    fn be16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn be32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn be64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_be_bytes)
    }
    /// So many bytes; the caller bounded the number.
    fn exact(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<T: Read + ?Sized> ReadExt for T {}

/// Reads and drops `len` bytes.
pub(super) fn skip(from: &mut dyn Read, len: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(len), &mut io::sink())?;
    if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// An option of the client's ("Newstyle negotiation").
pub(super) fn write_option(to: &mut dyn Write, option: u32, data: &[u8]) -> io::Result<()> {
    let mut out = OPTION_MAGIC.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
    to.write_all(&out)
}

/// A server's reply to an option.
pub(super) fn write_reply(to: &mut dyn Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
    to.write_all(&out)
}

/// A string with its length in front.
pub(super) fn counted(text: &str) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// Takes fields from the data of an option.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn be16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn be32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn be64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A string with its length in front.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.be32()?).ok().filter(|len| *len <= MAX_STRING)?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}

/// The protocol's number for an error ("Error values").
pub(super) fn error_number(error: &io::Error) -> u32 {
    match host::errno(error) {
        host::EPERM | host::EROFS => 1,
        host::ENOMEM => 12,
        host::EINVAL => 22,
        host::ENOSPC => 28,
        host::ENOTSUP => 95,
        host::ESHUTDOWN => 108,
        _ => 5, // EIO
    }
}

/// The error that a number stands for.
pub(super) fn error_of(number: u32) -> io::Error {
    io::Error::from_raw_os_error(match number {
        1 => host::EPERM,
        12 => host::ENOMEM,
        22 => host::EINVAL,
        28 => host::ENOSPC,
        75 => 75, // EOVERFLOW
        95 => host::ENOTSUP,
        108 => host::ESHUTDOWN,
        _ => host::EIO,
    })
}

/// A peer that breaks the protocol.
pub(super) fn broken(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
