//! What all clients were told of: a copy of the surface, so that only real changes are sent.

use crate::ui::{Rect, Surface};

use super::tiles::TileMap;

/// The copy.
pub(super) struct Screen(Surface);

impl Screen {
    /// A copy of nothing: kept while nobody watches.
    pub(super) fn empty() -> Self {
        Self(Surface::new(1, 1))
    }

    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.0.width(), self.0.height())
    }

    /// Takes over a whole surface.
    pub(super) fn replace(&mut self, surface: &Surface) {
        self.0 = surface.clone();
    }

    /// Takes over what changed in some parts of a surface of the same size; returns the tiles that did.
    pub(super) fn update(&mut self, surface: &Surface, rects: &[Rect]) -> Vec<Rect> {
        let map = TileMap::new(surface.width(), surface.height());
        let width = surface.width() as usize;
        let (new, old) = (surface.pixels(), self.0.pixels_mut());
        let mut changed = Vec::new();
        for tile in rects.iter().flat_map(|rect| map.tiles(*rect)) {
            let lines = (tile.y..tile.y + tile.height).map(|y| {
                let start = y as usize * width + tile.x as usize;
                start..start + tile.width as usize
            });
            let mut differs = false;
            for line in lines {
                if old[line.clone()] != new[line.clone()] {
                    old[line.clone()].copy_from_slice(&new[line]);
                    differs = true;
                }
            }
            if differs {
                changed.push(tile);
            }
        }
        changed
    }

    /// The pixels of a part; black where the screen has none.
    pub(super) fn copy(&self, rect: Rect, pixels: &mut Vec<u32>) {
        pixels.clear();
        for y in rect.y..rect.y + rect.height {
            let line = self.0.line(y);
            let start = (rect.x as usize).min(line.len());
            let end = (start + rect.width as usize).min(line.len());
            pixels.extend_from_slice(&line[start..end]);
            pixels.resize(pixels.len() + rect.width as usize - (end - start), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiles_with_other_pixels_count_as_changed() {
        let mut surface = Surface::new(64, 64);
        let mut screen = Screen::empty();
        screen.replace(&surface);
        surface.line_mut(20)[20] = 1;
        assert_eq!(screen.update(&surface, &[surface.bounds()]), [Rect { x: 16, y: 16, width: 16, height: 16 }]);
        assert_eq!(screen.update(&surface, &[surface.bounds()]), []);
    }

    #[test]
    fn pixels_outside_are_black() {
        let mut surface = Surface::new(2, 2);
        surface.pixels_mut().fill(7);
        let mut screen = Screen::empty();
        screen.replace(&surface);
        let mut pixels = Vec::new();
        screen.copy(Rect { x: 1, y: 1, width: 2, height: 2 }, &mut pixels);
        assert_eq!(pixels, [7, 0, 0, 0]);
        screen.copy(Rect { x: 9, y: 9, width: 1, height: 1 }, &mut pixels);
        assert_eq!(pixels, [0]);
    }
}
