//! From a viewer's key events to keys of the guest.
//!
//! A viewer sends keysyms: what a key means on *its* keyboard. The keymap says which key of the guest's keyboard bears
//! the symbol, and whether it takes Shift or AltGr there. As RFC 6143 7.5.4 asks, Shift is "only a hint": if the symbol needs
//! another state than the viewer's keys left, the modifier is pressed or lifted around the key. Letters are left
//! alone while Shift or Caps Lock is on, as the guest sees the same Shift and Caps Lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ui::keymap::Keymap;
use crate::ui::{KeyCode, KeyEvent, Leds};

/// Keys with a part in this.
const SHIFT_LEFT: KeyCode = KeyCode(0x2a);
const SHIFT_RIGHT: KeyCode = KeyCode(0x36);
const ALT_RIGHT: KeyCode = KeyCode(0xb8);
const CAPS_LOCK: KeyCode = KeyCode(0x3a);
const NUM_LOCK: KeyCode = KeyCode(0x45);

/// One viewer's keyboard.
pub(super) struct Keyboard {
    keymap: Arc<Keymap>,
    lock_key_sync: bool,
    /// Caps Lock as this viewer's keys left it, as long as the guest does not tell.
    caps: bool,
    /// The keys that are down, with what they were pressed for.
    pressed: BTreeMap<KeyCode, u32>,
}

impl Keyboard {
    pub(super) fn new(keymap: Arc<Keymap>, lock_key_sync: bool) -> Self {
        Self { keymap, lock_key_sync, caps: false, pressed: BTreeMap::new() }
    }

    /// The events for the guest of one from the viewer. `code` is QEMU's key code, 0 if the viewer sent none; `leds`
    /// the guest's lights if it has set any. On a text console (`is_text`) keysyms say all, and modifiers are
    /// never added.
    pub(super) fn event(
        &mut self,
        down: bool,
        keysym: u32,
        code: u32,
        leds: Option<Leds>,
        is_text: bool,
    ) -> Vec<KeyEvent> {
        let mut events = Vec::new();
        let direct = u8::try_from(code).ok().filter(|code| *code != 0).map(KeyCode);
        // A release means the key that was pressed for this keysym, even if Shift came or went since.
        let held = self.pressed.iter().find(|(_, pressed)| **pressed == keysym).map(|(code, _)| *code);
        let found = self.keymap.find(keysym);
        let key = match (direct, down, held) {
            (Some(code), ..) => Some(code),
            (None, false, Some(code)) => Some(code),
            _ => found.map(|key| key.code),
        };
        let Some(code) = key else {
            return vec![KeyEvent { code: None, keysym, down }];
        };
        let main = KeyEvent { code: Some(code), keysym, down };
        if down {
            let around = if direct.is_some() || is_text { Vec::new() } else { self.around(keysym, code, leds) };
            events.extend(around.iter().copied());
            events.push(main);
            events.extend(
                around
                    .iter()
                    .rev()
                    .filter(|event| is_modifier(event.code))
                    .map(|event| KeyEvent { down: !event.down, ..*event }),
            );
            self.pressed.insert(code, keysym);
            if code == CAPS_LOCK {
                self.caps = !self.caps;
            }
        } else {
            self.pressed.remove(&code);
            events.push(main);
        }
        events
    }

    /// Releases of all keys that are down: their viewer is gone.
    pub(super) fn release_all(&mut self) -> Vec<KeyEvent> {
        let pressed = std::mem::take(&mut self.pressed);
        pressed.into_iter().map(|(code, keysym)| KeyEvent { code: Some(code), keysym, down: false }).collect()
    }

    /// What has to be pressed or lifted before a key to get its symbol.
    fn around(&self, keysym: u32, code: KeyCode, leds: Option<Leds>) -> Vec<KeyEvent> {
        let fake = |code: KeyCode, down: bool| KeyEvent { code: Some(code), keysym: 0, down };
        let mut events = Vec::new();
        if is_keypad_digit(keysym) && self.lock_key_sync && leds.is_some_and(|leds| !leds.num) {
            events.extend([fake(NUM_LOCK, true), fake(NUM_LOCK, false)]);
        }
        let Some(key) = self.keymap.find(keysym).filter(|key| key.code == code) else { return events };
        let Some(level) = key.level else { return events };
        let held: Vec<KeyCode> =
            [SHIFT_LEFT, SHIFT_RIGHT].into_iter().filter(|code| self.pressed.contains_key(code)).collect();
        let altgr = self.pressed.contains_key(&ALT_RIGHT);
        let caps = leds.map_or(self.caps, |leds| leds.caps);
        let is_letter = key.is_letter;
        if level.shift() && held.is_empty() && !(is_letter && caps) {
            events.push(fake(SHIFT_LEFT, true));
        } else if !level.shift() && !is_letter {
            events.extend(held.iter().map(|code| fake(*code, false)));
        }
        if level.altgr() != altgr && (level.altgr() || self.keymap.has_altgr()) {
            events.push(fake(ALT_RIGHT, level.altgr()));
        }
        events
    }
}

fn is_modifier(code: Option<KeyCode>) -> bool {
    code.is_some_and(|code| [SHIFT_LEFT, SHIFT_RIGHT, ALT_RIGHT].contains(&code))
}

/// XK_KP_0 to XK_KP_9, and the two decimal signs: keys that mean something else without Num Lock.
fn is_keypad_digit(keysym: u32) -> bool {
    matches!(keysym, 0xffac | 0xffae | 0xffb0..=0xffb9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFT: u32 = 0xffe1;
    const CAPS: u32 = 0xffe5;
    const ALTGR: u32 = 0xfe03;

    struct Bench {
        keyboard: Keyboard,
        leds: Option<Leds>,
    }

    impl Bench {
        fn new(layout: &str) -> Self {
            let keymap = Arc::new(Keymap::load(layout).unwrap());
            Self { keyboard: Keyboard::new(keymap, true), leds: None }
        }

        /// What the guest sees: codes, negative for a release.
        fn event(&mut self, down: bool, keysym: u32) -> Vec<i32> {
            codes(&self.keyboard.event(down, keysym, 0, self.leds, false))
        }

        fn press(&mut self, keysym: impl Into<u32>) -> Vec<i32> {
            self.event(true, keysym.into())
        }

        fn release(&mut self, keysym: impl Into<u32>) -> Vec<i32> {
            self.event(false, keysym.into())
        }
    }

    fn codes(events: &[KeyEvent]) -> Vec<i32> {
        let code = |event: &KeyEvent| i32::from(event.code.unwrap().0);
        events.iter().map(|event| if event.down { code(event) } else { -code(event) }).collect()
    }

    #[test]
    fn a_plain_key_is_one_event_each_way() {
        let mut b = Bench::new("en-us");
        assert_eq!(b.press('a'), [0x1e]);
        assert_eq!(b.release('a'), [-0x1e]);
    }

    #[test]
    fn a_symbol_that_needs_shift_gets_it() {
        let mut b = Bench::new("en-us");
        assert_eq!(b.press('A'), [0x2a, 0x1e, -0x2a]);
        assert_eq!(b.release('A'), [-0x1e]);
        assert_eq!(b.press('!'), [0x2a, 2, -0x2a]);
    }

    #[test]
    fn shift_of_the_viewer_is_enough() {
        let mut b = Bench::new("en-us");
        assert_eq!(b.press(SHIFT), [0x2a]);
        assert_eq!(b.press('A'), [0x1e]);
        assert_eq!(b.press('!'), [2]);
    }

    #[test]
    fn shift_is_lifted_for_a_symbol_that_is_not_shifted_here() {
        // A French viewer types 1 with Shift.
        let mut b = Bench::new("en-us");
        b.press(SHIFT);
        assert_eq!(b.press('1'), [-0x2a, 2, 0x2a]);
        assert_eq!(b.release('1'), [-2]);
    }

    #[test]
    fn a_release_with_another_symbol_is_of_the_key_that_was_pressed() {
        let mut b = Bench::new("en-us");
        b.press(SHIFT);
        b.press('A');
        b.release(SHIFT);
        assert_eq!(b.release('A'), [-0x1e]);
    }

    #[test]
    fn caps_lock_of_the_guest_makes_capitals_without_shift() {
        let mut b = Bench::new("en-us");
        b.press(CAPS);
        b.release(CAPS);
        assert_eq!(b.press('A'), [0x1e]);
        b.leds = Some(Leds::default());
        assert_eq!(b.press('B'), [0x2a, 0x30, -0x2a]);
    }

    #[test]
    fn alt_gr_is_added_where_the_layout_wants_it() {
        let mut b = Bench::new("de");
        assert_eq!(b.press('@'), [0xb8, 0x10, -0xb8]);
        assert_eq!(b.press(ALTGR), [0xb8]);
        assert_eq!(b.press('{'), [8]);
    }

    #[test]
    fn alt_gr_is_lifted_for_a_symbol_that_needs_none_but_not_where_it_is_alt() {
        let mut german = Bench::new("de");
        german.press(ALTGR);
        assert_eq!(german.press('#'), [-0xb8, 0x2b, 0xb8]);
        let mut american = Bench::new("en-us");
        american.press(ALTGR);
        assert_eq!(american.press('x'), [0x2d]);
    }

    #[test]
    fn keys_without_levels_are_left_alone() {
        let mut b = Bench::new("en-us");
        b.press(SHIFT);
        assert_eq!(b.press(0xff0d_u32), [0x1c]);
        assert_eq!(b.press(0xfe20_u32), [0x0f]);
    }

    #[test]
    fn num_lock_is_brought_in_line_with_keypad_digits() {
        let mut b = Bench::new("en-us");
        b.leds = Some(Leds::default());
        assert_eq!(b.press(0xffb7_u32), [0x45, -0x45, 0x47]);
        b.leds = Some(Leds { num: true, ..Leds::default() });
        assert_eq!(b.press(0xffb7_u32), [0x47]);
    }

    #[test]
    fn key_codes_are_taken_as_they_are() {
        let mut b = Bench::new("de");
        let events = b.keyboard.event(true, u32::from('@'), 0x10, None, false);
        assert_eq!(codes(&events), [0x10]);
        assert_eq!(codes(&b.keyboard.event(false, 0, 0x10, None, false)), [-0x10]);
        assert_eq!(codes(&b.keyboard.event(true, u32::from('a'), 0x1234, None, false)), [0x1e]);
    }

    #[test]
    fn an_unknown_symbol_is_passed_on_without_a_key() {
        let mut b = Bench::new("en-us");
        let events = b.keyboard.event(true, 0x0100_4e2d, 0, None, true);
        assert_eq!(events, [KeyEvent { code: None, keysym: 0x0100_4e2d, down: true }]);
    }

    #[test]
    fn all_keys_that_are_down_are_released_once() {
        let mut b = Bench::new("en-us");
        b.press('a');
        b.press(SHIFT);
        assert_eq!(codes(&b.keyboard.release_all()), [-0x1e, -0x2a]);
        assert_eq!(b.keyboard.release_all(), []);
    }
}
