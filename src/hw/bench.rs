//! Plumbing that tests of chips share: timers that note when they are due, a manual clock, a character back end.

use std::sync::{Arc, Mutex};

use crate::bus::{MsiSink, PowerRequest, PowerSink, Token};
use crate::chardev::{CharHandle, CharOutput, SerialParameters};
use crate::event::{Clock, ClockKind, EventLoop, LoopHandle, Timer};

/// A manual clock and the timers on it.
pub struct TimeBench {
    pub clock: Clock,
    event_loop: EventLoop,
    due: Arc<Mutex<Vec<Token>>>,
}

impl TimeBench {
    pub fn new() -> Self {
        let clock = Clock::manual();
        Self { event_loop: EventLoop::new(clock.clone()).unwrap(), clock, due: Arc::default() }
    }

    pub fn timer(&self, token: Token) -> Timer {
        let due = Arc::clone(&self.due);
        self.event_loop.handle().timer(ClockKind::Virtual, move || due.lock().unwrap().push(token))
    }

    /// The main loop, for chips that set up timers of their own.
    pub fn handle(&self) -> LoopHandle {
        self.event_loop.handle()
    }

    /// Lets `ns` pass at once, and serves what is due then.
    pub fn pass(&self, ns: u64) {
        self.clock.advance(ns);
        self.event_loop.run_pending().unwrap();
    }

    /// Lets `ns` pass in steps of `step_ns`, delivering what becomes due.
    pub fn advance(&self, ns: u64, step_ns: u64, mut event: impl FnMut(Token)) {
        let mut left = ns;
        while left > 0 {
            let step = left.min(step_ns);
            self.clock.advance(step);
            left -= step;
            self.event_loop.run_pending().unwrap();
            let due = std::mem::take(&mut *self.due.lock().unwrap());
            due.into_iter().for_each(&mut event);
        }
    }
}

/// A back end that remembers what it got and takes at most `room` bytes.
pub struct CharProbe {
    state: Mutex<CharState>,
}

#[derive(Default, Clone)]
pub struct CharState {
    pub output: Vec<u8>,
    pub room: usize,
    pub parameters: Option<SerialParameters>,
    pub breaking: bool,
    pub accepts: usize,
}

impl CharProbe {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(CharState { room: usize::MAX, ..CharState::default() }) })
    }

    pub fn handle(self: &Arc<Self>) -> CharHandle {
        CharHandle::new(Arc::clone(self) as Arc<dyn CharOutput>)
    }

    pub fn state(&self) -> CharState {
        self.state.lock().unwrap().clone()
    }

    pub fn set_room(&self, room: usize) {
        self.state.lock().unwrap().room = room;
    }
}

impl CharOutput for CharProbe {
    fn write(&self, data: &[u8]) -> usize {
        let mut state = self.state.lock().unwrap();
        let taken = data.len().min(state.room);
        state.room -= if state.room == usize::MAX { 0 } else { taken };
        state.output.extend_from_slice(&data[..taken]);
        taken
    }

    fn accept_input(&self) {
        self.state.lock().unwrap().accepts += 1;
    }

    fn set_parameters(&self, parameters: SerialParameters) {
        self.state.lock().unwrap().parameters = Some(parameters);
    }

    fn set_break(&self, on: bool) {
        self.state.lock().unwrap().breaking = on;
    }
}

/// A power sink that remembers the requests.
pub fn power_probe() -> (PowerSink, Arc<Mutex<Vec<PowerRequest>>>) {
    let seen: Arc<Mutex<Vec<PowerRequest>>> = Arc::default();
    let sink = Arc::clone(&seen);
    (Arc::new(move |request| sink.lock().unwrap().push(request)), seen)
}

/// A small fixed-sequence generator for tests over random programs (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Takes message-signalled interrupts and remembers them.
#[derive(Default)]
pub struct MessageProbe(Mutex<Vec<(u64, u32)>>);

impl MessageProbe {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What came since the last call: address and data.
    pub fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl MsiSink for MessageProbe {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}
