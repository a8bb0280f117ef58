//! Near branches, calls and returns.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, gpr, segment};
use super::super::op::{Handler, Op};
use super::alu::{Int, condition};
use super::data::{by_condition, condition_code};
use super::operand::{by_wide_size, source};
use super::stack::{pop_value, push_value};
use crate::cpu::Mode;

impl Cpu {
    /// Goes to an offset in the code segment.
    ///
    /// # Errors
    /// #GP(0): not canonical, or beyond the segment's limit.
    #[inline(always)]
    pub(super) fn jump(&mut self, target: u64) -> Step {
        // Quick: canonical with 4-level paging, too.
        let allowed = if self.mode == Mode::Long64 {
            target.wrapping_add(1 << 47) >> 48 == 0
        } else {
            target <= u64::from(self.segments[segment::CS].loaded.limit)
        };
        if !allowed {
            self.check_target(target)?;
        }
        self.rip = target;
        Ok(Flow::Jump)
    }

    #[inline(never)]
    fn check_target(&mut self, target: u64) -> Result<(), Fault> {
        let shift = if self.cr4 & CR4_LA57 != 0 { 64 - 57 } else { 64 - 48 };
        if self.mode == Mode::Long64 && ((target << shift) as i64 >> shift) as u64 == target {
            return Ok(());
        }
        Err(self.raise(Exception::gp(0)))
    }
}

/// CR4.LA57: 5-level paging (SDM volume 3, 2.5).
const CR4_LA57: u64 = 1 << 12;

/// Where a direct branch goes; [`super::super::Mem::disp`] holds the instruction pointer's mask.
#[inline(always)]
fn target(cpu: &Cpu, op: &Op) -> u64 {
    cpu.rip.wrapping_add(op.imm) & op.mem.disp
}

fn jcc<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    if condition::<CC>(cpu.status) {
        return cpu.jump(target(cpu, op));
    }
    Ok(Flow::Next)
}

fn jmp_direct(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.jump(target(cpu, op))
}

fn jmp_indirect<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let target = source::<T, MEM>(cpu, op, op.a)?.zero_extend();
    cpu.jump(target)
}

/// Pushes the return address and goes to `target`; undone if the target is not allowed.
#[inline(always)]
fn call<T: Int>(cpu: &mut Cpu, op: &Op, target: u64) -> Step {
    let back = cpu.rip_at(op.end());
    let stack = cpu.gpr[gpr::RSP];
    let start = cpu.rip;
    let flow = cpu.jump(target)?;
    if let Err(fault) = push_value(cpu, T::truncate(back)) {
        cpu.rip = start;
        cpu.gpr[gpr::RSP] = stack;
        return Err(fault);
    }
    Ok(flow)
}

fn call_direct<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    call::<T>(cpu, op, target(cpu, op))
}

fn call_indirect<T: Int, const MEM: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let target = source::<T, MEM>(cpu, op, op.a)?.zero_extend();
    call::<T>(cpu, op, target)
}

/// RET; the immediate is what the callee pops.
fn ret<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let stack = cpu.gpr[gpr::RSP];
    let target = pop_value::<T>(cpu)?.zero_extend();
    cpu.add_to_stack_pointer(op.imm & 0xffff);
    cpu.jump(target).inspect_err(|_| cpu.gpr[gpr::RSP] = stack)
}

/// The counter of LOOP and JrCXZ has the address size `T`.
fn counter<T: Int>(cpu: &Cpu) -> u64 {
    T::reg(cpu, gpr::RCX as u8).zero_extend()
}

/// LOOP (`KIND` 0), LOOPE (1), LOOPNE (2).
fn loop_<T: Int, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let left = T::truncate(counter::<T>(cpu).wrapping_sub(1));
    let zero = cpu.status.zf();
    let go_on = left.zero_extend() != 0
        && match KIND {
            0 => true,
            1 => zero,
            _ => !zero,
        };
    let flow = if go_on { cpu.jump(target(cpu, op))? } else { Flow::Next };
    left.set_reg(cpu, gpr::RCX as u8);
    Ok(flow)
}

fn jump_if_counter_is_zero<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    if counter::<T>(cpu) == 0 {
        return cpu.jump(target(cpu, op));
    }
    Ok(Flow::Next)
}

/// The address size in bytes of a LOOP or JrCXZ.
fn counter_size(instruction: &Instruction) -> u8 {
    use iced_x86::Register;
    // iced lists the counter among the registers that the instruction uses by its size.
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let used = factory.info(instruction).used_registers();
    let counter = used.iter().find(|used| used.register().full_register() == Register::RCX);
    counter.map_or(8, |used| used.register().size() as u8)
}

/// What executes a near branch; `None`: it is not one.
pub fn handler(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let width = match instruction.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        OpKind::NearBranch64 => 8,
        _ => 0,
    };
    if width != 0 {
        op.mem.disp = u64::MAX >> (64 - 8 * width);
        return direct(instruction, width as u8);
    }
    let memory = instruction.op0_kind() == OpKind::Memory;
    if instruction.is_jmp_near_indirect() {
        return if memory {
            by_wide_size!(op.size, jmp_indirect, true)
        } else {
            by_wide_size!(op.size, jmp_indirect, false)
        };
    }
    if instruction.is_call_near_indirect() {
        return if memory {
            by_wide_size!(op.size, call_indirect, true)
        } else {
            by_wide_size!(op.size, call_indirect, false)
        };
    }
    match instruction.code() {
        iced_x86::Code::Retnw | iced_x86::Code::Retnw_imm16 => Some(ret::<u16>),
        iced_x86::Code::Retnd | iced_x86::Code::Retnd_imm16 => Some(ret::<u32>),
        iced_x86::Code::Retnq | iced_x86::Code::Retnq_imm16 => Some(ret::<u64>),
        _ => None,
    }
}

fn direct(instruction: &Instruction, width: u8) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Jmp => Some(jmp_direct),
        Mnemonic::Call => by_wide_size!(width, call_direct),
        Mnemonic::Loop => by_wide_size!(counter_size(instruction), loop_, 0),
        Mnemonic::Loope => by_wide_size!(counter_size(instruction), loop_, 1),
        Mnemonic::Loopne => by_wide_size!(counter_size(instruction), loop_, 2),
        Mnemonic::Jcxz => Some(jump_if_counter_is_zero::<u16>),
        Mnemonic::Jecxz => Some(jump_if_counter_is_zero::<u32>),
        Mnemonic::Jrcxz => Some(jump_if_counter_is_zero::<u64>),
        _ if instruction.is_jcc_short_or_near() => {
            by_condition!(condition_code(instruction), |CC| Some(jcc::<CC> as Handler))
        }
        _ => None,
    }
}
