//! The registers as gdb numbers them: QEMU's layout of a 64-bit x86, and the description that tells gdb so.
//!
//! The names are those of gdb's features (gdb manual, G.5.8 "x86 features"). In code that is not 64-bit the upper halves
//! and R8-R15, XMM8-XMM15 read as zero and do not change, as in QEMU.

use crate::cpu::{CpuState, Mode};

/// IA32_KERNEL_GS_BASE.
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Places in the XSAVE area (SDM volume 1 table 10-2, section 13.4.2).
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FCS: usize = 12;
const FDP: usize = 16;
const FDS: usize = 20;
const MXCSR: usize = 24;
const ST0: usize = 32;
const XMM0: usize = 160;
const XSTATE_BV: usize = 512;

/// One register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// Index in [`CpuState::gpr`].
    General(u8),
    Rip,
    Eflags,
    /// Index in [`CpuState::segments`].
    Segment(u8),
    FsBase,
    GsBase,
    KernelGsBase,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
    /// From the top of the stack.
    St(u8),
    /// A part of the x87 environment.
    X87(X87),
    Xmm(u8),
    Mxcsr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum X87 {
    Control,
    Status,
    Tag,
    InstructionSegment,
    InstructionOffset,
    OperandSegment,
    OperandOffset,
    Opcode,
}

const GENERAL: [(&str, u8); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];

const SEGMENTS: [(&str, u8); 6] = [("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5)];

const WIDE: [(&str, Register, &str); 9] = [
    ("fs_base", Register::FsBase, "int64"),
    ("gs_base", Register::GsBase, "int64"),
    ("k_gs_base", Register::KernelGsBase, "int64"),
    ("cr0", Register::Cr0, "x64_cr0"),
    ("cr2", Register::Cr2, "int64"),
    ("cr3", Register::Cr3, "x64_cr3"),
    ("cr4", Register::Cr4, "x64_cr4"),
    ("cr8", Register::Cr8, "int64"),
    ("efer", Register::Efer, "x64_efer"),
];

const X87_PARTS: [(&str, X87); 8] = [
    ("fctrl", X87::Control),
    ("fstat", X87::Status),
    ("ftag", X87::Tag),
    ("fiseg", X87::InstructionSegment),
    ("fioff", X87::InstructionOffset),
    ("foseg", X87::OperandSegment),
    ("fooff", X87::OperandOffset),
    ("fop", X87::Opcode),
];

/// A register as the description shows it.
struct Entry {
    name: String,
    register: Register,
    kind: &'static str,
    group: &'static str,
}

/// All registers, in the order of their numbers.
fn entries() -> Vec<Entry> {
    let entry = |name: &str, register, kind, group| Entry { name: name.to_owned(), register, kind, group };
    let mut all = Vec::new();
    for (name, index) in GENERAL {
        let kind = if matches!(name, "rbp" | "rsp") { "data_ptr" } else { "int64" };
        all.push(entry(name, Register::General(index), kind, ""));
    }
    all.push(entry("rip", Register::Rip, "code_ptr", ""));
    all.push(entry("eflags", Register::Eflags, "x64_eflags", ""));
    all.extend(SEGMENTS.map(|(name, index)| entry(name, Register::Segment(index), "int32", "")));
    all.extend(WIDE.map(|(name, register, kind)| entry(name, register, kind, "")));
    all.extend((0..8).map(|n| entry(&format!("st{n}"), Register::St(n), "i387_ext", "")));
    all.extend(X87_PARTS.map(|(name, part)| entry(name, Register::X87(part), "int", "float")));
    all.extend((0..16).map(|n| entry(&format!("xmm{n}"), Register::Xmm(n), "vec128", "")));
    all.push(entry("mxcsr", Register::Mxcsr, "x64_mxcsr", "vector"));
    all
}

/// All registers, in the order of their numbers.
pub(super) fn all() -> impl Iterator<Item = Register> {
    entries().into_iter().map(|entry| entry.register)
}

fn word<const N: usize>(state: &CpuState, at: usize) -> [u8; N] {
    state.xsave.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn put(state: &mut CpuState, at: usize, bytes: &[u8]) {
    if let Some(place) = state.xsave.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
    // XRSTOR takes the parts that the header names: x87 and SSE.
    if let Some(header) = state.xsave.get_mut(XSTATE_BV) {
        *header |= 3;
    }
}

impl Register {
    pub(super) fn by_number(number: usize) -> Option<Self> {
        all().nth(number)
    }

    /// In bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Eflags | Self::Segment(_) | Self::X87(_) | Self::Mxcsr => 4,
            Self::St(_) => 10,
            Self::Xmm(_) => 16,
            _ => 8,
        }
    }

    fn only_in_64_bit_code(self) -> bool {
        matches!(self, Self::General(8..) | Self::Xmm(8..))
    }

    /// Its value, little-endian.
    pub(super) fn read(self, state: &CpuState) -> Vec<u8> {
        let wide = state.mode() == Mode::Long64;
        if self.only_in_64_bit_code() && !wide {
            return vec![0; self.size()];
        }
        let value = match self {
            Self::General(index) => state.gpr[usize::from(index)],
            Self::Rip => state.rip,
            Self::Eflags => state.rflags,
            Self::Segment(index) => u64::from(state.segments[usize::from(index)].selector),
            Self::FsBase => state.segments[4].base,
            Self::GsBase => state.segments[5].base,
            Self::KernelGsBase => {
                state.msrs.iter().find(|(n, _)| *n == MSR_KERNEL_GS_BASE).map_or(0, |(_, value)| *value)
            }
            Self::Cr0 => state.cr0,
            Self::Cr2 => state.cr2,
            Self::Cr3 => state.cr3,
            Self::Cr4 => state.cr4,
            Self::Cr8 => state.cr8,
            Self::Efer => state.efer,
            Self::St(index) => return word::<10>(state, ST0 + 16 * usize::from(index)).to_vec(),
            Self::X87(part) => u64::from(part.read(state)),
            Self::Xmm(index) => return word::<16>(state, XMM0 + 16 * usize::from(index)).to_vec(),
            Self::Mxcsr => u64::from(u32::from_le_bytes(word(state, MXCSR))),
        };
        let value = if wide { value } else { value & 0xffff_ffff };
        value.to_le_bytes()[..self.size()].to_vec()
    }

    /// Changes it; what belongs to a segment besides its selector is for the caller. `bytes` has the register's size.
    pub(super) fn write(self, state: &mut CpuState, bytes: &[u8]) {
        let wide = state.mode() == Mode::Long64;
        if self.only_in_64_bit_code() && !wide {
            return;
        }
        let mut value = [0; 8];
        let len = bytes.len().min(8);
        value[..len].copy_from_slice(&bytes[..len]);
        let value = u64::from_le_bytes(value);
        let low = u16::try_from(value & 0xffff).unwrap_or(0);
        match self {
            Self::General(index) => state.gpr[usize::from(index)] = if wide { value } else { value & 0xffff_ffff },
            Self::Rip => state.rip = if wide { value } else { value & 0xffff_ffff },
            // Bit 1 is always one (SDM volume 1 section 3.4.3).
            Self::Eflags => state.rflags = value & 0xffff_ffff | 2,
            Self::Segment(index) => state.segments[usize::from(index)].selector = low,
            Self::FsBase => state.segments[4].base = value,
            Self::GsBase => state.segments[5].base = value,
            Self::KernelGsBase => {
                if let Some((_, old)) = state.msrs.iter_mut().find(|(n, _)| *n == MSR_KERNEL_GS_BASE) {
                    *old = value;
                }
            }
            Self::Cr0 => state.cr0 = value,
            Self::Cr2 => state.cr2 = value,
            Self::Cr3 => state.cr3 = value,
            Self::Cr4 => state.cr4 = value,
            Self::Cr8 => state.cr8 = value,
            Self::Efer => state.efer = value,
            Self::St(index) => put(state, ST0 + 16 * usize::from(index), bytes),
            Self::X87(part) => part.write(state, value),
            Self::Xmm(index) => put(state, XMM0 + 16 * usize::from(index), bytes),
            Self::Mxcsr => put(state, MXCSR, &bytes[..len.min(4)]),
        }
    }
}

impl X87 {
    /// Where it is in the XSAVE area, and how many bytes of it are used.
    fn place(self) -> (usize, usize) {
        match self {
            Self::Control => (FCW, 2),
            Self::Status => (FSW, 2),
            Self::Tag => (FTW, 1),
            Self::InstructionSegment => (FCS, 2),
            Self::InstructionOffset => (FIP, 4),
            Self::OperandSegment => (FDS, 2),
            Self::OperandOffset => (FDP, 4),
            Self::Opcode => (FOP, 2),
        }
    }

    fn read(self, state: &CpuState) -> u32 {
        if self == Self::Tag {
            return full_tag(state);
        }
        let (at, len) = self.place();
        let value = u32::from_le_bytes(word(state, at));
        if len == 2 { value & 0xffff } else { value }
    }

    fn write(self, state: &mut CpuState, value: u64) {
        let (at, len) = self.place();
        let value = match self {
            // Two bits a register become one: not empty.
            Self::Tag => (0..8).filter(|n| value >> (2 * n) & 3 != 3).fold(0, |tags, n| tags | 1 << n),
            _ => value,
        };
        put(state, at, &value.to_le_bytes()[..len]);
    }
}

/// The tag word with two bits a register (SDM volume 1 section 8.1.7): 0 valid, 1 zero, 2 special, 3 empty.
fn full_tag(state: &CpuState) -> u32 {
    let [abridged] = word(state, FTW);
    let top = u16::from_le_bytes(word(state, FSW)) >> 11 & 7;
    (0..8u16).fold(0, |tags, physical| {
        let place = usize::from(physical.wrapping_sub(top) & 7);
        let mantissa = u64::from_le_bytes(word(state, ST0 + 16 * place));
        let exponent = u16::from_le_bytes(word(state, ST0 + 16 * place + 8)) & 0x7fff;
        let tag: u32 = match (abridged >> physical & 1, exponent, mantissa) {
            (0, ..) => 3,
            (_, 0, 0) => 1,
            (_, 1..0x7fff, _) if mantissa >> 63 == 1 => 0,
            _ => 2,
        };
        tags | tag << (2 * physical)
    })
}

/// The bits of a register: name, first, last.
type Flags = (&'static str, u8, &'static [(&'static str, u8, u8)]);

const EFLAGS: Flags = (
    "x64_eflags",
    4,
    &[
        ("", 22, 31),
        ("ID", 21, 21),
        ("VIP", 20, 20),
        ("VIF", 19, 19),
        ("AC", 18, 18),
        ("VM", 17, 17),
        ("RF", 16, 16),
        ("", 15, 15),
        ("NT", 14, 14),
        ("IOPL", 12, 13),
        ("OF", 11, 11),
        ("DF", 10, 10),
        ("IF", 9, 9),
        ("TF", 8, 8),
        ("SF", 7, 7),
        ("ZF", 6, 6),
        ("", 5, 5),
        ("AF", 4, 4),
        ("", 3, 3),
        ("PF", 2, 2),
        ("", 1, 1),
        ("CF", 0, 0),
    ],
);
const CR0: Flags = (
    "x64_cr0",
    8,
    &[
        ("PG", 31, 31),
        ("CD", 30, 30),
        ("NW", 29, 29),
        ("AM", 18, 18),
        ("WP", 16, 16),
        ("NE", 5, 5),
        ("ET", 4, 4),
        ("TS", 3, 3),
        ("EM", 2, 2),
        ("MP", 1, 1),
        ("PE", 0, 0),
    ],
);
const CR3: Flags = ("x64_cr3", 8, &[("PDBR", 12, 63), ("PCID", 0, 11)]);
const CR4: Flags = (
    "x64_cr4",
    8,
    &[
        ("PKE", 22, 22),
        ("SMAP", 21, 21),
        ("SMEP", 20, 20),
        ("OSXSAVE", 18, 18),
        ("PCIDE", 17, 17),
        ("FSGSBASE", 16, 16),
        ("SMXE", 14, 14),
        ("VMXE", 13, 13),
        ("LA57", 12, 12),
        ("UMIP", 11, 11),
        ("OSXMMEXCPT", 10, 10),
        ("OSFXSR", 9, 9),
        ("PCE", 8, 8),
        ("PGE", 7, 7),
        ("MCE", 6, 6),
        ("PAE", 5, 5),
        ("PSE", 4, 4),
        ("DE", 3, 3),
        ("TSD", 2, 2),
        ("PVI", 1, 1),
        ("VME", 0, 0),
    ],
);
const EFER: Flags = (
    "x64_efer",
    8,
    &[
        ("TCE", 15, 15),
        ("FFXSR", 14, 14),
        ("LMSLE", 13, 13),
        ("SVME", 12, 12),
        ("NXE", 11, 11),
        ("LMA", 10, 10),
        ("LME", 8, 8),
        ("SCE", 0, 0),
    ],
);
const MXCSR_FLAGS: Flags = (
    "x64_mxcsr",
    4,
    &[
        ("IE", 0, 0),
        ("DE", 1, 1),
        ("ZE", 2, 2),
        ("OE", 3, 3),
        ("UE", 4, 4),
        ("PE", 5, 5),
        ("DAZ", 6, 6),
        ("IM", 7, 7),
        ("DM", 8, 8),
        ("ZM", 9, 9),
        ("OM", 10, 10),
        ("UM", 11, 11),
        ("PM", 12, 12),
        ("FZ", 15, 15),
    ],
);

/// The lanes of an XMM register: the union's field, the vector's name, element and count.
const LANES: [(&str, &str, &str, u8); 6] = [
    ("v4_float", "v4f", "ieee_single", 4),
    ("v2_double", "v2d", "ieee_double", 2),
    ("v16_int8", "v16i8", "int8", 16),
    ("v8_int16", "v8i16", "int16", 8),
    ("v4_int32", "v4i32", "int32", 4),
    ("v2_int64", "v2i64", "int64", 2),
];

const HEAD: &str = "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n";

fn flags(out: &mut String, (id, size, fields): Flags) {
    out.push_str(&format!("<flags id=\"{id}\" size=\"{size}\">\n"));
    for (name, start, end) in fields {
        out.push_str(&format!("<field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>\n"));
    }
    out.push_str("</flags>\n");
}

fn vectors(out: &mut String) {
    for (_, id, element, count) in LANES {
        out.push_str(&format!("<vector id=\"{id}\" type=\"{element}\" count=\"{count}\"/>\n"));
    }
    out.push_str("<union id=\"vec128\">\n");
    for (field, id, ..) in LANES {
        out.push_str(&format!("<field name=\"{field}\" type=\"{id}\"/>\n"));
    }
    out.push_str("<field name=\"uint128\" type=\"uint128\"/>\n</union>\n");
}

/// The documents that gdb can ask for; `None`: there is no such document.
pub(super) fn description(name: &[u8]) -> Option<String> {
    let mut out = HEAD.to_owned();
    match name {
        b"target.xml" => out.push_str(
            "<target><architecture>i386:x86-64</architecture><xi:include href=\"i386-64bit.xml\"/></target>\n",
        ),
        b"i386-64bit.xml" => {
            out.push_str("<feature name=\"org.gnu.gdb.i386.core\">\n");
            for register in [EFLAGS, CR0, CR3, CR4, EFER] {
                flags(&mut out, register);
            }
            vectors(&mut out);
            flags(&mut out, MXCSR_FLAGS);
            for (number, entry) in entries().iter().enumerate() {
                let bits = 8 * entry.register.size();
                let number = if number == 0 { " regnum=\"0\"" } else { "" };
                let group = if entry.group.is_empty() { String::new() } else { format!(" group=\"{}\"", entry.group) };
                let (name, kind) = (&entry.name, entry.kind);
                out.push_str(&format!("<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"{number}{group}/>\n"));
            }
            out.push_str("</feature>\n");
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long() -> CpuState {
        let mut state = CpuState::power_on(0x663);
        state.cr0 |= 1;
        state.efer = 0x500;
        state.segments[1].attributes = 0xa09b;
        state.msrs = vec![(MSR_KERNEL_GS_BASE, 7)];
        state
    }

    #[test]
    fn the_numbers_are_qemus() {
        // From `p` packets of QEMU 10.0.2.
        let at = |number| Register::by_number(number);
        assert_eq!(at(0x10), Some(Register::Rip));
        assert_eq!(at(0x12), Some(Register::Segment(1)));
        assert_eq!(at(0x1b), Some(Register::Cr0));
        assert_eq!(at(0x29), Some(Register::X87(X87::Control)));
        assert_eq!(at(0x41), Some(Register::Mxcsr));
        assert_eq!(at(0x42), None);
        assert_eq!(all().map(Register::size).sum::<usize>(), 608);
    }

    #[test]
    fn every_register_keeps_what_is_written() {
        for register in all().filter(|r| *r != Register::X87(X87::Tag)) {
            let mut state = long();
            let mut value = vec![0; register.size()];
            value[0] = 0x22;
            if register == Register::Eflags {
                value[0] = 0x46;
            }
            register.write(&mut state, &value);
            assert_eq!(register.read(&state), value, "{register:?}");
        }
        // XRSTOR shall take it.
        let mut state = long();
        Register::Xmm(3).write(&mut state, &[1; 16]);
        assert_eq!(state.xsave[XSTATE_BV] & 3, 3);
    }

    #[test]
    fn outside_64_bit_code_the_upper_halves_are_not_there() {
        let mut state = CpuState::power_on(0x663);
        state.gpr[0] = 0x1234_5678_9abc_def0;
        state.gpr[8] = 1;
        assert_eq!(Register::General(0).read(&state), [0xf0, 0xde, 0xbc, 0x9a, 0, 0, 0, 0]);
        Register::General(8).write(&mut state, &[9; 8]);
        assert_eq!((Register::General(8).read(&state), state.gpr[8]), (vec![0; 8], 1));
    }

    #[test]
    fn the_tag_word_names_what_each_register_holds() {
        let mut state = long();
        assert_eq!(X87::Tag.read(&state), 0xffff);
        // TOP is 6: ST0 is register 6 and holds 1.0, ST1 is register 7 and holds zero.
        state.xsave[FSW + 1] = 6 << 3;
        state.xsave[FTW] = 0xc0;
        state.xsave[ST0 + 7] = 0x80;
        state.xsave[ST0 + 8..ST0 + 10].copy_from_slice(&0x3fffu16.to_le_bytes());
        assert_eq!(X87::Tag.read(&state), 0x4fff);
        X87::Tag.write(&mut state, 0x3fff);
        assert_eq!(state.xsave[FTW], 0x80);
    }

    #[test]
    fn the_description_names_every_register_once() {
        let text = description(b"i386-64bit.xml").unwrap();
        assert_eq!(text.matches("<reg ").count(), all().count());
        assert!(text.contains("<reg name=\"rax\" bitsize=\"64\" type=\"int64\" regnum=\"0\"/>"));
        assert!(description(b"target.xml").unwrap().contains("href=\"i386-64bit.xml\""));
        assert!(description(b"other.xml").is_none());
    }
}
