//! The adapter as a guest sees it: on a board, through its ports, window and BARs.

mod pictures;

use std::sync::Arc;

use super::*;
use crate::bus::{MapStats, Width};
use crate::event::NS_PER_SEC;
use crate::ui::Rect;

/// A board with one VGA and a surface that shows it.
struct Bench {
    board: Board,
    vga: DeviceRef<Vga>,
    vram: Arc<RamBlock>,
    clock: Clock,
    surface: Surface,
}

impl Bench {
    fn new() -> Self {
        let vram = RamBlock::tracked("vga.vram", vram_len(16)).unwrap();
        let clock = Clock::manual();
        let mut board = Board::new();
        let wiring = Wiring { vram: Arc::clone(&vram), clock: clock.clone(), window_priority: 1 };
        let vga = Vga::add_pci(&mut board, "VGA", PciAddress::new(2, 0), wiring, Options::default(), None);
        board.map_pci_config_ports();
        board.set_memory_listener(Box::new(|_| ()));
        Self { board, vga, vram, clock, surface: Surface::new(640, 480) }
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.board.port_write(port, Width::B1, value.into());
    }

    fn inb(&mut self, port: u16) -> u8 {
        u8::try_from(self.board.port_read(port, Width::B1)).unwrap()
    }

    /// An index and its data, as one word.
    fn outw(&mut self, port: u16, index: u8, value: u8) {
        self.board.port_write(port, Width::B2, u32::from(value) << 8 | u32::from(index));
    }

    fn attr(&mut self, index: u8, value: u8) {
        self.inb(0x3da);
        self.outb(0x3c0, index);
        self.outb(0x3c0, value);
    }

    fn dispi(&mut self, index: u16, value: u16) {
        self.board.port_write(0x1ce, Width::B2, index.into());
        self.board.port_write(0x1cf, Width::B2, value.into());
    }

    fn dispi_read(&mut self, index: u16) -> u32 {
        self.board.port_write(0x1ce, Width::B2, index.into());
        self.board.port_read(0x1cf, Width::B2)
    }

    fn poke(&mut self, gpa: u64, data: &[u8]) {
        self.board.mmio_write(gpa, data);
    }

    fn peek(&mut self, gpa: u64) -> u8 {
        let mut byte = [0];
        self.board.mmio_read(gpa, &mut byte);
        byte[0]
    }

    fn refresh(&mut self) -> Refresh {
        let Self { board, vga, surface, .. } = self;
        board.with(vga, |vga| vga.refresh(surface, false)).unwrap()
    }

    /// Programs a mode as a BIOS does: its table, the standard colours and, for text, a font.
    fn set_mode(&mut self, mode: &Mode) {
        self.outb(0x3c2, mode.misc);
        for (index, value) in (1..).zip(mode.seq) {
            self.outw(0x3c4, index, value);
        }
        self.outw(0x3d4, 0x11, 0);
        for (index, value) in (0..).zip(mode.crtc) {
            self.outw(0x3d4, index, value);
        }
        for (index, value) in (0..).zip(mode.gfx) {
            self.outw(0x3ce, index, value);
        }
        for index in 0..16 {
            self.attr(index, index);
        }
        self.attr(0x10, mode.attr_mode);
        self.attr(0x12, 15);
        self.attr(0x13, mode.panning);
        self.outb(0x3c0, 0x20);
        self.outb(0x3c8, 0);
        for index in 0..=255u8 {
            // The low colours are told apart by all three parts; the rest is a ramp.
            self.outb(0x3c9, if index & 4 != 0 { 0x2a } else { 0 } + (index >> 4));
            self.outb(0x3c9, if index & 2 != 0 { 0x2a } else { 0 } + (index >> 4));
            self.outb(0x3c9, if index & 1 != 0 { 0x2a } else { 0 } + (index >> 4));
        }
    }

    /// Writes a font in which character n's line m is `n ^ (m * 17)`, through the window as a BIOS does.
    fn load_font(&mut self) {
        for (port, index, value) in [(0x3c4, 2, 4), (0x3c4, 4, 7), (0x3ce, 4, 2), (0x3ce, 5, 0), (0x3ce, 6, 4)] {
            self.outw(port, index, value);
        }
        for character in 0..=255u8 {
            let glyph: Vec<u8> = (0..16u8).map(|line| character ^ line.wrapping_mul(17)).collect();
            self.poke(0xa0000 + u64::from(character) * 32, &glyph);
        }
        for (port, index, value) in [(0x3c4, 2, 3), (0x3c4, 4, 2), (0x3ce, 4, 0), (0x3ce, 5, 0x10), (0x3ce, 6, 0x0e)] {
            self.outw(port, index, value);
        }
    }

    fn text_mode() -> Self {
        let mut bench = Self::new();
        bench.set_mode(&TEXT);
        bench.load_font();
        bench
    }

    fn linear_mode(width: u16, height: u16, bits: u16) -> Self {
        let mut bench = Self::new();
        bench.outb(0x3c2, 0x67);
        bench.outb(0x3c0, 0x20);
        for (index, value) in [(4, 0), (1, width), (2, height), (3, bits), (4, 0x41)] {
            bench.dispi(index, value);
        }
        bench
    }

    fn pixel(&self, x: u32, y: u32) -> u32 {
        self.surface.line(y)[x as usize]
    }

    fn hash(&self) -> u64 {
        let size = [self.surface.width(), self.surface.height()];
        size.iter()
            .chain(self.surface.pixels())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, value| (hash ^ u64::from(*value)).wrapping_mul(0x100_0000_01b3))
    }
}

/// A mode's registers as the IBM BIOS's parameter tables have them.
struct Mode {
    misc: u8,
    seq: [u8; 4],
    crtc: [u8; 25],
    gfx: [u8; 9],
    attr_mode: u8,
    panning: u8,
}

/// Mode 3: 80x25 characters of 9x16 dots.
const TEXT: Mode = Mode {
    misc: 0x67,
    seq: [0x00, 0x03, 0x00, 0x02],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
        0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gfx: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff],
    attr_mode: 0x0c,
    panning: 8,
};

/// Mode 4: 320x200 in four colours, as on a CGA.
const CGA: Mode = Mode {
    misc: 0x63,
    seq: [0x09, 0x03, 0x00, 0x02],
    crtc: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
        0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff,
    ],
    gfx: [0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x00, 0xff],
    attr_mode: 0x01,
    panning: 0,
};

/// Mode 12h: 640x480 in 16 colours.
const PLANAR: Mode = Mode {
    misc: 0xe3,
    seq: [0x01, 0x0f, 0x00, 0x06],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xea, 0x8c,
        0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff,
    ],
    gfx: [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff],
    attr_mode: 0x01,
    panning: 0,
};

/// Mode 13h: 320x200 in 256 colours.
const CHAIN_4: Mode = Mode {
    misc: 0x63,
    seq: [0x01, 0x0f, 0x00, 0x0e],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
        0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gfx: [0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff],
    attr_mode: 0x41,
    panning: 0,
};

fn changed(rects: &[(u32, u32, u32, u32)]) -> Refresh {
    Refresh::Changed(rects.iter().map(|&(x, y, width, height)| Rect { x, y, width, height }).collect())
}

const NOTHING: &[(u32, u32, u32, u32)] = &[];

// -- registers ---------------------------------------------------------------------------------------------------

#[test]
fn power_on_is_a_blank_screen_and_the_newest_bochs_version() {
    let mut b = Bench::new();
    assert_eq!(b.dispi_read(0), 0xb0c5);
    assert_eq!(b.dispi_read(10), 256);
    assert_eq!(b.inb(0x3c6), 0xff);
    // With the miscellaneous output register at 0 the CRTC is at 3B4h.
    assert_eq!(b.inb(0x3d4), 0xff);
    assert_eq!(b.inb(0x3b4), 0);
    b.refresh();
    assert!(b.surface.pixels().iter().all(|pixel| *pixel == 0));
    assert_eq!(b.refresh(), changed(NOTHING));
}

#[test]
fn reset_is_power_on() {
    let mut b = Bench::text_mode();
    b.dispi(4, 0x41);
    b.board.reset(Reset::System);
    let reset = b.board.with(&b.vga, |vga| (vga.regs.clone(), vga.vbe.clone(), vga.direct)).unwrap();
    let mut new = Bench::new();
    let cold = new.board.with(&new.vga, |vga| (vga.regs.clone(), vga.vbe.clone(), vga.direct)).unwrap();
    assert_eq!(reset, cold);
}

#[test]
fn registers_keep_the_bits_that_exist() {
    let mut b = Bench::new();
    b.outb(0x3c2, 0xff);
    assert_eq!(b.inb(0x3cc), 0xef);
    b.outw(0x3c4, 4, 0xff);
    assert_eq!(b.inb(0x3c5), 0x0e);
    b.outw(0x3ce, 5, 0xff);
    assert_eq!(b.inb(0x3cf), 0x7b);
    b.attr(0x13, 0xff);
    assert_eq!(b.inb(0x3c1), 0x0f);
    b.outb(0x3da, 0xff);
    assert_eq!(b.inb(0x3ca), 0x10);
}

#[test]
fn reading_status_makes_the_attribute_controller_take_an_index() {
    let mut b = Bench::new();
    b.outb(0x3c2, 1);
    b.outb(0x3c0, 0x10);
    b.inb(0x3da);
    b.outb(0x3c0, 0x11);
    assert_eq!(b.inb(0x3c0), 0);
    b.outb(0x3c0, 0x5a);
    assert_eq!(b.inb(0x3c0), 0x11);
    assert_eq!(b.inb(0x3c1), 0x5a);
}

#[test]
fn protection_leaves_the_line_compare_bit_writable() {
    let mut b = Bench::text_mode();
    b.outw(0x3d4, 0x00, 0x12);
    b.outw(0x3d4, 0x07, 0x00);
    b.outb(0x3d4, 0x00);
    assert_eq!(b.inb(0x3d5), 0x5f);
    b.outb(0x3d4, 0x07);
    assert_eq!(b.inb(0x3d5), 0x0f);
}

#[test]
fn the_palette_is_written_and_read_in_threes() {
    let mut b = Bench::new();
    b.outb(0x3c8, 200);
    for part in [1, 2, 3, 4, 5, 6] {
        b.outb(0x3c9, part);
    }
    assert_eq!(b.inb(0x3c7), 0);
    b.outb(0x3c7, 200);
    assert_eq!(b.inb(0x3c7), 3);
    assert_eq!([(); 6].map(|()| b.inb(0x3c9)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn retrace_comes_and_goes_with_the_clock() {
    let mut b = Bench::text_mode();
    // Mode 3 has 449 lines of 900 dots at 28.322 MHz; lines 0-399 are shown, the retrace is in 412 and 413.
    let line_ns = 900 * NS_PER_SEC / 28_322_000;
    b.clock.advance(line_ns / 4);
    assert_eq!(b.inb(0x3da), 0);
    b.clock.advance(405 * line_ns);
    assert_eq!(b.inb(0x3da), 1);
    b.clock.advance(8 * line_ns);
    assert_eq!(b.inb(0x3da), 9);
    b.clock.advance(37 * line_ns);
    assert_eq!(b.inb(0x3da), 0);
}

#[test]
fn retrace_alternates_while_the_timing_makes_no_sense() {
    let mut b = Bench::new();
    b.outb(0x3c2, 1);
    b.outw(0x3d4, 1, 0xff);
    let (first, second) = (b.inb(0x3da), b.inb(0x3da));
    assert_eq!(first ^ second, 9);
}

// -- the window --------------------------------------------------------------------------------------------------

#[test]
fn text_cells_go_to_planes_0_and_1() {
    let mut b = Bench::text_mode();
    b.poke(0xb8000, &[b'A', 0x1f, b'B', 0x2e]);
    assert_eq!([0, 1, 4, 5].map(|at| b.vram.byte(at)), [b'A', 0x1f, b'B', 0x2e]);
    assert_eq!([0xb8000, 0xb8001, 0xb8003].map(|at| b.peek(at)), [b'A', 0x1f, 0x2e]);
    assert_eq!(b.peek(0xa0000), 0xff);
}

#[test]
fn write_mode_0_masks_rotates_and_sets() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.poke(0xa0000, &[0xff]);
    assert_eq!(b.peek(0xa0000), 0xff);
    // Bits 7-4 of planes 0 and 2 from set/reset 0100b, the others rotated by 1, XOR the latch.
    b.outw(0x3ce, 0, 4);
    b.outw(0x3ce, 1, 5);
    b.outw(0x3ce, 8, 0xf0);
    b.outw(0x3ce, 3, 0x19);
    b.poke(0xa0000, &[0x02]);
    assert_eq!([0, 1, 2, 3].map(|at| b.vram.byte(at)), [0xff, 0xff, 0x0f, 0xff]);
    b.outw(0x3ce, 3, 0x18);
    b.outw(0x3ce, 8, 0xff);
    b.poke(0xa0000, &[0x80]);
    assert_eq!([0, 1, 2, 3].map(|at| b.vram.byte(at)), [0xff, 0x7f, 0x00, 0x7f]);
}

#[test]
fn write_mode_1_copies_the_latches() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.vram.write(0, &[1, 2, 3, 4]);
    b.outw(0x3ce, 5, 1);
    b.peek(0xa0000);
    b.poke(0xa0005, &[0]);
    assert_eq!([20, 21, 22, 23].map(|at| b.vram.byte(at)), [1, 2, 3, 4]);
}

#[test]
fn write_mode_2_draws_a_colour_through_the_bit_mask() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.outw(0x3ce, 5, 2);
    b.outw(0x3ce, 8, 0x81);
    b.peek(0xa0000);
    b.poke(0xa0000, &[0x0a]);
    assert_eq!([0, 1, 2, 3].map(|at| b.vram.byte(at)), [0, 0x81, 0, 0x81]);
}

#[test]
fn write_mode_3_uses_the_data_as_a_mask() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.outw(0x3ce, 0, 0x06);
    b.outw(0x3ce, 5, 3);
    b.outw(0x3ce, 8, 0x3c);
    b.peek(0xa0000);
    b.poke(0xa0000, &[0xf0]);
    assert_eq!([0, 1, 2, 3].map(|at| b.vram.byte(at)), [0, 0x30, 0x30, 0]);
}

#[test]
fn read_mode_1_compares_colours() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.vram.write(0, &[0xf0, 0xff, 0x00, 0x3c]);
    b.outw(0x3ce, 5, 8);
    b.outw(0x3ce, 2, 0x03);
    b.outw(0x3ce, 7, 0x0f);
    assert_eq!(b.peek(0xa0000), 0xc0);
    b.outw(0x3ce, 7, 0x07);
    assert_eq!(b.peek(0xa0000), 0xf0);
}

#[test]
fn the_map_mask_protects_planes() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.outw(0x3c4, 2, 0x09);
    b.poke(0xa0001, &[0x55]);
    assert_eq!([4, 5, 6, 7].map(|at| b.vram.byte(at)), [0x55, 0, 0, 0x55]);
}

#[test]
fn chain_4_makes_the_window_plain_memory() {
    let mut b = Bench::new();
    let before: MapStats = b.board.map_stats();
    b.set_mode(&CHAIN_4);
    b.poke(0xa1234, &[7]);
    assert_eq!(b.vram.byte(0x1234), 7);
    let flat = b.board.flat_memory();
    let window = flat.iter().find(|(_, range)| range.start == 0xa0000).unwrap();
    assert!(matches!(window.1.backing, Backing::Ram { .. }));
    // One plane only: the mapping goes, the device answers.
    b.outw(0x3c4, 2, 0x02);
    b.poke(0xa0000, &[9, 9, 9, 9]);
    assert_eq!([0, 1, 2, 3].map(|at| b.vram.byte(at)), [0, 9, 0, 0]);
    assert_eq!(b.board.map_stats().memory, before.memory);
}

// -- the Bochs interface -----------------------------------------------------------------------------------------

#[test]
fn a_bank_moves_the_window() {
    let mut b = Bench::linear_mode(1024, 768, 8);
    b.dispi(5, 3);
    b.poke(0xa0010, &[0x42]);
    assert_eq!(b.vram.byte(0x30010), 0x42);
    b.dispi(5, 0x103);
    assert_eq!(b.dispi_read(5), 3);
    b.dispi(4, 0);
    assert_eq!(b.dispi_read(5), 0);
}

#[test]
fn capabilities_are_read_in_place_of_the_mode() {
    let mut b = Bench::linear_mode(640, 480, 32);
    b.dispi(4, 0x43);
    assert_eq!([1, 2, 3].map(|index| b.dispi_read(index)), [16000, 12000, 32]);
    b.dispi(4, 0x41);
    assert_eq!([1, 2, 3].map(|index| b.dispi_read(index)), [640, 480, 32]);
}

#[test]
fn impossible_modes_are_made_to_fit() {
    let mut b = Bench::linear_mode(0, 0, 7);
    assert_eq!([1, 2, 3, 6].map(|index| b.dispi_read(index)), [8, 1, 8, 8]);
    let mut b = Bench::linear_mode(0xffff, 0xffff, 32);
    assert_eq!([1, 2, 6].map(|index| b.dispi_read(index)), [16000, 262, 16000]);
    b.dispi(9, 0xffff);
    b.dispi(8, 0xffff);
    assert_eq!((b.dispi_read(8), b.dispi_read(9)), (0, 0));
    b.refresh();
    assert_eq!((b.surface.width(), b.surface.height()), (16000, 262));
}

#[test]
fn switching_on_clears_the_memory_unless_told_not_to() {
    let mut b = Bench::new();
    b.vram.write(0, &[1; 64]);
    for (index, value) in [(1, 640), (2, 480), (3, 8), (4, 0xc1)] {
        b.dispi(index, value);
    }
    assert_eq!(b.vram.byte(63), 1);
    b.dispi(4, 0);
    b.dispi(4, 0x41);
    assert_eq!(b.vram.byte(63), 0);
}

#[test]
fn registers_are_also_in_bar_2() {
    let mut b = Bench::linear_mode(640, 480, 32);
    b.board.pci_config_write(PciAddress::new(2, 0), 0x18, 4, 0xfeb0_0000);
    b.board.pci_config_write(PciAddress::new(2, 0), 0x10, 4, 0xfd00_0000);
    b.board.pci_config_write(PciAddress::new(2, 0), 4, 2, 2);
    let mut words = [0; 4];
    b.board.mmio_read(0xfeb0_0502, &mut words);
    assert_eq!(words, [0x80, 2, 0xe0, 1]);
    b.board.mmio_read(0xfeb0_0600, &mut words);
    assert_eq!(words, [8, 0, 0, 0]);
    b.board.mmio_read(0xfeb0_0604, &mut words);
    assert_eq!(words, [0x1e; 4]);
    b.board.mmio_read(0xfeb0_0000, &mut words);
    assert_eq!(words, [0, 0xff, 0xff, 0xff]);
    b.poke(0xfeb0_0500 + 12, &800u16.to_le_bytes());
    assert_eq!(b.dispi_read(6), 800);
    b.poke(0xfeb0_0400, &[0x00]);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0);
    b.poke(0xfd00_0004, &[0x11, 0x22, 0x33, 0]);
    assert_eq!(b.vram.byte(5), 0x22);
}

// -- never panics ------------------------------------------------------------------------------------------------

/// A small generator (xorshift64*): the same programs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

#[test]
fn random_programs_never_panic() {
    let mut b = Bench::new();
    let mut random = Random(42);
    for round in 0..400 {
        match round % 5 {
            0 => b.set_mode(&TEXT),
            1 => b.set_mode(&PLANAR),
            2 => b.set_mode(&CGA),
            3 => b.set_mode(&CHAIN_4),
            _ => b.dispi(4, 0x41),
        }
        for _ in 0..60 {
            let value = random.next() as u32;
            match random.below(6) {
                0 => b.board.port_write(0x3b0 + random.below(0x30) as u16, Width::B2, value),
                1 => b.outw([0x3d4, 0x3c4, 0x3ce][random.below(3) as usize], random.below(26) as u8, value as u8),
                2 => {
                    // Wide modes take long to draw; the widths are tested elsewhere.
                    let limit = if random.below(50) == 0 { 0x1_0000 } else { 1024 };
                    b.dispi(random.below(11) as u16, random.below(limit) as u16);
                }
                3 => b.poke(0xa0000 + random.below(0x2_0000), &random.next().to_le_bytes()),
                4 => {
                    b.peek(0xa0000 + random.below(0x2_0000));
                    b.board.port_read(0x3b0 + random.below(0x30) as u16, Width::B4);
                }
                _ => b.attr(random.below(0x40) as u8, value as u8),
            }
        }
        if round % 3 == 0 {
            b.outw(0x3c4, 1, 0);
            b.outb(0x3c0, 0x20);
        }
        b.clock.advance(random.below(NS_PER_SEC));
        b.refresh();
        let Refresh::Changed(rects) = b.refresh() else { panic!("the size is settled") };
        assert!(rects.iter().all(|r| r.x + r.width <= b.surface.width() && r.y + r.height <= b.surface.height()));
    }
}

#[test]
fn an_isa_card_has_its_frame_buffer_at_3_5_gib_and_no_configuration_space() {
    let vram = RamBlock::tracked("vga.vram", vram_len(8)).unwrap();
    let mut board = Board::new();
    let wiring = Wiring { vram: Arc::clone(&vram), clock: Clock::manual(), window_priority: 1 };
    let vga = Vga::add_isa(&mut board, "isa-vga", wiring);
    board.set_memory_listener(Box::new(|_| ()));
    board.mmio_write(0xe000_0010, &[5]);
    assert_eq!(vram.byte(0x10), 5);
    assert!(board.with(&vga, |vga| vga.as_pci().is_none()).unwrap());
    assert_eq!(board.pci_functions(), []);
    board.port_write(0x1ce, Width::B2, 10);
    assert_eq!(board.port_read(0x1d0, Width::B2), 128);
}

#[test]
fn an_incremental_picture_equals_one_drawn_at_once() {
    let mut b = Bench::text_mode();
    let mut random = Random(7);
    for _ in 0..200 {
        b.poke(0xb8000 + random.below(4000), &[random.next() as u8]);
        b.refresh();
    }
    let step_by_step = b.hash();
    b.surface = Surface::new(1, 1);
    b.refresh();
    assert_eq!(b.hash(), step_by_step);
}
