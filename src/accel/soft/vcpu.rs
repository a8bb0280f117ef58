//! A processor of the software CPU as the machine sees it: the run loop around the interpreter.

use std::sync::Arc;

use crate::accel::{AccelError, DebugError, DebugStop, Exit, GuestDebug, Vcpu};
use crate::bus::GuestBus;
use crate::cpu::CpuState;

use super::cpu::{Activity, Cpu, rflags, segment};
use super::signals::Signals;

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

/// Acts on the requests of other threads that can be acted on now.
fn serve_signals(cpu: &mut Cpu) {
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
    if waiting || cpu.activity == Activity::Shutdown || cpu.shadow != 0 {
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
    loop {
        if cpu.signals.take(Signals::KICK) != 0 {
            return Exit::Kicked;
        }
        if cpu.signals.pending() != 0 {
            serve_signals(cpu);
        }
        match cpu.activity {
            Activity::Running if debug.is_idle() => {
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
            }
            Activity::Shutdown => return Exit::Shutdown,
        }
    }
}

/// One instruction under a debugger's eyes: whether it stops before or after it.
fn debugged_step(cpu: &mut Cpu, debug: &GuestDebug) -> Option<DebugStop> {
    let linear = cpu.segments[segment::CS].base.wrapping_add(cpu.rip) & cpu.linear_mask;
    if !debug.single_step && debug.breakpoints.iter().any(|breakpoint| breakpoint.gva == linear) {
        return Some(DebugStop::Breakpoint(linear));
    }
    cpu.step();
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
