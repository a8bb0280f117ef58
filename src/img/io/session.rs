//! A session: the open image, requests in flight, and the running of one line.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::command::{self, Command, Needs, Parsed};
use super::open::Opened;
use super::request::Target;
use super::{debug, help, inspect, open, transfer};
use crate::block::{Image, Opener};
use crate::host;
use crate::object::Objects;

/// What comes after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Go,
    Quit,
}

/// Why a command failed: what it says, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// On standard output.
    Said(String),
    /// On standard error.
    Complained(String),
    /// On standard error, with the program's name in front.
    Named(String),
    /// getopt's complaint on standard error, then the command's usage on standard output.
    Getopt(String),
    /// The command's usage on standard output.
    Usage,
    /// Everything was said already.
    Silent,
}

impl Failure {
    /// "read failed: Input/output error".
    pub(super) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Said(format!("{what} failed: {}", host::plain_reason(error)))
    }
}

/// What commands return.
pub(super) type Outcome = Result<(), Failure>;

/// Prints; nobody may be listening.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// How long an asynchronous request is waited for before the next command: so those that end at once end in order.
const HEAD_START: Duration = Duration::from_millis(20);

/// A session.
pub(super) struct Session {
    /// What `--object` made.
    pub(super) objects: Objects,
    /// The open image.
    pub(super) open: Option<Opened>,
    /// Whether buffers are at odd addresses.
    pub(super) misalign: bool,
    /// Whether a command failed.
    pub(super) failed: bool,
    in_flight: usize,
    ended: (Sender<String>, Arc<Mutex<Receiver<String>>>),
}

impl Session {
    pub(super) fn new(misalign: bool) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            objects: Objects::default(),
            open: None,
            misalign,
            failed: false,
            in_flight: 0,
            ended: (sender, Arc::new(Mutex::new(receiver))),
        }
    }

    /// What opens images, with this session's objects.
    pub(super) fn opener(&self) -> Opener {
        Opener::with_objects(self.objects.clone())
    }

    /// The open image.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn image(&self) -> Result<&Image, Failure> {
        self.open.as_ref().map(|open| &open.image).ok_or(Failure::Silent)
    }

    /// What requests go to.
    ///
    /// # Errors
    /// There is no image.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        self.image().map(Target::new)
    }

    /// Runs one line.
    pub(super) fn run(&mut self, line: &str) -> Next {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let Some((typed, args)) = words.split_first() else { return Next::Go };
        let Some(command) = command::find(typed) else {
            complain(&format!("command \"{typed}\" not found"));
            self.failed = true;
            return Next::Go;
        };
        if command.name == "quit" {
            return Next::Quit;
        }
        if let Err(failure) = self.start(command, typed, args) {
            self.failed = true;
            match failure {
                Failure::Said(text) => say(&format!("{text}\n")),
                Failure::Complained(text) => complain(&text),
                Failure::Named(text) => complain(&format!("qemu-io: {text}")),
                Failure::Getopt(text) => {
                    complain(&text);
                    say(&command.usage());
                }
                Failure::Usage => say(&command.usage()),
                Failure::Silent => {}
            }
        }
        self.report_ended();
        Next::Go
    }

    fn start(&mut self, command: &Command, typed: &str, args: &[&str]) -> Outcome {
        if command.needs != Needs::Nothing && self.open.is_none() {
            return Err(Failure::Complained("no file open, try 'help open'".to_owned()));
        }
        command.check_count(typed, args.len()).map_err(Failure::Complained)?;
        if command.needs == Needs::Writable && self.image()?.read_only {
            return Err(Failure::Named("Block node is read-only".to_owned()));
        }
        let parsed = |letters: &str| Parsed::new(letters, typed, args).map_err(Failure::Getopt);
        match command.name {
            "abort" => host::process::abort(),
            "aio_flush" => {
                self.wait_all();
                Ok(())
            }
            "aio_read" => transfer::aio_read(self, &parsed("CP:iqrv")?),
            "aio_write" => transfer::aio_write(self, &parsed("CfiP:qruz")?),
            "alloc" => inspect::alloc(self, args),
            "break" => debug::set_break(self, args),
            "close" => {
                self.close();
                Ok(())
            }
            "discard" => transfer::discard(self, &parsed("Cq")?),
            "flush" => self.target()?.flush().map_err(|error| Failure::io("flush", &error)),
            "help" => show_help(args),
            "info" => inspect::info(self.image()?),
            "length" => inspect::length(self.image()?),
            "map" => inspect::map(self.image()?),
            "open" => open::open(self, &parsed("snCro:ki:t:d:U")?),
            "read" => transfer::read(self, &parsed("abCl:pP:qrs:v")?),
            "readv" => transfer::readv(self, &parsed("CP:qrv")?),
            "remove_break" => debug::remove_break(self, args),
            "reopen" => open::reopen(self, &parsed("c:o:rw")?),
            "resume" => debug::resume(self, args),
            "sigraise" => debug::raise(args),
            "sleep" => debug::sleep(args),
            "truncate" => inspect::truncate(self, &parsed("m:")?),
            "wait_break" => debug::wait_break(self, args),
            "write" => transfer::write(self, &parsed("bcCfnpP:qrs:uz")?),
            "writev" => transfer::writev(self, &parsed("CfqrP:")?),
            zone => debug::zone(zone),
        }
    }

    /// Starts a request on a thread of its own; what it returns is printed when it ended.
    pub(super) fn launch(&mut self, work: impl FnOnce() -> String + Send + 'static) -> Outcome {
        let (first, waiting) = mpsc::channel();
        let ended = self.ended.0.clone();
        let started = std::thread::Builder::new().spawn(move || {
            // The session may be gone: then nobody waits for the report.
            let _ = ended.send(work());
            let _ = first.send(());
        });
        started.map_err(|error| Failure::io("aio", &error))?;
        self.in_flight += 1;
        let _ = waiting.recv_timeout(HEAD_START); // it may take longer
        Ok(())
    }

    /// Prints what ended meanwhile.
    fn report_ended(&mut self) {
        let receiver = Arc::clone(&self.ended.1);
        let receiver = receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while let Ok(text) = receiver.try_recv() {
            self.in_flight -= 1;
            say(&text);
        }
    }

    /// Waits for all requests in flight.
    pub(super) fn wait_all(&mut self) {
        let receiver = Arc::clone(&self.ended.1);
        let receiver = receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while self.in_flight > 0 {
            let Ok(text) = receiver.recv() else { return };
            self.in_flight -= 1;
            say(&text);
        }
    }

    /// Lets requests end, and closes the image.
    pub(super) fn close(&mut self) {
        if let Some(open) = &self.open {
            debug::resume_all(&open.image);
        }
        self.wait_all();
        if let Some(open) = self.open.take()
            && !open.image.read_only
        {
            let _ = open.image.node.flush(); // there is nobody to tell
        }
    }
}

fn show_help(args: &[&str]) -> Outcome {
    let Some(name) = args.first() else {
        say(&help::commands());
        return Ok(());
    };
    let command = command::find(name).ok_or_else(|| Failure::Said(format!("command {name} not found")))?;
    say(&help::command(command));
    Ok(())
}
