//! Clocks and counters that guests program.

pub mod hpet;
pub mod mc146818;
