//! What must not be written over: where the tables are (`overlap-check`).

use super::cache::OffsetMap;

/// A part of the image that is not data; QEMU's names and order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Section {
    Header,
    ActiveL1,
    ActiveL2,
    RefcountBlock,
    RefcountTable,
    SnapshotTable,
    InactiveL1,
    InactiveL2,
    BitmapDirectory,
}

impl Section {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "qcow2_header",
            Self::ActiveL1 => "active L1 table",
            Self::ActiveL2 => "active L2 table",
            Self::RefcountBlock => "refcount block",
            Self::RefcountTable => "refcount table",
            Self::SnapshotTable => "snapshot table",
            Self::InactiveL1 => "inactive L1 table",
            Self::InactiveL2 => "inactive L2 table",
            Self::BitmapDirectory => "bitmap directory",
        }
    }
}

/// Which sections are guarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverlapCheck(u16);

impl OverlapCheck {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Tables whose place never changes by itself.
    pub const CONSTANT: Self = Self(1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8);
    /// All that is known without reading: the default.
    pub const CACHED: Self = Self(0x1ff & !(1 << 7));
    /// L2 tables of snapshots, too.
    pub const ALL: Self = Self(0x1ff);

    /// By the name of a template.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::NONE),
            "constant" => Some(Self::CONSTANT),
            "cached" => Some(Self::CACHED),
            "all" => Some(Self::ALL),
            _ => None,
        }
    }

    /// The options that switch single sections, and their bits.
    pub const SECTIONS: [(&'static str, u32); 9] = [
        ("main-header", 0),
        ("active-l1", 1),
        ("active-l2", 2),
        ("refcount-block", 3),
        ("refcount-table", 4),
        ("snapshot-table", 5),
        ("inactive-l1", 6),
        ("inactive-l2", 7),
        ("bitmap-directory", 8),
    ];

    /// With one section (its number in [`OverlapCheck::SECTIONS`]) switched.
    #[must_use]
    pub fn with(self, bit: u32, on: bool) -> Self {
        if on { Self(self.0 | 1 << bit) } else { Self(self.0 & !(1 << bit)) }
    }

    pub(super) fn has(self, section: Section) -> bool {
        self.0 & 1 << section as u32 != 0
    }
}

/// The guarded clusters of the file. It is filled when it is first asked, and emptied when tables move.
#[derive(Debug)]
pub(super) struct Guard {
    check: OverlapCheck,
    known: Option<OffsetMap<Section>>,
}

impl Guard {
    pub(super) fn new(check: OverlapCheck) -> Self {
        Self { check, known: None }
    }

    pub(super) fn check(&self) -> OverlapCheck {
        self.check
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_some() || self.check == OverlapCheck::NONE
    }

    /// Tables moved.
    pub(super) fn invalidate(&mut self) {
        self.known = None;
    }

    /// From now on exactly these clusters are guarded.
    pub(super) fn fill(&mut self, clusters: impl Iterator<Item = (u64, Section)>) {
        let mut known = OffsetMap::default();
        for (cluster, section) in clusters {
            let first = known.entry(cluster).or_insert(section);
            *first = (*first).min(section);
        }
        self.known = Some(known);
    }

    /// A table was made.
    pub(super) fn insert(&mut self, cluster: u64, section: Section) {
        if let Some(known) = &mut self.known
            && self.check.has(section)
        {
            known.insert(cluster, section);
        }
    }

    /// It is no table any more.
    pub(super) fn remove(&mut self, cluster: u64) {
        if let Some(known) = &mut self.known {
            known.remove(&cluster);
        }
    }

    /// What is in the way of a write to clusters.
    pub(super) fn hit(&self, clusters: std::ops::RangeInclusive<u64>) -> Option<Section> {
        let known = self.known.as_ref()?;
        clusters.filter_map(|cluster| known.get(&cluster)).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_of_a_range_is_named() {
        let mut guard = Guard::new(OverlapCheck::CACHED);
        assert_eq!(guard.hit(0..=9), None);
        guard.fill([(3, Section::RefcountTable), (3, Section::ActiveL1), (7, Section::ActiveL2)].into_iter());
        assert_eq!(guard.hit(0..=9).map(Section::name), Some("active L1 table"));
        guard.remove(3);
        assert_eq!(guard.hit(0..=9).map(Section::name), Some("active L2 table"));
        assert_eq!(guard.hit(8..=9), None);
    }

    #[test]
    fn templates_and_switches_are_those_of_qemu() {
        assert!(!OverlapCheck::CACHED.has(Section::InactiveL2) && OverlapCheck::ALL.has(Section::InactiveL2));
        assert!(OverlapCheck::CONSTANT.has(Section::BitmapDirectory) && !OverlapCheck::CONSTANT.has(Section::ActiveL2));
        assert!(OverlapCheck::NONE.with(3, true).has(Section::RefcountBlock));
        assert_eq!(OverlapCheck::by_name("some"), None);
    }
}
