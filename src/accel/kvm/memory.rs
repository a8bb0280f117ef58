//! Memory slots: what KVM calls a range of guest physical memory with host pages behind it.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use crate::accel::AccelError;
use crate::mem::{PAGE_SIZE, RamRange};

use super::host_error;

/// Where ranges are always cut. Firmware and guests switch the memory between these addresses (SMRAM, PAM) while
/// other processors run from the rest, which must not vanish even for a moment.
const CUTS: [u64; 3] = [0xa_0000, 0xc_0000, 0x10_0000];

/// A slot that the kernel has.
#[derive(Debug)]
struct Slot {
    id: u32,
    range: RamRange,
}

/// The kernel's slots, as we last set them.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Sorted by guest physical address.
    used: Vec<Slot>,
    /// Numbers that are free again.
    free: Vec<u32>,
    next: u32,
}

/// What has to happen to get from one list of ranges to the next.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Slot numbers to delete, first.
    delete: Vec<u32>,
    /// Ranges to add, then.
    add: Vec<RamRange>,
}

impl Plan {
    /// Whether memory goes away, for a moment at least.
    pub(super) fn removes(&self) -> bool {
        !self.delete.is_empty()
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }
}

fn cut(range: &RamRange) -> impl Iterator<Item = RamRange> + '_ {
    let end = range.gpa + range.len;
    let inner = CUTS.into_iter().filter(move |cut| range.gpa < *cut && *cut < end);
    let mut start = range.gpa;
    inner.chain([end]).map(move |stop| {
        let piece = RamRange {
            gpa: start,
            len: stop - start,
            block: Arc::clone(&range.block),
            offset: range.offset + (start - range.gpa),
            read_only: range.read_only,
        };
        start = stop;
        piece
    })
}

impl Slots {
    /// Compares with the kernel's state. `ranges` are sorted and disjoint.
    pub(super) fn plan(&self, ranges: &[RamRange]) -> Plan {
        let wanted: Vec<RamRange> = ranges.iter().flat_map(cut).collect();
        let find = |list: &[RamRange], range: &RamRange| {
            list.binary_search_by_key(&range.gpa, |r| r.gpa).is_ok_and(|i| list[i] == *range)
        };
        let present = |range: &RamRange| {
            self.used.binary_search_by_key(&range.gpa, |s| s.range.gpa).is_ok_and(|i| self.used[i].range == *range)
        };
        Plan {
            delete: self.used.iter().filter(|slot| !find(&wanted, &slot.range)).map(|slot| slot.id).collect(),
            add: wanted.iter().filter(|range| !present(range)).cloned().collect(),
        }
    }

    /// Carries out a plan that was made on this very state.
    pub(super) fn apply(&mut self, vm: &VmFd, plan: Plan) -> Result<(), AccelError> {
        for id in plan.delete {
            let Some(at) = self.used.iter().position(|slot| slot.id == id) else { continue };
            harvest(vm, &self.used[at]);
            let slot = self.used.remove(at);
            self.free.push(id);
            let region = kvm_userspace_memory_region { memory_size: 0, ..region(&slot) };
            set_region(vm, region)?;
        }
        for range in plan.add {
            let id = self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            let slot = Slot { id, range };
            if let Err(error) = set_region(vm, region(&slot)) {
                self.free.push(id);
                return Err(error);
            }
            let at = self.used.partition_point(|other| other.range.gpa < slot.range.gpa);
            self.used.insert(at, slot);
        }
        Ok(())
    }

    /// Moves the kernel's dirty bits into the blocks.
    pub(super) fn sync_dirty(&self, vm: &VmFd) {
        for slot in &self.used {
            harvest(vm, slot);
        }
    }

    /// Copies guest memory out; what is not RAM is left out. Returns how many bytes there were.
    pub(super) fn read(&self, gpa: u64, buf: &mut [u8]) -> usize {
        let Some((range, inside, left)) = self.find(gpa) else { return 0 };
        let len = buf.len().min(left);
        range.block.read(range.offset + inside, &mut buf[..len]);
        len
    }

    /// Changes guest memory, write-protected or not; what is not RAM is left out. Returns how many bytes there were.
    pub(super) fn write(&self, gpa: u64, buf: &[u8]) -> usize {
        let Some((range, inside, left)) = self.find(gpa) else { return 0 };
        let len = buf.len().min(left);
        range.block.write(range.offset + inside, &buf[..len]);
        len
    }

    /// The range that an address is in, how far, and how many bytes there are from there.
    fn find(&self, gpa: u64) -> Option<(&RamRange, u64, usize)> {
        let at = self.used.partition_point(|slot| slot.range.gpa <= gpa);
        let slot = at.checked_sub(1).and_then(|i| self.used.get(i))?;
        let inside = gpa - slot.range.gpa;
        let left = slot.range.len.saturating_sub(inside);
        (left > 0).then_some((&slot.range, inside, usize::try_from(left).unwrap_or(usize::MAX)))
    }
}

fn region(slot: &Slot) -> kvm_userspace_memory_region {
    let range = &slot.range;
    let mut flags = 0;
    if range.read_only {
        flags |= KVM_MEM_READONLY;
    } else if range.block.logs_dirty() {
        flags |= KVM_MEM_LOG_DIRTY_PAGES;
    }
    kvm_userspace_memory_region {
        slot: slot.id,
        flags,
        guest_phys_addr: range.gpa,
        memory_size: range.len,
        userspace_addr: range.block.host_address() + range.offset,
    }
}

fn set_region(vm: &VmFd, region: kvm_userspace_memory_region) -> Result<(), AccelError> {
    // SAFETY: the address range is a part of a RamBlock's mapping, which the slot's `Arc` in `Slots::used` keeps until
    // the kernel has let go of it (the vCPUs that could still reach it hold the same VM, which owns the slots).
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| host_error("KVM_SET_USER_MEMORY_REGION", e))
}

fn harvest(vm: &VmFd, slot: &Slot) {
    let range = &slot.range;
    if range.read_only || !range.block.logs_dirty() {
        return;
    }
    let first_page = range.offset / PAGE_SIZE;
    let log = usize::try_from(range.len).ok().and_then(|len| vm.get_dirty_log(slot.id, len).ok());
    match log {
        Some(bitmap) => range.block.dirty().mark_bitmap(first_page, &bitmap),
        // Without a log everything may have been written.
        None => range.block.dirty().mark(range.offset, range.len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::RamBlock;

    fn backing(slots: &Slots, gpa: u64) -> Option<(&RamBlock, u64)> {
        let slot = slots.used.iter().find(|slot| (slot.range.gpa..slot.range.gpa + slot.range.len).contains(&gpa))?;
        Some((&slot.range.block, slot.range.offset + (gpa - slot.range.gpa)))
    }

    fn range(gpa: u64, len: u64, block: &Arc<RamBlock>, offset: u64) -> RamRange {
        RamRange { gpa, len, block: Arc::clone(block), offset, read_only: false }
    }

    /// As `apply`, without a kernel.
    fn pretend(slots: &mut Slots, plan: Plan) {
        for id in plan.delete {
            slots.used.retain(|slot| slot.id != id);
            slots.free.push(id);
        }
        for range in plan.add {
            let id = slots.free.pop().unwrap_or_else(|| {
                slots.next += 1;
                slots.next - 1
            });
            slots.used.push(Slot { id, range });
        }
        slots.used.sort_by_key(|slot| slot.range.gpa);
    }

    fn pretend_ranges(slots: &mut Slots, ranges: &[RamRange]) {
        let plan = slots.plan(ranges);
        pretend(slots, plan);
    }

    #[test]
    fn the_same_ranges_are_no_work() {
        let ram = RamBlock::anonymous("ram", 0x20_0000).unwrap();
        let mut slots = Slots::default();
        let ranges = [range(0, 0x20_0000, &ram, 0)];
        pretend_ranges(&mut slots, &ranges);
        assert!(slots.plan(&ranges).is_empty());
        assert_eq!(slots.used.len(), 4);
    }

    #[test]
    fn a_hole_in_legacy_memory_leaves_the_rest_alone() {
        let ram = RamBlock::anonymous("ram", 0x20_0000).unwrap();
        let mut slots = Slots::default();
        pretend_ranges(&mut slots, &[range(0, 0x20_0000, &ram, 0)]);
        let holed = [range(0, 0xa_0000, &ram, 0), range(0xc_0000, 0x14_0000, &ram, 0xc_0000)];
        let plan = slots.plan(&holed);
        assert_eq!((plan.delete.len(), plan.add.len()), (1, 0));
        pretend(&mut slots, plan);
        assert!(backing(&slots, 0xa_0000).is_none());
        assert_eq!(backing(&slots, 0x10_0001).unwrap().1, 0x10_0001);
    }

    #[test]
    fn numbers_of_deleted_slots_are_used_again() {
        let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
        let mut slots = Slots::default();
        pretend_ranges(&mut slots, &[range(0x1000_0000, 0x1000, &ram, 0)]);
        pretend_ranges(&mut slots, &[range(0x2000_0000, 0x1000, &ram, 0)]);
        assert_eq!((slots.next, slots.used.len(), slots.used[0].id), (1, 1, 0));
    }

    #[test]
    fn a_change_of_write_protection_replaces_the_slot() {
        let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
        let mut slots = Slots::default();
        let mut one = range(0xc_0000, 0x1000, &ram, 0);
        pretend_ranges(&mut slots, std::slice::from_ref(&one));
        one.read_only = true;
        let plan = slots.plan(std::slice::from_ref(&one));
        assert_eq!((plan.delete.as_slice(), plan.add.len()), ([0].as_slice(), 1));
    }

    #[test]
    fn reads_stop_at_the_end_of_a_slot() {
        let ram = RamBlock::anonymous("ram", 0x1000).unwrap();
        ram.write(0xfff, &[7]);
        let mut slots = Slots::default();
        pretend_ranges(&mut slots, &[range(0x1000, 0x1000, &ram, 0)]);
        let mut buf = [0; 4];
        assert_eq!((slots.read(0x1fff, &mut buf), buf[0]), (1, 7));
        assert_eq!(slots.read(0x3000, &mut buf), 0);
        assert_eq!(slots.read(0, &mut buf), 0);
    }
}
