//! Interrupt lines of a PC board: global system interrupts with as many sources as like.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{IrqLine, LineSink, OrGate, PirqRouter, PirqWiring};

/// Inputs of a PC's interrupt controllers: 16 of the 8259s, 24 of the I/O APIC, shared numbers for the first 16.
const INPUTS: u32 = 24;
/// The gate input that the PCI router drives; others are handed out from 0.
const PCI_INPUT: u32 = 63;
/// The gate input of chips that drive several interrupts (HPET, RTC behind its gate): each drives different ones.
const SHARED_INPUT: u32 = 62;

/// Counts how often each input of the interrupt controllers was raised.
pub struct IrqCounter {
    controller: Arc<dyn LineSink>,
    counts: [AtomicU64; INPUTS as usize],
}

impl std::fmt::Debug for IrqCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.counts()).finish()
    }
}

impl IrqCounter {
    /// Input and count, for inputs that were raised at all.
    #[must_use]
    pub fn counts(&self) -> Vec<(u32, u64)> {
        let counts = (0u32..).zip(&self.counts).map(|(input, count)| (input, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl LineSink for IrqCounter {
    fn set_level(&self, input: u32, high: bool) {
        if high && let Some(count) = self.counts.get(input as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.controller.set_level(input, high);
    }
}

/// The lines into the interrupt controllers.
pub struct IrqFabric {
    counter: Arc<IrqCounter>,
    gates: Vec<Arc<OrGate>>,
    next: Mutex<Vec<u32>>,
    router: Arc<PirqRouter>,
}

impl std::fmt::Debug for IrqFabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IrqFabric")
    }
}

/// Passes a numbered output to the gate of that number.
struct Gates {
    gates: Vec<Arc<OrGate>>,
    input: u32,
}

impl LineSink for Gates {
    fn set_level(&self, input: u32, high: bool) {
        if let Some(gate) = self.gates.get(input as usize) {
            gate.set_level(self.input, high);
        }
    }
}

impl IrqFabric {
    /// Lines into `controller`, whose inputs are global system interrupts.
    #[must_use]
    pub fn new(controller: &Arc<dyn LineSink>, pci: PirqWiring) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        let counter = Arc::new(IrqCounter { controller: Arc::clone(controller), counts });
        let counted: Arc<dyn LineSink> = Arc::clone(&counter) as Arc<dyn LineSink>;
        let gates: Vec<_> = (0..INPUTS).map(|input| OrGate::new(Arc::clone(&counted), input)).collect();
        let router = PirqRouter::new(Arc::new(Gates { gates: gates.clone(), input: PCI_INPUT }), pci);
        Self { counter, gates, next: Mutex::new(vec![0; INPUTS as usize]), router }
    }

    /// How often each interrupt was raised.
    #[must_use]
    pub fn counter(&self) -> Arc<IrqCounter> {
        Arc::clone(&self.counter)
    }

    /// A new source of ISA interrupt `irq` (0-15).
    #[must_use]
    pub fn isa(&self, irq: u8) -> IrqLine {
        let index = usize::from(irq % 16);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let input = next[index];
        next[index] = (input + 1).min(SHARED_INPUT - 1);
        IrqLine::new(Arc::clone(&self.gates[index]) as Arc<dyn LineSink>, input)
    }

    /// A source of any interrupt, by its number, for a chip that drives several.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn LineSink> {
        Arc::new(Gates { gates: self.gates.clone(), input: SHARED_INPUT })
    }

    /// The router of the PCI interrupt links.
    #[must_use]
    pub fn router(&self) -> &Arc<PirqRouter> {
        &self.router
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Probe;

    #[test]
    fn sources_of_one_interrupt_are_ored() {
        let probe = Probe::new();
        let sink: Arc<dyn LineSink> = probe.clone();
        let fabric = IrqFabric::new(&sink, PirqWiring::I440fx);
        let (mut first, mut second) = (fabric.isa(11), fabric.isa(11));
        fabric.router().set_route(0, Some(11));
        let mut pci = fabric.router().line(1, 0);
        first.set(true);
        second.set(true);
        pci.set(true);
        first.set(false);
        second.set(false);
        assert!(probe.is_high(11));
        pci.set(false);
        assert!(!probe.is_high(11));
    }
}
