//! CD-ROM drives: the PACKET command's phases, sense data, the tray, and block reads.
//!
//! `mmc` holds the replies of the commands that only tell something. A CD-ROM drive here plays no audio; the medium is
//! one data track, or a DVD when it is larger than a CD can be.

use crate::block::{Op, Payload};
use crate::mem::Sg;

use super::drive::{Drive, Fifo, Job, Phase, Power, Want};
use super::spec::{CD_BLOCK, cmd, reason};

/// Blocks that one PIO request reads, and one DMA request.
const PIO_BLOCKS: u32 = 32;
const DMA_BLOCKS: u32 = 512;
/// Bytes of a raw frame (Red Book).
const RAW_FRAME: usize = 2352;
const PACKET: usize = 12;

/// Packet command codes (MMC-6 table 238, SFF-8020i table 20).
pub(in crate::hw) mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK_10: u8 = 0x2b;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const READ_TRACK_INFORMATION: u8 = 0x52;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const READ_DVD_STRUCTURE: u8 = 0xad;
    pub const SET_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Sense key with its additional code (SPC-3 table 28, MMC-6 annex F).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Sense {
    pub key: u8,
    pub asc: u8,
}

impl Sense {
    pub const NONE: Self = Self { key: 0, asc: 0 };
    pub const NOT_PRESENT: Self = Self { key: 2, asc: 0x3a };
    pub const REMOVAL_PREVENTED: Self = Self { key: 2, asc: 0x53 };
    pub const READ_ERROR: Self = Self { key: 3, asc: 0x11 };
    pub const BAD_OPCODE: Self = Self { key: 5, asc: 0x20 };
    pub const OUT_OF_RANGE: Self = Self { key: 5, asc: 0x21 };
    pub const BAD_FIELD: Self = Self { key: 5, asc: 0x24 };
    pub const BAD_PARAMETER: Self = Self { key: 5, asc: 0x26 };
    pub const SAVING_NOT_SUPPORTED: Self = Self { key: 5, asc: 0x39 };
    pub const INCOMPATIBLE_FORMAT: Self = Self { key: 5, asc: 0x30 };
    pub const MEDIUM_CHANGED: Self = Self { key: 6, asc: 0x28 };
}

/// What happened to the tray that GET EVENT STATUS NOTIFICATION has not told (MMC-6 6.6.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum MediaEvent {
    None,
    EjectRequest,
    NewMedia,
    MediaRemoval,
}

/// The CD-ROM side of a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Cd {
    /// The packet command in progress.
    pub packet: [u8; PACKET],
    /// Its data goes by DMA.
    pub dma: bool,
    /// Bytes of a data block at most.
    pub limit: usize,
    pub sense: Sense,
    pub event: MediaEvent,
    pub tray_open: bool,
    pub locked: bool,
    /// The medium was changed: the guest hears "not present" once, then "medium changed".
    pub changed: Changed,
}

/// How far the guest was told of a new medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::hw) enum Changed {
    No,
    /// Next: not present.
    Gone,
    /// Next: unit attention.
    New,
}

impl Cd {
    pub const COLD: Self = Self {
        packet: [0; PACKET],
        dma: false,
        limit: 0,
        sense: Sense::NONE,
        event: MediaEvent::None,
        tray_open: false,
        locked: false,
        changed: Changed::No,
    };

    /// Power-on: the tray stays as it is, and so does the news of a medium.
    pub fn power_on(&mut self) {
        let Self { packet: _, dma: _, limit: _, sense: _, event, tray_open, locked: _, changed } = *self;
        *self = Self { event, tray_open, changed, ..Self::COLD };
    }
}

/// What the bus master is asked for.
pub(in crate::hw) fn dma_wanted(left: u32) -> Want {
    Want { bytes: u64::from(left.min(DMA_BLOCKS)) * CD_BLOCK, unit: CD_BLOCK }
}

fn be16(bytes: &[u8]) -> u32 {
    bytes.iter().take(2).fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be24(bytes: &[u8]) -> u32 {
    bytes.iter().take(3).fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |value, byte| value << 8 | u32::from(*byte))
}

impl Drive {
    /// A CD-ROM drive's ATA command.
    pub fn cd_command(&mut self, code: u8) {
        match code {
            cmd::PACKET => self.packet_command(),
            cmd::IDENTIFY_PACKET_DEVICE => self.reply(self.identify_packet()),
            cmd::DEVICE_RESET => self.device_reset(),
            cmd::FLUSH_CACHE | cmd::FLUSH_CACHE_EXT => self.done(),
            // The signature tells the host what this is (ATA/ATAPI-6 8.15.5).
            cmd::IDENTIFY_DEVICE | cmd::READ_SECTORS | cmd::READ_SECTORS_NO_RETRY => {
                self.sign();
                self.abort();
            }
            _ => self.abort(),
        }
    }

    /// DEVICE RESET (ATA/ATAPI-6 8.8): also while a command is in progress; no interrupt.
    pub fn device_reset(&mut self) {
        self.drop_work();
        self.settings.power = Power::Active;
        self.intrq = false;
        self.sign();
        self.regs.status = 0;
        self.regs.error = super::ata::DIAGNOSTIC_PASSED;
    }

    /// PACKET (ATA/ATAPI-6 8.23): asks for the packet, without an interrupt (IDENTIFY word 0, bits 6-5).
    fn packet_command(&mut self) {
        const DMA: u8 = 1 << 0;
        const OVERLAP: u8 = 1 << 1;
        let feature = self.regs.feature.now;
        if feature & OVERLAP != 0 {
            self.abort();
            return;
        }
        self.cd.dma = feature & DMA != 0;
        // Odd limits count as one less (8.23.4).
        let limit = usize::from(u16::from_le_bytes([self.regs.mid.now, self.regs.high.now]));
        self.cd.limit = limit.min(0xfffe) & !1;
        self.regs.count = Fifo::new(reason::CD);
        self.regs.error = 0;
        self.job = Job::Packet;
        self.ask(PACKET, PACKET);
    }

    /// The packet is here.
    pub fn packet_given(&mut self) {
        self.cd.packet.copy_from_slice(&self.buffer[..PACKET]);
        self.regs.error = 0;
        let packet = self.cd.packet;
        // REQUEST SENSE tells the last command's sense; the others begin a new one.
        if packet[0] != op::REQUEST_SENSE {
            self.cd.sense = Sense::NONE;
        }
        if !tells_in_any_state(packet[0]) && !self.report_change() {
            return;
        }
        if needs_medium(packet[0]) && !self.ready() {
            self.packet_failed(Sense::NOT_PRESENT);
            return;
        }
        self.packet_run(&packet);
    }

    /// Tells the guest of a changed medium, one step a command; whether the command may go on.
    fn report_change(&mut self) -> bool {
        match self.cd.changed {
            Changed::No => true,
            // Without a medium the commands that need one say so themselves.
            _ if !self.ready() => true,
            Changed::Gone => {
                self.cd.changed = Changed::New;
                self.packet_failed(Sense::NOT_PRESENT);
                false
            }
            Changed::New => {
                self.cd.changed = Changed::No;
                self.packet_failed(Sense::MEDIUM_CHANGED);
                false
            }
        }
    }

    /// A medium is in the closed drive.
    pub fn ready(&self) -> bool {
        !self.cd.tray_open && self.queue.has_medium() && self.queue.capacity() > 0
    }

    fn packet_run(&mut self, packet: &[u8; PACKET]) {
        match packet[0] {
            op::TEST_UNIT_READY | op::SET_SPEED => self.packet_done(),
            op::READ_10 => self.packet_read(be32(&packet[2..]), be16(&packet[7..])),
            op::READ_12 => self.packet_read(be32(&packet[2..]), be32(&packet[6..])),
            op::READ_CD => self.packet_read_cd(packet),
            op::SEEK_10 => match be32(&packet[2..]) {
                lba if u64::from(lba) < self.blocks() => self.packet_done(),
                _ => self.packet_failed(Sense::OUT_OF_RANGE),
            },
            op::PREVENT_ALLOW => {
                self.cd.locked = packet[4] & 1 != 0;
                self.packet_done();
            }
            op::START_STOP_UNIT => self.start_stop(packet[4]),
            op::MODE_SELECT_10 => self.mode_select(packet),
            _ => match self.tell(packet) {
                Ok(reply) => self.packet_reply(reply),
                Err(sense) => self.packet_failed(sense),
            },
        }
    }

    /// Blocks of the medium.
    pub fn blocks(&self) -> u64 {
        self.queue.capacity() / CD_BLOCK
    }

    // -- ends ----------------------------------------------------------------------------------------------------

    pub fn packet_done(&mut self) {
        self.regs.count = Fifo::new(reason::IO | reason::CD);
        self.done();
    }

    /// CHECK CONDITION: the sense key is in the error register's high half (ATA/ATAPI-6 8.23.5).
    pub fn packet_failed(&mut self, sense: Sense) {
        self.cd.sense = sense;
        self.regs.count = Fifo::new(reason::IO | reason::CD);
        self.fail(sense.key << 4);
    }

    // -- replies -------------------------------------------------------------------------------------------------

    /// Sends a reply; an empty one ends the command.
    fn packet_reply(&mut self, reply: Vec<u8>) {
        if reply.is_empty() {
            self.packet_done();
            return;
        }
        self.job = Job::PacketReply;
        self.packet_offer(reply);
    }

    /// Data for the host, by the way that the command asked for.
    fn packet_offer(&mut self, data: Vec<u8>) {
        self.regs.count = Fifo::new(reason::IO);
        if self.cd.dma {
            self.buffer = data;
            self.pos = 0;
            self.wait_for_dma();
            return;
        }
        if self.cd.limit == 0 {
            self.abort(); // no room for data (8.23.4)
            return;
        }
        self.offer(data, self.cd.limit);
        self.show_byte_count();
    }

    fn show_byte_count(&mut self) {
        let [low, high, ..] = (self.end - self.pos).to_le_bytes();
        self.regs.mid = Fifo::new(low);
        self.regs.high = Fifo::new(high);
    }

    /// The host took a data block.
    pub fn packet_block_taken(&mut self) {
        if self.pos < self.buffer.len() {
            self.next_block(Phase::DataIn, self.cd.limit);
            self.show_byte_count();
            self.intrq = true;
            return;
        }
        match self.job {
            Job::PacketRead { lba, left, frame } if left > 0 => self.packet_read_on(lba, left, frame),
            _ => self.packet_done(),
        }
    }

    // -- reading -------------------------------------------------------------------------------------------------

    fn packet_read(&mut self, lba: u32, blocks: u32) {
        self.packet_read_range(lba, blocks, FRAME_USER_DATA);
    }

    /// READ CD (MMC-6 6.19): user data, or the whole frame.
    fn packet_read_cd(&mut self, packet: &[u8; PACKET]) {
        let (lba, blocks) = (be32(&packet[2..]), be24(&packet[6..]));
        match packet[9] & 0xf8 {
            0x00 => self.packet_done(),
            FRAME_USER_DATA => self.packet_read_range(lba, blocks, FRAME_USER_DATA),
            FRAME_ALL => self.packet_read_range(lba, blocks, FRAME_ALL),
            _ => self.packet_failed(Sense::BAD_FIELD),
        }
    }

    fn packet_read_range(&mut self, lba: u32, left: u32, frame: u8) {
        if left == 0 {
            self.packet_done();
        } else if u64::from(lba) + u64::from(left) > self.blocks() {
            self.packet_failed(Sense::OUT_OF_RANGE);
        } else {
            self.packet_read_on(lba, left, frame);
        }
    }

    fn packet_read_on(&mut self, lba: u32, left: u32, frame: u8) {
        self.job = Job::PacketRead { lba, left, frame };
        self.regs.count = Fifo::new(reason::IO);
        if self.cd.dma && frame == FRAME_USER_DATA {
            self.buffer = Vec::new();
            self.wait_for_dma();
            return;
        }
        let len = u64::from(left.min(PIO_BLOCKS)) * CD_BLOCK;
        let buffer = vec![0; usize::try_from(len).unwrap_or(0)];
        self.submit(Op::Read, u64::from(lba) * CD_BLOCK, Payload::Buffer(buffer));
    }

    /// The bus master brought memory for the next part.
    pub fn packet_read_dma(&mut self, sg: Sg) {
        if let Job::PacketRead { lba, .. } = self.job {
            self.submit(Op::Read, u64::from(lba) * CD_BLOCK, Payload::Guest(sg));
        }
    }

    /// The disk has read a part.
    pub fn packet_read_done(&mut self, lba: u32, left: u32, frame: u8, payload: Payload) {
        let bytes = match &payload {
            Payload::Buffer(buffer) => buffer.len() as u64,
            Payload::Guest(sg) => sg.len(),
            Payload::Len(len) => *len,
        };
        let blocks = u32::try_from(bytes / CD_BLOCK).unwrap_or(u32::MAX).min(left);
        let (next, left) = (lba + blocks, left - blocks);
        self.job = Job::PacketRead { lba: next, left, frame };
        match payload {
            Payload::Buffer(buffer) if frame == FRAME_USER_DATA => self.packet_offer(buffer),
            Payload::Buffer(buffer) => self.packet_offer(raw_frames(lba, &buffer)),
            _ if left > 0 => self.packet_read_on(next, left, frame),
            _ => self.packet_done(),
        }
    }

    pub fn packet_read_failed(&mut self) {
        self.packet_failed(Sense::READ_ERROR);
    }

    // -- the tray ------------------------------------------------------------------------------------------------

    /// START STOP UNIT (MMC-6 6.42).
    fn start_stop(&mut self, action: u8) {
        const START: u8 = 1 << 0;
        const LOEJ: u8 = 1 << 1;
        if action & 0xf0 != 0 {
            // A power condition: the drive has one.
            self.packet_done();
            return;
        }
        match (action & LOEJ != 0, action & START != 0) {
            (false, _) => self.packet_done(),
            (true, false) if self.cd.locked && !self.cd.tray_open => {
                let key = if self.queue.has_medium() { 2 } else { 5 };
                self.packet_failed(Sense { key, ..Sense::REMOVAL_PREVENTED });
            }
            (true, start) => {
                self.move_tray(!start);
                self.packet_done();
            }
        }
    }

    /// Moves the tray and tells the machine, if it was not there already.
    fn move_tray(&mut self, open: bool) {
        if self.cd.tray_open != open {
            self.cd.tray_open = open;
            (self.tray)(self.number, open);
        }
    }

    /// The host's side opens the tray: the guest hears of the removal.
    pub fn open_tray(&mut self) {
        self.cd.changed = Changed::Gone;
        self.cd.event = MediaEvent::MediaRemoval;
        self.move_tray(true);
    }

    /// The host's side put a medium in, or exchanged it, and closes the tray.
    pub fn medium_changed(&mut self) {
        self.cd.changed = Changed::Gone;
        self.cd.event = if self.queue.has_medium() { MediaEvent::NewMedia } else { MediaEvent::MediaRemoval };
        self.move_tray(false);
    }

    /// The host's side presses the eject button.
    pub fn eject_request(&mut self) {
        self.cd.event = MediaEvent::EjectRequest;
    }

    // -- parameters ----------------------------------------------------------------------------------------------

    fn mode_select(&mut self, packet: &[u8; PACKET]) {
        let len = usize::try_from(be16(&packet[7..])).unwrap_or(0);
        if len == 0 {
            self.packet_done();
            return;
        }
        if self.cd.dma || self.cd.limit == 0 {
            self.packet_failed(Sense::BAD_FIELD);
            return;
        }
        self.job = Job::PacketList;
        self.regs.count = Fifo::new(0);
        self.ask(len, self.cd.limit);
        self.show_byte_count();
        self.intrq = true;
    }

    /// A part of the parameter list is here.
    pub fn packet_list_given(&mut self) {
        if self.pos < self.buffer.len() {
            self.next_block(Phase::DataOut, self.cd.limit);
            self.show_byte_count();
            self.intrq = true;
            return;
        }
        let list = std::mem::take(&mut self.buffer);
        match super::mmc::check_mode_list(&list) {
            Ok(()) => self.packet_done(),
            Err(sense) => self.packet_failed(sense),
        }
    }
}

/// READ CD's byte 9: user data only.
pub(in crate::hw) const FRAME_USER_DATA: u8 = 0x10;
/// READ CD's byte 9: sync, headers, user data, EDC and ECC.
const FRAME_ALL: u8 = 0xf8;

/// Mode 1 frames around blocks (Yellow Book; ECMA-130 14): sync, address, mode, data. EDC and ECC are zero.
fn raw_frames(lba: u32, blocks: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(blocks.len() / 2048 * RAW_FRAME);
    for (number, block) in (lba..).zip(blocks.chunks(2048)) {
        frames.push(0);
        frames.extend_from_slice(&[0xff; 10]);
        frames.push(0);
        let [minute, second, frame] = super::mmc::msf(number);
        frames.extend_from_slice(&[bcd(minute), bcd(second), bcd(frame), 1]);
        frames.extend_from_slice(block);
        frames.resize(frames.len().next_multiple_of(RAW_FRAME), 0);
    }
    frames
}

fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// Commands that go on whatever happened to the medium.
fn tells_in_any_state(code: u8) -> bool {
    matches!(code, op::REQUEST_SENSE | op::INQUIRY | op::GET_CONFIGURATION | op::GET_EVENT_STATUS)
}

/// Commands that need a medium.
fn needs_medium(code: u8) -> bool {
    matches!(
        code,
        op::TEST_UNIT_READY
            | op::READ_CAPACITY
            | op::READ_10
            | op::READ_12
            | op::READ_CD
            | op::SEEK_10
            | op::READ_TOC
            | op::READ_DISC_INFORMATION
            | op::READ_TRACK_INFORMATION
            | op::READ_DVD_STRUCTURE
    )
}
