//! The members of an object, taken one by one so that what is left is unknown.

use serde_json::{Map, Value};

use super::ObjectError;
use crate::keyval::value::{ValueError, parse_bool, parse_integer};

/// What was given, flat: "limits.iops-total".
pub(super) struct Fields {
    flat: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        let mut flat = Map::new();
        for (key, value) in map {
            match value {
                Value::Object(inner) => {
                    flat.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
                value => {
                    flat.insert(key, value);
                }
            }
        }
        Self { flat }
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ObjectError> {
        match self.flat.shift_remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(name, "string")),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<String, ObjectError> {
        self.text(name)?.ok_or_else(|| ValueError::Missing { name: name.into() }.into())
    }

    /// A switch.
    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, ObjectError> {
        match self.flat.shift_remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::String(text)) => Ok(Some(parse_bool(name, &text)?)),
            Some(_) => Err(wrong_type(name, "boolean")),
        }
    }

    /// A signed number.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, ObjectError> {
        match self.flat.shift_remove(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(|| wrong_type(name, "integer")),
            Some(Value::String(text)) => Ok(Some(parse_integer(name, &text)?)),
            Some(_) => Err(wrong_type(name, "integer")),
        }
    }

    /// Refuses what nothing took.
    pub(super) fn finish(&self) -> Result<(), ObjectError> {
        match self.flat.keys().next() {
            None => Ok(()),
            Some(name) => Err(ObjectError::new(format!("Parameter '{name}' is unexpected"))),
        }
    }
}

fn wrong_type(name: &str, wanted: &str) -> ObjectError {
    ObjectError::new(format!("Invalid parameter type for '{name}', expected: {wanted}"))
}
