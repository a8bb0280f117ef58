//! Image formats: what bytes in a file mean as a disk.

mod blocks;
pub mod bochs;
pub mod cloop;
pub mod dmg;
pub mod parallels;
pub mod qcow;
pub mod qcow2;
pub mod qed;
pub mod raw;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;
pub mod vpc;
