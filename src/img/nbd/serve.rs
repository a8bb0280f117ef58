//! The server: sockets, clients, signals, going to the background.

use std::io;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::SocketType;
use rustix::process::Signal;

use super::{Options, Stop, error};
use crate::block::nbd::server::{self, Export};
use crate::block::nbd::{Address, Listener, Stream};
use crate::block::{Image, NodeOptions, Opener};
use crate::host;
use crate::host::process::Fork;
use crate::host::signal::SignalFd;
use crate::img::args::key_values;

/// Clients at a time at most: each has a thread.
const MAX_CLIENTS: usize = 1024;
/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_PASSED: i32 = 3;

pub(super) fn run(options: Options) -> Result<(), Stop> {
    // Before the first thread: it cannot come along.
    let ready = if options.fork { go_to_background()? } else { None };
    let image = open(&options)?;
    let export = export(&options, image)?;
    let (listener, socket) = listen(&options)?;
    if let Some(path) = &options.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|failure| Stop::Error(format!("cannot create PID file: {}", host::plain_reason(&failure))))?;
    }
    let signals = [Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    let signals = SignalFd::block(&signals).map_err(|failure| Stop::Error(host::plain_reason(&failure)))?;
    host::signal::ignore_broken_pipes();
    if let Some(ready) = ready {
        leave_terminal(ready)?;
    }
    let mut server = Server::new(&options, export);
    let done = server.run(&listener, &signals);
    if let Some(path) = socket {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(path);
    }
    done.and_then(|()| server.end()).map_err(|failure| Stop::Error(host::plain_reason(&failure)))
}

/// The parent waits until the child is ready, and ends; the child gets the pipe to tell it by.
fn go_to_background() -> Result<Option<OwnedFd>, Stop> {
    let failed = |failure: io::Error| Stop::Error(format!("Failed to fork: {}", host::plain_reason(&failure)));
    let (reader, writer) = rustix::pipe::pipe().map_err(|errno| failed(errno.into()))?;
    if host::process::fork().map_err(failed)? == Fork::Child {
        drop(reader);
        return Ok(Some(writer));
    }
    drop(writer);
    let mut byte = [0];
    match rustix::io::read(&reader, &mut byte) {
        Ok(1) => std::process::exit(0),
        // The child has said why.
        _ => std::process::exit(1),
    }
}

/// Lets go of the terminal, and tells the parent.
fn leave_terminal(ready: OwnedFd) -> Result<(), Stop> {
    let failed =
        |failure: io::Error| Stop::Error(format!("Failed to go to the background: {}", host::plain_reason(&failure)));
    // It may lead its session already.
    let _ = rustix::process::setsid();
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| failed(errno.into()))?;
    rustix::stdio::dup2_stdout(&null).map_err(|errno| failed(errno.into()))?;
    rustix::stdio::dup2_stderr(&null).map_err(|errno| failed(errno.into()))?;
    let mut pipe = std::fs::File::from(ready);
    pipe.write_all(b"\0").map_err(failed)
}

fn open(options: &Options) -> Result<Image, Stop> {
    let file = options.file.clone().unwrap_or_default();
    let mut node: NodeOptions = options.node.clone();
    if options.image_opts {
        for (key, value) in key_values(&file) {
            node.options.insert(key, value.into());
        }
    } else {
        node.filename = Some(file.clone());
    }
    let mut opener = Opener::with_objects(options.objects.clone());
    let opened = opener.open(&node, options.flags());
    opener.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let image =
        opened.map_err(|failure| Stop::Error(format!("Failed to blk_new_open '{file}': {}", failure.full_text())))?;
    if let Some(name) = &options.load_snapshot {
        let ops = image.ops().ok_or_else(|| Stop::Error("Failed to load snapshot: the format has none".to_owned()))?;
        ops.load_snapshot(name).map_err(|failure| {
            Stop::Error(format!("Failed to load snapshot: {}", super::super::source::text_of(&failure)))
        })?;
    }
    Ok(image)
}

fn export(options: &Options, image: Image) -> Result<Export, Stop> {
    let size = image.node.len().map_err(|failure| {
        Stop::Error(format!("Failed to determine the image length: {}", host::plain_reason(&failure)))
    })?;
    if options.offset > size {
        return error(format!("Offset ({}) has to be smaller than the image size ({size})", options.offset));
    }
    let mut bitmaps = Vec::new();
    for name in &options.bitmaps {
        let known = image.ops().map(|ops| ops.bitmaps()).transpose().ok().flatten().unwrap_or_default();
        if !known.iter().any(|bitmap| bitmap.name == *name) {
            return error(format!("Bitmap '{name}' is not found"));
        }
        let bits = image.ops().map(|ops| ops.bitmap_bits(name));
        match bits {
            Some(Ok(bits)) => bitmaps.push((name.clone(), bits)),
            Some(Err(failure)) => return error(failure.to_string()),
            None => return error(format!("Bitmap '{name}' is not found")),
        }
    }
    Ok(Export {
        name: options.name.clone(),
        description: options.description.clone(),
        window: (options.offset, size - options.offset),
        read_only: image.read_only || options.flags().read_only,
        multi: options.shared != 1,
        allocation_depth: options.allocation_depth,
        bitmaps,
        image,
    })
}

/// Where clients come in, and the socket file to remove at the end.
fn listen(options: &Options) -> Result<(Listener, Option<String>), Stop> {
    if let Some(listener) = passed()? {
        if options.socket.is_some() || options.port.is_some() || options.bind.is_some() {
            return error("Cannot specify a socket or an address when using socket activation");
        }
        return Ok((listener, None));
    }
    match options.address() {
        Address::Unix(path) => {
            // A socket that a dead server left is in the way.
            if std::os::unix::net::UnixStream::connect(&path).is_err() {
                let _ = std::fs::remove_file(&path);
            }
            let listener = UnixListener::bind(&path).map_err(|failure| {
                Stop::Error(format!("Failed to bind socket to {path}: {}", host::plain_reason(&failure)))
            })?;
            Ok((Listener::Unix(listener), Some(path)))
        }
        Address::Tcp(host, port) => {
            let listener =
                TcpListener::bind((host.as_str(), port)).map_err(|failure| match failure.raw_os_error() {
                    None => {
                        Stop::Error(format!("address resolution failed for {host}:{port}: Name or service not known"))
                    }
                    Some(_) => Stop::Error(format!("Failed to bind socket: {}", host::plain_reason(&failure))),
                })?;
            Ok((Listener::Tcp(listener), None))
        }
    }
}

/// The socket that systemd passes.
fn passed() -> Result<Option<Listener>, Stop> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(_) => return error("qemu-nbd does not support socket activation with LISTEN_FDS > 1"),
    }
    let failed =
        |failure: io::Error| Stop::Error(format!("Failed to use socket activation: {}", host::plain_reason(&failure)));
    let (socket, kind) = host::fd::take_socket(FIRST_PASSED).map_err(failed)?;
    if kind != SocketType::STREAM {
        return error("Failed to use socket activation: the socket is not of a stream");
    }
    let unix = rustix::net::sockopt::socket_domain(&socket).map_err(|errno| failed(errno.into()))?
        == rustix::net::AddressFamily::UNIX;
    Ok(Some(if unix { Listener::Unix(socket.into()) } else { Listener::Tcp(socket.into()) }))
}

struct Server {
    exports: Arc<Vec<Arc<Export>>>,
    shared: usize,
    persistent: bool,
    verbose: bool,
    limit: Option<Duration>,
    /// Clients that are connected: their number and a handle of their connection.
    clients: Vec<(u64, Stream)>,
    next: u64,
    left: (Sender<u64>, Receiver<u64>),
}

impl Server {
    fn new(options: &Options, export: Export) -> Self {
        let shared = if options.shared == 0 { MAX_CLIENTS } else { options.shared.min(MAX_CLIENTS) };
        Self {
            exports: Arc::new(vec![Arc::new(export)]),
            shared,
            persistent: options.persistent,
            verbose: options.verbose,
            limit: (options.handshake_limit > 0).then(|| Duration::from_secs(options.handshake_limit.min(1 << 32))),
            clients: Vec::new(),
            next: 0,
            left: mpsc::channel(),
        }
    }

    fn listener_fd(listener: &Listener) -> std::os::fd::BorrowedFd<'_> {
        match listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }

    /// Until the last client left, or a signal came.
    fn run(&mut self, listener: &Listener, signals: &SignalFd) -> io::Result<()> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        loop {
            let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&*wake, PollFlags::IN)];
            if self.clients.len() < self.shared {
                fds.push(PollFd::from_borrowed_fd(Self::listener_fd(listener), PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let knocks = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
            if signals.read().is_some() {
                return Ok(());
            }
            let mut count = [0; 8];
            // Nothing to read: nobody left.
            let _ = rustix::io::read(&*wake, &mut count);
            let before = self.clients.len();
            while let Ok(id) = self.left.1.try_recv() {
                self.clients.retain(|(client, _)| *client != id);
            }
            if before > 0 && self.clients.is_empty() && !self.persistent {
                return Ok(());
            }
            if knocks {
                self.welcome(listener, &wake)?;
            }
        }
    }

    fn welcome(&mut self, listener: &Listener, wake: &Arc<OwnedFd>) -> io::Result<()> {
        // A client that is gone already is no error of the server's.
        let Ok(stream) = listener.accept() else { return Ok(()) };
        let id = self.next;
        self.next += 1;
        self.clients.push((id, stream.try_clone()?));
        let (exports, limit, verbose) = (Arc::clone(&self.exports), self.limit, self.verbose);
        let (left, wake) = (self.left.0.clone(), Arc::clone(wake));
        std::thread::Builder::new().spawn(move || {
            if let Err(failure) = server::serve(stream, &exports, limit)
                && verbose
            {
                eprintln!("qemu-nbd: {failure}");
            }
            drop(exports);
            // The server may be ending.
            let _ = left.send(id);
            let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        })?;
        Ok(())
    }

    /// Sends clients away, and puts everything on stable storage.
    fn end(&mut self) -> io::Result<()> {
        self.clients.iter().for_each(|(_, stream)| stream.shut_down());
        while !self.clients.is_empty() {
            let Ok(id) = self.left.1.recv_timeout(Duration::from_secs(10)) else { break };
            self.clients.retain(|(client, _)| *client != id);
        }
        let exports = std::mem::take(&mut self.exports);
        exports.iter().filter(|export| !export.read_only).try_for_each(|export| export.image.node.flush())
    }
}
