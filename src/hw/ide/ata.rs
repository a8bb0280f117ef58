//! Disk commands.

use std::collections::VecDeque;

use crate::block::{Op, Payload};
use crate::mem::Sg;

use super::drive::{Drive, DriveKind, Fifo, Job, Power, Run, Via, Want};
use super::identify::MAX_MULTIPLE;
use super::spec::{SECTOR, cmd, device, error, status};

/// Diagnostic code 01h: device 0 passed, device 1 passed or is not there (ATA/ATAPI-6 8.9).
pub(super) const DIAGNOSTIC_PASSED: u8 = 1;

/// Sectors that one request of a PIO command moves: the drive's buffer.
const PIO_SECTORS: u32 = 128;
/// Sectors that one request of a DMA command moves.
const DMA_SECTORS: u32 = 2048;
/// Sectors that READ VERIFY reads at once.
const VERIFY_SECTORS: u32 = 512;
/// TRIM lists longer than this are refused, in 512-byte blocks; a guest needs one (word 105).
const MAX_TRIM_BLOCKS: u32 = 128;

/// What the bus master is asked for.
pub(super) fn dma_wanted(run: Run) -> Want {
    Want { bytes: u64::from(run.left.min(DMA_SECTORS)) * SECTOR, unit: SECTOR }
}

/// The address and count forms of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// 28-bit or cylinder/head/sector, 256 sectors at most.
    Short,
    /// 48-bit, 65536 sectors at most.
    Ext,
}

impl Drive {
    /// A disk's command.
    pub fn disk_command(&mut self, code: u8) {
        use Form::{Ext, Short};
        use Via::{Dma, Pio};
        let multiple = u32::from(self.settings.multiple);
        match code {
            cmd::READ_SECTORS | cmd::READ_SECTORS_NO_RETRY => self.read(Short, 1, Pio),
            cmd::READ_SECTORS_EXT => self.read(Ext, 1, Pio),
            cmd::READ_MULTIPLE => self.read(Short, multiple, Pio),
            cmd::READ_MULTIPLE_EXT => self.read(Ext, multiple, Pio),
            cmd::READ_DMA | cmd::READ_DMA_NO_RETRY => self.read(Short, 1, Dma),
            cmd::READ_DMA_EXT => self.read(Ext, 1, Dma),
            cmd::WRITE_SECTORS | cmd::WRITE_SECTORS_NO_RETRY | cmd::WRITE_VERIFY => {
                self.write(Short, 1, Pio, false);
            }
            cmd::CFA_WRITE_SECTORS if self.options.kind == DriveKind::CompactFlash => {
                self.write(Short, 1, Pio, false);
            }
            cmd::WRITE_SECTORS_EXT => self.write(Ext, 1, Pio, false),
            cmd::WRITE_MULTIPLE => self.write(Short, multiple, Pio, false),
            cmd::WRITE_MULTIPLE_EXT => self.write(Ext, multiple, Pio, false),
            cmd::WRITE_MULTIPLE_FUA_EXT => self.write(Ext, multiple, Pio, true),
            cmd::WRITE_DMA | cmd::WRITE_DMA_NO_RETRY => self.write(Short, 1, Dma, false),
            cmd::WRITE_DMA_EXT => self.write(Ext, 1, Dma, false),
            cmd::WRITE_DMA_FUA_EXT => self.write(Ext, 1, Dma, true),
            cmd::READ_VERIFY | cmd::READ_VERIFY_NO_RETRY => self.verify(Short),
            cmd::READ_VERIFY_EXT => self.verify(Ext),
            cmd::RECALIBRATE..=cmd::RECALIBRATE_LAST => self.done(),
            cmd::SEEK..=cmd::SEEK_LAST => self.seek(),
            cmd::INITIALIZE_DEVICE_PARAMETERS => self.initialize_parameters(),
            cmd::SET_MULTIPLE_MODE => self.set_multiple(),
            cmd::READ_NATIVE_MAX => self.native_max(Short),
            cmd::READ_NATIVE_MAX_EXT => self.native_max(Ext),
            cmd::DATA_SET_MANAGEMENT => self.data_set_management(),
            cmd::SMART => self.smart_command(),
            cmd::READ_LOG_EXT if self.sata => self.read_log(),
            cmd::FLUSH_CACHE | cmd::FLUSH_CACHE_EXT => self.flush(),
            cmd::IDENTIFY_DEVICE => self.reply(self.identify()),
            cmd::CFA_REQUEST_EXTENDED_ERROR if self.options.kind == DriveKind::CompactFlash => {
                self.done();
                self.regs.error = 0x09; // miscellaneous error: none other is kept (CFA 4.0, 6.2.1.10)
            }
            _ => self.abort(),
        }
    }

    /// Commands of every drive; `false` if it is none of them.
    pub fn common_command(&mut self, code: u8) -> bool {
        match code {
            // Subcommand 0 and all others fail (ATA/ATAPI-6 8.21).
            cmd::NOP => self.abort(),
            cmd::SET_FEATURES => self.set_features(),
            cmd::STANDBY_IMMEDIATE | cmd::OLD_STANDBY_IMMEDIATE | cmd::STANDBY | cmd::OLD_STANDBY => {
                self.settings.power = Power::Standby;
                self.done();
            }
            cmd::IDLE_IMMEDIATE | cmd::OLD_IDLE_IMMEDIATE | cmd::IDLE | cmd::OLD_IDLE => {
                self.settings.power = Power::Active;
                self.done();
            }
            cmd::CHECK_POWER_MODE | cmd::OLD_CHECK_POWER_MODE => {
                let mode = if self.settings.power == Power::Active { 0xff } else { 0 };
                self.regs.count = Fifo::new(mode);
                self.done();
            }
            cmd::SLEEP | cmd::OLD_SLEEP => {
                self.done();
                self.settings.power = Power::Sleep;
            }
            _ => return false,
        }
        true
    }

    // -- addresses -----------------------------------------------------------------------------------------------

    /// The sector that the command block names; `None` for one that the translation cannot have.
    fn address(&self, form: Form) -> Option<u64> {
        let regs = &self.regs;
        if form == Form::Ext {
            return Some(regs.address48());
        }
        let head = regs.device & 0x0f;
        if regs.device & device::LBA != 0 {
            return Some(u64::from(regs.address24()) | u64::from(head) << 24);
        }
        let (heads, secs) = (u64::from(self.settings.heads), u64::from(self.settings.secs));
        let cylinder = u64::from(u16::from_le_bytes([regs.mid.now, regs.high.now]));
        let sector = u64::from(regs.low.now);
        if sector == 0 || sector > secs || u64::from(head) >= heads {
            return None;
        }
        Some((cylinder * heads + u64::from(head)) * secs + sector - 1)
    }

    /// Writes a sector's address back to the command block, in the form that the command had.
    fn set_address(&mut self, form: Form, lba: u64) {
        if form == Form::Ext {
            self.regs.set_address48(lba);
            return;
        }
        if self.regs.device & device::LBA != 0 {
            self.regs.set_address28(lba);
            return;
        }
        let (heads, secs) = (u64::from(self.settings.heads), u64::from(self.settings.secs));
        let track = lba / secs;
        let [low, high, ..] = (track / heads).to_le_bytes();
        self.regs.low = Fifo::new((lba % secs + 1).to_le_bytes()[0]);
        self.regs.mid = Fifo::new(low);
        self.regs.high = Fifo::new(high);
        self.regs.device = self.regs.device & 0xf0 | (track % heads).to_le_bytes()[0] & 0x0f;
    }

    /// The command's run of sectors. A bad address ends the command: IDNF.
    fn run(&mut self, form: Form, block: u32, via: Via, fua: bool) -> Option<Run> {
        if block == 0 {
            self.abort(); // READ MULTIPLE is off (8.26)
            return None;
        }
        let ext = form == Form::Ext;
        let left = match form {
            Form::Ext => match u16::from_le_bytes([self.regs.count.now, self.regs.count.before]) {
                0 => 0x1_0000,
                count => u32::from(count),
            },
            Form::Short => match self.regs.count.now {
                0 => 256,
                count => u32::from(count),
            },
        };
        let lba = self.address(form);
        match lba.filter(|lba| lba.checked_add(u64::from(left)).is_some_and(|end| end <= self.sectors())) {
            Some(lba) => Some(Run { lba, left, block, fua, ext, via }),
            None => {
                self.fail(error::IDNF);
                None
            }
        }
    }

    /// Shows in the command block how far the run came.
    fn show_progress(&mut self, run: Run) {
        let form = if run.ext { Form::Ext } else { Form::Short };
        self.set_address(form, run.lba);
        let [count, before, ..] = run.left.to_le_bytes();
        self.regs.count = if run.ext { Fifo { now: count, before } } else { Fifo::new(count) };
    }

    /// A request of the run failed: its first sector is the one that is told.
    pub fn run_failed(&mut self, run: Run, error: u8) {
        self.show_progress(run);
        self.fail(error);
    }

    // -- reading -------------------------------------------------------------------------------------------------

    fn read(&mut self, form: Form, block: u32, via: Via) {
        if let Some(run) = self.run(form, block, via, false) {
            self.read_on(run);
        }
    }

    fn read_on(&mut self, run: Run) {
        self.job = Job::Read(run);
        match run.via {
            Via::Dma => self.wait_for_dma(),
            Via::Pio => {
                let len = u64::from(run.left.min(PIO_SECTORS)) * SECTOR;
                let buffer = vec![0; usize::try_from(len).unwrap_or(0)];
                self.submit(Op::Read, run.lba * SECTOR, Payload::Buffer(buffer));
            }
        }
    }

    /// The disk has read a part of the run.
    pub fn read_done(&mut self, run: Run, payload: Payload) {
        match payload {
            Payload::Buffer(buffer) => {
                let run = advanced(run, buffer.len() as u64);
                self.job = Job::Read(run);
                self.offer(buffer, block_len(run));
            }
            Payload::Guest(sg) => self.dma_run_done(advanced(run, sg.len()), Job::Read),
            Payload::Len(_) => self.abort(),
        }
    }

    /// The host took a data block.
    pub fn read_block_taken(&mut self, run: Run) {
        if self.pos < self.buffer.len() {
            self.next_block(super::drive::Phase::DataIn, block_len(run));
            self.intrq = true;
        } else if run.left > 0 {
            self.read_on(run);
        } else {
            self.show_progress(run);
            self.finish_quietly(status::READY, 0);
        }
    }

    fn verify(&mut self, form: Form) {
        if let Some(run) = self.run(form, 1, Via::Pio, false) {
            self.verify_on(run);
        }
    }

    fn verify_on(&mut self, run: Run) {
        self.job = Job::Verify(run);
        let len = u64::from(run.left.min(VERIFY_SECTORS)) * SECTOR;
        let buffer = vec![0; usize::try_from(len).unwrap_or(0)];
        self.submit(Op::Read, run.lba * SECTOR, Payload::Buffer(buffer));
    }

    pub fn verify_done(&mut self, run: Run) {
        let run = advanced(run, u64::from(run.left.min(VERIFY_SECTORS)) * SECTOR);
        if run.left > 0 {
            self.verify_on(run);
        } else {
            self.show_progress(run);
            self.done();
        }
    }

    // -- writing -------------------------------------------------------------------------------------------------

    fn write(&mut self, form: Form, block: u32, via: Via, fua: bool) {
        let fua = fua || !self.settings.write_cache;
        let Some(run) = self.run(form, block, via, fua) else { return };
        if self.queue.read_only() {
            self.abort(); // write protected
            return;
        }
        self.write_on(run);
    }

    /// Asks for the next part of the run: the first block of a command comes without an interrupt (9.6).
    fn write_on(&mut self, run: Run) {
        self.job = Job::Write(run);
        match run.via {
            Via::Dma => self.wait_for_dma(),
            Via::Pio => {
                let len = u64::from(run.left.min(PIO_SECTORS)) * SECTOR;
                self.ask(usize::try_from(len).unwrap_or(0), block_len(run));
            }
        }
    }

    /// The host gave a data block. The blocks of a request are written together.
    pub fn write_block_given(&mut self, run: Run) {
        if self.pos < self.buffer.len() {
            self.next_block(super::drive::Phase::DataOut, block_len(run));
            self.intrq = true;
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.submit(write_op(run), run.lba * SECTOR, Payload::Buffer(buffer));
    }

    /// The disk has written a part of the run.
    pub fn write_done(&mut self, run: Run, payload: &Payload) {
        match payload {
            Payload::Buffer(buffer) => {
                let run = advanced(run, buffer.len() as u64);
                if run.left > 0 {
                    self.write_on(run);
                    self.intrq = true;
                } else {
                    self.show_progress(run);
                    self.done();
                }
            }
            Payload::Guest(sg) => self.dma_run_done(advanced(run, sg.len()), Job::Write),
            Payload::Len(_) => self.abort(),
        }
    }

    // -- DMA -----------------------------------------------------------------------------------------------------

    /// The bus master brought memory for the next part of a run.
    pub fn run_dma(&mut self, run: Run, sg: Sg) {
        let op = if matches!(self.job, Job::Read(_)) { Op::Read } else { write_op(run) };
        self.submit(op, run.lba * SECTOR, Payload::Guest(sg));
    }

    fn dma_run_done(&mut self, run: Run, job: fn(Run) -> Job) {
        if run.left > 0 {
            self.job = job(run);
            self.wait_for_dma();
        } else {
            self.show_progress(run);
            self.done();
        }
    }

    // -- cache ---------------------------------------------------------------------------------------------------

    pub fn flush(&mut self) {
        self.job = Job::Flush;
        self.submit(Op::Flush, 0, Payload::Len(0));
    }

    // -- TRIM (ATA8-ACS 7.10) ------------------------------------------------------------------------------------

    fn data_set_management(&mut self) {
        const TRIM: u8 = 1;
        let blocks = match u16::from_le_bytes([self.regs.count.now, self.regs.count.before]) {
            0 => 0x1_0000,
            count => u32::from(count),
        };
        if !self.options.trim || self.regs.feature.now != TRIM || blocks > MAX_TRIM_BLOCKS || self.queue.read_only() {
            self.abort();
            return;
        }
        self.job = Job::TrimList(Via::Dma);
        self.buffer = vec![0; usize::try_from(u64::from(blocks) * SECTOR).unwrap_or(0)];
        self.pos = 0;
        self.wait_for_dma();
    }

    /// The list is here: eight bytes a range, 48 bits of address and 16 of length in sectors, 0 for none.
    pub fn trim(&mut self, list: &[u8]) {
        let mut ranges = VecDeque::new();
        for entry in list.chunks_exact(8) {
            let [a, b, c, d, e, f, low, high] = *entry else { continue };
            let lba = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
            let sectors = u64::from(u16::from_le_bytes([low, high]));
            if sectors == 0 {
                continue;
            }
            if lba + sectors > self.sectors() {
                self.fail(error::IDNF | error::ABRT);
                return;
            }
            ranges.push_back((lba * SECTOR, sectors * SECTOR));
        }
        self.trim_next(ranges);
    }

    pub fn trim_next(&mut self, mut ranges: VecDeque<(u64, u64)>) {
        let Some((offset, len)) = ranges.pop_front() else {
            self.done();
            return;
        };
        self.job = Job::Trim(ranges);
        self.submit(Op::Discard, offset, Payload::Len(len));
    }

    // -- non-data commands ---------------------------------------------------------------------------------------

    fn seek(&mut self) {
        match self.address(Form::Short) {
            Some(lba) if lba < self.sectors() => self.done(),
            _ => self.fail(error::IDNF),
        }
    }

    /// INITIALIZE DEVICE PARAMETERS (ATA/ATAPI-5 8.16): the translation of cylinder/head/sector addresses.
    fn initialize_parameters(&mut self) {
        let secs = self.regs.count.now;
        if secs == 0 {
            self.abort();
            return;
        }
        self.settings.heads = (self.regs.device & 0x0f) + 1;
        self.settings.secs = secs;
        self.done();
    }

    fn set_multiple(&mut self) {
        let count = self.regs.count.now;
        if count > MAX_MULTIPLE || (count != 0 && !count.is_power_of_two()) {
            self.abort();
            return;
        }
        self.settings.multiple = count;
        self.done();
    }

    fn native_max(&mut self, form: Form) {
        let Some(last) = self.sectors().checked_sub(1) else {
            self.abort();
            return;
        };
        match form {
            Form::Ext => self.regs.set_address48(last),
            Form::Short => self.set_address(Form::Short, last.min(0x0fff_ffff)),
        }
        self.done();
    }

    /// SET FEATURES (ATA8-ACS 7.48).
    fn set_features(&mut self) {
        match self.regs.feature.now {
            // A CD-ROM drive takes these, and has no cache.
            0x02 | 0x82 if self.is_cd() => self.done(),
            0x02 => {
                self.settings.write_cache = true;
                self.done();
            }
            0x82 => {
                self.settings.write_cache = false;
                self.flush();
            }
            0x03 => {
                // Default PIO, PIO 3 and 4 by name, single word, multiword and Ultra DMA.
                match self.regs.count.now {
                    mode @ (0x00 | 0x01 | 0x08..=0x0c | 0x10..=0x12 | 0x20..=0x22 | 0x40..=0x45) => {
                        self.settings.mode = mode;
                        self.done();
                    }
                    _ => self.abort(),
                }
            }
            // Read look-ahead, reverting to power-on defaults, ECC length, APM, AAM: nothing that shows here, and
            // operating systems expect them to be taken.
            0xaa | 0x55 | 0xcc | 0x66 | 0x05 | 0x85 | 0x69 | 0x67 | 0x96 | 0x9a | 0x42 | 0xc2 => self.done(),
            _ => self.abort(),
        }
    }
}

fn block_len(run: Run) -> usize {
    usize::try_from(u64::from(run.block) * SECTOR).unwrap_or(0)
}

fn advanced(run: Run, bytes: u64) -> Run {
    let sectors = u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).min(run.left);
    Run { lba: run.lba + u64::from(sectors), left: run.left - sectors, ..run }
}

fn write_op(run: Run) -> Op {
    if run.fua { Op::WriteFua } else { Op::Write }
}
