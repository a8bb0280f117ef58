//! Keys to bytes: what a VT220-like keyboard sends.

use crate::ui::{KeyCode, KeyEvent};

/// What a key does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// Nothing of its own.
    None,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Moves the view back (positive) or forth in the history, by lines.
    Scroll(isize),
}

/// Which modifiers are down.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Modifiers {
    shift: bool,
    ctrl: bool,
    alt: bool,
    /// Caps lock is on: for keys that come without a keysym.
    caps: bool,
}

/// Modes of the terminal that change what keys send.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KeyModes {
    pub application_cursor: bool,
    pub newline: bool,
}

/// Lines that a page key scrolls.
const PAGE: isize = 10;

/// X11 keysyms (X Window System Protocol, appendix A; `keysymdef.h`).
mod sym {
    pub const BACKSPACE: u32 = 0xff08;
    pub const TAB: u32 = 0xff09;
    pub const RETURN: u32 = 0xff0d;
    pub const ESCAPE: u32 = 0xff1b;
    pub const HOME: u32 = 0xff50;
    pub const LEFT: u32 = 0xff51;
    pub const UP: u32 = 0xff52;
    pub const RIGHT: u32 = 0xff53;
    pub const DOWN: u32 = 0xff54;
    pub const PAGE_UP: u32 = 0xff55;
    pub const PAGE_DOWN: u32 = 0xff56;
    pub const END: u32 = 0xff57;
    pub const INSERT: u32 = 0xff63;
    pub const F1: u32 = 0xffbe;
    pub const F12: u32 = 0xffc9;
    pub const SHIFT_L: u32 = 0xffe1;
    pub const SHIFT_R: u32 = 0xffe2;
    pub const CONTROL_L: u32 = 0xffe3;
    pub const CONTROL_R: u32 = 0xffe4;
    pub const CAPS_LOCK: u32 = 0xffe5;
    pub const META_L: u32 = 0xffe7;
    pub const ALT_L: u32 = 0xffe9;
    pub const ALT_R: u32 = 0xffea;
    pub const DELETE: u32 = 0xffff;
    pub const ISO_LEFT_TAB: u32 = 0xfe20;
    pub const KP_ENTER: u32 = 0xff8d;
    pub const KP_HOME: u32 = 0xff95;
    pub const KP_DELETE: u32 = 0xff9f;
    pub const KP_MULTIPLY: u32 = 0xffaa;
    pub const KP_9: u32 = 0xffb9;
    /// A Unicode character is this plus its code point.
    pub const UNICODE: u32 = 0x0100_0000;
}

impl Modifiers {
    /// Takes a key event and gives what the key does.
    pub fn key(&mut self, event: KeyEvent, modes: KeyModes) -> Key {
        let keysym = if event.keysym == 0 { event.code.map_or(0, |code| self.keysym_of(code)) } else { event.keysym };
        match keysym {
            sym::SHIFT_L | sym::SHIFT_R => self.shift = event.down,
            sym::CONTROL_L | sym::CONTROL_R => self.ctrl = event.down,
            sym::ALT_L | sym::ALT_R | sym::META_L => self.alt = event.down,
            sym::CAPS_LOCK if event.down => self.caps = !self.caps,
            _ if event.down => return self.pressed(keysym, modes),
            _ => {}
        }
        Key::None
    }

    fn pressed(self, keysym: u32, modes: KeyModes) -> Key {
        match (keypad(keysym), self.ctrl, self.shift) {
            (sym::UP, true, _) => return Key::Scroll(1),
            (sym::DOWN, true, _) => return Key::Scroll(-1),
            (sym::PAGE_UP, true, _) | (sym::PAGE_UP, _, true) => return Key::Scroll(PAGE),
            (sym::PAGE_DOWN, true, _) | (sym::PAGE_DOWN, _, true) => return Key::Scroll(-PAGE),
            _ => {}
        }
        let mut bytes = self.bytes(keypad(keysym), modes);
        if self.alt && !bytes.is_empty() {
            bytes.insert(0, 0x1b);
        }
        if bytes.is_empty() { Key::None } else { Key::Send(bytes) }
    }

    fn bytes(self, keysym: u32, modes: KeyModes) -> Vec<u8> {
        match keysym {
            sym::BACKSPACE => vec![0x7f],
            sym::TAB => vec![b'\t'],
            sym::ISO_LEFT_TAB => b"\x1b[Z".to_vec(),
            sym::RETURN if modes.newline => b"\r\n".to_vec(),
            sym::RETURN => vec![b'\r'],
            sym::ESCAPE => vec![0x1b],
            sym::UP => self.cursor_key(b'A', modes),
            sym::DOWN => self.cursor_key(b'B', modes),
            sym::RIGHT => self.cursor_key(b'C', modes),
            sym::LEFT => self.cursor_key(b'D', modes),
            sym::HOME => self.numbered(1),
            sym::INSERT => self.numbered(2),
            sym::DELETE => self.numbered(3),
            sym::END => self.numbered(4),
            sym::PAGE_UP => self.numbered(5),
            sym::PAGE_DOWN => self.numbered(6),
            sym::F1..=sym::F12 => self.function(keysym - sym::F1),
            _ => character(keysym).map(|c| self.typed(c)).unwrap_or_default(),
        }
    }

    /// xterm's number for the modifiers: 1 is none.
    fn number(self) -> u8 {
        1 + u8::from(self.shift) + 4 * u8::from(self.ctrl)
    }

    fn cursor_key(self, last: u8, modes: KeyModes) -> Vec<u8> {
        match (self.number(), modes.application_cursor) {
            (1, true) => vec![0x1b, b'O', last],
            (1, false) => vec![0x1b, b'[', last],
            (number, _) => format!("\x1b[1;{number}{}", char::from(last)).into_bytes(),
        }
    }

    fn numbered(self, key: u8) -> Vec<u8> {
        match self.number() {
            1 => format!("\x1b[{key}~").into_bytes(),
            number => format!("\x1b[{key};{number}~").into_bytes(),
        }
    }

    /// F1-F12, from 0.
    fn function(self, index: u32) -> Vec<u8> {
        const NUMBERS: [u8; 8] = [15, 17, 18, 19, 20, 21, 23, 24];
        match usize::try_from(index).ok().and_then(|index| index.checked_sub(4)) {
            Some(index) => NUMBERS.get(index).map(|number| self.numbered(*number)).unwrap_or_default(),
            None => vec![0x1b, b'O', b'P' + index.to_le_bytes()[0]],
        }
    }

    /// A character, with Ctrl as a control character.
    fn typed(self, c: char) -> Vec<u8> {
        let mut buffer = [0; 4];
        if !self.ctrl {
            return c.encode_utf8(&mut buffer).as_bytes().to_vec();
        }
        match c {
            '@'..='~' => vec![u8::try_from(c).unwrap_or(0) & 0x1f],
            ' ' | '2' => vec![0],
            '3'..='7' => vec![u8::try_from(c).unwrap_or(0) - b'3' + 0x1b],
            '/' | '-' => vec![0x1f],
            '8' | '?' => vec![0x7f],
            _ => c.encode_utf8(&mut buffer).as_bytes().to_vec(),
        }
    }

    /// The keysym that a key has on an en-us keyboard, for viewers and programs that send none.
    fn keysym_of(self, code: KeyCode) -> u32 {
        let special = match code.0 {
            0x01 => sym::ESCAPE,
            0x0e => sym::BACKSPACE,
            0x0f => sym::TAB,
            0x1c | 0x9c => sym::RETURN,
            0x1d => sym::CONTROL_L,
            0x9d => sym::CONTROL_R,
            0x2a => sym::SHIFT_L,
            0x36 => sym::SHIFT_R,
            0x38 => sym::ALT_L,
            0xb8 => sym::ALT_R,
            0x3a => sym::CAPS_LOCK,
            0x3b..=0x44 => sym::F1 + u32::from(code.0 - 0x3b),
            0x57 => sym::F12 - 1,
            0x58 => sym::F12,
            0xc7 => sym::HOME,
            0xc8 => sym::UP,
            0xc9 => sym::PAGE_UP,
            0xcb => sym::LEFT,
            0xcd => sym::RIGHT,
            0xcf => sym::END,
            0xd0 => sym::DOWN,
            0xd1 => sym::PAGE_DOWN,
            0xd2 => sym::INSERT,
            0xd3 => sym::DELETE,
            0xb5 => u32::from(b'/'),
            _ => 0,
        };
        if special != 0 {
            return special;
        }
        let (plain, shifted) = EN_US
            .iter()
            .find_map(|(first, plain, shifted)| {
                let at = usize::from(code.0.checked_sub(*first)?);
                Some((*plain.as_bytes().get(at)?, *shifted.as_bytes().get(at)?))
            })
            .unwrap_or((0, 0));
        let upper = if plain.is_ascii_lowercase() { self.shift != self.caps } else { self.shift };
        u32::from(if upper { shifted } else { plain })
    }
}

/// Runs of keys from a first code on: what they type without and with Shift.
const EN_US: [(u8, &str, &str); 6] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x37, "*", "*"),
    (0x39, " ", " "),
];

/// Keypad keysyms as the keys that they stand for.
fn keypad(keysym: u32) -> u32 {
    const NAVIGATION: [u32; 11] = [
        sym::HOME,
        sym::LEFT,
        sym::UP,
        sym::RIGHT,
        sym::DOWN,
        sym::PAGE_UP,
        sym::PAGE_DOWN,
        sym::END,
        // The middle key does nothing.
        0,
        sym::INSERT,
        sym::DELETE,
    ];
    match keysym {
        sym::KP_ENTER => sym::RETURN,
        sym::KP_HOME..=sym::KP_DELETE => NAVIGATION[(keysym - sym::KP_HOME) as usize],
        // `*` to `9`: the keysym's low seven bits are the character.
        sym::KP_MULTIPLY..=sym::KP_9 => keysym & 0x7f,
        _ => keysym,
    }
}

/// The character that a keysym types.
fn character(keysym: u32) -> Option<char> {
    match keysym {
        0x20..0x7f | 0xa0..0x100 => char::from_u32(keysym),
        sym::UNICODE.. => char::from_u32(keysym - sym::UNICODE).filter(|c| !c.is_control()),
        _ => None,
    }
}
