//! Arguments of QMP commands: checked against a table before a command sees them.

use serde_json::{Map, Value};

use crate::monitor::control::{CommandError, CommandResult};

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    Bool,
    Int,
    Uint,
    Array,
    Object,
    /// In the place of a name: any others.
    Rest,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) required: bool,
}

/// A parameter that must be there.
pub(super) const fn need(name: &'static str, kind: Type) -> Parameter {
    Parameter { name, kind, required: true }
}

/// A parameter that may be there.
pub(super) const fn may(name: &'static str, kind: Type) -> Parameter {
    Parameter { name, kind, required: false }
}

fn wrong_type(name: &str, expected: &str) -> CommandError {
    CommandError::new(format!("Invalid parameter type for '{name}', expected: {expected}"))
}

/// An integer, also when it is written as 1e3.
fn integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// Checks one value.
pub(super) fn check(name: &str, kind: Type, value: &Value) -> CommandResult {
    match kind {
        Type::Text if value.is_string() => Ok(()),
        Type::Text => Err(wrong_type(name, "string")),
        Type::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(()),
            Some(word) => Err(CommandError::new(format!("Parameter '{name}' does not accept value '{word}'"))),
            None => Err(wrong_type(name, "string")),
        },
        Type::Bool if value.is_boolean() => Ok(()),
        Type::Bool => Err(wrong_type(name, "boolean")),
        Type::Int if integer(value).is_some() => Ok(()),
        Type::Int => Err(wrong_type(name, "integer")),
        // Negative numbers wrap, as in QEMU.
        Type::Uint if integer(value).is_some() => Ok(()),
        Type::Uint => Err(CommandError::new(format!("Parameter '{name}' expects uint64"))),
        Type::Array if value.is_array() => Ok(()),
        Type::Array => Err(wrong_type(name, "array")),
        Type::Object if value.is_object() => Ok(()),
        Type::Object => Err(wrong_type(name, "object")),
        Type::Rest => Ok(()),
    }
}

/// Arguments that fit their table.
#[derive(Clone, Debug)]
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    /// Checks a command's arguments.
    pub(super) fn check(table: &[Parameter], map: Map<String, Value>) -> CommandResult<Self> {
        for parameter in table {
            match map.get(parameter.name) {
                Some(value) => check(parameter.name, parameter.kind, value)?,
                None if parameter.required => {
                    return Err(CommandError::new(format!("Parameter '{}' is missing", parameter.name)));
                }
                None => {}
            }
        }
        let open = table.iter().any(|parameter| parameter.kind == Type::Rest);
        let unknown =
            map.keys().filter(|_| !open).find(|name| !table.iter().any(|parameter| parameter.name == name.as_str()));
        match unknown {
            Some(name) => Err(CommandError::new(format!("Parameter '{name}' is unexpected"))),
            None => Ok(Self(map)),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them, as an object.
    pub(super) fn object(&self) -> Value {
        Value::Object(self.0.clone())
    }

    pub(super) fn optional_text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A text that the table requires.
    pub(super) fn text(&self, name: &str) -> &str {
        self.optional_text(name).unwrap_or("")
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn optional_number(&self, name: &str) -> Option<i64> {
        let number = self.0.get(name).and_then(integer)?;
        Some(u64::try_from(number).map_or_else(|_| i64::try_from(number).unwrap_or(0), u64::cast_signed))
    }

    /// A number as 64 unsigned bits.
    pub(super) fn bits(&self, name: &str) -> u64 {
        self.optional_number(name).unwrap_or(0).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(arguments: Value) -> String {
        const TABLE: &[Parameter] = &[
            need("file", Type::Text),
            may("size", Type::Uint),
            may("count", Type::Int),
            may("format", Type::Word(&["ppm", "png"])),
        ];
        let Value::Object(map) = arguments else { panic!("an object") };
        Arguments::check(TABLE, map).unwrap_err().text
    }

    #[test]
    fn messages_are_qemus() {
        assert_eq!(refused(json!({})), "Parameter 'file' is missing");
        assert_eq!(refused(json!({"file": 1})), "Invalid parameter type for 'file', expected: string");
        assert_eq!(refused(json!({"file": "f", "x": 1})), "Parameter 'x' is unexpected");
        assert_eq!(refused(json!({"file": "f", "size": "x"})), "Parameter 'size' expects uint64");
        assert_eq!(refused(json!({"file": "f", "size": 1.5})), "Parameter 'size' expects uint64");
        assert_eq!(
            refused(json!({"file": "f", "count": "s"})),
            "Invalid parameter type for 'count', expected: integer"
        );
        assert_eq!(refused(json!({"file": "f", "format": "gif"})), "Parameter 'format' does not accept value 'gif'");
    }
}
