//! The options that new images take (`-o`, `blockdev-create`): each driver's table, their values, and QEMU's texts about
//! them.

use std::fmt::Write;

use super::driver::{self, CreatePlace, Creation};
use super::error::OpenError;
use super::options::parse_size;

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// on or off.
    Switch,
    /// Bytes, with a suffix.
    Size,
    /// A number.
    Number,
}

impl OptionKind {
    fn hint(self) -> &'static str {
        match self {
            Self::Text => "<str>",
            Self::Switch => "<bool (on/off)>",
            Self::Size => "<size>",
            Self::Number => "<num>",
        }
    }
}

/// An option of new images.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateOption {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// What it is, as `-o help` says.
    pub what: &'static str,
    /// Its value if none is given, as the "Formatting" line shows it.
    pub default: Option<&'static str>,
}

impl CreateOption {
    /// Without a default value.
    #[must_use]
    pub const fn new(name: &'static str, kind: OptionKind, what: &'static str) -> Self {
        Self { name, kind, what, default: None }
    }

    /// With a default value.
    #[must_use]
    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }
}

/// The size of the disk, which every format takes.
pub const SIZE: CreateOption = CreateOption::new("size", OptionKind::Size, "Virtual disk size");
/// The name of the backing file.
pub const BACKING_FILE: CreateOption = CreateOption::new("backing_file", OptionKind::Text, "File name of a base image");
/// The format of the backing file.
pub const BACKING_FMT: CreateOption =
    CreateOption::new("backing_fmt", OptionKind::Text, "Image format of the base image");

/// How the storage of a new image is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Not at all.
    #[default]
    Off,
    /// The format's tables only.
    Metadata,
    /// By the host, without writing.
    Falloc,
    /// By writing zeros.
    Full,
}

/// The options of a new image: a driver's, with the values that were given.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    driver: &'static str,
    known: Vec<CreateOption>,
    values: Vec<(&'static str, String)>,
}

impl CreateOptions {
    /// No value given yet, for a format and the protocol that its file is made by.
    ///
    /// # Errors
    /// The driver cannot make images, or is not there.
    pub fn new(format: &str, filename: Option<&str>) -> Result<Self, OpenError> {
        let format = driver::by_name(format)?;
        let creation = creation(format)?;
        let mut known = creation.options().to_vec();
        if let Some(protocol) = filename.map(driver::protocol_of).transpose()?.and_then(driver::Driver::creation) {
            let more =
                protocol.options().iter().filter(|option| !creation.options().iter().any(|o| o.name == option.name));
            known.extend(more);
        }
        Ok(Self { driver: format.name(), known, values: Vec::new() })
    }

    /// No value given yet, of a driver's options for [`super::image::ImageOps::amend`].
    #[must_use]
    pub fn for_amend(driver: &'static str, known: &'static [CreateOption]) -> Self {
        Self { driver, known: known.to_vec(), values: Vec::new() }
    }

    /// The format's name.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// Whether there is such an option.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known.name == name)
    }

    /// Sets an option from what was typed.
    ///
    /// # Errors
    /// There is no such option, or it does not take that; the text is QEMU's.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), OpenError> {
        let known = self.known.iter().find(|known| known.name == name);
        let known = *known.ok_or_else(|| OpenError::Invalid(format!("Invalid parameter '{name}'")))?;
        let value = normal(&known, value).map_err(OpenError::Invalid)?;
        self.set(known.name, value);
        Ok(())
    }

    /// Sets an option to a value that is right.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value.into()));
    }

    /// A value that was given.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A value, or its default.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given(name).or_else(|| self.known.iter().find(|known| known.name == name).and_then(|known| known.default))
    }

    /// A size or number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(parse_size)
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("on")
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.number("size")
    }

    /// The disk's size in bytes, up to the next whole sector.
    ///
    /// # Errors
    /// It does not fit 64 bits.
    pub fn whole_sectors(&self) -> Result<u64, OpenError> {
        let size = self.size().unwrap_or(0).checked_next_multiple_of(512);
        size.ok_or_else(|| OpenError::Invalid("Image is too big".to_owned()))
    }

    /// `preallocation`, one of `allowed`.
    ///
    /// # Errors
    /// It is another.
    pub fn preallocation(&self, allowed: &[Preallocation]) -> Result<Preallocation, OpenError> {
        let text = self.get("preallocation").unwrap_or("off");
        let mode = match text {
            "off" => Some(Preallocation::Off),
            "metadata" => Some(Preallocation::Metadata),
            "falloc" => Some(Preallocation::Falloc),
            "full" => Some(Preallocation::Full),
            _ => None,
        };
        mode.filter(|mode| allowed.contains(mode))
            .ok_or_else(|| OpenError::Invalid(format!("Parameter 'preallocation' does not accept value '{text}'")))
    }

    /// "fmt=qcow2 cluster_size=65536 …".
    #[must_use]
    pub fn line(&self) -> String {
        let mut out = format!("fmt={}", self.driver);
        for known in &self.known {
            if let Some(value) = self.get(known.name) {
                let _ = write!(out, " {}={}", known.name, value.replace(',', ",,"));
            }
        }
        out
    }

    /// What `-o help` lists.
    #[must_use]
    pub fn help_lines(&self) -> String {
        let mut sorted: Vec<&CreateOption> = self.known.iter().collect();
        sorted.sort_by_key(|known| known.name);
        let mut out = String::new();
        for known in sorted {
            let left = format!("{}={}", known.name, known.kind.hint());
            let _ = writeln!(out, "  {left:<22} - {}", known.what);
        }
        out
    }
}

fn creation(format: &'static dyn driver::Driver) -> Result<&'static dyn Creation, OpenError> {
    format
        .creation()
        .ok_or_else(|| OpenError::Invalid(format!("Format driver '{}' does not support image creation", format.name())))
}

/// Makes an image.
///
/// # Errors
/// QEMU's text, without the image's name in front.
pub fn create(filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
    creation(driver::by_name(options.driver)?)?.create(filename, options, place)
}

/// A value in the form that is printed.
fn normal(known: &CreateOption, value: &str) -> Result<String, String> {
    let name = known.name;
    match known.kind {
        OptionKind::Text => Ok(value.to_owned()),
        OptionKind::Switch => match value {
            "on" | "yes" | "true" | "y" => Ok("on".to_owned()),
            "off" | "no" | "false" | "n" => Ok("off".to_owned()),
            _ => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        },
        OptionKind::Number => {
            value.parse::<u64>().map(|n| n.to_string()).map_err(|_| format!("Parameter '{name}' expects a number"))
        }
        OptionKind::Size => parse_size(value).map(|n| n.to_string()).ok_or_else(|| {
            format!(
                "Parameter '{name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means \
                 kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_qemu() {
        let mut chosen = CreateOptions::new("qcow2", None).unwrap();
        for (name, value) in [
            ("lazy_refcounts", "on"),
            ("cluster_size", "2M"),
            ("refcount_bits", "1"),
            ("compression_type", "zstd"),
            ("extended_l2", "on"),
        ] {
            chosen.add(name, value).unwrap();
        }
        chosen.set("size", "1048576");
        assert_eq!(
            chosen.line(),
            "fmt=qcow2 cluster_size=2097152 extended_l2=on compression_type=zstd size=1048576 lazy_refcounts=on \
             refcount_bits=1"
        );
        let mut raw = CreateOptions::new("raw", Some("x")).unwrap();
        raw.add("size", "10M").unwrap();
        raw.add("preallocation", "falloc").unwrap();
        assert_eq!(raw.line(), "fmt=raw size=10485760 preallocation=falloc");
    }

    #[test]
    fn complaints_are_those_of_qemu() {
        let mut chosen = CreateOptions::new("qcow2", None).unwrap();
        let mut complaint = |name: &str, value: &str| chosen.add(name, value).unwrap_err().to_string();
        assert_eq!(complaint("bogus", "1"), "Invalid parameter 'bogus'");
        assert_eq!(complaint("lazy_refcounts", "maybe"), "Parameter 'lazy_refcounts' expects 'on' or 'off'");
        assert_eq!(complaint("refcount_bits", "foo"), "Parameter 'refcount_bits' expects a number");
    }
}
