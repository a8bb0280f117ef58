//! Why an image could not be opened or made: QEMU's texts, in one place.

use crate::host::reason;
use crate::object::ObjectError;
use std::io;

/// Which of QEMU's image permissions a lock stands for (`block/protocol/file.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// We want it, and someone does not share it.
    Use,
    /// We do not share it, and someone has it.
    Share,
}

/// An image cannot be opened, created or changed. `Display` is QEMU's message without the program's name;
/// [`OpenError::hint`] is the line that QEMU prints after some of them.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refused the file.
    #[error("Could not open '{filename}': {}", reason(error))]
    Open {
        /// As typed.
        filename: String,
        /// The host's answer.
        error: io::Error,
    },
    /// A directory or another thing that is no file.
    #[error("'{driver}' driver requires '{filename}' to be {wanted}")]
    WrongKind {
        /// The protocol.
        driver: &'static str,
        /// As typed.
        filename: String,
        /// "a regular file", ….
        wanted: &'static str,
    },
    /// Another process has the image.
    #[error("Failed to get {}\"{permission}\" lock", if *kind == LockKind::Share { "shared " } else { "" })]
    Lock {
        /// Which side of the protocol failed.
        kind: LockKind,
        /// The permission's name.
        permission: &'static str,
        /// As typed.
        filename: String,
    },
    /// No such driver in QEMU either.
    #[error("Unknown driver '{0}'")]
    UnknownDriver(String),
    /// No such protocol in QEMU either.
    #[error("Unknown protocol '{0}'")]
    UnknownProtocol(String),
    /// A driver of QEMU's that this program does not have.
    #[error("Block driver '{0}' is not supported by this version")]
    UnsupportedDriver(String),
    /// Something that QEMU's driver can do and ours cannot.
    #[error("{0} is not supported by this version")]
    Unsupported(String),
    /// The image is not of the format that was asked for.
    #[error("Image is not in {0} format")]
    WrongFormat(&'static str),
    /// A driver has no such option.
    #[error(
        "Block {} support the option '{option}'",
        if *protocol { format!("protocol '{driver}' doesn't") } else { format!("format '{driver}' does not") }
    )]
    UnknownOption {
        /// The driver.
        driver: String,
        /// Whether it is a protocol.
        protocol: bool,
        /// The option.
        option: String,
    },
    /// The backing file of an image.
    #[error("Could not open backing file: {0}")]
    Backing(Box<OpenError>),
    /// What a format's header says cannot be.
    #[error("{0}")]
    Image(String),
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Invalid(String),
    /// The host failed in the middle.
    #[error("{what}: {}", reason(error))]
    Io {
        /// What was being done, as QEMU says it.
        what: String,
        /// The host's answer.
        error: io::Error,
    },
}

impl OpenError {
    /// What QEMU prints on the next line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lock { filename, .. } => Some(format!("Is another process using the image [{filename}]?")),
            Self::Backing(inner) => inner.hint(),
            _ => None,
        }
    }

    /// The message and its hint, as they go to standard error after the program's name.
    #[must_use]
    pub fn full_text(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}\n{hint}"),
            None => self.to_string(),
        }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

impl From<ObjectError> for OpenError {
    fn from(error: ObjectError) -> Self {
        Self::Invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_qemu() {
        let missing = OpenError::Open { filename: "nope.img".into(), error: io::Error::from_raw_os_error(2) };
        assert_eq!(missing.to_string(), "Could not open 'nope.img': No such file or directory");
        let locked = OpenError::Lock { kind: LockKind::Use, permission: "write", filename: "a.img".into() };
        assert_eq!(locked.full_text(), "Failed to get \"write\" lock\nIs another process using the image [a.img]?");
        let shared = OpenError::Lock { kind: LockKind::Share, permission: "write", filename: "a.img".into() };
        assert_eq!(shared.to_string(), "Failed to get shared \"write\" lock");
    }
}
