//! All monitors of a machine, and the events that they tell.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};

use crate::chardev::{AttachError, CharSink};
use crate::event::{ClockKind, LoopHandle, NS_PER_SEC, Timer, realtime_ns};
use crate::hw::ide::ErrorAction;
use crate::machine::MachineEvent;

use super::control::Control;
use super::hmp::Environment;
use super::human::HumanSession;
use super::keys::KeyQueue;
use super::qmp::ControlSession;

/// Whom a monitor is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// People: HMP.
    Human,
    /// Programs: QMP.
    Control {
        /// With line breaks and indentation.
        pretty: bool,
    },
}

/// Events that are told at most once a second; the last one always is.
const LIMITED: &[&str] = &[
    "RTC_CHANGE",
    "WATCHDOG",
    "BALLOON_CHANGE",
    "QUORUM_REPORT_BAD",
    "QUORUM_FAILURE",
    "VSERPORT_CHANGE",
    "MEMORY_DEVICE_SIZE_CHANGE",
    "HV_BALLOON_STATUS_REPORT",
];

struct Limit {
    timer: Timer,
    /// What came since the last one was told.
    pending: Option<Value>,
}

/// The monitors.
pub struct Monitors {
    me: Weak<Self>,
    handle: LoopHandle,
    environment: Environment,
    programs: Mutex<Vec<Arc<ControlSession>>>,
    limits: Mutex<HashMap<String, Limit>>,
}

impl fmt::Debug for Monitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitors({} programs)", lock(&self.programs).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists that are whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Monitors {
    /// No monitors yet, for this machine.
    #[must_use]
    pub fn new(handle: LoopHandle, control: Arc<dyn Control>) -> Arc<Self> {
        let keys = KeyQueue::new(&handle, Arc::clone(&control));
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            handle,
            environment: Environment { control, keys },
            programs: Mutex::default(),
            limits: Mutex::default(),
        })
    }

    /// What commands run on.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A monitor on a character device.
    ///
    /// # Errors
    /// There is no such device, or it is in use.
    pub fn open(&self, chardev: &str, mode: Mode) -> Result<(), AttachError> {
        let claim = self.environment.control.chardevs().claim(chardev)?;
        let environment = self.environment.clone();
        let sink: Arc<dyn CharSink> = match mode {
            Mode::Human => Arc::new(HumanSession::new(environment, claim.handle())),
            Mode::Control { pretty } => {
                let session = Arc::new(ControlSession::new(environment, claim.handle(), pretty));
                lock(&self.programs).push(Arc::clone(&session));
                session
            }
        };
        claim.connect_behind(sink);
        Ok(())
    }

    /// Tells all programs of an event. It may be called from any thread and takes leaf locks only.
    pub fn event(&self, name: &str, data: Option<Value>) {
        let now = realtime_ns();
        let mut event = json!({
            "timestamp": {"seconds": now / NS_PER_SEC, "microseconds": now % NS_PER_SEC / 1000},
            "event": name,
        });
        if let (Some(map), Some(data)) = (event.as_object_mut(), data) {
            map.insert("data".to_owned(), data);
        }
        if LIMITED.contains(&name) && self.held_back(name, &event) {
            return;
        }
        self.tell(&event);
    }

    fn tell(&self, event: &Value) {
        let programs = lock(&self.programs).clone();
        for program in programs {
            program.event(event);
        }
    }

    /// Whether an event of this name was told within the last second; it is told when that is over.
    fn held_back(&self, name: &str, event: &Value) -> bool {
        let mut limits = lock(&self.limits);
        let limit = limits.entry(name.to_owned()).or_insert_with(|| {
            let (me, name) = (self.me.clone(), name.to_owned());
            let timer = self.handle.timer(ClockKind::Host, move || {
                if let Some(monitors) = me.upgrade() {
                    monitors.second_over(&name);
                }
            });
            Limit { timer, pending: None }
        });
        if limit.timer.deadline().is_some() {
            limit.pending = Some(event.clone());
            return true;
        }
        limit.timer.set(limit.timer.now_ns() + NS_PER_SEC);
        false
    }

    fn second_over(&self, name: &str) {
        let pending = {
            let mut limits = lock(&self.limits);
            let Some(limit) = limits.get_mut(name) else { return };
            let pending = limit.pending.take();
            if pending.is_some() {
                limit.timer.set(limit.timer.now_ns() + NS_PER_SEC);
            }
            pending
        };
        if let Some(event) = pending {
            self.tell(&event);
        }
    }

    /// Tells what happened to the machine: the listener for [`crate::machine::Machine::add_listener`].
    pub fn machine_event(&self, event: &MachineEvent) {
        match event {
            MachineEvent::Reset(cause) => {
                self.event("RESET", Some(json!({"guest": cause.by_guest(), "reason": cause.name()})));
            }
            MachineEvent::Shutdown(cause) => {
                self.event("SHUTDOWN", Some(json!({"guest": cause.by_guest(), "reason": cause.name()})));
            }
            MachineEvent::Powerdown => self.event("POWERDOWN", None),
            MachineEvent::Stop => self.event("STOP", None),
            MachineEvent::Resume => self.event("RESUME", None),
            MachineEvent::Suspend => self.event("SUSPEND", None),
            MachineEvent::Wakeup => self.event("WAKEUP", None),
            MachineEvent::DiskFault { device, qdev, fault } => {
                let action = match fault.action {
                    ErrorAction::Report => "report",
                    ErrorAction::Ignore => "ignore",
                    ErrorAction::Stop => "stop",
                };
                let data = json!({
                    "device": device,
                    "qom-path": qdev,
                    "operation": if fault.write { "write" } else { "read" },
                    "action": action,
                    "nospace": fault.no_space,
                    "reason": fault.reason,
                });
                self.event("BLOCK_IO_ERROR", Some(data));
            }
            MachineEvent::Watchdog(action) => self.event("WATCHDOG", Some(json!({"action": action.name()}))),
            MachineEvent::TrayMoved { device, qdev, open } => {
                self.event("DEVICE_TRAY_MOVED", Some(json!({"device": device, "id": qdev, "tray-open": open})));
            }
        }
    }
}
