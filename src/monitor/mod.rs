//! Monitors: what people (HMP) and programs (QMP) say to a machine.
//!
//! A monitor acts on the machine through [`Control`], which answers with the plain data of [`info`].

mod control;
pub mod dump;
pub mod hmp;
mod human;
pub mod info;
pub mod keys;
mod operations;
pub mod paging;
mod qmp;
pub mod readline;
pub mod registers;
mod sessions;
#[cfg(test)]
mod tests;
pub mod text;
pub mod version;

pub use control::{
    CommandError, CommandResult, Control, DriveName, ErrorClass, IfConnected, NewMedium, PortWidth, ReadOnlyMode,
};
pub use sessions::{Mode, Monitors};
