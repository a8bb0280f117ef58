//! A decoded instruction, ready to execute.

use iced_x86::Instruction;

use super::cpu::{Cpu, Step};

/// Executes one instruction. It has no effect unless it returns `Ok` (except those that the architecture leaves behind,
/// such as the completed part of a string instruction), and leaves RIP alone unless it returns [`super::Flow::Jump`].
pub type Handler = fn(&mut Cpu, &Op) -> Step;

/// Index in [`Cpu::gpr`] of a register that always holds 0: an address without a base or index.
pub const NO_REGISTER: u8 = 16;
/// Index in [`Cpu::gpr`] of the address of the block's first byte, as an offset in the code segment: the base of
/// RIP-relative addresses, whose displacement is counted from there.
pub const BLOCK_START: u8 = 17;
/// Bit in a register number: bits 8-15 of the register (AH, CH, DH, BH).
pub const HIGH_BYTE: u8 = 32;

/// A memory operand: segment : base + index << scale + displacement, cut to the address size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    /// Displacement, sign-extended.
    pub disp: u64,
    /// Index of the base register in [`Cpu::gpr`].
    pub base: u8,
    /// Index of the index register.
    pub index: u8,
    /// 0-3: the index times 1, 2, 4, 8.
    pub scale: u8,
    /// Index in [`Cpu::segments`]; ES, CS, SS, DS, FS, GS.
    pub segment: u8,
    /// 64 minus the address size in bits: shifting left and right by it cuts the address.
    pub cut: u8,
}

impl Mem {
    /// No memory operand.
    pub const NONE: Self = Self { disp: 0, base: NO_REGISTER, index: NO_REGISTER, scale: 0, segment: 3, cut: 0 };
}

/// What rare instructions need beyond [`Op`].
#[derive(Clone, Debug)]
pub struct Cold {
    /// The whole decoding.
    pub instruction: Instruction,
    /// The instruction's bytes.
    pub bytes: [u8; 15],
    /// The handler of an instruction that may store, which [`Op::handler`] calls and then looks whether code was hit.
    pub inner: Handler,
    /// Whatever the handler's module keeps for it (a native stub's number).
    pub extra: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Op {
    /// What executes it.
    pub handler: Handler,
    /// Immediate, sign-extended to 64 bits; for near branches the displacement from the block's first byte to the target.
    pub imm: u64,
    /// The memory operand.
    pub mem: Mem,
    /// Register number of operand 0, if it is a register: 0-15 (with [`HIGH_BYTE`]) for general registers, else the
    /// number within its kind.
    pub a: u8,
    /// Register number of operand 1.
    pub b: u8,
    /// Register number of operand 2.
    pub c: u8,
    /// Operand size in bytes.
    pub size: u8,
    /// Distance of the instruction from the block's first byte.
    pub at: u16,
    /// Length in bytes.
    pub len: u8,
    /// Prefixes: [`Op::LOCK`], [`Op::REP`], [`Op::REPNE`].
    pub prefixes: u8,
    /// For handlers of rare instructions.
    pub cold: Option<Box<Cold>>,
}

impl Op {
    /// A LOCK prefix.
    pub const LOCK: u8 = 1;
    /// A REP (REPE) prefix on a string instruction.
    pub const REP: u8 = 2;
    /// A REPNE prefix on a string instruction.
    pub const REPNE: u8 = 4;

    /// The offset of the next instruction from the block's first byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.len)
    }
}
