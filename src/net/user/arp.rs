//! Address resolution (RFC 826).

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};

use super::egress::{Egress, mac_of_v4};
use crate::net::{ETHERNET, Packet};

/// Length of an ARP packet for Ethernet and IPv4.
const LEN: usize = 28;

fn send(out: &mut Egress, to: EthernetAddress, repr: &ArpRepr, from: EthernetAddress) {
    let mut frame = vec![0; ETHERNET + LEN];
    let ethernet = EthernetRepr { src_addr: from, dst_addr: to, ethertype: EthernetProtocol::Arp };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    out.send(Packet::from(frame));
}

/// Asks where a guest address is.
pub fn ask(out: &mut Egress, address: Ipv4Addr) {
    let Some(network) = out.config.v4.filter(|network| network.contains(address)) else { return };
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac_of_v4(network.host),
        source_protocol_addr: network.host,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    send(out, EthernetAddress::BROADCAST, &repr, mac_of_v4(network.host));
}

/// A guest's packet: questions for our addresses are answered, the asker is remembered.
pub fn receive(out: &mut Egress, payload: &[u8]) {
    let Some(network) = out.config.v4 else { return };
    let Ok(packet) = ArpPacket::new_checked(payload) else { return };
    let Ok(ArpRepr::EthernetIpv4 {
        operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
    }) = ArpRepr::parse(&packet)
    else {
        return;
    };
    if !source_protocol_addr.is_unspecified() {
        out.learn(IpAddr::V4(source_protocol_addr), source_hardware_addr);
    }
    let forwarded = out.config.guest_forwards.iter().any(|rule| rule.server.ip() == IpAddr::V4(target_protocol_addr));
    let ours = target_protocol_addr == network.host || target_protocol_addr == network.dns || forwarded;
    if operation != ArpOperation::Request || !ours || source_protocol_addr == target_protocol_addr {
        return;
    }
    let own = mac_of_v4(target_protocol_addr);
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: own,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    send(out, source_hardware_addr, &repr, own);
}
