//! Virtio devices of the command line: from properties to a function on the PCI bus.

use std::sync::Arc;

use crate::bus::{DeviceId, DeviceRef, PciAddress};
use crate::hw::virtio::blk::{self, Blk, DiscardLimits, Plane};
use crate::hw::virtio::classes::{self, Variant};
use crate::hw::virtio::net;
use crate::hw::virtio::rng::{self, Builtin, Rng};
use crate::hw::virtio::scsi;
use crate::hw::virtio::serial;
use crate::hw::virtio::transport_pci::{DECODE, Options, VirtioPci, Wires};
use crate::hw::virtio::{VirtioDevice, feature};

use crate::mem::RamBlock;

use super::build::BuildError;
use super::config::{DeviceSpec, DriveInterface};
use super::devices::{Site, boot_index};
use super::drives::Drive;
use super::props::Props;

/// `vectors` that were not given.
const UNSET_VECTORS: u32 = u32::MAX;

/// A place on the bus for a device that is being made, with what its properties say of the transport.
pub(super) struct Place {
    class: String,
    pub(super) address: PciAddress,
    /// The board's name of the device, for timers and notifiers.
    pub(super) device: DeviceId,
    options: Options,
    vectors: u32,
    /// An expansion ROM.
    pub(super) rom: Option<Arc<RamBlock>>,
}

impl Site<'_> {
    /// Makes a virtio device if the class is one.
    pub(super) fn virtio(&mut self, spec: &DeviceSpec, props: Props<'_>, id: &str) -> Option<Result<(), BuildError>> {
        let (family, variant) = classes::find(&spec.driver)?;
        Some(match family.device {
            net::TYPE => self.virtio_net(&spec.driver, variant, props, id, None),
            blk::TYPE => self.virtio_blk_device(spec, variant, props, id),
            serial::TYPE => self.virtio_serial(spec, variant, props, id),
            scsi::TYPE => self.virtio_scsi_device(spec, variant, props, id),
            rng::TYPE => self.virtio_rng(spec, variant, props, id),
            other => Err(props.error(format!("virtio-{} is not supported by this version", other.name))),
        })
    }

    /// Takes the transport's properties and a slot.
    pub(super) fn virtio_place(
        &mut self,
        class: &str,
        variant: Variant,
        props: &mut Props<'_>,
    ) -> Result<Place, BuildError> {
        let mut options = transport_options(variant, props)?;
        let vectors = props.u32("vectors", UNSET_VECTORS, 0, u32::MAX)?;
        options.class = match props.u32("class", 0, 0, 0xff_ffff)? {
            0 => None,
            class => Some(class << 8),
        };
        let address = self.slot(props)?;
        let device = self.board().reserve(class);
        Ok(Place { class: class.to_owned(), address, device, options, vectors, rom: None })
    }

    /// Puts the device on the bus. `default_vectors` counts if the command line gave no `vectors`.
    pub(super) fn virtio_install(
        &mut self,
        place: Place,
        id: &str,
        device: Box<dyn VirtioDevice>,
        default_vectors: u16,
    ) -> DeviceRef<VirtioPci> {
        let Place { class, address, device: number, mut options, vectors, rom } = place;
        options.vectors = match vectors {
            UNSET_VECTORS => default_vectors,
            vectors => u16::try_from(vectors).unwrap_or(u16::MAX).min(crate::hw::pci::msix::MAX_VECTORS),
        };
        let wires = Wires {
            irq: self.wiring.pci_line(&self.board(), address, 0),
            msi: Arc::clone(&self.wiring.messages),
            ram: self.wiring.ram.clone(),
        };
        options.rom = rom.as_ref().map(|rom| rom.len());
        let ram: Vec<_> = rom.into_iter().map(|rom| (6, rom)).collect();
        let chip = VirtioPci::new(device, options, wires);
        let installed = {
            let mut board = self.board();
            let installed = board.install(number, chip);
            board.plug_pci(address, number, DECODE, &ram);
            installed
        };
        let on = |value: bool| value.to_string();
        let properties = vec![
            ("disable-legacy", if options.legacy { "\"off\"" } else { "\"on\"" }.to_owned()),
            ("disable-modern", on(!options.modern)),
            ("vectors", format!("{0} ({0:#x})", options.vectors)),
        ];
        self.remember(&class, id, "PCI", properties);
        installed
    }

    fn virtio_rng(
        &mut self,
        spec: &DeviceSpec,
        variant: Variant,
        mut props: Props<'_>,
        id: &str,
    ) -> Result<(), BuildError> {
        let max_bytes = props.number("max-bytes", i64::MAX.unsigned_abs(), 0, u64::MAX)?;
        let period_ms = props.u32("period", 1 << 16, 0, u32::MAX)?;
        if max_bytes > i64::MAX.unsigned_abs() {
            return Err(props.error("'max-bytes' parameter must be non-negative, and less than 2^63"));
        }
        if period_ms == 0 {
            return Err(props.error("'period' parameter expects a positive integer"));
        }
        let source = props.text("rng");
        let place = self.virtio_place(&spec.driver, variant, &mut props)?;
        let source = match source {
            None => Box::new(Builtin),
            Some(name) => {
                let ready = self.wiring.notifier(place.device, rng::READY);
                let found = self.wiring.objects.entropy(name, &self.wiring.handle, move || ready())?;
                found.ok_or_else(|| props.error(format!("Device '{name}' not found")))?
            }
        };
        props.finish()?;
        let timer = self.wiring.timer(place.device, rng::PERIOD);
        let limit = (max_bytes != i64::MAX.unsigned_abs()).then_some(rng::Limit { max_bytes, period_ms, timer });
        self.virtio_install(place, id, Box::new(Rng::new(source, limit)), 2);
        Ok(())
    }
}

/// `max-discard-sectors` and `max-write-zeroes-sectors` at most: requests of 2 GiB less a sector.
const MAX_SECTORS: u32 = 4_194_303;

impl Site<'_> {
    /// The drives of `-drive if=virtio`.
    pub(super) fn virtio_drives(&mut self) -> Result<(), BuildError> {
        let drives = Arc::clone(self.drives);
        for drive in drives.list().iter().filter(|drive| drive.interface == DriveInterface::Virtio) {
            let spec = DeviceSpec {
                driver: "virtio-blk-pci".to_owned(),
                properties: vec![("drive".to_owned(), drive.id.clone())],
                origin: drive.origin.clone(),
                ..DeviceSpec::default()
            };
            let props = Props::new(&spec, &self.config.globals);
            self.virtio_blk_device(&spec, Variant::Generic, props, "")?;
        }
        Ok(())
    }

    fn virtio_blk_device(
        &mut self,
        spec: &DeviceSpec,
        variant: Variant,
        mut props: Props<'_>,
        id: &str,
    ) -> Result<(), BuildError> {
        let drive = self.take_drive(&mut props, &spec.driver)?;
        if drive.disk.0.image().is_none() {
            return Err(props.error("Device needs media, but drive is empty"));
        }
        let options = self.blk_options(&mut props, &drive)?;
        let policies = self.policies(&mut props, &drive)?;
        let thread = self.io_thread(&mut props)?;
        let boot = boot_index(&mut props)?;
        let place = self.virtio_place(&spec.driver, variant, &mut props)?;
        props.finish()?;
        if let Some(index) = boot {
            self.placed.boot.push((index, format!("/pci@i0cf8/scsi@{}/disk@0,0", place.unit_address())));
        }
        let faults = self.place_disk(place.device, &drive, id, false, "/virtio-backend");
        let vectors = options.queues + 1;
        let plane = Plane::new(options, policies, faults, |notify| drive.disk.0.queue(notify));
        self.virtio_install(place, id, Box::new(Blk::new(plane, thread)), vectors);
        Ok(())
    }

    /// The properties of a virtio disk.
    fn blk_options(&mut self, props: &mut Props<'_>, drive: &Drive) -> Result<blk::Options, BuildError> {
        let sizes = self.block_sizes(props)?;
        let queue_size = props.u16("queue-size", 256)?;
        if !queue_size.is_power_of_two() || !(4..=1024).contains(&queue_size) {
            let text = format!("invalid queue-size property ({queue_size}), must be a power of 2 (max 1024)");
            return Err(props.error(text));
        }
        let queues = match props.u16("num-queues", u16::MAX)? {
            u16::MAX => u16::try_from(self.config.smp.cpus).unwrap_or(1).clamp(1, 1023),
            0 => return Err(props.error("num-queues property must be larger than 0")),
            queues if queues > 1023 => {
                return Err(props.error(format!("num-queues={queues}: at most 1023 queues are possible")));
            }
            queues => queues,
        };
        let mut sectors = |name: &str| match props.u32(name, MAX_SECTORS, 0, u32::MAX)? {
            sectors @ 1..=MAX_SECTORS => Ok(sectors),
            other => {
                Err(props.error(format!("invalid {name} property ({other}), must be between 1 and {MAX_SECTORS}")))
            }
        };
        let (max_discard, max_zeroes) = (sectors("max-discard-sectors")?, sectors("max-write-zeroes-sectors")?);
        let granularity = sizes.discard.unwrap_or(sizes.logical).max(512);
        let alignment =
            if props.flag("report-discard-granularity", true)? { granularity / 512 } else { sizes.logical / 512 };
        let capacity = drive.disk.0.image().and_then(|image| image.node.len().ok()).unwrap_or(0);
        Ok(blk::Options {
            queues,
            queue_size,
            seg_max_adjust: props.flag("seg-max-adjust", true)?,
            serial: props.text("serial").unwrap_or_default().to_owned(),
            logical_block_size: sizes.logical,
            physical_block_size: sizes.physical,
            io_sizes: (sizes.min_io, sizes.opt_io),
            geometry: geometry(props, capacity / blk::SECTOR)?,
            config_wce: props.flag("config-wce", true)?,
            write_cache: self.write_cache(props, drive)?,
            discard: props.flag("discard", true)?.then_some(DiscardLimits { max_sectors: max_discard, alignment }),
            write_zeroes: props.flag("write-zeroes", true)?.then_some(max_zeroes),
            read_only: drive.disk.0.image().is_some_and(|image| image.read_only),
        })
    }
}

/// `cyls`, `heads` and `secs`, or the usual guess.
fn geometry(props: &mut Props<'_>, sectors: u64) -> Result<(u16, u8, u8), BuildError> {
    let given = (props.u32("cyls", 0, 0, 65535)?, props.u32("heads", 0, 0, 255)?, props.u32("secs", 0, 0, 255)?);
    if given == (0, 0, 0) {
        let cylinders = (sectors / (16 * 63)).clamp(2, 16383);
        return Ok((u16::try_from(cylinders).unwrap_or(16383), 16, 63));
    }
    for (name, value, max) in [("cyls", given.0, 65535), ("heads", given.1, 255), ("secs", given.2, 255)] {
        if value == 0 {
            return Err(props.error(format!("{name} must be between 1 and {max}")));
        }
    }
    let narrow = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    Ok((u16::try_from(given.0).unwrap_or(u16::MAX), narrow(given.1), narrow(given.2)))
}

impl Place {
    /// Slot and function as firmware paths have them.
    pub(super) fn unit_address(&self) -> String {
        match self.address.function {
            0 => format!("{:x}", self.address.device),
            function => format!("{:x},{function:x}", self.address.device),
        }
    }
}

/// The transport's properties.
fn transport_options(variant: Variant, props: &mut Props<'_>) -> Result<Options, BuildError> {
    let mut options = Options::new(0);
    for (name, bit) in [
        ("any_layout", feature::ANY_LAYOUT),
        ("event_idx", feature::EVENT_IDX),
        ("indirect_desc", feature::INDIRECT_DESC),
        ("notify_on_empty", feature::NOTIFY_ON_EMPTY),
        ("queue_reset", feature::RING_RESET),
    ] {
        if !props.flag(name, true)? {
            options.features &= !bit;
        }
    }
    for name in ["ats", "in_order", "iommu_platform", "packed"] {
        if props.flag(name, false)? {
            return Err(props.error(format!("{name}=on is not supported by this version")));
        }
    }
    options.page_per_queue = props.flag("page-per-vq", false)?;
    options.port_notify = props.flag("modern-pio-notify", false)?;
    let legacy = match props.text("disable-legacy") {
        None | Some("auto" | "off") => true,
        Some(_) => false,
    };
    let modern = !props.flag("disable-modern", false)?;
    (options.legacy, options.modern) = match variant {
        Variant::Generic => (legacy, modern),
        Variant::Transitional => (true, true),
        Variant::NonTransitional => (false, true),
    };
    if !options.legacy && !options.modern {
        return Err(props.error("device cannot work as neither modern nor legacy mode is enabled"));
    }
    Ok(options)
}
