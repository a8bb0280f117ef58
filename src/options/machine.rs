//! `-machine`, `-accel`, `-cpu`.

use serde_json::{Map, Value};

use super::low::Low;
use super::stop::{Step, Stop};
use crate::accel::TcgSettings;
use crate::keyval::suggest::with_hint;
use crate::keyval::tree;
use crate::keyval::value::{ValueError, parse_bool, parse_tree_size};
use crate::machine::config::{AccelSpec, CpuSpec, MachineSpec};

/// Machines that go by versions: prefix, alias, description.
struct Family {
    prefix: &'static str,
    alias: &'static str,
    description: &'static str,
    default: bool,
}

const FAMILIES: &[Family] = &[
    Family { prefix: "pc-i440fx-", alias: "pc", description: "Standard PC (i440FX + PIIX, 1996)", default: true },
    Family { prefix: "pc-q35-", alias: "q35", description: "Standard PC (Q35 + ICH9, 2009)", default: false },
];

/// The versions of both: QEMU 10.0's, newest first. What changed between them is nothing that shows here.
const PC_VERSIONS: &[(u32, u32)] = &[
    (10, 0),
    (9, 2),
    (9, 1),
    (9, 0),
    (8, 2),
    (8, 1),
    (8, 0),
    (7, 2),
    (7, 1),
    (7, 0),
    (6, 2),
    (6, 1),
    (6, 0),
    (5, 2),
    (5, 1),
    (5, 0),
    (4, 2),
    (4, 1),
    (4, 0),
    (3, 1),
    (3, 0),
    (2, 12),
    (2, 11),
    (2, 10),
    (2, 9),
    (2, 8),
    (2, 7),
    (2, 6),
    (2, 5),
    (2, 4),
];

/// Versions up to this one are deprecated in QEMU 10.0.
const LAST_DEPRECATED: (u32, u32) = (7, 0);

/// QEMU's other machines.
const FOREIGN: &[&str] = &["microvm", "isapc", "x-remote", "xenfv", "xenpv"];

impl Family {
    /// Its versions' names, newest first.
    fn names(&self) -> Vec<(String, (u32, u32))> {
        let mut names: Vec<_> = PC_VERSIONS.iter().map(|&(a, b)| (format!("{}{a}.{b}", self.prefix), (a, b))).collect();
        if self.alias == "q35" {
            // The one version with a patch level.
            let place = names.iter().position(|(_, version)| *version == (4, 0)).unwrap_or(names.len());
            names.insert(place, (format!("{}4.0.1", self.prefix), (4, 0)));
        }
        names
    }

    fn newest(&self) -> String {
        let (major, minor) = newest();
        format!("{}{major}.{minor}", self.prefix)
    }
}

/// Every machine type: its name, another name for it, and whether it is the default.
#[must_use]
pub fn machine_types() -> Vec<(String, Option<String>, bool)> {
    let mut types = Vec::new();
    for family in FAMILIES {
        for (name, _) in family.names() {
            let latest = name == family.newest();
            types.push((name, latest.then(|| family.alias.to_owned()), latest && family.default));
        }
    }
    types.push(("none".to_owned(), None, false));
    types
}

/// A machine, found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// Its version; `None` for the empty machine.
    pub(super) version: Option<(u32, u32)>,
}

impl Found {
    pub(super) fn is_pc(&self) -> bool {
        self.version.is_some()
    }

    /// How many IDE channels `if=ide` has, and how many drives each takes; none: the machine has no such bus.
    pub(super) fn ide_places(&self) -> Option<(u64, u64)> {
        let q35 = self.name.starts_with("pc-q35-");
        self.is_pc().then_some(if q35 { (6, 1) } else { (2, 2) })
    }

    fn deprecated(&self) -> bool {
        self.version.is_some_and(|v| v <= LAST_DEPRECATED)
    }
}

fn newest() -> (u32, u32) {
    PC_VERSIONS.iter().copied().max().unwrap_or((10, 0))
}

fn find(name: &str) -> Step<Found> {
    if name == "none" {
        return Ok(Found { name: name.into(), version: None });
    }
    for family in FAMILIES {
        if name == family.alias {
            return Ok(Found { name: family.newest(), version: Some(newest()) });
        }
        if let Some((name, version)) = family.names().into_iter().find(|(known, _)| known == name) {
            return Ok(Found { name, version: Some(version) });
        }
    }
    if FOREIGN.contains(&name) {
        return Err(Stop::nowhere(format!(
            "machine type '{name}' is not supported by this version\nUse -machine help to list supported machines"
        )));
    }
    let text = format!("unsupported machine type: \"{name}\"\nUse -machine help to list supported machines");
    let names: Vec<String> = FAMILIES.iter().flat_map(|family| family.names()).map(|(name, _)| name).collect();
    let aliases = FAMILIES.iter().map(|family| family.alias);
    Err(Stop::nowhere(with_hint(text, name, names.iter().map(String::as_str).chain(aliases).chain(["none"]))))
}

/// `-machine help`.
fn help() -> String {
    let mut out = String::from("Supported machines are:\n");
    for family in FAMILIES {
        let Family { alias, description, default, .. } = family;
        let (mut names, newest) = (family.names(), family.newest());
        names.retain(|(name, _)| *name != newest);
        names.sort();
        names.reverse();
        for (name, version) in names {
            let note = if version <= LAST_DEPRECATED { " (deprecated)" } else { "" };
            out.push_str(&format!("{name:<20} {description}{note}\n"));
        }
        out.push_str(&format!("{alias:<20} {description} (alias of {newest})\n"));
        out.push_str(&format!("{newest:<20} {description}{}\n", if *default { " (default)" } else { "" }));
    }
    out.push_str(&format!("{:<20} empty machine\n", "none"));
    out
}

pub(super) fn read_machine(low: &mut Low<'_>, text: &str) -> Step {
    let tree = tree::parse(text, Some("type"))?;
    low.machine_help |= tree.help;
    let mut map = Map::new();
    for (key, value) in tree.map {
        map.insert(key.replace('_', "-"), value);
    }
    tree::merge(&mut low.machine, map);
    Ok(())
}

pub(super) fn read_cpu(low: &mut Low<'_>, text: &str) -> Step {
    low.cpu = Some(text.into());
    Ok(())
}

/// Accelerators that QEMU knows.
const ACCELERATORS: &[&str] = &["kvm", "tcg", "xen", "hvf", "nvmm", "whpx", "qtest"];

fn accel_help(low: &Low<'_>) -> Stop {
    let mut out = String::from("Accelerators supported in QEMU binary:\n");
    for name in &low.tables.accelerators {
        out.push_str(name);
        out.push('\n');
    }
    Stop::Print(out, 0)
}

pub(super) fn read_accel(low: &mut Low<'_>, text: &str) -> Step {
    let pairs =
        low.list(&crate::keyval::List { name: "accel", implied: Some("accel"), keys: &[], merge: false }, text)?;
    let name = pairs.get("accel").unwrap_or_default().to_owned();
    if name.is_empty() || crate::keyval::asks_help(&name) {
        return Err(accel_help(low));
    }
    let properties = pairs.pairs.into_iter().filter(|(key, _)| key != "accel").collect();
    low.accels.push((low.origin.clone(), AccelSpec { name, properties }));
    Ok(())
}

pub(super) fn read_enable_kvm(low: &mut Low<'_>, _: &str) -> Step {
    low.accels.push((low.origin.clone(), AccelSpec { name: "kvm".into(), properties: Vec::new() }));
    Ok(())
}

/// How a machine property is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    OnOff,
    OnOffAuto,
    Text,
    Size,
    Word(&'static [&'static str]),
}

/// A machine property and which of its values this version has; none listed: all of them.
struct Property {
    name: &'static str,
    kind: Kind,
    about: &'static str,
    values: &'static [&'static str],
}

const fn property(name: &'static str, kind: Kind, about: &'static str) -> Property {
    Property { name, kind, about, values: &[] }
}

const fn only(name: &'static str, kind: Kind, about: &'static str, values: &'static [&'static str]) -> Property {
    Property { name, kind, about, values }
}

const ON: &[&str] = &["on", "yes", "true", "y"];
const ON_AUTO: &[&str] = &["on", "auto"];
const OFF_AUTO: &[&str] = &["off", "auto"];
const OFF: &[&str] = &["off", "no", "false", "n"];

/// What every machine has.
const COMMON: &[Property] = &[
    only("dump-guest-core", Kind::OnOff, "Include guest memory in a core dump", ON),
    property("graphics", Kind::OnOff, "Set on/off to enable/disable graphics emulation"),
    property("mem-merge", Kind::OnOff, "Enable/disable memory merge support"),
    only("suppress-vmdesc", Kind::OnOff, "Set on to disable self-describing migration", OFF),
    only("usb", Kind::OnOff, "Set on/off to enable/disable usb", OFF),
    property("firmware", Kind::Text, "Firmware image"),
    property("kernel", Kind::Text, "Linux kernel image file"),
    property("initrd", Kind::Text, "Linux initial ramdisk file"),
    property("append", Kind::Text, "Linux kernel command line"),
    property("shim", Kind::Text, "shim.efi file"),
];

/// What the PC adds.
const PC_ONLY: &[Property] = &[
    only("acpi", Kind::OnOffAuto, "Enable ACPI", ON_AUTO),
    only("fd-bootchk", Kind::OnOff, "Check the boot signature of floppies", ON),
    property("hpet", Kind::OnOff, "Enable/disable high precision event timer emulation"),
    only("i8042", Kind::OnOff, "Enable/disable Intel 8042 PS/2 controller emulation", ON),
    only("max-ram-below-4g", Kind::Size, "Maximum ram below the 4G boundary (32bit boundary)", &["0"]),
    property("pflash0", Kind::Text, "Node name or ID of a block device to use as a backend"),
    property("pflash1", Kind::Text, "Node name or ID of a block device to use as a backend"),
    only("pic", Kind::OnOffAuto, "Enable i8259 PIC", ON_AUTO),
    only("pit", Kind::OnOffAuto, "Enable i8254 PIT", ON_AUTO),
    only("sata", Kind::OnOff, "Enable/disable Serial ATA bus", ON),
    only("smbus", Kind::OnOff, "Enable/disable system management bus", ON),
    only("smm", Kind::OnOffAuto, "Enable SMM", OFF_AUTO),
    only(
        "smbios-entry-point-type",
        Kind::Word(&["32", "64", "auto"]),
        "SMBIOS Entry Point type [32, 64]",
        &["32", "auto"],
    ),
    only("vmport", Kind::OnOffAuto, "Enable vmport (pc & q35)", OFF_AUTO),
    property("x-oem-id", Kind::Text, "Override the default value of field OEMID in ACPI table header."),
    property("x-oem-table-id", Kind::Text, "Override the default value of field OEM Table ID in ACPI table header."),
];

/// The room that ACPI table headers have for names (ACPI 6.5, 5.2.6).
const OEM_LENGTHS: &[(&str, usize)] = &[("x-oem-id", 6), ("x-oem-table-id", 8)];

/// QEMU's other machine properties, refused by name.
const REFUSED: &[&str] = &[
    "aux-ram-share",
    "bus-lock-ratelimit",
    "confidential-guest-support",
    "cxl",
    "cxl-fmw",
    "default-bus-bypass-iommu",
    "dt-compatible",
    "dtb",
    "dumpdtb",
    "hmat",
    "igvm-cfg",
    "max-fw-size",
    "memory-backend",
    "memory-encryption",
    "nvdimm",
    "pcspk-audiodev",
    "phandle-start",
    "sgx-epc",
    "smp-cache",
    "vmcoreinfo",
    "memory",
];

fn properties(found: &Found) -> impl Iterator<Item = &'static Property> {
    let pc: &[Property] = if found.is_pc() { PC_ONLY } else { &[] };
    COMMON.iter().chain(pc)
}

/// `-machine NAME,help`.
fn property_help(found: &Found) -> String {
    let mut lines: Vec<String> = properties(found)
        .map(|p| {
            let kind = match p.kind {
                Kind::OnOff => "bool",
                Kind::OnOffAuto => "OnOffAuto",
                Kind::Text => "string",
                Kind::Size => "size",
                Kind::Word(_) => "str",
            };
            format!("  {:<22} - {}\n", format!("{}=<{kind}>", p.name), p.about)
        })
        .collect();
    lines.sort();
    format!("{}-machine options:\n{}", found.name, lines.concat())
}

fn check_name(found: &Found, key: &str) -> Step<&'static Property> {
    let Some(property) = properties(found).find(|p| p.name == key) else {
        if REFUSED.contains(&key) {
            return Err(Stop::nowhere(format!("machine property '{key}' is not supported by this version")));
        }
        let text = format!("Property '{}-machine.{key}' not found", found.name);
        return Err(Stop::nowhere(with_hint(text, key, properties(found).map(|p| p.name))));
    };
    Ok(property)
}

fn check_property(found: &Found, key: &str, value: &str) -> Step {
    let property = check_name(found, key)?;
    let checked: Result<(), ValueError> = match property.kind {
        Kind::OnOff => parse_bool(key, value).map(drop),
        Kind::OnOffAuto => match value {
            "on" | "off" | "auto" => Ok(()),
            _ => Err(ValueError::not_accepted(key, value, ["on", "off", "auto"])),
        },
        Kind::Text => match OEM_LENGTHS.iter().find(|(name, _)| *name == key) {
            Some((_, most)) if value.len() > *most => {
                return Err(Stop::nowhere(format!("User specified {key} value is bigger than {most} bytes in size")));
            }
            _ => Ok(()),
        },
        Kind::Size => parse_tree_size(key, value).map(drop),
        Kind::Word(words) => match words.contains(&value) {
            true => Ok(()),
            false => Err(ValueError::not_accepted(key, value, words.iter().copied())),
        },
    };
    checked.map_err(|e| Stop::from(e).anywhere())?;
    if !property.values.is_empty() && !property.values.contains(&value) {
        return Err(Stop::nowhere(format!("machine property '{key}={value}' is not supported by this version")));
    }
    Ok(())
}

/// Finds the machine; `-machine help` ends here.
pub(super) fn select(low: &mut Low<'_>) -> Step<Found> {
    let kind = low.machine.get("type").and_then(Value::as_str).unwrap_or("").to_owned();
    let known = if low.machine.contains_key("type") { find(&kind) } else { find("pc") };
    if low.machine_help {
        return Err(Stop::Print(
            match known {
                Ok(found) if !kind.is_empty() => property_help(&found),
                _ => help(),
            },
            0,
        ));
    }
    if crate::keyval::asks_help(&kind) {
        return Err(Stop::Print(help(), 0));
    }
    let found = known?;
    if found.deprecated() {
        let text = format!(
            "Machine type '{}' is deprecated: machines more than 3 years old are subject to deletion after 6 years",
            found.name
        );
        low.warn("", &text);
    }
    Ok(found)
}

/// The machine's properties, checked; those that are other options in disguise go there.
pub(super) fn resolve(low: &mut Low<'_>, found: &Found) -> Step<MachineSpec> {
    let mut spec = MachineSpec { kind: found.name.clone(), properties: Vec::new() };
    for (key, value) in std::mem::take(&mut low.machine) {
        let Value::String(text) = value else {
            match (key.as_str(), value) {
                ("smp", Value::Object(map)) => tree::merge(&mut low.smp, map),
                ("boot", Value::Object(map)) => tree::merge(&mut low.boot, map),
                (key, _) => {
                    check_name(found, key)?;
                    return Err(Stop::nowhere(format!("Parameters '{key}.*' are unexpected")));
                }
            }
            continue;
        };
        match key.as_str() {
            "type" => {}
            "smp" | "boot" => {
                return Err(Stop::nowhere(format!("Invalid parameter type for '{key}', expected: object")));
            }
            "accel" if text.is_empty() => return Err(Stop::nowhere("no accelerator found")),
            "accel" => machine_accels(low, &text)?,
            "kernel-irqchip" | "kvm-shadow-mem" => {
                let spec = kvm_property(&key, &text)?;
                for (_, accel) in low.accels.iter_mut().filter(|(_, accel)| accel.name == "kvm") {
                    accel.properties.push(spec.clone());
                }
            }
            _ => {
                check_property(found, &key, &text)?;
                match key.as_str() {
                    "firmware" => low.config.bios = Some(text),
                    "kernel" => low.kernel = Some(text),
                    "initrd" => low.initrd = Some(text),
                    "append" => low.append = Some(text),
                    "shim" => low.shim = Some(text),
                    _ => spec.properties.push((key, text)),
                }
            }
        }
    }
    Ok(spec)
}

fn machine_accels(low: &mut Low<'_>, list: &str) -> Step {
    if !low.accels.is_empty() {
        return Err(Stop::nowhere("The -accel and \"-machine accel=\" options are incompatible"));
    }
    if crate::keyval::asks_help(list) {
        return Err(accel_help(low));
    }
    let mut invalid = Vec::new();
    for name in list.split(':') {
        match ACCELERATORS.contains(&name) {
            true => low.accels.push((String::new(), AccelSpec { name: name.into(), properties: Vec::new() })),
            false => invalid.push(name),
        }
    }
    match (invalid.first(), low.accels.is_empty()) {
        (Some(name), true) => {
            let text = format!("invalid accelerator {name}");
            Err(Stop::nowhere(with_hint(text, name, ACCELERATORS.iter().copied())))
        }
        (Some(name), false) => {
            let text = format!("invalid accelerator {name}");
            low.warn("", &text);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks a property of the KVM accelerator.
fn kvm_property(key: &str, value: &str) -> Step<(String, String)> {
    let pair = (key.to_owned(), value.to_owned());
    match (key, value) {
        ("kernel-irqchip", "on" | "off" | "split") | ("dirty-ring-size", "0") => Ok(pair),
        ("kernel-irqchip", _) => Err(ValueError::not_accepted(key, value, ["on", "off", "split"]).into()),
        (
            "kvm-shadow-mem"
            | "device"
            | "dirty-ring-size"
            | "eager-split-size"
            | "notify-vmexit"
            | "notify-window"
            | "igd-passthru"
            | "xen-version"
            | "xen-gnttab-max-frames"
            | "xen-evtchn-max-pirq",
            _,
        ) => Err(Stop::unsupported(format_args!("property '{key}' of kvm"))),
        _ => {
            let text = format!("Property 'kvm-accel.{key}' not found");
            Err(Stop::misspelt(text, key, ["kernel-irqchip", "dirty-ring-size"]))
        }
    }
}

/// The accelerators to try.
pub(super) fn accelerators(low: &mut Low<'_>) -> Step<Vec<AccelSpec>> {
    // As in QEMU, qtest is not among those that the help lists.
    let here = |name: &String| name == "qtest" || low.tables.accelerators.contains(name);
    let any = low.accels.iter().any(|(_, accel)| here(&accel.name));
    for (origin, accel) in &low.accels {
        let name = accel.name.as_str();
        let at = |stop: Stop| stop.of_option(origin);
        if !ACCELERATORS.contains(&name) && !here(&accel.name) {
            let text = format!("invalid accelerator {name}");
            return Err(at(Stop::misspelt(text, name, ACCELERATORS.iter().copied())));
        }
        if name == "tcg" {
            TcgSettings::parse(&accel.properties, low.config.icount).map_err(|text| at(Stop::here(text)))?;
        }
        if !here(&accel.name) && !any {
            return Err(at(Stop::unsupported(format_args!("accelerator '{name}'"))));
        }
        for (key, value) in &accel.properties {
            match name {
                "kvm" => drop(kvm_property(key, value).map_err(at)?),
                "tcg" => {}
                _ => return Err(at(Stop::here(format!("Property '{name}-accel.{key}' not found")))),
            }
        }
    }
    Ok(low.accels.iter().map(|(_, accel)| accel.clone()).collect())
}

/// The CPU model and its properties; `cpu::resolve` knows which of them a model takes.
pub(super) fn cpu(low: &Low<'_>) -> Step<CpuSpec> {
    let Some(text) = &low.cpu else { return Ok(CpuSpec::default()) };
    let mut parts = text.split(',');
    let model = parts.next().unwrap_or_default();
    if crate::keyval::asks_help(model) {
        return Err(Stop::Print(crate::cpu::help(), 0));
    }
    if text.is_empty() {
        return Err(Stop::nowhere("-cpu option cannot be empty"));
    }
    let known = |name: &str| low.tables.cpu_models.iter().any(|m| m.name == name);
    if !known(model) {
        let text = format!("unable to find CPU model '{model}'");
        return Err(Stop::nowhere(with_hint(text, model, low.tables.cpu_models.iter().map(|m| m.name.as_str()))));
    }
    let mut spec = CpuSpec { model: Some(model.into()), properties: Vec::new() };
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
            (Some(feature), _) => (feature, "on"),
            (_, Some(feature)) => (feature, "off"),
            _ => part.split_once('=').unwrap_or((part, "on")),
        };
        spec.properties.push((key.into(), value.into()));
    }
    Ok(spec)
}
