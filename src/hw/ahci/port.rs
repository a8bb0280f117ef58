//! A port: its registers, the commands of its list, and the frames that it receives for the drive.

use crate::block::Op;
use crate::hw::ide::cmd as ata;
use crate::hw::ide::{Drive, Fifo, Outcome, Phase, control, device, status};
use crate::mem::GuestRam;

use super::regions::{Gathered, Regions};
use super::spec::{DET_RESET, Header, SERR_EXCHANGED, SLOTS, SSTS_ACTIVE, cmd, fis, irq, port, table};

/// What a reset clears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    list: u64,
    received: u64,
    is: u32,
    ie: u32,
    cmd: u32,
    tfd: u32,
    sig: u32,
    sctl: u32,
    serr: u32,
    sact: u32,
    ci: u32,
    /// The signature's frame waits for PxCMD.FRE.
    signature_waits: bool,
    /// A fatal error: no command is begun until PxCMD.ST falls (6.2.2).
    stopped: bool,
}

impl Regs {
    const COLD: Self = Self {
        list: 0,
        received: 0,
        is: 0,
        ie: 0,
        cmd: 0,
        tfd: 0x7f,
        sig: u32::MAX,
        sctl: 0,
        serr: 0,
        sact: 0,
        ci: 0,
        signature_waits: false,
        stopped: false,
    };
}

/// The command in progress that is not a queued one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Current {
    slot: u32,
    header: Header,
    regions: Regions,
    /// Bytes moved so far: PRDBC (4.2.2).
    moved: u32,
    /// The packet went to the drive.
    packet_given: bool,
}

/// A port with its drive.
pub(super) struct Port {
    // Wires.
    ram: GuestRam,
    pub drive: Option<Drive>,
    // Guest-visible state.
    regs: Regs,
    current: Option<Current>,
    /// Slots of queued commands that the drive has.
    queued: u32,
}

impl Port {
    pub fn new(ram: GuestRam) -> Self {
        Self { ram, drive: None, regs: Regs::COLD, current: None, queued: 0 }
    }

    /// Power-on, or a reset of the controller.
    pub fn reset(&mut self) {
        let Self { ram: _, drive, regs, current, queued } = self;
        *regs = Regs::COLD;
        *current = None;
        *queued = 0;
        if let Some(drive) = drive {
            drive.power_on();
        }
        self.connect();
    }

    /// COMRESET: the device comes up and sends its signature (10.4.2).
    fn comreset(&mut self) {
        self.drop_commands();
        if let Some(drive) = &mut self.drive {
            drive.power_on();
        }
        self.regs.tfd = 0x7f;
        self.connect();
    }

    fn connect(&mut self) {
        if self.drive.is_none() {
            return;
        }
        self.regs.serr |= SERR_EXCHANGED;
        self.send_signature();
    }

    /// The first frame after a reset of the device (Serial ATA 3.0, 11.3).
    fn send_signature(&mut self) {
        self.regs.signature_waits = true;
        self.flush_signature();
    }

    fn flush_signature(&mut self) {
        if self.regs.cmd & cmd::FIS_ENABLE == 0 || !self.regs.signature_waits {
            return;
        }
        let Some(drive) = &self.drive else { return };
        let regs = &drive.regs;
        self.regs.sig = u32::from_le_bytes([regs.count.now, regs.low.now, regs.mid.now, regs.high.now]);
        self.regs.signature_waits = false;
        self.send_registers();
        // It comes without an interrupt.
        self.regs.is &= !irq::D2H;
    }

    // -- registers -----------------------------------------------------------------------------------------------

    /// Whether the port wants an interrupt.
    pub fn interrupt(&self) -> bool {
        self.status() & self.regs.ie != 0
    }

    fn status(&self) -> u32 {
        let connect = if self.regs.serr & SERR_EXCHANGED != 0 { irq::PORT_CONNECT } else { 0 };
        self.regs.is | connect
    }

    fn link_status(&self) -> u32 {
        if self.drive.is_some() && self.regs.sctl & 15 == 0 { SSTS_ACTIVE } else { 0 }
    }

    pub fn read(&self, offset: u64) -> u32 {
        let low = |value: u64| (value & 0xffff_ffff) as u32;
        match offset {
            port::CLB => low(self.regs.list),
            port::CLBU => low(self.regs.list >> 32),
            port::FB => low(self.regs.received),
            port::FBU => low(self.regs.received >> 32),
            port::IS => self.status(),
            port::IE => self.regs.ie,
            port::CMD => self.regs.cmd | self.current.map_or(0, |current| current.slot << cmd::CURRENT_SHIFT),
            port::TFD => self.regs.tfd,
            port::SIG => self.regs.sig,
            port::SSTS => self.link_status(),
            port::SCTL => self.regs.sctl,
            port::SERR => self.regs.serr,
            port::SACT => self.regs.sact,
            port::CI => self.regs.ci,
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u64, value: u32) {
        let low = |old: u64, value: u32| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            port::CLB => self.regs.list = low(self.regs.list, value & !0x3ff),
            port::CLBU => self.regs.list = high(self.regs.list),
            port::FB => self.regs.received = low(self.regs.received, value & !0xff),
            port::FBU => self.regs.received = high(self.regs.received),
            port::IS => self.regs.is &= !value,
            port::IE => self.regs.ie = value & irq::ALL,
            port::CMD => self.write_cmd(value),
            port::SCTL => {
                let was = self.regs.sctl & 15;
                self.regs.sctl = value & 0xfff;
                if was == DET_RESET && value & 15 == 0 {
                    self.comreset();
                }
            }
            port::SERR => self.regs.serr &= !value,
            // Bits are set by writing ones, and only while the list runs (3.3.13, 3.3.14).
            port::SACT if self.runs() => self.regs.sact |= value,
            port::CI if self.runs() => {
                self.regs.ci |= value;
                self.run();
            }
            _ => {}
        }
    }

    fn runs(&self) -> bool {
        self.regs.cmd & cmd::START != 0
    }

    fn write_cmd(&mut self, value: u32) {
        let was_running = self.runs();
        self.regs.cmd = value & cmd::WRITABLE;
        if value & cmd::FIS_ENABLE != 0 {
            self.regs.cmd |= cmd::FIS_RUNNING;
        }
        if value & cmd::LIST_OVERRIDE != 0 {
            // The device counts as ready (3.3.7, CLO).
            self.regs.tfd &= !u32::from(status::BSY | status::DRQ);
            if let Some(drive) = &mut self.drive {
                drive.regs.status &= !(status::BSY | status::DRQ);
            }
        }
        if self.runs() {
            self.regs.cmd |= cmd::LIST_RUNNING;
        } else if was_running {
            self.drop_commands();
        }
        self.flush_signature();
        self.run();
    }

    /// PxCMD.ST fell, or the device is reset: nothing of the list touches guest memory any more (10.3.2).
    fn drop_commands(&mut self) {
        self.regs.ci = 0;
        self.regs.sact = 0;
        self.regs.stopped = false;
        self.queued = 0;
        self.current = None;
        if let Some(drive) = &mut self.drive {
            drive.drop_work();
        }
    }

    // -- work ----------------------------------------------------------------------------------------------------

    /// The drive's queue has completions.
    pub fn collect(&mut self) {
        if let Some(drive) = &mut self.drive {
            drive.collect();
        }
        self.run();
    }

    pub fn retry_held(&mut self) {
        if let Some(drive) = &mut self.drive {
            drive.retry_held();
        }
        self.run();
    }

    /// Goes on with the commands until the disk or the guest has to move. Every entry point that changes something
    /// ends here.
    fn run(&mut self) {
        self.queued_outcomes();
        // Each turn begins or ends a command, or moves a block of one.
        while self.runs() && !self.regs.stopped && self.regs.cmd & cmd::FIS_ENABLE != 0 && self.drive.is_some() {
            let moved = match self.current {
                Some(current) => self.advance(current),
                None => self.begin_next(),
            };
            self.queued_outcomes();
            if !moved {
                return;
            }
        }
    }

    /// Begins the command of the lowest slot that waits. `false`: there is none.
    fn begin_next(&mut self) -> bool {
        let waiting = self.regs.ci & !self.queued;
        let busy = self.regs.tfd & u32::from(status::BSY | status::DRQ) != 0;
        if waiting == 0 || busy {
            return false;
        }
        let slot = waiting.trailing_zeros() % SLOTS;
        if self.begin(slot).is_none() {
            self.host_bus_fault();
        }
        true
    }

    /// Fetches a command and gives it to the drive. `None`: it is not in RAM.
    fn begin(&mut self, slot: u32) -> Option<()> {
        let mut bytes = [0; 16];
        self.ram.read(self.regs.list.wrapping_add(u64::from(slot) * Header::LEN), &mut bytes).ok()?;
        let header = Header::parse(bytes);
        let mut frame = [0; 20];
        self.ram.read(header.table, &mut frame).ok()?;
        if frame[0] != fis::H2D {
            // Nothing that a drive would know: the slot is done.
            self.regs.ci &= !(1 << slot);
            return Some(());
        }
        if frame[1] & fis::COMMAND == 0 {
            self.control(slot, frame[15]);
            return Some(());
        }
        if matches!(frame[2], ata::READ_FPDMA_QUEUED | ata::WRITE_FPDMA_QUEUED) {
            return self.begin_queued(slot, header, frame);
        }
        let drive = self.drive.as_mut()?;
        load(drive, frame);
        let regions = Regions::new(header.table, header.entries);
        self.current = Some(Current { slot, header, regions, moved: 0, packet_given: false });
        if frame[2] == ata::EXECUTE_DEVICE_DIAGNOSTIC {
            drive.soft_reset();
            drive.regs.status |= status::READY;
        } else {
            drive.start(frame[2]);
        }
        self.show_status();
        Some(())
    }

    /// A frame for device control: the two halves of a soft reset (Serial ATA 3.0, 11.4).
    fn control(&mut self, slot: u32, value: u8) {
        self.regs.ci &= !(1 << slot);
        let Some(drive) = &mut self.drive else { return };
        if value & control::SRST != 0 {
            drive.begin_soft_reset();
            // The guest clears "busy" by the header's bit C, and sends the second half.
            return;
        }
        if drive.busy() {
            drive.soft_reset();
            self.send_signature();
        }
    }

    /// READ and WRITE FPDMA QUEUED (Serial ATA 3.0, 13.6.4, 13.6.5).
    fn begin_queued(&mut self, slot: u32, header: Header, frame: [u8; 20]) -> Option<()> {
        let drive = self.drive.as_mut()?;
        let tag = frame[12] >> 3;
        let lba = u64::from_le_bytes([frame[4], frame[5], frame[6], frame[8], frame[9], frame[10], 0, 0]);
        let sectors = match u16::from_le_bytes([frame[3], frame[11]]) {
            0 => 0x1_0000,
            count => u64::from(count),
        };
        self.queued |= 1 << slot;
        // The drive releases the link at once (13.6.2.1).
        self.regs.ci &= !(1 << slot);
        if drive.is_cd() || !drive.sata || u32::from(tag) != slot || self.regs.sact & 1 << slot == 0 {
            drive.refuse_queued(u8::try_from(slot).unwrap_or(0), lba);
            return Some(());
        }
        let mut regions = Regions::new(header.table, header.entries);
        let sg = match regions.gather(&self.ram, sectors * 512, sectors * 512) {
            Gathered::Memory(sg) => sg,
            Gathered::Fault => return None,
            Gathered::Overflow => {
                self.regs.is |= irq::OVERFLOW;
                drive.refuse_queued(tag, lba);
                return Some(());
            }
        };
        let moved = u32::try_from(sg.len()).unwrap_or(u32::MAX);
        let fua = frame[7] & 1 << 7 != 0 || drive.writes_through();
        let op = match (frame[2], fua) {
            (ata::READ_FPDMA_QUEUED, _) => Op::Read,
            (_, true) => Op::WriteFua,
            (_, false) => Op::Write,
        };
        drive.queue_command(tag, op, lba, sg);
        self.put(self.regs.list.wrapping_add(u64::from(slot) * Header::LEN + 4), &moved.to_le_bytes());
        Some(())
    }

    /// Tells of queued commands that ended: Set Device Bits.
    fn queued_outcomes(&mut self) {
        let outcomes = self.drive.as_mut().map(Drive::take_outcomes).unwrap_or_default();
        let mut done = 0u32;
        let mut failed = false;
        for outcome in outcomes {
            match outcome {
                Outcome::Done(tag) => done |= 1 << (tag % 32),
                Outcome::Failed(_) => failed = true,
            }
        }
        if done == 0 && !failed {
            return;
        }
        self.queued &= !done;
        self.regs.sact &= !done;
        let (status, error) = if failed { (status::READY | status::ERR, 4) } else { (status::READY, 0) };
        let [a, b, c, d] = done.to_le_bytes();
        let frame = [fis::SET_DEVICE_BITS, fis::INTERRUPT, status & 0x77, error, a, b, c, d];
        self.put_frame(fis::SET_DEVICE_BITS_AT, &frame);
        self.regs.is |= irq::SET_DEVICE_BITS;
        if self.current.is_none() {
            self.regs.tfd = u32::from(error) << 8 | u32::from(status);
        }
        if failed {
            // The drive gives all others up, and the port stands (6.2.2).
            if let Some(drive) = &mut self.drive {
                drive.drop_work();
            }
            self.regs.is |= irq::TASK_FILE_ERROR;
            self.regs.stopped = true;
        }
    }

    /// Moves the command in progress on. `false`: it waits for the disk.
    fn advance(&mut self, current: Current) -> bool {
        let Some(drive) = &mut self.drive else { return false };
        match drive.phase {
            Phase::Queue => {
                self.show_status();
                return false;
            }
            Phase::Idle => self.end(current),
            Phase::DataIn => self.data_in(current),
            Phase::DataOut if current.header.flags & Header::ATAPI != 0 && !current.packet_given => {
                self.packet(current)
            }
            Phase::DataOut => self.data_out(current),
            Phase::DmaWait => self.dma(current),
        }
        true
    }

    /// The packet is in the command table (4.2.3.2).
    fn packet(&mut self, mut current: Current) {
        let Some(drive) = &mut self.drive else { return };
        let mut packet = vec![0; drive.end - drive.pos];
        if self.ram.read(current.header.table.wrapping_add(table::PACKET), &mut packet).is_err() {
            self.host_bus_fault();
            return;
        }
        current.packet_given = true;
        self.current = Some(current);
        drive.take_block(&packet);
    }

    /// A data block of a PIO command is for the guest.
    fn data_in(&mut self, mut current: Current) {
        let Some(drive) = &mut self.drive else { return };
        let block = drive.buffer[drive.pos..drive.end].to_vec();
        let before = drive.regs.status;
        match current.regions.gather(&self.ram, block.len() as u64, 1) {
            Gathered::Memory(sg) if sg.len() == block.len() as u64 => {
                // `gather` checked that all of it is RAM.
                let _ = sg.write(&self.ram, 0, &block);
            }
            Gathered::Fault => return self.host_bus_fault(),
            _ => return self.overflow(current),
        }
        drive.give_block();
        current.moved = current.moved.wrapping_add(u32::try_from(block.len()).unwrap_or(0));
        self.current = Some(current);
        self.send_pio_setup(before, block.len(), fis::TO_HOST);
    }

    /// A data block of a PIO command comes from the guest.
    fn data_out(&mut self, mut current: Current) {
        let Some(drive) = &mut self.drive else { return };
        let len = drive.end - drive.pos;
        let before = drive.regs.status;
        let mut block = vec![0; len];
        match current.regions.gather(&self.ram, len as u64, 1) {
            Gathered::Memory(sg) if sg.len() == len as u64 => {
                // `gather` checked that all of it is RAM.
                let _ = sg.read(&self.ram, 0, &mut block);
            }
            Gathered::Fault => return self.host_bus_fault(),
            _ => return self.overflow(current),
        }
        current.moved = current.moved.wrapping_add(u32::try_from(len).unwrap_or(0));
        self.current = Some(current);
        self.send_pio_setup(before, len, 0);
        if let Some(drive) = &mut self.drive {
            drive.take_block(&block);
        }
    }

    fn dma(&mut self, mut current: Current) {
        let Some(drive) = &mut self.drive else { return };
        let Some(want) = drive.dma_wanted() else { return self.overflow(current) };
        match current.regions.gather(&self.ram, want.bytes, want.unit) {
            Gathered::Memory(sg) => {
                current.moved = current.moved.wrapping_add(u32::try_from(sg.len()).unwrap_or(0));
                self.current = Some(current);
                drive.dma(&self.ram, sg);
                self.show_status();
            }
            Gathered::Fault => self.host_bus_fault(),
            Gathered::Overflow => self.overflow(current),
        }
    }

    /// The command ended: the drive sends its registers.
    fn end(&mut self, current: Current) {
        self.current = None;
        let at = self.regs.list.wrapping_add(u64::from(current.slot) * Header::LEN + 4);
        self.put(at, &current.moved.to_le_bytes());
        self.send_registers();
        if self.regs.tfd & u32::from(status::ERR) == 0 {
            self.regs.ci &= !(1 << current.slot);
            return;
        }
        self.regs.is |= irq::TASK_FILE_ERROR;
        self.regs.stopped = true;
    }

    // -- faults --------------------------------------------------------------------------------------------------

    /// A structure or a buffer is not RAM (6.1.2): the port stands until it is started again.
    fn host_bus_fault(&mut self) {
        self.regs.is |= irq::HOST_BUS_FATAL;
        self.stand();
    }

    /// The guest gave less memory than the drive has data (6.1.5).
    fn overflow(&mut self, current: Current) {
        self.current = Some(current);
        self.regs.is |= irq::OVERFLOW;
        if let Some(drive) = &mut self.drive {
            drive.drop_work();
            drive.abort();
        }
    }

    fn stand(&mut self) {
        self.current = None;
        self.regs.stopped = true;
        if let Some(drive) = &mut self.drive {
            drive.drop_work();
            drive.regs.status = status::READY;
        }
        self.show_status();
    }

    // -- frames --------------------------------------------------------------------------------------------------

    /// Makes PxTFD follow the drive.
    fn show_status(&mut self) {
        if let Some(drive) = &self.drive {
            self.regs.tfd = u32::from(drive.regs.error) << 8 | u32::from(drive.regs.status);
        }
    }

    /// A device-to-host frame (Serial ATA 3.0, 10.4.6).
    fn send_registers(&mut self) {
        let Some(drive) = &self.drive else { return };
        let regs = &drive.regs;
        let frame = [
            fis::D2H,
            fis::INTERRUPT,
            regs.status,
            regs.error,
            regs.low.now,
            regs.mid.now,
            regs.high.now,
            regs.device,
            regs.low.before,
            regs.mid.before,
            regs.high.before,
            0,
            regs.count.now,
            regs.count.before,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        self.show_status();
        self.put_frame(fis::D2H_AT, &frame);
        self.regs.is |= irq::D2H;
    }

    /// A PIO Setup frame (10.4.9): `before` is the status with the data, the present one what follows it.
    fn send_pio_setup(&mut self, before: u8, len: usize, direction: u8) {
        let Some(drive) = &self.drive else { return };
        let regs = &drive.regs;
        let [len_low, len_high, ..] = len.to_le_bytes();
        let frame = [
            fis::PIO_SETUP,
            fis::INTERRUPT | direction,
            before,
            regs.error,
            regs.low.now,
            regs.mid.now,
            regs.high.now,
            regs.device,
            regs.low.before,
            regs.mid.before,
            regs.high.before,
            0,
            regs.count.now,
            regs.count.before,
            0,
            regs.status,
            len_low,
            len_high,
            0,
            0,
        ];
        self.show_status();
        self.put_frame(fis::PIO_SETUP_AT, &frame);
        self.regs.is |= irq::PIO_SETUP;
    }

    fn put_frame(&mut self, at: u64, frame: &[u8]) {
        if self.regs.cmd & cmd::FIS_ENABLE != 0 {
            self.put(self.regs.received.wrapping_add(at % fis::AREA), frame);
        }
    }

    fn put(&mut self, gpa: u64, bytes: &[u8]) {
        if self.ram.write(gpa, bytes).is_err() {
            self.regs.is |= irq::HOST_BUS_FATAL;
            self.regs.stopped = true;
        }
    }
}

/// Loads the drive's command block from a frame (Serial ATA 3.0, 10.4.5).
fn load(drive: &mut Drive, frame: [u8; 20]) {
    let regs = &mut drive.regs;
    let pair = |now: usize, before: usize| Fifo { now: frame[now], before: frame[before] };
    regs.feature = pair(3, 11);
    regs.low = pair(4, 8);
    regs.mid = pair(5, 9);
    regs.high = pair(6, 10);
    regs.count = pair(12, 13);
    regs.device = frame[7] | device::OBSOLETE;
}
