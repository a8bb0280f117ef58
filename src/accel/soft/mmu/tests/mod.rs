//! Hand-built page tables, a bus that takes notes, and what the processor makes of them.

mod code;
mod devices;
mod paging;
mod rights;
mod rubbish;
mod segments;
mod speed;
mod strings;
mod threads;
mod translations;
mod watch;

use std::sync::{Arc, Mutex};

use crate::bus::{GuestBus, Width};

use super::super::bench::Bench;
use super::super::cpu::{Exception, Fault, attributes, segment};
use super::{Privilege, Value};

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const XD: u64 = 1 << 63;
/// A page that everybody may do everything with.
const ALL: u64 = P | RW | US;

const CR0_PE: u64 = 1;
const CR0_WP: u64 = 1 << 16;
const CR0_AM: u64 = 1 << 18;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_PGE: u64 = 1 << 7;
const CR4_LA57: u64 = 1 << 12;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
const LMA: u64 = 1 << 10 | 1 << 8;
const NXE: u64 = 1 << 11;

/// Where the highest table is.
const ROOT: u64 = 0x10_0000;

/// A processor with page tables.
struct Paged {
    b: Bench,
    /// The next free page for a table.
    free: u64,
    levels: u32,
}

impl Paged {
    fn new(levels: u32, cr4: u64, efer: u64) -> Self {
        let mut b = Bench::max();
        b.cpu.cr0 = CR0_PE | CR0_PG | CR0_WP;
        (b.cpu.cr4, b.cpu.efer, b.cpu.cr3) = (cr4, efer, ROOT);
        let mut paged = Self { b, free: ROOT + 0x1000, levels };
        paged.level(0);
        paged
    }

    /// 64-bit mode, 4 levels.
    fn long() -> Self {
        Self::new(4, CR4_PAE | CR4_PGE, LMA | NXE)
    }

    fn is_long(&self) -> bool {
        self.b.cpu.efer & 1 << 10 != 0
    }

    /// Goes to a privilege level, with flat segments of the mode.
    fn level(&mut self, cpl: u8) {
        let dpl = u32::from(cpl) << 5;
        let present = attributes::PRESENT | attributes::APPLICATION | attributes::READ_WRITE | dpl;
        let size = if self.is_long() { attributes::LONG } else { attributes::BIG };
        for register in &mut self.b.cpu.segments {
            (register.loaded.base, register.loaded.limit) = (0, u32::MAX);
            register.loaded.attributes = present | attributes::BIG;
        }
        self.b.cpu.segments[segment::CS].loaded.attributes = present | attributes::CODE | size;
        self.b.cpu.mode_changed();
        assert_eq!(self.b.cpu.cpl, cpl);
    }

    fn control(&mut self, cr0: u64, cr4: u64) {
        (self.b.cpu.cr0, self.b.cpu.cr4) = (cr0, cr4);
        self.b.cpu.mode_changed();
    }

    fn word(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        self.b.ram.read(gpa, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn set_word(&mut self, gpa: u64, value: u64) {
        self.b.ram.write(gpa, &value.to_le_bytes());
    }

    /// The address of the entry of `linear` at a level (1: page table) of 64-bit entries; makes the tables above it.
    fn entry(&mut self, linear: u64, level: u32) -> u64 {
        let mut table = self.b.cpu.cr3 & !0xfff;
        for above in (level + 1..=self.levels).rev() {
            let address = table + (linear >> (12 + 9 * (above - 1)) & 0x1ff) * 8;
            if self.word(address) & P == 0 {
                let fresh = self.free;
                self.free += 0x1000;
                self.set_word(address, fresh | ALL);
            }
            table = self.word(address) & 0x000f_ffff_ffff_f000;
        }
        table + (linear >> (12 + 9 * (level - 1)) & 0x1ff) * 8
    }

    /// Maps a 4 KiB page; returns the address of its entry.
    fn map(&mut self, linear: u64, entry: u64) -> u64 {
        self.map_at(linear, 1, entry)
    }

    fn map_at(&mut self, linear: u64, level: u32, entry: u64) -> u64 {
        let address = self.entry(linear, level);
        self.set_word(address, entry);
        address
    }

    fn read<T: Value>(&mut self, linear: u64) -> Result<T, Exception> {
        let result = self.b.cpu.read_linear(linear, Privilege::Current);
        self.why(result)
    }

    fn write<T: Value>(&mut self, linear: u64, value: T) -> Result<(), Exception> {
        let result = self.b.cpu.write_linear(linear, value, Privilege::Current);
        self.why(result)
    }

    fn fetch(&mut self, linear: u64) -> Result<usize, Exception> {
        let result = self.b.cpu.fetch(linear, &mut [0; 1]);
        self.why(result)
    }

    fn why<T>(&self, result: Result<T, Fault>) -> Result<T, Exception> {
        result.map_err(|_| self.b.cpu.exception)
    }
}

/// An access that a bus saw: address, the bytes written or the length read.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

/// A bus that answers reads with the low byte of each address and takes notes; and does something at the first write.
#[derive(Default)]
struct Notes {
    seen: Mutex<Vec<Seen>>,
    at_write: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Notes {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl GuestBus for Notes {
    fn port_read(&self, port: u16, _width: Width) -> u32 {
        u32::from(port)
    }

    fn port_write(&self, _port: u16, _width: Width, _value: u32) {
        if let Some(act) = self.at_write.lock().unwrap().take() {
            act();
        }
    }

    fn port_read_string(&self, _port: u16, _width: Width, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn port_write_string(&self, _port: u16, _width: Width, _data: &[u8]) {}

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.seen.lock().unwrap().push(Seen::Read(gpa, data.len()));
        for (byte, at) in data.iter_mut().zip(gpa..) {
            *byte = at as u8;
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.seen.lock().unwrap().push(Seen::Write(gpa, data.to_vec()));
        if let Some(act) = self.at_write.lock().unwrap().take() {
            act();
        }
    }
}

/// Gives a processor such a bus.
fn with_notes(b: &mut Bench) -> Arc<Notes> {
    let notes = Arc::new(Notes::default());
    b.cpu.mmu.bus = Some(Arc::clone(&notes) as Arc<dyn GuestBus>);
    notes
}
