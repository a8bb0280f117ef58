//! `udp`: every write is a datagram, and every datagram is input.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use crate::event::{Interest, LoopHandle, Watch};

use super::address;
use super::backend::{Backend, open_now};
use super::handle::CharOutput;
use super::inlet::{CharInput, Inlet, lock};
use super::spec::{OpenError, Spec};
use crate::host::reason;

struct Udp {
    socket: Arc<UdpSocket>,
    input: CharInput,
    watch: Mutex<Option<Watch>>,
}

/// Larger datagrams are cut.
const DATAGRAM: usize = 4096;

/// Opens `udp`.
pub(super) fn open(
    spec: &Spec,
    handle: &LoopHandle,
    inlet: &Inlet,
    input: &CharInput,
) -> Result<Arc<dyn Backend>, OpenError> {
    let Some(port) = spec.get("port").filter(|port| !port.is_empty()) else {
        return Err(OpenError("chardev: udp: remote port not specified".to_owned()));
    };
    let family = address::Family::from_spec(spec)?;
    let host = spec.get("host").filter(|host| !host.is_empty()).unwrap_or("localhost");
    let peer = *address::resolve(host, port, family)?.first().unwrap_or(&SocketAddr::from(([127, 0, 0, 1], 0)));
    let local_host = spec.get("localaddr").filter(|host| !host.is_empty());
    let local_port = spec.get("localport").filter(|port| !port.is_empty()).unwrap_or("0");
    let wildcard = if peer.is_ipv6() { "::" } else { "0.0.0.0" };
    let local = address::resolve(local_host.unwrap_or(wildcard), local_port, family)?;
    let socket =
        UdpSocket::bind(&local[..]).map_err(|e| OpenError(format!("Failed to bind socket: {}", reason(&e))))?;
    socket.connect(peer).map_err(|e| OpenError(format!("Failed to connect to '{host}:{port}': {}", reason(&e))))?;
    socket.set_nonblocking(true).map_err(|e| OpenError(format!("Failed to set FD nonblocking: {}", reason(&e))))?;
    let socket = Arc::new(socket);
    let (receiver, queue) = (Arc::clone(&socket), input.clone());
    let watch = handle
        .watch(Arc::clone(&socket) as Arc<dyn std::os::fd::AsFd + Send + Sync>, Interest::Read, move |_| {
            let mut datagram = [0; DATAGRAM];
            // An error is the peer's port being closed: it may open later.
            if let Ok(count) = receiver.recv(&mut datagram) {
                // What there is no room for is lost, as datagrams are.
                queue.push(&datagram[..count]);
            }
        })
        .map_err(|e| OpenError(format!("Failed to watch socket: {}", reason(&e))))?;
    Ok(open_now(inlet, Udp { socket, input: input.clone(), watch: Mutex::new(Some(watch)) }))
}

impl CharOutput for Udp {
    fn write(&self, data: &[u8]) -> usize {
        for datagram in data.chunks(DATAGRAM) {
            // A full queue or a closed port loses datagrams, as the network does.
            let _ = self.socket.send(datagram);
        }
        data.len()
    }

    fn accept_input(&self) {
        self.input.deliver_soon();
    }
}

impl Backend for Udp {
    fn filename(&self) -> String {
        "udp".to_owned()
    }

    fn close(&self) {
        *lock(&self.watch) = None;
    }
}
