//! The interrupt controllers of a PC whose accelerator has none in the kernel, and how they are connected.

use std::sync::{Arc, Mutex, PoisonError};

use crate::accel::Accelerator;
use crate::accel::qtest::IrqTap;
use crate::bus::{Acknowledge, Board, CpuPins, Decode, EoiSink, IrqChipState, LineSink, MsiSink};
use crate::cpu::CpuModel;
use crate::event::LoopHandle;
use crate::hw::intc::i8259::{self, PicPair, PicPorts};
use crate::hw::intc::ioapic::{self, IoApic, IoApicWindow};
use crate::hw::intc::lapic::{self, ApicOptions, Apics, MsiWindow};

use super::build::BuildError;

/// The chips, which processors and timers reach without the board lock.
#[derive(Debug)]
pub struct Controllers {
    /// The processors' local APICs; `None`: the kernel has them.
    pub apics: Option<Arc<Apics>>,
    ioapic: Arc<IoApic>,
    pics: Arc<PicPair>,
    tap: Arc<IrqTap>,
}

/// Global system interrupts on their way to both kinds of controllers.
struct Lines {
    pics: Arc<PicPair>,
    ioapic: Arc<dyn LineSink>,
}

/// Global system interrupts as inputs of the I/O APIC. The timer's IRQ 0 is on pin 2, as the MADT says; so is interrupt
/// 2, which the HPET alone can drive.
struct IoApicLines {
    ioapic: Arc<IoApic>,
    /// Levels of interrupts 0 and 2.
    pin2: Mutex<u32>,
}

impl LineSink for Lines {
    fn set_level(&self, input: u32, high: bool) {
        if let Ok(irq @ 0..16) = u8::try_from(input) {
            self.pics.set_irq(irq, high);
        }
        self.ioapic.set_level(input, high);
    }
}

impl LineSink for IoApicLines {
    fn set_level(&self, input: u32, high: bool) {
        if input != 0 && input != 2 {
            self.ioapic.set_level(input, high);
            return;
        }
        // The pin is driven under the lock, so that two changes at once are not seen in the wrong order.
        let mut levels = self.pin2.lock().unwrap_or_else(PoisonError::into_inner);
        let bit = 1 << input;
        *levels = if high { *levels | bit } else { *levels & !bit };
        self.ioapic.set_level(2, *levels != 0);
    }
}

fn pins_of(accelerator: &dyn Accelerator, index: u32) -> Result<Arc<dyn CpuPins>, BuildError> {
    accelerator.cpu_pins(index).ok_or_else(|| {
        BuildError::Text(format!(
            "accelerator {} has neither interrupt controllers nor inputs for ours",
            accelerator.name()
        ))
    })
}

/// From the local APICs to the other chips, which hold the APICs: weak.
fn ways_back(ioapic: &Arc<IoApic>, pics: &Arc<PicPair>) -> (EoiSink, Acknowledge) {
    let (ioapic, pics) = (Arc::downgrade(ioapic), Arc::downgrade(pics));
    let eoi = move |vector| {
        if let Some(ioapic) = ioapic.upgrade() {
            ioapic.end_of_interrupt(vector);
        }
    };
    (Box::new(eoi), Box::new(move || pics.upgrade()?.acknowledge()))
}

fn tap(ioapic: &Arc<IoApic>) -> Arc<IrqTap> {
    IrqTap::new(Arc::new(IoApicLines { ioapic: Arc::clone(ioapic), pin2: Mutex::new(0) }))
}

impl Controllers {
    /// The chips for the first `cpus` processors of `accelerator`, connected to them and to each other.
    ///
    /// # Errors
    /// The accelerator has no such processor.
    pub fn new(
        accelerator: &dyn Accelerator,
        model: &CpuModel,
        cpus: u32,
        handle: &LoopHandle,
    ) -> Result<Self, BuildError> {
        match accelerator.msi_sink() {
            Some(sink) => Self::beside_kernel_apics(accelerator, sink),
            None => Self::complete(accelerator, model, cpus, handle),
        }
    }

    fn complete(
        accelerator: &dyn Accelerator,
        model: &CpuModel,
        cpus: u32,
        handle: &LoopHandle,
    ) -> Result<Self, BuildError> {
        let mut processors = Vec::new();
        for index in 0..cpus {
            let options = ApicOptions {
                id: model.apic_id(index),
                present: model.features().has("apic"),
                x2apic: model.features().has("x2apic"),
                physical_bits: u8::try_from(model.phys_bits()).unwrap_or(52),
            };
            processors.push((options, pins_of(accelerator, index)?));
        }
        let apics = Apics::new(handle, processors);
        let ioapic = IoApic::new(Arc::clone(&apics) as Arc<dyn MsiSink>);
        let intr = Arc::clone(&apics);
        let pics = PicPair::new(Box::new(move |high| intr.set_intr(high)));
        let (eoi, acknowledge) = ways_back(&ioapic, &pics);
        apics.connect(eoi, acknowledge);
        accelerator.attach_clock(handle.clock());
        accelerator.attach_timers(handle);
        for index in 0..cpus {
            accelerator.attach_local_apic(index, apics.local(index as usize));
        }
        Ok(Self { apics: Some(apics), tap: tap(&ioapic), ioapic, pics })
    }

    /// INTR goes to the bootstrap processor, whose local APIC decides whether it is open.
    fn beside_kernel_apics(accelerator: &dyn Accelerator, sink: Arc<dyn MsiSink>) -> Result<Self, BuildError> {
        let pins = pins_of(accelerator, 0)?;
        let ioapic = IoApic::new(sink);
        let pics = PicPair::new(Box::new(move |high| pins.set_interrupt(high)));
        let (eoi, acknowledge) = ways_back(&ioapic, &pics);
        accelerator.attach_io_controllers(eoi, acknowledge);
        Ok(Self { apics: None, tap: tap(&ioapic), ioapic, pics })
    }

    /// Takes global system interrupts.
    #[must_use]
    pub fn lines(&self) -> Arc<dyn LineSink> {
        Arc::new(Lines { pics: Arc::clone(&self.pics), ioapic: Arc::clone(&self.tap) as Arc<dyn LineSink> })
    }

    /// Where a test program takes the I/O APIC's lines.
    #[must_use]
    pub fn tap(&self) -> &Arc<IrqTap> {
        &self.tap
    }

    /// Puts the registers on the board.
    pub fn map(&self, board: &mut Board, priority: i32) {
        if let Some(apics) = &self.apics {
            let window = board.add("apic-msi", MsiWindow::new(Arc::clone(apics)));
            let (base, len) = (lapic::MSI_BASE, lapic::MSI_LEN);
            board.map_mmio(window.id(), lapic::MSI_WINDOW, Decode::DWORDS, base, len, priority);
        }
        let pics = board.add("pic", PicPorts::new(Arc::clone(&self.pics)));
        board.map_ports(pics.id(), i8259::MASTER, Decode::BYTES, 0x20, 2);
        board.map_ports(pics.id(), i8259::SLAVE, Decode::BYTES, 0xa0, 2);
        board.map_ports(pics.id(), i8259::ELCR, Decode::BYTES, 0x4d0, 2);
        let window = board.add("ioapic", IoApicWindow::new(Arc::clone(&self.ioapic)));
        board.map_mmio(window.id(), ioapic::REGISTERS, Decode::DWORDS, ioapic::BASE, ioapic::LEN, priority);
    }

    /// The registers of the 8259s and the I/O APIC.
    #[must_use]
    pub fn state(&self) -> IrqChipState {
        IrqChipState { pics: self.pics.registers(), ioapic: self.ioapic.registers() }
    }
}
