//! `-chardev`, and the addresses that `-serial`, `-parallel`, `-debugcon` and `-monitor` take.

use super::lists;
use super::low::{Low, RawPort};
use super::stop::{Step, Stop};
use crate::keyval::list::Flags;
use crate::keyval::suggest::with_hint;
use crate::keyval::value::parse_size;
use crate::keyval::{Pairs, asks_help};
use crate::machine::config::{ChardevSpec, MonitorSpec};

/// A back end and the keys that it uses.
struct Backend {
    name: &'static str,
    keys: &'static [&'static str],
}

/// The back ends of this version, as `-chardev help` lists them.
const BACKENDS: &[Backend] = &[
    Backend { name: "stdio", keys: &["signal"] },
    Backend { name: "ringbuf", keys: &["size"] },
    Backend { name: "pipe", keys: &["path"] },
    Backend { name: "pty", keys: &[] },
    Backend { name: "mux", keys: &["chardev"] },
    Backend { name: "null", keys: &[] },
    Backend {
        name: "socket",
        keys: &[
            "path",
            "host",
            "port",
            "to",
            "ipv4",
            "ipv6",
            "server",
            "wait",
            "nodelay",
            "telnet",
            "reconnect",
            "reconnect-ms",
            "delay",
            "fd",
            "abstract",
            "tight",
        ],
    },
    Backend { name: "vc", keys: &["width", "height", "cols", "rows"] },
    Backend { name: "udp", keys: &["host", "port", "localaddr", "localport", "ipv4", "ipv6"] },
    Backend { name: "file", keys: &["path", "input-path", "append"] },
    Backend { name: "serial", keys: &["path"] },
];

/// Other names of back ends.
const ALIASES: &[(&str, &str)] = &[("tty", "serial"), ("memory", "ringbuf")];

/// QEMU's other back ends.
const FOREIGN: &[&str] = &[
    "parallel",
    "parport",
    "hub",
    "qemu-vdagent",
    "msmouse",
    "wctablet",
    "testdev",
    "braille",
    "spicevmc",
    "spiceport",
    "dbus",
];

/// Keys that every back end has.
const COMMON: &[&str] = &["backend", "mux", "logfile", "logappend"];

/// Ports of each kind that the board has.
const MAX_SERIAL_PORTS: usize = 4;
const MAX_PARALLEL_PORTS: usize = 3;

fn help() -> String {
    let names: Vec<String> = BACKENDS.iter().map(|b| format!("  {}\n", b.name)).collect();
    format!("Available chardev backend types: \n{}", names.concat())
}

pub(super) fn read_chardev(low: &mut Low<'_>, text: &str) -> Step {
    let mut pairs = low.list(&lists::CHARDEV, text)?;
    if pairs.get("backend").is_some_and(asks_help) {
        return Err(Stop::Print(help(), 0));
    }
    pairs.help = false;
    if let Some(id) = &pairs.id
        && low.chardevs.iter().any(|(_, other)| other.id.as_ref() == Some(id))
    {
        return Err(Stop::here(format!("Duplicate ID '{id}' for chardev")));
    }
    low.chardevs.push((low.origin.clone(), pairs));
    Ok(())
}

/// Makes the chardevs of all `-chardev` options.
pub(super) fn resolve(low: &mut Low<'_>) -> Step {
    for (origin, pairs) in std::mem::take(&mut low.chardevs) {
        let spec = spec(&pairs, &origin).map_err(|stop| stop.of_option(&origin))?;
        add(low, spec).map_err(|stop| stop.of_option(&origin))?;
    }
    Ok(())
}

/// Adds a chardev; standard input and output can be used once.
pub(super) fn add(low: &mut Low<'_>, spec: ChardevSpec) -> Step {
    if spec.backend == "stdio" {
        if low.config.process.daemonize {
            return Err(Stop::here("cannot use stdio with -daemonize"));
        }
        if low.config.chardevs.iter().any(|other| other.backend == "stdio") {
            return Err(Stop::here("cannot use stdio by multiple character devices"));
        }
    }
    if low.config.chardevs.iter().any(|other| other.id == spec.id) {
        return Err(Stop::here(format!("Chardev with id '{}' already exists", spec.id)));
    }
    low.config.chardevs.push(spec);
    Ok(())
}

/// A chardev from its keys, all of them consumed.
fn spec(pairs: &Pairs, origin: &str) -> Step<ChardevSpec> {
    let Some(name) = pairs.get("backend") else {
        return Err(Stop::here(format!("chardev: \"{}\" missing backend", pairs.id.as_deref().unwrap_or("(null)"))));
    };
    let Some(id) = &pairs.id else { return Err(Stop::here("chardev: no id specified")) };
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    let Some(backend) = BACKENDS.iter().find(|b| b.name == name) else {
        if FOREIGN.contains(&name) {
            return Err(Stop::unsupported(format_args!("character back end '{name}'")));
        }
        let text = format!("'{name}' is not a valid char driver name");
        return Err(Stop::here(with_hint(text, name, BACKENDS.iter().map(|b| b.name))));
    };
    let mut spec = ChardevSpec {
        id: id.clone(),
        backend: backend.name.into(),
        mux: pairs.switch("mux")?.unwrap_or(false),
        logfile: pairs.get("logfile").map(Into::into),
        logappend: pairs.switch("logappend")?.unwrap_or(false),
        origin: origin.into(),
        ..ChardevSpec::default()
    };
    if spec.logappend && spec.logfile.is_none() {
        return Err(Stop::here("'logappend' needs 'logfile'"));
    }
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in &pairs.pairs {
        let key = key.as_str();
        if COMMON.contains(&key) || seen.contains(&key) {
            continue;
        }
        if !backend.keys.contains(&key) {
            return Err(not_used(key, backend));
        }
        seen.push(key);
        let value = pairs.get(key).unwrap_or_default();
        let value = match lists::CHARDEV.keys.iter().find(|k| k.name == key).map(|k| k.kind) {
            Some(crate::keyval::Kind::Switch) => match pairs.switch(key)? {
                Some(true) => "on",
                _ => "off",
            },
            _ => value,
        };
        spec.options.push((key.into(), value.into()));
    }
    check(&spec, pairs)?;
    Ok(spec)
}

fn not_used(key: &str, backend: &Backend) -> Stop {
    const UNSUPPORTED: &[&str] = &["tls-creds", "tls-authz", "websocket", "tn3270"];
    if (backend.name == "socket" && UNSUPPORTED.contains(&key)) || (backend.name == "pty" && key == "path") {
        return Stop::unsupported(format_args!("{} option '{key}'", backend.name));
    }
    let text = format!("chardev: {}: '{key}' is not an option of this back end", backend.name);
    Stop::here(with_hint(text, key, backend.keys.iter().copied()))
}

/// What each back end cannot do without.
fn check(spec: &ChardevSpec, pairs: &Pairs) -> Step {
    let has = |key: &str| pairs.get(key).is_some();
    match spec.backend.as_str() {
        "file" if !has("path") => Err(Stop::here("chardev: file: no filename given")),
        "pipe" if !has("path") => Err(Stop::here("chardev: pipe: no device path given")),
        "serial" if !has("path") => Err(Stop::here("chardev: serial/tty: no device path given")),
        "file" | "pipe" | "serial" if pairs.get("path") == Some("") => {
            Err(Stop::here("Could not open '': No such file or directory"))
        }
        "mux" if !has("chardev") => Err(Stop::here("chardev: mux: no chardev given")),
        "udp" if !has("port") => Err(Stop::here("chardev: udp: remote port not specified")),
        "ringbuf" => match pairs.get("size") {
            Some(size) if !parse_size("size", size)?.is_power_of_two() => {
                Err(Stop::here("size of ringbuf chardev must be power of two"))
            }
            _ => Ok(()),
        },
        "socket" => check_socket(pairs),
        _ => Ok(()),
    }
}

fn check_socket(pairs: &Pairs) -> Step {
    let server = pairs.switch("server")?.unwrap_or(false);
    if pairs.get("path").is_some() {
        // A path wins over a host, as in QEMU; but what would be ignored is refused.
        if let Some(key) = ["host", "port", "to", "ipv4", "ipv6"].iter().find(|key| pairs.get(key).is_some()) {
            return Err(Stop::here(format!("chardev: socket: '{key}' cannot be used with 'path'")));
        }
    } else if pairs.get("fd").is_some() {
        if let Some(key) = ["host", "port", "to", "ipv4", "ipv6"].iter().find(|key| pairs.get(key).is_some()) {
            return Err(Stop::here(format!("chardev: socket: '{key}' cannot be used with 'fd'")));
        }
        if pairs.number("fd").is_err() {
            return Err(Stop::here(format!("Unable to parse FD number {}", pairs.get("fd").unwrap_or_default())));
        }
    } else if pairs.get("host").is_none() {
        return Err(Stop::here("Unable to parse FD number "));
    } else if pairs.get("port").is_none() {
        return Err(Stop::here("chardev: socket: no port given"));
    } else if let Some(key) = ["abstract", "tight"].iter().find(|key| pairs.get(key).is_some()) {
        return Err(Stop::here(format!("chardev: socket: '{key}' needs 'path'")));
    }
    if server {
        if let Some(key) = ["reconnect", "reconnect-ms"].iter().find(|key| pairs.get(key).is_some()) {
            return Err(Stop::here(format!("'{key}' option is incompatible with socket in server listen mode")));
        }
    } else if pairs.get("wait").is_some() {
        return Err(Stop::here("'wait' option is incompatible with socket in client connect mode"));
    }
    if pairs.get("delay").is_some() && pairs.get("nodelay").is_some() {
        return Err(Stop::here("'delay' and 'nodelay' are mutually exclusive"));
    }
    if pairs.get("reconnect").is_some() && pairs.get("reconnect-ms").is_some() {
        return Err(Stop::here("'reconnect' and 'reconnect-ms' are mutually exclusive"));
    }
    Ok(())
}

/// A chardev from a legacy address ("tcp::4444,server,nowait"). `Err(None)` is an address that QEMU refuses without
/// saying why.
pub(super) fn legacy(low: &mut Low<'_>, id: &str, address: &str) -> Result<ChardevSpec, Option<Stop>> {
    let (muxed, address) = match address.strip_prefix("mon:") {
        Some(rest) => (true, rest),
        None => (false, address),
    };
    let mut pairs = legacy_pairs(low, address)?;
    if pairs.id.is_some() {
        return Err(Some(Stop::here("Invalid parameter 'id'")));
    }
    if muxed {
        pairs.set("mux", "on");
        if address == "stdio" {
            // The monitor is on the terminal: Ctrl-C is for the guest.
            pairs.set("signal", "off");
        }
    }
    pairs.id = Some(id.into());
    let origin = low.origin.clone();
    spec(&pairs, &origin).map_err(Some)
}

fn keys(list: &[(&str, &str)]) -> Pairs {
    Pairs { pairs: list.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(), ..Pairs::default() }
}

fn legacy_pairs(low: &mut Low<'_>, address: &str) -> Result<Pairs, Option<Stop>> {
    if ["null", "pty", "stdio", "msmouse", "wctablet", "braille", "testdev"].contains(&address) {
        return Ok(keys(&[("backend", address)]));
    }
    if let Some(rest) = address.strip_prefix("vc") {
        return legacy_console(rest);
    }
    for (prefix, backend) in [("file:", "file"), ("pipe:", "pipe"), ("pty:", "pty")] {
        if let Some(path) = address.strip_prefix(prefix) {
            return Ok(keys(&[("backend", backend), ("path", path)]));
        }
    }
    for prefix in ["tcp:", "telnet:", "tn3270:", "websocket:"] {
        if let Some(rest) = address.strip_prefix(prefix) {
            return legacy_socket(low, prefix.trim_end_matches(':'), rest);
        }
    }
    if let Some(rest) = address.strip_prefix("udp:") {
        return legacy_udp(rest).ok_or(None);
    }
    if let Some(rest) = address.strip_prefix("unix:") {
        let mut pairs = low.list_with(&lists::CHARDEV, rest, Some("path"), Flags::Quiet).map_err(Some)?;
        pairs.set("backend", "socket");
        return Ok(pairs);
    }
    if address.starts_with("/dev/parport") || address.starts_with("/dev/ppi") {
        return Ok(keys(&[("backend", "parallel"), ("path", address)]));
    }
    if address.starts_with("/dev/") {
        return Ok(keys(&[("backend", "serial"), ("path", address)]));
    }
    let known = ["null", "pty", "stdio", "vc", "none", "mon:stdio"];
    Err(Some(Stop::misspelt(format!("'{address}' is not a valid char driver"), address, known)))
}

/// What follows `vc`: nothing, `:80Cx24C` or `:800x600`.
fn legacy_console(rest: &str) -> Result<Pairs, Option<Stop>> {
    let Some(size) = rest.strip_prefix(':') else {
        return match rest {
            "" => Ok(keys(&[("backend", "vc")])),
            _ => Err(Some(Stop::here(format!("'vc{rest}' is not a valid char driver")))),
        };
    };
    let (width, height) = size.split_once('x').ok_or(None)?;
    let number = |text: &str| !text.is_empty() && text.len() <= 7 && text.chars().all(|c| c.is_ascii_digit());
    if number(width) && number(height) {
        return Ok(keys(&[("backend", "vc"), ("width", width), ("height", height)]));
    }
    match (width.strip_suffix('C'), height.strip_suffix('C')) {
        (Some(cols), Some(rows)) if number(cols) && number(rows) => {
            Ok(keys(&[("backend", "vc"), ("cols", cols), ("rows", rows)]))
        }
        _ => Err(None),
    }
}

fn legacy_socket(low: &mut Low<'_>, protocol: &str, rest: &str) -> Result<Pairs, Option<Stop>> {
    let end = rest.find(',').unwrap_or(rest.len());
    let (place, options) = rest.split_at(end);
    let (host, port) = place.split_once(':').filter(|(_, port)| !port.is_empty()).ok_or(None)?;
    let mut pairs =
        low.list_with(&lists::CHARDEV, options.strip_prefix(',').unwrap_or(""), None, Flags::Quiet).map_err(Some)?;
    pairs.set("backend", "socket");
    pairs.set("host", host);
    pairs.set("port", port);
    if protocol != "tcp" {
        pairs.set(protocol, "on");
    }
    Ok(pairs)
}

fn legacy_udp(rest: &str) -> Option<Pairs> {
    let (remote, local) = rest.split_once('@').map_or((rest, None), |(remote, local)| (remote, Some(local)));
    let place = |text: &str| {
        let (host, port) = text.split_once(':')?;
        (!port.is_empty() && !port.contains(',')).then(|| (host.to_owned(), port.to_owned()))
    };
    let (host, port) = place(remote)?;
    let mut pairs = keys(&[("backend", "udp"), ("host", &host), ("port", &port)]);
    if let Some(local) = local {
        let (host, port) = place(local)?;
        pairs.set("localaddr", host);
        pairs.set("localport", port);
    }
    Some(pairs)
}

fn port(low: &Low<'_>, address: &str) -> RawPort {
    RawPort { origin: low.origin.clone(), address: address.into() }
}

pub(super) fn read_serial(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.serial = false;
    if text.starts_with("mon:") {
        low.defaults.monitor = false;
    }
    let port = port(low, text);
    low.serials.push(port);
    Ok(())
}

pub(super) fn read_parallel(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.parallel = false;
    if text.starts_with("mon:") {
        low.defaults.monitor = false;
    }
    let port = port(low, text);
    low.parallels.push(port);
    Ok(())
}

pub(super) fn read_debugcon(low: &mut Low<'_>, text: &str) -> Step {
    let port = port(low, text);
    low.debugcons.push(port);
    Ok(())
}

/// The chardev of one port; `complaint` is what QEMU adds to any failure.
fn connect(low: &mut Low<'_>, port: &RawPort, label: &str, complaint: &str) -> Step<String> {
    let complaint = format!("{complaint} '{}'", port.address);
    let (muxed, id) = match port.address.strip_prefix("chardev:") {
        Some(id) => match low.config.chardevs.iter().any(|chardev| chardev.id == id) {
            true => (false, id.to_owned()),
            false => return Err(Stop::at(&port.origin, complaint)),
        },
        None => {
            low.origin.clone_from(&port.origin);
            let made = legacy(low, label, &port.address).and_then(|spec| add(low, spec).map_err(Some));
            low.origin.clear();
            made.map_err(|stop| match stop {
                Some(stop) => stop.and(complaint.clone()).of_option(&port.origin),
                None => Stop::at(&port.origin, complaint),
            })?;
            (port.address.starts_with("mon:"), label.to_owned())
        }
    };
    if muxed {
        let spec =
            MonitorSpec { id: None, chardev: id.clone(), qmp: false, pretty: false, origin: port.origin.clone() };
        low.monitors.insert(0, spec);
    }
    Ok(id)
}

/// Connects all ports.
pub(super) fn connect_ports(low: &mut Low<'_>) -> Step {
    let serials = std::mem::take(&mut low.serials);
    for (i, port) in serials.iter().enumerate() {
        let id = match port.address.as_str() {
            "none" => None,
            _ if i >= MAX_SERIAL_PORTS => return Err(Stop::at(&port.origin, "too many serial ports")),
            _ => {
                Some(connect(low, port, &format!("serial{i}"), "could not connect serial device to character backend")?)
            }
        };
        low.config.serials.push(id);
    }
    let parallels = std::mem::take(&mut low.parallels);
    for port in parallels.iter().filter(|port| port.address != "none") {
        let index = low.config.parallels.len();
        if index == MAX_PARALLEL_PORTS {
            return Err(Stop::at(&port.origin, "too many parallel ports"));
        }
        let id =
            connect(low, port, &format!("parallel{index}"), "could not connect parallel device to character backend")?;
        low.config.parallels.push(Some(id));
    }
    for port in std::mem::take(&mut low.debugcons) {
        if low.config.debugcon.is_some() {
            let lines = Stop::here("attempt to add duplicate property 'debugcon' to object (type 'container')")
                .and(format!("invalid character backend '{}'", port.address));
            return Err(lines.of_option(&port.origin));
        }
        low.config.debugcon = Some(connect(low, &port, "debugcon", "invalid character backend")?);
    }
    Ok(())
}

/// Whether one chardev without a multiplexer serves several.
pub(super) fn check_users(low: &Low<'_>) -> Step {
    let config = &low.config;
    let ports = config.serials.iter().chain(&config.parallels).chain([&config.debugcon]).flatten();
    let monitors = low.monitors.iter().map(|monitor| &monitor.chardev);
    let gdb = config.gdb.iter().map(|gdb| &gdb.chardev);
    let qtest = config.qtest.iter().map(|qtest| &qtest.chardev);
    let devices = config
        .devices
        .iter()
        .flat_map(|device| device.properties.iter().filter(|(key, _)| key == "chardev").map(|(_, id)| id));
    let mut seen: Vec<&String> = Vec::new();
    for id in ports.chain(monitors).chain(devices).chain(gdb).chain(qtest) {
        let muxed = config.chardevs.iter().any(|chardev| chardev.id == *id && chardev.mux);
        if seen.contains(&id) && !muxed {
            return Err(Stop::nowhere(format!("chardev '{id}' is already in use")));
        }
        seen.push(id);
    }
    Ok(())
}
