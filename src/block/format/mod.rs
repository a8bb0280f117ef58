//! Image formats: what bytes in a file mean as a disk.

pub mod qcow2;
pub mod raw;
