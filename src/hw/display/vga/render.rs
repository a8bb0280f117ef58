//! From display memory to a picture: which mode the registers come to, and the graphics modes.
//!
//! A picture is drawn again as a whole only if the mode, its addresses or the palette changed. Otherwise only lines
//! that touch dirty pages are, and only the span of pixels that differ is reported.

use std::ops::Range;

use crate::mem::{PAGE_SIZE, RamBlock};
use crate::ui::{Rect, Refresh, Surface};

use super::regs::Regs;
use super::spec::{attr, crtc, gfx, seq};
use super::text::{TextMode, TextPainter};
use super::vbe::Vbe;

/// The VGA's own modes see this much: 64 KiB of each plane.
pub(super) const VGA_MEMORY: u64 = 256 << 10;

/// How pixels lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// A bit in each of four planes.
    Planar,
    /// Two neighbouring bits in a plane and two in the plane above.
    Interleaved,
    /// A byte, by the palette.
    Indexed,
    /// 5 bits a colour.
    Rgb555,
    /// 5, 6 and 5 bits.
    Rgb565,
    /// Bytes blue, green, red.
    Rgb888,
    /// As `Rgb888` with a byte between.
    Xrgb8888,
}

impl Format {
    /// Bytes of display memory of `pixels` pixels, rounded up to whole units.
    fn bytes(self, pixels: u32) -> usize {
        let pixels = pixels as usize;
        match self {
            Self::Planar => pixels.div_ceil(8) * 4,
            Self::Interleaved => pixels.div_ceil(8) * 4,
            Self::Indexed => pixels,
            Self::Rgb555 | Self::Rgb565 => pixels * 2,
            Self::Rgb888 => pixels * 3,
            Self::Xrgb8888 => pixels * 4,
        }
    }
}

/// A graphics mode as the registers describe it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Graphics {
    format: Format,
    /// Pixels a line, before they are widened.
    pixels: u32,
    /// Dots a pixel.
    dots: u32,
    height: u32,
    /// First byte of the first line.
    start: u64,
    /// Bytes from one row of lines to the next.
    pitch: u64,
    /// Scan lines of a row scan step (double scan), and steps of a row.
    lines_per_step: u32,
    steps_per_row: u32,
    /// Where row scan bits 0 and 1 go in the byte address, if they go there.
    scan_bits: [Option<u32>; 2],
    /// Pixels that the picture is moved to the left.
    panning: u32,
    panning_below: u32,
    /// The last line before the address counter starts again.
    line_compare: u32,
    /// Addresses are taken modulo this.
    memory: u64,
}

impl Graphics {
    fn of_vbe(vbe: &Vbe, vram: &RamBlock) -> Self {
        let format = match vbe.bits() {
            4 => Format::Planar,
            15 => Format::Rgb555,
            16 => Format::Rgb565,
            24 => Format::Rgb888,
            32 => Format::Xrgb8888,
            _ => Format::Indexed,
        };
        Self {
            format,
            pixels: vbe.width(),
            dots: 1,
            height: vbe.height(),
            start: vbe.start(),
            pitch: vbe.pitch(),
            lines_per_step: 1,
            steps_per_row: 1,
            scan_bits: [None; 2],
            panning: 0,
            panning_below: 0,
            line_compare: u32::MAX,
            memory: vram.len(),
        }
    }

    fn of_vga(regs: &Regs, vram: &RamBlock) -> Self {
        let mode = regs.gfx[gfx::MODE];
        let columns = regs.columns();
        let (format, pixels, mut dots) = if mode & gfx::SHIFT_256 != 0 {
            (Format::Indexed, columns * 4, 2)
        } else if mode & gfx::SHIFT_INTERLEAVE != 0 {
            (Format::Interleaved, columns * 8, 1)
        } else {
            (Format::Planar, columns * 8, 1)
        };
        if regs.seq[seq::CLOCKING_MODE] & seq::DOT_CLOCK_HALF != 0 {
            dots *= 2;
        }
        let c = &regs.crtc;
        let scan = c[crtc::MAXIMUM_SCAN_LINE];
        // Memory address bit 13 of a plane, where the display memory keeps words and double words closely packed.
        let bit_13 = match (c[crtc::UNDERLINE] & crtc::DWORD_MODE != 0, c[crtc::MODE] & crtc::BYTE_MODE != 0) {
            (true, _) => 13,
            (false, false) => 14,
            (false, true) => 15,
        };
        let scan_bit = |kept: u8, bit| (c[crtc::MODE] & kept == 0).then_some(bit);
        let panning = u32::from(regs.attr[attr::PANNING] & 7);
        let panning = if format == Format::Indexed { panning / 2 } else { panning };
        let byte_panning = u64::from(c[crtc::PRESET_ROW_SCAN] >> 5 & 3);
        let keeps_panning = regs.attr[attr::MODE] & attr::PANNING_COMPATIBILITY == 0;
        Self {
            format,
            pixels,
            dots,
            height: regs.lines(),
            start: (u64::from(regs.start()) + byte_panning) * 4,
            pitch: u64::from(c[crtc::OFFSET]) * 8,
            lines_per_step: if scan & crtc::DOUBLE_SCAN != 0 { 2 } else { 1 },
            steps_per_row: u32::from(scan & 0x1f) + 1,
            scan_bits: [scan_bit(crtc::MAP_13, bit_13), scan_bit(crtc::MAP_14, bit_13 + 1)],
            panning,
            panning_below: if keeps_panning { panning } else { 0 },
            line_compare: regs.line_compare(),
            memory: VGA_MEMORY.min(vram.len()),
        }
    }

    fn width(&self) -> u32 {
        self.pixels * self.dots
    }

    /// Bytes that a line is drawn from.
    fn line_bytes(&self) -> usize {
        let extra = if self.panning == 0 { 0 } else { 8 };
        self.format.bytes(self.pixels + extra)
    }

    /// The byte that scan line `y` starts at, and its panning.
    fn line(&self, y: u32) -> (u64, u32) {
        let (y, start, panning) = match y.checked_sub(self.line_compare.saturating_add(1)) {
            Some(below) => (below, 0, self.panning_below),
            None => (y, self.start, self.panning),
        };
        let step = y / self.lines_per_step;
        let row_scan = step % self.steps_per_row;
        let mut address = start + u64::from(step / self.steps_per_row) * self.pitch;
        for (n, bit) in self.scan_bits.iter().enumerate() {
            if let Some(bit) = bit {
                address = address & !(1 << bit) | u64::from(row_scan >> n & 1) << bit;
            }
        }
        (address % self.memory, panning)
    }

    /// The bytes that the whole picture may be drawn from.
    fn span(&self) -> Range<u64> {
        if self.memory == VGA_MEMORY {
            return 0..VGA_MEMORY;
        }
        let end = self.start + self.pitch * u64::from(self.height) + self.line_bytes() as u64;
        if end > self.memory { 0..self.memory } else { self.start..end }
    }
}

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    Blank,
    Graphics(Graphics),
    Text(TextMode),
}

impl View {
    /// Whether a change of the palette changes the picture.
    fn has_palette(&self) -> bool {
        match self {
            Self::Blank => false,
            Self::Text(_) => true,
            Self::Graphics(graphics) => {
                matches!(graphics.format, Format::Planar | Format::Interleaved | Format::Indexed)
            }
        }
    }
}

/// Pages that were written since the last refresh, from a first one.
#[derive(Default, Debug)]
struct DirtySpan {
    words: Vec<u64>,
}

impl DirtySpan {
    /// Takes the dirty bits of a span of the display memory; whether there are any.
    fn take(&mut self, vram: &RamBlock, span: &Range<u64>) -> bool {
        let mut any = false;
        let words = &mut self.words;
        vram.dirty().take_each(span.start, span.end - span.start, |offset| {
            let page = offset / PAGE_SIZE;
            let Ok(word) = usize::try_from(page / 64) else { return };
            if !any {
                words.fill(0);
                any = true;
            }
            if word >= words.len() {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (page % 64);
        });
        any
    }

    fn touches(&self, start: u64, len: u64) -> bool {
        let first = start / PAGE_SIZE;
        let last = (start + len.max(1) - 1) / PAGE_SIZE;
        (first..=last).any(|page| {
            usize::try_from(page / 64)
                .ok()
                .and_then(|word| self.words.get(word))
                .is_some_and(|word| word >> (page % 64) & 1 != 0)
        })
    }
}

/// Changed parts of a picture, in order from top to bottom; neighbours of equal width become one.
#[derive(Default, Debug)]
pub(super) struct Changes {
    rects: Vec<Rect>,
}

impl Changes {
    pub fn push(&mut self, rect: Rect) {
        match self.rects.last_mut() {
            Some(last) if last.x == rect.x && last.width == rect.width && last.y + last.height == rect.y => {
                last.height += rect.height;
            }
            _ => self.rects.push(rect),
        }
    }

    /// As [`Changes::push`] for one line of a picture: lines that follow each other become one part, as wide as the
    /// widest of them.
    fn push_line(&mut self, y: u32, columns: Range<u32>) {
        match self.rects.last_mut() {
            Some(last) if last.y + last.height == y => {
                let end = (last.x + last.width).max(columns.end);
                last.x = last.x.min(columns.start);
                last.width = end - last.x;
                last.height += 1;
            }
            _ => self.rects.push(Rect { x: columns.start, y, width: columns.end - columns.start, height: 1 }),
        }
    }
}

/// The palettes that a mode may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Palette {
    /// Colours by attribute: 16 colours.
    pub attributes: [u32; 16],
    /// Colours by byte.
    pub bytes: [u32; 256],
}

impl Palette {
    const BLACK: Self = Self { attributes: [0; 16], bytes: [0; 256] };

    fn of(regs: &Regs, vbe: &Vbe) -> Self {
        let wide = vbe.is_enabled() && vbe.has_8_bit_dac();
        let color = |index: u8| {
            let at = usize::from(index & regs.pel_mask) * 3;
            regs.dac[at..at + 3].iter().fold(0, |pixel, part| pixel << 8 | u32::from(widen(*part, wide)))
        };
        let mut attributes = [0; 16];
        let select = regs.attr[attr::COLOR_SELECT];
        for (index, pixel) in (0u8..).zip(&mut attributes) {
            let entry = regs.attr[usize::from(index & regs.attr[attr::PLANE_ENABLE] & 15)];
            let entry = if regs.attr[attr::MODE] & attr::PALETTE_SIZE != 0 {
                entry & 0x0f | (select & 3) << 4
            } else {
                entry & 0x3f
            };
            *pixel = color(entry | (select & 0x0c) << 4);
        }
        let mut bytes = [0; 256];
        for (index, pixel) in (0u8..=255).zip(&mut bytes) {
            *pixel = color(index);
        }
        Self { attributes, bytes }
    }
}

/// A palette entry's colour in 8 bits; the two low bits of a 6-bit one repeat its lowest, as QEMU's do.
fn widen(part: u8, wide: bool) -> u8 {
    if wide {
        return part;
    }
    ((part & 0x3f) << 2) | ((part & 1) * 3)
}

/// Remembers what was drawn.
#[derive(Debug)]
pub(super) struct Painter {
    view: Option<View>,
    /// The picture's size, which a blank screen keeps.
    size: (u32, u32),
    palette: Option<Palette>,
    text: TextPainter,
    dirty: DirtySpan,
    bytes: Vec<u8>,
    line: Vec<u32>,
}

impl Default for Painter {
    fn default() -> Self {
        Self {
            view: None,
            size: (640, 480),
            palette: None,
            text: TextPainter::default(),
            dirty: DirtySpan::default(),
            bytes: Vec::new(),
            line: Vec::new(),
        }
    }
}

impl Painter {
    /// Brings `surface` up to date.
    pub fn paint(
        &mut self,
        regs: &Regs,
        vbe: &Vbe,
        vram: &RamBlock,
        now_ns: u64,
        surface: &mut Surface,
        all: bool,
    ) -> Refresh {
        let view = if regs.is_blank() {
            View::Blank
        } else if vbe.is_enabled() {
            View::Graphics(Graphics::of_vbe(vbe, vram))
        } else if regs.gfx[gfx::MISC] & gfx::GRAPHICS != 0 {
            View::Graphics(Graphics::of_vga(regs, vram))
        } else {
            View::Text(TextMode::of(regs))
        };
        let palette = if view.has_palette() { Palette::of(regs, vbe) } else { Palette::BLACK };
        let all = all || self.view != Some(view) || self.palette.as_ref() != Some(&palette);
        let size = match view {
            View::Blank => self.size,
            View::Graphics(graphics) => (graphics.width(), graphics.height),
            View::Text(text) => (text.width(), text.height),
        };
        let resized = size != (surface.width(), surface.height());
        if resized {
            *surface = Surface::new(size.0, size.1);
        }
        self.view = Some(view);
        self.size = size;
        let all = all || resized;
        let mut changes = Changes::default();
        match view {
            View::Blank if all => {
                surface.pixels_mut().fill(0);
                changes.push(surface.bounds());
            }
            View::Blank => {}
            View::Graphics(graphics) => self.paint_graphics(&graphics, &palette, vram, surface, all, &mut changes),
            View::Text(text) => {
                let dirty = self.dirty.take(vram, &(0..VGA_MEMORY.min(vram.len())));
                self.text.paint(&text, regs, &palette, vram, now_ns, surface, (all, dirty), &mut changes);
            }
        }
        self.palette = Some(palette);
        if resized { Refresh::Resized } else { Refresh::Changed(changes.rects) }
    }

    fn paint_graphics(
        &mut self,
        graphics: &Graphics,
        palette: &Palette,
        vram: &RamBlock,
        surface: &mut Surface,
        all: bool,
        changes: &mut Changes,
    ) {
        let dirty = self.dirty.take(vram, &graphics.span());
        if !dirty && !all {
            return;
        }
        let line_bytes = graphics.line_bytes();
        self.bytes.resize(line_bytes, 0);
        let mut drawn: Option<(u64, u32)> = None;
        for y in 0..surface.height() {
            let (address, panning) = graphics.line(y);
            if !all && !self.touches(address, line_bytes as u64, graphics.memory) {
                continue;
            }
            // Lines that repeat the one above are drawn from the same bytes.
            if drawn.replace((address, panning)) != Some((address, panning)) {
                fetch(vram, address, graphics.memory, &mut self.bytes);
                self.line.clear();
                self.draw(graphics, palette, panning);
            }
            let target = surface.line_mut(y);
            let width = target.len().min(self.line.len());
            let (target, source) = (&mut target[..width], &self.line[..width]);
            let Some(first) = target.iter().zip(source).position(|(old, new)| old != new) else { continue };
            let last = target.iter().zip(source).rposition(|(old, new)| old != new).unwrap_or(first);
            target[first..=last].copy_from_slice(&source[first..=last]);
            let column = |index: usize| u32::try_from(index).unwrap_or(0);
            changes.push_line(y, column(first)..column(last) + 1);
        }
    }

    fn touches(&self, address: u64, len: u64, memory: u64) -> bool {
        if address + len <= memory {
            return self.dirty.touches(address, len);
        }
        self.dirty.touches(address, memory - address) || self.dirty.touches(0, len - (memory - address))
    }

    /// Turns `self.bytes` into `self.line`.
    fn draw(&mut self, graphics: &Graphics, palette: &Palette, panning: u32) {
        let line = &mut self.line;
        let bytes = self.bytes.as_slice();
        match graphics.format {
            Format::Planar => {
                for unit in bytes.as_chunks::<4>().0 {
                    let bits =
                        (0..4).zip(unit).fold(0, |bits, (plane, byte)| bits | SPREAD[usize::from(*byte)] << plane);
                    line.extend((0..8).rev().map(|i| palette.attributes[(bits >> (4 * i) & 15) as usize]));
                }
            }
            Format::Interleaved => {
                for [even, odd, even_high, odd_high] in bytes.as_chunks::<4>().0 {
                    for (low, high) in [(even, even_high), (odd, odd_high)] {
                        let index = |shift: u8| usize::from(low >> shift & 3 | (high >> shift & 3) << 2);
                        line.extend([6, 4, 2, 0].map(|shift| palette.attributes[index(shift)]));
                    }
                }
            }
            Format::Indexed => line.extend(bytes.iter().map(|byte| palette.bytes[usize::from(*byte)])),
            Format::Rgb555 => line.extend(bytes.as_chunks::<2>().0.iter().map(|unit| {
                let value = u32::from(u16::from_le_bytes(*unit));
                five(value >> 10) << 16 | five(value >> 5) << 8 | five(value)
            })),
            Format::Rgb565 => line.extend(bytes.as_chunks::<2>().0.iter().map(|unit| {
                let value = u32::from(u16::from_le_bytes(*unit));
                let green = value >> 5 & 0x3f;
                five(value >> 11) << 16 | (green << 2 | green >> 4) << 8 | five(value)
            })),
            Format::Rgb888 => {
                line.extend(bytes.as_chunks::<3>().0.iter().map(|[b, g, r]| u32::from_le_bytes([*b, *g, *r, 0])));
            }
            Format::Xrgb8888 => {
                line.extend(bytes.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) & 0xff_ffff));
            }
        }
        line.drain(..line.len().min(panning as usize));
        line.truncate(graphics.pixels as usize);
        if graphics.dots > 1 {
            widen_line(line, graphics.dots as usize);
        }
    }
}

/// Repeats every pixel `dots` times.
fn widen_line(line: &mut Vec<u32>, dots: usize) {
    let len = line.len();
    line.resize(len * dots, 0);
    for at in (0..len).rev() {
        let pixel = line[at];
        line[at * dots..(at + 1) * dots].fill(pixel);
    }
}

/// Copies from the display memory, from its start again after `memory` bytes.
pub(super) fn fetch(vram: &RamBlock, address: u64, memory: u64, into: &mut [u8]) {
    let room = usize::try_from(memory.saturating_sub(address)).unwrap_or(usize::MAX);
    if room >= into.len() {
        vram.read(address, into);
        return;
    }
    let (head, tail) = into.split_at_mut(room);
    vram.read(address, head);
    vram.read(0, tail);
}

/// A 5-bit colour in 8 bits.
fn five(value: u32) -> u32 {
    let value = value & 0x1f;
    value << 3 | value >> 2
}

/// A byte's bits as the lowest bits of eight 4-bit groups.
static SPREAD: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte] |= ((byte as u32 >> bit) & 1) << (4 * bit);
            bit += 1;
        }
        byte += 1;
    }
    table
};
