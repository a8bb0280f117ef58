//! x87, MMX, SSE, AVX and AVX-512, and the XSAVE family.

mod host;
mod offered;

pub use offered::{allowed, decoder_options, features};

use iced_x86::Instruction;

use super::op::Handler;

/// The registers.
#[derive(Clone, Default, Debug)]
pub struct VectorState {}

/// What executes a vector or floating-point instruction; `None`: it is not one. `extra` is kept in
/// [`super::op::Cold::extra`].
#[must_use]
pub fn handler(_instruction: &Instruction, _extra: &mut u64) -> Option<Handler> {
    None
}
