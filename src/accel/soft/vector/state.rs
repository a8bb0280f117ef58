//! The registers: a register image in memory, in the layout that the native stubs know.

use std::mem::offset_of;
use std::sync::Arc;

use crate::cpu::CpuModel;

use super::layout::Layout;

/// An FXSAVE area's first 160 bytes hold the x87 and MMX state (SDM volume 1, table 10-2).
pub(super) const FXSAVE_LEN: usize = 512;
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const MXCSR: usize = 24;
pub(super) const ST: usize = 32;

/// The x87 and MMX registers as FXSAVE64 stores them. The pointers in it are the host's and mean nothing.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct X87(pub(super) [u8; FXSAVE_LEN]);

impl X87 {
    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn set_word(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// The control word.
    pub(super) fn fcw(&self) -> u16 {
        self.word(FCW)
    }

    /// Changes the control word; reserved bits read as the processor has them. The summary of pending exceptions
    /// follows.
    pub(super) fn set_fcw(&mut self, value: u16) {
        self.set_word(FCW, value & 0x1f7f | 0x40);
        self.summarize();
    }

    /// FXRSTOR64 loads MXCSR as well: it must be that of Rust code.
    pub(super) fn set_host_mxcsr(&mut self) {
        self.0[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
    }

    /// The status word.
    pub(super) fn fsw(&self) -> u16 {
        self.word(FSW)
    }

    /// Changes the status word; the summary follows the control word.
    pub(super) fn set_fsw(&mut self, value: u16) {
        self.set_word(FSW, value);
        self.summarize();
    }

    /// ES and B say whether an unmasked exception is pending.
    fn summarize(&mut self) {
        let fsw = self.fsw() & !0x8080;
        let pending = fsw & !self.fcw() & 0x3f != 0;
        self.set_word(FSW, if pending { fsw | 0x8080 } else { fsw });
    }

    /// A bit for each physical register that is not empty.
    pub(super) fn used(&self) -> u8 {
        self.0[FTW]
    }

    /// Changes which physical registers are not empty.
    pub(super) fn set_used(&mut self, bits: u8) {
        self.0[FTW] = bits;
    }

    /// The number of the physical register that is ST(0).
    pub(super) fn top(&self) -> u16 {
        self.fsw() >> 11 & 7
    }

    /// Whether an unmasked exception waits for the next waiting instruction.
    pub(super) fn is_pending(&self) -> bool {
        self.fsw() & 0x80 != 0
    }

    /// ST(`number`), ten bytes.
    pub(super) fn register(&self, number: usize) -> [u8; 10] {
        let at = ST + (number & 7) * 16;
        std::array::from_fn(|i| self.0[at + i])
    }

    /// Changes ST(`number`).
    pub(super) fn set_register(&mut self, number: usize, value: &[u8]) {
        let at = ST + (number & 7) * 16;
        self.0[at..at + 16].fill(0);
        self.0[at..at + 10].copy_from_slice(&value[..10]);
    }
}

impl Default for X87 {
    /// After FNINIT, with all registers 0.
    fn default() -> Self {
        let mut area = [0; FXSAVE_LEN];
        area[FCW..FCW + 2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
        Self(area)
    }
}

/// MXCSR after reset: everything masked, round to nearest.
pub(super) const MXCSR_DEFAULT: u32 = 0x1f80;

/// Where the last x87 instruction and its operand were (SDM volume 1, 8.1.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LastX87 {
    pub(super) fip: u64,
    pub(super) fdp: u64,
    pub(super) fcs: u16,
    pub(super) fds: u16,
    /// 11 bits.
    pub(super) fop: u16,
}

/// The registers. The parts above the comment "ours alone" are what stubs access, at the offsets below.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct VectorState {
    /// ZMM0-ZMM31; XMM and YMM are their low parts.
    pub(super) zmm: [[u64; 8]; 32],
    /// K0-K7.
    pub(super) k: [u64; 8],
    /// The memory operand.
    pub(super) scratch: [u8; 64],
    /// x87 and MMX.
    pub(super) x87: X87,
    /// The guest's MXCSR.
    pub(super) mxcsr: u32,
    /// What Rust code runs with.
    host_mxcsr: u32,
    /// MXCSR as a SIMD floating-point exception left it.
    pub(super) fault_mxcsr: u32,
    // Ours alone.
    pub(super) last: LastX87,
    /// The operand of the last x87 instruction with one: FDP, if that instruction raised an unmasked exception.
    pub(super) recent: Option<(u64, u16)>,
    /// x87 and MMX may stay in the host's registers until [`Cpu::leave_x87`].
    pub(super) may_stay: bool,
    /// They are there; `x87` is stale.
    pub(super) resident: bool,
    /// XCR0.
    pub(super) xcr0: u64,
    /// Components of the guest's XSAVE area.
    pub(super) layout: Arc<Layout>,
    /// FERR# (CR0.NE clear): an unmasked x87 exception holds the processor until the machine's interrupt 13. The owner
    /// of the machine's wires takes it.
    pub ferr: bool,
}

pub(super) const K_AT: i64 = offset_of!(VectorState, k) as i64;
pub(super) const SCRATCH_AT: i64 = offset_of!(VectorState, scratch) as i64;
pub(super) const X87_AT: i64 = offset_of!(VectorState, x87) as i64;
pub(super) const MXCSR_AT: i64 = offset_of!(VectorState, mxcsr) as i64;
pub(super) const HOST_MXCSR_AT: i64 = offset_of!(VectorState, host_mxcsr) as i64;
pub(super) const FAULT_MXCSR_AT: i64 = offset_of!(VectorState, fault_mxcsr) as i64;

impl Default for VectorState {
    fn default() -> Self {
        Self {
            zmm: [[0; 8]; 32],
            k: [0; 8],
            scratch: [0; 64],
            x87: X87::default(),
            mxcsr: MXCSR_DEFAULT,
            host_mxcsr: MXCSR_DEFAULT,
            fault_mxcsr: MXCSR_DEFAULT,
            last: LastX87::default(),
            recent: None,
            may_stay: false,
            resident: false,
            xcr0: 1,
            layout: Arc::default(),
            ferr: false,
        }
    }
}

impl VectorState {
    /// After power-on or RESET. FCW is what FNINIT gives, as in [`crate::cpu::CpuState::power_on`]. INIT leaves all of
    /// it alone (SDM volume 3, table 10-1).
    pub fn reset(&mut self, model: &CpuModel) {
        let may_stay = self.may_stay;
        *self = Self { layout: Arc::new(Layout::new(model)), may_stay, ..Self::default() };
    }

    /// FNINIT: the control registers of x87; its data registers stay.
    pub(super) fn init_x87(&mut self) {
        self.x87.set_word(FCW, 0x37f);
        self.x87.set_word(FSW, 0);
        self.x87.set_used(0);
        self.last = LastX87::default();
    }

    /// The low 128 bits of a register.
    #[inline(always)]
    pub(super) fn xmm(&self, number: u8) -> u128 {
        let register = &self.zmm[usize::from(number & 31)];
        u128::from(register[0]) | u128::from(register[1]) << 64
    }

    /// Changes the low 128 bits, and leaves the rest.
    #[inline(always)]
    pub(super) fn set_xmm(&mut self, number: u8, value: u128) {
        let register = &mut self.zmm[usize::from(number & 31)];
        register[0] = value as u64;
        register[1] = (value >> 64) as u64;
    }

    /// XCR0.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Takes XCR0 of a saved state, as far as the processor has its components; x87 is always on.
    pub fn load_xcr0(&mut self, value: u64) {
        self.xcr0 = value & self.layout.supported | 1;
    }

    /// MXCSR.
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        self.mxcsr
    }
}
