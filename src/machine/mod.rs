//! Whole machines: what a configuration says, built and run.

pub mod config;
mod control;
mod layout;
mod rom;
mod vcpu;

pub use rom::{RomError, RomSearch};
pub use vcpu::{VcpuEvent, VcpuListener, Vcpus};
