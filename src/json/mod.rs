//! JSON as QEMU has it.
//!
//! [`parse`] reads what QEMU's own reader takes beyond RFC 8259: strings in single quotes, and nothing else after the
//! value. [`pretty`] prints with four spaces a level, as `-qmp-pretty` and `qemu-img info --output=json` do, [`line`]
//! on one line with a blank after `:` and `,`, as QMP does.

mod print;
mod read;

pub use print::{line, pretty};
pub use read::{JsonError, parse};
