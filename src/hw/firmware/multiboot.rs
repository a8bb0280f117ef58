//! Multiboot kernels (Multiboot Specification 0.6.96).

use super::{BootPlan, Entry, KernelError, KernelFiles, Memory, Piece, u16_at, u32_at};

const HEADER_MAGIC: u32 = 0x1bad_b002;
const BOOTLOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies in the first 8192 bytes, aligned to 4 (3.1).
const SEARCH: usize = 8192;
/// Header flags (3.1.2): the address fields are valid; a video mode is wanted.
const HAS_ADDRESSES: u32 = 1 << 16;
/// Flags that a loader must understand: pages alignment, memory information, video mode.
const KNOWN_REQUIRED: u32 = 0b11;
/// Where the information structure and its strings go.
const INFO: u32 = 0x2_0000;
const INFO_ROOM: usize = 0x6_0000;
/// The first address of RAM above the firmware's.
const LOWEST: u32 = 0x10_0000;

/// A multiboot header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    offset: usize,
    flags: u32,
}

/// Finds a header with a right checksum.
pub fn find_header(kernel: &[u8]) -> Option<Header> {
    let end = kernel.len().min(SEARCH).saturating_sub(11);
    (0..end).step_by(4).find_map(|offset| {
        let (magic, flags, sum) = (u32_at(kernel, offset)?, u32_at(kernel, offset + 4)?, u32_at(kernel, offset + 8)?);
        let valid = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(sum) == 0;
        valid.then_some(Header { offset, flags })
    })
}

/// The image's bytes in memory and where it starts.
struct Image {
    address: u32,
    bytes: Vec<u8>,
    entry: u32,
}

pub fn plan(files: &KernelFiles, header: &Header, memory: Memory) -> Result<BootPlan, KernelError> {
    if header.flags & 0xffff & !KNOWN_REQUIRED != 0 {
        return Err(files.invalid(format!(
            "its multiboot header asks for features that are not supported (flags {:#x})",
            header.flags
        )));
    }
    let image =
        if header.flags & HAS_ADDRESSES != 0 { flat_image(files, header, memory)? } else { elf_image(files, memory)? };
    let mut next = u64::from(image.address) + image.bytes.len() as u64;
    let mut pieces = vec![Piece { name: "kernel", address: image.address, bytes: image.bytes }];
    let mut modules = Vec::new();
    for (name, bytes) in &files.modules {
        let start = next.next_multiple_of(4096);
        next = start + bytes.len() as u64;
        if next > memory.usable_end() {
            return Err(files.too_large("a module", memory));
        }
        let address = u32::try_from(start).map_err(|_| files.too_large("a module", memory))?;
        modules.push((address, u32::try_from(next).unwrap_or(u32::MAX), name.clone()));
        pieces.push(Piece { name: "module", address, bytes: bytes.clone() });
    }
    let info = information(files, memory, &modules)?;
    pieces.push(Piece { name: "multiboot-info", address: INFO, bytes: info });
    let entry = Entry::Flat { eip: image.entry, eax: BOOTLOADER_MAGIC, ebx: INFO, esi: 0 };
    Ok(BootPlan { pieces, entry })
}

/// An image placed by the header's address fields (3.1.3).
fn flat_image(files: &KernelFiles, header: &Header, memory: Memory) -> Result<Image, KernelError> {
    let field = |index: usize| {
        u32_at(&files.kernel, header.offset + 12 + 4 * index).ok_or_else(|| files.invalid("the header is cut off"))
    };
    let (header_addr, load, load_end, bss_end, entry) = (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
    let bad = || files.invalid("the addresses in its multiboot header contradict each other");
    let before = header_addr.checked_sub(load).ok_or_else(bad)? as usize;
    let start = header.offset.checked_sub(before).ok_or_else(bad)?;
    let available = files.kernel.len() - start;
    let len = if load_end == 0 { available } else { load_end.checked_sub(load).ok_or_else(bad)? as usize };
    if len > available {
        return Err(bad());
    }
    let total = if bss_end == 0 { len } else { (bss_end.checked_sub(load).ok_or_else(bad)? as usize).max(len) };
    check_place(files, memory, load, total as u64)?;
    let mut bytes = files.kernel[start..start + len].to_vec();
    bytes.resize(total, 0);
    Ok(Image { address: load, bytes, entry })
}

fn check_place(files: &KernelFiles, memory: Memory, address: u32, len: u64) -> Result<(), KernelError> {
    let end = u64::from(address) + len;
    // Linkers put the ELF headers into the page before the code: what falls between A0000h and 1 MiB is not RAM and
    // is left out below.
    if address < 0xa_0000 {
        return Err(files.invalid(format!("it wants to be at {address:#x}, where the firmware's data is")));
    }
    if end > memory.usable_end() {
        return Err(files.too_large("the kernel", memory));
    }
    Ok(())
}

/// A 32-bit ELF image placed by its program headers.
fn elf_image(files: &KernelFiles, memory: Memory) -> Result<Image, KernelError> {
    let kernel = &files.kernel;
    let cut = || files.invalid("the ELF headers are damaged");
    if !kernel.starts_with(b"\x7fELF") {
        return Err(files.invalid("it has neither ELF headers nor addresses in its multiboot header"));
    }
    if kernel.get(4) != Some(&1) {
        return Err(files.invalid("Cannot load x86-64 image, give a 32bit one."));
    }
    let entry = u32_at(kernel, 24).ok_or_else(cut)?;
    let table = u32_at(kernel, 28).ok_or_else(cut)? as usize;
    let entry_len = usize::from(u16_at(kernel, 42).ok_or_else(cut)?);
    let count = usize::from(u16_at(kernel, 44).ok_or_else(cut)?);
    let mut segments = Vec::new();
    for index in 0..count {
        let at = table + index * entry_len;
        let field = |n: usize| u32_at(kernel, at + 4 * n).ok_or_else(cut);
        if field(0)? != 1 {
            continue;
        }
        let (offset, address, in_file, in_memory) = (field(1)? as usize, field(3)?, field(4)? as usize, field(5)?);
        if in_memory == 0 {
            continue;
        }
        let content = offset.checked_add(in_file).and_then(|end| kernel.get(offset..end)).ok_or_else(cut)?;
        check_place(files, memory, address, u64::from(in_memory).max(in_file as u64))?;
        segments.push((address, content, in_memory as usize));
    }
    let first = segments.iter().map(|(address, _, _)| *address).min().ok_or_else(cut)?.max(LOWEST);
    let mut bytes = Vec::new();
    for (address, content, in_memory) in segments {
        let skip = (first.saturating_sub(address) as usize).min(in_memory.max(content.len()));
        let content = content.get(skip..).unwrap_or_default();
        let at = address.saturating_sub(first) as usize;
        let end = at + (in_memory.saturating_sub(skip)).max(content.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..at + content.len()].copy_from_slice(content);
    }
    Ok(Image { address: first, bytes, entry })
}

/// The boot information (3.3): memory, command line, modules, memory map, loader name.
fn information(files: &KernelFiles, memory: Memory, modules: &[(u32, u32, String)]) -> Result<Vec<u8>, KernelError> {
    const LEN: usize = 88;
    let mut info = vec![0u8; LEN];
    let append = |info: &mut Vec<u8>, bytes: &[u8]| {
        while !info.len().is_multiple_of(4) {
            info.push(0);
        }
        let at = INFO.wrapping_add(u32::try_from(info.len()).unwrap_or(0));
        info.extend_from_slice(bytes);
        at
    };
    let text = |text: &str| [text.as_bytes(), &[0]].concat();
    let program = files.path.display();
    let line = if files.append.is_empty() { format!("{program}") } else { format!("{program} {}", files.append) };
    let cmdline = append(&mut info, &text(&line));
    let loader = append(&mut info, &text("dromaius"));
    let mut list = Vec::new();
    for (start, end, name) in modules {
        let name = append(&mut info, &text(name));
        for word in [*start, *end, name, 0] {
            list.extend_from_slice(&word.to_le_bytes());
        }
    }
    let mods = append(&mut info, &list);
    let mut map = Vec::new();
    let upper = memory.usable_end().saturating_sub(0x10_0000);
    let ranges = [
        (0, 0x9_fc00, 1u32),
        (0x9_fc00, 0x400, 2),
        (0xf_0000, 0x1_0000, 2),
        (0x10_0000, upper, 1),
        (memory.usable_end(), memory.below_4g - memory.usable_end(), 2),
        (1u64 << 32, memory.above_4g, 1),
    ];
    for (start, len, kind) in ranges.into_iter().filter(|(_, len, _)| *len > 0) {
        map.extend_from_slice(&20u32.to_le_bytes());
        map.extend_from_slice(&start.to_le_bytes());
        map.extend_from_slice(&len.to_le_bytes());
        map.extend_from_slice(&kind.to_le_bytes());
    }
    let map_at = append(&mut info, &map);
    let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_le_bytes());
    // Memory, boot device, command line, modules, memory map and loader name are valid.
    put(0, 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    put(4, 639);
    put(8, u32::try_from(upper / 1024).unwrap_or(u32::MAX));
    put(12, 0x8000_ffff);
    put(16, cmdline);
    put(20, u32::try_from(modules.len()).unwrap_or(0));
    put(24, mods);
    put(44, u32::try_from(map.len()).unwrap_or(0));
    put(48, map_at);
    put(64, loader);
    if info.len() > INFO_ROOM {
        return Err(files.invalid("command line and module names are too long"));
    }
    Ok(info)
}
