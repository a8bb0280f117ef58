//! `-device`, `-global`, `-set`.

use serde_json::{Map, Value};

use super::lists;
use super::low::{Low, RawDevice};
use super::stop::{Step, Stop};
use super::tables::DeviceInfo;
use crate::keyval::is_identifier;
use crate::keyval::suggest::with_hint;
use crate::keyval::value::{ValueError, parse_bool, parse_integer, parse_tree_size};
use crate::machine::config::{DeviceSpec, GlobalSpec};

/// Properties that every device has.
const COMMON: &[&str] = &["driver", "id", "bus"];

/// Properties that every PCI device has.
const PCI: &[(&str, &str)] = &[("addr", "str"), ("romfile", "str"), ("rombar", "uint32"), ("multifunction", "bool")];

pub(super) fn read_device(low: &mut Low<'_>, text: &str) -> Step {
    let typed = text.starts_with('{');
    let (map, help) = match typed {
        true => match crate::json::parse(text).map_err(|e| Stop::here(e.to_string()))? {
            Value::Object(map) => (map, false),
            _ => return Err(Stop::here("Invalid parameter type, expected: object")),
        },
        false => {
            // QEMU reads -device with its older reader: a word without a value is a switch.
            let any = crate::keyval::List { name: "device", implied: Some("driver"), keys: &[], merge: false };
            let pairs = low.list(&any, text)?;
            let mut map = Map::new();
            for (key, value) in pairs.pairs {
                map.insert(key, Value::String(value));
            }
            if let Some(id) = pairs.id {
                map.insert("id".into(), Value::String(id));
            }
            let help = map.remove("help").is_some() | map.remove("?").is_some();
            (map, help)
        }
    };
    let id = map.get("id").and_then(Value::as_str);
    if let Some(id) = id {
        if !is_identifier(id) {
            return Err(ValueError::Identifier { name: "id".into() }.into());
        }
        if low.devices.iter().any(|other| other.map.get("id").and_then(Value::as_str) == Some(id)) {
            return Err(Stop::here(format!("Duplicate ID '{id}' for device")));
        }
    }
    let driver = map.get("driver").and_then(Value::as_str).unwrap_or_default();
    match driver {
        "isa-serial" => low.defaults.serial = false,
        "isa-parallel" => low.defaults.parallel = false,
        "ide-cd" | "ide-hd" | "scsi-cd" | "scsi-hd" => low.defaults.cdrom = false,
        "VGA" | "isa-vga" | "cirrus-vga" | "isa-cirrus-vga" | "vmware-svga" | "qxl-vga" | "virtio-vga" | "ati-vga" => {
            low.defaults.vga = false;
        }
        _ => {}
    }
    low.devices.push(RawDevice { origin: low.origin.clone(), map, help, typed });
    Ok(())
}

/// The headings of `-device help`, in QEMU's order.
const CATEGORIES: &[&str] = &[
    "Controller/Bridge/Hub",
    "USB",
    "Storage",
    "Network",
    "Input",
    "Display",
    "Sound",
    "Misc",
    "CPU",
    "Watchdog",
    "Uncategorized",
];

fn help(low: &Low<'_>) -> String {
    let mut out = String::new();
    for category in CATEGORIES {
        let mut found: Vec<&DeviceInfo> =
            low.tables.devices.iter().filter(|d| d.category == *category && d.user_creatable).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if found.is_empty() {
            continue;
        }
        out.push_str(&format!("{}{category} devices:\n", if out.is_empty() { "" } else { "\n" }));
        for device in found {
            out.push_str(&format!("name \"{}\"", device.name));
            for (label, text) in [("bus ", &device.bus), ("alias ", &device.alias), ("desc ", &device.description)] {
                match (label, text.is_empty()) {
                    (_, true) => {}
                    ("bus ", _) => out.push_str(&format!(", bus {text}")),
                    _ => out.push_str(&format!(", {label}\"{text}\"")),
                }
            }
            out.push('\n');
        }
    }
    out
}

fn class_help(device: &DeviceInfo) -> String {
    let mut lines: Vec<String> = device
        .properties
        .iter()
        .map(|p| {
            let left = format!("  {}=<{}>", p.name, p.kind);
            match p.description.is_empty() {
                true => format!("{left}\n"),
                false => format!("{left:<24} - {}\n", p.description),
            }
        })
        .collect();
    lines.sort();
    format!("{} options:\n{}", device.name, lines.concat())
}

/// `-device help` and `-device CLASS,help`.
pub(super) fn answer_help(low: &Low<'_>) -> Step {
    for raw in &low.devices {
        let driver = raw.map.get("driver").and_then(Value::as_str).unwrap_or_default();
        if crate::keyval::asks_help(driver) || (raw.help && driver.is_empty()) {
            return Err(Stop::Print(help(low), 0));
        }
        if !raw.help {
            continue;
        }
        return Err(match low.tables.device(driver) {
            Some(device) => Stop::Print(class_help(device), 0),
            None => Stop::at(&raw.origin, format!("Device '{driver}' not found")),
        });
    }
    Ok(())
}

/// All devices, checked.
pub(super) fn resolve(low: &mut Low<'_>) -> Step {
    for raw in std::mem::take(&mut low.devices) {
        let spec = spec(low, &raw).map_err(|stop| stop.of_option(&raw.origin))?;
        low.config.devices.push(spec);
    }
    Ok(())
}

fn spec(low: &Low<'_>, raw: &RawDevice) -> Step<DeviceSpec> {
    let Some(driver) = raw.map.get("driver") else {
        return Err(ValueError::Missing { name: "driver".into() }.into());
    };
    let driver = driver.as_str().unwrap_or_default().to_owned();
    if driver.is_empty() {
        return Err(ValueError::Missing { name: "driver".into() }.into());
    }
    let Some(class) = low.tables.device(&driver).filter(|d| d.user_creatable) else {
        let text = format!("'{driver}' is not a valid device model name");
        let names = low.tables.devices.iter().filter(|d| d.user_creatable).map(|d| d.name.as_str());
        return Err(Stop::misspelt(text, &driver, names));
    };
    let mut spec = DeviceSpec { driver: class.name.clone(), origin: raw.origin.clone(), ..DeviceSpec::default() };
    for (key, value) in &raw.map {
        match key.as_str() {
            "driver" => {}
            "id" => spec.id = Some(text_of(key, value)?),
            "bus" => spec.bus = Some(text_of(key, value)?),
            _ => {
                let text = property(class, key, value, raw.typed)?;
                check_reference(low, class, key, &text)?;
                spec.properties.push((key.clone(), text));
            }
        }
    }
    Ok(spec)
}

fn text_of(key: &str, value: &Value) -> Step<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(Stop::here(format!("Invalid parameter type for '{key}', expected: string"))),
    }
}

/// A property's value as text, checked against its type.
fn property(class: &DeviceInfo, key: &str, value: &Value, typed: bool) -> Step<String> {
    let pci = PCI.iter().filter(|_| class.bus == "PCI");
    let own = class.properties.iter().find(|p| p.name == key).map(|p| p.kind.as_str());
    let Some(kind) = own.or_else(|| pci.clone().find(|(name, _)| *name == key).map(|(_, kind)| *kind)) else {
        let text = format!("Property '{}.{key}' not found", class.name);
        let known = class.properties.iter().map(|p| p.name.as_str());
        return Err(Stop::misspelt(text, key, known.chain(pci.map(|(name, _)| *name)).chain(COMMON.iter().copied())));
    };
    let wrong = |expected: &str| Stop::here(format!("Invalid parameter type for '{key}', expected: {expected}"));
    let number = kind.starts_with("uint") || kind.starts_with("int");
    match (value, typed) {
        (Value::String(text), _) => {
            if typed && number {
                return Err(Stop::here(format!("Parameter '{key}' expects {}", wide(kind))));
            }
            check_text(key, kind, text)?;
            Ok(text.clone())
        }
        (Value::Bool(on), _) if kind == "bool" => Ok(if *on { "on" } else { "off" }.into()),
        (Value::Bool(_), _) if number => Err(Stop::here(format!("Parameter '{key}' expects {}", wide(kind)))),
        (Value::Bool(_), _) => Err(wrong("string")),
        (Value::Number(n), _) if number || kind == "size" => {
            let text = n.to_string();
            check_text(key, kind, &text)?;
            Ok(text)
        }
        (Value::Number(_), _) => Err(wrong(if kind == "bool" { "boolean" } else { "string" })),
        _ => Err(wrong(if kind == "bool" { "boolean" } else { "string" })),
    }
}

/// The 64-bit type that QEMU's JSON reader names for a narrower one.
fn wide(kind: &str) -> &'static str {
    if kind.starts_with('u') { "uint64" } else { "int64" }
}

fn check_text(key: &str, kind: &str, text: &str) -> Step {
    let range = |max: i128, min: i128| -> Step {
        let value = match kind.starts_with('u') {
            true => crate::keyval::value::parse_number(key, text)
                .map(i128::from)
                .map_err(|_| ValueError::Expects { name: key.into(), expected: "integer" })?,
            false => i128::from(parse_integer(key, text)?),
        };
        match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(Stop::here(format!("Parameter '{key}' expects {}_t", kind.trim_end_matches("_t")))),
        }
    };
    match kind.trim_end_matches("_t") {
        "bool" => drop(parse_bool(key, text)?),
        "size" => drop(parse_tree_size(key, text)?),
        "OnOffAuto" if !["on", "off", "auto"].contains(&text) => {
            return Err(ValueError::not_accepted(key, text, ["on", "off", "auto"]).into());
        }
        "uint8" => range(0xff, 0)?,
        "uint16" => range(0xffff, 0)?,
        "uint32" => range(0xffff_ffff, 0)?,
        "uint64" => range(i128::from(u64::MAX), 0)?,
        "int32" => range(i128::from(i32::MAX), i128::from(i32::MIN))?,
        "int64" | "int" => range(i128::from(i64::MAX), i128::from(i64::MIN))?,
        _ => {}
    }
    Ok(())
}

/// Whether the drive or chardev that a property names exists.
fn check_reference(low: &Low<'_>, class: &DeviceInfo, key: &str, value: &str) -> Step {
    let config = &low.config;
    let found = match key {
        "drive" => {
            let node = |n: &crate::machine::config::NodeSpec| {
                n.options.get("node-name").and_then(Value::as_str) == Some(value)
            };
            config.drives.iter().any(|d| d.id == value) || config.nodes.iter().any(node)
        }
        "chardev" => config.chardevs.iter().any(|c| c.id == value),
        "netdev" => config.netdevs.iter().any(|n| n.id == value),
        _ => true,
    };
    match found {
        true => Ok(()),
        false => Err(Stop::here(format!("Property '{}.{key}' can't find value '{value}'", class.name))),
    }
}

pub(super) fn read_global(low: &mut Low<'_>, text: &str) -> Step {
    let origin = low.origin.clone();
    // "driver.property=value", unless it is a list.
    if let Some((left, value)) = text.split_once('=')
        && let Some((driver, property)) = left.split_once('.')
        && !left.contains(',')
    {
        let spec = GlobalSpec { driver: driver.into(), property: property.into(), value: value.into(), origin };
        low.config.globals.push(spec);
        return Ok(());
    }
    let pairs = low.list(&lists::GLOBAL, text)?;
    match (pairs.get("driver"), pairs.get("property"), pairs.get("value")) {
        (Some(driver), Some(property), Some(value)) => {
            let spec = GlobalSpec { driver: driver.into(), property: property.into(), value: value.into(), origin };
            low.config.globals.push(spec);
            Ok(())
        }
        _ => Err(Stop::here("options 'driver', 'property', and 'value' are required")),
    }
}

/// Checks `-global`s against the classes: an unknown class earns a warning, as in QEMU, an unknown property ends here.
pub(super) fn check_globals(low: &mut Low<'_>) -> Step {
    let mut kept = Vec::new();
    for global in std::mem::take(&mut low.config.globals) {
        let GlobalSpec { driver, property, value, .. } = &global;
        let Some(class) = low.tables.device(driver) else {
            let text = format!("global {driver}.{property} has invalid class name");
            low.warn("", &text);
            continue;
        };
        let known = class.properties.iter().map(|p| p.name.as_str());
        let pci = PCI.iter().filter(|_| class.bus == "PCI").map(|(name, _)| *name);
        let fault = |why: String| format!("can't apply global {driver}.{property}={value}: {why}");
        if known.clone().chain(pci.clone()).all(|name| name != property) {
            let text = fault(format!("Property '{driver}.{property}' not found"));
            return Err(Stop::nowhere(with_hint(text, property, known.chain(pci))));
        }
        if let Some(info) = class.properties.iter().find(|p| p.name == *property)
            && let Err(Stop::Fault(lines)) = check_text(property, &info.kind, value)
        {
            let why = lines.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
            return Err(Stop::nowhere(fault(why)));
        }
        kept.push(global);
    }
    low.config.globals = kept;
    Ok(())
}

pub(super) fn read_set(low: &mut Low<'_>, text: &str) -> Step {
    let parse = || {
        let (path, value) = text.split_once('=')?;
        let mut parts = path.splitn(3, '.');
        Some((parts.next()?, parts.next()?, parts.next()?, value))
    };
    let Some((group, id, key, value)) = parse() else {
        return Err(Stop::here(format!("can't parse: \"{text}\"")));
    };
    let missing = || Stop::here(format!("there is no {group} \"{id}\" defined"));
    match group {
        "drive" => {
            let raw = low.drives.iter_mut().find(|d| d.pairs.id.as_deref() == Some(id)).ok_or_else(missing)?;
            raw.pairs.set(key, value);
        }
        "chardev" => {
            let found = low.chardevs.iter_mut().find(|(_, pairs)| pairs.id.as_deref() == Some(id));
            let (_, pairs) = found.ok_or_else(missing)?;
            lists::CHARDEV.check(key, value)?;
            pairs.set(key, value);
        }
        "device" => {
            let with_id = |d: &&mut RawDevice| d.map.get("id").and_then(Value::as_str) == Some(id);
            let raw = low.devices.iter_mut().find(with_id).ok_or_else(missing)?;
            raw.map.insert(key.into(), Value::String(value.into()));
        }
        _ => {
            let text = format!("There is no option group '{group}'");
            return Err(Stop::misspelt(text, group, ["drive", "chardev", "device"]));
        }
    }
    Ok(())
}
