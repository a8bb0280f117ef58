//! A frame on its way between a network card and a back end.

use std::ops::Range;
use std::sync::Arc;

use bitflags::bitflags;

use super::checksum::Sum;

bitflags! {
    /// Work that one end may leave to the other.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
    pub struct Offloads: u32 {
        /// Frames whose transport checksum is not filled in ([`Checksum::Partial`]).
        const CHECKSUM = 1 << 0;
        /// Segments of TCP over IPv4 that are longer than the wire allows.
        const TSO4 = 1 << 1;
        /// The same over IPv6.
        const TSO6 = 1 << 2;
        /// The same with the ECN bits of RFC 3168 set in the first segment only.
        const ECN = 1 << 3;
        /// UDP datagrams that become IP fragments.
        const UFO = 1 << 4;
    }
}

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Nothing: it is what the frame says.
    #[default]
    Unknown,
    /// The sender vouches for it.
    Valid,
    /// It is to be computed from byte `start` to the end of the frame and stored `offset` bytes after `start`, where
    /// the sum of the pseudo header is now.
    Partial {
        /// First byte that is summed.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
}

/// What a long frame is to be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// Fragments of a UDP datagram.
    Udp,
}

/// A frame that is longer than the wire allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// What it is.
    pub kind: SegmentKind,
    /// Payload bytes a segment (TCP) or fragment (UDP).
    pub size: u16,
    /// CWR is set in the first segment only.
    pub ecn: bool,
}

/// What the sender of a frame left to be done.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Cutting.
    pub segment: Option<Segmentation>,
}

/// Payload that several owners look at.
#[derive(Clone)]
struct Shared {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

/// A frame without its frame check sequence: bytes of its own, and then perhaps bytes that it shares with others.
#[derive(Clone)]
pub struct Packet {
    head: Vec<u8>,
    tail: Option<Shared>,
    /// What is left to be done.
    pub offload: Offload,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({} bytes, {:?})", self.len(), self.offload)
    }
}

impl From<Vec<u8>> for Packet {
    fn from(head: Vec<u8>) -> Self {
        Self { head, tail: None, offload: Offload::default() }
    }
}

impl Packet {
    /// A frame whose payload is `bytes[range]`; `None` if that is not there.
    #[must_use]
    pub fn with_payload(head: Vec<u8>, bytes: Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        bytes.get(range.clone())?;
        Some(Self { head, tail: Some(Shared { bytes, range }), offload: Offload::default() })
    }

    /// The same frame with something left to be done.
    #[must_use]
    pub fn with_offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |tail| tail.range.len())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame's bytes: the second piece follows the first.
    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 2] {
        let tail = self.tail.as_ref().and_then(|tail| tail.bytes.get(tail.range.clone()));
        [&self.head, tail.unwrap_or(&[])]
    }

    /// The bytes at `range`, in order, as far as they are there.
    #[must_use]
    pub fn slices(&self, range: Range<usize>) -> [&[u8]; 2] {
        let [head, tail] = self.pieces();
        let cut = |piece: &'_ [u8], start: usize| {
            let from = range.start.saturating_sub(start).min(piece.len());
            let to = range.end.saturating_sub(start).clamp(from, piece.len());
            from..to
        };
        [&head[cut(head, 0)], &tail[cut(tail, head.len())]]
    }

    /// The first piece: at least the headers of what our own back ends make.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Copies the first bytes into `buf`; returns how many there were.
    pub fn copy_prefix(&self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.slices(0..buf.len()) {
            buf[done..done + piece.len()].copy_from_slice(piece);
            done += piece.len();
        }
        done
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let [_, tail] = self.pieces();
        if tail.is_empty() {
            return self.head;
        }
        [&self.head[..], tail].concat()
    }

    /// The sum over the bytes at `range`.
    #[must_use]
    pub fn sum(&self, range: Range<usize>) -> Sum {
        let [head, tail] = self.slices(range);
        Sum::new().bytes(head).bytes(tail)
    }

    /// Overwrites two bytes of the first piece; elsewhere nothing happens.
    pub fn set_word(&mut self, offset: usize, word: u16) {
        if let Some(place) = self.head.get_mut(offset..offset + 2) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// The part of the frame from `skip` on, with `head` before it. What can be shared is.
    #[must_use]
    pub fn part(&self, mut head: Vec<u8>, range: Range<usize>) -> Self {
        let own = self.head.len();
        let [from_head, _] = self.slices(range.clone());
        head.extend_from_slice(from_head);
        let tail = self.tail.as_ref().map(|tail| {
            let start = tail.range.start + range.start.saturating_sub(own).min(tail.range.len());
            let end = tail.range.start + range.end.saturating_sub(own).min(tail.range.len());
            Shared { bytes: Arc::clone(&tail.bytes), range: start..end.max(start) }
        });
        Self { head, tail, offload: Offload::default() }
    }

    /// Makes at least `len` bytes of the frame its own, so that headers lie in one piece.
    pub fn pull(&mut self, len: usize) {
        if self.head.len() < len && self.tail.is_some() {
            let whole = std::mem::replace(self, Self::from(Vec::new()));
            let offload = whole.offload;
            *self = Self::from(whole.into_bytes()).with_offload(offload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split() -> Packet {
        Packet::with_payload(vec![0, 1, 2], Arc::new((0..10).collect()), 3..8).unwrap()
    }

    #[test]
    fn slices_cross_the_seam() {
        let packet = split();
        assert_eq!(packet.len(), 8);
        assert_eq!(packet.slices(1..5), [&[1u8, 2][..], &[3, 4]]);
        assert_eq!(packet.slices(6..100), [&[][..], &[6, 7]]);
        let mut buf = [9; 10];
        assert_eq!(packet.copy_prefix(&mut buf), 8);
        assert_eq!(buf, [0, 1, 2, 3, 4, 5, 6, 7, 9, 9]);
    }

    #[test]
    fn parts_share_what_they_can() {
        let part = split().part(vec![0xaa], 2..6);
        assert_eq!(part.pieces(), [&[0xaa, 2][..], &[3, 4, 5]]);
        assert_eq!(split().part(Vec::new(), 4..6).into_bytes(), [4, 5]);
    }

    #[test]
    fn a_payload_that_is_not_there_is_refused() {
        assert!(Packet::with_payload(Vec::new(), Arc::new(vec![1]), 0..2).is_none());
    }
}
