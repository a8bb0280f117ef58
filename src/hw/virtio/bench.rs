//! A small driver for tests: it sets a device up through the registers and works its queues in guest memory.

use std::sync::Arc;

use super::VirtioDevice;
use super::feature;
use super::spec::{COMMON_OFFSET, MODERN, MSIX, NOTIFY_OFFSET, common};
use super::transport_pci::{Options, VirtioPci, Wires};
use crate::bus::{At, ConfigChange, Device, PciFunction, Probe, Token, Width};
use crate::hw::bench::MessageProbe;
use crate::mem::GuestRam;

/// Guest memory of a bench.
pub const RAM: u64 = 16 << 20;
/// Where queues lie: a page-aligned block each.
const QUEUES: u64 = 0x1_0000;
const QUEUE_STRIDE: u64 = 0x8000;
/// Where buffers are taken from.
const BUFFERS: u64 = 0x40_0000;

/// A part of a request.
pub enum Piece {
    /// The device reads these.
    Readable(Vec<u8>),
    /// The device writes so many.
    Writable(u32),
}

impl Piece {
    pub fn readable(bytes: &[u8]) -> Self {
        Self::Readable(bytes.to_vec())
    }

    pub fn writable(len: u32) -> Self {
        Self::Writable(len)
    }
}

/// The driver's view of a queue.
#[derive(Clone, Copy, Default)]
struct Ring {
    size: u16,
    next_descriptor: u16,
    available: u16,
    seen: u16,
}

/// A device with its driver.
pub struct Bench {
    pub chip: VirtioPci,
    pub ram: GuestRam,
    pub probe: Arc<Probe>,
    pub msi: Arc<MessageProbe>,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Bench {
    /// The device at power-on, with MSI-X and bus mastering on.
    pub fn new(device: Box<dyn VirtioDevice>, options: Options) -> Self {
        let ram = GuestRam::for_test(RAM).unwrap();
        let (probe, msi) = (Probe::new(), MessageProbe::new());
        let queues = device.queue_sizes().len();
        let wires = Wires { irq: probe.line(0), msi: msi.clone(), ram: ram.clone() };
        let mut chip = VirtioPci::new(device, options, wires);
        chip.config().set_power_on();
        let mut bench = Self { chip, ram, probe, msi, rings: vec![Ring::default(); queues], next_buffer: BUFFERS };
        bench.config_write(4, 2, 7);
        bench
    }

    /// The device with all queues on and its driver ready; `features` are accepted beside VERSION_1.
    pub fn ready(device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let queues = u16::try_from(device.queue_sizes().len()).unwrap();
        Self::new(device, Options::new(queues + 1)).driven(features)
    }

    fn driven(mut self, features: u64) -> Self {
        self.enable_msix();
        self.negotiate(features | feature::VERSION_1);
        for queue in 0..u16::try_from(self.rings.len()).unwrap() {
            self.enable_queue(queue);
        }
        self.common_write(common::STATUS, Width::B1, 15);
        self
    }

    pub fn config_write(&mut self, offset: u16, len: u16, value: u32) {
        self.chip.config().guest_write(offset, len, value);
        self.chip.config_written(ConfigChange { offset, len });
    }

    /// Vector n has data n.
    pub fn enable_msix(&mut self) {
        let mut at = self.chip.config().u8(0x34);
        while self.chip.config().u8(usize::from(at)) != 0x11 {
            at = self.chip.config().u8(usize::from(at) + 1);
        }
        let control = self.chip.config().u16(usize::from(at) + 2);
        for vector in 0..u64::from(control & 0x7ff) + 1 {
            self.write(MSIX, 16 * vector, Width::B4, 0xfee0_0000);
            self.write(MSIX, 16 * vector + 8, Width::B4, vector);
            self.write(MSIX, 16 * vector + 12, Width::B4, 0);
        }
        self.config_write(u16::from(at) + 2, 2, 0x8000);
    }

    pub fn negotiate(&mut self, features: u64) {
        self.common_write(common::STATUS, Width::B1, 3);
        for word in 0..2 {
            self.common_write(common::DRIVER_FEATURE_SELECT, Width::B4, word);
            self.common_write(common::DRIVER_FEATURE, Width::B4, features >> (32 * word) & 0xffff_ffff);
        }
        self.common_write(common::STATUS, Width::B1, 11);
        assert_eq!(self.common_read(common::STATUS, Width::B1), 11, "the features are accepted");
    }

    fn base(queue: u16) -> u64 {
        QUEUES + QUEUE_STRIDE * u64::from(queue)
    }

    pub fn desc(queue: u16) -> u64 {
        Self::base(queue)
    }

    pub fn avail(queue: u16) -> u64 {
        Self::base(queue) + 0x4000
    }

    pub fn used_ring(queue: u16) -> u64 {
        Self::base(queue) + 0x5000
    }

    /// Switches a queue on; its vector is its number plus one.
    pub fn enable_queue(&mut self, queue: u16) {
        self.common_write(common::QUEUE_SELECT, Width::B2, queue.into());
        let size = u16::try_from(self.common_read(common::QUEUE_SIZE, Width::B2)).unwrap();
        self.rings[usize::from(queue)] = Ring { size, ..Ring::default() };
        self.ram.write(Self::base(queue), &[0; 0x8000]).unwrap();
        self.common_write(common::QUEUE_VECTOR, Width::B2, u64::from(queue) + 1);
        self.common_write(common::QUEUE_DESC, Width::B8, Self::desc(queue));
        self.common_write(common::QUEUE_DRIVER, Width::B8, Self::avail(queue));
        self.common_write(common::QUEUE_DEVICE, Width::B8, Self::used_ring(queue));
        self.common_write(common::QUEUE_ENABLE, Width::B2, 1);
    }

    // -- registers -----------------------------------------------------------------------------------------------

    pub fn read(&mut self, region: crate::bus::Region, offset: u64, width: Width) -> u64 {
        self.chip.read(At { region, offset, width })
    }

    pub fn write(&mut self, region: crate::bus::Region, offset: u64, width: Width, value: u64) {
        self.chip.write(At { region, offset, width }, value);
    }

    pub fn common_read(&mut self, offset: u64, width: Width) -> u64 {
        self.read(MODERN, COMMON_OFFSET + offset, width)
    }

    pub fn common_write(&mut self, offset: u64, width: Width, value: u64) {
        self.write(MODERN, COMMON_OFFSET + offset, width, value);
    }

    pub fn kick(&mut self, queue: u16) {
        self.write(MODERN, NOTIFY_OFFSET + 4 * u64::from(queue), Width::B2, queue.into());
    }

    pub fn event(&mut self, token: Token) {
        self.chip.event(token);
    }

    /// How many messages came since the last call.
    pub fn messages(&self) -> usize {
        self.msi.take().len()
    }

    pub fn needs_reset(&mut self) -> bool {
        self.common_read(common::STATUS, Width::B1) & 0x40 != 0
    }

    // -- queues --------------------------------------------------------------------------------------------------

    pub fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(gpa, &mut bytes).unwrap();
        bytes
    }

    pub fn buffer(&mut self, len: u64) -> u64 {
        let at = self.next_buffer;
        self.next_buffer += len.max(1).next_multiple_of(64);
        if self.next_buffer > RAM - (2 << 20) {
            self.next_buffer = BUFFERS;
        }
        at
    }

    pub fn put_descriptor(&self, table: u64, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.ram.write(table + 16 * u64::from(index), &bytes).unwrap();
    }

    /// Makes a request available; returns where its pieces are. Heads count up from 0 by the number of pieces.
    pub fn offer(&mut self, queue: u16, pieces: &[Piece]) -> Vec<u64> {
        let mut at = Vec::new();
        let head = self.rings[usize::from(queue)].next_descriptor;
        let size = self.rings[usize::from(queue)].size;
        for (index, piece) in pieces.iter().enumerate() {
            let (len, write) = match piece {
                Piece::Readable(bytes) => (u32::try_from(bytes.len()).unwrap(), 0),
                Piece::Writable(len) => (*len, 2),
            };
            let gpa = self.buffer(len.into());
            if let Piece::Readable(bytes) = piece {
                self.ram.write(gpa, bytes).unwrap();
            }
            let number = (head + u16::try_from(index).unwrap()) % size;
            let more = u16::from(index + 1 < pieces.len());
            self.put_descriptor(Self::desc(queue), number, gpa, len, write | more, (number + 1) % size);
            at.push(gpa);
        }
        self.rings[usize::from(queue)].next_descriptor = (head + u16::try_from(pieces.len()).unwrap()) % size;
        self.offer_head(queue, head);
        at
    }

    /// Makes a chain available that is in the table already.
    pub fn offer_head(&mut self, queue: u16, head: u16) {
        let ring = &mut self.rings[usize::from(queue)];
        let slot = Self::avail(queue) + 4 + 2 * u64::from(ring.available % ring.size);
        ring.available = ring.available.wrapping_add(1);
        let index = ring.available;
        self.ram.write(slot, &head.to_le_bytes()).unwrap();
        self.ram.write(Self::avail(queue) + 2, &index.to_le_bytes()).unwrap();
    }

    /// What was used since the last call: head and length.
    pub fn used(&mut self, queue: u16) -> Vec<(u32, u32)> {
        let ring = &mut self.rings[usize::from(queue)];
        let mut bytes = [0; 2];
        self.ram.read(Self::used_ring(queue) + 2, &mut bytes).unwrap();
        let index = u16::from_le_bytes(bytes);
        let mut out = Vec::new();
        while ring.seen != index {
            let at = Self::used_ring(queue) + 4 + 8 * u64::from(ring.seen % ring.size);
            out.push((self.ram.read_u32(at).unwrap(), self.ram.read_u32(at + 4).unwrap()));
            ring.seen = ring.seen.wrapping_add(1);
        }
        out
    }
}
