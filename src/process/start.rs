//! From a configuration to a running process, and its end.

use std::ffi::CString;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::background::{self, PidFile};
use super::control::Session;
use super::debugger::{self, Debugger};
use crate::accel::qtest;
use crate::bus::Reset;
use crate::chardev::{CharOutput, Chardevs, Hooks, MuxKeys, VcRequest};
use crate::event::{Clock, EventLoop, Interest, LoopHandle};
use crate::host::reason;
use crate::host::signal::{self, JOB_CONTROL, Meaning, Signal, SignalFd, TERMINATION};
use crate::machine::config::{Config, DisplaySpec, GdbSpec, VncSpec};
use crate::machine::{self, BuildError, Built, Cause, Machine, Surroundings};
use crate::monitor::{Control, Mode, Monitors};
use crate::net::Networks;
use crate::options::{self, Tables};
use crate::trace;
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
    /// Anything else; the text is QEMU's where it has one.
    #[error("{0}")]
    Text(String),
    /// The host.
    #[error("{what}: {}", reason(source))]
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
    // Before the first thread: a fork takes one thread only.
    let parent = if config.process.daemonize {
        match background::daemonize()? {
            Ok(parent) => Some(parent),
            Err(status) => return Ok(status),
        }
    } else {
        None
    };
    machine::set_message_style(machine::MessageStyle {
        timestamp: config.log.timestamp,
        guest_name: config.name.clone().filter(|_| config.log.guest_name),
    });
    let signals = SignalFd::block(&[TERMINATION, JOB_CONTROL].concat()).map_err(host("signals"))?;
    install_log(config)?;
    if let Some(name) = config.process_name.as_deref().and_then(|name| CString::new(name).ok()) {
        // The name is only for people's process lists; the kernel cuts it to 15 bytes.
        let _ = rustix::thread::set_name(&name);
    }
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    let user = background::find_user(&config.process)?;
    let pid_file = config.process.pidfile.as_deref().map(PidFile::create).transpose()?;

    // With -icount, the instructions that the processor executes move the clock.
    let clock = if config.icount.is_some() { Clock::manual() } else { Clock::stopped() };
    let event_loop = EventLoop::new(clock).map_err(host("main loop"))?;
    let handle = event_loop.handle();
    let display = Arc::new(Display::new());
    let machine_slot: Arc<OnceLock<Weak<Machine>>> = Arc::default();
    let consoles = Arc::<Consoles>::default();
    let chardevs = open_chardevs(config, &handle, &machine_slot, &consoles, &display)?;
    let networks = Networks::new();
    machine::open_networks(config, &networks)?;
    let surroundings = Surroundings {
        handle: handle.clone(),
        chardevs: Arc::clone(&chardevs),
        display,
        networks: Arc::clone(&networks),
    };
    let Built { machine, pc, drives, warnings } = machine::build(config, &surroundings)?;
    // Only this call ever sets it.
    let _ = machine_slot.set(Arc::downgrade(&machine));
    for warning in warnings {
        eprintln!("{}", machine::message(&warning));
    }
    consoles.show_on(&surroundings.display);
    let session = Arc::new(Session {
        machine: Arc::clone(&machine),
        pc,
        drives,
        chardevs: Arc::clone(&chardevs),
        display: Arc::clone(&surroundings.display),
        networks: Arc::clone(&networks),
        servers: OnceLock::new(),
        debugger: OnceLock::new(),
        config: config.clone(),
    });
    let monitors = open_monitors(config, &handle, &session)?;
    let debugger = open_debugger(config, &handle, &session, &monitors)?;
    let qtest = open_qtest(config, &handle, &session)?;
    let ticker = DisplayTicker::new(&handle, &surroundings.display);
    let servers = start_displays(config, &handle, &surroundings.display, &monitors)?;
    // Only this call ever sets it.
    let _ = session.servers.set(servers.clone());
    let signals = watch_signals(signals, &handle, &machine, &chardevs)?;
    background::drop_privileges(&config.process, user.as_ref())?;
    if let Some(parent) = parent {
        parent.release().map_err(host("daemonize"))?;
    }

    if !config.start_paused {
        machine.resume().map_err(|error| BuildError::Text(error.to_string()))?;
    }
    event_loop.run().map_err(host("main loop"))?;
    machine.finish();
    drop(signals);
    drop(debugger);
    drop(qtest);
    drop(ticker);
    for server in servers {
        server.stop();
    }
    chardevs.close_all();
    networks.close_all();
    drop(pid_file);
    Ok(machine.exit_status())
}

fn install_log(config: &Config) -> Result<(), StartError> {
    let settings = trace::Settings {
        program: machine::program_name(),
        items: config.log.items.clone(),
        file: config.log.file.clone(),
        filter: config.log.filter.clone(),
        patterns: config.log.trace.clone(),
        trace_file: config.log.trace_file.clone(),
        timestamp: config.log.timestamp,
    };
    trace::install(&settings).map_err(|error| StartError::Text(error.to_string()))
}

/// The monitors of `-monitor`, `-qmp` and `-mon`; they hear what happens to the machine.
fn open_monitors(config: &Config, handle: &LoopHandle, session: &Arc<Session>) -> Result<Arc<Monitors>, StartError> {
    let control: Arc<dyn Control> = Arc::clone(session) as Arc<dyn Control>;
    let monitors = Monitors::new(handle.clone(), control);
    let listener = Arc::clone(&monitors);
    session.machine.add_listener(Arc::new(move |event| listener.machine_event(event)));
    for spec in &config.monitors {
        let mode = if spec.qmp { Mode::Control { pretty: spec.pretty } } else { Mode::Human };
        monitors.open(&spec.chardev, mode).map_err(|error| BuildError::option(&spec.origin, error.to_string()))?;
    }
    Ok(monitors)
}

/// Two lines, as QEMU has them.
fn gdb_error(gdb: &GdbSpec, text: &str) -> BuildError {
    let first = machine::message(&BuildError::option(&gdb.origin, text).to_string());
    eprintln!("{first}");
    BuildError::option(&gdb.origin, options::GDB_NO_CHARDEV)
}

/// The server of `-gdb`, and the means for the monitor's `gdbserver`.
fn open_debugger(
    config: &Config,
    handle: &LoopHandle,
    session: &Arc<Session>,
    monitors: &Monitors,
) -> Result<Arc<Debugger>, StartError> {
    let environment = monitors.environment().clone();
    let debugger = Debugger::new(&session.machine, &session.chardevs, environment, handle.clone());
    // Only this call ever sets it.
    let _ = session.debugger.set(Arc::downgrade(&debugger));
    if let Some(gdb) = &config.gdb {
        debugger.attach(&gdb.chardev).map_err(|error| gdb_error(gdb, &error.to_string()))?;
    }
    Ok(debugger)
}

/// The server of `-qtest`.
fn open_qtest(
    config: &Config,
    handle: &LoopHandle,
    session: &Session,
) -> Result<Option<Arc<qtest::Server>>, StartError> {
    let Some(spec) = &config.qtest else { return Ok(None) };
    let machine = &session.machine;
    let claim = session.chardevs.claim(&spec.chardev).map_err(|e| BuildError::option(&spec.origin, e.to_string()))?;
    let log = qtest::Log::open(config.qtest_log.as_deref()).map_err(host("-qtest-log"))?;
    let controllers = session.pc.as_ref().and_then(|pc| pc.controllers.as_ref());
    let weak = Arc::downgrade(machine);
    let stands = machine.accelerator().name() == "qtest";
    let wires = qtest::Wires {
        board: Arc::clone(machine.board()),
        ram: machine.ram().clone(),
        timers: handle.clone(),
        tap: controllers.map(|controllers| Arc::clone(controllers.tap())),
        owns_clock: stands,
        reset: Box::new(move || {
            match weak.upgrade() {
                // Nothing executes: QEMU resets without a word, too.
                Some(machine) if stands => machine.reset_parts(Reset::System),
                Some(machine) => machine.reset(Cause::HostQmpSystemReset),
                None => {}
            }
        }),
    };
    let server = qtest::Server::new(wires, claim.handle(), log);
    claim.connect(Arc::clone(&server) as Arc<dyn crate::chardev::CharSink>);
    Ok(Some(server))
}

fn open_chardevs(
    config: &Config,
    handle: &LoopHandle,
    machine: &Arc<OnceLock<Weak<Machine>>>,
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
        let opened = chardevs.open(&debugger::chardev(spec));
        opened.map_err(|error| match &config.gdb {
            Some(gdb) if gdb.chardev == spec.id && gdb.origin == spec.origin => gdb_error(gdb, &error.to_string()),
            _ => BuildError::option(&spec.origin, error.to_string()),
        })?;
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

fn start_displays(
    config: &Config,
    handle: &LoopHandle,
    display: &Arc<Display>,
    monitors: &Arc<Monitors>,
) -> Result<Vec<Arc<vnc::Server>>, StartError> {
    let mut servers = Vec::new();
    for spec in &config.displays {
        let DisplaySpec::Vnc(spec) = spec else { continue };
        servers.push(start_vnc(config, spec, handle, display, monitors)?);
    }
    Ok(servers)
}

fn start_vnc(
    config: &Config,
    spec: &VncSpec,
    handle: &LoopHandle,
    display: &Arc<Display>,
    monitors: &Arc<Monitors>,
) -> Result<Arc<vnc::Server>, StartError> {
    let fail = |text: String| StartError::Build(BuildError::option(&spec.origin, text));
    let keymap = Keymap::load(config.keymap.as_deref().unwrap_or("en-us")).map_err(|e| fail(e.to_string()))?;
    let parsed = vnc::Spec::parse(spec.id.as_deref(), &spec.address, spec.to, &spec.options)
        .map_err(|error| fail(error.to_string()))?;
    let listening = vnc::Listening::bind(parsed).map_err(|error| fail(error.to_string()))?;
    let announcement = listening.announcement();
    let settings = vnc::Settings {
        desktop_name: vnc::desktop_name(config.name.as_deref()),
        keymap,
        observer: Arc::new(Watchers {
            handle: handle.clone(),
            display: Arc::downgrade(display),
            monitors: Arc::clone(monitors),
        }),
    };
    let server = vnc::Server::start(listening, display, settings).map_err(host("VNC server"))?;
    if let Some(line) = announcement {
        println!("{line}");
    }
    Ok(server)
}

/// Wakes the display when the first viewer comes, and tells programs of viewers.
struct Watchers {
    handle: LoopHandle,
    display: Weak<Display>,
    monitors: Arc<Monitors>,
}

impl Watchers {
    fn tell(&self, event: &str, client: &vnc::ClientInfo) {
        let address = |endpoint: &vnc::Endpoint| {
            serde_json::json!({
                "host": endpoint.host(),
                "service": endpoint.service(),
                "family": endpoint.family(),
                "websocket": false,
            })
        };
        let data = serde_json::json!({"server": address(&client.local), "client": address(&client.peer)});
        self.monitors.event(event, Some(data));
    }
}

impl vnc::Observer for Watchers {
    fn watched(&self) {
        if let Some(display) = self.display.upgrade() {
            display.wake();
        }
    }

    fn connected(&self, client: &vnc::ClientInfo) {
        self.tell("VNC_CONNECTED", client);
    }

    fn initialized(&self, client: &vnc::ClientInfo) {
        self.tell("VNC_INITIALIZED", client);
    }

    fn disconnected(&self, client: &vnc::ClientInfo) {
        self.tell("VNC_DISCONNECTED", client);
    }

    fn power(&self, action: vnc::PowerAction) {
        let control = Arc::clone(&self.monitors.environment().control);
        self.handle.post(move || match action {
            vnc::PowerAction::Shutdown => control.system_powerdown(),
            vnc::PowerAction::Reboot | vnc::PowerAction::Reset => control.system_reset(),
        });
    }
}

/// Ends the machine in order on SIGTERM, SIGINT and SIGHUP; while a shell has stopped the process, the terminal is as
/// it was.
fn watch_signals(
    signals: SignalFd,
    handle: &LoopHandle,
    machine: &Arc<Machine>,
    chardevs: &Arc<Chardevs>,
) -> Result<crate::event::Watch, StartError> {
    let signals = Arc::new(signals);
    let (reader, machine, chardevs) = (Arc::clone(&signals), Arc::downgrade(machine), Arc::downgrade(chardevs));
    handle
        .watch(signals, Interest::Read, move |_| {
            while let Some(signal) = reader.read() {
                let (Some(machine), Some(chardevs)) = (machine.upgrade(), chardevs.upgrade()) else { return };
                match signal.meaning() {
                    Meaning::End => end_on(signal, &machine),
                    // Not among the signals that are read here.
                    Meaning::Report => {}
                    Meaning::Continue => chardevs.resume_terminal(),
                    Meaning::Stop => {
                        chardevs.suspend_terminal();
                        if let Err(error) = signal::stop_for_terminal() {
                            log::warn!("SIGTSTP: {}", reason(&error));
                        }
                        chardevs.resume_terminal();
                    }
                }
            }
        })
        .map_err(host("signals"))
}

fn end_on(signal: Signal, machine: &Machine) {
    let text = if signal.sender == 0 {
        format!("terminating on signal {}", signal.number)
    } else {
        let name = std::fs::read_to_string(format!("/proc/{}/cmdline", signal.sender)).unwrap_or_default();
        let name = name.split('\0').next().unwrap_or("");
        let name = if name.is_empty() { "<unknown process>" } else { name };
        format!("terminating on signal {} from pid {} ({name})", signal.number, signal.sender)
    };
    // A second signal on the way out says nothing new.
    if machine.quit(Cause::HostSignal) {
        eprintln!("{}", machine::message(&text));
    }
}
