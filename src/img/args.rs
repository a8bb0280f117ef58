//! Options of commands: getopt_long's rules and texts over lexopt.

use std::ffi::OsString;

use lexopt::Arg;

use super::source::Source;
use super::{Failure, help, program};
use crate::block::parse_size;

/// An option of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// "f", or nothing.
    pub(super) short: Option<char>,
    /// "format".
    pub(super) long: &'static str,
    /// Whether a value follows.
    pub(super) takes_value: bool,
}

/// An option with a value.
pub(super) const fn value(short: char, long: &'static str) -> Spec {
    Spec { short: Some(short), long, takes_value: true }
}

/// An option without.
pub(super) const fn flag(short: char, long: &'static str) -> Spec {
    Spec { short: Some(short), long, takes_value: false }
}

/// An option that has a long name only.
pub(super) const fn long(long: &'static str, takes_value: bool) -> Spec {
    Spec { short: None, long, takes_value }
}

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Given {
    options: Vec<(&'static str, String)>,
    /// The other arguments, in order.
    pub(super) names: Vec<String>,
}

impl Given {
    pub(super) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The last value of an option.
    pub(super) fn last(&self, long: &str) -> Option<&str> {
        self.options.iter().rfind(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All options in the order in which they were typed, those without a value with an empty one.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.options.iter().map(|(name, value)| (*name, value.as_str()))
    }

    pub(super) fn all<'a>(&'a self, long: &'static str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// How the command names an image by its one name.
    pub(super) fn source(&self, filename: &str) -> Source {
        Source {
            filename: filename.to_owned(),
            format: self.last("format").map(str::to_owned),
            image_opts: self.has("image-opts"),
            cache: self.last("cache").map(str::to_owned),
            force_share: self.has("force-share"),
            aio: None,
        }
    }

    /// The one image that is named.
    pub(super) fn one_name(&self, command: &str) -> Result<&str, Failure> {
        match self.names.as_slice() {
            [name] => Ok(name),
            _ => Err(Failure::usage(command, "Expecting one image file name")),
        }
    }

    /// Refuses `--image-opts` beside a format.
    pub(super) fn check_image_opts(&self, formats: &[&str]) -> Result<(), Failure> {
        if self.has("image-opts") && formats.iter().any(|format| self.has(format)) {
            return Err(Failure::new("--image-opts and --format are mutually exclusive"));
        }
        Ok(())
    }

    /// The value of an option that takes a number from `least` to `most`; `what` ("buffer size") is its name in the
    /// complaint.
    pub(super) fn number(&self, long: &str, what: &str, least: u64, most: u64) -> Result<Option<u64>, Failure> {
        self.last(long).map(|text| number(text, what, least, most)).transpose()
    }

    /// `-r`: bytes a second.
    pub(super) fn rate(&self, long: &str) -> Result<Option<u64>, Failure> {
        self.number(long, "rate limit", 0, i64::MAX as u64)
    }

    /// `--output`.
    pub(super) fn json(&self, command: &str) -> Result<bool, Failure> {
        match self.last("output") {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(Failure::usage(command, format!("--output expects 'human' or 'json' not '{other}'"))),
        }
    }
}

/// Reads a command's arguments. `None`: its help was asked for and has been printed.
pub(super) fn parse(command: &str, specs: &[Spec], args: &[OsString]) -> Result<Option<Given>, Failure> {
    let bad = |text: String| {
        let called = program::called();
        let message = format!("{called} {command}: {text}\nTry '{called} {command} --help' for more info");
        Failure { message, status: 1, signal: None }
    };
    let utf8 = |text: OsString| {
        text.into_string().map_err(|text| Failure::new(format!("'{}' is not valid UTF-8", text.to_string_lossy())))
    };
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_args(args.iter().cloned());
    loop {
        let (spec, typed) = match parser.next().map_err(|error| bad(error.to_string()))? {
            None => return Ok(Some(given)),
            Some(Arg::Value(name)) => {
                given.names.push(utf8(name)?);
                continue;
            }
            Some(Arg::Short('h')) => {
                print!("{}", help::command_text(command));
                return Ok(None);
            }
            Some(Arg::Short(letter)) => {
                let spec = specs.iter().find(|spec| spec.short == Some(letter));
                (spec.ok_or_else(|| bad(format!("invalid option -- '{letter}'")))?, None)
            }
            Some(Arg::Long("help")) => {
                print!("{}", help::command_text(command));
                return Ok(None);
            }
            Some(Arg::Long(name)) => {
                let mut matches = specs.iter().filter(|spec| spec.long.starts_with(name));
                let exact = specs.iter().find(|spec| spec.long == name);
                let unique = matches.next().filter(|_| matches.next().is_none());
                let spec = exact.or(unique).ok_or_else(|| bad(format!("unrecognized option '--{name}'")))?;
                (spec, Some(spec.long))
            }
        };
        let value = if spec.takes_value {
            let missing = match (typed, spec.short) {
                (None, Some(letter)) => format!("option requires an argument -- '{letter}'"),
                _ => format!("option '--{}' requires an argument", spec.long),
            };
            utf8(parser.value().map_err(|_| bad(missing))?)?
        } else {
            String::new()
        };
        given.options.push((spec.long, value));
    }
}

/// A number with a suffix, from `least` to `most`.
pub(super) fn number(text: &str, what: &str, least: u64, most: u64) -> Result<u64, Failure> {
    let range = || Failure::new(format!("Invalid {what} specified. Must be between {least} and {most}."));
    match parse_size(text) {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        Some(_) => Err(range()),
        // A number that does not fit 64 bits, or a negative one.
        None if is_number(text) => Err(range()),
        None => Err(Failure::new(format!("Invalid {what} specified: '{text}'."))),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let digits = digits.strip_suffix(|c: char| "bBkKmMgGtTpPeE".contains(c)).unwrap_or(digits);
    let whole = digits.split('.').next().unwrap_or_default();
    !whole.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Splits "a=b,c=d,,e,f" into pairs; a doubled comma is one in the value, a key without a value is "on".
pub(super) fn key_values(text: &str) -> Vec<(String, String)> {
    let mut items = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, items.last_mut()) {
            (',', Some(last)) if chars.peek() == Some(&',') => {
                chars.next();
                last.push(',');
            }
            (',', _) => items.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    let pairs = items.into_iter().filter(|item| !item.is_empty());
    pairs
        .map(|item| match item.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (item, "on".to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec] = &[value('f', "format"), flag('q', "quiet"), long("output", true)];

    fn parsed(args: &[&str]) -> Result<Given, String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        parse("check", SPECS, &args).map(Option::unwrap).map_err(|failure| failure.message)
    }

    #[test]
    fn options_and_names_mix() {
        let given = parsed(&["a", "-qfraw", "--out=json", "b"]).unwrap();
        assert_eq!(given.names, ["a", "b"]);
        assert_eq!(given.last("format"), Some("raw"));
        assert!(given.has("quiet") && given.json("check").unwrap());
    }

    #[test]
    fn complaints_are_those_of_getopt() {
        let hint = "\nTry 'qemu-img check --help' for more info";
        assert_eq!(parsed(&["--bogus"]).unwrap_err(), format!("qemu-img check: unrecognized option '--bogus'{hint}"));
        assert_eq!(parsed(&["-1"]).unwrap_err(), format!("qemu-img check: invalid option -- '1'{hint}"));
        assert_eq!(parsed(&["-f"]).unwrap_err(), format!("qemu-img check: option requires an argument -- 'f'{hint}"));
        let given = parsed(&["--output=xx"]).unwrap();
        let message = given.json("check").unwrap_err().message;
        assert_eq!(message, format!("qemu-img: --output expects 'human' or 'json' not 'xx'{hint}"));
    }

    #[test]
    fn doubled_commas_are_part_of_the_value() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(key_values("a=b,,c,d,e="), [pair("a", "b,c"), pair("d", "on"), pair("e", "")]);
    }
}
