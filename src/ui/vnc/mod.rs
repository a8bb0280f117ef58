//! The VNC server: RFB 3.3, 3.7 and 3.8.
//!
//! Documents: RFC 6143 (The Remote Framebuffer Protocol); the community's RFB specification (rfbproto) for Tight,
//! the pseudo-encodings and QEMU's extensions.
//!
//! [`Spec::parse`] checks `-vnc`, [`Listening::bind`] takes the ports, [`Server::start`] serves. Each client has two
//! threads: one reads its messages (and calls [`Display::input`](crate::ui::Display::input)), one encodes and writes
//! updates. The display's thread only compares the surface with the server's copy and marks tiles, so a client
//! that does not read costs a thread and a bit map. All that a client sends is checked in one place, `message`.
//!
//! Not modelled: TLS, SASL, WebSocket, reverse connections, audio, clipboards. They are refused by name, or never offered.
//! A pointer that the adapter draws is sent to clients that draw pointers; others do not see it.

mod auth;
mod client;
mod encode;
mod format;
mod keyboard;
mod listen;
mod message;
mod pointer;
mod screen;
mod server;
mod session;
mod spec;
mod tiles;
mod writer;

#[cfg(test)]
mod tests;

pub use auth::{WrongExpiry, parse_expiry};
pub use listen::{BindError, Endpoint, Listening};
pub use message::PowerAction;
pub use server::{ClientInfo, Info, NoObserver, NoPasswordAuth, Observer, Server, Settings, desktop_name};
pub use spec::{Address, Family, SharePolicy, Spec, SpecError};
