//! Watched memory: data breakpoints of the debug registers (Intel SDM volume 3, 18.2) and watchpoints of a debugger.
//!
//! Pages with watched bytes take the slow path for every access, which compares; other pages are as fast as ever.

use crate::accel::{WatchKind, Watchpoint};

use super::super::cpu::Cpu;
use super::{Access, events};

/// Watched bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watch {
    first: u64,
    last: u64,
    reads: bool,
    writes: bool,
    /// The debug register; `None`: the debugger's.
    register: Option<u8>,
}

impl Watch {
    fn overlaps(&self, first: u64, last: u64) -> bool {
        first <= self.last && self.first <= last
    }
}

/// All of a processor's watches, and what they saw.
#[derive(Default)]
pub struct Watches {
    list: Vec<Watch>,
    /// The breakpoints that accesses matched since somebody looked: bits 3-0 of DR6. `system` makes a #DB of them after
    /// the instruction ([`events::WATCH_HIT`]) and clears them.
    pub registers: u8,
    /// The watchpoint of the debugger that an access matched first since somebody looked.
    pub debugger: Option<Watchpoint>,
}

impl Watches {
    /// Whether any byte of a page is watched.
    pub(super) fn covers_page(&self, page: u64) -> bool {
        self.list.iter().any(|watch| watch.overlaps(page, page | 0xfff))
    }
}

/// The data breakpoints that DR7 turns on. Execution and I/O breakpoints are `system`'s.
fn data_breakpoints(dr: &[u64; 8]) -> impl Iterator<Item = Watch> {
    (0..4u8).filter_map(|register| {
        let enabled = dr[7] >> (2 * register) & 3 != 0;
        let (kind, len) = (dr[7] >> (16 + 4 * register) & 3, dr[7] >> (18 + 4 * register) & 3);
        // Bits 1-0 of the address do not count for 4 bytes, and so on (18.2.5).
        let len = [1, 2, 8, 4][len as usize];
        let first = dr[usize::from(register)] & !(len - 1);
        let watch = Watch { first, last: first | (len - 1), reads: kind == 3, writes: true, register: Some(register) };
        (enabled && matches!(kind, 1 | 3)).then_some(watch)
    })
}

impl Cpu {
    /// After a change of DR0-DR3 or DR7.
    pub fn debug_registers_changed(&mut self) {
        let debugger = self.mmu.watches.list.iter().filter(|watch| watch.register.is_none()).copied();
        self.replace_watches(data_breakpoints(&self.dr).chain(debugger).collect());
    }

    /// Replaces the watchpoints of the debugger.
    pub fn set_watchpoints(&mut self, watchpoints: &[Watchpoint]) {
        let debugger = watchpoints.iter().filter(|watchpoint| watchpoint.len != 0).map(|watchpoint| Watch {
            first: watchpoint.gva,
            last: watchpoint.gva.saturating_add(watchpoint.len - 1),
            reads: watchpoint.kind != WatchKind::Write,
            writes: watchpoint.kind != WatchKind::Read,
            register: None,
        });
        self.replace_watches(data_breakpoints(&self.dr).chain(debugger).collect());
        self.mmu.watches.debugger = None;
    }

    fn replace_watches(&mut self, list: Vec<Watch>) {
        if list != self.mmu.watches.list {
            self.mmu.watches.list = list;
            self.mmu.flush_all();
        }
    }

    /// Notes an access to a page with watched bytes. A write is also a read if an instruction changes memory.
    #[cold]
    pub(super) fn note_watched(&mut self, linear: u64, len: u64, access: Access, reads_too: bool) {
        let last = linear.saturating_add(len - 1);
        let (reads, writes) = (access == Access::Read || reads_too, access == Access::Write);
        let watches = &mut self.mmu.watches;
        for watch in &watches.list {
            if !watch.overlaps(linear, last) || !(watch.reads && reads || watch.writes && writes) {
                continue;
            }
            self.mmu.events |= events::WATCH_HIT;
            match watch.register {
                Some(register) => watches.registers |= 1 << register,
                None if watches.debugger.is_none() => watches.debugger = Some(watch.watchpoint()),
                None => {}
            }
        }
    }
}

impl Watch {
    fn watchpoint(&self) -> Watchpoint {
        let kind = match (self.reads, self.writes) {
            (true, true) => WatchKind::Access,
            (true, false) => WatchKind::Read,
            (false, _) => WatchKind::Write,
        };
        Watchpoint { gva: self.first, len: (self.last - self.first).saturating_add(1), kind }
    }
}
