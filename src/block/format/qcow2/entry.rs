//! L2 entries (qcow2.rst, "L2 table entry" and "Extended L2 Entries").

use super::Geometry;

/// Bit 63: the refcount is exactly one.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62: a compressed cluster.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 0, standard entries of version 3: reads as zeros.
pub(super) const ZERO: u64 = 1;
/// Bits 9 to 55: host offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// All subclusters allocated.
pub(super) const ALL_ALLOCATED: u64 = 0xffff_ffff;
/// All subclusters zero.
pub(super) const ALL_ZERO: u64 = 0xffff_ffff << 32;

/// Subclusters of an extended entry.
pub(super) const SUBCLUSTERS: u64 = 32;

/// What a (sub)cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The backing file decides.
    Unallocated,
    /// Zeros; it may have a place.
    Zero,
    /// At its cluster's host offset.
    Normal(u64),
    /// Packed.
    Compressed,
}

/// One entry with its bitmap (0 in standard tables).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    pub(super) word: u64,
    pub(super) bitmap: u64,
}

impl Entry {
    /// A cluster of our own with a bitmap (standard tables: 0).
    pub(super) fn owned(host: u64, bitmap: u64) -> Self {
        Self { word: host | COPIED, bitmap }
    }

    /// Where the cluster is, if it has a place of its own. In an external data file offset 0 is a place, if the flag
    /// says so.
    pub(super) fn host(self, g: Geometry) -> Option<u64> {
        let host = self.word & OFFSET;
        (self.word & COMPRESSED == 0 && (host != 0 || g.external && self.copied())).then_some(host)
    }

    pub(super) fn copied(self) -> bool {
        self.word & COPIED != 0
    }

    pub(super) fn compressed(self) -> bool {
        self.word & COMPRESSED != 0
    }

    /// What subcluster `sub` is; `sub` is 0 in standard tables.
    pub(super) fn kind(self, g: Geometry, sub: u64) -> Kind {
        if self.compressed() {
            return Kind::Compressed;
        }
        if g.extended {
            let (allocated, zero) = (self.bitmap >> sub & 1 != 0, self.bitmap >> (sub + 32) & 1 != 0);
            return match self.host(g) {
                _ if zero => Kind::Zero,
                Some(host) if allocated => Kind::Normal(host),
                _ => Kind::Unallocated,
            };
        }
        if g.version >= 3 && self.word & ZERO != 0 {
            return Kind::Zero;
        }
        self.host(g).map_or(Kind::Unallocated, Kind::Normal)
    }

    /// Bits of the subclusters that hold data; for standard and compressed entries all or none.
    pub(super) fn data_bits(self, g: Geometry) -> u64 {
        match self.kind(g, 0) {
            _ if g.extended && !self.compressed() && self.host(g).is_some() => {
                self.bitmap & ALL_ALLOCATED & !(self.bitmap >> 32)
            }
            Kind::Normal(_) | Kind::Compressed => ALL_ALLOCATED,
            _ => 0,
        }
    }

    /// Where a compressed cluster is and how many bytes may be in it.
    pub(super) fn packed(self, cluster_bits: u32) -> (u64, u64) {
        let split = 62 - (cluster_bits - 8);
        let offset = self.word & ((1 << split) - 1);
        let sectors = (self.word & (COMPRESSED - 1)) >> split;
        (offset, (sectors + 1) * 512 - offset % 512)
    }

    /// An entry for `len` packed bytes at `offset`; `None` if the place cannot be expressed.
    pub(super) fn for_packed(cluster_bits: u32, offset: u64, len: u64) -> Option<Self> {
        let split = 62 - (cluster_bits - 8);
        if offset >> split != 0 || len == 0 {
            return None;
        }
        let sectors = (offset + len - 1) / 512 - offset / 512;
        Some(Self { word: COMPRESSED | sectors << split | offset, bitmap: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::format::qcow2::header::Compression;

    fn geometry(version: u32, extended: bool, external: bool) -> Geometry {
        Geometry {
            version,
            cluster_bits: 16,
            l2_bits: if extended { 12 } else { 13 },
            extended,
            external,
            compression: Compression::Zlib,
        }
    }

    #[test]
    fn packed_places_survive_the_entry() {
        let entry = Entry::for_packed(16, 0x12345, 1000).unwrap();
        let (offset, len) = entry.packed(16);
        assert_eq!(offset, 0x12345);
        assert!((1000..1000 + 512).contains(&len));
        assert_eq!(Entry::for_packed(21, 1 << 49, 1), None);
    }

    #[test]
    fn version_two_has_no_zero_flag() {
        let entry = Entry { word: 0x50001, bitmap: 0 };
        assert_eq!(entry.kind(geometry(3, false, false), 0), Kind::Zero);
        assert_eq!(entry.kind(geometry(2, false, false), 0), Kind::Normal(0x50000));
    }

    #[test]
    fn offset_zero_is_a_place_in_an_external_data_file() {
        let entry = Entry { word: COPIED, bitmap: 0 };
        assert_eq!(entry.kind(geometry(3, false, true), 0), Kind::Normal(0));
        assert_eq!(entry.kind(geometry(3, false, false), 0), Kind::Unallocated);
    }

    #[test]
    fn subclusters_with_both_bits_read_as_zeros() {
        let entry = Entry { word: 0x50000 | COPIED, bitmap: 0b11 | 0b10 << 32 };
        let g = geometry(3, true, false);
        assert_eq!([0, 1, 2].map(|sub| entry.kind(g, sub)), [Kind::Normal(0x50000), Kind::Zero, Kind::Unallocated]);
        assert_eq!(entry.data_bits(g), 1);
    }
}
