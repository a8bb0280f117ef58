//! The machine as a debugger sees it.

use std::sync::Arc;

use crate::accel::{DebugError, DebugStop, GuestDebug};
use crate::cpu::CpuState;
use crate::machine::{Machine, MachineTime, RunState};
use crate::monitor::hmp::{self, Environment, HmpState};

/// What the debugger needs of a machine. All of it is called on the main loop's thread with no lock held.
pub(super) trait Guest: Send {
    /// How many vCPUs there are.
    fn cpus(&self) -> u32;
    /// All registers of one.
    fn state(&self, cpu: u32) -> Option<CpuState>;
    /// Replaces them; `false`: the accelerator refuses.
    fn set_state(&self, cpu: u32, state: CpuState) -> bool;
    /// Breakpoints, watchpoints and steps of one vCPU.
    fn set_debug(&self, cpu: u32, debug: &GuestDebug) -> Result<(), DebugError>;
    /// The physical address behind a linear one, by that vCPU's page tables.
    fn translate(&self, cpu: u32, gva: u64) -> Option<u64>;
    /// Reads as a CPU would.
    fn read_physical(&self, gpa: u64, buf: &mut [u8]);
    /// Writes RAM and ROM, and leaves chips alone.
    fn write_memory(&self, gpa: u64, data: &[u8]);
    /// Writes as a CPU would.
    fn write_physical(&self, gpa: u64, data: &[u8]);
    /// Whether it runs, and if not, why.
    fn run_state(&self) -> RunState;
    /// The vCPU that stopped in [`RunState::Debug`], and why.
    fn debug_stop(&self) -> Option<(u32, DebugStop)>;
    /// Stops the machine.
    fn stop(&self);
    /// Runs those vCPUs; `false`: the machine cannot run.
    fn resume(&self, which: &[bool], time: MachineTime) -> bool;
    /// Executes a line of the human monitor.
    fn monitor(&self, line: &str) -> String;
    /// Ends the process, in order.
    fn quit(&self);
}

/// A real machine.
pub(super) struct MachineGuest {
    pub(super) machine: Arc<Machine>,
    pub(super) environment: Environment,
}

impl Guest for MachineGuest {
    fn cpus(&self) -> u32 {
        self.machine.vcpus().map_or(0, crate::machine::Vcpus::count)
    }

    fn state(&self, cpu: u32) -> Option<CpuState> {
        self.machine.vcpus()?.with(cpu, |vcpu| vcpu.state())?.ok()
    }

    fn set_state(&self, cpu: u32, state: CpuState) -> bool {
        let Some(vcpus) = self.machine.vcpus() else { return false };
        vcpus.with(cpu, move |vcpu| vcpu.set_state(&state).is_ok()).unwrap_or(false)
    }

    fn set_debug(&self, cpu: u32, debug: &GuestDebug) -> Result<(), DebugError> {
        let debug = debug.clone();
        let done = self.machine.vcpus().and_then(|vcpus| vcpus.with(cpu, move |vcpu| vcpu.set_debug(&debug)));
        done.unwrap_or(Err(DebugError::Unsupported("vCPUs")))
    }

    fn translate(&self, cpu: u32, gva: u64) -> Option<u64> {
        self.machine.vcpus()?.with(cpu, move |vcpu| vcpu.translate(gva))?
    }

    fn read_physical(&self, gpa: u64, buf: &mut [u8]) {
        self.machine.board().lock().mmio_read(gpa, buf);
    }

    fn write_memory(&self, gpa: u64, data: &[u8]) {
        let ranges = self.machine.ram().ranges();
        for range in &ranges {
            let (first, end) = (gpa.max(range.gpa), gpa.saturating_add(data.len() as u64).min(range.gpa + range.len));
            if first < end {
                let at = |address: u64| usize::try_from(address - gpa).unwrap_or(data.len()).min(data.len());
                range.block.write(range.offset + (first - range.gpa), &data[at(first)..at(end)]);
            }
        }
    }

    fn write_physical(&self, gpa: u64, data: &[u8]) {
        self.machine.board().lock().mmio_write(gpa, data);
    }

    fn run_state(&self) -> RunState {
        self.machine.state()
    }

    fn debug_stop(&self) -> Option<(u32, DebugStop)> {
        self.machine.debug_stop()
    }

    fn stop(&self) {
        self.machine.stop();
    }

    fn resume(&self, which: &[bool], time: MachineTime) -> bool {
        self.machine.resume_for_debugger(which, time).is_ok()
    }

    fn monitor(&self, line: &str) -> String {
        hmp::execute(&self.environment, &mut HmpState::default(), &[], line, false).text
    }

    fn quit(&self) {
        eprintln!("{}", crate::machine::message("QEMU: Terminated via GDBstub"));
        self.environment.control.quit();
    }
}
