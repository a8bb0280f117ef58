//! PIIX3 (82371SB) function 0: the PCI-to-ISA bridge with the PCI interrupt router and the reset control register.
//!
//! Documents: Intel 82371FB (PIIX) and 82371SB (PIIX3) data sheet, section 2.2.
//!
//! ISA bus timing, DMA type F and APIC chip select are registers without effect: the machine wires those devices.

use std::sync::Arc;

use crate::bus::{
    At, ConfigChange, ConfigSpace, Device, PciFunction, PirqRouter, PowerRequest, PowerSink, Region, Reset,
};

/// Port CF9h, reset control; it lies in the middle of PCI configuration mechanism #1, so map it after that.
pub const RESET_CONTROL: Region = Region(0);

/// PIRQRCA-PIRQRCD (2.2.10).
const PIRQRC: usize = 0x60;
/// "Interrupt routing disabled".
const PIRQRC_DISABLED: u8 = 1 << 7;

/// Reset control register (2.5.4).
mod rcr {
    pub const HARD: u8 = 1 << 1;
    pub const RESET_CPU: u8 = 1 << 2;
}

/// What the registers hold after reset, where it is not 0 (the data sheet's defaults as far as QEMU keeps them).
const POWER_ON: &[(usize, u8)] = &[
    (0x07, 0x02),
    (0x4c, 0x4d),
    (0x4e, 0x03),
    (0x60, PIRQRC_DISABLED),
    (0x61, PIRQRC_DISABLED),
    (0x62, PIRQRC_DISABLED),
    (0x63, PIRQRC_DISABLED),
    (0x69, 0x02),
    (0x70, 0x80),
    (0x76, 0x0c),
    (0x77, 0x0c),
    (0x78, 0x02),
    (0xa0, 0x08),
    (0xa8, 0x0f),
];

/// The ISA bridge.
pub struct Piix3 {
    // Wires.
    router: Arc<PirqRouter>,
    power: PowerSink,
    // Guest-visible state.
    config: ConfigSpace,
    reset_control: u8,
}

impl Piix3 {
    /// A bridge that routes the links of `router`.
    #[must_use]
    pub fn new(router: Arc<PirqRouter>, power: PowerSink) -> Self {
        let mut config = ConfigSpace::new(0x8086, 0x7000, 0, 0x06_0100).with_subsystem(0x1af4, 0x1100).multi_function();
        config.allow_write(0x40, &[0xff; 0xc0]);
        for &(at, value) in POWER_ON {
            config.set_u8(at, value);
        }
        let bridge = Self { router, power, config, reset_control: 0 };
        bridge.update_routes();
        bridge
    }

    fn update_routes(&self) {
        for link in 0..4 {
            let value = self.config.u8(PIRQRC + link);
            let input = (value & PIRQRC_DISABLED == 0).then_some(value & 0x0f);
            self.router.set_route(link, input);
        }
    }
}

impl Device for Piix3 {
    fn read(&mut self, _at: At) -> u64 {
        u64::from(self.reset_control)
    }

    fn write(&mut self, _at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        // A rising RCPU resets; the register keeps the kind of reset only.
        if value & rcr::RESET_CPU != 0 {
            (self.power)(PowerRequest::Reset);
        }
        self.reset_control = value & rcr::HARD;
    }

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        let Self { router: _, power: _, config: _, reset_control } = self;
        *reset_control = 0;
        self.update_routes();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Piix3 {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        if (0x60..0x64).any(|byte| change.touches(byte)) {
            self.update_routes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Board, Decode, LineSink, PciAddress, PirqWiring, Probe, Width};
    use crate::hw::bench::power_probe;

    const BRIDGE: PciAddress = PciAddress::new(1, 0);

    #[test]
    fn power_on_registers_are_qemus() {
        let router = PirqRouter::new(Probe::new(), PirqWiring::I440fx);
        let (sink, _) = power_probe();
        let mut chip = Piix3::new(router, sink);
        let config = chip.config();
        assert_eq!(config.guest_read(0, 4), 0x7000_8086);
        assert_eq!(config.guest_read(4, 4), 0x0200_0000);
        assert_eq!(config.guest_read(8, 4), 0x0601_0000);
        assert_eq!(config.guest_read(0x0c, 4), 0x0080_0000);
        assert_eq!(config.guest_read(0x4c, 4), 0x0003_004d);
        assert_eq!(config.guest_read(0x60, 4), 0x8080_8080);
    }

    #[test]
    fn pirqrc_routes_a_link_until_reset() {
        let probe = Probe::new();
        let router = PirqRouter::new(Arc::clone(&probe) as Arc<dyn LineSink>, PirqWiring::I440fx);
        let mut line = router.line(1, 3); // link D
        let (sink, _) = power_probe();
        let mut board = Board::new();
        let bridge = board.add("PIIX3", Piix3::new(router, sink));
        board.plug_pci(BRIDGE, bridge.id(), Decode::UP_TO_4, &[]);
        line.set(true);
        board.pci_config_write(BRIDGE, 0x60, 4, 0x0b0a_0b0a);
        assert!(probe.is_high(11));
        board.reset(Reset::System);
        assert!(!probe.is_high(11));
    }

    #[test]
    fn port_cf9_resets_among_the_configuration_ports() {
        let (sink, power) = power_probe();
        let mut board = Board::new();
        board.map_pci_config_ports();
        let bridge = board.add("PIIX3", Piix3::new(PirqRouter::new(Probe::new(), PirqWiring::I440fx), sink));
        board.map_ports(bridge.id(), RESET_CONTROL, Decode::BYTES, 0xcf9, 1);
        board.plug_pci(BRIDGE, bridge.id(), Decode::UP_TO_4, &[]);
        board.port_write(0xcf8, Width::B4, 0x8000_0800);
        assert_eq!(board.port_read(0xcfc, Width::B4), 0x7000_8086);
        board.port_write(0xcf9, Width::B1, 0x02);
        assert!(power.lock().unwrap().is_empty());
        assert_eq!(board.port_read(0xcf9, Width::B1), 2);
        board.port_write(0xcf9, Width::B1, 0x06);
        assert_eq!(*power.lock().unwrap(), [PowerRequest::Reset]);
    }
}
