//! The image tool: one file per subcommand. What several of them do is in [`copy`] (moving data between images by
//! several threads), `source` (how an image is named and opened), `args` (getopt's rules) and `progress`.

mod amend;
mod args;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod copy;
mod create;
mod create_options;
mod dd;
mod getopt;
mod help;
pub mod info;
pub mod io;
mod map;
mod measure;
pub mod nbd;
mod program;
mod progress;
mod rebase;
mod report;
mod resize;
mod snapshot;
mod source;
mod zeros;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::host::{reason, signal};
use progress::Interrupted;

/// QEMU's version whose behaviour this program has.
const QEMU_VERSION: &str = "10.0.2";

/// Why a command ended early: what goes to standard error, and the exit status.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
    /// The signal to end by, when the message is out.
    signal: Option<i32>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: format!("{}: {}", program::name(), message.into()), status: 1, signal: None }
    }

    /// Wrong use of a command.
    fn usage(command: &str, message: impl Into<String>) -> Self {
        let hint = format!("Try '{} {command} --help' for more info", program::called());
        Self::new(format!("{}\n{hint}", message.into()))
    }

    /// A call failed: `what` and the host's reason. If a signal ended it, `how_far` says what had been done.
    fn io(what: &str, error: &std::io::Error, how_far: &str) -> Self {
        match Interrupted::of(error) {
            Some(interrupted) => {
                let end = Self::new(format!("{interrupted}: {how_far}"));
                Self { signal: Some(interrupted.signal), ..end }
            }
            None => Self::new(format!("{what}: {}", reason(error))),
        }
    }

    fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }
}

/// What commands return: the exit status.
type Outcome = Result<u8, Failure>;

/// Runs `qemu-img` with its command line, program name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    program::set(args.first());
    match run(args.get(1..).unwrap_or_default()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            match failure.signal {
                Some(number) => signal::end_by(number),
                None => ExitCode::from(failure.status),
            }
        }
    }
}

fn run(args: &[OsString]) -> Outcome {
    let hint = || format!("Try '{} --help' for more info", program::called());
    let missing = || Failure::new(format!("Not enough arguments\n{}", hint()));
    let (command, rest) = args.split_first().ok_or_else(missing)?;
    let command = command.to_string_lossy();
    match command.as_ref() {
        "-h" | "--help" => {
            print!("{}", help::main_text());
            Ok(0)
        }
        "-V" | "--version" => {
            print!("{}", help::version_text());
            Ok(0)
        }
        "-T" | "--trace" => Err(Failure::new("--trace is not supported by this version")),
        "amend" => amend::run(rest),
        "bench" => bench::run(rest),
        "bitmap" => bitmap::run(rest),
        "check" => check::run(rest),
        "commit" => commit::run(rest),
        "compare" => compare::run(rest),
        "convert" => convert::run(rest),
        "create" => create::run(rest),
        "dd" => dd::run(rest),
        "info" => info::run(rest),
        "map" => map::run(rest),
        "measure" => measure::run(rest),
        "rebase" => rebase::run(rest),
        "resize" => resize::run(rest),
        "snapshot" => snapshot::run(rest),
        other => Err(unknown_command(other, &hint())),
    }
}

fn unknown_command(name: &str, hint: &str) -> Failure {
    let getopt = match name.strip_prefix("--") {
        Some(_) => Some(format!("unrecognized option '{name}'")),
        None => name.strip_prefix('-').and_then(|rest| rest.chars().next()).map(|c| format!("invalid option -- '{c}'")),
    };
    match getopt {
        Some(text) => Failure { message: format!("{}: {text}\n{hint}", program::called()), status: 1, signal: None },
        None => Failure::new(format!("Command not found: {name}\n{hint}")),
    }
}
