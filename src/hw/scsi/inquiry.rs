//! INQUIRY and its vital product data (SPC-4 6.6, 7.8; SBC-3 6.6).

use super::block::MAX_DESCRIPTORS;
use super::unit::{Kind, Unit};
use super::{Plan, Sense, be, be_len, cut, padded};

/// Vital product data pages.
mod page {
    pub const SUPPORTED: u8 = 0x00;
    pub const SERIAL: u8 = 0x80;
    pub const IDENTIFICATION: u8 = 0x83;
    pub const BLOCK_LIMITS: u8 = 0xb0;
    pub const CHARACTERISTICS: u8 = 0xb1;
    pub const PROVISIONING: u8 = 0xb2;
}

impl Unit {
    fn peripheral(&self) -> u8 {
        match self.options.kind {
            Kind::Disk => 0,
            Kind::Cdrom => 5,
        }
    }

    pub(super) fn inquiry(&self, cdb: &[u8]) -> Plan {
        const HISUP_SPC: u8 = 0x12;
        const CMDQUE: u8 = 0x02;
        const SYNC: u8 = 0x10;
        let allocation = be_len(cdb, 3, 2);
        if be(cdb, 1, 1) & 1 != 0 {
            return match self.vital_product_data(cdb[2]) {
                Some(reply) => cut(reply, allocation),
                None => Plan::Check(Sense::BAD_FIELD),
            };
        }
        if cdb[2] != 0 {
            return Plan::Check(Sense::BAD_FIELD);
        }
        let removable = self.options.removable || self.options.kind == Kind::Cdrom;
        // SPC-3, as QEMU says.
        let mut reply = vec![self.peripheral(), u8::from(removable) << 7, 5, HISUP_SPC, 31, 0, 0, SYNC | CMDQUE];
        reply.extend(padded(&self.options.vendor, 8));
        reply.extend(padded(&self.options.product, 16));
        reply.extend(padded(&self.options.version, 4));
        cut(reply, allocation)
    }

    fn pages(&self) -> Vec<u8> {
        let mut pages = vec![page::SUPPORTED];
        if !self.options.serial.is_empty() {
            pages.push(page::SERIAL);
        }
        pages.push(page::IDENTIFICATION);
        if self.options.kind == Kind::Disk {
            pages.extend_from_slice(&[page::BLOCK_LIMITS, page::CHARACTERISTICS, page::PROVISIONING]);
        }
        pages
    }

    fn vital_product_data(&self, number: u8) -> Option<Vec<u8>> {
        if !self.pages().contains(&number) {
            return None;
        }
        let body = match number {
            page::SUPPORTED => self.pages(),
            page::SERIAL => self.options.serial.bytes().take(36).collect(),
            page::IDENTIFICATION => self.identification(),
            page::BLOCK_LIMITS => self.block_limits(),
            page::CHARACTERISTICS => {
                let mut body = vec![0; 60];
                body[..2].copy_from_slice(&self.options.rotation_rate.to_be_bytes());
                body
            }
            // UNMAP, WRITE SAME (16) and (10) with UNMAP; thin or full provisioning.
            _ => match self.options.discard_granularity {
                0 => vec![0, 0, 1, 0],
                _ => vec![0, 0xe0, 2, 0],
            },
        };
        let mut reply = vec![self.peripheral(), number];
        reply.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
        reply.extend(body);
        Some(reply)
    }

    fn identification(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let id: Vec<u8> = self.options.device_id.bytes().take(255 - 8).collect();
        if !id.is_empty() {
            // ASCII, vendor specific, of the logical unit.
            body.extend_from_slice(&[2, 0, 0, u8::try_from(id.len()).unwrap_or(u8::MAX)]);
            body.extend(id);
        }
        if self.options.wwn != 0 {
            // Binary, NAA.
            body.extend_from_slice(&[1, 3, 0, 8]);
            body.extend_from_slice(&self.options.wwn.to_be_bytes());
        }
        body
    }

    fn block_limits(&self) -> Vec<u8> {
        const WRITE_SAME_NON_ZERO: u8 = 1;
        let block = u32::try_from(self.block_size()).unwrap_or(512);
        let blocks = |bytes: u64| u32::try_from(bytes / u64::from(block)).unwrap_or(u32::MAX);
        let (min_io, opt_io) = self.options.io_sizes;
        let mut body = vec![0; 60];
        body[0] = WRITE_SAME_NON_ZERO;
        let min = u16::try_from(min_io / block).unwrap_or(u16::MAX);
        body[2..4].copy_from_slice(&min.to_be_bytes());
        body[8..12].copy_from_slice(&(opt_io / block).to_be_bytes());
        if self.options.discard_granularity != 0 {
            body[16..20].copy_from_slice(&blocks(self.options.max_unmap_size).to_be_bytes());
            body[20..24].copy_from_slice(&u32::try_from(MAX_DESCRIPTORS).unwrap_or(1).to_be_bytes());
            body[24..28].copy_from_slice(&blocks(self.options.discard_granularity.into()).to_be_bytes());
        }
        body[32..40].copy_from_slice(&u64::from(blocks(self.options.max_unmap_size)).to_be_bytes());
        body
    }
}
