//! A drive: its copy of the command block, the data port, and the work it has with its disk.
//!
//! What is common to disks and CD-ROM drives is here; `ata` and `atapi` hold their commands.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::block::{BlockQueue, Completion, Op, Payload, Request};
use crate::mem::{GuestRam, Sg};

use super::atapi::Cd;
use super::identify;
use super::ncq::Ncq;
use super::piix::EjectError;
use super::smart::Smart;
use super::spec::{Reg, cmd, device, error, status};

/// What a drive is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriveKind {
    /// A hard disk: `ide-hd`.
    Disk,
    /// A CD/DVD-ROM drive: `ide-cd`.
    Cdrom,
    /// A CompactFlash card: `ide-cf`.
    CompactFlash,
}

/// What happens to a request that failed (`rerror=`, `werror=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// Tell the guest.
    Report,
    /// Tell the guest that it went well.
    Ignore,
    /// Keep the request and stop the machine; it is tried again when the machine goes on.
    Stop,
    /// [`OnError::Stop`] when the host's disk is full, else [`OnError::Report`].
    Enospc,
}

/// What was done about a failed request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// The guest was told.
    Report,
    /// Nothing.
    Ignore,
    /// The request waits for [`super::PiixIde::retry_held`]; the machine has to stop.
    Stop,
}

/// A failed request, for the machine's BLOCK_IO_ERROR event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoFault {
    /// The drive: channel * 2 + unit.
    pub drive: usize,
    /// Whether data went to the disk: writes, flushes, trims.
    pub write: bool,
    /// What was done.
    pub action: ErrorAction,
    /// The host is out of space.
    pub no_space: bool,
    /// The host's error.
    pub reason: String,
}

/// Where faults are reported. It takes a note only: it is called under the board lock.
pub type FaultSink = Arc<dyn Fn(IoFault) + Send + Sync>;

/// Hears that a tray moved, and whether it is out now: the drive is channel * 2 + unit. It takes a note only.
pub type TraySink = Arc<dyn Fn(usize, bool) + Send + Sync>;

/// A disk's geometry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Cylinders.
    pub cyls: u16,
    /// Heads, 1-16.
    pub heads: u8,
    /// Sectors a track, 1-255.
    pub secs: u8,
}

impl Geometry {
    /// What a disk of that many sectors claims by itself: 16 heads, 63 sectors, and cylinders to match.
    #[must_use]
    pub fn of(sectors: u64) -> Self {
        let cyls = (sectors / (16 * 63)).clamp(2, 16383);
        Self { cyls: u16::try_from(cyls).unwrap_or(16383), heads: 16, secs: 63 }
    }
}

/// What the user can choose of a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveOptions {
    /// Disk or CD-ROM.
    pub kind: DriveKind,
    /// `serial=`, up to 20 characters; `None` is QM00001 and so on, by unit.
    pub serial: Option<String>,
    /// `model=`, up to 40 characters.
    pub model: Option<String>,
    /// `ver=`, the firmware revision, up to 8 characters.
    pub version: Option<String>,
    /// `wwn=`, 0 for none.
    pub wwn: u64,
    /// `physical_block_size=` in bytes, a power of two from 512 on.
    pub physical_block_size: u32,
    /// `rotation_rate=`: 1 for solid state, else turns a minute; 0 is not told.
    pub rotation_rate: u16,
    /// `cyls=`, `heads=`, `secs=`.
    pub geometry: Option<Geometry>,
    /// The write cache is on at power-on (`write-cache=`); while it is off, writes go to stable storage.
    pub write_cache: bool,
    /// The disk has TRIM (`discard_granularity=` is not 0). Whether it reaches the image is the queue's business.
    pub trim: bool,
    /// Read errors.
    pub rerror: OnError,
    /// Write errors.
    pub werror: OnError,
}

impl DriveOptions {
    /// QEMU's defaults.
    #[must_use]
    pub fn new(kind: DriveKind) -> Self {
        Self {
            kind,
            serial: None,
            model: None,
            version: None,
            wwn: 0,
            physical_block_size: 512,
            rotation_rate: 0,
            geometry: None,
            write_cache: true,
            trim: true,
            rerror: OnError::Report,
            werror: OnError::Enospc,
        }
    }
}

/// A register with the value it had before: 48-bit commands read both (ATA/ATAPI-6 6.20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::hw) struct Fifo {
    pub now: u8,
    pub before: u8,
}

impl Fifo {
    pub const fn new(now: u8) -> Self {
        Self { now, before: 0 }
    }

    fn push(&mut self, value: u8) {
        *self = Self { now: value, before: self.now };
    }

    pub fn get(self, hob: bool) -> u8 {
        if hob { self.before } else { self.now }
    }
}

/// A drive's copy of the command block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct TaskFile {
    pub feature: Fifo,
    pub error: u8,
    pub count: Fifo,
    pub low: Fifo,
    pub mid: Fifo,
    pub high: Fifo,
    pub device: u8,
    pub status: u8,
}

impl TaskFile {
    const COLD: Self = Self {
        feature: Fifo::new(0),
        error: 0,
        count: Fifo::new(1),
        low: Fifo::new(1),
        mid: Fifo::new(0),
        high: Fifo::new(0),
        device: device::OBSOLETE,
        status: status::READY,
    };

    /// The 28-bit address or cylinder/head/sector bytes.
    pub fn address24(&self) -> u32 {
        u32::from_le_bytes([self.low.now, self.mid.now, self.high.now, 0])
    }

    pub fn set_address28(&mut self, lba: u64) {
        let [low, mid, high, top, ..] = lba.to_le_bytes();
        (self.low, self.mid, self.high) = (Fifo::new(low), Fifo::new(mid), Fifo::new(high));
        self.device = self.device & 0xf0 | top & 0x0f;
    }

    pub fn address48(&self) -> u64 {
        let Self { low, mid, high, .. } = self;
        u64::from_le_bytes([low.now, mid.now, high.now, low.before, mid.before, high.before, 0, 0])
    }

    pub fn set_address48(&mut self, lba: u64) {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        self.low = Fifo { now: a, before: d };
        self.mid = Fifo { now: b, before: e };
        self.high = Fifo { now: c, before: f };
    }
}

/// Power modes (ATA/ATAPI-6 6.12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Power {
    Active,
    Standby,
    Sleep,
}

/// What SET FEATURES and its like chose; a soft reset leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Settings {
    /// Sectors of a READ MULTIPLE block; 0 turns those commands off.
    pub multiple: u8,
    /// Transfer mode as SET FEATURES 03h takes it.
    pub mode: u8,
    /// Heads and sectors of the present translation (INITIALIZE DEVICE PARAMETERS).
    pub heads: u8,
    pub secs: u8,
    pub write_cache: bool,
    pub power: Power,
}

/// Where a command moves its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Via {
    Pio,
    Dma,
}

/// A run of sectors that a disk command reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Run {
    pub lba: u64,
    /// Sectors that are not done.
    pub left: u32,
    /// Sectors of a data block of the data port.
    pub block: u32,
    pub fua: bool,
    /// The command is one of the 48-bit ones.
    pub ext: bool,
    pub via: Via,
}

/// What the drive is busy with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Job {
    None,
    Read(Run),
    Write(Run),
    Verify(Run),
    Flush,
    /// The list of a TRIM is on its way in.
    TrimList(Via),
    /// Ranges in bytes that are still to be discarded.
    Trim(VecDeque<(u64, u64)>),
    /// A data-in command whose data is in the buffer.
    Reply,
    /// A packet comes in.
    Packet,
    /// A packet command's reply, in the buffer.
    PacketReply,
    /// A packet command's parameter list comes in.
    PacketList,
    /// Blocks of the medium; `raw` has the frame layout of READ CD.
    PacketRead {
        lba: u32,
        left: u32,
        frame: u8,
    },
}

/// Who moves next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Phase {
    Idle,
    /// The host reads `buffer[pos..end]`.
    DataIn,
    /// The host writes `buffer[pos..end]`.
    DataOut,
    /// The bus master has to come.
    DmaWait,
    /// The disk has a request.
    Queue,
}

/// Memory that a drive wants from the bus master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Want {
    pub bytes: u64,
    /// Requests are whole multiples of this.
    pub unit: u64,
}

/// A request that the queue has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InFlight {
    token: u64,
    op: Op,
    offset: u64,
}

/// A drive on a channel.
pub(in crate::hw) struct Drive {
    // Wires.
    pub(in crate::hw) queue: Box<dyn BlockQueue>,
    faults: FaultSink,
    pub(in crate::hw) tray: TraySink,
    /// channel * 2 + unit.
    pub(in crate::hw) number: usize,
    // Options.
    pub(in crate::hw) options: DriveOptions,
    /// It is on a serial link: IDENTIFY tells of it, and queued commands work.
    pub(in crate::hw) sata: bool,
    // Guest-visible state.
    pub(in crate::hw) regs: TaskFile,
    pub(in crate::hw) settings: Settings,
    pub(in crate::hw) smart: Smart,
    pub(in crate::hw) cd: Cd,
    /// The interrupt is pending; the channel drives the line.
    pub(in crate::hw) intrq: bool,
    pub(in crate::hw) job: Job,
    pub(in crate::hw) phase: Phase,
    pub(in crate::hw) buffer: Vec<u8>,
    pub(in crate::hw) pos: usize,
    pub(in crate::hw) end: usize,
    // Pending host work.
    in_flight: Option<InFlight>,
    held: Option<Request>,
    next_token: u64,
    pub(in crate::hw) ncq: Ncq,
}

impl Drive {
    pub fn new(number: usize, options: DriveOptions, queue: Box<dyn BlockQueue>, faults: FaultSink) -> Self {
        let settings = Settings {
            multiple: 0,
            mode: 0,
            heads: 1,
            secs: 1,
            write_cache: options.write_cache,
            power: Power::Active,
        };
        let mut drive = Self {
            queue,
            faults,
            tray: Arc::new(|_, _| ()),
            number,
            options,
            sata: false,
            regs: TaskFile::COLD,
            settings,
            smart: Smart::COLD,
            cd: Cd::COLD,
            intrq: false,
            job: Job::None,
            phase: Phase::Idle,
            buffer: Vec::new(),
            pos: 0,
            end: 0,
            in_flight: None,
            held: None,
            next_token: 0,
            ncq: Ncq::default(),
        };
        drive.power_on();
        drive
    }

    pub fn is_cd(&self) -> bool {
        self.options.kind == DriveKind::Cdrom
    }

    /// Sectors of the medium.
    pub fn sectors(&self) -> u64 {
        (self.queue.capacity() / super::spec::SECTOR).min(1 << 48)
    }

    pub fn geometry(&self) -> Geometry {
        self.options.geometry.unwrap_or_else(|| Geometry::of(self.sectors()))
    }

    // -- resets --------------------------------------------------------------------------------------------------

    /// The state after power-on. Tokens go on counting, so that a late completion matches nothing.
    pub fn power_on(&mut self) {
        self.drop_work();
        let geometry = self.geometry();
        let Self {
            queue: _,
            faults: _,
            tray: _,
            number: _,
            options,
            sata: _,
            regs,
            settings,
            smart,
            cd,
            intrq,
            // Idle since `drop_work`.
            job: _,
            phase: _,
            buffer: _,
            pos: _,
            end: _,
            in_flight: _,
            held: _,
            next_token: _,
            ncq: _,
        } = self;
        *settings = Settings {
            multiple: identify::MAX_MULTIPLE,
            mode: identify::DEFAULT_MODE,
            heads: geometry.heads,
            secs: geometry.secs,
            write_cache: options.write_cache,
            power: Power::Active,
        };
        *smart = Smart::COLD;
        cd.power_on();
        *regs = TaskFile { error: super::ata::DIAGNOSTIC_PASSED, ..TaskFile::COLD };
        *intrq = false;
        self.sign();
    }

    /// A soft reset (SRST), when it ends (ATA/ATAPI-6 9.2).
    pub fn soft_reset(&mut self) {
        self.drop_work();
        self.intrq = false;
        self.settings.power = Power::Active;
        self.regs.device &= device::DEV;
        self.regs.device |= device::OBSOLETE;
        self.sign();
        self.regs.error = super::ata::DIAGNOSTIC_PASSED;
        self.regs.status = if self.is_cd() { 0 } else { status::READY };
    }

    /// Forgets the command in progress: nothing of it touches guest memory any more.
    pub fn drop_work(&mut self) {
        if self.in_flight.is_some() || self.ncq.is_busy() {
            self.queue.cancel_all();
        }
        self.in_flight = None;
        self.held = None;
        self.ncq.drop_all();
        self.job = Job::None;
        self.phase = Phase::Idle;
        self.drop_buffer();
    }

    fn drop_buffer(&mut self) {
        self.buffer = Vec::new();
        self.pos = 0;
        self.end = 0;
    }

    /// The signature (ATA/ATAPI-6 9.12).
    pub fn sign(&mut self) {
        let (mid, high) = if self.is_cd() { (0x14, 0xeb) } else { (0, 0) };
        self.regs.count = Fifo::new(1);
        self.regs.low = Fifo::new(1);
        self.regs.mid = Fifo::new(mid);
        self.regs.high = Fifo::new(high);
        self.regs.device &= !0x0f;
    }

    // -- command block -------------------------------------------------------------------------------------------

    pub fn busy(&self) -> bool {
        self.regs.status & status::BSY != 0
    }

    pub fn wants_data(&self) -> bool {
        self.regs.status & status::DRQ != 0
    }

    /// A write of a parameter register. While the drive is busy they cannot be written (7.1).
    pub fn write_reg(&mut self, reg: Reg, value: u8) {
        if self.busy() {
            return;
        }
        match reg {
            Reg::Error => self.regs.feature.push(value),
            Reg::Count => self.regs.count.push(value),
            Reg::LbaLow => self.regs.low.push(value),
            Reg::LbaMid => self.regs.mid.push(value),
            Reg::LbaHigh => self.regs.high.push(value),
            Reg::Device => self.regs.device = value | device::OBSOLETE,
            Reg::Data | Reg::Status => {}
        }
    }

    pub fn read_reg(&self, reg: Reg, hob: bool) -> u8 {
        match reg {
            Reg::Data => 0xff,
            Reg::Error => self.regs.error,
            Reg::Count => self.regs.count.get(hob),
            Reg::LbaLow => self.regs.low.get(hob),
            Reg::LbaMid => self.regs.mid.get(hob),
            Reg::LbaHigh => self.regs.high.get(hob),
            Reg::Device => self.regs.device,
            Reg::Status => self.regs.status,
        }
    }

    // -- ends of commands ----------------------------------------------------------------------------------------

    /// The command ended well.
    pub fn done(&mut self) {
        self.finish(status::READY, 0);
    }

    /// The command failed.
    pub fn fail(&mut self, error: u8) {
        self.finish(status::DRDY | status::ERR, error);
    }

    pub fn abort(&mut self) {
        self.fail(error::ABRT);
    }

    pub fn finish(&mut self, status: u8, error: u8) {
        self.finish_quietly(status, error);
        self.intrq = true;
    }

    pub fn finish_quietly(&mut self, status: u8, error: u8) {
        self.regs.status = status;
        self.regs.error = error;
        self.job = Job::None;
        self.phase = Phase::Idle;
        self.drop_buffer();
    }

    // -- data port -----------------------------------------------------------------------------------------------

    /// Offers `data` to the host in one block.
    pub fn reply(&mut self, data: Vec<u8>) {
        self.job = Job::Reply;
        self.end = data.len();
        self.offer(data, self.end);
    }

    /// Offers the first `block` bytes of `data`.
    pub fn offer(&mut self, data: Vec<u8>, block: usize) {
        self.buffer = data;
        self.pos = 0;
        self.next_block(Phase::DataIn, block);
        self.intrq = true;
    }

    /// Asks the host for the first `block` of `len` bytes; the caller decides on the interrupt.
    pub fn ask(&mut self, len: usize, block: usize) {
        self.buffer = vec![0; len];
        self.pos = 0;
        self.next_block(Phase::DataOut, block);
    }

    pub fn next_block(&mut self, phase: Phase, block: usize) {
        self.end = self.pos.saturating_add(block).min(self.buffer.len());
        self.phase = phase;
        self.regs.status = status::READY | status::DRQ;
    }

    /// A read of `width` (2 or 4) bytes from the data port.
    pub fn read_data(&mut self, width: usize) -> u32 {
        let mut bytes = [0; 4];
        if self.phase != Phase::DataIn {
            return 0;
        }
        let take = width.min(self.end - self.pos);
        bytes[..take].copy_from_slice(&self.buffer[self.pos..self.pos + take]);
        self.pos += take;
        if self.pos == self.end {
            self.block_read();
        }
        u32::from_le_bytes(bytes)
    }

    /// A write of `width` (2 or 4) bytes to the data port.
    pub fn write_data(&mut self, width: usize, value: u32) {
        if self.phase != Phase::DataOut {
            return;
        }
        let take = width.min(self.end - self.pos);
        self.buffer[self.pos..self.pos + take].copy_from_slice(&value.to_le_bytes()[..take]);
        self.pos += take;
        if self.pos == self.end {
            self.block_written();
        }
    }

    /// As many whole units as the present block has, but for its last: `rep insw` without a look at each word.
    pub fn read_data_string(&mut self, data: &mut [u8]) -> usize {
        if self.phase != Phase::DataIn {
            return 0;
        }
        let room = (self.end - self.pos).saturating_sub(4) & !3;
        let take = room.min(data.len() & !3);
        data[..take].copy_from_slice(&self.buffer[self.pos..self.pos + take]);
        self.pos += take;
        take
    }

    /// As [`Drive::read_data_string`], for `rep outsw`.
    pub fn write_data_string(&mut self, data: &[u8]) -> usize {
        if self.phase != Phase::DataOut {
            return 0;
        }
        let room = (self.end - self.pos).saturating_sub(4) & !3;
        let take = room.min(data.len() & !3);
        self.buffer[self.pos..self.pos + take].copy_from_slice(&data[..take]);
        self.pos += take;
        take
    }

    /// The host took all of the block that [`Phase::DataIn`] offers.
    pub fn give_block(&mut self) {
        self.pos = self.end;
        self.block_read();
    }

    /// The host gives all of the block that [`Phase::DataOut`] asks for; `data` is as long as that.
    pub fn take_block(&mut self, data: &[u8]) {
        let len = data.len().min(self.end - self.pos);
        self.buffer[self.pos..self.pos + len].copy_from_slice(&data[..len]);
        self.pos = self.end;
        self.block_written();
    }

    fn block_read(&mut self) {
        match self.job {
            Job::Read(run) => self.read_block_taken(run),
            Job::PacketReply | Job::PacketRead { .. } => self.packet_block_taken(),
            _ => self.finish_quietly(status::READY, 0),
        }
    }

    fn block_written(&mut self) {
        match self.job {
            Job::Write(run) => self.write_block_given(run),
            Job::TrimList(_) => {
                let list = std::mem::take(&mut self.buffer);
                self.trim(&list);
            }
            Job::Packet => self.packet_given(),
            Job::PacketList => self.packet_list_given(),
            _ => self.finish_quietly(status::READY, 0),
        }
    }

    // -- bus master ----------------------------------------------------------------------------------------------

    /// Waits for the bus master.
    pub fn wait_for_dma(&mut self) {
        self.phase = Phase::DmaWait;
        self.regs.status = status::READY | status::DRQ;
    }

    /// What the drive would move now if the bus master ran.
    pub fn dma_wanted(&self) -> Option<Want> {
        if self.phase != Phase::DmaWait {
            return None;
        }
        match self.job {
            Job::Read(run) | Job::Write(run) => Some(super::ata::dma_wanted(run)),
            Job::PacketRead { left, .. } if self.buffer.is_empty() => Some(super::atapi::dma_wanted(left)),
            Job::TrimList(_) | Job::PacketReply | Job::PacketRead { .. } => {
                Some(Want { bytes: (self.buffer.len() - self.pos) as u64, unit: 1 })
            }
            _ => None,
        }
    }

    /// The bus master brings memory for what [`Drive::dma_wanted`] said, or for a part of it.
    pub fn dma(&mut self, ram: &GuestRam, sg: Sg) {
        match self.job {
            Job::Read(run) | Job::Write(run) => self.run_dma(run, sg),
            Job::TrimList(_) => {
                let len = usize::try_from(sg.len()).unwrap_or(0).min(self.buffer.len() - self.pos);
                let range = self.pos..self.pos + len;
                // The engine checked that all of it is RAM.
                let _ = sg.read(ram, 0, &mut self.buffer[range]);
                self.pos += len;
                if self.pos == self.buffer.len() {
                    let list = std::mem::take(&mut self.buffer);
                    self.trim(&list);
                }
            }
            Job::PacketRead { .. } if self.buffer.is_empty() => self.packet_read_dma(sg),
            Job::PacketReply | Job::PacketRead { .. } => {
                let len = usize::try_from(sg.len()).unwrap_or(0).min(self.buffer.len() - self.pos);
                // The engine checked that all of it is RAM.
                let _ = sg.write(ram, 0, &self.buffer[self.pos..self.pos + len]);
                self.pos += len;
                if self.pos == self.buffer.len() {
                    self.buffer = Vec::new();
                    self.pos = 0;
                    self.packet_block_taken();
                }
            }
            _ => {}
        }
    }

    /// The guest stopped the bus master: a request on guest memory is taken back and waits for it again.
    pub fn dma_stopped(&mut self) {
        let guest_memory = match self.job {
            Job::Read(run) | Job::Write(run) => run.via == Via::Dma,
            Job::PacketRead { frame, .. } => self.cd.dma && frame == super::atapi::FRAME_USER_DATA,
            _ => false,
        };
        if guest_memory && self.phase == Phase::Queue {
            self.queue.cancel_all();
            self.in_flight = None;
            self.held = None;
            self.wait_for_dma();
        }
    }

    // -- the disk ------------------------------------------------------------------------------------------------

    /// Gives the disk a request; the drive is busy until it ends.
    pub fn submit(&mut self, op: Op, offset: u64, payload: Payload) {
        if self.settings.power == Power::Standby {
            self.settings.power = Power::Active;
        }
        let token = self.new_token();
        self.phase = Phase::Queue;
        self.regs.status = status::BSY | status::READY;
        self.in_flight = Some(InFlight { token, op, offset });
        self.queue.submit(Request { op, offset, payload, token });
    }

    /// The queue raised its event.
    pub fn collect(&mut self) {
        for completion in self.queue.completed() {
            let Some(completion) = self.collect_queued(completion) else { continue };
            let Some(InFlight { token, op, offset }) = self.in_flight else { continue };
            if completion.token != token {
                continue;
            }
            self.in_flight = None;
            let Completion { result, payload, .. } = completion;
            match result {
                Ok(()) => self.request_done(payload),
                Err(reason) => self.request_failed(op, offset, payload, &reason),
            }
        }
    }

    fn request_done(&mut self, payload: Payload) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::Read(run) => self.read_done(run, payload),
            Job::Write(run) => self.write_done(run, &payload),
            Job::Verify(run) => self.verify_done(run),
            Job::Trim(ranges) => self.trim_next(ranges),
            Job::PacketRead { lba, left, frame } => self.packet_read_done(lba, left, frame, payload),
            _ => self.done(),
        }
    }

    fn request_failed(&mut self, op: Op, offset: u64, payload: Payload, reason: &io::Error) {
        match self.report_fault(op, reason) {
            ErrorAction::Ignore => self.request_done(payload),
            ErrorAction::Stop => self.held = Some(Request { op, offset, payload, token: 0 }),
            ErrorAction::Report => match self.job {
                Job::Read(run) | Job::Verify(run) => self.run_failed(run, error::UNC),
                Job::Write(run) => self.run_failed(run, error::ABRT),
                Job::PacketRead { .. } => self.packet_read_failed(),
                _ => self.abort(),
            },
        }
    }

    /// Tells of a request that failed: what is to be done about it.
    pub(in crate::hw) fn report_fault(&self, op: Op, reason: &io::Error) -> ErrorAction {
        let write = op != Op::Read;
        let no_space = reason.kind() == io::ErrorKind::StorageFull;
        let policy = if write { self.options.werror } else { self.options.rerror };
        let action = match policy {
            OnError::Ignore => ErrorAction::Ignore,
            OnError::Stop => ErrorAction::Stop,
            OnError::Enospc if no_space => ErrorAction::Stop,
            OnError::Report | OnError::Enospc => ErrorAction::Report,
        };
        (self.faults)(IoFault { drive: self.number, write, action, no_space, reason: reason.to_string() });
        action
    }

    /// A token that no request had before.
    pub(in crate::hw) fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    pub fn waits_for_disk(&self) -> bool {
        self.phase == Phase::Queue
    }

    pub fn holds_request(&self) -> bool {
        self.held.is_some() || self.ncq.holds()
    }

    /// Tries a request again that an error policy kept.
    pub fn retry_held(&mut self) {
        self.retry_queued();
        if let Some(Request { op, offset, payload, .. }) = self.held.take() {
            self.submit(op, offset, payload);
        }
    }
}

impl Drive {
    /// A write of the command register: the drive begins the command, unless it is busy or asleep. EXECUTE DEVICE
    /// DIAGNOSTIC is the channel's business.
    pub fn start(&mut self, code: u8) {
        if code == cmd::DEVICE_RESET && self.is_cd() {
            self.device_reset();
            return;
        }
        if self.busy() || self.wants_data() || self.settings.power == Power::Sleep {
            return;
        }
        log::trace!(target: "ide_exec_cmd", "drive {} command {code:#04x}", self.number);
        self.intrq = false;
        if self.common_command(code) {
            return;
        }
        if self.is_cd() { self.cd_command(code) } else { self.disk_command(code) }
    }

    /// Whether the medium can be taken out now. With a locked tray the guest is told of the wish, and unless `force` it
    /// has to open the tray first. On success the tray is open.
    pub fn eject(&mut self, force: bool) -> Result<(), EjectError> {
        if !self.is_cd() {
            return Err(EjectError::NotRemovable);
        }
        if self.cd.locked && !self.cd.tray_open {
            self.eject_request();
            if !force {
                return Err(EjectError::Locked);
            }
        }
        self.open_tray();
        Ok(())
    }

    /// SRST rises: the drive is busy until it falls (ATA/ATAPI-6 9.2).
    pub fn begin_soft_reset(&mut self) {
        self.drop_work();
        self.intrq = false;
        self.regs.status = status::BSY;
    }
}
