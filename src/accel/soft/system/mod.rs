//! Segments, privilege, exceptions and interrupts, tasks, control registers, MSRs, system management mode.
//!
//! Sources: Intel SDM volume 3 (chapters 2-9, 13, 18, 20, 31, 34; numbers of the March 2023 edition) and volume 2 for the
//! instructions, AMD APM volume 2 where processors differ. Where Intel's and AMD's differ in what software can tell, the
//! vendor that the guest's CPUID shows decides.
//!
//! Instructions are lowered to handlers that look at [`super::op::Cold::instruction`]; they are rare. Each checks
//! everything before it changes a register; bytes that a transfer pushed before it faulted stay on the new stack, as on
//! processors.

mod control;
mod cpuid;
mod debug;
mod descriptor;
mod event;
mod far;
mod interrupt;
mod log;
mod misc;
mod msr;
mod paravirtual;
mod registers;
mod reset;
mod segment;
mod smm;
mod stack;
mod state;
mod syscall;
mod tables;
mod task;

#[cfg(test)]
mod tests;

use iced_x86::{Code, Instruction, Mnemonic, Register};

use crate::cpu::Mode;

use super::cpu::{Cpu, Exception, Fault};
use super::op::{Handler, Op};

pub use registers::SystemRegisters;

/// The decoding of an instruction that this module lowered.
fn instruction(op: &Op) -> &Instruction {
    match &op.cold {
        Some(cold) => &cold.instruction,
        // Handlers of this module are reached through `handler`, for which `lower` always keeps the decoding.
        None => unreachable!("a system instruction keeps its decoding"),
    }
}

/// The operand size in bytes of instructions whose [`Code`] alone tells it.
fn operand_size(instruction: &Instruction) -> u8 {
    match instruction.code() {
        Code::Iretw | Code::Retfw | Code::Retfw_imm16 | Code::Pushfw | Code::Popfw => 2,
        Code::Iretd | Code::Retfd | Code::Retfd_imm16 | Code::Pushfd | Code::Popfd => 4,
        _ => 8,
    }
}

/// What executes a system instruction; `None`: it is not one.
#[must_use]
pub fn handler(instruction: &Instruction) -> Option<Handler> {
    transfer(instruction).or_else(|| tables_and_segments(instruction)).or_else(|| privileged(instruction))
}

/// Transfers of control and the flags.
fn transfer(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Jmp if is_far(instruction) => far::jump,
        Mnemonic::Call if is_far(instruction) => far::call,
        Mnemonic::Retf => far::ret,
        Mnemonic::Int => interrupt::int_n,
        Mnemonic::Int3 => interrupt::int3,
        Mnemonic::Into => interrupt::into,
        Mnemonic::Int1 => interrupt::int1,
        Mnemonic::Bound => interrupt::bound,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => interrupt::iret,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => interrupt::pushf,
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => interrupt::popf,
        Mnemonic::Cli | Mnemonic::Sti => interrupt::cli_sti,
        Mnemonic::Syscall => syscall::syscall,
        Mnemonic::Sysret | Mnemonic::Sysretq => syscall::sysret,
        Mnemonic::Sysenter => syscall::sysenter,
        Mnemonic::Sysexit | Mnemonic::Sysexitq => syscall::sysexit,
        _ => return None,
    })
}

fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far()
        || instruction.is_call_far_indirect()
}

/// Segment registers and descriptor tables.
fn tables_and_segments(instruction: &Instruction) -> Option<Handler> {
    let to_segment = instruction.op0_register().is_segment_register();
    Some(match instruction.mnemonic() {
        Mnemonic::Mov if to_segment => segment::mov_to_segment,
        Mnemonic::Mov if instruction.op1_register().is_segment_register() => segment::mov_from_segment,
        Mnemonic::Pop if to_segment => segment::pop_segment,
        Mnemonic::Push if to_segment => segment::push_segment,
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => segment::load_far_pointer,
        Mnemonic::Lgdt | Mnemonic::Lidt => tables::load_table,
        Mnemonic::Sgdt | Mnemonic::Sidt => tables::store_table,
        Mnemonic::Lldt => tables::lldt,
        Mnemonic::Ltr => tables::ltr,
        Mnemonic::Sldt | Mnemonic::Str => tables::store_selector,
        Mnemonic::Lar => tables::lar,
        Mnemonic::Lsl => tables::lsl,
        Mnemonic::Verr | Mnemonic::Verw => tables::verify,
        Mnemonic::Arpl => tables::arpl,
        Mnemonic::Swapgs => syscall::swapgs,
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase => syscall::read_base,
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => syscall::write_base,
        _ => return None,
    })
}

/// Control and debug registers, MSRs, and what else the system uses.
fn privileged(instruction: &Instruction) -> Option<Handler> {
    let is = |test: fn(Register) -> bool| (test(instruction.op0_register()), test(instruction.op1_register()));
    Some(match instruction.mnemonic() {
        Mnemonic::Mov if is(Register::is_cr).0 => control::mov_to_control,
        Mnemonic::Mov if is(Register::is_cr).1 => control::mov_from_control,
        Mnemonic::Mov if is(Register::is_dr).0 => debug::mov_to_debug,
        Mnemonic::Mov if is(Register::is_dr).1 => debug::mov_from_debug,
        Mnemonic::Lmsw => control::lmsw,
        Mnemonic::Smsw => control::smsw,
        Mnemonic::Clts => control::clts,
        Mnemonic::Invlpg => control::invlpg,
        Mnemonic::Invpcid => control::invpcid,
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => misc::cache,
        Mnemonic::Hlt => misc::hlt,
        Mnemonic::Rdtsc | Mnemonic::Rdtscp => misc::rdtsc,
        Mnemonic::Rdpid => misc::rdpid,
        Mnemonic::Rdpmc => misc::rdpmc,
        Mnemonic::Monitor => misc::monitor,
        Mnemonic::Mwait => misc::mwait,
        Mnemonic::Clac | Mnemonic::Stac => misc::clac_stac,
        Mnemonic::Serialize => misc::serialize,
        Mnemonic::Vmcall | Mnemonic::Vmmcall => paravirtual::hypercall,
        Mnemonic::Rsm => smm::rsm,
        Mnemonic::Cpuid => cpuid::cpuid,
        Mnemonic::Rdmsr => msr::rdmsr,
        Mnemonic::Wrmsr => msr::wrmsr,
        _ => return None,
    })
}

impl Cpu {
    /// #GP(0) unless the privilege level is 0.
    fn require_level_0(&mut self) -> Result<(), Fault> {
        if self.cpl == 0 { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// #UD in real and virtual-8086 mode.
    fn require_protected(&mut self) -> Result<(), Fault> {
        if matches!(self.mode, Mode::Real | Mode::Virtual8086) {
            return Err(self.raise(Exception::UD));
        }
        Ok(())
    }

    /// #UD unless the model has a feature.
    fn require_feature(&mut self, name: &str) -> Result<(), Fault> {
        if self.model.has(name) { Ok(()) } else { Err(self.raise(Exception::UD)) }
    }

    /// Whether the guest's CPUID shows an AMD processor, or Hygon's.
    pub fn is_amd(&self) -> bool {
        matches!(&self.model.vendor(), b"AuthenticAMD" | b"HygonGenuine")
    }
}
