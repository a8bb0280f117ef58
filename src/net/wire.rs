//! The wire between network cards and back ends: bounded queues, and who is woken when.
//!
//! A wire has any number of ends. Two make a cable; more make the hub of `-net` and `hubport`, where each frame goes to
//! all the others. A frame waits in the receiver's queue; a sender that finds it full is told when there is room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::link::{Caller, Link, Notify, RxFilter};
use super::offload;
use super::packet::{Offloads, Packet};
use super::{lock, read, write};

/// Frames that wait for one end, at most; one long frame that is cut may exceed it once.
const MAX_FRAMES: usize = 512;
/// Their bytes, at most, in the same way.
const MAX_BYTES: usize = 4 << 20;

/// Sees the frames of an end as they pass: `filter-dump`.
pub trait Tap: Send + Sync {
    /// A frame passes; the end sent it, or is about to receive it.
    fn frame(&self, sent: bool, packet: &Packet);
}

/// What an end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A network card: it is called under the board lock.
    Chip,
    /// A back end with threads of its own.
    Backend,
}

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Packet>,
    bytes: usize,
    /// A sender was refused and waits.
    refused: bool,
    /// A frame came to an empty queue, and the owner does not know yet.
    unannounced: bool,
}

impl Inbox {
    fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES || self.bytes >= MAX_BYTES
    }

    fn push(&mut self, packet: Packet) {
        self.unannounced |= self.frames.is_empty();
        self.bytes += packet.len();
        self.frames.push_back(packet);
    }
}

/// One end of a wire, as all see it.
struct End {
    role: Role,
    wire: RwLock<Arc<Wire>>,
    inbox: Mutex<Inbox>,
    notify: RwLock<Option<Notify>>,
    /// Woken and not yet looking.
    woken: AtomicBool,
    accepts: AtomicU32,
    down: AtomicBool,
    taps: RwLock<Vec<Arc<dyn Tap>>>,
    /// Whether there are any taps; the lock is taken only then.
    tapped: AtomicBool,
    address: Mutex<Option<[u8; 6]>>,
    filter: Mutex<Option<RxFilter>>,
}

impl End {
    fn accepts(&self) -> Offloads {
        Offloads::from_bits_truncate(self.accepts.load(Ordering::Acquire))
    }

    fn caller(&self) -> Caller {
        match self.role {
            Role::Chip => Caller::Chip,
            Role::Backend => Caller::Thread,
        }
    }

    fn wake(&self, caller: Caller) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let notify = read(&self.notify).clone();
        match notify {
            Some(notify) => notify(caller),
            None => self.woken.store(false, Ordering::Release),
        }
    }

    fn tap(&self, sent: bool, packet: &Packet) {
        if self.tapped.load(Ordering::Acquire) {
            for tap in read(&self.taps).iter() {
                tap.frame(sent, packet);
            }
        }
    }

    /// Whether a frame fits; if not, room will be announced.
    fn has_room(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        let full = inbox.is_full();
        inbox.refused |= full;
        !full
    }

    fn deliver(&self, packet: Packet) {
        self.tap(false, &packet);
        let accepted = self.accepts();
        if packet.offload == super::Offload::default() {
            lock(&self.inbox).push(packet);
        } else {
            offload::lower(packet, accepted, &mut |packet| lock(&self.inbox).push(packet));
        }
    }
}

/// What ends hang on.
#[derive(Default)]
pub struct Wire {
    ends: RwLock<Vec<Arc<End>>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({} ends)", read(&self.ends).len())
    }
}

impl Wire {
    /// A wire without ends.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds an end.
    #[must_use]
    pub fn plug(self: &Arc<Self>, role: Role) -> Port {
        let end = Arc::new(End {
            role,
            wire: RwLock::new(Arc::clone(self)),
            inbox: Mutex::default(),
            notify: RwLock::default(),
            woken: AtomicBool::new(false),
            accepts: AtomicU32::new(0),
            down: AtomicBool::new(false),
            taps: RwLock::default(),
            tapped: AtomicBool::new(false),
            address: Mutex::default(),
            filter: Mutex::default(),
        });
        write(&self.ends).push(Arc::clone(&end));
        let port = Port { end };
        port.wake_others(Caller::Thread);
        port
    }

    /// Moves all ends of another wire to this one: the two become one hub.
    pub fn join(self: &Arc<Self>, other: &Arc<Self>) {
        if Arc::ptr_eq(self, other) {
            return;
        }
        let moved = std::mem::take(&mut *write(&other.ends));
        for end in &moved {
            *write(&end.wire) = Arc::clone(self);
        }
        write(&self.ends).extend(moved);
        for end in self.others(None) {
            end.wake(Caller::Thread);
        }
    }

    /// How many cards and back ends hang on it.
    #[must_use]
    pub fn count(&self, role: Role) -> usize {
        read(&self.ends).iter().filter(|end| end.role == role).count()
    }

    fn others(&self, except: Option<&Arc<End>>) -> Vec<Arc<End>> {
        let ends = read(&self.ends);
        ends.iter().filter(|end| !except.is_some_and(|except| Arc::ptr_eq(end, except))).cloned().collect()
    }
}

/// One end of a wire, in its owner's hands; dropping it unplugs it.
pub struct Port {
    end: Arc<End>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({:?})", self.end.role)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let wire = self.wire();
        write(&wire.ends).retain(|end| !Arc::ptr_eq(end, &self.end));
        // Who waited for room here waits no longer.
        for end in wire.others(None) {
            end.wake(self.end.caller());
        }
    }
}

/// A name for a [`Port`] that does not keep it plugged in: what monitors use.
#[derive(Clone)]
pub struct PortHandle {
    end: Arc<End>,
}

impl std::fmt::Debug for PortHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PortHandle({:?})", self.end.role)
    }
}

impl PortHandle {
    /// Whether somebody has pulled this end's plug.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.end.down.load(Ordering::Acquire)
    }

    /// Pulls the plug or puts it back, and tells this end and the cards at the other ends.
    pub fn set_down(&self, down: bool) {
        if self.end.down.swap(down, Ordering::AcqRel) == down {
            return;
        }
        self.end.wake(Caller::Thread);
        let wire = Arc::clone(&read(&self.end.wire));
        for end in wire.others(Some(&self.end)) {
            end.wake(Caller::Thread);
        }
    }

    /// The wire it hangs on.
    #[must_use]
    pub fn wire(&self) -> Arc<Wire> {
        Arc::clone(&read(&self.end.wire))
    }

    /// Whether both are ends of the same wire, and not the same end.
    #[must_use]
    pub fn is_peer_of(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.end, &other.end) && Arc::ptr_eq(&self.wire(), &other.wire())
    }

    /// The card's address, as the guest has set it last.
    #[must_use]
    pub fn address(&self) -> Option<[u8; 6]> {
        *lock(&self.end.address)
    }

    /// The card's filter; `None` for a card that does not tell.
    #[must_use]
    pub fn filter(&self) -> Option<RxFilter> {
        lock(&self.end.filter).clone()
    }

    /// Lets `tap` see the frames of this end.
    pub fn add_tap(&self, tap: Arc<dyn Tap>) {
        write(&self.end.taps).push(tap);
        self.end.tapped.store(true, Ordering::Release);
    }

    /// Removes a tap.
    pub fn remove_tap(&self, tap: &Arc<dyn Tap>) {
        let mut taps = write(&self.end.taps);
        taps.retain(|other| !Arc::ptr_eq(other, tap));
        self.end.tapped.store(!taps.is_empty(), Ordering::Release);
    }
}

impl Port {
    /// As [`Link::receive`], for an owner that shares the port.
    pub fn take(&self) -> Option<Packet> {
        let (packet, room) = {
            let mut inbox = lock(&self.end.inbox);
            let packet = inbox.frames.pop_front()?;
            inbox.bytes -= packet.len();
            let low = inbox.frames.len() <= MAX_FRAMES / 2 && inbox.bytes <= MAX_BYTES / 2;
            (packet, low && std::mem::take(&mut inbox.refused))
        };
        if room {
            self.wake_others(self.end.caller());
        }
        Some(packet)
    }

    /// As [`Link::attend`].
    pub fn attend_now(&self) {
        self.end.woken.store(false, Ordering::Release);
    }

    /// As [`Link::has_room`].
    pub fn room(&self) -> bool {
        let peers = self.peers();
        peers.is_empty() || peers.iter().any(|end| end.has_room())
    }

    /// Whom to wake. Anything that happened already wakes at once.
    pub fn set_notify(&self, notify: Notify) {
        *write(&self.end.notify) = Some(notify);
        self.end.woken.store(false, Ordering::Release);
        self.end.wake(self.end.caller());
    }

    /// A name for this end.
    #[must_use]
    pub fn handle(&self) -> PortHandle {
        PortHandle { end: Arc::clone(&self.end) }
    }

    /// The wire it hangs on.
    #[must_use]
    pub fn wire(&self) -> Arc<Wire> {
        Arc::clone(&read(&self.end.wire))
    }

    fn peers(&self) -> Vec<Arc<End>> {
        if self.end.down.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut peers = self.wire().others(Some(&self.end));
        peers.retain(|end| !end.down.load(Ordering::Acquire));
        peers
    }

    fn wake_others(&self, caller: Caller) {
        for end in self.wire().others(Some(&self.end)) {
            end.wake(caller);
        }
    }

    /// Puts a frame into the receivers' queues without waking them: [`Port::kick`] does, after the last of several.
    ///
    /// # Errors
    /// No receiver has room: here it is again, and the end's owner is woken when there is.
    pub fn queue(&self, packet: Packet) -> Result<(), Packet> {
        let peers = self.peers();
        let (ready, full): (Vec<_>, Vec<_>) = peers.iter().partition(|end| end.has_room());
        let Some((last, rest)) = ready.split_last() else {
            if full.is_empty() {
                return Ok(()); // nobody is there: lost, as on a loose cable
            }
            return Err(packet);
        };
        self.end.tap(true, &packet);
        for end in rest {
            end.deliver(packet.clone());
        }
        last.deliver(packet);
        Ok(())
    }

    /// Wakes whom frames were queued for.
    pub fn kick(&self) {
        for end in self.wire().others(Some(&self.end)) {
            if std::mem::take(&mut lock(&end.inbox).unannounced) {
                end.wake(self.end.caller());
            }
        }
    }
}

impl Link for Port {
    fn attend(&mut self) {
        self.attend_now();
    }

    fn has_room(&mut self) -> bool {
        self.room()
    }

    fn send(&mut self, packet: Packet) -> Result<(), Packet> {
        self.queue(packet)?;
        self.kick();
        Ok(())
    }

    fn receive(&mut self) -> Option<Packet> {
        self.take()
    }

    fn unreceive(&mut self, packet: Packet) {
        let mut inbox = lock(&self.end.inbox);
        inbox.bytes += packet.len();
        inbox.frames.push_front(packet);
    }

    fn has_frame(&self) -> bool {
        !lock(&self.end.inbox).frames.is_empty()
    }

    fn can_offload(&self) -> Offloads {
        let ends = self.wire().others(Some(&self.end));
        ends.iter().map(|end| end.accepts()).reduce(|a, b| a & b).unwrap_or_default()
    }

    fn set_offload(&mut self, accepted: Offloads) {
        self.end.accepts.store(accepted.bits(), Ordering::Release);
    }

    fn is_up(&self) -> bool {
        !self.peers().is_empty()
    }

    fn set_address(&mut self, mac: [u8; 6]) {
        *lock(&self.end.address) = Some(mac);
    }

    fn set_filter(&mut self, filter: RxFilter) {
        *lock(&self.end.filter) = Some(filter);
    }

    fn purge(&mut self) {
        let room = {
            let mut inbox = lock(&self.end.inbox);
            inbox.frames.clear();
            inbox.bytes = 0;
            std::mem::take(&mut inbox.refused)
        };
        if room {
            self.wake_others(self.end.caller());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn frame(byte: u8) -> Packet {
        Packet::from(vec![byte; 60])
    }

    fn counted(port: &mut Port) -> Arc<AtomicUsize> {
        let count = Arc::<AtomicUsize>::default();
        let seen = Arc::clone(&count);
        port.set_notify(Arc::new(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        port.attend();
        count.store(0, Ordering::SeqCst);
        count
    }

    #[test]
    fn a_frame_crosses_and_wakes_once() {
        let wire = Wire::new();
        let (mut nic, mut host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        let woken = counted(&mut host);
        nic.send(frame(1)).unwrap();
        nic.send(frame(2)).unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        host.attend();
        assert_eq!(host.receive().unwrap().head()[0], 1);
        nic.send(frame(3)).unwrap();
        // There is something left to look at: the owner needs no reminder.
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        while host.receive().is_some() {}
        nic.send(frame(4)).unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_queue_refuses_and_announces_room() {
        let wire = Wire::new();
        let (mut nic, mut host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        let woken = counted(&mut nic);
        let sent = (0..10_000).take_while(|_| nic.send(frame(0)).is_ok()).count();
        assert_eq!(sent, MAX_FRAMES);
        assert!(!nic.has_room());
        for _ in 0..MAX_FRAMES / 2 {
            assert_eq!(woken.load(Ordering::SeqCst), 0);
            host.receive().unwrap();
        }
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(nic.has_room());
    }

    #[test]
    fn a_hub_repeats_to_all_others() {
        let wire = Wire::new();
        let mut ends = [Role::Chip, Role::Chip, Role::Backend].map(|role| wire.plug(role));
        let [a, b, c] = &mut ends;
        a.send(frame(7)).unwrap();
        assert!(b.receive().is_some() && c.receive().is_some() && a.receive().is_none());
        b.handle().set_down(true);
        a.send(frame(7)).unwrap();
        assert!(b.receive().is_none() && c.receive().is_some());
        assert!(!b.is_up() && a.is_up());
    }

    #[test]
    fn joined_wires_are_one_hub() {
        let (left, right) = (Wire::new(), Wire::new());
        let (mut a, mut b) = (left.plug(Role::Chip), right.plug(Role::Backend));
        assert!(!a.is_up());
        left.join(&right);
        assert!(a.is_up());
        a.send(frame(1)).unwrap();
        assert!(b.receive().is_some());
    }

    #[test]
    fn a_loose_end_loses_frames() {
        let wire = Wire::new();
        let mut nic = wire.plug(Role::Chip);
        let host = wire.plug(Role::Backend);
        assert!(nic.is_up());
        drop(host);
        assert!(!nic.is_up() && nic.has_room());
        nic.send(frame(1)).unwrap();
    }
}
