//! What a network card holds: frames go out and come in, and nothing blocks.

use std::sync::Arc;

use super::packet::{Offloads, Packet};

/// On whose behalf an end is woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A chip, which holds the board lock: whoever is woken must not take it.
    Chip,
    /// A thread that holds no lock.
    Thread,
}

/// Called when a frame came to an end, room for sending appeared, or its link went up or down. A flurry of frames may
/// be one call.
pub type Notify = Arc<dyn Fn(Caller) + Send + Sync>;

/// What a card lets through: the answer to `query-rx-filter`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RxFilter {
    /// Everything.
    pub promiscuous: bool,
    /// All multicast frames.
    pub all_multicast: bool,
    /// All unicast frames.
    pub all_unicast: bool,
    /// No multicast frames.
    pub no_multicast: bool,
    /// No unicast frames.
    pub no_unicast: bool,
    /// Whether broadcast frames are let through.
    pub broadcast: bool,
    /// The list of unicast addresses was too long.
    pub unicast_overflow: bool,
    /// The list of multicast addresses was too long.
    pub multicast_overflow: bool,
    /// Unicast addresses besides its own.
    pub unicast: Vec<[u8; 6]>,
    /// Multicast addresses.
    pub multicast: Vec<[u8; 6]>,
    /// VLAN identifiers; `None`: all of them.
    pub vlans: Option<Vec<u16>>,
}

/// A network card's end of a link: one queue pair.
///
/// When something happens that the card may wait for (a frame in an empty queue, room, the link's state), the link raises
/// the event that it was built with. The card then calls [`Link::attend`] and looks at everything: it takes frames
/// until there are none or it has no room for them.
pub trait Link: Send {
    /// The event has come: what happens from now on raises it again.
    fn attend(&mut self);

    /// Whether a frame would be taken now. If not, the event comes when there is room.
    fn has_room(&mut self) -> bool;

    /// Sends a frame. Whatever of its offload the other side does not take is done on the way. A frame for a link that
    /// is down is lost.
    ///
    /// # Errors
    /// There is no room: here it is again. The event comes when there is.
    fn send(&mut self, packet: Packet) -> Result<(), Packet>;

    /// The next frame, if the card has room for it: a card that does not ask keeps the peer waiting.
    fn receive(&mut self) -> Option<Packet>;

    /// Puts a frame that [`Link::receive`] gave and that did not fit back to the front.
    fn unreceive(&mut self, packet: Packet);

    /// Whether a frame is waiting.
    fn has_frame(&self) -> bool;

    /// What the other side does by itself.
    fn can_offload(&self) -> Offloads;

    /// Declares what frames this end takes as they are.
    fn set_offload(&mut self, accepted: Offloads);

    /// Whether the link is up: someone is on the other side and nobody has pulled the plug.
    fn is_up(&self) -> bool;

    /// Tells monitors the card's address as the guest has set it.
    fn set_address(&mut self, mac: [u8; 6]);

    /// Tells monitors the card's filter, if it has one of the kind.
    fn set_filter(&mut self, filter: RxFilter);

    /// Throws away what is waiting: the card was reset.
    fn purge(&mut self);
}
