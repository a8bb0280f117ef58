//! One instruction at a time, with all that can happen around it: breakpoints, single stepping, interrupt shadows.

use super::super::cpu::{Cpu, Flow, Step, rflags};
use super::super::op::BLOCK_START;
use super::lower;

impl Cpu {
    /// Executes one instruction, or delivers the exception that it raised.
    pub fn step(&mut self) {
        if self.try_step().is_err() {
            self.shadow = 0;
            self.deliver_exception();
        }
    }

    /// Executes one instruction. Tests that compare with another processor want its outcome undelivered.
    ///
    /// # Errors
    /// The exception that it raised, in [`Cpu::exception`].
    pub fn try_step(&mut self) -> Step {
        let linear = self.code_address();
        self.debug_before(linear)?;
        let (shadow, trap) = (self.shadow, self.flags & rflags::TF != 0);
        let decoded = self.decode_at(linear)?;
        self.flags &= !rflags::RF;
        self.shadow = 0;
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        let op = lower::lower(&decoded.instruction, &decoded.bytes, 0);
        // Devices see a clock that includes this instruction.
        self.executed += 1;
        let flow = match (op.handler)(self, &op) {
            Ok(flow) => flow,
            Err(fault) => {
                self.executed -= 1;
                return Err(fault);
            }
        };
        match flow {
            Flow::Next | Flow::End => self.rip = self.rip_at(op.end()),
            Flow::Jump | Flow::Again => {}
        }
        self.debug_after(trap, shadow)?;
        Ok(flow)
    }
}
