//! The PS/2 keyboard: an IBM enhanced keyboard (101/102 keys) behind the 8042.
//!
//! Documents: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboards (101/102-key)".
//!
//! Keys repeat as often as the viewer repeats them: typematic rate and delay are accepted and kept, but the host's
//! keyboard already repeats by its own settings, and doing it twice would double the keys.

use std::collections::VecDeque;

use crate::ui::KeyCode;

use super::scancodes::{Held, encode, set3_code};

/// Bytes of key events that the keyboard holds; one more when it overruns.
const QUEUE: usize = 16;

mod reply {
    pub const BAT_PASSED: u8 = 0xaa;
    pub const ECHO: u8 = 0xee;
    pub const ACK: u8 = 0xfa;
    pub const RESEND: u8 = 0xfe;
    pub const ID: [u8; 2] = [0xab, 0x83];
}

/// How a key of set 3 reports (commands F7h-FDh).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyType {
    Typematic,
    MakeBreak,
    MakeOnly,
    TypematicMakeBreak,
}

impl KeyType {
    fn breaks(self) -> bool {
        matches!(self, Self::MakeBreak | Self::TypematicMakeBreak)
    }

    fn repeats(self) -> bool {
        matches!(self, Self::Typematic | Self::TypematicMakeBreak)
    }
}

/// The parameter that the keyboard waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Command,
    Leds,
    ScanCodeSet,
    Typematic,
    Keys(KeyType),
}

/// A keyboard. Bytes come out by [`Keyboard::take`] when the controller has room.
#[derive(Clone, Debug)]
pub struct Keyboard {
    regs: Regs,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    /// Answers to commands; they go before key events.
    replies: VecDeque<u8>,
    /// Key events.
    events: VecDeque<u8>,
    expect: Expect,
    scanning: bool,
    set: u8,
    leds: u8,
    /// The guest has set the lights.
    sets_leds: bool,
    typematic: u8,
    key_types: [KeyType; 256],
    last_sent: u8,
    held: HeldKeys,
    /// Keys that are down, by key code.
    down: [bool; 256],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct HeldKeys {
    shift: [bool; 2],
    ctrl: [bool; 2],
    alt: [bool; 2],
}

impl HeldKeys {
    fn track(&mut self, key: KeyCode, down: bool) {
        match key.0 {
            0x2a => self.shift[0] = down,
            0x36 => self.shift[1] = down,
            0x1d => self.ctrl[0] = down,
            0x9d => self.ctrl[1] = down,
            0x38 => self.alt[0] = down,
            0xb8 => self.alt[1] = down,
            _ => {}
        }
    }

    fn any(self) -> Held {
        Held { shift: self.shift.contains(&true), ctrl: self.ctrl.contains(&true), alt: self.alt.contains(&true) }
    }
}

impl Regs {
    const DEFAULT_TYPEMATIC: u8 = 0x2b; // 10.9 a second after 500 ms
    const DEFAULT_SET: u8 = 2;

    fn cold() -> Self {
        Self {
            replies: VecDeque::new(),
            events: VecDeque::new(),
            expect: Expect::Command,
            scanning: true,
            set: Self::DEFAULT_SET,
            leds: 0,
            sets_leds: false,
            typematic: Self::DEFAULT_TYPEMATIC,
            key_types: default_key_types(),
            last_sent: 0,
            held: HeldKeys::default(),
            down: [false; 256],
        }
    }
}

/// The types that the keys of set 3 have at power-on, by their set 3 code: most are typematic, the modifiers make
/// and break, the keys of the cursor block's right side and the function keys make only.
fn default_key_types() -> [KeyType; 256] {
    let mut types = [KeyType::Typematic; 256];
    for code in [0x11, 0x12, 0x14, 0x19, 0x59] {
        types[code] = KeyType::MakeBreak;
    }
    let make_only = [
        0x07, 0x08, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x56, 0x5e, 0x57, 0x5f, 0x62, 0x39, 0x58,
        0x67, 0x6e, 0x6f, 0x65, 0x6d, 0x6c, 0x6b, 0x69, 0x75, 0x73, 0x72, 0x70, 0x7d, 0x74, 0x7a, 0x71, 0x76, 0x77,
        0x7e, 0x84, 0x79,
    ];
    for code in make_only {
        types[code] = KeyType::MakeOnly;
    }
    types
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

impl Keyboard {
    /// A keyboard that has passed its self-test.
    #[must_use]
    pub fn new() -> Self {
        Self { regs: Regs::cold() }
    }

    /// A key was pressed (again, if it repeats) or released.
    pub fn key(&mut self, key: KeyCode, down: bool) {
        let regs = &mut self.regs;
        let held = regs.held.any();
        regs.held.track(key, down);
        let repeated = std::mem::replace(&mut regs.down[usize::from(key.0)], down) && down;
        if !regs.scanning {
            return;
        }
        if regs.set == 3 {
            let Some(code) = set3_code(key) else { return };
            let kind = regs.key_types[usize::from(code)];
            if (!down && !kind.breaks()) || (repeated && !kind.repeats()) {
                return;
            }
        }
        let bytes = encode(regs.set, key, down, held);
        if regs.events.len() + bytes.len() <= QUEUE {
            regs.events.extend(bytes);
            return;
        }
        // What takes the place of keys that were lost, once.
        let overrun = if regs.set == 1 { 0xff } else { 0x00 };
        if regs.events.len() <= QUEUE && regs.events.back() != Some(&overrun) {
            regs.events.push_back(overrun);
        }
    }

    /// The next byte for the host.
    pub fn take(&mut self) -> Option<u8> {
        let regs = &mut self.regs;
        let byte = regs.replies.pop_front().or_else(|| regs.events.pop_front())?;
        if byte != reply::RESEND {
            regs.last_sent = byte;
        }
        Some(byte)
    }

    /// Whether [`Keyboard::take`] has something.
    #[must_use]
    pub fn has_data(&self) -> bool {
        !self.regs.replies.is_empty() || !self.regs.events.is_empty()
    }

    /// The lights: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.regs.leds
    }

    /// Whether the guest has set the lights since power-on: BIOSes keep their lock states to themselves.
    #[must_use]
    pub fn sets_leds(&self) -> bool {
        self.regs.sets_leds
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.regs = Regs::cold();
    }

    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        // A command in place of a parameter ends the wait for it.
        let is_command = byte >= 0xed;
        let expect = std::mem::replace(&mut self.regs.expect, Expect::Command);
        match expect {
            Expect::Command => self.command(byte),
            _ if is_command => self.command(byte),
            Expect::Leds => {
                self.regs.leds = byte & 7;
                self.regs.sets_leds = true;
                self.answer(&[reply::ACK]);
            }
            Expect::ScanCodeSet => match byte {
                0 => {
                    let set = self.regs.set;
                    self.answer(&[reply::ACK, set]);
                }
                1..=3 => {
                    self.regs.set = byte;
                    self.regs.events.clear();
                    self.answer(&[reply::ACK]);
                }
                _ => self.answer(&[reply::RESEND]),
            },
            Expect::Typematic => {
                self.regs.typematic = byte & 0x7f;
                self.answer(&[reply::ACK]);
            }
            Expect::Keys(kind) => {
                self.regs.key_types[usize::from(byte)] = kind;
                self.regs.expect = expect;
                self.answer(&[reply::ACK]);
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        // The host can send faster than it reads; like the real one, the keyboard forgets older answers then.
        if self.regs.replies.len() + bytes.len() > QUEUE {
            self.regs.replies.clear();
        }
        self.regs.replies.extend(bytes);
    }

    fn command(&mut self, byte: u8) {
        match byte {
            0xed => self.wait_for(Expect::Leds),
            0xee => self.answer(&[reply::ECHO]),
            0xf0 => self.wait_for(Expect::ScanCodeSet),
            0xf2 => self.answer(&[reply::ACK, reply::ID[0], reply::ID[1]]),
            0xf3 => self.wait_for(Expect::Typematic),
            0xf4 => {
                self.regs.events.clear();
                self.regs.scanning = true;
                self.answer(&[reply::ACK]);
            }
            0xf5 => {
                self.set_defaults();
                self.regs.scanning = false;
                self.answer(&[reply::ACK]);
            }
            0xf6 => {
                self.set_defaults();
                self.regs.scanning = true;
                self.answer(&[reply::ACK]);
            }
            0xf7 => self.set_all(KeyType::Typematic),
            0xf8 => self.set_all(KeyType::MakeBreak),
            0xf9 => self.set_all(KeyType::MakeOnly),
            0xfa => self.set_all(KeyType::TypematicMakeBreak),
            0xfb => self.wait_for(Expect::Keys(KeyType::Typematic)),
            0xfc => self.wait_for(Expect::Keys(KeyType::MakeBreak)),
            0xfd => self.wait_for(Expect::Keys(KeyType::MakeOnly)),
            0xfe => {
                let byte = self.regs.last_sent;
                self.answer(&[byte]);
            }
            0xff => {
                let held = self.regs.held;
                let down = self.regs.down;
                self.regs = Regs { held, down, ..Regs::cold() };
                self.answer(&[reply::ACK, reply::BAT_PASSED]);
            }
            _ => self.answer(&[reply::RESEND]),
        }
    }

    fn wait_for(&mut self, what: Expect) {
        self.regs.expect = what;
        self.answer(&[reply::ACK]);
    }

    fn set_defaults(&mut self) {
        self.regs.events.clear();
        self.regs.set = Regs::DEFAULT_SET;
        self.regs.typematic = Regs::DEFAULT_TYPEMATIC;
        self.regs.key_types = default_key_types();
    }

    fn set_all(&mut self, kind: KeyType) {
        self.regs.key_types = [kind; 256];
        self.answer(&[reply::ACK]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::bench::Random;

    fn drain(keyboard: &mut Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.take()).collect()
    }

    fn send(keyboard: &mut Keyboard, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|&byte| keyboard.write(byte));
        drain(keyboard)
    }

    #[test]
    fn it_speaks_set_2_from_the_start() {
        let mut keyboard = Keyboard::new();
        keyboard.key(KeyCode(0x1e), true);
        keyboard.key(KeyCode(0x1e), false);
        assert_eq!(drain(&mut keyboard), [0x1c, 0xf0, 0x1c]);
    }

    #[test]
    fn reset_and_identify_answer_as_documented() {
        let mut keyboard = Keyboard::new();
        assert_eq!(send(&mut keyboard, &[0xff]), [0xfa, 0xaa]);
        assert_eq!(send(&mut keyboard, &[0xf2]), [0xfa, 0xab, 0x83]);
        assert_eq!(send(&mut keyboard, &[0xee]), [0xee]);
        assert_eq!(send(&mut keyboard, &[0x12]), [0xfe]);
    }

    #[test]
    fn lights_follow_their_command() {
        let mut keyboard = Keyboard::new();
        assert!(!keyboard.sets_leds());
        assert_eq!(send(&mut keyboard, &[0xed, 0x05]), [0xfa, 0xfa]);
        assert!(keyboard.sets_leds());
        assert_eq!(keyboard.leds(), 5);
    }

    #[test]
    fn a_command_instead_of_a_parameter_is_obeyed() {
        let mut keyboard = Keyboard::new();
        assert_eq!(send(&mut keyboard, &[0xed, 0xee]), [0xfa, 0xee]);
        assert_eq!(keyboard.leds(), 0);
    }

    #[test]
    fn a_disabled_keyboard_sends_no_keys() {
        let mut keyboard = Keyboard::new();
        send(&mut keyboard, &[0xf5]);
        keyboard.key(KeyCode(0x1e), true);
        assert!(drain(&mut keyboard).is_empty());
        send(&mut keyboard, &[0xf4]);
        keyboard.key(KeyCode(0x1e), false);
        assert_eq!(drain(&mut keyboard), [0xf0, 0x1c]);
    }

    #[test]
    fn answers_go_before_waiting_keys() {
        let mut keyboard = Keyboard::new();
        keyboard.key(KeyCode(0x1e), true);
        assert_eq!(send(&mut keyboard, &[0xee]), [0xee, 0x1c]);
    }

    #[test]
    fn resend_repeats_the_last_byte() {
        let mut keyboard = Keyboard::new();
        send(&mut keyboard, &[0xf2]);
        assert_eq!(send(&mut keyboard, &[0xfe]), [0x83]);
    }

    #[test]
    fn the_scan_code_set_can_be_asked_and_changed() {
        let mut keyboard = Keyboard::new();
        assert_eq!(send(&mut keyboard, &[0xf0, 0]), [0xfa, 0xfa, 2]);
        assert_eq!(send(&mut keyboard, &[0xf0, 1]), [0xfa, 0xfa]);
        keyboard.key(KeyCode(0xc8), false);
        assert_eq!(drain(&mut keyboard), [0xe0, 0xc8]);
        assert_eq!(send(&mut keyboard, &[0xf0, 9]), [0xfa, 0xfe]);
        assert_eq!(send(&mut keyboard, &[0xf6]), [0xfa]);
        assert_eq!(send(&mut keyboard, &[0xf0, 0]), [0xfa, 0xfa, 2]);
    }

    #[test]
    fn set_3_keys_break_only_where_their_type_says_so() {
        let mut keyboard = Keyboard::new();
        send(&mut keyboard, &[0xf0, 3]);
        keyboard.key(KeyCode(0x1e), true);
        keyboard.key(KeyCode(0x1e), true);
        keyboard.key(KeyCode(0x1e), false);
        assert_eq!(drain(&mut keyboard), [0x1c, 0x1c]);
        assert_eq!(send(&mut keyboard, &[0xfc, 0x1c, 0x32]), [0xfa, 0xfa, 0xfa]);
        keyboard.key(KeyCode(0x1e), true);
        keyboard.key(KeyCode(0x1e), true);
        keyboard.key(KeyCode(0x1e), false);
        assert_eq!(drain(&mut keyboard), [0x1c, 0xf0, 0x1c]);
    }

    #[test]
    fn an_overrun_leaves_whole_keys_and_one_mark() {
        let mut keyboard = Keyboard::new();
        (0..9).for_each(|_| keyboard.key(KeyCode(0xc8), true));
        let bytes = drain(&mut keyboard);
        assert_eq!(bytes.len(), 17);
        assert_eq!(bytes[14..], [0xe0, 0x75, 0x00]);
    }

    #[test]
    fn reset_is_power_on() {
        let mut keyboard = Keyboard::new();
        send(&mut keyboard, &[0xf0, 3, 0xed, 7, 0xf5]);
        keyboard.key(KeyCode(0x2a), true);
        keyboard.reset();
        assert_eq!(keyboard.regs, Regs::cold());
    }

    #[test]
    fn random_programs_never_panic_and_stay_bounded() {
        let mut keyboard = Keyboard::new();
        let mut random = Random(7);
        for _ in 0..20_000 {
            let value = random.next();
            let [byte, choice, ..] = value.to_le_bytes();
            match choice % 4 {
                0 => keyboard.write(byte),
                1 => keyboard.key(KeyCode(byte), true),
                2 => keyboard.key(KeyCode(byte), false),
                _ => drop(keyboard.take()),
            }
            assert!(keyboard.regs.events.len() <= QUEUE + 1 && keyboard.regs.replies.len() <= QUEUE);
        }
    }
}
