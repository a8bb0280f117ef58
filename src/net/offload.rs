//! The work that one end left undone and the other does not do: checksums and cutting long frames.
//!
//! Guests say where headers are, and lie; everything here parses the frame itself and gives up on what makes no sense.
//! Documents: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768 (UDP), RFC 3168 (ECN).

use super::checksum::Sum;
use super::packet::{Checksum, Offload, Offloads, Packet, SegmentKind, Segmentation};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// TCP flags (RFC 9293 3.1), byte 13 of the header.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// More segments than 64 KiB of single bytes make no sense; a hostile size of 1 stops here.
const MAX_SEGMENTS: usize = 2048;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Offset of the IP header.
    pub ip: usize,
    /// Whether it is IPv4; else IPv6.
    pub v4: bool,
    /// Protocol behind the IP header.
    pub protocol: u8,
    /// Offset of the transport header.
    pub transport: usize,
    /// Whether the packet is a fragment: its transport header says nothing.
    pub fragment: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl Layout {
    /// Finds the headers; `None` for what is not IP or is cut short. IPv6 extension headers are not looked behind.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut ip = ETHERNET;
        let mut kind = word(frame, 12)?;
        if kind == VLAN {
            kind = word(frame, 16)?;
            ip += 4;
        }
        match kind {
            IPV4 => {
                let first = *frame.get(ip)?;
                let len = usize::from(first & 15) * 4;
                if first >> 4 != 4 || len < 20 || frame.len() < ip + len {
                    return None;
                }
                let fragment = word(frame, ip + 6)? & 0x3fff != 0;
                Some(Self { ip, v4: true, protocol: frame[ip + 9], transport: ip + len, fragment })
            }
            IPV6 if *frame.get(ip)? >> 4 == 6 && frame.len() >= ip + 40 => {
                Some(Self { ip, v4: false, protocol: frame[ip + 6], transport: ip + 40, fragment: false })
            }
            _ => None,
        }
    }

    /// The sum of the pseudo header for a transport packet of `len` bytes.
    #[must_use]
    pub fn pseudo(&self, frame: &[u8], len: usize) -> Sum {
        let addresses = if self.v4 { self.ip + 12..self.ip + 20 } else { self.ip + 8..self.ip + 40 };
        let low = u16::try_from(len & 0xffff).unwrap_or(0);
        let high = u16::try_from(len >> 16).unwrap_or(0);
        Sum::new().bytes(frame.get(addresses).unwrap_or(&[])).word(u16::from(self.protocol)).word(low).word(high)
    }
}

/// Recomputes the header checksum of the IPv4 header at `ip`.
pub fn fill_ipv4_checksum(frame: &mut [u8], ip: usize) {
    let Some(len) = frame.get(ip).map(|first| usize::from(first & 15) * 4) else { return };
    let Some(header) = frame.get_mut(ip..ip + len).filter(|header| header.len() >= 20) else { return };
    header[10..12].fill(0);
    let sum = super::checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Sums the bytes from `start` to `end` (the end of the frame without one) and stores the checksum at `place`. What is
/// not there is left alone.
pub fn ipv4_checksum_over(frame: &mut [u8], start: usize, place: usize, end: Option<usize>) {
    let end = end.unwrap_or(frame.len()).min(frame.len());
    if start > end || place + 2 > frame.len() {
        return;
    }
    let sum = super::checksum::of(&frame[start..end]);
    frame[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A TCP packet that is to be cut into segments of `mss` bytes, from a frame whose headers are a driver's template: its
/// lengths and sums are filled in. `None` if it is no TCP packet, or longer than IP allows.
#[must_use]
pub fn long_tcp(mut frame: Vec<u8>, mss: u16) -> Option<Packet> {
    let layout = Layout::of(&frame)?;
    if layout.protocol != TCP || layout.fragment || mss == 0 || frame.len() < layout.transport + 20 {
        return None;
    }
    let len = frame.len() - layout.transport;
    let id = word(&frame, layout.ip + 4)?;
    set_length(&mut frame, &layout, len, id)?;
    let pseudo = layout.pseudo(&frame, len).folded();
    frame[layout.transport + 16..layout.transport + 18].copy_from_slice(&pseudo.to_be_bytes());
    let ecn = frame[layout.transport + 13] & CWR != 0;
    let kind = if layout.v4 { SegmentKind::Tcp4 } else { SegmentKind::Tcp6 };
    let start = u16::try_from(layout.transport).ok()?;
    let header = usize::from(frame[layout.transport + 12] >> 4) * 4;
    let long = len.saturating_sub(header) > usize::from(mss);
    let segment = long.then_some(Segmentation { kind, size: mss, ecn });
    Some(Packet::from(frame).with_offload(Offload { checksum: Checksum::Partial { start, offset: 16 }, segment }))
}

/// Computes a partial checksum and stores it. UDP's zero is sent as all ones (RFC 768).
fn fill_checksum(packet: &mut Packet, start: u16, offset: u16) {
    let (start, offset) = (usize::from(start), usize::from(offset));
    if start + offset + 2 > packet.len() {
        return;
    }
    packet.pull(start + offset + 2);
    let sum = packet.sum(start..packet.len()).finish();
    packet.set_word(start + offset, if sum == 0 { 0xffff } else { sum });
}

/// Does what `accepted` leaves to do and passes the frames on. A frame that cannot be cut because it is not what it
/// says is dropped.
pub fn lower(mut packet: Packet, accepted: Offloads, out: &mut dyn FnMut(Packet)) {
    let taken = |segment: &Segmentation| {
        let kind = match segment.kind {
            SegmentKind::Tcp4 => Offloads::TSO4,
            SegmentKind::Tcp6 => Offloads::TSO6,
            SegmentKind::Udp => Offloads::UFO,
        };
        accepted.contains(if segment.ecn { kind | Offloads::ECN } else { kind })
    };
    match packet.offload.segment {
        Some(segment) if !taken(&segment) => {
            packet.pull(128);
            let cut = match segment.kind {
                SegmentKind::Udp => fragment_udp(packet, segment.size, out),
                kind => cut_tcp(&packet, kind, segment, accepted, out),
            };
            if cut.is_none() {
                log::debug!(target: "guest_errors", "net: a frame that cannot be cut into segments is dropped");
            }
            return;
        }
        _ => {}
    }
    if let Checksum::Partial { start, offset } = packet.offload.checksum
        && !accepted.contains(Offloads::CHECKSUM)
    {
        fill_checksum(&mut packet, start, offset);
        packet.offload.checksum = Checksum::Valid;
    }
    out(packet);
}

fn cut_tcp(
    packet: &Packet,
    kind: SegmentKind,
    segment: Segmentation,
    accepted: Offloads,
    out: &mut dyn FnMut(Packet),
) -> Option<()> {
    let layout = Layout::of(packet.head())?;
    if layout.protocol != TCP || layout.v4 != (kind == SegmentKind::Tcp4) || layout.fragment {
        return None;
    }
    let header = usize::from(packet.head().get(layout.transport + 12)? >> 4) * 4;
    let head = packet.head().get(..layout.transport + header).filter(|_| header >= 20)?;
    let payload = packet.len().checked_sub(head.len())?;
    let size = usize::from(segment.size);
    if size == 0 || payload.div_ceil(size) > MAX_SEGMENTS {
        return None;
    }
    let first_sequence = u32::from_be_bytes(head.get(layout.transport + 4..layout.transport + 8)?.try_into().ok()?);
    let first_id = word(head, layout.ip + 4)?;
    let flags = head[layout.transport + 13];
    let count = payload.div_ceil(size).max(1);
    for index in 0..count {
        let start = index * size;
        let len = size.min(payload - start);
        let mut own = head.to_vec();
        let sequence = first_sequence.wrapping_add(u32::try_from(start).ok()?);
        own[layout.transport + 4..layout.transport + 8].copy_from_slice(&sequence.to_be_bytes());
        let mut kept = flags;
        if index + 1 < count {
            kept &= !(FIN | PSH);
        }
        if index > 0 {
            kept &= !CWR;
        }
        own[layout.transport + 13] = kept;
        set_length(&mut own, &layout, header + len, first_id.wrapping_add(u16::try_from(index).ok()?))?;
        let pseudo = layout.pseudo(&own, header + len).folded();
        own[layout.transport + 16..layout.transport + 18].copy_from_slice(&pseudo.to_be_bytes());
        let mut part = packet.part(own, head.len() + start..head.len() + start + len);
        let at = u16::try_from(layout.transport).ok()?;
        part.offload = Offload { checksum: Checksum::Partial { start: at, offset: 16 }, segment: None };
        lower(part, accepted, out);
    }
    Some(())
}

/// Writes the length of a transport packet into the IP header, and in IPv4 the identification.
fn set_length(head: &mut [u8], layout: &Layout, transport_len: usize, id: u16) -> Option<()> {
    if layout.v4 {
        let total = u16::try_from(layout.transport - layout.ip + transport_len).ok()?;
        head[layout.ip + 2..layout.ip + 4].copy_from_slice(&total.to_be_bytes());
        head[layout.ip + 4..layout.ip + 6].copy_from_slice(&id.to_be_bytes());
        fill_ipv4_checksum(head, layout.ip);
    } else {
        let len = u16::try_from(transport_len).ok()?;
        head[layout.ip + 4..layout.ip + 6].copy_from_slice(&len.to_be_bytes());
    }
    Some(())
}

/// Cuts a UDP datagram into IPv4 fragments of at most `size` bytes each (RFC 791 3.2). Over IPv6 the datagram would
/// need a fragment header, and no driver in use asks for that: such a frame is dropped.
fn fragment_udp(mut packet: Packet, size: u16, out: &mut dyn FnMut(Packet)) -> Option<()> {
    let layout = Layout::of(packet.head())?;
    if layout.protocol != UDP || !layout.v4 || layout.fragment {
        return None;
    }
    if let Checksum::Partial { start, offset } = packet.offload.checksum {
        fill_checksum(&mut packet, start, offset);
    }
    let head = packet.head().get(..layout.transport)?.to_vec();
    let payload = packet.len().checked_sub(head.len())?;
    // Fragments but the last are multiples of 8 bytes.
    let size = usize::from(size) & !7;
    if size == 0 || payload.div_ceil(size) > MAX_SEGMENTS {
        return None;
    }
    let id = word(&head, layout.ip + 4)?;
    for start in (0..payload).step_by(size) {
        let len = size.min(payload - start);
        let mut own = head.clone();
        let more = u16::from(start + len < payload) << 13;
        let place = more | u16::try_from(start / 8).ok()?;
        own[layout.ip + 6..layout.ip + 8].copy_from_slice(&place.to_be_bytes());
        set_length(&mut own, &layout, len, id)?;
        out(packet.part(own, head.len() + start..head.len() + start + len));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 and TCP headers with `payload` bytes behind.
    fn tcp4(payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 4..14 + 6].copy_from_slice(&[0x12, 0x34]);
        frame[14 + 8] = 64;
        frame[14 + 9] = TCP;
        frame[26..34].copy_from_slice(&[10, 0, 2, 15, 10, 0, 2, 2]);
        frame[34 + 4..34 + 8].copy_from_slice(&[0xff, 0xff, 0xff, 0]);
        frame[34 + 12] = 0x50;
        frame[34 + 13] = FIN | PSH | CWR;
        frame.extend((0..payload).map(|i| i as u8));
        frame
    }

    fn cut(packet: Packet, accepted: Offloads) -> Vec<Packet> {
        let mut out = Vec::new();
        lower(packet, accepted, &mut |packet| out.push(packet));
        out
    }

    fn tso(size: u16) -> Offload {
        let segment = Segmentation { kind: SegmentKind::Tcp4, size, ecn: false };
        Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segment: Some(segment) }
    }

    #[test]
    fn a_long_segment_is_cut_and_summed() {
        let out = cut(Packet::from(tcp4(2500)).with_offload(tso(1000)), Offloads::empty());
        let frames: Vec<Vec<u8>> = out.into_iter().map(Packet::into_bytes).collect();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1054, 1054, 554]);
        assert_eq!(frames[1][38..42], 0x2e8u32.to_be_bytes());
        assert_eq!(frames.iter().map(|f| f[47]).collect::<Vec<_>>(), [CWR, 0, FIN | PSH]);
        assert_eq!(frames.iter().map(|f| f[19]).collect::<Vec<_>>(), [0x34, 0x35, 0x36]);
        for frame in &frames {
            assert_eq!(super::super::checksum::of(&frame[14..34]), 0);
            let layout = Layout::of(frame).unwrap();
            assert_eq!(layout.pseudo(frame, frame.len() - 34).bytes(&frame[34..]).finish(), 0);
        }
        assert_eq!(frames.iter().flat_map(|f| &f[54..]).copied().collect::<Vec<_>>(), tcp4(2500)[54..]);
    }

    #[test]
    fn what_the_other_side_takes_is_left_alone() {
        let packet = Packet::from(tcp4(2500)).with_offload(tso(1000));
        let out = cut(packet, Offloads::TSO4 | Offloads::CHECKSUM);
        assert_eq!((out.len(), out[0].len(), out[0].offload), (1, 2554, tso(1000)));
    }

    #[test]
    fn lying_headers_are_dropped() {
        for (at, byte) in [(14, 0x4f), (14, 0x65), (12, 0x86), (23, UDP), (46, 0x10), (46, 0xf0)] {
            let mut frame = tcp4(20);
            frame[at] = byte;
            assert!(cut(Packet::from(frame).with_offload(tso(10)), Offloads::empty()).is_empty(), "{at} {byte:#x}");
        }
        assert!(cut(Packet::from(tcp4(20)).with_offload(tso(0)), Offloads::empty()).is_empty());
    }

    #[test]
    fn frames_of_every_length_pass_without_a_panic() {
        let frame = tcp4(60);
        for len in 0..frame.len() {
            for start in [0, 14, 34, 65535] {
                for segment in
                    [tso(8).segment, None, Some(Segmentation { kind: SegmentKind::Udp, size: 8, ecn: false })]
                {
                    let offload = Offload { checksum: Checksum::Partial { start, offset: 65535 - start }, segment };
                    cut(Packet::from(frame[..len].to_vec()).with_offload(offload), Offloads::empty());
                }
            }
        }
    }

    #[test]
    fn a_datagram_becomes_fragments() {
        let mut frame = tcp4(100);
        frame[23] = UDP;
        let segment = Some(Segmentation { kind: SegmentKind::Udp, size: 50, ecn: false });
        let packet = Packet::from(frame.clone()).with_offload(Offload { checksum: Checksum::Unknown, segment });
        let frames: Vec<_> = cut(packet, Offloads::empty()).into_iter().map(Packet::into_bytes).collect();
        assert_eq!(frames.iter().map(|f| (f[20], f[21])).collect::<Vec<_>>(), [(0x20, 0), (0x20, 6), (0, 12)]);
        assert_eq!(frames.iter().flat_map(|f| &f[34..]).copied().collect::<Vec<_>>(), frame[34..]);
    }
}
