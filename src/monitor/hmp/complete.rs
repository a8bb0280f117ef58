//! Tab completion.

use super::Environment;
use super::lex::{Kind, split_name, word};
use super::table::{COMMANDS, Command, find};
use crate::monitor::keys;

/// The candidates for the last word of `line`, and how many bytes of it are there already.
#[must_use]
pub fn complete(environment: &Environment, line: &str) -> (usize, Vec<String>) {
    let (name, rest) = split_name(line);
    if rest.is_empty() {
        return matching(name, command_names(COMMANDS));
    }
    let Some(mut command) = find(COMMANDS, name) else { return (0, Vec::new()) };
    let mut rest = rest;
    if let Some(subcommands) = command.subcommands() {
        let (sub, after) = split_name(rest);
        if after.is_empty() {
            return matching(sub, command_names(subcommands));
        }
        let Some(found) = find(subcommands, sub) else { return (0, Vec::new()) };
        command = found;
        rest = after;
    }
    if command.names().any(|n| n == "help") {
        return help_topic(rest);
    }
    argument(environment, command, rest)
}

fn command_names(table: &'static [Command]) -> Vec<String> {
    table.iter().flat_map(Command::names).map(str::to_owned).collect()
}

fn matching(typed: &str, mut candidates: Vec<String>) -> (usize, Vec<String>) {
    candidates.retain(|candidate| candidate.starts_with(typed));
    candidates.sort_unstable();
    candidates.dedup();
    (typed.len(), candidates)
}

fn help_topic(rest: &str) -> (usize, Vec<String>) {
    let (name, after) = split_name(rest);
    if after.is_empty() {
        return matching(name, command_names(COMMANDS));
    }
    match find(COMMANDS, name).and_then(Command::subcommands) {
        Some(table) => matching(after.trim_start(), command_names(table)),
        None => (0, Vec::new()),
    }
}

fn argument(environment: &Environment, command: &Command, rest: &str) -> (usize, Vec<String>) {
    // Whole words and flags before the last word use up the arguments of the table.
    let mut words = 0;
    let mut left = rest;
    let last = loop {
        match word(left) {
            Ok(Some((text, ""))) => break text,
            Ok(Some((text, after))) => {
                words += usize::from(!text.starts_with('-') && !text.starts_with('/'));
                left = after;
            }
            Ok(None) => break String::new(),
            Err(_) => return (0, Vec::new()),
        }
    };
    let is_word = |kind: Kind| !matches!(kind, Kind::Flag(_) | Kind::FlagText(_) | Kind::Format);
    let Some(argument) = command.args.iter().filter(|arg| is_word(arg.kind)).nth(words) else {
        return (0, Vec::new());
    };
    let control = &environment.control;
    match (argument.kind, argument.name) {
        (Kind::Drive | Kind::OptionalDrive, _) => {
            let drives = control.block_devices().into_iter().map(|drive| drive.device);
            matching(&last, drives.filter(|name| !name.is_empty()).collect())
        }
        (Kind::File, _) => (last.len(), files(&last)),
        (_, "keys") => {
            let typed = last.rsplit('-').next().unwrap_or("");
            matching(typed, keys::names().map(str::to_owned).collect())
        }
        (_, "id") | (Kind::Text, "device") => {
            matching(&last, control.chardevs().list().into_iter().map(|device| device.label).collect())
        }
        _ => (0, Vec::new()),
    }
}

/// Files that begin like `typed`, folders with a slash.
fn files(typed: &str) -> Vec<String> {
    const MAX_FILES: usize = 256;
    let (folder, prefix) = typed.rfind('/').map_or(("", typed), |at| typed.split_at(at + 1));
    let Ok(entries) = std::fs::read_dir(if folder.is_empty() { "." } else { folder }) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let hidden = name.starts_with('.') && !prefix.starts_with('.');
            let slash = if entry.path().is_dir() { "/" } else { "" };
            (name.starts_with(prefix) && !hidden).then(|| format!("{folder}{name}{slash}"))
        })
        .take(MAX_FILES)
        .collect();
    found.sort_unstable();
    found
}
