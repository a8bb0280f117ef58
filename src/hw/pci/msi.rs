//! MSI: the capability with one message.
//!
//! Documents: PCI Local Bus Specification 3.0 (6.8.1).

use std::sync::Arc;

use crate::bus::{ConfigSpace, MsiSink};

/// Capability id.
const CAP_ID: u8 = 0x05;
/// Message control: enable.
const ENABLE: u16 = 1;
/// Message control: 64-bit addresses.
const WIDE: u16 = 1 << 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Message {
    enabled: bool,
    bus_master: bool,
    address: u64,
    data: u32,
}

/// A function's only message. It belongs to the function.
pub struct Msi {
    sink: Arc<dyn MsiSink>,
    capability: usize,
    message: Message,
}

impl std::fmt::Debug for Msi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Msi({:?})", self.message)
    }
}

impl Msi {
    /// Adds the capability at `offset` of the configuration space: 64-bit addresses, no masks.
    #[must_use]
    pub fn add(config: &mut ConfigSpace, offset: u8, sink: Arc<dyn MsiSink>) -> Self {
        let mut body = [0; 12];
        body[..2].copy_from_slice(&WIDE.to_le_bytes());
        config.add_capability(offset, CAP_ID, &body);
        let at = usize::from(offset);
        config.allow_write(at + 2, &ENABLE.to_le_bytes());
        config.allow_write(at + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        Self { sink, capability: at, message: Message::default() }
    }

    /// A guest wrote the configuration space, or it was reset.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        let at = self.capability;
        self.message = Message {
            enabled: config.u16(at + 2) & ENABLE != 0,
            bus_master: config.bus_master(),
            address: u64::from(config.u32(at + 4)) | u64::from(config.u32(at + 8)) << 32,
            data: u32::from(config.u16(at + 12)),
        };
    }

    /// Whether the guest switched MSI on: the function then must not use its interrupt pin.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.message.enabled
    }

    /// Sends the message. Nothing happens while MSI is off, or the function may not be a bus master.
    pub fn send(&self) {
        if self.message.enabled && self.message.bus_master {
            self.sink.send(self.message.address, self.message.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::COMMAND_BUS_MASTER;
    use crate::hw::bench::MessageProbe;

    #[test]
    fn a_message_goes_where_the_guest_says_once_it_is_enabled() {
        let probe = MessageProbe::new();
        let mut config = ConfigSpace::new(0x8086, 0x2922, 2, 0);
        let mut msi = Msi::add(&mut config, 0x80, probe.clone());
        assert_eq!(config.u32(0x80), 0x0080_0005);
        config.guest_write(0x84, 4, 0xfee0_1003);
        config.guest_write(0x8c, 2, 0x4051);
        config.guest_write(4, 2, COMMAND_BUS_MASTER.into());
        msi.config_written(&config);
        msi.send();
        assert_eq!(probe.take(), []);
        config.guest_write(0x82, 2, ENABLE.into());
        msi.config_written(&config);
        assert!(msi.is_enabled());
        msi.send();
        assert_eq!(probe.take(), [(0xfee0_1000, 0x4051)]);
    }
}
