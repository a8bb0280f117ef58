//! All character devices of a machine, by name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::event::LoopHandle;

use super::backend::{Backend, Null, Vc, VcFactory, VcRequest, open_now};
use super::handle::{CharEvent, CharHandle, CharOutput, CharSink, SerialParameters};
use super::inlet::{CharInput, Inlet, lock};
use super::mux::{Mux, MuxBackend, MuxKeys, Place};
use super::pty::Pty;
use super::ringbuf::RingBuffer;
use super::socket::Socket;
use super::spec::{AttachError, OpenError, Spec};
use crate::host::reason;

/// The back ends' names.
pub const BACKENDS: &[&str] =
    &["file", "memory", "mux", "null", "pipe", "pty", "ringbuf", "serial", "socket", "stdio", "udp", "vc"];

/// What back ends need from the process around them.
#[derive(Clone)]
pub struct Hooks {
    /// Prints a line to standard error, with the program's name before it.
    pub report: Arc<dyn Fn(&str) + Send + Sync>,
    /// Prints a line to standard output.
    pub print: Arc<dyn Fn(&str) + Send + Sync>,
    /// Makes text consoles for `vc`; without it, `vc` takes output and is silent.
    pub vc: Option<VcFactory>,
    /// The multiplexers' keys.
    pub keys: MuxKeys,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            report: Arc::new(|text| eprintln!("{text}")),
            print: Arc::new(|text| println!("{text}")),
            vc: None,
            keys: MuxKeys::default(),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({:?})", self.keys)
    }
}

/// A character device as `info chardev` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChardevInfo {
    /// Its id.
    pub label: String,
    /// Back end and its state: "stdio", "disconnected:unix:/path,server=on".
    pub filename: String,
    /// Whether a front end listens.
    pub frontend_open: bool,
}

/// One device of the registry, and the output side of its handle.
struct Entry {
    label: String,
    backend: Arc<dyn Backend>,
    inlet: Arc<Inlet>,
    input: CharInput,
    log: Option<Mutex<File>>,
    claimed: AtomicBool,
}

impl CharOutput for Entry {
    fn write(&self, data: &[u8]) -> usize {
        let taken = self.backend.write(data);
        if let Some(log) = &self.log {
            // The log is a copy: a full disk must not stop the guest's port.
            let _ = lock(log).write_all(&data[..taken]);
        }
        taken
    }

    fn accept_input(&self) {
        self.input.deliver_soon();
        self.backend.accept_input();
    }

    fn set_parameters(&self, parameters: SerialParameters) {
        self.backend.set_parameters(parameters);
    }

    fn set_break(&self, on: bool) {
        self.backend.set_break(on);
    }
}

/// A front end's right to a character device, before its sink exists.
pub struct Claim {
    handle: CharHandle,
    inlet: Arc<Inlet>,
    mux: Option<Arc<Mux>>,
    event_loop: LoopHandle,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}

impl Claim {
    /// The output side.
    #[must_use]
    pub fn handle(&self) -> CharHandle {
        self.handle.clone()
    }

    /// Registers the input side. [`CharEvent::Opened`] follows on the loop's thread, at once or when somebody
    /// connects. The last front end of a multiplexer to do this has the input.
    pub fn connect(self, sink: Arc<dyn CharSink>) {
        self.connect_at(sink, Place::Front);
    }

    /// As [`Claim::connect`], but a front end of the same multiplexer that has the input keeps it: for monitors, which
    /// come up behind the serial port that they share a terminal with.
    pub fn connect_behind(self, sink: Arc<dyn CharSink>) {
        self.connect_at(sink, Place::Behind);
    }

    fn connect_at(self, sink: Arc<dyn CharSink>, place: Place) {
        self.inlet.set_sink(Some(sink));
        if let Some(mux) = &self.mux {
            mux.connected(&self.inlet, place);
            return;
        }
        let Self { handle, inlet, mux: _, event_loop } = self;
        event_loop.post(move || {
            inlet.announce();
            handle.accept_input();
        });
    }
}

/// The registry.
pub struct Chardevs {
    handle: LoopHandle,
    hooks: Hooks,
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl fmt::Debug for Chardevs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Chardevs {
    /// An empty registry whose back ends live on `handle`'s loop.
    #[must_use]
    pub fn new(handle: LoopHandle, hooks: Hooks) -> Arc<Self> {
        Arc::new(Self { handle, hooks, entries: Mutex::default() })
    }

    fn find(&self, id: &str) -> Option<Arc<Entry>> {
        lock(&self.entries).iter().find(|entry| entry.label == id).cloned()
    }

    /// Opens a device. A server socket with `wait=on` (the default) waits here for its first connection.
    ///
    /// # Errors
    /// QEMU's message, without the "-chardev …: " in front of it.
    pub fn open(&self, spec: &Spec) -> Result<(), OpenError> {
        if spec.id.is_empty() {
            return Err(OpenError("chardev: no id specified".to_owned()));
        }
        if self.find(&spec.id).is_some() {
            return Err(OpenError(format!("Duplicate ID '{}' for chardev", spec.id)));
        }
        if spec.backend.is_empty() {
            return Err(OpenError(format!("chardev: \"{}\" missing backend", spec.id)));
        }
        spec.check_names()?;
        let shared = spec.mux || spec.flag("mux")?.unwrap_or(false);
        if !shared {
            let entry = self.open_entry(spec, &spec.id)?;
            lock(&self.entries).push(entry);
            return Ok(());
        }
        let base = self.open_entry(spec, &format!("{}-base", spec.id))?;
        let top = self.mux_entry(&spec.id, &base);
        lock(&self.entries).extend([base, top]);
        Ok(())
    }

    fn open_entry(&self, spec: &Spec, label: &str) -> Result<Arc<Entry>, OpenError> {
        let log = open_log(spec)?;
        if spec.backend == "mux" {
            let Some(base) = spec.get("chardev") else {
                return Err(OpenError("chardev: mux: no chardev given".to_owned()));
            };
            let base = self.find(base).ok_or_else(|| OpenError(format!("mux: base chardev {base} not found")))?;
            if base.claimed.load(Ordering::Acquire) {
                return Err(OpenError(format!("chardev '{}' is already in use", base.label)));
            }
            return Ok(self.mux_entry(label, &base));
        }
        let inlet = Arc::new(Inlet::default());
        let input = CharInput::new(self.handle.clone(), Arc::clone(&inlet));
        let backend = self.open_backend(spec, label, &inlet, &input)?;
        let claimed = AtomicBool::new(false);
        Ok(Arc::new(Entry { label: label.to_owned(), backend, inlet, input, log, claimed }))
    }

    fn open_backend(
        &self,
        spec: &Spec,
        label: &str,
        inlet: &Arc<Inlet>,
        input: &CharInput,
    ) -> Result<Arc<dyn Backend>, OpenError> {
        match spec.backend.as_str() {
            "null" => Ok(open_now(inlet, Null)),
            "file" => super::file::open_file(spec, &self.handle, inlet),
            "pipe" => super::file::open_pipe(spec, &self.handle, inlet),
            "stdio" => super::stdio::open(spec, &self.handle, inlet),
            "pty" => Pty::open(label, &self.handle, inlet, &self.hooks),
            "socket" => Socket::open(spec, label, &self.handle, inlet, &self.hooks),
            "udp" => super::udp::open(spec, &self.handle, inlet, input),
            "serial" | "tty" => super::serial::open(spec, &self.handle, inlet),
            "ringbuf" | "memory" => RingBuffer::open(spec, inlet, input.clone()),
            "vc" => self.open_vc(spec, label, inlet, input),
            name @ ("parallel" | "testdev" | "msmouse" | "wctablet" | "hub" | "qemu-vdagent" | "spicevmc"
            | "spiceport" | "braille" | "dbus") => {
                Err(OpenError(format!("char driver '{name}' is not supported by this version")))
            }
            name => Err(OpenError(format!("'{name}' is not a valid char driver name"))),
        }
    }

    fn open_vc(
        &self,
        spec: &Spec,
        label: &str,
        inlet: &Arc<Inlet>,
        input: &CharInput,
    ) -> Result<Arc<dyn Backend>, OpenError> {
        let size = |name| Ok(spec.number(name)?.map(|value| u32::try_from(value).unwrap_or(u32::MAX)));
        let request = VcRequest {
            label: label.to_owned(),
            width: size("width")?,
            height: size("height")?,
            columns: size("cols")?,
            rows: size("rows")?,
            input: input.clone(),
        };
        let console = match &self.hooks.vc {
            Some(factory) => factory(request),
            None => Arc::new(Null),
        };
        Ok(open_now(inlet, Vc { console, input: input.clone() }))
    }

    fn mux_entry(&self, label: &str, base: &Arc<Entry>) -> Arc<Entry> {
        base.claimed.store(true, Ordering::Release);
        let output = CharHandle::new(Arc::clone(base) as Arc<dyn CharOutput>);
        let mux = Mux::new(self.handle.clone(), output.clone(), Arc::clone(&base.inlet), self.hooks.keys.clone());
        let claim =
            Claim { handle: output, inlet: Arc::clone(&base.inlet), mux: None, event_loop: self.handle.clone() };
        claim.connect(Arc::clone(&mux) as Arc<dyn CharSink>);
        let inlet = Arc::new(Inlet::default());
        Arc::new(Entry {
            label: label.to_owned(),
            backend: Arc::new(MuxBackend(mux)),
            input: CharInput::new(self.handle.clone(), Arc::clone(&inlet)),
            inlet,
            log: None,
            claimed: AtomicBool::new(false),
        })
    }

    /// Takes a device for a front end.
    ///
    /// # Errors
    /// There is none of that name, or another front end has it.
    pub fn claim(&self, id: &str) -> Result<Claim, AttachError> {
        let entry = self.find(id).ok_or_else(|| AttachError::NotFound(id.to_owned()))?;
        let in_use = || AttachError::InUse(id.to_owned());
        let event_loop = self.handle.clone();
        if let Some(mux) = entry.backend.mux() {
            let (handle, inlet) = mux.add().ok_or_else(in_use)?;
            entry.claimed.store(true, Ordering::Release);
            return Ok(Claim { handle, inlet, mux: Some(Arc::clone(mux)), event_loop });
        }
        if entry.claimed.swap(true, Ordering::AcqRel) {
            return Err(in_use());
        }
        let inlet = Arc::clone(&entry.inlet);
        Ok(Claim { handle: CharHandle::new(entry), inlet, mux: None, event_loop })
    }

    /// Takes a device for a front end whose sink exists already.
    ///
    /// # Errors
    /// As [`Chardevs::claim`].
    pub fn attach(&self, id: &str, sink: Arc<dyn CharSink>) -> Result<CharHandle, AttachError> {
        let claim = self.claim(id)?;
        let handle = claim.handle();
        claim.connect(sink);
        Ok(handle)
    }

    /// Gives a device back: its front end is gone. Front ends of a multiplexer stay.
    pub fn release(&self, id: &str) {
        if let Some(entry) = self.find(id)
            && entry.backend.mux().is_none()
        {
            entry.inlet.set_sink(None);
            entry.claimed.store(false, Ordering::Release);
        }
    }

    /// All devices, in the order they were made.
    #[must_use]
    pub fn list(&self) -> Vec<ChardevInfo> {
        let entries = lock(&self.entries).clone();
        entries
            .iter()
            .map(|entry| ChardevInfo {
                label: entry.label.clone(),
                filename: entry.backend.filename(),
                frontend_open: entry.claimed.load(Ordering::Acquire)
                    && (entry.backend.mux().is_some() || entry.inlet.has_sink()),
            })
            .collect()
    }

    /// The name of a device's pseudo-terminal.
    #[must_use]
    pub fn pty(&self, id: &str) -> Option<String> {
        self.find(id)?.backend.pty()
    }

    /// `chardev-remove`.
    ///
    /// # Errors
    /// "Chardev 'x' not found", "Chardev 'x' is busy".
    pub fn remove(&self, id: &str) -> Result<(), OpenError> {
        let entry = self.find(id).ok_or_else(|| OpenError(format!("Chardev '{id}' not found")))?;
        if entry.claimed.load(Ordering::Acquire) {
            return Err(OpenError(format!("Chardev '{id}' is busy")));
        }
        lock(&self.entries).retain(|other| !Arc::ptr_eq(other, &entry));
        entry.backend.close();
        Ok(())
    }

    /// `chardev-send-break`: the front end sees a break.
    ///
    /// # Errors
    /// "Chardev 'x' not found".
    pub fn send_break(&self, id: &str) -> Result<(), OpenError> {
        let entry = self.find(id).ok_or_else(|| OpenError(format!("Chardev '{id}' not found")))?;
        match entry.backend.mux() {
            Some(mux) => mux.event(CharEvent::Break),
            None => entry.inlet.event(CharEvent::Break),
        }
        Ok(())
    }

    fn ring_buffer<R>(&self, id: &str, f: impl FnOnce(&RingBuffer) -> R) -> Result<R, OpenError> {
        let entry = self.find(id).ok_or_else(|| OpenError(format!("Device '{id}' not found")))?;
        entry.backend.ring_buffer().map(f).ok_or_else(|| OpenError(format!("{id} is not a ringbuf device")))
    }

    /// `ringbuf_read`.
    ///
    /// # Errors
    /// "Device 'x' not found", "x is not a ringbuf device".
    pub fn ring_buffer_read(&self, id: &str, count: usize) -> Result<Vec<u8>, OpenError> {
        self.ring_buffer(id, |ring| ring.read(count))
    }

    /// `ringbuf_write`.
    ///
    /// # Errors
    /// As [`Chardevs::ring_buffer_read`].
    pub fn ring_buffer_write(&self, id: &str, data: &[u8]) -> Result<(), OpenError> {
        self.ring_buffer(id, |ring| {
            ring.write(data);
        })
    }

    /// Gives the terminal its old modes: the process is about to be stopped (SIGTSTP).
    pub fn suspend_terminal(&self) {
        for entry in lock(&self.entries).iter() {
            entry.backend.terminal().map(super::terminal::Terminal::suspend).unwrap_or_default();
        }
    }

    /// Makes the terminal raw again: the process goes on (SIGCONT).
    pub fn resume_terminal(&self) {
        for entry in lock(&self.entries).iter() {
            entry.backend.terminal().map(super::terminal::Terminal::resume).unwrap_or_default();
        }
    }

    /// Ends all of them: output is written, connections and listeners are closed, terminals are as they were.
    pub fn close_all(&self) {
        let entries = std::mem::take(&mut *lock(&self.entries));
        for entry in entries {
            entry.backend.close();
        }
    }
}

impl Drop for Chardevs {
    fn drop(&mut self) {
        self.close_all();
    }
}

fn open_log(spec: &Spec) -> Result<Option<Mutex<File>>, OpenError> {
    let path = match (&spec.logfile, spec.get("logfile")) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => path.into(),
        (None, None) => return Ok(None),
    };
    let append = spec.logappend || spec.flag("logappend")?.unwrap_or(false);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .append(append)
        .truncate(!append)
        .mode(0o666)
        // A fifo that nobody reads must not stop the machine.
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(&path)
        .map_err(|e| OpenError(format!("Could not create '{}': {}", path.display(), reason(&e))))?;
    Ok(Some(Mutex::new(file)))
}
