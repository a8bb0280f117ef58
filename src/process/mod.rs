//! The process: start-up order, signals, exit status.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the machine emulator with its command line, program name first.
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
