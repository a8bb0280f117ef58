//! Frames out: the transmit ring (manual 3.3 to 3.5).

use super::spec::{cause, ctrl, reg, stat, tctl, tx};
use super::{Chip, DESCRIPTOR, word};
use crate::hw::net::frame::MIN_FRAME;
use crate::net::{Checksum, Offload, Packet, ipv4_checksum_over, long_tcp};

/// What one frame may have: 64 KiB of IP and its headers. The rest of what a guest describes is not read.
const LONGEST: usize = 65535 + 18;

/// Descriptors that one call serves, so that no guest holds the board for long; the timer goes on.
const BURST: u32 = 1024;

/// A context descriptor's content (3.3.6).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Context {
    /// IP checksum: start, place, last byte (0: the end).
    ip: (u8, u8, u16),
    /// TCP or UDP checksum.
    transport: (u8, u8, u16),
    command: u8,
    mss: u16,
}

/// The frame that is being put together.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Assembly {
    data: Vec<u8>,
    /// Of the first descriptor.
    options: u8,
    /// Segmentation is asked for.
    segment: bool,
    /// A frame whose data cannot be read is dropped at its end.
    broken: bool,
    /// A data descriptor began it: contexts count.
    extended: bool,
}

/// The transmitter's state besides its registers: contexts, and the frame that is being put together.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Transmitter {
    /// For frames in one piece, and for segmentation.
    contexts: [Context; 2],
    assembly: Assembly,
}

impl Chip {
    fn tx_ring(&self) -> (u64, u32) {
        let base = u64::from(self.reg(reg::TDBAH)) << 32 | u64::from(self.reg(reg::TDBAL) & !15);
        (base, (self.reg(reg::TDLEN) & 0xf_ff80) / DESCRIPTOR)
    }

    /// Sends what the ring holds, as far as the link takes it.
    pub fn transmit(&mut self) {
        if self.reg(reg::TCTL) & tctl::EN == 0 || !self.bus_master {
            return;
        }
        let (base, count) = self.tx_ring();
        let mut causes = 0;
        let mut served = 0;
        while count > 0 && self.reg(reg::TDH) != self.reg(reg::TDT) {
            if self.reg(reg::TDH) >= count {
                self.set_reg(reg::TDH, 0); // what the guest wrote is nowhere
            }
            if served == BURST {
                self.timer_work.set(self.now_ns());
                break;
            }
            if !self.link.has_room() {
                break;
            }
            served += 1;
            let head = self.reg(reg::TDH);
            let address = base.wrapping_add(u64::from(head * DESCRIPTOR));
            let mut descriptor = [0; 16];
            if self.ram.read(address, &mut descriptor).is_ok() {
                causes |= self.descriptor(address, &mut descriptor);
            }
            self.set_reg(reg::TDH, (head + 1) % count);
            // A tail outside of the ring is never reached: one round is enough.
            if served >= count && self.reg(reg::TDT) >= count {
                self.set_reg(reg::TDT, 0);
                self.set_reg(reg::TDH, 0);
            }
        }
        if served > 0 {
            if self.reg(reg::TDH) == self.reg(reg::TDT) {
                causes |= cause::TXQE;
            }
            self.raise(causes);
        }
    }

    /// One descriptor; returns the causes to raise.
    fn descriptor(&mut self, address: u64, bytes: &mut [u8; 16]) -> u32 {
        let command = bytes[11];
        let extended = command & tx::DEXT != 0;
        if extended && bytes[10] >> 4 == 0 {
            self.context(bytes);
        } else {
            self.data(bytes, command, extended);
        }
        if command & tx::RS == 0 {
            return 0;
        }
        bytes[12] |= tx::DD;
        // A descriptor in ROM or nowhere stays as it is.
        let _ = self.ram.write(address + 12, &bytes[12..13]);
        cause::TXDW
    }

    fn context(&mut self, bytes: &[u8; 16]) {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let command = bytes[11];
        let context = Context {
            ip: (bytes[0], bytes[1], half(2)),
            transport: (bytes[4], bytes[5], half(6)),
            command,
            mss: half(14),
        };
        self.tx.contexts[usize::from(command & tx::TSE != 0)] = context;
    }

    fn data(&mut self, bytes: &[u8; 16], command: u8, extended: bool) {
        let buffer = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        let len = match extended {
            true => word(bytes, 8) & 0xf_ffff,
            false => word(bytes, 8) & 0xffff,
        };
        let assembly = &mut self.tx.assembly;
        if assembly.data.is_empty() && !assembly.broken {
            *assembly = Assembly {
                options: if extended { bytes[13] } else { 0 },
                segment: extended && command & tx::TSE != 0,
                extended,
                ..Assembly::default()
            };
        }
        let start = assembly.data.len();
        let len = (len as usize).min(LONGEST - start.min(LONGEST));
        assembly.data.resize(start + len, 0);
        if self.ram.read(buffer, &mut assembly.data[start..]).is_err() {
            assembly.broken = true;
        }
        if command & tx::EOP == 0 {
            return;
        }
        let assembly = std::mem::take(&mut self.tx.assembly);
        if assembly.broken || assembly.data.is_empty() {
            return;
        }
        let tag = (command & tx::VLE != 0 && self.reg(reg::CTRL) & ctrl::VME != 0)
            .then(|| u16::from_le_bytes([bytes[14], bytes[15]]));
        let legacy = (command & tx::IC != 0 && !extended).then(|| (bytes[13], bytes[10]));
        if let Some(packet) = self.finish(assembly, tag, legacy) {
            self.emit(packet);
        }
    }

    /// The frame with what the descriptors ask for.
    fn finish(&mut self, assembly: Assembly, tag: Option<u16>, legacy: Option<(u8, u8)>) -> Option<Packet> {
        let Assembly { mut data, options, segment, .. } = assembly;
        let context = self.tx.contexts[usize::from(segment)];
        let mut shift = 0;
        if let Some(tag) = tag.filter(|_| data.len() >= 12) {
            let kind = u16::try_from(self.reg(reg::VET) & 0xffff).unwrap_or(0);
            data.splice(12..12, [kind.to_be_bytes(), tag.to_be_bytes()].concat());
            shift = 4;
        }
        if self.reg(reg::TCTL) & tctl::PSP != 0 && data.len() < MIN_FRAME {
            data.resize(MIN_FRAME, 0);
        }
        if segment {
            self.regs.statistics[stat::TSCTC] = self.regs.statistics[stat::TSCTC].saturating_add(1);
            // Headers and sums are written anew: what the driver left in them is a template.
            let packet = long_tcp(data, context.mss);
            if packet.is_none() {
                log::debug!(target: "guest_errors", "e1000: segmentation of what is no TCP packet");
            }
            return packet;
        }
        if options & tx::IXSM != 0 {
            let (start, place, last) = context.ip;
            ipv4_checksum_over(&mut data, usize::from(start) + shift, usize::from(place) + shift, end(last, shift));
        }
        let sum = match legacy {
            Some((start, place)) => Some((start, place, 0)),
            None => (options & tx::TXSM != 0).then_some(context.transport),
        };
        let mut offload = Offload::default();
        if let Some((start, place, last)) = sum {
            let (start, place) = (usize::from(start) + shift, usize::from(place) + shift);
            match (place.checked_sub(start), last) {
                (Some(offset), 0) => {
                    let (start, offset) = (u16::try_from(start).ok()?, u16::try_from(offset).ok()?);
                    offload.checksum = Checksum::Partial { start, offset };
                }
                _ => ipv4_checksum_over(&mut data, start, place, end(last, shift)),
            }
        }
        Some(Packet::from(data).with_offload(offload))
    }

    fn emit(&mut self, packet: Packet) {
        let len = packet.len();
        let statistics = &mut self.regs.statistics;
        for at in [stat::GPTC, stat::TPT] {
            statistics[at] = statistics[at].saturating_add(1);
        }
        match packet.head() {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => {
                statistics[stat::BPTC] = statistics[stat::BPTC].saturating_add(1)
            }
            [first, ..] if first & 1 != 0 => statistics[stat::MPTC] = statistics[stat::MPTC].saturating_add(1),
            _ => {}
        }
        self.regs.count_octets(stat::GOTC, len + 4);
        self.regs.count_octets(stat::TOT, len + 4);
        if self.loops_back() {
            self.take_frame(packet);
        } else if self.link.is_up() {
            // Room was there, and nobody else sends here.
            let _ = self.link.send(packet);
        }
    }
}

/// The byte behind the last one that is summed; 0 means all.
fn end(last: u16, shift: usize) -> Option<usize> {
    (last != 0).then(|| usize::from(last) + shift + 1)
}
