//! The two 8237A DMA controllers of an AT with their page registers. No device here uses them: firmware and old
//! systems program and probe them, so they are a faithful register file.
//!
//! Documents: Intel 8237A data sheet ("Register description"); IBM Personal Computer AT Technical Reference, "DMA
//! controllers" (ports and page registers).
//!
//! Memory-to-memory transfers and software requests of unmasked channels move no data.

use crate::bus::{At, Device, Region, Reset};

/// Controller 1, channels 0-3: 16 ports at 00h. Decode bytes.
pub const CONTROLLER1: Region = Region(0);
/// Controller 2, channels 4-7: 32 ports at C0h, one register every two. Decode bytes.
pub const CONTROLLER2: Region = Region(1);
/// Page registers: 8 ports at 80h and 8 at 88h are one region of 16 ports at 80h. Port 80h is also where the BIOS
/// writes its progress codes; all of them can be written and read back. Decode bytes.
pub const PAGES: Region = Region(2);

/// Registers behind the 8 address and count registers.
mod reg {
    pub const STATUS_COMMAND: u64 = 8;
    pub const REQUEST: u64 = 9;
    pub const SINGLE_MASK: u64 = 10;
    pub const MODE: u64 = 11;
    pub const CLEAR_FLIP_FLOP: u64 = 12;
    pub const TEMPORARY_MASTER_CLEAR: u64 = 13;
    pub const CLEAR_MASK: u64 = 14;
    pub const ALL_MASK: u64 = 15;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Controller {
    /// Base and current values, by channel: address and count.
    base: [[u16; 2]; 4],
    current: [[u16; 2]; 4],
    mode: [u8; 4],
    command: u8,
    mask: u8,
    request: u8,
    /// The next byte of a 16-bit register is the high one.
    high_byte: bool,
}

impl Controller {
    const COLD: Self = Self {
        base: [[0; 2]; 4],
        current: [[0; 2]; 4],
        mode: [0; 4],
        command: 0,
        mask: 0x0f,
        request: 0,
        high_byte: false,
    };

    fn master_clear(&mut self) {
        self.command = 0;
        self.request = 0;
        self.mask = 0x0f;
        self.high_byte = false;
    }

    /// Whether this access is for the high byte; the next is for the other.
    fn toggle(&mut self) -> bool {
        self.high_byte = !self.high_byte;
        !self.high_byte
    }

    fn read(&mut self, register: u64) -> u8 {
        match register {
            0..=7 => {
                let (channel, which) = channel_register(register);
                let [low, high] = self.current[channel][which].to_le_bytes();
                let high_byte = self.toggle();
                if high_byte { high } else { low }
            }
            // Requests in the upper half; no transfer ever ends.
            reg::STATUS_COMMAND => self.request << 4,
            reg::ALL_MASK => self.mask | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u8) {
        let channel = usize::from(value & 3);
        let bit = 1 << channel;
        match register {
            0..=7 => {
                let (channel, which) = channel_register(register);
                let [low, high] = self.base[channel][which].to_le_bytes();
                let high_byte = self.toggle();
                let word = u16::from_le_bytes(if high_byte { [low, value] } else { [value, high] });
                self.base[channel][which] = word;
                self.current[channel][which] = word;
            }
            reg::STATUS_COMMAND => self.command = value,
            reg::REQUEST if value & 4 != 0 => self.request |= bit,
            reg::REQUEST => self.request &= !bit,
            reg::SINGLE_MASK if value & 4 != 0 => self.mask |= bit,
            reg::SINGLE_MASK => self.mask &= !bit,
            reg::MODE => self.mode[channel] = value,
            reg::CLEAR_FLIP_FLOP => self.high_byte = false,
            reg::TEMPORARY_MASTER_CLEAR => self.master_clear(),
            reg::CLEAR_MASK => self.mask = 0,
            reg::ALL_MASK => self.mask = value & 0x0f,
            _ => {}
        }
    }
}

/// Channel, and 0 for its address or 1 for its count.
fn channel_register(register: u64) -> (usize, usize) {
    let register = usize::try_from(register & 7).unwrap_or(0);
    (register / 2, register % 2)
}

/// Both controllers and the page registers.
#[derive(Debug)]
pub struct Dma8237 {
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

impl Regs {
    const COLD: Self = Self { controllers: [Controller::COLD; 2], pages: [0; 16] };
}

impl Default for Dma8237 {
    fn default() -> Self {
        Self::new()
    }
}

impl Dma8237 {
    /// The controllers, all channels masked.
    #[must_use]
    pub fn new() -> Self {
        Self { regs: Regs::COLD }
    }
}

impl Device for Dma8237 {
    fn read(&mut self, at: At) -> u64 {
        let [one, two] = &mut self.regs.controllers;
        u64::from(match at.region {
            CONTROLLER1 => one.read(at.offset & 15),
            CONTROLLER2 => two.read(at.offset >> 1 & 15),
            _ => self.regs.pages[usize::from(at.offset.to_le_bytes()[0] & 15)],
        })
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        let [one, two] = &mut self.regs.controllers;
        match at.region {
            CONTROLLER1 => one.write(at.offset & 15, value),
            CONTROLLER2 => two.write(at.offset >> 1 & 15, value),
            _ => self.regs.pages[usize::from(at.offset.to_le_bytes()[0] & 15)] = value,
        }
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { regs } = self;
        *regs = Regs::COLD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Board, Decode, DeviceRef, Width};
    use crate::hw::bench::Random;

    fn board() -> (Board, DeviceRef<Dma8237>) {
        let mut board = Board::new();
        let device = board.add("i8257", Dma8237::new());
        board.map_ports(device.id(), CONTROLLER1, Decode::BYTES, 0x00, 16);
        board.map_ports(device.id(), CONTROLLER2, Decode::BYTES, 0xc0, 32);
        board.map_ports(device.id(), PAGES, Decode::BYTES, 0x80, 16);
        (board, device)
    }

    #[test]
    fn words_go_through_the_flip_flop() {
        let (mut board, _) = board();
        board.port_write(0x0c, Width::B1, 0);
        board.port_write(0x04, Width::B1, 0x34);
        board.port_write(0x04, Width::B1, 0x12);
        assert_eq!((board.port_read(0x04, Width::B1), board.port_read(0x04, Width::B1)), (0x34, 0x12));
        board.port_write(0xc6, Width::B1, 0x55);
        board.port_write(0xd8, Width::B1, 0);
        assert_eq!(board.port_read(0xc6, Width::B1), 0x55);
    }

    #[test]
    fn masks_and_pages_read_back() {
        let (mut board, _) = board();
        assert_eq!(board.port_read(0x0f, Width::B1), 0xff);
        board.port_write(0x0a, Width::B1, 2);
        assert_eq!(board.port_read(0x0f, Width::B1), 0xfb);
        board.port_write(0x0d, Width::B1, 0);
        assert_eq!(board.port_read(0x0f, Width::B1), 0xff);
        board.port_write(0x81, Width::B1, 0x7e);
        assert_eq!(board.port_read(0x81, Width::B1), 0x7e);
    }

    #[test]
    fn reset_is_power_on() {
        let (mut board, device) = board();
        board.port_write(0x0e, Width::B1, 0);
        board.port_write(0x87, Width::B1, 1);
        board.reset(Reset::System);
        assert_eq!(board.with(&device, |d| d.regs), Some(Regs::COLD));
    }

    #[test]
    fn random_programs_never_panic() {
        let (mut board, _) = board();
        let mut random = Random(29);
        for _ in 0..10_000 {
            let [port, value, ..] = random.next().to_le_bytes();
            board.port_write(u16::from(port), Width::B1, u32::from(value));
            let _ = board.port_read(u16::from(value), Width::B4);
        }
    }
}
