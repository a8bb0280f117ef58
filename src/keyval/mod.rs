//! QEMU's option strings: `a=b,c.d=e` with `,,` for a comma.
//!
//! QEMU has two readers of such strings, and people see the difference in messages, so there are two here:
//! [`list`] is the older one (flags without a value, typed by a key table, `id=`), used by `-drive`, `-chardev`, `-m`,
//! …; [`tree`] is the newer one (dotted keys make objects, every key needs its `=`), used by `-machine`, `-smp`,
//! `-blockdev`, `-device`, …. Both end in strings; [`value`] makes numbers, sizes and switches of them.

pub mod list;
pub mod suggest;
pub mod tree;
pub mod value;

pub use list::{Key, Kind, List, Pairs};
pub use suggest::nearest;
pub use value::ValueError;

/// Splits `text` after its first value: a value ends at a comma, and `,,` stands for one. Returns the value and what
/// follows the comma (empty at the end).
pub(crate) fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some(at) = rest.find(',') else {
            value.push_str(rest);
            return (value, "");
        };
        value.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(after) = rest.strip_prefix(',') else {
            return (value, rest);
        };
        value.push(',');
        rest = after;
    }
}

/// Doubles the commas of a value, so that it can stand in an option string.
pub fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// Whether a word asks for help.
pub fn asks_help(word: &str) -> bool {
    word == "help" || word == "?"
}

/// QEMU's rule for identifiers: letters, digits, `-`, `.`, `_`, starting with a letter.
pub fn is_identifier(id: &str) -> bool {
    id.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_comma_is_a_comma_of_the_value() {
        assert_eq!(take_value("a,,b,c=d"), ("a,b".into(), "c=d"));
        assert_eq!(take_value("a,,,b"), ("a,".into(), "b"));
        assert_eq!(take_value(""), (String::new(), ""));
        assert_eq!(escape("a,b"), "a,,b");
    }

    #[test]
    fn identifiers_start_with_a_letter() {
        assert!(is_identifier("net0.a-b_c"));
        assert!(!is_identifier("1a"));
        assert!(!is_identifier(""));
        assert!(!is_identifier("a b"));
    }
}
