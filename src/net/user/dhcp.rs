//! Addresses for guests.
//!
//! Documents: RFC 951 (BOOTP), RFC 2131 (DHCP), RFC 2132 (options), RFC 3397 (domain search).

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket, EthernetAddress};

use super::config::V4;
use super::egress::Egress;

/// Guests that get an address, as in QEMU.
const MAX_LEASES: usize = 16;
const LEASE_SECONDS: u32 = 24 * 3600;
/// RFC 951's vendor field and more: options do not fit into BOOTP's 64 bytes.
const REPLY: usize = 236 + 4 + 1024;

/// Ports.
pub const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// Options (RFC 2132).
mod option {
    pub const NETMASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const TFTP_SERVER: u8 = 66;
    pub const SEARCH: u8 = 119;
}

/// Who has which address: the n-th place is the n-th address.
#[derive(Default)]
pub struct Dhcp {
    leases: Vec<Option<EthernetAddress>>,
}

impl Dhcp {
    fn address(network: &V4, place: usize) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(network.dhcp_start.to_bits().checked_add(u32::try_from(place).ok()?)?);
        (network.contains(address) && address != network.broadcast()).then_some(address)
    }

    /// The address of a guest: the one it has, the one it wants if that is free, or the next free one.
    fn lease(&mut self, network: &V4, mac: EthernetAddress, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.leases.resize(MAX_LEASES, None);
        let own = self.leases.iter().position(|lease| *lease == Some(mac));
        let wish =
            wanted.and_then(|wanted| (0..MAX_LEASES).find(|place| Self::address(network, *place) == Some(wanted)));
        let wish = wish.filter(|place| self.leases[*place].is_none_or(|holder| holder == mac));
        let place = wish.or(own).or_else(|| self.leases.iter().position(Option::is_none))?;
        let address = Self::address(network, place)?;
        if let Some(own) = own {
            self.leases[own] = None;
        }
        self.leases[place] = Some(mac);
        Some(address)
    }

    /// A guest's message.
    pub fn receive(&mut self, out: &mut Egress, payload: &[u8]) {
        let Some(network) = out.config.v4 else { return };
        let Ok(request) = DhcpPacket::new_checked(payload) else { return };
        if request.opcode() != DhcpOpCode::Request || request.hardware_len() != 6 {
            return;
        }
        let find = |kind: u8| request.options().find(|option| option.kind == kind).map(|option| option.data.to_vec());
        let address = |data: Vec<u8>| <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        let kind = find(option::MESSAGE_TYPE).and_then(|data| data.first().copied());
        let mac = request.client_hardware_address();
        let wanted = find(option::REQUESTED)
            .and_then(address)
            .or(Some(request.client_ip()).filter(|address| !address.is_unspecified()));
        if find(option::SERVER).and_then(address).is_some_and(|server| server != network.host) {
            return; // another server was chosen
        }
        let answer = match kind.map(DhcpMessageType::from) {
            // Plain BOOTP has no message type.
            None => self.lease(&network, mac, None).map(|address| (None, address)),
            Some(DhcpMessageType::Discover) => {
                self.lease(&network, mac, wanted).map(|address| (Some(DhcpMessageType::Offer), address))
            }
            Some(DhcpMessageType::Request) => match self.lease(&network, mac, wanted) {
                Some(address) if wanted.is_none_or(|wanted| wanted == address) => {
                    Some((Some(DhcpMessageType::Ack), address))
                }
                _ => Some((Some(DhcpMessageType::Nak), Ipv4Addr::UNSPECIFIED)),
            },
            Some(DhcpMessageType::Inform) => Some((Some(DhcpMessageType::Ack), Ipv4Addr::UNSPECIFIED)),
            Some(DhcpMessageType::Release | DhcpMessageType::Decline) => {
                if let Some(place) = self.leases.iter().position(|lease| *lease == Some(mac)) {
                    self.leases[place] = None;
                }
                None
            }
            Some(_) => None,
        };
        let Some((kind, given)) = answer else { return };
        if !given.is_unspecified() {
            out.learn(IpAddr::V4(given), mac);
        }
        let Some(reply) = reply(out, &network, &request, kind, given) else { return };
        // A client that cannot be addressed yet hears broadcasts only; one that can hears them too.
        let to = (Ipv4Addr::BROADCAST, CLIENT).into();
        out.send_udp((network.host, SERVER).into(), to, &reply);
    }
}

fn reply(
    out: &Egress,
    network: &V4,
    request: &DhcpPacket<&[u8]>,
    kind: Option<DhcpMessageType>,
    given: Ipv4Addr,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; REPLY];
    let mut packet = DhcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_sname_and_boot_file_to_zero();
    packet.set_opcode(DhcpOpCode::Reply);
    packet.set_hardware_type(request.hardware_type());
    packet.set_hardware_len(6);
    packet.set_transaction_id(request.transaction_id());
    packet.set_client_hardware_address(request.client_hardware_address());
    packet.set_flags(request.flags());
    packet.set_client_ip(request.client_ip());
    packet.set_your_ip(given);
    packet.set_server_ip(network.host);
    packet.set_magic_number(0x6382_5363);
    let nak = kind == Some(DhcpMessageType::Nak);
    let config = &out.config;
    let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
    if let Some(kind) = kind {
        options.push((option::MESSAGE_TYPE, vec![kind.into()]));
    }
    options.push((option::SERVER, network.host.octets().to_vec()));
    if nak {
        options.push((option::MESSAGE, b"requested address not available".to_vec()));
    } else {
        options.push((option::NETMASK, network.mask.octets().to_vec()));
        if !config.restrict {
            options.push((option::ROUTER, network.host.octets().to_vec()));
            options.push((option::DNS, network.dns.octets().to_vec()));
        }
        options.push((option::LEASE_TIME, LEASE_SECONDS.to_be_bytes().to_vec()));
        let texts = [
            (option::HOSTNAME, &config.hostname),
            (option::DOMAIN, &config.domain),
            (option::TFTP_SERVER, &config.tftp_server),
        ];
        for (kind, text) in texts {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                options.push((kind, text.as_bytes().to_vec()));
            }
        }
        // An option has 255 bytes; RFC 3396 continues it in another of the same kind.
        let search = search_list(&config.search);
        options.extend(search.chunks(255).map(|part| (option::SEARCH, part.to_vec())));
    }
    let mut writer = packet.options_mut();
    for (kind, data) in &options {
        writer.emit(DhcpOption { kind: *kind, data }).ok()?;
    }
    writer.end().ok()?;
    if let Some(bootfile) = config.bootfile.as_ref().filter(|_| !nak) {
        // `file` (RFC 951): 128 bytes at 108, closed by a zero.
        let name = bootfile.as_bytes();
        bytes[108..108 + name.len().min(127)].copy_from_slice(&name[..name.len().min(127)]);
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(300, |last| (last + 1).max(300));
    bytes.truncate(end);
    Some(bytes)
}

/// Domain names as DNS writes them (RFC 1035 3.1), one after the other.
pub fn search_list(names: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
            out.push(u8::try_from(label.len()).unwrap_or(0));
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_get_addresses_one_by_one_and_keep_them() {
        let (mut dhcp, network) = (Dhcp::default(), V4::default());
        let mac = |n| EthernetAddress([2, 0, 0, 0, 0, n]);
        let mut lease = |n, wanted| dhcp.lease(&network, mac(n), wanted);
        assert_eq!(lease(1, None), Some(Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!(lease(2, None), Some(Ipv4Addr::new(10, 0, 2, 16)));
        assert_eq!(lease(1, None), Some(Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!(lease(3, Some(Ipv4Addr::new(10, 0, 2, 15))), Some(Ipv4Addr::new(10, 0, 2, 17)));
        assert_eq!(lease(3, Some(Ipv4Addr::new(10, 0, 2, 20))), Some(Ipv4Addr::new(10, 0, 2, 20)));
        for n in 4..=16 {
            lease(n, None);
        }
        assert_eq!(lease(17, None), None);
    }

    #[test]
    fn search_lists_are_written_as_labels() {
        assert_eq!(search_list(&["a.bc".to_owned(), "d".to_owned()]), b"\x01a\x02bc\0\x01d\0");
    }
}
