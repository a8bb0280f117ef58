//! From a configuration to a running process, and its end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::chardev::{CharOutput, Chardevs, Hooks, MuxKeys, Spec, VcRequest};
use crate::event::{Clock, EventLoop, Interest, LoopHandle};
use crate::host::signal::{SignalFd, TERMINATION};
use crate::machine::config::{Config, DisplaySpec, VncSpec};
use crate::machine::{self, BuildError, Built, Cause, Machine, Surroundings};
use crate::options::Tables;
use crate::ui::keymap::Keymap;
use crate::ui::text::{TextConsole, TextSize};
use crate::ui::vnc;
use crate::ui::{Display, DisplayTicker};

/// Why the process cannot start, as people see it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// The host.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// What this program can do, for the command line's help and checks.
pub fn tables() -> Tables {
    Tables::of_this_build()
}

/// Builds the machine and runs it to its end. Returns the exit status.
///
/// # Errors
/// Something that the configuration names cannot be had.
pub fn run(config: &Config) -> Result<u8, StartError> {
    let signals = SignalFd::block(TERMINATION).map_err(host("signals"))?;
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    let event_loop = EventLoop::new(Clock::stopped()).map_err(host("main loop"))?;
    let handle = event_loop.handle();
    let display = Arc::new(Display::new());
    let machine_slot: Arc<std::sync::OnceLock<Weak<Machine>>> = Arc::default();
    let consoles = Arc::<Consoles>::default();
    let chardevs = open_chardevs(config, &handle, &machine_slot, &consoles, &display)?;
    let surroundings = Surroundings { handle: handle.clone(), chardevs: Arc::clone(&chardevs), display };
    let Built { machine, pc: _pc, drives: _drives, warnings } = machine::build(config, &surroundings)?;
    // Only this call ever sets it.
    let _ = machine_slot.set(Arc::downgrade(&machine));
    for warning in warnings {
        eprintln!("{}", machine::message(&warning));
    }
    consoles.show_on(&surroundings.display);
    let ticker = DisplayTicker::new(&handle, &surroundings.display);
    let servers = start_displays(config, &surroundings.display)?;
    let signals = watch_signals(signals, &handle, &machine)?;
    if !config.start_paused {
        machine.resume().map_err(|error| BuildError::Text(error.to_string()))?;
    }
    event_loop.run().map_err(host("main loop"))?;
    machine.finish();
    drop(signals);
    drop(ticker);
    for server in servers {
        server.stop();
    }
    chardevs.close_all();
    Ok(machine.exit_status())
}

fn open_chardevs(
    config: &Config,
    handle: &LoopHandle,
    machine: &Arc<std::sync::OnceLock<Weak<Machine>>>,
    consoles: &Arc<Consoles>,
    display: &Arc<Display>,
) -> Result<Arc<Chardevs>, StartError> {
    let slot = Arc::clone(machine);
    let quit = move || {
        if let Some(machine) = slot.get().and_then(Weak::upgrade) {
            machine.quit(Cause::HostUi);
        }
    };
    let hooks = Hooks {
        report: Arc::new(|text| eprintln!("{}", machine::message(text))),
        vc: Some(consoles.factory(display)),
        keys: MuxKeys { quit: Arc::new(quit), ..MuxKeys::default() },
        ..Hooks::default()
    };
    let chardevs = Chardevs::new(handle.clone(), hooks);
    for spec in &config.chardevs {
        let chardev = Spec {
            id: spec.id.clone(),
            backend: spec.backend.clone(),
            options: spec.options.clone(),
            mux: spec.mux,
            logfile: spec.logfile.clone(),
            logappend: spec.logappend,
        };
        chardevs.open(&chardev).map_err(|error| BuildError::option(&spec.origin, error.to_string()))?;
    }
    Ok(chardevs)
}

/// The text consoles of `vc` back ends. They come after the display adapters on the display, so they are kept until
/// those are there.
#[derive(Default)]
struct Consoles {
    waiting: Mutex<Vec<(String, Arc<TextConsole>)>>,
}

/// A text console as the output of a character device.
struct ConsoleOutput {
    console: Arc<TextConsole>,
    display: Weak<Display>,
}

impl CharOutput for ConsoleOutput {
    fn write(&self, data: &[u8]) -> usize {
        self.console.write(data);
        if let Some(display) = self.display.upgrade() {
            display.wake();
        }
        data.len()
    }

    /// The input's own queue starts again by itself.
    fn accept_input(&self) {}
}

impl Consoles {
    fn factory(self: &Arc<Self>, display: &Arc<Display>) -> crate::chardev::VcFactory {
        let (consoles, display) = (Arc::clone(self), Arc::downgrade(display));
        Arc::new(move |request: VcRequest| {
            let size = TextSize::of(request.width, request.height, request.columns, request.rows);
            let typed = request.input;
            let console = TextConsole::new(
                size,
                Some(&request.label),
                Box::new(move |bytes| {
                    // What no front end has room for is lost, as on a real keyboard.
                    let _ = typed.push(bytes);
                }),
            );
            let console = Arc::new(console);
            let mut waiting = consoles.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push((request.label, Arc::clone(&console)));
            Arc::new(ConsoleOutput { console, display: Weak::clone(&display) })
        })
    }

    fn show_on(&self, display: &Display) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (label, console) in waiting {
            display.add_console(&label, console);
        }
    }
}

fn start_displays(config: &Config, display: &Arc<Display>) -> Result<Vec<Arc<vnc::Server>>, StartError> {
    let mut servers = Vec::new();
    for spec in &config.displays {
        let DisplaySpec::Vnc(spec) = spec else { continue };
        servers.push(start_vnc(config, spec, display)?);
    }
    Ok(servers)
}

fn start_vnc(config: &Config, spec: &VncSpec, display: &Arc<Display>) -> Result<Arc<vnc::Server>, StartError> {
    let fail = |text: String| StartError::Build(BuildError::option(&spec.origin, text));
    let keymap = Keymap::load(config.keymap.as_deref().unwrap_or("en-us")).map_err(|e| fail(e.to_string()))?;
    let parsed = vnc::Spec::parse(spec.id.as_deref(), &spec.address, spec.to, &spec.options)
        .map_err(|error| fail(error.to_string()))?;
    let listening = vnc::Listening::bind(parsed).map_err(|error| fail(error.to_string()))?;
    let announcement = listening.announcement();
    let settings = vnc::Settings {
        desktop_name: vnc::desktop_name(config.name.as_deref()),
        keymap,
        observer: Arc::new(Watchers { display: Arc::downgrade(display) }),
    };
    let server = vnc::Server::start(listening, display, settings).map_err(host("VNC server"))?;
    if let Some(line) = announcement {
        println!("{line}");
    }
    Ok(server)
}

/// Wakes the display when the first viewer comes.
struct Watchers {
    display: Weak<Display>,
}

impl vnc::Observer for Watchers {
    fn watched(&self) {
        if let Some(display) = self.display.upgrade() {
            display.wake();
        }
    }
}

/// Ends the machine in order on SIGTERM, SIGINT and SIGHUP.
fn watch_signals(
    signals: SignalFd,
    handle: &LoopHandle,
    machine: &Arc<Machine>,
) -> Result<crate::event::Watch, StartError> {
    let signals = Arc::new(signals);
    let (reader, machine) = (Arc::clone(&signals), Arc::downgrade(machine));
    handle
        .watch(signals, Interest::Read, move |_| {
            while let Some(signal) = reader.read() {
                let Some(machine) = machine.upgrade() else { return };
                let text = if signal.sender == 0 {
                    format!("terminating on signal {}", signal.number)
                } else {
                    let name = std::fs::read_to_string(format!("/proc/{}/cmdline", signal.sender)).unwrap_or_default();
                    let name = name.split('\0').next().unwrap_or("");
                    let name = if name.is_empty() { "<unknown process>" } else { name };
                    format!("terminating on signal {} from pid {} ({name})", signal.number, signal.sender)
                };
                eprintln!("{}", machine::message(&text));
                machine.quit(Cause::HostSignal);
            }
        })
        .map_err(host("signals"))
}
