//! Clocks and counters that guests program.

pub mod hpet;
pub mod i8254;
pub mod mc146818;
