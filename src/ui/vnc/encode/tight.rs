//! Tight (the community's RFB specification, "Tight Encoding"): solid fills, palettes, zlib and JPEG.

use jpeg_encoder::{ColorType, Encoder as JpegEncoder};

use crate::ui::Rect;

use super::super::format::Translator;
use super::Wish;
use super::zlib::Deflate;

/// Control byte of a rectangle of one colour.
const FILL: u8 = 0x80;
/// Control byte of a JPEG picture.
const JPEG: u8 = 0x90;
/// In a control byte: a filter byte follows.
const EXPLICIT_FILTER: u8 = 0x40;
/// Filter byte: a palette follows.
const PALETTE_FILTER: u8 = 1;
/// Shorter data is sent as it is.
const MIN_TO_COMPRESS: usize = 12;
/// Smaller pictures gain nothing by JPEG.
const MIN_JPEG_PIXELS: usize = 1024;

/// The zlib streams of one client: full colour, two colours, palette.
#[derive(Default)]
pub(super) struct Tight {
    streams: [Option<Deflate>; 3],
}

/// Stream numbers.
const FULL: u8 = 0;
const MONO: u8 = 1;
const INDEXED: u8 = 2;

impl Tight {
    /// Appends a rectangle's body. Whether it is lossless.
    pub(super) fn put(
        &mut self,
        translator: &Translator,
        wish: Wish,
        rect: Rect,
        pixels: &[u32],
        out: &mut Vec<u8>,
    ) -> bool {
        let palette = Palette::of(pixels);
        match palette.as_ref().map(|palette| palette.colours.as_slice()) {
            Some([colour]) => {
                out.push(FILL);
                put_tpixels(translator, &[*colour], out);
            }
            Some(colours) if worth_a_palette(translator, colours.len(), pixels.len()) => {
                let Some(palette) = &palette else { return true };
                let stream = if colours.len() == 2 { MONO } else { INDEXED };
                out.push(stream << 4 | EXPLICIT_FILTER);
                out.push(PALETTE_FILTER);
                out.push(u8::try_from(colours.len() - 1).unwrap_or(u8::MAX));
                put_tpixels(translator, colours, out);
                let indices = if colours.len() == 2 {
                    palette.bits(pixels, rect.width as usize)
                } else {
                    pixels.iter().map(|pixel| palette.index(*pixel)).collect()
                };
                self.put_data(stream, wish.level, &indices, out);
            }
            _ => return self.put_full(translator, wish, rect, pixels, palette.is_none(), out),
        }
        true
    }

    /// A picture of many colours. Whether it is lossless.
    fn put_full(
        &mut self,
        translator: &Translator,
        wish: Wish,
        rect: Rect,
        pixels: &[u32],
        has_many_colours: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        if let Some(quality) = wish.quality
            && wish.format.bits > 8
            && has_many_colours
            && pixels.len() >= MIN_JPEG_PIXELS
            && let Some(picture) = jpeg(rect, pixels, quality)
        {
            out.push(JPEG);
            put_length(picture.len(), out);
            out.extend_from_slice(&picture);
            return false;
        }
        out.push(FULL << 4);
        let mut data = Vec::with_capacity(pixels.len() * 4);
        put_tpixels(translator, pixels, &mut data);
        self.put_data(FULL, wish.level, &data, out);
        true
    }

    fn put_data(&mut self, stream: u8, level: u8, data: &[u8], out: &mut Vec<u8>) {
        if data.len() < MIN_TO_COMPRESS {
            out.extend_from_slice(data);
            return;
        }
        let stream = self.streams[usize::from(stream)].get_or_insert_with(|| Deflate::new(level));
        let mut compressed = Vec::new();
        stream.put(data, &mut compressed);
        put_length(compressed.len(), out);
        out.extend_from_slice(&compressed);
    }
}

/// A JPEG file of a rectangle; none if the encoder refuses its size.
fn jpeg(rect: Rect, pixels: &[u32], quality: u8) -> Option<Vec<u8>> {
    let rgb: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    let (width, height) = (u16::try_from(rect.width).ok()?, u16::try_from(rect.height).ok()?);
    let mut picture = Vec::new();
    // The ten levels from "very poor" to "hardly to be told from lossless".
    let percent = 15 + quality.min(9) * 9;
    JpegEncoder::new(&mut picture, percent).encode(&rgb, width, height, ColorType::Rgb).ok()?;
    Some(picture)
}

/// Whether indices are shorter than pixels by enough to pay for the palette.
fn worth_a_palette(translator: &Translator, colours: usize, pixels: usize) -> bool {
    let bytes = if translator.format().has_rgb_tpixels() { 3 } else { translator.format().bytes() };
    let indices = if colours == 2 { pixels / 8 } else { pixels };
    colours >= 2 && colours * bytes + indices < pixels * bytes
}

/// TPIXELs: red, green, blue for full-depth formats, whatever their order; else the client's pixels.
fn put_tpixels(translator: &Translator, pixels: &[u32], out: &mut Vec<u8>) {
    if translator.format().has_rgb_tpixels() {
        for pixel in pixels {
            let [_, red, green, blue] = pixel.to_be_bytes();
            out.extend_from_slice(&[red, green, blue]);
        }
    } else {
        translator.put(pixels, out);
    }
}

/// A length of up to 22 bits, seven at a time.
fn put_length(length: usize, out: &mut Vec<u8>) {
    let bits = |shift: u32, mask: usize| u8::try_from(length >> shift & mask).unwrap_or(u8::MAX);
    match length {
        0..0x80 => out.push(bits(0, 0x7f)),
        0x80..0x4000 => out.extend_from_slice(&[bits(0, 0x7f) | 0x80, bits(7, 0x7f)]),
        _ => out.extend_from_slice(&[bits(0, 0x7f) | 0x80, bits(7, 0x7f) | 0x80, bits(14, 0xff)]),
    }
}

/// Up to 256 colours, found by hashing.
struct Palette {
    colours: Vec<u32>,
    /// Places in `colours` plus one, 0 for none.
    slots: Vec<u16>,
}

const SLOTS: usize = 1024;

impl Palette {
    /// The colours of some pixels in the order of their first use; `None` if they are more than 256.
    fn of(pixels: &[u32]) -> Option<Self> {
        let mut palette = Self { colours: Vec::new(), slots: vec![0; SLOTS] };
        let mut last = None;
        for &pixel in pixels {
            if last == Some(pixel) {
                continue;
            }
            last = Some(pixel);
            let slot = palette.slot(pixel);
            if palette.slots[slot] == 0 {
                if palette.colours.len() == 256 {
                    return None;
                }
                palette.colours.push(pixel);
                palette.slots[slot] = u16::try_from(palette.colours.len()).ok()?;
            }
        }
        Some(palette)
    }

    /// Where a colour is or would be.
    fn slot(&self, colour: u32) -> usize {
        let mut slot = (colour.wrapping_mul(0x9e37_79b1) >> 22) as usize % SLOTS;
        loop {
            match self.slots[slot] {
                0 => return slot,
                place if self.colours[usize::from(place) - 1] == colour => return slot,
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }

    fn index(&self, colour: u32) -> u8 {
        u8::try_from(self.slots[self.slot(colour)].saturating_sub(1)).unwrap_or(0)
    }

    /// One bit a pixel, each line in whole bytes, the first pixel uppermost.
    fn bits(&self, pixels: &[u32], width: usize) -> Vec<u8> {
        let mut bits = Vec::with_capacity(pixels.len() / 8 + 1);
        for line in pixels.chunks_exact(width.max(1)) {
            for eight in line.chunks(8) {
                let set = eight.iter().enumerate().filter(|(_, pixel)| self.index(**pixel) != 0);
                bits.push(set.fold(0, |byte, (place, _)| byte | 0x80 >> place));
            }
        }
        bits
    }
}
