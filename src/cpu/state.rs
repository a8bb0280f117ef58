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
}
