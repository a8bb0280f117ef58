//! The byte stream of a terminal: UTF-8, control characters and escape sequences (ECMA-48 5.4, DEC VT100/VT220).

/// A piece of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// A character to show.
    Print(char),
    /// A control character (C0).
    Control(u8),
    /// ESC, perhaps an intermediate, and a final character.
    Escape {
        /// 0 if none.
        intermediate: u8,
        /// The character that ends it.
        last: u8,
    },
    /// A control sequence.
    Csi(Csi),
}

/// A control sequence: `ESC [ private parameters intermediate last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Csi {
    /// `?`, `>`, `=`, `<`, or 0.
    pub private: u8,
    /// 0 if none.
    pub intermediate: u8,
    /// The character that names it.
    pub last: u8,
    values: [u16; PARAMETERS],
    count: usize,
}

/// More parameters than any sequence needs; further ones are ignored.
const PARAMETERS: usize = 16;

impl Csi {
    const EMPTY: Self = Self { private: 0, intermediate: 0, last: 0, values: [0; PARAMETERS], count: 0 };

    /// All parameters, at least one; those left out are 0.
    pub fn values(&self) -> &[u16] {
        &self.values[..self.count.max(1)]
    }

    /// A parameter that counts something: 1 if left out or 0.
    pub fn count(&self, index: usize) -> usize {
        usize::from(self.value(index)).max(1)
    }

    /// A parameter; 0 if left out.
    pub fn value(&self, index: usize) -> u16 {
        self.values().get(index).copied().unwrap_or(0)
    }

    fn digit(&mut self, digit: u8) {
        self.count = self.count.max(1);
        if let Some(value) = self.values.get_mut(self.count - 1) {
            *value = value.saturating_mul(10).saturating_add(digit.into());
        }
    }

    fn separator(&mut self) {
        self.count = (self.count.max(1) + 1).min(PARAMETERS);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ground,
    Escape(u8),
    Csi(Csi),
    /// A control sequence that makes no sense: wait for its end.
    CsiIgnored,
    /// An operating system command or device control string: wait for its end.
    Text,
    /// An ESC in such a string.
    TextEscape,
}

/// The parser's state between bytes.
#[derive(Debug)]
pub(super) struct Parser {
    state: State,
    /// A UTF-8 character that is not complete: its bits, and the continuation bytes that it lacks.
    partial: u32,
    missing: u8,
    /// The least code point that this many bytes may encode.
    least: u32,
}

const ESC: u8 = 0x1b;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const BEL: u8 = 0x07;
const DEL: u8 = 0x7f;

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Ground, partial: 0, missing: 0, least: 0 }
    }
}

impl Parser {
    /// Takes a byte and gives what it completes to `act`.
    pub fn byte(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        if byte < 0x80 {
            if self.missing != 0 {
                self.missing = 0;
                act(Action::Print(char::REPLACEMENT_CHARACTER));
            }
            self.ascii(byte, act);
        } else if self.state == State::Ground {
            self.utf8(byte, act);
        }
    }

    fn utf8(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        if byte & 0xc0 == 0x80 {
            if self.missing == 0 {
                act(Action::Print(char::REPLACEMENT_CHARACTER));
                return;
            }
            self.partial = self.partial << 6 | u32::from(byte & 0x3f);
            self.missing -= 1;
            if self.missing == 0 {
                let code = if self.partial >= self.least { char::from_u32(self.partial) } else { None };
                act(Action::Print(code.unwrap_or(char::REPLACEMENT_CHARACTER)));
            }
            return;
        }
        if self.missing != 0 {
            act(Action::Print(char::REPLACEMENT_CHARACTER));
        }
        (self.partial, self.missing, self.least) = match byte {
            0xc2..=0xdf => (u32::from(byte & 0x1f), 1, 0x80),
            0xe0..=0xef => (u32::from(byte & 0x0f), 2, 0x800),
            0xf0..=0xf4 => (u32::from(byte & 0x07), 3, 0x1_0000),
            _ => {
                act(Action::Print(char::REPLACEMENT_CHARACTER));
                (0, 0, 0)
            }
        };
    }

    fn ascii(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        self.state = match (self.state, byte) {
            (State::Text, ESC) => State::TextEscape,
            (State::Text, BEL | CAN | SUB) | (State::TextEscape, b'\\') => State::Ground,
            (State::Text, _) => State::Text,
            (_, ESC) => State::Escape(0),
            (_, CAN | SUB) => State::Ground,
            (state, 0..0x20) => {
                act(Action::Control(byte));
                state
            }
            (state, DEL) => state,
            (State::Ground, _) => {
                act(Action::Print(char::from(byte)));
                State::Ground
            }
            (State::Escape(_) | State::TextEscape, 0x20..0x30) => State::Escape(byte),
            (State::Escape(0) | State::TextEscape, b'[') => State::Csi(Csi::EMPTY),
            (State::Escape(0) | State::TextEscape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape(intermediate), last) => {
                act(Action::Escape { intermediate, last });
                State::Ground
            }
            (State::TextEscape, last) => {
                act(Action::Escape { intermediate: 0, last });
                State::Ground
            }
            (State::Csi(csi), byte) => Self::csi(csi, byte, act),
            (State::CsiIgnored, 0x40..) => State::Ground,
            (State::CsiIgnored, _) => State::CsiIgnored,
        };
    }

    fn csi(mut csi: Csi, byte: u8, act: &mut impl FnMut(Action)) -> State {
        match byte {
            b'0'..=b'9' => csi.digit(byte - b'0'),
            b';' | b':' => csi.separator(),
            b'<'..=b'?' if csi.count == 0 => csi.private = byte,
            b'<'..=b'?' => return State::CsiIgnored,
            0x20..0x30 => csi.intermediate = byte,
            last => {
                csi.last = last;
                act(Action::Csi(csi));
                return State::Ground;
            }
        }
        State::Csi(csi)
    }
}
