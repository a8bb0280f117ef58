//! What the registry knows of a back end, and the simplest of them.

use std::sync::Arc;

use super::handle::CharOutput;
use super::inlet::{CharInput, Inlet};
use super::mux::Mux;
use super::ringbuf::RingBuffer;
use super::stream::Stream;
use super::terminal::Terminal;

/// A back end.
pub(super) trait Backend: CharOutput {
    /// What `info chardev` shows.
    fn filename(&self) -> String;

    /// Lets go of the host: connections, listeners, terminals. Output that waits is written if that takes no time.
    fn close(&self) {}

    fn ring_buffer(&self) -> Option<&RingBuffer> {
        None
    }

    fn mux(&self) -> Option<&Arc<Mux>> {
        None
    }

    fn terminal(&self) -> Option<&Terminal> {
        None
    }

    /// The name of a pseudo-terminal.
    fn pty(&self) -> Option<String> {
        None
    }
}

/// `null`: a listener who never speaks.
pub(super) struct Null;

impl CharOutput for Null {
    fn write(&self, data: &[u8]) -> usize {
        data.len()
    }

    fn accept_input(&self) {}
}

impl Backend for Null {
    fn filename(&self) -> String {
        "null".to_owned()
    }
}

/// Files, pipes: a stream and nothing else.
pub(super) struct Plain {
    pub(super) stream: Arc<Stream>,
    pub(super) filename: &'static str,
}

impl CharOutput for Plain {
    fn write(&self, data: &[u8]) -> usize {
        self.stream.write(data)
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }
}

impl Backend for Plain {
    fn filename(&self) -> String {
        self.filename.to_owned()
    }

    fn close(&self) {
        self.stream.drain();
        self.stream.drop_connection();
    }
}

/// What a text console is asked for (`vc`).
#[derive(Clone, Debug)]
pub struct VcRequest {
    /// The character device's id: the console's name.
    pub label: String,
    /// Size in pixels, if given.
    pub width: Option<u32>,
    /// Size in pixels, if given.
    pub height: Option<u32>,
    /// Size in characters, if given.
    pub columns: Option<u32>,
    /// Size in characters, if given.
    pub rows: Option<u32>,
    /// Where the console puts what is typed.
    pub input: CharInput,
}

/// Makes text consoles; its result takes the output.
pub type VcFactory = Arc<dyn Fn(VcRequest) -> Arc<dyn CharOutput> + Send + Sync>;

/// `vc`: a text console of the display.
pub(super) struct Vc {
    pub(super) console: Arc<dyn CharOutput>,
    pub(super) input: CharInput,
}

impl CharOutput for Vc {
    fn write(&self, data: &[u8]) -> usize {
        self.console.write(data)
    }

    fn accept_input(&self) {
        self.console.accept_input();
        self.input.deliver_soon();
    }
}

impl Backend for Vc {
    fn filename(&self) -> String {
        "vc".to_owned()
    }
}

/// A back end that is open from the start tells its inlet so.
pub(super) fn open_now<B: Backend + 'static>(inlet: &Inlet, backend: B) -> Arc<dyn Backend> {
    inlet.opened();
    Arc::new(backend)
}
