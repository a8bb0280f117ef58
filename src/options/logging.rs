//! `-d`, `-D`, `-trace`, `-msg`.

use std::path::PathBuf;

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::trace;

pub(super) fn read_msg(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::MSG, text)?;
    if let Some(on) = pairs.switch("timestamp")? {
        low.config.log.timestamp = on;
    }
    if let Some(on) = pairs.switch("guest-name")? {
        low.config.log.guest_name = on;
    }
    Ok(())
}

pub(super) fn read_items(low: &mut Low<'_>, text: &str) -> Step {
    low.log_items = Some(text.into());
    Ok(())
}

pub(super) fn read_filter(low: &mut Low<'_>, text: &str) -> Step {
    low.config.log.filter.extend(trace::parse_filter(text).map_err(Stop::here)?);
    Ok(())
}

/// What `-d` came to; its help is printed last, as in QEMU.
pub(super) fn resolve(low: &mut Low<'_>) -> Step {
    let Some(text) = low.log_items.take() else { return Ok(()) };
    for item in text.split(',') {
        if let Some(pattern) = item.strip_prefix("trace:") {
            if pattern == "help" {
                return Err(Stop::Print(trace_help(low), 0));
            }
            add_pattern(low, "", pattern);
            continue;
        }
        match trace::item(item) {
            Some(known) if known.implemented => low.config.log.items.push(item.into()),
            Some(_) => return Err(Stop::nowhere(format!("log item '{item}' is not supported by this version"))),
            None => return Err(Stop::Print(trace::items_help(), 1)),
        }
    }
    Ok(())
}

pub(super) fn read_file(low: &mut Low<'_>, text: &str) -> Step {
    // One %d, for the process's number, is all that a name may have.
    let specials = text.matches('%').count();
    if specials > 1 || (specials == 1 && !text.contains("%d")) {
        return Err(Stop::nowhere(format!("Bad logfile template: {text}")));
    }
    low.config.log.file = Some(PathBuf::from(text));
    Ok(())
}

fn trace_help(low: &Low<'_>) -> String {
    low.tables.trace_points.iter().map(|name| format!("{name}\n")).collect()
}

/// Adds a pattern; one that matches nothing earns QEMU's warning and stays, for it asks for nothing.
fn add_pattern(low: &mut Low<'_>, origin: &str, pattern: &str) {
    let name = pattern.strip_prefix('-').unwrap_or(pattern);
    let known = low.tables.trace_points.iter().any(|point| trace::glob(name, point));
    if !known && !name.contains('*') {
        low.warn(origin, &format!("trace event '{name}' does not exist"));
    }
    low.config.log.trace.push(pattern.into());
}

pub(super) fn read_trace(low: &mut Low<'_>, text: &str) -> Step {
    if crate::keyval::asks_help(text) {
        return Err(Stop::Print(trace_help(low), 0));
    }
    let pairs = low.list(&lists::TRACE, text)?;
    if let Some(pattern) = pairs.get("enable") {
        if crate::keyval::asks_help(pattern) {
            return Err(Stop::Print(trace_help(low), 0));
        }
        let origin = low.origin.clone();
        add_pattern(low, &origin, pattern);
    }
    if let Some(path) = pairs.get("events") {
        let text = std::fs::read_to_string(path).map_err(|e| Stop::at(&format!(":{path}"), crate::host::reason(&e)))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            add_pattern(low, "", line);
        }
    }
    if let Some(file) = pairs.get("file") {
        low.config.log.trace_file = Some(PathBuf::from(file));
    }
    Ok(())
}
