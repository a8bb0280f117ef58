//! Frames on a stream, each behind its length in 32 bits: `socket,listen=`, `socket,connect=`, and `stream`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::datagram::address;
use super::packet::Packet;
use super::pump::Medium;
use super::registry::Spec;
use crate::host::reason;

/// The longest frame that a peer may announce; QEMU's limit.
const LONGEST: usize = 4096 + 65536;
/// Bytes that wait for a peer that reads slowly.
const MAX_WAITING: usize = 1 << 20;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connected peer.
trait Peer: Read + Write + AsFd + Send {}
impl<T: Read + Write + AsFd + Send> Peer for T {}

/// A stream to one peer; a server waits for the next one when it goes.
pub struct Stream {
    listener: Option<Listener>,
    peer: Option<Box<dyn Peer>>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(Listener::Unix(_, path)) = &self.listener {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn text(what: &str) -> impl Fn(io::Error) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {}", reason(&error))
}

impl Stream {
    fn new(listener: Option<Listener>, peer: Option<Box<dyn Peer>>) -> Self {
        Self { listener, peer, incoming: Vec::new(), outgoing: Vec::new() }
    }

    /// Waits for a peer.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn listen(at: SocketAddr) -> Result<Self, String> {
        let listener = TcpListener::bind(at).map_err(text(&format!("can't bind ip={} to socket", at.ip())))?;
        listener.set_nonblocking(true).map_err(text("Failed to set FD nonblocking"))?;
        Ok(Self::new(Some(Listener::Tcp(listener)), None))
    }

    /// Connects to a peer.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn connect(to: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(to).map_err(text("can't connect socket"))?;
        stream.set_nonblocking(true).map_err(text("Failed to set FD nonblocking"))?;
        // Delays for fuller segments help no frame.
        let _ = stream.set_nodelay(true);
        Ok(Self::new(None, Some(Box::new(stream))))
    }

    /// `stream`: `addr.*` names the peer or the server's own end.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn of_spec(spec: &Spec) -> Result<Self, String> {
        let server = matches!(spec.get("server"), Some("on" | "yes" | "true" | "y"));
        match spec.get("addr.type") {
            None => Err("Parameter 'addr.type' is missing".to_owned()),
            Some("inet") => {
                let host = spec.get("addr.host").ok_or("Parameter 'addr.host' is missing")?;
                let port = spec.get("addr.port").ok_or("Parameter 'addr.port' is missing")?;
                let at = address(&format!("{host}:{port}"))?;
                if server { Self::listen(at) } else { Self::connect(at) }
            }
            Some("unix") => {
                let path = PathBuf::from(spec.get("addr.path").ok_or("Parameter 'addr.path' is missing")?);
                if server {
                    // What a dead process left is in the way.
                    let _ = std::fs::remove_file(&path);
                    let shown = format!("Failed to bind socket to {}", path.display());
                    let listener = UnixListener::bind(&path).map_err(text(&shown))?;
                    listener.set_nonblocking(true).map_err(text("Failed to set FD nonblocking"))?;
                    return Ok(Self::new(Some(Listener::Unix(listener, path)), None));
                }
                let shown = format!("Failed to connect to '{}'", path.display());
                let stream = UnixStream::connect(&path).map_err(text(&shown))?;
                stream.set_nonblocking(true).map_err(text("Failed to set FD nonblocking"))?;
                Ok(Self::new(None, Some(Box::new(stream))))
            }
            Some(other) => Err(format!("stream address type '{other}' is not supported by this version")),
        }
    }

    fn accept(&mut self) {
        let accepted: Option<Box<dyn Peer>> = match &self.listener {
            Some(Listener::Tcp(listener)) => listener.accept().ok().and_then(|(stream, _)| {
                stream.set_nonblocking(true).ok()?;
                let _ = stream.set_nodelay(true);
                Some(Box::new(stream) as Box<dyn Peer>)
            }),
            Some(Listener::Unix(listener, _)) => listener.accept().ok().and_then(|(stream, _)| {
                stream.set_nonblocking(true).ok()?;
                Some(Box::new(stream) as Box<dyn Peer>)
            }),
            None => None,
        };
        self.peer = accepted;
    }

    fn hang_up(&mut self) {
        self.peer = None;
        self.incoming.clear();
        self.outgoing.clear();
    }

    /// A whole frame of what came, if there is one.
    fn frame(&mut self) -> Option<Packet> {
        let len = u32::from_be_bytes(*self.incoming.first_chunk::<4>()?) as usize;
        if len > LONGEST {
            log::warn!("net: a peer announced a frame of {len} bytes: it is disconnected");
            self.hang_up();
            return None;
        }
        let frame = self.incoming.get(4..4 + len)?.to_vec();
        self.incoming.drain(..4 + len);
        Some(Packet::from(frame))
    }
}

impl Medium for Stream {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.peer, &self.listener) {
            (Some(peer), _) => Some(peer.as_fd()),
            (None, Some(Listener::Tcp(listener))) => Some(listener.as_fd()),
            (None, Some(Listener::Unix(listener, _))) => Some(listener.as_fd()),
            (None, None) => None,
        }
    }

    fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    fn writable(&mut self) {
        while let (Some(peer), false) = (&mut self.peer, self.outgoing.is_empty()) {
            match peer.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.hang_up(),
            }
        }
    }

    fn receive(&mut self) -> Option<Packet> {
        if self.peer.is_none() {
            self.accept();
        }
        loop {
            if let Some(packet) = self.frame() {
                return Some(packet);
            }
            let mut buffer = [0; 16384];
            match self.peer.as_mut()?.read(&mut buffer) {
                Ok(0) => self.hang_up(),
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.hang_up(),
            }
        }
    }

    fn send(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.peer.is_none() {
            return Ok(()); // nobody is there: lost, as on a loose cable
        }
        if self.outgoing.len() > MAX_WAITING {
            return Err(packet);
        }
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        self.outgoing.extend_from_slice(&len.to_be_bytes());
        for piece in packet.pieces() {
            self.outgoing.extend_from_slice(piece);
        }
        self.writable();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(None, Some(Box::new(ours))), theirs)
    }

    #[test]
    fn frames_have_their_length_before_them() {
        let (mut stream, mut peer) = pair();
        stream.send(Packet::from(vec![7; 3])).unwrap();
        let mut got = [0; 7];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, [0, 0, 0, 3, 7, 7, 7]);
        peer.write_all(&[0, 0, 0, 2, 5]).unwrap();
        assert!(stream.receive().is_none());
        peer.write_all(&[6, 0, 0, 0, 1, 9]).unwrap();
        assert_eq!(stream.receive().unwrap().into_bytes(), [5, 6]);
        assert_eq!(stream.receive().unwrap().into_bytes(), [9]);
    }

    #[test]
    fn a_peer_that_announces_too_much_is_disconnected() {
        let (mut stream, mut peer) = pair();
        peer.write_all(&[0xff; 4]).unwrap();
        assert!(stream.receive().is_none() && stream.fd().is_none());
    }
}
