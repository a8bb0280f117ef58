//! The descriptor: a text that says what a disk is and which files its extents are in ("The Descriptor File").

use std::fmt::Write;

use crate::block::error::OpenError;

/// `parentCID` without a parent.
pub(super) const NO_PARENT: u32 = 0xffff_ffff;
/// Descriptors are a few hundred bytes; what claims more is refused.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// More extents than the largest disk needs.
const MAX_EXTENTS: usize = 4096;

/// What an extent's file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExtentKind {
    /// Its bytes, from an offset in sectors on.
    Flat(u64),
    /// A hosted sparse extent.
    Sparse,
    /// No file: zeros.
    Zero,
}

/// A line of the extent description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExtentLine {
    pub(super) sectors: u64,
    pub(super) kind: ExtentKind,
    /// As the line calls it.
    pub(super) kind_name: String,
    pub(super) filename: String,
}

/// What the text says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) cid: u32,
    pub(super) parent_cid: u32,
    pub(super) create_type: String,
    pub(super) parent: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
    text: String,
}

/// Whether a file begins like a descriptor: comments, and then the version.
pub(super) fn looks_like_one(head: &[u8]) -> bool {
    let text = head.split(|byte| *byte == 0).next().unwrap_or_default();
    if !text.starts_with(b"#") && !text.starts_with(b"version=") {
        return false;
    }
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))
        .is_some_and(|line| [&b"version=1"[..], b"version=2", b"version=3"].contains(&line))
}

impl Descriptor {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(bytes).into_owned();
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let mut found = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
            found.next().map(|value| value.trim_matches('"').to_owned())
        };
        let invalid = || OpenError::Image("invalid VMDK image descriptor".to_owned());
        let number = |name: &str| value(name).and_then(|text| u32::from_str_radix(&text, 16).ok());
        let create_type = value("createType").ok_or_else(invalid)?;
        Ok(Self {
            cid: number("CID").unwrap_or(0),
            parent_cid: number("parentCID").unwrap_or(NO_PARENT),
            parent: value("parentFileNameHint").filter(|name| !name.is_empty()),
            extents: extents(&text)?,
            create_type,
            text,
        })
    }

    /// Bytes of the text.
    pub(super) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// The text with another content identifier.
    pub(super) fn with_cid(&mut self, cid: u32) -> String {
        self.cid = cid;
        let lines = self.text.lines().map(|line| match line.split_once('=') {
            Some((key, _)) if key.trim() == "CID" => format!("CID={cid:08x}\n"),
            _ => format!("{line}\n"),
        });
        self.text = lines.collect();
        self.text.clone()
    }
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`.
fn extents(text: &str) -> Result<Vec<ExtentLine>, OpenError> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((access, rest)) = line.split_once(' ') else { continue };
        if !["RW", "RDONLY", "NOACCESS"].contains(&access) {
            continue;
        }
        let invalid = || OpenError::Image(format!("Invalid extent line: {line}"));
        let (numbers, name) = rest.split_once('"').map_or((rest, ""), |(left, right)| (left, right));
        let mut words = numbers.split_whitespace();
        let sectors = words.next().and_then(|word| word.parse::<u64>().ok()).ok_or_else(invalid)?;
        let kind_name = words.next().ok_or_else(invalid)?;
        let (filename, offset) = name.split_once('"').unwrap_or((name, ""));
        let kind = match kind_name {
            "FLAT" | "VMFS" => {
                let offset = offset.trim();
                ExtentKind::Flat(if offset.is_empty() && kind_name == "VMFS" {
                    0
                } else {
                    offset.parse().map_err(|_| invalid())?
                })
            }
            "SPARSE" => ExtentKind::Sparse,
            "ZERO" => ExtentKind::Zero,
            "VMFSSPARSE" | "SESPARSE" | "VMFSRDM" | "VMFSRAW" => {
                return Err(OpenError::Unsupported(format!("A vmdk extent of type {kind_name}")));
            }
            _ => return Err(invalid()),
        };
        if access == "RDONLY" || access == "NOACCESS" {
            return Err(OpenError::Unsupported(format!("A vmdk extent with {access} access")));
        }
        if kind != ExtentKind::Zero && filename.is_empty() || found.len() >= MAX_EXTENTS {
            return Err(invalid());
        }
        found.push(ExtentLine { sectors, kind, kind_name: kind_name.to_owned(), filename: filename.to_owned() });
    }
    Ok(found)
}

/// What a new descriptor says.
pub(super) struct NewDescriptor<'a> {
    pub(super) cid: u32,
    pub(super) parent: Option<(&'a str, u32)>,
    pub(super) create_type: &'a str,
    /// Lines, each with its end.
    pub(super) extents: String,
    pub(super) hardware: &'a str,
    pub(super) tools: &'a str,
    pub(super) adapter: &'a str,
    pub(super) size: u64,
}

impl NewDescriptor<'_> {
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let parent_cid = self.parent.map_or(NO_PARENT, |(_, cid)| cid);
        let heads = if self.adapter == "ide" { 16 } else { 255 };
        let cylinders = self.size / (63 * heads * 512);
        let _ = write!(out, "# Disk DescriptorFile\nversion=1\nCID={:x}\nparentCID={parent_cid:x}\n", self.cid);
        let _ = writeln!(out, "createType=\"{}\"", self.create_type);
        if let Some((name, _)) = self.parent {
            let _ = write!(out, "parentFileNameHint=\"{name}\"");
        }
        let _ = write!(out, "\n# Extent description\n{}\n# The Disk Data Base\n#DDB\n\n", self.extents);
        let _ = writeln!(out, "ddb.virtualHWVersion = \"{}\"", self.hardware);
        let _ = writeln!(out, "ddb.geometry.cylinders = \"{cylinders}\"");
        let _ = writeln!(out, "ddb.geometry.heads = \"{heads}\"");
        let _ = writeln!(out, "ddb.geometry.sectors = \"63\"");
        let _ = writeln!(out, "ddb.adapterType = \"{}\"", self.adapter);
        let _ = writeln!(out, "ddb.toolsVersion = \"{}\"", self.tools);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Disk DescriptorFile\nversion=1\nCID=afea016\nparentCID=ffffffff\n\
                        createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\nRW 4194304 FLAT \"v f001.vmdk\" 128\n\
                        RW 7 ZERO\n";

    #[test]
    fn a_descriptor_is_read_and_gets_another_cid() {
        let mut descriptor = Descriptor::parse(TEXT.as_bytes()).unwrap();
        assert_eq!((descriptor.cid, descriptor.parent_cid), (0x0afe_a016, NO_PARENT));
        assert_eq!(descriptor.extents[0].kind, ExtentKind::Flat(128));
        assert_eq!(descriptor.extents[0].filename, "v f001.vmdk");
        assert_eq!(descriptor.extents[1].kind, ExtentKind::Zero);
        let text = descriptor.with_cid(1);
        assert_eq!(text, TEXT.replace("CID=afea016", "CID=00000001"));
        assert!(looks_like_one(TEXT.as_bytes()));
        assert!(!looks_like_one(b"#!/bin/sh\necho version=1\n"));
    }

    #[test]
    fn bad_lines_are_named() {
        let refusal =
            |line: &str| Descriptor::parse(format!("createType=\"x\"\n{line}").as_bytes()).unwrap_err().to_string();
        assert_eq!(refusal("RW 10 FOO \"nope\" 0"), "Invalid extent line: RW 10 FOO \"nope\" 0");
        assert_eq!(refusal("RW x FLAT \"nope\" 0"), "Invalid extent line: RW x FLAT \"nope\" 0");
        assert_eq!(refusal("RW 1 SESPARSE \"a\""), "A vmdk extent of type SESPARSE is not supported by this version");
    }
}
