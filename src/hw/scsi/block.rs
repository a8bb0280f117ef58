//! Commands that move or change blocks (SBC-3 clause 5).

use super::unit::{Kind, Medium, Unit};
use super::{Plan, Sense, Step, be, be_len, cut, op};
use crate::block::{Op, Payload};

/// FUA, in byte 1 of reads and writes.
const FUA: u64 = 1 << 3;
/// UNMAP, in byte 1 of WRITE SAME.
const UNMAP: u64 = 1 << 3;
/// NDOB, in byte 1 of WRITE SAME(16): no data, zeros are meant.
const NO_DATA: u64 = 1 << 0;
/// Bytes of an UNMAP block descriptor, and of the header before them (SBC-3 5.28.2).
const DESCRIPTOR: usize = 16;
const UNMAP_HEADER: usize = 8;
/// Descriptors of an UNMAP at most, as the block limits page tells.
pub(super) const MAX_DESCRIPTORS: usize = 255;
/// Bytes that one WRITE SAME with a pattern writes at a time.
const PATTERN_STEP: u64 = 512 << 10;
/// Bytes of a WRITE SAME with a pattern, and of a VERIFY with data, at most.
const MAX_BYTES: u64 = 32 << 20;

/// Blocks and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    lba: u64,
    blocks: u64,
}

/// The block range of a command, by the length of its descriptor block (SBC-3 5: 6, 10, 12 and 16 bytes).
fn range_of(cdb: &[u8]) -> Range {
    match cdb[0] >> 5 {
        0 => {
            // 0 stands for 256 blocks.
            let blocks = be(cdb, 4, 1);
            Range { lba: be(cdb, 1, 3) & 0x1f_ffff, blocks: if blocks == 0 { 256 } else { blocks } }
        }
        5 => Range { lba: be(cdb, 2, 4), blocks: be(cdb, 6, 4) },
        4 => Range { lba: be(cdb, 2, 8), blocks: be(cdb, 10, 4) },
        _ => Range { lba: be(cdb, 2, 4), blocks: be(cdb, 7, 2) },
    }
}

impl Unit {
    fn blocks(&self, medium: Medium) -> u64 {
        medium.capacity / self.block_size()
    }

    /// Offset and length in bytes of a range that is on the medium.
    fn bytes_of(&self, range: Range, medium: Medium) -> Result<(u64, u64), Sense> {
        let end = range.lba.checked_add(range.blocks).filter(|end| *end <= self.blocks(medium));
        end.ok_or(Sense::OUT_OF_RANGE)?;
        Ok((range.lba * self.block_size(), range.blocks * self.block_size()))
    }

    fn writable(&self, medium: Medium) -> Result<(), Sense> {
        match self.options.kind == Kind::Cdrom || medium.read_only {
            true => Err(Sense::WRITE_PROTECTED),
            false => Ok(()),
        }
    }

    pub(super) fn block_command(
        &mut self,
        cdb: &[u8],
        medium: Medium,
        out: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Plan, Sense> {
        let disk = self.options.kind == Kind::Disk;
        match cdb[0] {
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => {
                let (offset, len) = self.bytes_of(range_of(cdb), medium)?;
                Ok(if len == 0 { Plan::Reply(Vec::new()) } else { Plan::Read { offset, len } })
            }
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_VERIFY_10
            | op::WRITE_VERIFY_12
            | op::WRITE_VERIFY_16
                if disk =>
            {
                self.writable(medium)?;
                let (offset, len) = self.bytes_of(range_of(cdb), medium)?;
                let verified = matches!(cdb[0], op::WRITE_VERIFY_10 | op::WRITE_VERIFY_12 | op::WRITE_VERIFY_16);
                let asked = cdb[0] != op::WRITE_6 && be(cdb, 1, 1) & FUA != 0 && self.options.dpofua;
                let fua = verified || asked || !self.write_cache;
                Ok(if len == 0 { Plan::Reply(Vec::new()) } else { Plan::Write { offset, len, fua } })
            }
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 if disk => self.verify(cdb, medium, out),
            op::WRITE_SAME_10 | op::WRITE_SAME_16 if disk => self.write_same(cdb, medium, out),
            op::UNMAP if disk => self.unmap(cdb, medium, out),
            _ => Err(Sense::BAD_OPCODE),
        }
    }

    /// VERIFY (SBC-3 5.29): without data the medium is taken at its word.
    fn verify(&self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Result<Plan, Sense> {
        let (offset, len) = self.bytes_of(range_of(cdb), medium)?;
        match be(cdb, 1, 1) >> 1 & 3 {
            0 => Ok(Plan::Reply(Vec::new())),
            1 if len <= MAX_BYTES => {
                let expected = out(usize::try_from(len).unwrap_or(0));
                match expected.len() as u64 == len {
                    true => Ok(Plan::Compare { offset, expected }),
                    false => Err(Sense::BAD_PARAMETER_LENGTH),
                }
            }
            _ => Err(Sense::BAD_FIELD),
        }
    }

    /// WRITE SAME (SBC-3 5.42): zeros go as zeros, with UNMAP as storage that may be given back.
    fn write_same(&self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Result<Plan, Sense> {
        self.writable(medium)?;
        let flags = be(cdb, 1, 1);
        let no_data = cdb[0] == op::WRITE_SAME_16 && flags & NO_DATA != 0;
        if flags & 0xe0 != 0 || flags & 0x16 != 0 {
            return Err(Sense::BAD_FIELD); // protection, anchors, old forms
        }
        let range = range_of(cdb);
        if range.blocks == 0 {
            return Err(Sense::BAD_FIELD); // WSNZ of the block limits page
        }
        let (offset, len) = self.bytes_of(range, medium)?;
        let block = if no_data { Vec::new() } else { out(usize::try_from(self.block_size()).unwrap_or(0)) };
        if !no_data && block.len() as u64 != self.block_size() {
            return Err(Sense::BAD_PARAMETER_LENGTH);
        }
        if block.iter().all(|byte| *byte == 0) {
            let may_unmap = flags & UNMAP != 0 && self.options.discard_granularity != 0;
            let op = Op::WriteZeroes { may_unmap };
            return Ok(Plan::Steps(vec![Step { op, offset, payload: Payload::Len(len) }]));
        }
        if len > MAX_BYTES {
            return Err(Sense::BAD_FIELD);
        }
        Ok(Plan::Steps(self.pattern_steps(offset, len, &block)))
    }

    fn pattern_steps(&self, offset: u64, len: u64, block: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut done = 0;
        while done < len {
            let step = (len - done).min(PATTERN_STEP.max(self.block_size()));
            let buffer = block.repeat(usize::try_from(step / self.block_size()).unwrap_or(0));
            let op = if self.write_cache { Op::Write } else { Op::WriteFua };
            steps.push(Step { op, offset: offset + done, payload: Payload::Buffer(buffer) });
            done += step;
        }
        steps
    }

    /// UNMAP (SBC-3 5.28).
    fn unmap(&self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Result<Plan, Sense> {
        if self.options.discard_granularity == 0 {
            return Err(Sense::BAD_OPCODE);
        }
        if be(cdb, 1, 1) & 1 != 0 {
            return Err(Sense::BAD_FIELD); // anchors
        }
        self.writable(medium)?;
        let len = be_len(cdb, 7, 2);
        if len == 0 {
            return Ok(Plan::Reply(Vec::new()));
        }
        let list = out(len);
        if list.len() < UNMAP_HEADER {
            return Err(Sense::BAD_PARAMETER_LENGTH);
        }
        let told = be_len(&list, 2, 2);
        let descriptors = list[UNMAP_HEADER..].get(..told).ok_or(Sense::BAD_PARAMETER_LENGTH)?;
        if !told.is_multiple_of(DESCRIPTOR) || told / DESCRIPTOR > MAX_DESCRIPTORS {
            return Err(Sense::BAD_PARAMETER);
        }
        let mut steps = Vec::new();
        for descriptor in descriptors.chunks_exact(DESCRIPTOR) {
            let range = Range { lba: be(descriptor, 0, 8), blocks: be(descriptor, 8, 4) };
            let (offset, len) = self.bytes_of(range, medium)?;
            if len > 0 {
                steps.push(Step { op: Op::Discard, offset, payload: Payload::Len(len) });
            }
        }
        Ok(if steps.is_empty() { Plan::Reply(Vec::new()) } else { Plan::Steps(steps) })
    }

    /// READ CAPACITY (10) (SBC-3 5.15).
    pub(super) fn read_capacity_10(&self, cdb: &[u8], medium: Medium) -> Result<Plan, Sense> {
        let pmi = be(cdb, 8, 1) & 1 != 0;
        if !pmi && be(cdb, 2, 4) != 0 {
            return Err(Sense::BAD_FIELD);
        }
        let last = self.blocks(medium).saturating_sub(1);
        let mut reply = u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        reply.extend_from_slice(&u32::try_from(self.block_size()).unwrap_or(512).to_be_bytes());
        Ok(Plan::Reply(reply))
    }

    /// READ CAPACITY (16) (SBC-3 5.16).
    pub(super) fn read_capacity_16(&self, cdb: &[u8], medium: Medium) -> Plan {
        const PROVISIONED: u8 = 1 << 7;
        let mut reply = vec![0; 32];
        let block = u32::try_from(self.block_size()).unwrap_or(512);
        reply[..8].copy_from_slice(&self.blocks(medium).saturating_sub(1).to_be_bytes());
        reply[8..12].copy_from_slice(&block.to_be_bytes());
        let exponent = (self.options.physical_block_size.max(block) / block).trailing_zeros();
        reply[13] = u8::try_from(exponent).unwrap_or(0);
        if self.options.discard_granularity != 0 {
            reply[14] = PROVISIONED;
        }
        cut(reply, be_len(cdb, 10, 4))
    }
}
