//! ICH9 AHCI: the controller of the Q35 board, and as a card.
//!
//! Documents are listed in `spec`. Drives are those of [`crate::hw::ide`]. Port multipliers, hot plug, staggered spin-up,
//! enclosure management, command completion coalescing, FIS-based switching and power management of the link do not
//! exist; descriptors' interrupt bits have no effect.

mod port;
mod regions;
mod spec;

use std::sync::Arc;

use crate::block::BlockQueue;
use crate::bus::{
    At, Bar, BarKind, COMMAND_INTX_DISABLE, ConfigChange, ConfigSpace, Device, IrqLine, MsiSink, PciFunction, Reset,
    Token,
};
use crate::hw::ide::{Drive, DriveInfo, DriveOptions, EjectError, FaultSink, TraySink, info};
use crate::hw::pci::Msi;
use crate::mem::GuestRam;

use self::port::Port;
use self::spec::{ABAR, CAP, INDEX, VERSION, ghc, hba};

pub use self::spec::ABAR_DECODE as DECODE;

/// Ports of the controller.
pub const PORTS: usize = 6;

/// Offsets of its capabilities: as on QEMU.
const MSI_CAPABILITY: u8 = 0x80;
const SATA_CAPABILITY: u8 = 0xa8;
/// Address map register (ICH9 14.1.31): the ports are in AHCI mode.
const ADDRESS_MAP: usize = 0x90;

/// Wires of [`Ahci::new`].
pub struct Wires {
    /// INTA#.
    pub irq: IrqLine,
    /// Where messages go.
    pub msi: Arc<dyn MsiSink>,
    /// Guest memory.
    pub ram: GuestRam,
    /// Hears of failed requests, under the board lock.
    pub faults: FaultSink,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    ghc: u32,
    is: u32,
    index: u32,
}

impl Regs {
    const COLD: Self = Self { ghc: ghc::AHCI, is: 0, index: 0 };
}

/// The controller.
pub struct Ahci {
    // Wires.
    irq: IrqLine,
    faults: FaultSink,
    // Guest-visible state.
    config: ConfigSpace,
    msi: Msi,
    regs: Regs,
    ports: [Port; PORTS],
}

/// The number of the drive on `port` of the controller whose first drive has number `base`: two for each port, as if it
/// were a cable.
#[must_use]
pub fn drive_number(base: usize, port: usize) -> usize {
    base + 2 * port
}

impl Ahci {
    /// A controller without drives. `multi_function`: it shares its slot with other functions.
    #[must_use]
    pub fn new(wires: Wires, multi_function: bool) -> Self {
        let Wires { irq, msi, ram, faults } = wires;
        let mut config = ConfigSpace::new(0x8086, 0x2922, 2, 0x01_0601)
            .with_subsystem(0x1af4, 0x1100)
            .with_interrupt_pin(1)
            .with_bar(4, Bar { kind: BarKind::Io, len: 32, region: INDEX })
            .with_bar(5, Bar { kind: BarKind::Memory32 { prefetchable: false }, len: 0x1000, region: ABAR });
        if multi_function {
            config = config.multi_function();
        }
        config.set_u8(ADDRESS_MAP, 1 << 6);
        // Revision 1.0; index and data ports at 10h of base address register 4 (SATA AHCI 2.1.9).
        config.add_capability(SATA_CAPABILITY, 0x12, &[0x10, 0, 0x48, 0, 0, 0]);
        let msi = Msi::add(&mut config, MSI_CAPABILITY, msi);
        let ports = std::array::from_fn(|_| Port::new(ram.clone()));
        Self { irq, faults, config, msi, regs: Regs::COLD, ports }
    }

    /// Connects a drive to a port. Its number is [`drive_number`]'s; the queue raises [`Ahci::token`] of the port.
    pub fn attach(&mut self, port: usize, number: usize, options: DriveOptions, queue: Box<dyn BlockQueue>) {
        if let Some(place) = self.ports.get_mut(port) {
            let mut drive = Drive::new(number, options, queue, Arc::clone(&self.faults));
            drive.sata = true;
            place.drive = Some(drive);
        }
    }

    /// The event of a port's drive.
    #[must_use]
    pub fn token(port: usize) -> Token {
        Token(port as u64)
    }

    // -- for the machine and the monitor -------------------------------------------------------------------------

    fn attached(&mut self) -> impl Iterator<Item = &mut Drive> {
        self.ports.iter_mut().filter_map(|port| port.drive.as_mut())
    }

    /// Tries again what an error policy kept: the machine goes on.
    pub fn retry_held(&mut self) {
        for port in &mut self.ports {
            port.retry_held();
        }
        self.update();
    }

    /// The drives.
    #[must_use]
    pub fn drives(&self) -> Vec<DriveInfo> {
        self.ports.iter().filter_map(|port| port.drive.as_ref()).map(info).collect()
    }

    /// See [`crate::hw::ide::PiixIde::eject`].
    ///
    /// # Errors
    /// The medium cannot be taken out.
    pub fn eject(&mut self, number: usize, force: bool) -> Result<(), EjectError> {
        self.attached().find(|drive| drive.number == number).ok_or(EjectError::NotRemovable)?.eject(force)
    }

    /// The medium behind the drive's queue was put in, taken out or exchanged; the tray closes.
    pub fn medium_changed(&mut self, number: usize) {
        if let Some(drive) = self.attached().find(|drive| drive.number == number && drive.is_cd()) {
            drive.medium_changed();
        }
    }

    /// Tells `sink` of the trays of the drives that are attached now; it is called under the board lock.
    pub fn on_tray_moved(&mut self, sink: &TraySink) {
        for drive in self.attached() {
            drive.tray = Arc::clone(sink);
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn port_at(offset: u64) -> (usize, u64) {
        let inside = offset - hba::PORTS;
        (usize::try_from(inside / hba::PORT_LEN).unwrap_or(usize::MAX), inside % hba::PORT_LEN)
    }

    fn read_register(&self, offset: u64) -> u32 {
        let ports = u32::try_from(PORTS).unwrap_or(0);
        match offset {
            hba::CAP => CAP | (ports - 1),
            hba::GHC => self.regs.ghc,
            hba::IS => self.regs.is,
            hba::PI => (1 << ports) - 1,
            hba::VS => VERSION,
            hba::PORTS.. => {
                let (port, register) = Self::port_at(offset);
                self.ports.get(port).map_or(0, |port| port.read(register))
            }
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            hba::GHC if value & ghc::RESET != 0 => self.reset_controller(),
            hba::GHC => self.regs.ghc = value & ghc::INTERRUPTS | ghc::AHCI,
            hba::IS => self.regs.is &= !value,
            hba::PORTS.. => {
                let (port, register) = Self::port_at(offset);
                if let Some(port) = self.ports.get_mut(port) {
                    port.write(register, value);
                }
            }
            _ => {}
        }
    }

    /// GHC.HR (10.4.3).
    fn reset_controller(&mut self) {
        self.regs = Regs::COLD;
        for port in &mut self.ports {
            port.reset();
        }
    }

    /// The only place that drives the interrupt: level, or a message whenever there is something that was not told.
    fn update(&mut self) {
        let before = self.regs.is;
        for (index, port) in self.ports.iter().enumerate() {
            self.regs.is |= u32::from(port.interrupt()) << index;
        }
        let pending = self.regs.ghc & ghc::INTERRUPTS != 0 && self.regs.is != 0;
        if self.msi.is_enabled() {
            self.irq.set(false);
            if pending && self.regs.is & !before != 0 {
                self.msi.send();
            }
            return;
        }
        self.irq.set(pending && self.config.command() & COMMAND_INTX_DISABLE == 0);
    }
}

impl Device for Ahci {
    fn read(&mut self, at: At) -> u64 {
        let value = match (at.region, at.offset) {
            (ABAR, offset) => self.read_register(offset),
            (INDEX, 0x10) => self.regs.index,
            (INDEX, 0x14) => self.read_register(u64::from(self.regs.index)),
            _ => 0,
        };
        u64::from(value)
    }

    fn write(&mut self, at: At, value: u64) {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match (at.region, at.offset) {
            (ABAR, offset) => self.write_register(offset, value),
            (INDEX, 0x10) => self.regs.index = value & 0xffc,
            (INDEX, 0x14) => self.write_register(u64::from(self.regs.index), value),
            _ => {}
        }
        self.update();
    }

    fn event(&mut self, token: Token) {
        if let Some(port) = usize::try_from(token.0).ok().and_then(|port| self.ports.get_mut(port)) {
            port.collect();
        }
        self.update();
    }

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        self.reset_controller();
        self.msi.config_written(&self.config);
        self.update();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Ahci {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _change: ConfigChange) {
        self.msi.config_written(&self.config);
        self.update();
    }
}
