//! `-netdev`, `-nic`, `-net`.

use serde_json::Value;

use super::low::Low;
use super::stop::{Step, Stop};
use crate::keyval::list::Flags;
use crate::keyval::value::{ValueError, parse_bool, parse_integer};
use crate::keyval::{List, Pairs, asks_help, is_identifier};
use crate::machine::config::{DumpSpec, NetPeer, NetdevSpec, NicSpec};

/// The types of back ends, with QEMU's keys. Those without keys are QEMU's only.
const KINDS: &[(&str, &[&str])] = &[
    ("socket", &["fd", "listen", "connect", "mcast", "localaddr", "udp"]),
    ("stream", &["addr.type", "addr.host", "addr.port", "addr.path", "server"]),
    ("dgram", DGRAM),
    ("hubport", &["hubid", "netdev"]),
    ("tap", TAP),
    (
        "user",
        &[
            "hostname",
            "restrict",
            "ipv4",
            "ipv6",
            "net",
            "host",
            "tftp",
            "bootfile",
            "dhcpstart",
            "dns",
            "dnssearch",
            "domainname",
            "ipv6-net",
            "ipv6-prefix",
            "ipv6-prefixlen",
            "ipv6-host",
            "ipv6-dns",
            "hostfwd",
            "guestfwd",
            "tftp-server-name",
        ],
    ),
    ("l2tpv3", &[]),
    ("vde", &[]),
    ("bridge", &["br", "helper"]),
    ("vhost-user", &[]),
    ("vhost-vdpa", &[]),
];

const DGRAM: &[&str] = &[
    "local.type",
    "local.host",
    "local.port",
    "local.path",
    "remote.type",
    "remote.host",
    "remote.port",
    "remote.path",
];

const TAP: &[&str] = &[
    "ifname",
    "fd",
    "fds",
    "script",
    "downscript",
    "br",
    "helper",
    "sndbuf",
    "vnet_hdr",
    "vhost",
    "vhostfd",
    "vhostfds",
    "vhostforce",
    "queues",
];

/// Switches among the keys.
const SWITCHES: &[&str] = &["restrict", "ipv4", "ipv6", "server", "vnet_hdr", "vhost", "vhostforce"];

/// Keys of the card in `-nic`.
const NIC_KEYS: &[&str] = &["model", "mac", "addr", "netdev", "name", "vectors"];

fn supported(name: &str) -> Option<&'static [&'static str]> {
    KINDS.iter().find(|(kind, keys)| *kind == name && !keys.is_empty()).map(|(_, keys)| *keys)
}

fn kinds_help() -> String {
    let names = KINDS.iter().filter(|(_, keys)| !keys.is_empty()).map(|(name, _)| format!("{name}\n"));
    format!("Available netdev backend types:\n{}", names.collect::<String>())
}

fn models(low: &Low<'_>) -> String {
    let mut names: Vec<String> = low
        .tables
        .devices
        .iter()
        .filter(|device| device.category == "Network" && device.user_creatable)
        .map(|device| match device.alias.as_str() {
            // An alias of virtio-net-pci that people write; others are of no use here.
            "virtio-net" => format!("{} (aka virtio)\n", device.name),
            _ => format!("{}\n", device.name),
        })
        .collect();
    names.sort();
    names.concat()
}

/// Reads the option, also as JSON; nested objects become dotted keys.
fn pairs(low: &mut Low<'_>, text: &str) -> Step<Pairs> {
    if text.starts_with('{') {
        return json_pairs(text);
    }
    let any = List { name: "netdev", implied: Some("type"), keys: &[], merge: false };
    low.list(&any, text)
}

fn json_pairs(text: &str) -> Step<Pairs> {
    let value = crate::json::parse(text).map_err(|error| Stop::here(error.to_string()))?;
    let mut pairs = Pairs::default();
    flatten("", &value, &mut pairs)?;
    pairs.id = pairs.take("id");
    Ok(pairs)
}

fn flatten(prefix: &str, value: &Value, into: &mut Pairs) -> Step {
    let put = |text: String, into: &mut Pairs| into.pairs.push((prefix.to_owned(), text));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, into)?;
            }
        }
        // Lists of forwarding rules: {"str": "tcp::…"}.
        Value::Array(list) => {
            for item in list {
                flatten(prefix, item.get("str").unwrap_or(item), into)?;
            }
        }
        Value::Bool(on) => put(if *on { "on" } else { "off" }.to_owned(), into),
        Value::String(text) => put(text.clone(), into),
        Value::Number(number) => put(number.to_string(), into),
        Value::Null => return Err(Stop::here("Invalid parameter type, expected: object")),
    }
    Ok(())
}

/// A back end from the keys that are left; `extra` are the card's.
fn netdev(pairs: &Pairs, id: String, origin: &str, extra: &[&str]) -> Step<NetdevSpec> {
    let kind = pairs.get("type").unwrap_or_default();
    if kind.is_empty() {
        return Err(ValueError::Missing { name: "type".into() }.into());
    }
    let Some(keys) = supported(kind) else {
        if KINDS.iter().any(|(name, _)| *name == kind) {
            return Err(Stop::unsupported(format_args!("network back end '{kind}'")));
        }
        return Err(Stop::here(format!("Parameter 'type' does not accept value '{kind}'")));
    };
    let mut spec = NetdevSpec { kind: kind.to_owned(), id, origin: origin.to_owned(), ..NetdevSpec::default() };
    for (key, value) in &pairs.pairs {
        if key == "type" || extra.contains(&key.as_str()) {
            continue;
        }
        if kind == "user" && matches!(key.as_str(), "smb" | "smbserver") {
            return Err(Stop::unsupported(format_args!("user network option '{key}'")));
        }
        if !keys.contains(&key.as_str()) {
            return Err(Stop::here(format!("Invalid parameter '{key}'")));
        }
        if SWITCHES.contains(&key.as_str()) {
            parse_bool(key, value)?;
        }
        spec.options.push((key.clone(), value.clone()));
    }
    Ok(spec)
}

/// An id for what has none.
fn anonymous(low: &mut Low<'_>) -> String {
    let number = low.config.netdevs.len() + low.config.nics.len();
    format!("#net{number}{:02}", (number * 37 + 41) % 100)
}

fn unique(low: &Low<'_>, id: &str, group: &str) -> Step {
    if !is_identifier(id) {
        return Err(ValueError::Identifier { name: "id".into() }.into());
    }
    match low.config.netdevs.iter().any(|other| other.id == id) {
        true => Err(Stop::here(format!("Duplicate ID '{id}' for {group}"))),
        false => Ok(()),
    }
}

pub(super) fn read_netdev(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.network = false;
    if asks_help(text) {
        return Err(Stop::Print(kinds_help(), 0));
    }
    let pairs = pairs(low, text)?;
    let Some(id) = pairs.id.clone() else { return Err(ValueError::Missing { name: "id".into() }.into()) };
    unique(low, &id, "netdev")?;
    let spec = netdev(&pairs, id, &low.origin.clone(), &[])?;
    low.config.netdevs.push(spec);
    Ok(())
}

/// `52:54:00:12:34:56`, with `-` as well.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// A card from its keys.
fn nic(pairs: &Pairs, mac_key: &str, peer: NetPeer, origin: &str) -> Step<NicSpec> {
    let address = match pairs.get(mac_key) {
        None => None,
        Some(text) => {
            let mac = mac(text).ok_or_else(|| Stop::here("invalid syntax for ethernet address"))?;
            if mac[0] & 1 != 0 {
                return Err(Stop::here("NIC cannot have multicast MAC address (odd 1st byte)"));
            }
            Some(mac)
        }
    };
    Ok(NicSpec {
        model: pairs.get("model").map(str::to_owned),
        mac: address,
        id: pairs.get("name").unwrap_or_default().to_owned(),
        addr: pairs.get("addr").map(str::to_owned),
        peer,
        origin: origin.to_owned(),
    })
}

fn help_on_models(low: &Low<'_>, pairs: &Pairs) -> Step {
    match pairs.get("model").is_some_and(asks_help) {
        true => Err(Stop::Print(format!("Available NIC models for this configuration:\n{}", models(low)), 0)),
        false => Ok(()),
    }
}

pub(super) fn read_nic(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.network = false;
    if asks_help(text) {
        let models = models(low);
        let title = "Available NIC models (use -nic model=help for a filtered list):";
        return Err(Stop::Print(format!("{}\n{title}\n{models}", kinds_help()), 0));
    }
    let pairs = pairs(low, text)?;
    help_on_models(low, &pairs)?;
    if pairs.get("type") == Some("none") {
        return match pairs.pairs.iter().find(|(key, _)| key != "type") {
            Some((key, _)) => Err(ValueError::unexpected("", key, ["type"]).into()),
            None => Ok(()),
        };
    }
    let id = match &pairs.id {
        Some(id) => {
            unique(low, id, "nic")?;
            id.clone()
        }
        None => anonymous(low),
    };
    let origin = low.origin.clone();
    let card = nic(&pairs, "mac", NetPeer::Netdev(id.clone()), &origin)?;
    let spec = netdev(&pairs, id, &origin, NIC_KEYS)?;
    low.config.netdevs.push(spec);
    low.config.nics.push(card);
    Ok(())
}

pub(super) fn read_net(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.network = false;
    if asks_help(text) {
        return Err(Stop::Print(kinds_help(), 0));
    }
    add_net(low, text)
}

fn add_net(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = pairs(low, text)?;
    let origin = low.origin.clone();
    match pairs.get("type").unwrap_or_default() {
        "none" => match pairs.pairs.iter().find(|(key, _)| key != "type") {
            Some((key, _)) => Err(ValueError::unexpected("", key, ["type"]).into()),
            None => Ok(()),
        },
        "nic" => {
            help_on_models(low, &pairs)?;
            let known = ["type", "netdev", "macaddr", "model", "addr", "vectors", "name"];
            if let Some((key, _)) = pairs.pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
                return Err(Stop::here(format!("Invalid parameter '{key}'")));
            }
            let peer = match pairs.get("netdev") {
                None => NetPeer::Hub(0),
                Some(id) => match low.config.netdevs.iter().any(|netdev| netdev.id == id) {
                    true => NetPeer::Netdev(id.to_owned()),
                    false => return Err(Stop::here(format!("netdev '{id}' not found"))),
                },
            };
            let card = nic(&pairs, "macaddr", peer, &origin)?;
            low.config.nics.push(card);
            Ok(())
        }
        "hubport" => Err(Stop::here("Parameter 'type' does not accept value 'hubport'")),
        _ => {
            let id = match pairs.id.clone().or_else(|| pairs.get("name").map(str::to_owned)) {
                Some(id) => {
                    unique(low, &id, "net")?;
                    id
                }
                None => anonymous(low),
            };
            let mut spec = netdev(&pairs, id, &origin, &["name"])?;
            spec.hub = Some(0);
            low.config.netdevs.push(spec);
            Ok(())
        }
    }
}

/// `-object filter-dump`, whose keys are known ones.
pub(super) fn add_dump(low: &mut Low<'_>, id: String, pairs: &[(String, String)]) -> Step {
    let get = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if !matches!(get("status"), None | Some("on")) {
        return Err(Stop::unsupported("filter-dump option 'status'"));
    }
    let netdev = get("netdev").ok_or_else(|| Stop::here("Parameter 'netdev' is missing"))?;
    let file = get("file").ok_or_else(|| Stop::here("dump filter needs 'file' property set!"))?;
    let directions = match get("queue") {
        None | Some("all") => (true, true),
        Some("rx") => (false, true),
        Some("tx") => (true, false),
        Some(other) => return Err(Stop::here(format!("Parameter 'queue' does not accept value '{other}'"))),
    };
    let max_len = match get("maxlen").map(|text| parse_integer("maxlen", text)).transpose()? {
        None => 65536,
        Some(0) => return Err(Stop::here("Property 'filter-dump.maxlen' doesn't take value '0'")),
        Some(len) => u32::try_from(len).unwrap_or(u32::MAX),
    };
    let origin = low.origin.clone();
    let spec = DumpSpec { id, netdev: netdev.into(), file: file.into(), max_len, directions, origin };
    low.config.dumps.push(spec);
    Ok(())
}

/// The network of a machine whose command line says nothing of one: a card and `user`, on hub 0.
pub(super) fn resolve(low: &mut Low<'_>, is_pc: bool) -> Step {
    if is_pc && low.config.defaults && low.defaults.network {
        add_net(low, "nic")?;
        add_net(low, "user")?;
    }
    Ok(())
}

/// A monitor's `netdev_add`: the keys are those of `-netdev`, as text or as a JSON object.
///
/// # Errors
/// QEMU's text.
pub fn parse_netdev(text: &str) -> Result<NetdevSpec, String> {
    let pairs = if text.starts_with('{') {
        json_pairs(text).map_err(told)?
    } else {
        let any = List { name: "netdev", implied: Some("type"), keys: &[], merge: false };
        let (pairs, result) = any.parse_with(text, any.implied, Flags::Quiet);
        result.map_err(|error| error.to_string())?;
        pairs
    };
    let Some(id) = pairs.id.clone() else { return Err("Parameter 'id' is missing".to_owned()) };
    netdev(&pairs, id, "", &[]).map_err(told)
}

fn told(stop: Stop) -> String {
    match stop {
        Stop::Fault(lines) => lines.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n"),
        Stop::Print(text, _) => text,
    }
}
