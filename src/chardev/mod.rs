//! Character devices: the byte streams behind serial ports, monitors and consoles.
//!
//! A front end (a UART, a monitor) holds a [`CharHandle`] for output and registers a [`CharSink`] for input. Back
//! ends run on the main loop; see [`CharSink`] for who may call what.

mod handle;

pub use handle::{CharEvent, CharHandle, CharOutput, CharSink, SerialParameters};
