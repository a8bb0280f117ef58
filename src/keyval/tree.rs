//! The newer reader: dotted keys make objects, every key has its `=`.
//!
//! `a.b=1,a.c=2,d.0=x,d.1=y` is `{"a": {"b": "1", "c": "2"}, "d": ["x", "y"]}`; all leaves are strings.

use serde_json::{Map, Value};

use super::value::ValueError;
use super::{asks_help, take_value};

/// What an option string says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tree {
    /// Its keys.
    pub map: Map<String, Value>,
    /// Whether a word asked for help.
    pub help: bool,
}

/// Nested objects below this depth are refused: no option needs them, and they would nest calls.
const MAX_DEPTH: usize = 64;

/// Reads `text`; a first word without `=` is the value of `implied`.
pub fn parse(text: &str, implied: Option<&str>) -> Result<Tree, ValueError> {
    let mut tree = Tree::default();
    let mut rest = text;
    let mut implied = implied;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let has_value = rest[end..].starts_with('=');
        let word = &rest[..end];
        if asks_help(word) && !has_value {
            tree.help = true;
            rest = rest[end..].strip_prefix(',').unwrap_or("");
            implied = None;
            continue;
        }
        let first = implied.take();
        let (key, value) = match (has_value, first) {
            (false, Some(key)) if !word.is_empty() => {
                let (value, after) = take_value(rest);
                rest = after;
                (key, value)
            }
            _ => {
                check_key(word)?;
                if !has_value {
                    return Err(ValueError::NoValue { name: word.into() });
                }
                let (value, after) = take_value(&rest[end + 1..]);
                rest = after;
                (word, value)
            }
        };
        put(&mut tree.map, key, value)?;
    }
    let mut whole = Value::Object(std::mem::take(&mut tree.map));
    make_lists(&mut whole, "")?;
    if let Value::Object(map) = whole {
        tree.map = map;
    }
    Ok(tree)
}

/// Adds the keys of `new` to `into`: later values override, objects merge.
pub fn merge(into: &mut Map<String, Value>, new: Map<String, Value>) {
    for (key, value) in new {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// A key's fragments are QAPI names or list indices; the first one is a name.
fn check_key(key: &str) -> Result<(), ValueError> {
    let fault = || ValueError::Unknown(format!("Invalid parameter '{key}'"));
    if key.split('.').count() > MAX_DEPTH {
        return Err(fault());
    }
    for (i, part) in key.split('.').enumerate() {
        let index = i > 0 && !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let name = part.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !index && !name {
            return Err(fault());
        }
    }
    Ok(())
}

fn put(map: &mut Map<String, Value>, key: &str, value: String) -> Result<(), ValueError> {
    let mut at = map;
    let mut parts = key.split('.').peekable();
    let mut path = String::new();
    while let Some(part) = parts.next() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
        if parts.peek().is_none() {
            if at.get(part).is_some_and(Value::is_object) {
                return Err(ValueError::Inconsistent { name: path });
            }
            at.insert(part.into(), Value::String(value));
            return Ok(());
        }
        at = match at.entry(part).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(next) => next,
            _ => return Err(ValueError::Inconsistent { name: path }),
        };
    }
    Ok(())
}

/// Objects whose keys are all numbers are lists.
fn make_lists(value: &mut Value, path: &str) -> Result<(), ValueError> {
    let Value::Object(map) = value else { return Ok(()) };
    let under = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, inner) in map.iter_mut() {
        make_lists(inner, &under(key))?;
    }
    let indices = map.keys().filter(|k| k.chars().all(|c| c.is_ascii_digit())).count();
    if indices == 0 || map.is_empty() {
        return Ok(());
    }
    if indices != map.len() {
        return Err(ValueError::Inconsistent { name: path.into() });
    }
    let mut list = Vec::with_capacity(indices);
    for index in 0..indices {
        let key = index.to_string();
        match map.remove(&key) {
            Some(inner) => list.push(inner),
            None => return Err(ValueError::MissingElement { name: under(&key) }),
        }
    }
    *value = Value::Array(list);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good(text: &str) -> Value {
        Value::Object(parse(text, Some("driver")).unwrap().map)
    }

    fn bad(text: &str) -> String {
        parse(text, Some("driver")).unwrap_err().to_string()
    }

    #[test]
    fn dots_make_objects_and_numbers_make_lists() {
        assert_eq!(
            good("raw,file.driver=file,file.filename=a,,b,l.0=x,l.1=y"),
            json!({"driver": "raw", "file": {"driver": "file", "filename": "a,b"}, "l": ["x", "y"]})
        );
    }

    #[test]
    fn a_key_needs_its_value() {
        assert_eq!(bad("pc,hpet"), "Expected '=' after parameter 'hpet'");
        assert_eq!(bad(","), "Invalid parameter ''");
        assert_eq!(bad("="), "Invalid parameter ''");
        assert_eq!(bad("x,1=2"), "Invalid parameter '1'");
    }

    #[test]
    fn a_trailing_comma_is_harmless() {
        assert_eq!(good("2,"), json!({"driver": "2"}));
    }

    #[test]
    fn a_key_is_a_value_or_an_object() {
        assert_eq!(bad("file,a.b=1,a=2"), "Parameters 'a.*' used inconsistently");
        assert_eq!(bad("file,a=1,a.b=2"), "Parameters 'a.*' used inconsistently");
        assert_eq!(bad("x,a.1=x"), "Parameter 'a.0' missing");
    }

    #[test]
    fn a_later_value_overrides_and_objects_merge() {
        let mut all = parse("pc,a=1,o.x=1", Some("type")).unwrap().map;
        merge(&mut all, parse("a=2,o.y=2", Some("type")).unwrap().map);
        assert_eq!(Value::Object(all), json!({"type": "pc", "a": "2", "o": {"x": "1", "y": "2"}}));
    }

    #[test]
    fn help_is_found_anywhere() {
        assert!(parse("help", Some("type")).unwrap().help);
        assert!(parse("pc,help", Some("type")).unwrap().help);
        assert!(!parse("pc", Some("type")).unwrap().help);
    }

    #[test]
    fn no_string_panics() {
        let text = "raw,file.0.driver=x,,y,a.b.c=é,help,=,..=1";
        for end in (0..=text.len()).filter(|&i| text.is_char_boundary(i)) {
            let _ = parse(&text[..end], Some("driver"));
        }
        let _ = parse(&format!("a{}=1", ".a".repeat(100_000)), None);
    }
}
