//! Display adapters.

mod console;
pub mod edid;
pub mod vga;

pub use console::{SyncDirty, VgaConsole};
