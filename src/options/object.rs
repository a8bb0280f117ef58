//! `-object`: things that devices refer to by id.

use serde_json::Value;

use super::low::Low;
use super::network;
use super::stop::{Step, Stop};
use crate::keyval::value::{ValueError, parse_integer};
use crate::keyval::{List, asks_help, is_identifier};
use crate::machine::config::ObjectSpec;

/// A property's type, as help names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Int,
    Text,
}

/// A type of objects.
struct Type {
    name: &'static str,
    properties: &'static [(&'static str, Kind)],
}

/// Those that this version has, sorted.
const TYPES: &[Type] = &[
    Type {
        name: "filter-dump",
        properties: &[
            ("file", Kind::Text),
            ("maxlen", Kind::Int),
            ("netdev", Kind::Text),
            ("queue", Kind::Text),
            ("status", Kind::Text),
        ],
    },
    Type {
        name: "iothread",
        properties: &[
            ("aio-max-batch", Kind::Int),
            ("poll-grow", Kind::Int),
            ("poll-max-ns", Kind::Int),
            ("poll-shrink", Kind::Int),
            ("thread-pool-max", Kind::Int),
            ("thread-pool-min", Kind::Int),
        ],
    },
    Type { name: "rng-builtin", properties: &[] },
    Type { name: "rng-random", properties: &[("filename", Kind::Text)] },
];

/// Those that QEMU has besides, to tell what is missing from what is misspelt.
const ABSENT: &[&str] = &[
    "acpi-generic-initiator",
    "acpi-generic-port",
    "authz-list",
    "authz-list-file",
    "authz-simple",
    "can-bus",
    "can-host-socketcan",
    "colo-compare",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "cryptodev-vhost-user",
    "dbus-vmstate",
    "filter-buffer",
    "filter-mirror",
    "filter-redirector",
    "filter-replay",
    "filter-rewriter",
    "input-barrier",
    "input-linux",
    "iommufd",
    "main-loop",
    "memory-backend-file",
    "memory-backend-memfd",
    "memory-backend-ram",
    "memory-backend-shm",
    "pr-manager-helper",
    "rng-egd",
    "secret",
    "secret_keyring",
    "sev-guest",
    "sev-snp-guest",
    "thread-context",
    "throttle-group",
    "tls-cipher-suites",
    "tls-creds-anon",
    "tls-creds-psk",
    "tls-creds-x509",
    "x-remote-object",
];

fn list_of_types() -> String {
    let lines: String = TYPES.iter().map(|kind| format!("  {}\n", kind.name)).collect();
    format!("List of user creatable objects:\n{lines}")
}

fn help_of(kind: &Type) -> String {
    if kind.properties.is_empty() {
        return format!("There are no options for {}.\n", kind.name);
    }
    let name = |of: Kind| if of == Kind::Int { "int" } else { "string" };
    let lines: String = kind.properties.iter().map(|(key, of)| format!("  {key}=<{}>\n", name(*of))).collect();
    format!("{} options:\n{lines}", kind.name)
}

/// The keys and values of either form.
fn pairs_of(low: &mut Low<'_>, text: &str) -> Step<(Vec<(String, String)>, bool)> {
    if text.starts_with('{') {
        let Value::Object(map) = crate::json::parse(text).map_err(|error| Stop::here(error.to_string()))? else {
            return Err(Stop::here("Invalid parameter type, expected: object"));
        };
        let text_of = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        return Ok((map.into_iter().map(|(key, value)| (key, text_of(value))).collect(), false));
    }
    let any = List { name: "object", implied: Some("qom-type"), keys: &[], merge: false };
    let parsed = low.list(&any, text)?;
    let mut pairs = parsed.pairs.clone();
    if let Some(id) = parsed.id {
        pairs.push(("id".to_owned(), id));
    }
    let help = pairs.iter().any(|(key, _)| key == "help" || key == "?");
    Ok((pairs, help || parsed.help))
}

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let (mut pairs, help) = pairs_of(low, text)?;
    let mut take = |name: &str| {
        let index = pairs.iter().position(|(key, _)| key == name)?;
        Some(pairs.remove(index).1)
    };
    let Some(name) = take("qom-type") else {
        return Err(match help {
            true => Stop::Print(list_of_types(), 0),
            false => ValueError::Missing { name: "qom-type".into() }.into(),
        });
    };
    if asks_help(&name) {
        return Err(Stop::Print(list_of_types(), 0));
    }
    let Some(kind) = TYPES.iter().find(|kind| kind.name == name) else {
        return Err(match ABSENT.contains(&name.as_str()) {
            true => Stop::unsupported(format_args!("object '{name}'")),
            false => {
                let text = format!("Parameter 'qom-type' does not accept value '{name}'");
                Stop::misspelt(text, &name, TYPES.iter().map(|kind| kind.name))
            }
        });
    };
    if help {
        return Err(Stop::Print(help_of(kind), 0));
    }
    let id = take("id").ok_or_else(|| ValueError::Missing { name: "id".into() })?;
    if !is_identifier(&id) {
        return Err(ValueError::Identifier { name: "id".into() }.into());
    }
    let (objects, dumps) = (&low.config.objects, &low.config.dumps);
    if objects.iter().any(|other| other.id == id) || dumps.iter().any(|other| other.id == id) {
        return Err(Stop::here(format!("Duplicate ID '{id}' for object")));
    }
    for (key, value) in &pairs {
        check(kind, key, value)?;
    }
    if kind.name == "filter-dump" {
        return network::add_dump(low, id, &pairs);
    }
    low.config.objects.push(ObjectSpec { kind: name, id, properties: pairs, origin: low.origin.clone() });
    Ok(())
}

fn check(kind: &Type, key: &str, value: &str) -> Step {
    let known = kind.properties.iter().find(|(name, _)| *name == key);
    let Some((_, of)) = known else { return Err(Stop::here(format!("Invalid parameter '{key}'"))) };
    match of {
        Kind::Int => parse_integer(key, value)
            .map(drop)
            .map_err(|_| Stop::here(format!("Parameter '{key}' expects an int64 value"))),
        Kind::Text => Ok(()),
    }
}
