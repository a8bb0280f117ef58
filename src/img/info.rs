//! `qemu-img info`.

use std::ffi::OsString;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::args::{self, flag, long, value};
use super::{Failure, Outcome, Source, report};
use crate::block::format::qcow2;
use crate::block::{Image, OpenFlags};
use crate::host::reason;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        flag('U', "force-share"),
        flag('b', "backing-chain"),
        long("image-opts", false),
        long("output", true),
    ];
    let Some(given) = args::parse("info", &specs, args)? else { return Ok(0) };
    let json = given.json("info")?;
    let [filename] = given.names.as_slice() else {
        return Err(Failure::usage("info", "Expecting one image file name"));
    };
    let source = Source {
        filename: filename.clone(),
        format: given.last("format").map(str::to_owned),
        image_opts: given.has("image-opts"),
        cache: None,
        force_share: given.has("force-share"),
    };
    let whole_chain = given.has("backing-chain");
    let image = source.open(OpenFlags {
        read_only: true,
        for_check: true,
        no_backing: !whole_chain,
        ..OpenFlags::default()
    })?;
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
    qcow2: Option<Qcow2Facts>,
}

struct FileFacts {
    filename: String,
    protocol: &'static str,
    len: u64,
}

struct Qcow2Facts {
    header: qcow2::header::Header,
    snapshots: Vec<qcow2::SnapshotInfo>,
}

impl Facts {
    fn of(image: &Image) -> std::io::Result<Self> {
        let info = image.file.info();
        let qcow2 = match image.qcow2() {
            Some(node) => Some(Qcow2Facts { header: node.header(), snapshots: node.snapshots()? }),
            None => None,
        };
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
            qcow2,
        })
    }

    fn human(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "image: {}\nfile format: {}", self.filename, self.format);
        let size = |bytes: u64| format!("{} ({bytes} bytes)", report::human_size(bytes));
        let _ = writeln!(out, "virtual size: {}", size(self.virtual_size));
        let _ = writeln!(out, "disk size: {}", report::human_size(self.disk_size));
        if let Some(qcow2) = &self.qcow2 {
            qcow2.human_head(&mut out);
        }
        if let Some((name, path)) = &self.backing {
            let _ = write!(out, "backing file: {name}");
            if name != path {
                let _ = write!(out, " (actual path: {path})");
            }
            out.push('\n');
            if let Some(format) = self.qcow2.as_ref().and_then(|qcow2| qcow2.header.backing_format.as_ref()) {
                let _ = writeln!(out, "backing file format: {format}");
            }
        }
        if let Some(qcow2) = &self.qcow2 {
            qcow2.human_rest(&mut out);
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
        let header = self.qcow2.as_ref().map(|qcow2| &qcow2.header);
        if let Some(qcow2) = self.qcow2.as_ref().filter(|qcow2| !qcow2.snapshots.is_empty()) {
            put("snapshots", qcow2.snapshots.iter().map(snapshot_json).collect());
        }
        if let Some(format) = header.and_then(|header| header.backing_format.as_ref()) {
            put("backing-filename-format", format.as_str().into());
        }
        put("virtual-size", self.virtual_size.into());
        put("filename", self.filename.as_str().into());
        if let Some(header) = header {
            put("cluster-size", (1_u64 << header.cluster_bits).into());
        }
        put("format", self.format.into());
        put("actual-size", self.disk_size.into());
        if let Some(qcow2) = &self.qcow2 {
            let data: Map<String, Value> =
                qcow2.specifics().into_iter().map(|(k, v)| (k.replace(' ', "-"), v)).collect();
            put("format-specific", json!({"type": "qcow2", "data": data}));
        }
        if let Some((name, path)) = &self.backing {
            put("full-backing-filename", path.as_str().into());
            put("backing-filename", name.as_str().into());
        }
        put("dirty-flag", self.qcow2.as_ref().is_some_and(Qcow2Facts::dirty).into());
        Value::Object(map)
    }
}

fn snapshot_json(snapshot: &qcow2::SnapshotInfo) -> Value {
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

impl Qcow2Facts {
    fn dirty(&self) -> bool {
        self.header.incompatible & qcow2::header::incompatible::DIRTY != 0
    }

    fn human_head(&self, out: &mut String) {
        let _ = writeln!(out, "cluster_size: {}", 1_u64 << self.header.cluster_bits);
        if self.dirty() {
            out.push_str("cleanly shut down: no\n");
        }
    }

    fn human_rest(&self, out: &mut String) {
        if !self.snapshots.is_empty() {
            out.push_str(&report::snapshot_table(&self.snapshots));
        }
        out.push_str("Format specific information:\n");
        for (key, value) in self.specifics() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(out, "    {key}: {text}");
        }
    }

    fn specifics(&self) -> Vec<(&'static str, Value)> {
        let header = &self.header;
        let compression = header.compression.name();
        let bits = 1_u64 << header.refcount_order;
        if header.version < 3 {
            return vec![
                ("compat", "0.10".into()),
                ("compression type", compression.into()),
                ("refcount bits", bits.into()),
            ];
        }
        vec![
            ("compat", "1.1".into()),
            ("compression type", compression.into()),
            ("lazy refcounts", (header.compatible & qcow2::header::compatible::LAZY_REFCOUNTS != 0).into()),
            ("refcount bits", bits.into()),
            ("corrupt", (header.incompatible & qcow2::header::incompatible::CORRUPT != 0).into()),
            ("extended l2", header.extended_l2().into()),
        ]
    }
}
