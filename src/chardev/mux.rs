//! The multiplexer: several front ends on one back end, and the keys that follow the escape character.
//!
//! Output of all front ends goes to the back end; input goes to the one that is chosen. After the escape character
//! (Ctrl-A), `h` prints help, `x` ends the machine, `s` flushes the disks, `b` sends a break, `c` chooses the next
//! front end, `t` switches time stamps, and a second escape character is sent itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use crate::event::{LoopHandle, NS_PER_SEC, monotonic_ns};

use super::backend::Backend;
use super::handle::{CharEvent, CharHandle, CharOutput, CharSink, SerialParameters};
use super::inlet::{Inlet, lock};

/// How many front ends one multiplexer takes.
const MAX_FRONT_ENDS: usize = 4;

/// Input that waits for the front end that had the focus when it came.
const QUEUE_LIMIT: usize = 256;

/// What the escape keys of a multiplexer do to the machine, and which character introduces them.
#[derive(Clone)]
pub struct MuxKeys {
    /// `-echr`, Ctrl-A by default.
    pub escape: u8,
    /// `x`.
    pub quit: Arc<dyn Fn() + Send + Sync>,
    /// `s`.
    pub sync_disks: Arc<dyn Fn() + Send + Sync>,
}

impl Default for MuxKeys {
    fn default() -> Self {
        Self { escape: 1, quit: Arc::new(|| ()), sync_disks: Arc::new(|| ()) }
    }
}

impl std::fmt::Debug for MuxKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MuxKeys(escape {:#04x})", self.escape)
    }
}

/// Where a new front end of a multiplexer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It gets the input.
    Front,
    /// It gets the input only if nobody has it.
    Behind,
}

struct FrontEnd {
    inlet: Arc<Inlet>,
    queue: VecDeque<u8>,
}

#[derive(Default)]
struct State {
    fronts: Vec<FrontEnd>,
    focus: Option<usize>,
    /// The escape character came.
    escaped: bool,
    /// Time stamps are on; where they count from.
    timestamps: Option<u64>,
    /// The next output begins a line.
    line_start: bool,
    /// Output that the back end had no room for: help, time stamps.
    pending: VecDeque<u8>,
}

/// The multiplexer.
pub(super) struct Mux {
    me: Weak<Self>,
    handle: LoopHandle,
    base: CharHandle,
    base_inlet: Arc<Inlet>,
    keys: MuxKeys,
    state: Mutex<State>,
}

/// What a key press asks for, once the lock is gone.
enum Action {
    None,
    Input(u8),
    Help,
    Quit,
    Sync,
    Break,
    Switch,
}

impl Mux {
    pub(super) fn new(handle: LoopHandle, base: CharHandle, base_inlet: Arc<Inlet>, keys: MuxKeys) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            handle,
            base,
            base_inlet,
            keys,
            state: Mutex::new(State { line_start: true, ..State::default() }),
        })
    }

    /// A place for one more front end; the newest one gets the input. `None`: all places are taken.
    pub(super) fn add(self: &Arc<Self>) -> Option<(CharHandle, Arc<Inlet>)> {
        let inlet = Arc::new(Inlet::default());
        let index = {
            let mut state = lock(&self.state);
            if state.fronts.len() >= MAX_FRONT_ENDS {
                return None;
            }
            state.fronts.push(FrontEnd { inlet: Arc::clone(&inlet), queue: VecDeque::new() });
            state.fronts.len() - 1
        };
        let front = MuxFront { mux: Arc::clone(self), index };
        Some((CharHandle::new(Arc::new(front)), inlet))
    }

    /// The sink of a front end is there: it gets the focus, unless another one comes before the loop turns, or it
    /// stands behind (`Place::Behind`) and another one has it.
    pub(super) fn connected(self: &Arc<Self>, inlet: &Arc<Inlet>, place: Place) {
        if place == Place::Behind && self.focus().is_some() {
            // Now, not when the loop turns: the back end's news that it is open may be on its way already.
            inlet.event(CharEvent::MuxOut);
        }
        {
            let mut state = lock(&self.state);
            let Some(index) = state.fronts.iter().position(|front| Arc::ptr_eq(&front.inlet, inlet)) else { return };
            if place == Place::Behind && state.focus.is_some() {
                // The front end with the focus keeps it.
            } else if let Some(old) = state.focus.replace(index).and_then(|old| state.fronts.get(old)) {
                let (mux, old) = (Arc::clone(self), Arc::clone(&old.inlet));
                self.handle.post(move || {
                    if mux.focus().is_none_or(|focus| !Arc::ptr_eq(&focus, &old)) {
                        old.event(CharEvent::MuxOut);
                    }
                });
            }
        }
        let (mux, inlet) = (Arc::clone(self), Arc::clone(inlet));
        self.handle.post(move || {
            let focused = mux.focus().is_some_and(|focus| Arc::ptr_eq(&focus, &inlet));
            // First who has the input, so that nobody greets on a stream that shows another.
            inlet.event(if focused { CharEvent::MuxIn } else { CharEvent::MuxOut });
            if mux.base_inlet.is_open() {
                inlet.opened();
            }
            mux.base.accept_input();
        });
    }

    fn set_focus(&self, index: usize) {
        let (old, new) = {
            let mut state = lock(&self.state);
            let old = state.focus.replace(index);
            let old = old.and_then(|old| state.fronts.get(old)).map(|front| Arc::clone(&front.inlet));
            (old, state.fronts.get(index).map(|front| Arc::clone(&front.inlet)))
        };
        if let Some(old) = old {
            old.event(CharEvent::MuxOut);
        }
        if let Some(new) = new {
            new.event(CharEvent::MuxIn);
        }
        self.base.accept_input();
    }

    fn inlets(&self) -> Vec<Arc<Inlet>> {
        lock(&self.state).fronts.iter().map(|front| Arc::clone(&front.inlet)).collect()
    }

    fn key(&self, byte: u8) -> Action {
        let mut state = lock(&self.state);
        if !std::mem::replace(&mut state.escaped, false) {
            if byte == self.keys.escape {
                state.escaped = true;
                return Action::None;
            }
            return Action::Input(byte);
        }
        if byte == self.keys.escape {
            return Action::Input(byte);
        }
        match byte {
            b'?' | b'h' => Action::Help,
            b'x' => Action::Quit,
            b's' => Action::Sync,
            b'b' => Action::Break,
            b'c' => Action::Switch,
            b't' => {
                state.timestamps = match state.timestamps {
                    Some(_) => None,
                    None => Some(monotonic_ns()),
                };
                state.line_start = false;
                Action::None
            }
            _ => Action::None,
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::None => {}
            Action::Input(byte) => self.queue_input(byte),
            Action::Help => self.say(&help(self.keys.escape)),
            Action::Quit => {
                self.say("QEMU: Terminated\n\r");
                (self.keys.quit)();
            }
            Action::Sync => (self.keys.sync_disks)(),
            Action::Break => {
                if let Some(inlet) = self.focus() {
                    inlet.event(CharEvent::Break);
                }
            }
            Action::Switch => {
                let next = {
                    let state = lock(&self.state);
                    state.focus.filter(|_| !state.fronts.is_empty()).map(|focus| (focus + 1) % state.fronts.len())
                };
                if let Some(next) = next {
                    self.set_focus(next);
                }
            }
        }
    }

    fn focus(&self) -> Option<Arc<Inlet>> {
        let state = lock(&self.state);
        state.fronts.get(state.focus?).map(|front| Arc::clone(&front.inlet))
    }

    fn queue_input(&self, byte: u8) {
        let mut state = lock(&self.state);
        let Some(focus) = state.focus else { return };
        if let Some(front) = state.fronts.get_mut(focus)
            && front.queue.len() < QUEUE_LIMIT
        {
            front.queue.push_back(byte);
        }
    }

    /// Delivers what waits for each front end as far as it has room. On the loop's thread.
    fn deliver(&self) {
        for (index, inlet) in self.inlets().into_iter().enumerate() {
            loop {
                let room = inlet.room();
                let data: Vec<u8> = {
                    let mut state = lock(&self.state);
                    let Some(front) = state.fronts.get_mut(index) else { break };
                    let count = room.min(front.queue.len());
                    front.queue.drain(..count).collect()
                };
                if data.is_empty() {
                    break;
                }
                inlet.receive(&data);
            }
        }
    }

    /// Text of our own.
    fn say(&self, text: &str) {
        let mut state = lock(&self.state);
        let room = QUEUE_LIMIT * 8 - state.pending.len().min(QUEUE_LIMIT * 8);
        state.pending.extend(text.bytes().take(room));
        self.flush(&mut state);
    }

    fn flush(&self, state: &mut State) {
        while !state.pending.is_empty() {
            let (piece, _) = state.pending.as_slices();
            let count = self.base.write(piece);
            state.pending.drain(..count);
            if count == 0 {
                return;
            }
        }
    }

    fn write(&self, data: &[u8]) -> usize {
        let mut state = lock(&self.state);
        self.flush(&mut state);
        if !state.pending.is_empty() {
            return 0;
        }
        let Some(start) = state.timestamps else { return self.base.write(data) };
        let mut done = 0;
        for line in data.split_inclusive(|&byte| byte == b'\n') {
            if std::mem::replace(&mut state.line_start, false) {
                let elapsed_ms = monotonic_ns().saturating_sub(start) / (NS_PER_SEC / 1000);
                let seconds = elapsed_ms / 1000;
                let stamp = format!(
                    "[{:02}:{:02}:{:02}.{:03}] ",
                    seconds / 3600,
                    seconds / 60 % 60,
                    seconds % 60,
                    elapsed_ms % 1000
                );
                state.pending.extend(stamp.bytes());
                self.flush(&mut state);
                if !state.pending.is_empty() {
                    return done;
                }
            }
            let count = self.base.write(line);
            done += count;
            if count < line.len() {
                return done;
            }
            state.line_start = line.ends_with(b"\n");
        }
        done
    }
}

/// QEMU's help, byte for byte.
fn help(escape: u8) -> String {
    let (mut text, name) = match escape {
        1..=26 => (String::new(), format!("C-{}", char::from(escape - 1 + b'a'))),
        _ => (format!("\n\rEscape-Char set to Ascii: 0x{escape:02x}\n\r"), "Escape-Char".to_owned()),
    };
    text.push_str("\n\r");
    for (key, meaning) in [
        ("h", "print this help"),
        ("x", "exit emulator"),
        ("s", "save disk data back to file (if -snapshot)"),
        ("t", "toggle console timestamps"),
        ("b", "send break (magic sysrq)"),
        ("c", "switch between console and monitor"),
    ] {
        text.push_str(&format!("{name} {key}    {meaning}\n\r"));
    }
    text.push_str(&format!("{name} {name}  sends {name}\n\r"));
    text
}

/// The multiplexer as its back end sees it.
impl CharSink for Mux {
    fn room(&self) -> usize {
        let waits = {
            let state = lock(&self.state);
            state.focus.and_then(|focus| state.fronts.get(focus)).map_or(0, |front| front.queue.len())
        };
        // Escape keys are always heard: the queue takes what the front end does not.
        QUEUE_LIMIT - waits.min(QUEUE_LIMIT)
    }

    fn receive(&self, data: &[u8]) {
        for &byte in data {
            let action = self.key(byte);
            if !matches!(action, Action::None | Action::Input(_)) {
                // What came before the key belongs to the front end that had the focus then.
                self.deliver();
            }
            self.act(action);
        }
        self.deliver();
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Opened => self.inlets().iter().for_each(|inlet| inlet.opened()),
            CharEvent::Closed => self.inlets().iter().for_each(|inlet| inlet.closed()),
            CharEvent::Break => {
                if let Some(inlet) = self.focus() {
                    inlet.event(event);
                }
            }
            CharEvent::MuxIn | CharEvent::MuxOut => {}
        }
    }

    fn writable(&self) {
        {
            let mut state = lock(&self.state);
            self.flush(&mut state);
        }
        self.inlets().iter().for_each(|inlet| inlet.writable());
    }
}

/// The multiplexer as one of its front ends sees it.
struct MuxFront {
    mux: Arc<Mux>,
    index: usize,
}

impl CharOutput for MuxFront {
    fn write(&self, data: &[u8]) -> usize {
        self.mux.write(data)
    }

    fn accept_input(&self) {
        let has_input = lock(&self.mux.state).fronts.get(self.index).is_some_and(|front| !front.queue.is_empty());
        if has_input {
            let mux = self.mux.me.clone();
            self.mux.handle.post(move || {
                if let Some(mux) = mux.upgrade() {
                    mux.deliver();
                    mux.base.accept_input();
                }
            });
        } else {
            self.mux.base.accept_input();
        }
    }

    fn set_parameters(&self, parameters: SerialParameters) {
        self.mux.base.set_parameters(parameters);
    }

    fn set_break(&self, on: bool) {
        self.mux.base.set_break(on);
    }
}

/// The multiplexer in the registry. Nobody writes to it but through [`Mux::add`].
pub(super) struct MuxBackend(pub(super) Arc<Mux>);

impl CharOutput for MuxBackend {
    fn write(&self, data: &[u8]) -> usize {
        self.0.write(data)
    }

    fn accept_input(&self) {
        self.0.base.accept_input();
    }
}

impl Backend for MuxBackend {
    fn filename(&self) -> String {
        "mux".to_owned()
    }

    fn mux(&self) -> Option<&Arc<Mux>> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_character_that_is_no_control_key_is_named_by_number() {
        let text = help(0x7f);
        assert!(text.starts_with("\n\rEscape-Char set to Ascii: 0x7f\n\r\n\rEscape-Char h    print this help\n\r"));
    }
}
