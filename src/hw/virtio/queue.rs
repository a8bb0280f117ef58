//! Split virtqueues (2.7) over guest memory, by the `virtio-queue` crate, with what it leaves to its user: faults that
//! break the device, suppressed interrupts, resets while requests are in flight.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::interrupt::{NO_VECTOR, Notifier};
use crate::mem::{DmaError, GuestRam, MemoryView, Sg};

/// Available ring flags (2.7.6): no interrupts, please.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Bytes of a used ring element.
const USED_ELEMENT: u64 = 8;
/// Bytes before the elements of a ring: flags and index.
const RING_HEADER: u64 = 4;

/// A descriptor chain that the driver made available: a request. It goes back with [`Queue::push`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    head: u16,
    /// The queue's count of resets when it was taken.
    generation: u64,
    /// What the device reads, in order.
    pub readable: Sg,
    /// What the device writes, in order.
    pub writable: Sg,
}

/// Where a queue lies in guest memory (2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Areas {
    /// Descriptor area.
    pub desc: u64,
    /// Driver area: the available ring.
    pub driver: u64,
    /// Device area: the used ring.
    pub device: u64,
}

struct State {
    ring: virtio_queue::Queue,
    vector: u16,
    generation: u64,
    /// Requests that the device has: a driver that makes more available than the queue holds lies.
    in_use: u16,
    /// Legacy: interrupt when the ring runs empty.
    notify_on_empty: bool,
    /// The driver is ready: the device may look at the ring.
    active: bool,
}

/// A queue. A leaf, for any thread: it takes a lock of its own and those of the interrupt controllers.
pub struct Queue {
    ram: GuestRam,
    notifier: Notifier,
    state: Mutex<State>,
    max_size: u16,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} entries at most)", self.max_size)
    }
}

impl Queue {
    /// A queue of at most `max_size` entries, off.
    pub(super) fn new(ram: GuestRam, notifier: Notifier, max_size: u16) -> Self {
        let max_size = max_size.clamp(1, 1024).next_power_of_two();
        let ring = virtio_queue::Queue::new(max_size).unwrap_or_default();
        let state = State { ring, vector: NO_VECTOR, generation: 0, in_use: 0, notify_on_empty: false, active: false };
        Self { ram, notifier, state: Mutex::new(state), max_size }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // -- for devices ---------------------------------------------------------------------------------------------

    /// Guest memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Whether the driver uses this queue.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        let state = self.state();
        state.active && state.ring.ready()
    }

    /// The next request, if there is one. A chain that no driver may build, or that is not all in RAM, breaks the device
    /// ([`Notifier::needs_reset`]).
    #[must_use]
    pub fn pop(&self) -> Option<Chain> {
        if self.notifier.is_broken() {
            return None;
        }
        let mut state = self.state();
        if !state.active || !state.ring.ready() {
            return None;
        }
        let view = self.ram.snapshot();
        match next_chain(&mut state, &view, &self.ram) {
            Ok(chain) => chain,
            Err(why) => {
                drop(state);
                self.notifier.needs_reset(why);
                None
            }
        }
    }

    /// Takes the last [`Queue::pop`] back: the device cannot serve it yet.
    pub fn unpop(&self, chain: &Chain) {
        let mut state = self.state();
        if state.active && chain.generation == state.generation {
            state.ring.go_to_previous_position();
            state.in_use = state.in_use.saturating_sub(1);
        }
    }

    /// The driver broke a rule of the device type that leaves no way on ([`Notifier::needs_reset`]).
    pub fn fail(&self, why: &str) {
        self.notifier.needs_reset(why);
    }

    /// Whether requests wait.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        let state = self.state();
        let view = self.ram.snapshot();
        let waiting = |index: std::num::Wrapping<u16>| index.0 != state.ring.next_avail();
        state.active && state.ring.ready() && state.ring.avail_idx(&*view, Ordering::Acquire).is_ok_and(waiting)
    }

    /// Gives a request back: the device wrote `written` bytes into it. Nothing happens if the queue was reset since.
    pub fn push(&self, chain: &Chain, written: u32) {
        let mut state = self.state();
        if !state.active || chain.generation != state.generation {
            return;
        }
        state.in_use = state.in_use.saturating_sub(1);
        let view = self.ram.snapshot();
        let slot = u64::from(state.ring.next_used() % state.ring.size().max(1));
        if state.ring.add_used(&*view, chain.head, written).is_err() {
            drop(state);
            self.notifier.needs_reset("the used ring is not in RAM");
            return;
        }
        let used = state.ring.used_ring();
        self.ram.wrote(used, usize::try_from(RING_HEADER).unwrap_or(0));
        self.ram.wrote(used + RING_HEADER + slot * USED_ELEMENT, 8);
    }

    /// Interrupts the driver for what was pushed, unless it does not want to hear of it.
    pub fn signal(&self) {
        let mut state = self.state();
        if !state.active || !state.ring.ready() {
            return;
        }
        let view = self.ram.snapshot();
        let wanted = wants_interrupt(&mut state, &view);
        let vector = state.vector;
        drop(state);
        match wanted {
            Ok(true) => self.notifier.queue(vector),
            Ok(false) => {}
            Err(_) => self.notifier.needs_reset("the available ring is not in RAM"),
        }
    }

    /// Asks the driver not to notify: the device looks at the ring by itself. A hint.
    pub fn disable_notification(&self) {
        let mut state = self.state();
        if state.active && state.ring.ready() {
            let view = self.ram.snapshot();
            // A ring outside RAM shows up when it is used.
            let _ = state.ring.disable_notification(&*view);
        }
    }

    /// Asks the driver to notify again. Returns whether requests came meanwhile, for which no notification will come.
    #[must_use]
    pub fn enable_notification(&self) -> bool {
        let mut state = self.state();
        if !state.active || !state.ring.ready() || self.notifier.is_broken() {
            return false;
        }
        let view = self.ram.snapshot();
        state.ring.enable_notification(&*view).unwrap_or(false)
    }

    /// Serves all requests that wait: `serve` gets each and returns whether to go on. Notifications are off meanwhile.
    pub fn serve(&self, mut serve: impl FnMut(Chain) -> bool) {
        loop {
            self.disable_notification();
            while let Some(chain) = self.pop() {
                if !serve(chain) {
                    return;
                }
            }
            if !self.enable_notification() {
                return;
            }
        }
    }

    // -- for transports ------------------------------------------------------------------------------------------

    pub(super) fn max_size(&self) -> u16 {
        self.max_size
    }

    pub(super) fn set_vector(&self, vector: u16) {
        self.state().vector = vector;
    }

    /// Switches the queue on.
    ///
    /// # Errors
    /// Its size is no power of two up to the largest, or an area is not aligned (2.7).
    pub(super) fn enable(&self, size: u16, areas: Areas) -> Result<(), Error> {
        let mut state = self.state();
        let ring = &mut state.ring;
        ring.try_set_size(size)?;
        ring.try_set_desc_table_address(GuestAddress(areas.desc))?;
        ring.try_set_avail_ring_address(GuestAddress(areas.driver))?;
        ring.try_set_used_ring_address(GuestAddress(areas.device))?;
        ring.set_ready(true);
        Ok(())
    }

    /// The driver is ready; from here on the device works.
    pub(super) fn activate(&self, event_idx: bool, notify_on_empty: bool) {
        let mut state = self.state();
        state.ring.set_event_idx(event_idx);
        state.notify_on_empty = notify_on_empty;
        state.active = true;
    }

    /// Back to off, with `vector` or none. Requests that are out there come back to nowhere.
    pub(super) fn reset(&self, keep_active: bool) {
        let mut state = self.state();
        let event_idx = state.ring.event_idx_enabled();
        state.ring.reset();
        state.generation += 1;
        state.in_use = 0;
        state.vector = NO_VECTOR;
        state.active &= keep_active;
        if state.active {
            state.ring.set_event_idx(event_idx);
        }
    }
}

/// Takes the next chain, checks it and sorts its descriptors.
fn next_chain(state: &mut State, view: &MemoryView, ram: &GuestRam) -> Result<Option<Chain>, &'static str> {
    let generation = state.generation;
    let mut heads = match state.ring.iter(view.clone()) {
        Ok(heads) => heads,
        Err(Error::InvalidAvailRingIndex) => return Err("the available index jumped by more than the queue's size"),
        Err(_) => return Err("the available ring is not in RAM"),
    };
    let Some(mut descriptors) = heads.next() else { return Ok(None) };
    if state.in_use >= state.ring.size() {
        return Err("more requests are in flight than the queue has entries");
    }
    state.in_use += 1;
    let mut chain = Chain { head: descriptors.head_index(), generation, readable: Sg::new(), writable: Sg::new() };
    let mut complete = false;
    for descriptor in descriptors.by_ref() {
        let (gpa, len) = (descriptor.addr().0, descriptor.len());
        if len != 0 && !ram.contains(gpa, len.into()) {
            return Err("a descriptor is not in RAM");
        }
        if descriptor.is_write_only() {
            chain.writable.push(gpa, len);
        } else if chain.writable.is_empty() {
            chain.readable.push(gpa, len);
        } else {
            return Err("a readable descriptor follows a writable one");
        }
        complete = !descriptor.has_next();
    }
    if complete { Ok(Some(chain)) } else { Err("a descriptor chain is broken, endless or longer than 4 GiB") }
}

/// Whether the driver wants to hear of what was pushed since the last time (2.7.7).
fn wants_interrupt(state: &mut State, view: &MemoryView) -> Result<bool, Error> {
    if state.notify_on_empty && state.ring.avail_idx(&**view, Ordering::Acquire)?.0 == state.ring.next_avail() {
        return Ok(true);
    }
    if !state.ring.needs_notification(&**view)? {
        return Ok(false);
    }
    if state.ring.event_idx_enabled() {
        return Ok(true);
    }
    let flags: u16 =
        view.load(GuestAddress(state.ring.avail_ring()), Ordering::Acquire).map_err(|_| Error::FindMemoryRegion)?;
    Ok(u16::from_le(flags) & AVAIL_NO_INTERRUPT == 0)
}

impl Chain {
    /// Fills `buf` from the readable part, from byte `skip` on; returns whether it is long enough.
    ///
    /// # Errors
    /// It is not RAM any more.
    pub fn read(&self, ram: &GuestRam, skip: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.readable.read(ram, skip, buf)
    }

    /// Writes `buf` to the writable part, from byte `skip` on.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn write(&self, ram: &GuestRam, skip: u64, buf: &[u8]) -> Result<(), DmaError> {
        self.writable.write(ram, skip, buf)
    }
}

/// All queues of a device.
pub(super) fn queues(ram: &GuestRam, notifier: &Notifier, sizes: &[u16]) -> Vec<Arc<Queue>> {
    sizes.iter().map(|size| Arc::new(Queue::new(ram.clone(), notifier.clone(), *size))).collect()
}
