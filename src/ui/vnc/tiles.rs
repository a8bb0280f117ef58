//! Which tiles of a client's picture differ from what it was sent.

use crate::ui::Rect;

/// A tile's side in pixels.
pub(super) const TILE: u32 = 16;
/// Widest rectangle that Tight may send (Tight encoding: "at most 2048 pixels wide").
const MAX_RECT_WIDTH: u32 = 2048;
/// Largest rectangle: bounds the memory of an encoder.
const MAX_RECT_PIXELS: u32 = 65536;
/// Above this many rectangles whole spans of lines are cheaper than exact ones.
const MAX_EXACT_RECTS: usize = 2048;

/// One bit for every tile of a picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TileMap {
    width: u32,
    height: u32,
    columns: u32,
    rows: u32,
    bits: Vec<bool>,
    count: usize,
}

/// Tiles from `x0` to `x1`, `y0` to `y1`; the ends are not in it.
#[derive(Clone, Copy)]
struct Span {
    x0: u32,
    x1: u32,
    y0: u32,
    y1: u32,
}

impl TileMap {
    /// A map of a picture of this size: nothing is dirty.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let (columns, rows) = (width.div_ceil(TILE), height.div_ceil(TILE));
        Self { width, height, columns, rows, bits: vec![false; columns as usize * rows as usize], count: 0 }
    }

    /// The picture's width in pixels.
    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// The picture's height in pixels.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The whole picture.
    pub(super) fn bounds(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// The tiles that a part of the picture touches; parts outside the picture touch none.
    fn span(&self, rect: Rect) -> Span {
        let end = |start: u32, length: u32, limit: u32| start.saturating_add(length).min(limit).div_ceil(TILE);
        let (x1, y1) = (end(rect.x, rect.width, self.width), end(rect.y, rect.height, self.height));
        let empty = rect.width == 0 || rect.height == 0 || rect.x >= self.width || rect.y >= self.height;
        let (x0, y0) = if empty { (x1, y1) } else { (rect.x / TILE, rect.y / TILE) };
        Span { x0, x1, y0, y1 }
    }

    /// The parts of the picture, tile by tile, that `rect` touches.
    pub(super) fn tiles(&self, rect: Rect) -> impl Iterator<Item = Rect> + use<> {
        let Span { x0, x1, y0, y1 } = self.span(rect);
        let (width, height) = (self.width, self.height);
        (y0..y1).flat_map(move |row| {
            (x0..x1).map(move |column| {
                let (x, y) = (column * TILE, row * TILE);
                Rect { x, y, width: TILE.min(width - x), height: TILE.min(height - y) }
            })
        })
    }

    fn index(&self, column: u32, row: u32) -> usize {
        row as usize * self.columns as usize + column as usize
    }

    fn is_set(&self, column: u32, row: u32) -> bool {
        self.bits[self.index(column, row)]
    }

    fn clear(&mut self, span: Span) {
        for row in span.y0..span.y1 {
            for column in span.x0..span.x1 {
                let index = self.index(column, row);
                if std::mem::replace(&mut self.bits[index], false) {
                    self.count -= 1;
                }
            }
        }
    }

    /// Marks all tiles that a part of the picture touches.
    pub(super) fn mark(&mut self, rect: Rect) {
        let Span { x0, x1, y0, y1 } = self.span(rect);
        for row in y0..y1 {
            for column in x0..x1 {
                let index = self.index(column, row);
                if !std::mem::replace(&mut self.bits[index], true) {
                    self.count += 1;
                }
            }
        }
    }

    /// Marks everything.
    pub(super) fn mark_all(&mut self) {
        self.bits.fill(true);
        self.count = self.bits.len();
    }

    /// Whether a tile that `region` touches is marked.
    pub(super) fn is_dirty_in(&self, region: Rect) -> bool {
        let Span { x0, x1, y0, y1 } = self.span(region);
        self.count > 0 && (y0..y1).any(|row| (x0..x1).any(|column| self.is_set(column, row)))
    }

    /// Takes the marked tiles that `region` touches, as rectangles that do not overlap and that an encoder can take.
    pub(super) fn take(&mut self, region: Rect) -> Vec<Rect> {
        let whole = self.span(region);
        let mut rects = Vec::new();
        for row in whole.y0..whole.y1 {
            let mut column = whole.x0;
            while self.count > 0 && column < whole.x1 {
                if !self.is_set(column, row) {
                    column += 1;
                    continue;
                }
                let run = if rects.len() < MAX_EXACT_RECTS {
                    self.run(column, row, whole)
                } else {
                    Span { x0: column, y0: row, y1: row + 1, ..whole }
                };
                self.clear(run);
                self.split(run, &mut rects);
                column = run.x1;
            }
        }
        rects
    }

    /// The marked tiles right of one, and all lines below that are marked as far.
    fn run(&self, column: u32, row: u32, whole: Span) -> Span {
        let mut run = Span { x0: column, x1: column + 1, y0: row, y1: row + 1 };
        while run.x1 < whole.x1 && self.is_set(run.x1, row) {
            run.x1 += 1;
        }
        while run.y1 < whole.y1 && (run.x0..run.x1).all(|column| self.is_set(column, run.y1)) {
            run.y1 += 1;
        }
        run
    }

    /// Pixels of a span, in pieces that are not too large.
    fn split(&self, span: Span, rects: &mut Vec<Rect>) {
        let (right, bottom) = ((span.x1 * TILE).min(self.width), (span.y1 * TILE).min(self.height));
        let mut x = span.x0 * TILE;
        while x < right {
            let width = (right - x).min(MAX_RECT_WIDTH);
            let lines = (MAX_RECT_PIXELS / width / TILE * TILE).max(TILE);
            let mut y = span.y0 * TILE;
            while y < bottom {
                let height = (bottom - y).min(lines);
                rects.push(Rect { x, y, width, height });
                y += height;
            }
            x += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn nothing_is_dirty_at_first() {
        let mut map = TileMap::new(100, 100);
        assert!(!map.is_dirty_in(map.bounds()));
        assert_eq!(map.take(map.bounds()), []);
    }

    #[test]
    fn a_pixel_dirties_its_tile_and_is_taken_once() {
        let mut map = TileMap::new(100, 100);
        map.mark(rect(20, 40, 1, 1));
        assert_eq!(map.take(map.bounds()), [rect(16, 32, 16, 16)]);
        assert_eq!(map.take(map.bounds()), []);
    }

    #[test]
    fn the_last_tiles_are_cut_at_the_edge() {
        let mut map = TileMap::new(100, 50);
        map.mark_all();
        assert_eq!(map.take(map.bounds()), [rect(0, 0, 100, 50)]);
    }

    #[test]
    fn only_the_region_is_taken() {
        let mut map = TileMap::new(64, 64);
        map.mark_all();
        assert_eq!(map.take(rect(0, 0, 16, 16)), [rect(0, 0, 16, 16)]);
        assert!(map.is_dirty_in(rect(16, 0, 1, 1)));
        assert!(!map.is_dirty_in(rect(0, 0, 16, 16)));
    }

    #[test]
    fn a_region_outside_holds_nothing() {
        let mut map = TileMap::new(64, 64);
        map.mark_all();
        assert!(!map.is_dirty_in(rect(64, 0, 10, 10)));
        assert!(!map.is_dirty_in(rect(0, 0, 0, 10)));
        assert_eq!(map.take(rect(u32::MAX, u32::MAX, u32::MAX, u32::MAX)), []);
        map.mark(rect(u32::MAX, 3, u32::MAX, 5));
    }

    #[test]
    fn neighbours_become_one_rectangle_downwards() {
        let mut map = TileMap::new(160, 160);
        map.mark(rect(16, 16, 48, 32));
        map.mark(rect(112, 16, 16, 16));
        assert_eq!(map.take(map.bounds()), [rect(16, 16, 48, 32), rect(112, 16, 16, 16)]);
    }

    #[test]
    fn large_parts_are_split_and_cover_everything() {
        let mut map = TileMap::new(5000, 3000);
        map.mark_all();
        let rects = map.take(map.bounds());
        assert!(rects.iter().all(|rect| rect.width <= 2048 && rect.width * rect.height <= 65536));
        assert_eq!(rects.iter().map(|rect| rect.width * rect.height).sum::<u32>(), 5000 * 3000);
    }

    #[test]
    fn a_chessboard_does_not_become_too_many_rectangles() {
        let mut map = TileMap::new(16384, 16384);
        for row in 0..1024 {
            for column in 0..512 {
                map.mark(rect((column * 2 + row % 2) * 16, row * 16, 1, 1));
            }
        }
        let rects = map.take(map.bounds());
        assert!(rects.len() < 65535 / 2);
        assert!(!map.is_dirty_in(map.bounds()));
    }
}
