//! A connected client: what its two threads share. One thread reads its messages, one sends it updates.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ui::Rect;

use super::encode::{Kind, Wish};
use super::listen::{Endpoint, Stream};
use super::message::{UpdateRequest, encoding};
use super::tiles::TileMap;

/// What a client understands beside rectangles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Features {
    pub(super) desktop_size: bool,
    pub(super) extended_desktop_size: bool,
    pub(super) rich_cursor: bool,
    pub(super) alpha_cursor: bool,
    pub(super) pointer_mode: bool,
    pub(super) extended_key: bool,
    pub(super) led_state: bool,
    pub(super) desktop_name: bool,
    pub(super) last_rect: bool,
    pub(super) xvp: bool,
}

impl Features {
    fn of(numbers: &[i32]) -> Self {
        let has: BTreeSet<i32> = numbers.iter().copied().collect();
        let has = |number: i32| has.contains(&number);
        Self {
            desktop_size: has(encoding::DESKTOP_SIZE),
            extended_desktop_size: has(encoding::EXTENDED_DESKTOP_SIZE),
            rich_cursor: has(encoding::RICH_CURSOR),
            alpha_cursor: has(encoding::ALPHA_CURSOR),
            pointer_mode: has(encoding::POINTER_MODE),
            extended_key: has(encoding::EXTENDED_KEY),
            led_state: has(encoding::LED_STATE),
            desktop_name: has(encoding::DESKTOP_NAME),
            last_rect: has(encoding::LAST_RECT),
            xvp: has(encoding::XVP),
        }
    }

    /// Whether the client's picture can take another size.
    pub(super) fn can_resize(self) -> bool {
        self.desktop_size || self.extended_desktop_size
    }
}

/// Why a client is told the picture's size (extended desktop size pseudo-encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SizeNotice {
    /// 0: the server's doing; 1: this client's wish.
    pub(super) reason: u16,
    /// 0: done; 4: passed on to the guest.
    pub(super) status: u16,
}

/// What a client is to be told beside pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Notices {
    pub(super) colour_map: bool,
    pub(super) xvp: bool,
    pub(super) size: Option<SizeNotice>,
    /// An answer to this client's wish for another size.
    pub(super) size_answer: Option<SizeNotice>,
    pub(super) extended_key: bool,
    pub(super) pointer_mode: bool,
    pub(super) led_state: bool,
    pub(super) cursor: bool,
    pub(super) desktop_name: bool,
}

/// A picture that was sent with losses is sent again without, once nothing else changed for this long.
const REFINE_AFTER: Duration = Duration::from_millis(500);

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Connecting,
    Watching { exclusive: bool },
    Closed,
}

struct State {
    stage: Stage,
    /// Whether it counts as a watcher, closed or not.
    counts: bool,
    wish: Wish,
    features: Features,
    /// The picture as the client knows it, and what of it is out of date.
    picture: TileMap,
    /// What it knows with losses only, and when that is mended.
    lossy: TileMap,
    refine_at: Option<Instant>,
    /// What the client asked for and has not got.
    request: Option<Rect>,
    notices: Notices,
}

/// Work for a client's sending thread.
pub(super) struct Work {
    pub(super) notices: Notices,
    pub(super) wish: Wish,
    pub(super) features: Features,
    /// The picture's size as the client is to know it.
    pub(super) size: (u32, u32),
    pub(super) rects: Vec<Rect>,
}

/// A connected client.
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) peer: Endpoint,
    pub(super) local: Endpoint,
    state: Mutex<State>,
    wake: Condvar,
}

impl Client {
    pub(super) fn new(stream: Stream, peer: Endpoint, local: Endpoint) -> Self {
        let state = State {
            stage: Stage::Connecting,
            counts: false,
            wish: Wish::DEFAULT,
            features: Features::default(),
            picture: TileMap::new(0, 0),
            lossy: TileMap::new(0, 0),
            refine_at: None,
            request: None,
            notices: Notices::default(),
        };
        Self { stream, peer, local, state: Mutex::new(state), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is whole between any two of its fields' changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    pub(super) fn features(&self) -> Features {
        self.lock().features
    }

    /// The handshake is over: the client gets a picture of this size. False if it was closed meanwhile.
    pub(super) fn watch(&self, exclusive: bool, (width, height): (u32, u32)) -> bool {
        let mut state = self.lock();
        if state.stage == Stage::Closed {
            return false;
        }
        state.stage = Stage::Watching { exclusive };
        state.counts = true;
        state.set_size(width, height);
        true
    }

    /// Whether it counted as a watcher until now.
    pub(super) fn stop_counting(&self) -> bool {
        std::mem::replace(&mut self.lock().counts, false)
    }

    /// Ends the connection: both threads return.
    pub(super) fn close(&self) {
        self.lock().stage = Stage::Closed;
        self.wake.notify_all();
        self.stream.shut_down();
    }

    /// Waits, but not longer than the client stays.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        // Whether the time is over or the client gone makes no difference to the caller.
        let _ = self.wake.wait_timeout_while(state, time, |state| state.stage != Stage::Closed);
    }

    pub(super) fn set_format(&self, format: super::format::Format) {
        let mut state = self.lock();
        state.wish.format = format;
        if format.colour_map {
            state.notices.colour_map = true;
            self.wake.notify_all();
        }
    }

    /// Takes up the client's list of encodings. `screen` is the present size, `lossy` whether JPEG may be used,
    /// `power_control` whether xvp may.
    pub(super) fn set_encodings(&self, numbers: &[i32], screen: (u32, u32), lossy: bool, power_control: bool) {
        let mut state = self.lock();
        let before = state.features;
        let features = Features::of(numbers);
        state.features = features;
        state.wish.kind = numbers.iter().find_map(|number| Kind::from_number(*number)).unwrap_or(Kind::Raw);
        let step = |from: i32, to: i32| {
            let found = numbers.iter().rev().find(|number| (from..=to).contains(*number))?;
            u8::try_from(found - from).ok()
        };
        state.wish.level = step(encoding::COMPRESS_WORST, encoding::COMPRESS_BEST).unwrap_or(Wish::DEFAULT.level);
        state.wish.quality = step(encoding::QUALITY_WORST, encoding::QUALITY_BEST).filter(|_| lossy);
        let notices = &mut state.notices;
        notices.extended_key |= features.extended_key && !before.extended_key;
        notices.pointer_mode |= features.pointer_mode;
        notices.led_state |= features.led_state;
        notices.cursor |= features.rich_cursor || features.alpha_cursor;
        notices.xvp |= features.xvp && power_control && !before.xvp;
        if features.extended_desktop_size && !before.extended_desktop_size {
            // The first one tells the client that it may wish for sizes.
            notices.size = Some(SizeNotice { reason: 0, status: 0 });
        }
        state.resize(screen);
        self.wake.notify_all();
    }

    pub(super) fn request(&self, request: UpdateRequest) {
        let part = Rect {
            x: request.x.into(),
            y: request.y.into(),
            width: request.width.into(),
            height: request.height.into(),
        };
        let mut state = self.lock();
        if !request.incremental {
            state.picture.mark(part);
        }
        state.request = Some(match state.request {
            Some(old) => union(old, part),
            None => part,
        });
        self.wake.notify_all();
    }

    /// These parts of the screen changed.
    pub(super) fn mark(&self, rects: &[Rect]) {
        let mut state = self.lock();
        for rect in rects {
            state.picture.mark(*rect);
        }
        self.wake.notify_all();
    }

    /// The screen has another size, and all of it is new.
    pub(super) fn resized(&self, screen: (u32, u32)) {
        let mut state = self.lock();
        state.picture.mark_all();
        state.resize(screen);
        self.wake.notify_all();
    }

    /// Adds to what the client is told, if it understands it.
    pub(super) fn notify(&self, add: impl FnOnce(&mut Notices, Features)) {
        let mut state = self.lock();
        let features = state.features;
        add(&mut state.notices, features);
        self.wake.notify_all();
    }

    /// Waits for something to send; `None` once the client is closed.
    pub(super) fn next_work(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.stage == Stage::Closed {
                return None;
            }
            let now = Instant::now();
            let taken = state.request.and_then(|region| state.take(region, now));
            if taken.is_some() || state.notices != Notices::default() {
                if taken.is_some() {
                    state.request = None;
                }
                let (rects, exactly) = taken.unwrap_or_default();
                let mut wish = state.wish;
                wish.quality = wish.quality.filter(|_| !exactly);
                return Some(Work {
                    notices: std::mem::take(&mut state.notices),
                    wish,
                    features: state.features,
                    size: (state.picture.width(), state.picture.height()),
                    rects,
                });
            }
            let mends_later = state.request.is_some_and(|region| state.lossy.is_dirty_in(region));
            state = match state.refine_at.filter(|_| mends_later) {
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// These parts were sent with losses.
    pub(super) fn sent_with_losses(&self, rects: &[Rect]) {
        let mut state = self.lock();
        for rect in rects {
            state.lossy.mark(*rect);
        }
        state.refine_at = Some(Instant::now() + REFINE_AFTER);
    }
}

impl State {
    /// A new picture of this size, none of which is known.
    fn set_size(&mut self, width: u32, height: u32) {
        self.picture = TileMap::new(width, height);
        self.picture.mark_all();
        self.lossy = TileMap::new(width, height);
        self.refine_at = None;
    }

    /// What of a part is to be sent: what is out of date, else what can be mended at `now`.
    fn take(&mut self, region: Rect, now: Instant) -> Option<(Vec<Rect>, bool)> {
        if self.picture.is_dirty_in(region) {
            let rects = self.picture.take(region);
            for rect in &rects {
                // Whether these are exact is told when they are sent.
                self.lossy.take(*rect);
            }
            return Some((rects, false));
        }
        if self.refine_at.is_some_and(|at| at <= now) && self.lossy.is_dirty_in(region) {
            return Some((self.lossy.take(region), true));
        }
        None
    }

    /// Gives the picture the screen's size if the client can follow.
    fn resize(&mut self, (width, height): (u32, u32)) {
        if (width, height) == (self.picture.width(), self.picture.height()) || !self.features.can_resize() {
            return;
        }
        self.set_size(width, height);
        self.notices.size = Some(SizeNotice { reason: 0, status: 0 });
        // Whatever part of the old picture was asked for: the new one is all wanted.
        self.request = self.request.map(|_| self.picture.bounds());
    }
}

/// The smallest part that holds two others.
fn union(a: Rect, b: Rect) -> Rect {
    if a.width == 0 || a.height == 0 {
        return b;
    }
    if b.width == 0 || b.height == 0 {
        return a;
    }
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let right = (a.x + a.width).max(b.x + b.width);
    let bottom = (a.y + a.height).max(b.y + b.height);
    Rect { x, y, width: right - x, height: bottom - y }
}
