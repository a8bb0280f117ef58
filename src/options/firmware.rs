//! What the firmware is and what it is told: `-bios`, `-L`, `-fw_cfg`, `-smbios`, `-acpitable`, `-uuid`.

use std::path::PathBuf;

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::keyval::value::{ValueError, parse_bool, parse_number};
use crate::keyval::{List, Pairs, asks_help};
use crate::machine::config::{FwCfgSource, FwCfgSpec};

/// Longest name of a firmware configuration item.
const MAX_ITEM_NAME: usize = 55;

pub(super) fn read_bios(low: &mut Low<'_>, text: &str) -> Step {
    low.config.bios = Some(text.into());
    Ok(())
}

pub(super) fn read_folder(low: &mut Low<'_>, text: &str) -> Step {
    if asks_help(text) {
        let given = low.config.data_dirs.iter().map(|dir| dir.display().to_string());
        let lines: Vec<String> = given.chain(low.tables.rom_dirs.iter().cloned()).map(|dir| dir + "\n").collect();
        return Err(Stop::Print(lines.concat(), 0));
    }
    low.config.data_dirs.push(PathBuf::from(text));
    Ok(())
}

/// A UUID in its usual form only; QEMU takes no other.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23].iter().all(|&at| text.as_bytes().get(at) == Some(&b'-'));
    match text.len() == 36 && dashes {
        true => uuid::Uuid::parse_str(text).ok().map(uuid::Uuid::into_bytes),
        false => None,
    }
}

pub(super) fn read_uuid(low: &mut Low<'_>, text: &str) -> Step {
    let uuid = parse_uuid(text).ok_or_else(|| Stop::here("failed to parse UUID string: wrong format"))?;
    low.config.uuid = Some(uuid);
    Ok(())
}

pub(super) fn read_fw_cfg(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::FW_CFG, text)?;
    let sources =
        ["file", "string", "gen_id"].iter().filter(|key| pairs.get(key).is_some_and(|v| !v.is_empty())).count();
    let name = pairs.get("name").unwrap_or_default();
    if name.is_empty() || sources != 1 {
        return Err(Stop::here("name, plus exactly one of file, string and gen_id, are needed"));
    }
    if name.len() > MAX_ITEM_NAME {
        return Err(Stop::here(format!("name too long (max. {MAX_ITEM_NAME} char)")));
    }
    let source = match (pairs.get("string"), pairs.get("file")) {
        (Some(text), _) if !text.is_empty() => FwCfgSource::Text(text.into()),
        (_, Some(path)) if !path.is_empty() => FwCfgSource::File(PathBuf::from(path)),
        _ => return Err(Stop::unsupported("gen_id=")),
    };
    if !name.starts_with("opt/") {
        low.warn_here("externally provided fw_cfg item names should be prefixed with \"opt/\"");
    }
    low.config.fw_cfg.push(FwCfgSpec { name: name.into(), source });
    Ok(())
}

/// The fields of one SMBIOS type (DMTF DSP0134, clause 7).
struct Structure {
    kind: u64,
    fields: &'static [&'static str],
    numbers: &'static [&'static str],
}

const STRUCTURES: &[Structure] = &[
    Structure { kind: 0, fields: &["vendor", "version", "date", "release", "uefi", "vm"], numbers: &[] },
    Structure {
        kind: 1,
        fields: &["manufacturer", "product", "version", "serial", "uuid", "sku", "family"],
        numbers: &[],
    },
    Structure { kind: 2, fields: &["manufacturer", "product", "version", "serial", "asset", "location"], numbers: &[] },
    Structure { kind: 3, fields: &["manufacturer", "version", "serial", "asset", "sku"], numbers: &[] },
    Structure {
        kind: 4,
        fields: &["sock_pfx", "manufacturer", "version", "serial", "asset", "part"],
        numbers: &["max-speed", "current-speed", "processor-family", "processor-id"],
    },
    Structure {
        kind: 8,
        fields: &["external_reference", "internal_reference"],
        numbers: &["connector_type", "port_type"],
    },
    Structure { kind: 11, fields: &["value", "path"], numbers: &[] },
    Structure {
        kind: 17,
        fields: &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part"],
        numbers: &["speed"],
    },
];

/// Types that QEMU builds and this version does not: slots and on-board devices.
const FOREIGN_STRUCTURES: [u64; 2] = [9, 41];

/// The largest type number.
const MAX_STRUCTURE: u64 = 127;

pub(super) fn read_smbios(low: &mut Low<'_>, text: &str) -> Step {
    let any = List { name: "smbios", implied: None, keys: &[], merge: false };
    let pairs = low.list(&any, text)?;
    if pairs.get("file").is_some() {
        if let Some((key, _)) = pairs.pairs.iter().find(|(key, _)| key != "file") {
            return Err(ValueError::unknown(key, ["file"]).into());
        }
    } else {
        check_structure(&pairs)?;
    }
    low.config.smbios.push(pairs.pairs);
    Ok(())
}

fn check_structure(pairs: &Pairs) -> Step {
    let Some(kind) = pairs.number("type")? else {
        return Err(Stop::here("Must specify type= or file="));
    };
    if kind > MAX_STRUCTURE {
        return Err(Stop::here("out of range!"));
    }
    if FOREIGN_STRUCTURES.contains(&kind) {
        return Err(Stop::unsupported(format_args!("SMBIOS type {kind}")));
    }
    let Some(structure) = STRUCTURES.iter().find(|s| s.kind == kind) else {
        return Err(Stop::here(format!("Don't know how to build fields for SMBIOS type {kind}")));
    };
    for (key, value) in &pairs.pairs {
        let key = key.as_str();
        if key == "type" {
            continue;
        }
        if structure.numbers.contains(&key) {
            parse_number(key, value)?;
            continue;
        }
        if !structure.fields.contains(&key) {
            return Err(ValueError::unknown(key, structure.fields.iter().chain(structure.numbers).copied()).into());
        }
        match (kind, key) {
            (0, "uefi" | "vm") => drop(parse_bool(key, value)?),
            (0, "release") if !is_release(value) => return Err(Stop::here("Invalid release")),
            (1, "uuid") if parse_uuid(value).is_none() => return Err(Stop::here("Invalid UUID")),
            _ => {}
        }
    }
    Ok(())
}

/// `MAJOR.MINOR`, each a byte.
fn is_release(text: &str) -> bool {
    text.split_once('.').is_some_and(|(major, minor)| major.parse::<u8>().is_ok() && minor.parse::<u8>().is_ok())
}

pub(super) fn read_acpi(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::ACPI, text)?;
    for key in ["rev", "oem_rev", "asl_compiler_rev"] {
        if let Some(value) = pairs.get(key)
            && parse_number(key, value).is_err()
        {
            return Err(ValueError::Expects { name: key.into(), expected: "a uint64 value" }.into());
        }
    }
    if pairs.get("data").is_some() == pairs.get("file").is_some() {
        return Err(Stop::here("'-acpitable' requires one of 'data' or 'file'"));
    }
    if pairs.get("data").or(pairs.get("file")) == Some("") {
        return Err(Stop::here("'-acpitable' requires at least one pathname"));
    }
    low.config.acpi_tables.push(pairs.pairs);
    Ok(())
}
