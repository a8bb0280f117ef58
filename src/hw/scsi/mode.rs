//! Mode pages (SPC-4 6.9 to 6.12, 7.5; SBC-3 6.5; MMC-6 annex E).

use super::unit::{Kind, Medium, Unit};
use super::{Plan, Sense, be, be_len, cut, op};

/// Mode page codes.
mod page {
    pub const ERROR_RECOVERY: u8 = 0x01;
    pub const CACHING: u8 = 0x08;
    pub const AUDIO: u8 = 0x0e;
    pub const CAPABILITIES: u8 = 0x2a;
    pub const ALL: u8 = 0x3f;
}

/// Write cache enable, in byte 2 of the caching page.
const WCE: u8 = 1 << 2;
/// Page control: changeable values, saved values.
const CHANGEABLE: u64 = 1;
const SAVED: u64 = 3;

impl Unit {
    fn page_codes(&self) -> &'static [u8] {
        match self.options.kind {
            Kind::Disk => &[page::ERROR_RECOVERY, page::CACHING],
            Kind::Cdrom => &[page::ERROR_RECOVERY, page::AUDIO, page::CAPABILITIES],
        }
    }

    fn mode_page(&self, code: u8, control: u64) -> Vec<u8> {
        let changeable = control == CHANGEABLE;
        let mut bytes = match code {
            // Automatic write reallocation on disks; retries on CDs.
            page::ERROR_RECOVERY if self.options.kind == Kind::Disk => {
                let mut bytes = vec![code, 10];
                bytes.resize(12, 0);
                bytes[2] = 0x80;
                bytes
            }
            page::ERROR_RECOVERY => vec![code, 10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0],
            page::CACHING => {
                let mut bytes = vec![code, 0x12];
                bytes.resize(20, 0);
                bytes[2] = if self.write_cache { WCE } else { 0 };
                bytes
            }
            page::AUDIO => vec![code, 0x0e, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
            _ => {
                // Reads CD-R, CD-RW, DVD-ROM, DVD-R; tray loader, eject, lock.
                let locked = u8::from(self.locked) << 1;
                let mut bytes = vec![code, 0x14, 0x3b, 0, 0x71, 0x60, 0x29 | locked, 0];
                bytes.extend_from_slice(&(50u16 * 176).to_be_bytes());
                bytes.extend_from_slice(&[0, 2]);
                bytes.extend_from_slice(&2048u16.to_be_bytes());
                bytes.extend_from_slice(&(16u16 * 176).to_be_bytes());
                bytes.resize(22, 0);
                bytes
            }
        };
        if changeable {
            bytes[2..].fill(0);
            if code == page::CACHING {
                bytes[2] = WCE;
            }
        }
        bytes
    }

    /// MODE SENSE (6) and (10).
    pub(super) fn mode_sense(&self, cdb: &[u8], medium: Medium) -> Plan {
        const WRITE_PROTECT: u8 = 1 << 7;
        const DPOFUA: u8 = 1 << 4;
        let ten = cdb[0] == op::MODE_SENSE_10;
        let (control, code) = (be(cdb, 2, 1) >> 6, cdb[2] & 0x3f);
        if control == SAVED {
            return Plan::Check(Sense::SAVING_NOT_SUPPORTED);
        }
        if be(cdb, 3, 1) != 0 && be(cdb, 3, 1) != 0xff {
            return Plan::Check(Sense::BAD_FIELD); // no subpages
        }
        let mut pages = Vec::new();
        for known in self.page_codes() {
            if code == *known || code == page::ALL {
                pages.extend(self.mode_page(*known, control));
            }
        }
        if pages.is_empty() && code != 0 {
            return Plan::Check(Sense::BAD_FIELD);
        }
        let disk = self.options.kind == Kind::Disk;
        let mut specific = 0;
        if disk {
            specific |= if self.options.dpofua { DPOFUA } else { 0 };
            specific |= if medium.read_only { WRITE_PROTECT } else { 0 };
        }
        let mut descriptor = Vec::new();
        if disk && be(cdb, 1, 1) & 8 == 0 {
            let blocks = medium.capacity / self.block_size();
            let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks <= 0xff_ffff).unwrap_or(0);
            descriptor.extend_from_slice(&blocks.to_be_bytes());
            descriptor.extend_from_slice(&u32::try_from(self.block_size()).unwrap_or(512).to_be_bytes());
        }
        let len = descriptor.len() + pages.len();
        let mut reply = Vec::new();
        if ten {
            reply.extend_from_slice(&u16::try_from(len + 6).unwrap_or(u16::MAX).to_be_bytes());
            reply.extend_from_slice(&[0, specific, 0, 0]);
            reply.extend_from_slice(&u16::try_from(descriptor.len()).unwrap_or(0).to_be_bytes());
        } else {
            reply.push(u8::try_from(len + 3).unwrap_or(u8::MAX));
            reply.extend_from_slice(&[0, specific, u8::try_from(descriptor.len()).unwrap_or(0)]);
        }
        reply.extend(descriptor);
        reply.extend(pages);
        cut(reply, if ten { be_len(cdb, 7, 2) } else { be_len(cdb, 4, 1) })
    }

    /// MODE SELECT (6) and (10): the write cache can be switched; everything else must stay as it is.
    pub(super) fn mode_select(&mut self, cdb: &[u8], out: &dyn Fn(usize) -> Vec<u8>) -> Plan {
        let ten = cdb[0] == op::MODE_SELECT_10;
        if be(cdb, 1, 1) & 0x11 != 0x10 {
            return Plan::Check(Sense::BAD_FIELD); // page format, nothing saved
        }
        let len = if ten { be_len(cdb, 7, 2) } else { be_len(cdb, 4, 1) };
        if len == 0 {
            return Plan::Reply(Vec::new());
        }
        let list = out(len);
        let header = if ten { 8 } else { 4 };
        let descriptors = if ten { be_len(&list, 6, 2) } else { be_len(&list, 3, 1) };
        let Some(mut pages) = list.get(header + descriptors..).filter(|_| list.len() == len) else {
            return Plan::Check(Sense::BAD_PARAMETER_LENGTH);
        };
        let mut write_cache = self.write_cache;
        while !pages.is_empty() {
            let (Some(&code), Some(&body)) = (pages.first(), pages.get(1)) else {
                return Plan::Check(Sense::BAD_PARAMETER_LENGTH);
            };
            let Some((page, rest)) = pages.split_at_checked(usize::from(body) + 2) else {
                return Plan::Check(Sense::BAD_PARAMETER_LENGTH);
            };
            let code = code & 0x3f;
            if !self.page_codes().contains(&code) {
                return Plan::Check(Sense::BAD_PARAMETER);
            }
            if code == page::CACHING {
                write_cache = page.get(2).is_some_and(|byte| byte & WCE != 0);
            }
            if !self.allows(code, page) {
                return Plan::Check(Sense::BAD_PARAMETER);
            }
            pages = rest;
        }
        self.write_cache = write_cache;
        Plan::Reply(Vec::new())
    }

    /// Whether a page asks for changes only where they are possible.
    fn allows(&self, code: u8, page: &[u8]) -> bool {
        let (current, mask) = (self.mode_page(code, 0), self.mode_page(code, CHANGEABLE));
        page.len() == current.len()
            && page.iter().zip(&current).zip(&mask).skip(2).all(|((new, old), mask)| (new ^ old) & !mask == 0)
    }
}
