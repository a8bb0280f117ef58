//! One instruction at a time, with all that can happen around it: breakpoints, single stepping, interrupt shadows.

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, rflags, segment};
use super::super::op::BLOCK_START;
use super::lower;
use crate::cpu::Mode;

/// What was found at the instruction pointer.
pub struct Decoded {
    /// The instruction, decoded as if at address 0.
    pub instruction: Instruction,
    /// Bytes that begin with it.
    pub bytes: [u8; 15],
}

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
        let linear = self.segments[segment::CS].base.wrapping_add(self.rip) & self.linear_mask;
        self.debug_before(linear)?;
        let (shadow, trap) = (self.shadow, self.flags & rflags::TF != 0);
        let decoded = self.decode_at(linear)?;
        self.flags &= !rflags::RF;
        self.shadow = 0;
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        let op = lower::lower(&decoded.instruction, &decoded.bytes, 0);
        let flow = (op.handler)(self, &op)?;
        match flow {
            Flow::Next | Flow::End => self.rip = self.rip_at(op.end()),
            Flow::Jump | Flow::Again => {}
        }
        self.executed += 1;
        self.debug_after(trap, shadow)?;
        Ok(flow)
    }

    /// Fetches and decodes the instruction at a linear address, which is that of [`Cpu::rip`].
    pub(super) fn decode_at(&mut self, linear: u64) -> Result<Decoded, Fault> {
        let mut bytes = [0; 15];
        let room = self.code_room().min(bytes.len());
        if room == 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        let mut have = self.fetch(linear, &mut bytes[..room])?;
        loop {
            let mut decoder = Decoder::with_ip(lower::bits(self.mode), &bytes[..have], 0, DecoderOptions::NONE);
            let instruction = decoder.decode();
            match decoder.last_error() {
                DecoderError::None => return Ok(Decoded { instruction, bytes }),
                DecoderError::NoMoreBytes if have < room => {
                    have += self.fetch(linear.wrapping_add(have as u64) & self.linear_mask, &mut bytes[have..room])?;
                }
                // Longer than 15 bytes, or beyond the code segment's limit.
                DecoderError::NoMoreBytes => return Err(self.raise(Exception::gp(0))),
                _ => return Err(self.raise(Exception::UD)),
            }
        }
    }

    /// How many bytes there are from the instruction pointer to the limit of the code segment.
    fn code_room(&self) -> usize {
        if self.mode == Mode::Long64 {
            return usize::MAX;
        }
        let limit = u64::from(self.segments[segment::CS].loaded.limit);
        (limit + 1).saturating_sub(self.rip) as usize
    }
}
