//! The display: the machine's consoles, which of them is shown, and who watches.
//!
//! Lock order: the surface lock, then the board lock (a graphics console refreshes from its adapter). Nobody takes
//! the surface lock under the board lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::input::{InputEvent, InputSink, KeyEvent, Leds};
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
    /// The guest set its keyboard's lights.
    fn leds_changed(&self, _leds: Leds) {}
    /// Whether a viewer is there at all: with none, the display is not refreshed.
    fn is_watching(&self) -> bool;
}

struct State {
    surface: Surface,
    shown: usize,
    redraw: bool,
    /// The pointer image, its mode and the lights that the listeners were told.
    cursor: Option<Cursor>,
    absolute: Option<bool>,
    leds: Option<Leds>,
}

/// Calls for a refresh soon; see [`Display::set_waker`].
type Waker = Arc<dyn Fn() + Send + Sync>;

/// All consoles and the surface that shows one of them.
pub struct Display {
    state: Mutex<State>,
    consoles: Mutex<Vec<(String, Arc<dyn ConsoleSource>)>>,
    listeners: Mutex<Vec<Arc<dyn DisplayListener>>>,
    guest_input: Mutex<Option<Arc<dyn InputSink>>>,
    keys: Mutex<Keys>,
    waker: Mutex<Option<Waker>>,
}

/// The keys that viewers hold down.
#[derive(Default)]
struct Keys {
    ctrl: bool,
    alt: bool,
    /// Those that the shown console was told of: it is told of their release when another one is shown.
    held: Vec<KeyEvent>,
}

/// More keys than hands hold; further ones are not remembered.
const MAX_HELD: usize = 64;

impl Keys {
    /// Remembers a press; whether the event concerns a console at all: a release without its press does not.
    fn take(&mut self, key: KeyEvent) -> bool {
        let is_same = |held: &KeyEvent| match (held.code, key.code) {
            (Some(held), Some(code)) => held == code,
            _ => held.keysym == key.keysym,
        };
        match (self.held.iter().position(is_same), key.down) {
            (Some(index), false) => {
                self.held.swap_remove(index);
                true
            }
            (None, false) => self.held.len() >= MAX_HELD,
            (Some(_), true) => true,
            (None, true) => {
                if self.held.len() < MAX_HELD {
                    self.held.push(key);
                }
                true
            }
        }
    }
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
            state: Mutex::new(State {
                surface: Surface::new(640, 480),
                shown: 0,
                redraw: true,
                cursor: None,
                absolute: None,
                leds: None,
            }),
            consoles: Mutex::default(),
            listeners: Mutex::default(),
            guest_input: Mutex::default(),
            keys: Mutex::default(),
            waker: Mutex::default(),
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

    /// An event for the guest, whatever console is shown.
    pub fn guest_input(&self, event: InputEvent) {
        let sink = lock(&self.guest_input).clone();
        if let Some(sink) = sink {
            sink.input(event);
        }
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
        let old = {
            let mut state = lock(&self.state);
            if state.shown == index {
                return;
            }
            state.redraw = true;
            std::mem::replace(&mut state.shown, index)
        };
        let held = std::mem::take(&mut lock(&self.keys).held);
        for key in held {
            self.deliver(old, InputEvent::Key(KeyEvent { down: false, ..key }));
        }
        if !self.wake() {
            self.refresh();
        }
    }

    /// What [`Display::wake`] calls: a [`DisplayTicker`](super::DisplayTicker), as a rule. It may be called on any
    /// thread with any lock held.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        *lock(&self.waker) = Some(Arc::new(waker));
    }

    /// Asks for a refresh soon: a viewer came, or somebody types. False if there is nobody to ask.
    pub fn wake(&self) -> bool {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = &waker {
            waker();
        }
        waker.is_some()
    }

    /// Brings the surface up to date and tells the listeners.
    pub fn refresh(&self) {
        // Whether anything changed matters to the ticker only.
        let _ = self.update();
    }

    /// As [`Display::refresh`]; whether anything changed. The main loop calls it at the display's rate.
    pub fn update(&self) -> bool {
        let absolute = self.is_absolute();
        let new_leds = self.leds();
        let (refresh, cursor, mode, leds) = {
            let mut state = lock(&self.state);
            let State { surface, shown, redraw, cursor, absolute: known_mode, leds } = &mut *state;
            let Some(console) = self.console(*shown) else { return false };
            let all = std::mem::replace(redraw, false);
            let size = (surface.width(), surface.height());
            let refresh = console.refresh(surface, all);
            let refresh = if size == (surface.width(), surface.height()) {
                if all { Refresh::Changed(vec![surface.bounds()]) } else { refresh }
            } else {
                Refresh::Resized
            };
            let new_cursor = console.cursor();
            let changed_cursor = (*cursor != new_cursor).then(|| new_cursor.clone());
            *cursor = new_cursor;
            let changed_mode = (known_mode.replace(absolute) != Some(absolute)).then_some(absolute);
            let changed_leds = new_leds.filter(|new| leds.replace(*new) != Some(*new));
            (refresh, changed_cursor, changed_mode, changed_leds)
        };
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            match &refresh {
                Refresh::Changed(rects) if rects.is_empty() => {}
                Refresh::Changed(rects) => listener.updated(rects),
                Refresh::Resized => listener.resized(),
            }
            if let Some(cursor) = &cursor {
                listener.cursor_changed(cursor.as_ref());
            }
            if let Some(absolute) = mode {
                listener.pointer_mode_changed(absolute);
            }
            if let Some(leds) = leds {
                listener.leds_changed(leds);
            }
        }
        refresh != Refresh::Changed(Vec::new()) || cursor.is_some()
    }

    /// What a console shows now, for `screendump`; `None` if there is no such console.
    #[must_use]
    pub fn picture(&self, index: usize) -> Option<Surface> {
        let console = self.console(index)?;
        if index == self.shown() {
            self.refresh();
            return Some(self.with_surface(Surface::clone));
        }
        // What the console remembers of its last drawing is of no use any more, but selecting it draws all.
        let mut surface = Surface::new(640, 480);
        console.refresh(&mut surface, true);
        Some(surface)
    }

    /// The guest's pointer became absolute or relative: tells the listeners at once rather than at the next refresh.
    pub fn pointer_mode_changed(&self, absolute: bool) {
        if lock(&self.state).absolute.replace(absolute) == Some(absolute) {
            return;
        }
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

    /// The lights of the guest's keyboard, if the guest sets them.
    fn leds(&self) -> Option<Leds> {
        let sink = lock(&self.guest_input).clone();
        sink.and_then(|sink| sink.leds())
    }

    /// An event from a viewer: Ctrl-Alt-digit selects a console, the rest goes to the console that is shown.
    pub fn input(&self, event: InputEvent) {
        if let InputEvent::Key(key) = event
            && let Some(index) = self.console_key(key)
        {
            self.select(index);
            return;
        }
        if let InputEvent::Key(key) = event
            && !lock(&self.keys).take(key)
        {
            return;
        }
        self.deliver(self.shown(), event);
        self.wake();
    }

    /// Gives an event to a console, or to the guest behind it.
    fn deliver(&self, console: usize, event: InputEvent) {
        let Some(console) = self.console(console) else { return };
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
        let mut keys = lock(&self.keys);
        match code {
            0x1d | 0x9d => keys.ctrl = key.down,
            0x38 | 0xb8 => keys.alt = key.down,
            _ => {}
        }
        let digit = usize::from(code).checked_sub(2).filter(|digit| *digit < 9)?;
        (key.down && keys.ctrl && keys.alt).then_some(digit)
    }
}

impl std::fmt::Debug for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Display({} consoles)", lock(&self.consoles).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{KeyCode, Rect};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A console that counts and remembers.
    struct Console {
        kind: ConsoleKind,
        size: (u32, u32),
        changed: AtomicBool,
        cursor: Mutex<Option<Cursor>>,
        keys: Mutex<Vec<(u8, bool)>>,
    }

    impl Console {
        fn new(kind: ConsoleKind, width: u32) -> Arc<Self> {
            Arc::new(Self {
                kind,
                size: (width, 10),
                changed: AtomicBool::new(false),
                cursor: Mutex::default(),
                keys: Mutex::default(),
            })
        }
    }

    impl ConsoleSource for Console {
        fn kind(&self) -> ConsoleKind {
            self.kind
        }

        fn refresh(&self, surface: &mut Surface, _all: bool) -> Refresh {
            if (surface.width(), surface.height()) != self.size {
                *surface = Surface::new(self.size.0, self.size.1);
                return Refresh::Resized;
            }
            let changed = self.changed.swap(false, Ordering::Relaxed);
            Refresh::Changed(if changed { vec![Rect { x: 1, y: 2, width: 3, height: 4 }] } else { Vec::new() })
        }

        fn cursor(&self) -> Option<Cursor> {
            lock(&self.cursor).clone()
        }

        fn key(&self, event: KeyEvent) {
            lock(&self.keys).push((event.code.unwrap().0, event.down));
        }
    }

    /// Records what a viewer is told.
    #[derive(Default)]
    struct Viewer {
        told: Mutex<Vec<String>>,
    }

    impl Viewer {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.told))
        }
    }

    impl DisplayListener for Viewer {
        fn updated(&self, rects: &[Rect]) {
            lock(&self.told).push(format!("updated {}", rects.len()));
        }
        fn resized(&self) {
            lock(&self.told).push("resized".to_owned());
        }
        fn cursor_changed(&self, cursor: Option<&Cursor>) {
            lock(&self.told).push(format!("cursor {}", cursor.map_or(0, |cursor| cursor.width)));
        }
        fn pointer_mode_changed(&self, absolute: bool) {
            lock(&self.told).push(format!("absolute {absolute}"));
        }
        fn leds_changed(&self, leds: Leds) {
            lock(&self.told).push(format!("leds {}", leds.bits()));
        }
        fn is_watching(&self) -> bool {
            true
        }
    }

    #[derive(Default)]
    struct Guest {
        absolute: AtomicBool,
        leds: Mutex<Option<Leds>>,
        events: Mutex<Vec<InputEvent>>,
    }

    impl InputSink for Guest {
        fn input(&self, event: InputEvent) {
            lock(&self.events).push(event);
        }
        fn is_absolute(&self) -> bool {
            self.absolute.load(Ordering::Relaxed)
        }
        fn leds(&self) -> Option<Leds> {
            *lock(&self.leds)
        }
    }

    struct Bench {
        display: Display,
        graphic: Arc<Console>,
        text: Arc<Console>,
        viewer: Arc<Viewer>,
        guest: Arc<Guest>,
    }

    impl Bench {
        fn new() -> Self {
            let bench = Self {
                display: Display::new(),
                graphic: Console::new(ConsoleKind::Graphic, 20),
                text: Console::new(ConsoleKind::Text, 30),
                viewer: Arc::default(),
                guest: Arc::default(),
            };
            bench.display.add_console("VGA", Arc::clone(&bench.graphic) as Arc<dyn ConsoleSource>);
            bench.display.add_console("serial0", Arc::clone(&bench.text) as Arc<dyn ConsoleSource>);
            bench.display.add_listener(Arc::clone(&bench.viewer) as Arc<dyn DisplayListener>);
            bench.display.set_guest_input(Arc::clone(&bench.guest) as Arc<dyn InputSink>);
            bench
        }

        fn key(&self, code: u8, down: bool) {
            self.display.input(InputEvent::Key(KeyEvent { code: Some(KeyCode(code)), keysym: 0, down }));
        }

        fn guest_keys(&self) -> Vec<(u8, bool)> {
            lock(&self.guest.events)
                .drain(..)
                .filter_map(|event| match event {
                    InputEvent::Key(key) => Some((key.code?.0, key.down)),
                    _ => None,
                })
                .collect()
        }
    }

    #[test]
    fn viewers_are_told_what_changed_and_nothing_else() {
        let b = Bench::new();
        assert!(b.display.update());
        assert_eq!(b.viewer.take(), ["resized", "absolute false"]);
        assert!(!b.display.update());
        assert_eq!(b.viewer.take(), Vec::<String>::new());
        b.graphic.changed.store(true, Ordering::Relaxed);
        assert!(b.display.update());
        assert_eq!(b.viewer.take(), ["updated 1"]);
    }

    #[test]
    fn the_pointer_image_and_mode_are_told_once() {
        let b = Bench::new();
        b.display.update();
        b.viewer.take();
        let cursor = Cursor { width: 8, height: 1, hot_x: 0, hot_y: 0, pixels: vec![0; 8] };
        *lock(&b.graphic.cursor) = Some(cursor);
        b.guest.absolute.store(true, Ordering::Relaxed);
        b.display.update();
        b.display.update();
        b.display.pointer_mode_changed(true);
        assert_eq!(b.viewer.take(), ["cursor 8", "absolute true"]);
        *lock(&b.graphic.cursor) = None;
        b.display.update();
        assert_eq!(b.viewer.take(), ["cursor 0"]);
    }

    #[test]
    fn the_lights_are_told_once_the_guest_sets_them() {
        let b = Bench::new();
        b.display.update();
        b.viewer.take();
        *lock(&b.guest.leds) = Some(Leds::from_bits(0));
        b.display.update();
        b.display.update();
        *lock(&b.guest.leds) = Some(Leds::from_bits(4));
        b.display.update();
        assert_eq!(b.viewer.take(), ["leds 0", "leds 4"]);
    }

    #[test]
    fn ctrl_alt_digits_switch_and_the_old_console_sees_its_keys_released() {
        let b = Bench::new();
        b.display.update();
        b.viewer.take();
        b.key(0x1d, true);
        b.key(0x38, true);
        b.key(0x03, true);
        assert_eq!((b.display.shown(), b.viewer.take()), (1, vec!["resized".to_owned()]));
        assert_eq!(b.guest_keys(), [(0x1d, true), (0x38, true), (0x1d, false), (0x38, false)]);
        b.key(0x03, false);
        b.key(0x38, false);
        b.key(0x1d, false);
        b.key(0x1e, true);
        b.key(0x1e, false);
        assert_eq!(*lock(&b.text.keys), [(0x1e, true), (0x1e, false)]);
        assert_eq!(b.guest_keys(), []);
    }

    #[test]
    fn a_console_that_does_not_exist_is_not_selected() {
        let b = Bench::new();
        b.display.select(2);
        assert_eq!(b.display.shown(), 0);
        b.key(0x1d, true);
        b.key(0x38, true);
        b.key(0x0a, true);
        assert_eq!(b.display.shown(), 0);
    }

    #[test]
    fn a_picture_shows_any_console_and_disturbs_none() {
        let b = Bench::new();
        b.display.update();
        b.graphic.changed.store(true, Ordering::Relaxed);
        b.viewer.take();
        assert_eq!(b.display.picture(1).unwrap().width(), 30);
        assert_eq!(b.viewer.take(), Vec::<String>::new());
        assert_eq!(b.display.picture(0).unwrap().width(), 20);
        assert_eq!(b.viewer.take(), ["updated 1"]);
        assert!(b.display.picture(2).is_none());
    }

    #[test]
    fn typing_wakes_the_display() {
        let b = Bench::new();
        assert!(!b.display.wake());
        let woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&woken);
        b.display.set_waker(move || flag.store(true, Ordering::Relaxed));
        b.key(0x1e, true);
        assert!(woken.load(Ordering::Relaxed));
    }
}
