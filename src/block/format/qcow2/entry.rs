//! L2 entries (qcow2.rst, "L2 table entry" and "Extended L2 Entries").

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
    /// A cluster of our own.
    pub(super) fn owned(host: u64, extended: bool) -> Self {
        Self { word: host | COPIED, bitmap: if extended { ALL_ALLOCATED } else { 0 } }
    }

    /// Where the cluster is, if it has a place of its own.
    pub(super) fn host(self) -> Option<u64> {
        let host = self.word & OFFSET;
        (self.word & COMPRESSED == 0 && host != 0).then_some(host)
    }

    pub(super) fn copied(self) -> bool {
        self.word & COPIED != 0
    }

    pub(super) fn compressed(self) -> bool {
        self.word & COMPRESSED != 0
    }

    /// What subcluster `sub` is; `sub` is 0 in standard tables.
    pub(super) fn kind(self, extended: bool, version: u32, sub: u64) -> Kind {
        if self.compressed() {
            return Kind::Compressed;
        }
        if extended {
            let (allocated, zero) = (self.bitmap >> sub & 1 != 0, self.bitmap >> (sub + 32) & 1 != 0);
            return match self.host() {
                _ if zero => Kind::Zero,
                Some(host) if allocated => Kind::Normal(host),
                _ => Kind::Unallocated,
            };
        }
        if version >= 3 && self.word & ZERO != 0 {
            return Kind::Zero;
        }
        self.host().map_or(Kind::Unallocated, Kind::Normal)
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
        assert_eq!(entry.kind(false, 3, 0), Kind::Zero);
        assert_eq!(entry.kind(false, 2, 0), Kind::Normal(0x50000));
    }
}
