//! x87, MMX, SSE, AVX and AVX-512, and the XSAVE family.
//!
//! Registers live in an image in memory ([`VectorState`]). The commonest moves and integer operations work on it
//! directly (`direct`); control instructions and the XSAVE family are written out (`x87`, `xsave`), and so are accesses
//! element by element (`masked`). Everything else is executed by the host: a native stub (`stub`) loads the registers
//! that the instruction uses, executes it with its memory operand in a scratch slot, and stores them back. Exceptions
//! that the host raises in a stub become the guest's.

mod classify;
mod direct;
mod host;
mod layout;
mod masked;
mod native;
mod offered;
mod run;
mod state;
mod stub;
mod x87;
mod xsave;

#[cfg(test)]
mod tests;

pub use offered::{allowed, decoder_options, features, offers};
pub use state::VectorState;

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::HostCpu;

use super::cpu::{Cpu, Flow, Step};
use super::op::{Handler, Op};

/// What the software CPU can give a guest on this host, for [`crate::cpu::resolve`].
#[must_use]
pub fn host_cpu() -> HostCpu {
    HostCpu::software(features())
}

/// What executes a vector or floating-point instruction; `None`: it is not one. `extra` is kept in
/// [`super::op::Cold::extra`].
#[must_use]
pub fn handler(instruction: &Instruction, extra: &mut u64) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Vzeroupper => return Some(zero_registers::<2>),
        Mnemonic::Vzeroall => return Some(zero_registers::<0>),
        _ => {}
    }
    if let Some(handler) = xsave::handler(instruction).or_else(|| x87::handler(instruction)) {
        return Some(handler);
    }
    let class = classify::class(instruction)?;
    if let Some(handler) = direct::handler(instruction).or_else(|| masked::handler(instruction)) {
        return Some(handler);
    }
    let call = stub::stub(instruction, class)?;
    Some(run::handler(&call, extra))
}

/// VZEROUPPER and VZEROALL: the first 16 registers (8 outside 64-bit mode), from 64-bit word `FROM` on.
fn zero_registers<const FROM: usize>(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.check_vector(classify::Class::Avx)?;
    let count = if cpu.mode == crate::cpu::Mode::Long64 { 16 } else { 8 };
    for register in &mut cpu.vector.zmm[..count] {
        register[FROM..].fill(0);
    }
    Ok(Flow::Next)
}
