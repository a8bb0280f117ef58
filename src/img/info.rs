//! `qemu-img info`.

use std::ffi::OsString;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::args::{self, flag, long, value};
use super::source::opener;
use super::{Failure, Outcome, report};
use crate::block::{Details, Image, ImageOps, OpenFlags, SnapshotInfo};
use crate::host::reason;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        flag('U', "force-share"),
        flag('b', "backing-chain"),
        long("image-opts", false),
        long("output", true),
        long("object", true),
    ];
    let Some(given) = args::parse("info", &specs, args)? else { return Ok(0) };
    let json = given.json("info")?;
    let filename = given.one_name("info")?;
    given.check_image_opts(&["format"])?;
    let source = given.source(filename);
    let whole_chain = given.has("backing-chain");
    let image = source.open_with(
        &mut opener(&given)?,
        OpenFlags { read_only: true, for_check: true, no_backing: !whole_chain, ..OpenFlags::default() },
    )?;
    let mut facts = Vec::new();
    for image in image.chain() {
        let failed = |error| Failure::new(format!("Could not get image info: {}", reason(&error)));
        facts.push(Facts::of(image).map_err(failed)?);
    }
    if json {
        let mut values: Vec<Value> = facts.iter().map(Facts::json).collect();
        let value = if whole_chain { Value::Array(values) } else { values.swap_remove(0) };
        println!("{}", report::pretty(&value));
    } else {
        let texts: Vec<String> = facts.iter().map(Facts::human).collect();
        print!("{}", texts.join("\n"));
    }
    Ok(0)
}

/// What `info` says of an open image: QMP's ImageInfo and the text, for a machine's monitors.
///
/// # Errors
/// The host cannot tell a size.
pub fn describe(image: &Image) -> std::io::Result<(Value, String)> {
    let facts = Facts::of(image)?;
    Ok((facts.json(), facts.human()))
}

/// What there is to say about one image.
struct Facts {
    filename: String,
    format: &'static str,
    virtual_size: u64,
    disk_size: u64,
    file: FileFacts,
    backing: Option<(String, String)>,
    details: Option<Details>,
}

struct FileFacts {
    filename: String,
    protocol: &'static str,
    len: u64,
}

impl Facts {
    fn of(image: &Image) -> std::io::Result<Self> {
        let info = image.file.info();
        let details = image.ops().map(ImageOps::details).transpose()?;
        let backing =
            image.backing_name.as_ref().map(|name| (name.clone(), crate::block::backing_path(&image.filename, name)));
        Ok(Self {
            filename: image.filename.clone(),
            format: image.driver,
            virtual_size: image.node.len()?,
            disk_size: image.file.allocated_bytes()?,
            file: FileFacts {
                filename: info.filename,
                protocol: info.driver,
                len: image.file.len()?.next_multiple_of(512),
            },
            backing,
            details,
        })
    }

    fn human(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "image: {}\nfile format: {}", self.filename, self.format);
        let size = |bytes: u64| format!("{} ({bytes} bytes)", report::human_size(bytes));
        let _ = writeln!(out, "virtual size: {}", size(self.virtual_size));
        let _ = writeln!(out, "disk size: {}", report::human_size(self.disk_size));
        if let Some(details) = &self.details {
            human_head(details, &mut out);
        }
        if let Some((name, path)) = &self.backing {
            let _ = write!(out, "backing file: {name}");
            if name != path {
                let _ = write!(out, " (actual path: {path})");
            }
            out.push('\n');
            if let Some(format) = self.details.as_ref().and_then(|details| details.backing_format.as_ref()) {
                let _ = writeln!(out, "backing file format: {format}");
            }
        }
        if let Some(details) = &self.details {
            human_rest(details, &mut out);
        }
        let _ = write!(
            out,
            "Child node '/file':\n    filename: {}\n    protocol type: {}\n    file length: {}\n    disk size: {}\n",
            self.file.filename,
            self.file.protocol,
            size(self.file.len),
            report::human_size(self.disk_size)
        );
        out
    }

    fn json(&self) -> Value {
        let file = json!({
            "children": [],
            "virtual-size": self.file.len,
            "filename": self.file.filename,
            "format": self.file.protocol,
            "actual-size": self.disk_size,
            "format-specific": {"type": "file", "data": {}},
            "dirty-flag": false,
        });
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("children", json!([{"name": "file", "info": file}]));
        let details = self.details.as_ref();
        if let Some(details) = details.filter(|details| !details.snapshots.is_empty()) {
            put("snapshots", details.snapshots.iter().map(snapshot_json).collect());
        }
        if let Some(format) = details.and_then(|details| details.backing_format.as_ref()) {
            put("backing-filename-format", format.as_str().into());
        }
        put("virtual-size", self.virtual_size.into());
        put("filename", self.filename.as_str().into());
        if let Some(size) = details.and_then(|details| details.cluster_size) {
            put("cluster-size", size.into());
        }
        put("format", self.format.into());
        put("actual-size", self.disk_size.into());
        if let Some(details) = details.filter(|details| !details.specific.is_empty()) {
            let data: Map<String, Value> =
                details.specific.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            put("format-specific", json!({"type": self.format, "data": data}));
        }
        if let Some((name, path)) = &self.backing {
            put("full-backing-filename", path.as_str().into());
            put("backing-filename", name.as_str().into());
        }
        put("dirty-flag", details.is_some_and(|details| details.dirty).into());
        if details.is_some_and(|details| details.encrypted) {
            put("encrypted", true.into());
        }
        Value::Object(map)
    }
}

fn snapshot_json(snapshot: &SnapshotInfo) -> Value {
    let mut map = Map::new();
    if let Some(icount) = snapshot.icount {
        map.insert("icount".to_owned(), icount.into());
    }
    let rest: [(&str, Value); 7] = [
        ("vm-clock-nsec", (snapshot.vm_clock_nsec % 1_000_000_000).into()),
        ("name", snapshot.name.as_str().into()),
        ("date-sec", snapshot.date_sec.into()),
        ("date-nsec", snapshot.date_nsec.into()),
        ("vm-clock-sec", (snapshot.vm_clock_nsec / 1_000_000_000).into()),
        ("id", snapshot.id.as_str().into()),
        ("vm-state-size", snapshot.vm_state_size.into()),
    ];
    map.extend(rest.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(map)
}

fn human_head(details: &Details, out: &mut String) {
    if details.encrypted {
        out.push_str("encrypted: yes\n");
    }
    if let Some(size) = details.cluster_size {
        let _ = writeln!(out, "cluster_size: {size}");
    }
    if details.dirty {
        out.push_str("cleanly shut down: no\n");
    }
}

fn human_rest(details: &Details, out: &mut String) {
    if !details.snapshots.is_empty() {
        out.push_str(&report::snapshot_table(&details.snapshots));
    }
    out.push_str(&specific_text(details));
}

/// "Format specific information:" and what follows; nothing if there is none.
pub(super) fn specific_text(details: &Details) -> String {
    let mut out = String::new();
    if details.specific.is_empty() {
        return out;
    }
    out.push_str("Format specific information:\n");
    for (key, value) in &details.specific {
        human_value(&key.replace('-', " "), value, 1, &mut out);
    }
    out
}

/// "key: value" at a depth; lists and objects have theirs on the lines below.
fn human_value(key: &str, value: &Value, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    match value {
        Value::Object(map) => {
            let _ = writeln!(out, "{indent}{key}:");
            for (key, value) in map {
                human_value(&key.replace('-', " "), value, depth + 1, out);
            }
        }
        Value::Array(list) => {
            let _ = writeln!(out, "{indent}{key}:");
            for (index, value) in list.iter().enumerate() {
                human_value(&format!("[{index}]"), value, depth + 1, out);
            }
        }
        Value::String(text) => {
            let _ = writeln!(out, "{indent}{key}: {text}");
        }
        other => {
            let _ = writeln!(out, "{indent}{key}: {other}");
        }
    }
}
