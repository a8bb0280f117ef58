//! Values to text.

use std::fmt::Write;

use serde_json::Value;

/// On one line, with blanks after `:` and `,`.
pub fn line(value: &Value) -> String {
    let mut out = String::new();
    print(value, None, &mut out);
    out
}

/// Over several lines, four spaces a level.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    print(value, Some(0), &mut out);
    out
}

fn new_line(level: Option<usize>, out: &mut String) {
    if let Some(level) = level {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', level * 4));
    }
}

fn print(value: &Value, level: Option<usize>, out: &mut String) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            let inner = level.map(|l| l + 1);
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(i, level, out);
                new_line(inner, out);
                print(item, inner, out);
            }
            new_line(level, out);
            out.push(']');
        }
        Value::Object(map) => {
            let inner = level.map(|l| l + 1);
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                separate(i, level, out);
                new_line(inner, out);
                string(key, out);
                out.push_str(": ");
                print(item, inner, out);
            }
            new_line(level, out);
            out.push('}');
        }
        simple => {
            let _ = write!(out, "{simple}"); // writing to a String cannot fail
        }
    }
}

fn separate(index: usize, level: Option<usize>, out: &mut String) {
    if index > 0 {
        out.push_str(if level.is_some() { "," } else { ", " });
    }
}

/// A string; all that is not printable ASCII is escaped, as QEMU does, so that any terminal can show it.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04X}"); // writing to a String cannot fail
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_has_blanks_after_colon_and_comma() {
        assert_eq!(line(&json!({"a": 1, "b": [true, null], "c": {}})), r#"{"a": 1, "b": [true, null], "c": {}}"#);
    }

    #[test]
    fn pretty_indents_by_four() {
        assert_eq!(
            pretty(&json!({"a": [1, 2], "b": {}, "c": []})),
            "{\n    \"a\": [\n        1,\n        2\n    ],\n    \"b\": {\n    },\n    \"c\": [\n    ]\n}"
        );
    }

    #[test]
    fn strings_are_escaped_to_ascii() {
        assert_eq!(line(&json!("a\"\\\n\u{1}é😀\u{7f}")), r#""a\"\\\n\u0001\u00E9\uD83D\uDE00\u007F""#);
    }
}
