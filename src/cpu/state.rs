//! Registers of one logical processor (Intel SDM volume 1 chapter 3, volume 3 chapters 2 and 3).

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes (the granularity bit is already applied).
    pub limit: u32,
    /// Descriptor bits 8-15 and 20-23 of the second double word, in bits 0-7 (type, S, DPL, P) and 12-15 (AVL, L,
    /// D/B, G): the layout of a VMX access-rights field. Bit 16 set: unusable.
    pub attributes: u32,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Whether the processor executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MpState {
    /// Runs instructions.
    #[default]
    Runnable,
    /// Waits in HLT.
    Halted,
    /// An application processor before INIT.
    Uninitialized,
    /// After INIT, before the start-up IPI.
    InitReceived,
}

/// What a processor is about to deliver, or holds back (KVM's vCPU events; SDM volume 3 section 6.7, 6.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuEvents {
    /// An exception's delivery has begun.
    pub exception_injected: bool,
    /// An exception waits.
    pub exception_pending: bool,
    /// Its vector.
    pub exception_vector: u8,
    /// Its error code, if it has one.
    pub exception_error: Option<u32>,
    /// What it leaves in CR2 or DR6 once delivered, if not yet done.
    pub exception_payload: Option<u64>,
    /// An interrupt vector whose delivery has begun.
    pub interrupt: Option<u8>,
    /// It came from INT n.
    pub interrupt_is_software: bool,
    /// Interrupts are held back for one instruction: bit 0 after MOV SS or POP SS, bit 1 after STI.
    pub interrupt_shadow: u8,
    /// A non-maskable interrupt's delivery has begun.
    pub nmi_injected: bool,
    /// A non-maskable interrupt waits.
    pub nmi_pending: bool,
    /// Non-maskable interrupts are held back until IRET.
    pub nmi_masked: bool,
    /// The vector of a start-up IPI that came.
    pub sipi_vector: u8,
    /// In system management mode.
    pub smm: bool,
    /// A system management interrupt waits.
    pub smi_pending: bool,
    /// The system management interrupt came in a non-maskable interrupt's handler.
    pub smm_inside_nmi: bool,
    /// An INIT waits for the end of system management mode.
    pub latched_init: bool,
}

/// How a processor interprets instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Real mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode, 16-bit code.
    Protected16,
    /// Protected mode, 32-bit code.
    Protected32,
    /// Long mode, 16-bit code.
    Compatibility16,
    /// Long mode, 32-bit code.
    Compatibility32,
    /// Long mode, 64-bit code.
    Long64,
}

impl Mode {
    /// What CR0, EFER, RFLAGS and the attributes of CS come to (SDM volume 3, 2.2).
    #[must_use]
    pub fn of(cr0: u64, efer: u64, rflags: u64, code_attributes: u32) -> Self {
        let (long, big) = (code_attributes & 1 << 13 != 0, code_attributes & 1 << 14 != 0);
        if cr0 & CR0_PE == 0 {
            Self::Real
        } else if rflags & RFLAGS_VM != 0 {
            Self::Virtual8086
        } else if efer & EFER_LMA != 0 {
            match (long, big) {
                (true, _) => Self::Long64,
                (false, true) => Self::Compatibility32,
                (false, false) => Self::Compatibility16,
            }
        } else if big {
            Self::Protected32
        } else {
            Self::Protected16
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Virtual8086 => "virtual 8086",
            Self::Protected16 => "16-bit protected",
            Self::Protected32 => "32-bit protected",
            Self::Compatibility16 => "16-bit compatibility",
            Self::Compatibility32 => "32-bit compatibility",
            Self::Long64 => "64-bit",
        })
    }
}

/// IA32_APIC_BASE: this is the bootstrap processor.
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: the APIC is on.
pub const APIC_BASE_ENABLE: u64 = 1 << 11;

const CR0_PE: u64 = 1 << 0;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_VM: u64 = 1 << 17;

/// The registers of a processor, whole and between two instructions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CpuState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: Table,
    /// Interrupt descriptor table register.
    pub idtr: Table,
    /// Control registers.
    pub cr0: u64,
    /// Page-fault linear address.
    pub cr2: u64,
    /// Page directory base.
    pub cr3: u64,
    /// Extensions.
    pub cr4: u64,
    /// Task priority.
    pub cr8: u64,
    /// XCR0.
    pub xcr0: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// DR0-DR3, DR6, DR7 at their own index; 4 and 5 unused.
    pub dr: [u64; 8],
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// The XSAVE area in standard (non-compacted) form: x87, SSE, then what XCR0 names.
    pub xsave: Vec<u8>,
    /// Model-specific registers by number.
    pub msrs: Vec<(u32, u64)>,
    /// Whether it executes.
    pub mp_state: MpState,
    /// The local APIC's register page (1024 bytes), where the accelerator holds the APIC.
    pub lapic: Vec<u8>,
    /// What it is about to deliver.
    pub events: CpuEvents,
}

impl CpuState {
    /// The state after power-on or RESET of the bootstrap processor (SDM volume 3 table 10-1). `signature` is what
    /// CPUID leaf 1 returns in EAX.
    #[must_use]
    pub fn power_on(signature: u32) -> Self {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, attributes: 0x93 };
        let code = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: 0x9b };
        let table = Table { base: 0, limit: 0xffff };
        let mut state = Self {
            rip: 0xfff0,
            rflags: 2,
            segments: [data, code, data, data, data, data],
            ldtr: Segment { attributes: 0x82, ..data },
            tr: Segment { attributes: 0x8b, ..data },
            gdtr: table,
            idtr: table,
            cr0: 0x6000_0010,
            xcr0: 1,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            apic_base: 0xfee0_0000 | APIC_BASE_ENABLE | APIC_BASE_BSP,
            xsave: xsave_power_on(),
            ..Self::default()
        };
        state.gpr[2] = u64::from(signature);
        state
    }

    /// How it interprets instructions.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::of(self.cr0, self.efer, self.rflags, self.segments[1].attributes)
    }

    /// The current privilege level.
    #[must_use]
    pub fn privilege_level(&self) -> u8 {
        match self.mode() {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => (self.segments[2].attributes >> 5 & 3) as u8,
        }
    }
}

/// The XSAVE area after power-on. FCW is 37Fh, the value that FNINIT gives and that QEMU and KVM start with (the SDM's
/// table 10-1 has 40h; firmware runs FNINIT before anything can tell), MXCSR 1F80h.
fn xsave_power_on() -> Vec<u8> {
    let mut area = vec![0; 576];
    area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instruction_is_16_bytes_below_4_gib() {
        let state = CpuState::power_on(0x663);
        assert_eq!(state.segments[1].base + state.rip, 0xffff_fff0);
        assert_eq!((state.gpr[2], state.rflags, state.mode()), (0x663, 2, Mode::Real));
    }

    #[test]
    fn the_mode_follows_the_code_segment() {
        let mut state = CpuState::power_on(0);
        state.cr0 |= CR0_PE;
        assert_eq!(state.mode(), Mode::Protected16);
        state.segments[1].attributes |= 1 << 14;
        assert_eq!(state.mode(), Mode::Protected32);
        state.efer = EFER_LMA;
        assert_eq!(state.mode(), Mode::Compatibility32);
        state.segments[1].attributes = 0xa09b;
        assert_eq!(state.mode(), Mode::Long64);
        state.segments[2].attributes |= 3 << 5;
        assert_eq!(state.privilege_level(), 3);
    }
}
