//! Scan codes: the 8042's translation table and the codes of each key in scan code sets 1, 2 and 3.
//!
//! Documents: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller" (translation) and "Keyboards (101/102-key)" (scan code sets).

use crate::ui::KeyCode;

/// What the controller makes of each byte from the keyboard when translation is on. Codes from 80h on pass
/// unchanged except F7 (83h) and Alt-SysRq (84h).
const TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, //
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, //
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, //
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, //
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, //
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, //
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, //
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, //
];

/// A byte of scan code set 2 as set 1.
pub(super) fn translate(byte: u8) -> u8 {
    match byte {
        0x83 => 0x41,
        0x84 => 0x54,
        _ => TRANSLATION.get(usize::from(byte)).copied().unwrap_or(byte),
    }
}

/// The set 2 code of a set 1 make code (without prefixes): the inverse of the translation.
fn set2_of_set1(code: u8) -> Option<u8> {
    match code {
        0x41 => Some(0x83),
        0x54 => Some(0x84),
        _ => TRANSLATION.iter().position(|&set1| set1 == code).and_then(|at| u8::try_from(at).ok()),
    }
}

/// Set 3 codes of the keys without a prefix in set 1, by their set 1 code. 0: not on the keyboard.
const SET3: [u8; 0x60] = [
    0x00, 0x08, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66,
    0x0d, // 00: Esc 1-0 - = Bksp Tab
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x11, 0x1c,
    0x1b, // 10: Q-P [ ] Enter Ctrl A S
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5c, 0x1a, 0x22, 0x21,
    0x2a, // 20: D-L ; ' ` Shift \ Z-V
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7e, 0x19, 0x29, 0x14, 0x07, 0x0f, 0x17, 0x1f,
    0x27, // 30: B-/ Shift KP* Alt Space Caps F1-F5
    0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x76, 0x5f, 0x6c, 0x75, 0x7d, 0x84, 0x6b, 0x73, 0x74, 0x7c,
    0x69, // 40: F6-F10 Num Scroll KP7-KP1
    0x72, 0x7a, 0x70, 0x71, 0x57, 0x00, 0x13, 0x56, 0x5e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, // 50: KP2 KP3 KP0 KP. SysRq - 102nd F11 F12
];

fn set3_of(key: KeyCode) -> Option<u8> {
    let code = match key.0 {
        0x9c => 0x79, // keypad Enter
        0x9d => 0x58, // right Ctrl
        0xb5 => 0x77, // keypad /
        PRINT_SCREEN => 0x57,
        0xb8 => 0x39, // right Alt
        PAUSE => 0x62,
        0xc7 => 0x6e, // Home
        0xc8 => 0x63, // Up
        0xc9 => 0x6f, // Page Up
        0xcb => 0x61, // Left
        0xcd => 0x6a, // Right
        0xcf => 0x65, // End
        0xd0 => 0x60, // Down
        0xd1 => 0x6d, // Page Down
        0xd2 => 0x67, // Insert
        0xd3 => 0x64, // Delete
        0xdb => 0x8b, // left Windows
        0xdc => 0x8c, // right Windows
        0xdd => 0x8d, // Menu
        code => SET3.get(usize::from(code)).copied().unwrap_or(0),
    };
    (code != 0).then_some(code)
}

/// Pause/Break, which has a code of its own in every set.
pub(super) const PAUSE: u8 = 0xc6;
/// Print Screen/SysRq.
pub(super) const PRINT_SCREEN: u8 = 0xb7;

/// Which modifiers are held: Print Screen and Pause send other codes with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub shift: bool,
    pub ctrl: bool,
    pub alt: bool,
}

/// The bytes of one key event, at most 8.
pub(super) fn encode(set: u8, key: KeyCode, down: bool, held: Held) -> Vec<u8> {
    match set {
        1 => set1(key, down, held),
        3 => set3(key, down),
        _ => set2(key, down, held),
    }
}

fn set1(key: KeyCode, down: bool, held: Held) -> Vec<u8> {
    let release = if down { 0 } else { 0x80 };
    match (key.0, down) {
        (PAUSE, true) if held.ctrl => vec![0xe0, 0x46, 0xe0, 0xc6],
        (PAUSE, true) => vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
        (PAUSE, false) => Vec::new(),
        (PRINT_SCREEN, _) if held.alt => vec![0x54 | release],
        (PRINT_SCREEN, _) if held.shift || held.ctrl => vec![0xe0, 0x37 | release],
        (PRINT_SCREEN, true) => vec![0xe0, 0x2a, 0xe0, 0x37],
        (PRINT_SCREEN, false) => vec![0xe0, 0xb7, 0xe0, 0xaa],
        (code @ 0x01..0x80, _) => vec![code | release],
        (code @ 0x81.., _) => vec![0xe0, code & 0x7f | release],
        (0 | 0x80, _) => Vec::new(),
    }
}

fn set2(key: KeyCode, down: bool, held: Held) -> Vec<u8> {
    let plain = |code: u8| if down { vec![code] } else { vec![0xf0, code] };
    let extended = |code: u8| if down { vec![0xe0, code] } else { vec![0xe0, 0xf0, code] };
    match (key.0, down) {
        (PAUSE, true) if held.ctrl => vec![0xe0, 0x7e, 0xe0, 0xf0, 0x7e],
        (PAUSE, true) => vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
        (PAUSE, false) => Vec::new(),
        (PRINT_SCREEN, _) if held.alt => plain(0x84),
        (PRINT_SCREEN, _) if held.shift || held.ctrl => extended(0x7c),
        (PRINT_SCREEN, true) => vec![0xe0, 0x12, 0xe0, 0x7c],
        (PRINT_SCREEN, false) => vec![0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12],
        (code @ 0x01..0x80, _) => set2_of_set1(code).map(plain).unwrap_or_default(),
        (code @ 0x81.., _) => set2_of_set1(code & 0x7f).map(extended).unwrap_or_default(),
        (0 | 0x80, _) => Vec::new(),
    }
}

/// Set 3 has no prefixes and no keys that depend on others. Which keys report their release is the keyboard's
/// business ([`super::ps2_keyboard`]).
fn set3(key: KeyCode, down: bool) -> Vec<u8> {
    match set3_of(key) {
        Some(code) if down => vec![code],
        Some(code) => vec![0xf0, code],
        None => Vec::new(),
    }
}

/// The set 3 code of a key, for the commands that set a key's type.
pub(super) fn set3_code(key: KeyCode) -> Option<u8> {
    set3_of(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Translates a whole sequence as the controller does.
    fn translated(bytes: &[u8]) -> Vec<u8> {
        let mut release = 0;
        let mut out = Vec::new();
        for &byte in bytes {
            if byte == 0xf0 {
                release = 0x80;
            } else {
                out.push(translate(byte) | release);
                release = 0;
            }
        }
        out
    }

    #[test]
    fn set_2_translates_to_set_1_for_every_key() {
        for code in (0x01..=0x58).chain(0x81..=0xff).filter(|code| !matches!(code, 0x54)) {
            for down in [true, false] {
                let key = KeyCode(code);
                let set2 = encode(2, key, down, Held::default());
                if !set2.is_empty() {
                    assert_eq!(translated(&set2), encode(1, key, down, Held::default()), "{key:?} {down}");
                }
            }
        }
    }

    #[test]
    fn pause_and_print_screen_translate_with_modifiers_too() {
        for held in [
            Held { shift: true, ..Held::default() },
            Held { ctrl: true, ..Held::default() },
            Held { alt: true, ..Held::default() },
        ] {
            for (code, down) in [(PAUSE, true), (PRINT_SCREEN, true), (PRINT_SCREEN, false)] {
                let key = KeyCode(code);
                assert_eq!(translated(&encode(2, key, down, held)), encode(1, key, down, held));
            }
        }
    }

    #[test]
    fn known_codes_of_set_2_and_set_3() {
        let none = Held::default();
        assert_eq!(encode(2, KeyCode(0x1e), true, none), [0x1c]); // A
        assert_eq!(encode(2, KeyCode(0x41), false, none), [0xf0, 0x83]); // F7
        assert_eq!(encode(2, KeyCode(0xc8), false, none), [0xe0, 0xf0, 0x75]); // Up
        assert_eq!(encode(3, KeyCode(0x1e), true, none), [0x1c]);
        assert_eq!(encode(3, KeyCode(0x1d), true, none), [0x11]); // left Ctrl
        assert_eq!(encode(3, KeyCode(0xc8), false, none), [0xf0, 0x63]);
        assert_eq!(encode(3, KeyCode(PAUSE), true, none), [0x62]);
    }
}
