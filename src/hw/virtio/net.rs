//! The network device (5.1): checksums and segmentation left to each other, mergeable receive buffers, the control
//! queue, several queue pairs.
//!
//! Not modelled: hashes and receive-side scaling.

use std::sync::Arc;

use super::{Chain, DeviceType, Negotiated, Notifier, Queue, VirtioDevice, feature};
use crate::bus::Token;
use crate::net::{Link, Offloads, Packet, RxFilter, vnet};

/// What it is.
pub const TYPE: DeviceType = DeviceType { id: 1, transitional_id: 0x1000, class: 0x02_0000, name: "net" };

/// Feature bits (5.1.3).
pub mod bit {
    /// The device computes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames without checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The driver changes its offloads while it runs.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The device says what the network carries.
    pub const MTU: u64 = 1 << 3;
    /// The device has an address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes long TCP segments over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The same with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The driver takes long UDP datagrams.
    pub const GUEST_UFO: u64 = 1 << 10;
    /// The device takes long TCP segments over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The same with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The device takes long UDP datagrams.
    pub const HOST_UFO: u64 = 1 << 14;
    /// Frames may be spread over receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration says whether the link is up.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// It controls receive modes.
    pub const CTRL_RX: u64 = 1 << 18;
    /// It filters VLANs.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// It controls more receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The driver announces itself when asked.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// There are several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// It sets the address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// The configuration has speed and duplex.
    pub const SPEED_DUPLEX: u64 = 1 << 63;
}

/// Lengths of the packet header (5.1.6).
mod header {
    /// With `num_buffers`.
    pub const LONG: usize = 12;
    /// A legacy driver's without mergeable buffers.
    pub const SHORT: usize = 10;
}

/// Control commands (5.1.6.5): class and command.
mod control {
    pub const RX: u8 = 0;
    pub const MAC: u8 = 1;
    pub const VLAN: u8 = 2;
    pub const ANNOUNCE: u8 = 3;
    pub const MQ: u8 = 4;
    pub const OFFLOADS: u8 = 5;
    pub const OK: u8 = 0;
    pub const ERR: u8 = 1;
}

const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// A frame with headers, at most: 64 KiB of IP, and what is before it.
const LONGEST: usize = 65535 + 18;
/// Addresses that the filter remembers.
const TABLE: usize = 64;
/// What a control command may have.
const MAX_COMMAND: u64 = 4096;

/// Options of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Features of the device type that it offers; those that do not fit together are left out.
    pub features: u64,
    /// Entries of a receive queue.
    pub rx_size: u16,
    /// Entries of a transmit queue.
    pub tx_size: u16,
    /// `host_mtu=`, or 0.
    pub mtu: u16,
    /// Mb/s; unknown without.
    pub speed: Option<u32>,
    /// Full duplex; unknown without.
    pub duplex: Option<bool>,
}

/// Features that are on unless an option takes them away.
pub const DEFAULT_FEATURES: u64 = bit::CSUM
    | bit::GUEST_CSUM
    | bit::CTRL_GUEST_OFFLOADS
    | bit::GUEST_TSO4
    | bit::GUEST_TSO6
    | bit::GUEST_ECN
    | bit::GUEST_UFO
    | bit::HOST_TSO4
    | bit::HOST_TSO6
    | bit::HOST_ECN
    | bit::HOST_UFO
    | bit::MRG_RXBUF
    | bit::STATUS
    | bit::CTRL_VQ
    | bit::CTRL_RX
    | bit::CTRL_VLAN
    | bit::CTRL_RX_EXTRA
    | bit::GUEST_ANNOUNCE
    | bit::CTRL_MAC_ADDR;

/// What the driver has set.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Filter {
    mac: [u8; 6],
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Vec<[u8; 6]>,
    multicast: Vec<[u8; 6]>,
    unicast_overflow: bool,
    multicast_overflow: bool,
    /// A bit an identifier; all of them without CTRL_VLAN.
    vlans: Option<Box<[u64; 64]>>,
}

impl Filter {
    /// Without the driver's word everything passes.
    fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            unicast_overflow: false,
            multicast_overflow: false,
            vlans: None,
        }
    }

    fn passes(&self, frame: &[u8; 16]) -> bool {
        if self.promiscuous {
            return true;
        }
        if let Some(vlans) = &self.vlans
            && frame[12..14] == [0x81, 0]
        {
            let id = usize::from(u16::from_be_bytes([frame[14], frame[15]]) & 0xfff);
            if vlans[id / 64] >> (id % 64) & 1 == 0 {
                return false;
            }
        }
        let to = &frame[..6];
        if to == [0xff; 6] {
            return !self.no_broadcast;
        }
        if to[0] & 1 != 0 {
            return !self.no_multicast
                && (self.all_multicast || self.multicast_overflow || self.multicast.iter().any(|mac| mac == to));
        }
        !self.no_unicast
            && (self.all_unicast || self.unicast_overflow || to == self.mac || self.unicast.iter().any(|mac| mac == to))
    }

    fn told(&self) -> RxFilter {
        let vlans = self
            .vlans
            .as_ref()
            .map(|bits| (0..4096u16).filter(|id| bits[usize::from(id / 64)] >> (id % 64) & 1 != 0).collect());
        RxFilter {
            promiscuous: self.promiscuous,
            all_multicast: self.all_multicast,
            all_unicast: self.all_unicast,
            no_multicast: self.no_multicast,
            no_unicast: self.no_unicast,
            broadcast: !self.no_broadcast,
            unicast_overflow: self.unicast_overflow,
            multicast_overflow: self.multicast_overflow,
            unicast: self.unicast.clone(),
            multicast: self.multicast.clone(),
            vlans,
        }
    }
}

/// The device.
pub struct Net {
    // Wires: a link a queue pair, each raising the token of its number.
    links: Vec<Box<dyn Link>>,
    // Options.
    mac: [u8; 6],
    options: Options,
    // What the driver set up.
    queues: Vec<Arc<Queue>>,
    notifier: Option<Notifier>,
    features: u64,
    filter: Filter,
    /// Pairs in use.
    pairs: usize,
    /// What the configuration space says of the cable.
    up: bool,
    announcing: bool,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({} queue pairs)", self.links.len())
    }
}

impl Net {
    /// A device with a queue pair for each of `links`.
    #[must_use]
    pub fn new(mut links: Vec<Box<dyn Link>>, mac: [u8; 6], options: Options) -> Self {
        let up = links.first().is_some_and(|link| link.is_up());
        for link in &mut links {
            link.set_address(mac);
        }
        let filter = Filter::new(mac);
        let mut device = Self {
            links,
            mac,
            options,
            queues: Vec::new(),
            notifier: None,
            features: 0,
            filter,
            pairs: 1,
            up,
            announcing: false,
        };
        device.tell();
        device
    }

    fn tell(&mut self) {
        let filter = self.filter.told();
        let mac = self.filter.mac;
        for link in &mut self.links {
            link.set_address(mac);
            link.set_filter(filter.clone());
        }
    }

    fn header_len(&self) -> usize {
        if self.features & (bit::MRG_RXBUF | feature::VERSION_1) != 0 { header::LONG } else { header::SHORT }
    }

    /// The control queue comes after all pairs that the driver knows of.
    fn control_queue(&self) -> usize {
        if self.features & bit::MQ != 0 { 2 * self.links.len() } else { 2 }
    }

    /// Declares on the links what the driver takes.
    fn set_offloads(&mut self, features: u64) {
        let pairs = [
            (bit::GUEST_CSUM, Offloads::CHECKSUM),
            (bit::GUEST_TSO4, Offloads::TSO4),
            (bit::GUEST_TSO6, Offloads::TSO6),
            (bit::GUEST_ECN, Offloads::ECN),
            (bit::GUEST_UFO, Offloads::UFO),
        ];
        let taken = pairs.into_iter().filter(|(bit, _)| features & bit != 0);
        let offloads = taken.fold(Offloads::empty(), |sum, (_, offload)| sum | offload);
        for link in &mut self.links {
            link.set_offload(offloads);
        }
    }

    fn update_link(&mut self) {
        let up = self.links.first().is_some_and(|link| link.is_up());
        if up == self.up {
            return;
        }
        self.up = up;
        if self.features & bit::STATUS != 0 {
            self.announcing = up && self.features & bit::GUEST_ANNOUNCE != 0;
            if let Some(notifier) = &self.notifier {
                notifier.config_changed();
            }
        }
    }

    // -- frames out ----------------------------------------------------------------------------------------------

    fn transmit(&mut self, pair: usize) {
        let Some(queue) = self.queues.get(2 * pair + 1).cloned() else { return };
        if pair == 1 && self.control_queue() == 3 {
            return;
        }
        let len = self.header_len();
        let Some(link) = self.links.get_mut(pair) else { return };
        let mut served = false;
        queue.serve(|chain| {
            if !link.has_room() {
                queue.unpop(&chain);
                return false;
            }
            if let Some(packet) = outgoing(&queue, &chain, len) {
                // Room was there, and nobody else sends here.
                let _ = link.send(packet);
            }
            queue.push(&chain, 0);
            served = true;
            true
        });
        if served {
            queue.signal();
        }
    }

    // -- frames in -----------------------------------------------------------------------------------------------

    fn receive(&mut self, pair: usize) {
        let Some(queue) = self.queues.get(2 * pair).cloned() else { return };
        if pair >= self.pairs {
            return;
        }
        let mut stored = false;
        while queue.is_enabled() && queue.has_requests() {
            let Some(packet) = self.links.get_mut(pair).and_then(|link| link.receive()) else { break };
            let mut start = [0; 16];
            packet.copy_prefix(&mut start);
            if !self.filter.passes(&start) {
                continue;
            }
            match self.store(&queue, packet) {
                Ok(true) => stored = true,
                Ok(false) => {}
                Err(packet) => {
                    if let Some(link) = self.links.get_mut(pair) {
                        link.unreceive(packet);
                    }
                    break;
                }
            }
        }
        if stored {
            queue.signal();
        }
    }

    /// Puts a frame into buffers; gives it back if there are not enough now. False: it fits into none.
    fn store(&mut self, queue: &Queue, packet: Packet) -> Result<bool, Packet> {
        let header_len = self.header_len();
        let total = (header_len + packet.len()) as u64;
        let merge = self.features & bit::MRG_RXBUF != 0;
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < total && (merge || chains.is_empty()) {
            let Some(chain) = queue.pop() else {
                for chain in chains.iter().rev() {
                    queue.unpop(chain);
                }
                return Err(packet);
            };
            room += chain.writable.len();
            chains.push(chain);
        }
        if room < total {
            // A buffer that is too short is the driver's fault: it comes back with nothing.
            for chain in &chains {
                queue.push(chain, 0);
            }
            return Ok(true);
        }
        let mut header = [0; header::LONG];
        header[..vnet::LEN].copy_from_slice(&vnet::encode(&packet));
        let count = u16::try_from(chains.len()).unwrap_or(1);
        header[10..12].copy_from_slice(&count.to_le_bytes());
        let [head, tail] = packet.pieces();
        let mut pieces = [&header[..header_len], head, tail].into_iter();
        let mut piece = pieces.next().unwrap_or(&[]);
        for chain in &chains {
            let mut done = 0;
            while done < chain.writable.len() {
                while piece.is_empty() {
                    let Some(next) = pieces.next() else { break };
                    piece = next;
                }
                let step = piece.len().min(usize::try_from(chain.writable.len() - done).unwrap_or(usize::MAX));
                if step == 0 {
                    break;
                }
                // It was RAM when the chain was taken.
                let _ = chain.write(queue.ram(), done, &piece[..step]);
                done += step as u64;
                piece = &piece[step..];
            }
            queue.push(chain, u32::try_from(done).unwrap_or(u32::MAX));
        }
        Ok(true)
    }

    // -- control -------------------------------------------------------------------------------------------------

    fn serve_control(&mut self) {
        let Some(queue) = self.queues.get(self.control_queue()).cloned() else { return };
        let mut served = false;
        queue.serve(|chain| {
            let len = chain.readable.len().min(MAX_COMMAND);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            let read = chain.read(queue.ram(), 0, &mut bytes).is_ok();
            let done = read && chain.readable.len() <= MAX_COMMAND && self.command(&bytes).is_some();
            let answer = [if done { control::OK } else { control::ERR }];
            let written = chain.write(queue.ram(), 0, &answer).is_ok();
            queue.push(&chain, u32::from(written));
            served = true;
            true
        });
        if served {
            queue.signal();
        }
        self.tell();
    }

    /// One command; `None` if it is not one.
    fn command(&mut self, bytes: &[u8]) -> Option<()> {
        let (&[class, command], data) = bytes.split_first_chunk::<2>()?;
        let word = || Some(u16::from_le_bytes(*data.first_chunk::<2>()?));
        let has = |bits| self.features & bits == bits;
        match (class, command) {
            (control::RX, 0..=1) if has(bit::CTRL_RX) => self.receive_mode(command, *data.first()? != 0),
            (control::RX, 2..=5) if has(bit::CTRL_RX_EXTRA) => self.receive_mode(command, *data.first()? != 0),
            (control::MAC, 0) if has(bit::CTRL_RX) => return self.set_tables(data),
            (control::MAC, 1) if has(bit::CTRL_MAC_ADDR) => self.filter.mac = *data.first_chunk::<6>()?,
            (control::VLAN, 0 | 1) if has(bit::CTRL_VLAN) => {
                let id = usize::from(word()?);
                let bits = self.filter.vlans.as_mut()?.get_mut(id / 64)?;
                if command == 0 { *bits |= 1 << (id % 64) } else { *bits &= !(1 << (id % 64)) }
            }
            (control::ANNOUNCE, 0) if has(bit::GUEST_ANNOUNCE) => self.announcing = false,
            (control::MQ, 0) if has(bit::MQ) => {
                let pairs = usize::from(word()?);
                if !(1..=self.links.len()).contains(&pairs) {
                    return None;
                }
                self.pairs = pairs;
            }
            (control::OFFLOADS, 0) if has(bit::CTRL_GUEST_OFFLOADS) => {
                let wanted = u64::from_le_bytes(*data.first_chunk::<8>()?);
                if wanted & !self.features != 0 {
                    return None;
                }
                self.set_offloads(wanted);
            }
            _ => return None,
        }
        Some(())
    }

    fn receive_mode(&mut self, command: u8, on: bool) {
        let filter = &mut self.filter;
        match command {
            0 => filter.promiscuous = on,
            1 => filter.all_multicast = on,
            2 => filter.all_unicast = on,
            3 => filter.no_multicast = on,
            4 => filter.no_unicast = on,
            _ => filter.no_broadcast = on,
        }
    }

    /// Unicast and multicast addresses, each list with its length before it.
    fn set_tables(&mut self, mut data: &[u8]) -> Option<()> {
        let mut table = || {
            let (count, rest) = data.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            let bytes = rest.get(..count.checked_mul(6)?)?;
            data = &rest[bytes.len()..];
            Some(bytes.as_chunks::<6>().0.to_vec())
        };
        let (unicast, multicast) = (table()?, table()?);
        let filter = &mut self.filter;
        filter.unicast_overflow = unicast.len() > TABLE;
        filter.unicast = if filter.unicast_overflow { Vec::new() } else { unicast };
        filter.multicast_overflow = multicast.len() > TABLE;
        filter.multicast = if filter.multicast_overflow { Vec::new() } else { multicast };
        Some(())
    }
}

/// The frame in a chain, with what its header asks for; `None` for what is none.
fn outgoing(queue: &Queue, chain: &Chain, header_len: usize) -> Option<Packet> {
    let mut header = [0; header::LONG];
    chain.read(queue.ram(), 0, &mut header[..header_len]).ok()?;
    let len = usize::try_from(chain.readable.len()).ok()?.checked_sub(header_len)?;
    if len == 0 || len > LONGEST {
        return None;
    }
    let mut frame = vec![0; len];
    chain.read(queue.ram(), header_len as u64, &mut frame).ok()?;
    let offload = vnet::decode(header.first_chunk()?);
    Some(Packet::from(frame).with_offload(offload))
}

impl VirtioDevice for Net {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        let mut features = self.options.features | bit::MAC;
        let mut needs = |without: u64, dependent: u64| {
            if features & without == 0 {
                features &= !dependent;
            }
        };
        needs(bit::CSUM, bit::HOST_TSO4 | bit::HOST_TSO6 | bit::HOST_ECN | bit::HOST_UFO);
        needs(bit::GUEST_CSUM, bit::GUEST_TSO4 | bit::GUEST_TSO6 | bit::GUEST_ECN | bit::GUEST_UFO);
        needs(
            bit::CTRL_VQ,
            bit::CTRL_RX
                | bit::CTRL_VLAN
                | bit::CTRL_RX_EXTRA
                | bit::GUEST_ANNOUNCE
                | bit::MQ
                | bit::CTRL_MAC_ADDR
                | bit::CTRL_GUEST_OFFLOADS,
        );
        if self.links.len() > 1 && features & bit::CTRL_VQ != 0 {
            features |= bit::MQ;
        }
        if self.options.mtu != 0 {
            features |= bit::MTU;
        }
        if self.options.speed.is_some() || self.options.duplex.is_some() {
            features |= bit::SPEED_DUPLEX;
        }
        features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let pair = [self.options.rx_size, self.options.tx_size];
        let mut sizes: Vec<u16> = self.links.iter().flat_map(|_| pair).collect();
        if self.options.features & bit::CTRL_VQ != 0 {
            sizes.push(64);
        }
        sizes
    }

    fn config(&self) -> Vec<u8> {
        let status = if self.up { LINK_UP } else { 0 } | if self.announcing { ANNOUNCE } else { 0 };
        let pairs = u16::try_from(self.links.len()).unwrap_or(1);
        let speed = self.options.speed.unwrap_or(u32::MAX);
        let duplex = self.options.duplex.map_or(0xff, u8::from);
        let mut config = self.filter.mac.to_vec();
        for word in [status, pairs, self.options.mtu] {
            config.extend_from_slice(&word.to_le_bytes());
        }
        config.extend_from_slice(&speed.to_le_bytes());
        config.push(duplex);
        config
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        // A legacy driver sets its address here (5.1.4.2).
        if self.features & feature::VERSION_1 == 0
            && let Some(place) = self.filter.mac.get_mut(offset..offset + data.len())
        {
            place.copy_from_slice(data);
            self.tell();
        }
    }

    fn features_accepted(&mut self, features: u64) {
        self.features = features;
    }

    fn activate(&mut self, negotiated: Negotiated) {
        self.features = negotiated.features;
        self.notifier = Some(negotiated.config);
        self.queues = negotiated.queues;
        self.filter.vlans = negotiated_vlans(self.features);
        self.set_offloads(self.features);
        for pair in 0..self.links.len() {
            self.transmit(pair);
            self.receive(pair);
        }
        self.serve_control();
    }

    fn notify(&mut self, queue: usize) {
        if queue == self.control_queue() && self.features & bit::CTRL_VQ != 0 {
            self.serve_control();
        } else if queue.is_multiple_of(2) {
            self.receive(queue / 2);
        } else {
            self.transmit(queue / 2);
        }
    }

    fn event(&mut self, token: Token) {
        let Ok(pair) = usize::try_from(token.0) else { return };
        let Some(link) = self.links.get_mut(pair) else { return };
        link.attend();
        self.update_link();
        if !self.queues.is_empty() {
            self.transmit(pair);
            self.receive(pair);
        }
    }

    fn reset(&mut self) {
        let up = self.links.first().is_some_and(|link| link.is_up());
        let Self { links: _, mac, options: _, queues, notifier, features, filter, pairs, up: told, announcing } = self;
        queues.clear();
        *notifier = None;
        *features = 0;
        *filter = Filter::new(*mac);
        *pairs = 1;
        *told = up;
        *announcing = false;
        self.set_offloads(0);
        self.tell();
    }
}

fn negotiated_vlans(features: u64) -> Option<Box<[u64; 64]>> {
    (features & bit::CTRL_VLAN != 0).then(|| Box::new([0; 64]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::virtio::bench::{Bench, Piece};
    use crate::net::{Checksum, Offload, Port, Role, SegmentKind, Segmentation, Wire};

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn ready(features: u64) -> (Bench, Port) {
        let wire = Wire::new();
        let (nic, host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        let options =
            Options { features: DEFAULT_FEATURES, rx_size: 256, tx_size: 256, mtu: 0, speed: None, duplex: None };
        (Bench::ready(Box::new(Net::new(vec![Box::new(nic)], MAC, options)), features), host)
    }

    #[test]
    fn a_frame_is_sent_with_its_checksum() {
        let (mut bench, mut host) = ready(bit::CSUM);
        let mut frame = vec![0u8; 60];
        frame[40] = 5;
        let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        bench.offer(1, &[Piece::readable(&header), Piece::readable(&frame)]);
        bench.kick(1);
        let sent = host.receive().unwrap().into_bytes();
        assert_eq!((sent.len(), crate::net::Sum::new().bytes(&sent[34..]).finish()), (60, 0));
    }

    #[test]
    fn a_long_frame_is_spread_over_buffers() {
        let (mut bench, mut host) = ready(bit::MRG_RXBUF | bit::GUEST_CSUM | bit::GUEST_TSO4);
        for _ in 0..3 {
            bench.offer(0, &[Piece::writable(1000)]);
        }
        let segment = Some(Segmentation { kind: SegmentKind::Tcp4, size: 1460, ecn: false });
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segment };
        host.send(Packet::from(vec![7; 2500]).with_offload(offload)).unwrap();
        bench.event(Token(0));
        let used = bench.used(0);
        assert_eq!(used.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [1000, 1000, 512]);
    }

    #[test]
    fn a_frame_waits_for_buffers() {
        let (mut bench, mut host) = ready(0);
        host.send(Packet::from(vec![7; 100])).unwrap();
        bench.event(Token(0));
        assert!(bench.used(0).is_empty());
        bench.offer(0, &[Piece::writable(2000)]);
        bench.kick(0);
        assert_eq!(bench.used(0).len(), 1);
    }
}
