//! Numbers, sizes and switches, with QEMU's messages for what is none.

use super::suggest::with_hint;

/// Why an option string, or a value in it, is refused. The text is QEMU's, and what follows its first line is either
/// QEMU's hint or the nearest right word.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValueError {
    /// The value is not of the key's type.
    #[error("Parameter '{name}' expects {expected}")]
    Expects {
        /// The key.
        name: String,
        /// What it wants.
        expected: &'static str,
    },
    /// The value is no size.
    #[error(
        "Parameter '{name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, \
         mega-, giga-, tera-, peta-\nand exabytes, respectively."
    )]
    Size {
        /// The key.
        name: String,
    },
    /// The value is a size that no 64 bits hold.
    #[error("Value '{value}' is out of range for parameter '{name}'")]
    SizeRange {
        /// The key.
        name: String,
        /// The value.
        value: String,
    },
    /// The value is a number that no 64 bits hold.
    #[error("Value '{value}' is too large for parameter '{name}'")]
    TooLarge {
        /// The key.
        name: String,
        /// The value.
        value: String,
    },
    /// The value is none of the words the key knows.
    #[error("{0}")]
    NotAccepted(String),
    /// There is no such key.
    #[error("{0}")]
    Unknown(String),
    /// A key of a tree stands without a value.
    #[error("Expected '=' after parameter '{name}'")]
    NoValue {
        /// The key.
        name: String,
    },
    /// The value is no identifier.
    #[error(
        "Parameter '{name}' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting \
         with a letter."
    )]
    Identifier {
        /// The key.
        name: String,
    },
    /// A key that must be there is not.
    #[error("Parameter '{name}' is missing")]
    Missing {
        /// The key.
        name: String,
    },
    /// A key of a tree is both a value and an object.
    #[error("Parameters '{name}.*' used inconsistently")]
    Inconsistent {
        /// The key.
        name: String,
    },
    /// A list's index is missing ("a.0" and "a.2" without "a.1").
    #[error("Parameter '{name}' missing")]
    MissingElement {
        /// The key.
        name: String,
    },
    /// Help was asked for where there is none.
    #[error("Help is not available for this option")]
    NoHelp,
}

impl ValueError {
    /// "Invalid parameter", with the nearest of `known`.
    pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown(with_hint(format!("Invalid parameter '{name}'"), name, known))
    }

    /// "is unexpected", with the nearest of `known`; `prefix` ("smp.") is part of the name that is shown.
    pub fn unexpected<'a>(prefix: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown(with_hint(format!("Parameter '{prefix}{name}' is unexpected"), name, known))
    }

    /// "does not accept value", with the nearest of `known`.
    pub fn not_accepted<'a>(name: &str, value: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::NotAccepted(with_hint(format!("Parameter '{name}' does not accept value '{value}'"), value, known))
    }
}

/// `on`/`off`, `yes`/`no`, `true`/`false`, `y`/`n`.
pub fn parse_bool(name: &str, value: &str) -> Result<bool, ValueError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(ValueError::Expects { name: name.into(), expected: "'on' or 'off'" }),
    }
}

/// What stopped [`scan_number`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NumberFault {
    Syntax,
    Range,
}

/// An unsigned number in C's notations (decimal, `0x`, octal with a leading zero) that is the whole of `text`; a minus
/// sign wraps, as `strtoull` has it.
fn scan_number(text: &str) -> Result<u64, NumberFault> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberFault::Syntax);
    }
    let value = u64::from_str_radix(digits, radix).map_err(|_| NumberFault::Range)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// A number of an option list ("a number").
pub fn parse_number(name: &str, value: &str) -> Result<u64, ValueError> {
    scan_number(value).map_err(|fault| match fault {
        NumberFault::Syntax => ValueError::Expects { name: name.into(), expected: "a number" },
        NumberFault::Range => ValueError::TooLarge { name: name.into(), value: value.into() },
    })
}

/// A signed number of a tree ("integer").
pub fn parse_integer(name: &str, value: &str) -> Result<i64, ValueError> {
    let fault = || ValueError::Expects { name: name.into(), expected: "integer" };
    let number = scan_number(value).map_err(|_| fault())?;
    match value.trim_start().starts_with('-') {
        true => Ok(number.cast_signed()),
        false => i64::try_from(number).map_err(|_| fault()),
    }
}

/// The power of two that a size suffix stands for.
fn suffix_shift(suffix: char) -> Option<u32> {
    match suffix.to_ascii_uppercase() {
        'B' => Some(0),
        'K' => Some(10),
        'M' => Some(20),
        'G' => Some(30),
        'T' => Some(40),
        'P' => Some(50),
        'E' => Some(60),
        _ => None,
    }
}

/// What stopped [`scan_size`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SizeFault {
    Syntax,
    Range,
}

/// A size in bytes: `512`, `1.5G`, `0x1000`, `64k`. `unit` is the suffix of a number without one.
fn scan_size(text: &str, unit: char) -> Result<u64, SizeFault> {
    if let Some(rest) = text.strip_prefix('-') {
        // QEMU reads the number first and then finds that it is negative.
        return Err(match rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => SizeFault::Range,
            false => SizeFault::Syntax,
        });
    }
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return match u64::from_str_radix(hex, 16) {
            Ok(value) if !hex.starts_with('+') => Ok(value),
            Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => Err(SizeFault::Range),
            _ => Err(SizeFault::Syntax),
        };
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(end);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(SizeFault::Syntax);
    }
    let mut letters = suffix.chars();
    let shift = match (letters.next(), letters.next()) {
        (None, _) => suffix_shift(unit),
        (Some(letter), None) => suffix_shift(letter),
        _ => None,
    }
    .ok_or(SizeFault::Syntax)?;
    let has_fraction = fraction.chars().any(|c| c != '0');
    if has_fraction && shift == 0 {
        return Err(SizeFault::Syntax);
    }
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| SizeFault::Range)?,
    };
    let scaled = whole.checked_mul(1 << shift).ok_or(SizeFault::Range)?;
    // At most 19 digits keep the arithmetic in 128 bits; further ones are below a byte at any suffix.
    let digits: String = fraction.chars().take(19).collect();
    let part = match digits.parse::<u128>() {
        Ok(value) => (value << shift) / 10u128.pow(u32::try_from(digits.len()).unwrap_or(19)),
        Err(_) => 0,
    };
    let part = u64::try_from(part).map_err(|_| SizeFault::Range)?;
    scaled.checked_add(part).ok_or(SizeFault::Range)
}

/// A size of an option list, in bytes when it has no suffix.
pub fn parse_size(name: &str, value: &str) -> Result<u64, ValueError> {
    scan_size(value, 'B').map_err(|fault| match fault {
        SizeFault::Syntax => ValueError::Size { name: name.into() },
        SizeFault::Range => ValueError::SizeRange { name: name.into(), value: value.into() },
    })
}

/// A size of a tree ("size").
pub fn parse_tree_size(name: &str, value: &str) -> Result<u64, ValueError> {
    scan_size(value, 'B').map_err(|_| ValueError::Expects { name: name.into(), expected: "size" })
}

/// A size without a name, for those who word their own message; `unit` is the suffix of a bare number.
pub fn size_of(text: &str, unit: char) -> Option<u64> {
    scan_size(text, unit).ok()
}

/// `first`, `first-last`, or `first+length`, as `-dfilter` and NUMA lists have it.
pub fn parse_range(text: &str) -> Option<std::ops::RangeInclusive<u64>> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (scan_number(first).ok()?, scan_number(last).ok()?);
        return (first <= last).then_some(first..=last);
    }
    if let Some((first, length)) = text.split_once('+') {
        let (first, length) = (scan_number(first).ok()?, scan_number(length).ok()?);
        return Some(first..=first.checked_add(length.checked_sub(1)?)?);
    }
    let only = scan_number(text).ok()?;
    Some(only..=only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes_and_fractions() {
        assert_eq!(size_of("1", 'B'), Some(1));
        assert_eq!(size_of("1", 'M'), Some(1 << 20));
        assert_eq!(size_of("1.5G", 'B'), Some(3 << 29));
        assert_eq!(size_of("64k", 'B'), Some(65536));
        assert_eq!(size_of(".5T", 'B'), Some(1 << 39));
        assert_eq!(size_of("0x1000", 'M'), Some(4096));
        assert_eq!(size_of("15E", 'B'), Some(15 << 60));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        assert_eq!(size_of("", 'B'), None);
        assert_eq!(size_of("1.3", 'B'), None);
        assert_eq!(size_of("1x", 'B'), None);
        assert_eq!(size_of("1kk", 'B'), None);
        assert_eq!(size_of("16E", 'B'), None);
        assert_eq!(size_of(".", 'B'), None);
        assert_eq!(size_of("0x", 'B'), None);
        assert_eq!(size_of("-5", 'B'), None);
    }

    #[test]
    fn a_size_error_reads_as_qemus() {
        assert_eq!(
            parse_size("size", "1x").unwrap_err().to_string(),
            "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means \
             kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
        );
        assert_eq!(
            parse_size("size", "-5").unwrap_err().to_string(),
            "Value '-5' is out of range for parameter 'size'"
        );
    }

    #[test]
    fn numbers_are_decimal_hex_or_octal() {
        assert_eq!(parse_number("n", "10"), Ok(10));
        assert_eq!(parse_number("n", "0x10"), Ok(16));
        assert_eq!(parse_number("n", "010"), Ok(8));
        assert_eq!(parse_number("n", "0"), Ok(0));
        assert_eq!(parse_number("index", "x").unwrap_err().to_string(), "Parameter 'index' expects a number");
        assert_eq!(
            parse_number("n", "99999999999999999999").unwrap_err().to_string(),
            "Value '99999999999999999999' is too large for parameter 'n'"
        );
    }

    #[test]
    fn integers_have_a_sign() {
        assert_eq!(parse_integer("n", "-1"), Ok(-1));
        assert_eq!(parse_integer("n", "5"), Ok(5));
        assert_eq!(parse_integer("smp.cpus", "x").unwrap_err().to_string(), "Parameter 'smp.cpus' expects integer");
    }

    #[test]
    fn switches_are_spelt_four_ways() {
        assert_eq!(parse_bool("b", "yes"), Ok(true));
        assert_eq!(parse_bool("b", "false"), Ok(false));
        assert_eq!(parse_bool("b", "1").unwrap_err().to_string(), "Parameter 'b' expects 'on' or 'off'");
    }

    #[test]
    fn ranges_have_an_end_or_a_length() {
        assert_eq!(parse_range("0x10-0x1f"), Some(0x10..=0x1f));
        assert_eq!(parse_range("0x10+0x10"), Some(0x10..=0x1f));
        assert_eq!(parse_range("7"), Some(7..=7));
        assert_eq!(parse_range("5-1"), None);
        assert_eq!(parse_range("1+0"), None);
        assert_eq!(parse_range("x"), None);
    }
}
