//! The 16550A serial port.
//!
//! Documents: National Semiconductor PC16550D data sheet (1995), section 8 (registers).
//!
//! Bytes leave when they are written: the transmitter is only busy while the back end has no room. Received bytes
//! arrive as fast as the guest takes them. Parity and framing errors do not happen; a break does. Bit OUT2 of the
//! modem control register does not gate the interrupt, as in QEMU.

use std::collections::VecDeque;

use crate::bus::{At, Device, IrqLine, Region, Reset, Token};
use crate::chardev::{CharEvent, CharHandle, SerialParameters};
use crate::event::{Clock, NS_PER_SEC, Timer};

/// The 8 ports. Decode bytes.
pub const PORTS: Region = Region(0);
/// Received bytes have waited below the trigger level for four characters' time.
pub const TIMEOUT_TOKEN: Token = Token(0);
/// The crystal's rate after the fixed division by 16.
pub const BAUD_BASE: u32 = 115_200;

const FIFO: usize = 16;

/// Offsets from the base port (table II).
mod reg {
    pub const DATA: u64 = 0;
    pub const IER: u64 = 1;
    pub const IIR_FCR: u64 = 2;
    pub const LCR: u64 = 3;
    pub const MCR: u64 = 4;
    pub const LSR: u64 = 5;
    pub const MSR: u64 = 6;
}

/// Interrupt enable register (8.7).
mod ier {
    pub const RECEIVED: u8 = 1 << 0;
    pub const TRANSMITTER_EMPTY: u8 = 1 << 1;
    pub const LINE_STATUS: u8 = 1 << 2;
    pub const MODEM_STATUS: u8 = 1 << 3;
}

/// Interrupt identification register (8.6).
mod iir {
    pub const MODEM_STATUS: u8 = 0x00;
    pub const NONE: u8 = 0x01;
    pub const TRANSMITTER_EMPTY: u8 = 0x02;
    pub const RECEIVED: u8 = 0x04;
    pub const LINE_STATUS: u8 = 0x06;
    pub const TIMEOUT: u8 = 0x0c;
    pub const FIFOS: u8 = 0xc0;
}

/// FIFO control register (8.5).
mod fcr {
    pub const ENABLE: u8 = 1 << 0;
    pub const RESET_RECEIVER: u8 = 1 << 1;
    pub const RESET_TRANSMITTER: u8 = 1 << 2;
    /// The bits that stay: enable, DMA mode and trigger level.
    pub const KEPT: u8 = 0xc9;

    pub fn trigger(value: u8) -> usize {
        [1, 4, 8, 14][usize::from(value >> 6)]
    }
}

/// Line control register (8.1).
mod lcr {
    pub const TWO_STOP_BITS: u8 = 1 << 2;
    pub const PARITY: u8 = 1 << 3;
    pub const EVEN: u8 = 1 << 4;
    pub const BREAK: u8 = 1 << 6;
    pub const DLAB: u8 = 1 << 7;
}

/// Modem control register (8.8).
mod mcr {
    pub const DTR: u8 = 1 << 0;
    pub const RTS: u8 = 1 << 1;
    pub const OUT1: u8 = 1 << 2;
    pub const OUT2: u8 = 1 << 3;
    pub const LOOP: u8 = 1 << 4;
    pub const WRITABLE: u8 = 0x1f;
}

/// Line status register (8.4).
mod lsr {
    pub const DATA_READY: u8 = 1 << 0;
    pub const OVERRUN: u8 = 1 << 1;
    pub const BREAK: u8 = 1 << 4;
    pub const HOLDING_EMPTY: u8 = 1 << 5;
    pub const TRANSMITTER_EMPTY: u8 = 1 << 6;
    pub const ERRORS: u8 = 0x1e;
}

/// Modem status register (8.9): the lines in the high half, what changed in the low.
mod msr {
    pub const RI_ENDED: u8 = 1 << 2;
    pub const DELTAS: u8 = 0x0f;
    pub const CTS: u8 = 1 << 4;
    pub const DSR: u8 = 1 << 5;
    pub const RI: u8 = 1 << 6;
    pub const DCD: u8 = 1 << 7;
    /// A back end looks like a modem that is ready.
    pub const READY: u8 = CTS | DSR | DCD;
}

/// Wires of [`Uart16550::new`].
#[derive(Debug)]
pub struct Wires {
    /// IRQ 4 or 3.
    pub irq: IrqLine,
    /// Machine time.
    pub clock: Clock,
    /// For [`TIMEOUT_TOKEN`], on the virtual clock.
    pub timer: Timer,
    /// Where bytes go.
    pub output: CharHandle,
}

/// The serial port.
#[derive(Debug)]
pub struct Uart16550 {
    // Wires.
    wires: Wires,
    // Options.
    baud_base: u32,
    // Guest-visible state.
    regs: Regs,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    /// Received bytes: up to 16 with FIFOs, else 1.
    received: VecDeque<u8>,
    /// What data reads give while nothing was received.
    last_received: u8,
    /// Bytes that wait for room in the back end.
    to_send: VecDeque<u8>,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// Line errors only: the other bits follow from the queues.
    line_errors: u8,
    msr: u8,
    scratch: u8,
    divisor: u16,
    /// The transmitter has become empty and the guest was not told yet.
    empty_pending: bool,
    /// The received bytes have waited long enough.
    timed_out: bool,
}

impl Regs {
    fn cold() -> Self {
        Self {
            received: VecDeque::new(),
            last_received: 0,
            to_send: VecDeque::new(),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: mcr::OUT2,
            line_errors: 0,
            msr: msr::READY,
            scratch: 0,
            divisor: 12,
            empty_pending: false,
            timed_out: false,
        }
    }

    fn fifos(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        if self.fifos() { fcr::trigger(self.fcr) } else { 1 }
    }

    fn looping(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    fn lsr(&self) -> u8 {
        let mut value = self.line_errors;
        if !self.received.is_empty() {
            value |= lsr::DATA_READY;
        }
        if self.to_send.is_empty() {
            value |= lsr::HOLDING_EMPTY | lsr::TRANSMITTER_EMPTY;
        }
        value
    }

    /// The interrupt of the highest priority (table IV).
    fn interrupt(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(ier::LINE_STATUS) && self.line_errors != 0 {
            return iir::LINE_STATUS;
        }
        if enabled(ier::RECEIVED) && self.received.len() >= self.trigger() {
            return iir::RECEIVED;
        }
        if enabled(ier::RECEIVED) && self.timed_out && !self.received.is_empty() {
            return iir::TIMEOUT;
        }
        if enabled(ier::TRANSMITTER_EMPTY) && self.empty_pending {
            return iir::TRANSMITTER_EMPTY;
        }
        if enabled(ier::MODEM_STATUS) && self.msr & msr::DELTAS != 0 {
            return iir::MODEM_STATUS;
        }
        iir::NONE
    }
}

impl Uart16550 {
    /// A port. `baud_base` is [`BAUD_BASE`] unless the user says otherwise.
    #[must_use]
    pub fn new(wires: Wires, baud_base: u32) -> Self {
        Self { wires, baud_base, regs: Regs::cold() }
    }

    // -- the back end's side -------------------------------------------------------------------------------------

    /// How many bytes [`Uart16550::receive`] takes without overrun.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.regs.looping() { 0 } else { self.regs.capacity() - self.regs.received.len().min(self.regs.capacity()) }
    }

    /// Bytes come in on the line.
    pub fn receive(&mut self, data: &[u8]) {
        // In loop-back mode the input is disconnected (8.8).
        if !self.regs.looping() {
            data.iter().for_each(|&byte| self.take_in(byte));
        }
        self.update();
    }

    /// Something else happened on the line.
    pub fn event(&mut self, event: CharEvent) {
        if event == CharEvent::Break && !self.regs.looping() {
            self.take_in(0);
            self.regs.line_errors |= lsr::BREAK;
            self.update();
        }
    }

    /// The back end has room again.
    pub fn writable(&mut self) {
        self.send();
        self.update();
    }

    fn take_in(&mut self, byte: u8) {
        let regs = &mut self.regs;
        if regs.received.len() >= regs.capacity() {
            regs.line_errors |= lsr::OVERRUN;
            if regs.fifos() {
                return;
            }
            regs.received.clear();
        }
        regs.received.push_back(byte);
        self.restart_timeout();
    }

    /// With FIFOs, bytes below the trigger level are reported after four characters' time (8.6).
    fn restart_timeout(&mut self) {
        let regs = &mut self.regs;
        regs.timed_out = false;
        if regs.fifos() && !regs.received.is_empty() && regs.received.len() < regs.trigger() {
            let at = self.wires.clock.now_ns().saturating_add(4 * self.character_ns());
            self.wires.timer.set(at);
        } else {
            self.wires.timer.cancel();
        }
    }

    fn parameters(&self) -> Option<SerialParameters> {
        let regs = &self.regs;
        let speed = self.baud_base.checked_div(u32::from(regs.divisor)).filter(|speed| *speed > 0)?;
        let parity = match (regs.lcr & lcr::PARITY != 0, regs.lcr & lcr::EVEN != 0) {
            (false, _) => 'N',
            (true, false) => 'O',
            (true, true) => 'E',
        };
        let stop_bits = if regs.lcr & lcr::TWO_STOP_BITS != 0 { 2 } else { 1 };
        Some(SerialParameters { speed, data_bits: 5 + (regs.lcr & 3), stop_bits, parity })
    }

    fn character_ns(&self) -> u64 {
        let Some(line) = self.parameters() else { return NS_PER_SEC / 960 };
        let bits = 1 + line.data_bits + line.stop_bits + u8::from(line.parity != 'N');
        u64::from(bits) * NS_PER_SEC / u64::from(line.speed)
    }

    fn tell_parameters(&self) {
        if let Some(parameters) = self.parameters() {
            self.wires.output.set_parameters(parameters);
        }
    }

    // -- the transmitter -----------------------------------------------------------------------------------------

    fn transmit(&mut self, byte: u8) {
        self.regs.empty_pending = false;
        // The line falls until the byte has left: the guest sees an edge for each.
        self.update();
        if self.regs.looping() {
            self.take_in(byte);
            self.regs.empty_pending = true;
            return;
        }
        if self.regs.to_send.len() >= self.regs.capacity() {
            // The guest did not wait for THRE: the newest byte is overwritten.
            self.regs.to_send.pop_back();
        }
        self.regs.to_send.push_back(byte);
        self.send();
    }

    /// Gives the back end what it takes.
    fn send(&mut self) {
        if self.regs.to_send.is_empty() {
            return;
        }
        let taken = self.wires.output.write(self.regs.to_send.make_contiguous());
        self.regs.to_send.drain(..taken.min(self.regs.to_send.len()));
        self.regs.empty_pending |= self.regs.to_send.is_empty();
    }

    // -- registers -----------------------------------------------------------------------------------------------

    /// The only place that drives the line.
    fn update(&mut self) {
        self.wires.irq.set(self.regs.interrupt() != iir::NONE);
    }

    fn divisor_selected(&self) -> bool {
        self.regs.lcr & lcr::DLAB != 0
    }

    fn read_data(&mut self) -> u8 {
        let was_full = self.room() == 0;
        if let Some(byte) = self.regs.received.pop_front() {
            self.regs.last_received = byte;
            self.restart_timeout();
            if was_full && !self.regs.looping() {
                self.wires.output.accept_input();
            }
        }
        self.regs.last_received
    }

    fn read_iir(&mut self) -> u8 {
        let interrupt = self.regs.interrupt();
        if interrupt == iir::TRANSMITTER_EMPTY {
            self.regs.empty_pending = false;
        }
        interrupt | if self.regs.fifos() { iir::FIFOS } else { 0 }
    }

    fn write_ier(&mut self, value: u8) {
        let value = value & 0x0f;
        let turned_on = value & !self.regs.ier;
        self.regs.ier = value;
        // An empty transmitter is reported when its interrupt is enabled (8.7, as 16550s do).
        if turned_on & ier::TRANSMITTER_EMPTY != 0 && self.regs.to_send.is_empty() {
            self.regs.empty_pending = true;
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.regs.fcr) & fcr::ENABLE != 0;
        let was_full = self.room() == 0;
        // Bit 0 must be set for the others to be programmed (8.5).
        self.regs.fcr = if value & fcr::ENABLE != 0 { value & fcr::KEPT } else { 0 };
        if toggled || value & fcr::RESET_RECEIVER != 0 {
            self.regs.received.clear();
            self.regs.line_errors &= !lsr::BREAK;
            if was_full {
                self.wires.output.accept_input();
            }
        }
        if toggled || value & fcr::RESET_TRANSMITTER != 0 {
            self.regs.empty_pending |= !self.regs.to_send.is_empty();
            self.regs.to_send.clear();
        }
        self.restart_timeout();
    }

    fn write_lcr(&mut self, value: u8) {
        let changed = value ^ self.regs.lcr;
        self.regs.lcr = value;
        if changed & 0x3f != 0 {
            self.tell_parameters();
        }
        if changed & lcr::BREAK != 0 {
            self.wires.output.set_break(value & lcr::BREAK != 0);
        }
    }

    fn write_mcr(&mut self, value: u8) {
        let was_looping = self.regs.looping();
        self.regs.mcr = value & mcr::WRITABLE;
        let lines = if self.regs.looping() { looped_lines(self.regs.mcr) } else { msr::READY };
        self.set_modem_lines(lines);
        if was_looping && !self.regs.looping() {
            self.wires.output.accept_input();
        }
    }

    fn set_modem_lines(&mut self, lines: u8) {
        let before = self.regs.msr & !msr::DELTAS;
        let changed = (before ^ lines) >> 4;
        // The ring indicator reports its end only.
        let ring_ended = before & msr::RI != 0 && lines & msr::RI == 0;
        let deltas = changed & !msr::RI_ENDED | if ring_ended { msr::RI_ENDED } else { 0 };
        self.regs.msr = lines | self.regs.msr & msr::DELTAS | deltas;
    }
}

/// In loop-back mode the outputs are the inputs (8.8).
fn looped_lines(value: u8) -> u8 {
    let pairs = [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)];
    pairs.iter().filter(|(output, _)| value & output != 0).fold(0, |lines, (_, input)| lines | input)
}

impl Device for Uart16550 {
    fn read(&mut self, at: At) -> u64 {
        let [divisor_low, divisor_high] = self.regs.divisor.to_le_bytes();
        let value = match at.offset {
            reg::DATA if self.divisor_selected() => divisor_low,
            reg::DATA => self.read_data(),
            reg::IER if self.divisor_selected() => divisor_high,
            reg::IER => self.regs.ier,
            reg::IIR_FCR => self.read_iir(),
            reg::LCR => self.regs.lcr,
            reg::MCR => self.regs.mcr,
            reg::LSR => {
                let value = self.regs.lsr();
                self.regs.line_errors &= !lsr::ERRORS;
                value
            }
            reg::MSR => {
                let value = self.regs.msr;
                self.regs.msr &= !msr::DELTAS;
                value
            }
            _ => self.regs.scratch,
        };
        self.update();
        u64::from(value)
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        match at.offset {
            reg::DATA if self.divisor_selected() => {
                self.regs.divisor = self.regs.divisor & 0xff00 | u16::from(value);
                self.tell_parameters();
            }
            reg::DATA => self.transmit(value),
            reg::IER if self.divisor_selected() => {
                self.regs.divisor = self.regs.divisor & 0x00ff | u16::from(value) << 8;
                self.tell_parameters();
            }
            reg::IER => self.write_ier(value),
            reg::IIR_FCR => self.write_fcr(value),
            reg::LCR => self.write_lcr(value),
            reg::MCR => self.write_mcr(value),
            reg::LSR | reg::MSR => {} // factory test only
            _ => self.regs.scratch = value,
        }
        self.update();
    }

    fn event(&mut self, _token: Token) {
        self.regs.timed_out = !self.regs.received.is_empty();
        self.update();
    }

    fn reset(&mut self, _kind: Reset) {
        let was_full = self.room() == 0;
        let Self { wires, baud_base: _, regs } = self;
        *regs = Regs::cold();
        wires.timer.cancel();
        if was_full {
            wires.output.accept_input();
        }
        self.update();
    }
}

#[cfg(test)]
mod tests;
