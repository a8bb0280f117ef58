//! Instruction fetches, and how stores into decoded code are noticed.
#![expect(unsafe_code)] // UNSAFE: guest memory by host address

use crate::mem::CodeState;

use super::super::cpu::{Cpu, Fault};
use super::tlb::NO_CODE;
use super::value::copy_out;
use super::{Access, Who, events};

/// A page that instructions are fetched from.
///
/// Who decodes: asks for the page, takes [`CodePage::version`], then [`Cpu::fetch`]es. What was decoded holds on this
/// page for as long as [`CodePage::is_current`] says so.
#[derive(Clone, Copy, Debug)]
pub struct CodePage {
    gpa: u64,
    state: &'static CodeState,
}

impl PartialEq for CodePage {
    /// Whether it is the same memory (at the same physical address).
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.state, other.state) && self.gpa == other.gpa
    }
}

impl Eq for CodePage {}

impl CodePage {
    /// Physical address of the page.
    #[must_use]
    #[inline(always)]
    pub fn gpa(self) -> u64 {
        self.gpa
    }

    /// A number that no other page of memory ever has, at whatever physical address. Meaningless if not cacheable.
    #[must_use]
    #[inline(always)]
    pub fn id(self) -> u64 {
        std::ptr::from_ref(self.state) as u64
    }

    /// Whether decodings may be kept: not if a device answers.
    #[must_use]
    #[inline(always)]
    pub fn is_cacheable(self) -> bool {
        !std::ptr::eq(self.state, &raw const NO_CODE)
    }

    /// What decodings are stamped with. Take it before the bytes are fetched.
    #[must_use]
    #[inline(always)]
    pub fn version(self) -> u32 {
        self.state.version()
    }

    /// Whether decodings with that stamp still hold.
    #[must_use]
    #[inline(always)]
    pub fn is_current(self, version: u32) -> bool {
        self.version() == version
    }
}

impl Cpu {
    /// The page of an instruction at a linear address.
    ///
    /// # Errors
    /// A page fault of an instruction fetch; #GP(0) if the address is not canonical.
    #[inline]
    pub fn code_page(&mut self, linear: u64) -> Result<CodePage, Fault> {
        if let Some(page) = self.mmu.tlb.executable(linear, self.mmu.tag) {
            return Ok(CodePage { gpa: page.gpa, state: page.code });
        }
        let entry = self.translation(linear, Access::Fetch, Who::PROGRAM)?;
        Ok(CodePage { gpa: entry.gpa, state: entry.code })
    }

    /// Fetches instruction bytes at a linear address: as many of `buf` as there are before the end of the page, at
    /// least one. Marks them as code.
    ///
    /// # Errors
    /// As [`Cpu::code_page`].
    pub fn fetch(&mut self, linear: u64, buf: &mut [u8]) -> Result<usize, Fault> {
        let entry = self.translation(linear, Access::Fetch, Who::PROGRAM)?;
        let inside = linear & 0xfff;
        let room = usize::try_from(0x1000 - inside).unwrap_or(1).min(buf.len());
        let buf = &mut buf[..room];
        if entry.host == 0 {
            self.device_read(entry.gpa | inside, buf, entry.is_apic());
            self.follow_memory_map();
            return Ok(room);
        }
        let shared = &self.mmu.shared;
        entry.code.mark(inside, room as u64, || {
            if let Some(shared) = shared {
                shared.barrier();
            }
        });
        // SAFETY: the map that the translation is from is still in use, and the bytes do not go beyond the page.
        unsafe { copy_out(entry.host + inside, buf) };
        Ok(room)
    }

    /// After a store to a page that holds code.
    #[cold]
    pub(super) fn code_written(&mut self, state: &CodeState, address: u64, len: u64) {
        if state.written(address & 0xfff, len) {
            self.mmu.events |= events::CODE_WRITTEN;
        }
    }
}
