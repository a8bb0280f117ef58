//! The translation cache.
//!
//! One table holds the translations of several *contexts*: an address space (PCID) seen with certain rights. Each
//! context has a number that is part of an entry's tag, so neither a change of privilege nor a switch of address space
//! touches the table, and a whole context is forgotten by giving it a new number. Numbers are never used twice before
//! the table was cleared.
//!
//! An entry has a hot half, for accesses to memory that need nothing but an addition, and a cold half with what the
//! slow path, instruction fetches and device accesses need. Translations of global pages are also entered under the
//! contexts of a space of their own, where a miss in any address space looks before it walks the page tables.

use crate::mem::CodeState;

/// Entries of the table; a power of two.
pub(super) const ENTRIES: usize = 2048;
/// Address spaces that are kept apart.
const SPACES: usize = 8;
/// The space of global pages.
const GLOBAL: usize = SPACES;
/// The page's part of a linear address.
pub(super) const PAGE: u64 = !0xfff;

/// With which rights memory is accessed: the low bits of a context's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rights {
    /// Privilege level 3.
    User = 0,
    /// Levels 0-2; user pages are out of reach if CR4.SMAP is set.
    Supervisor = 1,
    /// Levels 0-2 with RFLAGS.AC, which opens user pages in spite of CR4.SMAP.
    SupervisorOpen = 2,
}

/// Numbers a space has: one for each of [`Rights`], and one to spare.
const NUMBERS: u64 = 4;
/// The context in which nothing is ever entered: each access takes the slow path.
pub(super) const NEVER: u64 = 0xfff;

/// What makes an access to memory quick.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Hot {
    /// Page and context, if reads need nothing else.
    pub read: u64,
    /// Likewise for writes.
    pub write: u64,
    /// Host address minus linear address.
    pub addend: u64,
    /// Looked at after each write.
    pub code: &'static CodeState,
}

/// What stands in entries without memory.
pub(super) static NO_CODE: CodeState = CodeState::always_marked();

impl Hot {
    const EMPTY: Self = Self { read: 0, write: 0, addend: 0, code: &NO_CODE };
}

/// A translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Page and context.
    pub tag: u64,
    /// Physical address of the page.
    pub gpa: u64,
    /// Host address of the page; 0: a device.
    pub host: u64,
    pub code: &'static CodeState,
    pub flags: u32,
}

impl Entry {
    /// Reads are allowed.
    pub const READ: u32 = 1 << 0;
    /// Writes are allowed, and the page is marked dirty in the page tables.
    pub const WRITE: u32 = 1 << 1;
    /// Instruction fetches are allowed.
    pub const EXECUTE: u32 = 1 << 2;
    /// The page is global.
    pub const GLOBAL: u32 = 1 << 3;
    /// A part of the page is watched for reads or writes.
    pub const WATCHED: u32 = 1 << 4;
    /// Writes go to the bus though there is host memory.
    pub const READ_ONLY: u32 = 1 << 5;
    /// Writes are logged.
    pub const LOGGED: u32 = 1 << 6;
    /// The local APIC's registers.
    pub const APIC: u32 = 1 << 7;

    const EMPTY: Self = Self { tag: 0, gpa: 0, host: 0, code: &NO_CODE, flags: 0 };

    fn hot(&self) -> Hot {
        if self.host == 0 || self.flags & Self::WATCHED != 0 {
            return Hot::EMPTY;
        }
        let writable = self.flags & (Self::WRITE | Self::READ_ONLY | Self::LOGGED) == Self::WRITE;
        Hot {
            read: if self.flags & Self::READ != 0 { self.tag } else { 0 },
            write: if writable { self.tag } else { 0 },
            addend: self.host.wrapping_sub(self.tag & PAGE),
            code: self.code,
        }
    }
}

/// Linear addresses that large pages cover: their pieces cannot be told apart in the table, so that forgetting one of
/// them forgets the whole space. One range for each half of the address space.
#[derive(Clone, Copy, Default)]
struct LargePages {
    covered: [Option<(u64, u64)>; 2],
}

impl LargePages {
    fn add(&mut self, linear: u64, size: u64) {
        let first = linear & !(size - 1);
        let last = first | (size - 1);
        let range = &mut self.covered[(linear >> 63) as usize];
        *range = Some(range.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
    }

    fn covers(&self, linear: u64) -> bool {
        self.covered[(linear >> 63) as usize].is_some_and(|(first, last)| (first..=last).contains(&linear))
    }
}

/// An address space.
#[derive(Clone, Copy, Default)]
struct Space {
    pcid: u16,
    /// The number of its first context; 0: nothing is entered.
    number: u64,
    /// When it was last switched to.
    used: u64,
    large: LargePages,
}

/// A page table that a walk came to: what a later walk in the same 2 MiB begins with (Intel SDM volume 3, 5.10.3.1).
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// The part of the linear address that it is for, and the number of the space.
    tag: u64,
    /// Physical address.
    pub gpa: u64,
    /// What the entries above it allow.
    pub bits: u64,
}

impl Table {
    const EMPTY: Self = Self { tag: 0, gpa: 0, bits: 0 };
}

/// How many page tables are remembered.
const TABLES: usize = 64;

/// See the module.
pub(super) struct Tlb {
    pub hot: Box<[Hot; ENTRIES]>,
    cold: Box<[Entry; ENTRIES]>,
    tables: [Table; TABLES],
    spaces: [Space; SPACES + 1],
    current: usize,
    /// The next number to give.
    next: u64,
    switches: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        let mut tlb = Self {
            hot: boxed(Hot::EMPTY),
            cold: boxed(Entry::EMPTY),
            tables: [Table::EMPTY; TABLES],
            spaces: [Space::default(); SPACES + 1],
            current: 0,
            next: NUMBERS,
            switches: 0,
        };
        tlb.switch(0, false);
        tlb
    }
}

fn boxed<T: Copy>(value: T) -> Box<[T; ENTRIES]> {
    let Ok(table) = vec![value; ENTRIES].into_boxed_slice().try_into() else {
        unreachable!("the vector was made with as many entries")
    };
    table
}

/// Where a translation is in the table.
#[inline(always)]
pub(super) fn slot(linear: u64, context: u64) -> usize {
    (((linear >> 12) ^ context) as usize) & (ENTRIES - 1)
}

impl Tlb {
    /// The number of a context of the current address space.
    pub fn context(&mut self, rights: Rights) -> u64 {
        self.number(self.current) + rights as u64
    }

    fn number(&mut self, space: usize) -> u64 {
        if self.spaces[space].number == 0 {
            if self.next + NUMBERS > NEVER {
                self.clear();
            }
            self.spaces[space].number = self.next;
            self.next += NUMBERS;
        }
        self.spaces[space].number
    }

    fn clear(&mut self) {
        self.hot.fill(Hot::EMPTY);
        self.cold.fill(Entry::EMPTY);
        self.tables.fill(Table::EMPTY);
        for space in &mut self.spaces {
            space.number = 0;
            space.large = LargePages::default();
        }
        self.next = NUMBERS;
    }

    fn forget(&mut self, space: usize) {
        self.spaces[space].number = 0;
        self.spaces[space].large = LargePages::default();
    }

    /// The translation of a page that allows `access` ([`Entry::READ`] ...). `context` is one of the current space's.
    pub fn find(&mut self, linear: u64, context: u64, rights: Rights, access: u32) -> Option<Entry> {
        let entry = self.cold[slot(linear, context)];
        if entry.tag == linear & PAGE | context && entry.flags & access != 0 {
            return Some(entry);
        }
        let number = self.spaces[GLOBAL].number;
        if number == 0 {
            return None;
        }
        let global = number + rights as u64;
        let entry = self.cold[slot(linear, global)];
        if entry.tag != linear & PAGE | global || entry.flags & access == 0 {
            return None;
        }
        let entry = Entry { tag: linear & PAGE | context, ..entry };
        self.enter(entry);
        Some(entry)
    }

    /// The translation of a page that instructions can be fetched from, of the context `tag`.
    #[inline(always)]
    pub fn executable(&self, linear: u64, tag: u64) -> Option<&Entry> {
        let entry = &self.cold[slot(linear, tag)];
        (entry.tag == linear & PAGE | tag && entry.flags & Entry::EXECUTE != 0).then_some(entry)
    }

    fn enter(&mut self, entry: Entry) {
        let slot = slot(entry.tag, entry.tag & !PAGE);
        self.cold[slot] = entry;
        self.hot[slot] = entry.hot();
    }

    /// Enters a translation, a piece of a page of `size` bytes, into the current space. Returns the context's number,
    /// which may have changed.
    pub fn insert(&mut self, linear: u64, rights: Rights, entry: Entry, size: u64) -> Entry {
        // Both numbers first: giving one may clear the table.
        if entry.flags & Entry::GLOBAL != 0 {
            self.number(GLOBAL);
        }
        let context = self.context(rights);
        if entry.flags & Entry::GLOBAL != 0 {
            let global = self.number(GLOBAL) + rights as u64;
            self.enter(Entry { tag: linear & PAGE | global, ..entry });
            if size > 4096 {
                self.spaces[GLOBAL].large.add(linear, size);
            }
        } else if size > 4096 {
            self.spaces[self.current].large.add(linear, size);
        }
        let entry = Entry { tag: linear & PAGE | context, ..entry };
        self.enter(entry);
        entry
    }

    /// Makes the address space `pcid` the current one; with `forget` it is empty, except for global pages.
    pub fn switch(&mut self, pcid: u16, forget: bool) {
        self.switches += 1;
        let known = self.spaces[..SPACES].iter().position(|space| space.pcid == pcid);
        let space = known.unwrap_or_else(|| {
            let oldest = (0..SPACES).min_by_key(|&space| self.spaces[space].used).unwrap_or(0);
            self.forget(oldest);
            self.spaces[oldest].pcid = pcid;
            oldest
        });
        if forget {
            self.forget(space);
        }
        self.spaces[space].used = self.switches;
        self.current = space;
    }

    /// Forgets everything.
    pub fn flush_all(&mut self) {
        (0..=SPACES).for_each(|space| self.forget(space));
    }

    /// Forgets all but global pages, in all address spaces.
    pub fn flush_non_global(&mut self) {
        (0..SPACES).for_each(|space| self.forget(space));
    }

    /// Forgets an address space, but not global pages.
    pub fn flush_space(&mut self, pcid: u16) {
        if let Some(space) = self.spaces[..SPACES].iter().position(|space| space.pcid == pcid) {
            self.forget(space);
        }
    }

    /// Forgets the page of an address in the current space, and global pages there whatever the space (INVLPG).
    pub fn flush_page(&mut self, linear: u64) {
        self.tables.fill(Table::EMPTY);
        if self.spaces[GLOBAL].large.covers(linear) {
            self.flush_all();
            return;
        }
        if self.spaces[self.current].large.covers(linear) {
            self.forget(self.current);
        }
        for space in 0..=SPACES {
            self.remove(space, linear);
        }
    }

    /// Forgets the page of an address in one space, but not global pages (INVPCID type 0).
    pub fn flush_page_of(&mut self, pcid: u16, linear: u64) {
        self.tables.fill(Table::EMPTY);
        let Some(space) = self.spaces[..SPACES].iter().position(|space| space.pcid == pcid) else { return };
        if self.spaces[space].large.covers(linear) {
            self.forget(space);
        }
        self.remove(space, linear);
    }

    fn table_tag(&self, linear: u64) -> (usize, u64) {
        let number = self.spaces[self.current].number;
        let region = linear >> 21;
        ((region ^ number) as usize & (TABLES - 1), region << 12 | number)
    }

    /// The page table that a walk of this address comes to in the current space.
    pub fn table(&self, linear: u64) -> Option<Table> {
        let (slot, tag) = self.table_tag(linear);
        let table = self.tables[slot];
        (table.tag == tag && self.spaces[self.current].number != 0).then_some(table)
    }

    /// Remembers it.
    pub fn remember_table(&mut self, linear: u64, gpa: u64, bits: u64) {
        self.number(self.current);
        let (slot, tag) = self.table_tag(linear);
        self.tables[slot] = Table { tag, gpa, bits };
    }

    /// Forgets it.
    pub fn forget_table(&mut self, linear: u64) {
        let (slot, _) = self.table_tag(linear);
        self.tables[slot] = Table::EMPTY;
    }

    fn remove(&mut self, space: usize, linear: u64) {
        let number = self.spaces[space].number;
        if number == 0 {
            return;
        }
        for context in number..number + NUMBERS {
            let slot = slot(linear, context);
            if self.cold[slot].tag == linear & PAGE | context {
                self.cold[slot] = Entry::EMPTY;
                self.hot[slot] = Hot::EMPTY;
            }
        }
    }
}
