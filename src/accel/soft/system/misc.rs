//! What else the system uses: HLT, time, caches, MONITOR, hypercalls (Intel SDM volume 2).

use iced_x86::Mnemonic;

use super::super::cpu::{Activity, Cpu, Exception, Fault, Flow, Step, gpr, rflags};
use super::super::op::Op;
use super::control::cr4;
use super::instruction;

/// HLT: waits for an interrupt.
pub(super) fn hlt(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_level_0()?;
    cpu.activity = Activity::Halted;
    Ok(Flow::End)
}

/// INVD, WBINVD, WBNOINVD: there are no caches to write back.
pub(super) fn cache(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_level_0()?;
    Ok(Flow::Next)
}

impl Cpu {
    /// The time-stamp counter: it counts at 1 GHz.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.clock.now_ns().wrapping_add(self.system.tsc_offset)
    }

    /// Moves the time-stamp counter by `delta`; its other register follows (SDM volume 3, 18.17.3).
    pub(super) fn shift_tsc(&mut self, delta: u64) {
        self.system.tsc_adjust = self.system.tsc_adjust.wrapping_add(delta);
        self.set_tsc_offset(self.system.tsc_offset.wrapping_add(delta));
    }

    /// Sets what is added to the clock; the local APIC compares its deadline with the sum.
    pub(super) fn set_tsc_offset(&mut self, offset: u64) {
        self.system.tsc_offset = offset;
        if let Some(apic) = &self.apic {
            apic.set_tsc_offset(offset);
        }
        self.write_system_time();
    }

    fn set_edx_eax(&mut self, value: u64) {
        self.set_reg32(gpr::RAX as u8, value as u32);
        self.set_reg32(gpr::RDX as u8, (value >> 32) as u32);
    }

    fn check_time(&mut self) -> Result<(), Fault> {
        if self.cr4 & cr4::TSD != 0 && self.cpl != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(())
    }
}

/// RDTSC and RDTSCP.
pub(super) fn rdtsc(cpu: &mut Cpu, op: &Op) -> Step {
    let with_aux = instruction(op).mnemonic() == Mnemonic::Rdtscp;
    cpu.require_feature(if with_aux { "rdtscp" } else { "tsc" })?;
    cpu.check_time()?;
    cpu.count_time();
    cpu.set_edx_eax(cpu.tsc());
    if with_aux {
        cpu.set_reg32(gpr::RCX as u8, cpu.system.tsc_aux as u32);
    }
    Ok(Flow::Next)
}

/// RDPID.
pub(super) fn rdpid(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_feature("rdpid")?;
    cpu.set_reg64(op.a, cpu.system.tsc_aux);
    Ok(Flow::Next)
}

/// RDPMC: there is no performance monitoring unit. AMD's processors have their first four counters always; they stand
/// still here.
pub(super) fn rdpmc(cpu: &mut Cpu, _op: &Op) -> Step {
    const CR4_PCE: u64 = 1 << 8;
    let counter = cpu.reg32(gpr::RCX as u8);
    if cpu.cr4 & CR4_PCE == 0 && cpu.cpl != 0 || !cpu.is_amd() || counter > 3 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.set_edx_eax(0);
    Ok(Flow::Next)
}

fn check_monitor(cpu: &mut Cpu) -> Result<(), Fault> {
    cpu.require_feature("monitor")?;
    if cpu.cpl != 0 { Err(cpu.raise(Exception::UD)) } else { Ok(()) }
}

/// MONITOR: nothing is armed, because MWAIT does not wait.
pub(super) fn monitor(cpu: &mut Cpu, op: &Op) -> Step {
    use iced_x86::Register;
    check_monitor(cpu)?;
    if cpu.reg32(gpr::RCX as u8) != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let instruction = instruction(op);
    let offset = match instruction.op0_register() {
        Register::AX => u64::from(cpu.reg16(0)),
        Register::EAX => u64::from(cpu.reg32(0)),
        _ => cpu.reg64(0),
    };
    let segment = match instruction.segment_prefix() {
        Register::None => super::super::cpu::segment::DS as u8,
        prefix => (prefix.number() & 7) as u8,
    };
    cpu.read::<u8>(segment, offset)?;
    Ok(Flow::Next)
}

/// MWAIT ends at once, as it may at any time ("implementation-dependent events", SDM volume 2); the host's other threads
/// get their turn.
pub(super) fn mwait(cpu: &mut Cpu, _op: &Op) -> Step {
    check_monitor(cpu)?;
    if cpu.reg32(gpr::RCX as u8) & !1 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    std::thread::yield_now();
    Ok(Flow::End)
}

/// CLAC and STAC.
pub(super) fn clac_stac(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.require_feature("smap")?;
    if cpu.cpl != 0 {
        return Err(cpu.raise(Exception::UD));
    }
    cpu.flags =
        if instruction(op).mnemonic() == Mnemonic::Stac { cpu.flags | rflags::AC } else { cpu.flags & !rflags::AC };
    cpu.rights_changed();
    Ok(Flow::Next)
}

/// SERIALIZE: every instruction is.
pub(super) fn serialize(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.require_feature("serialize")?;
    Ok(Flow::End)
}
