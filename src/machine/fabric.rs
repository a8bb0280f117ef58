//! Interrupt lines of a PC board: global system interrupts with as many sources as like.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{IrqLine, LineSink, OrGate, PirqRouter};

/// Inputs of a PC's interrupt controllers: 16 of the 8259s, 24 of the I/O APIC, shared numbers for the first 16.
const INPUTS: u32 = 24;
/// The gate input that the PCI router drives; others are handed out from 0.
const PCI_INPUT: u32 = 63;

/// The lines into the interrupt controllers.
pub struct IrqFabric {
    gates: Vec<Arc<OrGate>>,
    next: Mutex<Vec<u32>>,
    router: Arc<PirqRouter>,
}

impl std::fmt::Debug for IrqFabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IrqFabric")
    }
}

/// Passes the router's outputs to the gates.
struct RouterOutput {
    gates: Vec<Arc<OrGate>>,
}

impl LineSink for RouterOutput {
    fn set_level(&self, input: u32, high: bool) {
        if let Some(gate) = self.gates.get(input as usize) {
            gate.set_level(PCI_INPUT, high);
        }
    }
}

impl IrqFabric {
    /// Lines into `controller`, whose inputs are global system interrupts.
    #[must_use]
    pub fn new(controller: &Arc<dyn LineSink>) -> Self {
        let gates: Vec<_> = (0..INPUTS).map(|input| OrGate::new(Arc::clone(controller), input)).collect();
        let router = PirqRouter::new(Arc::new(RouterOutput { gates: gates.clone() }));
        Self { gates, next: Mutex::new(vec![0; INPUTS as usize]), router }
    }

    /// A new source of ISA interrupt `irq` (0-15).
    #[must_use]
    pub fn isa(&self, irq: u8) -> IrqLine {
        let index = usize::from(irq % 16);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let input = next[index];
        next[index] = (input + 1).min(PCI_INPUT - 1);
        IrqLine::new(Arc::clone(&self.gates[index]) as Arc<dyn LineSink>, input)
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
        let fabric = IrqFabric::new(&sink);
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
