//! The PCI function: configuration space, the five register regions, and what the machine asks of the drives.

use std::sync::Arc;

use crate::block::BlockQueue;
use crate::bus::{
    At, Bar, BarKind, ConfigChange, ConfigSpace, Device, IrqLine, PciFunction, Region, Reset, Token, Width,
};
use crate::mem::GuestRam;

use super::channel::Channel;
use super::drive::{Drive, DriveKind, DriveOptions, FaultSink, Geometry, TraySink};
use super::spec::{BUS_MASTER, PRIMARY_COMMAND, PRIMARY_CONTROL, Reg, SECONDARY_COMMAND, SECONDARY_CONTROL};

/// Which chip the function is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chip {
    /// 82371SB: 8086:7010.
    Piix3,
    /// 82371AB: 8086:7111.
    Piix4,
}

/// A PIIX IDE controller with up to four drives.
pub struct PiixIde {
    // Wires.
    faults: FaultSink,
    // Guest-visible state.
    config: ConfigSpace,
    channels: [Channel; 2],
}

/// What monitors show of a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveInfo {
    /// channel * 2 + unit.
    pub number: usize,
    /// Disk or CD-ROM.
    pub kind: DriveKind,
    /// Serial number as the guest sees it.
    pub serial: String,
    /// Model as the guest sees it.
    pub model: String,
    /// Firmware revision as the guest sees it.
    pub version: String,
    /// Geometry of a disk.
    pub geometry: Geometry,
    /// The tray is out.
    pub tray_open: bool,
    /// The guest locked the tray.
    pub locked: bool,
    /// A request waits for [`PiixIde::retry_held`].
    pub holds_request: bool,
    /// The write cache is on.
    pub write_cache: bool,
}

/// Why a medium cannot be taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EjectError {
    /// There is no such drive, or it is a disk.
    #[error("Device is not removable")]
    NotRemovable,
    /// The guest locked the tray; it was told that someone wants the medium.
    #[error("Device is locked and force was not specified, wait for tray to open and try again")]
    Locked,
}

impl PiixIde {
    /// A controller without drives. `irqs` are ISA 14 and 15; `faults` hears of failed requests under the board lock.
    #[must_use]
    pub fn new(chip: Chip, irqs: [IrqLine; 2], ram: GuestRam, faults: FaultSink) -> Self {
        let device = match chip {
            Chip::Piix3 => 0x7010,
            Chip::Piix4 => 0x7111,
        };
        let bar = Bar { kind: BarKind::Io, len: 16, region: BUS_MASTER };
        let mut config = ConfigSpace::new(0x8086, device, 0, 0x01_0180).with_subsystem(0x1af4, 0x1100).with_bar(4, bar);
        // Fast back-to-back, medium DEVSEL# timing (82371SB 2.3.4).
        config.set_u16(6, 0x0280);
        // IDETIM, SIDETIM (2.3.9, 2.3.10) and PIIX4's UDMACTL and UDMATIM: kept for the guest; drives have no timing.
        // IDETIM's decode enable is not honoured: the channels always decode, as on QEMU.
        config.allow_write(0x40, &[0xff; 5]);
        if chip == Chip::Piix4 {
            config.allow_write(0x48, &[0x0f, 0, 0x33, 0x33]);
        }
        let [first, second] = irqs;
        let channels = [Channel::new(first, ram.clone()), Channel::new(second, ram)];
        Self { faults, config, channels }
    }

    /// Connects a drive: `number` is channel * 2 + unit. The queue raises [`PiixIde::token`] of that number.
    pub fn attach(&mut self, number: usize, options: DriveOptions, queue: Box<dyn BlockQueue>) {
        let drive = Drive::new(number, options, queue, Arc::clone(&self.faults));
        if let Some(place) = self.place(number) {
            *place = Some(drive);
        }
    }

    /// The event of a drive's queue.
    #[must_use]
    pub fn token(number: usize) -> Token {
        Token(number as u64)
    }

    fn place(&mut self, number: usize) -> Option<&mut Option<Drive>> {
        self.channels.get_mut(number / 2)?.drives.get_mut(number % 2)
    }

    fn drive(&mut self, number: usize) -> Option<&mut Drive> {
        self.place(number)?.as_mut()
    }

    // -- for the machine and the monitor -------------------------------------------------------------------------

    /// Tries again what an error policy kept: the machine goes on.
    pub fn retry_held(&mut self) {
        for channel in &mut self.channels {
            channel.retry_held();
        }
    }

    /// The drives.
    #[must_use]
    pub fn drives(&self) -> Vec<DriveInfo> {
        self.channels.iter().flat_map(|channel| channel.drives.iter().flatten()).map(info).collect()
    }

    /// Whether the medium can be taken out now. With a locked tray the guest is told of the wish, and unless `force`
    /// it has to open the tray first. On success the tray is open.
    ///
    /// # Errors
    /// It cannot.
    pub fn eject(&mut self, number: usize, force: bool) -> Result<(), EjectError> {
        self.drive(number).ok_or(EjectError::NotRemovable)?.eject(force)
    }

    /// The medium behind the drive's queue was put in, taken out or exchanged; the tray closes.
    pub fn medium_changed(&mut self, number: usize) {
        if let Some(drive) = self.drive(number).filter(|drive| drive.is_cd()) {
            drive.medium_changed();
        }
    }

    /// Opens or closes the tray from outside (`blockdev-open-tray`, `blockdev-close-tray`).
    pub fn set_tray_open(&mut self, number: usize, open: bool) {
        let drive = self.drive(number).filter(|drive| drive.is_cd() && drive.cd.tray_open != open);
        match drive {
            Some(drive) if open => drive.open_tray(),
            Some(drive) => drive.medium_changed(),
            None => {}
        }
    }

    /// Tells `sink` of the trays of the drives that are attached now; it is called under the board lock.
    pub fn on_tray_moved(&mut self, sink: &TraySink) {
        for drive in self.channels.iter_mut().flat_map(|channel| channel.drives.iter_mut().flatten()) {
            drive.tray = Arc::clone(sink);
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn read_byte(&mut self, region: Region, offset: u64) -> u8 {
        match region {
            PRIMARY_COMMAND => self.channels[0].read(Reg::at(offset)),
            SECONDARY_COMMAND => self.channels[1].read(Reg::at(offset)),
            PRIMARY_CONTROL => self.channels[0].alternate_status(),
            SECONDARY_CONTROL => self.channels[1].alternate_status(),
            BUS_MASTER => self.channels[usize::from(offset & 8 != 0)].read_bus_master(offset),
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, region: Region, offset: u64, value: u8) {
        match region {
            PRIMARY_COMMAND => self.channels[0].write(Reg::at(offset), value),
            SECONDARY_COMMAND => self.channels[1].write(Reg::at(offset), value),
            PRIMARY_CONTROL => self.channels[0].write_control(value),
            SECONDARY_CONTROL => self.channels[1].write_control(value),
            BUS_MASTER => self.channels[usize::from(offset & 8 != 0)].write_bus_master(offset, value),
            _ => {}
        }
    }

    /// The channel whose data port an access wider than a byte goes to.
    fn data_port(&mut self, at: At) -> Option<&mut Channel> {
        if at.offset != 0 || at.width == Width::B1 {
            return None;
        }
        match at.region {
            PRIMARY_COMMAND => Some(&mut self.channels[0]),
            SECONDARY_COMMAND => Some(&mut self.channels[1]),
            _ => None,
        }
    }
}

pub(in crate::hw) fn info(drive: &Drive) -> DriveInfo {
    DriveInfo {
        number: drive.number,
        kind: drive.options.kind,
        serial: drive.serial(),
        model: drive.model().to_owned(),
        version: drive.version().to_owned(),
        geometry: drive.geometry(),
        tray_open: drive.cd.tray_open,
        locked: drive.cd.locked,
        holds_request: drive.holds_request(),
        write_cache: drive.settings.write_cache,
    }
}

/// Bytes of a data port access: double words at most.
fn data_width(width: Width) -> usize {
    if width == Width::B2 { 2 } else { 4 }
}

impl Device for PiixIde {
    fn read(&mut self, at: At) -> u64 {
        if let Some(channel) = self.data_port(at) {
            return u64::from(channel.read_data(data_width(at.width)));
        }
        (0..at.width.bytes()).fold(0, |value, i| value | u64::from(self.read_byte(at.region, at.offset + i)) << (8 * i))
    }

    fn write(&mut self, at: At, value: u64) {
        if let Some(channel) = self.data_port(at) {
            channel.write_data(data_width(at.width), u32::try_from(value & 0xffff_ffff).unwrap_or(0));
            return;
        }
        for i in 0..at.width.bytes() {
            self.write_byte(at.region, at.offset + i, (value >> (8 * i) & 0xff) as u8);
        }
    }

    fn read_string(&mut self, at: At, data: &mut [u8]) -> usize {
        self.data_port(at).map_or(0, |channel| channel.read_data_string(data))
    }

    fn write_string(&mut self, at: At, data: &[u8]) -> usize {
        self.data_port(at).map_or(0, |channel| channel.write_data_string(data))
    }

    fn event(&mut self, token: Token) {
        let Ok(number) = usize::try_from(token.0) else { return };
        if let Some(channel) = self.channels.get_mut(number / 2) {
            channel.collect(number % 2);
        }
    }

    fn reset(&mut self, kind: Reset) {
        let Self { faults: _, config, channels } = self;
        config.reset(kind);
        for channel in channels {
            channel.reset();
        }
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for PiixIde {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _change: ConfigChange) {
        let on = self.config.bus_master();
        for channel in &mut self.channels {
            channel.enable_master(on);
        }
    }
}
