//! The process: start-up order, signals, exit status.

mod background;
mod control;
mod debugger;
mod qtree;
mod start;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::options::{self, Parsed};

/// Runs the machine emulator with its command line, program name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    crate::host::signal::ignore_broken_pipes();
    let tables = start::tables();
    match options::parse(args, &tables) {
        Ok(Parsed::Print { text, status }) => {
            // A reader that has gone away wants no help.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(status)
        }
        Err(failure) => {
            eprintln!("{}", failure.text);
            ExitCode::from(failure.status)
        }
        Ok(Parsed::Run(config)) => match start::run(&config) {
            Ok(status) => ExitCode::from(status),
            Err(error) => {
                eprintln!("{}", crate::machine::message(&error.to_string()));
                ExitCode::FAILURE
            }
        },
    }
}
