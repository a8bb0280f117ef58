//! The registers of a CPU as text (`info registers`) and by name (`$pc`).

use crate::cpu::{CpuState, Detail, Mode};

const CS: usize = 1;

fn code64(state: &CpuState) -> bool {
    state.mode() == Mode::Long64
}

/// How many bits its code has by default: 16, 32 or 64.
#[must_use]
pub fn code_bits(state: &CpuState) -> u32 {
    match state.mode() {
        Mode::Long64 => 64,
        Mode::Protected32 | Mode::Compatibility32 => 32,
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 | Mode::Compatibility16 => 16,
    }
}

/// The linear address of the next instruction.
#[must_use]
pub fn program_counter(state: &CpuState) -> u64 {
    let base = if code64(state) { 0 } else { state.segments[CS].base };
    base.wrapping_add(state.rip)
}

/// The value of a register that an expression names after `$`.
#[must_use]
pub fn by_name(state: &CpuState, name: &str) -> Option<u64> {
    const NAMES_64: [&str; 16] =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    const NAMES_32: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
    if let Some(index) = NAMES_64.iter().position(|n| *n == name) {
        return Some(state.gpr[index]);
    }
    if let Some(index) = NAMES_32.iter().position(|n| *n == name) {
        return Some(state.gpr[index]);
    }
    match name {
        "eip" | "rip" => return Some(state.rip),
        "pc" => return Some(program_counter(state)),
        "eflags" | "rflags" => return Some(state.rflags),
        "cr0" => return Some(state.cr0),
        "cr2" => return Some(state.cr2),
        "cr3" => return Some(state.cr3),
        "cr4" => return Some(state.cr4),
        "cr8" => return Some(state.cr8),
        "efer" => return Some(state.efer),
        _ => {}
    }
    let (segment, part) = name.split_once('.').unwrap_or((name, ""));
    let index = ["es", "cs", "ss", "ds", "fs", "gs"].iter().position(|n| *n == segment)?;
    let segment = &state.segments[index];
    match part {
        "" if name.len() == 2 => Some(u64::from(segment.selector)),
        "base" => Some(segment.base),
        "limit" => Some(u64::from(segment.limit)),
        _ => None,
    }
}

/// The text of `info registers`, without the line that names the CPU.
#[must_use]
pub fn text(state: &CpuState) -> String {
    state.dump(Detail::All)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cpu::{MpState, Segment, Table};

    /// QEMU's power-on state of a CPU, as KVM reports it.
    pub(crate) fn power_on() -> CpuState {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, attributes: 0x93 };
        let mut xsave = vec![0; 1024];
        xsave[0] = 0x7f;
        xsave[1] = 0x03;
        xsave[24] = 0x80;
        xsave[25] = 0x1f;
        let mut state = CpuState {
            rip: 0xfff0,
            rflags: 2,
            segments: [data; 6],
            ldtr: Segment { attributes: 0x82, ..data },
            tr: Segment { attributes: 0x8b, ..data },
            gdtr: Table { base: 0, limit: 0xffff },
            idtr: Table { base: 0, limit: 0xffff },
            cr0: 0x6000_0010,
            xsave,
            ..CpuState::default()
        };
        state.gpr[2] = 0x60fb1;
        state.segments[CS] = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: 0x9b };
        state.dr[6] = 0xffff_0ff0;
        state.dr[7] = 0x400;
        state
    }

    /// A guest in 64-bit mode, as TCG reports it.
    pub(crate) fn long() -> CpuState {
        let data = Segment { selector: 0x10, base: 0, limit: 0xffff_ffff, attributes: 0xc093 };
        let mut state = power_on();
        state.gpr = [0x1122_3344, 0xc000_0080, 0, 0x21e0, 0x10_5000, 0, 0x11c1, 0x10_1000, 0, 0, 0, 0, 0, 0, 0, 0];
        state.rip = 0x10_00a8;
        state.rflags = 0x46;
        state.segments = [data; 6];
        state.segments[CS] = Segment { selector: 8, base: 0, limit: 0xffff_ffff, attributes: 0xa09a };
        state.gdtr = Table { base: 0x10_00d0, limit: 0xf };
        state.idtr = Table { base: 0, limit: 0x3ff };
        state.cr0 = 0x8000_0011;
        state.cr3 = 0x10_1000;
        state.cr4 = 0x20;
        state.efer = 0x500;
        state.mp_state = MpState::Halted;
        state
    }

    #[test]
    fn a_cpu_at_power_on_looks_as_in_qemu() {
        let text = text(&power_on());
        // The integer registers have a golden text of their own beside `summary`.
        let rest = text.strip_prefix(CpuState::power_on(0x60fb1).summary().as_str());
        assert_eq!(
            rest.unwrap(),
            "\
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
FPR2=0000000000000000 0000 FPR3=0000000000000000 0000
FPR4=0000000000000000 0000 FPR5=0000000000000000 0000
FPR6=0000000000000000 0000 FPR7=0000000000000000 0000
XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000
XMM02=0000000000000000 0000000000000000 XMM03=0000000000000000 0000000000000000
XMM04=0000000000000000 0000000000000000 XMM05=0000000000000000 0000000000000000
XMM06=0000000000000000 0000000000000000 XMM07=0000000000000000 0000000000000000
"
        );
    }

    #[test]
    fn long_mode_looks_as_in_qemu() {
        let text = text(&long());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "RAX=0000000011223344 RBX=00000000000021e0 RCX=00000000c0000080 RDX=0000000000000000");
        assert_eq!(lines[1], "RSI=00000000000011c1 RDI=0000000000101000 RBP=0000000000000000 RSP=0000000000105000");
        assert_eq!(lines[2], "R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000");
        assert_eq!(lines[4], "RIP=00000000001000a8 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1");
        assert_eq!(lines[5], "ES =0010 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]");
        assert_eq!(lines[6], "CS =0008 0000000000000000 ffffffff 00a09a00 DPL=0 CS64 [-R-]");
        assert_eq!(lines[12], "TR =0000 0000000000000000 0000ffff 00008b00 DPL=0 TSS64-busy");
        assert_eq!(lines[13], "GDT=     00000000001000d0 0000000f");
        assert_eq!(lines[15], "CR0=80000011 CR2=0000000000000000 CR3=0000000000101000 CR4=00000020");
        assert_eq!(text.matches("XMM").count(), 16);
    }

    #[test]
    fn avx_registers_have_a_line_each() {
        let mut state = long();
        state.xcr0 = 7;
        state.xsave[576] = 0xab;
        let text = text(&state);
        let line = text.lines().find(|line| line.starts_with("YMM00")).unwrap();
        assert_eq!(line, "YMM00=0000000000000000 00000000000000ab 0000000000000000 0000000000000000");
    }

    #[test]
    fn expressions_name_registers() {
        let state = power_on();
        assert_eq!(by_name(&state, "eip"), Some(0xfff0));
        assert_eq!(by_name(&state, "pc"), Some(0xffff_fff0));
        assert_eq!(by_name(&state, "cs.base"), Some(0xffff_0000));
        assert_eq!(by_name(&state, "cs.limit"), Some(0xffff));
        assert_eq!(by_name(&state, "cs"), Some(0xf000));
        assert_eq!(by_name(&state, "cs."), None);
        assert_eq!(by_name(&state, "foo"), None);
    }
}
