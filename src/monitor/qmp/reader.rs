//! The stream of JSON values that a program sends, cut into single values.
//!
//! Values need no line ends between them. A byte that cannot stand where it does is an error at once; reading goes on
//! at the next bracket, brace, comma, colon or control character, as in QEMU.

/// Bytes of one value.
const MAX_MESSAGE: usize = 16 << 20;
/// Open brackets and braces of one value.
const MAX_DEPTH: u32 = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Between tokens.
    #[default]
    Between,
    /// In a string that this quote ends; where it began, and whether a backslash came last.
    Text { quote: u8, start: usize, escaped: bool },
    /// In a word or number that stands alone.
    Word,
    /// After an error.
    Recovery,
}

/// Something that the stream held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A value's text.
    Value(String),
    /// Not JSON; QEMU's message.
    Error(String),
}

/// The reader of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    state: State,
    buffer: Vec<u8>,
    depth: u32,
}

impl Reader {
    /// Takes a byte; what it completed, if anything.
    pub(super) fn input(&mut self, byte: u8) -> Vec<Item> {
        let mut items = Vec::new();
        match self.state {
            State::Between => self.between(byte, &mut items),
            State::Text { quote, start, escaped } => self.text(byte, quote, start, escaped, &mut items),
            State::Word if is_word(byte) => self.push(byte, &mut items),
            State::Word => {
                self.finish(&mut items);
                self.between(byte, &mut items);
            }
            State::Recovery => {
                if byte < 0x20 || b"{}[],:".contains(&byte) {
                    self.state = State::Between;
                    self.between(byte, &mut items);
                }
            }
        }
        items
    }

    fn between(&mut self, byte: u8, items: &mut Vec<Item>) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                if self.depth > 0 {
                    self.push(byte, items);
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.push(byte, items);
                if self.depth > MAX_DEPTH {
                    self.fail("JSON token nesting depth limit exceeded".to_owned(), items);
                }
            }
            b'}' | b']' if self.depth > 0 => {
                self.push(byte, items);
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.finish(items);
                }
            }
            b'"' | b'\'' => {
                self.state = State::Text { quote: byte, start: self.buffer.len(), escaped: false };
                self.push(byte, items);
            }
            b',' | b':' if self.depth > 0 => self.push(byte, items),
            _ if self.depth > 0 && is_word(byte) => self.push(byte, items),
            b'}' | b']' | b',' | b':' => items.push(Item::Error("JSON parse error, expecting value".to_owned())),
            _ if is_word(byte) => {
                self.state = State::Word;
                self.push(byte, items);
            }
            _ => {
                let stray = String::from_utf8_lossy(&[byte]).into_owned();
                self.fail(format!("JSON parse error, stray '{stray}'"), items);
            }
        }
    }

    fn text(&mut self, byte: u8, quote: u8, start: usize, escaped: bool, items: &mut Vec<Item>) {
        // FEh and FFh are in no UTF-8 text: programs send them to start anew.
        if !(0x20..0xfe).contains(&byte) {
            let mut stray = self.buffer.get(start..).unwrap_or_default().to_vec();
            stray.push(byte);
            let stray = String::from_utf8_lossy(&stray).into_owned();
            self.fail(format!("JSON parse error, stray '{stray}'"), items);
            return;
        }
        self.push(byte, items);
        if self.state == State::Recovery {
            return;
        }
        let ends = byte == quote && !escaped;
        self.state =
            if ends { State::Between } else { State::Text { quote, start, escaped: byte == b'\\' && !escaped } };
        if ends && self.depth == 0 {
            self.finish(items);
        }
    }

    fn push(&mut self, byte: u8, items: &mut Vec<Item>) {
        if self.buffer.len() >= MAX_MESSAGE {
            self.fail("JSON token size limit exceeded".to_owned(), items);
            return;
        }
        self.buffer.push(byte);
    }

    fn finish(&mut self, items: &mut Vec<Item>) {
        self.state = State::Between;
        self.depth = 0;
        items.push(match String::from_utf8(std::mem::take(&mut self.buffer)) {
            Ok(text) => Item::Value(text),
            Err(_) => Item::Error("JSON parse error, invalid UTF-8 sequence in string".to_owned()),
        });
    }

    fn fail(&mut self, message: String, items: &mut Vec<Item>) {
        self.state = State::Recovery;
        self.depth = 0;
        self.buffer = Vec::new();
        items.push(Item::Error(message));
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Item> {
        let mut reader = Reader::default();
        text.bytes().flat_map(|byte| reader.input(byte)).collect()
    }

    fn value(text: &str) -> Item {
        Item::Value(text.to_owned())
    }

    fn error(text: &str) -> Item {
        Item::Error(format!("JSON parse error, {text}"))
    }

    #[test]
    fn values_need_no_separator() {
        assert_eq!(
            read("{\"a\": [1, {}]}{} [\"}\\\"\"]"),
            [value("{\"a\": [1, {}]}"), value("{}"), value("[\"}\\\"\"]")]
        );
        assert_eq!(read("true 'x'1\n"), [value("true"), value("'x'"), value("1")]);
    }

    #[test]
    fn errors_are_reported_at_once_and_reading_goes_on() {
        assert_eq!(read("}{}"), [error("expecting value"), value("{}")]);
        assert_eq!(read("\"abc\n{}"), [error("stray '\"abc\n'"), value("{}")]);
        assert_eq!(read("@ junk {}"), [error("stray '@'"), value("{}")]);
        assert_eq!(read("{\"a\":\"\u{1}\"}"), [error("stray '\"\u{1}'"), error("expecting value")]);
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let items = read(&"[".repeat(5000));
        assert_eq!(items[0], Item::Error("JSON token nesting depth limit exceeded".to_owned()));
        let mut reader = Reader::default();
        reader.input(b'"');
        let failed = (0..MAX_MESSAGE + 10).find_map(|_| reader.input(b'x').pop());
        assert_eq!(failed, Some(Item::Error("JSON token size limit exceeded".to_owned())));
        assert_eq!(reader.buffer.capacity(), 0);
    }
}
