//! The local APICs of all processors and the bus between them: xAPIC (memory-mapped) and x2APIC (MSRs) modes.
//!
//! Documents: Intel SDM volume 3, chapter 11 "Advanced programmable interrupt controller".
//!
//! The id register cannot be written, as on all processors of this century. The timer's input runs at 1 GHz of machine
//! time; the local vectors of the thermal sensor and the performance counters are storage. Remote read, arbitration
//! priority and focus checking do not exist. Lowest-priority messages go to the processor of lowest priority, in turn
//! among equals.
//!
//! Each APIC has a lock of its own, under which nobody is called: messages, EOIs and the processor's pins are served
//! after it is released.

mod regs;
mod spec;
mod timer;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::bus::{Acknowledge, At, CpuPins, Device, EoiSink, LocalApic, MsiSink, Region, Reset};
use crate::event::{Clock, ClockKind, LoopHandle, Timer};

use self::regs::{CpuCall, Effects, Identity, State};
use self::spec::{
    Addressing, Delivery, Destination, MSR_TSC_DEADLINE, MSR_X2APIC, MSR_X2APIC_LAST, Message, Reg, base,
};
use super::settle;

/// What a processor's local APIC is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicOptions {
    /// The APIC id, all 32 bits.
    pub id: u32,
    /// Whether CPUID announces an APIC. Without, the processor has INTR and NMI pins.
    pub present: bool,
    /// Whether CPUID announces x2APIC mode.
    pub x2apic: bool,
    /// Width of physical addresses: what IA32_APIC_BASE can hold.
    pub physical_bits: u8,
}

struct Cell {
    id: u32,
    state: Mutex<State>,
    /// [`Addressing`], for senders.
    addressing: AtomicU64,
    pins: Arc<dyn CpuPins>,
    timer: Timer,
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain registers, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addressing(&self) -> Addressing {
        Addressing::from_bits(self.addressing.load(Ordering::Relaxed))
    }
}

/// The local APICs of a machine. As an [`MsiSink`] it takes message-signalled interrupts and those of the I/O APIC.
pub struct Apics {
    cells: Vec<Cell>,
    clock: Clock,
    eoi: OnceLock<EoiSink>,
    acknowledge: OnceLock<Acknowledge>,
    /// Where the next lowest-priority message begins to look.
    turn: AtomicUsize,
}

impl std::fmt::Debug for Apics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Apics({})", self.cells.len())
    }
}

/// The mode bits of IA32_APIC_BASE that such a processor has.
fn modes(present: bool, x2apic: bool) -> u64 {
    match (present, x2apic) {
        (false, _) => 0,
        (true, false) => base::ENABLE,
        (true, true) => base::ENABLE | base::EXTD,
    }
}

impl Apics {
    /// The APICs of these processors, the bootstrap processor's first, in their power-on state.
    #[must_use]
    pub fn new(handle: &LoopHandle, processors: Vec<(ApicOptions, Arc<dyn CpuPins>)>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let cell = |(index, (options, pins)): (usize, (ApicOptions, Arc<dyn CpuPins>))| {
                let ApicOptions { id, present, x2apic, physical_bits } = options;
                let address = ((1u64 << physical_bits.clamp(32, 52)) - 1) & !0xfff;
                let defined = address | base::BSP | modes(present, x2apic);
                let state = State::new(Identity { index, id, present, x2apic, reserved_base: !defined });
                let apics = this.clone();
                let timer = handle.timer(ClockKind::Virtual, move || {
                    if let Some(apics) = apics.upgrade() {
                        apics.timer_due(index);
                    }
                });
                let addressing = AtomicU64::new(state.addressing().bits());
                Cell { id, state: Mutex::new(state), addressing, pins, timer }
            };
            Self {
                cells: processors.into_iter().enumerate().map(cell).collect(),
                clock: handle.clock(),
                eoi: OnceLock::new(),
                acknowledge: OnceLock::new(),
                turn: AtomicUsize::new(0),
            }
        })
    }

    /// Connects the I/O APIC and the 8259s; once.
    pub fn connect(&self, eoi: EoiSink, acknowledge: Acknowledge) {
        // A second call would be a mistake of the builder; the first stays.
        let _ = self.eoi.set(eoi);
        let _ = self.acknowledge.set(acknowledge);
    }

    /// The APIC of processor `index`.
    #[must_use]
    pub fn local(self: &Arc<Self>, index: usize) -> Arc<dyn LocalApic> {
        Arc::new(Local { apics: Arc::clone(self), index })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cells.len()
    }

    /// The 8259s' INTR output, which LINT0 of every APIC is connected to.
    pub fn set_intr(&self, high: bool) {
        for index in 0..self.cells.len() {
            self.with(index, |state, effects| state.set_intr(high, effects));
        }
    }

    /// A non-maskable interrupt of the board: LINT1 of every APIC.
    pub fn pulse_nmi(&self) {
        for index in 0..self.cells.len() {
            self.with(index, State::pulse_lint1);
        }
    }

    /// Power-on. The processors stand still.
    pub fn reset(&self) {
        self.turn.store(0, Ordering::Relaxed);
        for index in 0..self.cells.len() {
            self.with(index, |state, effects| {
                effects.timer = true;
                state.reset();
            });
        }
    }

    fn timer_due(&self, index: usize) {
        let now = self.clock.now_ns();
        self.with(index, |state, effects| state.timer_due(now, effects));
    }

    /// Does something to an APIC under its lock, and afterwards what follows from it.
    fn with<R>(&self, index: usize, change: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let cell = &self.cells[index];
        let mut effects = Effects::default();
        let mut state = cell.lock();
        let result = change(&mut state, &mut effects);
        if effects.timer {
            match state.regs.timer.due_ns() {
                Some(due) => cell.timer.set(due),
                None => cell.timer.cancel(),
            }
        }
        let wanted = state.wants_interrupt();
        let changed = wanted != state.driven;
        state.driven = wanted;
        let addressing = state.addressing().bits();
        if cell.addressing.load(Ordering::Relaxed) != addressing {
            cell.addressing.store(addressing, Ordering::Relaxed);
        }
        drop(state);
        if changed {
            settle(wanted, || cell.lock().driven, |level| cell.pins.set_interrupt(level));
        }
        self.perform(cell, effects);
        result
    }

    fn perform(&self, cell: &Cell, effects: Effects) {
        match effects.call {
            None => {}
            Some(CpuCall::Nmi) => cell.pins.nmi(),
            Some(CpuCall::Smi) => cell.pins.smi(),
            Some(CpuCall::Init) => cell.pins.init(),
            Some(CpuCall::StartUp(vector)) => cell.pins.start_up(vector),
        }
        if let Some(vector) = effects.eoi
            && let Some(eoi) = self.eoi.get()
        {
            eoi(vector);
        }
        if let Some(message) = effects.message {
            self.deliver(message);
        }
    }

    // -- the bus between them ------------------------------------------------------------------------------------

    fn is_destination(&self, index: usize, destination: Destination) -> bool {
        let cell = &self.cells[index];
        let addressing = cell.addressing();
        let named = match destination {
            Destination::Physical(id) => cell.id == id,
            Destination::Logical(id) => addressing.matches_logical(id),
            Destination::All => true,
            Destination::AllBut(sender) => index != sender,
            Destination::Only(only) => index == only,
        };
        named && addressing.is_enabled()
    }

    fn deliver(&self, message: Message) {
        let Message { destination, delivery, vector, level } = message;
        let accept = |index| self.with(index, |state, effects| state.accept(delivery, vector, level, effects));
        // Ids are mostly indices: the common case needs no search.
        if let Destination::Physical(id) = destination
            && self.cells.get(id as usize).is_some_and(|cell| cell.id == id)
        {
            if self.is_destination(id as usize, destination) {
                accept(id as usize);
            }
            return;
        }
        let receivers = (0..self.cells.len()).filter(|index| self.is_destination(*index, destination));
        if delivery != Delivery::LowestPriority {
            receivers.for_each(accept);
        } else if let Some(index) = self.lowest_priority(receivers) {
            accept(index);
        }
    }

    /// The receiver of a lowest-priority message (11.6.2.4).
    fn lowest_priority(&self, receivers: impl Iterator<Item = usize>) -> Option<usize> {
        let count = self.cells.len();
        let turn = self.turn.load(Ordering::Relaxed) % count.max(1);
        let able = receivers.filter(|index| self.cells[*index].addressing().accepts_interrupts());
        let chosen = able.min_by_key(|index| {
            let priority = self.cells[*index].lock().processor_priority() >> 4;
            (priority, (*index + count - turn) % count)
        })?;
        self.turn.store(chosen + 1, Ordering::Relaxed);
        Some(chosen)
    }
}

impl MsiSink for Apics {
    fn send(&self, address: u64, data: u32) {
        if let Some(message) = Message::from_msi(address, data) {
            self.deliver(message);
        }
    }
}

/// One processor's view.
struct Local {
    apics: Arc<Apics>,
    index: usize,
}

impl Local {
    fn with<R>(&self, change: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        self.apics.with(self.index, change)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.apics.cells[self.index].lock()
    }

    fn now(&self) -> u64 {
        self.apics.clock.now_ns()
    }
}

impl LocalApic for Local {
    fn read(&self, offset: u16) -> u32 {
        // A read of a register that does not exist raises the error vector.
        self.with(|state, _| state.read_page(offset & 0xfff, || self.now()))
    }

    fn write(&self, offset: u16, value: u32) {
        self.with(|state, effects| state.write_page(offset & 0xfff, value, || self.now(), effects));
    }

    fn base(&self) -> u64 {
        self.lock().regs.base
    }

    fn set_base(&self, value: u64) -> bool {
        self.with(|state, effects| state.set_base(value, effects))
    }

    fn read_msr(&self, msr: u32) -> Option<u64> {
        match msr {
            MSR_TSC_DEADLINE => Some(self.lock().regs.timer.tsc_deadline),
            MSR_X2APIC..=MSR_X2APIC_LAST => self.lock().read_x2apic(msr - MSR_X2APIC, || self.now()).ok(),
            _ => None,
        }
    }

    fn write_msr(&self, msr: u32, value: u64) -> bool {
        match msr {
            MSR_TSC_DEADLINE => {
                self.with(|state, effects| state.set_tsc_deadline(value, self.now(), effects));
                true
            }
            MSR_X2APIC..=MSR_X2APIC_LAST => {
                let number = msr - MSR_X2APIC;
                self.with(|state, effects| state.write_x2apic(number, value, || self.now(), effects)).is_ok()
            }
            _ => false,
        }
    }

    fn task_priority(&self) -> u8 {
        self.lock().task_priority()
    }

    fn set_task_priority(&self, priority: u8) {
        self.with(|state, _| state.set_task_priority(priority & 0xf));
    }

    fn acknowledge(&self) -> Option<u8> {
        let (vector, external) = self.with(|state, _| {
            let vector = state.take_vector();
            let external = vector.is_none() && state.external_waits();
            if external {
                state.take_external();
            }
            (vector, external)
        });
        if vector.is_some() || !external {
            return vector;
        }
        // The 8259s lower INTR by themselves.
        self.apics.acknowledge.get().and_then(|acknowledge| acknowledge())
    }

    fn set_tsc_offset(&self, offset: u64) {
        self.with(|state, effects| state.set_tsc_offset(offset, self.now(), effects));
    }

    fn init(&self) {
        self.with(|state, effects| {
            effects.timer = true;
            state.init();
        });
    }

    fn registers(&self) -> Vec<u8> {
        const LEN: u16 = 1024;
        let mut page = vec![0; usize::from(LEN)];
        let now = self.now();
        let mut state = self.lock();
        for (number, register) in (0u32..).zip(page.chunks_exact_mut(16)) {
            let Some(reg) = Reg::decode(number) else { continue };
            register[..4].copy_from_slice(&state.read(reg, || now).to_le_bytes());
        }
        page
    }
}

/// What devices find at FEE00000h, where the processors have their APICs: a write is a message-signalled interrupt. A
/// processor's accesses to its own APIC never come here.
pub struct MsiWindow {
    apics: Arc<Apics>,
}

/// The window. Decode 4 bytes.
pub const MSI_WINDOW: Region = Region(0);
/// Its first address.
pub const MSI_BASE: u64 = base::DEFAULT_ADDRESS;
/// Its length.
pub const MSI_LEN: u64 = 1 << 20;

impl MsiWindow {
    /// The window to `apics`, which also brings their reset.
    #[must_use]
    pub fn new(apics: Arc<Apics>) -> Self {
        Self { apics }
    }
}

impl Device for MsiWindow {
    fn read(&mut self, _at: At) -> u64 {
        0
    }

    fn write(&mut self, at: At, value: u64) {
        self.apics.send(MSI_BASE + at.offset, (value & 0xffff_ffff) as u32);
    }

    fn reset(&mut self, _kind: Reset) {
        self.apics.reset();
    }
}

#[cfg(test)]
mod tests;
