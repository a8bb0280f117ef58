//! Pixel formats (RFC 6143 7.4) and the translation of our pixels into a client's.

use rfb_encodings::PixelFormat;
use zerocopy::IntoBytes;

use super::message::ProtocolError;

/// A colour channel of a client's pixel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    /// The brightest value: a power of two less one.
    pub(super) max: u16,
    /// How far left it sits in the pixel.
    pub(super) shift: u8,
}

impl Channel {
    /// Our 8 bits in the client's channel, in place.
    fn scale(self, value: u8) -> u32 {
        let (max, value) = (u32::from(self.max), u32::from(value));
        // Fewer bits than ours: the upper ones. More, or a maximum that is no mask: in proportion.
        let scaled = if self.max.wrapping_add(1).is_power_of_two() && max <= 255 {
            value >> max.leading_zeros().saturating_sub(24)
        } else {
            (value * max + 127) / 255
        };
        scaled << self.shift
    }

    fn fits(self, bits: u8) -> bool {
        self.shift < 32 && u64::from(self.max) << self.shift < 1 << bits
    }
}

/// How a client wants its pixels; checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// 8, 16 or 32.
    pub(super) bits: u8,
    pub(super) depth: u8,
    pub(super) big_endian: bool,
    /// Pixels are indices of the colour map that we send; the channels say what the map holds.
    pub(super) colour_map: bool,
    pub(super) red: Channel,
    pub(super) green: Channel,
    pub(super) blue: Channel,
}

impl Format {
    /// What the server offers, and what surfaces hold: 0x00RRGGBB.
    pub(super) const NATIVE: Self = Self {
        bits: 32,
        depth: 24,
        big_endian: false,
        colour_map: false,
        red: Channel { max: 255, shift: 16 },
        green: Channel { max: 255, shift: 8 },
        blue: Channel { max: 255, shift: 0 },
    };

    /// Reads a PIXEL_FORMAT.
    pub(super) fn parse(bytes: [u8; 16]) -> Result<Self, ProtocolError> {
        let [bits, depth, big_endian, true_colour, r1, r0, g1, g0, b1, b0, red, green, blue, ..] = bytes;
        let big_endian = big_endian != 0;
        if true_colour == 0 {
            if bits != 8 {
                return Err(ProtocolError::PixelFormat);
            }
            // The map that we send holds these colours: 3 bits of red and green, 2 of blue.
            return Ok(Self {
                bits,
                depth: 8,
                big_endian,
                colour_map: true,
                red: Channel { max: 7, shift: 0 },
                green: Channel { max: 7, shift: 3 },
                blue: Channel { max: 3, shift: 6 },
            });
        }
        let format = Self {
            bits,
            depth,
            big_endian,
            colour_map: false,
            red: Channel { max: u16::from_be_bytes([r1, r0]), shift: red },
            green: Channel { max: u16::from_be_bytes([g1, g0]), shift: green },
            blue: Channel { max: u16::from_be_bytes([b1, b0]), shift: blue },
        };
        let channels_fit = [format.red, format.green, format.blue].iter().all(|channel| channel.fits(bits));
        if matches!(bits, 8 | 16 | 32) && channels_fit { Ok(format) } else { Err(ProtocolError::PixelFormat) }
    }

    /// The PIXEL_FORMAT.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let [r1, r0] = self.red.max.to_be_bytes();
        let [g1, g0] = self.green.max.to_be_bytes();
        let [b1, b0] = self.blue.max.to_be_bytes();
        let (big_endian, true_colour) = (u8::from(self.big_endian), u8::from(!self.colour_map));
        let (red, green, blue) = (self.red.shift, self.green.shift, self.blue.shift);
        [self.bits, self.depth, big_endian, true_colour, r1, r0, g1, g0, b1, b0, red, green, blue, 0, 0, 0]
    }

    /// Bytes in a pixel.
    pub(super) fn bytes(self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Whether Tight sends three bytes red, green, blue for a pixel (Tight encoding, TPIXEL).
    pub(super) fn has_rgb_tpixels(self) -> bool {
        let full = |channel: Channel| channel.max == 255;
        !self.colour_map && self.bits == 32 && self.depth == 24 && full(self.red) && full(self.green) && full(self.blue)
    }

    /// The format in the words of the `rfb-encodings` crate, whose ZRLE encoder we use.
    pub(super) fn for_crate(self) -> PixelFormat {
        PixelFormat {
            bits_per_pixel: self.bits,
            depth: self.depth,
            big_endian_flag: u8::from(self.big_endian),
            true_colour_flag: u8::from(!self.colour_map),
            red_max: self.red.max,
            green_max: self.green.max,
            blue_max: self.blue.max,
            red_shift: self.red.shift,
            green_shift: self.green.shift,
            blue_shift: self.blue.shift,
        }
    }

    /// SetColourMapEntries (RFC 6143 7.6.2) with the colours that the 256 pixel values stand for.
    pub(super) fn colour_map_message(self) -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0, 1, 0];
        for value in 0..=255_u32 {
            for channel in [self.red, self.green, self.blue] {
                let max = u32::from(channel.max).max(1);
                let level = (value >> channel.shift & max) * 0xffff / max;
                message.extend_from_slice(&u16::try_from(level).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        message
    }
}

/// What a translation has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Path {
    /// Nothing.
    Copy,
    /// Reverse the bytes.
    Swap,
    /// 16 bits, 5-6-5.
    Rgb565,
    /// Look each channel up.
    Tables,
}

/// Translates pixels into one client's format.
pub(super) struct Translator {
    format: Format,
    path: Path,
    /// The client's channel values, in place, for red, green and blue; empty if no table is needed.
    tables: Vec<[u32; 256]>,
}

impl Translator {
    pub(super) fn new(format: Format) -> Self {
        let native = Format { big_endian: format.big_endian, depth: format.depth, ..Format::NATIVE };
        let (five, six) = (31, 63);
        let is_565 = format.bits == 16
            && format.red == Channel { max: five, shift: 11 }
            && format.green == Channel { max: six, shift: 5 }
            && format.blue == Channel { max: five, shift: 0 };
        let path = if format == native {
            if format.big_endian { Path::Swap } else { Path::Copy }
        } else if is_565 {
            Path::Rgb565
        } else {
            Path::Tables
        };
        let mut tables = Vec::new();
        if path == Path::Tables {
            for channel in [format.red, format.green, format.blue] {
                let mut table = [0; 256];
                for value in 0..=255_u8 {
                    table[usize::from(value)] = channel.scale(value);
                }
                tables.push(table);
            }
        }
        Self { format, path, tables }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// A pixel's value in the client's format, before byte order.
    pub(super) fn value(&self, pixel: u32) -> u32 {
        match (self.path, self.tables.as_slice()) {
            (Path::Rgb565, _) => pixel >> 8 & 0xf800 | pixel >> 5 & 0x07e0 | pixel >> 3 & 0x001f,
            (Path::Tables, [red, green, blue]) => {
                let [_, r, g, b] = pixel.to_be_bytes();
                red[usize::from(r)] | green[usize::from(g)] | blue[usize::from(b)]
            }
            _ => pixel & 0x00ff_ffff,
        }
    }

    /// Appends a pixel of the client's format, given by its value.
    pub(super) fn put_value(&self, value: u32, out: &mut Vec<u8>) {
        let bytes = self.format.bytes();
        if self.format.big_endian {
            out.extend_from_slice(&value.to_be_bytes()[4 - bytes..]);
        } else {
            out.extend_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }

    /// Appends our pixels as the client's.
    pub(super) fn put(&self, pixels: &[u32], out: &mut Vec<u8>) {
        match (self.path, self.format.bits, self.format.big_endian) {
            (Path::Copy, ..) if cfg!(target_endian = "little") => out.extend_from_slice(pixels.as_bytes()),
            (Path::Copy, ..) => out.extend(pixels.iter().flat_map(|pixel| pixel.to_le_bytes())),
            (Path::Swap, ..) => out.extend(pixels.iter().flat_map(|pixel| pixel.to_be_bytes())),
            (_, 8, _) => out.extend(pixels.iter().map(|pixel| self.value(*pixel).to_le_bytes()[0])),
            (_, 16, false) => out.extend(pixels.iter().flat_map(|pixel| {
                let [low, high, ..] = self.value(*pixel).to_le_bytes();
                [low, high]
            })),
            (_, 16, true) => out.extend(pixels.iter().flat_map(|pixel| {
                let [low, high, ..] = self.value(*pixel).to_le_bytes();
                [high, low]
            })),
            (_, _, false) => out.extend(pixels.iter().flat_map(|pixel| self.value(*pixel).to_le_bytes())),
            (_, _, true) => out.extend(pixels.iter().flat_map(|pixel| self.value(*pixel).to_be_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits: u8, depth: u8, big_endian: bool, rgb: [(u16, u8); 3]) -> Format {
        let [red, green, blue] = rgb.map(|(max, shift)| Channel { max, shift });
        Format { bits, depth, big_endian, colour_map: false, red, green, blue }
    }

    fn translated(format: Format, pixels: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        Translator::new(format).put(pixels, &mut out);
        out
    }

    #[test]
    fn the_native_format_is_copied() {
        assert_eq!(Translator::new(Format::NATIVE).path, Path::Copy);
        assert_eq!(translated(Format::NATIVE, &[0x0012_3456]), [0x56, 0x34, 0x12, 0]);
    }

    #[test]
    fn a_big_endian_viewer_gets_big_endian_pixels() {
        let big = Format { big_endian: true, ..Format::NATIVE };
        assert_eq!(translated(big, &[0x0012_3456]), [0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn red_and_blue_change_places_when_the_shifts_say_so() {
        let swapped = format(32, 24, false, [(255, 0), (255, 8), (255, 16)]);
        assert_eq!(translated(swapped, &[0x0012_3456]), [0x12, 0x34, 0x56, 0]);
    }

    #[test]
    fn upper_shifts_use_the_upper_bytes() {
        let upper = format(32, 24, false, [(255, 24), (255, 16), (255, 8)]);
        assert_eq!(translated(upper, &[0x0012_3456]), [0, 0x56, 0x34, 0x12]);
    }

    #[test]
    fn sixteen_bits_take_the_upper_bits_of_each_channel() {
        let rgb565 = format(16, 16, false, [(31, 11), (63, 5), (31, 0)]);
        assert_eq!(translated(rgb565, &[0x00ff_0000, 0x0000_ff00, 0x0000_00ff]), [0, 0xf8, 0xe0, 7, 0x1f, 0]);
        let rgb555_big = format(16, 15, true, [(31, 10), (31, 5), (31, 0)]);
        assert_eq!(translated(rgb555_big, &[0x00ff_0000, 0x0000_ff00]), [0x7c, 0, 3, 0xe0]);
    }

    #[test]
    fn the_565_loop_agrees_with_the_tables() {
        let rgb565 = format(16, 16, false, [(31, 11), (63, 5), (31, 0)]);
        let fast = Translator::new(rgb565);
        let mirrored = Translator::new(format(16, 16, false, [(31, 0), (63, 5), (31, 11)]));
        let pixel = 0x00a7_5c39;
        let mirror = (pixel & 0xff) << 16 | pixel & 0xff00 | pixel >> 16;
        assert_eq!(fast.value(pixel), mirrored.value(mirror));
    }

    #[test]
    fn ten_bits_a_channel_reach_full_white() {
        let deep = format(32, 30, false, [(1023, 20), (1023, 10), (1023, 0)]);
        assert_eq!(translated(deep, &[0x00ff_ffff]), 0x3fff_ffff_u32.to_le_bytes());
    }

    #[test]
    fn a_colour_map_holds_what_the_pixels_mean() {
        let mapped = Format::parse([8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let map = mapped.colour_map_message();
        let pixel = translated(mapped, &[0x00ff_00ff])[0];
        let entry = 6 + usize::from(pixel) * 6;
        assert_eq!(map.len(), 6 + 256 * 6);
        assert_eq!(map[entry..entry + 6], [0xff, 0xff, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn formats_that_cannot_be_are_refused() {
        let native = Format::NATIVE.to_bytes();
        let with = |index: usize, value: u8| {
            let mut bytes = native;
            bytes[index] = value;
            Format::parse(bytes)
        };
        assert_eq!(Format::parse(native), Ok(Format::NATIVE));
        assert_eq!(with(0, 24), Err(ProtocolError::PixelFormat));
        assert_eq!(with(0, 16), Err(ProtocolError::PixelFormat));
        assert_eq!(with(10, 200), Err(ProtocolError::PixelFormat));
        assert_eq!(with(3, 0), Err(ProtocolError::PixelFormat));
    }
}
