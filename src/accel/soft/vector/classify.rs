//! What kind of vector or floating-point instruction one is: which controls it obeys, and how it accesses memory.

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpAccess, OpKind, Register};

/// Which control bits say whether an instruction can be used (SDM volume 2, 2.4 to 2.7; volume 3, 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Waits for pending x87 exceptions.
    X87,
    /// MMX registers.
    Mmx,
    /// Legacy SSE.
    Sse,
    /// Legacy SSE with an MMX register.
    SseMmx,
    /// VEX.
    Avx,
    /// EVEX, and everything with opmask registers.
    Avx512,
}

/// How a memory operand is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    None,
    Read,
    Write,
}

/// Registers of all operands that are registers.
pub(super) fn registers(instruction: &Instruction) -> impl Iterator<Item = Register> + '_ {
    (0..instruction.op_count())
        .filter(|operand| instruction.op_kind(*operand) == OpKind::Register)
        .map(|operand| instruction.op_register(operand))
}

/// Whether it belongs to the x87 instruction set.
pub(super) fn is_x87(instruction: &Instruction) -> bool {
    instruction
        .cpuid_features()
        .iter()
        .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387))
}

/// Its class; `None`: neither vector nor floating point.
pub(super) fn class(instruction: &Instruction) -> Option<Class> {
    let any = |test: fn(Register) -> bool| registers(instruction).any(test);
    // From memory to a general register: no operand says what it is.
    let to_general = is_scalar_to_general(instruction);
    let (vector, mask) = (to_general || any(|r| r.is_vector_register()), any(|r| r.is_k()));
    match instruction.encoding() {
        EncodingKind::EVEX => Some(Class::Avx512),
        EncodingKind::VEX if mask => Some(Class::Avx512),
        EncodingKind::VEX if vector => Some(Class::Avx),
        EncodingKind::Legacy if is_x87(instruction) => Some(Class::X87),
        EncodingKind::Legacy => match (vector, any(|r| r.is_mm())) {
            (true, true) => Some(Class::SseMmx),
            (true, false) => Some(Class::Sse),
            (false, true) if is_conversion(instruction) => Some(Class::SseMmx),
            (false, true) => Some(Class::Mmx),
            (false, false) => None,
        },
        _ => None,
    }
}

/// Floating point from memory to an MMX register.
fn is_conversion(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi)
}

/// Conversions of one floating-point number to an integer in a general register.
fn is_scalar_to_general(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Cvtss2si
            | M::Cvtsd2si
            | M::Cvttss2si
            | M::Cvttsd2si
            | M::Vcvtss2si
            | M::Vcvtsd2si
            | M::Vcvttss2si
            | M::Vcvttsd2si
    )
}

/// The memory access that used-memory information describes.
pub(super) fn access(access: OpAccess) -> Access {
    match access {
        OpAccess::Read | OpAccess::CondRead => Access::Read,
        OpAccess::Write | OpAccess::CondWrite => Access::Write,
        _ => Access::None,
    }
}

/// The alignment in bytes that the memory operand must have; 1: any.
pub(super) fn alignment(instruction: &Instruction, class: Class, size: usize) -> u8 {
    use Mnemonic as M;
    let needed = match class {
        Class::Sse | Class::SseMmx => {
            size == 16
                && !matches!(
                    instruction.mnemonic(),
                    M::Movups
                        | M::Movupd
                        | M::Movdqu
                        | M::Lddqu
                        | M::Pcmpestri
                        | M::Pcmpestrm
                        | M::Pcmpestri64
                        | M::Pcmpestrm64
                        | M::Pcmpistri
                        | M::Pcmpistrm
                )
        }
        Class::Avx | Class::Avx512 => matches!(
            instruction.mnemonic(),
            M::Vmovaps
                | M::Vmovapd
                | M::Vmovdqa
                | M::Vmovdqa32
                | M::Vmovdqa64
                | M::Vmovntps
                | M::Vmovntpd
                | M::Vmovntdq
                | M::Vmovntdqa
        ),
        Class::X87 | Class::Mmx => false,
    };
    if needed { u8::try_from(size).unwrap_or(1) } else { 1 }
}

/// Whether MXCSR matters to it, or may. These do not: integers, moves, logic, shuffles, cryptography.
pub(super) fn uses_mxcsr(instruction: &Instruction, class: Class) -> bool {
    if matches!(class, Class::X87 | Class::Mmx) {
        return false;
    }
    const WITHOUT: &[&str] = &[
        "p",
        "k",
        "aes",
        "sha",
        "gf2",
        "mov",
        "and",
        "or",
        "xor",
        "unpck",
        "shuf",
        "blend",
        "insert",
        "extr",
        "broadcast",
        "mask",
        "lddqu",
        "align",
        "compress",
        "expand",
        "dbpsad",
        "zero",
        "test",
        "sm3",
        "sm4",
        "gather",
        "scatter",
    ];
    let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
    let stem = name.strip_prefix('v').unwrap_or(&name);
    !WITHOUT.iter().any(|prefix| stem.starts_with(prefix))
}

/// Whether it changes the x87 instruction and data pointers (SDM volume 1, 8.1.8).
pub(super) fn moves_pointers(instruction: &Instruction, class: Class) -> bool {
    class == Class::X87 && !matches!(instruction.mnemonic(), Mnemonic::Fldcw | Mnemonic::Wait)
}
