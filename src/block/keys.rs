//! The options that a driver's nodes take, and their types: what `-blockdev` and `-drive` check before anything is opened.

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// Any text.
    Text,
    /// on or off.
    Switch,
    /// A whole number.
    Integer,
    /// Bytes; `-drive` takes suffixes.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Another node: its name, or its own options.
    Node,
    /// Several of them.
    Nodes,
    /// Keys of its own, which the driver checks.
    Object,
    /// A list, which the driver checks.
    List,
    /// QEMU has it, this version does not.
    Refused,
}

/// Options by name.
pub type Keys = &'static [(&'static str, KeyKind)];

/// A format or filter without options.
pub const FILE: Keys = &[("file", KeyKind::Node)];

/// A format with backing files and no other options.
pub const FILE_AND_BACKING: Keys = &[("file", KeyKind::Node), ("backing", KeyKind::Node)];

/// I/O engines of QEMU.
pub const AIO: &[&str] = &["threads", "native", "io_uring"];
