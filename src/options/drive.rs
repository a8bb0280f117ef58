//! `-drive`, `-hda` … `-hdd`, `-cdrom`, `-pflash`: where a drive sits, what its medium is, and the cache of it.

use serde_json::{Map, Value};

use super::blockdev::{self, Dialect};
use super::lists;
use super::low::{Low, RawDrive};
use super::stop::{Step, Stop};
use crate::block::driver::DRIVERS;
use crate::block::keys::AIO;
use crate::keyval::suggest::with_hint;
use crate::keyval::{Pairs, asks_help, nearest};
use crate::machine::config::{DriveInterface, DriveSpec, NodeSpec};

/// IDE channels of the PC, and drives a channel.
/// Channels of a machine's IDE bus, and drives on each; `None` without such a bus.
type IdePlaces = Option<(u64, u64)>;

/// Flash chips of the PC.
const FLASH_UNITS: u64 = 2;

fn place(low: &mut Low<'_>, file: &str, index: u32, media: &str) -> Step {
    let mut pairs = Pairs::default();
    pairs.set("media", media);
    pairs.set("index", index.to_string());
    if !file.is_empty() {
        pairs.set("file", file);
    }
    low.drives.push(RawDrive { origin: low.origin.clone(), interface: Some(DriveInterface::Ide), pairs });
    Ok(())
}

pub(super) fn read_hda(low: &mut Low<'_>, file: &str) -> Step {
    place(low, file, 0, "disk")
}

pub(super) fn read_hdb(low: &mut Low<'_>, file: &str) -> Step {
    place(low, file, 1, "disk")
}

pub(super) fn read_hdc(low: &mut Low<'_>, file: &str) -> Step {
    place(low, file, 2, "disk")
}

pub(super) fn read_hdd(low: &mut Low<'_>, file: &str) -> Step {
    place(low, file, 3, "disk")
}

pub(super) fn read_cdrom(low: &mut Low<'_>, file: &str) -> Step {
    place(low, file, 2, "cdrom")
}

pub(super) fn read_pflash(low: &mut Low<'_>, file: &str) -> Step {
    let mut pairs = Pairs::default();
    pairs.set("file", file);
    low.drives.push(RawDrive { origin: low.origin.clone(), interface: Some(DriveInterface::Pflash), pairs });
    Ok(())
}

pub(super) fn read_snapshot(low: &mut Low<'_>, _: &str) -> Step {
    low.snapshot = true;
    Ok(())
}

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::DRIVE, text)?;
    if let Some(id) = &pairs.id
        && low.drives.iter().any(|other| other.pairs.id.as_ref() == Some(id))
    {
        return Err(Stop::here(format!("Duplicate ID '{id}' for drive")));
    }
    low.drives.push(RawDrive { origin: low.origin.clone(), interface: None, pairs });
    Ok(())
}

/// The keys that are `-drive`'s own, for suggestions; the block drivers have theirs.
pub(super) const KEYS: &[&str] = &[
    "file",
    "if",
    "bus",
    "unit",
    "index",
    "media",
    "format",
    "snapshot",
    "cache",
    "aio",
    "readonly",
    "read-only",
    "rerror",
    "werror",
    "discard",
    "detect-zeroes",
    "id",
    "copy-on-read",
];

/// Older names of keys.
const RENAMED: &[(&str, &str)] = &[
    ("iops", "throttling.iops-total"),
    ("iops_rd", "throttling.iops-read"),
    ("iops_wr", "throttling.iops-write"),
    ("bps", "throttling.bps-total"),
    ("bps_rd", "throttling.bps-read"),
    ("bps_wr", "throttling.bps-write"),
    ("iops_max", "throttling.iops-total-max"),
    ("iops_rd_max", "throttling.iops-read-max"),
    ("iops_wr_max", "throttling.iops-write-max"),
    ("bps_max", "throttling.bps-total-max"),
    ("bps_rd_max", "throttling.bps-read-max"),
    ("bps_wr_max", "throttling.bps-write-max"),
    ("iops_size", "throttling.iops-size"),
    ("group", "throttling.group"),
    ("readonly", "read-only"),
];

fn rename(pairs: &mut Pairs) -> Step {
    for (old, new) in RENAMED {
        let Some(value) = pairs.take(old) else { continue };
        if pairs.get(new).is_some() {
            return Err(Stop::here(format!("'{new}' and its alias '{old}' can't be used at the same time")));
        }
        pairs.set(new, value);
    }
    Ok(())
}

/// What a drive's cache does.
#[derive(Clone, Copy, Default)]
struct Cache {
    writeback: Option<bool>,
    direct: Option<bool>,
    no_flush: Option<bool>,
}

fn cache(pairs: &mut Pairs) -> Step<Cache> {
    let mut cache = Cache::default();
    if let Some(mode) = pairs.take("cache") {
        let (writeback, direct, no_flush) = match mode.as_str() {
            "none" | "off" => (true, true, false),
            "writeback" => (true, false, false),
            "writethrough" => (false, false, false),
            "directsync" => (false, true, false),
            "unsafe" => (true, false, true),
            _ => {
                let known = ["none", "writeback", "writethrough", "directsync", "unsafe"];
                return Err(Stop::misspelt("invalid cache option".into(), &mode, known));
            }
        };
        cache = Cache { writeback: Some(writeback), direct: Some(direct), no_flush: Some(no_flush) };
    }
    for (key, slot) in [
        ("cache.writeback", &mut cache.writeback),
        ("cache.direct", &mut cache.direct),
        ("cache.no-flush", &mut cache.no_flush),
    ] {
        if let Some(on) = pairs.switch(key)? {
            *slot = Some(on);
        }
        pairs.take(key);
    }
    Ok(cache)
}

fn interface(raw: &RawDrive, pairs: &mut Pairs) -> Step<DriveInterface> {
    let Some(name) = pairs.take("if") else {
        return Ok(raw.interface.unwrap_or_default());
    };
    match name.as_str() {
        "ide" => Ok(DriveInterface::Ide),
        "none" => Ok(DriveInterface::None),
        "pflash" => Ok(DriveInterface::Pflash),
        "scsi" | "sd" | "mtd" => {
            let number = |key: &str| pairs.number(key).ok().flatten().unwrap_or(0);
            let (bus, unit) = (number("bus"), number("unit"));
            Err(Stop::here(format!("machine type does not support if={name},bus={bus},unit={unit}")))
        }
        "virtio" => Ok(DriveInterface::Virtio),
        "floppy" | "xen" => Err(Stop::unsupported(format_args!("if={name}"))),
        _ => Err(Stop::misspelt(format!("unsupported bus type '{name}'"), &name, ["ide", "none", "pflash", "virtio"])),
    }
}

/// Where a drive sits.
#[derive(Clone, Copy)]
struct Seat {
    bus: u32,
    unit: u32,
}

fn taken(drives: &[DriveSpec], interface: DriveInterface, bus: u64, unit: u64) -> bool {
    drives.iter().any(|d| d.interface == interface && u64::from(d.bus) == bus && u64::from(d.unit) == unit)
}

fn seat(drives: &[DriveSpec], interface: DriveInterface, pairs: &mut Pairs, ide: IdePlaces) -> Step<Seat> {
    // -1 is QEMU's own word for "not given".
    let given = |key: &str| Ok::<_, Stop>(pairs.number(key)?.filter(|&n| n != u64::MAX));
    let (index, given_bus, given_unit) = (given("index")?, pairs.number("bus")?, given("unit")?);
    for key in ["index", "bus", "unit"] {
        pairs.take(key);
    }
    let units = match interface {
        DriveInterface::Ide => ide.map_or(2, |(_, units)| units),
        _ => 0,
    };
    let mut bus = given_bus.unwrap_or(0);
    let mut unit = given_unit;
    if let Some(index) = index {
        if given_bus.unwrap_or(0) != 0 || given_unit.is_some() {
            return Err(Stop::here("index cannot be used with bus and unit"));
        }
        (bus, unit) = match units {
            0 => (0, Some(index)),
            units => (index / units, Some(index % units)),
        };
    }
    let unit = unit.unwrap_or_else(|| {
        let mut unit = 0;
        while taken(drives, interface, bus, unit) {
            unit += 1;
            if units > 0 && unit >= units {
                (unit, bus) = (0, bus + 1);
            }
        }
        unit
    });
    if units > 0 && unit >= units {
        return Err(Stop::here(format!("unit {unit} too big (max is {})", units - 1)));
    }
    if taken(drives, interface, bus, unit) {
        let index = index.map_or(-1, i128::from);
        return Err(Stop::here(format!("drive with bus={bus}, unit={unit} (index={index}) exists")));
    }
    if interface == DriveInterface::Ide && ide.is_none_or(|(channels, _)| bus >= channels) {
        let bus = bus.cast_signed();
        return Err(Stop::here(format!("machine type does not support if=ide,bus={bus},unit={unit}")));
    }
    if interface == DriveInterface::Pflash && (bus > 0 || unit >= FLASH_UNITS || ide.is_none()) {
        return Err(Stop::here(format!("machine type does not support if=pflash,bus={bus},unit={unit}")));
    }
    let narrow = |n: u64| u32::try_from(n).map_err(|_| Stop::here(format!("unit {n} too big")));
    Ok(Seat { bus: narrow(bus)?, unit: narrow(unit)? })
}

/// Throttling is checked as QEMU does, then refused.
fn throttling(pairs: &Pairs) -> Step {
    let known: Vec<&str> = RENAMED.iter().map(|(_, new)| *new).filter(|new| new.starts_with("throttling.")).collect();
    let bursts = ["iops-total", "iops-read", "iops-write", "bps-total", "bps-read", "bps-write"];
    for (key, _) in pairs.pairs.iter().filter(|(key, _)| key.starts_with("throttling.")) {
        let length = bursts.iter().any(|b| *key == format!("throttling.{b}-max-length"));
        if !known.contains(&key.as_str()) && !length {
            continue; // The driver does not know it either and says so.
        }
        if key != "throttling.group" {
            pairs.number(key)?;
        }
        return Err(Stop::unsupported(format_args!("throttling ({key})")));
    }
    Ok(())
}

fn error_action(pairs: &mut Pairs, key: &str, read: bool) -> Step<Option<String>> {
    let Some(action) = pairs.take(key) else { return Ok(None) };
    let words: &[&str] = match read {
        true => &["ignore", "report", "stop"],
        false => &["ignore", "report", "stop", "enospc"],
    };
    match words.contains(&action.as_str()) {
        true => Ok(Some(action)),
        false => {
            let kind = if read { "read" } else { "write" };
            let text = format!("'{action}' invalid {kind} error action");
            Err(Stop::here(with_hint(text, &action, words.iter().copied())))
        }
    }
}

/// The words of the keys that `-drive` spells its own way.
fn check_words(pairs: &mut Pairs) -> Step {
    match pairs.get("discard") {
        None | Some("ignore" | "unmap") => {}
        Some("off") => pairs.set("discard", "ignore"),
        Some("on") => pairs.set("discard", "unmap"),
        Some(other) => {
            return Err(Stop::misspelt("Invalid discard option".into(), other, ["ignore", "unmap"]));
        }
    }
    if let Some(other) = pairs.get("detect-zeroes").filter(|v| !["off", "on", "unmap"].contains(v)) {
        return Err(Stop::here(format!("invalid parameter value: {other}")));
    }
    if pairs.get("aio").is_some_and(|v| !AIO.contains(&v)) {
        return Err(Stop::here("invalid aio option"));
    }
    Ok(())
}

/// All drives, in the order given, and the machine's own CD-ROM drive.
pub(super) fn resolve(low: &mut Low<'_>, ide: IdePlaces) -> Step {
    for raw in std::mem::take(&mut low.drives) {
        low.origin.clone_from(&raw.origin);
        let spec = spec(low, &raw, ide).map_err(|stop| stop.of_option(&raw.origin))?;
        if low.config.drives.iter().any(|other| other.id == spec.id) {
            return Err(Stop::at(&raw.origin, format!("Duplicate ID '{}' for drive", spec.id)));
        }
        low.config.drives.push(spec);
    }
    low.origin.clear();
    let wanted = ide.is_some() && low.config.defaults && low.defaults.cdrom;
    // Index 2: the second channel's first drive, or the third channel's only one.
    let bus = if ide.is_some_and(|(_, units)| units == 1) { 2 } else { 1 };
    if wanted && !taken(&low.config.drives, DriveInterface::Ide, bus.into(), 0) {
        low.config.drives.push(DriveSpec {
            id: format!("ide{bus}-cd0"),
            cdrom: true,
            read_only: true,
            bus,
            ..DriveSpec::default()
        });
    }
    for drive in low.config.drives.iter().filter(|d| d.interface == DriveInterface::Ide && !d.cdrom) {
        if drive.node.is_none() {
            return Err(Stop::nowhere("Device needs media, but drive is empty"));
        }
        if drive.read_only {
            return Err(Stop::nowhere("Block node is read-only"));
        }
    }
    Ok(())
}

fn spec(low: &mut Low<'_>, raw: &RawDrive, ide: IdePlaces) -> Step<DriveSpec> {
    let mut pairs = raw.pairs.clone();
    rename(&mut pairs)?;
    let cache = cache(&mut pairs)?;
    for key in ["index", "bus", "unit"] {
        pairs.number(key)?;
    }
    let cdrom = match pairs.take("media").as_deref() {
        None | Some("disk") => false,
        Some("cdrom") => true,
        Some(other) => {
            return Err(Stop::misspelt(format!("'{other}' invalid media"), other, ["disk", "cdrom"]));
        }
    };
    let mut read_only = pairs.switch("read-only")?.unwrap_or(cdrom);
    pairs.take("read-only");
    // A CD-ROM's medium is never written, whatever was said.
    read_only |= cdrom;
    if pairs.switch("copy-on-read")? == Some(true) {
        return Err(Stop::unsupported("copy-on-read=on"));
    }
    pairs.take("copy-on-read");
    let interface = interface(raw, &mut pairs)?;
    let seat = seat(&low.config.drives, interface, &mut pairs, ide)?;
    let snapshot = pairs.switch("snapshot")?.unwrap_or(low.snapshot);
    pairs.take("snapshot");
    let write_error = error_action(&mut pairs, "werror", false)?;
    let read_error = error_action(&mut pairs, "rerror", true)?;
    if interface == DriveInterface::Pflash {
        for (key, given) in [("werror", &write_error), ("rerror", &read_error)] {
            if given.is_some() {
                return Err(Stop::here(format!("{key} is not supported by this bus type")));
            }
        }
    }
    check_words(&mut pairs)?;
    throttling(&pairs)?;
    let node = node(pairs, cache, &raw.origin)?;
    let medium = if cdrom { "cd" } else { "hd" };
    let id = raw.pairs.id.clone().unwrap_or_else(|| match interface {
        DriveInterface::Ide => format!("ide{}-{medium}{}", seat.bus, seat.unit),
        DriveInterface::Pflash => format!("pflash{}", seat.unit),
        DriveInterface::Virtio => format!("virtio{}", seat.unit),
        _ => format!("none{}", seat.unit),
    });
    Ok(DriveSpec {
        id,
        node,
        cdrom,
        read_only,
        snapshot,
        read_error,
        write_error,
        interface,
        bus: seat.bus,
        unit: seat.unit,
        origin: raw.origin.clone(),
    })
}

/// `-drive format=help`.
fn format_help() -> Stop {
    let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name()).collect();
    let all = names.join(" ");
    Stop::Print(format!("Supported formats: {all}\nSupported formats (read-only): {all}\n"), 0)
}

/// The medium: a file name, or a driver and its keys.
fn node(mut pairs: Pairs, cache: Cache, origin: &str) -> Step<Option<NodeSpec>> {
    let format = pairs.take("format");
    if format.as_deref().is_some_and(asks_help) {
        return Err(format_help());
    }
    let file = pairs.take("file").filter(|file| !file.is_empty());
    let mut map = Map::new();
    if let Some(json) = file.as_deref().and_then(|file| file.strip_prefix("json:")) {
        let value =
            crate::json::parse(json).map_err(|e| Stop::here(format!("Could not parse the JSON options: {e}")))?;
        let Value::Object(object) = value else {
            return Err(Stop::here("Invalid JSON object given"));
        };
        if !object.contains_key("driver") && !object.contains_key("file") {
            return Err(Stop::here("Must specify either driver or file"));
        }
        map = object;
    }
    let filename = file.filter(|file| !file.starts_with("json:"));
    let aio = pairs.take("aio");
    for (key, value) in &pairs.pairs {
        put(&mut map, key, value)?;
    }
    if let Some(format) = format {
        if map.contains_key("driver") {
            return Err(Stop::here("Cannot specify both 'driver' and 'format'"));
        }
        map.insert("driver".into(), Value::String(format));
    }
    let driver = map.get("driver").and_then(Value::as_str).map(str::to_owned);
    if filename.is_none() && map.is_empty() {
        return empty(cache, aio.is_some());
    }
    let has_file = filename.is_some() || map.contains_key("file") || map.contains_key("filename");
    if let Some(driver) = &driver {
        blockdev::driver_by_name(driver, Dialect::Drive)?;
    }
    if !has_file {
        let near = map.keys().find_map(|key| nearest(key, KEYS.iter().copied()));
        return Err(match driver {
            None if near.is_some() => {
                let text = "Must specify either driver or file";
                Stop::here(format!("{text}\nDid you mean '{}'?", near.unwrap_or_default()))
            }
            Some(_) => Stop::here("A block device must be specified for \"file\""),
            None => Stop::here("Must specify either driver or file"),
        });
    }
    if filename.is_some() && map.get("file").is_some_and(|f| f.get("filename").is_some()) {
        return Err(Stop::here("Can't specify 'file' and 'filename' options at the same time"));
    }
    if let Some(aio) = aio {
        let direct = cache.direct.unwrap_or(false);
        if aio == "native" && !direct {
            return Err(Stop::here(
                "aio=native was specified, but it requires cache.direct=on, which was not specified.",
            ));
        }
        put(&mut map, "file.aio", &aio)?;
    }
    for (key, value) in [("writeback", cache.writeback), ("direct", cache.direct), ("no-flush", cache.no_flush)] {
        if let Some(on) = value {
            put(&mut map, &format!("cache.{key}"), if on { "on" } else { "off" })?;
        }
    }
    filename.as_deref().map_or(Ok(()), blockdev::check_protocol)?;
    let mut options = blockdev::typed(map, None, Dialect::Drive, "")?;
    if let Some(name) = options.get("node-name").and_then(Value::as_str)
        && !blockdev::is_node_name(name)
    {
        return Err(Stop::here(format!("Invalid node-name: '{name}'")));
    }
    options.remove("driver");
    Ok(Some(NodeSpec { driver, filename, options, origin: origin.into() }))
}

/// A drive without a medium; what would be said about the medium has nothing to act on.
fn empty(cache: Cache, aio: bool) -> Step<Option<NodeSpec>> {
    match cache.direct.is_some() || cache.no_flush.is_some() || aio {
        // QEMU takes these for a medium that is inserted later; here `change` opens it with its own defaults.
        true => Err(Stop::unsupported("cache or aio of an empty drive")),
        false => Ok(None),
    }
}

/// Puts a dotted key into an object.
fn put(map: &mut Map<String, Value>, key: &str, value: &str) -> Step {
    let inconsistent = || Stop::here(format!("Parameters '{key}' used inconsistently"));
    match key.split_once('.') {
        None if map.get(key).is_some_and(Value::is_object) => Err(inconsistent()),
        None => {
            map.insert(key.into(), Value::String(value.into()));
            Ok(())
        }
        Some((first, rest)) => match map.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => put_limited(inner, rest, value, 8),
            _ => Err(inconsistent()),
        },
    }
}

fn put_limited(map: &mut Map<String, Value>, key: &str, value: &str, depth: u32) -> Step {
    if depth == 0 {
        return Err(Stop::here(format!("Invalid parameter '{key}'")));
    }
    match key.split_once('.') {
        None => put(map, key, value),
        Some((first, rest)) => match map.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => put_limited(inner, rest, value, depth - 1),
            _ => Err(Stop::here(format!("Parameters '{key}' used inconsistently"))),
        },
    }
}
