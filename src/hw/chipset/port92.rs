//! Port 92h, PS/2 system control port A: fast A20 and fast reset.
//!
//! Documents: IBM Personal System/2 Hardware Interface Technical Reference, "System control port A".

use std::sync::Arc;

use crate::bus::{A20Gate, At, Device, PowerRequest, PowerSink, Region, Reset};

/// Port 92h.
pub const PORT: Region = Region(0);

const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// The port.
pub struct Port92 {
    // Wires.
    a20: Arc<A20Gate>,
    power: PowerSink,
    // Guest-visible state.
    value: u8,
}

impl Port92 {
    /// A port that drives the A20 gate and the reset line.
    #[must_use]
    pub fn new(a20: Arc<A20Gate>, power: PowerSink) -> Self {
        Self { a20, power, value: 0 }
    }
}

impl Device for Port92 {
    fn read(&mut self, _at: At) -> u64 {
        u64::from(self.value)
    }

    fn write(&mut self, _at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        let before = std::mem::replace(&mut self.value, value);
        self.a20.set(value & A20 != 0);
        if value & FAST_RESET != 0 && before & FAST_RESET == 0 {
            (self.power)(PowerRequest::Reset);
        }
    }

    /// The gate itself is reset by the keyboard controller.
    fn reset(&mut self, _kind: Reset) {
        let Self { a20: _, power: _, value } = self;
        *value = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Width;
    use crate::hw::bench::power_probe;

    const AT: At = At { region: PORT, offset: 0, width: Width::B1 };

    #[test]
    fn bit_1_is_a20_and_a_rising_bit_0_resets() {
        let gate = A20Gate::new(|_| ());
        let (sink, power) = power_probe();
        let mut port = Port92::new(Arc::clone(&gate), sink);
        assert_eq!(port.read(AT), 0);
        port.write(AT, 0);
        assert!(!gate.is_enabled());
        port.write(AT, 2);
        assert!(gate.is_enabled());
        assert_eq!(port.read(AT), 2);
        port.write(AT, 3);
        port.write(AT, 3);
        assert_eq!(*power.lock().unwrap(), [PowerRequest::Reset]);
        port.reset(Reset::System);
        assert_eq!(port.read(AT), 0);
    }
}
