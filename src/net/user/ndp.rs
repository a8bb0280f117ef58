//! IPv6's own business: neighbours, router advertisements, and stateless DHCPv6.
//!
//! Documents: RFC 4861 (neighbour discovery), RFC 8106 (name servers in advertisements), RFC 8415 (DHCPv6), RFC 3646
//! (its name server options).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::wire::EthernetAddress;

use super::egress::{Egress, ROUTER_V6};
use super::{dhcp, icmp};

/// The port of DHCPv6 servers.
pub const DHCP_SERVER: u16 = 547;

/// ICMPv6 types (RFC 4861 4).
mod kind {
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// Options of neighbour discovery (RFC 4861 4.6, RFC 8106 5.1).
mod option {
    pub const SOURCE: u8 = 1;
    pub const TARGET: u8 = 2;
    pub const PREFIX: u8 = 3;
    pub const DNS: u8 = 25;
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// How long an advertised router may be used, in seconds.
const ROUTER_LIFETIME: u16 = 1800;
const VALID_SECONDS: u32 = 86_400;
const PREFERRED_SECONDS: u32 = 14_400;

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?))
}

/// Asks where a guest address is.
pub fn ask(out: &mut Egress, target: Ipv6Addr) {
    let Some(network) = out.config.v6 else { return };
    if !network.contains(target) && !target.is_unicast_link_local() {
        return;
    }
    // The solicited-node address (RFC 4291 2.7.1).
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![kind::NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&[option::SOURCE, 1]);
    message.extend_from_slice(out.own_mac(false).as_bytes());
    icmp::send_v6(out, network.host, group, message);
}

/// A guest's message; true if it was for us.
pub fn receive(out: &mut Egress, mac: EthernetAddress, from: Ipv6Addr, message: &[u8]) -> bool {
    let Some(network) = out.config.v6 else { return false };
    match message.first() {
        Some(&kind::ROUTER_SOLICITATION) => advertise(out),
        Some(&kind::NEIGHBOUR_SOLICITATION) => {
            let Some(target) = message.get(8..).and_then(address) else { return true };
            let ours = [network.host, network.dns, ROUTER_V6].contains(&target);
            if ours && !from.is_unspecified() {
                out.learn(IpAddr::V6(from), mac);
                // Router, solicited, override (4.4).
                let mut answer = vec![kind::NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0xe0, 0, 0, 0];
                answer.extend_from_slice(&target.octets());
                answer.extend_from_slice(&[option::TARGET, 1]);
                answer.extend_from_slice(out.own_mac(false).as_bytes());
                icmp::send_v6(out, target, from, answer);
            }
        }
        Some(&kind::NEIGHBOUR_ADVERTISEMENT) => {
            if let Some(target) = message.get(8..).and_then(address) {
                out.learn(IpAddr::V6(target), mac);
            }
        }
        _ => return false,
    }
    true
}

/// Sends a router advertisement.
fn advertise(out: &mut Egress) {
    let Some(network) = out.config.v6 else { return };
    // Hop limit 64, other configuration by DHCPv6 (4.2).
    let mut message = vec![kind::ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0x40];
    let lifetime = if out.config.restrict { 0 } else { ROUTER_LIFETIME };
    message.extend_from_slice(&lifetime.to_be_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[option::SOURCE, 1]);
    message.extend_from_slice(out.own_mac(false).as_bytes());
    // On link, autonomous.
    message.extend_from_slice(&[option::PREFIX, 4, network.prefix_len, 0xc0]);
    message.extend_from_slice(&VALID_SECONDS.to_be_bytes());
    message.extend_from_slice(&PREFERRED_SECONDS.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&network.prefix.octets());
    if !out.config.restrict {
        message.extend_from_slice(&[option::DNS, 3, 0, 0]);
        message.extend_from_slice(&u32::from(ROUTER_LIFETIME).to_be_bytes());
        message.extend_from_slice(&network.dns.octets());
    }
    icmp::send_v6(out, ROUTER_V6, ALL_NODES, message);
}

/// DHCPv6 (RFC 8415 7.3, 21).
mod dhcp6 {
    pub const REPLY: u8 = 7;
    pub const INFORMATION_REQUEST: u8 = 11;
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const OPTION_REQUEST: u16 = 6;
    pub const DNS: u16 = 23;
    pub const SEARCH: u16 = 24;
    pub const BOOTFILE_URL: u16 = 59;
}

fn put(message: &mut Vec<u8>, option: u16, data: &[u8]) {
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(data);
}

/// A guest's message to the DHCPv6 server: only questions without addresses are answered.
pub fn dhcp(out: &mut Egress, guest: SocketAddr, payload: &[u8]) {
    let Some(network) = out.config.v6 else { return };
    if payload.len() < 4 || payload[0] != dhcp6::INFORMATION_REQUEST {
        return;
    }
    let mut reply = vec![dhcp6::REPLY, payload[1], payload[2], payload[3]];
    let mut wanted = Vec::new();
    let mut rest = &payload[4..];
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let id = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some(data) = tail.get(..len) else { return };
        match id {
            dhcp6::CLIENT_ID => put(&mut reply, id, data),
            dhcp6::OPTION_REQUEST => {
                wanted = data.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
            }
            _ => {}
        }
        rest = &tail[len..];
    }
    // A DUID based on the link-layer address (RFC 8415 11.4).
    let duid = [&[0, 3, 0, 1][..], out.own_mac(false).as_bytes()].concat();
    put(&mut reply, dhcp6::SERVER_ID, &duid);
    if wanted.contains(&dhcp6::DNS) && !out.config.restrict {
        put(&mut reply, dhcp6::DNS, &network.dns.octets());
    }
    if wanted.contains(&dhcp6::SEARCH) && !out.config.search.is_empty() {
        let list = dhcp::search_list(&out.config.search);
        put(&mut reply, dhcp6::SEARCH, &list);
    }
    if wanted.contains(&dhcp6::BOOTFILE_URL)
        && let Some(bootfile) = &out.config.bootfile
    {
        let url = format!("tftp://[{}]/{bootfile}", network.host);
        put(&mut reply, dhcp6::BOOTFILE_URL, url.as_bytes());
    }
    out.send_udp((ROUTER_V6, DHCP_SERVER).into(), guest, &reply);
}
