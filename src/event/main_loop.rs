//! The main loop: epoll over file descriptors, timers on two clocks, and calls posted by other threads.
//!
//! One thread runs [`EventLoop::run`]. Every callback is called on that thread with no lock of the loop held, so it
//! may use the [`LoopHandle`] freely. Handles are `Send`; another thread that sets an earlier timer or posts a call
//! wakes the loop through an eventfd.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::clock::{Clock, NS_PER_SEC, monotonic_ns};

/// What a watch waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Nothing: the watch sleeps, though a hang-up is still reported by some kinds of file.
    None,
    /// Data to read, or end of file.
    Read,
    /// Room to write.
    Write,
    /// Either.
    ReadWrite,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::None => epoll::EventFlags::empty(),
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// What a file descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// A read will not block (it may return end of file or an error).
    pub read: bool,
    /// A write will not block.
    pub write: bool,
    /// The other side is gone.
    pub hang_up: bool,
}

/// The clock that a timer counts by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockKind {
    /// Machine time: stands still while the machine is stopped.
    Virtual,
    /// The host's monotonic clock: for the user interface and time-outs towards the host.
    Host,
}

type WatchCallback = Box<dyn FnMut(Ready) + Send>;
type TimerCallback = Arc<dyn Fn() + Send + Sync>;
type Call = Box<dyn FnOnce() + Send>;

/// The main loop; see the module's documentation.
pub struct EventLoop {
    shared: Arc<Shared>,
}

/// A `Send` handle on an [`EventLoop`].
#[derive(Clone)]
pub struct LoopHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoopHandle")
    }
}

struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    clock: Clock,
    next_id: AtomicU64,
    quit: AtomicBool,
    calls: Mutex<VecDeque<Call>>,
    watches: Mutex<HashMap<u64, WatchEntry>>,
    timers: Mutex<Timers>,
}

struct WatchEntry {
    fd: Arc<dyn AsFd + Send + Sync>,
    callback: Arc<Mutex<WatchCallback>>,
    interest: Interest,
    /// Regular files and `/dev/null` cannot be polled (epoll_ctl(2), EPERM): they are always ready.
    always_ready: bool,
}

#[derive(Default)]
struct Timers {
    virtual_deadlines: BTreeSet<(u64, u64)>,
    host_deadlines: BTreeSet<(u64, u64)>,
    callbacks: BTreeMap<u64, TimerEntry>,
    /// The loop sleeps until this host time; 0 while it is awake.
    sleeping_until: u64,
}

struct TimerEntry {
    kind: ClockKind,
    deadline: Option<u64>,
    callback: TimerCallback,
}

impl Timers {
    fn queue(&mut self, kind: ClockKind) -> &mut BTreeSet<(u64, u64)> {
        match kind {
            ClockKind::Virtual => &mut self.virtual_deadlines,
            ClockKind::Host => &mut self.host_deadlines,
        }
    }

    fn set(&mut self, id: u64, deadline: Option<u64>) {
        let Some(entry) = self.callbacks.get_mut(&id) else { return };
        let kind = entry.kind;
        let old = std::mem::replace(&mut entry.deadline, deadline);
        let queue = self.queue(kind);
        if let Some(old) = old {
            queue.remove(&(old, id));
        }
        if let Some(new) = deadline {
            queue.insert((new, id));
        }
    }

    fn take_due(&mut self, kind: ClockKind, now: u64) -> Option<TimerCallback> {
        let queue = self.queue(kind);
        let &(deadline, id) = queue.first()?;
        if deadline > now {
            return None;
        }
        queue.pop_first();
        let entry = self.callbacks.get_mut(&id)?;
        entry.deadline = None;
        Some(Arc::clone(&entry.callback))
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No callback runs under these locks, so what they guard is whole even after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const WAKE: u64 = 0;

impl EventLoop {
    /// A loop whose virtual timers count by `clock`.
    ///
    /// # Errors
    /// The host has no file descriptors left.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let shared = Shared {
            epoll,
            wake,
            clock,
            next_id: AtomicU64::new(WAKE + 1),
            quit: AtomicBool::new(false),
            calls: Mutex::default(),
            watches: Mutex::default(),
            timers: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A handle for devices, back ends and other threads.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        LoopHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves events until [`LoopHandle::quit`].
    ///
    /// # Errors
    /// The kernel refuses to poll, which only a lack of memory causes.
    pub fn run(&self) -> io::Result<()> {
        // By default the kernel delays timers by 50 µs, which guests' clocks would show. Without this they are as good
        // as on a kernel that refuses.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while !self.shared.quit.load(Ordering::Acquire) {
            self.turn(true)?;
        }
        Ok(())
    }

    /// Serves what is ready now without waiting. Device tests with a manual clock turn the loop themselves.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn run_pending(&self) -> io::Result<()> {
        self.turn(false)
    }

    fn turn(&self, may_sleep: bool) -> io::Result<()> {
        self.run_calls();
        self.run_timers();
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 32];
        let timeout = self.timeout(may_sleep);
        let count = match epoll::wait(&self.shared.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        lock(&self.shared.timers).sleeping_until = 0;
        for event in &events[..count] {
            let (data, flags) = (event.data, event.flags);
            self.dispatch(data.u64(), flags);
        }
        self.dispatch_always_ready();
        self.run_calls();
        self.run_timers();
        Ok(())
    }

    fn dispatch(&self, id: u64, flags: epoll::EventFlags) {
        if id == WAKE {
            let mut count = [0u8; 8];
            // Draining can only fail because another turn already did it.
            let _ = rustix::io::read(&self.shared.wake, &mut count);
            return;
        }
        let failed = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let ready = Ready {
            read: flags.contains(epoll::EventFlags::IN) || failed,
            write: flags.contains(epoll::EventFlags::OUT) || failed,
            hang_up: failed,
        };
        let callback = lock(&self.shared.watches).get(&id).map(|watch| Arc::clone(&watch.callback));
        if let Some(callback) = callback {
            lock(&*callback)(ready);
        }
    }

    fn dispatch_always_ready(&self) {
        let ready: Vec<_> = lock(&self.shared.watches)
            .values()
            .filter(|watch| watch.always_ready && watch.interest != Interest::None)
            .map(|watch| (Arc::clone(&watch.callback), watch.interest))
            .collect();
        for (callback, interest) in ready {
            let read = matches!(interest, Interest::Read | Interest::ReadWrite);
            let write = matches!(interest, Interest::Write | Interest::ReadWrite);
            lock(&*callback)(Ready { read, write, hang_up: false });
        }
    }

    fn run_calls(&self) {
        // Only the calls that wait now: a call that posts itself again must not starve the rest.
        let calls = std::mem::take(&mut *lock(&self.shared.calls));
        for call in calls {
            call();
        }
    }

    fn run_timers(&self) {
        for kind in [ClockKind::Virtual, ClockKind::Host] {
            self.shared.run_timers(kind);
        }
    }

    /// How long the loop may sleep; `None` is for ever.
    fn timeout(&self, may_sleep: bool) -> Option<Timespec> {
        let now = monotonic_ns();
        let busy = !may_sleep
            || self.shared.quit.load(Ordering::Acquire)
            || !lock(&self.shared.calls).is_empty()
            || lock(&self.shared.watches).values().any(|w| w.always_ready && w.interest != Interest::None);
        let mut timers = lock(&self.shared.timers);
        if busy {
            timers.sleeping_until = 0;
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let mut wait = timers.host_deadlines.first().map(|&(at, _)| at.saturating_sub(now));
        if self.shared.clock.is_running()
            && let Some(&(at, _)) = timers.virtual_deadlines.first()
        {
            let left = at.saturating_sub(self.shared.clock.now_ns());
            wait = Some(wait.map_or(left, |w| w.min(left)));
        }
        timers.sleeping_until = wait.map_or(u64::MAX, |w| now.saturating_add(w).max(1));
        wait.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / NS_PER_SEC).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % NS_PER_SEC).unwrap_or(0),
        })
    }
}

impl Shared {
    fn now(&self, kind: ClockKind) -> u64 {
        match kind {
            ClockKind::Virtual => self.clock.now_ns(),
            ClockKind::Host => monotonic_ns(),
        }
    }

    fn run_timers(&self, kind: ClockKind) {
        let now = self.now(kind);
        loop {
            let due = lock(&self.timers).take_due(kind, now);
            let Some(callback) = due else { break };
            callback();
        }
    }

    fn wake(&self) {
        // An eventfd at its limit is readable, so a failed write still wakes the loop.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn set_timer(&self, id: u64, kind: ClockKind, deadline: Option<u64>) {
        let mut timers = lock(&self.timers);
        timers.set(id, deadline);
        let Some(deadline) = deadline else { return };
        if timers.sleeping_until == 0 {
            return;
        }
        let left = deadline.saturating_sub(self.now(kind));
        let runs = kind == ClockKind::Host || self.clock.is_running();
        let wake = runs && monotonic_ns().saturating_add(left) < timers.sleeping_until;
        drop(timers);
        if wake {
            self.wake();
        }
    }
}

impl LoopHandle {
    /// Runs `call` on the loop's thread, soon and in order.
    pub fn post(&self, call: impl FnOnce() + Send + 'static) {
        lock(&self.shared.calls).push_back(Box::new(call));
        self.shared.wake();
    }

    /// Calls `callback` whenever `fd` is ready for `interest`, until the watch is dropped. A regular file counts as
    /// always ready.
    ///
    /// # Errors
    /// The descriptor cannot be polled or is watched already.
    pub fn watch(
        &self,
        fd: Arc<dyn AsFd + Send + Sync>,
        interest: Interest,
        callback: impl FnMut(Ready) + Send + 'static,
    ) -> io::Result<Watch> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let borrowed: BorrowedFd<'_> = fd.as_fd();
        let added = epoll::add(&self.shared.epoll, borrowed, epoll::EventData::new_u64(id), interest.flags());
        let always_ready = match added {
            Ok(()) => false,
            Err(rustix::io::Errno::PERM) => true,
            Err(e) => return Err(e.into()),
        };
        let entry = WatchEntry { fd, callback: Arc::new(Mutex::new(Box::new(callback))), interest, always_ready };
        lock(&self.shared.watches).insert(id, entry);
        if always_ready {
            self.shared.wake();
        }
        Ok(Watch { shared: Arc::clone(&self.shared), id })
    }

    /// A timer that calls `callback` on the loop's thread when its deadline passes. It starts unset.
    #[must_use]
    pub fn timer(&self, kind: ClockKind, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = TimerEntry { kind, deadline: None, callback: Arc::new(callback) };
        lock(&self.shared.timers).callbacks.insert(id, entry);
        Timer { shared: Arc::clone(&self.shared), id, kind }
    }

    /// The machine's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    /// When the next virtual timer is due, in virtual nanoseconds.
    #[must_use]
    pub fn next_virtual_deadline(&self) -> Option<u64> {
        lock(&self.shared.timers).virtual_deadlines.first().map(|&(at, _)| at)
    }

    /// Calls the virtual timers that are due, on the caller's thread: a processor whose instructions are the clock
    /// (`-icount`) does so at the instruction at which they are due. The caller holds no lock.
    pub fn run_virtual_timers(&self) {
        self.shared.run_timers(ClockKind::Virtual);
    }

    /// Lets the loop look at the clocks again: call it after the virtual clock was started.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Ends [`EventLoop::run`].
    pub fn quit(&self) {
        self.shared.quit.store(true, Ordering::Release);
        self.shared.wake();
    }
}

/// A file descriptor in the loop; dropping it ends the watch.
pub struct Watch {
    shared: Arc<Shared>,
    id: u64,
}

impl Watch {
    /// Changes what the watch waits for.
    pub fn set_interest(&self, interest: Interest) {
        let mut watches = lock(&self.shared.watches);
        let Some(entry) = watches.get_mut(&self.id) else { return };
        if entry.interest == interest {
            return;
        }
        entry.interest = interest;
        if entry.always_ready {
            self.shared.wake();
            return;
        }
        // The entry keeps the descriptor open and registered, so modifying it cannot fail.
        let _ =
            epoll::modify(&self.shared.epoll, entry.fd.as_fd(), epoll::EventData::new_u64(self.id), interest.flags());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let entry = lock(&self.shared.watches).remove(&self.id);
        if let Some(entry) = entry
            && !entry.always_ready
        {
            // As in `set_interest`.
            let _ = epoll::delete(&self.shared.epoll, entry.fd.as_fd());
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.id)
    }
}

/// A timer in the loop; dropping it cancels it.
pub struct Timer {
    shared: Arc<Shared>,
    id: u64,
    kind: ClockKind,
}

impl Timer {
    /// Calls back once the timer's clock shows `deadline_ns`; a deadline that has passed is due at once.
    pub fn set(&self, deadline_ns: u64) {
        self.shared.set_timer(self.id, self.kind, Some(deadline_ns));
    }

    /// Forgets the deadline.
    pub fn cancel(&self) {
        self.shared.set_timer(self.id, self.kind, None);
    }

    /// The deadline, if one is set.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        lock(&self.shared.timers).callbacks.get(&self.id).and_then(|entry| entry.deadline)
    }

    /// What the timer's clock shows.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.now(self.kind)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut timers = lock(&self.shared.timers);
        timers.set(self.id, None);
        timers.callbacks.remove(&self.id);
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({:?}, {:?})", self.kind, self.deadline())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_posted_call_ends_the_loop_from_another_thread() {
        let event_loop = EventLoop::new(Clock::stopped()).unwrap();
        let handle = event_loop.handle();
        let other = std::thread::spawn(move || {
            let quit = handle.clone();
            handle.post(move || quit.quit());
        });
        event_loop.run().unwrap();
        other.join().unwrap();
    }

    #[test]
    fn virtual_timers_fire_when_the_manual_clock_reaches_them() {
        let clock = Clock::manual();
        let event_loop = EventLoop::new(clock.clone()).unwrap();
        let fired = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&fired);
        let timer = event_loop.handle().timer(ClockKind::Virtual, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        timer.set(100);
        event_loop.run_pending().unwrap();
        assert_eq!(fired.load(Ordering::Relaxed), 0);
        clock.advance(100);
        event_loop.run_pending().unwrap();
        assert_eq!(fired.load(Ordering::Relaxed), 1);
        assert_eq!(timer.deadline(), None);
    }

    #[test]
    fn a_watch_reports_readable_pipes_until_it_is_dropped() {
        let event_loop = EventLoop::new(Clock::stopped()).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let seen = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&seen);
        let watch = event_loop
            .handle()
            .watch(Arc::new(reader), Interest::Read, move |ready| {
                assert!(ready.read);
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        event_loop.run_pending().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        drop(watch);
        event_loop.run_pending().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_processor_that_is_the_clock_runs_the_timers_itself() {
        let event_loop = EventLoop::new(Clock::manual()).unwrap();
        let handle = event_loop.handle();
        let fired = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&fired);
        let timer = handle.timer(ClockKind::Virtual, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(handle.next_virtual_deadline(), None);
        timer.set(100);
        assert_eq!(handle.next_virtual_deadline(), Some(100));
        handle.clock().advance(99);
        handle.run_virtual_timers();
        assert_eq!(fired.load(Ordering::Relaxed), 0);
        handle.clock().advance(1);
        handle.run_virtual_timers();
        assert_eq!((fired.load(Ordering::Relaxed), handle.next_virtual_deadline()), (1, None));
    }
}
