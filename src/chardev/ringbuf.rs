//! `ringbuf`: output is kept in memory, the oldest is lost; a monitor reads and writes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::backend::Backend;
use super::handle::CharOutput;
use super::inlet::{CharInput, Inlet, lock};
use super::spec::{OpenError, Spec};

/// The buffer of a `ringbuf` device.
pub(super) struct RingBuffer {
    bytes: Mutex<VecDeque<u8>>,
    size: usize,
    input: CharInput,
}

const DEFAULT_SIZE: u64 = 64 << 10;

impl RingBuffer {
    pub(super) fn open(spec: &Spec, inlet: &Inlet, input: CharInput) -> Result<Arc<dyn Backend>, OpenError> {
        let size = spec.size("size")?.unwrap_or(DEFAULT_SIZE);
        if !size.is_power_of_two() {
            return Err(OpenError("size of ringbuf chardev must be power of two".to_owned()));
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= 1 << 30)
            .ok_or_else(|| OpenError("ringbuf chardev of this size is not supported: at most 1G".to_owned()))?;
        Ok(super::backend::open_now(inlet, Self { bytes: Mutex::default(), size, input }))
    }

    /// Takes up to `count` of the oldest bytes out.
    pub(super) fn read(&self, count: usize) -> Vec<u8> {
        let mut bytes = lock(&self.bytes);
        let count = count.min(bytes.len());
        bytes.drain(..count).collect()
    }
}

impl CharOutput for RingBuffer {
    fn write(&self, data: &[u8]) -> usize {
        let mut bytes = lock(&self.bytes);
        let last = &data[data.len().saturating_sub(self.size)..];
        let excess = (bytes.len() + last.len()).saturating_sub(self.size);
        let excess = excess.min(bytes.len());
        bytes.drain(..excess);
        bytes.extend(last);
        data.len()
    }

    fn accept_input(&self) {
        self.input.deliver_soon();
    }
}

impl Backend for RingBuffer {
    fn filename(&self) -> String {
        "ringbuf".to_owned()
    }

    fn ring_buffer(&self) -> Option<&RingBuffer> {
        Some(self)
    }
}
