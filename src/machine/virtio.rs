//! Virtio devices of the command line: from properties to a function on the PCI bus.

use std::sync::Arc;

use crate::bus::{DeviceId, DeviceRef, PciAddress};
use crate::hw::virtio::classes::{self, Variant};
use crate::hw::virtio::net;
use crate::hw::virtio::rng::{self, Builtin, Rng};
use crate::hw::virtio::transport_pci::{DECODE, Options, VirtioPci, Wires};
use crate::hw::virtio::{VirtioDevice, feature};

use crate::mem::RamBlock;

use super::build::BuildError;
use super::config::DeviceSpec;
use super::devices::Site;
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
            irq: self.wiring.irqs.router().line(address.device, 0),
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
        let place = self.virtio_place(&spec.driver, variant, &mut props)?;
        props.finish()?;
        let timer = self.wiring.timer(place.device, rng::PERIOD);
        let limit = (max_bytes != i64::MAX.unsigned_abs()).then_some(rng::Limit { max_bytes, period_ms, timer });
        self.virtio_install(place, id, Box::new(Rng::new(Box::new(Builtin), limit)), 2);
        Ok(())
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
