//! SCSI host adapters and the disks and CD-ROM drives on their buses.

use std::sync::Arc;

use crate::block::{Disk, DiskOptions};
use crate::bus::DeviceId;
use crate::hw::scsi::{Kind, Options as UnitOptions};
use crate::hw::virtio::classes::Variant;
use crate::hw::virtio::scsi::{Address, MAX_LUN, MAX_TARGET, Options, Plane, Scsi};

use super::build::BuildError;
use super::config::{DeviceSpec, DriveInterface};
use super::devices::{Site, boot_index};
use super::drives::{DiskHandle, Drive};
use super::props::Props;

/// Revision that units show, as QEMU's do.
const VERSION: &str = "2.5+";
/// "Not given".
const UNSET: u32 = u32::MAX;

/// A SCSI bus that devices can be put on.
#[derive(Clone, Debug)]
pub struct ScsiBus {
    /// "scsi.0", or "ID.0".
    pub name: String,
    /// The host adapter.
    pub controller: DeviceId,
    /// Its units.
    pub plane: Arc<Plane>,
    /// Firmware's path of the host adapter.
    path: String,
}

impl Site<'_> {
    pub(super) fn virtio_scsi_device(
        &mut self,
        spec: &DeviceSpec,
        variant: Variant,
        mut props: Props<'_>,
        id: &str,
    ) -> Result<(), BuildError> {
        let queues = match props.u32("num_queues", UNSET, 0, UNSET)? {
            UNSET => self.config.smp.cpus.min(1021),
            queues @ 1..=1021 => queues,
            queues => {
                let text = format!("Invalid number of queues (= {queues}), must be a positive integer less than 1022.");
                return Err(props.error(text));
            }
        };
        let queue_size = props.u32("virtqueue_size", 256, 0, UNSET)?;
        if queue_size <= 2 {
            return Err(props.error(format!("invalid virtqueue_size property (= {queue_size}), must be > 2")));
        }
        if !queue_size.is_power_of_two() || queue_size > 1024 {
            return Err(
                props.error(format!("virtqueue_size={queue_size} is not supported: powers of 2 up to 1024 are"))
            );
        }
        let options = Options {
            queues: u16::try_from(queues).unwrap_or(1),
            queue_size: u16::try_from(queue_size).unwrap_or(256),
            seg_max_adjust: props.flag("seg_max_adjust", true)?,
            max_sectors: props.u32("max_sectors", 0xffff, 0, UNSET)?,
            cmd_per_lun: props.u32("cmd_per_lun", 128, 0, UNSET)?,
            hotplug: props.flag("hotplug", true)?,
            param_change: props.flag("param_change", true)?,
        };
        let thread = self.io_thread(&mut props)?;
        let place = self.virtio_place(&spec.driver, variant, &mut props)?;
        props.finish()?;
        let plane = Plane::new(options);
        let name = match id {
            "" => format!("scsi.{}", self.placed.scsi_buses.iter().filter(|bus| bus.name.starts_with("scsi.")).count()),
            id => format!("{id}.0"),
        };
        let path = format!("/pci@i0cf8/scsi@{}", place.unit_address());
        let controller = place.device;
        self.virtio_install(place, id, Box::new(Scsi::new(Arc::clone(&plane), thread)), options.queues + 3);
        self.placed.scsi_buses.push(ScsiBus { name, controller, plane, path });
        Ok(())
    }

    /// `scsi-hd`, `scsi-cd`.
    pub(super) fn scsi_device(&mut self, spec: &DeviceSpec, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let kind = if spec.driver == "scsi-cd" { Kind::Cdrom } else { Kind::Disk };
        let bus = self.scsi_bus(spec, &props)?;
        let drive = if kind == Kind::Cdrom && !props.rest().iter().any(|(name, _)| *name == "drive") {
            empty_drive(self.wiring.ram.clone())
        } else {
            self.take_drive(&mut props, &spec.driver)?
        };
        let image = drive.disk.0.image();
        if kind == Kind::Disk && image.is_none() {
            return Err(props.error("Device needs media, but drive is empty"));
        }
        let address = scsi_address(&mut props, &bus)?;
        let policies = self.policies(&mut props, &drive)?;
        let options = self.unit_options(kind, &mut props, &drive)?;
        let boot = boot_index(&mut props)?;
        props.finish()?;
        if let Some(index) = boot {
            let path = format!("{}/channel@0/disk@{:x},{:x}", bus.path, address.target, address.lun);
            self.placed.boot.push((index, path));
        }
        let cdrom = kind == Kind::Cdrom;
        let faults = self.place_disk(bus.controller, &drive, id, cdrom, "");
        bus.plane.attach(address, options, policies, faults, |notify| drive.disk.0.queue(notify));
        self.placed.scsi_units.push((drive.id.clone(), bus.name.clone(), address));
        Ok(())
    }

    fn scsi_bus(&self, spec: &DeviceSpec, props: &Props<'_>) -> Result<ScsiBus, BuildError> {
        let buses = &self.placed.scsi_buses;
        match spec.bus.as_deref() {
            Some(name) => {
                let found = buses.iter().find(|bus| bus.name == name || format!("{name}.0") == bus.name);
                found.cloned().ok_or_else(|| props.error(format!("Bus '{name}' not found")))
            }
            None => {
                let none = || props.error(format!("No 'SCSI' bus found for device '{}'", spec.driver));
                buses.first().cloned().ok_or_else(none)
            }
        }
    }

    fn unit_options(&self, kind: Kind, props: &mut Props<'_>, drive: &Drive) -> Result<UnitOptions, BuildError> {
        let disk = kind == Kind::Disk;
        let sizes = self.block_sizes(props)?;
        if !disk && sizes.logical != 512 {
            return Err(props.error("logical_block_size of a CD-ROM drive is 2048"));
        }
        let serial = props.text("serial").unwrap_or_default().to_owned();
        if serial.len() > 36 {
            return Err(props.error("The serial number can't be longer than 36 characters"));
        }
        let device_id = match props.text("device_id") {
            Some(text) if text.len() > 255 - 8 => {
                return Err(props.error("The device ID can't be longer than 247 characters"));
            }
            Some(text) => text.to_owned(),
            None if serial.is_empty() => drive.id.clone(),
            None => serial.chars().take(20).collect(),
        };
        let product = if disk { "QEMU HARDDISK" } else { "QEMU CD-ROM" };
        let logical = if disk { sizes.logical } else { 2048 };
        let discard = sizes.discard.unwrap_or_else(|| sizes.logical.max(4096));
        let rotation = if disk { props.u16("rotation_rate", 0)? } else { 0 };
        Ok(UnitOptions {
            kind,
            vendor: props.text("vendor").unwrap_or("QEMU").to_owned(),
            product: props.text("product").unwrap_or(product).to_owned(),
            version: props.text("ver").unwrap_or(VERSION).to_owned(),
            serial,
            device_id,
            wwn: props.number("wwn", 0, 0, u64::MAX)?,
            logical_block_size: logical,
            physical_block_size: sizes.physical.max(logical),
            io_sizes: (sizes.min_io, sizes.opt_io),
            discard_granularity: if disk { discard } else { 0 },
            max_unmap_size: props.number("max_unmap_size", 1 << 30, 0, u64::MAX)?,
            rotation_rate: rotation,
            removable: disk && props.flag("removable", false)?,
            dpofua: disk && props.flag("dpofua", false)?,
            write_cache: self.write_cache(props, drive)?,
        })
    }
}

/// `channel`, `scsi-id` and `lun`, or the first place that is free.
fn scsi_address(props: &mut Props<'_>, bus: &ScsiBus) -> Result<Address, BuildError> {
    let channel = props.u32("channel", 0, 0, UNSET)?;
    if channel != 0 {
        return Err(props.error(format!("bad scsi channel id: {channel}")));
    }
    let (target, lun) = (props.u32("scsi-id", UNSET, 0, UNSET)?, props.u32("lun", UNSET, 0, UNSET)?);
    if target != UNSET && target > MAX_TARGET.into() {
        return Err(props.error(format!("bad scsi device id: {target}")));
    }
    if lun != UNSET && lun > MAX_LUN.into() {
        return Err(props.error(format!("bad scsi device lun: {lun}")));
    }
    let taken = bus.plane.addresses();
    let at = |target: u32, lun: u32| Address {
        target: u8::try_from(target).unwrap_or(u8::MAX),
        lun: u16::try_from(lun).unwrap_or(MAX_LUN),
    };
    if target == UNSET {
        let lun = if lun == UNSET { 0 } else { lun };
        let free = (0..=u32::from(MAX_TARGET)).map(|target| at(target, lun)).find(|place| !taken.contains(place));
        return free.ok_or_else(|| props.error("no free target"));
    }
    if lun == UNSET {
        let free = (0..=u32::from(MAX_LUN)).map(|lun| at(target, lun)).find(|place| !taken.contains(place));
        return free.ok_or_else(|| props.error("no free lun"));
    }
    match taken.contains(&at(target, lun)) {
        true => Err(props.error("lun already used by '(null)'")),
        false => Ok(at(target, lun)),
    }
}

/// A CD-ROM drive without a host side has no medium and never gets one.
fn empty_drive(ram: crate::mem::GuestRam) -> Drive {
    Drive {
        id: String::new(),
        cdrom: true,
        interface: DriveInterface::None,
        bus: 0,
        unit: 0,
        disk: DiskHandle(Disk::new(None, DiskOptions::new(ram))),
        policies: (None, None),
        origin: String::new(),
        read_only: true,
    }
}
