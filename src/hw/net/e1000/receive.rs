//! Frames in: filters and the receive ring (manual 3.2).

use super::spec::{cause, ctrl, rctl, reg, rx, rxcsum, stat};
use super::{Chip, DESCRIPTOR};
use crate::hw::net::frame::{MIN_FRAME, check_sequence};
use crate::net::{Checksum, Layout, Packet};

/// Frames are longer only with long packet enable (13.4.22, LPE).
const LONG: usize = 1522;
/// And never longer than this.
const LONGEST: usize = 16384;
/// IEEE 802.1Q.
const TAG: usize = 4;

impl Chip {
    fn rx_ring(&self) -> (u64, u32) {
        let base = u64::from(self.reg(reg::RDBAH)) << 32 | u64::from(self.reg(reg::RDBAL) & !15);
        (base, (self.reg(reg::RDLEN) & 0xf_ff80) / DESCRIPTOR)
    }

    fn buffer_size(&self) -> usize {
        let control = self.reg(reg::RCTL);
        let size = 2048 >> (control >> 16 & 3);
        if control & rctl::BSEX != 0 && size < 2048 { size * 16 } else { size }
    }

    /// Descriptors that the guest gave.
    fn free_descriptors(&self) -> u32 {
        let (_, count) = self.rx_ring();
        let (head, tail) = (self.reg(reg::RDH), self.reg(reg::RDT));
        if count == 0 || head >= count || tail >= count {
            return 0;
        }
        if tail >= head { tail - head } else { count - head + tail }
    }

    /// Takes frames from the link as long as there is room for the longest one.
    pub fn receive(&mut self) {
        let mut causes = 0;
        while self.reg(reg::RCTL) & rctl::EN != 0 && self.bus_master && self.free_descriptors() > 0 {
            let Some(packet) = self.link.receive() else { break };
            match self.deliver(packet) {
                Ok(raised) => causes |= raised,
                Err(packet) => {
                    self.link.unreceive(packet);
                    break;
                }
            }
        }
        self.raise(causes);
    }

    /// A frame that came around by a loop.
    pub fn take_frame(&mut self, packet: Packet) {
        if self.reg(reg::RCTL) & rctl::EN != 0
            && let Ok(causes) = self.deliver(packet)
        {
            self.raise(causes);
        }
    }

    /// Puts a frame into the ring; gives it back if it does not fit now.
    fn deliver(&mut self, packet: Packet) -> Result<u32, Packet> {
        let valid = packet.offload.checksum == Checksum::Valid;
        let shown = packet.len().max(MIN_FRAME);
        if shown > LONGEST || (shown > LONG && self.reg(reg::RCTL) & rctl::LPE == 0) {
            self.regs.statistics[stat::ROC] = self.regs.statistics[stat::ROC].saturating_add(1);
            return Ok(0);
        }
        let mut head = [0; 18];
        packet.copy_prefix(&mut head);
        if !self.passes(&head) {
            return Ok(0);
        }
        let with_sequence = if self.reg(reg::RCTL) & rctl::SECRC == 0 { 4 } else { 0 };
        let needed = (shown + with_sequence).div_ceil(self.buffer_size());
        if self.free_descriptors() < u32::try_from(needed).unwrap_or(u32::MAX) {
            return Err(packet);
        }
        let mut bytes = packet.into_bytes();
        bytes.resize(shown, 0);
        self.count(&bytes);
        let mut status = self.checksum_status(&bytes, valid);
        let mut special = 0;
        if self.reg(reg::CTRL) & ctrl::VME != 0 && self.is_tagged(&bytes) {
            special = u16::from_be_bytes([bytes[14], bytes[15]]);
            status |= rx::VP;
            bytes.drain(12..12 + TAG);
        }
        if with_sequence > 0 {
            let sequence = check_sequence(&bytes);
            bytes.extend_from_slice(&sequence);
        }
        Ok(self.write_frame(&bytes, status, special))
    }

    fn write_frame(&mut self, bytes: &[u8], status: u8, special: u16) -> u32 {
        let (base, count) = self.rx_ring();
        let mut chunks = bytes.chunks(self.buffer_size()).peekable();
        while let Some(chunk) = chunks.next() {
            let head = self.reg(reg::RDH);
            let address = base.wrapping_add(u64::from(head * DESCRIPTOR));
            let mut descriptor = [0; 16];
            if self.ram.read(address, &mut descriptor).is_ok() {
                let buffer = u64::from_le_bytes(descriptor[..8].try_into().unwrap_or_default());
                // A buffer that is no memory takes nothing; the descriptor is used up all the same.
                let _ = self.ram.write(buffer, chunk);
                let len = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
                let last = if chunks.peek().is_none() { rx::EOP } else { 0 };
                descriptor[8..10].copy_from_slice(&len.to_le_bytes());
                descriptor[10..12].fill(0);
                descriptor[12] = status | rx::DD | last;
                descriptor[13] = 0;
                descriptor[14..16].copy_from_slice(&special.to_le_bytes());
                // The status is last: drivers look at it first.
                let _ = self.ram.write(address + 8, &descriptor[8..12]);
                let _ = self.ram.write(address + 13, &descriptor[13..16]);
                let _ = self.ram.write(address + 12, &descriptor[12..13]);
            }
            self.set_reg(reg::RDH, (head + 1) % count);
        }
        // RDMTS: a half, a quarter or an eighth of the ring.
        let threshold = count >> ((self.reg(reg::RCTL) >> 8 & 3) + 1);
        let low = if self.free_descriptors() <= threshold { cause::RXDMT0 } else { 0 };
        cause::RXT0 | low
    }

    /// What the descriptor says about checksums: the wire vouches for some frames; others are not looked at.
    fn checksum_status(&self, bytes: &[u8], valid: bool) -> u8 {
        let control = self.reg(reg::RXCSUM);
        let Some(layout) = Layout::of(bytes).filter(|layout| valid && !layout.fragment) else { return rx::IXSM };
        let mut status = 0;
        if layout.v4 && control & rxcsum::IPOFL != 0 {
            status |= rx::IPCS;
        }
        if matches!(layout.protocol, 6 | 17) && control & rxcsum::TUOFL != 0 {
            status |= rx::TCPCS;
        }
        if status == 0 { rx::IXSM } else { status }
    }

    fn is_tagged(&self, head: &[u8]) -> bool {
        head.len() >= 18 && u32::from(u16::from_be_bytes([head[12], head[13]])) == self.reg(reg::VET) & 0xffff
    }

    /// The filters (3.2.1), over the first 18 bytes.
    fn passes(&self, head: &[u8; 18]) -> bool {
        let control = self.reg(reg::RCTL);
        if control & rctl::VFE != 0 && self.is_tagged(head) {
            let id = u32::from(u16::from_be_bytes([head[14], head[15]]) & 0xfff);
            if self.reg(reg::VFTA + (id >> 5) * 4) >> (id & 31) & 1 == 0 {
                return false;
            }
        }
        let to = &head[..6];
        if to == [0xff; 6] && control & rctl::BAM != 0 {
            return true;
        }
        let group = to[0] & 1 != 0;
        if control & if group { rctl::MPE } else { rctl::UPE } != 0 {
            return true;
        }
        let own = (0..16).any(|index| {
            let low = self.reg(reg::RA + index * 8).to_le_bytes();
            let high = self.reg(reg::RA + index * 8 + 4);
            high >> 31 != 0 && to[..4] == low && to[4..] == high.to_le_bytes()[..2]
        });
        if own {
            return true;
        }
        // Twelve bits of the address, from where MO says (13.5.1).
        let shift = [4, 3, 2, 0][(control >> 12 & 3) as usize];
        let bits = u32::from(u16::from_le_bytes([to[4], to[5]])) >> shift & 0xfff;
        group && self.reg(reg::MTA + (bits >> 5) * 4) >> (bits & 31) & 1 != 0
    }

    fn count(&mut self, bytes: &[u8]) {
        let statistics = &mut self.regs.statistics;
        for at in [stat::GPRC, stat::TPR] {
            statistics[at] = statistics[at].saturating_add(1);
        }
        if bytes[..6] == [0xff; 6] {
            statistics[stat::BPRC] = statistics[stat::BPRC].saturating_add(1);
        } else if bytes[0] & 1 != 0 {
            statistics[stat::MPRC] = statistics[stat::MPRC].saturating_add(1);
        }
        self.regs.count_octets(stat::GORC, bytes.len() + 4);
        self.regs.count_octets(stat::TOR, bytes.len() + 4);
    }
}
