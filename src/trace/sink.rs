//! The `log` crate's back end.

use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::host::reason;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock::since_epoch;
use super::pattern::Patterns;
use super::{ITEMS, Item, filter, item, timestamp};

/// What the command line says about logging.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// What messages of the program start with.
    pub program: String,
    /// `-d` items.
    pub items: Vec<String>,
    /// `-D`; without it, standard error. One `%d` becomes the process's number.
    pub file: Option<PathBuf>,
    /// `-dfilter`; none: all code.
    pub filter: Vec<RangeInclusive<u64>>,
    /// `-trace` patterns.
    pub patterns: Vec<String>,
    /// `-trace file=`; without it, where the items go.
    pub trace_file: Option<PathBuf>,
    /// Whether lines start with the time.
    pub timestamp: bool,
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be made.
    #[error("Error opening logfile {}: {}", path.display(), reason(source))]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name has more than one `%`, or one that is not `%d`.
    #[error("Bad logfile template: {0}")]
    Template(String),
    /// There is no such item, or nothing writes it.
    #[error("log item '{0}' is not supported by this version")]
    Item(String),
    /// Another back end was installed before.
    #[error("the log has a back end already")]
    Installed,
}

/// What is wanted, and where it goes.
struct State {
    program: String,
    items: Vec<String>,
    patterns: Patterns,
    file: Option<File>,
    trace_file: Option<File>,
    timestamp: bool,
}

struct Sink {
    state: Mutex<State>,
}

static SINK: Sink = Sink {
    state: Mutex::new(State {
        program: String::new(),
        items: Vec::new(),
        patterns: Patterns::new(),
        file: None,
        trace_file: None,
        timestamp: false,
    }),
};

/// The items that are on, a bit each by [`Item`]'s order.
static ENABLED: AtomicU32 = AtomicU32::new(0);

/// Whether an item is on: one relaxed load.
#[must_use]
pub fn item_enabled(item: Item) -> bool {
    ENABLED.load(Ordering::Relaxed) & bit(item) != 0
}

fn bit(item: Item) -> u32 {
    1 << item as u32
}

/// Writes a text of one or more whole lines where the items go, all of it or nothing in between.
pub fn print(text: &str) {
    let mut state = SINK.state.lock().unwrap_or_else(PoisonError::into_inner);
    // A log that cannot be written has nowhere to say so.
    let _ = match &mut state.file {
        Some(file) => file.write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    };
}

/// What a record is, by its target and level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Message,
    Item,
    Point,
}

fn what(metadata: &Metadata<'_>) -> What {
    match metadata.level() {
        // The crate's words about odd packets are for nobody who did not ask.
        _ if metadata.target().starts_with("gdbstub") => What::Point,
        Level::Error | Level::Warn | Level::Info => What::Message,
        _ if item(metadata.target()).is_some() => What::Item,
        _ => What::Point,
    }
}

impl State {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        match what(metadata) {
            What::Message => true,
            What::Item => self.items.iter().any(|item| item == metadata.target()),
            What::Point => self.patterns.matches(metadata.target()),
        }
    }

    fn line(&self, record: &Record<'_>) -> String {
        let text = record.args();
        match what(record.metadata()) {
            What::Message => {
                let stamp = if self.timestamp { format!("{} ", timestamp()) } else { String::new() };
                let level = match record.level() {
                    Level::Warn => "warning: ",
                    Level::Info => "info: ",
                    _ => "",
                };
                format!("{stamp}{}: {level}{text}\n", self.program)
            }
            What::Item => format!("{text}\n"),
            What::Point => {
                let now = since_epoch();
                let stamp = match self.timestamp {
                    true => format!("{}@{}.{:06}:", std::process::id(), now.as_secs(), now.subsec_micros()),
                    false => String::new(),
                };
                format!("{stamp}{} {text}\n", record.target())
            }
        }
    }

    fn write(&mut self, record: &Record<'_>) {
        let line = self.line(record);
        let file = match what(record.metadata()) {
            What::Message => None,
            What::Item => self.file.as_mut(),
            What::Point => self.trace_file.as_mut().or(self.file.as_mut()),
        };
        // A log that cannot be written has nowhere to say so.
        let _ = match file {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn level(&self) -> LevelFilter {
        if !self.patterns.is_empty() {
            return LevelFilter::Trace;
        }
        if !self.items.is_empty() { LevelFilter::Debug } else { LevelFilter::Info }
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wants(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.wants(record.metadata()) {
            state.write(record);
        }
    }

    fn flush(&self) {}
}

/// Puts the process's number in a file name.
fn expand(path: &Path) -> Result<PathBuf, TraceError> {
    let Some(text) = path.to_str() else { return Ok(path.to_owned()) };
    match text.split_once('%') {
        None => Ok(path.to_owned()),
        Some((before, after)) => match after.strip_prefix('d') {
            Some(after) if !after.contains('%') => Ok(PathBuf::from(format!("{before}{}{after}", std::process::id()))),
            _ => Err(TraceError::Template(text.to_owned())),
        },
    }
}

fn open(path: &Path) -> Result<File, TraceError> {
    let path = expand(path)?;
    File::create(&path).map_err(|source| TraceError::Open { path, source })
}

fn check_items(items: &[String]) -> Result<(), TraceError> {
    match items.iter().find(|name| !item(name).is_some_and(|item| item.implemented)) {
        Some(name) => Err(TraceError::Item(name.clone())),
        None => Ok(()),
    }
}

fn mask(items: &[String]) -> u32 {
    let known = ITEMS.iter().filter(|info| items.iter().any(|name| name == info.name));
    known.fold(0, |mask, info| mask | bit(info.item))
}

fn change(with: impl FnOnce(&mut State)) {
    let mut state = SINK.state.lock().unwrap_or_else(PoisonError::into_inner);
    with(&mut state);
    log::set_max_level(state.level());
    ENABLED.store(mask(&state.items), Ordering::Relaxed);
}

/// Installs the back end; once a process.
pub fn install(settings: &Settings) -> Result<(), TraceError> {
    check_items(&settings.items)?;
    let file = settings.file.as_deref().map(open).transpose()?;
    let trace_file = settings.trace_file.as_deref().map(open).transpose()?;
    log::set_logger(&SINK).map_err(|_| TraceError::Installed)?;
    filter::set(&settings.filter);
    change(|state| {
        state.program.clone_from(&settings.program);
        state.items.clone_from(&settings.items);
        settings.patterns.iter().for_each(|pattern| state.patterns.add(pattern));
        state.file = file;
        state.trace_file = trace_file;
        state.timestamp = settings.timestamp;
    });
    Ok(())
}

/// The monitor's `log`: other items; none turns logging off.
pub fn set_items(items: &[String]) -> Result<(), TraceError> {
    check_items(items)?;
    change(|state| state.items = items.to_vec());
    Ok(())
}

/// The items that are on.
pub fn items() -> Vec<String> {
    SINK.state.lock().unwrap_or_else(PoisonError::into_inner).items.clone()
}

/// The monitor's `logfile`: another file.
pub fn set_file(path: &Path) -> Result<(), TraceError> {
    let file = open(path)?;
    change(|state| state.file = Some(file));
    Ok(())
}

/// The monitor's `trace-event`: switches what matches a pattern.
pub fn set_pattern(pattern: &str, on: bool) {
    let pattern = if on { pattern.to_owned() } else { format!("-{pattern}") };
    change(|state| state.patterns.add(&pattern));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(items: &[&str], patterns: &[&str]) -> State {
        let mut state = State {
            program: "qemu-kvm".into(),
            items: items.iter().map(|&i| i.to_owned()).collect(),
            patterns: Patterns::new(),
            file: None,
            trace_file: None,
            timestamp: false,
        };
        patterns.iter().for_each(|p| state.patterns.add(p));
        state
    }

    fn metadata(level: Level, target: &str) -> Metadata<'_> {
        Metadata::builder().level(level).target(target).build()
    }

    #[test]
    fn items_are_written_when_asked_for() {
        let state = state(&["unimp"], &[]);
        assert!(state.wants(&metadata(Level::Debug, "unimp")));
        assert!(!state.wants(&metadata(Level::Debug, "guest_errors")));
        assert_eq!(state.level(), LevelFilter::Debug);
    }

    #[test]
    fn points_are_written_when_a_pattern_matches() {
        let state = state(&[], &["ide_*"]);
        assert!(state.wants(&metadata(Level::Trace, "ide_exec_cmd")));
        assert!(!state.wants(&metadata(Level::Trace, "vga_read")));
        assert_eq!(state.level(), LevelFilter::Trace);
    }

    #[test]
    fn nothing_asked_for_leaves_messages_only() {
        let state = state(&[], &[]);
        assert!(state.wants(&metadata(Level::Warn, "dromaius::hw")));
        assert!(!state.wants(&metadata(Level::Trace, "ide_exec_cmd")));
        assert_eq!(state.level(), LevelFilter::Info);
        // Of an odd packet the crate says something at level info.
        assert!(!state.wants(&metadata(Level::Info, "gdbstub::stub::core_impl")));
    }

    #[test]
    fn lines_read_as_qemus() {
        let state = state(&[], &[]);
        let text = format_args!("no such file");
        let record = |level, target| state.line(&Record::builder().level(level).target(target).args(text).build());
        assert_eq!(record(Level::Warn, "x"), "qemu-kvm: warning: no such file\n");
        assert_eq!(record(Level::Error, "x"), "qemu-kvm: no such file\n");
        assert_eq!(record(Level::Debug, "unimp"), "no such file\n");
        assert_eq!(record(Level::Trace, "ide_exec_cmd"), "ide_exec_cmd no such file\n");
    }

    #[test]
    fn a_file_name_takes_the_process_number_once() {
        let pid = std::process::id();
        assert_eq!(expand(Path::new("a%d.log")).unwrap(), PathBuf::from(format!("a{pid}.log")));
        assert_eq!(expand(Path::new("a%d%d")).unwrap_err().to_string(), "Bad logfile template: a%d%d");
        assert!(expand(Path::new("a%s")).is_err());
    }

    #[test]
    fn an_item_that_nothing_writes_is_refused() {
        let error = check_items(&["op".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "log item 'op' is not supported by this version");
    }

    #[test]
    fn each_item_has_a_bit_of_its_own() {
        let all: Vec<String> = ITEMS.iter().map(|info| info.name.to_owned()).collect();
        assert_eq!(mask(&all), (1 << ITEMS.len()) - 1);
        assert_eq!(mask(&["out_asm".to_owned()]), 1);
        assert_eq!(mask(&["in_asm".to_owned(), "cpu".to_owned()]), bit(Item::InAsm) | bit(Item::Cpu));
        assert_eq!(mask(&[]), 0);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let error = open(Path::new("/nonexistent/x")).unwrap_err();
        assert_eq!(error.to_string(), "Error opening logfile /nonexistent/x: No such file or directory");
    }
}
