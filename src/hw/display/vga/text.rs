//! The alphanumeric modes: characters and attributes in planes 0 and 1, fonts in plane 2.

use crate::mem::RamBlock;
use crate::ui::{Rect, Surface};

use super::regs::Regs;
use super::render::{Changes, Palette, VGA_MEMORY, fetch};
use super::spec::{attr, crtc, seq};

/// How long the cursor is on, and off: 8 frames at 70 Hz. Blinking characters take twice as long.
const CURSOR_PHASE_NS: u64 = 8 * 1_000_000_000 / 70;

/// Bytes of a font in its plane: 256 characters of 32 lines.
const FONT_LEN: usize = 256 * 32;

/// A text mode as the registers describe it; what the cells themselves say is compared cell by cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TextMode {
    columns: u32,
    /// Dots of a character: 8 or 9, and the times each is repeated.
    dots: u32,
    repeat: u32,
    /// Height of the picture in scan lines.
    pub height: u32,
    /// First row scan of the first row.
    preset_row_scan: u32,
    steps_per_row: u32,
    lines_per_step: u32,
    /// First byte of the first row.
    start: u64,
    /// Bytes from one row to the next.
    pitch: u64,
    panning: u32,
    panning_below: u32,
    line_compare: u32,
    line_graphics: bool,
    blinks: bool,
    /// The row scan that underlines.
    underline: u32,
    /// Byte offset in plane 2 of character sets B (attribute bit 3 off) and A (on).
    fonts: [u64; 2],
}

impl TextMode {
    pub fn of(regs: &Regs) -> Self {
        let c = &regs.crtc;
        let clocking = regs.seq[seq::CLOCKING_MODE];
        let dots = if clocking & seq::DOTS_8 != 0 { 8 } else { 9 };
        let scan = c[crtc::MAXIMUM_SCAN_LINE];
        let mode = regs.attr[attr::MODE];
        let panning = u32::from(regs.attr[attr::PANNING] & 15);
        // With nine dots a character, 8 is no panning and 0 one dot (IBM VGA/XGA, horizontal PEL panning).
        let panning = match (dots, panning) {
            (9, 8..) => 0,
            (9, dots) => dots + 1,
            (_, dots) => dots & 7,
        };
        let byte_panning = u64::from(c[crtc::PRESET_ROW_SCAN] >> 5 & 3);
        Self {
            columns: regs.columns(),
            dots,
            repeat: if clocking & seq::DOT_CLOCK_HALF != 0 { 2 } else { 1 },
            height: regs.lines(),
            preset_row_scan: u32::from(c[crtc::PRESET_ROW_SCAN] & 0x1f),
            steps_per_row: u32::from(scan & 0x1f) + 1,
            lines_per_step: if scan & crtc::DOUBLE_SCAN != 0 { 2 } else { 1 },
            start: (u64::from(regs.start()) + byte_panning) * 4,
            pitch: u64::from(c[crtc::OFFSET]) * 8,
            panning,
            panning_below: if mode & attr::PANNING_COMPATIBILITY == 0 { panning } else { 0 },
            line_compare: regs.line_compare(),
            line_graphics: mode & attr::LINE_GRAPHICS != 0,
            blinks: mode & attr::BLINK != 0,
            underline: u32::from(c[crtc::UNDERLINE] & 0x1f),
            fonts: fonts(regs.seq[seq::CHARACTER_MAP]),
        }
    }

    pub fn width(&self) -> u32 {
        self.columns * self.dots * self.repeat
    }
}

/// Where the two character sets are in plane 2 (character map select: set B in bits 4, 1 and 0, set A in 5, 3
/// and 2; the higher bit moves by 8 KiB, the others by 16).
fn fonts(select: u8) -> [u64; 2] {
    let at = |low: u8, high: u8| u64::from(low & 3) * 0x4000 + u64::from(high & 1) * 0x2000;
    [at(select, select >> 4), at(select >> 2, select >> 5)]
}

/// Scan lines that show the same row of characters, one under the other.
#[derive(Clone, Copy, Debug)]
struct Band {
    y: u32,
    lines: u32,
    /// The byte of display memory of its first character.
    address: u64,
    /// Scan lines of the row above `y` that are not shown.
    skipped: u32,
    panning: u32,
}

/// The rows of the picture from top to bottom.
fn bands(mode: &TextMode, mut each: impl FnMut(Band)) {
    let row_lines = mode.steps_per_row * mode.lines_per_step;
    let mut band = Band {
        y: 0,
        lines: 0,
        address: mode.start,
        skipped: mode.preset_row_scan.min(mode.steps_per_row - 1) * mode.lines_per_step,
        panning: mode.panning,
    };
    while band.y < mode.height {
        let split = mode.line_compare.saturating_add(1).saturating_sub(band.y);
        band.lines = (row_lines - band.skipped).min(mode.height - band.y);
        let splits = split > 0 && split <= band.lines;
        if splits {
            band.lines = split;
        }
        band.address %= VGA_MEMORY;
        each(band);
        band.y += band.lines;
        band.skipped = 0;
        if splits {
            band.address = 0;
            band.panning = mode.panning_below;
        } else {
            band.address += mode.pitch;
        }
    }
}

/// The cursor on a cell, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CursorShape {
    first: u8,
    last: u8,
}

/// What a cell was drawn from, in one comparable number.
fn cell_key(character: u8, attribute: u8, blinked_off: bool, cursor: Option<CursorShape>) -> u32 {
    let cursor = cursor.map_or(0, |c| 0x8000 | u32::from(c.first & 31) << 8 | u32::from(c.last & 31));
    u32::from(character) | u32::from(attribute) << 8 | u32::from(blinked_off) << 30 | cursor << 16
}

/// Remembers what is drawn.
#[derive(Debug)]
pub(super) struct TextPainter {
    /// The keys of the cells that are on the surface, band by band.
    cells: Vec<u32>,
    /// Both fonts: 32 lines a character.
    fonts: [Box<[u8; FONT_LEN]>; 2],
    has_fonts: bool,
    cursor_at: u32,
    /// When the cursor was last moved: it is on then.
    cursor_since_ns: u64,
    /// What the cells were drawn with besides their content: the cursor if it is on, and blinking.
    drawn_with: Option<(Option<CursorShape>, u32, bool)>,
    row: Vec<u8>,
}

impl Default for TextPainter {
    fn default() -> Self {
        let font = || Box::new([0; FONT_LEN]);
        Self {
            cells: Vec::new(),
            fonts: [font(), font()],
            has_fonts: false,
            cursor_at: 0,
            cursor_since_ns: 0,
            drawn_with: None,
            row: Vec::new(),
        }
    }
}

impl TextPainter {
    /// Draws the cells that changed; all of them if told so.
    #[expect(clippy::too_many_arguments, reason = "the adapter's whole state, once")]
    pub fn paint(
        &mut self,
        mode: &TextMode,
        regs: &Regs,
        palette: &Palette,
        vram: &RamBlock,
        now_ns: u64,
        surface: &mut Surface,
        (all, dirty): (bool, bool),
        changes: &mut Changes,
    ) {
        let cursor_at = regs.cursor();
        let cursor = cursor_shape(regs);
        if cursor_at != self.cursor_at {
            self.cursor_at = cursor_at;
            self.cursor_since_ns = now_ns;
        }
        let cursor_on = (now_ns.saturating_sub(self.cursor_since_ns) / CURSOR_PHASE_NS).is_multiple_of(2);
        let text_on = (now_ns / (2 * CURSOR_PHASE_NS)).is_multiple_of(2);
        let mut all = all;
        if all || dirty || !self.has_fonts {
            all |= self.load_fonts(mode, vram);
        }
        if all {
            self.cells.clear();
        }
        let visible_cursor = cursor.filter(|_| cursor_on);
        let drawn_with = Some((visible_cursor, cursor_at, text_on));
        if std::mem::replace(&mut self.drawn_with, drawn_with) == drawn_with && !all && !dirty {
            return;
        }
        let columns = mode.columns as usize;
        let mut row = std::mem::take(&mut self.row);
        row.resize((columns + 1) * 4, 0);
        let mut first_cell = 0;
        bands(mode, |band| {
            // A cell more, of which panning shows a part.
            let shown = if band.panning == 0 { columns } else { columns + 1 };
            fetch(vram, band.address, VGA_MEMORY, &mut row);
            if self.cells.len() < first_cell + shown {
                self.cells.resize(first_cell + shown, u32::MAX);
            }
            let mut changed: Option<(usize, usize)> = None;
            for (column, cell) in row.as_chunks::<4>().0.iter().enumerate().take(shown) {
                let &[character, attribute, ..] = cell;
                let counter = (band.address / 4 + column as u64) & 0xffff;
                let cursor = visible_cursor.filter(|_| counter == u64::from(cursor_at));
                let blinked_off = mode.blinks && attribute & 0x80 != 0 && !text_on;
                let key = cell_key(character, attribute, blinked_off, cursor);
                let old = &mut self.cells[first_cell + column];
                if *old == key {
                    continue;
                }
                *old = key;
                let glyph = Glyph { character, attribute, blinked_off, cursor };
                self.draw(mode, palette, band, column, glyph, surface);
                changed = Some((changed.map_or(column, |(first, _)| first), column));
            }
            first_cell += shown;
            if let Some((first, last)) = changed {
                changes.push(band_rect(mode, band, first, last));
            }
        });
        self.row = row;
    }

    /// Reads both character sets from plane 2; whether they changed.
    fn load_fonts(&mut self, mode: &TextMode, vram: &RamBlock) -> bool {
        let mut plane_bytes = vec![0; FONT_LEN * 4];
        let mut changed = !self.has_fonts;
        for (font, at) in self.fonts.iter_mut().zip(mode.fonts) {
            vram.read(at * 4, &mut plane_bytes);
            for (byte, unit) in font.iter_mut().zip(plane_bytes.as_chunks::<4>().0) {
                changed |= *byte != unit[2];
                *byte = unit[2];
            }
        }
        self.has_fonts = true;
        changed
    }

    fn draw(&self, mode: &TextMode, palette: &Palette, band: Band, column: usize, glyph: Glyph, surface: &mut Surface) {
        let attribute = glyph.attribute;
        let background = if mode.blinks { attribute >> 4 & 7 } else { attribute >> 4 };
        let back = palette.attributes[usize::from(background)];
        let ink = if glyph.blinked_off { back } else { palette.attributes[usize::from(attribute & 15)] };
        let font = &self.fonts[usize::from(attribute >> 3 & 1)];
        let underlined = attribute & 0x77 == 0x01;
        // Nine-dot cells: the last column is background, or repeats the eighth for line drawing characters.
        let repeats_last = mode.line_graphics && matches!(glyph.character, 0xc0..=0xdf);
        let cell = (mode.dots * mode.repeat) as usize;
        let shift = (band.panning * mode.repeat) as usize;
        let (left, cut) = match (column * cell).checked_sub(shift) {
            Some(left) => (left, 0),
            None => (0, shift - column * cell),
        };
        for line in 0..band.lines {
            let row_scan = (band.skipped + line) / mode.lines_per_step;
            let bits = font[usize::from(glyph.character) * 32 + (row_scan & 31) as usize];
            let solid = glyph.cursor.is_some_and(|c| (u32::from(c.first)..=u32::from(c.last)).contains(&row_scan))
                || underlined && row_scan == mode.underline;
            let nine = u16::from(bits) << 1 | u16::from(repeats_last) & u16::from(bits);
            let nine = if solid { 0x1ff } else { nine };
            let target = surface.line_mut(band.y + line);
            let end = (left + cell - cut).min(target.len());
            let Some(target) = target.get_mut(left..end) else { continue };
            for (x, pixel) in target.iter_mut().enumerate() {
                let dot = (x + cut) / mode.repeat as usize;
                *pixel = if nine >> (8 - dot.min(8)) & 1 != 0 { ink } else { back };
            }
        }
    }
}

/// What is drawn in a cell.
#[derive(Clone, Copy, Debug)]
struct Glyph {
    character: u8,
    attribute: u8,
    blinked_off: bool,
    cursor: Option<CursorShape>,
}

/// The cursor's lines, if it has any.
fn cursor_shape(regs: &Regs) -> Option<CursorShape> {
    let start = regs.crtc[crtc::CURSOR_START];
    let shape = CursorShape { first: start & 0x1f, last: regs.crtc[crtc::CURSOR_END] & 0x1f };
    (start & crtc::CURSOR_OFF == 0 && shape.first <= shape.last).then_some(shape)
}

/// The pixels of the cells `first` to `last` of a band.
fn band_rect(mode: &TextMode, band: Band, first: usize, last: usize) -> Rect {
    let cell = mode.dots * mode.repeat;
    let shift = band.panning * mode.repeat;
    let column = |index: usize| u32::try_from(index).unwrap_or(0);
    let x = (column(first) * cell).saturating_sub(shift);
    let end = ((column(last) + 1) * cell).saturating_sub(shift).min(mode.width());
    Rect { x, y: band.y, width: end.saturating_sub(x), height: band.lines }
}
