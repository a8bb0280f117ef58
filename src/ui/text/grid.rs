//! Character cells, their colours, and the screen with its scroll-back.

use std::collections::VecDeque;

/// Lines that can be scrolled back to.
pub(super) const HISTORY_LINES: usize = 512;

/// A cell's colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Color {
    /// The terminal's own.
    Default,
    /// One of 256: 16 named ones, a 6x6x6 cube and greys.
    Indexed(u8),
    /// 0x00RRGGBB.
    Rgb(u32),
}

/// How a cell is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Style {
    pub ink: Color,
    pub paper: Color,
    pub bold: bool,
    pub underlined: bool,
    pub inverse: bool,
    pub hidden: bool,
}

impl Style {
    pub const PLAIN: Self = Self {
        ink: Color::Default,
        paper: Color::Default,
        bold: false,
        underlined: false,
        inverse: false,
        hidden: false,
    };

    /// Ink and paper as 0x00RRGGBB.
    pub fn pixels(self) -> (u32, u32) {
        let ink = match self.ink {
            Color::Default => NAMED[if self.bold { 15 } else { 7 }],
            Color::Indexed(index @ 0..8) if self.bold => indexed(index + 8),
            Color::Indexed(index) => indexed(index),
            Color::Rgb(pixel) => pixel,
        };
        let paper = match self.paper {
            Color::Default => NAMED[0],
            Color::Indexed(index) => indexed(index),
            Color::Rgb(pixel) => pixel,
        };
        let (ink, paper) = if self.inverse { (paper, ink) } else { (ink, paper) };
        (if self.hidden { paper } else { ink }, paper)
    }
}

/// The 16 named colours, as QEMU's consoles show them.
const NAMED: [u32; 16] = [
    0x00_0000, 0xaa_0000, 0x00_aa00, 0xaa_aa00, 0x00_00aa, 0xaa_00aa, 0x00_aaaa, 0xaa_aaaa, 0x55_5555, 0xff_5555,
    0x55_ff55, 0xff_ff55, 0x55_55ff, 0xff_55ff, 0x55_ffff, 0xff_ffff,
];

/// One of the 256 colours of xterm.
fn indexed(index: u8) -> u32 {
    match index {
        0..16 => NAMED[usize::from(index)],
        16..232 => {
            let part = |value: u8| if value == 0 { 0 } else { 55 + 40 * u32::from(value) };
            let cube = index - 16;
            part(cube / 36) << 16 | part(cube / 6 % 6) << 8 | part(cube % 6)
        }
        232.. => (8 + 10 * u32::from(index - 232)) * 0x01_0101,
    }
}

/// A character and how it is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    pub character: char,
    pub style: Style,
}

impl Cell {
    pub const BLANK: Self = Self { character: ' ', style: Style::PLAIN };

    /// What erasing leaves: a space on the present paper.
    pub fn erased(style: Style) -> Self {
        Self { character: ' ', style: Style { paper: style.paper, ..Style::PLAIN } }
    }
}

/// A row of cells.
type Row = Vec<Cell>;

/// The rows of a screen, and those that left it at the top.
#[derive(Debug)]
pub(super) struct Grid {
    columns: usize,
    rows: VecDeque<Row>,
    history: VecDeque<Row>,
}

impl Grid {
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows: vec![vec![Cell::BLANK; columns]; rows].into(), history: VecDeque::new() }
    }

    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    pub fn forget_history(&mut self) {
        self.history.clear();
    }

    /// A row as it is seen with the view moved back by `back` lines.
    pub fn seen(&self, row: usize, back: usize) -> &[Cell] {
        let from_history = back.min(self.history.len());
        let found = match row.checked_sub(from_history) {
            Some(row) => self.rows.get(row),
            None => self.history.get(self.history.len() + row - from_history),
        };
        found.map_or(&[], Vec::as_slice)
    }

    pub fn row(&mut self, row: usize) -> &mut [Cell] {
        self.rows.get_mut(row).map_or(&mut [], Vec::as_mut_slice)
    }

    /// Moves the rows `top..=bottom` up by one; the uppermost goes to the history if asked. The lowest becomes
    /// `blank`.
    pub fn scroll_up(&mut self, top: usize, bottom: usize, keep: bool, blank: Cell) {
        if top > bottom || bottom >= self.rows.len() {
            return;
        }
        let Some(mut gone) = self.rows.remove(top) else { return };
        if keep {
            let mut reused = if self.history.len() >= HISTORY_LINES { self.history.pop_front() } else { None };
            self.history.push_back(gone);
            gone = reused.take().unwrap_or_default();
        }
        gone.clear();
        gone.resize(self.columns, blank);
        self.rows.insert(bottom, gone);
    }

    /// Moves the rows `top..=bottom` down by one; the uppermost becomes `blank`.
    pub fn scroll_down(&mut self, top: usize, bottom: usize, blank: Cell) {
        if top > bottom || bottom >= self.rows.len() {
            return;
        }
        let Some(mut gone) = self.rows.remove(bottom) else { return };
        gone.fill(blank);
        self.rows.insert(top, gone);
    }

    pub fn fill(&mut self, cell: Cell) {
        for row in &mut self.rows {
            row.fill(cell);
        }
    }
}
