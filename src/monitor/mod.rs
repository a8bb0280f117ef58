//! Monitors: what people (HMP) and programs (QMP) say to a machine.
//!
//! A monitor acts on the machine through [`Control`], which answers with the plain data of [`info`].

mod control;
pub mod info;

pub use control::{
    CommandError, CommandResult, Control, DriveName, ErrorClass, IfConnected, NewMedium, PortWidth, ReadOnlyMode,
};
