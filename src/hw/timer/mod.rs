//! Clocks and counters that guests program.

pub mod mc146818;
