//! What users make by `-object` and `--object` and other options refer to by `id`: secrets, TLS credentials and
//! throttle groups.
//!
//! The texts are those observed of QEMU 10.0.

mod fields;
mod secret;
pub mod throttle;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::json;
use crate::keyval::value::ValueError;
use crate::keyval::{is_identifier, tree};
use fields::Fields;

/// Why an object cannot be made; the text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ObjectError(pub String);

impl ObjectError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<ValueError> for ObjectError {
    fn from(error: ValueError) -> Self {
        Self(error.to_string())
    }
}

/// An object.
pub enum Object {
    /// `secret`: the bytes themselves.
    Secret(secret::Bytes),
    /// `throttle-group`.
    ThrottleGroup(Arc<throttle::Group>),
    /// `tls-creds-x509`, `tls-creds-psk`, `tls-creds-anon`.
    Tls(tls::Credentials),
}

impl fmt::Debug for Object {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::ThrottleGroup(_) => "ThrottleGroup",
            Self::Tls(_) => "Tls",
        })
    }
}

/// Types of QEMU's tools that this version does not have.
const OTHERS: &[&str] = &[
    "authz-list",
    "authz-list-file",
    "authz-pam",
    "authz-simple",
    "main-loop",
    "pr-manager-helper",
    "secret_keyring",
    "thread-context",
];

/// Types that QEMU has for machines only.
const MACHINE_ONLY: &[&str] = &[
    "can-bus",
    "can-host-socketcan",
    "colo-compare",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "dbus-vmstate",
    "filter-buffer",
    "filter-dump",
    "filter-mirror",
    "filter-redirector",
    "filter-replay",
    "filter-rewriter",
    "input-barrier",
    "input-linux",
    "iothread",
    "memory-backend-file",
    "memory-backend-memfd",
    "memory-backend-ram",
    "rng-builtin",
    "rng-egd",
    "rng-random",
];

/// What asking for an object came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Added {
    /// It is there.
    Made,
    /// A help text was asked for; this is it.
    Help(String),
}

/// The objects of a process by `id`. Clones are the same set.
#[derive(Clone, Default, Debug)]
pub struct Objects {
    by_id: Arc<Mutex<BTreeMap<String, Arc<Object>>>>,
}

impl Objects {
    /// Makes an object from what follows `--object`: "secret,id=…,data=…", or JSON.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn add(&self, text: &str) -> Result<Added, ObjectError> {
        if text.starts_with('{') {
            let value = json::parse(text).map_err(|error| ObjectError::new(error.to_string()))?;
            let Value::Object(map) = value else {
                return Err(ObjectError::new("Invalid parameter type for 'object', expected: object"));
            };
            return self.add_map(map).map(|()| Added::Made);
        }
        let tree = tree::parse(text, Some("qom-type"))?;
        match (tree.help, tree.map.get("qom-type")) {
            (false, _) => self.add_map(tree.map).map(|()| Added::Made),
            (true, Some(Value::String(kind))) => help(kind).map(Added::Help),
            (true, _) => Ok(Added::Help(help_types())),
        }
    }

    /// Makes an object from its members, as QMP's `object-add` has them.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn add_map(&self, map: Map<String, Value>) -> Result<(), ObjectError> {
        let mut fields = Fields::new(map);
        let kind = fields.required("qom-type")?;
        if !KINDS.iter().any(|(name, _)| *name == kind) {
            return Err(unknown_kind(&kind));
        }
        let id = fields.required("id")?;
        if !is_identifier(&id) {
            return Err(ValueError::Identifier { name: "id".into() }.into());
        }
        let object = match kind.as_str() {
            "secret" => Object::Secret(secret::make(&mut fields, self)?),
            "throttle-group" => Object::ThrottleGroup(Arc::new(throttle::Group::new(throttle::make(&mut fields)?))),
            kind => Object::Tls(tls::make(kind, &mut fields)?),
        };
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if by_id.contains_key(&id) {
            let text = format!("attempt to add duplicate property '{id}' to object (type 'container')");
            return Err(ObjectError::new(text));
        }
        by_id.insert(id, Arc::new(object));
        Ok(())
    }

    /// Takes an object away; whoever uses it keeps it. Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// An object by its `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Object>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The bytes of a secret.
    ///
    /// # Errors
    /// There is none of that name, or it is another object.
    pub fn secret(&self, id: &str) -> Result<secret::Bytes, ObjectError> {
        match self.get(id).as_deref() {
            None => Err(ObjectError::new(format!("No secret with id '{id}'"))),
            Some(Object::Secret(bytes)) => Ok(bytes.clone()),
            Some(_) => Err(ObjectError::new(format!("Object with id '{id}' is not a secret"))),
        }
    }

    /// A secret that must be text.
    ///
    /// # Errors
    /// As [`Objects::secret`], or it is not UTF-8.
    pub fn secret_text(&self, id: &str) -> Result<String, ObjectError> {
        let bytes = self.secret(id)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| ObjectError::new(format!("Data from secret {id} is not valid UTF-8")))
    }
}

/// The types there are, with their help.
const KINDS: &[(&str, &[(&str, &str)])] = &[
    ("secret", secret::HELP),
    ("throttle-group", throttle::HELP),
    ("tls-creds-anon", tls::HELP_ANON),
    ("tls-creds-psk", tls::HELP_PSK),
    ("tls-creds-x509", tls::HELP_X509),
];

fn unknown_kind(kind: &str) -> ObjectError {
    if OTHERS.contains(&kind) {
        return ObjectError::new(format!("Object type '{kind}' is not supported by this version"));
    }
    if MACHINE_ONLY.contains(&kind) {
        return ObjectError::new(format!("invalid object type: {kind}"));
    }
    ObjectError::new(format!("Parameter 'qom-type' does not accept value '{kind}'"))
}

fn help_types() -> String {
    let lines: String = KINDS.iter().map(|(name, _)| format!("  {name}\n")).collect();
    format!("List of user creatable objects:\n{lines}")
}

fn help(kind: &str) -> Result<String, ObjectError> {
    let (name, members) = KINDS.iter().find(|(name, _)| *name == kind).ok_or_else(|| unknown_kind(kind))?;
    let lines: String = members.iter().map(|(name, kind)| format!("  {name}=<{kind}>\n")).collect();
    Ok(format!("{name} options:\n{lines}"))
}

#[cfg(test)]
mod tests;
