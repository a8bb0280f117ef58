//! KVM's paravirtual interface (`-cpu ...,kvm=on`): the clock, the polling control and hypercalls (Linux
//! `Documentation/virt/kvm/x86/`: `cpuid.rst`, `msr.rst`, `hypercalls.rst`).
//!
//! The time-stamp counter is the machine's clock plus an offset, so the page of the clock is written when the guest says
//! where it is and when the offset changes; between those it stays right. Asynchronous page faults, stolen time,
//! paravirtual EOI, IPIs, TLB flushes and spin locks are not offered, and their registers raise #GP.

use crate::cpu::Mode;
use crate::event::{NS_PER_SEC, realtime_ns};

use super::super::cpu::{Cpu, Exception, Flow, Step, gpr};
use super::super::op::Op;

/// Numbers of the registers.
pub(super) mod number {
    pub const WALL_CLOCK: u32 = 0x11;
    pub const SYSTEM_TIME: u32 = 0x12;
    pub const WALL_CLOCK_NEW: u32 = 0x4b56_4d00;
    pub const SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
    pub const POLL_CONTROL: u32 = 0x4b56_4d05;
}

/// Hypercalls (`include/uapi/linux/kvm_para.h`).
const HC_VAPIC_POLL_IRQ: u64 = 1;
const HC_CLOCK_PAIRING: u64 = 9;
/// What hypercalls answer.
const ENOSYS: i64 = 1000;
const EFAULT: i64 = 14;
const EPERM: i64 = 1;
const EOPNOTSUPP: i64 = 95;

/// [`ParavirtualRegisters::system_time`]: the page is in use.
const ENABLED: u64 = 1;
/// `pvclock_vcpu_time_info.flags`: no processor's clock is behind another's.
const STABLE: u8 = 1;
/// Nanoseconds of a tick, as a fraction of 2^32 after a shift to the left by one: the counter counts nanoseconds.
const TICK_MULTIPLIER: u32 = 1 << 31;
const TICK_SHIFT: u8 = 1;

/// The registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ParavirtualRegisters {
    wall_clock: u64,
    system_time: u64,
    poll_control: u64,
}

impl ParavirtualRegisters {
    /// After RESET and INIT: polling is allowed.
    pub(super) const RESET: Self = Self { wall_clock: 0, system_time: 0, poll_control: 1 };
}

impl Default for ParavirtualRegisters {
    fn default() -> Self {
        Self::RESET
    }
}

impl Cpu {
    /// Whether the guest has a paravirtual feature: only those that see KVM's leaves do.
    fn has_paravirtual(&self, name: &str) -> bool {
        self.model.shows_kvm() && self.model.has(name)
    }

    /// The feature that announces a register.
    fn announces(msr: u32) -> Option<&'static str> {
        Some(match msr {
            number::WALL_CLOCK | number::SYSTEM_TIME => "kvmclock",
            number::WALL_CLOCK_NEW | number::SYSTEM_TIME_NEW => "kvmclock2",
            number::POLL_CONTROL => "kvm-poll-control",
            _ => return None,
        })
    }

    pub(super) fn read_paravirtual(&self, msr: u32) -> Option<u64> {
        let registers = &self.system.paravirtual;
        Self::announces(msr).filter(|feature| self.has_paravirtual(feature))?;
        match msr {
            number::WALL_CLOCK | number::WALL_CLOCK_NEW => Some(registers.wall_clock),
            number::SYSTEM_TIME | number::SYSTEM_TIME_NEW => Some(registers.system_time),
            number::POLL_CONTROL => Some(registers.poll_control),
            _ => None,
        }
    }

    pub(super) fn write_paravirtual(&mut self, msr: u32, value: u64) -> bool {
        if Self::announces(msr).is_none_or(|feature| !self.has_paravirtual(feature)) {
            return false;
        }
        match msr {
            number::WALL_CLOCK | number::WALL_CLOCK_NEW => {
                self.system.paravirtual.wall_clock = value;
                self.write_wall_clock(value);
            }
            number::SYSTEM_TIME | number::SYSTEM_TIME_NEW => {
                self.system.paravirtual.system_time = value;
                self.write_system_time();
            }
            // Processors that wait are not polled for.
            number::POLL_CONTROL if value & !1 == 0 => self.system.paravirtual.poll_control = value,
            _ => return false,
        }
        true
    }

    /// `pvclock_wall_clock`: what the wall clock showed when the system time was 0.
    fn write_wall_clock(&mut self, gpa: u64) {
        let start = realtime_ns().saturating_sub(self.clock.now_ns());
        let mut body = [0; 8];
        body[..4].copy_from_slice(&((start / NS_PER_SEC) as u32).to_le_bytes());
        body[4..].copy_from_slice(&((start % NS_PER_SEC) as u32).to_le_bytes());
        self.write_versioned(gpa, &body);
    }

    /// `pvclock_vcpu_time_info`, if the guest wants it.
    pub(super) fn write_system_time(&mut self) {
        let register = self.system.paravirtual.system_time;
        if register & ENABLED == 0 {
            return;
        }
        let now = self.clock.now_ns();
        let tsc = now.wrapping_add(self.system.tsc_offset);
        let flags = if self.has_paravirtual("kvmclock-stable-bit") { STABLE } else { 0 };
        let mut body = [0; 28];
        body[4..12].copy_from_slice(&tsc.to_le_bytes());
        body[12..20].copy_from_slice(&now.to_le_bytes());
        body[20..24].copy_from_slice(&TICK_MULTIPLIER.to_le_bytes());
        body[24] = TICK_SHIFT;
        body[25] = flags;
        self.write_versioned(register & !ENABLED, &body);
    }

    /// Writes what follows a version number, which is odd meanwhile. Nothing happens where no RAM is.
    fn write_versioned(&mut self, gpa: u64, body: &[u8]) {
        let mut version = [0; 4];
        if !self.read_ram(gpa, &mut version) {
            return;
        }
        let busy = u32::from_le_bytes(version).wrapping_add(1) | 1;
        self.write_ram(gpa, &busy.to_le_bytes());
        self.write_ram(gpa.wrapping_add(4), body);
        self.write_ram(gpa, &busy.wrapping_add(1).to_le_bytes());
    }

    /// `KVM_HC_CLOCK_PAIRING`: the host's wall clock and the time-stamp counter at one moment.
    fn pair_clocks(&mut self, gpa: u64, clock_type: u64) -> i64 {
        if clock_type != 0 {
            return -EOPNOTSUPP;
        }
        let (tsc, wall) = (self.tsc(), realtime_ns());
        let mut answer = [0; 64];
        answer[..8].copy_from_slice(&(wall / NS_PER_SEC).to_le_bytes());
        answer[8..16].copy_from_slice(&(wall % NS_PER_SEC).to_le_bytes());
        answer[16..24].copy_from_slice(&tsc.to_le_bytes());
        if self.write_ram(gpa, &answer) { 0 } else { -EFAULT }
    }
}

/// VMCALL and VMMCALL: a hypercall where KVM's leaves are shown, else #UD.
pub(super) fn hypercall(cpu: &mut Cpu, _op: &Op) -> Step {
    if !cpu.model.shows_kvm() {
        return Err(cpu.raise(Exception::UD));
    }
    let long = cpu.mode == Mode::Long64;
    let argument = |cpu: &Cpu, number: usize| if long { cpu.gpr[number] } else { cpu.gpr[number] & 0xffff_ffff };
    cpu.count_time();
    let answer = match argument(cpu, gpr::RAX) {
        _ if cpu.cpl != 0 => -EPERM,
        HC_VAPIC_POLL_IRQ => 0,
        HC_CLOCK_PAIRING => {
            let (gpa, clock_type) = (argument(cpu, gpr::RBX), argument(cpu, gpr::RCX));
            cpu.pair_clocks(gpa, clock_type)
        }
        _ => -ENOSYS,
    };
    if long {
        cpu.set_reg64(gpr::RAX as u8, answer as u64);
    } else {
        cpu.set_reg32(gpr::RAX as u8, answer as u32);
    }
    Ok(Flow::End)
}
