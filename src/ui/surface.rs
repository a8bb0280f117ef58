//! A picture: what a graphics adapter or a text console shows.

/// Part of a surface, in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// A picture of 0x00RRGGBB pixels, line by line without gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surface {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

/// Larger surfaces cannot be asked for by any guest: 16 MiB of display memory holds none.
const MAX_SIDE: u32 = 16384;

impl Surface {
    /// A black picture. Sides are limited to 1-16384 pixels.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
        Self { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All pixels, line by line.
    #[must_use]
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }

    /// All pixels, line by line.
    pub fn pixels_mut(&mut self) -> &mut [u32] {
        &mut self.pixels
    }

    /// One line of pixels; empty below the picture.
    #[must_use]
    pub fn line(&self, y: u32) -> &[u32] {
        let width = self.width as usize;
        self.pixels.get(y as usize * width..(y as usize + 1) * width).unwrap_or_default()
    }

    /// One line of pixels; empty below the picture.
    pub fn line_mut(&mut self, y: u32) -> &mut [u32] {
        let width = self.width as usize;
        self.pixels.get_mut(y as usize * width..(y as usize + 1) * width).unwrap_or_default()
    }

    /// The whole picture.
    #[must_use]
    pub fn bounds(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }
}

/// A pointer image that a guest's adapter draws in hardware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The pixel that points.
    pub hot_x: u32,
    /// The pixel that points.
    pub hot_y: u32,
    /// 0xAARRGGBB, line by line.
    pub pixels: Vec<u32>,
}
