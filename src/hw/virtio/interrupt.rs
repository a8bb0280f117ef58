//! How a device interrupts its driver: ISR status and INTx#, or MSI-X vectors (4.1.4.5, 4.1.5).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::IrqLine;
use crate::hw::pci::MsixVectors;

/// No vector: the event raises no MSI-X message.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR status (4.1.4.5): a queue.
const ISR_QUEUE: u8 = 1 << 0;
/// ISR status: the configuration.
const ISR_CONFIG: u8 = 1 << 1;

struct Pin {
    line: IrqLine,
    isr: u8,
    /// The command register's interrupt disable bit.
    disabled: bool,
}

impl Pin {
    fn update(&mut self, msix: bool) {
        let high = self.isr != 0 && !self.disabled && !msix;
        self.line.set(high);
    }
}

struct Shared {
    pin: Mutex<Pin>,
    msix: Option<Arc<MsixVectors>>,
    config_vector: AtomicU16,
    /// Changes with each change of the configuration space (4.1.4.3.1).
    generation: AtomicU8,
    needs_reset: AtomicBool,
}

/// Interrupts of one device: clones are the same device's. A leaf, for any thread.
#[derive(Clone)]
pub struct Notifier(Arc<Shared>);

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    pub(super) fn new(line: IrqLine, msix: Option<Arc<MsixVectors>>) -> Self {
        Self(Arc::new(Shared {
            pin: Mutex::new(Pin { line, isr: 0, disabled: false }),
            msix,
            config_vector: AtomicU16::new(NO_VECTOR),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
        }))
    }

    fn uses_msix(&self) -> bool {
        self.0.msix.as_ref().is_some_and(|vectors| vectors.is_enabled())
    }

    fn raise(&self, isr: u8, vector: u16) {
        if let Some(msix) = self.0.msix.as_ref().filter(|vectors| vectors.is_enabled()) {
            if vector != NO_VECTOR {
                msix.raise(vector);
            }
            return;
        }
        let mut pin = self.0.pin.lock().unwrap_or_else(PoisonError::into_inner);
        pin.isr |= isr;
        pin.update(false);
    }

    pub(super) fn queue(&self, vector: u16) {
        self.raise(ISR_QUEUE, vector);
    }

    /// The configuration space changed: the driver is told, and sees that what it read before may not fit together.
    pub fn config_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(ISR_CONFIG, self.0.config_vector.load(Ordering::Acquire));
    }

    /// The driver broke a rule that leaves the device without a way on (2.1.2): it must reset the device.
    pub fn needs_reset(&self, why: &str) {
        log::debug!(target: "guest_errors", "virtio: {why}");
        if !self.0.needs_reset.swap(true, Ordering::AcqRel) {
            self.config_changed();
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u8 {
        self.0.generation.load(Ordering::Acquire)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.0.config_vector.load(Ordering::Acquire)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.0.config_vector.store(vector, Ordering::Release);
    }

    /// The ISR status register: reading clears it and lowers the pin.
    pub(super) fn take_isr(&self) -> u8 {
        let mut pin = self.0.pin.lock().unwrap_or_else(PoisonError::into_inner);
        let isr = std::mem::take(&mut pin.isr);
        pin.update(self.uses_msix());
        isr
    }

    /// The configuration space was written: interrupt disable bit, MSI-X enable bit.
    pub(super) fn update_pin(&self, disabled: bool) {
        let mut pin = self.0.pin.lock().unwrap_or_else(PoisonError::into_inner);
        pin.disabled = disabled;
        pin.update(self.uses_msix());
    }

    /// The device is reset: no vectors, no interrupt, no fault.
    pub(super) fn reset(&self) {
        self.set_config_vector(NO_VECTOR);
        self.0.needs_reset.store(false, Ordering::Release);
        let mut pin = self.0.pin.lock().unwrap_or_else(PoisonError::into_inner);
        pin.isr = 0;
        pin.update(self.uses_msix());
    }
}
