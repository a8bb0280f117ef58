//! Hints, fences, cache control, random numbers, direct stores, protection keys, and transactions that always abort.

use std::sync::atomic::{Ordering, fence};

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::super::cpu::{Cpu, Exception, Fault, Flow, Status, Step, gpr};
use super::super::op::{Handler, Op};
use super::alu::Int;
use super::operand::{by_long_size, by_wide_size, store, stored};

fn nop(_cpu: &mut Cpu, _op: &Op) -> Step {
    Ok(Flow::Next)
}

/// PAUSE: the guest waits for somebody else, so the host's other threads may go first for a moment.
fn pause(_cpu: &mut Cpu, _op: &Op) -> Step {
    std::hint::spin_loop();
    Ok(Flow::Next)
}

fn memory_fence(_cpu: &mut Cpu, _op: &Op) -> Step {
    fence(Ordering::SeqCst);
    Ok(Flow::Next)
}

/// CLFLUSH, CLFLUSHOPT, CLWB: checked like a read of a byte; there is no cache to flush.
fn flush(cpu: &mut Cpu, op: &Op) -> Step {
    let address = cpu.effective_address(&op.mem);
    cpu.probe_read(op.mem.segment, address)?;
    Ok(Flow::Next)
}

/// RDRAND, RDSEED: CF tells success, the other flags are 0.
fn random<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let mut bytes = [0; 8];
    let success = getrandom::fill(&mut bytes).is_ok();
    let value = if success { u64::from_le_bytes(bytes) } else { 0 };
    T::truncate(value).set_reg(cpu, op.a);
    cpu.status = Status(Status::CLEAR.0 | u16::from(success) << 8);
    Ok(Flow::Next)
}

/// MOVDIRI.
fn store_direct<T: Int>(cpu: &mut Cpu, op: &Op) -> Step {
    let value = T::reg(cpu, op.b);
    store(cpu, op, value)?;
    stored(cpu)
}

/// MOVDIR64B: 64 bytes to ES:register, which must be aligned.
fn move_64_bytes(cpu: &mut Cpu, op: &Op) -> Step {
    let mut bytes = [0; 64];
    let from = cpu.effective_address(&op.mem);
    // The destination's address has the width of the memory operand's.
    let to = cpu.reg64(op.a) << (op.mem.cut & 63) >> (op.mem.cut & 63);
    let linear = cpu.segments[super::super::cpu::segment::ES].base.wrapping_add(to);
    if linear & 63 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.read_bytes(op.mem.segment, from, &mut bytes)?;
    cpu.write_bytes(super::super::cpu::segment::ES as u8, to, &bytes)?;
    stored(cpu)
}

/// XBEGIN: the transaction aborts at once, with no reason to try again (SDM volume 1, 16.3.5).
fn transaction_begin(cpu: &mut Cpu, op: &Op) -> Step {
    let target = cpu.rip.wrapping_add(op.imm) & op.mem.disp;
    let flow = cpu.jump(target)?;
    cpu.set_reg32(gpr::RAX as u8, 0);
    Ok(flow)
}

fn transaction_end(cpu: &mut Cpu, _op: &Op) -> Step {
    Err(cpu.raise(Exception::gp(0)))
}

/// XTEST: never inside a transaction.
fn transaction_test(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.status = Status(Status::CLEAR.0 | 0x4000);
    Ok(Flow::Next)
}

/// CR4.PKE (SDM volume 3, 2.5): protection keys of user pages.
const CR4_PKE: u64 = 1 << 22;

/// RDPKRU and WRPKRU: not without CR4.PKE, and with zeros in the other registers.
fn check_keys(cpu: &mut Cpu, zero: u64) -> Result<(), Fault> {
    if cpu.cr4 & CR4_PKE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    if zero as u32 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(())
}

fn read_keys(cpu: &mut Cpu, _op: &Op) -> Step {
    check_keys(cpu, cpu.gpr[gpr::RCX])?;
    let keys = cpu.mmu.pkru();
    cpu.set_reg32(gpr::RAX as u8, keys);
    cpu.set_reg32(gpr::RDX as u8, 0);
    Ok(Flow::Next)
}

fn write_keys(cpu: &mut Cpu, _op: &Op) -> Step {
    check_keys(cpu, cpu.gpr[gpr::RCX] | cpu.gpr[gpr::RDX])?;
    let keys = cpu.reg32(gpr::RAX as u8);
    cpu.mmu.set_pkru(keys);
    Ok(Flow::End)
}

/// CMPccXADD and others are not here: no model has them.
fn transaction(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Xbegin => {
            let width = match instruction.op0_kind() {
                OpKind::NearBranch16 => 48,
                OpKind::NearBranch32 => 32,
                _ => 0,
            };
            op.mem.disp = u64::MAX >> width;
            Some(transaction_begin)
        }
        Mnemonic::Xend => Some(transaction_end),
        Mnemonic::Xtest => Some(transaction_test),
        Mnemonic::Xabort => Some(nop),
        _ => None,
    }
}

/// What executes an instruction of this file; `None`: it is not one.
pub fn handler(instruction: &Instruction, op: &mut Op, size: u8) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Endbr32
        | Mnemonic::Endbr64
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq
        | Mnemonic::Cldemote
        | Mnemonic::Serialize
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1
        | Mnemonic::Xsusldtrk
        | Mnemonic::Xresldtrk => Some(nop),
        Mnemonic::Pause => Some(pause),
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => Some(memory_fence),
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => Some(flush),
        Mnemonic::Rdrand | Mnemonic::Rdseed => by_wide_size!(size, random),
        Mnemonic::Movdiri => by_long_size!(size, store_direct),
        Mnemonic::Rdpkru => Some(read_keys),
        Mnemonic::Wrpkru => Some(write_keys),
        Mnemonic::Movdir64b => Some(move_64_bytes),
        _ => transaction(instruction, op),
    }
}
