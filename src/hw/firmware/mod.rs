//! `-kernel`: Linux (bzImage), PVH and multiboot kernels, prepared for the boot ROM.
//!
//! The firmware runs as always; the boot ROM is its first boot device. It copies what is prepared here to its places
//! and enters the kernel. Documents: the Linux/x86 boot protocol, Xen's x86/HVM direct boot ABI, the Multiboot
//! Specification 0.6.96, the ELF specification.

use std::io;
use std::path::PathBuf;

use crate::host::reason;

mod linux;
mod multiboot;
mod pvh;
pub mod rom;

/// How the ROM enters the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Real mode, 512 bytes into `segment` with all data segments there.
    RealMode {
        /// Segment of the setup code.
        segment: u16,
        /// Stack pointer in it.
        stack: u16,
    },
    /// 32-bit protected mode with flat segments.
    Flat {
        /// Where.
        eip: u32,
        /// EAX.
        eax: u32,
        /// EBX.
        ebx: u32,
        /// ESI.
        esi: u32,
    },
}

/// Bytes for a place in RAM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What it is, for fw_cfg and `info roms`.
    pub name: &'static str,
    /// Guest physical address.
    pub address: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// A kernel that is ready to be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootPlan {
    /// What goes where.
    pub pieces: Vec<Piece>,
    /// How to start.
    pub entry: Entry,
}

/// What the command line says, with the files read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelFiles {
    /// The kernel's path, for multiboot's command line and messages.
    pub path: PathBuf,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// `-append`.
    pub append: String,
    /// `-initrd` as typed, with the content of each file: one for Linux, one or more modules for multiboot.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// A kernel that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be read.
    #[error("could not open kernel file '{}': {}", path.display(), reason(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        #[source]
        source: io::Error,
    },
    /// Its initial RAM disk cannot be read.
    #[error("could not open initrd file '{name}': {}", reason(source))]
    Initrd {
        /// As typed.
        name: String,
        /// The host's reason.
        #[source]
        source: io::Error,
    },
    /// It is of no kind that we know.
    #[error("invalid kernel header: '{}' is neither a bzImage, nor a multiboot kernel, nor an ELF kernel with a PVH entry", .0.display())]
    Unknown(PathBuf),
    /// It is damaged, or asks for something impossible.
    #[error("kernel '{}': {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It does not fit into the machine's memory.
    #[error("kernel '{}': {what} does not fit into {ram_mib} MiB of memory", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What.
        what: &'static str,
        /// RAM below 4 GiB, in MiB.
        ram_mib: u64,
    },
}

/// RAM that the firmware keeps at the top of low memory: its tables and buffers, in bytes.
const FIRMWARE_RESERVED: u64 = 0x2_8000;

/// Prepares a kernel for a machine with `below_4g` bytes of RAM below 4 GiB and `above_4g` above.
///
/// # Errors
/// It is of no known kind, damaged, or does not fit.
pub fn plan(files: &KernelFiles, below_4g: u64, above_4g: u64) -> Result<BootPlan, KernelError> {
    let memory = Memory { below_4g, above_4g };
    if let Some(header) = multiboot::find_header(&files.kernel) {
        return multiboot::plan(files, &header, memory);
    }
    if linux::is_bzimage(&files.kernel) {
        return linux::plan(files, memory);
    }
    if files.kernel.starts_with(b"\x7fELF") {
        return pvh::plan(files, memory);
    }
    Err(KernelError::Unknown(files.path.clone()))
}

/// The machine's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Memory {
    below_4g: u64,
    above_4g: u64,
}

impl Memory {
    /// The first address that is the firmware's.
    fn usable_end(self) -> u64 {
        self.below_4g.saturating_sub(FIRMWARE_RESERVED)
    }
}

impl KernelFiles {
    fn invalid(&self, problem: impl Into<String>) -> KernelError {
        KernelError::Invalid { path: self.path.clone(), problem: problem.into() }
    }

    fn too_large(&self, what: &'static str, memory: Memory) -> KernelError {
        KernelError::TooLarge { path: self.path.clone(), what, ram_mib: memory.below_4g >> 20 }
    }
}

/// A little-endian word of an image, if it is there.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A little-endian double word of an image, if it is there.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
