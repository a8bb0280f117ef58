//! The Q35 chipset: memory controller hub and ICH9.

pub mod lpc;
pub mod mch;
pub mod smbus;
mod tco;
