//! Text consoles: a terminal drawn into a surface, the back end of `-chardev vc`.
//!
//! The terminal understands what VT100, VT220 and xterm programs use: cursor movement, erasing, colours, the scroll
//! region, tabs, the alternate screen, line drawing characters and UTF-8. Not modelled: 132 columns, double-size
//! lines, characters two cells wide (they take one), combining marks (they are dropped) and blinking.
//!
//! Ctrl with the up and down keys scrolls back by a line, Ctrl or Shift with the page keys by ten; the next key that
//! is typed shows the present again.
//!
//! Documents: ECMA-48 (5th edition), DEC VT100 and VT220 user guides, xterm's *Control Sequences*.

mod font;
mod grid;
mod keys;
mod parser;
mod terminal;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::display::{ConsoleKind, ConsoleSource, Refresh};
use super::input::KeyEvent;
use super::surface::{Rect, Surface};
use font::{FONT, GLYPH_LINES};
use grid::Cell;
use keys::{Key, KeyModes, Modifiers};
use terminal::Terminal;

const CELL_WIDTH: u32 = 8;
const CELL_HEIGHT: u32 = 16;

/// The size of a text console, in pixels: whole cells, and a border to the right and below if they do not fill it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextSize {
    width: u32,
    height: u32,
}

impl Default for TextSize {
    /// QEMU's: 80 columns and 24 rows.
    fn default() -> Self {
        Self::cells(80, 24)
    }
}

impl TextSize {
    /// So many columns and rows; at least one, at most 1024 of each.
    #[must_use]
    pub fn cells(columns: u32, rows: u32) -> Self {
        Self { width: columns.clamp(1, 1024) * CELL_WIDTH, height: rows.clamp(1, 1024) * CELL_HEIGHT }
    }

    /// So many pixels; at least a cell's, at most 8192x8192.
    #[must_use]
    pub fn pixels(width: u32, height: u32) -> Self {
        Self { width: width.clamp(CELL_WIDTH, 8192), height: height.clamp(CELL_HEIGHT, 8192) }
    }

    /// The size that `vc`'s options ask for: pixels win over cells, and what is not given is the default's.
    #[must_use]
    pub fn of(width: Option<u32>, height: Option<u32>, columns: Option<u32>, rows: Option<u32>) -> Self {
        let default = Self::default();
        let side = |pixels: Option<u32>, cells: Option<u32>, cell: u32, default: u32| {
            let asked = pixels.or_else(|| cells.map(|cells| cells.saturating_mul(cell)));
            asked.filter(|side| *side != 0).unwrap_or(default)
        };
        Self::pixels(side(width, columns, CELL_WIDTH, default.width), side(height, rows, CELL_HEIGHT, default.height))
    }
}

/// A cell as it was drawn, with the cursor's and the screen's inversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Drawn {
    character: char,
    ink: u32,
    paper: u32,
    underlined: bool,
}

struct State {
    terminal: Terminal,
    modifiers: Modifiers,
    echo: bool,
    /// The output or the view changed since the last refresh.
    changed: bool,
    /// What the surface shows, row by row.
    drawn: Vec<Option<Drawn>>,
}

/// Takes what is typed at a console; it is called without a lock held, on any thread.
pub type TextInput = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A text console.
pub struct TextConsole {
    size: TextSize,
    input: TextInput,
    state: Mutex<State>,
}

impl fmt::Debug for TextConsole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextConsole({}x{})", self.size.width, self.size.height)
    }
}

impl TextConsole {
    /// A console that shows "`label` console" on blue, as QEMU's do, if it has a label. `input` takes what is typed
    /// and what the terminal answers.
    #[must_use]
    pub fn new(size: TextSize, label: Option<&str>, input: TextInput) -> Self {
        let (columns, rows) = ((size.width / CELL_WIDTH) as usize, (size.height / CELL_HEIGHT) as usize);
        let state = State {
            terminal: Terminal::new(columns, rows),
            modifiers: Modifiers::default(),
            echo: false,
            changed: true,
            drawn: Vec::new(),
        };
        let console = Self { size, input, state: Mutex::new(state) };
        if let Some(label) = label {
            console.write(format!("\x1b[44m{label} console\r\n\x1b[0m").as_bytes());
        }
        console
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A terminal's state stays usable if a holder panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes output.
    pub fn write(&self, bytes: &[u8]) {
        let replies = {
            let mut state = self.state();
            state.changed = true;
            state.terminal.write(bytes)
        };
        if !replies.is_empty() {
            (self.input)(&replies);
        }
    }

    /// Whether what is typed is also shown, by the console itself.
    pub fn set_echo(&self, echo: bool) {
        self.state().echo = echo;
    }

    /// The text on the screen, row by row without trailing spaces.
    #[must_use]
    pub fn text(&self) -> Vec<String> {
        let state = self.state();
        (0..state.terminal.rows())
            .map(|row| {
                let line: String = state.terminal.seen(row).iter().map(|cell| cell.character).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }
}

impl ConsoleSource for TextConsole {
    fn kind(&self) -> ConsoleKind {
        ConsoleKind::Text
    }

    fn refresh(&self, surface: &mut Surface, all: bool) -> Refresh {
        let mut state = self.state();
        let resized = (surface.width(), surface.height()) != (self.size.width, self.size.height);
        if resized {
            *surface = Surface::new(self.size.width, self.size.height);
        } else if all {
            surface.pixels_mut().fill(0);
        }
        if all || resized {
            state.drawn.clear();
            state.changed = true;
        }
        if !std::mem::replace(&mut state.changed, false) {
            return Refresh::Changed(Vec::new());
        }
        let rects = state.draw(surface);
        if resized { Refresh::Resized } else { Refresh::Changed(rects) }
    }

    fn key(&self, event: KeyEvent) {
        let (bytes, echoed) = {
            let mut state = self.state();
            let State { terminal, modifiers, echo, changed, .. } = &mut *state;
            let modes =
                KeyModes { application_cursor: terminal.has_application_keys(), newline: terminal.has_newline_mode() };
            match modifiers.key(event, modes) {
                Key::None => return,
                Key::Scroll(lines) => {
                    terminal.scroll_view(lines);
                    *changed = true;
                    return;
                }
                Key::Send(bytes) => {
                    terminal.show_present();
                    *changed = true;
                    (bytes, *echo)
                }
            }
        };
        if echoed {
            let shown: Vec<u8> = bytes
                .iter()
                .flat_map(|byte| if *byte == b'\r' { b"\r\n".as_slice() } else { std::slice::from_ref(byte) })
                .copied()
                .collect();
            self.write(&shown);
        }
        (self.input)(&bytes);
    }
}

impl State {
    /// Draws the cells that differ from what the surface shows.
    fn draw(&mut self, surface: &mut Surface) -> Vec<Rect> {
        let (columns, rows) = (self.terminal.columns(), self.terminal.rows());
        self.drawn.resize(columns * rows, None);
        let cursor = self.terminal.seen_cursor();
        let reverse = self.terminal.is_reverse();
        let mut rects: Vec<Rect> = Vec::new();
        for (y, shown) in self.drawn.chunks_exact_mut(columns).enumerate() {
            let mut changed: Option<(usize, usize)> = None;
            for (x, (cell, shown)) in self.terminal.seen(y).iter().zip(shown).enumerate() {
                let new = drawn(*cell, reverse != (cursor == Some((x, y))));
                if *shown == Some(new) {
                    continue;
                }
                *shown = Some(new);
                draw_cell(surface, x, y, new);
                changed = Some((changed.map_or(x, |(first, _)| first), x));
            }
            if let Some((first, last)) = changed {
                let pixels = |cells: usize, cell: u32| u32::try_from(cells).unwrap_or(0) * cell;
                rects.push(Rect {
                    x: pixels(first, CELL_WIDTH),
                    y: pixels(y, CELL_HEIGHT),
                    width: pixels(last + 1 - first, CELL_WIDTH),
                    height: CELL_HEIGHT,
                });
            }
        }
        rects
    }
}

fn drawn(cell: Cell, inverse: bool) -> Drawn {
    let (ink, paper) = cell.style.pixels();
    let (ink, paper) = if inverse { (paper, ink) } else { (ink, paper) };
    Drawn { character: cell.character, ink, paper, underlined: cell.style.underlined }
}

fn draw_cell(surface: &mut Surface, column: usize, row: usize, cell: Drawn) {
    let left = column * CELL_WIDTH as usize;
    let lines = (row * GLYPH_LINES..).zip(FONT.glyph(cell.character)).enumerate();
    for (line, (y, bits)) in lines {
        let bits = if cell.underlined && line == GLYPH_LINES - 2 { 0xff } else { *bits };
        let target = u32::try_from(y).map_or(&mut [][..], |y| surface.line_mut(y));
        for (x, pixel) in target.iter_mut().skip(left).take(CELL_WIDTH as usize).enumerate() {
            *pixel = if bits << x & 0x80 != 0 { cell.ink } else { cell.paper };
        }
    }
}
