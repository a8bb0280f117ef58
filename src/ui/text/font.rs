//! The glyphs: Spleen 8x16, a PSF 1 font.
//!
//! Known defect of spleen-font 0.2.0: its reader takes a PSF 1 header's mode for the character size and its UTF-16
//! table for UTF-8, so that it finds no glyph of this font. Only the font's bytes are used; the format (Linux
//! console, psf(5)) is read here.

use std::sync::LazyLock;

/// Lines of a glyph; its columns are the bits of a byte, the left one highest.
pub(super) const GLYPH_LINES: usize = 16;

/// One character's picture.
pub(super) type Glyph = [u8; GLYPH_LINES];

/// A font with its table of characters.
#[derive(Debug)]
pub(super) struct Font {
    glyphs: Vec<Glyph>,
    /// Glyph numbers of the first 128 characters.
    ascii: [u16; 128],
    /// Characters and glyph numbers, sorted.
    others: Vec<(char, u16)>,
    /// For characters that the font lacks.
    missing: u16,
}

/// The font of all text consoles.
pub(super) static FONT: LazyLock<Font> = LazyLock::new(|| Font::parse(spleen_font::FONT_8X16).unwrap_or_default());

impl Default for Font {
    /// One blank glyph.
    fn default() -> Self {
        Self { glyphs: vec![[0; GLYPH_LINES]], ascii: [0; 128], others: Vec::new(), missing: 0 }
    }
}

const MAGIC: [u8; 2] = [0x36, 0x04];
const MODE_512: u8 = 1;
const MODE_HAS_TABLE: u8 = 2;
const MODE_HAS_SEQUENCES: u8 = 4;
/// Ends a glyph's characters.
const SEPARATOR: u16 = 0xffff;
/// Starts a sequence of characters that the glyph shows together.
const SEQUENCE: u16 = 0xfffe;

impl Font {
    /// Reads a PSF 1 font of 16 lines.
    fn parse(file: &[u8]) -> Option<Self> {
        let (&[magic_0, magic_1, mode, lines], rest) = file.split_first_chunk::<4>()?;
        if [magic_0, magic_1] != MAGIC || usize::from(lines) != GLYPH_LINES {
            return None;
        }
        let count: u16 = if mode & MODE_512 != 0 { 512 } else { 256 };
        let (glyphs, table) = rest.split_at_checked(usize::from(count) * GLYPH_LINES)?;
        let mut font = Self { glyphs: glyphs.as_chunks().0.to_vec(), ..Self::default() };
        if mode & (MODE_HAS_TABLE | MODE_HAS_SEQUENCES) == 0 {
            for (index, slot) in (0u16..).zip(&mut font.ascii) {
                *slot = index;
            }
            return Some(font);
        }
        font.read_table(table, count);
        font.missing = font.find('\u{fffd}').or_else(|| font.find('?')).unwrap_or(0);
        let missing = font.missing;
        for (code, slot) in (0u8..).zip(&mut font.ascii) {
            let found = font.others.binary_search_by_key(&char::from(code), |(c, _)| *c);
            *slot = found.map_or(missing, |at| font.others[at].1);
        }
        Some(font)
    }

    fn read_table(&mut self, table: &[u8], count: u16) {
        let mut index = 0;
        let mut in_sequence = false;
        for unit in table.as_chunks::<2>().0 {
            match u16::from_le_bytes(*unit) {
                SEPARATOR => {
                    index += 1;
                    in_sequence = false;
                    if index == count {
                        break;
                    }
                }
                SEQUENCE => in_sequence = true,
                _ if in_sequence => {}
                code => self.others.extend(char::from_u32(code.into()).map(|c| (c, index))),
            }
        }
        self.others.sort_by_key(|(c, _)| *c);
        self.others.dedup_by_key(|(c, _)| *c);
    }

    fn find(&self, c: char) -> Option<u16> {
        self.others.binary_search_by_key(&c, |(c, _)| *c).ok().map(|at| self.others[at].1)
    }

    /// The picture of a character.
    pub fn glyph(&self, c: char) -> &Glyph {
        let index = match self.ascii.get(c as usize) {
            Some(index) => *index,
            None => self.find(c).unwrap_or(self.missing),
        };
        &self.glyphs[usize::from(index).min(self.glyphs.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_lines_and_accents_have_glyphs_of_their_own() {
        let shown = ['A', 'z', '~', '─', '█', 'é', 'Ж'].map(|c| FONT.glyph(c));
        let mut different = shown.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), shown.len());
        assert_eq!(*FONT.glyph('█'), [0xff; GLYPH_LINES]);
        assert_eq!(*FONT.glyph(' '), [0; GLYPH_LINES]);
    }

    #[test]
    fn a_character_that_the_font_lacks_has_the_substitutes_glyph() {
        assert_eq!(FONT.glyph('漢'), FONT.glyph('\u{fffd}'));
        assert_ne!(*FONT.glyph('漢'), [0; GLYPH_LINES]);
    }

    #[test]
    fn truncated_fonts_never_panic() {
        let file = spleen_font::FONT_8X16;
        assert!(
            (0..file.len()).step_by(7).filter_map(|len| Font::parse(&file[..len])).all(|f| f.glyph('A').len() == 16)
        );
    }
}
