//! The I/O APIC: 24 interrupt inputs, a redirection entry each, which become messages to the local APICs.
//!
//! Documents: Intel 82093AA data sheet (290566), sections 3.1 and 3.2; for the EOI register (version 20h) Intel's I/O
//! Controller Hub data sheets, "EOIR".
//!
//! All inputs are active when high: polarity is storage, and so are the delivery status and the arbitration id. An edge
//! on a masked input is lost (3.2.4, "Interrupt mask").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{At, Device, IoApicRegisters, LineSink, MsiSink, Region, Reset};

/// The registers. Decode 4 bytes.
pub const REGISTERS: Region = Region(0);
/// Where firmware and guests look for it.
pub const BASE: u64 = 0xfec0_0000;
/// Length of the window.
pub const LEN: u64 = 0x1000;
/// Interrupt inputs.
pub const PINS: u32 = 24;

/// With an EOI register.
const VERSION: u8 = 0x20;

/// Registers that the processor reaches directly (3.1).
mod reg {
    pub const SELECT: u64 = 0x00;
    pub const WINDOW: u64 = 0x10;
    pub const EOI: u64 = 0x40;
}

/// Registers behind the window (3.2).
mod index {
    pub const ID: u8 = 0;
    pub const VERSION: u8 = 1;
    pub const ARBITRATION: u8 = 2;
    pub const REDIRECTION: u8 = 0x10;
}

/// Bits of a redirection entry (3.2.4).
mod entry {
    pub const DELIVERY_SHIFT: u64 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const DESTINATION_SHIFT: u64 = 56;
    /// Vector, delivery and destination mode, polarity, trigger mode, mask; destination.
    pub const WRITABLE: u64 = 0xff00_0000_0001_afff;
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    id: u8,
    select: u8,
    entries: [u64; PINS as usize],
    /// Levels of the inputs.
    lines: u32,
    /// Edges that wait to be sent.
    edges: u32,
}

impl State {
    const COLD: Self = Self { id: 0, select: 0, entries: [entry::MASKED; PINS as usize], lines: 0, edges: 0 };

    fn is_level(&self, pin: u32) -> bool {
        self.entries[pin as usize] & entry::LEVEL != 0
    }

    fn is_masked(&self, pin: u32) -> bool {
        self.entries[pin as usize] & entry::MASKED != 0
    }

    /// Inputs that ask for service: the interrupt request register of monitors.
    fn irr(&self) -> u32 {
        let levels = (0..PINS).filter(|pin| self.is_level(*pin)).fold(0, |bits, pin| bits | 1 << pin);
        self.lines & levels | self.edges
    }

    fn set_line(&mut self, pin: u32, high: bool) {
        let bit = 1 << pin;
        let rises = high && self.lines & bit == 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        if rises && !self.is_level(pin) && !self.is_masked(pin) {
            self.edges |= bit;
        }
    }

    /// The next message to send, as address and data of a message-signalled interrupt.
    fn next_message(&mut self) -> Option<(u64, u32)> {
        let pin = (0..PINS).find(|pin| {
            let entry = self.entries[*pin as usize];
            let asks = if self.is_level(*pin) {
                self.lines >> pin & 1 != 0 && entry & entry::REMOTE_IRR == 0
            } else {
                self.edges >> pin & 1 != 0
            };
            asks && entry & entry::MASKED == 0
        })?;
        self.edges &= !(1 << pin);
        let level = self.is_level(pin);
        let entry = &mut self.entries[pin as usize];
        if level {
            *entry |= entry::REMOTE_IRR;
        }
        Some(message(*entry))
    }

    /// A processor ended a level-triggered interrupt.
    fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if entry.to_le_bytes()[0] == vector && *entry & entry::LEVEL != 0 {
                *entry &= !entry::REMOTE_IRR;
            }
        }
    }

    /// Pin and half of the entry that the select register names.
    fn selected_entry(&self) -> Option<(usize, u32)> {
        let offset = self.select.checked_sub(index::REDIRECTION)?;
        let pin = usize::from(offset / 2);
        (pin < self.entries.len()).then_some((pin, u32::from(offset % 2) * 32))
    }

    fn read_window(&self) -> u32 {
        match self.select {
            index::ID | index::ARBITRATION => u32::from(self.id) << 24,
            index::VERSION => u32::from(VERSION) | (PINS - 1) << 16,
            _ => {
                let Some((pin, shift)) = self.selected_entry() else { return 0 };
                (self.entries[pin] >> shift & 0xffff_ffff) as u32
            }
        }
    }

    fn write_window(&mut self, value: u32) {
        if self.select == index::ID {
            self.id = (value >> 24 & 0xf).to_le_bytes()[0];
            return;
        }
        let Some((pin, shift)) = self.selected_entry() else { return };
        let mask = entry::WRITABLE & 0xffff_ffff << shift;
        let entry = &mut self.entries[pin];
        *entry = *entry & !mask | u64::from(value) << shift & mask;
        let level = *entry & entry::LEVEL != 0;
        if !level {
            // Software clears a stuck remote IRR by switching to edge and back.
            *entry &= !entry::REMOTE_IRR;
        }
        if level || *entry & entry::MASKED != 0 {
            self.edges &= !(1 << pin);
        }
    }
}

/// A redirection entry as a message (82093AA 3.2.4; Intel SDM volume 3, 11.11).
fn message(entry: u64) -> (u64, u32) {
    let logical = if entry & entry::LOGICAL != 0 { 1 << 2 } else { 0 };
    let address = 0xfee0_0000 | (entry >> entry::DESTINATION_SHIFT) << 12 | logical;
    let [vector, ..] = entry.to_le_bytes();
    let delivery = (entry >> entry::DELIVERY_SHIFT & 7) as u32;
    // Assert, and level: 1 << 14 and 1 << 15.
    let trigger = if entry & entry::LEVEL != 0 { 3 << 14 } else { 0 };
    (address, u32::from(vector) | delivery << 8 | trigger)
}

/// The chip. Input n of it as a [`LineSink`] is pin n.
pub struct IoApic {
    state: Mutex<State>,
    sink: Arc<dyn MsiSink>,
}

impl std::fmt::Debug for IoApic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoApic")
    }
}

impl IoApic {
    /// The chip at power-on; its messages go to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn MsiSink>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::COLD), sink })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain registers, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the level-triggered inputs send.
    fn level_routes(state: &State) -> [Option<(u64, u32)>; PINS as usize] {
        state.entries.map(|entry| (entry & entry::LEVEL != 0).then(|| message(entry)))
    }

    /// A write through the window: the receiver of messages hears of level-triggered inputs that send another.
    fn write_window(&self, value: u32) {
        let mut state = self.lock();
        let before = Self::level_routes(&state);
        state.write_window(value);
        let after = Self::level_routes(&state);
        drop(state);
        if before != after {
            self.sink.set_level_routes(&after);
        }
        self.with(|_| ());
    }

    /// Does something to the chip, and sends what then asks for service. Each message is sent without the lock.
    fn with(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        while let Some((address, data)) = state.next_message() {
            drop(state);
            self.sink.send(address, data);
            state = self.lock();
        }
    }

    /// A processor ended a level-triggered interrupt: a level that is still there asks again.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.with(|state| state.end_of_interrupt(vector));
    }

    /// Power-on. The inputs keep their levels.
    pub fn reset(&self) {
        self.with(|state| *state = State { lines: state.lines, ..State::COLD });
    }

    /// The registers, for monitors.
    #[must_use]
    pub fn registers(&self) -> IoApicRegisters {
        let state = self.lock();
        IoApicRegisters {
            version: VERSION,
            id: state.id,
            select: state.select,
            redirections: state.entries.to_vec(),
            irr: state.irr(),
        }
    }
}

impl LineSink for IoApic {
    fn set_level(&self, input: u32, high: bool) {
        if input < PINS {
            self.with(|state| state.set_line(input, high));
        }
    }
}

/// The chip's registers on the board.
pub struct IoApicWindow {
    chip: Arc<IoApic>,
}

impl IoApicWindow {
    /// The registers of `chip`.
    #[must_use]
    pub fn new(chip: Arc<IoApic>) -> Self {
        Self { chip }
    }
}

impl Device for IoApicWindow {
    fn read(&mut self, at: At) -> u64 {
        let state = self.chip.lock();
        match at.offset {
            reg::SELECT => state.select.into(),
            reg::WINDOW => state.read_window().into(),
            _ => 0,
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let value = (value & 0xffff_ffff) as u32;
        match at.offset {
            reg::SELECT => self.chip.lock().select = value.to_le_bytes()[0],
            reg::WINDOW => self.chip.write_window(value),
            reg::EOI => self.chip.end_of_interrupt(value.to_le_bytes()[0]),
            _ => {}
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.chip.reset();
    }
}

#[cfg(test)]
mod tests;
