//! Hextile (RFC 6143 7.7.4), for every pixel format.

use super::super::format::Translator;

const SIDE: usize = 16;

const RAW: u8 = 1;
const BACKGROUND: u8 = 2;
const FOREGROUND: u8 = 4;
const SUBRECTS: u8 = 8;
const COLOURED: u8 = 16;

/// A tile in the client's pixel values.
struct Tile {
    values: [u32; SIDE * SIDE],
    width: usize,
    height: usize,
}

/// A part of a tile that is of one colour, packed as the protocol wants it.
struct Subrect {
    value: u32,
    place: u8,
    size: u8,
}

/// Appends a rectangle that is `width` pixels wide.
pub(super) fn put(translator: &Translator, width: u32, pixels: &[u32], out: &mut Vec<u8>) {
    let width = width as usize;
    let lines = pixels.len().checked_div(width).unwrap_or(0);
    let (mut background, mut foreground) = (None, None);
    for y in (0..lines).step_by(SIDE) {
        for x in (0..width).step_by(SIDE) {
            let (tile_width, tile_height) = (SIDE.min(width - x), SIDE.min(lines - y));
            let mut tile = Tile { values: [0; SIDE * SIDE], width: tile_width, height: tile_height };
            for line in 0..tile_height {
                let from = (y + line) * width + x;
                for (to, pixel) in tile.values[line * SIDE..].iter_mut().zip(&pixels[from..from + tile_width]) {
                    *to = translator.value(*pixel);
                }
            }
            put_tile(translator, &tile, &mut background, &mut foreground, out);
        }
    }
}

fn put_tile(
    translator: &Translator,
    tile: &Tile,
    background: &mut Option<u32>,
    foreground: &mut Option<u32>,
    out: &mut Vec<u8>,
) {
    let bytes = translator.format().bytes();
    let main = tile.main_value();
    let subrects = tile.subrects(main);
    let second = subrects.first().map(|subrect| subrect.value);
    let coloured = subrects.iter().any(|subrect| Some(subrect.value) != second);
    let each = if coloured { 2 + bytes } else { 2 };
    if subrects.len() > 255 || 1 + 2 * bytes + each * subrects.len() > tile.width * tile.height * bytes {
        out.push(RAW);
        for line in tile.values.chunks_exact(SIDE).take(tile.height) {
            for value in &line[..tile.width] {
                translator.put_value(*value, out);
            }
        }
        (*background, *foreground) = (None, None);
        return;
    }
    let kind = out.len();
    out.push(0);
    if *background != Some(main) {
        out[kind] |= BACKGROUND;
        translator.put_value(main, out);
        *background = Some(main);
    }
    let Some(second) = second else { return };
    out[kind] |= SUBRECTS;
    if coloured {
        out[kind] |= COLOURED;
        *foreground = None;
    } else if *foreground != Some(second) {
        out[kind] |= FOREGROUND;
        translator.put_value(second, out);
        *foreground = Some(second);
    }
    out.push(u8::try_from(subrects.len()).unwrap_or(u8::MAX));
    for subrect in &subrects {
        if coloured {
            translator.put_value(subrect.value, out);
        }
        out.extend_from_slice(&[subrect.place, subrect.size]);
    }
}

impl Tile {
    /// The value that most pixels have, of the first few values.
    fn main_value(&self) -> u32 {
        let mut counts = [(0_u32, 0_u32); 4];
        for line in self.values.chunks_exact(SIDE).take(self.height) {
            for value in &line[..self.width] {
                if let Some(entry) = counts.iter_mut().find(|(known, count)| *count == 0 || known == value) {
                    *entry = (*value, entry.1 + 1);
                }
            }
        }
        counts.iter().max_by_key(|(_, count)| *count).map_or(0, |(value, _)| *value)
    }

    /// Rectangles that cover all pixels but those of `main`; 256 at most, as more cannot be sent.
    fn subrects(&self, main: u32) -> Vec<Subrect> {
        let mut rest = self.values;
        let mut subrects = Vec::new();
        for y in 0..self.height {
            let mut x = 0;
            while x < self.width {
                let value = rest[y * SIDE + x];
                if value == main {
                    x += 1;
                    continue;
                }
                let width = (x..self.width).take_while(|x| rest[y * SIDE + x] == value).count();
                let height =
                    (y..self.height).take_while(|y| (x..x + width).all(|x| rest[y * SIDE + x] == value)).count();
                for line in y..y + height {
                    rest[line * SIDE + x..line * SIDE + x + width].fill(main);
                }
                let pack = |high: usize, low: usize| u8::try_from(high << 4 | low).unwrap_or(0);
                subrects.push(Subrect { value, place: pack(x, y), size: pack(width - 1, height - 1) });
                if subrects.len() > 255 {
                    return subrects;
                }
                x += width;
            }
        }
        subrects
    }
}
