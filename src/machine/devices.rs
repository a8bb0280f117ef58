//! Devices that come and go with the command line: the display adapter, serial and parallel ports, debug devices,
//! IDE drives.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bus::{Board, Decode, DeviceRef, PciAddress};
use crate::chardev::{CharHandle, Chardevs, Claim};
use crate::hw::ahci;
use crate::hw::char::debugcon::{self, DebugCon};
use crate::hw::char::parallel::{self, Parallel};
use crate::hw::char::uart16550::{self, Uart16550};
use crate::hw::chipset::debug_exit::{self, DebugExit};
use crate::hw::display::edid::Monitor;
use crate::hw::display::vga::{self, Vga};
use crate::hw::ide::{DriveKind, DriveProperties};
use crate::hw::pci::bridge::{Bridge, BridgeKind, BridgeOptions};
use crate::hw::registry;
use crate::hw::virtio::scsi::Address as ScsiAddress;
use crate::mem::RamBlock;
use crate::net::Networks;

use super::assemble::LateFaults;
use super::build::BuildError;
use super::config::{Config, DeviceSpec, DriveInterface, VgaKind};
use super::console::PortBus;
use super::disks::PlacedDisk;
use super::drives::{Drive, Drives};
use super::nvme::NvmeBus;
use super::pc::{PARALLEL_PORTS, Pc, SERIAL_PORTS, South, Wiring};
use super::props::Props;
use super::rom::RomSearch;
use super::scsi::ScsiBus;
use super::serial::{Mute, UartSink};

/// What has been put on the board so far.
#[derive(Default, Debug)]
pub struct Placed {
    /// Display adapters, in order.
    pub vgas: Vec<DeviceRef<Vga>>,
    /// Base port and interrupt of the serial ports.
    pub serial_ports: Vec<(u16, u8)>,
    /// Base port and interrupt of the parallel ports.
    pub parallel_ports: Vec<(u16, u8)>,
    /// The drive on each IDE place: channel * 2 + unit.
    pub ide: BTreeMap<usize, PlacedDrive>,
    /// Disks on other controllers.
    pub disks: Vec<PlacedDisk>,
    /// Buses for virtio consoles' ports.
    pub port_buses: Vec<PortBus>,
    /// NVMe controllers' buses.
    pub nvme_buses: Vec<NvmeBus>,
    /// SCSI buses.
    pub scsi_buses: Vec<ScsiBus>,
    /// Drives on SCSI buses: drive, bus, place.
    pub scsi_units: Vec<(String, String, ScsiAddress)>,
    /// Devices of `-device` without a name so far, as their paths count them.
    pub(super) anonymous: u32,
    /// Boot index and firmware path.
    pub boot: Vec<(u64, String)>,
    /// ROM files as loaded: name, bytes.
    pub roms: Vec<(String, u64)>,
    /// Devices for `info qtree`: class, id, properties.
    pub devices: Vec<PlacedDevice>,
    /// Network cards and ROMs that are not there: lines without "warning: ".
    pub warnings: Vec<String>,
    /// PCI buses behind bridges.
    pub pci_buses: Vec<PlacedBus>,
    next_slot: u8,
    next_serial: usize,
    next_parallel: usize,
}

/// A PCI bus behind a bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedBus {
    /// What `bus=` calls it.
    pub name: String,
    /// What the board calls it.
    pub index: u8,
    /// It is a link: there is slot 0 only.
    pub one_slot: bool,
}

/// A device as monitors list it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedDevice {
    /// Class.
    pub driver: String,
    /// `id=`, or nothing.
    pub id: String,
    /// "PCI", "ISA", "ide.0", "ide.1".
    pub bus: &'static str,
    /// Printed properties.
    pub properties: Vec<(String, String)>,
}

/// A drive on the IDE controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedDrive {
    /// The drive's name.
    pub drive: String,
    /// The device's id, or nothing.
    pub id: String,
    /// A CD-ROM drive.
    pub cdrom: bool,
}

impl PlacedDrive {
    /// How monitors name the device: its id, or its path in QEMU's object tree. `number` is channel * 2 + unit.
    #[must_use]
    pub fn qdev(&self, number: usize) -> String {
        if self.id.is_empty() { format!("/machine/unattached/device[{}]", 22 + number) } else { self.id.clone() }
    }
}

/// Where devices are put.
pub struct Site<'a> {
    /// The command line.
    pub config: &'a Config,
    /// Wires.
    pub wiring: &'a Wiring,
    /// Character back ends.
    pub chardevs: &'a Arc<Chardevs>,
    /// Host sides of drives.
    pub drives: &'a Arc<Drives>,
    /// ROM files.
    pub roms: &'a RomSearch,
    /// The board's own chips.
    pub pc: &'a Pc,
    /// Networks.
    pub networks: &'a Arc<Networks>,
    /// Hears of failed disk requests.
    pub faults: &'a LateFaults,
    /// What there is so far.
    pub placed: Placed,
}

const LAST_SLOT: u8 = 31;

impl Site<'_> {
    /// Puts the default display adapter, the ports of `-serial`, `-parallel` and `-debugcon`, the drives of `-hda`
    /// and company, and every `-device` on the board.
    ///
    /// # Errors
    /// A device cannot be had as asked.
    pub fn populate(&mut self) -> Result<(), BuildError> {
        // Slot 0 is the host bridge's; on the 440FX board slot 1 is the PIIX's.
        self.placed.next_slot = match self.pc.south {
            South::Piix { .. } => 2,
            South::Ich9 { .. } => 1,
        };
        let config = self.config;
        let wants_vga = match config.vga {
            VgaKind::Std => true,
            VgaKind::Default => config.defaults,
            VgaKind::None => false,
        };
        if wants_vga {
            self.vga(Props::of_globals("VGA", &config.globals), "")?;
        }
        self.nics()?;
        for chardev in &config.serials {
            if self.placed.next_serial >= SERIAL_PORTS.len() {
                return Err(BuildError::Text("too many serial ports: this machine has 4".to_owned()));
            }
            match chardev {
                Some(id) => self.serial(Props::of_globals("isa-serial", &config.globals), Some(id), "")?,
                None => self.placed.next_serial += 1,
            }
        }
        for chardev in &config.parallels {
            if self.placed.next_parallel >= PARALLEL_PORTS.len() {
                return Err(BuildError::Text("too many parallel ports: this machine has 3".to_owned()));
            }
            match chardev {
                Some(id) => self.parallel(Props::of_globals("isa-parallel", &config.globals), Some(id), "")?,
                None => self.placed.next_parallel += 1,
            }
        }
        if let Some(id) = &config.debugcon {
            self.debugcon(Props::of_globals("isa-debugcon", &config.globals), Some(id), "")?;
        }
        self.legacy_drives()?;
        for spec in &config.devices {
            self.device(spec)?;
        }
        self.virtio_drives()?;
        self.placed.boot.sort_by_key(|(index, _)| *index);
        Ok(())
    }

    fn device(&mut self, spec: &DeviceSpec) -> Result<(), BuildError> {
        let props = Props::new(spec, &self.config.globals);
        let id = spec.id.as_deref().unwrap_or("");
        if let Some(made) = self.virtio(spec, Props::new(spec, &self.config.globals), id) {
            return made;
        }
        if let Some(kind) = BridgeKind::named(&spec.driver) {
            return self.bridge(kind, props, &spec.driver, id);
        }
        match spec.driver.as_str() {
            "VGA" => self.vga(props, id),
            "isa-serial" => self.serial(props, None, id),
            "isa-parallel" => self.parallel(props, None, id),
            "isa-debugcon" => self.debugcon(props, None, id),
            "isa-debug-exit" => self.debug_exit(props, id),
            model if registry::class(model).is_some_and(|class| class.category == registry::Category::Network) => {
                self.network_card(model, props, id, None)
            }
            "virtconsole" | "virtserialport" => self.virtio_port(spec, props, id),
            "nvme" => self.nvme(spec, props, id),
            "nvme-ns" => self.nvme_namespace(spec, props, id),
            "scsi-hd" | "scsi-cd" => self.scsi_device(spec, props, id),
            "ide-hd" | "ide-cd" => self.ide_drive(spec, props, id),
            other => Err(BuildError::option(&spec.origin, format!("'{other}' is not supported by this version"))),
        }
    }

    pub(super) fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.wiring.cell.lock()
    }

    pub(super) fn remember(&mut self, driver: &str, id: &str, bus: &'static str, properties: Vec<(&str, String)>) {
        let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.placed.devices.push(PlacedDevice { driver: driver.to_owned(), id: id.to_owned(), bus, properties });
    }

    // -- PCI -----------------------------------------------------------------------------------------------------

    /// The PCI bus that `bus=` names: as the board knows it, and whether it has one slot only.
    fn pci_bus(&self, props: &Props<'_>) -> Result<(u8, bool), BuildError> {
        let root = match self.pc.south {
            South::Piix { .. } => "pci.0",
            South::Ich9 { .. } => "pcie.0",
        };
        match props.bus() {
            None => Ok((0, false)),
            Some(name) if name == root => Ok((0, false)),
            Some(name) => {
                let found = self.placed.pci_buses.iter().find(|bus| bus.name == name);
                found.map(|bus| (bus.index, bus.one_slot)).ok_or_else(|| props.error(format!("Bus '{name}' not found")))
            }
        }
    }

    /// The slot that `addr=` names, or the next free one, of the bus that `bus=` names.
    pub(super) fn slot(&mut self, props: &mut Props<'_>) -> Result<PciAddress, BuildError> {
        let (bus, one_slot) = self.pci_bus(props)?;
        let taken: Vec<PciAddress> = self.board().pci_functions().into_iter().map(|(address, _)| address).collect();
        if let Some(text) = props.text("addr") {
            let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
            let parsed = u8::from_str_radix(slot.trim_start_matches("0x"), 16).ok().filter(|slot| *slot <= LAST_SLOT);
            let (Some(slot), Ok(function @ 0..=7)) = (parsed, function.parse::<u8>()) else {
                return Err(
                    props.error(format!("Property 'addr' doesn't take value '{text}': slot.function, 0-1f.0-7"))
                );
            };
            if one_slot && slot != 0 {
                return Err(props
                    .error(format!("PCI: slot {slot} is not valid, parent device only allows plugging into slot 0.")));
            }
            let address = PciAddress { bus, device: slot, function };
            if taken.contains(&address) {
                return Err(props.error(format!("PCI: slot {slot} function {function} already occupied")));
            }
            return Ok(address);
        }
        let first = if bus == 0 { self.placed.next_slot } else { 0 };
        let last = if one_slot { 0 } else { LAST_SLOT };
        let free = (first..=last).find(|slot| !taken.iter().any(|other| other.bus == bus && other.device == *slot));
        match free {
            Some(device) => Ok(PciAddress { bus, device, function: 0 }),
            None => Err(props.error("PCI: no slot/function available, all in use")),
        }
    }

    /// A root port or bridge, and the bus behind it: the id is its name.
    fn bridge(&mut self, kind: BridgeKind, mut props: Props<'_>, class: &str, id: &str) -> Result<(), BuildError> {
        let multi_function = props.flag("multifunction", false)?;
        let options = BridgeOptions {
            chassis: props.u8(if kind == BridgeKind::Pci { "chassis_nr" } else { "chassis" }, 0)?,
            slot: props.u16("slot", 0)?,
            port: props.u8("port", 0)?,
            multi_function,
        };
        if kind == BridgeKind::Pci && options.chassis == 0 {
            return Err(props.error("Need chassis_nr != 0"));
        }
        let address = self.slot(&mut props)?;
        props.finish()?;
        let (index, one_slot) = {
            let mut board = self.board();
            let device = board.add(class, Bridge::new(kind, options));
            board.plug_pci(address, device.id(), Decode::UP_TO_4, &[]);
            (board.add_pci_bus(device.id()), kind.is_port())
        };
        let name = if id.is_empty() { format!("pci.{index}") } else { id.to_owned() };
        self.placed.pci_buses.push(PlacedBus { name, index, one_slot });
        self.remember(class, id, "PCI", vec![("chassis", format!("{0} ({0:#x})", options.chassis))]);
        Ok(())
    }

    /// The expansion ROM that `romfile=` names, padded to a power of two.
    pub(super) fn option_rom(&mut self, name: &str) -> Result<Option<Arc<RamBlock>>, BuildError> {
        if name.is_empty() {
            return Ok(None);
        }
        let bytes = self.roms.load(name)?;
        let len = (bytes.len() as u64).next_power_of_two().max(2048);
        let block = RamBlock::anonymous(name, len.next_multiple_of(4096))
            .map_err(|source| BuildError::Memory { name: "option ROM", source })?;
        block.write(0, &bytes);
        self.placed.roms.push((name.to_owned(), len));
        Ok(Some(block))
    }

    fn vga(&mut self, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let vgamem = props.u32("vgamem_mb", 16, 1, 256)?;
        if !vgamem.is_power_of_two() {
            return Err(props.error("vgamem_mb must be a power of two"));
        }
        let monitor = Monitor {
            width: props.u32("xres", 0, 0, 16384)?,
            height: props.u32("yres", 0, 0, 16384)?,
            max_width: props.u32("xmax", 0, 0, 16384)?,
            max_height: props.u32("ymax", 0, 0, 16384)?,
            refresh_mhz: props.u32("refresh_rate", 0, 0, u32::MAX)?,
        };
        let options = vga::Options {
            edid: props.flag("edid", true)?.then_some(monitor),
            mmio: props.flag("mmio", true)?,
            extended_registers: props.flag("qemu-extended-regs", true)?,
        };
        let rom_name = props.text("romfile").unwrap_or("vgabios-stdvga.bin");
        let address = self.slot(&mut props)?;
        props.finish()?;
        let rom = self.option_rom(rom_name)?;
        let len = vga::vram_len(vgamem);
        let vram =
            RamBlock::tracked("vga.vram", len).map_err(|source| BuildError::Memory { name: "vga.vram", source })?;
        let wiring = vga::Wiring { vram, clock: self.wiring.clock.clone(), window_priority: 1 };
        let device = Vga::add_pci(&mut self.board(), "VGA", address, wiring, options, rom);
        self.placed.vgas.push(device);
        self.remember("VGA", id, "PCI", vec![("vgamem_mb", format!("{vgamem} ({vgamem:#x})"))]);
        Ok(())
    }

    // -- ISA -----------------------------------------------------------------------------------------------------

    pub(super) fn claim(&self, props: &Props<'_>, id: Option<&str>) -> Result<Option<Claim>, BuildError> {
        let Some(id) = id else { return Ok(None) };
        self.chardevs.claim(id).map(Some).map_err(|error| props.error(error.to_string()))
    }

    fn serial(&mut self, mut props: Props<'_>, chardev: Option<&str>, id: &str) -> Result<(), BuildError> {
        let index = props.number("index", self.placed.next_serial as u64, 0, 3)?;
        let index = usize::try_from(index).unwrap_or(0);
        let (base, irq) = SERIAL_PORTS[index];
        let base = props.u16("iobase", base)?;
        let irq = props.number("irq", irq.into(), 0, 15)?;
        let irq = u8::try_from(irq).unwrap_or(4);
        let baud_base = props.u32("baudbase", uart16550::BAUD_BASE, 1, u32::MAX)?;
        let named = props.text("chardev");
        let chardev = chardev.or(named);
        let claim = self.claim(&props, chardev)?;
        if claim.is_none() {
            return Err(props.error("Can't create serial device, empty char device"));
        }
        props.finish()?;
        self.placed.next_serial = self.placed.next_serial.max(index + 1);
        let output = claim.as_ref().map_or_else(CharHandle::unconnected, Claim::handle);
        let uart = {
            let mut board = self.board();
            let device = board.reserve("serial");
            let wires = uart16550::Wires {
                irq: self.wiring.irqs.isa(irq),
                clock: self.wiring.clock.clone(),
                timer: self.wiring.timer(device, uart16550::TIMEOUT_TOKEN),
                output,
            };
            let uart = board.install(device, Uart16550::new(wires, baud_base));
            board.map_ports(device, uart16550::PORTS, Decode::BYTES, base, 8);
            uart
        };
        if let Some(claim) = claim {
            claim.connect(UartSink::new(Arc::clone(&self.wiring.cell), uart));
        }
        self.placed.serial_ports.push((base, irq));
        let properties = vec![
            ("index", format!("{index} ({index:#x})")),
            ("iobase", format!("{base} ({base:#x})")),
            ("irq", format!("{irq} ({irq:#x})")),
            ("chardev", format!("{:?}", chardev.unwrap_or(""))),
        ];
        self.remember("isa-serial", id, "ISA", properties);
        Ok(())
    }

    fn parallel(&mut self, mut props: Props<'_>, chardev: Option<&str>, id: &str) -> Result<(), BuildError> {
        let index = props.number("index", self.placed.next_parallel as u64, 0, 2)?;
        let index = usize::try_from(index).unwrap_or(0);
        let (base, irq) = PARALLEL_PORTS[index];
        let base = props.u16("iobase", base)?;
        let irq = u8::try_from(props.number("irq", irq.into(), 0, 15)?).unwrap_or(7);
        let named = props.text("chardev");
        let chardev = chardev.or(named);
        let claim = self.claim(&props, chardev)?;
        if claim.is_none() {
            return Err(props.error("Can't create parallel device, empty char device"));
        }
        props.finish()?;
        self.placed.next_parallel = self.placed.next_parallel.max(index + 1);
        let output = claim.as_ref().map_or_else(CharHandle::unconnected, Claim::handle);
        {
            let mut board = self.board();
            let port = board.add("parallel", Parallel::new(self.wiring.irqs.isa(irq), output));
            board.map_ports(port.id(), parallel::PORTS, Decode::BYTES, base, 8);
        }
        if let Some(claim) = claim {
            claim.connect(Arc::new(Mute));
        }
        self.placed.parallel_ports.push((base, irq));
        let properties = vec![
            ("index", format!("{index} ({index:#x})")),
            ("iobase", format!("{base} ({base:#x})")),
            ("irq", format!("{irq} ({irq:#x})")),
            ("chardev", format!("{:?}", chardev.unwrap_or(""))),
        ];
        self.remember("isa-parallel", id, "ISA", properties);
        Ok(())
    }

    fn debugcon(&mut self, mut props: Props<'_>, chardev: Option<&str>, id: &str) -> Result<(), BuildError> {
        let base = props.u16("iobase", 0xe9)?;
        let readback = props.u8("readback", debugcon::DEFAULT_READBACK)?;
        let named = props.text("chardev");
        let claim = self.claim(&props, chardev.or(named))?;
        if claim.is_none() {
            return Err(props.error("Can't create debugcon device, empty char device"));
        }
        props.finish()?;
        let output = claim.as_ref().map_or_else(CharHandle::unconnected, Claim::handle);
        {
            let mut board = self.board();
            let device = board.add("isa-debugcon", DebugCon::new(output, readback));
            board.map_ports(device.id(), debugcon::PORT, Decode::BYTES, base, 1);
        }
        if let Some(claim) = claim {
            claim.connect(Arc::new(Mute));
        }
        let properties =
            vec![("iobase", format!("{base} ({base:#x})")), ("readback", format!("{readback} ({readback:#x})"))];
        self.remember("isa-debugcon", id, "ISA", properties);
        Ok(())
    }

    fn debug_exit(&mut self, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let base = props.u16("iobase", 0x501)?;
        let len = props.u32("iosize", 2, 1, 8)?;
        props.finish()?;
        {
            let mut board = self.board();
            let device = board.add("isa-debug-exit", DebugExit::new(Arc::clone(&self.wiring.power)));
            board.map_ports(device.id(), debug_exit::PORTS, Decode::UP_TO_4, base, len);
        }
        let properties = vec![("iobase", format!("{base} ({base:#x})")), ("iosize", format!("{len} ({len:#x})"))];
        self.remember("isa-debug-exit", id, "ISA", properties);
        Ok(())
    }

    // -- IDE -----------------------------------------------------------------------------------------------------

    /// How many IDE buses the board has, and how many drives each takes.
    fn ide_places(&self) -> (usize, usize) {
        match self.pc.south {
            South::Piix { .. } => (2, 2),
            South::Ich9 { .. } => (ahci::PORTS, 1),
        }
    }

    /// The drives of `-hda` and company, and of `-drive if=ide`.
    fn legacy_drives(&mut self) -> Result<(), BuildError> {
        let drives = Arc::clone(self.drives);
        for drive in drives.list().iter().filter(|drive| drive.interface == DriveInterface::Ide) {
            let number = usize::try_from(drive.bus * 2 + drive.unit).unwrap_or(usize::MAX);
            let class = if drive.cdrom { "ide-cd" } else { "ide-hd" };
            let props = Props::of_globals(class, &self.config.globals);
            self.attach(number, drive, props, drive.cdrom, "")?;
        }
        Ok(())
    }

    fn ide_drive(&mut self, spec: &DeviceSpec, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let cdrom = spec.driver == "ide-cd";
        let (channels, units) = self.ide_places();
        let channel = match spec.bus.as_deref() {
            None => None,
            Some(name) => {
                let number = name.strip_prefix("ide.").and_then(|number| number.parse::<usize>().ok());
                match number.filter(|number| *number < channels && name == format!("ide.{number}")) {
                    Some(number) => Some(number),
                    None => return Err(props.error(format!("Bus '{name}' not found"))),
                }
            }
        };
        let unit = match props.number("unit", u64::from(u32::MAX), 0, u64::from(u32::MAX))? {
            0xffff_ffff => None,
            unit if unit < units as u64 => Some(usize::try_from(unit).unwrap_or(0)),
            unit => return Err(props.error(format!("Can't create IDE unit {unit}, bus supports only {units} units"))),
        };
        let free = |number: &usize| !self.placed.ide.contains_key(number);
        let mut candidates = (0..2 * channels)
            .filter(|number| number % 2 < units)
            .filter(|number| channel.is_none_or(|channel| number / 2 == channel))
            .filter(|number| unit.is_none_or(|unit| number % 2 == unit));
        let number = match unit {
            Some(unit) => {
                let number = channel.unwrap_or(0) * 2 + unit;
                if !free(&number) {
                    return Err(props.error(format!("IDE unit {unit} is in use")));
                }
                Some(number)
            }
            None => candidates.find(free),
        };
        let number = number.ok_or_else(|| props.error("No free IDE unit: all are in use"))?;
        let drives = Arc::clone(self.drives);
        let drive = match props.text("drive") {
            Some(name) => {
                let found = drives.get(name);
                found
                    .ok_or_else(|| props.error(format!("Property '{}.drive' can't find value '{name}'", spec.driver)))?
            }
            None if cdrom => {
                self.attach_empty(number, props, id)?;
                return Ok(());
            }
            None => return Err(props.error("No drive specified")),
        };
        if self.pc.flash.iter().any(|flash| flash.drive == drive.id) {
            return Err(props.error(format!("Drive '{}' is already in use by another device", drive.id)));
        }
        let used = self.placed.ide.values().any(|placed| placed.drive == drive.id);
        if used {
            return Err(props.error(format!("Drive '{}' is already in use by another block device", drive.id)));
        }
        self.attach(number, drive, props, cdrom, id)
    }

    /// A CD-ROM drive without a host side has no medium and never gets one.
    fn attach_empty(&mut self, number: usize, props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let disk = crate::block::Disk::new(None, crate::block::DiskOptions::new(self.wiring.ram.clone()));
        let drive = Drive {
            id: String::new(),
            cdrom: true,
            interface: DriveInterface::None,
            bus: 0,
            unit: 0,
            disk: super::drives::DiskHandle(disk),
            policies: (None, None),
            origin: String::new(),
            read_only: true,
        };
        self.attach(number, &drive, props, true, id)
    }

    fn attach(
        &mut self,
        number: usize,
        drive: &Drive,
        mut props: Props<'_>,
        cdrom: bool,
        id: &str,
    ) -> Result<(), BuildError> {
        let kind = if cdrom { DriveKind::Cdrom } else { DriveKind::Disk };
        let mut options = DriveProperties::new(kind);
        for (name, value) in [("rerror", &drive.policies.0), ("werror", &drive.policies.1)] {
            if let Some(value) = value {
                options.set(name, value).map_err(|error| BuildError::option(&drive.origin, error.to_string()))?;
            }
        }
        for (name, value) in props.rest() {
            if options.set(name, value).map_err(|error| props.error(error.to_string()))? {
                props.text(name);
            }
        }
        let read_only = drive.disk.0.image().is_some_and(|image| image.read_only);
        let options = options.finish(read_only).map_err(|error| props.error(error.to_string()))?;
        if let Some(index) = boot_index(&mut props)? {
            let controller = match self.pc.south {
                South::Piix { .. } => "ide@1,1",
                South::Ich9 { .. } => "pci8086,2922@1f,2",
            };
            let path = format!("/pci@i0cf8/{controller}/drive@{:x}/disk@{:x}", number / 2, number % 2);
            self.placed.boot.push((index, path));
        }
        props.finish()?;
        if self.placed.ide.contains_key(&number) {
            return Err(BuildError::option(&drive.origin, format!("IDE unit {} is in use", number % 2)));
        }
        let placed = PlacedDrive { drive: drive.id.clone(), id: id.to_owned(), cdrom };
        self.placed.ide.insert(number, placed);
        let (device, token) = self.pc.drive_event(number);
        let notify = self.wiring.notifier(device, token);
        let queue = drive.disk.0.queue(notify);
        self.pc.attach_drive(&mut self.board(), number, options, queue);
        let class = if cdrom { "ide-cd" } else { "ide-hd" };
        let properties =
            vec![("drive", format!("{:?}", drive.id)), ("unit", format!("{} ({:#x})", number % 2, number % 2))];
        const BUSES: [&str; 6] = ["ide.0", "ide.1", "ide.2", "ide.3", "ide.4", "ide.5"];
        self.remember(class, id, BUSES[(number / 2).min(5)], properties);
        Ok(())
    }
}

pub(super) fn boot_index(props: &mut Props<'_>) -> Result<Option<u64>, BuildError> {
    match props.text("bootindex") {
        None | Some("-1") => Ok(None),
        Some(text) => {
            let index = text.parse().map_err(|_| props.error("Parameter 'bootindex' expects a number"))?;
            Ok(Some(index))
        }
    }
}
