//! The debug console of Bochs: what is written to its port appears on a character device.
//!
//! Reading gives E9h, by which firmware finds out that somebody listens.

use crate::bus::{At, Device, Region, Reset};
use crate::chardev::CharHandle;

/// The port (QEMU's default: E9h).
pub const PORT: Region = Region(0);
/// QEMU's default for what reading gives.
pub const DEFAULT_READBACK: u8 = 0xe9;

/// The console.
#[derive(Debug)]
pub struct DebugCon {
    output: CharHandle,
    readback: u8,
}

impl DebugCon {
    /// A console that writes to `output`.
    #[must_use]
    pub fn new(output: CharHandle, readback: u8) -> Self {
        Self { output, readback }
    }
}

impl Device for DebugCon {
    fn read(&mut self, _at: At) -> u64 {
        u64::from(self.readback)
    }

    fn write(&mut self, _at: At, value: u64) {
        let [byte, ..] = value.to_le_bytes();
        // There is no status to tell the guest of a full back end: what finds no room is lost.
        let _ = self.output.write(&[byte]);
    }

    fn reset(&mut self, _kind: Reset) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Width;
    use crate::hw::bench::CharProbe;

    #[test]
    fn bytes_come_out_and_the_mark_comes_back() {
        let probe = CharProbe::new();
        let mut device = DebugCon::new(probe.handle(), DEFAULT_READBACK);
        let at = At { region: PORT, offset: 0, width: Width::B1 };
        device.write(at, u64::from(b'h'));
        device.write(at, u64::from(b'i'));
        assert_eq!(probe.state().output, b"hi");
        assert_eq!(device.read(at), 0xe9);
    }
}
