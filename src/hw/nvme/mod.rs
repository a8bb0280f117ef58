//! An NVMe controller: register set, admin queue, I/O queues, namespaces.
//!
//! Documents: NVM Express Base Specification 1.4 (section numbers below are its). Commands are fetched where the doorbell
//! is rung and completed by the disks' workers, without the board lock: what both touch is in [`Plane`], behind a lock
//! that is a leaf. Not modelled: metadata and end-to-end protection, reservations, firmware and namespace management,
//! controller memory, SR-IOV, zoned namespaces, shadow doorbells; their commands end as invalid.

mod admin;
pub mod classes;
mod controller;
mod data;
mod identify;
mod io;
mod queue;
mod spec;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use self::controller::Controller;
use self::spec::{BAR_LEN, CLASS, DEVICE, MSIX_PBA, MSIX_TABLE, REGISTERS, VENDOR};
use crate::block::{BlockQueue, Notify};
use crate::bus::{
    At, Bar, BarKind, COMMAND_INTX_DISABLE, ConfigChange, ConfigSpace, Decode, Device, IrqLine, MsiSink, PciFunction,
    Reset, Token,
};
use crate::hw::pci::{Msix, MsixLayout};
use crate::hw::storage::{DiskPort, FaultSink, Policies, RESUME};
use crate::mem::GuestRam;

/// What the registers decode, for [`crate::bus::Board::plug_pci`].
pub const DECODE: Decode = Decode::UP_TO_8;
/// Namespaces of a controller at most.
pub const MAX_NAMESPACES: u32 = 256;

/// What the controller is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Serial number, 20 characters.
    pub serial: String,
    /// I/O queue pairs at most.
    pub queue_pairs: u16,
    /// MSI-X vectors.
    pub vectors: u16,
    /// Data of a command at most: 2^mdts pages of 4 KiB; 0: no limit but the length of a command.
    pub mdts: u8,
}

/// What a namespace is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceOptions {
    /// Bytes of a logical block.
    pub block_size: u32,
    /// IEEE extended unique identifier; 0: none.
    pub eui64: u64,
    /// UUID; zeros: none.
    pub uuid: [u8; 16],
    /// The write cache is on at power-on.
    pub write_cache: bool,
}

/// What the controller is connected to.
pub struct Wires {
    /// The interrupt pin.
    pub irq: IrqLine,
    /// Where messages go.
    pub msi: Arc<dyn MsiSink>,
    /// Guest memory.
    pub ram: GuestRam,
}

/// The part that works without the board lock.
pub struct Plane(Mutex<Controller>);

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

impl Plane {
    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds namespace `id` (1 to [`MAX_NAMESPACES`]). `connect` makes its disk's queue, given what it calls when requests
    /// ended.
    pub fn attach(
        self: &Arc<Self>,
        id: u32,
        options: NamespaceOptions,
        policies: Policies,
        faults: FaultSink,
        connect: impl FnOnce(Notify) -> Box<dyn BlockQueue>,
    ) {
        let plane: Weak<Self> = Arc::downgrade(self);
        let notify: Notify = Arc::new(move || {
            if let Some(plane) = plane.upgrade() {
                plane.controller().complete(id);
            }
        });
        let port = DiskPort::new(connect(notify), policies, faults);
        self.controller().add_namespace(id, options, port);
    }

    /// The namespaces that exist.
    #[must_use]
    pub fn namespaces(&self) -> Vec<u32> {
        self.controller().namespace_ids()
    }
}

/// The controller as a PCI function.
pub struct Nvme {
    config: ConfigSpace,
    msix: Msix,
    plane: Arc<Plane>,
}

impl std::fmt::Debug for Nvme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nvme")
    }
}

impl Nvme {
    /// A controller without namespaces; it is to be plugged in with [`DECODE`].
    #[must_use]
    pub fn new(options: Options, wires: Wires) -> Self {
        let bar = Bar { kind: BarKind::Memory64 { prefetchable: false }, len: BAR_LEN, region: REGISTERS };
        let mut config = ConfigSpace::new(VENDOR, DEVICE, 2, CLASS)
            .with_subsystem(0x1af4, 0x1100)
            .with_interrupt_pin(1)
            .with_bar(0, bar);
        let layout = MsixLayout { table_bar: 0, table_offset: MSIX_TABLE, pba_bar: 0, pba_offset: MSIX_PBA };
        let msix = Msix::add(&mut config, 0x40, options.vectors, layout, wires.msi);
        let vectors = Arc::clone(msix.vectors());
        let controller = Controller::new(options, wires.ram, vectors, wires.irq);
        Self { config, msix, plane: Arc::new(Plane(Mutex::new(controller))) }
    }

    /// Where namespaces are added.
    #[must_use]
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }
}

impl Device for Nvme {
    fn read(&mut self, at: At) -> u64 {
        if at.offset >= MSIX_TABLE.into() {
            return self.msix.read(0, at);
        }
        self.plane.controller().read(at.offset, at.width)
    }

    fn write(&mut self, at: At, value: u64) {
        if at.offset >= MSIX_TABLE.into() {
            self.msix.write(0, at, value);
            return;
        }
        self.plane.controller().write(at.offset, at.width, value);
    }

    fn event(&mut self, token: Token) {
        if token == RESUME {
            self.plane.controller().retry_held();
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.msix.reset();
        self.plane.controller().power_on();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Nvme {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        self.msix.config_written(&self.config, change);
        let pin_disabled = self.config.command() & COMMAND_INTX_DISABLE != 0;
        self.plane.controller().config_written(self.config.bus_master(), pin_disabled);
    }
}

#[cfg(test)]
mod tests;
