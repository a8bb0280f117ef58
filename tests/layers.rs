//! The dependency rules of `src/ARCHITECTURE.md`: who may import whom, who may use `unsafe`, who may call libc.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer; a module imports from lower layers only.
const LAYERS: &[&[&str]] = &[
    &["bits", "json", "keyval", "host"],
    &["event", "trace", "object"],
    &["mem"],
    &["bus"],
    &["block", "chardev", "cpu", "net", "ui"],
    &["hw", "accel", "img"],
    &["machine"],
    &["monitor", "options"],
    &["gdb"],
    &["process"],
];

/// Where `unsafe` may be written.
const UNSAFE: &[&str] = &["host/", "mem/ram.rs", "accel/kvm", "accel/soft", "hw/firmware/rom.rs"];

/// Known offences, as "file: module". This list may only shrink.
const DEBTS: &[&str] = &[];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Every (relative path, text) below `src/`, without `lib.rs` and the binaries.
fn files() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&src, &mut paths);
    paths.sort();
    paths
        .iter()
        .map(|path| {
            (path.strip_prefix(&src).unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| name != "lib.rs" && !name.starts_with("bin/"))
        .collect()
}

/// The modules that a line of code names as `crate::module`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_import_from_lower_layers_only() {
    let mut offences = Vec::new();
    for (name, text) in files() {
        let module = name.split(['/', '.']).next().unwrap();
        let own = layer(module).unwrap_or_else(|| panic!("src/{name}: module '{module}' is in no layer"));
        for import in code_lines(&text).flat_map(imports).filter(|import| *import != module) {
            let Some(other) = layer(import) else { continue };
            let offence = format!("{name}: {import}");
            if other >= own && !DEBTS.contains(&offence.as_str()) {
                offences.push(offence);
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn unsafe_code_stays_in_its_few_places() {
    let keyword = concat!("unsafe", " ");
    let offences: Vec<_> = files()
        .into_iter()
        .filter(|(name, _)| !UNSAFE.iter().any(|place| name.starts_with(place)))
        .filter(|(_, text)| {
            code_lines(text)
                .any(|line| line.contains(&format!("{keyword}{{")) || line.contains(&format!("{keyword}fn")))
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn only_host_calls_libc() {
    let offences: Vec<_> = files()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("host/") && !name.starts_with("accel/"))
        .filter(|(_, text)| code_lines(text).any(|line| line.contains("libc::")))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn chips_know_neither_accelerators_nor_machines() {
    let offences: Vec<_> = files()
        .into_iter()
        .filter(|(name, _)| name.starts_with("hw/") && !name.starts_with("hw/chipset") && name != "hw/mod.rs")
        .filter(|(name, text)| {
            code_lines(text).any(|line| {
                line.contains("crate::accel") || (line.contains("hw::chipset") && !name.starts_with("hw/registry"))
            })
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(offences, Vec::<String>::new());
}
