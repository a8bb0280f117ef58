//! The architectural x86 CPU, shared by the accelerators and the monitor: registers, CPUID, and the named models.

mod state;

pub use state::{CpuState, MpState, Segment, Table};
