//! The display's clock: how often the surface is brought up to date.
//!
//! Every 30 ms while something changes; each refresh without a change adds 50 ms, up to 3 s; with nobody watching not
//! at all. A viewer that comes and every input event start again at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::event::{ClockKind, LoopHandle, Timer};

use super::display::Display;

const SHORTEST_NS: u64 = 30_000_000;
const LONGER_BY_NS: u64 = 50_000_000;
const LONGEST_NS: u64 = 3_000_000_000;

/// The time between refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace {
    interval_ns: u64,
}

impl Pace {
    const FAST: Self = Self { interval_ns: SHORTEST_NS };

    /// The time until the next refresh, after one that did or did not change anything.
    fn after(&mut self, changed: bool) -> u64 {
        self.interval_ns = if changed { SHORTEST_NS } else { (self.interval_ns + LONGER_BY_NS).min(LONGEST_NS) };
        self.interval_ns
    }
}

struct Inner {
    display: Arc<Display>,
    timer: OnceLock<Timer>,
    pace: Mutex<Pace>,
    /// Somebody called for a refresh since the last one began.
    woken: AtomicBool,
}

/// Refreshes a display on the main loop until it is dropped.
pub struct DisplayTicker {
    inner: Arc<Inner>,
}

impl fmt::Debug for DisplayTicker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DisplayTicker({:?})", self.inner.timer.get().and_then(Timer::deadline))
    }
}

impl DisplayTicker {
    /// Starts to refresh `display`, and becomes what [`Display::wake`] wakes.
    #[must_use]
    pub fn new(handle: &LoopHandle, display: &Arc<Display>) -> Self {
        let inner = Arc::new(Inner {
            display: Arc::clone(display),
            timer: OnceLock::new(),
            pace: Mutex::new(Pace::FAST),
            woken: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&inner);
        let timer = handle.timer(ClockKind::Host, with(&weak, Inner::tick));
        // The cell is new, so it is empty.
        let _ = inner.timer.set(timer);
        display.set_waker(with(&weak, Inner::wake));
        inner.wake();
        Self { inner }
    }
}

/// A callback that does nothing once the ticker is gone.
fn with(weak: &Weak<Inner>, act: fn(&Inner)) -> impl Fn() + Send + Sync + 'static {
    let weak = Weak::clone(weak);
    move || {
        if let Some(inner) = weak.upgrade() {
            act(&inner);
        }
    }
}

impl Inner {
    fn wake(&self) {
        let Some(timer) = self.timer.get() else { return };
        self.woken.store(true, Ordering::Release);
        let now = timer.now_ns();
        // A refresh that is due soon anyway is soon enough: keys come in bursts.
        if timer.deadline().is_none_or(|deadline| deadline > now + SHORTEST_NS) {
            timer.set(now);
        }
    }

    fn tick(&self) {
        let Some(timer) = self.timer.get() else { return };
        let mut woken = self.woken.swap(false, Ordering::AcqRel);
        if !self.display.is_watched() {
            // Whoever comes wakes the display.
            return;
        }
        let changed = self.display.update();
        woken |= self.woken.load(Ordering::Acquire);
        let interval = self.pace.lock().unwrap_or_else(PoisonError::into_inner).after(changed || woken);
        timer.set(timer.now_ns() + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clock, EventLoop};
    use crate::ui::{ConsoleKind, ConsoleSource, DisplayListener, Rect, Refresh, Surface};
    use std::sync::atomic::AtomicU32;

    #[test]
    fn the_pace_slackens_while_nothing_changes() {
        let mut pace = Pace::FAST;
        assert_eq!([true, false, false].map(|changed| pace.after(changed) / 1_000_000), [30, 80, 130]);
        assert_eq!((0..100).map(|_| pace.after(false)).last(), Some(LONGEST_NS));
        assert_eq!(pace.after(true), SHORTEST_NS);
    }

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl ConsoleSource for Counter {
        fn kind(&self) -> ConsoleKind {
            ConsoleKind::Text
        }
        fn refresh(&self, _surface: &mut Surface, _all: bool) -> Refresh {
            self.0.fetch_add(1, Ordering::Relaxed);
            Refresh::Changed(Vec::new())
        }
    }

    #[derive(Default)]
    struct Viewer(AtomicBool);

    impl DisplayListener for Viewer {
        fn updated(&self, _rects: &[Rect]) {}
        fn resized(&self) {}
        fn is_watching(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn nothing_is_drawn_until_a_viewer_wakes_the_display() {
        let event_loop = EventLoop::new(Clock::stopped()).unwrap();
        let display = Arc::new(Display::new());
        let (console, viewer) = (Arc::new(Counter::default()), Arc::new(Viewer::default()));
        display.add_console("counter", Arc::clone(&console) as Arc<dyn ConsoleSource>);
        display.add_listener(Arc::clone(&viewer) as Arc<dyn DisplayListener>);
        let ticker = DisplayTicker::new(&event_loop.handle(), &display);
        let deadline = || ticker.inner.timer.get().unwrap().deadline();
        event_loop.run_pending().unwrap();
        assert_eq!((console.0.load(Ordering::Relaxed), deadline()), (0, None));
        viewer.0.store(true, Ordering::Relaxed);
        assert!(display.wake());
        event_loop.run_pending().unwrap();
        assert_eq!(console.0.load(Ordering::Relaxed), 1);
        assert!(deadline().is_some());
    }

    #[test]
    fn a_dropped_ticker_leaves_the_display_alone() {
        let event_loop = EventLoop::new(Clock::stopped()).unwrap();
        let display = Arc::new(Display::new());
        drop(DisplayTicker::new(&event_loop.handle(), &display));
        display.wake();
        event_loop.run_pending().unwrap();
    }
}
