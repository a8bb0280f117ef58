//! Text to values: RFC 8259 plus single-quoted strings.

use serde_json::{Map, Number, Value};

/// Why a text is no JSON value; the words are QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonError {
    /// The text ends within the value.
    #[error("JSON parse error, premature EOI")]
    End,
    /// Something other than a value where one must be.
    #[error("JSON parse error, expecting value")]
    Value,
    /// A member of an object does not start with a string.
    #[error("JSON parse error, key is not a string in object")]
    Key,
    /// No colon after a member's name.
    #[error("JSON parse error, missing : in object pair")]
    Colon,
    /// A name occurs twice.
    #[error("JSON parse error, duplicate key")]
    Duplicate,
    /// No comma between members.
    #[error("JSON parse error, expected separator in dict")]
    ObjectSeparator,
    /// No comma between elements.
    #[error("JSON parse error, expected separator in list")]
    ListSeparator,
    /// A word that is none of the three.
    #[error("JSON parse error, invalid keyword '{0}'")]
    Keyword(String),
    /// A wrong escape, or a control character, in a string.
    #[error("JSON parse error, invalid escape sequence '{0}' in string")]
    Escape(String),
    /// A character that starts nothing.
    #[error("JSON parse error, stray '{0}'")]
    Stray(char),
    /// Too deep.
    #[error("JSON token nesting depth limit exceeded")]
    Depth,
    /// Text after the value.
    #[error("Expecting at most one JSON value")]
    More,
}

/// QEMU's own limit on nesting is 1024; calls nest here, and 128 is far beyond any option.
const MAX_DEPTH: u32 = 128;

/// Reads the one value that `text` is.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.blank();
    match reader.rest.is_empty() {
        true => Ok(value),
        false => Err(JsonError::More),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn peek(&mut self) -> Result<char, JsonError> {
        self.blank();
        self.rest.chars().next().ok_or(JsonError::End)
    }

    fn skip(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn value(&mut self, depth: u32) -> Result<Value, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::Depth);
        }
        match self.peek()? {
            '{' => self.object(depth),
            '[' => self.list(depth),
            quote @ ('"' | '\'') => self.string(quote).map(Value::String),
            '-' | '0'..='9' => self.number(),
            'a'..='z' => self.keyword(),
            '}' | ']' | ',' | ':' => Err(JsonError::Value),
            c => Err(JsonError::Stray(c)),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value, JsonError> {
        self.skip('{');
        let mut map = Map::new();
        if self.peek()? == '}' {
            self.skip('}');
            return Ok(Value::Object(map));
        }
        loop {
            let key = match self.peek()? {
                quote @ ('"' | '\'') => self.string(quote)?,
                _ => return Err(JsonError::Key),
            };
            if self.peek()? != ':' {
                return Err(JsonError::Colon);
            }
            self.skip(':');
            if map.contains_key(&key) {
                return Err(JsonError::Duplicate);
            }
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            match self.peek()? {
                ',' => self.skip(','),
                '}' => {
                    self.skip('}');
                    return Ok(Value::Object(map));
                }
                _ => return Err(JsonError::ObjectSeparator),
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value, JsonError> {
        self.skip('[');
        let mut list = Vec::new();
        if self.peek()? == ']' {
            self.skip(']');
            return Ok(Value::Array(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            match self.peek()? {
                ',' => self.skip(','),
                ']' => {
                    self.skip(']');
                    return Ok(Value::Array(list));
                }
                _ => return Err(JsonError::ListSeparator),
            }
        }
    }

    fn keyword(&mut self) -> Result<Value, JsonError> {
        let end = self.rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            _ => Err(JsonError::Keyword(word.into())),
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.parse::<Number>().map(Value::Number).map_err(|_| JsonError::Value)
    }

    fn string(&mut self, quote: char) -> Result<String, JsonError> {
        self.skip(quote);
        let mut out = String::new();
        loop {
            let c = self.rest.chars().next().ok_or(JsonError::End)?;
            self.skip(c);
            match c {
                _ if c == quote => return Ok(out),
                '\\' => out.push(self.escape()?),
                _ if c < ' ' => return Err(JsonError::Escape(c.escape_default().to_string())),
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = self.rest.chars().next().ok_or(JsonError::End)?;
        self.skip(c);
        Ok(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '"' | '\'' | '\\' | '/' => c,
            'u' => return self.unicode(),
            _ => return Err(JsonError::Escape(format!("\\{c}"))),
        })
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let bad = || JsonError::Escape(format!("\\u{first:04X}"));
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) {
            self.rest = self.rest.strip_prefix("\\u").ok_or_else(bad)?;
            units.push(self.hex4()?);
        }
        match char::decode_utf16(units).next() {
            // A zero would end the string in a C program; QEMU refuses it.
            Some(Ok(c)) if c != '\0' => Ok(c),
            _ => Err(bad()),
        }
    }

    fn hex4(&mut self) -> Result<u16, JsonError> {
        let digits = self.rest.get(..4).filter(|d| d.chars().all(|c| c.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| JsonError::Escape("\\u".into()))?;
        let unit = u16::from_str_radix(digits, 16).map_err(|_| JsonError::Escape("\\u".into()))?;
        self.rest = &self.rest[4..];
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bad(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn single_quotes_are_quotes() {
        assert_eq!(
            parse("{'driver': 'raw', \"n\": [1, -2.5, true]}"),
            Ok(json!({"driver": "raw", "n": [1, -2.5, true]}))
        );
        assert_eq!(parse(r#"'a"b'"#), Ok(json!("a\"b")));
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(parse(r#""\n\u00e9\uD83D\uDE00\'""#), Ok(json!("\né😀'")));
        assert_eq!(bad(r#""\q""#), "JSON parse error, invalid escape sequence '\\q' in string");
        assert!(parse(r#""\uD83D""#).is_err());
        assert!(parse(r#""\u0000""#).is_err());
    }

    #[test]
    fn faults_read_as_qemus() {
        assert_eq!(bad("{\"driver\":}"), "JSON parse error, expecting value");
        assert_eq!(bad("{\"driver\":\"file\""), "JSON parse error, premature EOI");
        assert_eq!(bad("{} x"), "Expecting at most one JSON value");
        assert_eq!(bad("{1:2}"), "JSON parse error, key is not a string in object");
        assert_eq!(bad("{'a' 2}"), "JSON parse error, missing : in object pair");
        assert_eq!(bad("{'a':1,'a':2}"), "JSON parse error, duplicate key");
        assert_eq!(bad("[1 2]"), "JSON parse error, expected separator in list");
        assert_eq!(bad("truth"), "JSON parse error, invalid keyword 'truth'");
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert_eq!(parse(&"[".repeat(100_000)), Err(JsonError::Depth));
    }

    #[test]
    fn truncations_never_panic() {
        let text = r#"{"a": [1, 2.5e3, "x\u00e9", {'b': null}], "c": true}"#;
        for end in (0..text.len()).filter(|&i| text.is_char_boundary(i)) {
            assert!(parse(&text[..end]).is_err());
        }
    }
}
