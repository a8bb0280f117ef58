//! String instructions, alone and repeated.
//!
//! A repeated instruction does at most [`UNITS`] elements, or what is left of the pages it touches where memory can be
//! moved at once, and then asks to be executed again, so that interrupts are seen in between. Registers follow each
//! element, so that a fault leaves what was done before it.

use iced_x86::{Code, Instruction, OpKind};

use super::super::cpu::{Cpu, Fault, Flow, Status, Step, gpr, rflags, segment};
use super::super::op::{Handler, Op};
use super::alu::Int;
use super::lower::segment as segment_of;
use super::operand::{by_size, stored};
use super::port::width;

const RAX: u8 = gpr::RAX as u8;
const ES: u8 = segment::ES as u8;
/// Elements in one go.
const UNITS: u64 = 64;
/// Bytes of port data in one go.
const PORT_BYTES: usize = 1024;

/// The registers of a string instruction, cut to its address size.
#[derive(Clone, Copy)]
struct Registers {
    cut: u8,
    backwards: bool,
}

impl Registers {
    #[inline(always)]
    fn of(cpu: &Cpu, op: &Op) -> Self {
        Self { cut: op.mem.cut & 63, backwards: cpu.flags & rflags::DF != 0 }
    }

    #[inline(always)]
    fn get(self, cpu: &Cpu, number: usize) -> u64 {
        cpu.gpr[number] << self.cut >> self.cut
    }

    #[inline(always)]
    fn set(self, cpu: &mut Cpu, number: usize, value: u64) {
        match self.cut {
            48 => cpu.set_reg16(number as u8, value as u16),
            32 => cpu.set_reg32(number as u8, value as u32),
            _ => cpu.gpr[number] = value,
        }
    }

    /// Moves a pointer by `units` elements in the direction of the string.
    #[inline(always)]
    fn advance<T: Int>(self, cpu: &mut Cpu, number: usize, units: u64) {
        let distance = units.wrapping_mul(T::LEN as u64);
        let distance = if self.backwards { distance.wrapping_neg() } else { distance };
        self.set(cpu, number, self.get(cpu, number).wrapping_add(distance));
    }

    /// How many elements there are from an offset to the end of what the address size reaches.
    #[inline(always)]
    fn before_wrap<T: Int>(self, offset: u64) -> u64 {
        (u64::MAX >> self.cut).wrapping_sub(offset).saturating_add(1) / T::LEN as u64
    }

    /// How many elements from a pointer on lie in its page, without a wrap of the address.
    #[inline(always)]
    fn in_page<T: Int>(self, cpu: &Cpu, number: usize, base: u64) -> u64 {
        let pointer = self.get(cpu, number);
        let linear = base.wrapping_add(pointer);
        let room = (0x1000 - (linear & 0xfff)).min((u64::MAX >> self.cut).wrapping_sub(pointer).saturating_add(1));
        room / T::LEN as u64
    }
}

/// What an element does.
trait Element {
    /// Does one element and moves the pointers.
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers) -> Result<(), Fault>;
    /// Does up to `most` elements upwards at once; returns how many, 0 if the next one has to go by itself.
    fn many<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers, most: u64) -> Result<u64, Fault>;
}

/// MOVS.
struct Move;
impl Element for Move {
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers) -> Result<(), Fault> {
        let (from, to) = (registers.get(cpu, gpr::RSI), registers.get(cpu, gpr::RDI));
        let value = cpu.read::<T>(op.mem.segment, from)?;
        cpu.write(ES, to, value)?;
        registers.advance::<T>(cpu, gpr::RSI, 1);
        registers.advance::<T>(cpu, gpr::RDI, 1);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers, most: u64) -> Result<u64, Fault> {
        let (from, to) = (registers.get(cpu, gpr::RSI), registers.get(cpu, gpr::RDI));
        let most = most.min(registers.before_wrap::<T>(from)).min(registers.before_wrap::<T>(to));
        let units = cpu.copy_units((op.mem.segment, from), (ES, to), T::LEN as u64, most)?;
        registers.advance::<T>(cpu, gpr::RSI, units);
        registers.advance::<T>(cpu, gpr::RDI, units);
        Ok(units)
    }
}

/// STOS.
struct Store;
impl Element for Store {
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, _op: &Op, registers: Registers) -> Result<(), Fault> {
        let value = T::reg(cpu, RAX);
        cpu.write(ES, registers.get(cpu, gpr::RDI), value)?;
        registers.advance::<T>(cpu, gpr::RDI, 1);
        Ok(())
    }

    fn many<T: Int>(cpu: &mut Cpu, _op: &Op, registers: Registers, most: u64) -> Result<u64, Fault> {
        let to = registers.get(cpu, gpr::RDI);
        let value = T::reg(cpu, RAX).zero_extend();
        let most = most.min(registers.before_wrap::<T>(to));
        let units = cpu.fill_units((ES, to), value, T::LEN as u64, most)?;
        registers.advance::<T>(cpu, gpr::RDI, units);
        Ok(units)
    }
}

/// LODS.
struct Load;
impl Element for Load {
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers) -> Result<(), Fault> {
        cpu.read::<T>(op.mem.segment, registers.get(cpu, gpr::RSI))?.set_reg(cpu, RAX);
        registers.advance::<T>(cpu, gpr::RSI, 1);
        Ok(())
    }

    fn many<T: Int>(_cpu: &mut Cpu, _op: &Op, _registers: Registers, _most: u64) -> Result<u64, Fault> {
        Ok(0)
    }
}

fn transfer<T: Int, E: Element>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    E::one::<T>(cpu, op, registers)?;
    stored(cpu)
}

/// After some elements of a repeated instruction: whether that was all.
fn pace(cpu: &Cpu, left: u64) -> Step {
    if left == 0 { stored(cpu) } else { Ok(Flow::Again) }
}

fn transfer_repeated<T: Int, E: Element>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    let mut left = registers.get(cpu, gpr::RCX);
    if left == 0 {
        return Ok(Flow::Next);
    }
    let single_step = cpu.flags & rflags::TF != 0;
    if !single_step && !registers.backwards {
        let done = E::many::<T>(cpu, op, registers, left)?;
        if done > 0 {
            registers.set(cpu, gpr::RCX, left - done);
            return pace(cpu, left - done);
        }
    }
    for _ in 0..left.min(if single_step { 1 } else { UNITS }) {
        E::one::<T>(cpu, op, registers)?;
        left -= 1;
        registers.set(cpu, gpr::RCX, left);
        if cpu.mmu.events != 0 {
            break;
        }
    }
    pace(cpu, left)
}

/// What SCAS or CMPS compares: returns the flags, and moves the pointers.
trait Comparison {
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers) -> Result<Status, Fault>;
}

/// SCAS.
struct Scan;
impl Comparison for Scan {
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, _op: &Op, registers: Registers) -> Result<Status, Fault> {
        let value = cpu.read::<T>(ES, registers.get(cpu, gpr::RDI))?;
        registers.advance::<T>(cpu, gpr::RDI, 1);
        Ok(T::reg(cpu, RAX).sub(value).1)
    }
}

/// CMPS.
struct Compare;
impl Comparison for Compare {
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers) -> Result<Status, Fault> {
        let a = cpu.read::<T>(op.mem.segment, registers.get(cpu, gpr::RSI))?;
        let b = cpu.read::<T>(ES, registers.get(cpu, gpr::RDI))?;
        registers.advance::<T>(cpu, gpr::RSI, 1);
        registers.advance::<T>(cpu, gpr::RDI, 1);
        Ok(a.sub(b).1)
    }
}

fn compare<T: Int, C: Comparison>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    cpu.status = C::one::<T>(cpu, op, registers)?;
    Ok(Flow::Next)
}

/// The flags change when the instruction is done; while it is interrupted they are as before it (SDM volume 2, REP).
fn compare_repeated<T: Int, C: Comparison>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    let mut left = registers.get(cpu, gpr::RCX);
    if left == 0 {
        return Ok(Flow::Next);
    }
    let while_equal = op.prefixes & Op::REPNE == 0;
    let single_step = cpu.flags & rflags::TF != 0;
    for _ in 0..if single_step { 1 } else { UNITS } {
        let status = C::one::<T>(cpu, op, registers)?;
        left -= 1;
        registers.set(cpu, gpr::RCX, left);
        if left == 0 || status.zf() != while_equal {
            cpu.status = status;
            return Ok(Flow::Next);
        }
    }
    Ok(Flow::Again)
}

/// INS. Where the data goes is checked before the device is asked for it.
fn input<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    let port = cpu.reg16(gpr::RDX as u8);
    cpu.check_io(port, T::LEN as u64)?;
    input_one::<T>(cpu, registers, port)?;
    Ok(Flow::End)
}

fn input_one<T: Int>(cpu: &mut Cpu, registers: Registers, port: u16) -> Result<(), Fault> {
    let to = registers.get(cpu, gpr::RDI);
    cpu.probe_write(ES, to, T::LEN as u64)?;
    let value = cpu.port_read(port, width::<T>());
    cpu.write(ES, to, T::truncate(u64::from(value)))?;
    registers.advance::<T>(cpu, gpr::RDI, 1);
    Ok(())
}

/// What REP INS and REP OUTS begin with: registers, the count and the port; `None`: there is nothing to move.
fn begin_repeated<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<Option<(Registers, u64, u16)>, Fault> {
    let registers = Registers::of(cpu, op);
    let left = registers.get(cpu, gpr::RCX);
    let port = cpu.reg16(gpr::RDX as u8);
    // Even if there is nothing to move.
    cpu.check_io(port, T::LEN as u64)?;
    Ok((left != 0).then_some((registers, left, port)))
}

fn input_repeated<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let Some((registers, left, port)) = begin_repeated::<T>(cpu, op)? else { return Ok(Flow::Next) };
    let units = port_units::<T>(cpu, registers, gpr::RDI, ES, left);
    let to = registers.get(cpu, gpr::RDI);
    let done = if units > 1 && cpu.is_memory::<true>(ES, to, units * T::LEN as u64) {
        let mut data = [0; PORT_BYTES];
        let data = &mut data[..units as usize * T::LEN];
        cpu.port_read_string(port, width::<T>(), data);
        cpu.write_bytes(ES, to, data)?;
        registers.advance::<T>(cpu, gpr::RDI, units);
        units
    } else {
        input_one::<T>(cpu, registers, port)?;
        1
    };
    registers.set(cpu, gpr::RCX, left - done);
    Ok(if left == done { Flow::End } else { Flow::Again })
}

/// How many elements INS or OUTS may move at once.
fn port_units<T: Int>(cpu: &Cpu, registers: Registers, pointer: usize, number: u8, left: u64) -> u64 {
    if registers.backwards || cpu.flags & rflags::TF != 0 {
        return 1;
    }
    let base = cpu.segments[usize::from(number & 7)].base;
    registers.in_page::<T>(cpu, pointer, base).min(left).min((PORT_BYTES / T::LEN) as u64)
}

/// OUTS.
fn output<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let registers = Registers::of(cpu, op);
    let port = cpu.reg16(gpr::RDX as u8);
    cpu.check_io(port, T::LEN as u64)?;
    output_one::<T>(cpu, op, registers, port)?;
    Ok(Flow::End)
}

fn output_one<T: Int>(cpu: &mut Cpu, op: &Op, registers: Registers, port: u16) -> Result<(), Fault> {
    let value = cpu.read::<T>(op.mem.segment, registers.get(cpu, gpr::RSI))?;
    cpu.port_write(port, width::<T>(), value.zero_extend() as u32);
    registers.advance::<T>(cpu, gpr::RSI, 1);
    Ok(())
}

fn output_repeated<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let Some((registers, left, port)) = begin_repeated::<T>(cpu, op)? else { return Ok(Flow::Next) };
    let units = port_units::<T>(cpu, registers, gpr::RSI, op.mem.segment, left);
    let from = registers.get(cpu, gpr::RSI);
    let done = if units > 1 && cpu.is_memory::<false>(op.mem.segment, from, units * T::LEN as u64) {
        let mut data = [0; PORT_BYTES];
        let data = &mut data[..units as usize * T::LEN];
        cpu.read_bytes(op.mem.segment, from, data)?;
        cpu.port_write_string(port, width::<T>(), data);
        registers.advance::<T>(cpu, gpr::RSI, units);
        units
    } else {
        output_one::<T>(cpu, op, registers, port)?;
        1
    };
    registers.set(cpu, gpr::RCX, left - done);
    Ok(if left == done { Flow::End } else { Flow::Again })
}

/// What a string instruction is, and the size of its elements.
fn classify(code: Code) -> Option<(Kind, u8)> {
    Some(match code {
        Code::Movsb_m8_m8 => (Kind::Movs, 1),
        Code::Movsw_m16_m16 => (Kind::Movs, 2),
        Code::Movsd_m32_m32 => (Kind::Movs, 4),
        Code::Movsq_m64_m64 => (Kind::Movs, 8),
        Code::Stosb_m8_AL => (Kind::Stos, 1),
        Code::Stosw_m16_AX => (Kind::Stos, 2),
        Code::Stosd_m32_EAX => (Kind::Stos, 4),
        Code::Stosq_m64_RAX => (Kind::Stos, 8),
        Code::Lodsb_AL_m8 => (Kind::Lods, 1),
        Code::Lodsw_AX_m16 => (Kind::Lods, 2),
        Code::Lodsd_EAX_m32 => (Kind::Lods, 4),
        Code::Lodsq_RAX_m64 => (Kind::Lods, 8),
        Code::Scasb_AL_m8 => (Kind::Scas, 1),
        Code::Scasw_AX_m16 => (Kind::Scas, 2),
        Code::Scasd_EAX_m32 => (Kind::Scas, 4),
        Code::Scasq_RAX_m64 => (Kind::Scas, 8),
        Code::Cmpsb_m8_m8 => (Kind::Cmps, 1),
        Code::Cmpsw_m16_m16 => (Kind::Cmps, 2),
        Code::Cmpsd_m32_m32 => (Kind::Cmps, 4),
        Code::Cmpsq_m64_m64 => (Kind::Cmps, 8),
        Code::Insb_m8_DX => (Kind::Ins, 1),
        Code::Insw_m16_DX => (Kind::Ins, 2),
        Code::Insd_m32_DX => (Kind::Ins, 4),
        Code::Outsb_DX_m8 => (Kind::Outs, 1),
        Code::Outsw_DX_m16 => (Kind::Outs, 2),
        Code::Outsd_DX_m32 => (Kind::Outs, 4),
        _ => return None,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
    Ins,
    Outs,
}

/// 64 minus the address size of an implicit string operand.
fn cut(instruction: &Instruction) -> u8 {
    let kinds = (0..instruction.op_count()).map(|operand| instruction.op_kind(operand));
    kinds.fold(0, |cut, kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => 48,
        OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => 32,
        _ => cut,
    })
}

/// What executes a string instruction; `None`: it is not one.
pub fn handler(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let (kind, size) = classify(instruction.code())?;
    op.mem.cut = cut(instruction);
    op.mem.segment = segment_of(instruction);
    let repeated = op.prefixes & (Op::REP | Op::REPNE) != 0;
    match (kind, repeated) {
        (Kind::Movs, false) => by_size!(size, transfer, Move),
        (Kind::Movs, true) => by_size!(size, transfer_repeated, Move),
        (Kind::Stos, false) => by_size!(size, transfer, Store),
        (Kind::Stos, true) => by_size!(size, transfer_repeated, Store),
        (Kind::Lods, false) => by_size!(size, transfer, Load),
        (Kind::Lods, true) => by_size!(size, transfer_repeated, Load),
        (Kind::Scas, false) => by_size!(size, compare, Scan),
        (Kind::Scas, true) => by_size!(size, compare_repeated, Scan),
        (Kind::Cmps, false) => by_size!(size, compare, Compare),
        (Kind::Cmps, true) => by_size!(size, compare_repeated, Compare),
        (Kind::Ins, false) => by_size!(size, input),
        (Kind::Ins, true) => by_size!(size, input_repeated),
        (Kind::Outs, false) => by_size!(size, output),
        (Kind::Outs, true) => by_size!(size, output_repeated),
    }
}
