//! Output of a session on its way to a character device that may be slow.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::handle::CharHandle;

struct State {
    pending: VecDeque<u8>,
    /// A multiplexer shows another front end: nothing is written.
    held: bool,
}

/// Bytes that wait for the device to take them.
pub struct Outbox {
    handle: CharHandle,
    state: Mutex<State>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox({} bytes)", self.lock().pending.len())
    }
}

impl Outbox {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(handle: CharHandle) -> Self {
        Self { handle, state: Mutex::new(State { pending: VecDeque::new(), held: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A queue of bytes is whole at all times.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes, now or when there is room.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.pending.extend(bytes);
        self.write(&mut state);
    }

    /// The device has room again.
    pub fn flush(&self) {
        let mut state = self.lock();
        self.write(&mut state);
    }

    /// Keeps output back, or lets it go.
    pub fn hold(&self, held: bool) {
        let mut state = self.lock();
        state.held = held;
        self.write(&mut state);
    }

    /// The connection is gone, and with it what it did not take.
    pub fn clear(&self) {
        self.lock().pending.clear();
    }

    /// The session takes input again.
    pub fn accept_input(&self) {
        self.handle.accept_input();
    }

    fn write(&self, state: &mut State) {
        while !state.held && !state.pending.is_empty() {
            let (piece, _) = state.pending.as_slices();
            let count = self.handle.write(piece);
            if count == 0 {
                return;
            }
            state.pending.drain(..count);
        }
    }
}
