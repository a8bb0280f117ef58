//! Serial and parallel ports, and the debug console.

pub mod debugcon;
pub mod parallel;
pub mod uart16550;
