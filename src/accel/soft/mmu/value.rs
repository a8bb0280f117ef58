//! What the processor moves in one access, and how guest memory is touched: by single machine instructions on raw host
//! addresses. Other processors and devices change the memory at any time, so there are never references to it.
#![expect(unsafe_code)] // UNSAFE: guest memory by host address

use std::arch::asm;

/// An integer that the processor reads or writes in one access.
pub trait Value: Copy + Eq + std::fmt::Debug {
    /// Length in bytes.
    const LEN: usize;
    /// From the low bytes.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// Into the low bytes.
    fn to_bytes(self) -> [u8; 16];

    /// Reads memory by one instruction.
    ///
    /// # Safety
    /// `host .. host + LEN` is mapped guest memory.
    unsafe fn load(host: u64) -> Self;

    /// Writes memory by one instruction.
    ///
    /// # Safety
    /// As [`Value::load`].
    unsafe fn store(host: u64, value: Self);

    /// Replaces `old` by `new` by one locked instruction. `Err`: something else was there.
    ///
    /// # Safety
    /// As [`Value::load`]; for 16 bytes `host` is aligned to 16.
    unsafe fn exchange(host: u64, old: Self, new: Self) -> Result<(), Self>;
}

macro_rules! value {
    ($type:ty, $class:ident, $mov:literal, $read:literal, $exchange:literal, $accumulator:tt) => {
        impl Value for $type {
            const LEN: usize = size_of::<$type>();

            #[inline(always)]
            fn from_bytes(bytes: [u8; 16]) -> Self {
                u128::from_le_bytes(bytes) as $type
            }

            #[inline(always)]
            fn to_bytes(self) -> [u8; 16] {
                u128::from(self).to_le_bytes()
            }

            #[inline(always)]
            unsafe fn load(host: u64) -> Self {
                let value: $type;
                // SAFETY: the caller vouches for the memory; the instruction changes nothing else.
                unsafe {
                    asm!($read, value = out($class) value, host = in(reg) host,
                         options(nostack, preserves_flags, readonly));
                }
                value
            }

            #[inline(always)]
            unsafe fn store(host: u64, value: Self) {
                // SAFETY: the caller vouches for the memory; the instruction changes nothing else.
                unsafe {
                    asm!($mov, value = in($class) value, host = in(reg) host, options(nostack, preserves_flags));
                }
            }

            #[inline(always)]
            unsafe fn exchange(host: u64, old: Self, new: Self) -> Result<(), Self> {
                let found: $type;
                // SAFETY: the caller vouches for the memory; the instruction changes nothing else.
                unsafe {
                    asm!($exchange, new = in($class) new, host = in(reg) host,
                         inout($accumulator) old => found, options(nostack));
                }
                if found == old { Ok(()) } else { Err(found) }
            }
        }
    };
}

value!(
    u8,
    reg_byte,
    "mov byte ptr [{host}], {value}",
    "mov {value}, byte ptr [{host}]",
    "lock cmpxchg byte ptr [{host}], {new}",
    "al"
);
value!(
    u16,
    reg,
    "mov word ptr [{host}], {value:x}",
    "mov {value:x}, word ptr [{host}]",
    "lock cmpxchg word ptr [{host}], {new:x}",
    "ax"
);
value!(
    u32,
    reg,
    "mov dword ptr [{host}], {value:e}",
    "mov {value:e}, dword ptr [{host}]",
    "lock cmpxchg dword ptr [{host}], {new:e}",
    "eax"
);
value!(
    u64,
    reg,
    "mov qword ptr [{host}], {value}",
    "mov {value}, qword ptr [{host}]",
    "lock cmpxchg qword ptr [{host}], {new}",
    "rax"
);

impl Value for u128 {
    const LEN: usize = 16;

    #[inline(always)]
    fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        self.to_le_bytes()
    }

    #[inline(always)]
    unsafe fn load(host: u64) -> Self {
        let mut value = 0u128;
        // SAFETY: the caller vouches for the memory; `value` is this frame's.
        unsafe {
            asm!("movups {t}, [{host}]", "movups [{value}], {t}", t = out(xmm_reg) _, host = in(reg) host,
                 value = in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        value
    }

    #[inline(always)]
    unsafe fn store(host: u64, value: Self) {
        // SAFETY: the caller vouches for the memory; `value` is this frame's.
        unsafe {
            asm!("movups {t}, [{value}]", "movups [{host}], {t}", t = out(xmm_reg) _, host = in(reg) host,
                 value = in(reg) &raw const value, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn exchange(host: u64, old: Self, new: Self) -> Result<(), Self> {
        let (low, high): (u64, u64);
        // SAFETY: the caller vouches for the memory and its alignment; RBX, which the compiler keeps for itself, is put
        // back. The address has a register by name: the compiler may choose RBX itself for one that it chooses.
        unsafe {
            asm!("xchg rbx, {new}", "lock cmpxchg16b xmmword ptr [rdi]", "mov rbx, {new}",
                 new = inout(reg) new as u64 => _, in("rdi") host, in("rcx") (new >> 64) as u64,
                 inout("rax") old as u64 => low, inout("rdx") (old >> 64) as u64 => high, options(nostack));
        }
        let found = u128::from(high) << 64 | u128::from(low);
        if found == old { Ok(()) } else { Err(found) }
    }
}

/// Copies out of guest memory. 1, 2, 4, 8 and 16 bytes and the halves and quarters of 32 and 64 are each read by one
/// instruction.
///
/// # Safety
/// `host .. host + buf.len()` is mapped guest memory.
#[inline]
pub(super) unsafe fn copy_out(host: u64, buf: &mut [u8]) {
    match buf.len() {
        0 => {}
        // SAFETY: the caller's promise, for as many bytes.
        1 => buf[0] = unsafe { u8::load(host) },
        // SAFETY: the caller's promise, for as many bytes.
        2 => buf.copy_from_slice(&unsafe { u16::load(host) }.to_le_bytes()),
        // SAFETY: the caller's promise, for as many bytes.
        4 => buf.copy_from_slice(&unsafe { u32::load(host) }.to_le_bytes()),
        // SAFETY: the caller's promise, for as many bytes.
        8 => buf.copy_from_slice(&unsafe { u64::load(host) }.to_le_bytes()),
        16 | 32 | 64 => {
            for (piece, at) in buf.chunks_exact_mut(16).zip((0u64..).step_by(16)) {
                // SAFETY: the caller's promise; the piece is within `buf`.
                piece.copy_from_slice(&unsafe { u128::load(host + at) }.to_le_bytes());
            }
        }
        // SAFETY: the caller's promise; `buf` is as long.
        len => unsafe { copy_bytes(host, buf.as_mut_ptr() as u64, len) },
    }
}

/// Copies into guest memory, as [`copy_out`].
///
/// # Safety
/// As [`copy_out`].
#[inline]
pub(super) unsafe fn copy_in(host: u64, buf: &[u8]) {
    match *buf {
        [] => {}
        // SAFETY: the caller's promise, for as many bytes.
        [a] => unsafe { u8::store(host, a) },
        // SAFETY: the caller's promise, for as many bytes.
        [a, b] => unsafe { u16::store(host, u16::from_le_bytes([a, b])) },
        // SAFETY: the caller's promise, for as many bytes.
        [a, b, c, d] => unsafe { u32::store(host, u32::from_le_bytes([a, b, c, d])) },
        // SAFETY: the caller's promise, for as many bytes.
        [a, b, c, d, e, f, g, h] => unsafe { u64::store(host, u64::from_le_bytes([a, b, c, d, e, f, g, h])) },
        _ if matches!(buf.len(), 16 | 32 | 64) => {
            let (pieces, _) = buf.as_chunks::<16>();
            for (piece, at) in pieces.iter().zip((0u64..).step_by(16)) {
                // SAFETY: the caller's promise; the piece is within `buf`.
                unsafe { u128::store(host + at, u128::from_le_bytes(*piece)) };
            }
        }
        // SAFETY: the caller's promise; `buf` is as long.
        _ => unsafe { copy_bytes(buf.as_ptr() as u64, host, buf.len()) },
    }
}

/// `rep movsb`: copies upwards, byte by byte as far as anybody can tell.
///
/// # Safety
/// Both places are mapped memory that may be copied: guest memory, or a buffer of the caller.
pub(super) unsafe fn copy_bytes(from: u64, to: u64, len: usize) {
    // SAFETY: the caller vouches for the memory; the direction flag is clear in Rust code.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _,
             options(nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_width_loads_stores_and_exchanges() {
        #[repr(align(16))]
        struct Place([u8; 64]);
        let mut place = Place([0; 64]);
        let host = place.0.as_mut_ptr() as u64;
        // SAFETY: every address below is within `place`, which nobody else uses; 16-byte exchanges are at its start.
        unsafe {
            u64::store(host + 3, 0x1122_3344_5566_7788);
            assert_eq!(u8::load(host + 3), 0x88);
            assert_eq!(u16::load(host + 4), 0x6677);
            assert_eq!(u32::load(host + 5), 0x3344_5566);
            assert_eq!(u8::exchange(host + 3, 0x88, 0x99), Ok(()));
            assert_eq!(u16::exchange(host + 3, 0x88, 0), Err(0x7799));
            assert_eq!(u32::exchange(host + 3, 0x5566_7799, 1), Ok(()));
            assert_eq!(u64::load(host + 3), 0x1122_3344_0000_0001);
            u128::store(host, 5 << 100 | 7);
            assert_eq!(u128::exchange(host, 5 << 100 | 7, 6 << 64 | 1 << 127 | 9), Ok(()));
            assert_eq!(u128::exchange(host, 1, 2), Err(6 << 64 | 1 << 127 | 9));
            assert_eq!(u128::load(host), 6 << 64 | 1 << 127 | 9);
        }
    }

    #[test]
    fn copies_of_any_length_go_both_ways() {
        let pattern: Vec<u8> = (0..100u8).collect();
        let mut place = vec![0u8; 200];
        let host = place.as_mut_ptr() as u64;
        for len in 0..100 {
            let mut back = vec![0; len];
            // SAFETY: both are within `place`, which nobody else uses.
            unsafe {
                copy_in(host + 1, &pattern[..len]);
                copy_out(host + 1, &mut back);
            }
            assert_eq!(back, &pattern[..len]);
        }
    }
}
