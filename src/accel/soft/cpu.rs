//! The state of one processor, and the outcome of an instruction.

use std::sync::Arc;

use crate::bus::LocalApic;
use crate::cpu::{CpuModel, CpuState, Mode, Segment, Table};
use crate::event::Clock;

use super::counting::Counting;
use super::interp::Cache;
use super::mmu::Mmu;
use super::op::{HIGH_BYTE, Mem};
use super::signals::Signals;
use super::system::SystemRegisters;
use super::vector::{self, VectorState};

/// Numbers of the segment registers in [`Cpu::segments`].
pub mod segment {
    /// ES.
    pub const ES: usize = 0;
    /// CS.
    pub const CS: usize = 1;
    /// SS.
    pub const SS: usize = 2;
    /// DS.
    pub const DS: usize = 3;
    /// FS.
    pub const FS: usize = 4;
    /// GS.
    pub const GS: usize = 5;
}

/// Bits of [`Segment::attributes`] (SDM volume 3, figure 3-8).
pub mod attributes {
    /// Accessed.
    pub const ACCESSED: u32 = 1 << 0;
    /// Readable code, or writable data.
    pub const READ_WRITE: u32 = 1 << 1;
    /// Expand-down data.
    pub const EXPAND_DOWN: u32 = 1 << 2;
    /// Conforming code.
    pub const CONFORMING: u32 = 1 << 2;
    /// Code, not data.
    pub const CODE: u32 = 1 << 3;
    /// Code or data, not a system segment.
    pub const APPLICATION: u32 = 1 << 4;
    /// Present.
    pub const PRESENT: u32 = 1 << 7;
    /// 64-bit code.
    pub const LONG: u32 = 1 << 13;
    /// 32-bit code, or a 32-bit stack.
    pub const BIG: u32 = 1 << 14;
    /// The limit counts pages.
    pub const GRANULARITY: u32 = 1 << 15;
    /// A null selector was loaded.
    pub const UNUSABLE: u32 = 1 << 16;
}

/// Numbers of general registers that instructions name implicitly.
pub mod gpr {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RBP.
    pub const RBP: usize = 5;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;
}

/// Bits of RFLAGS (SDM volume 1, 3.4.3).
pub mod rflags {
    /// Carry.
    pub const CF: u64 = 1 << 0;
    /// Always 1.
    pub const ONE: u64 = 1 << 1;
    /// Parity.
    pub const PF: u64 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u64 = 1 << 4;
    /// Zero.
    pub const ZF: u64 = 1 << 6;
    /// Sign.
    pub const SF: u64 = 1 << 7;
    /// Trap: single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts enabled.
    pub const IF: u64 = 1 << 9;
    /// Direction.
    pub const DF: u64 = 1 << 10;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// I/O privilege level.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// CPUID can be used.
    pub const ID: u64 = 1 << 21;
    /// The six flags that arithmetic instructions set.
    pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
}

/// The six arithmetic flags as `lahf; seto al` leaves them in AX: SF ZF 0 AF 0 PF 1 CF in bits 15-8, OF in bit 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u16);

impl Status {
    /// All flags clear.
    pub const CLEAR: Self = Self(0x0200);

    /// From the bits of RFLAGS.
    #[must_use]
    pub fn from_rflags(flags: u64) -> Self {
        let low = (flags & 0xd5) as u16;
        Self((low | 2) << 8 | (flags >> 11 & 1) as u16)
    }

    /// As bits of RFLAGS.
    #[must_use]
    pub fn to_rflags(self) -> u64 {
        u64::from(self.0 >> 8 & 0xd5) | u64::from(self.0 & 1) << 11
    }

    /// Carry.
    #[must_use]
    pub fn cf(self) -> bool {
        self.0 & 0x0100 != 0
    }

    /// Parity.
    #[must_use]
    pub fn pf(self) -> bool {
        self.0 & 0x0400 != 0
    }

    /// Auxiliary carry.
    #[must_use]
    pub fn af(self) -> bool {
        self.0 & 0x1000 != 0
    }

    /// Zero.
    #[must_use]
    pub fn zf(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// Sign.
    #[must_use]
    pub fn sf(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Overflow.
    #[must_use]
    pub fn of(self) -> bool {
        self.0 & 1 != 0
    }
}

/// An exception or interrupt on its way (SDM volume 3, chapter 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code that is pushed, if any.
    pub error: Option<u32>,
    /// For #PF the linear address for CR2; for #DB the bits for DR6.
    pub payload: u64,
}

impl Exception {
    /// Divide error.
    pub const DE: Self = Self::plain(0);
    /// Debug.
    pub const DB: Self = Self::plain(1);
    /// Breakpoint.
    pub const BP: Self = Self::plain(3);
    /// Overflow.
    pub const OF: Self = Self::plain(4);
    /// BOUND range exceeded.
    pub const BR: Self = Self::plain(5);
    /// Invalid opcode.
    pub const UD: Self = Self::plain(6);
    /// Device not available.
    pub const NM: Self = Self::plain(7);
    /// x87 floating-point error.
    pub const MF: Self = Self::plain(16);
    /// Alignment check.
    pub const AC: Self = Self::with_error(17, 0);
    /// SIMD floating-point error.
    pub const XM: Self = Self::plain(19);

    const fn plain(vector: u8) -> Self {
        Self { vector, error: None, payload: 0 }
    }

    const fn with_error(vector: u8, error: u32) -> Self {
        Self { vector, error: Some(error), payload: 0 }
    }

    /// General protection.
    #[must_use]
    pub const fn gp(error: u32) -> Self {
        Self::with_error(13, error)
    }

    /// Stack fault.
    #[must_use]
    pub const fn ss(error: u32) -> Self {
        Self::with_error(12, error)
    }

    /// Segment not present.
    #[must_use]
    pub const fn np(error: u32) -> Self {
        Self::with_error(11, error)
    }

    /// Invalid TSS.
    #[must_use]
    pub const fn ts(error: u32) -> Self {
        Self::with_error(10, error)
    }

    /// Page fault at a linear address.
    #[must_use]
    pub const fn pf(error: u32, address: u64) -> Self {
        Self { vector: 14, error: Some(error), payload: address }
    }
}

/// An instruction did not complete: [`Cpu::exception`] says why. Made by [`Cpu::raise`] only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(());

/// What comes after an instruction that completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Flow {
    /// The next instruction of the block.
    Next,
    /// [`Cpu::rip`] was set: the block ends.
    Jump,
    /// The next instruction, but the block ends: something changed that the rest of it relied on (mode, address space,
    /// code bytes, interrupt flag), or the processor now waits ([`Cpu::activity`]).
    End,
    /// The same instruction again, after interrupts were looked at: a string instruction that is not done.
    Again,
}

/// The outcome of an instruction.
pub type Step = Result<Flow, Fault>;

/// Whether the processor executes instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activity {
    /// It does.
    #[default]
    Running,
    /// HLT: until an interrupt.
    Halted,
    /// An application processor after reset or INIT: until a start-up interrupt.
    WaitForStartUp,
    /// Triple fault.
    Shutdown,
}

/// A segment register with what its descriptor and the mode come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentRegister {
    /// What software sees, and the hidden part, as loaded.
    pub loaded: Segment,
    /// What is added to offsets: 0 in 64-bit mode except for FS and GS.
    pub base: u64,
    /// The highest offset that can be read without a closer look ([`Cpu::linear`]): all ones in 64-bit mode; 0 with
    /// [`SegmentRegister::readable`] clear for segments that need the slow path always (expand-down, unusable).
    pub read_limit: u64,
    /// Likewise for writes.
    pub write_limit: u64,
    /// Whether `read_limit` means anything.
    pub readable: bool,
    /// Whether `write_limit` means anything.
    pub writable: bool,
}

/// One processor. Public fields are the modules' shared ground; only the module named in a group's comment changes
/// the shape of what is in it.
#[repr(C, align(4096))]
pub struct Cpu {
    // Registers that every instruction touches.
    /// RAX-R15, then [`super::op::NO_REGISTER`] (always 0) and [`super::op::BLOCK_START`]; the rest is unused, so that
    /// `index & 31` needs no bounds check.
    pub gpr: [u64; 32],
    /// Offset of the next instruction in the code segment. During an instruction: that of the block's first byte.
    pub rip: u64,
    /// The arithmetic flags.
    pub status: Status,
    /// All other flags of RFLAGS (bit 1 included).
    pub flags: u64,
    /// All ones in 64-bit mode, else FFFFFFFFh: what linear addresses are cut to.
    pub linear_mask: u64,
    /// FFFFh, FFFFFFFFh or all ones: the width of the stack pointer (SS.B, 64-bit mode).
    pub stack_mask: u64,
    /// Privilege level, 0-3 (3 in virtual-8086 mode, 0 in real mode).
    pub cpl: u8,
    /// How code is interpreted; follows CR0, EFER, RFLAGS.VM and CS.
    pub mode: Mode,
    /// Interrupts are held back until after the next instruction: bit 0 by MOV SS or POP SS, bit 1 by STI.
    pub shadow: u8,
    /// Whether it executes.
    pub activity: Activity,
    /// Why the last instruction did not complete.
    pub exception: Exception,
    /// Instructions executed.
    pub executed: u64,
    /// Instructions that [`Cpu::execute`] may still execute; it stops at 0.
    pub budget: u64,

    // Owned by `system`.
    /// ES, CS, SS, DS, FS, GS (and two unused, so that `index & 7` needs no bounds check).
    pub segments: [SegmentRegister; 8],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// CR0. Change it through `system` only: the mode and the MMU follow it.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// DR0-DR3, DR6, DR7 at their own index.
    pub dr: [u64; 8],
    /// Model-specific registers and what else only system instructions see.
    pub system: SystemRegisters,

    // Owned by `mmu`.
    /// Translations and memory.
    pub mmu: Mmu,

    // Owned by `vector`.
    /// x87, MMX, SSE, AVX registers, XCR0.
    pub vector: VectorState,

    // Owned by `interp`.
    /// Decoded instructions; away while [`Cpu::execute`] uses them.
    pub blocks: Option<Box<Cache>>,

    // Surroundings.
    /// What the guest's CPUID shows.
    pub model: Arc<CpuModel>,
    /// iced-x86's options for it.
    pub decoder_options: u32,
    /// Its place among the processors.
    pub index: u32,
    /// Requests of other threads.
    pub signals: Arc<Signals>,
    /// Its local APIC, if the machine has one.
    pub apic: Option<Arc<dyn LocalApic>>,
    /// Machine time.
    pub clock: Clock,
    /// Whether instructions are the clock.
    pub counting: Option<Box<Counting>>,
    /// Pages with breakpoints of a debugger: [`Cpu::execute`] ends where it comes to one.
    pub breakpoint_pages: Vec<u64>,
    /// `one-insn-per-tb=on`: each instruction is looked up by itself.
    pub one_instruction_blocks: bool,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({}, {} at {:#x})", self.index, self.mode, self.rip)
    }
}

impl Cpu {
    /// Processor `index` of the given model, after reset, without memory or a local APIC.
    #[must_use]
    pub fn new(index: u32, model: Arc<CpuModel>, clock: Clock) -> Box<Self> {
        let mut cpu = Box::new(Self {
            gpr: [0; 32],
            rip: 0,
            status: Status::CLEAR,
            flags: rflags::ONE,
            linear_mask: 0xffff_ffff,
            stack_mask: 0xffff,
            cpl: 0,
            mode: Mode::Real,
            shadow: 0,
            activity: Activity::Running,
            exception: Exception::default(),
            executed: 0,
            budget: u64::MAX,
            segments: [SegmentRegister::default(); 8],
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: Table::default(),
            idtr: Table::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr: [0; 8],
            system: SystemRegisters::default(),
            mmu: Mmu::default(),
            vector: VectorState::default(),
            blocks: None,
            decoder_options: vector::decoder_options(&model),
            model,
            index,
            signals: Arc::default(),
            apic: None,
            clock,
            counting: None,
            breakpoint_pages: Vec::new(),
            one_instruction_blocks: false,
        });
        cpu.reset();
        cpu
    }

    /// The state after power-on or RESET (SDM volume 3, table 10-1); processors other than the first wait for INIT and
    /// a start-up interrupt.
    pub fn reset(&mut self) {
        let state = CpuState::power_on(self.model.signature());
        self.load_registers(&state);
        self.reset_system();
        self.vector.reset(&self.model);
        self.activity = if self.index == 0 { Activity::Running } else { Activity::WaitForStartUp };
    }

    /// Takes the registers that this module declares from `state`; derived ones follow.
    pub fn load_registers(&mut self, state: &CpuState) {
        self.gpr[..16].copy_from_slice(&state.gpr);
        self.rip = state.rip;
        self.set_rflags(state.rflags);
        for (register, loaded) in self.segments.iter_mut().zip(state.segments) {
            register.loaded = loaded;
        }
        self.ldtr = state.ldtr;
        self.tr = state.tr;
        self.gdtr = state.gdtr;
        self.idtr = state.idtr;
        self.cr0 = state.cr0;
        self.cr2 = state.cr2;
        self.cr3 = state.cr3;
        self.cr4 = state.cr4;
        self.efer = state.efer;
        self.dr = state.dr;
        self.shadow = state.events.interrupt_shadow;
        self.mode_changed();
    }

    /// Recomputes what follows from CR0, EFER, RFLAGS.VM, CS and SS: mode, privilege level, masks, and how each segment
    /// is checked. Call it after any change of those.
    pub fn mode_changed(&mut self) {
        let code = self.segments[segment::CS].loaded.attributes;
        let stack = self.segments[segment::SS].loaded.attributes;
        self.mode = Mode::of(self.cr0, self.efer, self.flags, code);
        self.cpl = match self.mode {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => (stack >> 5 & 3) as u8,
        };
        self.linear_mask = if self.mode == Mode::Long64 { u64::MAX } else { 0xffff_ffff };
        self.stack_mask = match self.mode {
            Mode::Long64 => u64::MAX,
            _ if stack & attributes::BIG != 0 => 0xffff_ffff,
            _ => 0xffff,
        };
        for number in 0..6 {
            self.segment_changed(number);
        }
        self.memory_mode_changed();
    }

    /// Recomputes how accesses through segment register `number` are checked, after its hidden part changed.
    pub fn segment_changed(&mut self, number: usize) {
        let long = self.mode == Mode::Long64;
        let checked = !matches!(self.mode, Mode::Real | Mode::Virtual8086);
        let register = &mut self.segments[number & 7];
        let loaded = register.loaded;
        register.base = loaded.base;
        if long {
            if !matches!(number, segment::FS | segment::GS) {
                register.base = 0;
            }
            (register.read_limit, register.write_limit) = (u64::MAX, u64::MAX);
            (register.readable, register.writable) = (true, true);
            return;
        }
        let code = loaded.attributes & attributes::CODE != 0;
        let expand_down = !code && loaded.attributes & attributes::EXPAND_DOWN != 0;
        let present = loaded.attributes & attributes::PRESENT != 0 && loaded.attributes & attributes::UNUSABLE == 0;
        let read_write = loaded.attributes & attributes::READ_WRITE != 0;
        let limit = u64::from(loaded.limit);
        (register.read_limit, register.write_limit) = (limit, limit);
        register.readable = !expand_down && (!checked || present && (!code || read_write));
        register.writable = !expand_down && (!checked || present && !code && read_write);
    }

    /// Notes an exception. What has not completed is undone by the caller before.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Fault {
        self.exception = exception;
        Fault(())
    }

    /// RFLAGS, whole.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.flags & !rflags::STATUS | self.status.to_rflags()
    }

    /// Replaces the arithmetic flags and all others. Callers mask what may not change; [`Cpu::mode`] does not follow.
    pub fn set_rflags(&mut self, value: u64) {
        self.status = Status::from_rflags(value);
        self.flags = value & !rflags::STATUS | rflags::ONE;
        self.rights_changed();
    }

    /// A byte register by its number, with [`HIGH_BYTE`].
    #[must_use]
    #[inline(always)]
    pub fn reg8(&self, number: u8) -> u8 {
        (self.gpr[usize::from(number & 31)] >> ((number & HIGH_BYTE) >> 2)) as u8
    }

    /// Changes a byte register, leaving the rest of the register.
    #[inline(always)]
    pub fn set_reg8(&mut self, number: u8, value: u8) {
        let shift = (number & HIGH_BYTE) >> 2;
        let register = &mut self.gpr[usize::from(number & 31)];
        *register = *register & !(0xff << shift) | u64::from(value) << shift;
    }

    /// A 16-bit register.
    #[must_use]
    #[inline(always)]
    pub fn reg16(&self, number: u8) -> u16 {
        self.gpr[usize::from(number & 31)] as u16
    }

    /// Changes a 16-bit register, leaving the rest of the register.
    #[inline(always)]
    pub fn set_reg16(&mut self, number: u8, value: u16) {
        let register = &mut self.gpr[usize::from(number & 31)];
        *register = *register & !0xffff | u64::from(value);
    }

    /// A 32-bit register.
    #[must_use]
    #[inline(always)]
    pub fn reg32(&self, number: u8) -> u32 {
        self.gpr[usize::from(number & 31)] as u32
    }

    /// Changes a 32-bit register; bits 63-32 become 0.
    #[inline(always)]
    pub fn set_reg32(&mut self, number: u8, value: u32) {
        self.gpr[usize::from(number & 31)] = u64::from(value);
    }

    /// A 64-bit register.
    #[must_use]
    #[inline(always)]
    pub fn reg64(&self, number: u8) -> u64 {
        self.gpr[usize::from(number & 31)]
    }

    /// Changes a 64-bit register.
    #[inline(always)]
    pub fn set_reg64(&mut self, number: u8, value: u64) {
        self.gpr[usize::from(number & 31)] = value;
    }

    /// The offset in its segment that a memory operand names.
    #[must_use]
    #[inline(always)]
    pub fn effective_address(&self, mem: &Mem) -> u64 {
        let base = self.gpr[usize::from(mem.base & 31)];
        let index = self.gpr[usize::from(mem.index & 31)] << (mem.scale & 3);
        let sum = base.wrapping_add(index).wrapping_add(mem.disp);
        sum << (mem.cut & 63) >> (mem.cut & 63)
    }

    /// The linear address of `len` bytes at `offset` in a segment, checked for reading (`WRITE` false) or writing.
    ///
    /// # Errors
    /// #GP or #SS: beyond the limit, not readable or writable, not canonical.
    #[inline(always)]
    pub fn linear<const WRITE: bool>(&mut self, number: u8, offset: u64, len: u64) -> Result<u64, Fault> {
        let segment = &self.segments[usize::from(number & 7)];
        let (limit, usable) =
            if WRITE { (segment.write_limit, segment.writable) } else { (segment.read_limit, segment.readable) };
        let last = offset.wrapping_add(len - 1);
        if usable && last <= limit && last >= offset {
            return Ok(segment.base.wrapping_add(offset) & self.linear_mask);
        }
        self.linear_slow(number, offset, len, WRITE)
    }

    /// Offset of the running instruction `at` bytes into the block, cut to the code size's width.
    #[must_use]
    pub fn rip_at(&self, at: u64) -> u64 {
        let sum = self.rip.wrapping_add(at);
        match self.mode {
            Mode::Long64 => sum,
            _ => sum & 0xffff_ffff,
        }
    }
}
