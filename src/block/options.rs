//! What a node is opened from: a driver, a file name and options, as `-drive`, `-blockdev` and `json:` names give them.

use serde_json::{Map, Value};

use super::error::OpenError;

/// A block node by driver and options; nested nodes are objects (or dotted keys) in `options`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeOptions {
    /// Format or protocol driver; `None`: probe the format.
    pub driver: Option<String>,
    /// File name or address of the protocol node, if it was given as one string.
    pub filename: Option<String>,
    /// All other options, nested or with dotted keys.
    pub options: Map<String, Value>,
}

impl NodeOptions {
    /// A file of any format.
    #[must_use]
    pub fn file(filename: impl Into<String>) -> Self {
        Self { filename: Some(filename.into()), ..Self::default() }
    }

    /// With the format named.
    #[must_use]
    pub fn format(mut self, driver: impl Into<String>) -> Self {
        self.driver = Some(driver.into());
        self
    }

    /// With an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.options.insert(key.to_owned(), value.into());
        self
    }
}

/// The options of one node, flat ("cache.direct"), taken one by one so that what is left is unknown.
#[derive(Clone, Default, Debug)]
pub struct Options {
    flat: Map<String, Value>,
}

impl Options {
    /// Flattens nested objects and arrays as QEMU does.
    #[must_use]
    pub fn new(map: &Map<String, Value>) -> Self {
        let mut flat = Map::new();
        for (key, value) in map {
            flatten(key, value, &mut flat);
        }
        Self { flat }
    }

    /// Sets a value.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        self.flat.insert(key.to_owned(), value.into());
    }

    /// Sets a value where there is none yet.
    pub fn insert_missing(&mut self, key: &str, value: impl Into<Value>) {
        if !self.flat.contains_key(key) {
            self.insert(key, value);
        }
    }

    /// Adds what is not there yet.
    pub fn merge(&mut self, other: Options) {
        for (key, value) in other.flat {
            self.flat.entry(key).or_insert(value);
        }
    }

    /// The options below `prefix` (with its dot), without it.
    #[must_use]
    pub fn take_below(&mut self, prefix: &str) -> Options {
        let keys: Vec<String> = self.flat.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        let mut flat = Map::new();
        for key in keys {
            if let Some(value) = self.flat.shift_remove(&key) {
                flat.insert(key[prefix.len()..].to_owned(), value);
            }
        }
        Options { flat }
    }

    /// Whether all were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flat.is_empty()
    }

    /// A value that stays.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.flat.get(key)
    }

    /// A value of any type.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.flat.shift_remove(key)
    }

    /// A text.
    ///
    /// # Errors
    /// It is of another type; the text is QEMU's.
    pub fn take_str(&mut self, key: &str) -> Result<Option<String>, OpenError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(OpenError::Invalid(format!("Invalid parameter type for '{key}', expected: string"))),
        }
    }

    /// A switch: a boolean, or "on", "off" as text.
    ///
    /// # Errors
    /// It is of another type; the text is QEMU's.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>, OpenError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::String(text)) => match text.as_str() {
                "on" | "yes" | "true" | "y" => Ok(Some(true)),
                "off" | "no" | "false" | "n" => Ok(Some(false)),
                _ => Err(OpenError::Invalid(format!("Parameter '{key}' expects 'on' or 'off'"))),
            },
            Some(_) => Err(OpenError::Invalid(format!("Invalid parameter type for '{key}', expected: boolean"))),
        }
    }

    /// A size, with a suffix if it is text.
    ///
    /// # Errors
    /// It is of another type; the text is QEMU's.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>, OpenError> {
        let value = match self.take(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => parse_size(&text),
            Some(_) => None,
        };
        value
            .map(Some)
            .ok_or_else(|| OpenError::Invalid(format!("Parameter '{key}' expects a non-negative number below 2^64")))
    }

    /// The first option that nothing took.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.flat.keys().next().map(String::as_str)
    }

    /// Refuses what nothing took.
    ///
    /// # Errors
    /// [`OpenError::UnknownOption`].
    pub fn finish(&self, driver: &str, protocol: bool) -> Result<(), OpenError> {
        match self.unknown() {
            None => Ok(()),
            Some(option) => {
                Err(OpenError::UnknownOption { driver: driver.to_owned(), protocol, option: option.to_owned() })
            }
        }
    }
}

fn flatten(key: &str, value: &Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                flatten(&format!("{key}.{name}"), value, into);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                flatten(&format!("{key}.{index}"), value, into);
            }
        }
        _ => {
            into.insert(key.to_owned(), value.clone());
        }
    }
}

/// A number of bytes with QEMU's binary suffixes: "1.5G", "64k", "512", "0x200".
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let shift = match suffix {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut bytes = whole.checked_mul(1_u64 << shift)?;
    if !fraction.is_empty() {
        if shift == 0 && fraction.bytes().any(|b| b != b'0') {
            return None;
        }
        let digits = &fraction[..fraction.len().min(18)];
        let part = u128::from(digits.parse::<u64>().ok()?) << shift;
        let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
        bytes = bytes.checked_add(u64::try_from(part / scale).ok()?)?;
    }
    Some(bytes)
}

/// Where writes are when the guest is told that they are done, and what its flush does (`cache=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheMode {
    /// The device has a write cache; else each write goes to stable storage.
    pub writeback: bool,
    /// Past the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Flushes do nothing.
    pub no_flush: bool,
}

impl Default for CacheMode {
    fn default() -> Self {
        Self { writeback: true, direct: false, no_flush: false }
    }
}

impl CacheMode {
    /// By the name that `cache=` takes.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let (writeback, direct, no_flush) = match name {
            "none" | "off" => (true, true, false),
            "directsync" => (false, true, false),
            "writeback" => (true, false, false),
            "unsafe" => (true, false, true),
            "writethrough" => (false, false, false),
            _ => return None,
        };
        Some(Self { writeback, direct, no_flush })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_take_suffixes_and_fractions() {
        assert_eq!(parse_size("64k"), Some(65536));
        assert_eq!(parse_size("1.5G"), Some(3 << 29));
        assert_eq!(parse_size("0x200"), Some(512));
        assert_eq!(parse_size("16E"), None);
        assert_eq!(parse_size("."), None);
        assert_eq!(parse_size("1x"), None);
    }

    #[test]
    fn nested_objects_are_dotted_keys() {
        let map = json!({"cache": {"direct": true}, "file": {"driver": "file", "filename": "x"}});
        let mut options = Options::new(map.as_object().unwrap());
        assert_eq!(options.take_bool("cache.direct").unwrap(), Some(true));
        let mut file = options.take_below("file.");
        assert_eq!(file.take_str("filename").unwrap().as_deref(), Some("x"));
        assert!(options.is_empty());
        assert_eq!(file.unknown(), Some("driver"));
    }
}
