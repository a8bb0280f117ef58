//! What the manuals leave to the processor, and where processors differ: not compared, by name.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::generate::Case;
use crate::native::Stop;

const PAGE_FAULT: u64 = 14;
const ALIGNMENT: u64 = 17;
const OVERFLOW: u64 = 1 << 11;

/// Flags that the manuals leave undefined and that no program can rely on, where we differ from this host.
pub fn undefined_flags(instruction: &Instruction) -> u64 {
    match instruction.mnemonic() {
        // Counts other than 1: the host's register and immediate forms differ from each other.
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => match instruction.op1_kind() {
            OpKind::Immediate8 if instruction.immediate8() & count_mask(instruction) == 1 => 0,
            _ => OVERFLOW,
        },
        _ => 0,
    }
}

/// The bits of a count that the processor looks at.
fn count_mask(instruction: &Instruction) -> u8 {
    if matches!(instruction.memory_size().size().max(instruction.op0_register().size()), 8) { 0x3f } else { 0x1f }
}

/// Operands that take several accesses: which one of them faults first is not said, and what was written before stays.
fn is_piecemeal(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let masked = instruction.has_op_mask() && !instruction.is_vsib();
    masked
        || instruction.code() == Code::Fstp_m80fp
        || matches!(
            instruction.mnemonic(),
            Fnstenv
                | Fldenv
                | Fnsave
                | Frstor
                | Fxsave
                | Fxsave64
                | Fxrstor
                | Fxrstor64
                | Fbstp
                | Fbld
                | Maskmovq
                | Maskmovdqu
                | Vmaskmovdqu
                | Vmaskmovps
                | Vmaskmovpd
                | Vpmaskmovd
                | Vpmaskmovq
                | Vpcompressb
                | Vpcompressw
                | Vpcompressd
                | Vpcompressq
                | Vcompressps
                | Vcompresspd
        )
}

/// Whether two different faults are both right.
pub fn both_right(case: &Case, a: &Stop, b: &Stop) -> bool {
    let mnemonic = case.instruction.mnemonic();
    let memory = |stop: &Stop| matches!(stop.vector, PAGE_FAULT | ALIGNMENT);
    if matches!(mnemonic, Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq) {
        // Either operand may be read first.
        return memory(a) && memory(b);
    }
    if case.instruction.is_invalid() {
        // Longer than 15 bytes, or no instruction: one class of faults, in no said order (SDM volume 3, table 6-2).
        let refused = |stop: &Stop| matches!(stop.vector, 6 | 13);
        return refused(a) && refused(b);
    }
    if mnemonic == Mnemonic::Vcvtps2ph {
        // Of the conversion and the store: #XM or #PF.
        let either = |stop: &Stop| matches!(stop.vector, 19) || memory(stop);
        return either(a) && either(b) && a.vector != b.vector;
    }
    if mnemonic == Mnemonic::Call {
        // Of the target and the stack.
        return [a, b].iter().any(|stop| stop.vector == 13) && [a, b].iter().any(|stop| memory(stop));
    }
    if matches!(mnemonic, Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64) {
        // Misaligned: #GP or, if it is enabled, #AC (SDM volume 2, FXSAVE).
        let refused = |stop: &Stop| matches!(stop.vector, 12 | 13 | ALIGNMENT);
        if refused(a) && refused(b) {
            return true;
        }
    }
    is_piecemeal(&case.instruction) && (a.vector, a.error) == (b.vector, b.error) && a.vector == PAGE_FAULT
}

/// Whether a fault may leave something behind in memory.
pub fn leaves_memory(case: &Case, stop: &Stop) -> bool {
    let instruction = &case.instruction;
    // The return address is written before the target is found not to be canonical.
    let call = instruction.mnemonic() == Mnemonic::Call && stop.vector == 13;
    call || is_piecemeal(instruction) && stop.vector == PAGE_FAULT
}

/// Whether a fault may leave general registers behind: this host's POPA keeps those that it popped before the fault; it
/// begins again from the stack pointer, which stays.
pub fn leaves_registers(case: &Case) -> bool {
    matches!(case.instruction.mnemonic(), Mnemonic::Popa | Mnemonic::Popad)
}

/// Whether a fault may leave flags behind in MXCSR: the conversion comes before the store.
pub fn leaves_mxcsr(case: &Case) -> bool {
    case.instruction.mnemonic() == Mnemonic::Vcvtps2ph
}

/// Whether the processor may raise a fault for bytes that are masked out (SDM volume 2, MASKMOVQ: "implementation
/// dependent").
pub fn may_fault(case: &Case) -> bool {
    use Mnemonic::{Maskmovdqu, Maskmovq, Vmaskmovdqu};
    matches!(case.instruction.mnemonic(), Maskmovq | Maskmovdqu | Vmaskmovdqu)
}

/// Whether the outcome depends on the processor as a whole: whether #AC looks at these stores at all, and at what
/// alignment, is not said. This host does for MASKMOVQ, and not for VCVTPH2PS.
pub fn is_unspecified(case: &Case) -> bool {
    use Mnemonic::{Maskmovdqu, Maskmovq, Vcvtph2ps, Vcvtps2ph, Vmaskmovdqu};
    let named = matches!(case.instruction.mnemonic(), Maskmovq | Maskmovdqu | Vmaskmovdqu | Vcvtph2ps | Vcvtps2ph);
    case.before.flags & 1 << 18 != 0 && named
}

/// Whether a fault may leave something behind in the x87 registers: a store of an MMX register has set TOP to 0.
pub fn leaves_x87(case: &Case) -> bool {
    let instruction = &case.instruction;
    let mmx = |register: Register| register.is_mm();
    instruction.mnemonic() == Mnemonic::Maskmovq
        || instruction.op_count() == 2 && instruction.op0_kind() == OpKind::Memory && mmx(instruction.op1_register())
}
