//! The older reader: a flat list of `key=value`, typed by a table of keys.
//!
//! A word without `=` is a switch: `foo` is `foo=on` and `nofoo` is `foo=off`, both with a warning. The first word may
//! instead be the value of an implied key. `id=` names the list.

use super::value::{ValueError, parse_bool, parse_number, parse_size};
use super::{asks_help, is_identifier, take_value};

/// The type of a key's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A switch.
    Switch,
    /// A number.
    Number,
    /// A number with a size suffix.
    Size,
}

impl Kind {
    /// The type as the help names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "str",
            Self::Switch => "bool (on/off)",
            Self::Number => "num",
            Self::Size => "size",
        }
    }
}

/// One key of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// A table of keys, as `-set` and `-readconfig` name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct List {
    /// The group's name ("drive").
    pub name: &'static str,
    /// The key that a first word without `=` belongs to.
    pub implied: Option<&'static str>,
    /// Its keys; empty: any key, all text.
    pub keys: &'static [Key],
    /// Whether a second option of the kind adds to the first.
    pub merge: bool,
}

/// What one option string says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pairs {
    /// `id=`.
    pub id: Option<String>,
    /// Keys and values in the order given; a later one overrides.
    pub pairs: Vec<(String, String)>,
    /// Whether a word asked for help.
    pub help: bool,
    /// Warnings about switches without a value.
    pub warnings: Vec<String>,
}

impl Pairs {
    /// The value of `key`: the last one given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The values of `key`, all of them.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A switch.
    pub fn switch(&self, key: &str) -> Result<Option<bool>, ValueError> {
        self.get(key).map(|v| parse_bool(key, v)).transpose()
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, ValueError> {
        self.get(key).map(|v| parse_number(key, v)).transpose()
    }

    /// A size.
    pub fn size(&self, key: &str) -> Result<Option<u64>, ValueError> {
        self.get(key).map(|v| parse_size(key, v)).transpose()
    }

    /// Sets a key, replacing earlier values.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.push((key.into(), value.into()));
    }

    /// Takes a key out: the last value given.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let value = self.get(key).map(str::to_owned);
        self.pairs.retain(|(k, _)| k != key);
        value
    }
}

/// Whether words without `=` are worth a warning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flags {
    /// They are: QEMU deprecates them.
    Warn,
    /// They are the documented spelling (`-serial tcp:…,server,nowait`).
    Quiet,
}

/// Splits an option string into keys and values without a table.
fn split(text: &str, implied: Option<&str>, flags: Flags) -> Pairs {
    let mut out = Pairs::default();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (key, value);
        if rest[end..].starts_with('=') {
            key = rest[..end].to_owned();
            (value, rest) = take_value(&rest[end + 1..]);
        } else if let Some(implied) = implied.filter(|_| first) {
            (value, rest) = take_value(rest);
            key = implied.to_owned();
        } else {
            let word = &rest[..end];
            rest = rest[end..].strip_prefix(',').unwrap_or("");
            if asks_help(word) {
                out.help = true;
            }
            (key, value) = match word.strip_prefix("no") {
                Some(off) => (off.to_owned(), "off".to_owned()),
                None => (word.to_owned(), "on".to_owned()),
            };
            if flags == Flags::Warn && !asks_help(word) {
                out.warnings
                    .push(format!("short-form boolean option '{word}' deprecated\nPlease use {key}={value} instead"));
            }
        }
        first = false;
        match key.as_str() {
            "id" => out.id = out.id.or(Some(value)),
            _ => out.pairs.push((key, value)),
        }
    }
    out
}

impl List {
    /// Reads an option string.
    pub fn parse(&self, text: &str) -> (Pairs, Result<(), ValueError>) {
        self.parse_with(text, self.implied, Flags::Warn)
    }

    /// Reads an option string with another implied key, or without warnings. The pairs come back even from a refused
    /// string, for their warnings.
    pub fn parse_with(&self, text: &str, implied: Option<&str>, flags: Flags) -> (Pairs, Result<(), ValueError>) {
        let pairs = split(text, implied, flags);
        let checked = match pairs.help {
            true => Ok(()),
            false => self.check_all(&pairs),
        };
        (pairs, checked)
    }

    fn check_all(&self, pairs: &Pairs) -> Result<(), ValueError> {
        if let Some(id) = &pairs.id
            && !is_identifier(id)
        {
            return Err(ValueError::Identifier { name: "id".into() });
        }
        pairs.pairs.iter().try_for_each(|(key, value)| self.check(key, value))
    }

    /// Whether one key and value fit the table.
    pub fn check(&self, key: &str, value: &str) -> Result<(), ValueError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let Some(found) = self.keys.iter().find(|k| k.name == key) else {
            return Err(ValueError::unknown(key, self.keys.iter().map(|k| k.name)));
        };
        match found.kind {
            Kind::Text => Ok(()),
            Kind::Switch => parse_bool(key, value).map(drop),
            Kind::Number => parse_number(key, value).map(drop),
            Kind::Size => parse_size(key, value).map(drop),
        }
    }

    /// The table as `help` prints it.
    pub fn help(&self) -> String {
        let mut keys: Vec<String> = self.keys.iter().map(|k| format!("  {}=<{}>\n", k.name, k.kind.name())).collect();
        keys.sort();
        format!("{} options:\n{}", self.name, keys.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List = List {
        name: "demo",
        implied: Some("file"),
        keys: &[
            Key { name: "file", kind: Kind::Text },
            Key { name: "index", kind: Kind::Number },
            Key { name: "wait", kind: Kind::Switch },
            Key { name: "size", kind: Kind::Size },
        ],
        merge: false,
    };

    fn good(text: &str) -> Pairs {
        let (pairs, result) = LIST.parse(text);
        result.unwrap();
        pairs
    }

    fn bad(text: &str) -> String {
        LIST.parse(text).1.unwrap_err().to_string()
    }

    #[test]
    fn the_first_word_belongs_to_the_implied_key() {
        let pairs = good("a,,b,index=3,id=x");
        assert_eq!(pairs.get("file"), Some("a,b"));
        assert_eq!(pairs.number("index"), Ok(Some(3)));
        assert_eq!(pairs.id.as_deref(), Some("x"));
        assert!(pairs.warnings.is_empty());
    }

    #[test]
    fn a_word_without_a_value_is_a_switch_and_earns_a_warning() {
        let pairs = good("f,wait");
        assert_eq!(pairs.switch("wait"), Ok(Some(true)));
        assert_eq!(pairs.warnings, ["short-form boolean option 'wait' deprecated\nPlease use wait=on instead"]);
        let pairs = good("f,nowait");
        assert_eq!(pairs.switch("wait"), Ok(Some(false)));
        assert_eq!(pairs.warnings, ["short-form boolean option 'nowait' deprecated\nPlease use wait=off instead"]);
    }

    #[test]
    fn a_later_value_overrides() {
        assert_eq!(good("a,file=b").get("file"), Some("b"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        assert_eq!(bad("a,indx=1"), "Invalid parameter 'indx'\nDid you mean 'index'?");
        assert_eq!(bad("a,zzzz=1"), "Invalid parameter 'zzzz'");
    }

    #[test]
    fn values_are_checked_when_read() {
        assert_eq!(bad("index=x"), "Parameter 'index' expects a number");
        assert_eq!(bad("wait=x"), "Parameter 'wait' expects 'on' or 'off'");
        assert!(bad("size=x").starts_with("Parameter 'size' expects a non-negative number below 2^64\n"));
        assert!(bad("id=1").starts_with("Parameter 'id' expects an identifier\nIdentifiers consist"));
    }

    #[test]
    fn help_lists_the_keys_in_order() {
        assert!(good("x,help").help);
        assert_eq!(LIST.help(), "demo options:\n  file=<str>\n  index=<num>\n  size=<size>\n  wait=<bool (on/off)>\n");
    }

    #[test]
    fn no_string_panics() {
        let text = "a,,b,index=3,id=x,wait,noxyz,=,é=ü,,,";
        for end in (0..=text.len()).filter(|&i| text.is_char_boundary(i)) {
            let _ = LIST.parse(&text[..end]);
        }
    }
}
