//! PIIX4 (82371AB) function 3: ACPI power management, the PM timer, general purpose events, the APM ports and the
//! SMBus host.
//!
//! Documents: Intel 82371AB (PIIX4) data sheet, sections 7.1 (configuration) and 7.2 (I/O); ACPI 6.5, 4.8 (fixed
//! hardware). The sleep types and the GPE block at AFE0h are those of QEMU's tables.
//!
//! Device monitors, throttling and system management interrupts are not modelled. As QEMU does where there is no SMM,
//! firmware is told that it is set up already (bit 25 of DEVACTB), and ACPI mode is always on: SCI_EN cannot be
//! cleared, and the values for "ACPI enable" and "disable" at port B2h change nothing.

use crate::bus::{
    At, ConfigChange, ConfigSpace, Device, IrqLine, PciFunction, PowerSink, Region, RegionHandle, Reset, Token,
};
use crate::event::{Clock, Timer};

use super::acpi_pm::{AcpiPm, PmWires, SleepOptions, set_byte};
pub use super::acpi_pm::{PM_TIMER_HZ, WakeCause};
use super::smbus::SmbusHost;

/// The ACPI registers: 64 ports that PMBA places, so map them anywhere, disabled. Decode up to 4 bytes.
pub const PM: Region = Region(0);
/// The SMBus host's registers: 64 ports that SMBBA places (QEMU's `pc`: B100h at power-on). Decode bytes.
pub const SMBUS: Region = Region(1);
/// General purpose event block 0: 4 ports at AFE0h. Decode up to 4 bytes.
pub const GPE0: Region = Region(2);
/// APM control and status: 2 ports at B2h. Decode bytes.
pub const APM: Region = Region(3);
/// The PM timer passes half of its range.
pub const PM_TIMER_TOKEN: Token = Token(0);

/// Configuration registers (7.1).
mod conf {
    pub const PMBA: usize = 0x40;
    pub const DEVACTB_3: usize = 0x5b;
    pub const DEVRESB: usize = 0x5f;
    pub const DEVRESC_3: usize = 0x63;
    pub const DEVRESD_3: usize = 0x67;
    pub const PMREGMISC: usize = 0x80;
    pub const SMBBA: usize = 0x90;
    pub const SMBHSTCFG: usize = 0xd2;
    /// In DEVACTB_3: the APM control port raises no SMI that firmware would still have to set up.
    pub const SMM_DONE: u8 = 1 << 1;
}

/// What the machine's options say about the function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Suspend to RAM is refused.
    pub disable_s3: bool,
    /// Suspend to disk is refused.
    pub disable_s4: bool,
    /// The sleep type of suspend to disk (`s4_val`).
    pub s4_type: u8,
    /// Where the SMBus host is at power-on.
    pub smbus_base: u16,
    /// Serial ports that the board has (only the first two count).
    pub serial_ports: u8,
    /// The board has a parallel port.
    pub parallel_port: bool,
}

impl Default for Options {
    /// QEMU's `pc`.
    fn default() -> Self {
        Self {
            disable_s3: false,
            disable_s4: false,
            s4_type: 2,
            smbus_base: 0xb100,
            serial_ports: 1,
            parallel_port: true,
        }
    }
}

/// Wires of [`Piix4Pm::new`].
#[derive(Debug)]
pub struct Wires {
    /// The system control interrupt: IRQ 9.
    pub sci: IrqLine,
    /// Machine time.
    pub clock: Clock,
    /// For [`PM_TIMER_TOKEN`], on the virtual clock.
    pub timer: Timer,
    /// The ports of [`PM`].
    pub pm_ports: RegionHandle,
    /// The ports of [`SMBUS`].
    pub smbus_ports: RegionHandle,
}

/// The power management function, 00:01.3.
pub struct Piix4Pm {
    // Wires.
    pm_ports: RegionHandle,
    smbus_ports: RegionHandle,
    // Guest-visible state.
    config: ConfigSpace,
    smbus: SmbusHost,
    pm: AcpiPm,
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    gpe_status: u16,
    gpe_enable: u16,
    apm_control: u8,
    apm_status: u8,
}

impl Regs {
    const COLD: Self = Self { gpe_status: 0, gpe_enable: 0, apm_control: 0, apm_status: 0 };
}

impl Piix4Pm {
    /// The function. `eeproms` are the SPD EEPROMs at SMBus addresses 50h-57h (QEMU has eight, all zeros).
    #[must_use]
    pub fn new(wires: Wires, power: PowerSink, options: Options, eeproms: Vec<[u8; 256]>) -> Self {
        let mut config =
            ConfigSpace::new(0x8086, 0x7113, 3, 0x06_8000).with_subsystem(0x1af4, 0x1100).with_interrupt_pin(1);
        config.set_u16(0x06, 0x0280); // medium DEVSEL#, fast back-to-back
        config.allow_write(0x40, &[0xff; 0xc0]);
        config.allow_write(conf::PMBA, &[0xc0, 0xff, 0, 0]);
        config.allow_write(conf::SMBBA, &[0xf0, 0xff, 0, 0]);
        config.set_u32(conf::PMBA, 1);
        config.set_u8(conf::DEVACTB_3, conf::SMM_DONE);
        config.set_u8(conf::DEVRESB, 0x10 | if options.parallel_port { 0x80 } else { 0 });
        config.set_u8(conf::DEVRESC_3, 0x60);
        let serial = [0x00, 0x08, 0x98][usize::from(options.serial_ports.min(2))];
        config.set_u8(conf::DEVRESD_3, serial);
        config.set_u32(conf::SMBBA, u32::from(options.smbus_base) | 1);
        config.set_u8(conf::SMBHSTCFG, 0x09);
        let Wires { sci, clock, timer, pm_ports, smbus_ports } = wires;
        let Options { disable_s3, disable_s4, s4_type, .. } = options;
        let pm = AcpiPm::new(PmWires { sci, clock, timer, power }, SleepOptions { disable_s3, disable_s4, s4_type });
        let smbus = SmbusHost::new(eeproms);
        let chip = Self { pm_ports, smbus_ports, config, smbus, pm, regs: Regs::COLD };
        chip.update_ports();
        chip
    }

    /// The user pressed the power button. Without ACPI in the guest nothing comes of it.
    pub fn press_power_button(&mut self) {
        self.pm.press_power_button();
        self.update();
    }

    /// The machine wakes from suspend to RAM.
    pub fn wake(&mut self, cause: WakeCause) {
        self.pm.wake(cause);
        self.update();
    }

    /// Sets general purpose event `bit` (0-15) of block 0.
    pub fn raise_gpe(&mut self, bit: u8) {
        self.regs.gpe_status |= 1 << (bit & 15);
        self.update();
    }

    /// Whether the guest listens to the power button: ACPI is in use.
    #[must_use]
    pub fn hears_power_button(&self) -> bool {
        self.pm.hears_power_button()
    }

    /// Every entry point that changes something ends here.
    fn update(&mut self) {
        self.pm.update(self.regs.gpe_status & self.regs.gpe_enable != 0);
    }

    /// Makes the port map follow PMBA, PMREGMISC and the SMBus registers.
    fn update_ports(&self) {
        let pm = u64::from(self.config.u16(conf::PMBA) & 0xffc0);
        place(&self.pm_ports, pm, self.config.u8(conf::PMREGMISC) & 1 != 0);
        let smbus = u64::from(self.config.u16(conf::SMBBA) & 0xffc0);
        place(&self.smbus_ports, smbus, self.config.u8(conf::SMBHSTCFG) & 1 != 0);
    }

    fn gpe_bytes(&self) -> [u8; 4] {
        let [s0, s1] = self.regs.gpe_status.to_le_bytes();
        let [e0, e1] = self.regs.gpe_enable.to_le_bytes();
        [s0, s1, e0, e1]
    }

    fn write_gpe_byte(&mut self, offset: u64, byte: u8) {
        match offset {
            0 | 1 => self.regs.gpe_status &= !(u16::from(byte) << (8 * offset)),
            2 | 3 => set_byte(&mut self.regs.gpe_enable, offset - 2, byte),
            _ => {}
        }
    }
}

pub(super) fn place(ports: &RegionHandle, base: u64, enabled: bool) {
    if enabled {
        ports.move_to(base);
    }
    ports.set_enabled(enabled);
}

/// `width` bytes of a register file from `offset`; ones behind its end, where nothing answers.
pub(super) fn pick(bytes: &[u8], at: At) -> u64 {
    (0..at.width.bytes()).rev().fold(0, |value, i| {
        let index = usize::try_from(at.offset + i).unwrap_or(usize::MAX);
        value << 8 | u64::from(bytes.get(index).copied().unwrap_or(0xff))
    })
}

impl Device for Piix4Pm {
    fn read(&mut self, at: At) -> u64 {
        match at.region {
            PM => pick(&self.pm.bytes(), at),
            GPE0 => pick(&self.gpe_bytes(), at),
            SMBUS => u64::from(self.smbus.read(at.offset)),
            APM if at.offset == 0 => u64::from(self.regs.apm_control),
            APM => u64::from(self.regs.apm_status),
            _ => at.width.ones(),
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let bytes = value.to_le_bytes();
        for (offset, &byte) in (at.offset..at.offset + at.width.bytes()).zip(&bytes) {
            match at.region {
                PM => self.pm.write_byte(offset, byte),
                GPE0 => self.write_gpe_byte(offset, byte),
                SMBUS => self.smbus.write(offset, byte),
                APM if offset == 0 => self.regs.apm_control = byte,
                APM => self.regs.apm_status = byte,
                _ => {}
            }
        }
        self.update();
    }

    fn event(&mut self, _token: Token) {
        self.update();
    }

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        let Self { pm_ports: _, smbus_ports: _, config: _, smbus, pm, regs } = self;
        *regs = Regs::COLD;
        pm.reset();
        smbus.reset();
        self.update_ports();
        self.update();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Piix4Pm {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        if [0x40, 0x41, 0x80, 0x90, 0x91, 0xd2].iter().any(|&byte| change.touches(byte)) {
            self.update_ports();
        }
    }
}

#[cfg(test)]
mod tests;
