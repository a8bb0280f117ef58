//! Pseudo-random programs from fixed seeds.

use std::sync::{Mutex, PoisonError};

use dromaius::bus::{GuestBus, PciAddress, Width};

use crate::machine::Bench;

/// xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }

    fn u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    /// Values that are near a limit more often than not.
    fn value(&mut self) -> u32 {
        match self.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << self.below(32),
            3 => u32::try_from(self.below(256)).unwrap(),
            _ => self.u32(),
        }
    }

    fn width(&mut self) -> Width {
        self.pick(&[Width::B1, Width::B1, Width::B2, Width::B4])
    }
}

/// Ports whose random values make a whole machine do something: index and data pairs are far likelier to meet.
const LIVELY: &[u16] = &[
    0x1f0, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7, 0x3f6, 0x170, 0x172, 0x175, 0x176, 0x177, 0x376, 0x3c0,
    0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x1ce, 0x1cf, 0x1d0, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x2f8, 0x60,
    0x64, 0x70, 0x71, 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x42, 0x43, 0x61, 0x510, 0x511, 0xcf8, 0xcf9, 0xcfc, 0x92,
    0xb2, 0x378, 0x37a, 0xe9, 0x501,
];

/// Where interesting things are in memory, or are not.
const PLACES: &[u64] = &[
    0xa_0000,
    0xb_8000,
    0xc_0000,
    0xf_0000,
    0x10_0000,
    0xe000_0000,
    0xfd00_0000,
    0xfebf_0000,
    0xfec0_0000,
    0xfec0_0010,
    0xfed0_0000,
    0xfee0_0000,
    0xfffc_0000,
    0xffff_fff8,
    0x1_0000_0000,
    0xff_ffff_f000,
    0x7fff_ffff_ffff_fff0,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_fff9,
];

struct Guest<'a> {
    bench: &'a Bench,
    random: Random,
    ports: Vec<u16>,
    functions: Vec<PciAddress>,
    /// DMA lengths of up to 4 GiB: they fill RAM with zeros, which takes time where there is much.
    long_dma: bool,
}

impl<'a> Guest<'a> {
    fn new(bench: &'a Bench, seed: u64, long_dma: bool) -> Self {
        let functions = bench.built.machine.board().lock().pci_functions().into_iter().map(|(at, _)| at).collect();
        let mut guest = Self { bench, random: Random(seed), ports: Vec::new(), functions, long_dma };
        guest.learn_ports();
        guest
    }

    fn learn_ports(&mut self) {
        let ranges = self.bench.built.machine.board().lock().port_ranges();
        self.ports = ranges.iter().flat_map(|&(_, first, last)| first..=last).collect();
    }

    fn bus(&self) -> &'a dyn GuestBus {
        self.bench.bus()
    }

    fn port(&mut self) -> u16 {
        match self.random.below(8) {
            0 => u16::try_from(self.random.below(0x1_0000)).unwrap(),
            1 => self.random.pick(&[0, 0x7f, 0xfffd, 0xfffe, 0xffff]),
            2..=4 => self.random.pick(LIVELY),
            _ => {
                let ports = std::mem::take(&mut self.ports);
                let port = self.random.pick(&ports);
                self.ports = ports;
                port
            }
        }
    }

    fn place(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.next(),
            1 => self.random.below(1 << 32),
            _ => self.random.pick(PLACES).wrapping_add(self.random.below(0x1000)),
        }
    }

    fn pci_write(&mut self) {
        let at = self.random.pick(&self.functions.clone());
        let (offset, value) = match self.random.below(5) {
            // Base address registers: over RAM, over each other, at the top of the address space.
            0 | 1 => {
                let places =
                    [0, 0x1000, 0x10_0000, 0xe000_0000, 0xfed0_0000, 0xfffc_0000, 0xfff0_0000, u32::MAX, 0xfff1];
                (0x10 + 4 * u32::try_from(self.random.below(9)).unwrap(), self.random.pick(&places))
            }
            2 => (0x04, self.random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 0xffff])),
            // PAM and SMRAM, routes, enables.
            3 => (0x40 + 4 * u32::try_from(self.random.below(48)).unwrap(), self.random.value()),
            _ => (u32::try_from(self.random.below(256)).unwrap(), self.random.value()),
        };
        let address = 1 << 31 | u32::from(at.bdf()) << 8 | offset & 0xfc;
        self.bus().port_write(0xcf8, Width::B4, address);
        let width = if self.random.below(4) == 0 { self.random.width() } else { Width::B4 };
        self.bus().port_write(0xcfc + u16::try_from(offset & 3).unwrap(), width, value);
    }

    /// A fw_cfg DMA request with anything in it.
    fn fw_cfg_dma(&mut self) {
        let at = self.random.below(0x8000);
        let control = self.random.below(0x60) << 16 | self.random.below(32);
        let len = match self.random.below(8) {
            0 if self.long_dma => self.random.u32(),
            _ => u32::try_from(self.random.below(0x2000)).unwrap(),
        };
        let target = match self.random.below(3) {
            0 => self.place(),
            _ => self.random.below(1 << 20),
        };
        let ram = self.bench.built.machine.ram();
        let mut request = u32::try_from(control).unwrap().to_be_bytes().to_vec();
        request.extend(len.to_be_bytes());
        request.extend(target.to_be_bytes());
        // Where that is not RAM, the chip reads something else.
        let _ = ram.write(at, &request);
        let high = if self.random.below(8) == 0 { self.random.u32() } else { 0 };
        self.bus().port_write(0x514, Width::B4, high.swap_bytes());
        self.bus().port_write(0x518, Width::B4, u32::try_from(at).unwrap().swap_bytes());
    }

    /// A bus-master command with a random table.
    fn disk_dma(&mut self) {
        let ide = PciAddress::new(1, 1);
        {
            let mut board = self.bench.built.machine.board().lock();
            board.pci_config_write(ide, 0x20, 4, 0xc000);
            board.pci_config_write(ide, 4, 2, 7);
        }
        let channel = u16::try_from(self.random.below(2)).unwrap();
        let table = self.random.below(0x1_0000) & !3;
        for entry in 0..self.random.below(8) {
            let address = match self.random.below(3) {
                0 => self.random.u32(),
                _ => u32::try_from(self.random.below(0x10_0000)).unwrap(),
            };
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend(u16::try_from(self.random.below(0x1_0000)).unwrap().to_le_bytes());
            bytes.extend(self.random.pick(&[[0, 0], [0, 0x80]]));
            // Where that is not RAM, there is no table.
            let _ = self.bench.built.machine.ram().write(table + 8 * entry, &bytes);
        }
        let (command, master) = ([0x1f0, 0x170][usize::from(channel)], 0xc000 + 8 * channel);
        let direction = self.random.pick(&[0, 8]);
        let bus = self.bus();
        bus.port_write(master + 4, Width::B4, u32::try_from(table).unwrap());
        bus.port_write(command + 6, Width::B1, 0xe0 | self.random.u32() & 0x1f);
        for register in 2..6 {
            let value = self.random.value();
            bus.port_write(command + register, Width::B1, value);
        }
        let opcode = self.random.pick(&[0xc8, 0xca, 0x25, 0x35, 0xc8, 0xca, 0xa0, 0xe7, 0xea, 0x06, 0xec]);
        bus.port_write(command + 7, Width::B1, opcode);
        bus.port_write(master, Width::B1, 1 | direction);
    }

    fn strings(&mut self) {
        let port = self.port();
        let width = self.random.width();
        let len = usize::try_from(self.random.below(700)).unwrap();
        let mut data = vec![self.random.next().to_le_bytes()[0]; len];
        match self.random.below(2) {
            0 => self.bus().port_read_string(port, width, &mut data),
            _ => self.bus().port_write_string(port, width, &data),
        }
    }

    fn memory(&mut self) {
        let at = self.place();
        let len = usize::try_from(1 + self.random.below(16)).unwrap();
        let mut data = vec![0; len];
        match self.random.below(2) {
            0 => self.bus().mmio_read(at, &mut data),
            _ => {
                data.fill_with(|| self.random.next().to_le_bytes()[0]);
                self.bus().mmio_write(at, &data);
            }
        }
    }

    /// A redirection entry of the I/O APIC.
    fn redirection(&mut self) {
        let register = u32::try_from(0x10 + self.random.below(0x30)).unwrap();
        let value = if self.random.below(2) == 0 { self.random.u32() } else { self.random.u32() & 0xffff };
        self.bus().mmio_write(0xfec0_0000, &register.to_le_bytes());
        self.bus().mmio_write(0xfec0_0010, &value.to_le_bytes());
    }

    /// What a processor does to its own APIC.
    fn local_apic(&mut self) {
        let processor = &self.bench.processors[usize::try_from(self.random.below(2)).unwrap()];
        let apic = processor.apic();
        let (register, value) = (u16::try_from(self.random.below(0x40)).unwrap(), self.random.value());
        match self.random.below(8) {
            0..4 => apic.write(register << 4, value),
            4 => {
                apic.read(register << 4);
            }
            5 => {
                apic.write_msr(0x800 + u32::from(register), self.random.next());
                apic.read_msr(0x800 + u32::from(register));
            }
            6 if self.random.below(8) == 0 => {
                apic.set_base(0xfee0_0000 | u64::from(value & 0xf00));
            }
            6 => apic.write(0xf0, 0x1ff),
            _ => {
                let waits = processor.pins.waiting();
                assert_eq!(apic.acknowledge().is_some(), waits);
                apic.write(0xb0, 0);
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(72) {
            64..68 => self.local_apic(),
            68..72 => self.redirection(),
            0..16 => {
                let (port, width) = (self.port(), self.random.width());
                self.bus().port_read(port, width);
            }
            16..40 => {
                let (port, width, value) = (self.port(), self.random.width(), self.random.value());
                self.bus().port_write(port, width, value);
            }
            40..44 => self.strings(),
            44..50 => self.pci_write(),
            50..56 => self.memory(),
            56..58 => self.fw_cfg_dma(),
            58..60 => self.disk_dma(),
            60 => {
                let ns = self.random.pick(&[1, 1_000, 1_000_000, 60_000_000]);
                self.bench.clock.advance(ns);
                self.bench.serve();
            }
            61 => self.bench.serve(),
            62 if self.random.below(8) == 0 => self.bench.reset(),
            63 if self.random.below(8) == 0 => self.bench.draw(),
            _ => self.learn_ports(),
        }
    }
}

/// Pages that the process has in memory, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits until the disks are idle: a reset abandons requests, and their ends come in later.
fn settle(bench: &Bench) {
    assert_eq!(bench.built.drives.flush(), [""; 0]);
    bench.serve();
}

fn hammer(memory: &str, seeds: std::ops::Range<u64>, steps: u32) {
    /// The tests share one process, whose memory they watch.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let much_ram = memory.ends_with('G');
    let bench = Bench::new(memory);
    let fresh = bench.power_on_state();
    bench.reset();
    settle(&bench);
    assert_eq!(bench.power_on_state(), fresh, "a reset of a fresh machine");
    let before = resident_kib();
    for seed in seeds {
        let mut guest = Guest::new(&bench, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, !much_ram);
        for step in 0..steps {
            guest.step();
            if step % 64 == 0 {
                bench.check_maps();
            }
        }
        settle(&bench);
        bench.reset();
        settle(&bench);
        bench.check_maps();
        let after = bench.power_on_state();
        for (was, is) in fresh.iter().zip(&after) {
            assert_eq!(was, is, "after the program of seed {seed}");
        }
        assert_eq!(fresh.len(), after.len());
    }
    // Guest RAM and display memory that the programs touched come to 32 MiB.
    let grown = resident_kib().saturating_sub(before);
    assert!(much_ram || grown < 96 << 10, "grew by {grown} KiB");
}

#[test]
fn rubbish_on_every_port_harms_nobody() {
    hammer("16", 1..9, 4000);
}

#[test]
fn rubbish_harms_nobody_with_less_memory_than_the_legacy_hole_reaches() {
    hammer("512k", 100..103, 3000);
}

#[test]
fn rubbish_harms_nobody_with_memory_above_4_gib() {
    hammer("5G", 200..202, 3000);
}
