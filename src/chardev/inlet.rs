//! The way from a back end to whatever front end is attached to it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::event::LoopHandle;

use super::handle::{CharEvent, CharSink};

/// The lock of data that is whole between any two statements: a panic elsewhere does not spoil it.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct State {
    sink: Option<Arc<dyn CharSink>>,
    open: bool,
    /// The sink was told that the stream is open.
    announced: bool,
}

/// Where a back end delivers input and events. It calls the sink with no lock held, on the main loop's thread.
#[derive(Default)]
pub(super) struct Inlet {
    state: Mutex<State>,
}

impl Inlet {
    fn sink(&self) -> Option<Arc<dyn CharSink>> {
        lock(&self.state).sink.clone()
    }

    /// How much the front end takes; 0 without one.
    pub(super) fn room(&self) -> usize {
        self.sink().map_or(0, |sink| sink.room())
    }

    pub(super) fn receive(&self, data: &[u8]) {
        if let Some(sink) = self.sink() {
            sink.receive(data);
        }
    }

    pub(super) fn event(&self, event: CharEvent) {
        if let Some(sink) = self.sink() {
            sink.event(event);
        }
    }

    pub(super) fn writable(&self) {
        if let Some(sink) = self.sink() {
            sink.writable();
        }
    }

    /// The other side is there.
    pub(super) fn opened(&self) {
        lock(&self.state).open = true;
        self.announce();
    }

    /// Tells a front end that came after the other side.
    pub(super) fn announce(&self) {
        let sink = {
            let mut state = lock(&self.state);
            if !state.open || state.announced || state.sink.is_none() {
                return;
            }
            state.announced = true;
            state.sink.clone()
        };
        if let Some(sink) = sink {
            sink.event(CharEvent::Opened);
        }
    }

    /// The other side is gone.
    pub(super) fn closed(&self) {
        let sink = {
            let mut state = lock(&self.state);
            state.open = false;
            if !std::mem::replace(&mut state.announced, false) {
                return;
            }
            state.sink.clone()
        };
        if let Some(sink) = sink {
            sink.event(CharEvent::Closed);
        }
    }

    pub(super) fn set_sink(&self, sink: Option<Arc<dyn CharSink>>) {
        let old = {
            let mut state = lock(&self.state);
            state.announced = false;
            std::mem::replace(&mut state.sink, sink)
        };
        // Dropped after the lock: a sink may own much.
        drop(old);
    }

    pub(super) fn has_sink(&self) -> bool {
        lock(&self.state).sink.is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).open
    }
}

/// More than this is not queued by [`CharInput::push`]: a paste of a few screens.
const QUEUE_LIMIT: usize = 16 << 10;

struct Queue {
    bytes: Mutex<VecDeque<u8>>,
    inlet: Arc<Inlet>,
    handle: LoopHandle,
}

/// Input made by this process: what is typed into a text console. It waits here until the front end has room.
#[derive(Clone)]
pub struct CharInput {
    queue: Arc<Queue>,
}

impl fmt::Debug for CharInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CharInput({} bytes)", lock(&self.queue.bytes).len())
    }
}

impl CharInput {
    pub(super) fn new(handle: LoopHandle, inlet: Arc<Inlet>) -> Self {
        Self { queue: Arc::new(Queue { bytes: Mutex::default(), inlet, handle }) }
    }

    /// Queues input for the front end and returns how many bytes there was room for. Any thread may call it, under
    /// any lock.
    pub fn push(&self, data: &[u8]) -> usize {
        let taken = {
            let mut bytes = lock(&self.queue.bytes);
            let taken = data.len().min(QUEUE_LIMIT - bytes.len());
            bytes.extend(&data[..taken]);
            taken
        };
        self.deliver_soon();
        taken
    }

    /// The front end has room again.
    pub(super) fn deliver_soon(&self) {
        if lock(&self.queue.bytes).is_empty() {
            return;
        }
        let queue: Weak<Queue> = Arc::downgrade(&self.queue);
        self.queue.handle.post(move || {
            if let Some(queue) = queue.upgrade() {
                queue.deliver();
            }
        });
    }
}

impl Queue {
    /// On the loop's thread.
    fn deliver(&self) {
        loop {
            let room = self.inlet.room();
            let data: Vec<u8> = {
                let mut bytes = lock(&self.bytes);
                let count = room.min(bytes.len());
                bytes.drain(..count).collect()
            };
            if data.is_empty() {
                return;
            }
            self.inlet.receive(&data);
        }
    }
}
