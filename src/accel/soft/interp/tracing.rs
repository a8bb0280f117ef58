//! `-d in_asm`, `exec`, `cpu` and `fpu`: what is decoded, and what is executed, as QEMU writes it.

use std::fmt::Write as _;

use iced_x86::Decoder;

use super::super::cpu::{Cpu, rflags, segment};
use super::super::vector;
use super::lower;
use crate::cpu::{CpuState, Detail, Disassembler, Mode, disassembly_line};
use crate::trace;

impl Cpu {
    /// Whether anything is to be written for each block that is executed.
    pub(super) fn is_traced() -> bool {
        trace::item_enabled(trace::Item::Exec)
            || trace::item_enabled(trace::Item::Cpu)
            || trace::item_enabled(trace::Item::NoChain)
    }

    /// Before a block, or a single instruction, is executed; `block` is where its decoding is in the host.
    #[cold]
    pub(super) fn log_execution(&self, block: usize) {
        let linear = self.code_address();
        if !trace::in_filter(linear) {
            return;
        }
        let mut text = String::new();
        if trace::item_enabled(trace::Item::Exec) {
            let (base, flags) = (self.segments[segment::CS].base, self.log_flags());
            let _ = writeln!(text, "Trace {}: {block:#x} [{base:08x}/{linear:016x}/{flags:08x}/00000000] ", self.index);
        }
        if trace::item_enabled(trace::Item::Cpu) {
            let detail = if trace::item_enabled(trace::Item::Fpu) { Detail::All } else { Detail::General };
            let mut state = self.log_state();
            if detail == Detail::All {
                (state.xsave, state.xcr0) = (self.save_xsave(), self.vector.xcr0());
            }
            text.push_str(&state.dump(detail));
        }
        if !text.is_empty() {
            trace::print(&text);
        }
    }

    /// What a block is decoded to.
    pub(super) fn log_decoding(&self, linear: u64, code: &[u8]) {
        if !trace::item_enabled(trace::Item::InAsm) || !trace::in_filter(linear) {
            return;
        }
        let mut text = String::from("----------------\nIN: \n");
        let options = vector::decoder_options(&self.model);
        let mut disassembler = Disassembler::default();
        for instruction in Decoder::with_ip(lower::bits(self.mode), code, linear, options) {
            let start = instruction.ip().wrapping_sub(linear) as usize;
            let bytes = code.get(start..start + instruction.len()).unwrap_or_default();
            text.push_str(&disassembly_line(instruction.ip(), bytes, &disassembler.text(&instruction)));
        }
        text.push('\n');
        trace::print(&text);
    }

    /// The mode as QEMU's `exec` line shows it: privilege level, sizes of code and stack, whether segments have bases,
    /// protected mode, TF, IOPL, long mode, 64-bit code, virtual-8086 mode.
    fn log_flags(&self) -> u32 {
        let bit = |set: bool, number: u32| u32::from(set) << number;
        let long = self.mode == Mode::Long64;
        let code32 = long || matches!(self.mode, Mode::Protected32 | Mode::Compatibility32);
        let bases =
            [segment::ES, segment::SS, segment::DS].iter().any(|&number| self.segments[number].loaded.base != 0);
        let real = matches!(self.mode, Mode::Real | Mode::Virtual8086);
        let system = self.flags & (rflags::TF | rflags::IOPL | rflags::VM);
        u32::from(self.cpl)
            | bit(code32, 4)
            | bit(self.stack_mask > 0xffff, 5)
            | bit(!long && (bases || real || !code32), 6)
            | bit(self.cr0 & 1 != 0, 7)
            | system as u32
            | bit(self.efer & 1 << 10 != 0, 14)
            | bit(long, 15)
    }

    /// The registers that texts show, but for those of vectors.
    pub(in super::super) fn log_state(&self) -> CpuState {
        let mut state = CpuState::power_on(self.model.signature());
        state.gpr.copy_from_slice(&self.gpr[..16]);
        (state.rip, state.rflags) = (self.rip, self.rflags());
        for (saved, register) in state.segments.iter_mut().zip(&self.segments) {
            *saved = register.loaded;
        }
        (state.ldtr, state.tr, state.gdtr, state.idtr) = (self.ldtr, self.tr, self.gdtr, self.idtr);
        (state.cr0, state.cr2, state.cr3, state.cr4) = (self.cr0, self.cr2, self.cr3, self.cr4);
        (state.efer, state.dr) = (self.efer, self.dr);
        state.events.interrupt_shadow = self.shadow;
        state
    }
}
