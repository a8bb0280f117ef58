//! What `-netdev user` takes, and its forwarding rules. The texts are QEMU's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The name in rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `hostfwd=`: a port of the host leads to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Protocol.
    pub transport: Transport,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Whom it is passed to; an unspecified address is the first that DHCP gives.
    pub guest: SocketAddr,
}

/// `guestfwd=`: a port of a virtual server leads to a command or a character device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestForward {
    /// Address and port as the guest sees them.
    pub server: SocketAddr,
    /// The command (`cmd:`), started for each connection.
    pub command: String,
}

/// The IPv4 side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V4 {
    /// Network address.
    pub network: Ipv4Addr,
    /// Network mask.
    pub mask: Ipv4Addr,
    /// The host's address in it.
    pub host: Ipv4Addr,
    /// The name server's address in it.
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives.
    pub dhcp_start: Ipv4Addr,
}

impl Default for V4 {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 0, 2, 0),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            host: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            dhcp_start: Ipv4Addr::new(10, 0, 2, 15),
        }
    }
}

impl V4 {
    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask == self.network
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        self.network | !self.mask
    }
}

/// The IPv6 side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V6 {
    /// Prefix.
    pub prefix: Ipv6Addr,
    /// Its length.
    pub prefix_len: u8,
    /// The host's address in it.
    pub host: Ipv6Addr,
    /// The name server's.
    pub dns: Ipv6Addr,
}

impl Default for V6 {
    fn default() -> Self {
        let site = |low| Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, low);
        Self { prefix: site(0), prefix_len: 64, host: site(2), dns: site(3) }
    }
}

impl V6 {
    /// Whether an address has the prefix.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let mask = if self.prefix_len == 0 { 0 } else { u128::MAX << (128 - u32::from(self.prefix_len.min(128))) };
        address.to_bits() & mask == self.prefix.to_bits() & mask
    }
}

/// A user network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// IPv4, unless it is switched off.
    pub v4: Option<V4>,
    /// IPv6, unless it is switched off.
    pub v6: Option<V6>,
    /// The guest reaches nothing but what forwarding rules name.
    pub restrict: bool,
    /// `hostname=`: what DHCP tells the guest.
    pub hostname: Option<String>,
    /// `domainname=`.
    pub domain: Option<String>,
    /// `dnssearch=`.
    pub search: Vec<String>,
    /// `tftp=`.
    pub tftp: Option<PathBuf>,
    /// `tftp-server-name=`.
    pub tftp_server: Option<String>,
    /// `bootfile=`.
    pub bootfile: Option<String>,
    /// `hostfwd=`.
    pub forwards: Vec<Forward>,
    /// `guestfwd=` with commands.
    pub guest_forwards: Vec<GuestForward>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            v4: Some(V4::default()),
            v6: Some(V6::default()),
            restrict: false,
            hostname: None,
            domain: None,
            search: Vec::new(),
            tftp: None,
            tftp_server: None,
            bootfile: None,
            forwards: Vec::new(),
            guest_forwards: Vec::new(),
        }
    }
}

/// Texts longer than an option of DHCP cannot be told (RFC 2132).
const MAX_DHCP_TEXT: usize = 255;
/// The `file` field of BOOTP (RFC 951) with its end.
const MAX_BOOTFILE: usize = 127;

fn switch(key: &str, value: &str) -> Result<bool, String> {
    crate::keyval::value::parse_bool(key, value).map_err(|error| error.to_string())
}

impl Config {
    /// Reads the options.
    ///
    /// # Errors
    /// QEMU's text for what cannot be.
    pub fn parse(options: &[(String, String)]) -> Result<Self, String> {
        let get = |key: &str| options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let flag = |key: &str| get(key).map(|value| switch(key, value)).transpose();
        let text = |key: &str| get(key).map(str::to_owned);
        let mut config = Self {
            restrict: flag("restrict")?.unwrap_or(false),
            hostname: text("hostname"),
            domain: text("domainname"),
            tftp: get("tftp").map(PathBuf::from),
            tftp_server: text("tftp-server-name"),
            bootfile: text("bootfile"),
            ..Self::default()
        };
        let (v4, v6) = match (flag("ipv4")?, flag("ipv6")?) {
            (Some(false), Some(false)) => return Err("IPv4 and IPv6 disabled".to_owned()),
            (Some(true), None) => (true, false),
            (None, Some(true)) => (false, true),
            (v4, v6) => (v4.unwrap_or(true), v6.unwrap_or(true)),
        };
        config.v4 = if v4 { Some(parse_v4(&get)?) } else { None };
        config.v6 = if v6 { Some(parse_v6(&get)?) } else { None };
        for (name, too_long, limit) in [
            ("hostname", "'hostname' parameter cannot exceed 255 bytes", MAX_DHCP_TEXT),
            ("domainname", "'domainname' parameter cannot exceed 255 bytes", MAX_DHCP_TEXT),
            ("tftp-server-name", "'tftp-server-name' parameter cannot exceed 255 bytes", MAX_DHCP_TEXT),
            ("bootfile", "'bootfile' parameter cannot exceed 127 bytes", MAX_BOOTFILE),
        ] {
            if get(name).is_some_and(|text| text.len() > limit) {
                return Err(too_long.to_owned());
            }
        }
        if get("domainname") == Some("") {
            return Err("'domainname' parameter cannot be empty".to_owned());
        }
        for (key, value) in options {
            match key.as_str() {
                "hostfwd" => config.forwards.push(Forward::parse(value)?),
                "guestfwd" => config.guest_forwards.push(GuestForward::parse(value, &config)?),
                "dnssearch" => config.search.push(value.clone()),
                _ => {}
            }
        }
        Ok(config)
    }

    /// The guest's address for a rule that names none.
    #[must_use]
    pub fn guest(&self, address: IpAddr) -> IpAddr {
        match (address, self.v4) {
            (IpAddr::V4(v4), Some(network)) if v4.is_unspecified() => IpAddr::V4(network.dhcp_start),
            _ => address,
        }
    }
}

fn v4_address(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

fn parse_v4<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Result<V4, String> {
    let mut network = V4::default();
    if let Some(text) = get("net") {
        let (address, mask) = match text.split_once('/') {
            None => (v4_address(text).ok_or("Failed to parse netmask")?, None),
            Some((address, mask)) => (v4_address(address).ok_or("Failed to parse netmask")?, Some(mask)),
        };
        let mask = match mask {
            // The address's class (RFC 791 2.3); 10.x.x.x counts as /8.
            None => match address.octets()[0] {
                0..=127 => Ipv4Addr::new(255, 0, 0, 0),
                128..=191 => Ipv4Addr::new(255, 255, 0, 0),
                _ => Ipv4Addr::new(255, 255, 255, 0),
            },
            Some(mask) => match (mask.parse::<u32>(), v4_address(mask)) {
                (Ok(bits @ 4..=32), _) => Ipv4Addr::from_bits(u32::MAX << (32 - bits)),
                (Ok(_), _) => return Err("Invalid netmask provided (must be in range 4-32)".to_owned()),
                (_, Some(mask)) => mask,
                _ => return Err("Failed to parse netmask".to_owned()),
            },
        };
        let base = address & mask;
        let inside = |low: u32| Ipv4Addr::from_bits(base.to_bits() | (low & !mask.to_bits()));
        network = V4 {
            network: base,
            mask,
            host: if base == address { inside(2) } else { address },
            dns: inside(3),
            dhcp_start: inside(15),
        };
    }
    let given = |key: &str, place: &mut Ipv4Addr, bad: &str, outside: &str| -> Result<bool, String> {
        let Some(text) = get(key) else { return Ok(false) };
        *place = v4_address(text).ok_or(bad)?;
        if !network_contains(&network, *place) {
            return Err(outside.to_owned());
        }
        Ok(true)
    };
    fn network_contains(network: &V4, address: Ipv4Addr) -> bool {
        network.contains(address)
    }
    let (mut host, mut dhcp, mut dns) = (network.host, network.dhcp_start, network.dns);
    given("host", &mut host, "Failed to parse host", "Host doesn't belong to network")?;
    let named = given("dns", &mut dns, "Failed to parse DNS", "DNS doesn't belong to network")?;
    given("dhcpstart", &mut dhcp, "Failed to parse DHCP start address", "DHCP doesn't belong to network")?;
    if named && dns == host {
        return Err("DNS must be different from host".to_owned());
    }
    if dhcp == host || dhcp == dns {
        return Err("DHCP must be different from host and DNS".to_owned());
    }
    Ok(V4 { host, dns, dhcp_start: dhcp, ..network })
}

fn parse_v6<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Result<V6, String> {
    let mut network = V6::default();
    let address = |text: &str, bad: &str| text.parse::<Ipv6Addr>().map_err(|_| bad.to_owned());
    // "prefix/length" in one, or in two options.
    let mut len = get("ipv6-prefixlen").map(str::to_owned);
    if let Some(text) = get("ipv6-prefix").or_else(|| get("ipv6-net")) {
        let (prefix, given) = text.split_once('/').map_or((text, None), |(prefix, len)| (prefix, Some(len)));
        network.prefix = address(prefix, "Failed to parse IPv6 prefix")?;
        len = given.map(str::to_owned).or(len);
        let base = network.prefix.to_bits();
        network.host = Ipv6Addr::from_bits(base | 2);
        network.dns = Ipv6Addr::from_bits(base | 3);
    }
    if let Some(len) = len {
        network.prefix_len = len
            .parse()
            .ok()
            .filter(|len| *len <= 126)
            .ok_or("Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)")?;
    }
    if let Some(text) = get("ipv6-host") {
        network.host = address(text, "Failed to parse IPv6 host")?;
        if !network.contains(network.host) {
            return Err("IPv6 Host doesn't belong to network".to_owned());
        }
    }
    if let Some(text) = get("ipv6-dns") {
        network.dns = address(text, "Failed to parse IPv6 DNS")?;
        if !network.contains(network.dns) {
            return Err("IPv6 DNS doesn't belong to network".to_owned());
        }
    }
    Ok(network)
}

fn transport(name: &str) -> Option<Transport> {
    match name {
        "tcp" | "" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        _ => None,
    }
}

/// `address` up to `end`; an IPv6 address is in brackets.
fn take(text: &str, end: char) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        return Some((address, rest.strip_prefix(end)?));
    }
    text.split_once(end)
}

fn address(text: &str) -> Option<IpAddr> {
    if text.is_empty() { Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { text.parse().ok() }
}

impl Forward {
    /// `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport`.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = |why: &str| format!("Invalid host forwarding rule '{text}' ({why})");
        let (name, rest) = text.split_once(':').ok_or_else(|| fault("No : separators"))?;
        let transport = transport(name).ok_or_else(|| fault("Bad protocol name"))?;
        let (host, rest) = take(rest, ':').ok_or_else(|| fault("Missing : separator"))?;
        let host = address(host).ok_or_else(|| fault("Bad host address"))?;
        let (port, rest) = rest.split_once('-').ok_or_else(|| fault("Bad host port separator"))?;
        let host_port = port.parse().map_err(|_| fault("Bad host port"))?;
        let (guest, port) = take(rest, ':').ok_or_else(|| fault("Missing guest address"))?;
        let mut guest = address(guest).ok_or_else(|| fault("Bad guest address"))?;
        let guest_port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| fault("Bad guest port"))?;
        if guest.is_unspecified() && host.is_ipv6() && guest.is_ipv4() {
            guest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        Ok(Self { transport, host: (host, host_port).into(), guest: (guest, guest_port).into() })
    }

    /// The host's side of a rule, as `hostfwd_remove` names it.
    #[must_use]
    pub fn parse_host(text: &str) -> Option<(Transport, SocketAddr)> {
        let (name, rest) = text.split_once(':')?;
        let (host, port) = take(rest, ':')?;
        Some((transport(name)?, (address(host)?, port.parse().ok()?).into()))
    }
}

impl GuestForward {
    /// `[tcp]:server:port-cmd:command`.
    ///
    /// # Errors
    /// QEMU's text; a character device is refused by name.
    pub fn parse(text: &str, config: &Config) -> Result<Self, String> {
        let fault = || format!("Invalid guest forwarding rule '{text}'");
        let (name, rest) = text.split_once(':').ok_or_else(fault)?;
        if !matches!(name, "" | "tcp") {
            return Err(fault());
        }
        let (server, rest) = take(rest, ':').ok_or_else(fault)?;
        let server: Ipv4Addr = server.parse().map_err(|_| fault())?;
        let (port, target) = rest.split_once('-').ok_or_else(fault)?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(fault)?;
        let Some(command) = target.strip_prefix("cmd:") else {
            return Err(format!("guestfwd to '{target}' is not supported by this version; cmd:COMMAND is"));
        };
        let inside = config
            .v4
            .is_some_and(|v4| v4.contains(server) && server != v4.host && server != v4.dns && server != v4.broadcast());
        if !inside {
            return Err(format!("Conflicting/invalid host:port in guest forwarding rule '{text}'"));
        }
        Ok(Self { server: (server, port).into(), command: command.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let pairs: Vec<_> = text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap())
            .collect();
        Config::parse(&pairs)
    }

    #[test]
    fn a_network_moves_all_its_addresses() {
        let v4 = parse("net=192.168.76.0/24").unwrap().v4.unwrap();
        assert_eq!(v4.host, Ipv4Addr::new(192, 168, 76, 2));
        assert_eq!(v4.dhcp_start, Ipv4Addr::new(192, 168, 76, 15));
        let v4 = parse("net=10.0.3.9/24,dhcpstart=10.0.3.40").unwrap().v4.unwrap();
        assert_eq!((v4.host, v4.dhcp_start), (Ipv4Addr::new(10, 0, 3, 9), Ipv4Addr::new(10, 0, 3, 40)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_qemus_words() {
        assert_eq!(parse("net=bogus").unwrap_err(), "Failed to parse netmask");
        assert_eq!(parse("net=10.0.2.0/3").unwrap_err(), "Invalid netmask provided (must be in range 4-32)");
        assert_eq!(parse("host=10.0.9.1").unwrap_err(), "Host doesn't belong to network");
        assert_eq!(parse("ipv4=off,ipv6=off").unwrap_err(), "IPv4 and IPv6 disabled");
        assert_eq!(parse("hostfwd=xtcp").unwrap_err(), "Invalid host forwarding rule 'xtcp' (No : separators)");
        assert_eq!(parse("hostfwd=x:1").unwrap_err(), "Invalid host forwarding rule 'x:1' (Bad protocol name)");
    }

    #[test]
    fn forwarding_rules_read_as_written() {
        let rule = Forward::parse("tcp::2222-:22").unwrap();
        assert_eq!((rule.host, rule.guest), ("0.0.0.0:2222".parse().unwrap(), "0.0.0.0:22".parse().unwrap()));
        let rule = Forward::parse("udp:127.0.0.1:53-10.0.2.20:5353").unwrap();
        assert_eq!((rule.transport, rule.guest), (Transport::Udp, "10.0.2.20:5353".parse().unwrap()));
        let rule = Forward::parse("tcp:[::1]:80-[fec0::15]:8080").unwrap();
        assert_eq!((rule.host, rule.guest), ("[::1]:80".parse().unwrap(), "[fec0::15]:8080".parse().unwrap()));
        assert_eq!(Forward::parse_host("udp::99"), Some((Transport::Udp, "0.0.0.0:99".parse().unwrap())));
    }
}
