//! `socket`: a stream over TCP or a Unix socket, as server or client.
//!
//! A server has one connection at a time; the next caller waits in the listener's queue. A client may try again
//! (`reconnect-ms=`); its look-ups and connections are made on a thread of their own, so that the loop never waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, getpeername,
    getsockname, listen, socket_with, sockopt,
};

use crate::event::{ClockKind, Interest, LoopHandle, Timer, Watch};

use super::address::{Address, resolve};
use super::backend::Backend;
use super::handle::CharOutput;
use super::inlet::{Inlet, lock};
use super::registry::Hooks;
use super::spec::{OpenError, Spec};
use super::stream::{AtEnd, Descriptors, Stream};
use super::telnet::Telnet;
use crate::host::reason;

struct Options {
    address: Address,
    server: bool,
    wait: bool,
    nodelay: bool,
    telnet: bool,
    reconnect_ms: u64,
}

#[derive(Default)]
struct State {
    listener: Option<Arc<OwnedFd>>,
    watch: Option<Watch>,
    retry: Option<Timer>,
    /// The listener's real address, once it is known.
    bound: Option<String>,
    /// The connection's two ends, as `info chardev` shows them.
    connected: Option<String>,
    /// A failure to connect is reported once.
    reported: bool,
    trying: bool,
    closed: bool,
    /// Remove this file in the end.
    unlink: Option<String>,
}

/// The back end.
pub(super) struct Socket {
    me: Weak<Self>,
    label: String,
    options: Options,
    handle: LoopHandle,
    inlet: Arc<Inlet>,
    hooks: Hooks,
    stream: Arc<Stream>,
    state: Mutex<State>,
}

fn options(spec: &Spec) -> Result<Options, OpenError> {
    let address = Address::from_spec(spec)?;
    let server = spec.flag("server")?.unwrap_or(false);
    let wait = spec.flag("wait")?;
    for name in ["websocket", "tn3270"] {
        if spec.flag(name)?.unwrap_or(false) {
            return Err(OpenError(format!("'{name}' is not supported by this version")));
        }
    }
    if let Some(name) = ["tls-creds", "tls-authz"].into_iter().find(|name| spec.get(name).is_some()) {
        return Err(OpenError(format!("'{name}' is not supported by this version")));
    }
    if !server && wait.is_some() {
        return Err(OpenError("'wait' option is incompatible with socket in client connect mode".to_owned()));
    }
    let (seconds, milliseconds) = (spec.number("reconnect")?, spec.number("reconnect-ms")?);
    if seconds.is_some() && milliseconds.is_some() {
        return Err(OpenError("'reconnect' and 'reconnect-ms' are mutually exclusive".to_owned()));
    }
    if server && (seconds.is_some() || milliseconds.is_some()) {
        return Err(OpenError("'reconnect' option is incompatible with socket in server listen mode".to_owned()));
    }
    let (delay, nodelay) = (spec.flag("delay")?, spec.flag("nodelay")?);
    if delay.is_some() && nodelay.is_some() {
        return Err(OpenError("'delay' and 'nodelay' are mutually exclusive".to_owned()));
    }
    Ok(Options {
        address,
        server,
        wait: wait.unwrap_or(true),
        nodelay: nodelay.unwrap_or(delay == Some(false)),
        telnet: spec.flag("telnet")?.unwrap_or(false),
        reconnect_ms: milliseconds.unwrap_or_else(|| seconds.unwrap_or(0).saturating_mul(1000)),
    })
}

impl Socket {
    /// Opens a socket: listens or connects; waits for the first caller if asked to.
    pub(super) fn open(
        spec: &Spec,
        label: &str,
        handle: &LoopHandle,
        inlet: &Arc<Inlet>,
        hooks: &Hooks,
    ) -> Result<Arc<dyn Backend>, OpenError> {
        let options = options(spec)?;
        let socket = Arc::new_cyclic(|me: &Weak<Self>| {
            let for_end = me.clone();
            let ended = move || {
                if let Some(socket) = for_end.upgrade() {
                    socket.ended();
                }
            };
            Self {
                me: me.clone(),
                label: label.to_owned(),
                options,
                handle: handle.clone(),
                inlet: Arc::clone(inlet),
                hooks: hooks.clone(),
                stream: Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::Close, ended),
                state: Mutex::default(),
            }
        });
        if socket.options.server {
            socket.listen()?;
        } else if socket.options.reconnect_ms > 0 {
            socket.arm_retry_timer();
            socket.try_soon();
        } else {
            socket.connected(connect_to(&socket.options.address)?);
        }
        Ok(socket)
    }

    fn protocol(&self) -> &'static str {
        if self.options.telnet { "telnet" } else { "tcp" }
    }

    // -- server --------------------------------------------------------------------------------------------------

    fn listen(&self) -> Result<(), OpenError> {
        let (listener, unlink) = listen_at(&self.options.address)?;
        let listener = Arc::new(listener);
        {
            let mut state = lock(&self.state);
            state.bound = bound_text(&listener, self.protocol());
            state.listener = Some(Arc::clone(&listener));
            state.unlink = unlink;
        }
        if self.options.wait {
            (self.hooks.report)(&format!("info: QEMU waiting for connection on: {}", self.filename()));
            let caller = loop {
                match accept_with(&listener, SocketFlags::CLOEXEC) {
                    Ok(caller) => break caller,
                    Err(Errno::INTR | Errno::CONNABORTED) => {}
                    Err(e) => return Err(OpenError(format!("Failed to accept: {}", reason(&e.into())))),
                }
            };
            self.connected(caller);
        }
        super::file::set_nonblocking(&listener)?;
        let me = self.me.clone();
        let interest = if self.stream.is_connected() { Interest::None } else { Interest::Read };
        let watch = self
            .handle
            .watch(Arc::clone(&listener) as Arc<dyn AsFd + Send + Sync>, interest, move |_| {
                if let Some(socket) = me.upgrade() {
                    socket.accept(&listener);
                }
            })
            .map_err(|e| OpenError(format!("Failed to watch socket: {}", reason(&e))))?;
        lock(&self.state).watch = Some(watch);
        Ok(())
    }

    /// On the loop's thread.
    fn accept(&self, listener: &OwnedFd) {
        if self.stream.is_connected() {
            return;
        }
        if let Ok(caller) = accept_with(listener, SocketFlags::CLOEXEC) {
            if let Some(watch) = &lock(&self.state).watch {
                watch.set_interest(Interest::None);
            }
            self.connected(caller);
        }
    }

    // -- client --------------------------------------------------------------------------------------------------

    fn arm_retry_timer(&self) {
        let me = self.me.clone();
        let timer = self.handle.timer(ClockKind::Host, move || {
            if let Some(socket) = me.upgrade() {
                socket.try_soon();
            }
        });
        lock(&self.state).retry = Some(timer);
    }

    /// Connects on a thread of its own: a look-up or an unreachable host may take minutes.
    fn try_soon(&self) {
        {
            let mut state = lock(&self.state);
            if state.closed || std::mem::replace(&mut state.trying, true) {
                return;
            }
        }
        let (me, address, handle) = (self.me.clone(), self.options.address.clone(), self.handle.clone());
        let work = move || {
            let result = connect_to(&address);
            handle.post(move || {
                if let Some(socket) = me.upgrade() {
                    socket.tried(result);
                }
            });
        };
        if let Err(e) = std::thread::Builder::new().name("chardev-connect".to_owned()).spawn(work) {
            self.tried(Err(OpenError(reason(&e))));
        }
    }

    fn tried(&self, result: Result<OwnedFd, OpenError>) {
        {
            let mut state = lock(&self.state);
            state.trying = false;
            if state.closed {
                return;
            }
        }
        match result {
            Ok(fd) => {
                lock(&self.state).reported = false;
                self.connected(fd);
            }
            Err(error) => {
                if !std::mem::replace(&mut lock(&self.state).reported, true) {
                    (self.hooks.report)(&format!("Unable to connect character device {}: {error}", self.label));
                }
                self.retry_later();
            }
        }
    }

    fn retry_later(&self) {
        if let Some(timer) = &lock(&self.state).retry {
            timer.set(timer.now_ns().saturating_add(self.options.reconnect_ms.saturating_mul(1_000_000)));
        }
    }

    // -- both ----------------------------------------------------------------------------------------------------

    fn connected(&self, fd: OwnedFd) {
        if let Err(e) = super::file::set_nonblocking(&fd) {
            log::warn!("{}: {e}", self.label);
            return;
        }
        if self.options.nodelay && matches!(self.options.address, Address::Inet { .. } | Address::Fd(_)) {
            // A Unix socket behind a descriptor has no such option.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
        }
        lock(&self.state).connected = self.connected_text(&fd);
        let telnet = self.options.telnet.then(Telnet::default);
        self.stream.connect(Descriptors::both(fd), telnet);
        let inlet = Arc::clone(&self.inlet);
        self.handle.post(move || inlet.opened());
    }

    /// The connection is over. On the loop's thread.
    fn ended(&self) {
        let retry = {
            let mut state = lock(&self.state);
            state.connected = None;
            if let Some(watch) = &state.watch {
                watch.set_interest(Interest::Read);
            }
            !state.closed && self.options.reconnect_ms > 0
        };
        if retry {
            self.retry_later();
        }
    }

    fn connected_text(&self, fd: &OwnedFd) -> Option<String> {
        let server = if self.options.server { ",server=on" } else { "" };
        let local = getsockname(fd).ok()?;
        if let Ok(local) = SocketAddr::try_from(local.clone()) {
            let peer = SocketAddr::try_from(getpeername(fd).ok()??).ok()?;
            return Some(format!("{}:{local}{server} <-> {peer}", self.protocol()));
        }
        if let Address::Unix { .. } = self.options.address {
            return Some(format!("{}{server}", self.options.address.text("")));
        }
        let unix = SocketAddrUnix::try_from(local).ok()?;
        let path = unix.path_bytes().map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default();
        Some(format!("unix:{path}{server}"))
    }
}

/// The listener's address as `info chardev` shows it: the port is the real one.
fn bound_text(listener: &OwnedFd, protocol: &str) -> Option<String> {
    let local = SocketAddr::try_from(getsockname(listener).ok()?).ok()?;
    Some(format!("{protocol}:{}:{}", local.ip(), local.port()))
}

fn failed(what: &str, error: Errno) -> OpenError {
    OpenError(format!("{what}: {}", reason(&error.into())))
}

/// The longest path that fits (unix(7)).
const UNIX_PATH_MAX: usize = 108;

fn unix_address(path: &str, abstract_name: bool, tight: bool) -> Result<SocketAddrUnix, OpenError> {
    let too_long =
        || OpenError(format!("UNIX socket path '{path}' is too long\nPath must be less than {UNIX_PATH_MAX} bytes"));
    if path.len() >= UNIX_PATH_MAX {
        return Err(too_long());
    }
    if !abstract_name {
        return SocketAddrUnix::new(path).map_err(|_| too_long());
    }
    let mut name = path.as_bytes().to_vec();
    if !tight {
        name.resize(UNIX_PATH_MAX - 1, 0);
    }
    SocketAddrUnix::new_abstract_name(&name).map_err(|_| too_long())
}

fn stream_socket(family: AddressFamily) -> Result<OwnedFd, OpenError> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| failed("Failed to create a socket", e))
}

fn inherited(number: i32) -> Result<OwnedFd, OpenError> {
    match crate::host::fd::take_socket(number) {
        Ok((fd, SocketType::STREAM)) => Ok(fd),
        Ok(_) => Err(OpenError(format!("File descriptor '{number}' is not a stream socket"))),
        Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            Err(OpenError(format!("File descriptor '{number}' is already in use")))
        }
        Err(_) => Err(OpenError(format!("File descriptor '{number}' is not a socket"))),
    }
}

/// A listening socket, and the file to remove in the end.
fn listen_at(address: &Address) -> Result<(OwnedFd, Option<String>), OpenError> {
    match address {
        Address::Fd(number) => {
            let fd = inherited(*number)?;
            listen(&fd, 1).map_err(|e| failed("Failed to listen on fd socket", e))?;
            Ok((fd, None))
        }
        Address::Unix { path, abstract_name, tight } => {
            let name = unix_address(path, *abstract_name, *tight)?;
            let fd = stream_socket(AddressFamily::UNIX)?;
            if !abstract_name {
                // What an earlier process left behind; if it is anything else, bind says so.
                let _ = rustix::fs::unlink(path.as_str());
            }
            bind(&fd, &name).map_err(|e| failed(&format!("Failed to bind socket to {path}"), e))?;
            listen(&fd, 1).map_err(|e| failed("Failed to listen on socket", e))?;
            Ok((fd, (!abstract_name).then(|| path.clone())))
        }
        Address::Inet { host, port, to, family } => {
            let host = match host.as_str() {
                "" if family.only_v6() => "::",
                "" => "0.0.0.0",
                host => host,
            };
            let addresses = resolve(host, port, *family)?;
            let mut last = OpenError("Failed to find an available port".to_owned());
            for address in addresses {
                match listen_inet(address, *to) {
                    Ok(fd) => return Ok((fd, None)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

fn listen_inet(address: SocketAddr, to: Option<u16>) -> Result<OwnedFd, OpenError> {
    for port in address.port()..=to.unwrap_or(0).max(address.port()) {
        let mut address = address;
        address.set_port(port);
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = stream_socket(family)?;
        sockopt::set_socket_reuseaddr(&fd, true).map_err(|e| failed("Failed to create a socket", e))?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, true).map_err(|e| failed("Failed to create a socket", e))?;
        }
        match bind(&fd, &address).and_then(|()| listen(&fd, 1)) {
            Ok(()) => return Ok(fd),
            Err(Errno::ADDRINUSE) => {}
            Err(e) => return Err(failed("Failed to bind socket", e)),
        }
    }
    Err(failed("Failed to find an available port", Errno::ADDRINUSE))
}

/// Connects, and waits for that.
fn connect_to(address: &Address) -> Result<OwnedFd, OpenError> {
    match address {
        Address::Fd(number) => inherited(*number),
        Address::Unix { path, abstract_name, tight } => {
            let name = unix_address(path, *abstract_name, *tight)?;
            connect_one(AddressFamily::UNIX, &name.into(), address)
        }
        Address::Inet { host, port, to: _, family } => {
            let host = if host.is_empty() { "localhost" } else { host };
            let mut last = None;
            for peer in resolve(host, port, *family)? {
                let kind = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                match connect_one(kind, &peer.into(), address) {
                    Ok(fd) => return Ok(fd),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| OpenError(format!("Failed to connect to '{}'", address.short()))))
        }
    }
}

fn connect_one(family: AddressFamily, peer: &SocketAddrAny, address: &Address) -> Result<OwnedFd, OpenError> {
    let fd = stream_socket(family)?;
    connect(&fd, peer).map_err(|e| failed(&format!("Failed to connect to '{}'", address.short()), e))?;
    Ok(fd)
}

impl CharOutput for Socket {
    fn write(&self, data: &[u8]) -> usize {
        self.stream.write(data)
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }
}

impl Backend for Socket {
    fn filename(&self) -> String {
        let state = lock(&self.state);
        if let Some(connected) = &state.connected {
            return connected.clone();
        }
        let server = if self.options.server { ",server=on" } else { "" };
        match &state.bound {
            Some(bound) => format!("disconnected:{bound}{server}"),
            None => format!("disconnected:{}{server}", self.options.address.text(self.protocol())),
        }
    }

    fn close(&self) {
        self.stream.drain();
        self.stream.drop_connection();
        let mut state = lock(&self.state);
        state.closed = true;
        state.watch = None;
        state.listener = None;
        state.retry = None;
        state.connected = None;
        if let Some(path) = state.unlink.take() {
            // Somebody else may have removed it.
            let _ = rustix::fs::unlink(path.as_str());
        }
    }
}
