//! `-d int`, `mmu` and `pcall`: events, control registers and far transfers.
//!
//! The texts of `int` and `mmu` are those of QEMU 10.0, which was run beside: as there, what happens in real mode is not
//! written, but for external interrupts. QEMU's own `pcall` is silent; ours names each far transfer's target.

use std::fmt::Write as _;

use super::super::cpu::{Cpu, gpr, segment};
use super::event::Event;
use crate::trace::{self, Item};

/// CR0.PE.
const PROTECTED: u64 = 1;

impl Cpu {
    /// An exception is to be delivered, or `first` was under way when `second` came.
    #[inline]
    pub(super) fn log_check(&self, first: Option<u8>, second: u8) {
        if trace::item_enabled(Item::Int) {
            let first = first.map_or(u32::MAX, u32::from);
            trace::print(&format!("check_exception old: {first:#x} new {second:#x}\n"));
        }
    }

    /// An external interrupt was taken from the controller.
    #[inline]
    pub(super) fn log_interrupt(&self, vector: u8) {
        if trace::item_enabled(Item::Int) {
            trace::print(&format!("Servicing hardware INT={vector:#04x}\n"));
        }
    }

    /// An event is to be delivered; the instruction that it interrupts, or that asks for it, is at `rip`.
    #[inline]
    pub(super) fn log_event(&mut self, event: &Event, rip: u64) {
        if trace::item_enabled(Item::Int) && self.cr0 & PROTECTED != 0 {
            self.write_event(event, rip);
        }
    }

    #[cold]
    fn write_event(&mut self, event: &Event, rip: u64) {
        let (code, stack) = (&self.segments[segment::CS], &self.segments[segment::SS]);
        let mut text = format!(
            "{:6}: v={:02x} e={:04x} i={} cpl={} IP={:04x}:{rip:016x} pc={:016x} SP={:04x}:{:016x}",
            self.system.logged,
            event.vector,
            event.error.unwrap_or(0),
            u8::from(event.software),
            self.cpl,
            code.loaded.selector,
            code.base.wrapping_add(rip),
            stack.loaded.selector,
            self.gpr[gpr::RSP],
        );
        self.system.logged = self.system.logged.wrapping_add(1);
        let _ = match event.vector {
            14 => writeln!(text, " CR2={:016x}", self.cr2),
            _ => writeln!(text, " env->regs[R_EAX]={:016x}", self.gpr[gpr::RAX]),
        };
        let mut state = self.log_state();
        state.rip = rip;
        text.push_str(&state.summary());
        trace::print(&text);
    }

    /// System management mode begins or ended.
    #[inline]
    pub(super) fn log_smm(&self, what: &str) {
        if trace::item_enabled(Item::Int) {
            trace::print(&format!("SMM: {what}\n{}", self.log_state().summary()));
        }
    }

    /// CR0 was written.
    #[inline]
    pub(super) fn log_cr0(&self) {
        if trace::item_enabled(Item::Mmu) {
            trace::print(&format!("CR0 update: CR0=0x{:08x}\n", self.cr0));
        }
    }

    /// CR3 was written.
    #[inline]
    pub(super) fn log_cr3(&self) {
        if trace::item_enabled(Item::Mmu) && self.cr0 >> 31 & 1 != 0 {
            trace::print(&format!("CR3 update: CR3={:016x}\n", self.cr3));
        }
    }

    /// A far transfer of protected mode begins.
    #[inline]
    pub(super) fn log_far(&self, what: &str, selector: u16, offset: u64) {
        if trace::item_enabled(Item::Pcall) {
            trace::print(&format!("{what} {selector:04x}:{offset:x} cpl={}\n", self.cpl));
        }
    }
}
