//! The image tool: one file per subcommand.

mod args;
mod check;
mod compare;
mod convert;
mod create;
mod create_options;
mod help;
pub mod info;
pub mod io;
mod map;
mod report;
mod resize;
mod snapshot;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::block::{self, Image, NodeOptions, OpenFlags, Share};

/// QEMU's version whose behaviour this program has.
const QEMU_VERSION: &str = "10.0.2";

/// Commands of QEMU's that this version does not have.
const OTHER_COMMANDS: &[&str] = &["amend", "bench", "bitmap", "commit", "dd", "measure", "rebase"];

/// Why a command ended early: what goes to standard error, and the exit status.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: format!("qemu-img: {}", message.into()), status: 1 }
    }

    /// Wrong use of a command.
    fn usage(command: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message: format!("qemu-img: {message}\nTry 'qemu-img {command} --help' for more info"), status: 1 }
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
    let args: Vec<OsString> = args.skip(1).collect();
    match run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("{}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(args: &[OsString]) -> Outcome {
    let missing = || Failure {
        message: "qemu-img: Not enough arguments\nTry 'qemu-img --help' for more info".to_owned(),
        status: 1,
    };
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
        "check" => check::run(rest),
        "compare" => compare::run(rest),
        "convert" => convert::run(rest),
        "create" => create::run(rest),
        "info" => info::run(rest),
        "map" => map::run(rest),
        "resize" => resize::run(rest),
        "snapshot" => snapshot::run(rest),
        other if OTHER_COMMANDS.contains(&other) => {
            Err(Failure::new(format!("The command '{other}' is not supported by this version")))
        }
        other => {
            let message = match other.strip_prefix("--") {
                Some(_) => format!("unrecognized option '{other}'"),
                None => match other.strip_prefix('-').and_then(|rest| rest.chars().next()) {
                    Some(letter) => format!("invalid option -- '{letter}'"),
                    None => format!("Command not found: {other}"),
                },
            };
            let message = format!("qemu-img: {message}\nTry 'qemu-img --help' for more info");
            Err(Failure { message, status: 1 })
        }
    }
}

/// How a command names an image.
#[derive(Clone, Debug, Default)]
struct Source {
    filename: String,
    format: Option<String>,
    image_opts: bool,
    cache: Option<String>,
    force_share: bool,
}

impl Source {
    /// Opens the image; QEMU's warnings go to standard error.
    fn open(&self, flags: OpenFlags) -> Result<Image, Failure> {
        let mut options = if self.image_opts {
            let mut options = NodeOptions::default();
            for (key, value) in args::key_values(&self.filename) {
                options.options.insert(key, value.into());
            }
            options
        } else {
            NodeOptions::file(self.filename.clone())
        };
        options.driver.clone_from(&self.format);
        if let Some(cache) = &self.cache {
            options = options.with("cache", cache.as_str());
        }
        let share = if self.force_share { Share::Force } else { Share::Readers };
        let (image, warnings) = block::open(&options, OpenFlags { share, ..flags })
            .map_err(|error| Failure::new(format!("Could not open '{}': {}", self.filename, error.full_text())))?;
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(image)
    }
}
