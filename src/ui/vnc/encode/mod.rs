//! From pixels to rectangles: the encodings of RFC 6143 7.7, zlib and Tight.
//!
//! ZRLE comes from the `rfb-encodings` crate. Its other encoders are not used: hextile, zlib and RRE know 32-bit
//! little-endian pixels only and drop the upper byte, Tight sends palettes and fills in the client's byte order where
//! the specification wants red, green, blue, and its pixel translation takes formats of equal depth for equal.

mod hextile;
mod tight;
mod zlib;

use crate::ui::Rect;

use super::format::{Format, Translator};
use super::message::encoding;
use tight::Tight;
use zlib::Deflate;

/// An encoding of rectangles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Raw,
    Hextile,
    Zlib,
    Zrle,
    Tight,
}

impl Kind {
    /// The encoding of this number, if we have it.
    pub(super) fn from_number(number: i32) -> Option<Self> {
        match number {
            encoding::RAW => Some(Self::Raw),
            encoding::HEXTILE => Some(Self::Hextile),
            encoding::ZLIB => Some(Self::Zlib),
            encoding::ZRLE => Some(Self::Zrle),
            encoding::TIGHT => Some(Self::Tight),
            _ => None,
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Raw => encoding::RAW,
            Self::Hextile => encoding::HEXTILE,
            Self::Zlib => encoding::ZLIB,
            Self::Zrle => encoding::ZRLE,
            Self::Tight => encoding::TIGHT,
        }
    }
}

/// How a client wants rectangles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub(super) kind: Kind,
    pub(super) format: Format,
    /// zlib's level, 0-9.
    pub(super) level: u8,
    /// JPEG's quality, 0-9, if pictures may be lossy.
    pub(super) quality: Option<u8>,
}

impl Wish {
    /// What a client gets that wishes nothing.
    pub(super) const DEFAULT: Self = Self { kind: Kind::Raw, format: Format::NATIVE, level: 1, quality: None };
}

/// Encodes rectangles for one client; holds its compression streams.
pub(super) struct Encoder {
    wish: Wish,
    translator: Translator,
    zlib: Option<Deflate>,
    zrle: Option<Deflate>,
    tight: Tight,
    scratch: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(wish: Wish) -> Self {
        Self {
            wish,
            translator: Translator::new(wish.format),
            zlib: None,
            zrle: None,
            tight: Tight::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes up other wishes; streams go on.
    pub(super) fn set_wish(&mut self, wish: Wish) {
        if wish.format != self.wish.format {
            self.translator = Translator::new(wish.format);
        }
        self.wish = wish;
    }

    /// The translation into the client's pixels.
    pub(super) fn translator(&self) -> &Translator {
        &self.translator
    }

    /// Appends a rectangle with its header; `pixels` are its own, line by line. Whether the client sees exactly these.
    pub(super) fn put_rect(&mut self, rect: Rect, pixels: &[u32], out: &mut Vec<u8>) -> bool {
        let kind = self.wish.kind;
        put_header(rect, kind.number(), out);
        self.scratch.clear();
        match kind {
            Kind::Raw => self.translator.put(pixels, out),
            Kind::Hextile => hextile::put(&self.translator, rect.width, pixels, out),
            Kind::Zlib => {
                self.translator.put(pixels, &mut self.scratch);
                let stream = self.zlib.get_or_insert_with(|| Deflate::new(self.wish.level));
                put_counted(out, |out| stream.put(&self.scratch, out));
            }
            Kind::Zrle => {
                self.translator.put(pixels, &mut self.scratch);
                let stream = self.zrle.get_or_insert_with(|| Deflate::new(self.wish.level));
                stream.put_zrle(&self.scratch, rect, self.wish.format, out);
            }
            Kind::Tight => return self.tight.put(&self.translator, self.wish, rect, pixels, out),
        }
        true
    }
}

/// Appends what `body` appends behind its length.
fn put_counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a rectangle's header (RFC 6143 7.6.1). Sides of surfaces fit in 16 bits.
pub(super) fn put_header(rect: Rect, encoding: i32, out: &mut Vec<u8>) {
    for side in [rect.x, rect.y, rect.width, rect.height] {
        out.extend_from_slice(&u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
    }
    out.extend_from_slice(&encoding.to_be_bytes());
}
