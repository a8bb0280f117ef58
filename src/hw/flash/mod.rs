//! Parallel NOR flash with Intel's command set: what firmware lies in and keeps its variables in.
//!
//! Written from Intel's 28F640J3 data sheet and the Common Flash Interface (JESD68.01). The chip is 8 bits wide, has
//! 4-KiB blocks and no locks. While it shows its array the guest reads host memory at full speed and only writes come
//! here; in every other mode reads come here too. What is programmed or erased goes to the image block by block, in
//! the background, the newest content once for however many changes.
//!
//! Like QEMU's `cfi.pflash01`, which guests expect, and unlike the real chip: an erase or program command ends at once;
//! programming stores the byte, where a real cell can only lose bits; SR.7 is clear until the first operation and after
//! "clear status" (OVMF tells flash from RAM by that zero); the identifier codes are zeros. A wrong sequence of commands
//! shows the array and leaves SR.4 and SR.5 set.

pub mod spec;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::block::{BlockQueue, Op, Payload, Request};
use crate::bus::{At, Board, Decode, Device, DeviceId, DeviceRef, MmioTarget, Region, RegionHandle, Reset, Token};
use crate::mem::{Backing, RamBlock, RomWrites};

use spec::{BUFFER, SECTOR, command, status};

/// The chip's only region.
const CHIP: Region = Region(0);

/// The event for requests that ended.
pub const WRITTEN: Token = Token(0);

/// Wider accesses are those of QEMU's chip: one command, as many bytes of data.
const DECODE: Decode = Decode::UP_TO_4;

/// Where a chip is and what is behind it.
pub struct Wires {
    /// First address.
    pub base: u64,
    /// Priority of its mapping.
    pub priority: i32,
    /// The content. It is a whole number of [`SECTOR`]s.
    pub memory: Arc<RamBlock>,
    /// The image.
    pub queue: Box<dyn BlockQueue>,
}

/// What reads give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Array,
    Status,
    Id,
    Query,
}

/// What the next write is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Command,
    /// Data to store.
    Program,
    /// The second cycle of an erase of the block at this offset.
    Erase {
        sector: u64,
    },
    /// The second cycle of a lock command.
    Lock,
    /// The number of writes that follow, less one.
    BufferCount,
    /// Data for the buffer; this many writes are left.
    BufferData {
        left: u32,
        window: Option<Window>,
    },
    /// The confirmation of what is in the buffer.
    BufferConfirm {
        window: Option<Window>,
    },
}

/// The part of the array that the buffer stands for: what is there, and over it what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Window {
    base: u64,
    bytes: [u8; BUFFER as usize],
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    mode: Mode,
    status: u8,
    step: Step,
}

impl Regs {
    const COLD: Self = Self { mode: Mode::Array, status: 0, step: Step::Command };
}

/// A flash chip.
pub struct Pflash {
    // Wires.
    memory: Arc<RamBlock>,
    mapping: RegionHandle,
    target: MmioTarget,
    queue: Box<dyn BlockQueue>,
    // Options.
    read_only: bool,
    // Guest-visible state, besides the memory.
    regs: Regs,
    /// Whether the guest reads the array without coming here.
    maps_array: bool,
    // Pending host work.
    /// Offsets of blocks that are not in the image yet.
    dirty: BTreeSet<u64>,
    writing: bool,
}

impl Pflash {
    /// Puts a chip on the board as the device that was reserved as `id`.
    pub fn add(board: &mut Board, id: DeviceId, wires: Wires) -> DeviceRef<Self> {
        let Wires { base, priority, memory, queue } = wires;
        let target = MmioTarget { device: id, region: CHIP, decode: DECODE };
        let name = board.name(id).to_owned();
        let mapping = board.map_memory(&name, base, memory.len(), priority, array(&memory, target));
        let chip = Self {
            read_only: queue.read_only(),
            memory,
            mapping,
            target,
            queue,
            regs: Regs::COLD,
            maps_array: true,
            dirty: BTreeSet::new(),
            writing: false,
        };
        board.install(id, chip)
    }

    /// The only place that changes what the guest reads directly; call it after any change of mode.
    fn update_mapping(&mut self) {
        let maps_array = self.regs.mode == Mode::Array;
        if std::mem::replace(&mut self.maps_array, maps_array) == maps_array {
            return;
        }
        self.mapping.set_backing(match maps_array {
            true => array(&self.memory, self.target),
            false => Backing::Device { target: self.target, offset: 0 },
        });
    }

    /// A code in the first cycle.
    fn start(&mut self, offset: u64, code: u8) {
        log::trace!(target: "pflash_command", "offset {offset:#x} code {code:#04x}");
        let sector = offset & !(SECTOR - 1);
        let (mode, step) = match code {
            command::PROGRAM | command::PROGRAM_ALTERNATE => (Mode::Status, Step::Program),
            command::ERASE => (Mode::Status, Step::Erase { sector }),
            command::LOCK => (Mode::Status, Step::Lock),
            command::BUFFER => {
                self.regs.status |= status::READY;
                (Mode::Status, Step::BufferCount)
            }
            command::CLEAR_STATUS => {
                self.regs.status = 0;
                (self.regs.mode, Step::Command)
            }
            command::READ_STATUS => (Mode::Status, Step::Command),
            command::READ_ID => (Mode::Id, Step::Command),
            command::QUERY => (Mode::Query, Step::Command),
            _ => (Mode::Array, Step::Command),
        };
        (self.regs.mode, self.regs.step) = (mode, step);
    }

    /// The sequence that was begun cannot go on like this.
    fn wrong_sequence(&mut self, offset: u64, code: u8) {
        log::debug!(target: "guest_errors", "flash: {code:#04x} at {offset:#x} does not complete a command");
        self.regs.status |= status::READY | status::ERASE_ERROR | status::PROGRAM_ERROR;
        self.regs.mode = Mode::Array;
    }

    /// The operation ended.
    fn ended(&mut self, result: Result<(), u8>) {
        self.regs.status |= status::READY | result.err().unwrap_or(0);
    }

    /// Stores bytes in the array.
    fn store(&mut self, offset: u64, bytes: &[u8]) -> Result<(), u8> {
        if self.read_only {
            return Err(status::PROTECTED);
        }
        self.memory.write(offset, bytes);
        self.dirty.insert(offset & !(SECTOR - 1));
        self.write_back();
        Ok(())
    }

    /// One write of data for the buffer. The first one chooses the window; a write outside it ends the command.
    fn fill_buffer(&mut self, offset: u64, bytes: &[u8], left: u32, window: Option<Window>) {
        let mut window = window.unwrap_or_else(|| {
            let base = offset & !(BUFFER - 1);
            let mut bytes = [0; BUFFER as usize];
            self.memory.read(base, &mut bytes);
            Window { base, bytes }
        });
        let inside = offset.checked_sub(window.base).and_then(|inside| usize::try_from(inside).ok());
        let Some(room) = inside.and_then(|inside| window.bytes.get_mut(inside..inside + bytes.len())) else {
            self.regs.status |= status::READY | status::PROGRAM_ERROR;
            self.regs.mode = Mode::Array;
            return;
        };
        room.copy_from_slice(bytes);
        let window = Some(window);
        self.regs.step = match left - 1 {
            0 => Step::BufferConfirm { window },
            left => Step::BufferData { left, window },
        };
    }

    /// Writes a changed block to the image, unless one is on its way.
    fn write_back(&mut self) {
        if self.writing {
            return;
        }
        let Some(offset) = self.dirty.pop_first() else { return };
        let mut bytes = vec![0; SECTOR as usize];
        self.memory.read(offset, &mut bytes);
        self.writing = true;
        self.queue.submit(Request { op: Op::Write, offset, payload: Payload::Buffer(bytes), token: 0 });
    }

    fn array_at(&self, at: At) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(at.offset, &mut bytes[..at.width as usize]);
        u64::from_le_bytes(bytes)
    }
}

/// The array at full speed, with writes coming to the chip.
fn array(memory: &Arc<RamBlock>, target: MmioTarget) -> Backing<MmioTarget> {
    let writes = RomWrites::Device { target, offset: 0 };
    Backing::Rom { block: Arc::clone(memory), offset: 0, writes }
}

impl Device for Pflash {
    fn read(&mut self, at: At) -> u64 {
        match self.regs.mode {
            Mode::Array => self.array_at(at),
            // Each 16 bits of a wider read hold it.
            Mode::Status => (u64::from(self.regs.status) * 0x0001_0001) & at.width.ones(),
            Mode::Id => 0,
            Mode::Query => spec::query(self.memory.len(), at.offset).into(),
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let data = value.to_le_bytes();
        let (code, data) = (data[0], &data[..at.width as usize]);
        match std::mem::replace(&mut self.regs.step, Step::Command) {
            Step::Command => self.start(at.offset, code),
            Step::Program => {
                let stored = self.store(at.offset, data);
                self.ended(stored.map_err(|bits| bits | status::PROGRAM_ERROR));
            }
            Step::Erase { sector } if code == command::CONFIRM => {
                let erased = self.store(sector, &[0xff; SECTOR as usize]);
                self.ended(erased.map_err(|bits| bits | status::ERASE_ERROR));
            }
            Step::Lock if matches!(code, command::CONFIRM | command::LOCK_SET) => self.ended(Ok(())),
            Step::BufferCount => {
                let left = (u32::try_from(value).unwrap_or(u32::MAX) & 0xff) + 1;
                self.regs.step = Step::BufferData { left, window: None };
            }
            Step::BufferData { left, window } => self.fill_buffer(at.offset, data, left, window),
            Step::BufferConfirm { window: Some(window) } if code == command::CONFIRM => {
                let stored = self.store(window.base, &window.bytes);
                self.ended(stored.map_err(|bits| bits | status::PROGRAM_ERROR));
            }
            Step::Erase { .. } | Step::Lock | Step::BufferConfirm { .. } => self.wrong_sequence(at.offset, code),
        }
        self.update_mapping();
    }

    fn event(&mut self, _token: Token) {
        for done in self.queue.completed() {
            self.writing = false;
            if let Err(error) = done.result {
                log::warn!("flash memory: writing its image failed: {}", crate::host::reason(&error));
            }
        }
        self.write_back();
    }

    fn reset(&mut self, _kind: Reset) {
        let Self {
            memory: _,
            mapping: _,
            target: _,
            queue: _,
            read_only: _,
            regs,
            maps_array: _,
            dirty: _,
            writing: _,
        } = self; // the content and its way to the image stay
        *regs = Regs::COLD;
        self.update_mapping();
    }
}

#[cfg(test)]
mod tests;
