//! The guest's datagrams: a socket of the host for each port of the guest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::config::{Forward, Transport};
use super::egress::Egress;
use super::{Connection, ConnectionState};

/// Sockets at a time; the one that was silent longest makes room for a new one.
const MAX_FLOWS: usize = 512;
/// A port is forgotten after this long.
const IDLE: Duration = Duration::from_secs(240);
/// Datagrams that are taken from one socket before the others have their turn.
const BURST: usize = 64;

struct Flow {
    socket: UdpSocket,
    token: u64,
    active: Instant,
    /// A forwarded port stays.
    rule: Option<Forward>,
}

/// All of them.
#[derive(Default)]
pub struct Udp {
    flows: HashMap<SocketAddr, Flow>,
    tokens: HashMap<u64, SocketAddr>,
}

impl Udp {
    /// A datagram of the guest for somewhere outside.
    pub fn send(&mut self, out: &mut Egress, guest: SocketAddr, server: SocketAddr, payload: &[u8]) {
        let Some(target) = out.outside(server) else { return };
        if !self.flows.contains_key(&guest) && self.open(out, guest).is_err() {
            return;
        }
        let Some(flow) = self.flows.get_mut(&guest) else { return };
        flow.active = Instant::now();
        // A socket of one family cannot reach a name server of the other; and what the host does not take is lost, as
        // datagrams are.
        let _ = flow.socket.send_to(payload, target);
    }

    fn open(&mut self, out: &mut Egress, guest: SocketAddr) -> io::Result<()> {
        if self.flows.len() >= MAX_FLOWS {
            let idle = self.flows.iter().filter(|(_, flow)| flow.rule.is_none());
            let oldest = idle.min_by_key(|(_, flow)| flow.active).map(|(guest, _)| *guest);
            if let Some(flow) = oldest.and_then(|guest| self.flows.remove(&guest)) {
                self.tokens.remove(&flow.token);
            }
        }
        let any: IpAddr = match guest {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.add(out, guest, UdpSocket::bind((any, 0))?, None)
    }

    fn add(&mut self, out: &mut Egress, guest: SocketAddr, socket: UdpSocket, rule: Option<Forward>) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let token = out.watch(&socket, EventFlags::IN)?;
        self.tokens.insert(token, guest);
        if let Some(old) = self.flows.insert(guest, Flow { socket, token, active: Instant::now(), rule }) {
            self.tokens.remove(&old.token);
        }
        Ok(())
    }

    /// Opens a forwarded port.
    ///
    /// # Errors
    /// The host does not let us.
    pub fn listen(&mut self, out: &mut Egress, rule: Forward) -> io::Result<()> {
        let socket = UdpSocket::bind(rule.host)?;
        let guest = (out.config.guest(rule.guest.ip()), rule.guest.port()).into();
        self.add(out, guest, socket, Some(rule))
    }

    /// Closes a forwarded port; false if there is none.
    pub fn unlisten(&mut self, host: SocketAddr) -> bool {
        let found = self.flows.iter().find(|(_, flow)| flow.rule.is_some_and(|rule| rule.host == host));
        let Some(guest) = found.map(|(guest, _)| *guest) else { return false };
        if let Some(flow) = self.flows.remove(&guest) {
            self.tokens.remove(&flow.token);
        }
        true
    }

    /// Whether a token is one of ours; if so, serves it.
    pub fn event(&mut self, out: &mut Egress, token: u64) -> bool {
        let Some(guest) = self.tokens.get(&token).copied() else { return false };
        let Some(flow) = self.flows.get_mut(&guest) else { return true };
        flow.active = Instant::now();
        let mut buffer = std::mem::take(&mut out.scratch);
        for _ in 0..BURST {
            match flow.socket.recv_from(&mut buffer) {
                Ok((len, peer)) => {
                    if let Some(server) = out.inside(peer, guest.is_ipv4()) {
                        out.send_udp(server, guest, &buffer[..len]);
                    }
                }
                // A peer that refused an earlier datagram is an error that later ones do not share.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        out.scratch = buffer;
        true
    }

    /// Forgets what was silent long.
    pub fn expire(&mut self, now: Instant) {
        let tokens = &mut self.tokens;
        self.flows.retain(|_, flow| {
            let keep = flow.rule.is_some() || now.saturating_duration_since(flow.active) < IDLE;
            if !keep {
                tokens.remove(&flow.token);
            }
            keep
        });
    }

    /// Whether there is something to expire.
    pub fn is_empty(&self) -> bool {
        self.flows.values().all(|flow| flow.rule.is_some())
    }

    /// For `info usernet`.
    pub fn connections(&self) -> Vec<Connection> {
        let state = |flow: &Flow, guest: &SocketAddr| Connection {
            transport: Transport::Udp,
            state: match flow.rule {
                Some(_) => ConnectionState::Forward,
                None => ConnectionState::Idle(IDLE.saturating_sub(flow.active.elapsed()).as_secs()),
            },
            fd: flow.socket.as_raw_fd(),
            source: flow.rule.map_or(*guest, |rule| rule.host),
            destination: flow.rule.map(|rule| rule.guest).or_else(|| flow.socket.local_addr().ok()).unwrap_or(*guest),
            queues: (0, 0),
        };
        self.flows.iter().map(|(guest, flow)| state(flow, guest)).collect()
    }
}
