//! The two ends of a character device as a front end sees them.

use std::fmt;
use std::sync::Arc;

/// What happens on a stream besides data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CharEvent {
    /// The other side is there.
    Opened,
    /// The other side is gone.
    Closed,
    /// A serial break.
    Break,
    /// The multiplexer gave this front end the input.
    MuxIn,
    /// The multiplexer took the input away.
    MuxOut,
}

/// What a UART tells a real serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SerialParameters {
    /// Bits a second.
    pub speed: u32,
    /// Data bits, 5-8.
    pub data_bits: u8,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
    /// `N`, `E` or `O`.
    pub parity: char,
}

/// The output side of a back end. All methods return at once and take leaf locks only, so that devices may call them
/// under the board lock.
pub trait CharOutput: Send + Sync {
    /// Takes what it has room for and returns how many bytes that was. After a short write the front end's
    /// [`CharSink::writable`] is called when there is room. A back end with nobody at the other end takes all.
    fn write(&self, data: &[u8]) -> usize;

    /// The front end has room for input again, after its [`CharSink::room`] was 0.
    fn accept_input(&self);

    /// New line parameters.
    fn set_parameters(&self, _parameters: SerialParameters) {}

    /// Starts or ends a break.
    fn set_break(&self, _on: bool) {}
}

/// A front end's hold on a back end. Clones write to the same stream.
#[derive(Clone)]
pub struct CharHandle {
    output: Option<Arc<dyn CharOutput>>,
}

impl fmt::Debug for CharHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.output.is_some() { "CharHandle" } else { "CharHandle(unconnected)" })
    }
}

impl CharHandle {
    /// A handle on a back end.
    #[must_use]
    pub fn new(output: Arc<dyn CharOutput>) -> Self {
        Self { output: Some(output) }
    }

    /// A front end without a back end: output is lost.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { output: None }
    }

    /// See [`CharOutput::write`].
    pub fn write(&self, data: &[u8]) -> usize {
        self.output.as_ref().map_or(data.len(), |output| output.write(data))
    }

    /// See [`CharOutput::accept_input`].
    pub fn accept_input(&self) {
        if let Some(output) = &self.output {
            output.accept_input();
        }
    }

    /// See [`CharOutput::set_parameters`].
    pub fn set_parameters(&self, parameters: SerialParameters) {
        if let Some(output) = &self.output {
            output.set_parameters(parameters);
        }
    }

    /// See [`CharOutput::set_break`].
    pub fn set_break(&self, on: bool) {
        if let Some(output) = &self.output {
            output.set_break(on);
        }
    }
}

/// The input side of a front end. Back ends call it on the main loop's thread with no lock held; an implementation
/// for a device takes the board lock.
pub trait CharSink: Send + Sync {
    /// How many bytes [`CharSink::receive`] would take now. After 0 the front end calls
    /// [`CharOutput::accept_input`] when that changes.
    fn room(&self) -> usize;

    /// Takes input, at most [`CharSink::room`] bytes.
    fn receive(&self, data: &[u8]);

    /// Takes an event.
    fn event(&self, event: CharEvent);

    /// There is room for output again after a short write.
    fn writable(&self) {}
}
