//! Virtio over PCI (4.1): the chip that a driver sees, with a [`VirtioDevice`] inside.
//!
//! Capabilities, base address registers and their offsets are QEMU's, which guests' firmware knows: BAR 0 legacy
//! interface, BAR 1 MSI-X, BAR 4 modern structures. Not modelled: the packed ring, IOMMU_PLATFORM and IN_ORDER, which are
//! not offered. Shared memory regions (4.1.4.7) do not exist.

mod modern;
mod registers;

use std::any::Any;
use std::sync::Arc;

use super::interrupt::{NO_VECTOR, Notifier};
use super::queue::{Areas, Queue, queues};
use super::spec::{
    CAP_COMMON, CAP_DEVICE, CAP_ISR, CAP_NOTIFY, CAP_PCI, CAP_VENDOR, COMMON_OFFSET, DEVICE_OFFSET, ISR_OFFSET, LEGACY,
    LEGACY_BAR, MODERN, MODERN_BAR, MODERN_ID_BASE, MODERN_SUBSYSTEM, MSIX, MSIX_BAR, NOTIFY_OFFSET, PORT_NOTIFY,
    PORT_NOTIFY_BAR, ROM, STRUCTURE_LEN, VENDOR, legacy, status,
};
use super::{DeviceType, Negotiated, VirtioDevice, feature};
use crate::bus::{
    At, Bar, BarKind, COMMAND_INTX_DISABLE, ConfigChange, ConfigSpace, Device, IrqLine, MsiSink, PciFunction, Region,
    Reset, Token,
};
use crate::hw::pci::{Msix, MsixLayout};
use crate::mem::GuestRam;

pub use registers::DECODE;

/// Queues of a device at most (4.1.4.3 leaves 16 bits; QEMU has 1024).
pub const MAX_QUEUES: usize = 1024;

/// How the function presents itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// There is a legacy interface (`disable-legacy=off`).
    pub legacy: bool,
    /// There is a modern interface (`disable-modern=off`).
    pub modern: bool,
    /// MSI-X vectors; 0: no MSI-X.
    pub vectors: u16,
    /// Transport features that are offered: `indirect_desc`, `event_idx`, `any_layout`, `notify_on_empty`,
    /// `queue_reset`.
    pub features: u64,
    /// Each queue's notification address has a page of its own (`page-per-vq`).
    pub page_per_queue: bool,
    /// Notifications also through an I/O port (`modern-pio-notify`).
    pub port_notify: bool,
    /// PCI class code instead of the device type's.
    pub class: Option<u32>,
    /// Length of the expansion ROM in bytes.
    pub rom: Option<u64>,
}

impl Options {
    /// QEMU's defaults for a device that has `vectors` vectors.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let features = feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::ANY_LAYOUT
            | feature::NOTIFY_ON_EMPTY
            | feature::RING_RESET;
        Self {
            legacy: true,
            modern: true,
            vectors,
            features,
            page_per_queue: false,
            port_notify: false,
            class: None,
            rom: None,
        }
    }

    /// A device type's number as a PCI device ID.
    fn pci_id(&self, kind: DeviceType) -> u16 {
        if self.legacy { kind.transitional_id } else { MODERN_ID_BASE + kind.id }
    }

    fn notify_multiplier(&self) -> u32 {
        if self.page_per_queue { 4096 } else { 4 }
    }
}

/// What the transport is connected to.
pub struct Wires {
    /// The interrupt pin.
    pub irq: IrqLine,
    /// Where messages go.
    pub msi: Arc<dyn MsiSink>,
    /// Guest memory.
    pub ram: GuestRam,
}

/// A queue's registers: what the driver wrote, before it switches the queue on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct QueueRegs {
    size: u16,
    vector: u16,
    enabled: bool,
    areas: Areas,
}

impl QueueRegs {
    fn cold(max_size: u16) -> Self {
        Self { size: max_size, vector: NO_VECTOR, enabled: false, areas: Areas::default() }
    }
}

/// What a reset of the device clears.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegs>,
    /// The device was told that the driver is ready.
    active: bool,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    // Wires.
    notifier: Notifier,
    queues: Vec<Arc<Queue>>,
    // Options.
    options: Options,
    // Guest-visible state.
    config: ConfigSpace,
    msix: Option<Msix>,
    /// The PCI configuration access capability (4.1.4.9), where there is one.
    window: Option<u8>,
    regs: Regs,
    // The device.
    device: Box<dyn VirtioDevice>,
}

impl std::fmt::Debug for VirtioPci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtioPci({})", self.device.device_type().name)
    }
}

fn cold_regs(queues: &[Arc<Queue>]) -> Regs {
    Regs {
        device_feature_select: 0,
        driver_feature_select: 0,
        driver_features: 0,
        status: 0,
        queue_select: 0,
        queues: queues.iter().map(|queue| QueueRegs::cold(queue.max_size())).collect(),
        active: false,
    }
}

impl VirtioPci {
    /// The function with `device` inside; it is to be plugged in with [`DECODE`].
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>, options: Options, wires: Wires) -> Self {
        let mut config = identity(device.device_type(), &options);
        if let Some(len) = options.rom {
            config = config.with_bar(6, Bar { kind: BarKind::Rom, len, region: ROM });
        }
        let mut next = 0x40;
        let mut window = None;
        if options.legacy {
            // With MSI-X enabled the configuration starts after the two vectors.
            let len = (if options.vectors > 0 { legacy::CONFIG_WITH_MSIX } else { legacy::CONFIG })
                + device.config().len() as u64;
            let bar = Bar { kind: BarKind::Io, len: len.next_power_of_two(), region: LEGACY };
            config = config.with_bar(usize::from(LEGACY_BAR), bar);
        }
        if options.modern {
            (config, next, window) = add_modern(config, &options);
        }
        let mut msix = None;
        if options.vectors > 0 {
            let (layout, len) = MsixLayout::exclusive(MSIX_BAR, options.vectors);
            let bar = Bar { kind: BarKind::Memory32 { prefetchable: false }, len, region: MSIX };
            config = config.with_bar(usize::from(MSIX_BAR), bar);
            msix = Some(Msix::add(&mut config, next, options.vectors, layout, wires.msi));
        }
        let notifier = Notifier::new(wires.irq, msix.as_ref().map(|msix| Arc::clone(msix.vectors())));
        let mut sizes = device.queue_sizes();
        sizes.truncate(MAX_QUEUES);
        let queues = queues(&wires.ram, &notifier, &sizes);
        let regs = cold_regs(&queues);
        Self { notifier, queues, options, config, msix, window, regs, device }
    }

    /// The device inside, for monitors.
    pub fn device<T: VirtioDevice>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = self.device.as_mut();
        any.downcast_mut()
    }

    /// What the device is.
    #[must_use]
    pub fn device_type(&self) -> DeviceType {
        self.device.device_type()
    }

    /// The features that the driver accepted, 0 before it did.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.regs.driver_features
    }

    // -- features and status -------------------------------------------------------------------------------------

    /// All features that are offered to anyone.
    fn offered(&self) -> u64 {
        let mut features = self.device.features() | self.options.features;
        if self.options.modern {
            features |= feature::VERSION_1;
        }
        if self.options.legacy {
            features |= feature::BAD_FEATURE;
        }
        features
    }

    /// Those offered through the modern interface.
    fn offered_modern(&self) -> u64 {
        self.offered() & !(feature::NOTIFY_ON_EMPTY | feature::ANY_LAYOUT | feature::BAD_FEATURE)
    }

    fn needs_reset_bit(&self) -> u8 {
        if self.notifier.is_broken() { status::DEVICE_NEEDS_RESET } else { 0 }
    }

    fn status(&self) -> u8 {
        self.regs.status | self.needs_reset_bit()
    }

    /// The status register (2.1, 3.1.1).
    fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.reset_device();
            return;
        }
        let mut value = value & !status::DEVICE_NEEDS_RESET;
        let newly = value & !self.regs.status;
        if newly & status::FEATURES_OK != 0 {
            if self.regs.driver_features & !self.offered() == 0 {
                self.device.features_accepted(self.regs.driver_features);
            } else {
                value &= !status::FEATURES_OK;
            }
        }
        self.regs.status = value;
        if value & status::DRIVER_OK != 0 {
            self.activate();
        }
    }

    fn is_modern_driver(&self) -> bool {
        self.regs.driver_features & feature::VERSION_1 != 0
    }

    fn activate(&mut self) {
        if self.regs.active {
            return;
        }
        self.regs.active = true;
        let features = self.regs.driver_features;
        let has = |bit: u64| features & bit != 0;
        for queue in &self.queues {
            queue.activate(has(feature::EVENT_IDX), has(feature::NOTIFY_ON_EMPTY));
        }
        let config = self.notifier.clone();
        self.device.activate(Negotiated { features, queues: self.queues.clone(), config });
    }

    /// 2.4: everything that the driver set up is forgotten.
    fn reset_device(&mut self) {
        // First the queues, so that what still runs finds them gone.
        for queue in &self.queues {
            queue.reset(false);
        }
        self.device.reset();
        self.notifier.reset();
        self.regs = cold_regs(&self.queues);
    }

    // -- queues --------------------------------------------------------------------------------------------------

    fn selected(&self) -> Option<&QueueRegs> {
        self.regs.queues.get(usize::from(self.regs.queue_select))
    }

    fn selected_mut(&mut self) -> Option<&mut QueueRegs> {
        self.regs.queues.get_mut(usize::from(self.regs.queue_select))
    }

    fn set_queue_vector(&mut self, vector: u16) {
        let vector = self.valid_vector(vector);
        let index = usize::from(self.regs.queue_select);
        if let (Some(regs), Some(queue)) = (self.regs.queues.get_mut(index), self.queues.get(index)) {
            regs.vector = vector;
            queue.set_vector(vector);
        }
    }

    /// A vector that the function does not have reads back as none (4.1.5.1.2).
    fn valid_vector(&self, vector: u16) -> u16 {
        if vector < self.options.vectors { vector } else { NO_VECTOR }
    }

    fn enable_selected(&mut self) {
        let index = usize::from(self.regs.queue_select);
        let (Some(regs), Some(queue)) = (self.regs.queues.get_mut(index), self.queues.get(index)) else { return };
        if regs.enabled {
            return;
        }
        if queue.enable(regs.size, regs.areas).is_err() {
            self.notifier.needs_reset("a queue was enabled with a size or an address that it cannot have");
            return;
        }
        regs.enabled = true;
    }

    fn reset_selected(&mut self) {
        let index = usize::from(self.regs.queue_select);
        let (Some(regs), Some(queue)) = (self.regs.queues.get_mut(index), self.queues.get(index)) else { return };
        queue.reset(true);
        *regs = QueueRegs::cold(queue.max_size());
        if self.regs.active {
            self.device.reset_queue(index);
        }
    }

    fn notify(&mut self, queue: u64) {
        let Ok(queue) = usize::try_from(queue) else { return };
        // Some legacy drivers use their queues before they are ready (3.1.2 allows it to none, but QEMU serves them).
        if !self.regs.active && !self.is_modern_driver() && self.regs.queues.iter().any(|regs| regs.enabled) {
            self.activate();
        }
        if self.regs.active && self.config.bus_master() && !self.notifier.is_broken() && queue < self.queues.len() {
            self.device.notify(queue);
        }
    }

    fn read_device_config(&self, offset: u64, len: u64) -> u64 {
        let bytes = self.device.config();
        let byte = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at)).copied().unwrap_or(0);
        (0..len).fold(0, |value, i| value | u64::from(byte(offset + i)) << (8 * i))
    }

    fn write_device_config(&mut self, offset: u64, len: u64, value: u64) {
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return };
        let whole = offset.checked_add(len).is_some_and(|end| end <= self.device.config().len());
        if whole {
            self.device.write_config(offset, &value.to_le_bytes()[..len.min(8)]);
        }
    }
}

/// The header.
fn identity(kind: DeviceType, options: &Options) -> ConfigSpace {
    let (revision, subsystem) = if options.legacy { (0, kind.id) } else { (1, MODERN_SUBSYSTEM) };
    ConfigSpace::new(VENDOR, options.pci_id(kind), revision, options.class.unwrap_or(kind.class))
        .with_subsystem(VENDOR, subsystem)
        .with_interrupt_pin(1)
}

/// Adds the modern structures and their capabilities: also returns where the next capability goes, and where the
/// configuration access window is.
fn add_modern(mut config: ConfigSpace, options: &Options) -> (ConfigSpace, u8, Option<u8>) {
    let notify_len = options.notify_multiplier() * u32::try_from(MAX_QUEUES).unwrap_or(1024);
    let len = (NOTIFY_OFFSET + u64::from(notify_len)).next_power_of_two();
    let bar = Bar { kind: BarKind::Memory64 { prefetchable: true }, len, region: MODERN };
    config = config.with_bar(usize::from(MODERN_BAR), bar);
    let multiplier = options.notify_multiplier().to_le_bytes();
    let mut structures = vec![
        (CAP_COMMON, MODERN_BAR, COMMON_OFFSET, STRUCTURE_LEN, None),
        (CAP_ISR, MODERN_BAR, ISR_OFFSET, STRUCTURE_LEN, None),
        (CAP_DEVICE, MODERN_BAR, DEVICE_OFFSET, STRUCTURE_LEN, None),
        (CAP_NOTIFY, MODERN_BAR, NOTIFY_OFFSET, notify_len, Some(multiplier)),
    ];
    if options.port_notify {
        let bar = Bar { kind: BarKind::Io, len: 4, region: PORT_NOTIFY };
        config = config.with_bar(usize::from(PORT_NOTIFY_BAR), bar);
        structures.push((CAP_NOTIFY, PORT_NOTIFY_BAR, 0, 4, Some([0; 4])));
    }
    structures.push((CAP_PCI, 0, 0, 0, Some([0; 4])));
    let mut at = 0x40u8;
    let mut window = 0;
    for (kind, bar, offset, len, extra) in structures {
        // struct virtio_pci_cap (4.1.4): cap_len, cfg_type, bar, id, padding, offset, length, and what follows it.
        let cap_len = if extra.is_some() { 20 } else { 16 };
        let mut body = vec![cap_len, kind, bar, 0, 0, 0];
        body.extend_from_slice(&u32::try_from(offset).unwrap_or(0).to_le_bytes());
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(&extra.unwrap_or_default()[..usize::from(cap_len) - 16]);
        config.add_capability(at, CAP_VENDOR, &body);
        window = at;
        at += cap_len;
    }
    // Bar, offset, length and data of the window are the driver's (4.1.4.9.1).
    config.allow_write(usize::from(window) + 4, &[0xff]);
    config.allow_write(usize::from(window) + 8, &[0xff; 12]);
    (config, at, Some(window))
}

impl Device for VirtioPci {
    fn read(&mut self, at: At) -> u64 {
        self.read_region(at)
    }

    fn write(&mut self, at: At, value: u64) {
        self.write_region(at, value);
    }

    fn event(&mut self, token: Token) {
        self.device.event(token);
    }

    fn reset(&mut self, _kind: Reset) {
        self.reset_device();
        if let Some(msix) = &self.msix {
            msix.reset();
        }
        self.notifier.update_pin(false);
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for VirtioPci {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, access: ConfigChange) {
        self.window_read(access);
    }

    fn config_written(&mut self, change: ConfigChange) {
        if let Some(msix) = &self.msix {
            msix.config_written(&self.config, change);
        }
        self.notifier.update_pin(self.config.command() & COMMAND_INTX_DISABLE != 0);
        self.window_written(change);
    }
}

/// A region of the function, by base address register.
fn region_of(bar: u8) -> Option<Region> {
    match bar {
        LEGACY_BAR => Some(LEGACY),
        MSIX_BAR => Some(MSIX),
        PORT_NOTIFY_BAR => Some(PORT_NOTIFY),
        MODERN_BAR => Some(MODERN),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
