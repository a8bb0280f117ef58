//! Where bytes are: host files and devices, and nothing at all.

pub mod file;
pub mod null;
