//! The CPU's view of the four planes: the window at A0000h, the latches, and what the graphics controller does to
//! data on its way (IBM VGA/XGA, "Graphics Controller Registers").
//!
//! The four bytes of a plane address are neighbours in the display memory: byte `4 * address + plane`. Chained and
//! odd/even addresses are stored without the gaps that a real VGA leaves, so that the chain-4 window and the linear
//! frame buffer are the same bytes in the same order, and every mode advances by the same number of bytes a line.

use crate::mem::RamBlock;

use super::regs::Regs;
use super::spec::{gfx, seq};

/// One bit for each plane to one byte for each plane.
pub(super) fn spread(planes: u8) -> u32 {
    let bits = u32::from(planes & 15);
    // Bit n moves to bit 8n, then fills its byte.
    (bits & 1 | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21) * 0xff
}

/// How the memory behind the window is addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access<'a> {
    pub regs: &'a Regs,
    /// Byte offset that the Bochs interface's bank adds.
    pub bank: u64,
}

impl Access<'_> {
    /// The memory address behind `offset` from A0000h; `None` where the window is not (graphics miscellaneous
    /// register, memory map).
    fn address(self, offset: u64) -> Option<u64> {
        match self.regs.gfx[gfx::MISC] >> 2 & 3 {
            0 => Some(offset & 0x1_ffff),
            1 => (offset < 0x1_0000).then(|| offset + self.bank),
            2 => (0x1_0000..0x1_8000).contains(&offset).then(|| offset - 0x1_0000),
            _ => (0x1_8000..0x2_0000).contains(&offset).then(|| offset - 0x1_8000),
        }
    }

    fn is_chain_4(self) -> bool {
        self.regs.seq[seq::MEMORY_MODE] & seq::CHAIN_4 != 0
    }

    fn map_mask(self) -> u8 {
        self.regs.seq[seq::MAP_MASK] & 15
    }

    /// The bytes of display memory that the window shows one to one, if it does: chain 4, all planes, 64 KiB at
    /// A0000h.
    pub fn direct_window(self) -> Option<u64> {
        let plain = self.is_chain_4() && self.map_mask() == 15 && self.regs.gfx[gfx::MISC] >> 2 & 3 == 1;
        plain.then_some(self.bank)
    }

    /// The byte that a write of `width` bytes at `offset` starts at if it reaches the memory unchanged.
    pub fn direct(self, offset: u64) -> Option<u64> {
        (self.is_chain_4() && self.map_mask() == 15).then(|| self.address(offset)).flatten()
    }
}

/// A byte read through the window; it loads the latches, which it returns beside the value.
pub(super) fn read(access: Access<'_>, vram: &RamBlock, offset: u64) -> (u8, u32) {
    let regs = access.regs;
    let Some(address) = access.address(offset) else { return (0xff, regs.latch) };
    if access.is_chain_4() {
        return (vram.byte(address), regs.latch);
    }
    let mode = regs.gfx[gfx::MODE];
    let odd_even = mode & gfx::HOST_ODD_EVEN != 0;
    let plane_address = if odd_even { address >> 1 } else { address };
    let mut bytes = [0; 4];
    vram.read(plane_address * 4, &mut bytes);
    let latch = u32::from_le_bytes(bytes);
    if mode & gfx::READ_COMPARE != 0 {
        let differs = (latch ^ spread(regs.gfx[gfx::COLOR_COMPARE])) & spread(regs.gfx[gfx::COLOR_DONT_CARE]);
        let [a, b, c, d] = differs.to_le_bytes();
        return (!(a | b | c | d), latch);
    }
    let map = regs.gfx[gfx::READ_MAP] & 3;
    let plane = if odd_even { map & 2 | u8::from(address & 1 != 0) } else { map };
    (bytes[usize::from(plane)], latch)
}

/// A byte written through the window.
pub(super) fn write(access: Access<'_>, vram: &RamBlock, offset: u64, value: u8) {
    let regs = access.regs;
    let Some(address) = access.address(offset) else { return };
    let mut planes = access.map_mask();
    if access.is_chain_4() {
        if planes >> (address & 3) & 1 != 0 {
            vram.set_byte(address, value);
        }
        return;
    }
    let mut plane_address = address;
    if regs.seq[seq::MEMORY_MODE] & seq::SEQUENTIAL == 0 {
        planes &= if address & 1 == 0 { 0b0101 } else { 0b1010 };
        plane_address >>= 1;
    }
    if planes == 0 {
        return;
    }
    let data = write_data(regs, value);
    let at = plane_address * 4;
    if planes == 15 {
        vram.write(at, &data.to_le_bytes());
        return;
    }
    let mask = spread(planes);
    let mut old = [0; 4];
    vram.read(at, &mut old);
    let new = u32::from_le_bytes(old) & !mask | data & mask;
    if new != u32::from_le_bytes(old) {
        vram.write(at, &new.to_le_bytes());
    }
}

/// What the four planes get for a byte from the CPU, by write mode (graphics mode register, bits 1-0).
fn write_data(regs: &Regs, value: u8) -> u32 {
    let set_reset = spread(regs.gfx[gfx::SET_RESET]);
    let rotate = u32::from(regs.gfx[gfx::DATA_ROTATE] & 7);
    let mut bit_mask = regs.gfx[gfx::BIT_MASK];
    let data = match regs.gfx[gfx::MODE] & 3 {
        0 => {
            let enabled = spread(regs.gfx[gfx::ENABLE_SET_RESET]);
            every_plane(value.rotate_right(rotate)) & !enabled | set_reset & enabled
        }
        1 => return regs.latch,
        2 => spread(value),
        _ => {
            bit_mask &= value.rotate_right(rotate);
            set_reset
        }
    };
    let data = match regs.gfx[gfx::DATA_ROTATE] >> 3 & 3 {
        0 => data,
        1 => data & regs.latch,
        2 => data | regs.latch,
        _ => data ^ regs.latch,
    };
    let mask = every_plane(bit_mask);
    data & mask | regs.latch & !mask
}

fn every_plane(byte: u8) -> u32 {
    u32::from(byte) * 0x0101_0101
}
