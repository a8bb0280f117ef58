//! What `-device help` and `-device X,help` show of this family.

/// A property of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property {
    /// Name on the command line.
    pub name: &'static str,
    /// Type as `-device X,help` shows it.
    pub kind: &'static str,
}

/// A class of devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Name on the command line.
    pub name: &'static str,
    /// Bus that it plugs into.
    pub bus: &'static str,
    /// Description, if it has one.
    pub desc: Option<&'static str>,
    /// Properties.
    pub properties: &'static [Property],
}

/// The classes.
pub const CLASSES: &[Class] = &[];
