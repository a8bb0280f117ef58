//! A running machine: its state, and what people, programs and the guest itself ask of it.
//!
//! [`Machine::request`] may be called from anywhere, also under the board lock: it only takes a note for the main
//! loop. The other methods that change the state wait for vCPU threads; they belong to the main loop's thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::accel::{Accelerator, DebugStop, Vcpu};
use crate::bus::{BoardCell, PowerRequest, Reset};
use crate::cpu::Detail;
use crate::event::{Clock, LoopHandle};
use crate::hw::ide::IoFault;
use crate::mem::GuestRam;
use crate::trace;

use super::config::{Actions, WatchdogAction};
use super::vcpu::{self, VcpuEvent, Vcpus};

/// Whether the machine runs, and if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// Built, not started (`-S`).
    Prelaunch,
    /// Runs.
    Running,
    /// Stopped by a person or program.
    Paused,
    /// The guest switched it off and `-no-shutdown` keeps it.
    Shutdown,
    /// Suspended to RAM.
    Suspended,
    /// A disk error with `werror=stop` or `rerror=stop`.
    IoError,
    /// The accelerator cannot go on.
    InternalError,
    /// The guest panicked.
    GuestPanicked,
    /// A breakpoint.
    Debug,
    /// The watchdog fired.
    Watchdog,
}

impl RunState {
    /// QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prelaunch => "prelaunch",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Suspended => "suspended",
            Self::IoError => "io-error",
            Self::InternalError => "internal-error",
            Self::GuestPanicked => "guest-panicked",
            Self::Debug => "debug",
            Self::Watchdog => "watchdog",
        }
    }
}

/// Why a machine is reset or shut down; the names are those of QMP's ShutdownCause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// SIGTERM, SIGINT or SIGHUP.
    HostSignal,
    /// QMP `quit`.
    HostQmpQuit,
    /// QMP or HMP `system_reset`.
    HostQmpSystemReset,
    /// A window was closed, or Ctrl-A x.
    HostUi,
    /// An error of the host.
    HostError,
    /// The guest powered off.
    GuestShutdown,
    /// The guest pulled the reset line.
    GuestReset,
    /// The guest panicked.
    GuestPanic,
}

impl Cause {
    /// QMP's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HostSignal => "host-signal",
            Self::HostQmpQuit => "host-qmp-quit",
            Self::HostQmpSystemReset => "host-qmp-system-reset",
            Self::HostUi => "host-ui",
            Self::HostError => "host-error",
            Self::GuestShutdown => "guest-shutdown",
            Self::GuestReset => "guest-reset",
            Self::GuestPanic => "guest-panic",
        }
    }

    /// Whether the guest caused it.
    #[must_use]
    pub fn by_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic)
    }
}

/// What happens to a machine, for monitors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MachineEvent {
    /// It was reset.
    Reset(Cause),
    /// It shuts down.
    Shutdown(Cause),
    /// The power button was pressed.
    Powerdown,
    /// It stopped.
    Stop,
    /// It runs on.
    Resume,
    /// It suspended.
    Suspend,
    /// It woke up.
    Wakeup,
    /// A disk request failed.
    DiskFault {
        /// The drive's name.
        device: String,
        /// The device it belongs to: its id or path.
        qdev: String,
        /// What failed and what was done.
        fault: IoFault,
    },
    /// A watchdog ran out, and this is done.
    Watchdog(WatchdogAction),
    /// The tray of a CD-ROM drive moved.
    TrayMoved {
        /// The drive's name.
        device: String,
        /// The device it belongs to: its id or path.
        qdev: String,
        /// It is out now.
        open: bool,
    },
}

/// Takes machine events, mostly on the main loop's thread; trays move under the board lock, so it takes leaf locks
/// only.
pub type EventListener = Arc<dyn Fn(&MachineEvent) + Send + Sync>;

/// A command that the machine cannot follow in its present state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// It was shut down and must be reset first.
    #[error("Resetting the Virtual Machine is required")]
    ResetRequired,
    /// Waking up a machine that is not suspended.
    #[error("Unable to wake up: guest is not in suspended state")]
    NotSuspended,
}

/// What machine time does while a debugger runs the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineTime {
    /// It passes.
    Passes,
    /// It stands still: no timer expires.
    StandsStill,
}

/// What a machine is made of.
pub struct Parts {
    /// The main loop.
    pub handle: LoopHandle,
    /// Machine time.
    pub clock: Clock,
    /// The chips.
    pub board: Arc<BoardCell>,
    /// Guest memory.
    pub ram: GuestRam,
    /// What executes.
    pub accelerator: Arc<dyn Accelerator>,
    /// What events do.
    pub actions: Actions,
    /// Presses the power button, under the board lock's protection of its own.
    pub power_button: Box<dyn Fn() + Send + Sync>,
    /// Wakes the chipset from S3.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Before a reset: what lies outside the chips (boot order `once`).
    pub before_reset: Box<dyn Fn() + Send + Sync>,
    /// Before the machine runs: requests that an error policy held are tried again.
    pub before_resume: Box<dyn Fn() + Send + Sync>,
    /// Puts everything written on stable storage.
    pub flush_disks: Box<dyn Fn() + Send + Sync>,
}

/// A machine; see the module's documentation.
pub struct Machine {
    parts: Parts,
    vcpus: OnceLock<Vcpus>,
    state: Mutex<RunState>,
    debug_stop: Mutex<Option<(u32, DebugStop)>>,
    listeners: Mutex<Vec<EventListener>>,
    exit_status: AtomicU8,
    ending: AtomicBool,
    this: std::sync::Weak<Machine>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({:?})", self.state())
    }
}

/// `-d cpu_reset`: the registers that a reset is about to change.
fn log_reset(index: u32, vcpu: &mut dyn Vcpu) {
    if trace::item_enabled(trace::Item::CpuReset)
        && let Ok(state) = vcpu.state()
    {
        trace::print(&format!("CPU Reset (CPU {index})\n{}", state.dump(Detail::All)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value stays whole if a holder panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// A machine of these parts, without vCPUs yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            parts,
            vcpus: OnceLock::new(),
            state: Mutex::new(RunState::Prelaunch),
            debug_stop: Mutex::new(None),
            listeners: Mutex::default(),
            exit_status: AtomicU8::new(0),
            ending: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Gives the machine its vCPUs, once.
    pub fn set_vcpus(&self, vcpus: Vcpus) {
        // A second set would be a mistake of the builder; the first stays.
        let _ = self.vcpus.set(vcpus);
    }

    /// The vCPUs; `None` for a machine without.
    #[must_use]
    pub fn vcpus(&self) -> Option<&Vcpus> {
        self.vcpus.get()
    }

    /// The main loop.
    #[must_use]
    pub fn handle(&self) -> &LoopHandle {
        &self.parts.handle
    }

    /// Machine time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    /// The chips.
    #[must_use]
    pub fn board(&self) -> &Arc<BoardCell> {
        &self.parts.board
    }

    /// Guest memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.parts.ram
    }

    /// What executes.
    #[must_use]
    pub fn accelerator(&self) -> &Arc<dyn Accelerator> {
        &self.parts.accelerator
    }

    /// Whether the machine runs, and if not, why.
    #[must_use]
    pub fn state(&self) -> RunState {
        *lock(&self.state)
    }

    /// The process's exit status.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        self.exit_status.load(Ordering::Acquire)
    }

    /// Somebody else who wants to know what happens.
    pub fn add_listener(&self, listener: EventListener) {
        lock(&self.listeners).push(listener);
    }

    /// Tells all listeners.
    pub(super) fn emit(&self, event: &MachineEvent) {
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(event);
        }
    }

    // -- from anywhere -------------------------------------------------------------------------------------------

    /// A chip's request. It may come from any thread, also under the board lock.
    pub fn request(&self, request: PowerRequest) {
        self.post(move |machine| match request {
            PowerRequest::Reset => machine.reset(Cause::GuestReset),
            PowerRequest::Shutdown => machine.shutdown(Cause::GuestShutdown),
            PowerRequest::Suspend => machine.suspend(),
            PowerRequest::Watchdog => machine.watchdog(),
            PowerRequest::Exit(status) => {
                machine.exit_status.store(status, Ordering::Release);
                machine.quit(Cause::GuestShutdown);
            }
        });
    }

    /// Asks for a stop, from any thread.
    pub fn request_stop(&self, reason: RunState) {
        self.post(move |machine| machine.stop_as(reason));
    }

    /// Tells listeners of an event, from any thread.
    pub fn report(&self, event: MachineEvent) {
        self.post(move |machine| machine.emit(&event));
    }

    /// What a vCPU reports, from its thread.
    pub fn vcpu_event(&self, index: u32, event: VcpuEvent) {
        self.post(move |machine| match event {
            VcpuEvent::Shutdown => machine.reset(Cause::GuestReset),
            VcpuEvent::Debug(stop) => machine.stop_for_debugger(index, stop),
            VcpuEvent::Failed(text) => machine.fail(index, &text),
        });
    }

    fn post(&self, call: impl FnOnce(&Machine) + Send + 'static) {
        let Some(this) = self.this.upgrade() else { return };
        self.parts.handle.post(move || call(&this));
    }

    // -- on the main loop ----------------------------------------------------------------------------------------

    /// Runs the machine, from the start or after a stop.
    ///
    /// # Errors
    /// It was shut down and must be reset first.
    pub fn resume(&self) -> Result<(), ControlError> {
        match self.state() {
            RunState::Running => return Ok(()),
            RunState::Shutdown | RunState::InternalError | RunState::GuestPanicked => {
                return Err(ControlError::ResetRequired);
            }
            RunState::Suspended => return Ok(()),
            _ => {}
        }
        self.run();
        self.emit(&MachineEvent::Resume);
        Ok(())
    }

    /// Runs the machine for a debugger: only the vCPUs whose place in `which` says so, and with machine time standing
    /// still if it wants to see one step without the timers' interrupts.
    ///
    /// # Errors
    /// As [`Machine::resume`], and a machine that is suspended has nothing to run.
    pub fn resume_for_debugger(&self, which: &[bool], time: MachineTime) -> Result<(), ControlError> {
        match self.state() {
            RunState::Running => return Ok(()),
            RunState::Shutdown | RunState::InternalError | RunState::GuestPanicked | RunState::Suspended => {
                return Err(ControlError::ResetRequired);
            }
            _ => {}
        }
        self.start_running(time);
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.resume_some(which);
        }
        self.emit(&MachineEvent::Resume);
        Ok(())
    }

    fn run(&self) {
        self.start_running(MachineTime::Passes);
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.resume();
        }
    }

    fn start_running(&self, time: MachineTime) {
        (self.parts.before_resume)();
        *lock(&self.debug_stop) = None;
        *lock(&self.state) = RunState::Running;
        if time == MachineTime::Passes {
            self.parts.accelerator.machine_started();
            self.parts.clock.start();
        }
        self.parts.handle.wake();
    }

    fn stop_for_debugger(&self, index: u32, stop: DebugStop) {
        if self.state() != RunState::Running {
            return;
        }
        // Before the stop's listeners, who ask for it.
        *lock(&self.debug_stop) = Some((index, stop));
        self.stop_as(RunState::Debug);
    }

    /// The vCPU that stopped for its debugger, and why, until the machine runs again.
    #[must_use]
    pub fn debug_stop(&self) -> Option<(u32, DebugStop)> {
        *lock(&self.debug_stop)
    }

    /// Stops the machine; disks are flushed. No effect if it does not run.
    pub fn stop(&self) {
        self.stop_as(RunState::Paused);
    }

    /// As [`Machine::stop`], for another reason than a person's wish.
    pub fn stop_as(&self, reason: RunState) {
        if self.state() != RunState::Running {
            return;
        }
        self.halt();
        *lock(&self.state) = reason;
        (self.parts.flush_disks)();
        self.emit(&MachineEvent::Stop);
    }

    /// Stops vCPUs and clocks, nothing else.
    fn halt(&self) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.pause();
        }
        self.parts.clock.stop();
        self.parts.accelerator.machine_stopped();
    }

    /// Resets the machine; it runs on if it ran. `-no-reboot` makes it the end.
    pub fn reset(&self, cause: Cause) {
        if self.parts.actions.reboot_shuts_down {
            self.shutdown(cause);
            return;
        }
        let before = self.state();
        self.halt();
        (self.parts.before_reset)();
        self.reset_parts(Reset::System);
        self.emit(&MachineEvent::Reset(cause));
        match before {
            RunState::Running | RunState::Suspended => self.run(),
            // Whatever stopped it is over: it is a machine that has not started yet.
            _ => *lock(&self.state) = RunState::Prelaunch,
        }
    }

    /// Puts chips and vCPUs into their power-on state. The machine does not run.
    pub fn reset_parts(&self, kind: Reset) {
        if let Err(error) = self.parts.accelerator.reset_chips() {
            log::warn!("interrupt controllers: {}", vcpu::describe(&error));
        }
        self.parts.board.lock().reset(kind);
        let Some(vcpus) = self.vcpus.get() else { return };
        for index in 0..vcpus.count() {
            let failed = vcpus.with(index, move |vcpu| {
                log_reset(index, vcpu);
                vcpu.reset().err()
            });
            if let Some(Some(error)) = failed {
                self.fail(index, &error.to_string());
            }
        }
    }

    /// A watchdog ran out: does what `-action watchdog=` says.
    fn watchdog(&self) {
        let action = self.parts.actions.watchdog;
        self.emit(&MachineEvent::Watchdog(action));
        match action {
            WatchdogAction::Reset => self.reset(Cause::GuestReset),
            WatchdogAction::Shutdown => self.powerdown(),
            WatchdogAction::Poweroff => {
                self.quit(Cause::GuestShutdown);
            }
            WatchdogAction::Pause => self.stop_as(RunState::Watchdog),
            WatchdogAction::Debug => eprintln!("{}", super::message("watchdog: timer fired")),
            WatchdogAction::None => {}
            WatchdogAction::InjectNmi => {
                if let Some(Some(Err(error))) = self.vcpus.get().map(|vcpus| vcpus.with(0, |vcpu| vcpu.inject_nmi())) {
                    log::warn!("watchdog: {error}");
                }
            }
        }
    }

    /// Presses the power button.
    pub fn powerdown(&self) {
        (self.parts.power_button)();
        self.emit(&MachineEvent::Powerdown);
    }

    /// The guest switched the power off: the end, or a pause with `-no-shutdown`.
    pub fn shutdown(&self, cause: Cause) {
        if self.parts.actions.shutdown_pauses {
            self.emit(&MachineEvent::Shutdown(cause));
            self.stop_as(RunState::Shutdown);
            return;
        }
        self.quit(cause);
    }

    /// Ends the machine and the main loop. Returns whether that is news.
    pub fn quit(&self, cause: Cause) -> bool {
        if self.ending.swap(true, Ordering::AcqRel) {
            return false;
        }
        if self.state() == RunState::Running {
            self.halt();
        }
        *lock(&self.state) = RunState::Shutdown;
        self.emit(&MachineEvent::Shutdown(cause));
        self.parts.handle.quit();
        true
    }

    fn suspend(&self) {
        if self.state() != RunState::Running {
            return;
        }
        self.halt();
        *lock(&self.state) = RunState::Suspended;
        self.emit(&MachineEvent::Suspend);
    }

    /// Wakes a suspended machine: a reset of the CPUs that the firmware sees as a resume.
    ///
    /// # Errors
    /// It is not suspended.
    pub fn wakeup(&self) -> Result<(), ControlError> {
        if self.state() != RunState::Suspended {
            return Err(ControlError::NotSuspended);
        }
        self.reset_parts(Reset::Wakeup);
        (self.parts.wake)();
        self.run();
        self.emit(&MachineEvent::Wakeup);
        Ok(())
    }

    fn fail(&self, index: u32, text: &str) {
        eprintln!("{}", crate::machine::message(&format!("CPU {index}: {text}")));
        if self.state() == RunState::Running {
            self.stop_as(RunState::InternalError);
        } else {
            *lock(&self.state) = RunState::InternalError;
        }
    }

    /// Stops the vCPU threads and flushes the disks: the last call.
    pub fn finish(&self) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.stop();
        }
        (self.parts.flush_disks)();
    }
}
