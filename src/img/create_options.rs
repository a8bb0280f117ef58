//! The options that `-o` takes: their table, their values, and the line that `create` prints.

use std::fmt::Write;

use super::{Failure, args};
use crate::block::format::qcow2::create::CreateOptions;
use crate::block::format::qcow2::header::Compression;
use crate::block::parse_size;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    Size,
    Number,
}

impl Kind {
    fn hint(self) -> &'static str {
        match self {
            Self::Text => "<str>",
            Self::Switch => "<bool (on/off)>",
            Self::Size => "<size>",
            Self::Number => "<num>",
        }
    }
}

struct Known {
    name: &'static str,
    kind: Kind,
    what: &'static str,
}

const fn known(name: &'static str, kind: Kind, what: &'static str) -> Known {
    Known { name, kind, what }
}

/// Sorted by name, as they are listed.
const QCOW2: &[Known] = &[
    known("backing_file", Kind::Text, "File name of a base image"),
    known("backing_fmt", Kind::Text, "Image format of the base image"),
    known("cluster_size", Kind::Size, "qcow2 cluster size"),
    known("compat", Kind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    known("compression_type", Kind::Text, "Compression method used for image cluster compression"),
    known("extended_l2", Kind::Switch, "Extended L2 tables"),
    known("lazy_refcounts", Kind::Switch, "Postpone refcount updates"),
    known("preallocation", Kind::Text, "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    known("refcount_bits", Kind::Number, "Width of a reference count entry in bits"),
    known("size", Kind::Size, "Virtual disk size"),
];

const RAW: &[Known] = &[
    known("preallocation", Kind::Text, "Preallocation mode (allowed values: off, falloc, full)"),
    known("size", Kind::Size, "Virtual disk size"),
];

/// QEMU's options that this version does not have.
const REFUSED: &[&str] = &[
    "data_file",
    "data_file_raw",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.format",
    "encrypt.hash-alg",
    "encrypt.iter-time",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.key-secret",
    "encryption",
    "extent_size_hint",
    "nocow",
];

/// The order of QEMU's "Formatting" line.
const PRINTED: &[&str] = &[
    "cluster_size",
    "extended_l2",
    "preallocation",
    "compression_type",
    "size",
    "compat",
    "backing_file",
    "backing_fmt",
    "lazy_refcounts",
    "refcount_bits",
];
const PRINTED_RAW: &[&str] = &["size", "preallocation"];

/// A format that images can be made in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Raw,
    Qcow2,
}

impl Target {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        match name {
            "raw" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    fn table(self) -> &'static [Known] {
        match self {
            Self::Raw => RAW,
            Self::Qcow2 => QCOW2,
        }
    }

    /// What `-o help` prints.
    pub(super) fn help_text(self) -> String {
        let mut out = String::from("Supported options:\n");
        for known in self.table() {
            let left = format!("{}={}", known.name, known.kind.hint());
            let _ = writeln!(out, "  {left:<22} - {}", known.what);
        }
        out
    }
}

/// Whether an `-o` argument asks for the list.
pub(super) fn asks_for_help(text: &str) -> bool {
    text.split(',').any(|item| matches!(item, "help" | "?" | "list"))
}

/// How the storage of a new image is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Preallocation {
    #[default]
    Off,
    Metadata,
    Falloc,
    Full,
}

/// The options of a new image, by name, as given or by default.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) target: Target,
    values: Vec<(&'static str, String)>,
}

impl Chosen {
    /// The defaults of a format.
    pub(super) fn new(target: Target) -> Self {
        let defaults: &[(&'static str, &str)] = match target {
            Target::Raw => &[],
            Target::Qcow2 => &[
                ("cluster_size", "65536"),
                ("extended_l2", "off"),
                ("compression_type", "zlib"),
                ("lazy_refcounts", "off"),
                ("refcount_bits", "16"),
            ],
        };
        Self { target, values: defaults.iter().map(|(name, value)| (*name, (*value).to_owned())).collect() }
    }

    /// Takes an `-o` argument. Errors are without the image's name.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        for (key, value) in args::key_values(text) {
            if REFUSED.contains(&key.as_str()) {
                return Err(format!("The option '{key}' is not supported by this version"));
            }
            let known = self.target.table().iter().find(|known| known.name == key);
            let known = known.ok_or_else(|| format!("Invalid parameter '{key}'"))?;
            self.set(known.name, normal(known, &value)?);
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value.into()));
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.get("size").and_then(|text| text.parse().ok())
    }

    /// "fmt=qcow2 cluster_size=65536 …".
    pub(super) fn line(&self) -> String {
        let order = if self.target == Target::Raw { PRINTED_RAW } else { PRINTED };
        let mut out = format!("fmt={}", self.target.name());
        for name in order {
            if let Some(value) = self.get(name) {
                let _ = write!(out, " {name}={}", value.replace(',', ",,"));
            }
        }
        out
    }

    pub(super) fn preallocation(&self) -> Result<Preallocation, String> {
        match self.get("preallocation") {
            None | Some("off") => Ok(Preallocation::Off),
            Some("metadata") if self.target == Target::Qcow2 => Ok(Preallocation::Metadata),
            Some("falloc") => Ok(Preallocation::Falloc),
            Some("full") => Ok(Preallocation::Full),
            Some(other) => Err(format!("Parameter 'preallocation' does not accept value '{other}'")),
        }
    }

    /// What a qcow2 image is made from.
    pub(super) fn qcow2(&self) -> Result<CreateOptions, String> {
        let size = self.size().unwrap_or(0);
        let mut options = CreateOptions::new(size.checked_next_multiple_of(512).ok_or("Image is too big")?);
        options.version = match self.get("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => return Err(format!("Parameter 'version' does not accept value '{other}'")),
        };
        options.compression = match self.get("compression_type") {
            None | Some("zlib") => Compression::Zlib,
            Some("zstd") => Compression::Zstd,
            Some(other) => return Err(format!("Parameter 'compression-type' does not accept value '{other}'")),
        };
        let number = |name: &str| self.get(name).and_then(|text| text.parse::<u64>().ok());
        options.cluster_size = number("cluster_size").unwrap_or(options.cluster_size);
        options.refcount_bits = number("refcount_bits").and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0);
        options.extended_l2 = self.get("extended_l2") == Some("on");
        options.lazy_refcounts = self.get("lazy_refcounts") == Some("on");
        let format = self.get("backing_fmt").map(str::to_owned);
        options.backing = self.get("backing_file").map(|name| (name.to_owned(), format.clone()));
        if options.backing.is_none() && format.is_some() {
            return Err("Backing format cannot be used without backing file".to_owned());
        }
        Ok(options)
    }
}

/// A value in the form that is printed.
fn normal(known: &Known, value: &str) -> Result<String, String> {
    let name = known.name;
    match known.kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Switch => match value {
            "on" | "yes" | "true" | "y" => Ok("on".to_owned()),
            "off" | "no" | "false" | "n" => Ok("off".to_owned()),
            _ => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        },
        Kind::Number => {
            value.parse::<u64>().map(|n| n.to_string()).map_err(|_| format!("Parameter '{name}' expects a number"))
        }
        Kind::Size => parse_size(value).map(|n| n.to_string()).ok_or_else(|| {
            format!(
                "Parameter '{name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means \
                 kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
            )
        }),
    }
}

/// The format named by `-f` or `-O`. `subject` ("x.qcow2: ", or nothing) comes before the complaint.
pub(super) fn target(name: &str, subject: &str) -> Result<Target, Failure> {
    Target::by_name(name).ok_or_else(|| {
        let text = if crate::block::is_known_driver(name) {
            format!("Block driver '{name}' is not supported by this version")
        } else {
            format!("Unknown file format '{name}'")
        };
        Failure::new(format!("{subject}{text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_qemu() {
        let mut chosen = Chosen::new(Target::Qcow2);
        chosen.add("lazy_refcounts=on,cluster_size=2M,refcount_bits=1,compression_type=zstd,extended_l2=on").unwrap();
        chosen.set("size", "1048576");
        assert_eq!(
            chosen.line(),
            "fmt=qcow2 cluster_size=2097152 extended_l2=on compression_type=zstd size=1048576 lazy_refcounts=on \
             refcount_bits=1"
        );
        let mut raw = Chosen::new(Target::Raw);
        raw.add("size=10M,preallocation=falloc").unwrap();
        assert_eq!(raw.line(), "fmt=raw size=10485760 preallocation=falloc");
    }

    #[test]
    fn complaints_are_those_of_qemu() {
        let mut chosen = Chosen::new(Target::Qcow2);
        assert_eq!(chosen.add("bogus=1").unwrap_err(), "Invalid parameter 'bogus'");
        assert_eq!(chosen.add("lazy_refcounts=maybe").unwrap_err(), "Parameter 'lazy_refcounts' expects 'on' or 'off'");
        assert_eq!(chosen.add("refcount_bits=foo").unwrap_err(), "Parameter 'refcount_bits' expects a number");
        assert_eq!(chosen.add("nocow=on").unwrap_err(), "The option 'nocow' is not supported by this version");
        chosen.add("compat=2").unwrap();
        assert_eq!(chosen.qcow2().unwrap_err(), "Parameter 'version' does not accept value '2'");
    }
}
