//! The 64 KiB of I/O ports: which device answers where.

use super::device::{Decode, DeviceId, Region};

/// What answers at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PortTarget {
    Device {
        device: DeviceId,
        region: Region,
        decode: Decode,
    },
    /// PCI configuration mechanism #1: CF8h-CFFh.
    PciConfig,
}

/// Names a range of a [`PortMap`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct PortId(usize);

#[derive(Clone, Debug)]
pub(super) struct PortRange {
    pub name: String,
    pub base: u16,
    pub len: u32,
    /// Offset in the region of the first port.
    pub offset: u64,
    pub enabled: bool,
    pub target: PortTarget,
}

impl PortRange {
    fn contains(&self, port: u16) -> bool {
        self.enabled && port >= self.base && u32::from(port - self.base) < self.len
    }
}

/// Port ranges in the order they were added; of overlapping ones the later wins.
#[derive(Default, Debug)]
pub(super) struct PortMap {
    ranges: Vec<PortRange>,
    /// For each 8-port group, the index + 1 of the only range that any port of it can hit, 0 for none, and
    /// [`MIXED`] where a search is needed. Rebuilt after each change.
    groups: Vec<u16>,
}

const MIXED: u16 = u16::MAX;
const GROUP: usize = 8;

impl PortMap {
    pub fn add(&mut self, range: PortRange) -> PortId {
        self.ranges.push(range);
        self.groups.clear();
        PortId(self.ranges.len() - 1)
    }

    pub fn set_enabled(&mut self, id: PortId, enabled: bool) {
        if let Some(range) = self.ranges.get_mut(id.0)
            && range.enabled != enabled
        {
            range.enabled = enabled;
            self.groups.clear();
        }
    }

    pub fn relocate(&mut self, id: PortId, base: u16) {
        if let Some(range) = self.ranges.get_mut(id.0)
            && range.base != base
        {
            range.base = base;
            self.groups.clear();
        }
    }

    pub fn ranges(&self) -> &[PortRange] {
        &self.ranges
    }

    fn build_groups(&mut self) {
        self.groups = vec![0; 0x1_0000 / GROUP];
        for (index, range) in self.ranges.iter().enumerate().filter(|(_, range)| range.enabled && range.len > 0) {
            let first = usize::from(range.base);
            let last = (first + range.len as usize - 1).min(0xffff);
            for group in first / GROUP..=last / GROUP {
                let whole = first <= group * GROUP && group * GROUP + GROUP - 1 <= last;
                let entry = &mut self.groups[group];
                *entry = match u16::try_from(index + 1) {
                    Ok(number) if whole && *entry == 0 => number,
                    _ => MIXED,
                };
            }
        }
    }

    /// The range that answers at `port`.
    pub fn find(&mut self, port: u16) -> Option<&PortRange> {
        if self.groups.is_empty() {
            self.build_groups();
        }
        match self.groups[usize::from(port) / GROUP] {
            0 => None,
            MIXED => self.ranges.iter().rev().find(|range| range.contains(port)),
            number => self.ranges.get(usize::from(number) - 1),
        }
    }
}
