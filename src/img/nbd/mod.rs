//! `qemu-nbd`: shows an image to others by the Network Block Device protocol.
//!
//! Absent: TLS, and the kernel's client (`-c`, `-d`); both are refused by name.

mod help;
mod list;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use super::getopt;
use crate::block::nbd::Address;
use crate::block::{CacheMode, NodeOptions, OpenFlags};
use crate::object::{Added, Objects};

/// Why the program ends.
enum Stop {
    /// With a text on standard output.
    Text(String),
    /// With an error.
    Error(String),
}

fn error<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Error(text.into()))
}

/// What the command line asks for.
struct Options {
    port: Option<u16>,
    bind: Option<String>,
    socket: Option<String>,
    shared: usize,
    persistent: bool,
    verbose: bool,
    name: String,
    description: Option<String>,
    handshake_limit: u64,
    offset: u64,
    allocation_depth: bool,
    bitmaps: Vec<String>,
    list: bool,
    fork: bool,
    pid_file: Option<String>,
    node: NodeOptions,
    image_opts: bool,
    read_only: bool,
    snapshot: bool,
    load_snapshot: Option<String>,
    objects: Objects,
    file: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: None,
            bind: None,
            socket: None,
            shared: 1,
            persistent: false,
            verbose: false,
            name: String::new(),
            description: None,
            handshake_limit: 10,
            offset: 0,
            allocation_depth: false,
            bitmaps: Vec::new(),
            list: false,
            fork: false,
            pid_file: None,
            // Discards of clients reach the image.
            node: NodeOptions::default().with("discard", "unmap"),
            image_opts: false,
            read_only: false,
            snapshot: false,
            load_snapshot: None,
            objects: Objects::default(),
            file: None,
        }
    }
}

/// Runs `qemu-nbd` with its command line, program name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let done =
        parse(args.skip(1)).and_then(|options| if options.list { list::run(&options) } else { serve::run(options) });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Text(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Stop::Error(text)) => {
            eprintln!("qemu-nbd: {text}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Options, Stop> {
    let (given, mut files) = getopt::scan(args, help::OPTIONS)
        .map_err(|text| Stop::Error(format!("{text}\nqemu-nbd: Try `qemu-nbd --help' for more information.")))?;
    let mut options = Options::default();
    for (name, value) in given {
        set(&mut options, name, value)?;
    }
    if options.list {
        return if files.is_empty() { Ok(options) } else { error("List mode is incompatible with a file name") };
    }
    if options.image_opts && options.node.driver.is_some() {
        return error("--image-opts and -f are mutually exclusive");
    }
    if options.socket.is_some() && (options.port.is_some() || options.bind.is_some()) {
        return error("-k and -p/-b are mutually exclusive");
    }
    if files.len() != 1 {
        return error("Invalid number of arguments\nTry `qemu-nbd --help' for more information.");
    }
    options.file = files.pop();
    Ok(options)
}

fn set(options: &mut Options, name: &str, value: String) -> Result<(), Stop> {
    let number = |what: &str| {
        crate::keyval::value::parse_number("", &value).map_err(|_| Stop::Error(format!("Invalid {what} '{value}'")))
    };
    match name {
        "help" => return Err(Stop::Text(help::usage())),
        "version" => return Err(Stop::Text(help::version())),
        "port" => {
            let port = u16::try_from(number("port")?).ok().filter(|port| *port > 0);
            options.port = Some(port.ok_or_else(|| Stop::Error(format!("Invalid port '{value}'")))?);
        }
        "bind" => options.bind = Some(value),
        "socket" if !value.starts_with('/') => return error("socket path must be absolute"),
        "socket" => options.socket = Some(value),
        "shared" => options.shared = usize::try_from(number("shared device number")?).unwrap_or(usize::MAX),
        "persistent" => options.persistent = true,
        "verbose" => options.verbose = true,
        "export-name" if value.len() > 4096 => return error("export name must be 4096 bytes at most"),
        "export-name" => options.name = value,
        "description" if value.len() > 4096 => return error("export description must be 4096 bytes at most"),
        "description" => options.description = Some(value),
        "handshake-limit" => options.handshake_limit = number("handshake limit")?,
        "offset" => options.offset = number("offset")?,
        "allocation-depth" => options.allocation_depth = true,
        "bitmap" => options.bitmaps.push(value),
        "list" => options.list = true,
        "fork" => options.fork = true,
        "pid-file" => options.pid_file = Some(value),
        "object" => match options.objects.add(&value) {
            Ok(Added::Made) => {}
            Ok(Added::Help(text)) => return Err(Stop::Text(text)),
            Err(failure) => return error(failure.to_string()),
        },
        "image-opts" => options.image_opts = true,
        "format" => options.node.driver = Some(value),
        "read-only" => options.read_only = true,
        "snapshot" => options.snapshot = true,
        "load-snapshot" => {
            options.load_snapshot = Some(super::source::snapshot_name(&value).map_err(|f| Stop::Error(f.message))?)
        }
        "nocache" => set_node(options, "cache", "none"),
        "cache" if CacheMode::by_name(&value).is_none() => return error(format!("Invalid cache mode `{value}'")),
        "discard" if !["ignore", "off", "unmap", "on"].contains(&value.as_str()) => {
            return error(format!("Invalid discard mode `{value}'"));
        }
        "aio" if !["threads", "native", "io_uring"].contains(&value.as_str()) => {
            return error(format!("Invalid aio mode '{value}'"));
        }
        "detect-zeroes" if !["off", "on", "unmap"].contains(&value.as_str()) => {
            return error(format!("Failed to parse detect_zeroes mode: invalid parameter value: {value}"));
        }
        "cache" | "discard" | "aio" | "detect-zeroes" => set_node(options, name, &value),
        // tls-creds, tls-authz, tls-hostname, trace, selinux-label, connect, disconnect
        other => return error(format!("--{other} is not supported by this version")),
    }
    Ok(())
}

fn set_node(options: &mut Options, key: &str, value: &str) {
    options.node.options.insert(key.to_owned(), value.into());
}

impl Options {
    /// Where the server is, or is to be.
    fn address(&self) -> Address {
        match &self.socket {
            Some(path) => Address::Unix(path.clone()),
            None => Address::Tcp(self.bind.clone().unwrap_or_else(|| "0.0.0.0".to_owned()), self.port.unwrap_or(10809)),
        }
    }

    fn flags(&self) -> OpenFlags {
        let read_only = self.read_only || self.load_snapshot.is_some();
        OpenFlags { read_only, snapshot: self.snapshot, ..OpenFlags::default() }
    }
}
