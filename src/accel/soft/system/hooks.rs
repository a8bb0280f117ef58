//! What `system` needs of the MMU beyond plain accesses.

use super::super::cpu::{Cpu, Fault};
use super::super::mmu::Privilege;

impl Cpu {
    /// Changes a byte of a system table.
    pub(super) fn change_linear(&mut self, linear: u64, change: impl Fn(u8) -> u8) -> Result<(), Fault> {
        let old: u8 = self.read_linear(linear, Privilege::System)?;
        self.write_linear(linear, change(old), Privilege::System)
    }

    /// Drops all translations, global ones too.
    pub(super) fn tlb_flush_all(&mut self) {}

    /// Drops the translation of one page.
    pub(super) fn tlb_flush_page(&mut self, _linear: u64) {}

    /// CR3 was written; `keep`: bit 63 said that the translations of its PCID stay.
    pub(super) fn tlb_switch(&mut self, _keep: bool) {}

    /// Loads the four page-directory pointers of PAE paging that `cr3` names.
    pub(super) fn load_pointers(&mut self, _cr3: u64) -> Result<(), Fault> {
        Ok(())
    }

    /// INVPCID of a kind 0 to 3.
    pub(super) fn tlb_invalidate(&mut self, _kind: u64, _pcid: u64, _linear: u64) {}

    /// The data breakpoints changed.
    pub(super) fn tlb_watch_changed(&mut self) {}

    /// XCR0.
    pub(super) fn xcr0(&self) -> u64 {
        1
    }
}
