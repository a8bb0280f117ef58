//! What `-device help` and `-device X,help` show of this family, and the properties' values.

use crate::keyval::value::{parse_number, parse_tree_size};

use super::drive::{DriveKind, DriveOptions, Geometry, OnError};

/// A property of a class, as `-device X,help` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property {
    /// Name on the command line.
    pub name: &'static str,
    /// Type in angle brackets.
    pub kind: &'static str,
    /// Description; may be empty.
    pub desc: &'static str,
    /// Default, if one is shown.
    pub default: Option<&'static str>,
}

/// A class of devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Name on the command line.
    pub name: &'static str,
    /// Bus that it plugs into.
    pub bus: &'static str,
    /// Description, if it has one.
    pub desc: Option<&'static str>,
    /// Properties, sorted by name.
    pub properties: &'static [Property],
}

const fn property(
    name: &'static str,
    kind: &'static str,
    desc: &'static str,
    default: Option<&'static str>,
) -> Property {
    Property { name, kind, desc, default }
}

const BOOTINDEX: Property = property("bootindex", "int32", "", None);
const CYLS: Property = property("cyls", "uint32", "", Some("0"));
const DISCARD: Property = property("discard_granularity", "size", "", Some("4294967295"));
const DRIVE: Property = property("drive", "str", "Node name or ID of a block device to use as a backend", None);
const HEADS: Property = property("heads", "uint32", "", Some("0"));
const LOGICAL: Property = property("logical_block_size", "size", "A power of two between 512 B and 2 MiB", Some("0"));
const MODEL: Property = property("model", "str", "", None);
const PHYSICAL: Property = property("physical_block_size", "size", "A power of two between 512 B and 2 MiB", Some("0"));
const RERROR: Property =
    property("rerror", "BlockdevOnError", "Error handling policy (report/ignore/enospc/stop/auto)", Some("auto"));
const ROTATION: Property = property("rotation_rate", "uint16", "", Some("0"));
const SECS: Property = property("secs", "uint32", "", Some("0"));
const SERIAL: Property = property("serial", "str", "", None);
const UNIT: Property = property("unit", "uint32", "", Some("4294967295"));
const VER: Property = property("ver", "str", "", None);
const WERROR: Property =
    property("werror", "BlockdevOnError", "Error handling policy (report/ignore/enospc/stop/auto)", Some("auto"));
const CACHE: Property = property("write-cache", "OnOffAuto", "on/off/auto", Some("auto"));
const WWN: Property = property("wwn", "uint64", "", Some("0"));

/// The classes, as `-device help` lists them. `bootindex`, `drive`, `unit` and `addr` are the machine's to act on.
pub const CLASSES: &[Class] = &[
    Class {
        name: "ide-cd",
        bus: "IDE",
        desc: Some("virtual IDE CD-ROM"),
        properties: &[
            BOOTINDEX, DISCARD, DRIVE, LOGICAL, MODEL, PHYSICAL, RERROR, SERIAL, UNIT, VER, WERROR, CACHE, WWN,
        ],
    },
    Class {
        name: "ide-cf",
        bus: "IDE",
        desc: Some("virtual CompactFlash card"),
        properties: &[
            BOOTINDEX, CYLS, DISCARD, DRIVE, HEADS, LOGICAL, MODEL, PHYSICAL, RERROR, SECS, SERIAL, UNIT, VER, WERROR,
            CACHE, WWN,
        ],
    },
    Class {
        name: "ide-hd",
        bus: "IDE",
        desc: Some("virtual IDE disk"),
        properties: &[
            BOOTINDEX, CYLS, DISCARD, DRIVE, HEADS, LOGICAL, MODEL, PHYSICAL, RERROR, ROTATION, SECS, SERIAL, UNIT,
            VER, WERROR, CACHE, WWN,
        ],
    },
    Class { name: "piix3-ide", bus: "PCI", desc: None, properties: &[ADDR] },
    Class { name: "piix4-ide", bus: "PCI", desc: None, properties: &[ADDR] },
];

const ADDR: Property = property("addr", "str", "Slot and optional function number, example: 06.0 or 06", Some("-1"));

/// Why a drive cannot be made of its properties.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PropertyError {
    /// Not of the property's type.
    #[error("Parameter '{name}' expects {expected}")]
    Type {
        /// Property.
        name: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Not one of the property's words.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Value {
        /// Property.
        name: String,
        /// What was given.
        value: String,
    },
    /// A block size.
    #[error("parameter {name} must be a power of 2 between 512 and 2097152")]
    BlockSize {
        /// Property.
        name: &'static str,
    },
    /// Sectors larger than the storage's.
    #[error("logical_block_size > physical_block_size not supported")]
    LogicalOverPhysical,
    /// IDE has 512-byte sectors.
    #[error("logical_block_size must be 512 for IDE")]
    LogicalSize,
    /// TRIM works in sectors.
    #[error("discard_granularity must be 512 for ide")]
    DiscardGranularity,
    /// A part of the geometry.
    #[error("{name} must be between 1 and {max}")]
    Geometry {
        /// Property.
        name: &'static str,
        /// Largest value.
        max: u32,
    },
    /// A disk needs a medium that can be written.
    #[error("Block node is read-only")]
    ReadOnly,
}

/// Properties of a drive on their way to [`DriveOptions`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveProperties {
    options: DriveOptions,
    cyls: u32,
    heads: u32,
    secs: u32,
    logical_block_size: u64,
    physical_block_size: u64,
    /// `None` is the default: the sector size.
    discard_granularity: Option<u64>,
}

impl DriveProperties {
    /// The defaults.
    #[must_use]
    pub fn new(kind: DriveKind) -> Self {
        Self {
            options: DriveOptions::new(kind),
            cyls: 0,
            heads: 0,
            secs: 0,
            logical_block_size: 512,
            physical_block_size: 512,
            discard_granularity: None,
        }
    }

    /// Sets a property; `false` if a drive of this kind has none of that name, or it is the machine's.
    ///
    /// # Errors
    /// The value is not one of the property's.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, PropertyError> {
        let disk = self.options.kind != DriveKind::Cdrom;
        match name {
            "serial" => self.options.serial = Some(value.to_owned()),
            "model" => self.options.model = Some(value.to_owned()),
            "ver" => self.options.version = Some(value.to_owned()),
            "wwn" => self.options.wwn = number(name, value, u64::MAX, "uint64_t")?,
            "cyls" if disk => self.cyls = number32(name, value)?,
            "heads" if disk => self.heads = number32(name, value)?,
            "secs" if disk => self.secs = number32(name, value)?,
            "rotation_rate" if self.options.kind == DriveKind::Disk => {
                let rate = number(name, value, u64::from(u16::MAX), "uint16_t")?;
                self.options.rotation_rate = u16::try_from(rate).unwrap_or(u16::MAX);
            }
            "logical_block_size" => self.logical_block_size = block_size("logical_block_size", value)?,
            "physical_block_size" => self.physical_block_size = block_size("physical_block_size", value)?,
            "discard_granularity" => {
                let bytes = size(name, value)?;
                self.discard_granularity = (bytes != u64::from(u32::MAX)).then_some(bytes);
            }
            "rerror" => self.options.rerror = policy(name, value, OnError::Report)?,
            "werror" => self.options.werror = policy(name, value, OnError::Enospc)?,
            "write-cache" => {
                self.options.write_cache = match value {
                    "auto" | "on" => true,
                    "off" => false,
                    _ => return Err(PropertyError::Value { name: name.to_owned(), value: value.to_owned() }),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The options, if they fit together and to a medium that is `read_only` or not.
    ///
    /// # Errors
    /// They do not.
    pub fn finish(self, read_only: bool) -> Result<DriveOptions, PropertyError> {
        let Self { mut options, cyls, heads, secs, .. } = self;
        if self.logical_block_size > self.physical_block_size {
            return Err(PropertyError::LogicalOverPhysical);
        }
        if self.logical_block_size != 512 {
            return Err(PropertyError::LogicalSize);
        }
        if self.discard_granularity.is_some_and(|bytes| bytes != 0 && bytes != 512) {
            return Err(PropertyError::DiscardGranularity);
        }
        if read_only && options.kind != DriveKind::Cdrom {
            return Err(PropertyError::ReadOnly);
        }
        options.trim = self.discard_granularity != Some(0);
        options.physical_block_size = u32::try_from(self.physical_block_size).unwrap_or(512);
        if cyls != 0 || heads != 0 || secs != 0 {
            options.geometry = Some(Geometry {
                cyls: in_range("cyls", cyls, 65535).map(|n| u16::try_from(n).unwrap_or(u16::MAX))?,
                heads: in_range("heads", heads, 16).map(|n| u8::try_from(n).unwrap_or(16))?,
                secs: in_range("secs", secs, 255).map(|n| u8::try_from(n).unwrap_or(255))?,
            });
        }
        Ok(options)
    }
}

fn in_range(name: &'static str, value: u32, max: u32) -> Result<u32, PropertyError> {
    if value == 0 || value > max { Err(PropertyError::Geometry { name, max }) } else { Ok(value) }
}

/// A whole number up to `max`, the largest of the type that is `expected`.
fn number(name: &str, value: &str, max: u64, expected: &'static str) -> Result<u64, PropertyError> {
    let fault = |expected| PropertyError::Type { name: name.to_owned(), expected };
    let number = parse_number(name, value).map_err(|_| fault("integer"))?;
    if number > max { Err(fault(expected)) } else { Ok(number) }
}

fn number32(name: &str, value: &str) -> Result<u32, PropertyError> {
    let number = number(name, value, u64::from(u32::MAX), "uint32_t")?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn size(name: &str, value: &str) -> Result<u64, PropertyError> {
    parse_tree_size(name, value).map_err(|_| PropertyError::Type { name: name.to_owned(), expected: "size" })
}

fn block_size(name: &'static str, value: &str) -> Result<u64, PropertyError> {
    match size(name, value)? {
        0 => Ok(512),
        bytes if (512..=2 << 20).contains(&bytes) && bytes.is_power_of_two() => Ok(bytes),
        _ => Err(PropertyError::BlockSize { name }),
    }
}

fn policy(name: &str, value: &str, auto: OnError) -> Result<OnError, PropertyError> {
    match value {
        "report" => Ok(OnError::Report),
        "ignore" => Ok(OnError::Ignore),
        "enospc" => Ok(OnError::Enospc),
        "stop" => Ok(OnError::Stop),
        "auto" => Ok(auto),
        _ => Err(PropertyError::Value { name: name.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(properties: &[(&str, &str)]) -> String {
        let mut drive = DriveProperties::new(DriveKind::Disk);
        let set = properties.iter().try_for_each(|(name, value)| drive.set(name, value).map(drop));
        set.and_then(|()| drive.finish(false)).unwrap_err().to_string()
    }

    #[test]
    fn refusals_have_qemus_words() {
        assert_eq!(
            refusal(&[("logical_block_size", "1024")]),
            "logical_block_size > physical_block_size not supported"
        );
        assert_eq!(
            refusal(&[("physical_block_size", "700")]),
            "parameter physical_block_size must be a power of 2 between 512 and 2097152"
        );
        assert_eq!(refusal(&[("cyls", "10")]), "heads must be between 1 and 16");
        assert_eq!(refusal(&[("cyls", "10"), ("heads", "16"), ("secs", "300")]), "secs must be between 1 and 255");
        assert_eq!(refusal(&[("cyls", "70000"), ("heads", "16"), ("secs", "30")]), "cyls must be between 1 and 65535");
        assert_eq!(refusal(&[("discard_granularity", "4k")]), "discard_granularity must be 512 for ide");
        assert_eq!(refusal(&[("rotation_rate", "70000")]), "Parameter 'rotation_rate' expects uint16_t");
        assert_eq!(refusal(&[("wwn", "xyz")]), "Parameter 'wwn' expects integer");
        assert_eq!(refusal(&[("cyls", "5000000000")]), "Parameter 'cyls' expects uint32_t");
        assert_eq!(refusal(&[("physical_block_size", "abc")]), "Parameter 'physical_block_size' expects size");
        assert_eq!(refusal(&[("rerror", "foo")]), "Parameter 'rerror' does not accept value 'foo'");
    }

    #[test]
    fn a_disk_cannot_be_read_only_and_a_cdrom_can() {
        assert_eq!(DriveProperties::new(DriveKind::Disk).finish(true), Err(PropertyError::ReadOnly));
        assert!(DriveProperties::new(DriveKind::Cdrom).finish(true).is_ok());
    }

    #[test]
    fn every_drive_property_but_the_machines_is_settable() {
        let kinds = [("ide-hd", DriveKind::Disk), ("ide-cd", DriveKind::Cdrom), ("ide-cf", DriveKind::CompactFlash)];
        for (name, kind) in kinds {
            let class = CLASSES.iter().find(|class| class.name == name).unwrap();
            let unknown: Vec<_> = class
                .properties
                .iter()
                .filter(|property| {
                    DriveProperties::new(kind).set(property.name, property.default.unwrap_or("0")) == Ok(false)
                })
                .map(|property| property.name)
                .collect();
            assert_eq!(unknown, ["bootindex", "drive", "unit"]);
        }
    }
}
