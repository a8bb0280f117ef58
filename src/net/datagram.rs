//! Frames as datagrams: `socket,mcast=`, `socket,udp=`, and `dgram`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use super::packet::Packet;
use super::pump::Medium;
use super::registry::Spec;
use crate::host::reason;

/// What is read at once: longer than any datagram.
const LONGEST: usize = 65536;

enum Socket {
    Udp(UdpSocket, SocketAddr),
    Unix(UnixDatagram, Option<std::path::PathBuf>, std::path::PathBuf),
}

/// A socket, and where its datagrams go.
pub struct Datagram {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Drop for Datagram {
    fn drop(&mut self) {
        if let Socket::Unix(_, Some(path), _) = &self.socket {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `host:port`, as the `socket` back end writes addresses.
///
/// # Errors
/// QEMU's text.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("host address '{text}' doesn't contain ':' separating host from port"))?;
    let port: u16 = port.parse().map_err(|_| format!("port number '{port}' is invalid"))?;
    if host.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let found = (host, port).to_socket_addrs().ok().and_then(|mut all| all.find(SocketAddr::is_ipv4));
    found.ok_or_else(|| format!("can't resolve host address '{host}'"))
}

fn io(what: &str) -> impl Fn(std::io::Error) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {}", reason(&error))
}

impl Datagram {
    fn udp(socket: UdpSocket, peer: SocketAddr) -> Result<Self, String> {
        socket.set_nonblocking(true).map_err(io("Failed to set FD nonblocking"))?;
        Ok(Self { socket: Socket::Udp(socket, peer), buffer: vec![0; LONGEST] })
    }

    /// `mcast=group:port[,localaddr=]`: everybody in the group is on one wire.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn multicast(group: &str, local: Option<&str>) -> Result<Self, String> {
        let group = address(group)?;
        let IpAddr::V4(v4) = group.ip() else { return Err(format!("{group} is no IPv4 address")) };
        if !v4.is_multicast() {
            return Err(format!(
                "specified mcastaddr {v4} (0x{:08x}) does not contain a multicast address",
                v4.to_bits()
            ));
        }
        let local = match local {
            None => Ipv4Addr::UNSPECIFIED,
            Some(text) => text.parse().map_err(|_| format!("localaddr '{text}' is not a valid IPv4 address"))?,
        };
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| io("can't create datagram socket")(error.into()))?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)
            .map_err(|error| io("can't set socket option SO_REUSEADDR")(error.into()))?;
        rustix::net::bind(&socket, &group)
            .map_err(|error| io(&format!("can't bind ip={v4} to socket"))(error.into()))?;
        let socket = UdpSocket::from(socket);
        socket.join_multicast_v4(&v4, &local).map_err(io(&format!("can't add socket to multicast group {v4}")))?;
        socket.set_multicast_loop_v4(true).map_err(io("can't force multicast message to loopback"))?;
        Self::udp(socket, group)
    }

    /// Between two addresses.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn between(local: SocketAddr, remote: SocketAddr) -> Result<Self, String> {
        let socket = UdpSocket::bind(local).map_err(io(&format!("can't bind ip={} to socket", local.ip())))?;
        Self::udp(socket, remote)
    }

    /// `dgram`: `local.*` and `remote.*` name the ends.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn of_spec(spec: &Spec) -> Result<(Self, String), String> {
        let get = |key: &str| spec.get(key);
        let inet = |end: &str| -> Result<SocketAddr, String> {
            let (host, port) = (get(&format!("{end}.host")), get(&format!("{end}.port")));
            let host = host.ok_or_else(|| format!("Parameter '{end}.host' is missing"))?;
            let port = port.ok_or_else(|| format!("Parameter '{end}.port' is missing"))?;
            address(&format!("{host}:{port}"))
        };
        match (get("local.type"), get("remote.type")) {
            (None, None) => Err("one of local= or remote= is required".to_owned()),
            (None, Some("inet")) => {
                let group = inet("remote")?;
                if !group.ip().is_multicast() {
                    return Err(
                        "'remote' address for dgram netdev without 'local' must be a multicast address".to_owned()
                    );
                }
                Ok((Self::multicast(&group.to_string(), None)?, format!("mcast={group}")))
            }
            (Some("inet"), Some("inet")) => {
                let (local, remote) = (inet("local")?, inet("remote")?);
                Ok((Self::between(local, remote)?, format!("udp={local}/{remote}")))
            }
            (Some("unix"), Some("unix")) => {
                let path = |end: &str| {
                    let key = format!("{end}.path");
                    get(&key).map(std::path::PathBuf::from).ok_or_else(|| format!("Parameter '{key}' is missing"))
                };
                let (local, remote) = (path("local")?, path("remote")?);
                // What a dead process left is in the way.
                let _ = std::fs::remove_file(&local);
                let socket = UnixDatagram::bind(&local)
                    .map_err(io(&format!("can't bind unix={} to socket", local.display())))?;
                socket.set_nonblocking(true).map_err(io("Failed to set FD nonblocking"))?;
                let text = format!("udp={}:{}", local.display(), remote.display());
                let socket = Socket::Unix(socket, Some(local), remote);
                Ok((Self { socket, buffer: vec![0; LONGEST] }, text))
            }
            (Some(_), None) => Err("remote= is required".to_owned()),
            (Some(kind), Some(other)) if kind != other => Err("remote and local types must be the same".to_owned()),
            (_, Some(kind)) => Err(format!("dgram address type '{kind}' is not supported by this version")),
        }
    }
}

impl Medium for Datagram {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.socket {
            Socket::Udp(socket, _) => socket.as_fd(),
            Socket::Unix(socket, ..) => socket.as_fd(),
        })
    }

    fn receive(&mut self) -> Option<Packet> {
        let len = match &self.socket {
            Socket::Udp(socket, _) => socket.recv(&mut self.buffer).ok()?,
            Socket::Unix(socket, ..) => socket.recv(&mut self.buffer).ok()?,
        };
        Some(Packet::from(self.buffer.get(..len)?.to_vec()))
    }

    fn send(&mut self, packet: Packet) -> Result<(), Packet> {
        let bytes = packet.into_bytes();
        let sent = match &self.socket {
            Socket::Udp(socket, peer) => socket.send_to(&bytes, peer),
            Socket::Unix(socket, _, peer) => socket.send_to(&bytes, peer),
        };
        match sent {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Packet::from(bytes)),
            // A peer that is not there hears nothing, as on a wire.
            _ => Ok(()),
        }
    }
}
