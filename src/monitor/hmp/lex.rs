//! Command lines: names, strings, flags, formats and expressions, by each command's list of arguments.

use crate::monitor::dump::Format;

use super::expression::{self, Registers};

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A word, or text in quotes.
    Text,
    /// A word, or nothing.
    OptionalText,
    /// A file name.
    File,
    /// A drive's name.
    Drive,
    /// A drive's name, or nothing.
    OptionalDrive,
    /// The rest of the line.
    OptionalRest,
    /// A flag: `-f`.
    Flag(char),
    /// A flag with a word: `-f png`.
    FlagText(char),
    /// `/4xw`.
    Format,
    /// An expression of 32 bits.
    Int,
    /// An expression of 32 bits, or nothing.
    OptionalInt,
    /// An expression of 64 bits.
    Long,
}

/// An argument of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arg {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// Shorthand for command tables.
#[must_use]
pub const fn arg(name: &'static str, kind: Kind) -> Arg {
    Arg { name, kind }
}

/// The `/fmt` that commands without one use: the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatDefaults {
    format: Format,
    size: usize,
}

impl Default for FormatDefaults {
    fn default() -> Self {
        Self { format: Format::Hex, size: 4 }
    }
}

/// A count, a format letter and a unit size in bytes (4 where none was given for `i`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fmt {
    /// How many.
    pub count: u64,
    /// How.
    pub format: Format,
    /// Bytes a unit, if given.
    pub size: Option<usize>,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Text(String),
    Number(u64),
    Set,
    Fmt(Fmt),
}

/// The arguments of a command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    values: Vec<(&'static str, Value)>,
}

impl Args {
    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// A text that may be missing.
    #[must_use]
    pub fn optional_text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A text; empty if it is missing, which only optional ones are.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.optional_text(name).unwrap_or("")
    }

    /// A number that may be missing.
    #[must_use]
    pub fn optional_number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A number; 0 if it is missing, which only optional ones are.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.optional_number(name).unwrap_or(0)
    }

    /// Whether a flag is there.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Set))
    }

    /// A `/fmt`.
    #[must_use]
    pub fn fmt(&self, name: &str) -> Fmt {
        match self.value(name) {
            Some(Value::Fmt(fmt)) => *fmt,
            _ => Fmt { count: 1, format: Format::Hex, size: Some(4) },
        }
    }
}

/// Splits a command's name off: it ends at a blank or a slash.
#[must_use]
pub fn split_name(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let end = line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len());
    line.split_at(end)
}

/// The next word or quoted text, and what follows; `Ok(None)` at the end of the line.
///
/// # Errors
/// The quotes do not end, or hold an unknown escape.
pub fn word(text: &str) -> Result<Option<(String, &str)>, String> {
    let text = text.trim_start();
    if text.is_empty() {
        return Ok(None);
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Ok(Some((text[..end].to_owned(), &text[end..])));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(Some((out, &quoted[at + 1..]))),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, c @ ('\\' | '\'' | '"'))) => out.push(c),
                Some((_, c)) => return Err(format!("unsupported escape code: '\\{c}'")),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err("unterminated string".to_owned())
}

/// Reads the arguments of a command. `name` is the command's name for messages.
///
/// # Errors
/// QEMU's message.
pub fn parse(
    name: &str,
    table: &[Arg],
    line: &str,
    registers: Registers<'_>,
    defaults: &mut FormatDefaults,
) -> Result<Args, String> {
    let mut rest = line;
    let mut args = Args::default();
    for (place, argument) in table.iter().enumerate() {
        let value = match argument.kind {
            Kind::Text | Kind::OptionalText | Kind::File | Kind::Drive | Kind::OptionalDrive => {
                text_argument(name, argument.kind, &mut rest)?
            }
            Kind::OptionalRest => {
                let text = std::mem::take(&mut rest).trim();
                (!text.is_empty()).then(|| Value::Text(text.to_owned()))
            }
            Kind::Flag(letter) => flag(name, letter, &table[place + 1..], &mut rest)?.then_some(Value::Set),
            Kind::FlagText(letter) => {
                if flag(name, letter, &table[place + 1..], &mut rest)? {
                    text_argument(name, Kind::Text, &mut rest)?
                } else {
                    None
                }
            }
            Kind::Format => Some(Value::Fmt(format(&mut rest, defaults)?)),
            Kind::Int | Kind::Long => Some(number(argument, &mut rest, registers)?),
            Kind::OptionalInt if rest.trim_start().is_empty() => None,
            Kind::OptionalInt => Some(number(argument, &mut rest, registers)?),
        };
        if let Some(value) = value {
            args.values.push((argument.name, value));
        }
    }
    if !rest.trim_start().is_empty() {
        return Err(format!("{name}: extraneous characters at the end of line"));
    }
    Ok(args)
}

fn text_argument(name: &str, kind: Kind, rest: &mut &str) -> Result<Option<Value>, String> {
    if let Some((text, after)) = word(rest)? {
        *rest = after;
        return Ok(Some(Value::Text(text)));
    }
    let what = match kind {
        Kind::File => "filename",
        Kind::Drive => "block device name",
        Kind::Text => "string",
        _ => return Ok(None),
    };
    Err(format!("{name}: {what} expected"))
}

/// Whether the flag is next; another flag of the table may come before it.
fn flag(name: &str, letter: char, later: &[Arg], rest: &mut &str) -> Result<bool, String> {
    let text = rest.trim_start();
    let Some(after) = text.strip_prefix('-') else { return Ok(false) };
    let found = after.chars().next();
    if found == Some(letter) {
        *rest = &after[letter.len_utf8()..];
        return Ok(true);
    }
    let known = later.iter().any(|arg| match arg.kind {
        Kind::Flag(other) | Kind::FlagText(other) => Some(other) == found,
        _ => false,
    });
    if known { Ok(false) } else { Err(format!("{name}: unsupported option -{}", found.unwrap_or(' '))) }
}

fn format(rest: &mut &str, defaults: &mut FormatDefaults) -> Result<Fmt, String> {
    let text = rest.trim_start();
    let Some(mut text) = text.strip_prefix('/') else {
        let size = (defaults.format != Format::Instruction).then_some(defaults.size);
        return Ok(Fmt { count: 1, format: defaults.format, size });
    };
    let mut count = 1;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits > 0 {
        count = text[..digits].parse().unwrap_or(u64::from(u32::MAX));
        text = &text[digits..];
    }
    let (mut letter, mut size) = (None, None);
    while let Some(c) = text.chars().next() {
        match c {
            'o' => letter = Some(Format::Octal),
            'd' => letter = Some(Format::Decimal),
            'u' => letter = Some(Format::Unsigned),
            'x' => letter = Some(Format::Hex),
            'i' => letter = Some(Format::Instruction),
            'c' => letter = Some(Format::Char),
            'b' => size = Some(1),
            'h' => size = Some(2),
            'w' => size = Some(4),
            'g' | 'L' => size = Some(8),
            c if c.is_whitespace() => break,
            c => return Err(format!("invalid char in format: '{c}'")),
        }
        text = &text[1..];
    }
    *rest = text;
    let letter = letter.unwrap_or(defaults.format);
    if letter != Format::Instruction {
        let used = size.unwrap_or(defaults.size);
        defaults.size = used;
        size = Some(used);
    }
    defaults.format = letter;
    Ok(Fmt { count, format: letter, size })
}

fn number(argument: &Arg, rest: &mut &str, registers: Registers<'_>) -> Result<Value, String> {
    let (value, after) = expression::parse(rest, registers).map_err(|e| e.0)?;
    *rest = after;
    if argument.kind != Kind::Long && value >> 32 != 0 {
        return Err(format!("'{}' has failed: integer is for 32-bit values", argument.name));
    }
    Ok(Value::Number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<u64> {
        None
    }

    fn read(table: &[Arg], line: &str) -> Result<Args, String> {
        parse("cmd", table, line, &none, &mut FormatDefaults::default())
    }

    #[test]
    fn words_and_quoted_texts() {
        let table = [arg("a", Kind::Text), arg("b", Kind::OptionalText)];
        let args = read(&table, " one \"two \\\"words\\\"\\n\" ").unwrap();
        assert_eq!((args.text("a"), args.optional_text("b")), ("one", Some("two \"words\"\n")));
        assert_eq!(read(&table, "").unwrap_err(), "cmd: string expected");
        assert_eq!(read(&table, "a b c").unwrap_err(), "cmd: extraneous characters at the end of line");
        assert_eq!(read(&table, "\"a").unwrap_err(), "unterminated string");
        assert_eq!(read(&table, "\"\\x").unwrap_err(), "unsupported escape code: '\\x'");
        assert_eq!(read(&[arg("f", Kind::File)], "").unwrap_err(), "cmd: filename expected");
        assert_eq!(read(&[arg("f", Kind::Drive)], "").unwrap_err(), "cmd: block device name expected");
    }

    #[test]
    fn flags_come_in_any_order_of_the_table() {
        let table = [arg("n", Kind::Flag('n')), arg("v", Kind::Flag('v')), arg("device", Kind::OptionalDrive)];
        let args = read(&table, "-v disk").unwrap();
        assert_eq!((args.flag("n"), args.flag("v"), args.text("device")), (false, true, "disk"));
        assert_eq!(read(&table, "-x").unwrap_err(), "cmd: unsupported option -x");
        let table = [arg("file", Kind::File), arg("format", Kind::FlagText('f')), arg("device", Kind::OptionalText)];
        let args = read(&table, "a.png -f png VGA").unwrap();
        assert_eq!((args.text("format"), args.text("device")), ("png", "VGA"));
    }

    #[test]
    fn formats_are_remembered() {
        let table = [arg("fmt", Kind::Format), arg("addr", Kind::Long)];
        let mut defaults = FormatDefaults::default();
        let mut fmt = |line: &str| parse("x", &table, line, &none, &mut defaults).map(|args| args.fmt("fmt"));
        assert_eq!(fmt("0"), Ok(Fmt { count: 1, format: Format::Hex, size: Some(4) }));
        assert_eq!(fmt("/4dh 0"), Ok(Fmt { count: 4, format: Format::Decimal, size: Some(2) }));
        assert_eq!(fmt("/i 0"), Ok(Fmt { count: 1, format: Format::Instruction, size: None }));
        assert_eq!(fmt("0"), Ok(Fmt { count: 1, format: Format::Instruction, size: None }));
        assert_eq!(fmt("/x 0"), Ok(Fmt { count: 1, format: Format::Hex, size: Some(2) }));
        assert_eq!(fmt("/2s 0"), Err("invalid char in format: 's'".to_owned()));
        assert_eq!(fmt("/q"), Err("invalid char in format: 'q'".to_owned()));
    }

    #[test]
    fn numbers_of_32_bits_are_checked() {
        let table = [arg("index", Kind::Int)];
        assert_eq!(read(&table, "1+1").unwrap().number("index"), 2);
        assert_eq!(read(&table, "-1").unwrap_err(), "'index' has failed: integer is for 32-bit values");
        assert_eq!(read(&table, "").unwrap_err(), "unexpected end of expression");
    }

    #[test]
    fn a_name_ends_at_a_slash() {
        assert_eq!(split_name(" x/4xw 0"), ("x", "/4xw 0"));
        assert_eq!(split_name("info block"), ("info", " block"));
    }
}
