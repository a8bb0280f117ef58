//! The Network Block Device protocol: server and client.
//!
//! Source: NetworkBlockDevice/nbd, doc/proto.md, cited by its headings. Only the fixed newstyle handshake is spoken.
//! Absent: TLS (NBD_OPT_STARTTLS is refused), extended headers, more than one request in flight on a connection.

pub mod client;
mod proto;
pub mod server;
mod stream;

pub use stream::{Address, Listener, Stream};

#[cfg(test)]
mod tests;
