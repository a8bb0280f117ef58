//! NVMe controllers and namespaces of the command line.

use std::sync::Arc;

use crate::bus::DeviceId;
use crate::hw::nvme::{DECODE, MAX_NAMESPACES, NamespaceOptions, Nvme, Options, Plane, Wires};

use super::build::BuildError;
use super::config::DeviceSpec;
use super::devices::{Site, boot_index};
use super::drives::Drive;
use super::props::Props;

/// A bus for namespaces.
#[derive(Clone, Debug)]
pub struct NvmeBus {
    /// The controller's id, or "nvme-bus.N".
    pub name: String,
    /// The controller.
    pub controller: DeviceId,
    /// Its namespaces.
    pub plane: Arc<Plane>,
    path: String,
}

impl Site<'_> {
    /// `nvme`.
    pub(super) fn nvme(&mut self, _spec: &DeviceSpec, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let serial = props.text("serial").ok_or_else(|| props.error("serial property not set"))?.to_owned();
        let pairs = props.u32("max_ioqpairs", 64, 0, u32::MAX)?;
        if !(1..=65535).contains(&pairs) {
            return Err(props.error("max_ioqpairs must be between 1 and 65535"));
        }
        // The registers have room for the doorbells of so many.
        if pairs > 511 {
            return Err(props.error(format!("max_ioqpairs={pairs} is not supported: up to 511 are")));
        }
        let vectors = props.u16("msix_qsize", 65)?;
        if !(1..=255).contains(&vectors) {
            return Err(props.error(format!("msix_qsize={vectors} is not supported: 1 to 255 are")));
        }
        let mdts = props.u8("mdts", 7)?;
        if mdts > 12 {
            return Err(props.error(format!("mdts={mdts} is not supported: up to 12 are")));
        }
        let options = Options { serial, queue_pairs: u16::try_from(pairs).unwrap_or(64), vectors, mdts };
        let has_drive = props.rest().iter().any(|(name, _)| *name == "drive");
        let namespace = match has_drive {
            true => Some(self.namespace_options(&mut props, "nvme")?),
            false => None,
        };
        let boot = boot_index(&mut props)?;
        let address = self.slot(&mut props)?;
        props.finish()?;
        let wires = Wires {
            irq: self.wiring.pci_line(&self.board(), address, 0),
            msi: Arc::clone(&self.wiring.messages),
            ram: self.wiring.ram.clone(),
        };
        let chip = Nvme::new(options, wires);
        let plane = Arc::clone(chip.plane());
        let controller = {
            let mut board = self.board();
            let controller = board.reserve("nvme");
            board.install(controller, chip);
            board.plug_pci(address, controller, DECODE, &[]);
            controller
        };
        let name = match id {
            "" => format!("nvme-bus.{}", self.placed.nvme_buses.len()),
            id => id.to_owned(),
        };
        let path = format!("/pci@i0cf8/pci1b36,10@{:x}", address.device);
        let bus = NvmeBus { name, controller, plane, path };
        self.remember("nvme", id, "PCI", vec![("max_ioqpairs", format!("{pairs} ({pairs:#x})"))]);
        if let Some((drive, options)) = namespace {
            self.add_namespace(&bus, 1, &drive, options, boot, id);
        }
        self.placed.nvme_buses.push(bus);
        Ok(())
    }

    /// `nvme-ns`.
    pub(super) fn nvme_namespace(
        &mut self,
        spec: &DeviceSpec,
        mut props: Props<'_>,
        id: &str,
    ) -> Result<(), BuildError> {
        let buses = &self.placed.nvme_buses;
        let bus = match spec.bus.as_deref() {
            Some(name) => {
                let found = buses.iter().find(|bus| bus.name == name || format!("{}.0", bus.name) == name);
                found.cloned().ok_or_else(|| props.error(format!("Bus '{name}' not found")))?
            }
            None => {
                let none = || props.error("No 'nvme-bus' bus found for device 'nvme-ns'");
                buses.first().cloned().ok_or_else(none)?
            }
        };
        if !props.rest().iter().any(|(name, _)| *name == "drive") {
            return Err(props.error("block backend not configured"));
        }
        let (drive, options) = self.namespace_options(&mut props, "nvme-ns")?;
        let taken = bus.plane.namespaces();
        let number = match props.u32("nsid", 0, 0, u32::MAX)? {
            0 => (1..=MAX_NAMESPACES).find(|number| !taken.contains(number)),
            number if number > MAX_NAMESPACES => {
                return Err(props.error("invalid namespace id (must be between 0 and 256)"));
            }
            number if taken.contains(&number) => {
                return Err(props.error(format!("namespace id '{number}' already allocated")));
            }
            number => Some(number),
        };
        let number = number.ok_or_else(|| props.error("no free namespace id"))?;
        let boot = boot_index(&mut props)?;
        props.finish()?;
        self.add_namespace(&bus, number, &drive, options, boot, id);
        Ok(())
    }

    fn namespace_options(&self, props: &mut Props<'_>, class: &str) -> Result<(Drive, NamespaceOptions), BuildError> {
        let drive = self.take_drive(props, class)?;
        if drive.disk.0.image().is_none() {
            return Err(props.error("could not get blockdev size: No medium found"));
        }
        let sizes = self.block_sizes(props)?;
        let uuid = match props.text("uuid") {
            None | Some("auto") => uuid::Builder::from_random_bytes(random()?).into_uuid(),
            Some(text) => text.parse().map_err(|_| {
                props.error(format!("Parameter 'uuid' expects UUID (aka GUID) or \"auto\", not '{text}'"))
            })?,
        };
        let options = NamespaceOptions {
            block_size: sizes.logical,
            eui64: if class == "nvme-ns" { props.number("eui64", 0, 0, u64::MAX)? } else { 0 },
            uuid: uuid.into_bytes(),
            write_cache: self.write_cache(props, &drive)?,
        };
        Ok((drive, options))
    }

    fn add_namespace(
        &mut self,
        bus: &NvmeBus,
        number: u32,
        drive: &Drive,
        options: NamespaceOptions,
        boot: Option<u64>,
        id: &str,
    ) {
        if let Some(index) = boot {
            self.placed.boot.push((index, format!("{}/namespace@{number:x},0", bus.path)));
        }
        let faults = self.place_disk(bus.controller, drive, id, false, "");
        // NVMe has no error policies of its own: the drive's count.
        let policy =
            |given: &Option<String>, read| crate::block::ErrorPolicy::by_name(given.as_deref().unwrap_or("auto"), read);
        let defaults = crate::hw::storage::Policies::default();
        let policies = crate::hw::storage::Policies {
            read: policy(&drive.policies.0, true).unwrap_or(defaults.read),
            write: policy(&drive.policies.1, false).unwrap_or(defaults.write),
        };
        bus.plane.attach(number, options, policies, faults, |notify| drive.disk.0.queue(notify));
    }
}

fn random() -> Result<[u8; 16], BuildError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| BuildError::Text(format!("random bytes: {error}")))?;
    Ok(bytes)
}
