//! The software CPU (`-accel tcg`): executes guest instructions without help from the host's virtualization hardware.
//!
//! Parts, lowest first. Each handles every mode of the processor.
//!
//! - `accel`, `vcpu`, `counting`: the accelerator, the run loop, `-icount`.
//! - [`cpu`]: the state of one processor, in one structure, and the outcome types of an instruction.
//! - `mmu`: linear to physical to host addresses: page walks, TLBs, device accesses, code-page tracking.
//! - `op`: a decoded instruction, ready to execute: a handler and its operands.
//! - `interp`: lowers iced-x86's decoding to `op`s, keeps them in blocks, executes them; the integer instructions.
//! - `system`: segments, privilege, exceptions and interrupts, tasks, control registers, MSRs, SMM.
//! - `vector`: x87, MMX, SSE, AVX, AVX-512: runs the guest's own instruction natively on the guest's register image.
//!
//! A processor is used by the one thread that made it. What other threads do to it goes through its `Signals`.

pub mod accel;
pub mod counting;
pub mod cpu;
pub mod interp;
pub mod mmu;
pub mod op;
pub mod signals;
pub mod system;
pub mod vcpu;
pub mod vector;

#[cfg(test)]
pub mod bench;

pub use accel::Soft;
pub use cpu::{Cpu, Exception, Fault, Flow, Step};
pub use op::{Mem, Op};
