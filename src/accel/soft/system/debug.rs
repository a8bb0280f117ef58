//! Debug registers and debug exceptions (Intel SDM volume 3, chapter 18).
//!
//! The interpreter executes one instruction at a time while [`Cpu::is_debugged`]: it calls [`Cpu::debug_before`] and
//! [`Cpu::debug_after`] around each.

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, rflags};
use super::super::mmu::events;
use super::super::op::Op;
use super::control::cr4;
use super::instruction;

/// DR6: access to a debug register (general detect).
const DR6_BD: u64 = 1 << 13;
/// DR6: single step.
const DR6_BS: u64 = 1 << 14;
/// DR6: task switch.
pub(super) const DR6_BT: u64 = 1 << 15;
/// DR6: the breakpoints.
const DR6_B: u64 = 15;
/// DR6: bits that software writes.
const DR6_WRITABLE: u64 = DR6_B | DR6_BD | DR6_BS | DR6_BT;
/// DR6: bits that are always 1.
const DR6_ONES: u64 = 0xffff_0ff0;
/// DR7: general detect.
const DR7_GD: u64 = 1 << 13;
/// DR7: L0-G3, LE, GE, GD, and the breakpoints' types and lengths.
const DR7_WRITABLE: u64 = 0xffff_23ff;
/// DR7: the bit that is always 1.
const DR7_ONES: u64 = 0x400;
/// DR7: L0-G3.
const DR7_ENABLED: u64 = 0xff;

/// The accesses that this module compares; those to memory are the MMU's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Execute,
    Port,
}

impl Access {
    /// The R/W field of breakpoints that watch it.
    fn field(self) -> u64 {
        match self {
            Self::Execute => 0,
            Self::Port => 2,
        }
    }
}

/// The number of the register that an instruction names, 4 and 5 mapped; #UD for those that do not exist.
fn register(cpu: &mut Cpu, number: usize) -> Result<usize, Fault> {
    match number {
        0..=3 | 6 | 7 => Ok(number),
        4 | 5 if cpu.cr4 & cr4::DE == 0 => Ok(number + 2),
        _ => Err(cpu.raise(Exception::UD)),
    }
}

/// The checks of every access to a debug register (SDM volume 3, 18.2.4).
fn check_access(cpu: &mut Cpu) -> Result<(), Fault> {
    cpu.require_level_0()?;
    if cpu.dr[7] & DR7_GD != 0 {
        return Err(cpu.raise(Exception { payload: DR6_BD, ..Exception::DB }));
    }
    Ok(())
}

/// MOV DRn, r.
pub(super) fn mov_to_debug(cpu: &mut Cpu, op: &Op) -> Step {
    let number = register(cpu, instruction(op).op0_register().number())?;
    check_access(cpu)?;
    let long = cpu.mode == Mode::Long64;
    let value = if long { cpu.reg64(op.b) } else { u64::from(cpu.reg32(op.b)) };
    if number >= 6 && value >> 32 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.dr[number] = match number {
        6 => value & DR6_WRITABLE | DR6_ONES,
        7 => value & DR7_WRITABLE | DR7_ONES,
        _ => value,
    };
    cpu.debug_registers_changed();
    Ok(Flow::End)
}

/// MOV r, DRn.
pub(super) fn mov_from_debug(cpu: &mut Cpu, op: &Op) -> Step {
    let number = register(cpu, instruction(op).op1_register().number())?;
    check_access(cpu)?;
    let value = cpu.dr[number];
    if cpu.mode == Mode::Long64 {
        cpu.set_reg64(op.a, value)
    } else {
        cpu.set_reg32(op.a, value as u32)
    }
    Ok(Flow::Next)
}

impl Cpu {
    /// Whether instructions have to be looked at one by one: single step, breakpoints, RF, or a hit that waits.
    #[must_use]
    pub fn is_debugged(&self) -> bool {
        self.flags & (rflags::TF | rflags::RF) != 0 || self.dr[7] & DR7_ENABLED != 0 || self.system.debug_hits != 0
    }

    /// The DR6 bits of the enabled breakpoints that an access hits.
    fn hits(&self, access: Access, address: u64, len: u64) -> u64 {
        let control = self.dr[7];
        if control & DR7_ENABLED == 0 {
            return 0;
        }
        if access == Access::Port && self.cr4 & cr4::DE == 0 {
            return 0;
        }
        (0..4).fold(0, |hits, number| {
            let enabled = control >> (2 * number) & 3 != 0;
            let watched = control >> (16 + 4 * number) & 3 == access.field();
            let size = match control >> (18 + 4 * number) & 3 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            let start = self.dr[number as usize] & !(size - 1);
            let overlap = address.wrapping_sub(start) < size || start.wrapping_sub(address) < len;
            if enabled && watched && overlap { hits | 1 << number } else { hits }
        })
    }

    /// Before the instruction at a linear address: its breakpoints, unless RF says that they were seen or MOV SS came
    /// before it.
    ///
    /// # Errors
    /// The debug exception.
    #[inline]
    pub fn debug_before(&mut self, linear: u64) -> Result<(), Fault> {
        if self.dr[7] & DR7_ENABLED == 0 || self.flags & rflags::RF != 0 || self.shadow & 1 != 0 {
            return Ok(());
        }
        match self.hits(Access::Execute, linear, 1) {
            0 => Ok(()),
            payload => Err(self.raise(Exception { payload, ..Exception::DB })),
        }
    }

    /// Notes that the running instruction accesses I/O ports.
    pub(super) fn note_port_access(&mut self, port: u16, len: u64) {
        self.system.debug_hits |= self.hits(Access::Port, u64::from(port), len);
    }

    /// After an instruction, with RIP at the next one: data breakpoints that it hit, and the single-step trap. `stepped`:
    /// TF was set before it; `shadow`: [`Cpu::shadow`] before it. MOV SS and POP SS hold hits and the trap back until
    /// after the next instruction, but not twice in a row (SDM volume 3, 6.8.3).
    ///
    /// # Errors
    /// The debug exception.
    #[inline]
    pub fn debug_after(&mut self, stepped: bool, shadow: u8) -> Result<(), Fault> {
        let stepped = self.system.step_after.take().unwrap_or(stepped);
        if self.mmu.watches.registers != 0 {
            self.system.debug_hits |= u64::from(std::mem::take(&mut self.mmu.watches.registers));
            if self.mmu.watches.debugger.is_none() {
                self.mmu.events &= !events::WATCH_HIT;
            }
        }
        if !stepped && self.system.debug_hits == 0 || self.shadow & 1 != 0 && shadow & 1 == 0 {
            return Ok(());
        }
        let hits = std::mem::take(&mut self.system.debug_hits);
        let payload = if stepped { hits | DR6_BS } else { hits };
        Err(self.raise(Exception { payload, ..Exception::DB }))
    }

    /// DR6 and DR7 as a debug exception leaves them: the breakpoint bits are this one's, the others accumulate.
    pub(super) fn note_debug(&mut self, payload: u64) {
        self.dr[6] = self.dr[6] & !DR6_B | payload & DR6_WRITABLE | DR6_ONES;
        self.dr[7] &= !DR7_GD;
    }
}
