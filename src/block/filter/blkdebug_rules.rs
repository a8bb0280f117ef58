//! The rules of `blkdebug`: from a file in QEMU's configuration syntax, or from options.

use crate::block::debug::Event;
use crate::block::error::OpenError;
use crate::block::options::Options;
use crate::host;

/// Kinds of requests, as bits.
pub(super) mod io_type {
    pub(in super::super) const READ: u8 = 1;
    pub(in super::super) const WRITE: u8 = 2;
    pub(in super::super) const WRITE_ZEROES: u8 = 4;
    pub(in super::super) const DISCARD: u8 = 8;
    pub(in super::super) const FLUSH: u8 = 16;
    pub(in super::super) const BLOCK_STATUS: u8 = 32;
}

/// What a rule does when its event comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Requests fail from then on.
    Inject(Inject),
    /// The state changes.
    SetState(u64),
    /// The request stops there.
    Suspend(String),
}

/// Which requests fail, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Inject {
    pub(super) errno: i32,
    /// Bits of [`io_type`].
    pub(super) types: u8,
    /// Only requests that touch this byte.
    pub(super) offset: Option<u64>,
    /// Only the first one.
    pub(super) once: bool,
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) event: Event,
    /// The state it is for; 0: any.
    pub(super) state: u64,
    pub(super) action: Action,
}

/// Rules at most: what reads a file must end.
const MAX_RULES: usize = 4096;
/// Bytes of a file at most.
const MAX_FILE: u64 = 1 << 20;

fn invalid(text: impl Into<String>) -> OpenError {
    OpenError::Invalid(text.into())
}

/// The rules of a file.
///
/// # Errors
/// It cannot be read, or a line is wrong.
pub(super) fn from_file(path: &str) -> Result<Vec<Rule>, OpenError> {
    use std::io::Read;
    let failed = OpenError::io("Could not read blkdebug config file");
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(failed)?;
    from_text(&text, path)
}

fn from_text(text: &str, path: &str) -> Result<Vec<Rule>, OpenError> {
    let mut groups: Vec<(String, Options)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || invalid(format!("{path}:{}: parse error", number + 1));
        if let Some(head) = line.strip_prefix('[') {
            let name = head.strip_suffix(']').ok_or_else(wrong)?;
            let name = name.split_whitespace().next().ok_or_else(wrong)?;
            if name != "inject-error" && name != "set-state" {
                return Err(invalid(format!("There is no option group '{name}'")));
            }
            groups.push((name.to_owned(), Options::default()));
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(wrong)?;
        let (_, options) = groups.last_mut().ok_or_else(|| invalid("no group defined"))?;
        options.insert(key.trim(), value);
    }
    groups.into_iter().map(|(name, options)| rule(&name, options)).collect()
}

/// The rules of options: "inject-error.0.event=…".
///
/// # Errors
/// One of them is wrong.
pub(super) fn from_options(options: &mut Options) -> Result<Vec<Rule>, OpenError> {
    let mut rules = Vec::new();
    for kind in ["inject-error", "set-state"] {
        let mut list = options.take_below(&format!("{kind}."));
        for index in 0..MAX_RULES {
            let one = list.take_below(&format!("{index}."));
            if one.is_empty() {
                break;
            }
            rules.push(rule(kind, one)?);
        }
        if let Some(key) = list.unknown() {
            return Err(invalid(format!("Invalid option '{kind}.{key}'")));
        }
    }
    Ok(rules)
}

fn number(options: &mut Options, key: &str) -> Result<Option<u64>, OpenError> {
    let wrong = || invalid(format!("Parameter '{key}' expects a number"));
    match options.take(key) {
        None => Ok(None),
        Some(serde_json::Value::Number(number)) => number.as_u64().map(Some).ok_or_else(wrong),
        Some(serde_json::Value::String(text)) => {
            crate::keyval::value::parse_number(key, &text).map(Some).map_err(|_| wrong())
        }
        Some(_) => Err(wrong()),
    }
}

fn rule(kind: &str, mut options: Options) -> Result<Rule, OpenError> {
    let name = options.take_str("event")?;
    let state = number(&mut options, "state")?.unwrap_or(0);
    let action = if kind == "inject-error" {
        let types = options.take_str("iotype")?;
        let errno = number(&mut options, "errno")?.unwrap_or(host::EIO as u64);
        let sector = match options.take("sector") {
            Some(value) if value == -1 || value == "-1" => None,
            Some(value) => {
                options.insert("sector", value);
                number(&mut options, "sector")?
            }
            None => None,
        };
        let once = options.take_bool("once")?.unwrap_or(false);
        // Requests here have no other moment to fail at than the first.
        options.take_bool("immediately")?;
        Action::Inject(Inject {
            errno: i32::try_from(errno).map_err(|_| invalid("errno is out of range"))?,
            types: types.map_or(Ok(31), |name| types_by_name(&name))?,
            offset: sector.map(|sector| sector.saturating_mul(512)),
            once,
        })
    } else {
        let new = number(&mut options, "new_state")?.unwrap_or(0);
        Action::SetState(new)
    };
    if let Some(key) = options.unknown() {
        return Err(invalid(format!("[{kind}] section doesn't support the option '{key}'")));
    }
    let name = name.ok_or_else(|| invalid("Missing event name for rule"))?;
    let event = Event::by_name(&name).ok_or_else(|| invalid(format!("invalid parameter value: {name}")))?;
    Ok(Rule { event, state, action })
}

fn types_by_name(name: &str) -> Result<u8, OpenError> {
    Ok(match name {
        "read" => io_type::READ,
        "write" => io_type::WRITE,
        "write-zeroes" => io_type::WRITE_ZEROES,
        "discard" => io_type::DISCARD,
        "flush" => io_type::FLUSH,
        "block-status" => io_type::BLOCK_STATUS,
        _ => return Err(invalid(format!("invalid parameter value: {name}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_groups_of_keys() {
        let text = "# rules\n[inject-error]\nevent = \"write_aio\"\nerrno = \"28\"\nonce = \"on\"\n\n[set-state]\nstate = \
                    \"1\"\nevent = \"l2_load\"\nnew_state = \"2\"\n";
        let rules = from_text(text, "x").unwrap();
        let inject = Inject { errno: 28, types: 31, offset: None, once: true };
        assert_eq!(rules[0], Rule { event: Event::WriteAio, state: 0, action: Action::Inject(inject) });
        assert_eq!(rules[1], Rule { event: Event::L2Load, state: 1, action: Action::SetState(2) });
        assert!(from_text("[foo]\n", "x").is_err());
        assert!(from_text("event = \"x\"\n", "x").is_err());
        for end in 0..text.len() {
            let _ = from_text(&text[..end], "x");
        }
    }
}
