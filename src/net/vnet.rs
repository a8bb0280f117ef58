//! The header that tells of offloads: `struct virtio_net_hdr` of virtio (1.2, 5.1.6) and of TAP devices.

use super::packet::{Checksum, Offload, Packet, SegmentKind, Segmentation};

/// Its length without the count of buffers.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const TCPV4: u8 = 1;
const UDP: u8 = 3;
const TCPV6: u8 = 4;
const ECN: u8 = 0x80;

/// What a header asks for. Types that nobody offered count as none.
#[must_use]
pub fn decode(header: &[u8; LEN]) -> Offload {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let checksum = match header[0] {
        flags if flags & NEEDS_CSUM != 0 => Checksum::Partial { start: word(6), offset: word(8) },
        flags if flags & DATA_VALID != 0 => Checksum::Valid,
        _ => Checksum::Unknown,
    };
    let kind = match header[1] & !ECN {
        TCPV4 => Some(SegmentKind::Tcp4),
        TCPV6 => Some(SegmentKind::Tcp6),
        UDP => Some(SegmentKind::Udp),
        _ => None,
    };
    let segment = kind.map(|kind| Segmentation { kind, size: word(4), ecn: header[1] & ECN != 0 });
    Offload { checksum, segment }
}

/// The header of a frame.
#[must_use]
pub fn encode(packet: &Packet) -> [u8; LEN] {
    let mut header = [0; LEN];
    let mut put = |at: usize, word: u16| header[at..at + 2].copy_from_slice(&word.to_le_bytes());
    let mut flags = 0;
    match packet.offload.checksum {
        Checksum::Unknown => {}
        Checksum::Valid => flags = DATA_VALID,
        Checksum::Partial { start, offset } => {
            flags = NEEDS_CSUM;
            put(6, start);
            put(8, offset);
        }
    }
    let mut kind = 0;
    if let Some(segment) = packet.offload.segment {
        kind = match segment.kind {
            SegmentKind::Tcp4 => TCPV4,
            SegmentKind::Tcp6 => TCPV6,
            SegmentKind::Udp => UDP,
        } | if segment.ecn { ECN } else { 0 };
        // The headers' length is a hint: what lies in one piece of ours.
        put(2, u16::try_from(packet.head().len().min(128)).unwrap_or(128));
        put(4, segment.size);
    }
    (header[0], header[1]) = (flags, kind);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_frames_ask_for() {
        let segment = Some(Segmentation { kind: SegmentKind::Tcp6, size: 1440, ecn: true });
        let offload = Offload { checksum: Checksum::Partial { start: 54, offset: 16 }, segment };
        let header = encode(&Packet::from(vec![0; 60]).with_offload(offload));
        assert_eq!(header, [1, 0x84, 60, 0, 0xa0, 5, 54, 0, 16, 0]);
        assert_eq!(decode(&header), offload);
        assert_eq!(decode(&[0; LEN]), Offload::default());
    }
}
