//! `-readconfig`: options from a file of `[group "id"]` headings and `key = "value"` lines.

use std::io;

use super::low::Low;
use super::stop::{Step, Stop};
use super::table;
use crate::host::reason;
use crate::keyval::escape;
use crate::keyval::suggest::with_hint;

/// Groups and the options that they stand for.
const GROUPS: &[(&str, &str)] = &[
    ("accel", "accel"),
    ("acpi", "acpitable"),
    ("action", "action"),
    ("boot-opts", "boot"),
    ("chardev", "chardev"),
    ("device", "device"),
    ("drive", "drive"),
    ("fw_cfg", "fw_cfg"),
    ("global", "global"),
    ("machine", "machine"),
    ("memory", "m"),
    ("mon", "mon"),
    ("msg", "msg"),
    ("name", "name"),
    ("net", "net"),
    ("netdev", "netdev"),
    ("nic", "nic"),
    ("object", "object"),
    ("overcommit", "overcommit"),
    ("rtc", "rtc"),
    ("run-with", "run-with"),
    ("sandbox", "sandbox"),
    ("smbios", "smbios"),
    ("smp-opts", "smp"),
    ("trace", "trace"),
    ("vnc", "vnc"),
];

/// Longest file that is read.
const MAX_SIZE: u64 = 1 << 20;

/// A group as read so far.
struct Group {
    option: &'static str,
    text: String,
    /// Where it starts: ":file:line".
    place: String,
}

pub(super) fn read(low: &mut Low<'_>, path: &str) -> Step {
    let failed = |e: io::Error| Stop::here(format!("Could not open '{path}': {}", reason(&e)));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SIZE {
        return Err(Stop::here(format!("'{path}' is too large for a configuration file")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let outer = low.origin.clone();
    let result = read_text(low, path, &text);
    low.origin = outer;
    result
}

fn read_text(low: &mut Low<'_>, path: &str, text: &str) -> Step {
    let mut group: Option<Group> = None;
    for (i, line) in text.lines().enumerate() {
        let place = format!(":{path}:{}", i + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            finish(low, group.take())?;
            group = Some(open(heading, &place).map_err(|stop| stop.of_option(&place))?);
            continue;
        }
        let Some((key, value)) = assignment(line) else {
            return Err(Stop::at(&place, "parse error"));
        };
        let Some(group) = &mut group else {
            return Err(Stop::at(&place, "no group defined"));
        };
        append(&mut group.text, key, value);
    }
    finish(low, group)
}

fn open(heading: &str, place: &str) -> Step<Group> {
    let parse = || {
        let inner = heading.strip_suffix(']')?.trim();
        match inner.split_once(char::is_whitespace) {
            None => Some((inner, None)),
            Some((name, id)) => Some((name, Some(id.trim().strip_prefix('"')?.strip_suffix('"')?))),
        }
    };
    let Some((name, id)) = parse() else { return Err(Stop::here("parse error")) };
    let Some((_, option)) = GROUPS.iter().find(|(group, _)| *group == name) else {
        let text = format!("There is no option group '{name}'");
        return Err(Stop::here(with_hint(text, name, GROUPS.iter().map(|(group, _)| *group))));
    };
    let mut group = Group { option, text: String::new(), place: place.into() };
    if let Some(id) = id {
        append(&mut group.text, "id", id);
    }
    Ok(group)
}

/// `key = "value"`.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!key.is_empty() && !key.contains([',', '"', ' '])).then_some((key, value))
}

fn append(text: &mut String, key: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(key);
    text.push('=');
    text.push_str(&escape(value));
}

fn finish(low: &mut Low<'_>, group: Option<Group>) -> Step {
    let Some(Group { option, text, place }) = group else { return Ok(()) };
    low.origin.clone_from(&place);
    table::read_one(low, option, &text).map_err(|stop| stop.of_option(&place))
}
