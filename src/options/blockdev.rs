//! `-blockdev`, and what it shares with `-drive`: the keys of block drivers and their types.

use serde_json::{Map, Value};

use super::low::Low;
use super::stop::{Step, Stop};
use crate::block::driver::{self, DRIVERS, Driver};
use crate::block::keys::{KeyKind, Keys};
use crate::block::{self, OpenError};
use crate::keyval::tree;
use crate::keyval::value::{ValueError, parse_bool, parse_integer, parse_size};
use crate::machine::config::NodeSpec;

/// What every node has.
const GENERIC: Keys = &[
    ("driver", KeyKind::Text),
    ("node-name", KeyKind::Text),
    ("read-only", KeyKind::Switch),
    ("auto-read-only", KeyKind::Switch),
    ("force-share", KeyKind::Switch),
    ("discard", KeyKind::Word(&["ignore", "unmap"])),
    ("detect-zeroes", KeyKind::Word(&["off", "on", "unmap"])),
    ("cache", KeyKind::Object),
];

/// Whose words a fault is reported in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// `-blockdev` as keys and values: all of them text.
    Keyval,
    /// `-blockdev` as JSON: values have their types.
    Json,
    /// `-drive`.
    Drive,
}

/// The names of all drivers.
fn names() -> impl Iterator<Item = &'static str> + Clone {
    DRIVERS.iter().map(|driver| driver.name())
}

/// The driver of this name; QEMU's others are refused by name.
pub(super) fn driver_by_name(driver: &str, dialect: Dialect) -> Step<&'static dyn Driver> {
    if let Ok(known) = driver::by_name(driver) {
        return Ok(known);
    }
    if driver::is_other(driver) {
        return Err(Stop::unsupported(format_args!("block driver '{driver}'")));
    }
    match dialect {
        Dialect::Keyval | Dialect::Json => Err(ValueError::not_accepted("driver", driver, names()).into()),
        Dialect::Drive => Err(Stop::misspelt(format!("Unknown driver '{driver}'"), driver, names())),
    }
}

/// Whether this version has the protocol that a file name starts with.
pub(super) fn check_protocol(name: &str) -> Step {
    match driver::protocol_of(name) {
        Ok(_) => Ok(()),
        Err(OpenError::UnsupportedDriver(protocol)) => Err(Stop::unsupported(format_args!("protocol '{protocol}'"))),
        Err(error) => Err(Stop::here(error.to_string())),
    }
}

/// The driver's own keys; without a driver (it will be probed) those of all formats.
fn own_keys(driver: Option<&'static dyn Driver>) -> Vec<Keys> {
    match driver {
        Some(driver) => vec![driver.keys()],
        None => {
            DRIVERS.iter().filter(|driver| driver.kind() == block::Kind::Format).map(|driver| driver.keys()).collect()
        }
    }
}

/// Reads the keys of a node and gives them their types; `path` is where it stands ("file.").
pub(super) fn typed(
    map: Map<String, Value>,
    default_driver: Option<&str>,
    dialect: Dialect,
    path: &str,
) -> Step<Map<String, Value>> {
    let driver = match map.get("driver") {
        Some(value) => Some(text(&format!("{path}driver"), value)?.to_owned()),
        None => default_driver.map(str::to_owned),
    };
    let driver = match &driver {
        Some(driver) => Some(driver_by_name(driver, dialect)?),
        None if dialect != Dialect::Drive => {
            return Err(ValueError::Missing { name: format!("{path}driver") }.into());
        }
        None => None,
    };
    let own = own_keys(driver);
    let known = || GENERIC.iter().chain(own.iter().copied().flatten());
    let mut out = Map::new();
    for (key, value) in map {
        let Some((_, kind)) = known().find(|(name, _)| *name == key) else {
            // A dotted key of -drive is one word to QEMU.
            let key = match value.as_object().and_then(|inner| inner.keys().next()) {
                Some(inner) if dialect == Dialect::Drive => format!("{key}.{inner}"),
                _ => key,
            };
            return Err(unexpected(driver, &key, dialect, path, known().map(|(name, _)| *name)));
        };
        let value = convert(*kind, &format!("{path}{key}"), value, dialect)?;
        out.insert(key, value);
    }
    let needed = driver.and_then(Driver::required);
    if let Some(key) = needed.filter(|key| dialect != Dialect::Drive && out.get(*key).is_none()) {
        return Err(ValueError::Missing { name: format!("{path}{key}") }.into());
    }
    Ok(out)
}

fn unexpected<'a>(
    driver: Option<&'static dyn Driver>,
    key: &str,
    dialect: Dialect,
    path: &str,
    known: impl Iterator<Item = &'a str>,
) -> Stop {
    if dialect != Dialect::Drive {
        return ValueError::unexpected(path, key, known).into();
    }
    let text = match driver {
        Some(driver) if driver.kind() == block::Kind::Protocol => {
            format!("Block protocol '{}' doesn't support the option '{key}'", driver.name())
        }
        driver => format!("Block format '{}' does not support the option '{key}'", driver.map_or("raw", Driver::name)),
    };
    let own = super::drive::KEYS.iter().copied().filter(|_| path.is_empty());
    Stop::misspelt(text, key, known.chain(own))
}

fn text<'a>(name: &str, value: &'a Value) -> Step<&'a str> {
    value.as_str().ok_or_else(|| wrong(name, "string"))
}

fn wrong(name: &str, expected: &str) -> Stop {
    Stop::here(format!("Invalid parameter type for '{name}', expected: {expected}"))
}

fn convert(kind: KeyKind, name: &str, value: Value, dialect: Dialect) -> Step<Value> {
    Ok(match (kind, value) {
        (KeyKind::Refused, _) => return Err(Stop::unsupported(format_args!("block option '{name}'"))),
        (KeyKind::Text, Value::String(text)) => Value::String(text),
        (KeyKind::Text, _) => return Err(wrong(name, "string")),
        (KeyKind::Switch, Value::Bool(on)) => Value::Bool(on),
        (KeyKind::Switch | KeyKind::Integer | KeyKind::Size, Value::String(_)) if dialect == Dialect::Json => {
            return Err(wrong(name, if kind == KeyKind::Switch { "boolean" } else { "integer" }));
        }
        (KeyKind::Switch, Value::String(text)) => Value::Bool(parse_bool(name, &text)?),
        (KeyKind::Switch, _) => return Err(wrong(name, "boolean")),
        (KeyKind::Integer, Value::String(text)) => parse_integer(name, &text)?.into(),
        (KeyKind::Size, Value::String(text)) if dialect == Dialect::Drive => parse_size(name, &text)?.into(),
        (KeyKind::Size, Value::String(text)) => parse_integer(name, &text)?.into(),
        (KeyKind::Integer | KeyKind::Size, Value::Number(n)) if n.is_u64() => Value::Number(n),
        (KeyKind::Integer | KeyKind::Size, _) => return Err(wrong(name, "integer")),
        (KeyKind::Word(words), Value::String(text)) => {
            if !words.contains(&text.as_str()) && dialect == Dialect::Drive {
                return Err(Stop::misspelt(format!("invalid parameter value: {text}"), &text, words.iter().copied()));
            }
            if !words.contains(&text.as_str()) {
                return Err(ValueError::not_accepted(name, &text, words.iter().copied()).into());
            }
            Value::String(text)
        }
        (KeyKind::Word(_), _) => return Err(wrong(name, "string")),
        (KeyKind::Node, reference @ (Value::String(_) | Value::Null)) => reference,
        (KeyKind::Node, Value::Object(map)) => {
            let default = (dialect == Dialect::Drive && name == "file").then_some("file");
            Value::Object(typed(map, default, dialect, &format!("{name}."))?)
        }
        (KeyKind::Node, _) => return Err(wrong(name, "BlockdevRef")),
        (KeyKind::Nodes, Value::Array(list)) => {
            let node = |(index, node)| convert(KeyKind::Node, &format!("{name}.{index}"), node, dialect);
            Value::Array(list.into_iter().enumerate().map(node).collect::<Step<_>>()?)
        }
        (KeyKind::Nodes, Value::Object(map)) => {
            let node = |(index, node)| {
                Ok((String::clone(&index), convert(KeyKind::Node, &format!("{name}.{index}"), node, dialect)?))
            };
            Value::Object(map.into_iter().map(node).collect::<Step<_>>()?)
        }
        (KeyKind::Object, Value::Object(map)) if name.ends_with("cache") => cache(name, map, dialect)?,
        (KeyKind::Object, value @ Value::Object(_)) | (KeyKind::List, value @ (Value::Array(_) | Value::Object(_))) => {
            value
        }
        (KeyKind::Object, _) => return Err(wrong(name, "object")),
        (KeyKind::Nodes | KeyKind::List, _) => return Err(wrong(name, "array")),
    })
}

/// The cache switches.
fn cache(name: &str, map: Map<String, Value>, dialect: Dialect) -> Step<Value> {
    let mut out = Map::new();
    for (key, value) in map {
        let name = format!("{name}.{key}");
        let drive = dialect == Dialect::Drive;
        let known = ["direct", "no-flush"].contains(&key.as_str()) || (drive && key == "writeback");
        if !known && drive {
            return Err(unexpected(None, &name, dialect, "", ["cache.direct", "cache.no-flush"].into_iter()));
        }
        if !known {
            return Err(ValueError::unexpected("", &name, ["cache.direct", "cache.no-flush"]).into());
        }
        out.insert(key, convert(KeyKind::Switch, &name, value, dialect)?);
    }
    Ok(Value::Object(out))
}

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let json = text.starts_with('{');
    let map = match json {
        true => match crate::json::parse(text).map_err(|e| Stop::here(e.to_string()))? {
            Value::Object(map) => map,
            _ => return Err(Stop::here("Invalid parameter type, expected: object")),
        },
        false => {
            let tree = tree::parse(text, Some("driver"))?;
            if tree.help {
                return Err(ValueError::NoHelp.into());
            }
            tree.map
        }
    };
    let mut options = typed(map, None, if json { Dialect::Json } else { Dialect::Keyval }, "")?;
    let driver = options.remove("driver").and_then(|d| d.as_str().map(str::to_owned));
    low.config.nodes.push(NodeSpec { driver, filename: None, options, origin: low.origin.clone() });
    Ok(())
}

/// Whether a node can have this name.
pub(super) fn is_node_name(name: &str) -> bool {
    crate::keyval::is_identifier(name) && name.len() <= 31
}

/// The name of a node.
fn node_name(node: &NodeSpec) -> Option<&str> {
    node.options.get("node-name").and_then(Value::as_str)
}

/// Names and references of all `-blockdev` nodes.
pub(super) fn check(low: &Low<'_>) -> Step {
    for (i, node) in low.config.nodes.iter().enumerate() {
        let at = |text: String| Err(Stop::at(&node.origin, text));
        let Some(name) = node_name(node) else {
            return at("'node-name' must be specified for the root node".into());
        };
        if !is_node_name(name) {
            return at(format!("Invalid node-name: '{name}'"));
        }
        let earlier = &low.config.nodes[..i];
        if earlier.iter().any(|other| node_name(other) == Some(name)) {
            return at(format!("Duplicate nodes with node-name='{name}'"));
        }
        for key in ["file", "backing", "data-file"] {
            if let Some(Value::String(reference)) = node.options.get(key)
                && earlier.iter().all(|other| node_name(other) != Some(reference))
            {
                return at(format!("Cannot find device='{reference}' nor node-name='{reference}'"));
            }
        }
    }
    Ok(())
}
