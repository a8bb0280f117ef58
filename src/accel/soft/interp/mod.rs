//! Decoding, blocks, and the integer instructions.

mod alu;
mod arithmetic;
mod bits;
mod branch;
mod careful;
mod data;
mod lower;
mod operand;
mod shift;
mod stack;

#[cfg(test)]
mod tests;

pub use lower::lower;

use super::cpu::{Activity, Cpu, rflags};
use super::signals::Signals;

impl Cpu {
    /// Executes instructions until a request of another thread needs attention ([`Cpu::attention`]), the processor no
    /// longer runs ([`Cpu::activity`]), or [`Cpu::budget`] is used up. Exceptions are delivered on the way. At least one
    /// instruction is executed, so that a request that cannot be taken yet does not hold the processor up.
    pub fn execute(&mut self) {
        while self.activity == Activity::Running && self.budget != 0 {
            self.step();
            self.budget = self.budget.saturating_sub(1);
            if self.attention() {
                break;
            }
        }
    }

    /// Whether other threads ask for something that can be done now. An interrupt has to wait while interrupts are
    /// disabled or held back.
    #[must_use]
    #[inline(always)]
    pub fn attention(&self) -> bool {
        let pending = self.signals.pending();
        if pending == 0 {
            return false;
        }
        pending & !Signals::INTERRUPT != 0 || self.flags & rflags::IF != 0 && self.shadow == 0
    }
}
