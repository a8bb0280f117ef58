//! What leaves for the guest: headers, neighbours, and the queue.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, UdpPacket, UdpRepr,
};

use super::config::Config;
use super::dns::NameServers;
use crate::net::{Checksum, ETHERNET, Layout, Offload, Packet, Port, SegmentKind, Segmentation};

/// The guest's largest IP packet.
pub const MTU: usize = 1500;

/// Guests, or forged addresses, that are remembered.
const MAX_NEIGHBOURS: usize = 256;

/// Frames that wait for room on the wire. What comes after is lost: everything but TCP's data, which waits with the
/// sender.
const MAX_WAITING: usize = 256;

/// The router's link-local address.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// No smoltcp function fills checksums in: the wire does.
pub fn no_checksums() -> ChecksumCapabilities {
    ChecksumCapabilities::ignored()
}

/// The way to the guest, and what all protocols share.
pub struct Egress {
    /// The network.
    pub config: Config,
    /// The wire.
    pub port: Arc<Port>,
    /// Who is asked for names.
    pub servers: NameServers,
    epoll: OwnedFd,
    neighbours: BTreeMap<IpAddr, EthernetAddress>,
    waiting: VecDeque<Packet>,
    next_token: u64,
    id: u16,
    /// Room for a datagram.
    pub scratch: Vec<u8>,
}

impl Egress {
    /// A way over `port`; host descriptors are watched by `epoll`.
    pub fn new(config: Config, port: Arc<Port>, epoll: OwnedFd) -> Self {
        Self {
            config,
            port,
            servers: NameServers::default(),
            epoll,
            neighbours: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_token: super::FIRST_TOKEN,
            id: 0,
            scratch: vec![0; 65536],
        }
    }

    /// Watches a descriptor; events come with the token.
    pub fn watch(&mut self, fd: impl AsFd, flags: epoll::EventFlags) -> std::io::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?;
        Ok(token)
    }

    /// Remembers where a guest address is.
    pub fn learn(&mut self, address: IpAddr, mac: EthernetAddress) {
        let plausible = match address {
            IpAddr::V4(v4) => self.config.v4.is_some_and(|n| n.contains(v4) && v4 != n.broadcast() && v4 != n.network),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || self.config.v6.is_some_and(|n| n.contains(v6)),
        };
        if !plausible || !mac.is_unicast() {
            return;
        }
        if self.neighbours.len() >= MAX_NEIGHBOURS && !self.neighbours.contains_key(&address) {
            self.neighbours.pop_first();
        }
        self.neighbours.insert(address, mac);
    }

    /// Where a guest address is, if it is known. Broadcasts and multicasts have addresses of their own.
    pub fn mac_of(&self, address: IpAddr) -> Option<EthernetAddress> {
        match address {
            IpAddr::V4(v4) if v4.is_broadcast() || self.config.v4.is_some_and(|n| n.broadcast() == v4) => {
                Some(EthernetAddress::BROADCAST)
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                let [.., a, b, c, d] = v6.octets();
                Some(EthernetAddress([0x33, 0x33, a, b, c, d]))
            }
            _ => self.neighbours.get(&address).copied(),
        }
    }

    /// Our address on the wire: QEMU's 52:55 and the host's IPv4 address, 52:56:00:00:00:02 for IPv6.
    pub fn own_mac(&self, v4: bool) -> EthernetAddress {
        match self.config.v4 {
            Some(network) if v4 => mac_of_v4(network.host),
            _ => EthernetAddress([0x52, 0x56, 0, 0, 0, 2]),
        }
    }

    /// Sends a frame, or lets it wait for room.
    pub fn send(&mut self, packet: Packet) {
        let refused = if self.waiting.is_empty() { self.port.queue(packet).err() } else { Some(packet) };
        if let Some(packet) = refused.filter(|_| self.waiting.len() < MAX_WAITING) {
            self.waiting.push_back(packet);
        }
    }

    /// Whether a long frame would be taken now.
    pub fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.port.room()
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        while let Some(packet) = self.waiting.pop_front() {
            if let Err(packet) = self.port.queue(packet) {
                self.waiting.push_front(packet);
                return;
            }
        }
    }

    /// Ethernet and IP headers for `len` bytes of `protocol`; `None` if nobody knows where `to` is.
    pub fn headers(&mut self, from: IpAddr, to: IpAddr, protocol: IpProtocol, len: usize) -> Option<Vec<u8>> {
        let Some(mac) = self.mac_of(to) else {
            self.ask_for(to);
            return None;
        };
        self.headers_to(mac, from, to, protocol, len)
    }

    /// The same to a known place.
    pub fn headers_to(
        &mut self,
        mac: EthernetAddress,
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        len: usize,
    ) -> Option<Vec<u8>> {
        let v4 = to.is_ipv4();
        let ip_len = if v4 { 20 } else { 40 };
        if len + ip_len > 65535 {
            return None;
        }
        let mut frame = vec![0; ETHERNET + ip_len];
        let ethertype = if v4 { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
        let repr = EthernetRepr { src_addr: self.own_mac(v4), dst_addr: mac, ethertype };
        repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let repr =
                    Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: len, hop_limit: 64 };
                self.id = self.id.wrapping_add(1);
                let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
                repr.emit(&mut packet, &no_checksums());
                packet.set_ident(self.id);
                packet.set_dont_frag(false);
                packet.fill_checksum();
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let repr = Ipv6Repr {
                    src_addr: from,
                    dst_addr: to,
                    next_header: protocol,
                    payload_len: len,
                    // Neighbour discovery insists on 255 (RFC 4861 6.1).
                    hop_limit: if protocol == IpProtocol::Icmpv6 { 255 } else { 64 },
                };
                repr.emit(&mut Ipv6Packet::new_unchecked(&mut frame[ETHERNET..]));
            }
            _ => return None,
        }
        Some(frame)
    }

    fn ask_for(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => super::arp::ask(self, v4),
            IpAddr::V6(v6) => super::ndp::ask(self, v6),
        }
    }

    /// Sends a UDP datagram to the guest; one that is longer than the wire allows becomes fragments.
    pub fn send_udp(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let Some(mac) = self.mac_of(to.ip()) else {
            self.ask_for(to.ip());
            return;
        };
        self.send_udp_to(mac, from, to, payload);
    }

    /// The same to a known place.
    pub fn send_udp_to(&mut self, mac: EthernetAddress, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let len = 8 + payload.len();
        let Some(mut frame) = self.headers_to(mac, from.ip(), to.ip(), IpProtocol::Udp, len) else { return };
        let transport = frame.len();
        if !to.is_ipv4() && len > MTU - 40 {
            log::debug!("user network: a datagram of {len} bytes is too long for IPv6");
            return;
        }
        frame.resize(transport + len, 0);
        let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
        let mut packet = UdpPacket::new_unchecked(&mut frame[transport..]);
        let (src, dst) = (from.ip().into(), to.ip().into());
        repr.emit(&mut packet, &src, &dst, payload.len(), |buf| buf.copy_from_slice(payload), &no_checksums());
        let mut offload = partial(&mut frame, transport, 6, len);
        if len > MTU - 20 {
            let size = u16::try_from(MTU - 20).unwrap_or(u16::MAX);
            offload.segment = Some(Segmentation { kind: SegmentKind::Udp, size, ecn: false });
        }
        self.send(Packet::from(frame).with_offload(offload));
    }

    /// Sends an IP packet whose payload is complete.
    pub fn send_ip(&mut self, from: IpAddr, to: IpAddr, protocol: IpProtocol, payload: &[u8]) {
        let Some(mut frame) = self.headers(from, to, protocol, payload.len()) else { return };
        frame.extend_from_slice(payload);
        self.send(Packet::from(frame));
    }

    /// The host address behind an address that the guest named; `None`: the guest may not go there.
    pub fn outside(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        if self.config.restrict {
            return None;
        }
        let host = match address.ip() {
            IpAddr::V4(v4) => {
                let network = self.config.v4?;
                if v4 == network.host {
                    IpAddr::V4(Ipv4Addr::LOCALHOST)
                } else if v4 == network.dns {
                    self.servers.v4()?.into()
                } else if network.contains(v4) || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified() {
                    return None;
                } else {
                    address.ip()
                }
            }
            IpAddr::V6(v6) => {
                let network = self.config.v6?;
                if v6 == network.host || v6 == ROUTER_V6 {
                    IpAddr::V6(Ipv6Addr::LOCALHOST)
                } else if v6 == network.dns {
                    self.servers.v6()?
                } else if network.contains(v6) || v6.is_multicast() || v6.is_unicast_link_local() || v6.is_unspecified()
                {
                    return None;
                } else {
                    address.ip()
                }
            }
        };
        Some((host, address.port()).into())
    }

    /// How the guest sees an address of the outside: the host's own are its address in the network.
    pub fn inside(&mut self, address: SocketAddr, guest_v4: bool) -> Option<SocketAddr> {
        let ip = address.ip().to_canonical();
        let port = address.port();
        if port == super::dns::PORT && !ip.is_loopback() {
            if guest_v4 && Some(ip) == self.servers.v4().map(IpAddr::V4) {
                return Some((self.config.v4?.dns, port).into());
            }
            if !guest_v4 && Some(ip) == self.servers.v6() {
                return Some((self.config.v6?.dns, port).into());
            }
        }
        match (ip, guest_v4) {
            (IpAddr::V4(v4), true) if !v4.is_loopback() && !v4.is_unspecified() => Some((v4, port).into()),
            (IpAddr::V6(v6), false) if !v6.is_loopback() && !v6.is_unspecified() => Some((v6, port).into()),
            (_, true) => Some((self.config.v4?.host, port).into()),
            (_, false) => Some((self.config.v6?.host, port).into()),
        }
    }
}

/// The address on the wire that stands for a virtual IPv4 address.
pub fn mac_of_v4(address: Ipv4Addr) -> EthernetAddress {
    let [a, b, c, d] = address.octets();
    EthernetAddress([0x52, 0x55, a, b, c, d])
}

/// Puts the sum of the pseudo header into the checksum at `offset` of the transport header, for the wire to complete.
pub fn partial(frame: &mut [u8], transport: usize, offset: usize, len: usize) -> Offload {
    let Some(layout) = Layout::of(frame) else { return Offload::default() };
    let sum = layout.pseudo(frame, len).folded();
    if let Some(place) = frame.get_mut(transport + offset..transport + offset + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    Offload { checksum: Checksum::Partial { start: word(transport), offset: word(offset) }, segment: None }
}
