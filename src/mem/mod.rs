//! Guest memory: the host pages behind it, the map from guest physical addresses to RAM, ROM and devices, and the
//! view of it that DMA uses.

mod code;
mod dirty;
mod map;
mod ram;

pub use code::CodeState;
pub use dirty::{DirtyPages, PAGE_SIZE};
pub use map::{Backing, FlatRange, MappingId, MemoryMap, RomWrites};
pub use ram::{DmaError, GuestRam, MemoryView, RamBlock, RamRange, Sg};
