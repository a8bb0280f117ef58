//! isa-debug-exit: a write ends the emulator with a status that the guest chooses.
//!
//! QEMU's device for test guests; there is no hardware like it.

use crate::bus::{At, Device, PowerRequest, PowerSink, Region, Reset};

/// The ports (QEMU's default: 2 ports at 501h). Decode up to 4 bytes.
pub const PORTS: Region = Region(0);

/// The device.
pub struct DebugExit {
    power: PowerSink,
}

impl DebugExit {
    /// A device that asks `power` for the exit.
    #[must_use]
    pub fn new(power: PowerSink) -> Self {
        Self { power }
    }
}

impl Device for DebugExit {
    fn read(&mut self, _at: At) -> u64 {
        0
    }

    fn write(&mut self, _at: At, value: u64) {
        // The status is odd whatever the guest writes, so that it is never mistaken for success.
        let [low, ..] = value.to_le_bytes();
        (self.power)(PowerRequest::Exit(low << 1 | 1));
    }

    fn reset(&mut self, _kind: Reset) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Width;
    use crate::hw::bench::power_probe;

    #[test]
    fn the_status_is_twice_the_value_plus_one() {
        let (sink, power) = power_probe();
        let mut device = DebugExit::new(sink);
        device.write(At { region: PORTS, offset: 0, width: Width::B1 }, 0x10);
        device.write(At { region: PORTS, offset: 0, width: Width::B4 }, 0xffff_ff80);
        assert_eq!(*power.lock().unwrap(), [PowerRequest::Exit(0x21), PowerRequest::Exit(0x01)]);
    }
}
