//! What string instructions do by the page: `rep movs` and `rep stos` on plain memory, upwards.
#![expect(unsafe_code)] // UNSAFE: guest memory by host address

use std::arch::asm;

use super::super::cpu::{Cpu, Fault};
use super::tlb::Entry;
use super::{Access, Who};

/// Units of `size` bytes from `inside` (an offset in a page) to the page's end.
fn room(inside: u64, size: u64) -> u64 {
    (0x1000 - (inside & 0xfff)) / size
}

impl Entry {
    /// Whether a whole piece of the page may be touched at once.
    fn is_plain(&self, access: Access) -> bool {
        let detour = if access == Access::Write { Self::READ_ONLY | Self::WATCHED } else { Self::WATCHED };
        self.host != 0 && self.flags & detour == 0
    }
}

impl Cpu {
    /// Copies upwards, unit by unit as `rep movs` does it, as many of `count` units of `size` (1, 2, 4, 8) bytes as lie
    /// in the first page of both places, and returns their number. 0: something needs attention for the next unit (a
    /// device, a page or segment boundary, a watched page), which the caller moves by [`Cpu::read`] and [`Cpu::write`].
    ///
    /// `from` and `to` are segments and offsets; the caller sees to it that neither offset goes beyond the address size.
    ///
    /// # Errors
    /// A page fault at the first unit; then nothing is copied.
    pub fn copy_units(&mut self, from: (u8, u64), to: (u8, u64), size: u64, count: u64) -> Result<u64, Fault> {
        let Some((source, count)) = self.units::<false>(from, size, count) else { return Ok(0) };
        let Some((target, count)) = self.units::<true>(to, size, count) else { return Ok(0) };
        let first = self.translation(source, Access::Read, Who::segment(from.0))?;
        let second = self.translation(target, Access::Write, Who::segment(to.0))?;
        if !first.is_plain(Access::Read) || !second.is_plain(Access::Write) {
            return Ok(0);
        }
        let (source, inside) = (first.host + (source & 0xfff), target & 0xfff);
        // SAFETY: both runs of units end within their pages, which the map in use keeps mapped; the second is writable.
        unsafe { copy(source, second.host + inside, size, count) };
        self.piece_stored(&second, inside, count * size);
        Ok(count)
    }

    /// Stores the low `size` bytes of `value` again and again, as [`Cpu::copy_units`] copies.
    ///
    /// # Errors
    /// As [`Cpu::copy_units`].
    pub fn fill_units(&mut self, to: (u8, u64), value: u64, size: u64, count: u64) -> Result<u64, Fault> {
        let Some((target, count)) = self.units::<true>(to, size, count) else { return Ok(0) };
        let entry = self.translation(target, Access::Write, Who::segment(to.0))?;
        if !entry.is_plain(Access::Write) {
            return Ok(0);
        }
        let inside = target & 0xfff;
        // SAFETY: the run of units ends within its page, which is writable and which the map in use keeps mapped.
        unsafe { fill(entry.host + inside, value, size, count) };
        self.piece_stored(&entry, inside, count * size);
        Ok(count)
    }

    /// The linear address of a place, and how many of `count` units there are before the next boundary. `None`: the next
    /// unit needs a closer look.
    fn units<const WRITE: bool>(&mut self, place: (u8, u64), size: u64, count: u64) -> Option<(u64, u64)> {
        let register = &self.segments[usize::from(place.0 & 7)];
        let (limit, usable) =
            if WRITE { (register.write_limit, register.writable) } else { (register.read_limit, register.readable) };
        let below = limit.checked_sub(place.1).filter(|_| usable)?;
        let linear = register.base.wrapping_add(place.1) & self.linear_mask;
        let whole = below.saturating_add(1) / size;
        let count = count.min(room(linear, size)).min(whole);
        (count != 0 && !self.mmu.alignment).then_some((linear, count))
    }
}

/// # Safety
/// Both places are mapped guest memory for `size * count` bytes, the second writable; `size` is 1, 2, 4 or 8.
unsafe fn copy(from: u64, to: u64, size: u64, count: u64) {
    macro_rules! movs {
        ($instruction:literal) => {
            // SAFETY: the caller vouches for the memory; the direction flag is clear in Rust code.
            unsafe {
                asm!($instruction, inout("rsi") from => _, inout("rdi") to => _, inout("rcx") count => _,
                     options(nostack, preserves_flags))
            }
        };
    }
    match size {
        1 => movs!("rep movsb"),
        2 => movs!("rep movsw"),
        4 => movs!("rep movsd"),
        _ => movs!("rep movsq"),
    }
}

/// # Safety
/// The place is mapped, writable guest memory for `size * count` bytes; `size` is 1, 2, 4 or 8.
unsafe fn fill(to: u64, value: u64, size: u64, count: u64) {
    macro_rules! stos {
        ($instruction:literal) => {
            // SAFETY: the caller vouches for the memory; the direction flag is clear in Rust code.
            unsafe {
                asm!($instruction, in("rax") value, inout("rdi") to => _, inout("rcx") count => _,
                     options(nostack, preserves_flags))
            }
        };
    }
    match size {
        1 => stos!("rep stosb"),
        2 => stos!("rep stosw"),
        4 => stos!("rep stosd"),
        _ => stos!("rep stosq"),
    }
}
