//! Every encoding in every pixel format, decoded again.

use super::super::encode::{Encoder, Kind, Wish};
use super::super::format::{Channel, Format};
use super::decoder::{Bytes, Decoder};
use crate::ui::Rect;

const WIDTH: u32 = 150;
const HEIGHT: u32 = 83;

fn format(bits: u8, depth: u8, big_endian: bool, rgb: [(u16, u8); 3]) -> Format {
    let [red, green, blue] = rgb.map(|(max, shift)| Channel { max, shift });
    Format { bits, depth, big_endian, colour_map: false, red, green, blue }
}

/// The formats that viewers ask for, in both byte orders, and odd ones.
fn formats() -> Vec<Format> {
    let mut formats = vec![
        format(8, 8, false, [(7, 0), (7, 3), (3, 6)]),
        format(8, 6, false, [(3, 4), (3, 2), (3, 0)]),
        format(8, 3, false, [(1, 2), (1, 1), (1, 0)]),
        Format::parse([8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(),
    ];
    for big_endian in [false, true] {
        formats.extend([
            Format { big_endian, ..Format::NATIVE },
            format(32, 24, big_endian, [(255, 0), (255, 8), (255, 16)]),
            format(32, 24, big_endian, [(255, 24), (255, 16), (255, 8)]),
            format(32, 32, big_endian, [(255, 16), (255, 8), (255, 0)]),
            format(32, 30, big_endian, [(1023, 20), (1023, 10), (1023, 0)]),
            format(16, 16, big_endian, [(31, 11), (63, 5), (31, 0)]),
            format(16, 15, big_endian, [(31, 10), (31, 5), (31, 0)]),
            format(16, 16, big_endian, [(31, 0), (63, 5), (31, 11)]),
        ]);
    }
    formats
}

/// What a pixel is in a client's format, reckoned in another way than the server does.
fn client_value(format: Format, pixel: u32) -> u32 {
    let [_, red, green, blue] = pixel.to_be_bytes();
    let channel = |value: u8, channel: Channel| {
        let value = u32::from(value);
        let scaled = if channel.max > 255 {
            (f64::from(value) * f64::from(channel.max) / 255.0).round() as u32
        } else {
            value * (u32::from(channel.max) + 1) / 256
        };
        scaled << channel.shift
    };
    channel(red, format.red) | channel(green, format.green) | channel(blue, format.blue)
}

/// Pictures that lead encoders down each of their paths.
fn pictures() -> Vec<(&'static str, Vec<u32>)> {
    let mut seed = 1_u32;
    let mut random = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    let all = |mut pixel: Box<dyn FnMut(u32, u32) -> u32>| -> Vec<u32> {
        (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
    };
    vec![
        ("one colour", all(Box::new(|_, _| 0x0012_3456))),
        ("two colours", all(Box::new(|x, y| if x * y % 7 == 0 { 0x00ff_ffff } else { 0x0000_00aa }))),
        ("stripes", all(Box::new(|x, _| [0x00ff_0000, 0x0000_ff00, 0x0000_00ff][x as usize / 20 % 3]))),
        ("sixteen colours", all(Box::new(|x, y| (x / 3 % 4) * 0x0050_0000 + (y / 5 % 4) * 0x0000_0050))),
        ("hundred colours", all(Box::new(|x, y| (x % 10) * 0x0019_0000 + (y % 10) * 0x0000_1900))),
        ("gradient", all(Box::new(|x, y| x << 16 | y << 8 | (x + y) & 0xff))),
        ("noise", all(Box::new(move |_, _| random()))),
        ("dots", all(Box::new(|x, y| if (x, y) == (149, 82) { 0x00ff_00ff } else { 0 }))),
    ]
}

/// The same stream of rectangles through an encoder and the decoder.
fn check(kind: Kind, format: Format, level: u8) {
    let mut encoder = Encoder::new(Wish { kind, format, level, quality: None });
    let mut decoder = Decoder::new(format, WIDTH, HEIGHT);
    for (name, pixels) in pictures() {
        // All of it, then a part whose sides are no multiple of anything.
        for rect in [Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT }, Rect { x: 33, y: 17, width: 65, height: 3 }] {
            let part: Vec<u32> = (rect.y..rect.y + rect.height)
                .flat_map(|y| {
                    let start = (y * WIDTH + rect.x) as usize;
                    &pixels[start..start + rect.width as usize]
                })
                .copied()
                .collect();
            let mut out = Vec::new();
            encoder.put_rect(rect, &part, &mut out);
            let mut bytes = Bytes(&out);
            let header = [bytes.u16(), bytes.u16(), bytes.u16(), bytes.u16()].map(u32::from);
            assert_eq!(header, [rect.x, rect.y, rect.width, rect.height]);
            let number = bytes.i32();
            decoder.rect(rect, number, &mut bytes);
            assert!(bytes.0.is_empty(), "{kind:?} {name}: bytes left");
        }
        let expected: Vec<u32> = pixels.iter().map(|pixel| client_value(format, *pixel)).collect();
        let wrong = decoder.pixels.iter().zip(&expected).position(|(got, expected)| got != expected);
        assert_eq!(
            wrong,
            None,
            "{kind:?} {format:?} {name}: {:x?} at a pixel",
            wrong.map(|at| (decoder.pixels[at], expected[at]))
        );
    }
}

#[test]
fn raw_decodes_in_every_format() {
    formats().into_iter().for_each(|format| check(Kind::Raw, format, 1));
}

#[test]
fn hextile_decodes_in_every_format() {
    formats().into_iter().for_each(|format| check(Kind::Hextile, format, 1));
}

#[test]
fn zlib_decodes_in_every_format() {
    formats().into_iter().for_each(|format| check(Kind::Zlib, format, 1));
}

#[test]
fn zrle_decodes_in_every_format() {
    formats().into_iter().for_each(|format| check(Kind::Zrle, format, 1));
}

#[test]
fn tight_decodes_in_every_format() {
    formats().into_iter().for_each(|format| check(Kind::Tight, format, 1));
}

#[test]
fn compressing_encodings_decode_at_every_level() {
    for level in 0..=9 {
        check(Kind::Zlib, Format::NATIVE, level);
        check(Kind::Zrle, Format::NATIVE, level);
        check(Kind::Tight, Format::NATIVE, level);
    }
}

#[test]
fn jpeg_is_near_the_picture_and_only_for_pictures_of_many_colours() {
    let format = Format::NATIVE;
    let all = Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT };
    let mut encoder = Encoder::new(Wish { kind: Kind::Tight, format, level: 1, quality: Some(9) });
    let mut decoder = Decoder::new(format, WIDTH, HEIGHT);
    let mut put = |name: &str| {
        let pixels = pictures().into_iter().find(|(known, _)| *known == name).unwrap().1;
        let mut out = Vec::new();
        encoder.put_rect(all, &pixels, &mut out);
        decoder.rect(all, 7, &mut Bytes(&out[12..]));
        let far = decoder.pixels.iter().zip(&pixels).filter(|(a, b)| {
            let (a, b) = (a.to_be_bytes(), b.to_be_bytes());
            a.iter().zip(b).any(|(a, b)| a.abs_diff(b) > 24)
        });
        (decoder.jpegs, far.count())
    };
    assert_eq!(put("hundred colours"), (0, 0));
    let (jpegs, far) = put("gradient");
    assert_eq!(jpegs, 1);
    // Where a channel wraps around, JPEG blurs the edge.
    assert!(far < 1500, "{far} pixels are far off");
}

#[test]
fn a_new_format_keeps_the_streams() {
    let mut encoder = Encoder::new(Wish { kind: Kind::Zrle, format: Format::NATIVE, level: 6, quality: None });
    let mut decoder = Decoder::new(Format::NATIVE, 4, 1);
    let rect = Rect { x: 0, y: 0, width: 4, height: 1 };
    for format in [Format::NATIVE, format(16, 16, true, [(31, 11), (63, 5), (31, 0)]), Format::NATIVE] {
        encoder.set_wish(Wish { kind: Kind::Zrle, format, level: 6, quality: None });
        decoder.format = format;
        let mut out = Vec::new();
        encoder.put_rect(rect, &[0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0], &mut out);
        decoder.rect(rect, 16, &mut Bytes(&out[12..]));
        assert_eq!(decoder.pixels[0], client_value(format, 0x00ff_0000));
    }
}
