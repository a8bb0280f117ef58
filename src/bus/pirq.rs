//! The router between PCI interrupt pins and the inputs of the interrupt controllers.
//!
//! Documents: Intel 82371SB (PIIX3) data sheet, 2.2.10 (PIRQRC); Intel I/O Controller Hub 9 data sheet, 13.1.14
//! (PIRQ[n]_ROUT), 10.1.29 and on (device interrupt routes).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wire::{IrqLine, LineSink};

const SLOTS: usize = 32;
const PINS: usize = 4;
const LINKS: usize = 8;

/// How a board's slots are wired to its links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PirqWiring {
    /// The i440FX boards: four links, PIRQA#-PIRQD#; slots rotate over them: link = (slot + pin - 1) mod 4.
    I440fx,
    /// ICH9: eight links, PIRQA#-PIRQH#, which are inputs 16-23 of the I/O APIC too. Slots 0-24 rotate over E-H; the
    /// slots of the chip's own devices are set by [`PirqRouter::set_slot`].
    Ich9,
}

impl PirqWiring {
    fn link(self, slot: usize, pin: usize) -> u8 {
        let link = match self {
            Self::I440fx => (slot + pin + 3) % 4,
            Self::Ich9 => (slot + pin) % 4 + 4,
        };
        u8::try_from(link).unwrap_or(0)
    }

    /// The first of the I/O APIC's inputs that links drive whatever their route is.
    fn own_inputs(self) -> Option<usize> {
        (self == Self::Ich9).then_some(16)
    }
}

/// Routes the PCI interrupt links to interrupt controller inputs. Input `device * 4 + pin` of this sink is INTA#-INTD#
/// (pin 0-3) of the device in that slot of the root bus; any number of sources may drive it, each through an
/// [`IrqLine`] of its own.
pub struct PirqRouter {
    state: Mutex<State>,
    sink: Arc<dyn LineSink>,
    own_inputs: Option<usize>,
}

struct State {
    /// How many sources assert each pin of each slot.
    asserted: [u32; SLOTS * PINS],
    /// The link of each pin of each slot.
    links: [u8; SLOTS * PINS],
    /// The interrupt input of each link; `None` is disabled.
    route: [Option<u8>; LINKS],
    /// How each input is driven now.
    level: [bool; 256],
}

impl PirqRouter {
    /// A router with all links disabled.
    #[must_use]
    pub fn new(sink: Arc<dyn LineSink>, wiring: PirqWiring) -> Arc<Self> {
        let links = std::array::from_fn(|input| wiring.link(input / PINS, input % PINS));
        let state = State { asserted: [0; SLOTS * PINS], links, route: [None; LINKS], level: [false; 256] };
        Arc::new(Self { state: Mutex::new(state), sink, own_inputs: wiring.own_inputs() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain tables, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line for `pin` (0 = INTA#) of the device in `slot` (0-31).
    #[must_use]
    pub fn line(self: &Arc<Self>, slot: u8, pin: u8) -> IrqLine {
        IrqLine::new(Arc::clone(self) as Arc<dyn LineSink>, u32::from(slot % 32) * 4 + u32::from(pin % 4))
    }

    /// Routes `link` to interrupt input `input`, or nowhere.
    pub fn set_route(&self, link: usize, input: Option<u8>) {
        let mut state = self.lock();
        if let Some(route) = state.route.get_mut(link) {
            *route = input;
        }
        self.update(&mut state);
    }

    /// Wires the pins of `slot` to these links (0 is PIRQA#).
    pub fn set_slot(&self, slot: u8, links: [u8; PINS]) {
        let mut state = self.lock();
        for (pin, link) in links.into_iter().enumerate() {
            state.links[usize::from(slot % 32) * PINS + pin] = link % 8;
        }
        self.update(&mut state);
    }

    fn update(&self, state: &mut State) {
        let mut wanted = [false; 256];
        for (asserted, link) in state.asserted.iter().zip(state.links) {
            if *asserted == 0 {
                continue;
            }
            if let Some(input) = state.route[usize::from(link)] {
                wanted[usize::from(input)] = true;
            }
            if let Some(first) = self.own_inputs {
                wanted[first + usize::from(link)] = true;
            }
        }
        for (input, (level, wanted)) in (0u32..).zip(state.level.iter_mut().zip(wanted)) {
            if *level != wanted {
                *level = wanted;
                self.sink.set_level(input, wanted);
            }
        }
    }
}

impl LineSink for PirqRouter {
    /// Edges only, as an [`IrqLine`] passes them.
    fn set_level(&self, input: u32, high: bool) {
        let mut state = self.lock();
        let count = &mut state.asserted[(input % 128) as usize];
        *count = if high { *count + 1 } else { count.saturating_sub(1) };
        self.update(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Probe;
    use super::*;

    fn router(wiring: PirqWiring) -> (Arc<Probe>, Arc<PirqRouter>) {
        let probe = Probe::new();
        let router = PirqRouter::new(Arc::clone(&probe) as Arc<dyn LineSink>, wiring);
        (probe, router)
    }

    #[test]
    fn a_pirq_follows_its_route() {
        let (probe, router) = router(PirqWiring::I440fx);
        let mut line = router.line(3, 0); // slot 3 INTA# is link 2
        line.set(true);
        assert!(!probe.is_high(11));
        router.set_route(2, Some(11));
        assert!(probe.is_high(11));
        router.set_route(2, Some(10));
        assert!(!probe.is_high(11));
        assert!(probe.is_high(10));
        line.set(false);
        assert!(!probe.is_high(10));
    }

    #[test]
    fn two_sources_of_one_pin_are_ored() {
        let (probe, router) = router(PirqWiring::I440fx);
        router.set_route(2, Some(11));
        let (mut first, mut second) = (router.line(3, 0), router.line(3, 0));
        first.set(true);
        second.set(true);
        first.set(false);
        assert!(probe.is_high(11));
        second.set(false);
        assert!(!probe.is_high(11));
    }

    #[test]
    fn ich9_links_are_inputs_of_the_io_apic_too() {
        let (probe, router) = router(PirqWiring::Ich9);
        let mut line = router.line(2, 1); // slot 2 INTB# is PIRQH#
        line.set(true);
        assert!(probe.is_high(23) && !probe.is_high(10));
        router.set_route(7, Some(10));
        assert!(probe.is_high(23) && probe.is_high(10));
        router.set_slot(2, [3, 0, 0, 0]);
        assert!(probe.is_high(16) && !probe.is_high(23) && !probe.is_high(10));
        line.set(false);
        assert!(!probe.is_high(16));
    }
}
