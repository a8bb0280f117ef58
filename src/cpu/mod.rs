//! The architectural x86 CPU, shared by the accelerators and the monitor: registers, CPUID, and the named models.

mod cache;
mod cpuid;
mod disassembly;
mod dump;
mod features;
mod features_table;
mod model;
mod models;
mod models_table;
mod resolve;
mod state;

pub use disassembly::{Disassembler, disassembly_line};
pub use dump::Detail;
pub use features::{Feature, FeatureSet, Place, Reg};
pub use model::{CpuidLeaf, HostCpu, Topology};
pub use models::{help, model_names};
pub use resolve::{CpuError, CpuModel, Resolved, resolve};
pub use state::{APIC_BASE_BSP, APIC_BASE_ENABLE, CpuEvents, CpuState, Mode, MpState, Segment, Table};
