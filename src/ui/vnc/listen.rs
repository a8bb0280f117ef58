//! The sockets: listening and connected ones, TCP and Unix alike.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::reason;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::spec::{Address, Family, Spec};

/// Longest path of a Unix socket (`sun_path`).
const UNIX_PATH_MAX: usize = 108;

/// A server that cannot listen; the text is QEMU's.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host's name means nothing.
    #[error("address resolution failed for {host}:{port}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The first port wanted.
        port: u16,
        /// The resolver's words.
        reason: String,
    },
    /// Every port that was allowed is taken.
    #[error("Failed to find an available port: {}", reason(.0))]
    Busy(#[source] io::Error),
    /// The address is not ours, or the port is not for us.
    #[error("Failed to bind socket: {}", reason(.0))]
    Bind(#[source] io::Error),
    /// The socket could not be made at all.
    #[error("Failed to create a socket: {}", reason(.0))]
    Create(#[source] io::Error),
    /// A file is in the way and cannot be removed.
    #[error("Failed to unlink socket {}: {}", path.display(), reason(source))]
    Unlink {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path cannot hold a socket.
    #[error("Failed to bind socket to {}: {}", path.display(), reason(source))]
    BindUnix {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Longer than the kernel allows.
    #[error("UNIX socket path '{}' is too long\nPath must be less than 108 bytes", .0.display())]
    PathTooLong(PathBuf),
}

/// One end of a connection, or the place that a server listens at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket; clients have no path.
    Unix(PathBuf),
}

impl Endpoint {
    /// QEMU's name of the address family.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self {
            Self::Tcp(SocketAddr::V4(_)) => "ipv4",
            Self::Tcp(SocketAddr::V6(_)) => "ipv6",
            Self::Unix(_) => "unix",
        }
    }

    /// The host as monitors print it; empty for a Unix socket.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.ip().to_string(),
            Self::Unix(_) => String::new(),
        }
    }

    /// The port or path as monitors print it.
    #[must_use]
    pub fn service(&self) -> String {
        match self {
            Self::Tcp(address) => address.port().to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(timeout),
            Self::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Ends both directions: whoever reads or writes returns.
    pub(super) fn shut_down(&self) {
        // A socket that its peer has closed already is as shut as we want it.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl io::Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buf),
            Stream::Unix(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl io::Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(buf),
            Stream::Unix(stream) => (&mut &*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Bound sockets that nobody serves yet: made before the process goes to the background, served after it.
#[derive(Debug)]
pub struct Listening {
    spec: Spec,
    sockets: Vec<Socket>,
    endpoints: Vec<Endpoint>,
}

impl Listening {
    /// Listens where `spec` says: at every address that its host has, each at the first free port. It is enough if
    /// one of them works, as for QEMU.
    ///
    /// # Errors
    ///
    /// If none works.
    pub fn bind(spec: Spec) -> Result<Self, BindError> {
        let mut listening = Self { spec, sockets: Vec::new(), endpoints: Vec::new() };
        match listening.spec.address.clone() {
            Address::None => {}
            Address::Unix(path) => listening.bind_unix(&path)?,
            Address::Tcp { host, port, last_port } => listening.bind_tcp(&host, port, last_port)?,
        }
        Ok(listening)
    }

    /// The options it was made from.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where it listens, in the order of the resolver.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The line for standard output, without its newline: with `to=`, where the user cannot know the port.
    #[must_use]
    pub fn announcement(&self) -> Option<String> {
        let first = self.endpoints.first().filter(|_| self.spec.announces)?;
        match first {
            Endpoint::Tcp(_) => Some(format!("VNC server running on {}:{}", first.host(), first.service())),
            Endpoint::Unix(_) => None,
        }
    }

    fn bind_unix(&mut self, path: &Path) -> Result<(), BindError> {
        if path.as_os_str().len() >= UNIX_PATH_MAX {
            return Err(BindError::PathTooLong(path.to_owned()));
        }
        if let Err(source) = std::fs::remove_file(path)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(BindError::Unlink { path: path.to_owned(), source });
        }
        let socket = UnixListener::bind(path)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|source| BindError::BindUnix { path: path.to_owned(), source })?;
        self.sockets.push(Socket::Unix(socket));
        self.endpoints.push(Endpoint::Unix(path.to_owned()));
        Ok(())
    }

    fn bind_tcp(&mut self, host: &str, port: u16, last_port: u16) -> Result<(), BindError> {
        let mut failure = None;
        for ip in resolve(host, port, self.spec.family)? {
            match bind_first_free(ip, port, last_port) {
                Ok(socket) => {
                    let address = socket.local_addr().map_err(BindError::Create)?;
                    self.sockets.push(Socket::Tcp(socket));
                    self.endpoints.push(Endpoint::Tcp(address));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if self.sockets.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// The sockets, to wait for clients.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| match socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        })
    }

    /// Takes a waiting client of one of the sockets, if there is one.
    pub(super) fn accept(&self, index: usize) -> io::Result<(Stream, Endpoint)> {
        match &self.sockets[index] {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Endpoint::Tcp(peer)))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Stream::Unix(stream), Endpoint::Unix(PathBuf::new())))
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for endpoint in &self.endpoints {
            if let Endpoint::Unix(path) = endpoint {
                // Somebody may have removed it before us.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn resolve(host: &str, port: u16, family: Family) -> Result<Vec<IpAddr>, BindError> {
    let failed = |reason: &str| BindError::Resolve { host: host.to_owned(), port, reason: reason.to_owned() };
    let all: Vec<IpAddr> = if host.is_empty() {
        vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
    } else {
        let found = (host, port).to_socket_addrs().map_err(|error| {
            let text = reason(&error);
            failed(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
        })?;
        found.map(|address| address.ip()).collect()
    };
    let wanted: Vec<IpAddr> = all
        .into_iter()
        .filter(|ip| match family {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        })
        .collect();
    if wanted.is_empty() {
        return Err(failed("Address family for hostname not supported"));
    }
    Ok(wanted)
}

fn bind_first_free(ip: IpAddr, port: u16, last_port: u16) -> Result<TcpListener, BindError> {
    let mut busy = rustix::io::Errno::ADDRINUSE;
    for port in port..=last_port.max(port) {
        match bind_port(SocketAddr::new(ip, port)) {
            Ok(socket) => return Ok(socket),
            Err(BindPortError::Create(error)) => return Err(BindError::Create(error.into())),
            Err(BindPortError::Bind(rustix::io::Errno::ADDRINUSE)) => busy = rustix::io::Errno::ADDRINUSE,
            Err(BindPortError::Bind(error)) => return Err(BindError::Bind(error.into())),
        }
    }
    Err(BindError::Busy(busy.into()))
}

enum BindPortError {
    Create(rustix::io::Errno),
    Bind(rustix::io::Errno),
}

/// A listening socket; an IPv6 one is for IPv6 only, so that both families can listen at one port.
fn bind_port(address: SocketAddr) -> Result<TcpListener, BindPortError> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(BindPortError::Create)?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(BindPortError::Create)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).map_err(BindPortError::Create)?;
    }
    rustix::net::bind(&socket, &address).map_err(BindPortError::Bind)?;
    rustix::net::listen(&socket, 16).map_err(BindPortError::Bind)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, last_port: u16) -> Spec {
        Spec::new(Address::Tcp { host: "127.0.0.1".into(), port, last_port })
    }

    /// A port that something of ours holds.
    fn taken() -> (TcpListener, u16) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    #[test]
    fn a_taken_port_is_refused_in_qemus_words() {
        let (_socket, port) = taken();
        let error = Listening::bind(at(port, port)).unwrap_err();
        assert_eq!(error.to_string(), "Failed to find an available port: Address already in use");
    }

    #[test]
    fn a_foreign_address_is_refused_in_qemus_words() {
        let spec = Spec::new(Address::Tcp { host: "192.0.2.1".into(), port: 0, last_port: 0 });
        let error = Listening::bind(spec).unwrap_err();
        assert_eq!(error.to_string(), "Failed to bind socket: Cannot assign requested address");
    }

    #[test]
    fn a_range_skips_taken_ports_and_is_announced() {
        let (_socket, port) = taken();
        let mut spec = at(port, port.saturating_add(50));
        spec.announces = true;
        let listening = Listening::bind(spec).unwrap();
        let found = listening.endpoints()[0].service().parse::<u16>().unwrap();
        assert!(found > port);
        assert_eq!(listening.announcement().unwrap(), format!("VNC server running on 127.0.0.1:{found}"));
    }

    #[test]
    fn a_single_port_is_not_announced() {
        assert_eq!(Listening::bind(at(0, 0)).unwrap().announcement(), None);
    }

    #[test]
    fn a_family_that_the_host_lacks_is_refused_in_qemus_words() {
        let mut spec = at(5901, 5901);
        spec.family = Family::V6;
        let error = Listening::bind(spec).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address resolution failed for 127.0.0.1:5901: Address family for hostname not supported"
        );
    }

    #[test]
    fn no_host_is_every_address_of_both_families_at_one_port() {
        let (socket, port) = taken();
        drop(socket);
        let spec = Spec::new(Address::Tcp { host: String::new(), port, last_port: port });
        let listening = Listening::bind(spec).unwrap();
        let hosts: Vec<_> = listening.endpoints().iter().map(Endpoint::host).collect();
        // A host without IPv6 has the second one only.
        assert!(hosts == ["::", "0.0.0.0"] || hosts == ["0.0.0.0"], "{hosts:?}");
        assert!(listening.endpoints().iter().all(|endpoint| endpoint.service() == port.to_string()));
    }

    #[test]
    fn a_unix_socket_replaces_an_old_one_and_leaves_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vnc");
        std::fs::write(&path, "old").unwrap();
        let listening = Listening::bind(Spec::new(Address::Unix(path.clone()))).unwrap();
        assert_eq!(listening.endpoints()[0].family(), "unix");
        assert!(UnixStream::connect(&path).is_ok());
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_in_a_missing_folder_is_refused_in_qemus_words() {
        let error = Listening::bind(Spec::new(Address::Unix("/nonexistent/x".into()))).unwrap_err();
        assert_eq!(error.to_string(), "Failed to bind socket to /nonexistent/x: No such file or directory");
    }
}
