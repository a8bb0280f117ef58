//! How reading a command line ends early: with a message, or with a text that was asked for.

use crate::keyval::ValueError;
use crate::keyval::suggest::with_hint;

/// Where a message points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The option being read.
    Here,
    /// Nowhere: the fault is in what several options came to.
    Nowhere,
    /// An option that was read earlier, as typed.
    Typed(String),
}

/// Why reading stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Text for standard output, and the exit status.
    Print(String, u8),
    /// Messages for standard error; the exit status is 1.
    Fault(Vec<(Origin, String)>),
}

impl Stop {
    /// A fault of the option being read.
    pub(super) fn here(text: impl Into<String>) -> Self {
        Self::Fault(vec![(Origin::Here, text.into())])
    }

    /// A fault of the whole.
    pub(super) fn nowhere(text: impl Into<String>) -> Self {
        Self::Fault(vec![(Origin::Nowhere, text.into())])
    }

    /// A fault of an option that was read earlier.
    pub(super) fn at(origin: &str, text: impl Into<String>) -> Self {
        Self::Fault(vec![(typed(origin), text.into())])
    }

    /// What QEMU has and this program does not.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::here(format!("{what} is not supported by this version"))
    }

    /// A fault about a word, with the nearest right one.
    pub(super) fn misspelt<'a>(text: String, wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Self {
        Self::here(with_hint(text, wrong, right))
    }

    /// Points messages about the option being read at `origin`.
    pub(super) fn of_option(self, origin: &str) -> Self {
        match self {
            Self::Fault(lines) => Self::Fault(
                lines
                    .into_iter()
                    .map(|(at, text)| (if at == Origin::Here { typed(origin) } else { at }, text))
                    .collect(),
            ),
            print => print,
        }
    }

    /// Points every message nowhere: some of QEMU's checks run after it has forgotten the option.
    pub(super) fn anywhere(self) -> Self {
        match self {
            Self::Fault(lines) => Self::Fault(lines.into_iter().map(|(_, text)| (Origin::Nowhere, text)).collect()),
            print => print,
        }
    }

    /// Adds a second message of the same option.
    pub(super) fn and(self, text: String) -> Self {
        match self {
            Self::Fault(mut lines) => {
                lines.push((Origin::Here, text));
                Self::Fault(lines)
            }
            print => print,
        }
    }
}

fn typed(origin: &str) -> Origin {
    match origin {
        "" => Origin::Nowhere,
        origin => Origin::Typed(origin.into()),
    }
}

impl From<ValueError> for Stop {
    fn from(error: ValueError) -> Self {
        Self::here(error.to_string())
    }
}

/// What a step of reading gives.
pub(super) type Step<T = ()> = Result<T, Stop>;
