//! The command line of `qemu-kvm`.
//!
//! [`parse`] reads it in QEMU's two passes: unknown options first, then every option in order ([`table`]), each checked
//! on its own; then [`resolve`] checks what they came to and fills in the machine's defaults. Every option that
//! `qemu-system-x86_64 --help` lists is in the table; what this version cannot do is refused by name. No key is
//! accepted and ignored.
//!
//! The words of messages, and where they point ("qemu-kvm: -hda x: …"), are QEMU 10.0's, with the nearest right word on
//! a line below where one was misspelt. `tests.rs` holds command lines whose messages were taken from QEMU itself.

mod blockdev;
mod boot;
mod chardev;
mod device;
mod display;
mod drive;
mod firmware;
mod gdb;
mod help;
mod icount;
mod lists;
mod logging;
mod low;
mod machine;
mod memory;
mod monitor;
mod network;
mod object;
mod process;
mod qtest;
mod readconfig;
mod resolve;
mod smp;
mod stop;
mod table;
mod tables;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use crate::machine::config::Config;
use low::Low;
use stop::{Origin, Stop};

pub use gdb::{CHARDEV as GDB_CHARDEV, DEFAULT_DEVICE as GDB_DEVICE, NO_CHARDEV as GDB_NO_CHARDEV, gdb_chardev};
pub use help::{QEMU_VERSION, version};
pub use machine::machine_types;
pub use network::parse_netdev;
pub use tables::{CpuModelInfo, DeviceInfo, PropertyInfo, Tables};

/// What a command line asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Parsed {
    /// A machine. `Config::warnings` go to standard error first.
    Run(Box<Config>),
    /// A text: help, a version.
    Print {
        /// For standard output.
        text: String,
        /// The exit status; some of QEMU's help texts exit with 1.
        status: u8,
    },
}

/// Why a command line is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// All of standard error, warnings included, without the last line's end.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

/// Reads a command line; the first argument is the program's own name.
pub fn parse(args: impl IntoIterator<Item = OsString>, tables: &Tables) -> Result<Parsed, Failure> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "qemu-kvm".into());
    let program = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
    let mut low = Low::new(tables, program);
    let result = match words(args) {
        Ok(args) => table::read(&mut low, &args).and_then(|()| resolve::resolve(&mut low)),
        Err(stop) => Err(stop),
    };
    match result {
        Ok(config) => Ok(Parsed::Run(Box::new(config))),
        Err(Stop::Print(text, status)) => Ok(Parsed::Print { text, status }),
        Err(Stop::Fault(faults)) => {
            let mut lines = std::mem::take(&mut low.config.warnings);
            lines.extend(faults.iter().map(|(origin, text)| low.message(origin, text)));
            Err(Failure { text: lines.join("\n"), status: 1 })
        }
    }
}

fn words(args: impl Iterator<Item = OsString>) -> Result<Vec<String>, Stop> {
    args.map(|arg| {
        arg.into_string().map_err(|arg| {
            let text = "argument is not valid UTF-8".to_owned();
            Stop::Fault(vec![(Origin::Typed(arg.to_string_lossy().into_owned()), text)])
        })
    })
    .collect()
}
