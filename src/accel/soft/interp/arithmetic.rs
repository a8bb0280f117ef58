//! ADD to XOR, CMP, TEST, INC to NEG, the multiplications and divisions.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Exception, Flow, Status, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::{Int, Wide};
use super::operand::{by_long_size, by_size, by_wide_size, load, modify, source, stored};

/// An instruction that combines two operands into the first.
pub trait Binary {
    /// Whether operand 0 is written.
    const WRITES: bool = true;
    /// Result and flags.
    fn apply<T: Int>(a: T, b: T, status: Status) -> (T, Status);
}

macro_rules! binary {
    ($($name:ident $writes:literal $text:literal => |$a:ident, $b:ident, $status:ident| $result:expr;)*) => {$(
        #[doc = $text]
        pub struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Int>($a: T, $b: T, $status: Status) -> (T, Status) {
                $result
            }
        }
    )*};
}

binary! {
    Add true "ADD." => |a, b, _status| a.add(b);
    Or true "OR." => |a, b, _status| a.or(b);
    Adc true "ADC." => |a, b, status| a.adc(b, status);
    Sbb true "SBB." => |a, b, status| a.sbb(b, status);
    And true "AND." => |a, b, _status| a.and(b);
    Sub true "SUB." => |a, b, _status| a.sub(b);
    Xor true "XOR." => |a, b, _status| a.xor(b);
    Cmp false "CMP." => |a, b, _status| a.sub(b);
    Test false "TEST." => |a, b, _status| a.and(b);
}

#[inline(always)]
fn registers<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op, a: T, b: T) -> Step {
    let (result, status) = O::apply(a, b, cpu.status);
    cpu.status = status;
    if O::WRITES {
        result.set_reg(cpu, op.a);
    }
    Ok(Flow::Next)
}

fn register_register<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Step {
    registers::<T, O>(cpu, op, T::reg(cpu, op.a), T::reg(cpu, op.b))
}

fn register_immediate<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Step {
    registers::<T, O>(cpu, op, T::reg(cpu, op.a), T::truncate(op.imm))
}

fn register_memory<T: Int, O: Binary>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = load::<T>(cpu, op)?;
    registers::<T, O>(cpu, op, T::reg(cpu, op.a), b)
}

#[inline(always)]
fn memory<T: Int, O: Binary, const LOCK: bool>(cpu: &mut Cpu, op: &Op, b: T) -> Step {
    let address = cpu.effective_address(&op.mem);
    let before = cpu.status;
    if !O::WRITES {
        let a = cpu.read::<T>(op.mem.segment, address)?;
        cpu.status = O::apply(a, b, before).1;
        return Ok(Flow::Next);
    }
    let mut after = before;
    cpu.update::<T, LOCK>(op.mem.segment, address, |a| {
        let (result, status) = O::apply(a, b, before);
        after = status;
        result
    })?;
    cpu.status = after;
    stored(cpu)
}

fn memory_register<T: Int, O: Binary, const LOCK: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = T::reg(cpu, op.b);
    memory::<T, O, LOCK>(cpu, op, b)
}

fn memory_immediate<T: Int, O: Binary, const LOCK: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    memory::<T, O, LOCK>(cpu, op, T::truncate(op.imm))
}

fn binary_handler<O: Binary>(instruction: &Instruction, size: u8) -> Option<Handler> {
    let lock = instruction.has_lock_prefix();
    match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Register) => by_size!(size, register_register, O),
        (OpKind::Register, OpKind::Memory) => by_size!(size, register_memory, O),
        (OpKind::Memory, OpKind::Register) if lock => by_size!(size, memory_register, O, true),
        (OpKind::Memory, OpKind::Register) => by_size!(size, memory_register, O, false),
        (OpKind::Register, _) => by_size!(size, register_immediate, O),
        _ if lock => by_size!(size, memory_immediate, O, true),
        _ => by_size!(size, memory_immediate, O, false),
    }
}

/// An instruction with one operand.
trait Unary {
    fn apply<T: Int>(a: T, status: Status) -> (T, Status);
}

macro_rules! unary {
    ($($name:ident $method:ident;)*) => {$(
        struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<T: Int>(a: T, status: Status) -> (T, Status) {
                a.$method(status)
            }
        }
    )*};
}

unary! {
    Inc inc;
    Dec dec;
    Neg neg;
}

fn unary<T: Int, O: Unary, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let before = cpu.status;
    let mut after = before;
    let flow = modify::<T, MEM>(cpu, op, |a| {
        let (result, status) = O::apply(a, before);
        after = status;
        result
    })?;
    cpu.status = after;
    Ok(flow)
}

fn not<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    modify::<T, MEM>(cpu, op, |a| T::truncate(!a.zero_extend()))
}

fn multiply<T: Int, const SIGNED: bool, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = source::<T, MEM>(cpu, op, op.a)?;
    let a = T::reg(cpu, gpr::RAX as u8);
    let (low, high, status) = if SIGNED { a.imul(b) } else { a.mul(b) };
    set_pair(cpu, low, high);
    cpu.status = status;
    Ok(Flow::Next)
}

/// Puts a value of twice the width into DX:AX, EDX:EAX, RDX:RAX, or AX for bytes.
fn set_pair<T: Int>(cpu: &mut Cpu, low: T, high: T) {
    if T::BITS == 8 {
        let ax = low.zero_extend() | high.zero_extend() << 8;
        cpu.set_reg16(gpr::RAX as u8, ax as u16);
        return;
    }
    low.set_reg(cpu, gpr::RAX as u8);
    high.set_reg(cpu, gpr::RDX as u8);
}

/// The dividend: AX, DX:AX, EDX:EAX or RDX:RAX.
fn pair<T: Int>(cpu: &Cpu) -> u128 {
    if T::BITS == 8 {
        return u128::from(cpu.reg16(gpr::RAX as u8));
    }
    let high = T::reg(cpu, gpr::RDX as u8).zero_extend();
    u128::from(high) << T::BITS | u128::from(T::reg(cpu, gpr::RAX as u8).zero_extend())
}

fn divide<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let divisor = source::<T, MEM>(cpu, op, op.a)?.zero_extend();
    let dividend = pair::<T>(cpu);
    if divisor == 0 || (dividend >> T::BITS) as u64 >= divisor {
        return Err(cpu.raise(Exception::DE));
    }
    let (quotient, remainder) = match u64::try_from(dividend) {
        Ok(dividend) => (dividend / divisor, dividend % divisor),
        Err(_) => ((dividend / u128::from(divisor)) as u64, (dividend % u128::from(divisor)) as u64),
    };
    set_pair(cpu, T::truncate(quotient), T::truncate(remainder));
    Ok(Flow::Next)
}

fn divide_signed<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let divisor = source::<T, MEM>(cpu, op, op.a)?.sign_extend() as i64;
    let shift = 128 - 2 * T::BITS;
    let dividend = (pair::<T>(cpu) << shift) as i128 >> shift;
    let (quotient, remainder) = match i64::try_from(dividend) {
        Ok(dividend) if divisor != -1 && divisor != 0 => (i128::from(dividend / divisor), dividend % divisor),
        _ => {
            let divisor = i128::from(divisor);
            let quotient = dividend.checked_div(divisor);
            let Some(quotient) = quotient else { return Err(cpu.raise(Exception::DE)) };
            (quotient, (dividend - quotient * divisor) as i64)
        }
    };
    let result = T::truncate(quotient as u64);
    if i128::from(result.sign_extend() as i64) != quotient {
        return Err(cpu.raise(Exception::DE));
    }
    set_pair(cpu, result, T::truncate(remainder as u64));
    Ok(Flow::Next)
}

fn imul2<T: Wide, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = source::<T, MEM>(cpu, op, op.b)?;
    let (result, status) = T::reg(cpu, op.a).imul_low(b);
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

fn imul3<T: Wide, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let a = source::<T, MEM>(cpu, op, op.b)?;
    let (result, status) = a.imul_low(T::truncate(op.imm));
    result.set_reg(cpu, op.a);
    cpu.status = status;
    Ok(Flow::Next)
}

/// ADCX and ADOX: `FLAG` is the bit of [`Status`] that carries.
fn add_with_flag<T: Int, const FLAG: u16, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let b = source::<T, MEM>(cpu, op, op.b)?.zero_extend();
    let a = T::reg(cpu, op.a).zero_extend();
    let carry = u128::from(cpu.status.0 & FLAG != 0);
    let sum = u128::from(a) + u128::from(b) + carry;
    T::truncate(sum as u64).set_reg(cpu, op.a);
    cpu.status.0 = if sum >> T::BITS != 0 { cpu.status.0 | FLAG } else { cpu.status.0 & !FLAG };
    Ok(Flow::Next)
}

/// What executes an arithmetic instruction with operands of `size` bytes; `None`: it is not one.
pub fn handler(instruction: &Instruction, size: u8) -> Option<Handler> {
    let memory = instruction.op0_kind() == OpKind::Memory;
    let memory_source = instruction.op1_kind() == OpKind::Memory;
    macro_rules! one {
        ($handler:ident $(, $generic:tt)*) => {
            if memory { by_size!(size, $handler $(, $generic)*, true) } else { by_size!(size, $handler $(, $generic)*, false) }
        };
    }
    macro_rules! two {
        ($by:ident, $handler:ident $(, $generic:tt)*) => {
            if memory_source { $by!(size, $handler $(, $generic)*, true) } else { $by!(size, $handler $(, $generic)*, false) }
        };
    }
    match instruction.mnemonic() {
        Mnemonic::Add => binary_handler::<Add>(instruction, size),
        Mnemonic::Or => binary_handler::<Or>(instruction, size),
        Mnemonic::Adc => binary_handler::<Adc>(instruction, size),
        Mnemonic::Sbb => binary_handler::<Sbb>(instruction, size),
        Mnemonic::And => binary_handler::<And>(instruction, size),
        Mnemonic::Sub => binary_handler::<Sub>(instruction, size),
        Mnemonic::Xor => binary_handler::<Xor>(instruction, size),
        Mnemonic::Cmp => binary_handler::<Cmp>(instruction, size),
        Mnemonic::Test => binary_handler::<Test>(instruction, size),
        Mnemonic::Inc => one!(unary, Inc),
        Mnemonic::Dec => one!(unary, Dec),
        Mnemonic::Neg => one!(unary, Neg),
        Mnemonic::Not => one!(not),
        Mnemonic::Mul => one!(multiply, false),
        Mnemonic::Div => one!(divide),
        Mnemonic::Idiv => one!(divide_signed),
        Mnemonic::Imul => match instruction.op_count() {
            1 => one!(multiply, true),
            2 => two!(by_wide_size, imul2),
            _ => two!(by_wide_size, imul3),
        },
        Mnemonic::Adcx => two!(by_long_size, add_with_flag, 0x0100),
        Mnemonic::Adox => two!(by_long_size, add_with_flag, 1),
        _ => None,
    }
}
