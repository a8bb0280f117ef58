//! The host's name servers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// The port of name servers.
pub const PORT: u16 = 53;

const FILE: &str = "/etc/resolv.conf";

/// How long what was read is believed: hosts change networks.
const FRESH: Duration = Duration::from_secs(1);

/// The name servers of resolv.conf(5).
#[derive(Default, Debug)]
pub struct NameServers {
    read: Option<Instant>,
    v4: Option<Ipv4Addr>,
    v6: Option<IpAddr>,
}

impl NameServers {
    fn refresh(&mut self) {
        if self.read.is_some_and(|read| read.elapsed() < FRESH) {
            return;
        }
        self.read = Some(Instant::now());
        let text = std::fs::read_to_string(FILE).unwrap_or_default();
        (self.v4, self.v6) = parse(&text);
    }

    /// The first one with an IPv4 address. A host without any may run one itself.
    pub fn v4(&mut self) -> Option<Ipv4Addr> {
        self.refresh();
        self.v4.or(if self.v6.is_none() { Some(Ipv4Addr::LOCALHOST) } else { None })
    }

    /// The first one with an IPv6 address, or else the IPv4 one.
    pub fn v6(&mut self) -> Option<IpAddr> {
        self.refresh();
        self.v6.or_else(|| self.v4().map(IpAddr::V4))
    }
}

fn parse(text: &str) -> (Option<Ipv4Addr>, Option<IpAddr>) {
    let mut found = (None, None);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().and_then(|word| word.split('%').next()?.parse().ok()) {
            Some(IpAddr::V4(v4)) => found.0 = found.0.or(Some(v4)),
            Some(IpAddr::V6(v6)) if !v6.is_unicast_link_local() => found.1 = found.1.or(Some(IpAddr::V6(v6))),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_of_each_kind_is_taken() {
        let text = "# x\nsearch a\nnameserver fe80::1%eth0\nnameserver 1.2.3.4\nnameserver ::1\nnameserver 5.6.7.8\n";
        assert_eq!(parse(text), (Some(Ipv4Addr::new(1, 2, 3, 4)), Some("::1".parse().unwrap())));
        assert_eq!(parse("nameserver\nnameserver x"), (None, None));
    }
}
