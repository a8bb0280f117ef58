//! Reads text modes: each cell of the picture is compared with the glyphs of the VGA BIOS's 8x16 font.

use std::collections::HashMap;
use std::fs;

const FONT_FILES: [&str; 3] = [
    "/usr/share/seabios/vgabios-stdvga.bin",
    "/usr/share/seavgabios/vgabios-stdvga.bin",
    "/usr/share/qemu/vgabios-stdvga.bin",
];

/// Code page 437's glyph 1, after the empty glyph 0 with which the font begins.
const SECOND_GLYPH: [u8; 16] = [0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e, 0, 0, 0, 0];

/// From a glyph's lines to its character. What is not ASCII reads as U+FFFD.
pub struct Font(HashMap<[u8; 16], char>);

impl Font {
    pub fn load() -> Self {
        let rom = FONT_FILES.iter().find_map(|path| fs::read(path).ok()).expect("the package seabios is installed");
        let start = rom.windows(16).position(|bytes| bytes == SECOND_GLYPH).expect("it has an 8x16 font") - 16;
        let glyphs = rom[start..start + 256 * 16].chunks_exact(16);
        let ascii = (0_u8..).zip(glyphs).skip(0x20).take(0x5f);
        Self(ascii.map(|(code, glyph)| (glyph.try_into().unwrap(), char::from(code))).collect())
    }

    /// The lines of a picture `width` pixels wide.
    pub fn read(&self, width: usize, pixels: &[u32]) -> String {
        if width == 0 {
            return String::new();
        }
        let cell = if width.is_multiple_of(720) { 9 } else { 8 };
        let mut text = String::new();
        for band in pixels.chunks_exact(width * 16) {
            let line: String = (0..width / cell).map(|column| self.character(band, width, column * cell)).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn character(&self, band: &[u32], width: usize, left: usize) -> char {
        let paper = band[left];
        let mut glyph = [0_u8; 16];
        for (bits, line) in glyph.iter_mut().zip(band.chunks_exact(width)) {
            *bits = line[left..left + 8].iter().fold(0, |bits, pixel| bits << 1 | u8::from(*pixel != paper));
        }
        let inverse = glyph.map(|bits| !bits);
        self.0.get(&glyph).or_else(|| self.0.get(&inverse)).copied().unwrap_or('\u{fffd}')
    }
}
