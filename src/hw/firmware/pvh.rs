//! PVH kernels: an ELF image with a 32-bit entry note (Xen's x86/HVM direct boot ABI).

use std::io::Cursor;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BootPlan, Entry, KernelError, KernelFiles, Memory, Piece, u32_at};

/// Where start info, memory map, module list and command line go.
const INFO: u32 = 0x2_0000;
const INFO_ROOM: usize = 0x6_0000;
/// XEN_HVM_START_MAGIC_VALUE.
const MAGIC: u32 = 0x336e_c578;
/// Kernels are linked at 1 MiB or above: what is below belongs to the firmware.
const LOWEST: u64 = 0x10_0000;

pub fn plan(files: &KernelFiles, memory: Memory) -> Result<BootPlan, KernelError> {
    let span = segments_end(&files.kernel).ok_or_else(|| files.invalid("the ELF headers are damaged"))?;
    if span <= LOWEST || span > memory.usable_end() {
        return Err(files.too_large("the kernel", memory));
    }
    // The loader checks and places the segments in a scratch memory of just their span.
    let len = usize::try_from(span.next_multiple_of(4096)).map_err(|_| files.too_large("the kernel", memory))?;
    let scratch: GuestMemoryMmap<()> = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)])
        .map_err(|e| files.invalid(format!("no memory to load it: {e}")))?;
    let loaded = Elf::load(&scratch, None, &mut Cursor::new(&files.kernel), Some(GuestAddress(LOWEST)))
        .map_err(|e| files.invalid(e.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(files.invalid("it has no PVH entry note (CONFIG_PVH) and no multiboot header"));
    };
    let eip = u32::try_from(entry.0).map_err(|_| files.invalid("its PVH entry is above 4 GiB"))?;
    let first = loaded.kernel_load.0.clamp(LOWEST, span);
    let first = first.min(lowest_segment(&files.kernel).unwrap_or(first)).max(LOWEST);
    let mut bytes = vec![0; usize::try_from(span - first).unwrap_or(0)];
    scratch.read_slice(&mut bytes, GuestAddress(first)).map_err(|e| files.invalid(e.to_string()))?;
    let start = u32::try_from(first).map_err(|_| files.too_large("the kernel", memory))?;

    let mut pieces = vec![Piece { name: "kernel", address: start, bytes }];
    let mut module = None;
    if let Some((_, initrd)) = files.modules.first() {
        let at = memory.usable_end().checked_sub(initrd.len() as u64).map(|at| at & !0xfff).filter(|at| *at >= span);
        let at = at.and_then(|at| u32::try_from(at).ok()).ok_or_else(|| files.too_large("the initrd", memory))?;
        module = Some((at, initrd.len() as u64));
        pieces.push(Piece { name: "initrd", address: at, bytes: initrd.clone() });
    }
    let info = start_info(files, memory, module)?;
    pieces.push(Piece { name: "cmdline", address: INFO, bytes: info });
    Ok(BootPlan { pieces, entry: Entry::Flat { eip, eax: 0, ebx: INFO, esi: 0 } })
}

/// The program headers' (address, size in memory) of the loadable segments (ELF specification, part 1).
fn load_segments(kernel: &[u8]) -> Option<Vec<(u64, u64)>> {
    let wide = *kernel.get(4)? == 2;
    let u64_at = |at: usize| Some(u64::from(u32_at(kernel, at)?) | u64::from(u32_at(kernel, at + 4)?) << 32);
    let (table, size_at) = if wide { (u64_at(32)?, 54) } else { (u64::from(u32_at(kernel, 28)?), 42) };
    let entry_len = usize::from(super::u16_at(kernel, size_at)?);
    let count = usize::from(super::u16_at(kernel, size_at + 2)?);
    let table = usize::try_from(table).ok()?;
    let mut segments = Vec::new();
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(entry_len)?)?;
        if u32_at(kernel, at)? != 1 {
            continue;
        }
        let (address, len) = if wide {
            (u64_at(at + 24)?, u64_at(at + 40)?)
        } else {
            (u32_at(kernel, at + 12)?.into(), u32_at(kernel, at + 20)?.into())
        };
        segments.push((address, len));
    }
    Some(segments)
}

fn segments_end(kernel: &[u8]) -> Option<u64> {
    load_segments(kernel)?.into_iter().map(|(at, len)| at.checked_add(len)).try_fold(0, |end, at| Some(at?.max(end)))
}

fn lowest_segment(kernel: &[u8]) -> Option<u64> {
    load_segments(kernel)?.into_iter().map(|(at, _)| at).min()
}

/// `hvm_start_info` version 1 with its memory map, module and command line behind it.
fn start_info(files: &KernelFiles, memory: Memory, module: Option<(u32, u64)>) -> Result<Vec<u8>, KernelError> {
    const HEADER: usize = 56;
    let mut map: Vec<(u64, u64, u32)> = vec![
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x400, 2),
        (0xf_0000, 0x1_0000, 2),
        (0x10_0000, memory.usable_end().saturating_sub(0x10_0000), 1),
        (memory.usable_end(), memory.below_4g - memory.usable_end(), 2),
    ];
    if memory.above_4g > 0 {
        map.push((1 << 32, memory.above_4g, 1));
    }
    let map_at = HEADER;
    let module_at = map_at + 24 * map.len();
    let cmdline_at = module_at + 32;
    let address = |at: usize| u64::from(INFO) + at as u64;
    let mut info = Vec::new();
    for word in [MAGIC, 1, 0, u32::from(module.is_some())] {
        info.extend_from_slice(&word.to_le_bytes());
    }
    let modlist = if module.is_some() { address(module_at) } else { 0 };
    for long in [modlist, address(cmdline_at), 0, address(map_at)] {
        info.extend_from_slice(&long.to_le_bytes());
    }
    info.extend_from_slice(&u32::try_from(map.len()).unwrap_or(0).to_le_bytes());
    info.extend_from_slice(&0u32.to_le_bytes());
    for (start, len, kind) in map {
        info.extend_from_slice(&start.to_le_bytes());
        info.extend_from_slice(&len.to_le_bytes());
        info.extend_from_slice(&kind.to_le_bytes());
        info.extend_from_slice(&0u32.to_le_bytes());
    }
    let (start, len) = module.unwrap_or_default();
    for long in [u64::from(start), len, 0, 0] {
        info.extend_from_slice(&long.to_le_bytes());
    }
    info.extend_from_slice(files.append.as_bytes());
    info.push(0);
    if info.len() > INFO_ROOM {
        return Err(files.invalid("the command line is too long"));
    }
    Ok(info)
}
