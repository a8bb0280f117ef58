//! ICH9 function 00:1f.0: the LPC bridge with the interrupt router, ACPI power management, the TCO watchdog, the chipset
//! configuration registers (RCRB) and the reset control register.
//!
//! Documents: Intel I/O Controller Hub 9 (ICH9) data sheet (316972): chapter 10 (chipset configuration registers),
//! 13.1 (configuration), 13.7 (processor interface), 13.8 (power management), 13.9 (TCO).
//!
//! As QEMU does where there is no SMM, firmware is told that it is set up already (SMI_EN.APMC_EN), and ACPI mode is
//! always on. The SCI is IRQ 9 or what ACPI_CNTL chooses among 9, 10 and 11. Device traps, GPIO, legacy USB and
//! power wells do not exist.

use std::sync::Arc;

use crate::bus::{
    At, ConfigChange, ConfigSpace, Device, IrqLine, PciFunction, PirqRouter, PowerRequest, PowerSink, Region,
    RegionHandle, Reset, Token,
};
use crate::event::{Clock, Timer};

use super::super::acpi_pm::{AcpiPm, PmWires, SleepOptions, WakeCause};
use super::super::piix4_pm::{pick, place};
use super::tco::{self, Tco};

/// The ACPI registers: 128 ports that PMBASE places, so map them anywhere, disabled. Decode up to 4 bytes.
pub const PM: Region = Region(0);
/// APM control and status: 2 ports at B2h. Decode bytes.
pub const APM: Region = Region(1);
/// Reset control: port CF9h, in the middle of PCI configuration mechanism #1, so map it after that. Decode bytes.
pub const RESET_CONTROL: Region = Region(2);
/// The chipset configuration registers: 16 KiB that RCBA places, so map them anywhere, hidden. Decode up to 4 bytes.
pub const RCRB: Region = Region(3);
/// Length of [`RCRB`].
pub const RCRB_LEN: u64 = 0x4000;
/// Length of [`PM`].
pub const PM_LEN: u32 = 0x80;
/// The PM timer passes half of its range.
pub const PM_TIMER_TOKEN: Token = Token(0);
/// The watchdog's counter may have run out.
pub const TCO_TOKEN: Token = Token(1);

/// Configuration registers (13.1).
mod conf {
    pub const PMBASE: usize = 0x40;
    pub const ACPI_CNTL: usize = 0x44;
    pub const PIRQ_A: usize = 0x60;
    pub const PIRQ_E: usize = 0x68;
    pub const LPC_DECODE: usize = 0x80;
    pub const GEN_PMCON: usize = 0xa0;
    pub const RCBA: usize = 0xf0;
    /// In ACPI_CNTL: PMBASE decodes.
    pub const ACPI_ENABLE: u8 = 1 << 7;
    /// In PIRQ[n]_ROUT: nothing is routed.
    pub const PIRQ_DISABLED: u8 = 1 << 7;
}

/// Chipset configuration registers (chapter 10).
mod rcrb {
    /// D31IR; the registers go down by slot, but for a gap (10.1.29-10.1.35).
    pub const ROUTES: [(usize, u8); 6] =
        [(0x3140, 31), (0x3144, 29), (0x3146, 28), (0x3148, 27), (0x314c, 26), (0x3150, 25)];
    /// The reset value of all of them: pin n goes to PIRQ n.
    pub const IDENTITY: u16 = 0x3210;
    /// General control and status; bit 5 is NO_REBOOT.
    pub const GCS: usize = 0x3410;
    pub const NO_REBOOT: u8 = 1 << 5;
}

/// Offsets in [`PM`] (13.8.3).
mod pm {
    pub const GPE0_STATUS: u64 = 0x20;
    pub const GPE0_ENABLE: u64 = 0x28;
    pub const GPE0_END: u64 = 0x30;
    pub const SMI_ENABLE: u64 = 0x30;
    pub const SMI_STATUS: u64 = 0x34;
    pub const SMI_END: u64 = 0x38;
    pub const TCO: u64 = 0x60;
    /// In SMI_EN: a write to the APM port raises an SMI. Set for firmware that looks whether SMM is set up.
    pub const APMC_ENABLE: u32 = 1 << 5;
}

/// Reset control register (13.7.5).
mod rst_cnt {
    pub const SYSTEM: u8 = 1 << 1;
    pub const CPU: u8 = 1 << 2;
    pub const FULL: u8 = 1 << 3;
}

/// Wires of [`Ich9Lpc::new`].
pub struct Wires {
    /// IRQ 9, 10 and 11: ACPI_CNTL chooses the system control interrupt's.
    pub sci: IrqLine,
    /// Machine time.
    pub clock: Clock,
    /// For [`PM_TIMER_TOKEN`], on the virtual clock.
    pub pm_timer: Timer,
    /// For [`TCO_TOKEN`], on the virtual clock.
    pub tco_timer: Timer,
    /// The power switch.
    pub power: PowerSink,
    /// The PCI interrupt links.
    pub router: Arc<PirqRouter>,
    /// The ports of [`PM`].
    pub pm_ports: RegionHandle,
    /// [`RCRB`].
    pub rcrb: RegionHandle,
}

/// What the machine's options say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Suspend to RAM is refused.
    pub disable_s3: bool,
    /// Suspend to disk is refused.
    pub disable_s4: bool,
    /// The sleep type of suspend to disk.
    pub s4_type: u8,
    /// `ICH9-LPC.noreboot`: the strap that NO_REBOOT comes up with.
    pub no_reboot: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    gpe_status: u64,
    gpe_enable: u64,
    smi_enable: u32,
    smi_status: u32,
    apm_control: u8,
    apm_status: u8,
    reset_control: u8,
    rcrb: Vec<u8>,
}

impl Regs {
    fn cold(no_reboot: bool) -> Self {
        let mut rcrb = vec![0; usize::try_from(RCRB_LEN).unwrap_or(0)];
        for (at, _) in rcrb::ROUTES {
            rcrb[at..at + 2].copy_from_slice(&rcrb::IDENTITY.to_le_bytes());
        }
        rcrb[rcrb::GCS] = if no_reboot { rcrb::NO_REBOOT } else { 0 };
        Self {
            gpe_status: 0,
            gpe_enable: 0,
            smi_enable: pm::APMC_ENABLE,
            smi_status: 0,
            apm_control: 0,
            apm_status: 0,
            reset_control: 0,
            rcrb,
        }
    }
}

/// The bridge.
pub struct Ich9Lpc {
    // Wires.
    power: PowerSink,
    router: Arc<PirqRouter>,
    pm_ports: RegionHandle,
    rcrb: RegionHandle,
    // Options.
    options: Options,
    // Guest-visible state.
    config: ConfigSpace,
    pm: AcpiPm,
    tco: Tco,
    regs: Regs,
}

impl Ich9Lpc {
    /// The bridge after power-on.
    #[must_use]
    pub fn new(wires: Wires, options: Options) -> Self {
        let Wires { sci, clock, pm_timer, tco_timer, power, router, pm_ports, rcrb } = wires;
        let mut config = ConfigSpace::new(0x8086, 0x2918, 2, 0x06_0100).with_subsystem(0x1af4, 0x1100).multi_function();
        config.set_u32(conf::PMBASE, 1);
        config.allow_write(conf::PMBASE, &[0x80, 0xff, 0, 0, 0x87]);
        for at in [conf::PIRQ_A, conf::PIRQ_E] {
            config.set_u32(at, u32::from_le_bytes([conf::PIRQ_DISABLED; 4]));
            config.allow_write(at, &[0x8f; 4]);
        }
        config.allow_write(conf::LPC_DECODE, &[0x77, 0x13, 0x0f, 0x3f]);
        config.allow_write(conf::GEN_PMCON, &[0xff; 5]);
        config.allow_write(conf::RCBA, &[0x01, 0xc0, 0xff, 0xff]);
        let Options { disable_s3, disable_s4, s4_type, no_reboot } = options;
        let pm_wires = PmWires { sci, clock: clock.clone(), timer: pm_timer, power: Arc::clone(&power) };
        let pm = AcpiPm::new(pm_wires, SleepOptions { disable_s3, disable_s4, s4_type });
        let tco = Tco::new(clock, tco_timer, Arc::clone(&power));
        let regs = Regs::cold(no_reboot);
        let chip = Self { power, router, pm_ports, rcrb, options, config, pm, tco, regs };
        chip.update_places();
        chip.update_routes();
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

    /// Every entry point that changes something ends here.
    fn update(&mut self) {
        self.pm.update(self.regs.gpe_status & self.regs.gpe_enable != 0);
    }

    /// Makes the maps follow PMBASE, ACPI_CNTL and RCBA.
    fn update_places(&self) {
        let base = u64::from(self.config.u16(conf::PMBASE) & 0xff80);
        place(&self.pm_ports, base, self.config.u8(conf::ACPI_CNTL) & conf::ACPI_ENABLE != 0);
        let rcba = self.config.u32(conf::RCBA);
        place(&self.rcrb, u64::from(rcba & 0xffff_c000), rcba & 1 != 0);
    }

    /// Makes the router follow PIRQ[n]_ROUT and the device interrupt routes.
    fn update_routes(&self) {
        for link in 0..8 {
            let at = if link < 4 { conf::PIRQ_A + link } else { conf::PIRQ_E + link - 4 };
            let value = self.config.u8(at);
            self.router.set_route(link, (value & conf::PIRQ_DISABLED == 0).then_some(value & 0x0f));
        }
        for (at, slot) in rcrb::ROUTES {
            let value = u16::from_le_bytes([self.regs.rcrb[at], self.regs.rcrb[at + 1]]);
            let link = |pin: u32| (value >> (4 * pin) & 7) as u8;
            self.router.set_slot(slot, [link(0), link(1), link(2), link(3)]);
        }
    }

    // -- power management ----------------------------------------------------------------------------------------

    fn read_pm(&mut self, at: At) -> u64 {
        let width = at.width.bytes();
        let wide = |value: u64, from: u64| value.checked_shr(8 * u32::try_from(at.offset - from).unwrap_or(8));
        match at.offset {
            0..12 => pick(&self.pm.bytes(), at),
            pm::GPE0_STATUS..pm::GPE0_ENABLE => wide(self.regs.gpe_status, pm::GPE0_STATUS).unwrap_or(0),
            pm::GPE0_ENABLE..pm::GPE0_END => wide(self.regs.gpe_enable, pm::GPE0_ENABLE).unwrap_or(0),
            pm::SMI_ENABLE..pm::SMI_STATUS => wide(self.regs.smi_enable.into(), pm::SMI_ENABLE).unwrap_or(0),
            pm::SMI_STATUS..pm::SMI_END => wide(self.regs.smi_status.into(), pm::SMI_STATUS).unwrap_or(0),
            pm::TCO.. if at.offset < pm::TCO + tco::LEN => self.tco.read(at.offset - pm::TCO, width),
            _ => at.width.ones(),
        }
    }

    fn write_pm(&mut self, at: At, value: u64) {
        if at.offset >= pm::TCO {
            self.tco.write(at.offset - pm::TCO, at.width.bytes(), value);
            return;
        }
        for (offset, byte) in (at.offset..at.offset + at.width.bytes()).zip(value.to_le_bytes()) {
            self.write_pm_byte(offset, byte);
        }
    }

    fn write_pm_byte(&mut self, offset: u64, byte: u8) {
        let put = |word: u64, from: u64| {
            let shift = 8 * (offset - from);
            word & !(0xff << shift) | u64::from(byte) << shift
        };
        let put32 = |word: u32, from: u64| (put(word.into(), from) & 0xffff_ffff) as u32;
        let regs = &mut self.regs;
        match offset {
            0..12 => self.pm.write_byte(offset, byte),
            pm::GPE0_STATUS..pm::GPE0_ENABLE => regs.gpe_status &= !put(0, pm::GPE0_STATUS),
            pm::GPE0_ENABLE..pm::GPE0_END => regs.gpe_enable = put(regs.gpe_enable, pm::GPE0_ENABLE),
            // The mark for firmware stays.
            pm::SMI_ENABLE..pm::SMI_STATUS => {
                regs.smi_enable = put32(regs.smi_enable, pm::SMI_ENABLE) | pm::APMC_ENABLE;
            }
            pm::SMI_STATUS..pm::SMI_END => regs.smi_status &= !put32(0, pm::SMI_STATUS),
            _ => {}
        }
    }

    // -- chipset configuration -----------------------------------------------------------------------------------

    fn write_rcrb(&mut self, at: At, value: u64) {
        for (offset, byte) in (at.offset..at.offset + at.width.bytes()).zip(value.to_le_bytes()) {
            if let Some(place) = usize::try_from(offset).ok().and_then(|offset| self.regs.rcrb.get_mut(offset)) {
                *place = byte;
            }
        }
        self.update_routes();
    }

    fn write_reset_control(&mut self, value: u8) {
        let was = self.regs.reset_control;
        self.regs.reset_control = value & (rst_cnt::SYSTEM | rst_cnt::CPU | rst_cnt::FULL);
        // The bit's rise pulls the line (13.7.5).
        if value & rst_cnt::CPU != 0 && was & rst_cnt::CPU == 0 {
            (self.power)(PowerRequest::Reset);
        }
        self.regs.reset_control &= !rst_cnt::CPU;
    }
}

impl Device for Ich9Lpc {
    fn read(&mut self, at: At) -> u64 {
        match at.region {
            PM => self.read_pm(at),
            APM if at.offset == 0 => u64::from(self.regs.apm_control),
            APM => u64::from(self.regs.apm_status),
            RESET_CONTROL => u64::from(self.regs.reset_control),
            RCRB => pick(&self.regs.rcrb, at),
            _ => at.width.ones(),
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let [low, ..] = value.to_le_bytes();
        match at.region {
            PM => self.write_pm(at, value),
            APM if at.offset == 0 => self.regs.apm_control = low,
            APM => self.regs.apm_status = low,
            RESET_CONTROL => self.write_reset_control(low),
            RCRB => self.write_rcrb(at, value),
            _ => {}
        }
        self.update();
    }

    fn event(&mut self, token: Token) {
        if token == TCO_TOKEN {
            let no_reboot = self.regs.rcrb[rcrb::GCS] & rcrb::NO_REBOOT != 0;
            self.tco.due(no_reboot);
        }
        self.update();
    }

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        let Self { power: _, router: _, pm_ports: _, rcrb: _, options, config: _, pm, tco, regs } = self;
        *regs = Regs::cold(options.no_reboot);
        pm.reset();
        tco.reset();
        self.update_places();
        self.update_routes();
        self.update();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Ich9Lpc {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        if (0x40..0x48).chain(0xf0..0xf4).any(|byte| change.touches(byte)) {
            self.update_places();
        }
        if (0x60..0x6c).any(|byte| change.touches(byte)) {
            self.update_routes();
        }
    }
}
