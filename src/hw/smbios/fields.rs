//! `-smbios`: what people set.

use std::path::PathBuf;

/// A `-smbios` option that cannot be used; the text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SmbiosError {
    /// Neither a type nor a file.
    #[error("Must specify type= or file=")]
    NoType,
    /// A structure that is not built from fields.
    #[error("Don't know how to build fields for SMBIOS type {0}")]
    UnknownType(String),
    /// A field that the structure does not have.
    #[error("Invalid parameter '{0}'")]
    UnknownField(String),
    /// A value that its field cannot hold.
    #[error("Parameter '{field}' expects {expected}")]
    BadValue {
        /// The field.
        field: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A UUID that is none.
    #[error("Invalid UUID")]
    BadUuid,
    /// A release that is not major.minor.
    #[error("Invalid release")]
    BadRelease,
    /// A file that cannot be read.
    #[error("Cannot read SMBIOS file {}", .0.display())]
    BadFile(PathBuf),
    /// A structure in a file that is shorter than it says.
    #[error("SMBIOS file {} is too short for its header", .0.display())]
    ShortFile(PathBuf),
}

/// The fields of each structure that people may set (QEMU's manual, `-smbios`).
const FIELDS: &[(u8, &[&str])] = &[
    (0, &["vendor", "version", "date", "release", "uefi"]),
    (1, &["manufacturer", "product", "version", "serial", "uuid", "sku", "family"]),
    (2, &["manufacturer", "product", "version", "serial", "asset", "location"]),
    (3, &["manufacturer", "version", "serial", "asset", "sku"]),
    (
        4,
        &[
            "sock_pfx",
            "manufacturer",
            "version",
            "serial",
            "asset",
            "part",
            "max-speed",
            "current-speed",
            "processor-family",
            "processor-id",
        ],
    ),
    (8, &["external_reference", "internal_reference", "connector_type", "port_type"]),
    (11, &["value", "path"]),
    (17, &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed"]),
];

/// What all `-smbios` options together say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    /// (type, field, value); later ones count.
    values: Vec<(u8, String, String)>,
    /// Types 8 and 11 may be given several times: one list of fields for each.
    repeated: Vec<(u8, Vec<(String, String)>)>,
    /// Whole structures from files, with the strings that follow them.
    pub files: Vec<Vec<u8>>,
}

impl Fields {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// An unknown type or field, a value that does not fit, a file that cannot be read.
    pub fn parse(options: &[Vec<(String, String)>]) -> Result<Self, SmbiosError> {
        let mut fields = Self::default();
        for option in options {
            if let Some((_, file)) = option.iter().find(|(key, _)| key == "file") {
                if let Some((key, _)) = option.iter().find(|(key, _)| key != "file") {
                    return Err(SmbiosError::UnknownField(key.clone()));
                }
                fields.files.push(structure_of_file(file)?);
                continue;
            }
            fields.add(option)?;
        }
        Ok(fields)
    }

    fn add(&mut self, option: &[(String, String)]) -> Result<(), SmbiosError> {
        let (_, kind) = option.iter().find(|(key, _)| key == "type").ok_or(SmbiosError::NoType)?;
        let number: u8 =
            kind.parse().map_err(|_| SmbiosError::BadValue { field: "type".to_owned(), expected: "a number" })?;
        let (_, known) =
            FIELDS.iter().find(|(n, _)| *n == number).ok_or_else(|| SmbiosError::UnknownType(kind.clone()))?;
        let rest: Vec<_> = option.iter().filter(|(key, _)| key != "type").cloned().collect();
        if let Some((key, _)) = rest.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            return Err(SmbiosError::UnknownField(key.clone()));
        }
        if matches!(number, 8 | 11) {
            self.repeated.push((number, rest));
        } else {
            if rest.is_empty() {
                self.values.push((number, String::new(), String::new()));
            }
            self.values.extend(rest.into_iter().map(|(key, value)| (number, key, value)));
        }
        Ok(())
    }

    /// Whether the structure was named at all.
    #[must_use]
    pub fn has(&self, kind: u8) -> bool {
        self.values.iter().any(|(k, _, _)| *k == kind)
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, kind: u8, field: &str) -> Option<&str> {
        self.values.iter().rev().find(|(k, f, _)| *k == kind && f == field).map(|(_, _, value)| value.as_str())
    }

    /// A numeric field's value.
    ///
    /// # Errors
    /// It is no number, or too large.
    pub fn number(&self, kind: u8, field: &str, default: u64, max: u64) -> Result<u64, SmbiosError> {
        let Some(text) = self.get(kind, field) else { return Ok(default) };
        parse_number(text)
            .filter(|number| *number <= max)
            .ok_or_else(|| SmbiosError::BadValue { field: field.to_owned(), expected: "a number" })
    }

    /// The structures of a type that may occur several times.
    pub fn each(&self, kind: u8) -> impl Iterator<Item = &[(String, String)]> {
        self.repeated.iter().filter(move |(k, _)| *k == kind).map(|(_, fields)| fields.as_slice())
    }
}

/// A decimal or 0x number.
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn structure_of_file(name: &str) -> Result<Vec<u8>, SmbiosError> {
    let mut bytes = std::fs::read(name).map_err(|_| SmbiosError::BadFile(name.into()))?;
    let length = bytes.get(1).copied().map_or(usize::MAX, usize::from);
    if bytes.len() < 4 || length < 4 || length > bytes.len() || bytes.len() > 0xffff {
        return Err(SmbiosError::ShortFile(name.into()));
    }
    // A structure without strings still ends with two zeros (6.1.3).
    while !bytes.ends_with(&[0, 0]) || bytes.len() < length + 2 {
        bytes.push(0);
    }
    Ok(bytes)
}
