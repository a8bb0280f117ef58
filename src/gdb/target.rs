//! The protocol's operations on a guest, in the shape that the crate `gdbstub` asks for.

use std::convert::Infallible;

use gdbstub::arch;
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    self as ext, Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use crate::accel::{Breakpoint, BreakpointKind, DebugStop, GuestDebug, WatchKind, Watchpoint};
use crate::cpu::{CpuState, MpState};
use crate::machine::{MachineTime, RunState};

use super::guest::Guest;
use super::registers::{self, Register};
use super::selector;

/// QEMU's error numbers: no such memory or register, and anything else. QEMU writes them in decimal, the crate in
/// hexadecimal: these are its "E14" and "E22".
const NO_MEMORY: u8 = 0x14;
const INVALID: u8 = 0x22;

/// More breakpoints than any debugger sets.
const MAX_BREAKPOINTS: usize = 4096;

const PAGE: u64 = 4096;

/// How single steps are done (`qqemu.sstep`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StepFlags(pub(super) u8);

impl StepFlags {
    /// Steps are done at all.
    pub(super) const ENABLE: u8 = 1;
    /// Interrupts wait meanwhile.
    pub(super) const NO_IRQ: u8 = 2;
    /// Machine time stands still meanwhile.
    pub(super) const NO_TIMER: u8 = 4;
}

/// The architecture, as far as the crate wants to know.
pub(super) enum X86 {}

impl arch::Arch for X86 {
    type Usize = u64;
    type Registers = RegisterBlock;
    type BreakpointKind = usize;
    type RegId = RegisterId;
}

/// The contents of `g` and `G`.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct RegisterBlock(Vec<u8>);

impl arch::Registers for RegisterBlock {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let at = registers::all().take_while(|r| *r != Register::Rip).map(Register::size).sum::<usize>();
        self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// A register's number, where there is such a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegisterId(Register);

impl arch::RegId for RegisterId {
    fn from_raw_id(id: usize) -> Option<(Self, Option<std::num::NonZeroUsize>)> {
        let register = Register::by_number(id)?;
        Some((Self(register), std::num::NonZeroUsize::new(register.size())))
    }
}

/// What `vCont` asks for.
#[derive(Debug, Default)]
struct Actions {
    steps: Vec<u32>,
    continues: Vec<u32>,
    /// Threads that are not named stay.
    others_stay: bool,
}

/// A guest and its debugger's wishes.
pub(super) struct Debuggee {
    pub(super) guest: Box<dyn Guest>,
    /// The vCPU that the debugger looks at.
    pub(super) current: u32,
    /// `Qqemu.PhyMemMode`: addresses are physical.
    pub(super) physical: bool,
    pub(super) step_flags: StepFlags,
    /// Common to all vCPUs; `single_step` is not used here.
    debug: GuestDebug,
    /// vCPUs that were told to step.
    stepping: Vec<u32>,
    actions: Actions,
}

fn cpu_of(tid: Tid) -> u32 {
    u32::try_from(tid.get() - 1).unwrap_or(u32::MAX)
}

fn tid_of(cpu: u32) -> Tid {
    Tid::MIN.saturating_add(cpu as usize)
}

fn watch_kind(kind: ext::WatchKind) -> WatchKind {
    match kind {
        ext::WatchKind::Write => WatchKind::Write,
        ext::WatchKind::Read => WatchKind::Read,
        ext::WatchKind::ReadWrite => WatchKind::Access,
    }
}

impl Debuggee {
    pub(super) fn new(guest: Box<dyn Guest>) -> Self {
        Self {
            guest,
            current: 0,
            physical: false,
            step_flags: StepFlags(StepFlags::ENABLE | StepFlags::NO_IRQ | StepFlags::NO_TIMER),
            debug: GuestDebug::default(),
            stepping: Vec::new(),
            actions: Actions::default(),
        }
    }

    fn look_at(&mut self, tid: Tid) -> TargetResult<u32, Self> {
        let cpu = cpu_of(tid);
        if cpu >= self.guest.cpus() {
            return Err(TargetError::Errno(INVALID));
        }
        self.current = cpu;
        Ok(cpu)
    }

    fn state(&self, cpu: u32) -> TargetResult<CpuState, Self> {
        self.guest.state(cpu).ok_or(TargetError::Errno(NO_MEMORY))
    }

    fn change(&self, cpu: u32, changes: &[(Register, &[u8])]) -> TargetResult<(), Self> {
        let mut state = self.state(cpu)?;
        let read = |gva: u64, buf: &mut [u8]| self.read_memory(cpu, gva, buf);
        for (register, value) in changes {
            match (register, value) {
                (Register::Segment(index), [low, high, ..]) => {
                    let selector = u16::from_le_bytes([*low, *high]);
                    if !selector::load(&mut state, usize::from(*index), selector, &read) {
                        return Err(TargetError::Errno(INVALID));
                    }
                }
                _ => register.write(&mut state, value),
            }
        }
        if self.guest.set_state(cpu, state) { Ok(()) } else { Err(TargetError::Errno(INVALID)) }
    }

    /// Calls `piece(gpa, range of the buffer)` for each page of a linear range. `false`: a page is not mapped.
    fn pages(&self, cpu: u32, gva: u64, len: usize, mut piece: impl FnMut(u64, std::ops::Range<usize>)) -> bool {
        let mut done = 0;
        while done < len {
            let at = gva.wrapping_add(done as u64);
            let in_page = usize::try_from(PAGE - at % PAGE).unwrap_or(1).min(len - done);
            let gpa = if self.physical { Some(at) } else { self.guest.translate(cpu, at) };
            let Some(gpa) = gpa else { return false };
            piece(gpa, done..done + in_page);
            done += in_page;
        }
        true
    }

    fn read_memory(&self, cpu: u32, gva: u64, buf: &mut [u8]) -> bool {
        self.pages(cpu, gva, buf.len(), |gpa, range| self.guest.read_physical(gpa, &mut buf[range]))
    }

    fn write_memory(&self, cpu: u32, gva: u64, data: &[u8]) -> bool {
        self.pages(cpu, gva, data.len(), |gpa, range| match self.physical {
            true => self.guest.write_physical(gpa, &data[range]),
            false => self.guest.write_memory(gpa, &data[range]),
        })
    }

    /// What one vCPU is to do.
    fn wishes(&self, cpu: u32) -> GuestDebug {
        let flag = |bit| self.step_flags.0 & bit != 0;
        GuestDebug {
            single_step: self.stepping.contains(&cpu) && flag(StepFlags::ENABLE),
            mask_interrupts: flag(StepFlags::NO_IRQ),
            ..self.debug.clone()
        }
    }

    /// Tells all vCPUs; the one whose page tables count is the first.
    fn tell_all(&self) -> bool {
        let others = (0..self.guest.cpus()).filter(|cpu| *cpu != self.current);
        let mut all = std::iter::once(self.current).chain(others);
        all.all(|cpu| self.guest.set_debug(cpu, &self.wishes(cpu)).is_ok())
    }

    /// Changes breakpoints or watchpoints everywhere, or nowhere.
    fn change_debug(&mut self, change: impl FnOnce(&mut GuestDebug)) -> bool {
        let before = self.debug.clone();
        change(&mut self.debug);
        if self.tell_all() {
            return true;
        }
        self.debug = before;
        // What worked before works again.
        self.tell_all();
        false
    }

    fn add_breakpoint(&mut self, gva: u64, kind: BreakpointKind) -> bool {
        let breakpoint = Breakpoint { gva, kind };
        if self.debug.breakpoints.contains(&breakpoint) {
            return true;
        }
        self.debug.breakpoints.len() < MAX_BREAKPOINTS && self.change_debug(|debug| debug.breakpoints.push(breakpoint))
    }

    fn remove_breakpoint(&mut self, gva: u64, kind: BreakpointKind) -> bool {
        let breakpoint = Breakpoint { gva, kind };
        self.debug.breakpoints.contains(&breakpoint)
            && self.change_debug(|debug| debug.breakpoints.retain(|other| *other != breakpoint))
    }

    /// The debugger goes, or begins anew.
    pub(super) fn forget_breakpoints(&mut self) {
        if !self.debug.is_idle() || !self.stepping.is_empty() {
            self.stepping.clear();
            self.debug = GuestDebug::default();
            self.tell_all();
        }
    }

    /// Continues at another address.
    pub(super) fn set_pc(&mut self, address: u64) {
        // A vCPU that refuses stays where it is; gdb sees that at the next stop.
        let _ = self.change(self.current, &[(Register::Rip, &address.to_le_bytes())]);
    }

    /// Runs everything, as far as the machine can run.
    pub(super) fn run_all(&mut self) {
        let which = vec![true; self.guest.cpus() as usize];
        self.guest.resume(&which, MachineTime::Passes);
    }

    /// The machine stopped: steps are over. Says why, as gdb wants to hear it.
    pub(super) fn stopped(&mut self) -> MultiThreadStopReason<u64> {
        let stop = self.guest.debug_stop().filter(|_| self.guest.run_state() == RunState::Debug);
        if let Some((cpu, _)) = stop {
            self.current = cpu;
        }
        if !self.stepping.is_empty() {
            self.stepping.clear();
            self.tell_all();
        }
        let tid = tid_of(self.current);
        match stop {
            Some((_, DebugStop::Breakpoint(gva))) => {
                let software = Breakpoint { gva, kind: BreakpointKind::Software };
                match self.debug.breakpoints.contains(&software) {
                    true => MultiThreadStopReason::SwBreak(tid),
                    false => MultiThreadStopReason::HwBreak(tid),
                }
            }
            Some((_, DebugStop::Watch { gva, kind })) => {
                let kind = match kind {
                    WatchKind::Write => ext::WatchKind::Write,
                    WatchKind::Read => ext::WatchKind::Read,
                    WatchKind::Access => ext::WatchKind::ReadWrite,
                };
                MultiThreadStopReason::Watch { tid, kind, addr: gva }
            }
            Some((_, DebugStop::Step)) | None => {
                MultiThreadStopReason::SignalWithThread { tid, signal: signal(self.guest.run_state()) }
            }
        }
    }
}

/// QEMU's signals for the reasons of a stop.
fn signal(state: RunState) -> Signal {
    match state {
        RunState::Debug => Signal::SIGTRAP,
        RunState::Shutdown => Signal::SIGQUIT,
        RunState::IoError => Signal::SIGSTOP,
        RunState::Watchdog => Signal::SIGALRM,
        RunState::InternalError | RunState::GuestPanicked => Signal::SIGABRT,
        RunState::Paused | RunState::Prelaunch | RunState::Suspended | RunState::Running => Signal::SIGINT,
    }
}

fn done(worked: bool) -> TargetResult<bool, Debuggee> {
    if worked { Ok(true) } else { Err(TargetError::Errno(INVALID)) }
}

impl Target for Debuggee {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::MultiThread(self)
    }

    /// QEMU sends none; simple clients need not know of it.
    fn use_rle(&self) -> bool {
        false
    }

    fn use_fork_stop_reason(&self) -> bool {
        false
    }

    fn use_vfork_stop_reason(&self) -> bool {
        false
    }

    fn use_vforkdone_stop_reason(&self) -> bool {
        false
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(&mut self) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debuggee {
    fn read_registers(&mut self, block: &mut RegisterBlock, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.look_at(tid)?;
        let state = self.state(cpu)?;
        block.0 = registers::all().flat_map(|register| register.read(&state)).collect();
        Ok(())
    }

    fn write_registers(&mut self, block: &RegisterBlock, tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.look_at(tid)?;
        let mut rest = block.0.as_slice();
        let mut changes = Vec::new();
        for register in registers::all() {
            let Some((value, after)) = rest.split_at_checked(register.size()) else { break };
            changes.push((register, value));
            rest = after;
        }
        self.change(cpu, &changes)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, gva: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let cpu = self.look_at(tid)?;
        if self.read_memory(cpu, gva, data) { Ok(data.len()) } else { Err(TargetError::Errno(NO_MEMORY)) }
    }

    fn write_addrs(&mut self, gva: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let cpu = self.look_at(tid)?;
        if self.write_memory(cpu, gva, data) { Ok(()) } else { Err(TargetError::Errno(NO_MEMORY)) }
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.guest.cpus()).map(tid_of).for_each(active);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debuggee {
    fn read_register(&mut self, tid: Tid, id: RegisterId, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let cpu = self.look_at(tid)?;
        let value = id.0.read(&self.state(cpu)?);
        let place = buf.get_mut(..value.len()).ok_or(TargetError::Errno(INVALID))?;
        place.copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(&mut self, tid: Tid, id: RegisterId, value: &[u8]) -> TargetResult<(), Self> {
        let cpu = self.look_at(tid)?;
        // A short value leaves the upper bytes zero, as QEMU's own clients send them.
        let mut bytes = value.to_vec();
        bytes.resize(id.0.size(), 0);
        self.change(cpu, &[(id.0, &bytes)])
    }
}

impl ThreadExtraInfo for Debuggee {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let cpu = cpu_of(tid);
        let text = self.guest.state(cpu).map_or_else(String::new, |state| {
            let what = if state.mp_state == MpState::Runnable { "running" } else { "halted " };
            format!("CPU#{cpu} [{what}]")
        });
        let len = text.len().min(buf.len());
        buf[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl MultiThreadResume for Debuggee {
    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.actions = Actions::default();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.actions.continues.push(cpu_of(tid));
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Infallible> {
        let Actions { steps, continues, others_stay } = std::mem::take(&mut self.actions);
        let runs = |cpu: u32| !others_stay || steps.contains(&cpu) || continues.contains(&cpu);
        let which: Vec<bool> = (0..self.guest.cpus()).map(runs).collect();
        // Nothing that exists was named: the session reports the stop anew.
        if !which.contains(&true) {
            return Ok(());
        }
        if !steps.is_empty() || !self.stepping.is_empty() {
            self.stepping = steps;
            self.tell_all();
        }
        let still = !self.stepping.is_empty() && self.step_flags.0 & StepFlags::NO_TIMER != 0;
        // If the machine cannot run, the session sees that.
        self.guest.resume(&which, if still { MachineTime::StandsStill } else { MachineTime::Passes });
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debuggee {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.actions.steps.push(cpu_of(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Debuggee {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.actions.others_stay = true;
        Ok(())
    }
}

impl Breakpoints for Debuggee {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debuggee {
    fn add_sw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        done(self.add_breakpoint(gva, BreakpointKind::Software))
    }

    fn remove_sw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        done(self.remove_breakpoint(gva, BreakpointKind::Software))
    }
}

impl HwBreakpoint for Debuggee {
    fn add_hw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        done(self.add_breakpoint(gva, BreakpointKind::Hardware))
    }

    fn remove_hw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        done(self.remove_breakpoint(gva, BreakpointKind::Hardware))
    }
}

impl HwWatchpoint for Debuggee {
    fn add_hw_watchpoint(&mut self, gva: u64, len: u64, kind: ext::WatchKind) -> TargetResult<bool, Self> {
        let watch = Watchpoint { gva, len, kind: watch_kind(kind) };
        if self.debug.watchpoints.contains(&watch) {
            return done(true);
        }
        let room = self.debug.watchpoints.len() < MAX_BREAKPOINTS && len > 0;
        done(room && self.change_debug(|debug| debug.watchpoints.push(watch)))
    }

    fn remove_hw_watchpoint(&mut self, gva: u64, len: u64, kind: ext::WatchKind) -> TargetResult<bool, Self> {
        let watch = Watchpoint { gva, len, kind: watch_kind(kind) };
        let known = self.debug.watchpoints.contains(&watch);
        done(known && self.change_debug(|debug| debug.watchpoints.retain(|other| *other != watch)))
    }
}

impl MonitorCmd for Debuggee {
    fn handle_monitor_cmd(&mut self, line: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let text = self.guest.monitor(&String::from_utf8_lossy(line));
        for piece in text.replace('\n', "\r\n").as_bytes().chunks(1024) {
            out.write_raw(piece);
            out.flush();
        }
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for Debuggee {
    fn target_description_xml(
        &self,
        name: &[u8],
        offset: u64,
        len: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        // QEMU answers E00.
        let text = registers::description(name).ok_or(TargetError::Errno(0))?;
        let rest = usize::try_from(offset).ok().and_then(|offset| text.as_bytes().get(offset..)).unwrap_or(&[]);
        let len = rest.len().min(len).min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}
