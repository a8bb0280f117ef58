//! Echo requests of the guest: answered here for our own addresses, passed on by unprivileged sockets for others.
//!
//! Documents: RFC 792 (ICMP), RFC 4443 (ICMPv6), icmp(7) for sockets of the kind.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};
use smoltcp::wire::IpProtocol;

use super::egress::Egress;
use crate::net::Sum;

/// Echo identifiers at a time.
const MAX_FLOWS: usize = 64;
const IDLE: Duration = Duration::from_secs(60);

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    guest: IpAddr,
    server: IpAddr,
    id: [u8; 2],
}

struct Flow {
    socket: OwnedFd,
    token: u64,
    active: Instant,
}

/// The echoes that are on their way.
#[derive(Default)]
pub struct Icmp {
    flows: HashMap<Key, Flow>,
    tokens: HashMap<u64, Key>,
}

fn finish_v4(message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = Sum::new().bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

fn finish_v6(message: &mut [u8], from: Ipv6Addr, to: Ipv6Addr) {
    message[2..4].fill(0);
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let pseudo = Sum::new().bytes(&from.octets()).bytes(&to.octets()).word(len).word(58);
    let sum = pseudo.bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Sends an ICMPv6 message, with its checksum filled in.
pub fn send_v6(out: &mut Egress, from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) {
    finish_v6(&mut message, from, to);
    out.send_ip(from.into(), to.into(), IpProtocol::Icmpv6, &message);
}

fn reply(out: &mut Egress, from: IpAddr, to: IpAddr, mut message: Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            message[0] = ECHO_REPLY;
            finish_v4(&mut message);
            out.send_ip(from, to, IpProtocol::Icmp, &message);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            message[0] = V6_ECHO_REPLY;
            send_v6(out, from, to, message);
        }
        _ => {}
    }
}

/// Tells the guest that a network cannot be reached (RFC 792), with the start of its packet.
fn unreachable(out: &mut Egress, guest: Ipv4Addr, packet: &[u8]) {
    let Some(network) = out.config.v4 else { return };
    let mut message = vec![UNREACHABLE, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..packet.len().min(28)]);
    finish_v4(&mut message);
    out.send_ip(network.host.into(), guest.into(), IpProtocol::Icmp, &message);
}

impl Icmp {
    /// A message of the guest; `packet` is the IP packet that it came in.
    pub fn receive(&mut self, out: &mut Egress, guest: IpAddr, server: IpAddr, message: &[u8], packet: &[u8]) {
        let request = if guest.is_ipv4() { ECHO_REQUEST } else { V6_ECHO_REQUEST };
        if message.len() < HEADER || message[0] != request || message[1] != 0 {
            return;
        }
        let ours = match server {
            IpAddr::V4(v4) => out.config.v4.is_some_and(|n| v4 == n.host || v4 == n.dns),
            IpAddr::V6(v6) => {
                v6 == super::egress::ROUTER_V6 || out.config.v6.is_some_and(|n| v6 == n.host || v6 == n.dns)
            }
        };
        if ours {
            return reply(out, server, guest, message.to_vec());
        }
        let Some(target) = out.outside((server, 0).into()) else { return };
        let key = Key { guest, server, id: [message[4], message[5]] };
        if self.pass_on(out, key, target, message).is_err()
            && let IpAddr::V4(v4) = guest
        {
            unreachable(out, v4, packet);
        }
    }

    fn pass_on(&mut self, out: &mut Egress, key: Key, target: SocketAddr, message: &[u8]) -> rustix::io::Result<()> {
        if !self.flows.contains_key(&key) {
            if self.flows.len() >= MAX_FLOWS
                && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.active).map(|(key, _)| *key)
                && let Some(flow) = self.flows.remove(&oldest)
            {
                self.tokens.remove(&flow.token);
            }
            let (family, protocol) = match target {
                SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
                SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
            let token = out.watch(&socket, EventFlags::IN).map_err(|_| rustix::io::Errno::NOMEM)?;
            self.tokens.insert(token, key);
            self.flows.insert(key, Flow { socket, token, active: Instant::now() });
        }
        let Some(flow) = self.flows.get_mut(&key) else { return Ok(()) };
        flow.active = Instant::now();
        sendto(&flow.socket, message, SendFlags::DONTWAIT, &target).map(|_| ())
    }

    /// Whether a token is one of ours; if so, serves it.
    pub fn event(&mut self, out: &mut Egress, token: u64) -> bool {
        let Some(key) = self.tokens.get(&token).copied() else { return false };
        let Some(flow) = self.flows.get_mut(&key) else { return true };
        let mut buffer = std::mem::take(&mut out.scratch);
        while let Ok((_, len, _)) = recvfrom(&flow.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            let expected = if key.guest.is_ipv4() { ECHO_REPLY } else { V6_ECHO_REPLY };
            if len < HEADER || buffer[0] != expected {
                continue;
            }
            let mut message = buffer[..len].to_vec();
            // The kernel's identifier is the socket's.
            message[4..6].copy_from_slice(&key.id);
            reply(out, key.server, key.guest, message);
        }
        out.scratch = buffer;
        true
    }

    /// Forgets what was silent long.
    pub fn expire(&mut self, now: Instant) {
        let tokens = &mut self.tokens;
        self.flows.retain(|_, flow| {
            let keep = now.saturating_duration_since(flow.active) < IDLE;
            if !keep {
                tokens.remove(&flow.token);
            }
            keep
        });
    }

    /// Whether there is nothing to expire.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}
