//! A guest made of arbitrary bytes, shared by the fuzz target and `tests/rubbish_code.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dromaius::accel::soft::Cpu;
use dromaius::accel::soft::mmu::PhysicalMap;
use dromaius::bus::{GuestBus, Width};
use dromaius::cpu::{CpuModel, CpuState, Segment, Table, Topology, resolve};
use dromaius::event::Clock;
use dromaius::mem::{RamBlock, RamRange};

/// Bytes of guest RAM.
const RAM: u64 = 1 << 20;
/// Bytes of the block on either side of it, which must stay zero.
const MARGIN: u64 = 64 << 10;
/// A range of ROM above RAM.
const ROM: u64 = 0x20_0000;

/// Devices that answer with something different each time.
#[derive(Default)]
struct Noise(AtomicU64);

impl Noise {
    fn next(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

impl GuestBus for Noise {
    fn port_read(&self, _port: u16, width: Width) -> u32 {
        (self.next() >> 20 & width.ones()) as u32
    }
    fn port_write(&self, _port: u16, _width: Width, _value: u32) {}
    fn port_read_string(&self, _port: u16, _width: Width, data: &mut [u8]) {
        data.fill(self.next() as u8);
    }
    fn port_write_string(&self, _port: u16, _width: Width, _data: &[u8]) {}
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill((self.next() >> 30) as u8);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
}

/// Takes values off the input; zeros when it has run out.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// Addresses that hit RAM more often than not.
    fn address(&mut self) -> u64 {
        match self.u8() & 7 {
            0 => self.u64(),
            1 => ROM + (self.u64() & 0xfff),
            2 => 0xfee0_0000 + (self.u64() & 0xfff),
            _ => self.u64() & (RAM - 1),
        }
    }
}

fn segment(bytes: &mut Bytes<'_>, attributes: u32) -> Segment {
    let (base, limit) = match bytes.u8() & 3 {
        0 => (bytes.address() & 0xffff_ffff, bytes.u64() as u32),
        1 => (0, 0xffff),
        _ => (0, 0xffff_ffff),
    };
    let selector = u16::from(bytes.u8()) & 0xfffc | (attributes >> 5 & 3) as u16;
    Segment { selector, base, limit, attributes }
}

/// A processor in one of its modes, at CS:1000h.
fn state(bytes: &mut Bytes<'_>) -> CpuState {
    let mut state = CpuState::power_on(0);
    for register in &mut state.gpr {
        *register = bytes.address();
    }
    state.rip = 0x1000;
    state.rflags = bytes.u64() & 0x003f_7fd5 | 2;
    let mode = bytes.u8();
    let dpl = u32::from(bytes.u8() & 3) << 5;
    let (code, cr0, cr4, efer) = match mode & 7 {
        0 | 1 => (0x9b, 0x10, 0, 0),
        2 => (0x9b | dpl, 0x11, 0, 0),
        3 => (0xc09b | dpl, 0x11, 0x10, 0),
        4 => (0xc09b | dpl, 0x8000_0011, 0x10, 0),
        5 => (0xc09b | dpl, 0x8001_0011, 0x20, 0x800),
        6 => (0xc09b | dpl, 0x8001_0011, 0x620, 0xd01),
        _ => (0xa09b | dpl, 0x8001_0031, 0x0005_0620, 0xd01),
    };
    if mode & 7 != 2 && mode & 7 != 3 || mode & 8 == 0 {
        state.rflags &= !(1 << 17);
    }
    state.cr0 = cr0 | u64::from(mode >> 4) << 16 & 0x5_0000;
    state.cr4 = cr4;
    state.efer = efer;
    state.cr3 = bytes.address() & 0xf_f000;
    state.segments =
        [0x93 | dpl, code, 0x93 | dpl, 0x93 | dpl, 0x93 | dpl, 0x93 | dpl].map(|a| segment(bytes, a | 0x4000));
    state.segments[1].attributes = code;
    state.segments[1].base = 0;
    state.gdtr = Table { base: bytes.address(), limit: bytes.u64() as u16 };
    state.idtr = Table { base: bytes.address(), limit: bytes.u64() as u16 };
    state.tr = Segment { selector: 8, base: bytes.address(), limit: bytes.u64() as u32 & 0xffff, attributes: 0x8b };
    state
}

/// Identity tables for all of RAM at the address of CR3, for the paged modes.
fn tables(ram: &RamBlock, state: &CpuState) {
    let root = MARGIN + (state.cr3 & (RAM - 1) & !0xfff);
    if root + 0x4000 > MARGIN + RAM {
        return;
    }
    let guest = |host: u64| host - MARGIN;
    if state.efer & 0x400 != 0 {
        ram.write(root, &(guest(root + 0x1000) | 7).to_le_bytes());
        ram.write(root + 0x1000, &(guest(root + 0x2000) | 7).to_le_bytes());
        ram.write(root + 0x2000, &0x87u64.to_le_bytes());
        ram.write(root + 0x2008, &(0x20_0000u64 | 0x87).to_le_bytes());
    } else if state.cr4 & 0x20 != 0 {
        ram.write(root, &(guest(root + 0x1000) | 1).to_le_bytes());
        ram.write(root + 0x1000, &0x87u64.to_le_bytes());
    } else {
        ram.write(root, &0x87u32.to_le_bytes());
    }
}

fn model() -> Arc<CpuModel> {
    let host = dromaius::accel::soft::vector::host_cpu();
    Arc::new(resolve(Some("max"), &[], Topology::default(), &host).expect("max exists").model)
}

/// Runs a guest made of `data`.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let block = RamBlock::anonymous("fuzz", RAM + 2 * MARGIN).expect("a megabyte");
    let ranges = [
        RamRange { gpa: 0, len: RAM, block: Arc::clone(&block), offset: MARGIN, read_only: false },
        RamRange { gpa: ROM, len: 0x1000, block: Arc::clone(&block), offset: MARGIN, read_only: true },
    ];
    let mut cpu = Cpu::new(0, model(), Clock::manual());
    cpu.attach_memory(Arc::new(PhysicalMap::new(&ranges).expect("the host has membarrier")));
    let state = state(&mut bytes);
    tables(&block, &state);
    let (code, rest) = bytes.0.split_at(bytes.0.len() / 2);
    block.write(MARGIN + 0x1000, &code[..code.len().min(0x1000)]);
    for (index, piece) in rest.chunks(64).enumerate() {
        block.write(MARGIN + (index as u64 * 0x1100 + 0x3000) % (RAM - 64), piece);
    }
    cpu.load_state(&state);
    let bus = Noise::default();
    cpu.with_bus(&bus, |cpu| {
        for _ in 0..20 {
            cpu.step();
        }
        cpu.budget = 2000;
        cpu.execute();
    });
    let _ = cpu.save_state();
    for (from, len) in [(0, MARGIN), (MARGIN + RAM, MARGIN)] {
        let mut outside = vec![0; len as usize];
        block.read(from, &mut outside);
        assert!(outside.iter().all(|byte| *byte == 0), "a write outside guest RAM");
    }
}
