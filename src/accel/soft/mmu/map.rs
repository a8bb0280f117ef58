//! Physical memory as all processors share it, and how one of them reaches what is not RAM.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::barrier::ProcessBarrier;
use crate::mem::{CodeState, PAGE_SIZE, RamBlock, RamRange};

use super::super::signals::Signals;
use super::exclusive::Crowd;

/// The guest's physical memory, shared by all processors.
#[derive(Debug)]
pub struct PhysicalMap {
    present: Mutex<Arc<Ranges>>,
    /// Counts the changes.
    generation: AtomicU64,
    /// Processors that use it.
    processors: AtomicU32,
    barrier: ProcessBarrier,
    crowd: Crowd,
}

impl PhysicalMap {
    /// A map of these ranges.
    ///
    /// # Errors
    /// The host has no means to make all processors pass a barrier.
    pub fn new(ranges: &[RamRange]) -> io::Result<Self> {
        Ok(Self {
            present: Mutex::new(Arc::new(Ranges::new(ranges))),
            generation: AtomicU64::new(1),
            processors: AtomicU32::new(0),
            barrier: ProcessBarrier::new()?,
            crowd: Crowd::default(),
        })
    }

    /// Replaces the map; `ranges` are sorted and disjoint. Each processor goes on with the old one until
    /// `Cpu::follow_memory_map`.
    pub fn set_ranges(&self, ranges: &[RamRange]) {
        let new = Arc::new(Ranges::new(ranges));
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        *present = new;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The map of this moment and its number.
    pub(super) fn present(&self) -> (Arc<Ranges>, u64) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&present), self.generation.load(Ordering::Acquire))
    }

    /// The number of the map of this moment.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    pub(super) fn attach(&self, signals: &Arc<Signals>) {
        self.crowd.join(signals);
        self.processors.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn detach(&self, signals: &Arc<Signals>) {
        self.crowd.part(signals);
        self.processors.fetch_sub(1, Ordering::SeqCst);
    }

    /// Makes the stores of all processors visible, if there is more than one.
    pub(super) fn barrier(&self) {
        if self.processors.load(Ordering::SeqCst) > 1 {
            self.barrier.pass();
        }
    }
}

/// One range: RAM or ROM.
#[derive(Debug)]
pub(super) struct Range {
    pub gpa: u64,
    pub len: u64,
    /// Host address of the first byte.
    pub host: u64,
    pub block: Arc<RamBlock>,
    /// Offset of the first byte in the block.
    pub offset: u64,
    pub read_only: bool,
}

/// RAM and ROM, sorted and disjoint; whole pages within their blocks only.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ranges: Vec<Range>,
}

/// Where a page of RAM or ROM is.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostPage {
    /// Host address of its first byte.
    pub host: u64,
    pub code: &'static CodeState,
    /// Writes go to the bus.
    pub read_only: bool,
    /// Writes are logged.
    pub logged: bool,
}

impl Ranges {
    fn new(ranges: &[RamRange]) -> Self {
        let aligned = |range: &&RamRange| (range.gpa | range.len | range.offset).is_multiple_of(PAGE_SIZE);
        let inside = |range: &&RamRange| {
            range.len != 0
                && range.gpa.checked_add(range.len).is_some()
                && range.offset.checked_add(range.len).is_some_and(|end| end <= range.block.len())
        };
        let ranges = ranges.iter().filter(aligned).filter(inside).map(|range| Range {
            gpa: range.gpa,
            len: range.len,
            host: range.block.host_address() + range.offset,
            block: Arc::clone(&range.block),
            offset: range.offset,
            read_only: range.read_only,
        });
        Self { ranges: ranges.collect() }
    }

    /// The range that holds an address.
    pub fn find(&self, gpa: u64) -> Option<&Range> {
        let index = self.ranges.partition_point(|range| range.gpa <= gpa);
        let range = self.ranges.get(index.checked_sub(1)?)?;
        (gpa - range.gpa < range.len).then_some(range)
    }

    /// The page that holds an address.
    pub fn page(&self, gpa: u64) -> Option<HostPage> {
        let range = self.find(gpa)?;
        let inside = (gpa - range.gpa) & !(PAGE_SIZE - 1);
        let number = usize::try_from((range.offset + inside) / PAGE_SIZE).ok()?;
        Some(HostPage {
            host: range.host + inside,
            code: range.block.code().get(number)?,
            read_only: range.read_only,
            logged: range.block.logs_dirty(),
        })
    }

    /// Marks `len` bytes at `gpa`, which lie in one page, as written for whoever draws or copies the block.
    pub fn log(&self, gpa: u64, len: u64) {
        if let Some(range) = self.find(gpa) {
            range.block.dirty().mark(range.offset + (gpa - range.gpa), len);
        }
    }
}
