//! Coalesced I/O: the kernel puts writes to zones of our choice into a ring instead of leaving the guest
//! (api.rst 4.116 `KVM_(UN)REGISTER_COALESCED_MMIO`, and 8 for `KVM_CAP_COALESCED_PIO`).
//!
//! The ring is one page of the virtual machine, mapped behind every vCPU's run structure. The kernel alone moves `last`
//! (under a lock of its own, after the entry is written) and we alone move `first`. A write that finds the ring full
//! leaves the guest as any other, and takes the board lock, behind which the ring is emptied.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::{Cap, IoEventAddress, VcpuFd, VmFd};

use crate::accel::AccelError;
use crate::bus::{PostedRange, PostedWrite, PostedWrites, Width};
use crate::mem::PAGE_SIZE;

use super::{host_error, io_error};

/// The length of the mapping.
const PAGE_LEN: usize = PAGE_SIZE as usize;

/// How many entries the page holds; one of them stays free.
const ENTRIES: u32 = ((PAGE_LEN - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// Those of these ranges whose writes the kernel can collect.
pub(super) fn collectable(vm: &VmFd, ranges: &[PostedRange]) -> Vec<PostedRange> {
    let (memory, ports) = (vm.check_extension(Cap::CoalescedMmio), vm.check_extension(Cap::CoalescedPio));
    let can = |range: &&PostedRange| match range {
        PostedRange::Memory { .. } => memory,
        PostedRange::Ports { .. } => memory && ports,
    };
    ranges.iter().filter(can).copied().collect()
}

/// Asks the kernel to collect the writes to a range.
fn register(vm: &VmFd, range: PostedRange) -> Result<(), AccelError> {
    let (zone, len) = match range {
        PostedRange::Memory { gpa, len } => (IoEventAddress::Mmio(gpa), len),
        PostedRange::Ports { base, len } => (IoEventAddress::Pio(base.into()), len.into()),
    };
    vm.register_coalesced_mmio(zone, len).map_err(|e| host_error("KVM_REGISTER_COALESCED_MMIO", e))
}

/// Whether a write that left the guest lies in a range.
fn holds(range: PostedRange, written: Written) -> bool {
    match (range, written) {
        (PostedRange::Memory { gpa, len }, Written::Memory(at)) => at >= gpa && at - gpa < u64::from(len),
        (PostedRange::Ports { base, len }, Written::Port(at)) => at >= base && at - base < len,
        _ => false,
    }
}

/// Where a write went that left the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// A guest physical address.
    Memory(u64),
    /// A port.
    Port(u16),
}

/// The mapped page.
#[derive(Debug)]
struct Page(NonNull<u8>);

// SAFETY: the page belongs to the mapping, not to a thread; `Ring` orders the accesses.
unsafe impl Send for Page {}
// SAFETY: as above; the two indices are accessed atomically, entries only by the holder of `Ring::taking`.
unsafe impl Sync for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page came from `mmap` with this length and has one owner.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE_LEN) };
    }
}

impl Page {
    fn map(vcpu: &impl AsRawFd, page_offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (fd, offset) = (vcpu.as_raw_fd(), page_offset * PAGE_LEN as i64);
        // SAFETY: a new mapping at a place that the kernel chooses; it keeps the page alive by itself.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_LEN, protection, libc::MAP_SHARED, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Self).ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    fn index(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `offset` is that of one of the two aligned 32-bit indices in the page, which lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().add(offset).cast()) }
    }

    fn first(&self) -> &AtomicU32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, first))
    }

    /// The index behind the newest entry. Entries before it are complete: the kernel orders its writes.
    fn last(&self) -> u32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, last)).load(Ordering::Acquire) % ENTRIES
    }

    fn entry(&self, index: u32) -> kvm_coalesced_mmio {
        let at = size_of::<kvm_coalesced_mmio_ring>() + (index % ENTRIES) as usize * size_of::<kvm_coalesced_mmio>();
        // SAFETY: the index is below `ENTRIES`, so the entry lies in the page.
        let entry = unsafe { self.0.as_ptr().add(at) };
        // SAFETY: any bytes are a valid entry, which is aligned as the page is; between `first` and `last` the kernel
        // writes none.
        unsafe { entry.cast::<kvm_coalesced_mmio>().read_volatile() }
    }
}

/// The ring of a virtual machine; empty until the first vCPU brings its page.
#[derive(Debug, Default)]
pub(super) struct Ring {
    page: OnceLock<Page>,
    /// Ranges to be collected from the first write to one of them on: a zone costs 10 ms and more (the kernel waits for
    /// every reader of its table), which a machine that never writes there need not pay at its start.
    wanted: Mutex<Vec<PostedRange>>,
    /// Whether there are any.
    any_wanted: AtomicBool,
    /// Held while an entry is taken.
    taking: Mutex<()>,
}

impl Ring {
    /// Ranges to be collected once the guest writes there.
    pub(super) fn want(&self, ranges: Vec<PostedRange>) {
        self.any_wanted.store(!ranges.is_empty(), Ordering::Release);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = ranges;
    }

    /// A write left the guest. If it is the first to one of the ranges, the kernel collects all of them from now on.
    pub(super) fn note_exit(&self, vm: &VmFd, written: Written) -> Result<(), AccelError> {
        if !self.any_wanted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted.iter().any(|range| holds(*range, written)) {
            return Ok(());
        }
        self.any_wanted.store(false, Ordering::Release);
        wanted.drain(..).try_for_each(|range| register(vm, range))
    }

    /// Maps the ring, which every vCPU of the machine shows.
    pub(super) fn attach(&self, vm: &VmFd, vcpu: &VcpuFd) -> Result<(), AccelError> {
        // The capability is the page's number in the vCPU's mapping; 0 where there is none.
        let page_offset = vm.check_extension_int(Cap::CoalescedMmio);
        if self.page.get().is_some() || page_offset <= 0 {
            return Ok(());
        }
        let page = Page::map(vcpu, page_offset.into()).map_err(|e| io_error("mmap", e))?;
        // Another vCPU's thread may have been faster; it is the same page.
        let _ = self.page.set(page);
        Ok(())
    }
}

impl PostedWrites for Ring {
    fn waiting(&self) -> usize {
        let Some(page) = self.page.get() else { return 0 };
        let first = page.first().load(Ordering::Relaxed) % ENTRIES;
        ((page.last() + ENTRIES - first) % ENTRIES) as usize
    }

    fn take(&self) -> Option<PostedWrite> {
        let page = self.page.get()?;
        let taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let first = page.first().load(Ordering::Relaxed) % ENTRIES;
        if first == page.last() {
            return None;
        }
        let entry = page.entry(first);
        // The kernel may use the entry again from here on.
        page.first().store((first + 1) % ENTRIES, Ordering::Release);
        drop(taking);
        Some(decode(&entry))
    }
}

fn decode(entry: &kvm_coalesced_mmio) -> PostedWrite {
    // SAFETY: both members of the union are one 32-bit number.
    let is_port = unsafe { entry.__bindgen_anon_1.pio } != 0;
    if is_port {
        let [a, b, c, d, ..] = entry.data;
        let width = Width::at_most(entry.len.min(4).into());
        let value = u32::from_le_bytes([a, b, c, d]) & u32::try_from(width.ones()).unwrap_or(u32::MAX);
        return PostedWrite::Port { port: entry.phys_addr as u16, width, value };
    }
    PostedWrite::Memory { gpa: entry.phys_addr, data: entry.data, len: (entry.len as usize).min(entry.data.len()) }
}
