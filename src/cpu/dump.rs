//! Registers as text, in the form that QEMU's `info registers`, its error reports and `-d cpu` have.
//!
//! Layout of the XSAVE area: Intel SDM volume 1, 10.5.1 (legacy region) and 13.4.3 (AVX state in standard form).

use std::fmt::Write as _;

use super::state::{APIC_BASE_BSP, CpuState, Mode, MpState, Segment};

const NAMES_32: [&str; 8] = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];
const NAMES_64: [&str; 8] = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"];
/// The order in which they are printed.
const ORDER: [usize; 8] = [0, 3, 1, 2, 6, 7, 5, 4];
const SEGMENT_NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// The types of system descriptors (SDM volume 3 table 3-2), in legacy and in long mode.
const SYSTEM_TYPES: [[&str; 16]; 2] = [
    [
        "Reserved",
        "TSS16-avl",
        "LDT",
        "TSS16-busy",
        "CallGate16",
        "TaskGate",
        "IntGate16",
        "TrapGate16",
        "Reserved",
        "TSS32-avl",
        "Reserved",
        "TSS32-busy",
        "CallGate32",
        "Reserved",
        "IntGate32",
        "TrapGate32",
    ],
    [
        "<hiword>",
        "Reserved",
        "LDT",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "TSS64-avl",
        "Reserved",
        "TSS64-busy",
        "CallGate64",
        "Reserved",
        "IntGate64",
        "TrapGate64",
    ],
];

/// XCR0: SSE and AVX state.
const XCR0_AVX: u64 = 6;

/// Which registers a text shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// General registers, segments, control and debug registers (`-d cpu`).
    General,
    /// These, x87, SSE and AVX (`info registers`, `-d cpu,fpu`).
    All,
}

impl CpuState {
    /// Its registers, each line ending with a line feed.
    #[must_use]
    pub fn dump(&self, detail: Detail) -> String {
        let mut out = self.summary();
        if detail == Detail::All {
            floating_point(&mut out, self);
            vectors(&mut out, self);
        }
        out
    }

    /// General registers, segments, control and debug registers.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut out = String::new();
        // QEMU prints the wide form of registers in 64-bit code, and that of tables in all of long mode.
        let wide = self.efer & 1 << 10 != 0;
        let code64 = self.mode() == Mode::Long64;
        self.write_general(&mut out, code64);
        for (name, segment) in SEGMENT_NAMES.iter().zip(&self.segments) {
            self.write_segment(&mut out, name, segment, wide, code64);
        }
        self.write_segment(&mut out, "LDT", &self.ldtr, wide, code64);
        self.write_segment(&mut out, "TR", &self.tr, wide, code64);
        for (name, table) in [("GDT", &self.gdtr), ("IDT", &self.idtr)] {
            if wide {
                let _ = writeln!(out, "{name}=     {:016x} {:08x}", table.base, table.limit);
            } else {
                let _ = writeln!(out, "{name}=     {:08x} {:08x}", table.base & 0xffff_ffff, table.limit);
            }
        }
        self.write_control(&mut out, wide);
        out
    }

    fn write_general(&self, out: &mut String, wide: bool) {
        for (position, index) in ORDER.into_iter().enumerate() {
            let end = if position % 4 == 3 { '\n' } else { ' ' };
            if wide {
                let _ = write!(out, "{}={:016x}{end}", NAMES_64[index], self.gpr[index]);
            } else {
                let _ = write!(out, "{}={:08x}{end}", NAMES_32[index], self.gpr[index] & 0xffff_ffff);
            }
        }
        if wide {
            for index in 8..16 {
                let end = if index % 4 == 3 { '\n' } else { ' ' };
                let _ = write!(out, "R{index:<2}={:016x}{end}", self.gpr[index]);
            }
        }
        let flag = |bit: u32, letter: char| if self.rflags >> bit & 1 != 0 { letter } else { '-' };
        let flags: String = [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')]
            .map(|(b, l)| flag(b, l))
            .iter()
            .collect();
        let ip =
            if wide { format!("RIP={:016x} RFL", self.rip) } else { format!("EIP={:08x} EFL", self.rip & 0xffff_ffff) };
        let _ = writeln!(
            out,
            "{ip}={:08x} [{flags}] CPL={} II={} A20=1 SMM={} HLT={}",
            self.rflags,
            self.privilege_level(),
            u8::from(self.events.interrupt_shadow != 0),
            u8::from(self.events.smm),
            u8::from(self.mp_state != MpState::Runnable),
        );
    }

    fn write_segment(&self, out: &mut String, name: &str, segment: &Segment, wide: bool, code64: bool) {
        let flags = (segment.attributes & 0xff) << 8 | (segment.attributes >> 12 & 15) << 20;
        let base =
            if code64 { format!("{:016x}", segment.base) } else { format!("{:08x}", segment.base & 0xffff_ffff) };
        let _ = write!(out, "{name:<3}={:04x} {base} {:08x} {flags:08x}", segment.selector, segment.limit);
        if self.cr0 & 1 == 0 || segment.attributes & 1 << 7 == 0 || segment.attributes & 1 << 16 != 0 {
            out.push('\n');
            return;
        }
        let bit = |bit: u32, yes: char, no: char| if segment.attributes >> bit & 1 != 0 { yes } else { no };
        let big = segment.attributes >> 14 & 1 != 0;
        let _ = write!(out, " DPL={} ", segment.attributes >> 5 & 3);
        if segment.attributes & 1 << 4 == 0 {
            let kind = SYSTEM_TYPES[usize::from(wide)][(segment.attributes & 15) as usize];
            out.push_str(kind);
        } else if segment.attributes & 1 << 3 != 0 {
            let size = if segment.attributes >> 13 & 1 != 0 {
                "CS64"
            } else if big {
                "CS32"
            } else {
                "CS16"
            };
            let _ = write!(out, "{size} [{}{}", bit(2, 'C', '-'), bit(1, 'R', '-'));
            let _ = write!(out, "{}]", bit(0, 'A', '-'));
        } else {
            let size = if big || wide { "DS  " } else { "DS16" };
            let _ = write!(out, "{size} [{}{}", bit(2, 'E', '-'), bit(1, 'W', '-'));
            let _ = write!(out, "{}]", bit(0, 'A', '-'));
        }
        out.push('\n');
    }

    fn write_control(&self, out: &mut String, wide: bool) {
        let digits = if wide { 16 } else { 8 };
        let _ = writeln!(
            out,
            "CR0={:08x} CR2={:0digits$x} CR3={:0digits$x} CR4={:08x}",
            self.cr0, self.cr2, self.cr3, self.cr4
        );
        for (index, value) in self.dr[..4].iter().enumerate() {
            let _ = write!(out, "DR{index}={value:016x} ");
        }
        let _ = writeln!(out, "\nDR6={:016x} DR7={:016x}", self.dr[6], self.dr[7]);
        let _ = writeln!(out, "EFER={:016x}", self.efer);
    }

    /// Whether this is the processor that firmware starts on.
    #[must_use]
    pub fn is_bootstrap(&self) -> bool {
        self.apic_base & APIC_BASE_BSP != 0
    }
}

fn bytes<const N: usize>(state: &CpuState, offset: usize) -> [u8; N] {
    state.xsave.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn floating_point(out: &mut String, state: &CpuState) {
    let fcw = u16::from_le_bytes(bytes(state, 0));
    let fsw = u16::from_le_bytes(bytes(state, 2));
    let [ftw] = bytes(state, 4);
    let mxcsr = u32::from_le_bytes(bytes(state, 24));
    let top = fsw >> 11 & 7;
    let _ = writeln!(out, "FCW={fcw:04x} FSW={fsw:04x} [ST={top}] FTW={ftw:02x} MXCSR={mxcsr:08x}");
    for index in 0..8 {
        let at = 32 + 16 * index;
        let mantissa = u64::from_le_bytes(bytes(state, at));
        let exponent = u16::from_le_bytes(bytes(state, at + 8));
        let end = if index % 2 == 1 { '\n' } else { ' ' };
        let _ = write!(out, "FPR{index}={mantissa:016x} {exponent:04x}{end}");
    }
}

fn vectors(out: &mut String, state: &CpuState) {
    let count = if state.mode() == Mode::Long64 { 16 } else { 8 };
    let avx = state.xcr0 & XCR0_AVX == XCR0_AVX;
    for index in 0..count {
        let low = 160 + 16 * index;
        let (q0, q1) = (u64::from_le_bytes(bytes(state, low)), u64::from_le_bytes(bytes(state, low + 8)));
        if avx {
            let high = 576 + 16 * index;
            let (q2, q3) = (u64::from_le_bytes(bytes(state, high)), u64::from_le_bytes(bytes(state, high + 8)));
            let _ = writeln!(out, "YMM{index:02}={q3:016x} {q2:016x} {q1:016x} {q0:016x}");
        } else {
            let end = if index % 2 == 1 { '\n' } else { ' ' };
            let _ = write!(out, "XMM{index:02}={q1:016x} {q0:016x}{end}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_on_state_prints_as_qemu_does() {
        // From `info registers` of QEMU 10.0.2, -cpu qemu64 -S.
        let golden = "\
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
";
        assert_eq!(CpuState::power_on(0x60fb1).summary(), golden);
    }
}
