//! Display adapters.

pub mod edid;
pub mod vga;
