//! Serial and parallel ports between their character back ends and the board.

use std::sync::Arc;

use crate::bus::{BoardCell, DeviceRef};
use crate::chardev::{CharEvent, CharSink};
use crate::hw::char::uart16550::Uart16550;

/// A UART's input side: takes the board lock for each call.
pub struct UartSink {
    board: Arc<BoardCell>,
    uart: DeviceRef<Uart16550>,
}

impl UartSink {
    /// The input side of `uart`.
    #[must_use]
    pub fn new(board: Arc<BoardCell>, uart: DeviceRef<Uart16550>) -> Arc<Self> {
        Arc::new(Self { board, uart })
    }
}

impl CharSink for UartSink {
    fn room(&self) -> usize {
        self.board.lock().with(&self.uart, |uart| uart.room()).unwrap_or(0)
    }

    fn receive(&self, data: &[u8]) {
        self.board.lock().with(&self.uart, |uart| uart.receive(data));
    }

    fn event(&self, event: CharEvent) {
        self.board.lock().with(&self.uart, |uart| uart.event(event));
    }

    fn writable(&self) {
        self.board.lock().with(&self.uart, Uart16550::writable);
    }
}

/// The input side of a port that only sends: what arrives is thrown away.
#[derive(Debug)]
pub struct Mute;

impl CharSink for Mute {
    fn room(&self) -> usize {
        4096
    }

    fn receive(&self, _data: &[u8]) {}

    fn event(&self, _event: CharEvent) {}
}
