//! Data movement between registers and memory.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Exception, Flow, Status, Step, gpr};
use super::super::op::{Handler, NO_REGISTER, Op};
use super::alu::{Int, condition};
use super::operand::{by_long_size, by_size, by_wide_size, load, source, store, stored, update};

const RAX: u8 = gpr::RAX as u8;
const RDX: u8 = gpr::RDX as u8;

fn mov_register_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    T::reg(cpu, op.b).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn mov_register_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    T::truncate(op.imm).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn mov_register_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    load::<T>(cpu, op)?.set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn mov_memory_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = T::reg(cpu, op.b);
    store(cpu, op, value)?;
    stored(cpu)
}

fn mov_memory_immediate<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    store(cpu, op, T::truncate(op.imm))?;
    stored(cpu)
}

fn mov(instruction: &Instruction, size: u8) -> Option<Handler> {
    match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Register) => by_size!(size, mov_register_register),
        (OpKind::Register, OpKind::Memory) => by_size!(size, mov_register_memory),
        (OpKind::Memory, OpKind::Register) => by_size!(size, mov_memory_register),
        (OpKind::Register, _) => by_size!(size, mov_register_immediate),
        _ => by_size!(size, mov_memory_immediate),
    }
}

/// MOVZX, MOVSX, MOVSXD from `S` to `T`.
fn extend<T: Int, S: Int, const SIGNED: bool, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = source::<S, MEM>(cpu, op, op.b)?;
    T::truncate(if SIGNED { value.sign_extend() } else { value.zero_extend() }).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn extension<const SIGNED: bool>(instruction: &Instruction, size: u8) -> Option<Handler> {
    let memory = instruction.op1_kind() == OpKind::Memory;
    let from = if memory { instruction.memory_size().size() } else { instruction.op1_register().size() };
    match (from, memory) {
        (1, true) => by_wide_size!(size, extend, u8, SIGNED, true),
        (1, false) => by_wide_size!(size, extend, u8, SIGNED, false),
        (2, true) => by_wide_size!(size, extend, u16, SIGNED, true),
        (2, false) => by_wide_size!(size, extend, u16, SIGNED, false),
        (_, true) => by_wide_size!(size, extend, u32, SIGNED, true),
        (_, false) => by_wide_size!(size, extend, u32, SIGNED, false),
    }
}

fn cmov<T: Int, const CC: u8, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let new = source::<T, MEM>(cpu, op, op.b)?;
    let old = T::reg(cpu, op.a);
    // Written in either case: a 32-bit destination loses its high half.
    (if condition::<CC>(cpu.status) { new } else { old }).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn setcc<const CC: u8, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = u8::from(condition::<CC>(cpu.status));
    if MEM {
        store(cpu, op, value)?;
        return stored(cpu);
    }
    cpu.set_reg8(op.a, value);
    Ok(Flow::Next)
}

fn lea<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    T::truncate(cpu.effective_address(&op.mem)).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn xchg_registers<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let (a, b) = (T::reg(cpu, op.a), T::reg(cpu, op.b));
    b.set_reg(cpu, op.a);
    a.set_reg(cpu, op.b);
    Ok(Flow::Next)
}

/// With memory XCHG is atomic without a LOCK prefix, too. The register is operand 1 or, as iced orders some forms, 0.
fn xchg_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let address = cpu.effective_address(&op.mem);
    let value = T::reg(cpu, op.b);
    cpu.update::<T, true>(op.mem.segment, address, |_| value)?.set_reg(cpu, op.b);
    stored(cpu)
}

fn bswap<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = T::reg(cpu, op.a).zero_extend();
    // With a 16-bit operand the result is undefined; processors give 0.
    let result = if T::BITS == 16 { 0 } else { value.swap_bytes() >> (64 - T::BITS) };
    T::truncate(result).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn reversed<T: Int>(value: T) -> T {
    T::truncate(value.zero_extend().swap_bytes() >> (64 - T::BITS))
}

fn movbe_load<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    reversed(load::<T>(cpu, op)?).set_reg(cpu, op.a);
    Ok(Flow::Next)
}

fn movbe_store<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = reversed(T::reg(cpu, op.b));
    store(cpu, op, value)?;
    stored(cpu)
}

fn xlat(cpu: &mut Cpu, op: &Op) -> Step {
    let sum = cpu.effective_address(&op.mem).wrapping_add(u64::from(cpu.reg8(RAX)));
    let address = sum << (op.mem.cut & 63) >> (op.mem.cut & 63);
    let value = cpu.read::<u8>(op.mem.segment, address)?;
    cpu.set_reg8(RAX, value);
    Ok(Flow::Next)
}

fn cmpxchg_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let (expected, old) = (T::reg(cpu, RAX), T::reg(cpu, op.a));
    cpu.status = expected.sub(old).1;
    if expected == old {
        T::reg(cpu, op.b).set_reg(cpu, op.a);
    } else {
        // Processors of AMD write the destination in this case, too: a 32-bit one loses its high half.
        if cpu.is_amd() {
            old.set_reg(cpu, op.a);
        }
        old.set_reg(cpu, RAX);
    }
    Ok(Flow::Next)
}

/// The destination is written in either case, with its old value if it differs (SDM volume 2, CMPXCHG).
fn cmpxchg_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let (expected, new) = (T::reg(cpu, RAX), T::reg(cpu, op.b));
    let old = update::<T>(cpu, op, |old| if old == expected { new } else { old })?;
    cpu.status = expected.sub(old).1;
    if old != expected {
        old.set_reg(cpu, RAX);
    }
    stored(cpu)
}

fn set_zero_flag(cpu: &mut Cpu, zero: bool) {
    cpu.status = Status(cpu.status.0 & !0x4000 | u16::from(zero) << 14);
}

fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Step {
    let expected = u64::from(cpu.reg32(RDX)) << 32 | u64::from(cpu.reg32(RAX));
    let new = u64::from(cpu.reg32(gpr::RCX as u8)) << 32 | u64::from(cpu.reg32(gpr::RBX as u8));
    let old = update::<u64>(cpu, op, |old| if old == expected { new } else { old })?;
    if old != expected {
        cpu.set_reg32(RAX, old as u32);
        cpu.set_reg32(RDX, (old >> 32) as u32);
    }
    set_zero_flag(cpu, old == expected);
    stored(cpu)
}

fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Step {
    let join = |high: usize, low: usize, cpu: &Cpu| u128::from(cpu.gpr[high]) << 64 | u128::from(cpu.gpr[low]);
    let expected = join(gpr::RDX, gpr::RAX, cpu);
    let new = join(gpr::RCX, gpr::RBX, cpu);
    let offset = cpu.effective_address(&op.mem);
    let linear = cpu.linear::<true>(op.mem.segment, offset, 16)?;
    if linear & 15 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let old = update::<u128>(cpu, op, |old| if old == expected { new } else { old })?;
    if old != expected {
        cpu.gpr[gpr::RAX] = old as u64;
        cpu.gpr[gpr::RDX] = (old >> 64) as u64;
    }
    set_zero_flag(cpu, old == expected);
    stored(cpu)
}

fn xadd<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let addend = T::reg(cpu, op.b);
    let mut status = cpu.status;
    let add = |old: T| {
        let (sum, flags) = old.add(addend);
        status = flags;
        sum
    };
    if MEM {
        update::<T>(cpu, op, add)?.set_reg(cpu, op.b);
        cpu.status = status;
        return stored(cpu);
    }
    let mut add = add;
    let old = T::reg(cpu, op.a);
    let sum = add(old);
    cpu.status = status;
    old.set_reg(cpu, op.b);
    sum.set_reg(cpu, op.a);
    Ok(Flow::Next)
}

/// CBW, CWDE, CDQE: from `S` to `T` in the accumulator.
fn extend_accumulator<T: Int, S: Int>(cpu: &mut Cpu, _op: &Op) -> Step {
    T::truncate(S::reg(cpu, RAX).sign_extend()).set_reg(cpu, RAX);
    Ok(Flow::Next)
}

/// CWD, CDQ, CQO: the accumulator's sign into the data register.
fn spread_sign<T: Int>(cpu: &mut Cpu, _op: &Op) -> Step {
    let sign = (T::reg(cpu, RAX).sign_extend() as i64) >> 63;
    T::truncate(sign as u64).set_reg(cpu, RDX);
    Ok(Flow::Next)
}

/// Picks a handler by the condition in the opcode of Jcc, SETcc or CMOVcc.
macro_rules! by_condition {
    ($cc:expr, |$n:ident| $pick:expr) => {
        by_condition!(@ $cc, $n, $pick, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $cc:expr, $n:ident, $pick:expr, $($value:literal)*) => {
        match $cc {
            $($value => {
                const $n: u8 = $value;
                $pick
            })*
            _ => None,
        }
    };
}
pub(super) use by_condition;

/// The condition of a Jcc, SETcc or CMOVcc, 0-15 as in its opcode.
pub fn condition_code(instruction: &Instruction) -> u8 {
    use iced_x86::ConditionCode as Cc;
    match instruction.condition_code() {
        Cc::None => 16,
        Cc::o => 0,
        Cc::no => 1,
        Cc::b => 2,
        Cc::ae => 3,
        Cc::e => 4,
        Cc::ne => 5,
        Cc::be => 6,
        Cc::a => 7,
        Cc::s => 8,
        Cc::ns => 9,
        Cc::p => 10,
        Cc::np => 11,
        Cc::l => 12,
        Cc::ge => 13,
        Cc::le => 14,
        Cc::g => 15,
    }
}

fn conditional_move(instruction: &Instruction, size: u8) -> Option<Handler> {
    let memory = instruction.op1_kind() == OpKind::Memory;
    by_condition!(condition_code(instruction), |CC| if memory {
        by_wide_size!(size, cmov, CC, true)
    } else {
        by_wide_size!(size, cmov, CC, false)
    })
}

fn set_on_condition(instruction: &Instruction) -> Option<Handler> {
    let memory = instruction.op0_kind() == OpKind::Memory;
    by_condition!(condition_code(instruction), |CC| if memory {
        Some(setcc::<CC, true> as Handler)
    } else {
        Some(setcc::<CC, false> as Handler)
    })
}

/// XCHG; the form with memory has its register in [`Op::b`].
fn exchange(instruction: &Instruction, op: &mut Op, size: u8) -> Option<Handler> {
    if instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register {
        return by_size!(size, xchg_registers);
    }
    if instruction.op0_kind() == OpKind::Register {
        op.b = op.a;
    }
    by_size!(size, xchg_memory)
}

/// What executes a data movement with operands of `size` bytes; `None`: it is not one.
pub fn handler(instruction: &Instruction, op: &mut Op, size: u8) -> Option<Handler> {
    let memory = instruction.op0_kind() == OpKind::Memory;
    match instruction.mnemonic() {
        Mnemonic::Mov => mov(instruction, size),
        Mnemonic::Movzx => extension::<false>(instruction, size),
        Mnemonic::Movsx | Mnemonic::Movsxd => extension::<true>(instruction, size),
        Mnemonic::Lea => by_wide_size!(size, lea),
        Mnemonic::Xchg => exchange(instruction, op, size),
        Mnemonic::Bswap => by_wide_size!(size, bswap),
        Mnemonic::Movbe if memory => by_wide_size!(size, movbe_store),
        Mnemonic::Movbe => by_wide_size!(size, movbe_load),
        Mnemonic::Movnti => by_long_size!(size, mov_memory_register),
        Mnemonic::Xlatb => {
            // The index is AL, not the whole register.
            op.mem.index = NO_REGISTER;
            Some(xlat)
        }
        Mnemonic::Cmpxchg if memory => by_size!(size, cmpxchg_memory),
        Mnemonic::Cmpxchg => by_size!(size, cmpxchg_register),
        Mnemonic::Cmpxchg8b => Some(cmpxchg8b),
        Mnemonic::Cmpxchg16b => Some(cmpxchg16b),
        Mnemonic::Xadd if memory => by_size!(size, xadd, true),
        Mnemonic::Xadd => by_size!(size, xadd, false),
        Mnemonic::Cbw => Some(extend_accumulator::<u16, u8>),
        Mnemonic::Cwde => Some(extend_accumulator::<u32, u16>),
        Mnemonic::Cdqe => Some(extend_accumulator::<u64, u32>),
        Mnemonic::Cwd => Some(spread_sign::<u16>),
        Mnemonic::Cdq => Some(spread_sign::<u32>),
        Mnemonic::Cqo => Some(spread_sign::<u64>),
        _ => conditional(instruction, size),
    }
}

fn conditional(instruction: &Instruction, size: u8) -> Option<Handler> {
    match (condition_code(instruction), instruction.op0_kind(), instruction.op_count()) {
        (0..16, OpKind::Register | OpKind::Memory, 1) => set_on_condition(instruction),
        (0..16, OpKind::Register, 2) => conditional_move(instruction, size),
        _ => None,
    }
}
