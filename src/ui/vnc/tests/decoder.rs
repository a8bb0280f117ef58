//! A decoder of rectangles, written from the specifications and used by tests only. It keeps the picture in the client's
//! pixel values.

use flate2::{Decompress, FlushDecompress};

use super::super::format::Format;
use crate::ui::Rect;

/// Bytes with a place.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
    pub(super) fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }
    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
    pub(super) fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }
}

/// A zlib stream that is read piece by piece.
struct Inflate(Decompress);

impl Inflate {
    fn new() -> Self {
        Self(Decompress::new(true))
    }

    fn read(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            out.reserve(65536);
            let (before, room) = (self.0.total_in(), out.capacity());
            self.0.decompress_vec(input, &mut out, FlushDecompress::Sync).unwrap();
            input = &input[usize::try_from(self.0.total_in() - before).unwrap()..];
            if input.is_empty() && out.len() < room {
                return out;
            }
        }
    }
}

/// A client's picture and its decompression streams.
pub(super) struct Decoder {
    pub(super) format: Format,
    pub(super) width: usize,
    pub(super) pixels: Vec<u32>,
    zlib: Inflate,
    zrle: Inflate,
    tight: [Inflate; 4],
    /// JPEG pictures that came.
    pub(super) jpegs: usize,
}

impl Decoder {
    pub(super) fn new(format: Format, width: u32, height: u32) -> Self {
        Self {
            format,
            width: width as usize,
            pixels: vec![0xdead_beef; width as usize * height as usize],
            zlib: Inflate::new(),
            zrle: Inflate::new(),
            tight: [Inflate::new(), Inflate::new(), Inflate::new(), Inflate::new()],
            jpegs: 0,
        }
    }

    /// The picture takes another size.
    pub(super) fn resize(&mut self, width: u32, height: u32) {
        self.width = width as usize;
        self.pixels = vec![0xdead_beef; width as usize * height as usize];
    }

    fn pixel(&self, bytes: &mut Bytes<'_>) -> u32 {
        let raw = bytes.take(usize::from(self.format.bits / 8));
        if self.format.big_endian {
            raw.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
        } else {
            raw.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
        }
    }

    /// RFC 6143 7.7.5, CPIXEL.
    fn cpixel(&self, bytes: &mut Bytes<'_>) -> u32 {
        let format = self.format;
        let channels = [format.red, format.green, format.blue];
        let low = channels.iter().all(|c| u64::from(c.max) << c.shift < 1 << 24);
        let high = channels.iter().all(|c| c.shift >= 8);
        if format.colour_map || format.bits != 32 || format.depth > 24 || !(low || high) {
            return self.pixel(bytes);
        }
        let raw = bytes.take(3);
        let value = if format.big_endian {
            raw.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
        } else {
            raw.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
        };
        if low { value } else { value << 8 }
    }

    fn tpixel(&self, bytes: &mut Bytes<'_>) -> u32 {
        let format = self.format;
        let full = [format.red, format.green, format.blue].iter().all(|channel| channel.max == 255);
        if format.bits == 32 && format.depth == 24 && full && !format.colour_map {
            return self.rgb(bytes.take(3));
        }
        self.pixel(bytes)
    }

    fn rgb(&self, rgb: &[u8]) -> u32 {
        let place = |value: u8, shift: u8| u32::from(value) << shift;
        place(rgb[0], self.format.red.shift)
            | place(rgb[1], self.format.green.shift)
            | place(rgb[2], self.format.blue.shift)
    }

    fn set(&mut self, rect: Rect, x: usize, y: usize, value: u32) {
        assert!(x < rect.width as usize && y < rect.height as usize, "outside of {rect:?}");
        self.pixels[(rect.y as usize + y) * self.width + rect.x as usize + x] = value;
    }

    fn fill(&mut self, rect: Rect, part: [usize; 4], value: u32) {
        let [x, y, width, height] = part;
        for line in y..y + height {
            for column in x..x + width {
                self.set(rect, column, line, value);
            }
        }
    }

    /// Reads the body of a rectangle.
    pub(super) fn rect(&mut self, rect: Rect, encoding: i32, bytes: &mut Bytes<'_>) {
        match encoding {
            0 => self.raw(rect, bytes),
            5 => self.hextile(rect, bytes),
            6 => {
                let length = bytes.u32() as usize;
                let data = self.zlib.read(bytes.take(length));
                self.raw(rect, &mut Bytes(&data));
            }
            7 => self.tight(rect, bytes),
            16 => {
                let length = bytes.u32() as usize;
                let data = self.zrle.read(bytes.take(length));
                let mut data = Bytes(&data);
                self.zrle(rect, &mut data);
                assert!(data.0.is_empty(), "bytes left of a ZRLE rectangle");
            }
            other => panic!("encoding {other}"),
        }
    }

    fn raw(&mut self, rect: Rect, bytes: &mut Bytes<'_>) {
        for y in 0..rect.height as usize {
            for x in 0..rect.width as usize {
                let value = self.pixel(bytes);
                self.set(rect, x, y, value);
            }
        }
    }

    fn hextile(&mut self, rect: Rect, bytes: &mut Bytes<'_>) {
        let (mut background, mut foreground) = (None, None);
        let (width, height) = (rect.width as usize, rect.height as usize);
        for ty in (0..height).step_by(16) {
            for tx in (0..width).step_by(16) {
                let (w, h) = (16.min(width - tx), 16.min(height - ty));
                let kind = bytes.u8();
                if kind & 1 != 0 {
                    for y in 0..h {
                        for x in 0..w {
                            let value = self.pixel(bytes);
                            self.set(rect, tx + x, ty + y, value);
                        }
                    }
                    (background, foreground) = (None, None);
                    continue;
                }
                if kind & 2 != 0 {
                    background = Some(self.pixel(bytes));
                }
                if kind & 4 != 0 {
                    foreground = Some(self.pixel(bytes));
                }
                self.fill(rect, [tx, ty, w, h], background.expect("a background before it is used"));
                if kind & 8 == 0 {
                    continue;
                }
                for _ in 0..bytes.u8() {
                    let value = if kind & 16 != 0 { self.pixel(bytes) } else { foreground.expect("a foreground") };
                    let (place, size) = (usize::from(bytes.u8()), usize::from(bytes.u8()));
                    let (x, y, sw, sh) = (place >> 4, place & 15, (size >> 4) + 1, (size & 15) + 1);
                    assert!(x + sw <= w && y + sh <= h, "a subrectangle outside its tile");
                    self.fill(rect, [tx + x, ty + y, sw, sh], value);
                }
                if kind & 16 != 0 {
                    foreground = None;
                }
            }
        }
    }

    fn zrle(&mut self, rect: Rect, bytes: &mut Bytes<'_>) {
        let (width, height) = (rect.width as usize, rect.height as usize);
        for ty in (0..height).step_by(64) {
            for tx in (0..width).step_by(64) {
                let (w, h) = (64.min(width - tx), 64.min(height - ty));
                let values = self.zrle_tile(w, h, bytes);
                for (index, value) in values.into_iter().enumerate() {
                    self.set(rect, tx + index % w, ty + index / w, value);
                }
            }
        }
    }

    fn zrle_tile(&mut self, w: usize, h: usize, bytes: &mut Bytes<'_>) -> Vec<u32> {
        let kind = bytes.u8();
        let run = |bytes: &mut Bytes<'_>| {
            let mut length = 1;
            loop {
                let byte = bytes.u8();
                length += usize::from(byte);
                if byte != 255 {
                    return length;
                }
            }
        };
        let mut values = Vec::new();
        match kind {
            0 => values.extend((0..w * h).map(|_| self.cpixel(bytes))),
            1 => values = vec![self.cpixel(bytes); w * h],
            2..=16 => {
                let palette: Vec<u32> = (0..kind).map(|_| self.cpixel(bytes)).collect();
                let bits = match kind {
                    2 => 1,
                    3 | 4 => 2,
                    _ => 4,
                };
                for _ in 0..h {
                    let line = bytes.take((w * bits).div_ceil(8));
                    for x in 0..w {
                        let place = x * bits;
                        let index = line[place / 8] >> (8 - bits - place % 8) & ((1 << bits) - 1);
                        values.push(palette[usize::from(index)]);
                    }
                }
            }
            128 => {
                while values.len() < w * h {
                    let value = self.cpixel(bytes);
                    values.resize(values.len() + run(bytes), value);
                }
            }
            130..=255 => {
                let palette: Vec<u32> = (0..kind - 128).map(|_| self.cpixel(bytes)).collect();
                while values.len() < w * h {
                    let index = bytes.u8();
                    let length = if index & 128 != 0 { run(bytes) } else { 1 };
                    values.resize(values.len() + length, palette[usize::from(index & 127)]);
                }
            }
            other => panic!("ZRLE subencoding {other}"),
        }
        assert_eq!(values.len(), w * h, "a run past the end of its tile");
        values
    }

    fn tight_length(bytes: &mut Bytes<'_>) -> usize {
        let mut length = 0;
        for shift in [0, 7, 14] {
            let byte = usize::from(bytes.u8());
            length |= if shift == 14 { byte << 14 } else { (byte & 0x7f) << shift };
            if byte & 0x80 == 0 {
                break;
            }
        }
        length
    }

    fn tight(&mut self, rect: Rect, bytes: &mut Bytes<'_>) {
        assert!(rect.width <= 2048);
        let (width, height) = (rect.width as usize, rect.height as usize);
        let control = bytes.u8();
        for stream in 0..4 {
            if control >> stream & 1 != 0 {
                self.tight[stream] = Inflate::new();
            }
        }
        match control >> 4 {
            8 => {
                let value = self.tpixel(bytes);
                self.fill(rect, [0, 0, width, height], value);
            }
            9 => {
                let length = Self::tight_length(bytes);
                let mut decoder = jpeg_decoder::Decoder::new(bytes.take(length));
                let rgb = decoder.decode().unwrap();
                let info = decoder.info().unwrap();
                assert_eq!((usize::from(info.width), usize::from(info.height)), (width, height));
                for (index, rgb) in rgb.chunks_exact(3).enumerate() {
                    let value = self.rgb(rgb);
                    self.set(rect, index % width, index / width, value);
                }
                self.jpegs += 1;
            }
            basic @ 0..=7 => self.tight_basic(rect, basic, bytes),
            other => panic!("Tight subencoding {other}"),
        }
    }

    fn tight_basic(&mut self, rect: Rect, control: u8, bytes: &mut Bytes<'_>) {
        let (width, height) = (rect.width as usize, rect.height as usize);
        let filter = if control & 4 != 0 { bytes.u8() } else { 0 };
        assert!(filter <= 1, "filter {filter}");
        let palette: Vec<u32> =
            if filter == 1 { (0..=bytes.u8()).map(|_| self.tpixel(bytes)).collect() } else { Vec::new() };
        let pixel_bytes = if self.format.has_rgb_tpixels() { 3 } else { self.format.bytes() };
        let length = match palette.len() {
            0 => width * height * pixel_bytes,
            2 => width.div_ceil(8) * height,
            _ => width * height,
        };
        let data = if length < 12 {
            bytes.take(length).to_vec()
        } else {
            let packed = Self::tight_length(bytes);
            self.tight[usize::from(control & 3)].read(bytes.take(packed))
        };
        assert_eq!(data.len(), length);
        let mut data = Bytes(&data);
        for y in 0..height {
            let line = if palette.len() == 2 { data.take(width.div_ceil(8)) } else { &[] };
            for x in 0..width {
                let value = match palette.len() {
                    0 => self.tpixel(&mut data),
                    2 => palette[usize::from(line[x / 8] >> (7 - x % 8) & 1)],
                    _ => palette[usize::from(data.u8())],
                };
                self.set(rect, x, y, value);
            }
        }
    }
}
