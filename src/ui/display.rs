//! The display: the machine's consoles, which of them is shown, and who watches.
//!
//! Lock order: the surface lock, then the board lock (a graphics console refreshes from its adapter). Nobody takes
//! the surface lock under the board lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::input::{InputEvent, InputSink, KeyEvent};
use super::surface::{Cursor, Rect, Surface};

/// What a refresh changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refresh {
    /// These parts; none if empty.
    Changed(Vec<Rect>),
    /// The surface has another size and is all new.
    Resized,
}

/// What a console is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleKind {
    /// A guest's graphics adapter: input goes to the guest.
    Graphic,
    /// A terminal of ours: input goes to it.
    Text,
}

/// One console.
pub trait ConsoleSource: Send + Sync {
    /// Graphics or text.
    fn kind(&self) -> ConsoleKind;

    /// Draws what changed since the last call into `surface`; everything if `all`. It may replace the surface by one
    /// of another size.
    fn refresh(&self, surface: &mut Surface, all: bool) -> Refresh;

    /// The pointer that the adapter draws in hardware.
    fn cursor(&self) -> Option<Cursor> {
        None
    }

    /// A key, for text consoles.
    fn key(&self, _event: KeyEvent) {}

    /// A viewer would like this size (extended desktop size); a graphics adapter tells its guest by EDID.
    fn set_ui_size(&self, _width: u32, _height: u32) {}
}

/// Somebody who shows the display: the VNC server. Called on the main loop's thread; it must not block.
pub trait DisplayListener: Send + Sync {
    /// These parts of the surface changed.
    fn updated(&self, rects: &[Rect]);
    /// The surface has another size and is all new.
    fn resized(&self);
    /// The pointer image changed.
    fn cursor_changed(&self, _cursor: Option<&Cursor>) {}
    /// The guest's pointer became absolute or relative.
    fn pointer_mode_changed(&self, _absolute: bool) {}
    /// Whether a viewer is there at all: with none, the display is not refreshed.
    fn is_watching(&self) -> bool;
}

struct State {
    surface: Surface,
    shown: usize,
    redraw: bool,
}

/// All consoles and the surface that shows one of them.
pub struct Display {
    state: Mutex<State>,
    consoles: Mutex<Vec<(String, Arc<dyn ConsoleSource>)>>,
    listeners: Mutex<Vec<Arc<dyn DisplayListener>>>,
    guest_input: Mutex<Option<Arc<dyn InputSink>>>,
    modifiers: Mutex<Modifiers>,
}

#[derive(Default)]
struct Modifiers {
    ctrl: bool,
    alt: bool,
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value stays whole if a holder panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Display {
    /// A display without consoles: it shows a black surface of QEMU's default size.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { surface: Surface::new(640, 480), shown: 0, redraw: true }),
            consoles: Mutex::default(),
            listeners: Mutex::default(),
            guest_input: Mutex::default(),
            modifiers: Mutex::default(),
        }
    }

    /// Appends a console; the first one is shown. Returns its number from 0.
    pub fn add_console(&self, name: &str, console: Arc<dyn ConsoleSource>) -> usize {
        let mut consoles = lock(&self.consoles);
        consoles.push((name.to_owned(), console));
        consoles.len() - 1
    }

    /// The consoles' names, in order.
    #[must_use]
    pub fn console_names(&self) -> Vec<String> {
        lock(&self.consoles).iter().map(|(name, _)| name.clone()).collect()
    }

    /// A console by its number.
    #[must_use]
    pub fn console(&self, index: usize) -> Option<Arc<dyn ConsoleSource>> {
        lock(&self.consoles).get(index).map(|(_, console)| Arc::clone(console))
    }

    /// Where a guest's input goes.
    pub fn set_guest_input(&self, sink: Arc<dyn InputSink>) {
        *lock(&self.guest_input) = Some(sink);
    }

    /// Somebody else who shows the display.
    pub fn add_listener(&self, listener: Arc<dyn DisplayListener>) {
        lock(&self.listeners).push(listener);
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        lock(&self.listeners).iter().any(|listener| listener.is_watching())
    }

    /// Calls `f` with the surface as it is.
    pub fn with_surface<R>(&self, f: impl FnOnce(&Surface) -> R) -> R {
        f(&lock(&self.state).surface)
    }

    /// The number of the console that is shown.
    #[must_use]
    pub fn shown(&self) -> usize {
        lock(&self.state).shown
    }

    /// Shows another console, from 0; a number that does not exist is ignored.
    pub fn select(&self, index: usize) {
        if index >= lock(&self.consoles).len() {
            return;
        }
        {
            let mut state = lock(&self.state);
            if state.shown == index {
                return;
            }
            state.shown = index;
            state.redraw = true;
        }
        self.refresh();
    }

    /// Brings the surface up to date and tells the listeners. The main loop calls it at the display's rate.
    pub fn refresh(&self) {
        let refresh = {
            let mut state = lock(&self.state);
            let State { surface, shown, redraw } = &mut *state;
            let Some(console) = self.console(*shown) else { return };
            let all = std::mem::replace(redraw, false);
            let size = (surface.width(), surface.height());
            let refresh = console.refresh(surface, all);
            if size == (surface.width(), surface.height()) {
                if all { Refresh::Changed(vec![surface.bounds()]) } else { refresh }
            } else {
                Refresh::Resized
            }
        };
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            match &refresh {
                Refresh::Changed(rects) if rects.is_empty() => {}
                Refresh::Changed(rects) => listener.updated(rects),
                Refresh::Resized => listener.resized(),
            }
        }
    }

    /// The guest's pointer became absolute or relative.
    pub fn pointer_mode_changed(&self, absolute: bool) {
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener.pointer_mode_changed(absolute);
        }
    }

    /// Whether the guest's pointer takes absolute positions.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        lock(&self.guest_input).as_ref().is_some_and(|sink| sink.is_absolute())
    }

    /// An event from a viewer: Ctrl-Alt-digit selects a console, the rest goes to the console that is shown.
    pub fn input(&self, event: InputEvent) {
        if let InputEvent::Key(key) = event
            && let Some(index) = self.console_key(key)
        {
            self.select(index);
            return;
        }
        let Some(console) = self.console(self.shown()) else { return };
        match (console.kind(), event) {
            (ConsoleKind::Text, InputEvent::Key(key)) => console.key(key),
            (ConsoleKind::Text, _) => {}
            (ConsoleKind::Graphic, event) => {
                let sink = lock(&self.guest_input).clone();
                if let Some(sink) = sink {
                    sink.input(event);
                }
            }
        }
    }

    /// The console that a key press with Ctrl and Alt held selects: 1-9 on the main row.
    fn console_key(&self, key: KeyEvent) -> Option<usize> {
        let code = key.code?.0;
        let mut modifiers = lock(&self.modifiers);
        match code {
            0x1d | 0x9d => modifiers.ctrl = key.down,
            0x38 | 0xb8 => modifiers.alt = key.down,
            _ => {}
        }
        let digit = usize::from(code).checked_sub(2).filter(|digit| *digit < 9)?;
        (key.down && modifiers.ctrl && modifiers.alt).then_some(digit)
    }
}

impl std::fmt::Debug for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Display({} consoles)", lock(&self.consoles).len())
    }
}
