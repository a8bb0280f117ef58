//! `qemu-io`: reads and writes an image by typed commands, for tests and for looking at images.
//!
//! Its output is QEMU 10.0's byte for byte, times excepted (`tests/io.rs`). On a terminal the line is edited by the
//! terminal itself.

mod command;
mod debug;
mod help;
mod inspect;
mod numbers;
mod open;
mod request;
mod session;
mod transfer;

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use open::OpenArgs;
use session::Session;

use super::getopt;

/// Bytes of a typed line at most.
const MAX_LINE: u64 = 1 << 20;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Options {
    commands: Vec<String>,
    format: Option<String>,
    image_opts: bool,
    objects: Vec<String>,
    open: OpenArgs,
    file: Option<String>,
}

/// Why the program ends before it does anything.
enum Stop {
    /// With a text on standard output, and this status.
    Text(String, u8),
    /// With an error.
    Error(String),
    /// With getopt's complaint and the usage.
    Usage(String),
}

/// Runs `qemu-io` with its command line, program name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(args.skip(1)).and_then(run) {
        Ok(status) => ExitCode::from(status),
        Err(Stop::Text(text, status)) => {
            print!("{text}");
            ExitCode::from(status)
        }
        Err(Stop::Error(text)) => {
            eprintln!("qemu-io: {text}");
            ExitCode::FAILURE
        }
        Err(Stop::Usage(text)) => {
            eprintln!("qemu-io: {text}");
            print!("{}", help::usage());
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Options, Stop> {
    let mut options = Options::default();
    let (given, mut files) = getopt::scan(args, help::OPTIONS).map_err(Stop::Usage)?;
    for (name, value) in given {
        set(&mut options, name, value)?;
    }
    if files.len() > 1 {
        return Err(Stop::Text(help::usage(), 1));
    }
    options.file = files.pop();
    if options.image_opts && options.format.is_some() {
        return Err(Stop::Error("--image-opts and -f are mutually exclusive".to_owned()));
    }
    Ok(options)
}

fn set(options: &mut Options, name: &str, value: String) -> Result<(), Stop> {
    match name {
        "help" => return Err(Stop::Text(help::usage(), 0)),
        "version" => return Err(Stop::Text(help::version(), 0)),
        "trace" => return Err(Stop::Error("--trace is not supported by this version".to_owned())),
        "cmd" => options.commands.push(value),
        "format" => options.format = Some(value),
        "image-opts" => options.image_opts = true,
        "object" => options.objects.push(value),
        "misalign" => options.open.misalign = true,
        name => options.open.set(name, &value).map_err(Stop::Error)?,
    }
    Ok(())
}

fn run(options: Options) -> Result<u8, Stop> {
    let mut session = Session::new(options.open.misalign);
    for object in &options.objects {
        match session.objects.add(object) {
            Ok(crate::object::Added::Made) => {}
            Ok(crate::object::Added::Help(text)) => return Err(Stop::Text(text, 0)),
            Err(error) => return Err(Stop::Error(error.to_string())),
        }
    }
    if let Some(file) = &options.file {
        let Options { format, image_opts, open, .. } = &options;
        session.open_first(file, format.as_deref(), *image_opts, open).map_err(Stop::Error)?;
    }
    if options.commands.is_empty() {
        interact(&mut session);
    } else {
        for command in &options.commands {
            if session.run(command) == session::Next::Quit {
                break;
            }
        }
    }
    session.close();
    Ok(u8::from(session.failed))
}

/// Reads commands from standard input, with a prompt.
fn interact(session: &mut Session) {
    let mut input = std::io::stdin().lock();
    loop {
        print!("qemu-io> ");
        let _ = std::io::stdout().flush(); // nobody may be listening
        let mut line = Vec::new();
        match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        if session.run(line.trim_end_matches('\n')) == session::Next::Quit {
            return;
        }
    }
}
