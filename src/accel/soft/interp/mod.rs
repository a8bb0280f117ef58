//! Decoding, blocks, and the integer instructions.

mod lower;

pub use lower::lower;

use iced_x86::{Decoder, DecoderOptions};

use super::cpu::{Cpu, Exception, Fault, Flow, segment};
use super::op::BLOCK_START;

impl Cpu {
    /// Executes one instruction, or delivers the exception that it raised.
    pub fn step(&mut self) {
        if self.try_step().is_err() {
            self.deliver_exception();
        }
    }

    fn try_step(&mut self) -> Result<(), Fault> {
        let linear = self.segments[segment::CS].base.wrapping_add(self.rip) & self.linear_mask;
        let mut bytes = [0; 15];
        let mut have = self.fetch(linear, &mut bytes)?;
        let mut instruction = self.decode(&bytes[..have]);
        if instruction.is_invalid() && have < bytes.len() {
            have += self.fetch((linear + have as u64) & self.linear_mask, &mut bytes[have..])?;
            instruction = self.decode(&bytes[..have]);
        }
        if instruction.is_invalid() {
            return Err(self.raise(Exception::UD));
        }
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        let op = lower(&instruction, &bytes, 0);
        match (op.handler)(self, &op)? {
            Flow::Next | Flow::End => self.rip = self.rip_at(op.end()),
            Flow::Jump | Flow::Again => {}
        }
        self.executed += 1;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> iced_x86::Instruction {
        Decoder::with_ip(lower::bits(self.mode), bytes, 0, DecoderOptions::NONE).decode()
    }
}
