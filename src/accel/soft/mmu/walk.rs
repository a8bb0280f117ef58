//! Page tables (Intel SDM volume 3, chapter 5): 32-bit, PAE, 4-level and 5-level paging.
#![expect(unsafe_code)] // UNSAFE: page tables in guest memory by host address

use super::super::cpu::{Cpu, Exception, Fault};
use super::tlb::{Entry, Rights};
use super::value::Value;
use super::{Access, Who};

/// Bits of a paging-structure entry (tables 5-4 to 5-20).
mod pte {
    /// Present.
    pub const P: u64 = 1 << 0;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// User mode may use it.
    pub const US: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// A page, not a table.
    pub const PS: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// No execution.
    pub const XD: u64 = 1 << 63;
    /// The address of a table or page.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bits of a page fault's error code (5.7).
mod error {
    pub const P: u32 = 1 << 0;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const I: u32 = 1 << 4;
    pub const PK: u32 = 1 << 5;
}

/// The paging modes (5.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    /// Linear addresses are physical ones.
    #[default]
    Off,
    /// Two levels of 4-byte entries.
    Bits32,
    /// Three levels; the four entries of the highest are registers.
    Pae,
    /// 4-level paging.
    Level4,
    /// 5-level paging.
    Level5,
}

/// What the control registers and the model say about paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Paging {
    pub kind: Kind,
    /// EFER.LMA: linear addresses have to be canonical.
    pub long: bool,
    /// CR0.WP.
    pub write_protect: bool,
    pub pse: bool,
    pub global: bool,
    pub pcid: bool,
    pub smep: bool,
    pub smap: bool,
    pub keys_user: bool,
    pub keys_supervisor: bool,
    pub no_execute: bool,
    /// CR0.AM.
    pub alignment: bool,
    pub gigabyte_pages: bool,
    /// 36-bit page-size extension.
    pub pse36: bool,
    /// Bits of a physical address.
    pub physical_bits: u32,
}

impl Paging {
    /// From the registers.
    pub fn of(cpu: &Cpu) -> Self {
        let (cr0, cr4, efer) = (cpu.cr0, cpu.cr4, cpu.efer);
        let long = efer & 1 << 10 != 0;
        let kind = match (cr0 >> 31 & 1, cr4 >> 5 & 1, long, cr4 >> 12 & 1) {
            (0, ..) => Kind::Off,
            (_, 0, ..) => Kind::Bits32,
            (_, _, false, _) => Kind::Pae,
            (_, _, true, 0) => Kind::Level4,
            _ => Kind::Level5,
        };
        let four = matches!(kind, Kind::Level4 | Kind::Level5);
        Self {
            kind,
            long,
            write_protect: cr0 & 1 << 16 != 0,
            pse: cr4 & 1 << 4 != 0,
            global: cr4 & 1 << 7 != 0,
            pcid: cr4 & 1 << 17 != 0,
            smep: cr4 & 1 << 20 != 0,
            smap: cr4 & 1 << 21 != 0,
            keys_user: four && cr4 & 1 << 22 != 0,
            keys_supervisor: four && cr4 & 1 << 24 != 0,
            no_execute: efer & 1 << 11 != 0 && kind != Kind::Bits32,
            alignment: cr0 & 1 << 18 != 0,
            gigabyte_pages: four && cpu.model.has("pdpe1gb"),
            pse36: cpu.model.has("pse36"),
            physical_bits: cpu.model.phys_bits().clamp(32, 52),
        }
    }

    /// Bits of a canonical linear address.
    pub fn linear_bits(&self) -> u32 {
        if self.kind == Kind::Level5 { 57 } else { 48 }
    }

    /// Whether `linear` is canonical, where that matters.
    pub fn is_canonical(&self, linear: u64) -> bool {
        let unused = 64 - self.linear_bits();
        !self.long || ((linear << unused) as i64 >> unused) as u64 == linear
    }

    /// The address bits of a 64-bit entry that the processor does not have.
    fn beyond(&self) -> u64 {
        pte::ADDRESS & !((1 << self.physical_bits) - 1)
    }

    /// Reserved bits of a present 64-bit entry at a level (1: page table).
    fn reserved(&self, level: u32, entry: u64) -> u64 {
        let mut reserved = self.beyond();
        if !self.no_execute {
            reserved |= pte::XD;
        }
        if self.kind == Kind::Pae {
            reserved |= 0x7ff0_0000_0000_0000;
        }
        let large = entry & pte::PS != 0;
        reserved
            | match level {
                2 if large => 0x001f_e000,
                3 if large && self.gigabyte_pages => 0x3fff_e000,
                3.. => pte::PS,
                _ => 0,
            }
    }
}

/// What the page tables say about an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page {
    /// Physical address of the 4 KiB that hold the address.
    pub gpa: u64,
    /// Size of the whole page.
    pub size: u64,
    /// R/W, U/S of all levels; A, D, G of the last; XD of any.
    bits: u64,
    /// Protection key.
    key: u32,
    /// Whether rights are checked at all.
    checked: bool,
}

impl Page {
    fn identity(linear: u64) -> Self {
        let bits = pte::RW | pte::US | pte::D;
        Self { gpa: linear & !0xfff, size: 4096, bits, key: 0, checked: false }
    }

    pub fn is_global(&self) -> bool {
        self.bits & pte::G != 0
    }

    pub fn is_dirty(&self) -> bool {
        self.bits & pte::D != 0
    }

    /// Whether the rights suffice; `Err` holds the error code's PK bit (5.6).
    fn allows(&self, mmu: &super::Mmu, rights: Rights, access: Access) -> Result<(), u32> {
        if !self.checked {
            return Ok(());
        }
        let paging = &mmu.paging;
        let user_page = self.bits & pte::US != 0;
        let user = rights == Rights::User;
        let refused = match access {
            Access::Fetch => self.bits & pte::XD != 0 || !user && user_page && paging.smep,
            _ => !user && user_page && paging.smap && rights == Rights::Supervisor,
        } || user && !user_page
            || access == Access::Write && self.bits & pte::RW == 0 && (user || paging.write_protect);
        if refused {
            return Err(0);
        }
        if access == Access::Fetch {
            return Ok(());
        }
        let keys = match user_page {
            true if paging.keys_user => mmu.pkru,
            false if paging.keys_supervisor => mmu.pkrs,
            _ => return Ok(()),
        };
        let (no_access, no_write) = (keys >> (2 * self.key) & 1, keys >> (2 * self.key + 1) & 1);
        let write = access == Access::Write && (user || paging.write_protect);
        if no_access != 0 || write && no_write != 0 { Err(error::PK) } else { Ok(()) }
    }

    /// The accesses that need no further look at the page tables, as [`Entry`]'s flags.
    pub fn flags(&self, mmu: &super::Mmu, rights: Rights) -> u32 {
        let mut flags = 0;
        for (access, flag) in
            [(Access::Read, Entry::READ), (Access::Write, Entry::WRITE), (Access::Fetch, Entry::EXECUTE)]
        {
            if (access != Access::Write || self.is_dirty()) && self.allows(mmu, rights, access).is_ok() {
                flags |= flag;
            }
        }
        flags
    }
}

/// The entries that a walk came through, for their accessed bits.
#[derive(Default)]
struct Trail {
    entries: [(u64, u64); 5],
    len: usize,
    /// The last table and what the entries above it allow, if a later walk may begin there.
    table: Option<(u64, u64)>,
}

impl Trail {
    fn push(&mut self, address: u64, entry: u64) {
        self.entries[self.len] = (address, entry);
        self.len += 1;
    }
}

/// The error code's bits of a walk that found nothing: P and RSVD.
type Missing = u32;

impl Cpu {
    /// Finds the page of a linear address for an access, and sets accessed and dirty bits.
    pub(super) fn walk(&mut self, linear: u64, access: Access, rights: Rights) -> Result<Page, Fault> {
        loop {
            let mut trail = Trail::default();
            let short = self.look_up_short(linear, &mut trail);
            let from_table = short.is_some();
            let found = short.unwrap_or_else(|| self.look_up(linear, &mut trail)).and_then(|page| {
                let allowed = page.allows(&self.mmu, rights, access);
                allowed.map(|()| page).map_err(|key| error::P | key)
            });
            let page = match found {
                Ok(page) => page,
                Err(_) if from_table => {
                    // Software need not flush after it gave more rights: look at all levels before it is a fault.
                    self.mmu.tlb.forget_table(linear);
                    continue;
                }
                Err(code) => return Err(self.page_fault(linear, access, rights, code)),
            };
            if self.mark_used(&trail, access == Access::Write) {
                if let Some((gpa, bits)) = trail.table {
                    self.mmu.tlb.remember_table(linear, gpa, bits);
                }
                let dirty = if access == Access::Write { pte::D } else { 0 };
                return Ok(Page { bits: page.bits | dirty, ..page });
            }
            // Somebody changed an entry meanwhile.
        }
    }

    /// The physical address behind a linear one for a debugger: no rights, no traces.
    #[must_use]
    pub fn translate(&mut self, linear: u64) -> Option<u64> {
        if !self.mmu.paging.is_canonical(linear) {
            return None;
        }
        let page = self.look_up(linear, &mut Trail::default()).ok()?;
        Some(page.gpa | linear & 0xfff)
    }

    fn page_fault(&mut self, linear: u64, access: Access, rights: Rights, mut code: u32) -> Fault {
        if access == Access::Write {
            code |= error::W;
        }
        if rights == Rights::User {
            code |= error::U;
        }
        if access == Access::Fetch && (self.mmu.paging.no_execute || self.mmu.paging.smep) {
            code |= error::I;
        }
        self.raise(Exception::pf(code, linear))
    }

    /// Walks without effects.
    fn look_up(&mut self, linear: u64, trail: &mut Trail) -> Result<Page, Missing> {
        let base = self.cr3 & pte::ADDRESS;
        match self.mmu.paging.kind {
            Kind::Off => Ok(Page::identity(linear)),
            Kind::Bits32 => self.look_up_32(linear, trail),
            Kind::Pae => {
                let directory = self.mmu.pdptes[(linear >> 30 & 3) as usize];
                if directory & pte::P == 0 {
                    return Err(0);
                }
                self.look_up_64(linear, directory & pte::ADDRESS, 2, trail)
            }
            Kind::Level4 => self.look_up_64(linear, base, 4, trail),
            Kind::Level5 => self.look_up_64(linear, base, 5, trail),
        }
    }

    /// Walks the last level only, if its table is remembered.
    fn look_up_short(&mut self, linear: u64, trail: &mut Trail) -> Option<Result<Page, Missing>> {
        if !matches!(self.mmu.paging.kind, Kind::Level4 | Kind::Level5) {
            return None;
        }
        let table = self.mmu.tlb.table(linear)?;
        Some(self.look_up_levels(linear, table.gpa, 1, table.bits, trail))
    }

    fn look_up_64(&mut self, linear: u64, table: u64, levels: u32, trail: &mut Trail) -> Result<Page, Missing> {
        self.look_up_levels(linear, table, levels, pte::RW | pte::US, trail)
    }

    fn look_up_levels(
        &mut self,
        linear: u64,
        mut table: u64,
        levels: u32,
        mut bits: u64,
        trail: &mut Trail,
    ) -> Result<Page, Missing> {
        for level in (1..=levels).rev() {
            if level == 1 && levels > 1 {
                trail.table = Some((table, bits));
            }
            let shift = 12 + 9 * (level - 1);
            let address = table + (linear >> shift & 0x1ff) * 8;
            let entry: u64 = self.read_table(address);
            if entry & pte::P == 0 {
                return Err(0);
            }
            if entry & self.mmu.paging.reserved(level, entry) != 0 {
                return Err(error::P | error::RSVD);
            }
            trail.push(address, entry);
            bits = (bits & !(pte::RW | pte::US)) | bits & entry & (pte::RW | pte::US) | entry & pte::XD;
            if level == 1 || entry & pte::PS != 0 {
                let size = 1u64 << shift;
                let gpa = entry & pte::ADDRESS & !(size - 1) | linear & (size - 1) & !0xfff;
                let global = if self.mmu.paging.global { entry & pte::G } else { 0 };
                let key = (entry >> 59 & 15) as u32;
                return Ok(Page { gpa, size, bits: bits | entry & pte::D | global, key, checked: true });
            }
            table = entry & pte::ADDRESS;
        }
        Err(0)
    }

    fn look_up_32(&mut self, linear: u64, trail: &mut Trail) -> Result<Page, Missing> {
        let paging = self.mmu.paging;
        let address = (self.cr3 & 0xffff_f000) + (linear >> 22 & 0x3ff) * 4;
        let entry = u64::from(self.read_table::<u32>(address));
        if entry & pte::P == 0 {
            return Err(0);
        }
        let global = if paging.global { pte::G } else { 0 };
        let kept = pte::RW | pte::US | pte::D | global;
        if entry & pte::PS != 0 && paging.pse {
            // Bits 39-32 of the address are in bits 20-13 (table 5-4).
            let high = if paging.pse36 { (1u64 << (paging.physical_bits - 32).min(8)) - 1 } else { 0 };
            if entry & (0x003f_e000 & !(high << 13)) != 0 {
                return Err(error::P | error::RSVD);
            }
            trail.push(address, entry);
            let gpa = entry & 0xffc0_0000 | (entry >> 13 & high) << 32 | linear & 0x003f_f000;
            return Ok(Page { gpa, size: 4 << 20, bits: entry & kept, key: 0, checked: true });
        }
        trail.push(address, entry);
        let rights = entry & (pte::RW | pte::US);
        let address = (entry & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4;
        let entry = u64::from(self.read_table::<u32>(address));
        if entry & pte::P == 0 {
            return Err(0);
        }
        trail.push(address, entry);
        let bits = entry & kept & (rights | !(pte::RW | pte::US));
        Ok(Page { gpa: entry & 0xffff_f000, size: 4096, bits, key: 0, checked: true })
    }

    /// Sets the accessed bits of a walk's entries, and the last one's dirty bit for a write. `false`: an entry is not
    /// what it was.
    fn mark_used(&mut self, trail: &Trail, write: bool) -> bool {
        let narrow = self.mmu.paging.kind == Kind::Bits32;
        for (at, &(address, entry)) in trail.entries[..trail.len].iter().enumerate() {
            let dirty = if write && at + 1 == trail.len { pte::D } else { 0 };
            let wanted = entry | pte::A | dirty;
            if wanted == entry {
                continue;
            }
            let done = if narrow {
                self.update_table(address, entry as u32, wanted as u32)
            } else {
                self.update_table(address, entry, wanted)
            };
            if !done {
                return false;
            }
        }
        true
    }

    /// Reads an entry of a page table, wherever it is.
    fn read_table<T: Value>(&mut self, gpa: u64) -> T {
        if let Some(range) = self.mmu.ranges.find(gpa) {
            // SAFETY: the range is mapped for as long as `ranges` is held; an entry does not cross the end of a page.
            return unsafe { T::load(range.host + (gpa - range.gpa)) };
        }
        let mut bytes = [0; 16];
        self.device_read(gpa, &mut bytes[..T::LEN], false);
        T::from_bytes(bytes)
    }

    /// Replaces an entry of a page table if it is still `old`.
    fn update_table<T: Value>(&mut self, gpa: u64, old: T, new: T) -> bool {
        match self.mmu.ranges.page(gpa) {
            Some(page) if !page.read_only => {
                // SAFETY: as in `read_table`.
                let done = unsafe { T::exchange(page.host + (gpa & 0xfff), old, new) }.is_ok();
                self.page_stored(&page, gpa, T::LEN as u64);
                done
            }
            _ => {
                self.device_write(gpa, &new.to_bytes()[..T::LEN], false);
                true
            }
        }
    }

    /// Loads the four registers of PAE paging from the table that `cr3` points to (5.4.1). `system` calls it where the
    /// architecture does it: MOV to CR3, and changes of CR0 and CR4 that turn PAE paging on or affect it.
    ///
    /// # Errors
    /// #GP(0): a reserved bit is set in a present entry. The registers then stay as they are.
    pub fn load_pdptes(&mut self, cr3: u64) -> Result<(), Fault> {
        let entries = self.read_pdptes(cr3);
        // Bits 2-1, 8-5, and those beyond the physical address (table 5-8).
        let reserved = 0x1e6 | !((1u64 << self.mmu.paging.physical_bits.max(32)) - 1);
        if entries.iter().any(|entry| entry & pte::P != 0 && entry & reserved != 0) {
            return Err(self.raise(Exception::gp(0)));
        }
        self.mmu.pdptes = entries;
        Ok(())
    }

    /// The entries in memory.
    pub(super) fn read_pdptes(&mut self, cr3: u64) -> [u64; 4] {
        let table = cr3 & 0xffff_ffe0;
        [0, 8, 16, 24].map(|at| self.read_table(table + at))
    }

    /// With which rights `who` accesses memory.
    #[inline]
    pub(super) fn rights(&self, who: Who) -> Rights {
        if who.system { Rights::Supervisor } else { self.mmu.rights }
    }
}
