//! Memory as text: `x`, `xp`, `print`, and instructions in AT&T syntax as QEMU's disassembler prints them.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions};

use crate::cpu::{Disassembler, disassembly_line};

/// The format letter of `/fmt`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `x`
    Hex,
    /// `d`
    Decimal,
    /// `u`
    Unsigned,
    /// `o`
    Octal,
    /// `c`
    Char,
    /// `i`
    Instruction,
}

/// Longest instruction.
const MAX_INSTRUCTION: usize = 15;

/// A character as QEMU quotes it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

/// C's `%#o`.
fn octal(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { format!("0{value:o}") }
}

/// The text of `print`.
#[must_use]
pub fn value_text(value: u64, format: Format) -> String {
    match format {
        Format::Octal => octal(value) + "\n",
        // C's `%#x`: no prefix for zero.
        Format::Hex if value == 0 => "0\n".to_owned(),
        Format::Hex => format!("{value:#x}\n"),
        Format::Unsigned => format!("{value}\n"),
        Format::Decimal | Format::Instruction => format!("{}\n", value.cast_signed()),
        Format::Char => quoted(u8::try_from(value & 0xff).unwrap_or(0)) + "\n",
    }
}

/// Reads memory at an address; returns whether all of it could be read.
pub type ReadMemory<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// The text of `x` and `xp`: `count` units of `size` bytes.
#[must_use]
pub fn memory_text(read: ReadMemory<'_>, start: u64, count: u64, size: usize, format: Format) -> String {
    let mut out = String::new();
    let mut left = count.saturating_mul(size as u64);
    let line_size: u64 = if size == 1 { 8 } else { 16 };
    let bits = size * 8;
    let unit = if format == Format::Char { 1 } else { size };
    let mut at = start;
    while left > 0 {
        let _ = write!(out, "{at:016x}:");
        let len = left.min(line_size);
        let mut line = [0; 16];
        let line = &mut line[..usize::try_from(len).unwrap_or(0)];
        if !read(at, line) {
            out.push_str(" Cannot access memory\n");
            break;
        }
        for piece in line.chunks(unit) {
            let mut wide = [0; 8];
            wide[..piece.len()].copy_from_slice(piece);
            let value = u64::from_le_bytes(wide);
            let _ = match format {
                Format::Octal => write!(out, " {:>1$}", octal(value), bits.div_ceil(3)),
                Format::Hex | Format::Instruction => write!(out, " 0x{value:00$x}", bits / 4),
                Format::Unsigned => write!(out, " {value:>0$}", (bits * 10).div_ceil(33)),
                Format::Decimal => write!(out, " {:>1$}", value.cast_signed(), (bits * 10).div_ceil(33)),
                Format::Char => write!(out, " {}", quoted(piece[0])),
            };
        }
        out.push('\n');
        at = at.wrapping_add(len);
        left -= len;
    }
    out
}

/// The text of `x /i` and `xp /i`: `count` instructions of code with this many bits.
#[must_use]
pub fn instructions_text(read: ReadMemory<'_>, start: u64, count: u64, bits: u32) -> String {
    let mut out = String::new();
    let mut at = start;
    let mut disassembler = Disassembler::default();
    for _ in 0..count {
        let mut code = [0; MAX_INSTRUCTION];
        let known = (1..=MAX_INSTRUCTION).rev().find(|len| read(at, &mut code[..*len])).unwrap_or(0);
        let mut decoder = Decoder::with_ip(bits, &code[..known], at, DecoderOptions::NONE);
        if known == 0 {
            let _ = writeln!(out, "0x{at:08x}: unable to read memory");
            break;
        }
        let instruction = decoder.decode();
        let (len, text) = if instruction.is_invalid() {
            (1, format!("{:<8} 0x{:02x}", ".byte", code[0]))
        } else {
            (instruction.len(), disassembler.text(&instruction))
        };
        out.push_str(&disassembly_line(at, &code[..len], &text));
        at = at.wrapping_add(len as u64);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROM: [u8; 16] =
        [0xea, 0x5b, 0xe0, 0x00, 0xf0, 0x30, 0x36, 0x2f, 0x32, 0x33, 0x2f, 0x39, 0x39, 0x00, 0xfc, 0x00];

    /// SeaBIOS's last 16 bytes below 1 MiB, zeros above, nothing below.
    fn rom(at: u64, buf: &mut [u8]) -> bool {
        for (i, byte) in buf.iter_mut().enumerate() {
            let Some(offset) = (at + i as u64).checked_sub(0xf_fff0) else { return false };
            *byte = usize::try_from(offset).ok().and_then(|offset| ROM.get(offset)).copied().unwrap_or(0);
        }
        true
    }

    fn x(count: u64, size: usize, format: Format) -> String {
        memory_text(&rom, 0xf_fff0, count, size, format)
    }

    #[test]
    fn memory_looks_as_in_qemu() {
        assert_eq!(x(2, 4, Format::Hex), "00000000000ffff0: 0x00e05bea 0x2f3630f0\n");
        assert_eq!(x(4, 2, Format::Hex), "00000000000ffff0: 0x5bea 0x00e0 0x30f0 0x2f36\n");
        assert_eq!(
            x(16, 1, Format::Hex),
            "00000000000ffff0: 0xea 0x5b 0xe0 0x00 0xf0 0x30 0x36 0x2f\n\
             00000000000ffff8: 0x32 0x33 0x2f 0x39 0x39 0x00 0xfc 0x00\n"
        );
        assert_eq!(
            x(3, 8, Format::Decimal),
            "00000000000ffff0:  3401960375889976298    70931939903615794\n\
             0000000000100000:                    0\n"
        );
        assert_eq!(
            x(3, 8, Format::Octal),
            "00000000000ffff0: 0274661417000070055752   03740003447113631462\n\
             0000000000100000:                      0\n"
        );
        assert_eq!(x(3, 4, Format::Octal), "00000000000ffff0:   070055752 05715430360 07113631462\n");
        assert_eq!(x(3, 2, Format::Octal), "00000000000ffff0: 055752   0340 030360\n");
        assert_eq!(x(3, 1, Format::Octal), "00000000000ffff0: 0352 0133 0340\n");
        assert_eq!(x(3, 1, Format::Unsigned), "00000000000ffff0: 234  91 224\n");
        assert_eq!(x(4, 2, Format::Decimal), "00000000000ffff0: 23530   224 12528 12086\n");
        assert_eq!(x(3, 2, Format::Char), "00000000000ffff0: '\\xea' '[' '\\xe0' '\\x00' '\\xf0' '0'\n");
        assert_eq!(memory_text(&rom, 0, 1, 4, Format::Hex), "0000000000000000: Cannot access memory\n");
        assert_eq!(x(0, 4, Format::Hex), "");
    }

    #[test]
    fn values_look_as_in_qemu() {
        assert_eq!(value_text(16, Format::Hex), "0x10\n");
        assert_eq!(value_text(0, Format::Hex), "0\n");
        assert_eq!(value_text(u64::MAX, Format::Decimal), "-1\n");
        assert_eq!(value_text(u64::MAX, Format::Unsigned), "18446744073709551615\n");
        assert_eq!(value_text(8, Format::Octal), "010\n");
        assert_eq!(value_text(0, Format::Octal), "0\n");
        assert_eq!(value_text(65, Format::Char), "'A'\n");
        assert_eq!(value_text(10, Format::Char), "'\\n'\n");
        assert_eq!(value_text(200, Format::Char), "'\\xc8'\n");
        assert_eq!(value_text(5, Format::Instruction), "5\n");
    }

    fn disassemble(code: &[u8], bits: u32) -> Vec<String> {
        let read = |at: u64, buf: &mut [u8]| {
            let at = usize::try_from(at - 0x10_0000).unwrap();
            match code.get(at..at + buf.len()) {
                Some(bytes) => {
                    buf.copy_from_slice(bytes);
                    true
                }
                None => false,
            }
        };
        let text = instructions_text(&read, 0x10_0000, 100, bits);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert!(lines.pop().unwrap().ends_with(": unable to read memory"));
        lines
    }

    #[test]
    fn instructions_of_16_bits_look_as_in_qemu() {
        assert_eq!(
            instructions_text(&rom, 0xf_fff0, 4, 16),
            "0x000ffff0:  ea 5b e0 00 f0           ljmpw    $0xf000:$0xe05b\n\
             0x000ffff5:  30 36 2f 32              xorb     %dh, 0x322f\n\
             0x000ffff9:  33 2f                    xorw     (%bx), %bp\n\
             0x000ffffb:  39 39                    cmpw     %di, (%bx, %di)\n"
        );
    }

    #[test]
    fn instructions_of_32_bits_look_as_in_qemu() {
        let code = [
            0xbc, 0x00, 0x50, 0x10, 0x00, 0x81, 0x3b, 0x78, 0xc5, 0x6e, 0x33, 0x75, 0x67, 0xc7, 0x87, 0x00, 0x10, 0x00,
            0x00, 0x03, 0x30, 0x10, 0x00, 0xb9, 0x00, 0x00, 0x00, 0x00, 0x89, 0x84, 0xcf, 0x00, 0x20, 0x00, 0x00, 0x41,
            0x0f, 0x22, 0xdf, 0x0f, 0x32, 0x0f, 0x01, 0x15, 0xe0, 0x00, 0x10, 0x00, 0xea, 0x79, 0x00, 0x10, 0x00, 0x08,
            0x00, 0xd0, 0x8b, 0x00, 0xc3, 0x88, 0xc1, 0x3c, 0x10, 0xc3, 0x94,
        ];
        assert_eq!(
            disassemble(&code, 32),
            [
                "0x00100000:  bc 00 50 10 00           movl     $0x105000, %esp",
                "0x00100005:  81 3b 78 c5 6e 33        cmpl     $0x336ec578, (%ebx)",
                "0x0010000b:  75 67                    jne      0x100074",
                "0x0010000d:  c7 87 00 10 00 00 03 30  movl     $0x103003, 0x1000(%edi)",
                "0x00100015:  10 00",
                "0x00100017:  b9 00 00 00 00           movl     $0, %ecx",
                "0x0010001c:  89 84 cf 00 20 00 00     movl     %eax, 0x2000(%edi, %ecx, 8)",
                "0x00100023:  41                       incl     %ecx",
                "0x00100024:  0f 22 df                 movl     %edi, %cr3",
                "0x00100027:  0f 32                    rdmsr    ",
                "0x00100029:  0f 01 15 e0 00 10 00     lgdtl    0x1000e0",
                "0x00100030:  ea 79 00 10 00 08 00     ljmpl    $0x8:$0x100079",
                "0x00100037:  d0 8b 00 c3 88 c1        rorb     $1, -0x3e773d00(%ebx)",
                "0x0010003d:  3c 10                    cmpb     $0x10, %al",
                "0x0010003f:  c3                       retl     ",
                "0x00100040:  94                       xchgl    %esp, %eax",
            ]
        );
    }

    #[test]
    fn instructions_of_64_bits_look_as_in_qemu() {
        let code = [
            0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xea, 0x48, 0xc1, 0xe8, 0x20, 0x0f, 0x20, 0xe0,
            0x48, 0x8b, 0x73, 0x18, 0xe8, 0x25, 0x00, 0x00, 0x00, 0x0f, 0x01, 0x15, 0xe0, 0x00, 0x10, 0x00, 0x90, 0xf4,
        ];
        assert_eq!(
            disassemble(&code, 64),
            [
                "0x00100000:  48 b8 88 77 66 55 44 33  movabsq  $0x1122334455667788, %rax",
                "0x00100008:  22 11",
                "0x0010000a:  ea                       .byte    0xea",
                "0x0010000b:  48 c1 e8 20              shrq     $0x20, %rax",
                "0x0010000f:  0f 20 e0                 movq     %cr4, %rax",
                "0x00100012:  48 8b 73 18              movq     0x18(%rbx), %rsi",
                "0x00100016:  e8 25 00 00 00           callq    0x100040",
                "0x0010001b:  0f 01 15 e0 00 10 00     lgdtq    0x1000e0(%rip)",
                "0x00100022:  90                       nop      ",
                "0x00100023:  f4                       hlt      ",
            ]
        );
    }
}
