//! The terminal: what the stream does to the screen.

use super::grid::{Cell, Color, Grid, Style};
use super::parser::{Action, Csi, Parser};

/// The character set that SO, SI and ESC ( choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Charset {
    Ascii,
    /// DEC special graphics: lines in place of small letters.
    Graphics,
}

/// What ESC 7 keeps.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    x: usize,
    y: usize,
    /// The last column was printed in; the next character goes to the next line.
    wraps: bool,
    style: Style,
    charsets: [Charset; 2],
    shifted: bool,
    origin: bool,
}

impl Cursor {
    const HOME: Self = Self {
        x: 0,
        y: 0,
        wraps: false,
        style: Style::PLAIN,
        charsets: [Charset::Ascii; 2],
        shifted: false,
        origin: false,
    };
}

/// Modes that programs switch.
#[derive(Clone, Copy, Debug)]
struct Modes {
    wrap: bool,
    insert: bool,
    newline: bool,
    cursor_keys: bool,
    cursor_shown: bool,
    reverse: bool,
}

impl Modes {
    const INITIAL: Self =
        Self { wrap: true, insert: false, newline: false, cursor_keys: false, cursor_shown: true, reverse: false };
}

/// A terminal of a fixed size.
#[derive(Debug)]
pub(super) struct Terminal {
    columns: usize,
    rows: usize,
    grid: Grid,
    /// The screen that the alternate one hides.
    main: Option<Grid>,
    parser: Parser,
    cursor: Cursor,
    saved: Cursor,
    modes: Modes,
    /// First and last row of the scroll region.
    region: (usize, usize),
    tabs: Vec<bool>,
    last_printed: char,
    /// Lines that the view is moved back by.
    back: usize,
    /// What the terminal answers to its host.
    replies: Vec<u8>,
}

/// Answers that nobody takes must not grow without bound.
const REPLY_LIMIT: usize = 4096;

impl Terminal {
    pub fn new(columns: usize, rows: usize) -> Self {
        let (columns, rows) = (columns.max(1), rows.max(1));
        Self {
            columns,
            rows,
            grid: Grid::new(columns, rows),
            main: None,
            parser: Parser::default(),
            cursor: Cursor::HOME,
            saved: Cursor::HOME,
            modes: Modes::INITIAL,
            region: (0, rows - 1),
            tabs: (0..columns).map(|x| x % 8 == 0).collect(),
            last_printed: ' ',
            back: 0,
            replies: Vec::new(),
        }
    }

    /// Takes output; returns what the terminal answers.
    pub fn write(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut parser = std::mem::take(&mut self.parser);
        for byte in bytes {
            parser.byte(*byte, &mut |action| self.act(action));
        }
        self.parser = parser;
        std::mem::take(&mut self.replies)
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A row of the view.
    pub fn seen(&self, row: usize) -> &[Cell] {
        self.grid.seen(row, self.back)
    }

    /// Where the cursor is in the view, if it is there and on.
    pub fn seen_cursor(&self) -> Option<(usize, usize)> {
        let y = self.cursor.y + self.back;
        (self.modes.cursor_shown && y < self.rows).then_some((self.cursor.x, y))
    }

    /// Whether the whole screen has ink and paper exchanged.
    pub fn is_reverse(&self) -> bool {
        self.modes.reverse
    }

    /// Whether cursor keys send application sequences.
    pub fn has_application_keys(&self) -> bool {
        self.modes.cursor_keys
    }

    /// Whether Return sends a line feed, too.
    pub fn has_newline_mode(&self) -> bool {
        self.modes.newline
    }

    /// Moves the view back (positive) or forth in the history.
    pub fn scroll_view(&mut self, lines: isize) {
        self.back = self.back.saturating_add_signed(lines).min(self.grid.history_len());
    }

    /// Moves the view to the present.
    pub fn show_present(&mut self) {
        self.back = 0;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Print(c) => self.print(c),
            Action::Control(code) => self.control(code),
            Action::Escape { intermediate, last } => self.escape(intermediate, last),
            Action::Csi(csi) => self.csi(&csi),
        }
    }

    fn print(&mut self, c: char) {
        if matches!(c, '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}') {
            // Combining marks and characters without width have no cell.
            return;
        }
        let c = match self.cursor.charsets[usize::from(self.cursor.shifted)] {
            Charset::Ascii => c,
            Charset::Graphics => graphics(c),
        };
        if self.cursor.wraps && self.modes.wrap {
            self.cursor.x = 0;
            self.line_feed();
        }
        self.cursor.wraps = false;
        let Cursor { x, y, style, .. } = self.cursor;
        let row = self.grid.row(y);
        if self.modes.insert && x < row.len() {
            row[x..].rotate_right(1);
        }
        if let Some(cell) = row.get_mut(x) {
            *cell = Cell { character: c, style };
        }
        self.last_printed = c;
        if x + 1 < self.columns {
            self.cursor.x += 1;
        } else {
            self.cursor.wraps = true;
        }
    }

    fn control(&mut self, code: u8) {
        match code {
            0x08 => self.move_to(self.cursor.x.saturating_sub(1), self.cursor.y),
            b'\t' => self.tab(1),
            b'\n' | 0x0b | 0x0c => {
                self.line_feed();
                if self.modes.newline {
                    self.move_to(0, self.cursor.y);
                }
            }
            b'\r' => self.move_to(0, self.cursor.y),
            0x0e => self.cursor.shifted = true,
            0x0f => self.cursor.shifted = false,
            _ => {}
        }
    }

    fn escape(&mut self, intermediate: u8, last: u8) {
        let charset = if last == b'0' { Charset::Graphics } else { Charset::Ascii };
        match (intermediate, last) {
            (0, b'7') => self.saved = self.cursor,
            (0, b'8') => self.restore_cursor(),
            (0, b'D') => self.line_feed(),
            (0, b'E') => {
                self.line_feed();
                self.move_to(0, self.cursor.y);
            }
            (0, b'H') => {
                if let Some(stop) = self.tabs.get_mut(self.cursor.x) {
                    *stop = true;
                }
            }
            (0, b'M') => self.reverse_line_feed(),
            (0, b'Z') => self.reply(b"\x1b[?1;2c"),
            (0, b'c') => self.reset(),
            (b'(', _) => self.cursor.charsets[0] = charset,
            (b')', _) => self.cursor.charsets[1] = charset,
            (b'#', b'8') => self.grid.fill(Cell { character: 'E', style: Style::PLAIN }),
            _ => {}
        }
    }

    fn csi(&mut self, csi: &Csi) {
        let (n, Cursor { x, y, .. }) = (csi.count(0), self.cursor);
        match (csi.private, csi.intermediate, csi.last) {
            (0, 0, b'@') => self.insert_cells(n),
            (0, 0, b'A') => self.move_vertically(y.saturating_sub(n), x),
            (0, 0, b'B' | b'e') => self.move_vertically(y.saturating_add(n), x),
            (0, 0, b'C' | b'a') => self.move_to(x.saturating_add(n), y),
            (0, 0, b'D') => self.move_to(x.saturating_sub(n), y),
            (0, 0, b'E') => self.move_vertically(y.saturating_add(n), 0),
            (0, 0, b'F') => self.move_vertically(y.saturating_sub(n), 0),
            (0, 0, b'G' | b'`') => self.move_to(n - 1, y),
            (0, 0, b'H' | b'f') => self.address(csi.count(1) - 1, n - 1),
            (0, 0, b'I') => self.tab(n),
            (_, 0, b'J') => self.erase_display(csi.value(0)),
            (_, 0, b'K') => self.erase_line(csi.value(0)),
            (0, 0, b'L') => self.insert_lines(n),
            (0, 0, b'M') => self.delete_lines(n),
            (0, 0, b'P') => self.delete_cells(n),
            (0, 0, b'S') => self.scroll(n),
            (0, 0, b'T') => self.scroll_back(n),
            (0, 0, b'X') => {
                let blank = Cell::erased(self.cursor.style);
                self.grid.row(y).iter_mut().skip(x).take(n).for_each(|cell| *cell = blank);
            }
            (0, 0, b'Z') => self.back_tab(n),
            (0, 0, b'b') => (0..n.min(self.columns * self.rows)).for_each(|_| self.print(self.last_printed)),
            (0, 0, b'c') => self.reply(b"\x1b[?1;2c"),
            (b'>', 0, b'c') => self.reply(b"\x1b[>1;10;0c"),
            (0, 0, b'd') => self.address(x, n - 1),
            (0, 0, b'g') => self.clear_tabs(csi.value(0)),
            (0, 0, b'h' | b'l') => {
                csi.values().iter().for_each(|mode| self.set_mode(*mode, csi.last == b'h'));
            }
            (b'?', 0, b'h' | b'l') => {
                csi.values().iter().for_each(|mode| self.set_private_mode(*mode, csi.last == b'h'));
            }
            (0, 0, b'm') => self.set_style(csi.values()),
            (_, 0, b'n') => self.report(csi.value(0)),
            (0, b'!', b'p') => self.soft_reset(),
            (0, 0, b'r') => self.set_region(csi.value(0), csi.value(1)),
            (0, 0, b's') => self.saved = self.cursor,
            (0, 0, b'u') => self.restore_cursor(),
            _ => {}
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        if self.replies.len() < REPLY_LIMIT {
            self.replies.extend_from_slice(bytes);
        }
    }

    fn report(&mut self, what: u16) {
        match what {
            5 => self.reply(b"\x1b[0n"),
            6 => {
                let top = if self.cursor.origin { self.region.0 } else { 0 };
                let position = format!("\x1b[{};{}R", self.cursor.y.saturating_sub(top) + 1, self.cursor.x + 1);
                self.reply(position.as_bytes());
            }
            _ => {}
        }
    }

    // -- the cursor ----------------------------------------------------------------------------------------------

    fn move_to(&mut self, x: usize, y: usize) {
        self.cursor.x = x.min(self.columns - 1);
        self.cursor.y = y.min(self.rows - 1);
        self.cursor.wraps = false;
    }

    /// A relative move does not leave the scroll region.
    fn move_vertically(&mut self, y: usize, x: usize) {
        let (top, bottom) = self.region;
        let lowest = if self.cursor.y <= bottom { bottom } else { self.rows - 1 };
        let highest = if self.cursor.y >= top { top } else { 0 };
        self.move_to(x, y.clamp(highest, lowest));
    }

    /// An absolute move; in origin mode it counts from the scroll region.
    fn address(&mut self, x: usize, y: usize) {
        let (top, bottom) = self.region;
        let y = if self.cursor.origin { y.saturating_add(top).min(bottom) } else { y };
        self.move_to(x, y);
    }

    fn restore_cursor(&mut self) {
        self.cursor = self.saved;
    }

    fn line_feed(&mut self) {
        let (top, bottom) = self.region;
        if self.cursor.y == bottom {
            let keeps = top == 0 && self.main.is_none();
            self.scroll_up(top, bottom, keeps);
        } else {
            self.cursor.y = (self.cursor.y + 1).min(self.rows - 1);
        }
        self.cursor.wraps = false;
    }

    fn reverse_line_feed(&mut self) {
        if self.cursor.y == self.region.0 {
            self.grid.scroll_down(self.region.0, self.region.1, Cell::erased(self.cursor.style));
        } else {
            self.cursor.y = self.cursor.y.saturating_sub(1);
        }
        self.cursor.wraps = false;
    }

    fn tab(&mut self, n: usize) {
        for _ in 0..n.min(self.columns) {
            let next = (self.cursor.x + 1..self.columns).find(|x| self.tabs[*x]);
            self.move_to(next.unwrap_or(self.columns - 1), self.cursor.y);
        }
    }

    fn back_tab(&mut self, n: usize) {
        for _ in 0..n.min(self.columns) {
            let next = (0..self.cursor.x).rev().find(|x| self.tabs[*x]);
            self.move_to(next.unwrap_or(0), self.cursor.y);
        }
    }

    fn clear_tabs(&mut self, which: u16) {
        match which {
            0 => {
                if let Some(stop) = self.tabs.get_mut(self.cursor.x) {
                    *stop = false;
                }
            }
            3 => self.tabs.fill(false),
            _ => {}
        }
    }

    // -- the screen ----------------------------------------------------------------------------------------------

    fn scroll_up(&mut self, top: usize, bottom: usize, keeps: bool) {
        self.grid.scroll_up(top, bottom, keeps, Cell::erased(self.cursor.style));
        if keeps && self.back > 0 {
            // The view stays on what it shows, until that leaves the history.
            self.back = (self.back + 1).min(self.grid.history_len());
        }
    }

    fn scroll(&mut self, n: usize) {
        let (top, bottom) = self.region;
        (0..n.min(self.rows)).for_each(|_| self.scroll_up(top, bottom, false));
    }

    fn scroll_back(&mut self, n: usize) {
        let (top, bottom) = self.region;
        let blank = Cell::erased(self.cursor.style);
        (0..n.min(self.rows)).for_each(|_| self.grid.scroll_down(top, bottom, blank));
    }

    fn insert_lines(&mut self, n: usize) {
        let (top, bottom) = self.region;
        let blank = Cell::erased(self.cursor.style);
        if (top..=bottom).contains(&self.cursor.y) {
            (0..n.min(self.rows)).for_each(|_| self.grid.scroll_down(self.cursor.y, bottom, blank));
        }
    }

    fn delete_lines(&mut self, n: usize) {
        let (top, bottom) = self.region;
        if (top..=bottom).contains(&self.cursor.y) {
            (0..n.min(self.rows)).for_each(|_| self.scroll_up(self.cursor.y, bottom, false));
        }
    }

    fn insert_cells(&mut self, n: usize) {
        let Cursor { x, y, style, .. } = self.cursor;
        let row = &mut self.grid.row(y)[x..];
        let n = n.min(row.len());
        row.rotate_right(n);
        row[..n].fill(Cell::erased(style));
    }

    fn delete_cells(&mut self, n: usize) {
        let Cursor { x, y, style, .. } = self.cursor;
        let row = &mut self.grid.row(y)[x..];
        let n = n.min(row.len());
        row.rotate_left(n);
        let kept = row.len() - n;
        row[kept..].fill(Cell::erased(style));
    }

    fn erase_line(&mut self, which: u16) {
        let Cursor { x, y, style, .. } = self.cursor;
        let row = self.grid.row(y);
        let cells = match which {
            0 => &mut row[x..],
            1 => &mut row[..=x],
            2 => row,
            _ => return,
        };
        cells.fill(Cell::erased(style));
    }

    fn erase_display(&mut self, which: u16) {
        let y = self.cursor.y;
        let rows = match which {
            0 => y + 1..self.rows,
            1 => 0..y,
            2 => 0..self.rows,
            3 => {
                self.grid.forget_history();
                self.back = 0;
                return;
            }
            _ => return,
        };
        if which != 2 {
            self.erase_line(which);
        }
        let blank = Cell::erased(self.cursor.style);
        rows.for_each(|row| self.grid.row(row).fill(blank));
    }

    fn set_region(&mut self, top: u16, bottom: u16) {
        let top = usize::from(top).max(1) - 1;
        let bottom = if bottom == 0 { self.rows } else { usize::from(bottom).min(self.rows) } - 1;
        if top < bottom {
            self.region = (top, bottom);
            self.address(0, 0);
        }
    }

    /// Shows the alternate screen, which has no history, or the main one again.
    fn set_alternate(&mut self, on: bool) {
        self.back = 0;
        if on && self.main.is_none() {
            self.main = Some(std::mem::replace(&mut self.grid, Grid::new(self.columns, self.rows)));
        } else if !on && let Some(main) = self.main.take() {
            self.grid = main;
        }
    }

    // -- modes and style -----------------------------------------------------------------------------------------

    fn set_mode(&mut self, mode: u16, on: bool) {
        match mode {
            4 => self.modes.insert = on,
            20 => self.modes.newline = on,
            _ => {}
        }
    }

    fn set_private_mode(&mut self, mode: u16, on: bool) {
        match mode {
            1 => self.modes.cursor_keys = on,
            5 => self.modes.reverse = on,
            6 => {
                self.cursor.origin = on;
                self.address(0, 0);
            }
            7 => self.modes.wrap = on,
            25 => self.modes.cursor_shown = on,
            47 | 1047 => self.set_alternate(on),
            1048 if on => self.saved = self.cursor,
            1048 => self.restore_cursor(),
            1049 if on => {
                self.saved = self.cursor;
                self.set_alternate(true);
            }
            1049 => {
                self.set_alternate(false);
                self.restore_cursor();
            }
            _ => {}
        }
    }

    fn soft_reset(&mut self) {
        self.modes = Modes { reverse: self.modes.reverse, ..Modes::INITIAL };
        self.region = (0, self.rows - 1);
        self.cursor = Cursor { x: self.cursor.x, y: self.cursor.y, ..Cursor::HOME };
        self.saved = Cursor::HOME;
    }

    fn reset(&mut self) {
        self.set_alternate(false);
        self.soft_reset();
        self.modes = Modes::INITIAL;
        self.cursor = Cursor::HOME;
        self.grid.fill(Cell::BLANK);
        self.tabs = (0..self.columns).map(|x| x % 8 == 0).collect();
    }

    /// Select graphic rendition (ECMA-48 8.3.117; 38 and 48 as in ITU T.416).
    fn set_style(&mut self, values: &[u16]) {
        let mut values = values.iter().copied();
        while let Some(value) = values.next() {
            let style = &mut self.cursor.style;
            let low = |base: u16| Color::Indexed(u8::try_from(value - base).unwrap_or(0));
            match value {
                0 => *style = Style::PLAIN,
                1 => style.bold = true,
                4 => style.underlined = true,
                7 => style.inverse = true,
                8 => style.hidden = true,
                21 | 22 => style.bold = false,
                24 => style.underlined = false,
                27 => style.inverse = false,
                28 => style.hidden = false,
                30..=37 => style.ink = low(30),
                39 => style.ink = Color::Default,
                40..=47 => style.paper = low(40),
                49 => style.paper = Color::Default,
                90..=97 => style.ink = low(82),
                100..=107 => style.paper = low(92),
                38 => style.ink = extended(&mut values).unwrap_or(style.ink),
                48 => style.paper = extended(&mut values).unwrap_or(style.paper),
                _ => {}
            }
        }
    }
}

/// The colour after 38 or 48: `5;n` or `2;r;g;b`.
fn extended(values: &mut impl Iterator<Item = u16>) -> Option<Color> {
    let mut byte = || values.next().map(|value| u8::try_from(value).unwrap_or(u8::MAX));
    match byte()? {
        5 => byte().map(Color::Indexed),
        2 => {
            let parts = [byte()?, byte()?, byte()?];
            Some(Color::Rgb(parts.iter().fold(0, |pixel, part| pixel << 8 | u32::from(*part))))
        }
        _ => None,
    }
}

/// DEC special graphics (VT100 user guide, table 3-9).
fn graphics(c: char) -> char {
    const TABLE: [char; 31] = [
        '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├', '┤',
        '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
    ];
    u32::from(c).checked_sub(0x60).and_then(|index| TABLE.get(index as usize)).copied().unwrap_or(c)
}
