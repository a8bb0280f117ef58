//! Segments, privilege, exceptions and interrupts, tasks, control registers, MSRs, system management mode.

use iced_x86::Instruction;

use super::cpu::Cpu;
use super::op::Handler;

/// Registers that only system instructions see.
#[derive(Clone, Default, Debug)]
pub struct SystemRegisters {}

/// What executes a system instruction; `None`: it is not one.
#[must_use]
pub fn handler(_instruction: &Instruction) -> Option<Handler> {
    None
}

impl Cpu {
    /// Delivers [`Cpu::exception`], raised by the instruction at [`Cpu::rip`]: pushes the frame and goes to the handler,
    /// or on to a double fault or shutdown.
    pub fn deliver_exception(&mut self) {}
}
