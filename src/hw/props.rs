//! Properties of devices: their types, as QEMU's help names them, and values read from a command line with QEMU's
//! messages.

use std::collections::BTreeMap;

use crate::keyval::value::{parse_bool, parse_integer, parse_tree_size};

/// The type of a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `on`, `off` and their other spellings.
    Bool,
    /// An unsigned number of 8 bits.
    Uint8,
    /// 16 bits.
    Uint16,
    /// 32 bits.
    Uint32,
    /// 64 bits.
    Uint64,
    /// A signed number of 32 bits.
    Int32,
    /// Bytes, with a suffix.
    Size,
    /// Text.
    Str,
    /// `on`, `off` or `auto`.
    OnOffAuto,
    /// The id of a character device; the machine looks it up.
    Chardev,
    /// The id of a drive or block node; the machine looks it up.
    Drive,
    /// The id of an object of this type; the machine looks it up.
    Link(&'static str),
    /// One of some words; the first is the name of the type.
    Word(&'static str, &'static [&'static str]),
}

impl Kind {
    /// The name in `-device X,help`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Int32 => "int32",
            Self::Size => "size",
            Self::Str | Self::Chardev | Self::Drive => "str",
            Self::Link("iothread") => "link<iothread>",
            Self::Link("rng-backend") => "link<rng-backend>",
            Self::Link(_) => "link<object>",
            Self::OnOffAuto => "OnOffAuto",
            Self::Word(name, _) => name,
        }
    }

    /// The smallest and largest number, and the type's name in messages.
    fn range(self) -> Option<(i128, i128, &'static str)> {
        match self {
            Self::Uint8 => Some((0, i128::from(u8::MAX), "uint8_t")),
            Self::Uint16 => Some((0, i128::from(u16::MAX), "uint16_t")),
            Self::Uint32 => Some((0, i128::from(u32::MAX), "uint32_t")),
            Self::Uint64 => Some((i128::from(i64::MIN), i128::from(u64::MAX), "uint64_t")),
            Self::Int32 => Some((i128::from(i32::MIN), i128::from(i32::MAX), "int32_t")),
            _ => None,
        }
    }
}

/// A property of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property {
    /// Name on the command line.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Description; may be empty.
    pub description: &'static str,
    /// Default as text, if there is one to show.
    pub default: Option<&'static str>,
}

impl Property {
    /// A property without a description.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, default: Option<&'static str>) -> Self {
        let description = if matches!(kind, Kind::Bool) { "on/off" } else { "" };
        Self { name, kind, description, default }
    }

    /// The property with a description.
    #[must_use]
    pub const fn described(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// What follows the type in `-device X,help`: "on/off (default: off)"; empty if there is nothing to say.
    #[must_use]
    pub fn help(&self) -> String {
        match self.default {
            Some(default) => format!("{} (default: {default})", self.description),
            None => self.description.to_owned(),
        }
    }
}

/// Why a property cannot be set; the texts are QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PropertyError {
    /// The class has none of that name.
    #[error("Property '{class}.{property}' not found")]
    NotFound {
        /// Class.
        class: String,
        /// What was given.
        property: String,
    },
    /// The value is not of the type.
    #[error("Parameter '{property}' expects {expected}")]
    Expects {
        /// Property.
        property: String,
        /// What it takes.
        expected: &'static str,
    },
    /// The value is none of the words.
    #[error("Parameter '{property}' does not accept value '{value}'")]
    NotAccepted {
        /// Property.
        property: String,
        /// What was given.
        value: String,
    },
    /// Nothing has that id: chardevs and drives.
    #[error("Property '{class}.{property}' can't find value '{value}'")]
    CannotFind {
        /// Class.
        class: String,
        /// Property.
        property: String,
        /// The id.
        value: String,
    },
}

/// A value of a property's type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// [`Kind::Bool`].
    Bool(bool),
    /// Any of the numbers, and [`Kind::Size`].
    Number(i128),
    /// Text, ids and words.
    Text(String),
    /// [`Kind::OnOffAuto`]; `None` is auto.
    Auto(Option<bool>),
}

/// Reads a value.
///
/// # Errors
/// It is not of the property's type.
pub fn parse(property: &Property, value: &str) -> Result<Value, PropertyError> {
    let expects = |expected| PropertyError::Expects { property: property.name.to_owned(), expected };
    let not_accepted = || PropertyError::NotAccepted { property: property.name.to_owned(), value: value.to_owned() };
    match property.kind {
        Kind::Bool => parse_bool(property.name, value).map(Value::Bool).map_err(|_| expects("'on' or 'off'")),
        Kind::Size => {
            let size = parse_tree_size(property.name, value).map_err(|_| expects("size"))?;
            Ok(Value::Number(i128::from(size)))
        }
        Kind::Str | Kind::Chardev | Kind::Drive | Kind::Link(_) => Ok(Value::Text(value.to_owned())),
        Kind::OnOffAuto => match value {
            "on" => Ok(Value::Auto(Some(true))),
            "off" => Ok(Value::Auto(Some(false))),
            "auto" => Ok(Value::Auto(None)),
            _ => Err(not_accepted()),
        },
        Kind::Word(_, words) if words.contains(&value) => Ok(Value::Text(value.to_owned())),
        Kind::Word(..) => Err(not_accepted()),
        kind => {
            let number = integer(value).ok_or_else(|| expects("integer"))?;
            match kind.range() {
                Some((min, max, _)) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                Some((_, _, name)) => Err(expects(name)),
                None => Err(expects("integer")),
            }
        }
    }
}

/// A whole number that 64 bits hold, signed or not.
fn integer(text: &str) -> Option<i128> {
    if let Ok(number) = parse_integer("", text) {
        return Some(i128::from(number));
    }
    crate::keyval::value::parse_number("", text).ok().filter(|_| !text.trim_start().starts_with('-')).map(i128::from)
}

/// The properties of one device: what was given, or else the defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    values: BTreeMap<&'static str, Value>,
}

impl Properties {
    /// Reads `given` (name and value, later ones win) against the properties of `class`.
    ///
    /// # Errors
    /// A property does not exist or does not take its value.
    pub fn read<'a>(
        class: &str,
        properties: &[Property],
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, PropertyError> {
        let mut values = BTreeMap::new();
        for property in properties {
            if let Some(default) = property.default.and_then(|text| parse(property, text).ok()) {
                values.insert(property.name, default);
            }
        }
        for (name, value) in given {
            let Some(property) = properties.iter().find(|property| property.name == name) else {
                return Err(PropertyError::NotFound { class: class.to_owned(), property: name.to_owned() });
            };
            values.insert(property.name, parse(property, value)?);
        }
        Ok(Self { values })
    }

    /// A switch; `false` if it has no value.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some(Value::Bool(true)))
    }

    /// A number; `None` if it has no value or the type asked for does not hold it.
    #[must_use]
    pub fn number<T: TryFrom<i128>>(&self, name: &str) -> Option<T> {
        match self.values.get(name)? {
            Value::Number(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Text, an id or a word.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An on/off/auto switch; `None` is auto.
    #[must_use]
    pub fn on_off_auto(&self, name: &str) -> Option<bool> {
        match self.values.get(name)? {
            Value::Auto(value) => *value,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROPERTIES: &[Property] = &[
        Property::new("index", Kind::Uint32, Some("4294967295")),
        Property::new("wakeup", Kind::Bool, Some("off")),
        Property::new("chardev", Kind::Chardev, None),
        Property::new("rombar", Kind::Int32, Some("-1")),
        Property::new("granularity", Kind::Size, None),
        Property::new("cache", Kind::OnOffAuto, Some("auto")),
        Property::new("policy", Kind::Word("LostTickPolicy", &["discard", "slew"]), Some("discard")),
        Property::new("wwn", Kind::Uint64, Some("0")),
    ];

    fn refusal(name: &str, value: &str) -> String {
        Properties::read("isa-serial", PROPERTIES, [(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn refusals_have_qemus_words() {
        assert_eq!(refusal("foo", "1"), "Property 'isa-serial.foo' not found");
        assert_eq!(refusal("index", "zz"), "Parameter 'index' expects integer");
        assert_eq!(refusal("index", "4k"), "Parameter 'index' expects integer");
        assert_eq!(refusal("index", "99999999999"), "Parameter 'index' expects uint32_t");
        assert_eq!(refusal("index", "-1"), "Parameter 'index' expects uint32_t");
        assert_eq!(refusal("wakeup", "maybe"), "Parameter 'wakeup' expects 'on' or 'off'");
        assert_eq!(refusal("rombar", "4000000000"), "Parameter 'rombar' expects int32_t");
        assert_eq!(refusal("granularity", "zz"), "Parameter 'granularity' expects size");
        assert_eq!(refusal("cache", "foo"), "Parameter 'cache' does not accept value 'foo'");
        assert_eq!(refusal("policy", "foo"), "Parameter 'policy' does not accept value 'foo'");
        let missing =
            PropertyError::CannotFind { class: "serial".into(), property: "chardev".into(), value: "qq".into() };
        assert_eq!(missing.to_string(), "Property 'serial.chardev' can't find value 'qq'");
    }

    #[test]
    fn values_are_typed_and_defaults_fill_the_rest() {
        let given = [("index", "0x2"), ("wakeup", "on"), ("chardev", "c0"), ("granularity", "4k"), ("index", "3")];
        let read = Properties::read("isa-serial", PROPERTIES, given).unwrap();
        assert_eq!((read.number("index"), read.bool("wakeup"), read.text("chardev")), (Some(3u32), true, Some("c0")));
        assert_eq!((read.number("granularity"), read.number("rombar")), (Some(4096u64), Some(-1i32)));
        assert_eq!((read.on_off_auto("cache"), read.text("policy")), (None, Some("discard")));
    }

    #[test]
    fn a_64_bit_number_takes_its_whole_range() {
        let given = [("wwn", "0xffffffffffffffff")];
        let read = Properties::read("ide-hd", PROPERTIES, given).unwrap();
        assert_eq!(read.number("wwn"), Some(u64::MAX));
        assert_eq!(refusal("wwn", "0x10000000000000000"), "Parameter 'wwn' expects integer");
    }

    #[test]
    fn help_shows_description_and_default() {
        assert_eq!(PROPERTIES[0].help(), " (default: 4294967295)");
        assert_eq!(PROPERTIES[1].help(), "on/off (default: off)");
    }
}
