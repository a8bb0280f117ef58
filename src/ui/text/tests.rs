//! The console as its program and its user see it.

use std::sync::{Arc, Mutex};

use super::grid::HISTORY_LINES;
use super::*;
use crate::ui::KeyCode;

/// A console and what was typed at it.
struct Bench {
    console: TextConsole,
    typed: Arc<Mutex<Vec<u8>>>,
    surface: Surface,
}

impl Bench {
    fn new(columns: u32, rows: u32) -> Self {
        let typed = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&typed);
        let input = Box::new(move |bytes: &[u8]| sink.lock().unwrap().extend_from_slice(bytes));
        let console = TextConsole::new(TextSize::cells(columns, rows), None, input);
        Self { console, typed, surface: Surface::new(1, 1) }
    }

    /// What a small screen shows after `output`.
    fn shows(output: &str) -> Vec<String> {
        let bench = Self::new(10, 4);
        bench.console.write(output.as_bytes());
        bench.console.text()
    }

    fn keysym(&self, keysym: u32, down: bool) {
        self.console.key(KeyEvent { code: None, keysym, down });
    }

    fn press(&self, keysym: u32) -> Vec<u8> {
        self.keysym(keysym, true);
        self.keysym(keysym, false);
        std::mem::take(&mut self.typed.lock().unwrap())
    }

    fn press_code(&self, code: u8) -> Vec<u8> {
        self.console.key(KeyEvent { code: Some(KeyCode(code)), keysym: 0, down: true });
        self.console.key(KeyEvent { code: Some(KeyCode(code)), keysym: 0, down: false });
        std::mem::take(&mut self.typed.lock().unwrap())
    }

    fn refresh(&mut self) -> Refresh {
        self.console.refresh(&mut self.surface, false)
    }

    fn hash(&self) -> u64 {
        self.surface
            .pixels()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, pixel| (hash ^ u64::from(*pixel)).wrapping_mul(0x100_0000_01b3))
    }
}

#[test]
fn text_wraps_and_scrolls() {
    assert_eq!(Bench::shows("0123456789ab\r\ntwo"), ["0123456789", "ab", "two", ""]);
    assert_eq!(Bench::shows("1\r\n2\r\n3\r\n4\r\n5"), ["2", "3", "4", "5"]);
    // The last column waits for the next character.
    assert_eq!(Bench::shows("0123456789\r\nx"), ["0123456789", "x", "", ""]);
    assert_eq!(Bench::shows("\x1b[?7l0123456789ab"), ["012345678b", "", "", ""]);
}

#[test]
fn the_cursor_moves_and_stays_on_the_screen() {
    assert_eq!(Bench::shows("\x1b[2;3Hx\x1b[99;99Hy\x1b[Hz"), ["z", "  x", "", "         y"]);
    assert_eq!(Bench::shows("ab\x1b[Dc\x1b[2Bd\x1b[A\x1b[5Ge"), ["ac", "    e", "  d", ""]);
    assert_eq!(Bench::shows("\x1b[3d\x1b[4Gx\x1b7\x1b[Hy\x1b8z"), ["y", "", "   xz", ""]);
    assert_eq!(Bench::shows("a\tb\x1b[Zc"), ["a       c", "", "", ""]);
}

#[test]
fn erasing_takes_parts_of_lines_and_of_the_screen() {
    let full = "aaaa\r\nbbbb\r\ncccc";
    let after = |sequence: &str| Bench::shows(&format!("{full}\x1b[2;2H{sequence}"));
    assert_eq!(after("\x1b[K"), ["aaaa", "b", "cccc", ""]);
    assert_eq!(after("\x1b[1K"), ["aaaa", "  bb", "cccc", ""]);
    assert_eq!(after("\x1b[J"), ["aaaa", "b", "", ""]);
    assert_eq!(after("\x1b[1J"), ["", "  bb", "cccc", ""]);
    assert_eq!(after("\x1b[2J"), ["", "", "", ""]);
    assert_eq!(after("\x1b[2P"), ["aaaa", "bb", "cccc", ""]);
    assert_eq!(after("\x1b[@"), ["aaaa", "b bbb", "cccc", ""]);
    assert_eq!(after("\x1b[X"), ["aaaa", "b bb", "cccc", ""]);
    assert_eq!(after("\x1b[L"), ["aaaa", "", "bbbb", "cccc"]);
    assert_eq!(after("\x1b[M"), ["aaaa", "cccc", "", ""]);
}

#[test]
fn the_scroll_region_confines_scrolling() {
    assert_eq!(Bench::shows("a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3H\n*"), ["a", "c", "*", "d"]);
    assert_eq!(Bench::shows("a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[2H\x1bM*"), ["a", "*", "b", "d"]);
    assert_eq!(Bench::shows("a\x1b[2;3r\x1b[?6h\x1b[Hx\x1b[9Hy"), ["a", "x", "y", ""]);
}

#[test]
fn utf8_is_decoded_and_bad_bytes_are_replaced() {
    let b = Bench::new(10, 4);
    b.console.write(b"\xc3\xa9\xe2\x94");
    b.console.write(b"\x80\xff\xc3A\xe0\x80\x80");
    assert_eq!(b.console.text()[0], "é─\u{fffd}\u{fffd}A\u{fffd}");
}

#[test]
fn dec_graphics_draw_lines() {
    assert_eq!(Bench::shows("\x1b(0lqk\x1b(Bq\x1b)0\x0ex\x0fx")[0], "┌─┐q│x");
}

#[test]
fn the_alternate_screen_leaves_the_main_one_alone() {
    assert_eq!(Bench::shows("main\x1b[?1049h\x1b[Hother\x1b[?1049l!")[0], "main!");
    assert_eq!(Bench::shows("main\x1b[?1049h\x1b[Hother")[0], "other");
}

#[test]
fn strings_and_unknown_sequences_leave_nothing() {
    assert_eq!(Bench::shows("a\x1b]0;title\x07b\x1bPq\x1b\\c\x1b[1<2xd\x1b[>4;1me")[0], "abcde");
}

#[test]
fn programs_can_ask_for_the_position() {
    let b = Bench::new(80, 24);
    b.console.write(b"\x1b[3;5H\x1b[6n\x1b[c");
    assert_eq!(*b.typed.lock().unwrap(), b"\x1b[3;5R\x1b[?1;2c");
}

#[test]
fn keys_send_what_terminals_send() {
    let b = Bench::new(80, 24);
    assert_eq!(b.press(0x61), b"a");
    assert_eq!(b.press(0xe9), "é".as_bytes());
    assert_eq!(b.press(0x0100_20ac), "€".as_bytes());
    assert_eq!(b.press(0xff0d), b"\r");
    assert_eq!(b.press(0xff08), b"\x7f");
    assert_eq!(b.press(0xff52), b"\x1b[A");
    assert_eq!(b.press(0xff50), b"\x1b[1~");
    assert_eq!(b.press(0xffff), b"\x1b[3~");
    assert_eq!(b.press(0xffbe), b"\x1bOP");
    assert_eq!(b.press(0xffc2), b"\x1b[15~");
    assert_eq!(b.press(0xffb7), b"7");
    assert_eq!(b.press(0xff8d), b"\r");
    b.console.write(b"\x1b[?1h");
    assert_eq!(b.press(0xff51), b"\x1bOD");
}

#[test]
fn ctrl_makes_control_characters_until_it_is_released() {
    let b = Bench::new(80, 24);
    b.keysym(0xffe3, true);
    assert_eq!(b.press(0x63), [3]);
    assert_eq!(b.press(0x5b), [0x1b]);
    assert_eq!(b.press(0x20), [0]);
    b.keysym(0xffe3, false);
    assert_eq!(b.press(0x63), b"c");
}

#[test]
fn keys_without_keysyms_type_by_their_place() {
    let b = Bench::new(80, 24);
    let shift = |down| b.console.key(KeyEvent { code: Some(KeyCode(0x2a)), keysym: 0, down });
    assert_eq!([0x17, 0x31, 0x21, 0x18, 0x39, 0x35].map(|code| b.press_code(code)).concat(), b"info /");
    shift(true);
    assert_eq!([0x1e, 0x02, 0x27].map(|code| b.press_code(code)).concat(), b"A!:");
    shift(false);
    b.press_code(0x3a);
    assert_eq!([0x1e, 0x02].map(|code| b.press_code(code)).concat(), b"A1");
    assert_eq!(b.press_code(0xc8), b"\x1b[A");
}

#[test]
fn a_console_echoes_only_if_told_to() {
    let b = Bench::new(10, 4);
    b.press(0x61);
    assert_eq!(b.console.text()[0], "");
    b.console.set_echo(true);
    b.press(0x62);
    b.press(0xff0d);
    b.press(0x63);
    assert_eq!(b.console.text()[..2], ["b", "c"]);
}

#[test]
fn the_view_scrolls_back_and_typing_shows_the_present() {
    let mut b = Bench::new(10, 4);
    for line in 0..20 {
        b.console.write(format!("{line}\r\n").as_bytes());
    }
    assert_eq!(b.console.text(), ["17", "18", "19", ""]);
    b.refresh();
    b.keysym(0xffe1, true);
    b.press(0xff55);
    assert_eq!(b.console.text(), ["7", "8", "9", "10"]);
    assert_ne!(b.refresh(), Refresh::Changed(Vec::new()));
    // New lines do not move what is looked at.
    b.console.write(b"20\r\n");
    assert_eq!(b.console.text(), ["7", "8", "9", "10"]);
    b.keysym(0xffe1, false);
    b.press(0x61);
    assert_eq!(b.console.text(), ["18", "19", "20", ""]);
}

#[test]
fn the_history_is_bounded() {
    let b = Bench::new(10, 4);
    for line in 0..HISTORY_LINES + 100 {
        b.console.write(format!("{line}\r\n").as_bytes());
    }
    b.keysym(0xffe3, true);
    for _ in 0..HISTORY_LINES {
        b.press(0xff52);
    }
    assert_eq!(b.console.text()[0], "97");
}

#[test]
fn only_changed_cells_are_drawn() {
    let mut b = Bench::new(80, 24);
    assert_eq!(b.refresh(), Refresh::Resized);
    assert_eq!((b.surface.width(), b.surface.height()), (640, 384));
    assert_eq!(b.refresh(), Refresh::Changed(Vec::new()));
    b.console.write(b"\x1b[3;5Hab");
    // The cursor leaves the corner; two characters and the cursor come.
    let rect = |x, y, width| Rect { x, y, width, height: 16 };
    assert_eq!(b.refresh(), Refresh::Changed(vec![rect(0, 0, 8), rect(32, 32, 24)]));
    b.console.write(b"\x1b[3;5Hab");
    assert_eq!(b.refresh(), Refresh::Changed(Vec::new()));
}

#[test]
fn colours_are_qemus() {
    let mut b = Bench::new(10, 4);
    b.console.write("\x1b[?25l\x1b[31m█\x1b[1;32m█\x1b[0;44m \x1b[0;7m \x1b[0;38;5;196m█\x1b[38;2;1;2;3m█".as_bytes());
    b.refresh();
    let line = b.surface.line(0);
    assert_eq!(
        [0, 8, 16, 24, 32, 40].map(|x| line[x]),
        [0xaa_0000, 0x55_ff55, 0x00_00aa, 0xaa_aaaa, 0xff_0000, 0x01_0203]
    );
}

#[test]
fn a_label_is_shown_as_qemu_does() {
    let console = TextConsole::new(TextSize::default(), Some("serial0"), Box::new(|_| ()));
    let mut surface = Surface::new(640, 384);
    console.refresh(&mut surface, true);
    assert_eq!(console.text()[0], "serial0 console");
    assert_eq!((surface.line(0)[119], surface.line(0)[120]), (0x00_00aa, 0));
}

#[test]
fn sizes_follow_the_options() {
    let size = |size: TextSize| (size.width, size.height);
    assert_eq!(size(TextSize::of(None, None, None, None)), (640, 384));
    assert_eq!(size(TextSize::of(Some(800), Some(600), None, None)), (800, 600));
    assert_eq!(size(TextSize::of(None, None, Some(100), Some(30))), (800, 480));
    assert_eq!(size(TextSize::of(Some(0), Some(u32::MAX), Some(5), None)), (640, 8192));
}

#[test]
fn an_incremental_picture_equals_one_drawn_at_once() {
    let mut b = Bench::new(40, 12);
    let program = "\x1b[2J\x1b[1;31mred\x1b[0m\r\n┌──┐\x1b[5;5Hx\x1b[7m inverse \x1b[0m\x1b[4munderlined\x1b[0m\r\n";
    for byte in program.repeat(5).bytes() {
        b.console.write(&[byte]);
        b.refresh();
    }
    let step_by_step = b.hash();
    b.console.refresh(&mut b.surface, true);
    assert_eq!(b.hash(), step_by_step);
}

#[test]
fn random_output_and_keys_never_panic() {
    let mut seed = 7u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut b = Bench::new(7, 3);
    let alphabet = b"\x1b\x1b[[[]?;;0123456789ABCDEFGHIJKLMPSTXZ@abcdefghlmnrsu\r\n\t\x08\x0e\x0f()#!\xc3\xa9\xff";
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..12).map(|_| alphabet[(random() % alphabet.len() as u64) as usize]).collect();
        b.console.write(&bytes);
        b.keysym([0xffe3, 0xff55, 0xff52, 0x61, 0xff9d][(random() % 5) as usize], random() % 2 == 0);
        b.press_code(random() as u8);
    }
    b.refresh();
}
