//! The boot ROM of `firmware/bootrom.s`, with its table filled in.
#![expect(unsafe_code)] // UNSAFE: the ROM is assembled into this program's read-only data and read from there

use super::Entry;

core::arch::global_asm!(include_str!("../../../firmware/bootrom.s"));

unsafe extern "C" {
    static dromaius_bootrom_start: u8;
    static dromaius_bootrom_end: u8;
}

/// The ROM without its table.
fn code() -> &'static [u8] {
    let start = &raw const dromaius_bootrom_start;
    let end = &raw const dromaius_bootrom_end;
    let len = end as usize - start as usize;
    // SAFETY: both symbols are in one read-only section that firmware/bootrom.s fills between them; it lives as long
    // as the program and is never written.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Offset of the Plug and Play header in the ROM.
const PNP_HEADER: usize = 0x1c;

/// A piece that the ROM loads: fw_cfg selector, length in bytes, guest physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// fw_cfg selector.
    pub selector: u16,
    /// Bytes.
    pub len: u32,
    /// Where to.
    pub address: u32,
}

/// The ROM image: it loads the pieces in order and enters the kernel.
#[must_use]
pub fn build(loads: &[Load], entry: Entry) -> Vec<u8> {
    let mut rom = code().to_vec();
    let count = u16::try_from(loads.len()).unwrap_or(u16::MAX);
    let (mode, words) = match entry {
        Entry::RealMode { segment, stack } => (0u16, [u32::from(segment), u32::from(stack), 0, 0]),
        Entry::Flat { eip, eax, ebx, esi } => (1, [eip, eax, ebx, esi]),
    };
    rom.extend_from_slice(&count.to_le_bytes());
    rom.extend_from_slice(&mode.to_le_bytes());
    for word in words {
        rom.extend_from_slice(&word.to_le_bytes());
    }
    for load in loads.iter().take(usize::from(count)) {
        rom.extend_from_slice(&load.selector.to_le_bytes());
        rom.extend_from_slice(&[0, 0]);
        rom.extend_from_slice(&load.len.to_le_bytes());
        rom.extend_from_slice(&load.address.to_le_bytes());
    }
    rom.resize((rom.len() + 1).next_multiple_of(512), 0);
    rom[2] = u8::try_from(rom.len() / 512).unwrap_or(u8::MAX);
    fix_sum(&mut rom[PNP_HEADER..PNP_HEADER + 32], 9);
    let last = rom.len() - 1;
    fix_sum(&mut rom, last);
    rom
}

/// Makes the bytes sum to zero by the one at `at`.
fn fix_sum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rom_has_the_headers_that_a_bios_looks_for() {
        let load = Load { selector: 0x11, len: 0x1234, address: 0x10_0000 };
        let rom = build(&[load], Entry::Flat { eip: 0x10_0000, eax: 1, ebx: 2, esi: 3 });
        assert_eq!(rom[..2], [0x55, 0xaa]);
        assert_eq!(usize::from(rom[2]) * 512, rom.len());
        assert_eq!(usize::from(rom[0x1a]), PNP_HEADER);
        assert_eq!(&rom[PNP_HEADER..PNP_HEADER + 4], b"$PnP");
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!((sum(&rom), sum(&rom[PNP_HEADER..PNP_HEADER + 32])), (0, 0));
    }
}
