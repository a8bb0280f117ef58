//! `user`: a network that works without privileges. The guest's connections become connections of the host.
//!
//! One thread serves the guest's frames and the host's sockets. It answers ARP, neighbour discovery, DHCP, TFTP and
//! echo requests itself, and opens a socket of the host for everything else. Every frame is a stranger's: sockets,
//! buffers and tables are bounded, and packets are parsed by smoltcp's checked types.
//!
//! Not there: IP fragments of the guest (dropped, but for those that its card was asked to make), multicast beyond the
//! network, and `smb=`.

mod arp;
mod config;
mod dhcp;
mod dns;
mod egress;
mod flow;
mod icmp;
mod ndp;
mod tcp;
#[cfg(test)]
mod tests;
mod tftp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket, UdpRepr};

pub use config::{Config, Forward, GuestForward, Transport, V4, V6};

use super::{ETHERNET, Link, Offloads, Packet, Port, lock};
use egress::{Egress, no_checksums};

/// The token of the thread's own wake-up call; sockets have those from [`FIRST_TOKEN`] on.
const WAKE: u64 = 0;
const FIRST_TOKEN: u64 = 1;
/// Descriptors that are looked at in one turn.
const EVENTS: usize = 128;
/// How often silent ports are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(10);

/// What `info usernet` says of a connection's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// A forwarded port.
    Forward,
    /// TCP's state.
    Tcp(&'static str),
    /// A UDP port, forgotten after so many seconds.
    Idle(u64),
}

/// A line of `info usernet`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Protocol.
    pub transport: Transport,
    /// State.
    pub state: ConnectionState,
    /// The host's descriptor.
    pub fd: i32,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Bytes waiting for the host, and for the guest.
    pub queues: (usize, usize),
}

/// The guest's network without the thread.
struct Stack {
    out: Egress,
    tcp: tcp::Tcp,
    udp: udp::Udp,
    icmp: icmp::Icmp,
    dhcp: dhcp::Dhcp,
    tftp: tftp::Tftp,
    swept: Instant,
}

/// A user network; dropping it ends its thread and closes its sockets.
pub struct User {
    stack: Arc<Mutex<Stack>>,
    wake: Arc<OwnedFd>,
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Release);
        wake(&self.wake);
        if let Some(thread) = self.thread.take() {
            // It panicked: nothing is left to end.
            let _ = thread.join();
        }
    }
}

fn wake(fd: &OwnedFd) {
    // A full counter wakes as well.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

impl User {
    /// Starts the network at an end of a wire.
    ///
    /// # Errors
    /// QEMU's text: a rule's port cannot be had, or the host has no descriptors or threads left.
    pub fn start(config: Config, mut port: Port) -> Result<Self, String> {
        let host = |error: io::Error| format!("user network: {}", crate::host::reason(&error));
        port.set_offload(Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::ECN);
        let event =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| host(error.into()))?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| host(error.into()))?;
        epoll::add(&poll, &*event, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(|error| host(error.into()))?;
        let polled = poll.try_clone().map_err(host)?;
        let port = Arc::new(port);
        let mut stack = Stack::new(config, Arc::clone(&port), polled);
        stack.open_forwards()?;
        let waker = Arc::clone(&event);
        port.set_notify(Arc::new(move |_| wake(&waker)));
        let (stack, quit) = (Arc::new(Mutex::new(stack)), Arc::<AtomicBool>::default());
        let (served, event_read, stop) = (Arc::clone(&stack), Arc::clone(&event), Arc::clone(&quit));
        let thread = std::thread::Builder::new()
            .name("user-net".to_owned())
            .spawn(move || serve(&poll, &event_read, &port, &served, &stop))
            .map_err(host)?;
        Ok(Self { stack, wake: event, quit, thread: Some(thread) })
    }

    /// Opens a port of the host (`hostfwd_add`).
    ///
    /// # Errors
    /// QEMU's text.
    pub fn add_forward(&self, text: &str) -> Result<(), String> {
        let rule = Forward::parse(text)?;
        lock(&self.stack).open_forward(rule, text)
    }

    /// Closes a port of the host (`hostfwd_remove`); false if it was not forwarded.
    pub fn remove_forward(&self, transport: Transport, host: SocketAddr) -> bool {
        let mut stack = lock(&self.stack);
        match transport {
            Transport::Tcp => stack.tcp.unlisten(host),
            Transport::Udp => stack.udp.unlisten(host),
        }
    }

    /// What is open.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        let stack = lock(&self.stack);
        let mut all = stack.tcp.connections();
        all.extend(stack.udp.connections());
        all
    }
}

/// The thread.
fn serve(poll: &OwnedFd, event: &OwnedFd, port: &Port, stack: &Mutex<Stack>, quit: &AtomicBool) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
    while !quit.load(Ordering::Acquire) {
        let timeout = lock(stack).timeout().map(timespec);
        events.clear();
        match epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                log::warn!("user network: {error}");
                return;
            }
        }
        if events.iter().any(|ready| ready.data.u64() == WAKE) {
            let mut count = [0; 8];
            // It was reset already: nothing to do.
            let _ = rustix::io::read(event, &mut count);
        }
        lock(stack).turn(&events);
        // Without the lock: whom this wakes may take the board's.
        port.kick();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

impl Stack {
    fn new(config: Config, port: Arc<Port>, poll: OwnedFd) -> Self {
        Self {
            out: Egress::new(config, port, poll),
            tcp: tcp::Tcp::default(),
            udp: udp::Udp::default(),
            icmp: icmp::Icmp::default(),
            dhcp: dhcp::Dhcp::default(),
            tftp: tftp::Tftp::default(),
            swept: Instant::now(),
        }
    }

    fn open_forwards(&mut self) -> Result<(), String> {
        for rule in self.out.config.forwards.clone() {
            let text = format!(
                "{}:{}:{}-{}:{}",
                rule.transport.name(),
                shown(rule.host.ip()),
                rule.host.port(),
                shown(rule.guest.ip()),
                rule.guest.port()
            );
            self.open_forward(rule, &text)?;
        }
        Ok(())
    }

    fn open_forward(&mut self, rule: Forward, text: &str) -> Result<(), String> {
        let opened = match rule.transport {
            Transport::Tcp => self.tcp.listen(&mut self.out, rule),
            Transport::Udp => self.udp.listen(&mut self.out, rule),
        };
        opened.map_err(|_| format!("Could not set up host forwarding rule '{text}'"))
    }

    /// How long the thread may sleep.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let tcp = self.tcp.deadline().map(|deadline| deadline.saturating_duration_since(now));
        let sweep = (!self.udp.is_empty() || !self.icmp.is_empty())
            .then(|| (self.swept + SWEEP).saturating_duration_since(now));
        [tcp, sweep].into_iter().flatten().min()
    }

    /// One turn: what the host has, what the guest has, what became possible.
    fn turn(&mut self, events: &[epoll::Event]) {
        let now = Instant::now();
        self.out.port.attend_now();
        self.out.flush();
        for ready in events {
            let (token, flags) = (ready.data.u64(), ready.flags);
            // A token that nobody knows is one of a socket that was closed in this turn.
            let _ = token == WAKE
                || self.tcp.event(&mut self.out, token, flags)
                || self.udp.event(&mut self.out, token)
                || self.icmp.event(&mut self.out, token);
        }
        while let Some(packet) = self.out.port.take() {
            self.frame(packet);
        }
        self.tcp.timeouts(&mut self.out, now);
        let room = self.out.has_room();
        self.tcp.pump(&mut self.out, room);
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.udp.expire(now);
            self.icmp.expire(now);
        }
    }

    /// A frame of the guest.
    fn frame(&mut self, packet: Packet) {
        let bytes = packet.into_bytes();
        let Ok(frame) = EthernetFrame::new_checked(&bytes[..]) else { return };
        let mac = frame.src_addr();
        if !mac.is_unicast() {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => arp::receive(&mut self.out, &bytes[ETHERNET..]),
            EthernetProtocol::Ipv4 => {
                let Ok(packet) = Ipv4Packet::new_checked(&bytes[ETHERNET..]) else { return };
                if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
                    return;
                }
                let (from, to) = (IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr()));
                if self.out.config.v4.is_none() {
                    return;
                }
                self.out.learn(from, mac);
                let header = ETHERNET + usize::from(packet.header_len());
                let end = ETHERNET + usize::from(packet.total_len());
                self.transport(packet.next_header(), from, to, &bytes, header..end);
            }
            EthernetProtocol::Ipv6 => {
                let Ok(packet) = Ipv6Packet::new_checked(&bytes[ETHERNET..]) else { return };
                if packet.version() != 6 || self.out.config.v6.is_none() {
                    return;
                }
                let (from, to) = (packet.src_addr(), packet.dst_addr());
                self.out.learn(IpAddr::V6(from), mac);
                let range = ETHERNET + 40..ETHERNET + packet.total_len();
                let message = &bytes[range.clone()];
                if packet.next_header() == IpProtocol::Icmpv6 && ndp::receive(&mut self.out, mac, from, message) {
                    return;
                }
                self.transport(packet.next_header(), from.into(), to.into(), &bytes, range);
            }
            _ => {}
        }
    }

    fn transport(&mut self, protocol: IpProtocol, from: IpAddr, to: IpAddr, frame: &[u8], range: Range<usize>) {
        match protocol {
            IpProtocol::Tcp => self.tcp.receive(&mut self.out, from, to, frame, range),
            IpProtocol::Udp => self.datagram(from, to, &frame[range]),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                let packet = &frame[ETHERNET..range.end];
                self.icmp.receive(&mut self.out, from, to, &frame[range], packet);
            }
            _ => {}
        }
    }

    fn datagram(&mut self, from: IpAddr, to: IpAddr, message: &[u8]) {
        let Ok(packet) = UdpPacket::new_checked(message) else { return };
        let Ok(repr) = UdpRepr::parse(&packet, &from.into(), &to.into(), &no_checksums()) else { return };
        let (guest, server) = (SocketAddr::new(from, repr.src_port), SocketAddr::new(to, repr.dst_port));
        let payload = packet.payload();
        let (to_host, broadcast) = match to {
            IpAddr::V4(v4) => (
                self.out.config.v4.is_some_and(|n| v4 == n.host),
                v4.is_broadcast() || self.out.config.v4.is_some_and(|n| v4 == n.broadcast()),
            ),
            IpAddr::V6(v6) => {
                (v6 == egress::ROUTER_V6 || self.out.config.v6.is_some_and(|n| v6 == n.host), v6.is_multicast())
            }
        };
        match server.port() {
            dhcp::SERVER if (to_host || broadcast) && to.is_ipv4() => self.dhcp.receive(&mut self.out, payload),
            ndp::DHCP_SERVER if (to_host || broadcast) && to.is_ipv6() => ndp::dhcp(&mut self.out, guest, payload),
            tftp::PORT if to_host => self.tftp.receive(&mut self.out, guest, server, payload),
            _ if from.is_unspecified() => {}
            _ => self.udp.send(&mut self.out, guest, server, payload),
        }
    }
}

fn shown(address: IpAddr) -> String {
    if address.is_unspecified() { String::new() } else { address.to_string() }
}
