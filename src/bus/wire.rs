//! What connects chips: level-sensitive lines, wired-OR gates, the PCI interrupt router, and the power switch.
//!
//! Sinks are leaves: they may take a lock of their own but never the board's.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes the level of numbered inputs: an interrupt controller, or KVM's.
pub trait LineSink: Send + Sync {
    /// Input `input` is now high or low.
    fn set_level(&self, input: u32, high: bool);
}

/// One output pin of a device. Passes edges only: setting the level it has costs nothing.
pub struct IrqLine {
    sink: Option<Arc<dyn LineSink>>,
    input: u32,
    high: bool,
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IrqLine(input {}, {})", self.input, if self.high { "high" } else { "low" })
    }
}

impl IrqLine {
    /// A line, now low, into `input` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn LineSink>, input: u32) -> Self {
        Self { sink: Some(sink), input, high: false }
    }

    /// A pin that is connected to nothing.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { sink: None, input: 0, high: false }
    }

    /// Drives the line.
    pub fn set(&mut self, high: bool) {
        if self.high == high {
            return;
        }
        self.high = high;
        if let Some(sink) = &self.sink {
            sink.set_level(self.input, high);
        }
    }

    /// A short pulse, for inputs that see edges. The line is low afterwards.
    pub fn pulse(&mut self) {
        self.set(true);
        self.set(false);
    }

    /// The level it is driven to.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.high
    }
}

/// A wired OR: its output is high while any of up to 64 inputs is.
pub struct OrGate {
    inputs: Mutex<u64>,
    sink: Arc<dyn LineSink>,
    output: u32,
}

impl OrGate {
    /// A gate, all inputs low, that drives `output` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn LineSink>, output: u32) -> Arc<Self> {
        Arc::new(Self { inputs: Mutex::new(0), sink, output })
    }
}

impl LineSink for OrGate {
    fn set_level(&self, input: u32, high: bool) {
        let bit = 1u64 << (input % 64);
        // The output is set under the lock: two inputs that change at once must not be seen in the wrong order.
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *inputs != 0;
        if high {
            *inputs |= bit;
        } else {
            *inputs &= !bit;
        }
        let after = *inputs != 0;
        if before != after {
            self.sink.set_level(self.output, after);
        }
    }
}

/// What a chip asks of the machine as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerRequest {
    /// Pull the reset line: keyboard controller, port 92h, port CF9h, a triple fault.
    Reset,
    /// Switch the power off (ACPI S5).
    Shutdown,
    /// Suspend to RAM (ACPI S3).
    Suspend,
    /// A watchdog ran out: what `-action watchdog=` says.
    Watchdog,
    /// End the process with this exit status (isa-debug-exit).
    Exit(u8),
}

/// Where chips send power requests. It only takes a note: the main loop acts on it.
pub type PowerSink = Arc<dyn Fn(PowerRequest) + Send + Sync>;

/// The address line A20 of the processor: the keyboard controller and port 92h drive it, and the last one to write
/// wins, as in QEMU. (Real boards OR the two, but then a guest can only switch A20 off where it switched it on, and
/// the BIOS switches it on at port 92h.)
pub struct A20Gate {
    enabled: Mutex<bool>,
    changed: Box<dyn Fn(bool) + Send + Sync>,
}

impl fmt::Debug for A20Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "A20Gate({})", if self.is_enabled() { "on" } else { "off" })
    }
}

impl A20Gate {
    /// A gate with A20 enabled. `changed` is called under the board lock with the new state; it is a leaf (a
    /// [`super::RegionHandle`] may be used).
    #[must_use]
    pub fn new(changed: impl Fn(bool) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { enabled: Mutex::new(true), changed: Box::new(changed) })
    }

    /// Enables A20, or forces it to 0.
    pub fn set(&self, enabled: bool) {
        let mut state = self.enabled.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *state, enabled) != enabled {
            (self.changed)(enabled);
        }
    }

    /// Whether addresses pass unmasked.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        *self.enabled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink that remembers levels and counts rising edges, for tests of devices.
#[derive(Default)]
pub struct Probe {
    levels: AtomicU64,
    edges: AtomicU32,
}

impl Probe {
    /// A new probe with 64 inputs, all low.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A line into `input` of the probe.
    #[must_use]
    pub fn line(self: &Arc<Self>, input: u32) -> IrqLine {
        IrqLine::new(Arc::clone(self) as Arc<dyn LineSink>, input)
    }

    /// Whether `input` is high.
    #[must_use]
    pub fn is_high(&self, input: u32) -> bool {
        self.levels.load(Ordering::Relaxed) >> (input % 64) & 1 != 0
    }

    /// Rising edges on all inputs since the probe was made.
    #[must_use]
    pub fn rising_edges(&self) -> u32 {
        self.edges.load(Ordering::Relaxed)
    }
}

impl LineSink for Probe {
    fn set_level(&self, input: u32, high: bool) {
        let bit = 1u64 << (input % 64);
        if high {
            self.levels.fetch_or(bit, Ordering::Relaxed);
            self.edges.fetch_add(1, Ordering::Relaxed);
        } else {
            self.levels.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_passes_edges_only() {
        let probe = Probe::new();
        let mut line = probe.line(4);
        line.set(true);
        line.set(true);
        assert_eq!(probe.rising_edges(), 1);
        line.set(false);
        assert!(!probe.is_high(4));
    }

    #[test]
    fn an_or_gate_stays_high_while_any_input_is() {
        let probe = Probe::new();
        let gate = OrGate::new(Arc::clone(&probe) as Arc<dyn LineSink>, 9);
        gate.set_level(0, true);
        gate.set_level(1, true);
        gate.set_level(0, false);
        assert!(probe.is_high(9));
        gate.set_level(1, false);
        assert!(!probe.is_high(9));
    }
}
