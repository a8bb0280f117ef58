//! The image tool: one file per subcommand.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `qemu-img` with its command line, program name first.
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
