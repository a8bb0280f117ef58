//! The network without its thread: frames go in and come out.

use super::*;
use crate::net::{Role, Sum, Wire};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetRepr};
use std::net::{Ipv4Addr, UdpSocket};

const GUEST_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

struct Bench {
    stack: Stack,
    nic: Port,
    poll: OwnedFd,
}

impl Bench {
    fn new(config: Config) -> Self {
        let wire = Wire::new();
        let (nic, mut host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        host.set_offload(Offloads::CHECKSUM | Offloads::TSO4);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let stack = Stack::new(config, Arc::new(host), poll.try_clone().unwrap());
        let mut bench = Self { stack, nic, poll };
        bench.stack.out.learn(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)), GUEST_MAC);
        bench
    }

    fn send(&mut self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        self.nic.send(Packet::from(frame)).unwrap();
        self.stack.turn(&[]);
        self.received()
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.nic.receive()).map(Packet::into_bytes).collect()
    }

    /// Serves the host's sockets until a frame comes.
    fn wait(&mut self) -> Vec<Vec<u8>> {
        for _ in 0..200 {
            let mut events = Vec::with_capacity(16);
            let limit = timespec(Duration::from_millis(50));
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&limit)).unwrap();
            self.stack.turn(&events);
            let frames = self.received();
            if !frames.is_empty() {
                return frames;
            }
        }
        panic!("no frame came");
    }
}

fn ethernet(kind: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    let repr = EthernetRepr { src_addr: GUEST_MAC, dst_addr: EthernetAddress::BROADCAST, ethertype: kind };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(payload);
    frame
}

fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15];
    packet.extend_from_slice(&to);
    packet.extend_from_slice(payload);
    ethernet(EthernetProtocol::Ipv4, &packet)
}

fn udp(from: u16, to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let head = [from, to.1, len, 0].map(u16::to_be_bytes).concat();
    ipv4(17, to.0, &[&head, payload].concat())
}

fn tcp(ports: (u16, u16), seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    ipv4(6, [10, 0, 2, 2], &segment)
}

fn number(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

#[test]
fn the_host_answers_for_its_addresses() {
    let mut bench = Bench::new(Config::default());
    let mut payload = vec![0; 28];
    let mut ask = |last| {
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: GUEST_MAC,
            source_protocol_addr: Ipv4Addr::new(10, 0, 2, 15),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: Ipv4Addr::new(10, 0, 2, last),
        };
        repr.emit(&mut ArpPacket::new_unchecked(&mut payload[..]));
        bench.send(ethernet(EthernetProtocol::Arp, &payload))
    };
    assert_eq!(ask(2)[0][6..12], [0x52, 0x55, 10, 0, 2, 2]);
    assert_eq!(ask(3)[0][22..28], [0x52, 0x55, 10, 0, 2, 3]);
    assert!(ask(9).is_empty() && ask(15).is_empty());
}

#[test]
fn dhcp_offers_the_first_address() {
    let mut bench = Bench::new(Config { bootfile: Some("boot.ipxe".to_owned()), ..Config::default() });
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(GUEST_MAC.as_bytes());
    message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend_from_slice(&[53, 1, 1, 255]);
    let frames = bench.send(udp(68, ([255; 4], 67), &message));
    let reply = &frames[0][42..];
    assert_eq!(reply[16..20], [10, 0, 2, 15]);
    assert_eq!(&reply[108..117], b"boot.ipxe");
    assert_eq!(reply[240..243], [53, 1, 2]);
    assert!(reply.windows(6).any(|w| w == [3, 4, 10, 0, 2, 2]) && reply.windows(6).any(|w| w == [6, 4, 10, 0, 2, 3]));
    assert_eq!(frames[0][..6], [0xff; 6]);
}

#[test]
fn an_echo_request_to_the_host_is_answered() {
    let mut bench = Bench::new(Config::default());
    let frames = bench.send(ipv4(1, [10, 0, 2, 2], &[8, 0, 0, 0, 1, 2, 0, 1, 0xaa]));
    assert_eq!(frames[0][26..34], [10, 0, 2, 2, 10, 0, 2, 15]);
    assert_eq!((frames[0][34], &frames[0][38..]), (0, &[1, 2, 0, 1, 0xaa][..]));
    assert_eq!(Sum::new().bytes(&frames[0][34..]).finish(), 0);
}

#[test]
fn datagrams_reach_the_host_and_come_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut bench = Bench::new(Config::default());
    assert!(bench.send(udp(1000, ([10, 0, 2, 2], port), b"ping")).is_empty());
    let mut buffer = [0; 16];
    let (len, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"ping");
    server.send_to(&[7; 3000], peer).unwrap();
    let frames = bench.wait();
    // Longer than the wire: three fragments, the first with the ports.
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0][26..38], [[10, 0, 2, 2], [10, 0, 2, 15], [(port >> 8) as u8, port as u8, 3, 0xe8]].concat());
}

#[test]
fn a_connection_carries_bytes_both_ways_and_ends_in_order() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut bench = Bench::new(Config::default());
    let ports = (1000, port);
    bench.send(tcp(ports, 99, 0, 2, &[]));
    let frames = bench.wait();
    assert_eq!((frames[0][47], number(&frames[0], 42)), (0x12, 100));
    let iss = number(&frames[0], 38);
    let (mut host, _) = listener.accept().unwrap();
    bench.send(tcp(ports, 100, iss + 1, 0x10, &[]));
    let frames = bench.send(tcp(ports, 100, iss + 1, 0x18, b"hello"));
    assert_eq!(number(&frames[0], 42), 105);
    let mut buffer = [0; 5];
    host.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    // The same again is old.
    bench.send(tcp(ports, 100, iss + 1, 0x18, b"hello"));
    host.write_all(&[5; 4000]).unwrap();
    let frames = bench.wait();
    // No maximum was offered: 536 bytes a segment (RFC 9293 3.7.1).
    assert_eq!(frames.iter().map(|f| f.len() - 54).sum::<usize>(), 4000);
    assert!(frames.iter().all(|f| f.len() <= 54 + 536 && Sum::new().bytes(&f[14..34]).finish() == 0));
    drop(host);
    bench.send(tcp(ports, 105, iss + 4001, 0x10, &[]));
    let frames = bench.wait();
    assert_eq!(frames.last().unwrap()[47] & 1, 1);
    let frames = bench.send(tcp(ports, 105, iss + 4002, 0x11, &[]));
    assert_eq!(number(&frames[0], 42), 106);
    assert!(bench.stack.tcp.connections().is_empty());
}

#[test]
fn a_forwarded_port_asks_the_guest() {
    let mut bench = Bench::new(Config::default());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rule = Forward::parse(&format!("tcp:127.0.0.1:{free}-:22")).unwrap();
    bench.stack.open_forward(rule, "").unwrap();
    let _client = std::net::TcpStream::connect(("127.0.0.1", free)).unwrap();
    let frames = bench.wait();
    assert_eq!((frames[0][47], &frames[0][30..34], &frames[0][36..38]), (2, &[10, 0, 2, 15][..], &[0, 22][..]));
    assert!(bench.stack.tcp.unlisten(rule.host) && !bench.stack.tcp.unlisten(rule.host));
}

#[test]
fn a_refused_connection_is_reset() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut bench = Bench::new(Config::default());
    bench.send(tcp((1000, port), 99, 0, 2, &[]));
    let frames = bench.wait();
    assert_eq!(frames[0][47] & 4, 4);
    // A stray segment too.
    assert_eq!(bench.send(tcp((1000, port), 99, 5, 0x10, &[]))[0][47] & 4, 4);
}

#[test]
fn a_restricted_guest_reaches_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut bench = Bench::new(Config { restrict: true, ..Config::default() });
    assert!(bench.send(tcp((1000, port), 99, 0, 2, &[])).is_empty());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn tftp_gives_files_block_by_block() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), [3; 1000]).unwrap();
    let mut bench = Bench::new(Config { tftp: Some(folder.path().to_owned()), ..Config::default() });
    let host = ([10, 0, 2, 2], 69);
    let frames = bench.send(udp(2000, host, b"\0\x01file\0octet\0"));
    assert_eq!((&frames[0][42..46], frames[0].len()), (&[0, 3, 0, 1][..], 42 + 4 + 512));
    let frames = bench.send(udp(2000, host, b"\0\x04\0\x01"));
    assert_eq!((&frames[0][42..46], frames[0].len()), (&[0, 3, 0, 2][..], 42 + 4 + 488));
    assert!(bench.send(udp(2000, host, b"\0\x04\0\x02")).is_empty());
    let frames = bench.send(udp(2001, host, b"\0\x01file\0octet\0blksize\x001432\0tsize\x000\0"));
    assert_eq!(&frames[0][42..], b"\0\x06blksize\x001432\0tsize\x001000\0");
    let frames = bench.send(udp(2002, host, b"\0\x01../file\0octet\0"));
    assert_eq!(frames[0][42..46], [0, 5, 0, 1]);
}

#[test]
fn a_router_is_advertised() {
    let mut bench = Bench::new(Config::default());
    let from = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let head = [0x60, 0, 0, 0, 0, 8, 58, 255];
    let packet = [&head[..], &from, &to, &[133, 0, 0, 0, 0, 0, 0, 0]].concat();
    let frames = bench.send(ethernet(EthernetProtocol::Ipv6, &packet));
    assert_eq!(frames[0][54], 134);
    assert!(frames[0].windows(4).any(|w| w == [3, 4, 64, 0xc0]) && frames[0].windows(3).any(|w| w == [0xfe, 0xc0, 0]));
}

/// Frames that are almost right, and rubbish: nothing panics, and the tables stay within their bounds.
#[test]
fn hostile_frames_do_no_harm() {
    let mut bench = Bench::new(Config { restrict: true, tftp: Some("/nonexistent".into()), ..Config::default() });
    // A fixed sequence (xorshift).
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let samples = [
        udp(68, ([255; 4], 67), &[1; 300]),
        udp(2000, ([10, 0, 2, 2], 69), b"\0\x01file\0octet\0"),
        tcp((1, 80), 5, 6, 2, &[]),
        ipv4(1, [10, 0, 2, 2], &[8, 0, 0, 0, 1, 2, 0, 1, 0xaa]),
        ethernet(EthernetProtocol::Ipv6, &[0x60; 80]),
        ethernet(EthernetProtocol::Arp, &[1; 28]),
    ];
    for round in 0..20_000u64 {
        let mut frame = samples[(round % 6) as usize].clone();
        for _ in 0..random() % 6 {
            let at = random() as usize % frame.len();
            frame[at] = random() as u8;
        }
        frame.truncate(random() as usize % (frame.len() + 20));
        bench.send(frame);
    }
    assert!(bench.stack.tcp.connections().len() <= 1024 && bench.stack.udp.connections().is_empty());
}
