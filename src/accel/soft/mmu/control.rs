//! What the MMU does when control registers, privilege or the memory map change.

use std::sync::Arc;

use super::super::cpu::{Cpu, rflags};
use super::map::PhysicalMap;
use super::tlb::{NEVER, Rights};
use super::walk::{Kind, Paging};
use super::{Mmu, events};

/// The kinds of INVPCID (Intel SDM volume 2, INVPCID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvPcid {
    /// One address of one address space, except global pages.
    Address {
        /// Which address space.
        pcid: u16,
        /// Which address.
        linear: u64,
    },
    /// One address space, except global pages.
    Space {
        /// Which.
        pcid: u16,
    },
    /// Everything.
    All,
    /// Everything except global pages.
    NonGlobal,
}

impl Mmu {
    /// Takes up the numbers of the contexts after anything that may have changed them.
    pub(super) fn refresh_contexts(&mut self) {
        self.system_tag = self.tlb.context(Rights::Supervisor);
        self.take_up_rights();
    }

    /// Likewise after a change of rights alone: the contexts of a space have numbers side by side.
    #[inline]
    fn take_up_rights(&mut self) {
        let space = self.system_tag - Rights::Supervisor as u64;
        self.tag = if self.alignment { NEVER } else { space + self.rights as u64 };
    }

    /// Forgets all translations.
    pub fn flush_all(&mut self) {
        self.tlb.flush_all();
        self.refresh_contexts();
    }

    /// Forgets all translations but those of global pages.
    pub fn flush_non_global(&mut self) {
        self.tlb.flush_non_global();
        self.refresh_contexts();
    }

    /// Forgets the page of a linear address: INVLPG.
    pub fn flush_page(&mut self, linear: u64) {
        self.tlb.flush_page(linear);
        self.refresh_contexts();
    }

    /// INVPCID.
    pub fn invpcid(&mut self, what: InvPcid) {
        match what {
            InvPcid::Address { pcid, linear } => self.tlb.flush_page_of(pcid, linear),
            InvPcid::Space { pcid } => self.tlb.flush_space(pcid),
            InvPcid::All => self.tlb.flush_all(),
            InvPcid::NonGlobal => self.tlb.flush_non_global(),
        }
        self.refresh_contexts();
    }

    /// PKRU.
    #[must_use]
    pub fn pkru(&self) -> u32 {
        self.pkru
    }

    /// Changes PKRU.
    pub fn set_pkru(&mut self, value: u32) {
        if std::mem::replace(&mut self.pkru, value) != value && self.paging.keys_user {
            self.flush_all();
        }
    }

    /// IA32_PKRS.
    #[must_use]
    pub fn pkrs(&self) -> u32 {
        self.pkrs
    }

    /// Changes IA32_PKRS.
    pub fn set_pkrs(&mut self, value: u32) {
        if std::mem::replace(&mut self.pkrs, value) != value && self.paging.keys_supervisor {
            self.flush_all();
        }
    }
}

impl Cpu {
    /// After MOV to CR3 and its like: [`Cpu::cr3`] has the new value. `keep`: translations of the new address space that
    /// are still there from before hold (bit 63 of the source with CR4.PCIDE set). In PAE mode call
    /// [`Cpu::load_pdptes`] first, which may refuse.
    pub fn switch_cr3(&mut self, keep: bool) {
        self.mmu.cr3 = self.cr3;
        let (pcid, keep) = if self.mmu.paging.pcid { ((self.cr3 & 0xfff) as u16, keep) } else { (0, false) };
        self.mmu.tlb.switch(pcid, !keep);
        self.mmu.refresh_contexts();
    }

    /// After a change of CR0, CR3, CR4, EFER, the privilege level or RFLAGS.AC: the MMU follows, and forgets
    /// translations if it has to. [`Cpu::mode_changed`] calls it; cheap if nothing changed.
    pub fn memory_mode_changed(&mut self) {
        const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 18;
        const CR4: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 12 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 24;
        const EFER: u64 = 1 << 10 | 1 << 11;
        let control = [self.cr0 & CR0, self.cr4 & CR4, self.efer & EFER];
        if control != self.mmu.control {
            self.mmu.control = control;
            self.paging_changed();
        }
        if self.cr3 != self.mmu.cr3 {
            self.switch_cr3(false);
        }
        self.rights_changed();
    }

    #[cold]
    fn paging_changed(&mut self) {
        let before = self.mmu.paging.kind;
        self.mmu.paging = Paging::of(self);
        if self.mmu.paging.kind == Kind::Pae && before != Kind::Pae {
            // Whoever came here by an instruction has loaded them; this is for registers that were set from outside.
            self.mmu.pdptes = self.read_pdptes(self.cr3);
        }
        self.mmu.tlb.flush_all();
        self.switch_cr3(false);
    }

    /// After a change of [`Cpu::cpl`] or RFLAGS.AC alone.
    #[inline]
    pub fn rights_changed(&mut self) {
        let open = self.flags & rflags::AC != 0;
        let rights = match self.cpl {
            3 => Rights::User,
            _ if open && self.mmu.paging.smap => Rights::SupervisorOpen,
            _ => Rights::Supervisor,
        };
        let alignment = self.cpl == 3 && open && self.mmu.paging.alignment;
        if (rights, alignment) != (self.mmu.rights, self.mmu.alignment) {
            (self.mmu.rights, self.mmu.alignment) = (rights, alignment);
            self.mmu.take_up_rights();
        }
    }

    /// Gives the processor its memory. [`Cpu::signals`] must be those that it keeps.
    pub fn attach_memory(&mut self, map: Arc<PhysicalMap>) {
        map.attach(&self.signals);
        self.detach_memory();
        self.mmu.shared = Some(map);
        self.mmu.generation = 0;
        self.follow_memory_map();
        self.mmu.events = 0;
    }

    /// Takes its memory away, as far as other processors are concerned.
    fn detach_memory(&mut self) {
        self.end_active();
        if let Some(old) = self.mmu.shared.take() {
            old.detach(&self.signals);
        }
    }

    /// Takes up the present memory map if it is not the one in use. Call it when [`super::super::signals::Signals::MEMORY`]
    /// was raised and after device accesses that do not go through this module.
    pub fn follow_memory_map(&mut self) {
        let Some(shared) = &self.mmu.shared else { return };
        if shared.generation() == self.mmu.generation {
            return;
        }
        let (ranges, generation) = shared.present();
        // The translations first: they point into the old map's memory.
        self.mmu.tlb.flush_all();
        (self.mmu.ranges, self.mmu.generation) = (ranges, generation);
        self.mmu.refresh_contexts();
        self.mmu.events |= events::MAP_CHANGED;
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        self.detach_memory();
    }
}
