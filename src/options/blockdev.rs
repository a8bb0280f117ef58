//! `-blockdev`, and what it shares with `-drive`: the keys of block drivers and their types.

use serde_json::{Map, Value};

use super::low::Low;
use super::stop::{Step, Stop};
use super::tables::Tables;
use crate::keyval::tree;
use crate::keyval::value::{ValueError, parse_bool, parse_integer, parse_size};
use crate::machine::config::NodeSpec;

/// A key's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Switch,
    Integer,
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Another node: its name, or its own keys.
    Node,
    /// The cache switches.
    Cache,
    /// QEMU has it, this version does not.
    Refused,
}

type Keys = &'static [(&'static str, Kind)];

/// What every node has.
const GENERIC: Keys = &[
    ("driver", Kind::Text),
    ("node-name", Kind::Text),
    ("read-only", Kind::Switch),
    ("auto-read-only", Kind::Switch),
    ("force-share", Kind::Switch),
    ("discard", Kind::Word(&["ignore", "unmap"])),
    ("detect-zeroes", Kind::Word(&["off", "on", "unmap"])),
    ("cache", Kind::Cache),
];

/// What files have; host devices as well.
const FILE: Keys = &[
    ("filename", Kind::Text),
    ("aio", Kind::Word(AIO)),
    ("locking", Kind::Word(&["auto", "on", "off"])),
    ("drop-cache", Kind::Refused),
    ("pr-manager", Kind::Refused),
    ("aio-max-batch", Kind::Refused),
];

const RAW: Keys = &[("file", Kind::Node), ("offset", Kind::Size), ("size", Kind::Size)];

const QCOW2: Keys = &[
    ("file", Kind::Node),
    ("backing", Kind::Node),
    ("data-file", Kind::Refused),
    ("lazy-refcounts", Kind::Switch),
    ("pass-discard-request", Kind::Refused),
    ("pass-discard-snapshot", Kind::Refused),
    ("pass-discard-other", Kind::Refused),
    ("discard-no-unref", Kind::Refused),
    ("cache-size", Kind::Size),
    ("l2-cache-size", Kind::Size),
    ("l2-cache-entry-size", Kind::Size),
    ("refcount-cache-size", Kind::Size),
    ("cache-clean-interval", Kind::Integer),
    ("overlap-check", Kind::Refused),
    ("encrypt", Kind::Refused),
];

const NULL: Keys = &[("size", Kind::Size), ("read-zeroes", Kind::Switch), ("latency-ns", Kind::Refused)];

/// I/O engines of QEMU.
pub(super) const AIO: &[&str] = &["threads", "native", "io_uring"];

/// Those of this version.
const OWN_AIO: &[&str] = &["threads"];

/// QEMU's other drivers.
const FOREIGN: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "ftp",
    "ftps",
    "gluster",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "iser",
    "luks",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "nvme-io_uring",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "raw",
    "rbd",
    "replication",
    "snapshot-access",
    "ssh",
    "throttle",
    "vdi",
    "vhdx",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
    "vmdk",
    "vpc",
    "vvfat",
    "file",
    "host_device",
    "host_cdrom",
];

/// Protocols that a file name can start with, with QEMU's drivers behind them.
const FOREIGN_PROTOCOLS: &[&str] = &[
    "blkdebug",
    "blkverify",
    "fat",
    "ftp",
    "ftps",
    "gluster",
    "gluster+tcp",
    "gluster+unix",
    "http",
    "https",
    "iscsi",
    "iser",
    "nbd",
    "nbd+tcp",
    "nbd+unix",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "rbd",
    "ssh",
    "host_device",
    "host_cdrom",
    "vvfat",
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

/// Whether this version has a driver; QEMU's others are refused by name.
pub(super) fn check_driver(tables: &Tables, driver: &str, dialect: Dialect) -> Step {
    if tables.has_block_driver(driver) {
        return Ok(());
    }
    if FOREIGN.contains(&driver) {
        return Err(Stop::unsupported(format_args!("block driver '{driver}'")));
    }
    let known = tables.block_drivers.iter().map(String::as_str);
    match dialect {
        Dialect::Keyval | Dialect::Json => Err(ValueError::not_accepted("driver", driver, known).into()),
        Dialect::Drive => Err(Stop::misspelt(format!("Unknown driver '{driver}'"), driver, known)),
    }
}

/// Whether this version has the protocol that a file name starts with.
pub(super) fn check_protocol(name: &str) -> Step {
    let Some((protocol, _)) = name.split_once(':') else { return Ok(()) };
    if protocol.contains('/') || protocol == "file" {
        return Ok(());
    }
    match FOREIGN_PROTOCOLS.contains(&protocol) {
        true => Err(Stop::unsupported(format_args!("protocol '{protocol}'"))),
        false => Err(Stop::here(format!("Unknown protocol '{protocol}'"))),
    }
}

/// The driver's own keys; without a driver (it will be probed) those of all formats.
fn own_keys(driver: Option<&str>) -> Vec<Keys> {
    match driver {
        Some("file" | "host_device" | "host_cdrom") => vec![FILE],
        Some("null-co") => vec![NULL],
        Some("raw") => vec![RAW],
        Some("qcow2") => vec![QCOW2],
        Some(_) => vec![],
        None => vec![RAW, QCOW2],
    }
}

/// Reads the keys of a node and gives them their types; `path` is where it stands ("file.").
pub(super) fn typed(
    tables: &Tables,
    map: Map<String, Value>,
    default_driver: Option<&str>,
    dialect: Dialect,
    path: &str,
) -> Step<Map<String, Value>> {
    let driver = match map.get("driver") {
        Some(value) => Some(text(&format!("{path}driver"), value)?.to_owned()),
        None => default_driver.map(str::to_owned),
    };
    match &driver {
        Some(driver) => check_driver(tables, driver, dialect)?,
        None if dialect != Dialect::Drive => {
            return Err(ValueError::Missing { name: format!("{path}driver") }.into());
        }
        None => {}
    }
    let own = own_keys(driver.as_deref());
    let known = || GENERIC.iter().chain(own.iter().copied().flatten());
    let mut out = Map::new();
    for (key, value) in map {
        let Some((_, kind)) = known().find(|(name, _)| *name == key) else {
            // A dotted key of -drive is one word to QEMU.
            let key = match value.as_object().and_then(|inner| inner.keys().next()) {
                Some(inner) if dialect == Dialect::Drive => format!("{key}.{inner}"),
                _ => key,
            };
            return Err(unexpected(driver.as_deref(), &key, dialect, path, known().map(|(name, _)| *name)));
        };
        let value = convert(tables, *kind, &format!("{path}{key}"), value, dialect)?;
        out.insert(key, value);
    }
    let needed = match driver.as_deref() {
        Some("file" | "host_device" | "host_cdrom") => Some("filename"),
        Some("raw" | "qcow2") => Some("file"),
        _ => None,
    };
    if let Some(key) = needed.filter(|key| dialect != Dialect::Drive && out.get(*key).is_none()) {
        return Err(ValueError::Missing { name: format!("{path}{key}") }.into());
    }
    Ok(out)
}

fn unexpected<'a>(
    driver: Option<&str>,
    key: &str,
    dialect: Dialect,
    path: &str,
    known: impl Iterator<Item = &'a str>,
) -> Stop {
    if dialect != Dialect::Drive {
        return ValueError::unexpected(path, key, known).into();
    }
    let text = match driver {
        Some(driver @ ("file" | "host_device" | "host_cdrom")) => {
            format!("Block protocol '{driver}' doesn't support the option '{key}'")
        }
        driver => format!("Block format '{}' does not support the option '{key}'", driver.unwrap_or("raw")),
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

fn convert(tables: &Tables, kind: Kind, name: &str, value: Value, dialect: Dialect) -> Step<Value> {
    Ok(match (kind, value) {
        (Kind::Refused, _) => return Err(Stop::unsupported(format_args!("block option '{name}'"))),
        (Kind::Text, Value::String(text)) => Value::String(text),
        (Kind::Text, _) => return Err(wrong(name, "string")),
        (Kind::Switch, Value::Bool(on)) => Value::Bool(on),
        (Kind::Switch | Kind::Integer | Kind::Size, Value::String(_)) if dialect == Dialect::Json => {
            return Err(wrong(name, if kind == Kind::Switch { "boolean" } else { "integer" }));
        }
        (Kind::Switch, Value::String(text)) => Value::Bool(parse_bool(name, &text)?),
        (Kind::Switch, _) => return Err(wrong(name, "boolean")),
        (Kind::Integer, Value::String(text)) => parse_integer(name, &text)?.into(),
        (Kind::Size, Value::String(text)) if dialect == Dialect::Drive => parse_size(name, &text)?.into(),
        (Kind::Size, Value::String(text)) => parse_integer(name, &text)?.into(),
        (Kind::Integer | Kind::Size, Value::Number(n)) if n.is_u64() => Value::Number(n),
        (Kind::Integer | Kind::Size, _) => return Err(wrong(name, "integer")),
        (Kind::Word(words), Value::String(text)) => {
            if !words.contains(&text.as_str()) && dialect == Dialect::Drive {
                return Err(Stop::misspelt(format!("invalid parameter value: {text}"), &text, words.iter().copied()));
            }
            if !words.contains(&text.as_str()) {
                return Err(ValueError::not_accepted(name, &text, words.iter().copied()).into());
            }
            if name.ends_with("aio") && !OWN_AIO.contains(&text.as_str()) {
                return Err(Stop::unsupported(format_args!("aio={text}")));
            }
            Value::String(text)
        }
        (Kind::Word(_), _) => return Err(wrong(name, "string")),
        (Kind::Node, reference @ (Value::String(_) | Value::Null)) => reference,
        (Kind::Node, Value::Object(map)) => {
            let default = (dialect == Dialect::Drive && name == "file").then_some("file");
            Value::Object(typed(tables, map, default, dialect, &format!("{name}."))?)
        }
        (Kind::Node, _) => return Err(wrong(name, "BlockdevRef")),
        (Kind::Cache, Value::Object(map)) => {
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
                out.insert(key, convert(tables, Kind::Switch, &name, value, dialect)?);
            }
            Value::Object(out)
        }
        (Kind::Cache, _) => return Err(wrong(name, "object")),
    })
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
    let mut options = typed(low.tables, map, None, if json { Dialect::Json } else { Dialect::Keyval }, "")?;
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
