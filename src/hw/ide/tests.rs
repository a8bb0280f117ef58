//! A bench that drives the controller's registers over a fake disk, and what guests see there.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use super::drive::Geometry;
use super::spec::{Reg, cmd, status};
use super::*;
use crate::block::{BlockQueue, Completion, Op, Payload, Request};
use crate::bus::{At, COMMAND_BUS_MASTER, COMMAND_IO, ConfigChange, Device, PciFunction, Probe, Region, Reset, Width};
use crate::mem::GuestRam;

mod ata;
mod faults;
mod golden;
mod packet;
mod robust;

/// What a fake disk does and has seen.
#[derive(Default)]
struct DiskState {
    data: Vec<u8>,
    seen: Vec<(Op, u64, u64)>,
    waiting: VecDeque<Request>,
    fail: Option<io::ErrorKind>,
    read_only: bool,
    no_medium: bool,
    /// Instead of the data's length.
    capacity: Option<u64>,
    cancelled: usize,
}

/// A disk whose requests end when the bench says so.
#[derive(Clone)]
struct FakeDisk {
    state: Arc<Mutex<DiskState>>,
    done: Arc<Mutex<Vec<Completion>>>,
    ram: GuestRam,
}

impl FakeDisk {
    fn new(data: Vec<u8>, ram: &GuestRam) -> Self {
        let state = DiskState { data, ..DiskState::default() };
        Self { state: Arc::new(Mutex::new(state)), done: Arc::default(), ram: ram.clone() }
    }

    fn with<R>(&self, f: impl FnOnce(&mut DiskState) -> R) -> R {
        f(&mut self.state.lock().unwrap())
    }

    /// Does one waiting request; whether there was one.
    fn work(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let Some(Request { op, offset, mut payload, token }) = state.waiting.pop_front() else { return false };
        let result = match state.fail {
            Some(kind) => Err(kind.into()),
            None => {
                transfer(&mut state.data, &self.ram, op, offset, &mut payload);
                Ok(())
            }
        };
        self.done.lock().unwrap().push(Completion { token, result, payload });
        true
    }
}

fn transfer(data: &mut [u8], ram: &GuestRam, op: Op, offset: u64, payload: &mut Payload) {
    let start = usize::try_from(offset).unwrap();
    match (op, payload) {
        (Op::Read, Payload::Buffer(buffer)) => {
            let len = buffer.len();
            buffer.copy_from_slice(&data[start..start + len]);
        }
        (Op::Read, Payload::Guest(sg)) => {
            let len = usize::try_from(sg.len()).unwrap();
            sg.write(ram, 0, &data[start..start + len]).unwrap();
        }
        (Op::Write | Op::WriteFua, Payload::Buffer(buffer)) => {
            data[start..start + buffer.len()].copy_from_slice(buffer);
        }
        (Op::Write | Op::WriteFua, Payload::Guest(sg)) => {
            let len = usize::try_from(sg.len()).unwrap();
            sg.read(ram, 0, &mut data[start..start + len]).unwrap();
        }
        (Op::Discard | Op::WriteZeroes { .. }, Payload::Len(len)) => {
            data[start..start + usize::try_from(*len).unwrap()].fill(0);
        }
        (Op::Flush, Payload::Len(0)) => {}
        other => panic!("a malformed request: {other:?}"),
    }
}

impl BlockQueue for FakeDisk {
    fn submit(&mut self, request: Request) {
        self.with(|state| {
            let len = match &request.payload {
                Payload::Len(len) => *len,
                Payload::Guest(sg) => sg.len(),
                Payload::Buffer(buffer) => buffer.len() as u64,
            };
            assert!(request.offset + len <= state.data.len() as u64, "{request:?} is past the end");
            state.seen.push((request.op, request.offset, len));
            state.waiting.push_back(request);
        });
    }
    fn completed(&mut self) -> Vec<Completion> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }
    fn cancel_all(&mut self) {
        self.with(|state| {
            state.waiting.clear();
            state.cancelled += 1;
        });
        self.done.lock().unwrap().clear();
    }
    fn capacity(&self) -> u64 {
        self.with(|state| if state.no_medium { 0 } else { state.capacity.unwrap_or(state.data.len() as u64) })
    }
    fn read_only(&self) -> bool {
        self.with(|state| state.read_only)
    }
    fn has_medium(&self) -> bool {
        self.with(|state| !state.no_medium)
    }
}

/// Sectors of the bench's disk, and blocks of its CD.
const SECTORS: u64 = 70_000;
const BLOCKS: u64 = 100;
const BASE: [Region; 2] = [PRIMARY_COMMAND, SECONDARY_COMMAND];
const CONTROL: [Region; 2] = [PRIMARY_CONTROL, SECONDARY_CONTROL];

/// A disk as primary master, a CD-ROM drive as secondary master, 4 MiB of RAM.
struct Bench {
    ide: PiixIde,
    probe: Arc<Probe>,
    ram: GuestRam,
    disk: FakeDisk,
    cd: FakeDisk,
    faults: Arc<Mutex<Vec<IoFault>>>,
    /// The channel that the short forms use.
    channel: usize,
}

static DISK: OnceLock<Vec<u8>> = OnceLock::new();

/// Bytes that tell where they are.
fn pattern(sector: u64) -> Vec<u8> {
    (0..512u64).map(|i| (sector * 7 + i * 13 + (i >> 8)).to_le_bytes()[0]).collect()
}

impl Bench {
    fn new() -> Self {
        Self::with(DriveOptions::new(DriveKind::Disk), DriveOptions::new(DriveKind::Cdrom))
    }

    fn with(disk_options: DriveOptions, cd_options: DriveOptions) -> Self {
        let probe = Probe::new();
        let ram = GuestRam::for_test(4 << 20).unwrap();
        let faults: Arc<Mutex<Vec<IoFault>>> = Arc::default();
        let sink = {
            let faults = Arc::clone(&faults);
            Arc::new(move |fault| faults.lock().unwrap().push(fault))
        };
        let disk = FakeDisk::new(DISK.get_or_init(|| (0..SECTORS).flat_map(pattern).collect()).clone(), &ram);
        let cd = FakeDisk::new((0..BLOCKS * 4).flat_map(pattern).collect(), &ram);
        let mut ide = PiixIde::new(Chip::Piix3, [probe.line(14), probe.line(15)], ram.clone(), sink);
        ide.attach(0, disk_options, Box::new(disk.clone()));
        ide.attach(2, cd_options, Box::new(cd.clone()));
        ide.config().set_power_on();
        ide.config().guest_write(4, 2, u32::from(COMMAND_IO | COMMAND_BUS_MASTER));
        ide.config_written(ConfigChange { offset: 4, len: 2 });
        Self { ide, probe, ram, disk, cd, faults, channel: 0 }
    }

    fn on_cd() -> Self {
        Self { channel: 1, ..Self::new() }
    }

    fn irq(&self) -> bool {
        self.probe.is_high(14 + u32::try_from(self.channel).unwrap())
    }

    fn outb(&mut self, reg: Reg, value: u8) {
        let at = At { region: BASE[self.channel], offset: reg as u64, width: Width::B1 };
        self.ide.write(at, u64::from(value));
    }

    fn inb(&mut self, reg: Reg) -> u8 {
        let at = At { region: BASE[self.channel], offset: reg as u64, width: Width::B1 };
        u8::try_from(self.ide.read(at)).unwrap()
    }

    fn control(&mut self, value: u8) {
        self.ide.write(At { region: CONTROL[self.channel], offset: 0, width: Width::B1 }, u64::from(value));
    }

    fn alt(&mut self) -> u8 {
        let at = At { region: CONTROL[self.channel], offset: 0, width: Width::B1 };
        u8::try_from(self.ide.read(at)).unwrap()
    }

    fn inw(&mut self) -> u16 {
        let at = At { region: BASE[self.channel], offset: 0, width: Width::B2 };
        u16::try_from(self.ide.read(at)).unwrap()
    }

    fn outw(&mut self, value: u16) {
        self.ide.write(At { region: BASE[self.channel], offset: 0, width: Width::B2 }, u64::from(value));
    }

    fn bm_out(&mut self, offset: u64, width: Width, value: u64) {
        let offset = offset + 8 * self.channel as u64;
        self.ide.write(At { region: BUS_MASTER, offset, width }, value);
    }

    fn bm_status(&mut self) -> u8 {
        let offset = 2 + 8 * self.channel as u64;
        u8::try_from(self.ide.read(At { region: BUS_MASTER, offset, width: Width::B1 })).unwrap()
    }

    /// All registers of a command block, Error to Status; the status is read last and acknowledges.
    fn regs(&mut self) -> [u8; 7] {
        use Reg::{Count, Device, Error, LbaHigh, LbaLow, LbaMid, Status};
        [Error, Count, LbaLow, LbaMid, LbaHigh, Device, Status].map(|reg| self.inb(reg))
    }

    fn command(&mut self, code: u8, count: u8, lba: u32) {
        let [low, mid, high, top] = lba.to_le_bytes();
        self.outb(Reg::Device, 0xe0 | top);
        self.outb(Reg::Count, count);
        self.outb(Reg::LbaLow, low);
        self.outb(Reg::LbaMid, mid);
        self.outb(Reg::LbaHigh, high);
        self.outb(Reg::Status, code);
    }

    fn command48(&mut self, code: u8, count: u16, lba: u64) {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        let [count_low, count_high] = count.to_le_bytes();
        self.outb(Reg::Device, 0xe0);
        self.outb(Reg::Count, count_high);
        self.outb(Reg::LbaLow, d);
        self.outb(Reg::LbaMid, e);
        self.outb(Reg::LbaHigh, f);
        self.outb(Reg::Count, count_low);
        self.outb(Reg::LbaLow, a);
        self.outb(Reg::LbaMid, b);
        self.outb(Reg::LbaHigh, c);
        self.outb(Reg::Status, code);
    }

    /// Lets the disks do what they were asked, and delivers the events.
    fn run(&mut self) {
        for _ in 0..1000 {
            let disk = self.disk.work();
            let cd = self.cd.work();
            if disk {
                self.ide.event(PiixIde::token(0));
            }
            if cd {
                self.ide.event(PiixIde::token(2));
            }
            if !disk && !cd {
                return;
            }
        }
        panic!("the disks never come to rest");
    }

    /// Reads `bytes` bytes of the data port in words, letting the disk work between blocks.
    fn data_in(&mut self, bytes: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < bytes {
            self.run();
            assert_eq!(self.alt() & (status::BSY | status::DRQ), status::DRQ, "after {} bytes", data.len());
            data.extend_from_slice(&self.inw().to_le_bytes());
        }
        data
    }

    fn data_out(&mut self, data: &[u8]) {
        for pair in data.chunks(2) {
            self.run();
            assert_eq!(self.alt() & (status::BSY | status::DRQ), status::DRQ);
            self.outw(u16::from_le_bytes([pair[0], pair[1]]));
        }
        self.run();
    }

    /// Writes a descriptor table at 1000h: (address, length, last).
    fn table(&mut self, entries: &[(u32, u16, bool)]) {
        for (at, (gpa, len, last)) in (0x1000u64..).step_by(8).zip(entries) {
            self.ram.write(at, &gpa.to_le_bytes()).unwrap();
            let word = u32::from(*len) | u32::from(*last) << 31;
            self.ram.write(at + 4, &word.to_le_bytes()).unwrap();
        }
        self.bm_out(4, Width::B4, 0x1000);
    }

    fn start_dma(&mut self) {
        self.bm_out(0, Width::B1, 9);
    }

    fn stop_dma(&mut self) {
        self.bm_out(0, Width::B1, 0);
    }

    fn guest(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(gpa, &mut bytes).unwrap();
        bytes
    }

    /// Sends a packet by PIO with this byte count limit and gives the data and the error register.
    fn packet_limit(&mut self, packet: &[u8], limit: u16) -> (Vec<u8>, u8) {
        let [low, high] = limit.to_le_bytes();
        self.outb(Reg::Device, 0xa0);
        self.outb(Reg::Error, 0);
        self.outb(Reg::LbaMid, low);
        self.outb(Reg::LbaHigh, high);
        self.outb(Reg::Status, cmd::PACKET);
        self.send_packet(packet);
        self.run();
        let mut data = Vec::new();
        while self.inb(Reg::Status) & status::DRQ != 0 {
            let block = usize::from(u16::from_le_bytes([self.inb(Reg::LbaMid), self.inb(Reg::LbaHigh)]));
            let end = data.len() + block;
            while data.len() < end {
                data.extend_from_slice(&self.inw().to_le_bytes());
            }
            data.truncate(end);
            self.run();
        }
        (data, self.inb(Reg::Error))
    }

    fn send_packet(&mut self, packet: &[u8]) {
        let mut whole = packet.to_vec();
        whole.resize(12, 0);
        for pair in whole.chunks(2) {
            self.outw(u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    fn packet(&mut self, packet: &[u8]) -> (Vec<u8>, u8) {
        self.packet_limit(packet, 0xfffe)
    }

    /// Sense key and additional code of the last command.
    fn sense(&mut self) -> (u8, u8) {
        let (data, _) = self.packet(&[0x03, 0, 0, 0, 18]);
        (data[2], data[12])
    }
}

fn word(data: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([data[index * 2], data[index * 2 + 1]])
}
