//! The bus master's half of a channel: its three registers and the walk over the guest's descriptor table.

use crate::mem::{GuestRam, Sg};

/// Command register (Bus Master IDE 1.0, 2.1).
mod command {
    pub const START: u8 = 1 << 0;
    /// Transfers go to memory. Kept for the guest; the drive knows its direction.
    pub const WRITE_MEMORY: u8 = 1 << 3;
}

/// Status register (2.2).
mod status {
    pub const ACTIVE: u8 = 1 << 0;
    pub const ERROR: u8 = 1 << 1;
    pub const INTERRUPT: u8 = 1 << 2;
    /// Drives 0 and 1 are set up for DMA: the software's notes.
    pub const DMA_CAPABLE: u8 = 3 << 5;
}

/// Descriptors that one request is made of at most, but for the rest of its last sector: a bound on the time that a
/// hostile table of two-byte descriptors takes under the board lock.
const MAX_DESCRIPTORS: usize = 1024;
/// A table does not cross a multiple of this (1.2).
const TABLE_BOUNDARY: u32 = 0x1_0000;

/// What a guest's write to the command register asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    None,
    Started,
    Stopped,
}

/// How much of a transfer the table gave room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Gathered {
    /// This much, at least one unit.
    Memory(Sg),
    /// Nothing: the engine has stopped, at the end of the table or for an error.
    Stopped,
}

/// Where the engine is in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cursor {
    /// Next descriptor; `None` past the last.
    next: Option<u32>,
    /// Rest of the present region.
    gpa: u32,
    left: u32,
}

/// Registers of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
    cursor: Cursor,
}

impl BusMaster {
    pub const COLD: Self = Self { command: 0, status: 0, table: 0, cursor: Cursor { next: None, gpa: 0, left: 0 } };

    /// A byte of the channel's eight ports.
    pub fn read(&self, offset: u64) -> u8 {
        match offset & 7 {
            0 => self.command,
            2 => self.status,
            byte @ 4..=7 => self.table.to_le_bytes()[usize::try_from(byte - 4).unwrap_or(0)],
            _ => 0xff,
        }
    }

    /// A write of one byte.
    pub fn write(&mut self, offset: u64, value: u8) -> Change {
        match offset & 7 {
            0 => return self.write_command(value),
            2 => {
                let cleared = value & (status::ERROR | status::INTERRUPT);
                self.status = self.status & !(cleared | status::DMA_CAPABLE) | value & status::DMA_CAPABLE;
            }
            byte @ 4..=7 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[usize::try_from(byte - 4).unwrap_or(0)] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
        Change::None
    }

    fn write_command(&mut self, value: u8) -> Change {
        let was = self.command & command::START != 0;
        self.command = value & (command::START | command::WRITE_MEMORY);
        match (was, value & command::START != 0) {
            (false, true) => {
                self.status |= status::ACTIVE;
                self.cursor = Cursor { next: Some(self.table), gpa: 0, left: 0 };
                Change::Started
            }
            (true, false) => {
                self.status &= !status::ACTIVE;
                Change::Stopped
            }
            _ => Change::None,
        }
    }

    pub fn active(&self) -> bool {
        self.status & status::ACTIVE != 0
    }

    /// The drive's interrupt rose.
    pub fn interrupt(&mut self) {
        self.status |= status::INTERRUPT;
    }

    /// The drive's command is over: the engine stops where the table ended with it, and goes on waiting where the
    /// table has more (2.2, the table of Interrupt and Active).
    pub fn transfer_done(&mut self) {
        if self.cursor.next.is_none() && self.cursor.left == 0 {
            self.status &= !status::ACTIVE;
        }
    }

    /// A fault on the bus: descriptor or data outside RAM.
    pub fn fault(&mut self) {
        self.status = self.status & !status::ACTIVE | status::ERROR;
    }

    /// Memory for the next `max_bytes` bytes at most, in multiples of `unit` bytes. Where the table ends before one
    /// unit, or points outside RAM, the engine stops.
    pub fn gather(&mut self, ram: &GuestRam, max_bytes: u64, unit: u64) -> Gathered {
        let mut pieces: Vec<(u32, u32)> = Vec::new();
        let mut total = 0;
        let mut wanted = max_bytes;
        let mut descriptors = 0;
        while total < wanted {
            if self.cursor.left == 0 {
                match self.fetch(ram) {
                    Some(true) => {}
                    Some(false) => break,
                    None => {
                        self.fault();
                        return Gathered::Stopped;
                    }
                }
                descriptors += 1;
                if descriptors == MAX_DESCRIPTORS {
                    wanted = wanted.min((total + 1).next_multiple_of(unit));
                }
            }
            let step = u64::from(self.cursor.left).min(wanted - total);
            let step32 = u32::try_from(step).unwrap_or(u32::MAX);
            if !ram.contains(u64::from(self.cursor.gpa), step) {
                self.fault();
                return Gathered::Stopped;
            }
            pieces.push((self.cursor.gpa, step32));
            self.cursor.gpa = self.cursor.gpa.wrapping_add(step32);
            self.cursor.left -= step32;
            total += step;
        }
        let mut usable = total - total % unit;
        if usable == 0 {
            // The table is shorter than the transfer: inactive, and no interrupt (2.2).
            self.status &= !status::ACTIVE;
            return Gathered::Stopped;
        }
        let mut sg = Sg::new();
        for (gpa, len) in pieces {
            let step = usable.min(u64::from(len));
            sg.push(u64::from(gpa), u32::try_from(step).unwrap_or(len));
            usable -= step;
        }
        Gathered::Memory(sg)
    }

    /// Loads the next descriptor (1.2): `Some(false)` at the end of the table, `None` outside RAM.
    fn fetch(&mut self, ram: &GuestRam) -> Option<bool> {
        let Some(at) = self.cursor.next else { return Some(false) };
        let mut bytes = [0; 8];
        ram.read(u64::from(at), &mut bytes).ok()?;
        let [a, b, c, d, len_low, len_high, _, flags] = bytes;
        let len = u32::from(u16::from_le_bytes([len_low, len_high]) & !1);
        self.cursor.gpa = u32::from_le_bytes([a, b, c, d]) & !1;
        self.cursor.left = if len == 0 { 0x1_0000 } else { len };
        let next = at.wrapping_add(8);
        let last = flags & 0x80 != 0 || next % TABLE_BOUNDARY == 0;
        self.cursor.next = (!last).then_some(next);
        Some(true)
    }
}
