//! Linux: the real-mode setup code and the protected-mode kernel of a bzImage (Linux/x86 boot protocol 2.00 to 2.15).

use super::{BootPlan, Entry, KernelError, KernelFiles, Memory, Piece, u16_at, u32_at};

/// Offsets in the setup header ("The Real-Mode Kernel Header").
mod offset {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const VID_MODE: usize = 0x1fa;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const HEAP_END_PTR: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const CMDLINE_SIZE: usize = 0x238;
}

const MAGIC: &[u8] = b"HdrS";
/// Where setup code, command line and protected-mode kernel go.
const SETUP: u32 = 0x1_0000;
const CMDLINE: u32 = 0x2_0000;
const KERNEL: u32 = 0x10_0000;
/// Room between the command line and the extended BIOS data area.
const CMDLINE_ROOM: usize = 0x6_0000;
/// "Undefined boot loader", with our own version nibble.
const LOADER_ID: u8 = 0xff;
const LOADED_HIGH: u8 = 1 << 0;
const CAN_USE_HEAP: u8 = 1 << 7;

/// Whether the image has the setup header of protocol 2.00 or later.
pub fn is_bzimage(kernel: &[u8]) -> bool {
    kernel.get(offset::MAGIC..offset::MAGIC + 4) == Some(MAGIC)
}

pub fn plan(files: &KernelFiles, memory: Memory) -> Result<BootPlan, KernelError> {
    let kernel = &files.kernel;
    let version = u16_at(kernel, offset::VERSION).ok_or_else(|| files.invalid("the setup header is cut off"))?;
    let flags = kernel.get(offset::LOADFLAGS).copied().unwrap_or(0);
    if version < 0x202 || flags & LOADED_HIGH == 0 {
        return Err(files.invalid(format!(
            "boot protocol {}.{:02} is not supported: a bzImage with protocol 2.02 or later is needed",
            version >> 8,
            version & 0xff
        )));
    }
    let sectors = match kernel.get(offset::SETUP_SECTS) {
        None | Some(0) => 4,
        Some(sectors) => usize::from(*sectors),
    };
    let setup_len = (sectors + 1) * 512;
    if setup_len >= kernel.len() {
        return Err(files.invalid("the image is cut off"));
    }
    let (setup, body) = kernel.split_at(setup_len);
    let mut setup = setup.to_vec();
    let cmdline = command_line(files, &setup, version)?;
    if u64::from(KERNEL) + body.len() as u64 > memory.usable_end() {
        return Err(files.too_large("the kernel", memory));
    }

    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = setup.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(offset::TYPE_OF_LOADER, &[LOADER_ID]);
    put(offset::LOADFLAGS, &[flags | CAN_USE_HEAP]);
    put(offset::HEAP_END_PTR, &u16::try_from(CMDLINE - SETUP - 0x200).unwrap_or(0xfe00).to_le_bytes());
    put(offset::CMD_LINE_PTR, &CMDLINE.to_le_bytes());
    if let Some(mode) = video_mode(files) {
        put(offset::VID_MODE, &mode.to_le_bytes());
    }
    let initrd = initrd_piece(files, version, memory, body.len())?;
    if let Some(initrd) = &initrd {
        put(offset::RAMDISK_IMAGE, &initrd.address.to_le_bytes());
        put(offset::RAMDISK_SIZE, &u32::try_from(initrd.bytes.len()).unwrap_or(0).to_le_bytes());
    }

    let mut pieces = vec![
        Piece { name: "setup", address: SETUP, bytes: setup },
        Piece { name: "cmdline", address: CMDLINE, bytes: cmdline },
        Piece { name: "kernel", address: KERNEL, bytes: body.to_vec() },
    ];
    pieces.extend(initrd);
    let segment = u16::try_from(SETUP >> 4).unwrap_or(0x1000);
    // The stack ends below the command line, in the setup code's segment.
    Ok(BootPlan { pieces, entry: Entry::RealMode { segment, stack: 0xfff0 } })
}

fn command_line(files: &KernelFiles, setup: &[u8], version: u16) -> Result<Vec<u8>, KernelError> {
    let limit = if version >= 0x206 { u32_at(setup, offset::CMDLINE_SIZE).unwrap_or(255) as usize } else { 255 };
    let limit = limit.min(CMDLINE_ROOM - 1);
    if files.append.len() > limit {
        return Err(
            files.invalid(format!("the command line has {} bytes, and this kernel takes {limit}", files.append.len()))
        );
    }
    let mut bytes = files.append.clone().into_bytes();
    bytes.push(0);
    Ok(bytes)
}

/// The boot loader handles `vga=` (kernel parameter documentation): normal, ext, ask, or a number.
fn video_mode(files: &KernelFiles) -> Option<u16> {
    let value = files.append.split_ascii_whitespace().filter_map(|word| word.strip_prefix("vga=")).next_back()?;
    match value {
        "normal" => Some(0xffff),
        "ext" => Some(0xfffe),
        "ask" => Some(0xfffd),
        number => match number.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        },
    }
}

fn initrd_piece(
    files: &KernelFiles,
    version: u16,
    memory: Memory,
    kernel_len: usize,
) -> Result<Option<Piece>, KernelError> {
    let Some((_, initrd)) = files.modules.first() else { return Ok(None) };
    let highest = if version >= 0x203 {
        u64::from(u32_at(&files.kernel, offset::INITRD_ADDR_MAX).unwrap_or(0x37ff_ffff))
    } else {
        0x37ff_ffff
    };
    let end = memory.usable_end().min(highest.saturating_add(1));
    let start = end.checked_sub(initrd.len() as u64).map(|start| start & !0xfff);
    match start.and_then(|start| u32::try_from(start).ok()) {
        Some(start) if u64::from(start) >= u64::from(KERNEL) + kernel_len as u64 => {
            Ok(Some(Piece { name: "initrd", address: start, bytes: initrd.clone() }))
        }
        _ => Err(files.too_large("the initrd", memory)),
    }
}
