//! What a character device is to be, as plain data, and QEMU's messages for what is wrong with it.

use crate::host::reason;
use std::path::PathBuf;

/// A character device: `-chardev`, or what `-serial`, `-monitor` and company come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spec {
    /// `id=`.
    pub id: String,
    /// Back end: "null", "stdio", "file", "pipe", "pty", "socket", "udp", "vc", "ringbuf", "memory", "serial", "mux".
    pub backend: String,
    /// Its options, in the order given, with the names of `-chardev`; of equal names the last counts.
    pub options: Vec<(String, String)>,
    /// `mux=on`: several front ends share it.
    pub mux: bool,
    /// `logfile=`: output is also written here.
    pub logfile: Option<PathBuf>,
    /// `logappend=`.
    pub logappend: bool,
}

/// Why a character device cannot be opened. The text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

impl OpenError {
    /// "Could not open 'path': reason".
    pub(super) fn open(path: &str, error: &std::io::Error) -> Self {
        Self(format!("Could not open '{path}': {}", reason(error)))
    }
}

/// Why a front end cannot have a character device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// No such device.
    #[error("chardev \"{0}\" not found")]
    NotFound(String),
    /// Another front end has it, and it is not shared by `mux=on`.
    #[error("chardev '{0}' is already in use")]
    InUse(String),
}

/// Every option that some back end has (`-chardev` checks names against one list for all of them).
const OPTION_NAMES: &[&str] = &[
    "backend",
    "path",
    "input-path",
    "host",
    "port",
    "fd",
    "localaddr",
    "localport",
    "to",
    "ipv4",
    "ipv6",
    "wait",
    "server",
    "delay",
    "nodelay",
    "reconnect",
    "reconnect-ms",
    "telnet",
    "tn3270",
    "tls-creds",
    "tls-authz",
    "websocket",
    "width",
    "height",
    "cols",
    "rows",
    "mux",
    "signal",
    "name",
    "debug",
    "size",
    "chardev",
    "append",
    "logfile",
    "logappend",
    "mouse",
    "clipboard",
    "abstract",
    "tight",
];

impl Spec {
    /// A device with options.
    #[must_use]
    pub fn new(id: &str, backend: &str, options: &[(&str, &str)]) -> Self {
        Self {
            id: id.to_owned(),
            backend: backend.to_owned(),
            options: options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..Self::default()
        }
    }

    pub(super) fn check_names(&self) -> Result<(), OpenError> {
        match self.options.iter().find(|(name, _)| !OPTION_NAMES.contains(&name.as_str())) {
            Some((name, _)) => Err(OpenError(format!("Invalid parameter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The value of an option.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, OpenError> {
        match self.get(name) {
            None => Ok(None),
            Some("on" | "yes" | "true" | "y") => Ok(Some(true)),
            Some("off" | "no" | "false" | "n") => Ok(Some(false)),
            Some(_) => Err(OpenError(format!("Parameter '{name}' expects 'on' or 'off'"))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_integer(text).map(Some).ok_or_else(|| OpenError(format!("Parameter '{name}' expects a number")))
    }

    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_size(text).map(Some).ok_or_else(|| {
            OpenError(format!(
                "Parameter '{name}' expects a non-negative number below 2^64\n\
                 Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
            ))
        })
    }
}

fn parse_integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.chars().last()? {
        'b' | 'B' => (&text[..text.len() - 1], 0),
        'k' | 'K' => (&text[..text.len() - 1], 10),
        'm' | 'M' => (&text[..text.len() - 1], 20),
        'g' | 'G' => (&text[..text.len() - 1], 30),
        't' | 'T' => (&text[..text.len() - 1], 40),
        'p' | 'P' => (&text[..text.len() - 1], 50),
        'e' | 'E' => (&text[..text.len() - 1], 60),
        _ => (text, 0),
    };
    parse_integer(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        let spec = Spec::new("x", "ringbuf", &[("size", "64k")]);
        assert_eq!(spec.size("size"), Ok(Some(65536)));
        let spec = Spec::new("x", "ringbuf", &[("size", "16E")]);
        assert!(spec.size("size").unwrap_err().0.starts_with("Parameter 'size' expects a non-negative number"));
    }

    #[test]
    fn the_reason_has_no_number() {
        assert_eq!(reason(&std::io::Error::from_raw_os_error(2)), "No such file or directory");
    }
}
