//! Character devices: the byte streams behind serial ports, monitors and consoles.
//!
//! A front end (a UART, a monitor) holds a [`CharHandle`] for output and registers a [`CharSink`] for input. Back
//! ends run on the main loop; see [`CharSink`] for who may call what. [`Chardevs`] makes them from [`Spec`]s and
//! knows them by name.
//!
//! Not modelled: TLS and WebSocket on sockets, parallel ports, Braille displays, SPICE; they are refused by name.

mod address;
mod backend;
mod file;
mod handle;
mod inlet;
mod mux;
mod outbox;
mod pty;
mod registry;
mod ringbuf;
mod serial;
mod socket;
mod spec;
mod stdio;
mod stream;
mod telnet;
mod terminal;
#[cfg(test)]
mod tests;
mod udp;

pub use backend::{VcFactory, VcRequest};
pub use handle::{CharEvent, CharHandle, CharOutput, CharSink, SerialParameters};
pub use inlet::CharInput;
pub use mux::MuxKeys;
pub use outbox::Outbox;
pub use registry::{BACKENDS, ChardevInfo, Chardevs, Claim, Hooks};
pub use spec::{AttachError, OpenError, Spec};
