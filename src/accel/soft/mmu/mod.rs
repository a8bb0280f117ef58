//! Memory as a processor sees it: segment and linear addresses to physical ones to host memory or devices.
//!
//! - [`value`](Value): the widths of an access, and the machine instructions that touch guest memory.
//! - `map`: physical memory, shared by all processors.
//! - `walk`: page tables.
//! - `tlb`: the translations that were found.
//! - `control`: what follows from control registers and modes; flushes.
//! - `access`: reads, writes, read-modify-writes.
//! - `probe`: questions that touch no memory.
//! - `code`: instruction fetches, and how stores into code are noticed.
//! - `strings`: whole runs of a string instruction.
//! - `watch`: data breakpoints.
//! - `exclusive`: locked accesses that the host cannot do at once.
//! - `physical`: RAM by physical address, for the paravirtual interface.
//! - `device`: accesses to what is not RAM, and the bus for the time of a run.
//!
//! A hit in the TLB costs an access an index, a comparison and an addition; everything else (misses, devices, page
//! crossings, watched pages, logged pages, alignment checks) takes one slow path that looks at each page of the access
//! before it touches any.

mod access;
mod code;
mod control;
mod device;
mod exclusive;
mod map;
mod physical;
mod probe;
mod segment;
mod strings;
mod tlb;
mod value;
mod walk;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::bus::GuestBus;

pub use code::CodePage;
pub use control::InvPcid;
pub use map::PhysicalMap;
pub use value::Value;
pub use watch::Watches;

use map::Ranges;
use tlb::{NEVER, Rights, Tlb};
use walk::Paging;

/// Who accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// The program at its privilege level.
    Current,
    /// The processor itself: descriptor tables, task state, interrupt stacks.
    System,
}

/// How memory is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read,
    Write,
    Fetch,
}

/// On whose behalf.
#[derive(Clone, Copy, Debug)]
struct Who {
    /// The processor itself, not the program.
    system: bool,
    /// Through SS: addresses that are not canonical are stack faults.
    stack: bool,
}

impl Who {
    const PROGRAM: Self = Self { system: false, stack: false };

    #[inline(always)]
    fn segment(number: u8) -> Self {
        Self { system: false, stack: usize::from(number) == super::cpu::segment::SS }
    }

    #[inline(always)]
    fn privilege(privilege: Privilege) -> Self {
        Self { system: privilege == Privilege::System, stack: false }
    }
}

/// Things that happened to memory during an instruction, for whoever runs blocks of instructions: it ends the block.
pub mod events {
    /// The processor stored into decoded code: decodings of that page are out of date, maybe those of the running block.
    pub const CODE_WRITTEN: u8 = 1 << 0;
    /// The memory map changed.
    pub const MAP_CHANGED: u8 = 1 << 1;
    /// Watched memory was touched: see [`super::Watches`].
    pub const WATCH_HIT: u8 = 1 << 2;
}

/// One processor's view of memory.
pub struct Mmu {
    /// Number of the present context, or that of no context if each access needs the slow path.
    tag: u64,
    /// Number of the context in which the processor's own accesses happen.
    system_tag: u64,
    tlb: Tlb,
    /// What the program may do.
    rights: Rights,
    /// #AC is raised for misaligned accesses.
    alignment: bool,
    /// What happened since somebody looked; see [`events`]. Whoever acts on a bit clears it.
    pub events: u8,
    /// Watched memory.
    pub watches: Watches,
    /// Where accesses outside RAM go; set while the processor runs ([`super::Cpu::with_bus`]).
    pub bus: Option<Arc<dyn GuestBus>>,
    ranges: Arc<Ranges>,
    /// Number of the map that `ranges` is from.
    generation: u64,
    shared: Option<Arc<PhysicalMap>>,
    /// The processor executes instructions, and others wait for it.
    active: bool,
    paging: Paging,
    /// The bits of CR0, CR4 and EFER that `paging` was made from.
    control: [u64; 3],
    /// CR3 as the MMU last saw it.
    cr3: u64,
    /// The registers of PAE paging.
    pdptes: [u64; 4],
    pkru: u32,
    pkrs: u32,
}

impl Default for Mmu {
    fn default() -> Self {
        Self {
            tag: NEVER,
            system_tag: NEVER,
            tlb: Tlb::default(),
            rights: Rights::Supervisor,
            alignment: false,
            events: 0,
            watches: Watches::default(),
            bus: None,
            ranges: Arc::default(),
            generation: 0,
            shared: None,
            active: false,
            paging: Paging::default(),
            control: [u64::MAX; 3],
            cr3: 0,
            pdptes: [0; 4],
            pkru: 0,
            pkrs: 0,
        }
    }
}
