//! The guest's TCP connections, and the host's ports that lead to the guest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::config::{Forward, Transport};
use super::egress::{Egress, no_checksums};
use super::flow::{Flow, State};
use super::{Connection, ConnectionState};

/// Connections at a time; the one that was silent longest makes room for a new one.
const MAX_FLOWS: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    guest: SocketAddr,
    server: SocketAddr,
}

struct Listener {
    rule: Forward,
    socket: TcpListener,
    token: u64,
}

/// All of them.
#[derive(Default)]
pub struct Tcp {
    flows: HashMap<Key, Flow>,
    tokens: HashMap<u64, Key>,
    listeners: Vec<Listener>,
    /// Connections to look at before the thread sleeps.
    touched: Vec<Key>,
    /// No connection's deadline is earlier.
    deadline: Option<Instant>,
}

/// Both directions, and only changes: nothing is asked for twice.
fn edges() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
}

impl Tcp {
    /// A segment of the guest.
    pub fn receive(&mut self, out: &mut Egress, from: IpAddr, to: IpAddr, frame: &[u8], range: Range<usize>) {
        let Some(segment) = frame.get(range.clone()) else { return };
        let Ok(packet) = TcpPacket::new_checked(segment) else { return };
        let Ok(repr) = TcpRepr::parse(&packet, &from.into(), &to.into(), &no_checksums()) else { return };
        let key = Key { guest: (from, repr.src_port).into(), server: (to, repr.dst_port).into() };
        let payload = range.end - repr.payload.len()..range.end;
        match self.flows.get_mut(&key) {
            Some(flow) => {
                flow.receive(out, &repr, frame, payload);
                self.touched.push(key);
            }
            None if repr.control == TcpControl::Syn && repr.ack_number.is_none() => self.open(out, key, &repr),
            None if repr.control == TcpControl::Rst => {}
            None => refuse(out, key, &repr),
        }
    }

    fn open(&mut self, out: &mut Egress, key: Key, syn: &TcpRepr<'_>) {
        let command = out.config.guest_forwards.iter().find(|rule| rule.server == key.server);
        let (socket, connected) = match command.map(|rule| run(&rule.command)) {
            Some(Ok(socket)) => (Ok(socket), true),
            Some(Err(error)) => {
                log::warn!("guestfwd: {}", crate::host::reason(&error));
                (Err(Errno::CONNREFUSED), false)
            }
            None => match out.outside(key.server) {
                Some(target) => (dial(target), false),
                None if out.config.restrict => return,
                None => (Err(Errno::CONNREFUSED), false),
            },
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                log::debug!("user network: connection to {}: {error}", key.server);
                return refuse(out, key, syn);
            }
        };
        self.make_room(out);
        let Ok(token) = out.watch(&socket, edges()) else { return refuse(out, key, syn) };
        let mut flow = Flow::asked(key.guest, key.server, socket, token, first_sequence(), syn);
        if connected {
            flow.connected(out);
        }
        self.insert(key, flow);
    }

    fn insert(&mut self, key: Key, flow: Flow) {
        self.note_deadline(flow.deadline);
        self.tokens.insert(flow.token, key);
        self.flows.insert(key, flow);
        self.touched.push(key);
    }

    fn make_room(&mut self, out: &mut Egress) {
        if self.flows.len() < MAX_FLOWS {
            return;
        }
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.active).map(|(key, _)| *key);
        if let Some(mut flow) = oldest.and_then(|key| self.flows.remove(&key)) {
            self.tokens.remove(&flow.token);
            flow.reset(out);
        }
    }

    /// Whether a token is one of ours; if so, serves it.
    pub fn event(&mut self, out: &mut Egress, token: u64, flags: EventFlags) -> bool {
        if let Some(listener) = self.listeners.iter().position(|listener| listener.token == token) {
            self.accept(out, listener);
            return true;
        }
        let Some(key) = self.tokens.get(&token).copied() else { return false };
        let Some(flow) = self.flows.get_mut(&key) else { return true };
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if flow.state == State::Connecting {
            match sockopt::socket_error(&flow.socket) {
                Ok(Ok(())) if flags.contains(EventFlags::OUT) && !flags.contains(EventFlags::ERR) => {
                    flow.connected(out);
                }
                Ok(Ok(())) if !broken => {}
                _ => flow.reset(out),
            }
        } else {
            let readable = flags.intersects(EventFlags::IN | EventFlags::RDHUP) || broken;
            flow.host_ready(readable, flags.contains(EventFlags::OUT));
        }
        self.touched.push(key);
        true
    }

    fn accept(&mut self, out: &mut Egress, index: usize) {
        // As many as a burst may be; the rest is announced again.
        for _ in 0..64 {
            let Some(listener) = self.listeners.get(index) else { return };
            let (socket, peer) = match listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(_) => return, // none left, or the peer went away
            };
            let rule = listener.rule;
            let guest: SocketAddr = (out.config.guest(rule.guest.ip()), rule.guest.port()).into();
            let Some(server) = out.inside(peer, guest.is_ipv4()) else { continue };
            let key = Key { guest, server };
            if self.flows.contains_key(&key) {
                continue;
            }
            self.make_room(out);
            // Delays for fuller segments are for real wires.
            let _ = socket.set_nodelay(true);
            let socket = OwnedFd::from(socket);
            let Ok(token) = out.watch(&socket, edges()) else { continue };
            let mut flow = Flow::forwarded(guest, server, socket, token, first_sequence());
            flow.send_syn(out);
            self.insert(key, flow);
        }
    }

    /// Starts to listen.
    ///
    /// # Errors
    /// The host does not let us.
    pub fn listen(&mut self, out: &mut Egress, rule: Forward) -> io::Result<()> {
        let socket = TcpListener::bind(rule.host)?;
        socket.set_nonblocking(true)?;
        let token = out.watch(&socket, EventFlags::IN)?;
        self.listeners.push(Listener { rule, socket, token });
        Ok(())
    }

    /// Stops listening; false if nobody does.
    pub fn unlisten(&mut self, host: SocketAddr) -> bool {
        let count = self.listeners.len();
        self.listeners.retain(|listener| listener.rule.host != host);
        self.listeners.len() != count
    }

    /// Does what the last frames and events made possible.
    pub fn pump(&mut self, out: &mut Egress, room: bool) {
        if room {
            let blocked = self.flows.iter().filter(|(_, flow)| flow.blocked).map(|(key, _)| *key);
            self.touched.extend(blocked);
        }
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            flow.pump(out);
            let (state, deadline, token) = (flow.state, flow.deadline, flow.token);
            self.note_deadline(deadline);
            if state == State::Closed {
                self.tokens.remove(&token);
                self.flows.remove(&key);
            }
        }
        self.touched = touched;
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = match (self.deadline, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// When [`Tcp::timeouts`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Serves the connections whose time has come.
    pub fn timeouts(&mut self, out: &mut Egress, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        let mut next: Option<Instant> = None;
        for (key, flow) in &mut self.flows {
            if flow.deadline.is_some_and(|deadline| deadline <= now) {
                flow.timeout(out);
                self.touched.push(*key);
            }
            next = match (next, flow.deadline) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.note_deadline(next);
    }

    /// For `info usernet`.
    pub fn connections(&self) -> Vec<Connection> {
        let listeners = self.listeners.iter().map(|listener| Connection {
            transport: Transport::Tcp,
            state: ConnectionState::Forward,
            fd: listener.socket.as_raw_fd(),
            source: listener.rule.host,
            destination: listener.rule.guest,
            queues: (0, 0),
        });
        let flows = self.flows.values().map(|flow| Connection {
            transport: Transport::Tcp,
            state: ConnectionState::Tcp(flow.state.name(flow)),
            fd: flow.socket.as_raw_fd(),
            source: flow.guest,
            destination: flow.server,
            queues: flow.queues(),
        });
        listeners.chain(flows).collect()
    }
}

/// Sequence numbers that cannot be guessed (RFC 6528).
fn first_sequence() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers the connection works as well.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

fn dial(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Starts a command with its standard input and output on a socket.
fn run(command: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let input = OwnedFd::from(theirs.try_clone()?);
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    std::thread::Builder::new().name("guestfwd".to_owned()).spawn(move || {
        let mut child = child;
        // Its status interests nobody: the socket's end says that it is over.
        let _ = child.wait();
    })?;
    Ok(ours.into())
}

/// Answers a segment that belongs to no connection (RFC 9293 3.5.2).
fn refuse(out: &mut Egress, key: Key, segment: &TcpRepr<'_>) {
    let (seq, ack) = match segment.ack_number {
        Some(ack) => (ack, None),
        None => (TcpSeqNumber(0), Some(segment.seq_number + segment.segment_len())),
    };
    let repr = TcpRepr {
        src_port: key.server.port(),
        dst_port: key.guest.port(),
        control: TcpControl::Rst,
        seq_number: seq,
        ack_number: ack,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let len = repr.header_len();
    let Some(mut frame) = out.headers(key.server.ip(), key.guest.ip(), IpProtocol::Tcp, len) else { return };
    let transport = frame.len();
    frame.resize(transport + len, 0);
    let (src, dst) = (key.server.ip().into(), key.guest.ip().into());
    repr.emit(&mut TcpPacket::new_unchecked(&mut frame[transport..]), &src, &dst, &no_checksums());
    let offload = super::egress::partial(&mut frame, transport, 16, len);
    out.send(crate::net::Packet::from(frame).with_offload(offload));
}
