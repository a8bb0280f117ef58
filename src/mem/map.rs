//! The map from addresses to what answers there: overlapping mappings with priorities, flattened.
//!
//! The machine adds mappings (RAM, ROM, device registers); where they overlap, the higher priority wins, and of equal
//! priorities the later one. [`MemoryMap::flatten`] gives the sorted, non-overlapping ranges that accelerators, DMA
//! and the dispatcher use.

use std::sync::Arc;

use super::ram::RamBlock;

/// What answers in a range. `D` names a device region; the bus chooses its type.
#[derive(Clone, Debug)]
pub enum Backing<D> {
    /// Host memory, readable and writable.
    Ram {
        /// The block.
        block: Arc<RamBlock>,
        /// Byte offset of the range's start in the block.
        offset: u64,
    },
    /// Host memory that the guest can only read.
    Rom {
        /// The block that is read.
        block: Arc<RamBlock>,
        /// Byte offset of the range's start in the block.
        offset: u64,
        /// Where writes go.
        writes: RomWrites<D>,
    },
    /// A device's registers.
    Device {
        /// Which.
        target: D,
        /// Offset in the device's region of the range's start.
        offset: u64,
    },
}

/// Where writes to a ROM go.
#[derive(Clone, Debug)]
pub enum RomWrites<D> {
    /// Nowhere.
    Lost,
    /// To RAM that cannot be read here (PAM's "write to DRAM, read from PCI").
    Ram {
        /// The block.
        block: Arc<RamBlock>,
        /// Byte offset of the range's start in the block.
        offset: u64,
    },
    /// To a device's registers: flash memory takes commands this way.
    Device {
        /// Which.
        target: D,
        /// Offset in the device's region of the range's start.
        offset: u64,
    },
}

impl<D: Clone> RomWrites<D> {
    fn advanced(&self, by: u64) -> Self {
        match self {
            Self::Lost => Self::Lost,
            Self::Ram { block, offset } => Self::Ram { block: Arc::clone(block), offset: offset + by },
            Self::Device { target, offset } => Self::Device { target: target.clone(), offset: offset + by },
        }
    }
}

impl<D: PartialEq> PartialEq for RomWrites<D> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Lost, Self::Lost) => true,
            (Self::Ram { block: a, offset: x }, Self::Ram { block: b, offset: y }) => Arc::ptr_eq(a, b) && x == y,
            (Self::Device { target: a, offset: x }, Self::Device { target: b, offset: y }) => a == b && x == y,
            _ => false,
        }
    }
}

impl<D: Clone> Backing<D> {
    /// The same backing, starting `by` bytes later.
    fn advanced(&self, by: u64) -> Self {
        match self {
            Self::Ram { block, offset } => Self::Ram { block: Arc::clone(block), offset: offset + by },
            Self::Rom { block, offset, writes } => {
                Self::Rom { block: Arc::clone(block), offset: offset + by, writes: writes.advanced(by) }
            }
            Self::Device { target, offset } => Self::Device { target: target.clone(), offset: offset + by },
        }
    }
}

impl<D: Clone + PartialEq> Backing<D> {
    /// Whether `next` goes on where `self` ends after `len` bytes.
    fn continues(&self, len: u64, next: &Self) -> bool {
        match (self.advanced(len), next) {
            (Self::Ram { block: a, offset: x }, Self::Ram { block: b, offset: y }) => Arc::ptr_eq(&a, b) && x == *y,
            (Self::Rom { block: a, offset: x, writes: v }, Self::Rom { block: b, offset: y, writes: w }) => {
                Arc::ptr_eq(&a, b) && x == *y && v == *w
            }
            (Self::Device { target: a, offset: x }, Self::Device { target: b, offset: y }) => a == *b && x == *y,
            _ => false,
        }
    }
}

/// Names a mapping of a [`MemoryMap`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MappingId(usize);

#[derive(Clone, Debug)]
struct Mapping<D> {
    name: String,
    start: u64,
    /// As it was added; [`Mapping::end`] cuts what lies past the address space, wherever the mapping is moved.
    len: u64,
    priority: i32,
    enabled: bool,
    backing: Backing<D>,
}

impl<D> Mapping<D> {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// One range of the flattened map.
#[derive(Clone, Debug)]
pub struct FlatRange<D> {
    /// First address.
    pub start: u64,
    /// Length in bytes, not 0; `start + len` does not overflow.
    pub len: u64,
    /// What answers.
    pub backing: Backing<D>,
    /// The mapping it came from.
    pub id: MappingId,
}

impl<D> FlatRange<D> {
    /// The last address of the range.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.start + (self.len - 1)
    }
}

/// Overlapping mappings of one address space.
#[derive(Clone, Debug)]
pub struct MemoryMap<D> {
    mappings: Vec<Option<Mapping<D>>>,
}

impl<D> Default for MemoryMap<D> {
    fn default() -> Self {
        Self { mappings: Vec::new() }
    }
}

impl<D: Clone + PartialEq> MemoryMap<D> {
    /// Adds `len` bytes at `start`. What runs past the end of the address space is not mapped.
    pub fn add(&mut self, name: &str, start: u64, len: u64, priority: i32, backing: Backing<D>) -> MappingId {
        let mapping = Mapping { name: name.to_owned(), start, len, priority, enabled: true, backing };
        self.mappings.push(Some(mapping));
        MappingId(self.mappings.len() - 1)
    }

    /// Takes a mapping away for good.
    pub fn remove(&mut self, id: MappingId) {
        if let Some(slot) = self.mappings.get_mut(id.0) {
            *slot = None;
        }
    }

    fn get_mut(&mut self, id: MappingId) -> Option<&mut Mapping<D>> {
        self.mappings.get_mut(id.0)?.as_mut()
    }

    /// Shows or hides a mapping. Returns whether that changed anything.
    pub fn set_enabled(&mut self, id: MappingId, enabled: bool) -> bool {
        let Some(mapping) = self.get_mut(id) else { return false };
        std::mem::replace(&mut mapping.enabled, enabled) != enabled
    }

    /// Moves a mapping. Returns whether that changed anything.
    pub fn relocate(&mut self, id: MappingId, start: u64) -> bool {
        let Some(mapping) = self.get_mut(id) else { return false };
        std::mem::replace(&mut mapping.start, start) != start
    }

    /// Replaces what answers.
    pub fn set_backing(&mut self, id: MappingId, backing: Backing<D>) {
        if let Some(mapping) = self.get_mut(id) {
            mapping.backing = backing;
        }
    }

    /// The name that the mapping was given.
    #[must_use]
    pub fn name(&self, id: MappingId) -> &str {
        self.mappings.get(id.0).and_then(Option::as_ref).map_or("", |mapping| &mapping.name)
    }

    /// Every enabled or disabled mapping as (name, start, length, priority, enabled), in the order they were added.
    pub fn mappings(&self) -> impl Iterator<Item = (&str, u64, u64, i32, bool, &Backing<D>)> {
        self.mappings.iter().flatten().map(|m| (m.name.as_str(), m.start, m.len, m.priority, m.enabled, &m.backing))
    }

    /// The sorted, non-overlapping ranges that the mappings come to.
    #[must_use]
    pub fn flatten(&self) -> Vec<FlatRange<D>> {
        let mut active: Vec<(MappingId, &Mapping<D>)> = self
            .mappings
            .iter()
            .enumerate()
            .filter_map(|(i, m)| m.as_ref().map(|m| (MappingId(i), m)))
            .filter(|(_, m)| m.enabled && m.start < m.end())
            .collect();
        // Strongest first; the sort is stable, so among equals the later one must come first.
        active.reverse();
        active.sort_by_key(|(_, m)| std::cmp::Reverse(m.priority));
        let mut edges: Vec<u64> = active.iter().flat_map(|(_, m)| [m.start, m.end()]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut flat: Vec<FlatRange<D>> = Vec::new();
        for pair in edges.windows(2) {
            let &[start, end] = pair else { continue };
            let winner = active.iter().find(|(_, m)| m.start <= start && end <= m.end());
            let Some(&(id, mapping)) = winner else { continue };
            let range =
                FlatRange { start, len: end - start, backing: mapping.backing.advanced(start - mapping.start), id };
            if let Some(last) = flat.last_mut()
                && last.start + last.len == start
                && last.backing.continues(last.len, &range.backing)
            {
                last.len += range.len;
                continue;
            }
            flat.push(range);
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(target: u32) -> Backing<u32> {
        Backing::Device { target, offset: 0 }
    }

    fn shape(map: &MemoryMap<u32>) -> Vec<(u64, u64, u32, u64)> {
        map.flatten()
            .into_iter()
            .map(|range| match range.backing {
                Backing::Device { target, offset } => (range.start, range.len, target, offset),
                _ => unreachable!("the test maps devices only"),
            })
            .collect()
    }

    #[test]
    fn a_higher_priority_cuts_a_hole() {
        let mut map = MemoryMap::default();
        map.add("ram", 0, 100, 0, device(1));
        let hole = map.add("vga", 40, 20, 1, device(2));
        assert_eq!(shape(&map), [(0, 40, 1, 0), (40, 20, 2, 0), (60, 40, 1, 60)]);
        assert!(map.set_enabled(hole, false));
        assert_eq!(shape(&map), [(0, 100, 1, 0)]);
    }

    #[test]
    fn of_equal_priorities_the_later_wins() {
        let mut map = MemoryMap::default();
        map.add("a", 0, 10, 0, device(1));
        map.add("b", 5, 10, 0, device(2));
        assert_eq!(shape(&map), [(0, 5, 1, 0), (5, 10, 2, 0)]);
    }

    #[test]
    fn a_mapping_at_the_end_of_the_address_space_is_cut() {
        let mut map = MemoryMap::default();
        let id = map.add("bar", 0, 4096, 0, device(1));
        map.relocate(id, u64::MAX - 10);
        assert_eq!(shape(&map), [(u64::MAX - 10, 10, 1, 0)]);
        map.relocate(id, u64::MAX);
        assert_eq!(shape(&map), []);
        map.relocate(id, 8192);
        assert_eq!(shape(&map), [(8192, 4096, 1, 0)]);
    }

    #[test]
    fn an_endless_mapping_may_be_anywhere() {
        let mut map = MemoryMap::default();
        map.add("all", 5, u64::MAX, 0, device(1));
        map.add("nothing", 9, 0, 1, device(2));
        assert_eq!(shape(&map), [(5, u64::MAX - 5, 1, 0)]);
    }
}
