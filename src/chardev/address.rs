//! Socket addresses as options name them.

use std::net::{SocketAddr, ToSocketAddrs};

use super::spec::{OpenError, Spec};
use crate::host::reason;

/// `ipv4=`, `ipv6=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Family {
    ipv4: Option<bool>,
    ipv6: Option<bool>,
}

impl Family {
    pub(super) fn from_spec(spec: &Spec) -> Result<Self, OpenError> {
        let family = Self { ipv4: spec.flag("ipv4")?, ipv6: spec.flag("ipv6")? };
        if family == (Self { ipv4: Some(false), ipv6: Some(false) }) {
            return Err(OpenError("Cannot disable IPv4 and IPv6 at same time".to_owned()));
        }
        Ok(family)
    }

    fn allows(self, address: &SocketAddr) -> bool {
        let (mine, other) = if address.is_ipv4() { (self.ipv4, self.ipv6) } else { (self.ipv6, self.ipv4) };
        mine.unwrap_or(other != Some(true))
    }

    /// Only version 6 was asked for.
    pub(super) fn only_v6(self) -> bool {
        self.ipv4 == Some(false) || (self.ipv6 == Some(true) && self.ipv4 != Some(true))
    }
}

/// Where a socket listens or connects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// A Unix socket.
    Unix { path: String, abstract_name: bool, tight: bool },
    /// TCP.
    Inet { host: String, port: String, to: Option<u16>, family: Family },
    /// An inherited descriptor.
    Fd(i32),
}

impl Address {
    pub(super) fn from_spec(spec: &Spec) -> Result<Self, OpenError> {
        let (path, fd, host) = (spec.get("path"), spec.get("fd"), spec.get("host"));
        if [path, fd, host].into_iter().flatten().count() > 1 {
            return Err(OpenError("None or one of 'path', 'fd' or 'host' option required.".to_owned()));
        }
        if let Some(path) = path {
            return Ok(Self::Unix {
                path: path.to_owned(),
                abstract_name: spec.flag("abstract")?.unwrap_or(false),
                tight: spec.flag("tight")?.unwrap_or(true),
            });
        }
        if let Some(host) = host {
            let Some(port) = spec.get("port") else {
                return Err(OpenError("chardev: socket: no port given".to_owned()));
            };
            let to = spec.number("to")?.and_then(|to| u16::try_from(to).ok());
            let family = Family::from_spec(spec)?;
            return Ok(Self::Inet { host: host.to_owned(), port: port.to_owned(), to, family });
        }
        let fd = fd.unwrap_or("");
        fd.parse().map(Self::Fd).map_err(|_| OpenError(format!("Unable to parse FD number {fd}")))
    }

    /// The address in `info chardev`, after the protocol's name.
    pub(super) fn text(&self, protocol: &str) -> String {
        match self {
            Self::Unix { path, abstract_name, tight } => {
                let kind = match (abstract_name, tight) {
                    (false, _) => "",
                    (true, true) => ",abstract=on,tight=on",
                    (true, false) => ",abstract=on",
                };
                format!("unix:{path}{kind}")
            }
            Self::Inet { host, port, .. } => format!("{protocol}:{host}:{port}"),
            Self::Fd(number) => format!("fd:{number}"),
        }
    }

    /// The address in messages about connecting.
    pub(super) fn short(&self) -> String {
        match self {
            Self::Unix { path, .. } => path.clone(),
            Self::Inet { host, port, .. } => format!("{host}:{port}"),
            Self::Fd(number) => number.to_string(),
        }
    }
}

/// Looks a host up.
pub(super) fn resolve(host: &str, port: &str, family: Family) -> Result<Vec<SocketAddr>, OpenError> {
    let failed = |why: &str| OpenError(format!("address resolution failed for {host}:{port}: {why}"));
    let Ok(number) = port.parse::<u32>() else {
        return Err(failed("Servname not supported for ai_socktype"));
    };
    // The C library keeps the low 16 bits.
    let number = u16::try_from(number & 0xffff).unwrap_or(0);
    let found = (host, number).to_socket_addrs().map_err(|e| {
        let text = reason(&e);
        failed(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
    })?;
    let addresses: Vec<_> = found.filter(|address| family.allows(address)).collect();
    if addresses.is_empty() {
        return Err(failed("Address family for hostname not supported"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_address_is_given() {
        let spec = Spec::new("x", "socket", &[("path", "s"), ("host", "h")]);
        assert_eq!(Address::from_spec(&spec).unwrap_err().0, "None or one of 'path', 'fd' or 'host' option required.");
        let spec = Spec::new("x", "socket", &[]);
        assert_eq!(Address::from_spec(&spec).unwrap_err().0, "Unable to parse FD number ");
    }

    #[test]
    fn a_port_is_a_number_and_a_family_must_fit() {
        let any = Family::default();
        assert_eq!(
            resolve("127.0.0.1", "22x", any).unwrap_err().0,
            "address resolution failed for 127.0.0.1:22x: Servname not supported for ai_socktype"
        );
        let v6 = Family { ipv4: None, ipv6: Some(true) };
        assert_eq!(
            resolve("127.0.0.1", "22", v6).unwrap_err().0,
            "address resolution failed for 127.0.0.1:22: Address family for hostname not supported"
        );
        assert_eq!(resolve("::1", "22", v6).unwrap()[0].to_string(), "[::1]:22");
    }
}
