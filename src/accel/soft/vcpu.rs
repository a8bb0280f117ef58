//! A processor of the software CPU as the machine sees it: the run loop around the interpreter.

use std::sync::Arc;

use crate::accel::{AccelError, DebugError, DebugStop, Exit, GuestDebug, Vcpu};
use crate::bus::GuestBus;
use crate::cpu::CpuState;

use super::cpu::{Activity, Cpu, rflags, segment};
use super::signals::Signals;

/// What a debugger's step holds back.
const INTERRUPTS: u32 = Signals::INTERRUPT | Signals::NMI | Signals::SMI;

/// See the module.
pub struct SoftVcpu {
    cpu: Box<Cpu>,
    debug: GuestDebug,
}

impl SoftVcpu {
    /// Wraps a processor.
    #[must_use]
    pub fn new(cpu: Box<Cpu>) -> Self {
        Self { cpu, debug: GuestDebug::default() }
    }
}

/// Acts on the requests of other threads that can be acted on now; `masked`: interrupts wait.
fn serve_signals(cpu: &mut Cpu, masked: bool) {
    let pending = cpu.signals.pending();
    if pending & Signals::EXCLUSIVE != 0 {
        cpu.stand_still();
    }
    if pending & Signals::MEMORY != 0 {
        cpu.signals.take(Signals::MEMORY);
        cpu.follow_memory_map();
    }
    let waiting = cpu.activity == Activity::WaitForStartUp;
    if pending & Signals::INIT != 0 && !cpu.in_smm() && cpu.signals.take(Signals::INIT) != 0 {
        // A start-up interrupt that came before belongs to the time before.
        cpu.init_reset();
        return;
    }
    if pending & Signals::START_UP != 0 {
        cpu.signals.take(Signals::START_UP);
        if waiting {
            let vector = cpu.signals.sipi_vector();
            cpu.start_up(vector);
        }
        return;
    }
    if waiting || cpu.activity == Activity::Shutdown || cpu.shadow != 0 || masked {
        return;
    }
    if pending & Signals::SMI != 0 && !cpu.in_smm() {
        cpu.signals.take(Signals::SMI);
        cpu.enter_smm();
    } else if pending & Signals::NMI != 0 && !cpu.nmi_blocked() {
        cpu.signals.take(Signals::NMI);
        cpu.activity = Activity::Running;
        cpu.deliver_nmi();
    } else if pending & Signals::INTERRUPT != 0 && cpu.flags & rflags::IF != 0 {
        let vector = cpu.apic.as_ref().and_then(|apic| apic.acknowledge());
        if let Some(vector) = vector {
            cpu.activity = Activity::Running;
            cpu.deliver_interrupt(vector);
        }
    }
}

/// Runs until the machine has to do something.
fn run(cpu: &mut Cpu, debug: &GuestDebug) -> Exit {
    let masked = debug.single_step && debug.mask_interrupts;
    loop {
        if cpu.signals.take(Signals::KICK) != 0 {
            return Exit::Kicked;
        }
        if cpu.signals.pending() != 0 {
            serve_signals(cpu, masked);
        }
        match cpu.activity {
            Activity::Running if !is_watched(cpu, debug) => {
                cpu.begin_active();
                cpu.execute_counted();
            }
            Activity::Running => {
                cpu.begin_active();
                if let Some(stop) = debugged_step(cpu, debug) {
                    return Exit::Debug(stop);
                }
            }
            Activity::Halted | Activity::WaitForStartUp => {
                cpu.end_active();
                let wakes = cpu.wakes();
                cpu.halt_counted(wakes);
                if masked && cpu.activity == Activity::Halted && cpu.signals.pending() & wakes & INTERRUPTS != 0 {
                    // As under QEMU, a step from HLT goes on without the interrupt that ended the wait.
                    cpu.activity = Activity::Running;
                }
            }
            Activity::Shutdown => return Exit::Shutdown,
        }
    }
}

/// Whether the debugger may have to hear of the next instruction.
fn is_watched(cpu: &Cpu, debug: &GuestDebug) -> bool {
    debug.single_step || !debug.watchpoints.is_empty() || cpu.is_near_breakpoint()
}

/// One instruction under a debugger's eyes: whether it stops before or after it.
fn debugged_step(cpu: &mut Cpu, debug: &GuestDebug) -> Option<DebugStop> {
    let linear = cpu.segments[segment::CS].base.wrapping_add(cpu.rip) & cpu.linear_mask;
    if !debug.single_step && debug.breakpoints.iter().any(|breakpoint| breakpoint.gva == linear) {
        return Some(DebugStop::Breakpoint(linear));
    }
    cpu.step_counted();
    if let Some(watchpoint) = cpu.mmu.watches.debugger.take() {
        return Some(DebugStop::Watch { gva: watchpoint.gva, kind: watchpoint.kind });
    }
    debug.single_step.then_some(DebugStop::Step)
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, bus: &dyn GuestBus) -> Result<Exit, AccelError> {
        let debug = &self.debug;
        Ok(self.cpu.with_bus(bus, |cpu| {
            let exit = run(cpu, debug);
            cpu.end_active();
            exit
        }))
    }

    fn state(&mut self) -> Result<CpuState, AccelError> {
        Ok(self.cpu.save_state())
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), AccelError> {
        self.cpu.load_state(state);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), AccelError> {
        let all = Signals::INTERRUPT | Signals::NMI | Signals::SMI | Signals::INIT | Signals::START_UP;
        self.cpu.signals.take(all);
        self.cpu.reset();
        Ok(())
    }

    fn inject_nmi(&mut self) -> Result<(), AccelError> {
        self.cpu.signals.raise(Signals::NMI);
        Ok(())
    }

    fn inject_smi(&mut self) -> Result<(), AccelError> {
        self.cpu.signals.raise(Signals::SMI);
        Ok(())
    }

    fn set_debug(&mut self, debug: &GuestDebug) -> Result<(), DebugError> {
        self.cpu.set_watchpoints(&debug.watchpoints);
        self.cpu.breakpoint_pages = debug.breakpoints.iter().map(|breakpoint| breakpoint.gva & !0xfff).collect();
        self.debug = debug.clone();
        Ok(())
    }

    fn translate(&mut self, gva: u64) -> Option<u64> {
        self.cpu.translate(gva)
    }

    fn kicker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let signals = Arc::clone(&self.cpu.signals);
        Arc::new(move || signals.raise(Signals::KICK))
    }
}
