//! The properties of a `-device`, with `-global`'s values below them, taken one by one.

use crate::keyval::value::parse_tree_size;

use super::build::BuildError;
use super::config::{DeviceSpec, GlobalSpec};

/// Typed access to a device's properties. What is left at the end is unknown.
#[derive(Debug)]
pub struct Props<'a> {
    driver: &'a str,
    origin: &'a str,
    bus: Option<&'a str>,
    values: Vec<(&'a str, &'a str)>,
}

impl<'a> Props<'a> {
    /// The properties of a device that the command line names.
    #[must_use]
    pub fn new(spec: &'a DeviceSpec, globals: &'a [GlobalSpec]) -> Self {
        let mut props = Self::of_globals(&spec.driver, globals);
        props.origin = &spec.origin;
        props.bus = spec.bus.as_deref();
        for (name, value) in &spec.properties {
            props.put(name, value);
        }
        props
    }

    /// The properties of a device that the machine makes by itself.
    #[must_use]
    pub fn of_globals(driver: &'a str, globals: &'a [GlobalSpec]) -> Self {
        let mut props = Self { driver, origin: "", bus: None, values: Vec::new() };
        for global in globals.iter().filter(|global| global.driver == driver) {
            props.put(&global.property, &global.value);
        }
        props
    }

    /// `bus=`.
    #[must_use]
    pub fn bus(&self) -> Option<&'a str> {
        self.bus
    }

    /// Sets a property.
    pub fn put(&mut self, name: &'a str, value: &'a str) {
        self.values.retain(|(other, _)| *other != name);
        self.values.push((name, value));
    }

    /// A property's text.
    pub fn text(&mut self, name: &str) -> Option<&'a str> {
        let index = self.values.iter().position(|(other, _)| *other == name)?;
        Some(self.values.remove(index).1)
    }

    fn bad(&self, name: &str, value: &str, expected: &str) -> BuildError {
        let text = match expected {
            "on/off" => format!("Parameter '{name}' expects 'on' or 'off'"),
            _ => format!("Property '{}.{name}' doesn't take value '{value}' ({expected})", self.driver),
        };
        BuildError::option(self.origin, text)
    }

    /// A number (decimal, 0x hexadecimal, 0 octal) of `min..=max`.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&mut self, name: &str, default: u64, min: u64, max: u64) -> Result<u64, BuildError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let parsed = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16).ok()
        } else if text.len() > 1 && text.starts_with('0') {
            u64::from_str_radix(text, 8).ok()
        } else {
            text.parse().ok()
        };
        match parsed {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            Some(number) => Err(self.bad(name, &number.to_string(), &format!("minimum: {min}, maximum: {max}"))),
            None => Err(BuildError::option(self.origin, format!("Parameter '{name}' expects a number"))),
        }
    }

    /// As [`Props::number`], in 32 bits.
    ///
    /// # Errors
    /// It is none.
    pub fn u32(&mut self, name: &str, default: u32, min: u32, max: u32) -> Result<u32, BuildError> {
        self.number(name, default.into(), min.into(), max.into()).map(|n| u32::try_from(n).unwrap_or(max))
    }

    /// As [`Props::number`], in 16 bits.
    ///
    /// # Errors
    /// It is none.
    pub fn u16(&mut self, name: &str, default: u16) -> Result<u16, BuildError> {
        self.number(name, default.into(), 0, 0xffff).map(|n| u16::try_from(n).unwrap_or(u16::MAX))
    }

    /// As [`Props::number`], in 8 bits.
    ///
    /// # Errors
    /// It is none.
    pub fn u8(&mut self, name: &str, default: u8) -> Result<u8, BuildError> {
        self.number(name, default.into(), 0, 0xff).map(|n| u8::try_from(n).unwrap_or(u8::MAX))
    }

    /// on/off.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, BuildError> {
        match self.text(name) {
            None => Ok(default),
            Some("on" | "yes" | "true" | "y") => Ok(true),
            Some("off" | "no" | "false" | "n") => Ok(false),
            Some(other) => Err(self.bad(name, other, "on/off")),
        }
    }

    /// Bytes, with a suffix.
    ///
    /// # Errors
    /// It is none.
    pub fn size(&mut self, name: &str, default: u64) -> Result<u64, BuildError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        parse_tree_size(name, text)
            .map_err(|_| BuildError::option(self.origin, format!("Parameter '{name}' expects size")))
    }

    /// What was not taken yet.
    #[must_use]
    pub fn rest(&self) -> Vec<(&'a str, &'a str)> {
        self.values.clone()
    }

    /// The end: nothing may be left.
    ///
    /// # Errors
    /// A property that the device does not have.
    pub fn finish(self) -> Result<(), BuildError> {
        match self.values.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(BuildError::option(self.origin, format!("Property '{}.{name}' not found", self.driver)))
            }
        }
    }

    /// An error of the device as a whole.
    #[must_use]
    pub fn error(&self, text: impl Into<String>) -> BuildError {
        BuildError::option(self.origin, text)
    }
}
