//! The architectural x86 CPU, shared by the accelerators and the monitor: registers, CPUID, and the named models.

mod dump;
mod model;
mod resolve;
mod state;

pub use model::{CpuidLeaf, HostCpu, Topology};
pub use resolve::{CpuError, CpuModel, Resolved, resolve};
pub use state::{APIC_BASE_BSP, APIC_BASE_ENABLE, CpuEvents, CpuState, Mode, MpState, Segment, Table};
