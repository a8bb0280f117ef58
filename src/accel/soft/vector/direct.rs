//! The commonest instructions without a stub: moves, logic, and 128-bit integer arithmetic on the register image.
#![expect(unsafe_code)] // UNSAFE: SSE2 intrinsics

use std::arch::x86_64::__m128i;
use std::arch::x86_64::{
    _mm_add_epi8, _mm_add_epi16, _mm_add_epi32, _mm_add_epi64, _mm_and_si128, _mm_andnot_si128, _mm_cmpeq_epi8,
    _mm_cmpeq_epi16, _mm_cmpeq_epi32, _mm_cmpgt_epi8, _mm_max_epu8, _mm_min_epu8, _mm_or_si128, _mm_sub_epi8,
    _mm_sub_epi16, _mm_sub_epi32, _mm_sub_epi64, _mm_unpackhi_epi64, _mm_unpacklo_epi8, _mm_unpacklo_epi16,
    _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128,
};

use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};

use super::super::cpu::{Cpu, Fault, Flow, Step};
use super::super::op::{Handler, Op};
use super::classify::Class;

/// What executes an instruction of this module.
pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    match instruction.encoding() {
        EncodingKind::Legacy => scalar(instruction).or_else(|| whole(instruction)).or_else(|| binary(instruction)),
        EncodingKind::VEX => wide(instruction, Class::Avx),
        EncodingKind::EVEX if !instruction.has_op_mask() => wide(instruction, Class::Avx512),
        _ => None,
    }
}

/// Where the operands of a move are.
enum Shape {
    Load,
    Store,
    Registers,
}

fn shape(instruction: &Instruction) -> Option<Shape> {
    let xmm = |operand: u32| {
        instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_vector_register()
    };
    let memory = |operand: u32| instruction.op_kind(operand) == OpKind::Memory;
    match instruction.op_count() {
        2 if xmm(0) && memory(1) => Some(Shape::Load),
        2 if memory(0) && xmm(1) => Some(Shape::Store),
        2 if xmm(0) && xmm(1) => Some(Shape::Registers),
        _ => None,
    }
}

/// Moves of all 128 bits.
fn whole(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let aligned = match instruction.mnemonic() {
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => false,
        M::Movaps | M::Movapd | M::Movdqa | M::Movntdq | M::Movntps | M::Movntpd | M::Movntdqa => true,
        _ => return None,
    };
    Some(match (shape(instruction)?, aligned) {
        (Shape::Load, false) => load16::<1>,
        (Shape::Load, true) => load16::<16>,
        (Shape::Store, false) => store16::<1>,
        (Shape::Store, true) => store16::<16>,
        (Shape::Registers, _) if instruction.op0_register().is_xmm() && instruction.op1_register().is_xmm() => copy16,
        (Shape::Registers, _) => return None,
    })
}

/// The operand's offset, if it is aligned.
#[inline(always)]
fn place<const ALIGN: u8>(cpu: &mut Cpu, op: &Op) -> Result<u64, Fault> {
    let offset = cpu.effective_address(&op.mem);
    if ALIGN > 1 {
        cpu.check_vector_alignment(op.mem.segment, offset, ALIGN)?;
    }
    Ok(offset)
}

fn load16<const ALIGN: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = place::<ALIGN>(cpu, op)?;
    let value = cpu.read::<u128>(op.mem.segment, offset)?;
    cpu.vector.set_xmm(op.a, value);
    Ok(Flow::Next)
}

fn store16<const ALIGN: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = place::<ALIGN>(cpu, op)?;
    let value = cpu.vector.xmm(op.b);
    cpu.write(op.mem.segment, offset, value)?;
    Ok(Flow::Next)
}

fn copy16(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = cpu.vector.xmm(op.b);
    cpu.vector.set_xmm(op.a, value);
    Ok(Flow::Next)
}

/// Moves of 32 or 64 bits.
fn scalar(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let gpr =
        |operand: u32| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand).is_gpr();
    if matches!(instruction.mnemonic(), M::Movd | M::Movq) && instruction.op_count() == 2 {
        let register = if gpr(0) { instruction.op0_register() } else { instruction.op1_register() };
        let other = if gpr(0) { instruction.op1_register() } else { instruction.op0_register() };
        if (gpr(0) || gpr(1)) && other.is_xmm() {
            return Some(match (gpr(0), register.size()) {
                (true, 8) => to_general::<true>,
                (true, _) => to_general::<false>,
                (false, 8) => from_general::<true>,
                (false, _) => from_general::<false>,
            });
        }
    }
    let shape = shape(instruction)?;
    let register = if matches!(shape, Shape::Store) { instruction.op1_register() } else { instruction.op0_register() };
    if !register.is_xmm() {
        return None;
    }
    Some(match (instruction.mnemonic(), shape) {
        (M::Movd | M::Movss, Shape::Load) => load_low::<false>,
        (M::Movq | M::Movsd, Shape::Load) => load_low::<true>,
        (M::Movd | M::Movss, Shape::Store) => store_low::<false>,
        (M::Movq | M::Movsd | M::Movlps | M::Movlpd, Shape::Store) => store_low::<true>,
        (M::Movlps | M::Movlpd, Shape::Load) => load_half::<0>,
        (M::Movhps | M::Movhpd, Shape::Load) => load_half::<1>,
        (M::Movhps | M::Movhpd, Shape::Store) => store_high,
        _ => return None,
    })
}

fn load_low<const QUAD: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = cpu.effective_address(&op.mem);
    let value = match QUAD {
        true => cpu.read::<u64>(op.mem.segment, offset)?,
        false => u64::from(cpu.read::<u32>(op.mem.segment, offset)?),
    };
    cpu.vector.set_xmm(op.a, u128::from(value));
    Ok(Flow::Next)
}

fn store_low<const QUAD: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = cpu.effective_address(&op.mem);
    let value = cpu.vector.xmm(op.b) as u64;
    match QUAD {
        true => cpu.write(op.mem.segment, offset, value)?,
        false => cpu.write(op.mem.segment, offset, value as u32)?,
    }
    Ok(Flow::Next)
}

/// One half of a register; the other stays.
fn load_half<const HALF: usize>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = cpu.effective_address(&op.mem);
    let value = cpu.read::<u64>(op.mem.segment, offset)?;
    cpu.vector.zmm[usize::from(op.a & 31)][HALF] = value;
    Ok(Flow::Next)
}

fn store_high(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = cpu.effective_address(&op.mem);
    let value = cpu.vector.zmm[usize::from(op.b & 31)][1];
    cpu.write(op.mem.segment, offset, value)?;
    Ok(Flow::Next)
}

fn from_general<const QUAD: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = if QUAD { cpu.reg64(op.b) } else { u64::from(cpu.reg32(op.b)) };
    cpu.vector.set_xmm(op.a, u128::from(value));
    Ok(Flow::Next)
}

fn to_general<const QUAD: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let value = cpu.vector.xmm(op.b) as u64;
    if QUAD {
        cpu.set_reg64(op.a, value)
    } else {
        cpu.set_reg32(op.a, value as u32)
    }
    Ok(Flow::Next)
}

/// Moves of VEX and EVEX: bits above the operand become 0.
fn wide(instruction: &Instruction, class: Class) -> Option<Handler> {
    use Mnemonic as M;
    let aligned = match instruction.mnemonic() {
        M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => false,
        M::Vmovdqu8 | M::Vmovdqu16 | M::Vmovdqu32 | M::Vmovdqu64 => false,
        M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovdqa32 | M::Vmovdqa64 => true,
        _ => return None,
    };
    let shape = shape(instruction)?;
    let register = if matches!(shape, Shape::Store) { instruction.op1_register() } else { instruction.op0_register() };
    Some(match (class, register.size()) {
        (Class::Avx, 16) => pick::<16, false>(&shape, aligned),
        (Class::Avx, _) => pick::<32, false>(&shape, aligned),
        (_, 16) => pick::<16, true>(&shape, aligned),
        (_, 32) => pick::<32, true>(&shape, aligned),
        _ => pick::<64, true>(&shape, aligned),
    })
}

fn pick<const LEN: usize, const EVEX: bool>(shape: &Shape, aligned: bool) -> Handler {
    match (shape, aligned) {
        (Shape::Load, false) => wide_load::<LEN, EVEX, false>,
        (Shape::Load, true) => wide_load::<LEN, EVEX, true>,
        (Shape::Store, false) => wide_store::<LEN, EVEX, false>,
        (Shape::Store, true) => wide_store::<LEN, EVEX, true>,
        (Shape::Registers, _) => wide_copy::<LEN, EVEX>,
    }
}

#[inline(always)]
fn wide_place<const LEN: usize, const EVEX: bool, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Result<u64, Fault> {
    cpu.check_vector(if EVEX { Class::Avx512 } else { Class::Avx })?;
    let offset = cpu.effective_address(&op.mem);
    if ALIGNED {
        cpu.check_vector_alignment(op.mem.segment, offset, LEN as u8)?;
    }
    Ok(offset)
}

fn wide_load<const LEN: usize, const EVEX: bool, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let offset = wide_place::<LEN, EVEX, ALIGNED>(cpu, op)?;
    let mut bytes = [0; LEN];
    cpu.read_bytes(op.mem.segment, offset, &mut bytes)?;
    let mut value = [0; 8];
    for (word, from) in value.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(std::array::from_fn(|i| from[i]));
    }
    cpu.vector.zmm[usize::from(op.a & 31)] = value;
    Ok(Flow::Next)
}

fn wide_store<const LEN: usize, const EVEX: bool, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let offset = wide_place::<LEN, EVEX, ALIGNED>(cpu, op)?;
    let mut bytes = [0; LEN];
    for (to, word) in bytes.chunks_exact_mut(8).zip(&cpu.vector.zmm[usize::from(op.b & 31)]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    cpu.write_bytes(op.mem.segment, offset, &bytes)?;
    Ok(Flow::Next)
}

fn wide_copy<const LEN: usize, const EVEX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_vector(if EVEX { Class::Avx512 } else { Class::Avx })?;
    let mut value = cpu.vector.zmm[usize::from(op.b & 31)];
    value[LEN / 8..].fill(0);
    cpu.vector.zmm[usize::from(op.a & 31)] = value;
    Ok(Flow::Next)
}

/// An operation on two 128-bit values.
trait Binary {
    fn apply(a: __m128i, b: __m128i) -> __m128i;
}

fn register<B: Binary>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let result = B::apply(cast(cpu.vector.xmm(op.a)), cast(cpu.vector.xmm(op.b)));
    cpu.vector.set_xmm(op.a, uncast(result));
    Ok(Flow::Next)
}

fn memory<B: Binary>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_sse()?;
    let offset = place::<16>(cpu, op)?;
    let value = cpu.read::<u128>(op.mem.segment, offset)?;
    let result = B::apply(cast(cpu.vector.xmm(op.a)), cast(value));
    cpu.vector.set_xmm(op.a, uncast(result));
    Ok(Flow::Next)
}

#[inline(always)]
fn cast(value: u128) -> __m128i {
    // SAFETY: both are 16 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(value) }
}

#[inline(always)]
fn uncast(value: __m128i) -> u128 {
    // SAFETY: both are 16 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(value) }
}

macro_rules! binary {
    ($($name:ident $(| $alias:ident)* => $function:ident;)*) => {
        $(
            struct $name;
            impl Binary for $name {
                #[inline(always)]
                fn apply(a: __m128i, b: __m128i) -> __m128i {
                    // SAFETY: every x86-64 processor has SSE2.
                    unsafe { $function(a, b) }
                }
            }
        )*

        /// Two-operand arithmetic on XMM registers.
        fn binary(instruction: &Instruction) -> Option<Handler> {
            let xmm = |register: Register| register.is_xmm();
            if instruction.op_count() != 2 || !xmm(instruction.op0_register()) {
                return None;
            }
            let from_memory = match instruction.op_kind(1) {
                OpKind::Memory => true,
                OpKind::Register if xmm(instruction.op1_register()) => false,
                _ => return None,
            };
            Some(match instruction.mnemonic() {
                $(
                    Mnemonic::$name $(| Mnemonic::$alias)* if from_memory => memory::<$name>,
                    Mnemonic::$name $(| Mnemonic::$alias)* => register::<$name>,
                )*
                _ => return None,
            })
        }
    };
}

binary! {
    Pxor | Xorps | Xorpd => _mm_xor_si128;
    Por | Orps | Orpd => _mm_or_si128;
    Pand | Andps | Andpd => _mm_and_si128;
    Pandn | Andnps | Andnpd => _mm_andnot_si128;
    Paddb => _mm_add_epi8;
    Paddw => _mm_add_epi16;
    Paddd => _mm_add_epi32;
    Paddq => _mm_add_epi64;
    Psubb => _mm_sub_epi8;
    Psubw => _mm_sub_epi16;
    Psubd => _mm_sub_epi32;
    Psubq => _mm_sub_epi64;
    Pcmpeqb => _mm_cmpeq_epi8;
    Pcmpeqw => _mm_cmpeq_epi16;
    Pcmpeqd => _mm_cmpeq_epi32;
    Pcmpgtb => _mm_cmpgt_epi8;
    Pminub => _mm_min_epu8;
    Pmaxub => _mm_max_epu8;
    Punpcklbw => _mm_unpacklo_epi8;
    Punpcklwd => _mm_unpacklo_epi16;
    Punpckldq | Unpcklps => _mm_unpacklo_epi32;
    Punpcklqdq | Unpcklpd => _mm_unpacklo_epi64;
    Punpckhqdq | Unpckhpd => _mm_unpackhi_epi64;
}
