//! What the options said, before they are put together.

use serde_json::{Map, Value};

use super::stop::Origin;
use super::tables::Tables;
use crate::keyval::list::Flags;
use crate::keyval::{List, Pairs};
use crate::machine::config::{AccelSpec, Config, DriveInterface, MonitorSpec};

use super::stop::{Step, Stop};

/// One `-drive` or one of its short forms.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct RawDrive {
    /// As typed.
    pub(super) origin: String,
    /// `if=` of the short form.
    pub(super) interface: Option<DriveInterface>,
    /// Its keys.
    pub(super) pairs: Pairs,
}

/// One `-device`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct RawDevice {
    /// As typed.
    pub(super) origin: String,
    /// Its keys; the values of JSON input have their types.
    pub(super) map: Map<String, Value>,
    /// Whether `help` was among them.
    pub(super) help: bool,
    /// Whether it came as JSON.
    pub(super) typed: bool,
}

/// A legacy character device option (`-serial dev`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RawPort {
    /// As typed.
    pub(super) origin: String,
    /// The address.
    pub(super) address: String,
}

/// `-display` and its relatives, the last one counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DisplayChoice {
    /// Not said.
    Default,
    /// `-display none`, `-nographic`.
    None,
}

/// Which of the machine's own devices are still wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Defaults {
    pub(super) serial: bool,
    pub(super) parallel: bool,
    pub(super) monitor: bool,
    pub(super) cdrom: bool,
    pub(super) vga: bool,
    pub(super) network: bool,
}

/// What the options said. Options that stand for themselves write into `config` at once.
pub(super) struct Low<'t> {
    pub(super) tables: &'t Tables,
    pub(super) config: Config,
    /// `-machine`, with `smp` and `boot` as objects in it, as QEMU merges them.
    pub(super) machine: Map<String, Value>,
    pub(super) machine_help: bool,
    pub(super) smp: Map<String, Value>,
    pub(super) boot: Map<String, Value>,
    pub(super) accels: Vec<(String, AccelSpec)>,
    /// `-icount`, with the option as typed.
    pub(super) icount: Option<(String, Pairs)>,
    pub(super) cpu: Option<String>,
    pub(super) memory: Pairs,
    pub(super) memory_origin: String,
    pub(super) rtc: Pairs,
    pub(super) snapshot: bool,
    pub(super) drives: Vec<RawDrive>,
    pub(super) devices: Vec<RawDevice>,
    pub(super) chardevs: Vec<(String, Pairs)>,
    pub(super) serials: Vec<RawPort>,
    pub(super) parallels: Vec<RawPort>,
    pub(super) debugcons: Vec<RawPort>,
    /// Monitors in order; those of legacy options have their chardev made already.
    pub(super) monitors: Vec<MonitorSpec>,
    pub(super) legacy_monitors: u32,
    pub(super) vga: Option<String>,
    pub(super) display: DisplayChoice,
    pub(super) remote_display: bool,
    pub(super) kernel: Option<String>,
    pub(super) initrd: Option<String>,
    pub(super) append: Option<String>,
    pub(super) shim: Option<String>,
    pub(super) defaults: Defaults,
    /// `-d` as typed, for its own help.
    pub(super) log_items: Option<String>,
    /// The option being read, as typed.
    pub(super) origin: String,
}

impl<'t> Low<'t> {
    pub(super) fn new(tables: &'t Tables, program: String) -> Self {
        Self {
            tables,
            config: Config { program, defaults: true, ..Config::default() },
            machine: Map::new(),
            machine_help: false,
            smp: Map::new(),
            boot: Map::new(),
            accels: Vec::new(),
            icount: None,
            cpu: None,
            memory: Pairs::default(),
            memory_origin: String::new(),
            rtc: Pairs::default(),
            snapshot: false,
            drives: Vec::new(),
            devices: Vec::new(),
            chardevs: Vec::new(),
            serials: Vec::new(),
            parallels: Vec::new(),
            debugcons: Vec::new(),
            monitors: Vec::new(),
            legacy_monitors: 0,
            vga: None,
            display: DisplayChoice::Default,
            remote_display: false,
            kernel: None,
            initrd: None,
            append: None,
            shim: None,
            defaults: Defaults { serial: true, parallel: true, monitor: true, cdrom: true, vga: true, network: true },
            log_items: None,
            origin: String::new(),
        }
    }

    /// A line of standard error.
    pub(super) fn message(&self, origin: &Origin, text: &str) -> String {
        let stamp = match self.config.log.timestamp {
            true => format!("{} ", crate::trace::timestamp()),
            false => String::new(),
        };
        let guest = match (self.config.log.guest_name, &self.config.name) {
            (true, Some(name)) => format!("{name} "),
            _ => String::new(),
        };
        let program = &self.config.program;
        let origin = match origin {
            Origin::Here => self.origin.as_str(),
            Origin::Nowhere => "",
            Origin::Typed(typed) => typed,
        };
        match origin {
            "" => format!("{stamp}{guest}{program}: {text}"),
            // A place in a configuration file has no blank before it.
            place if place.starts_with(':') => format!("{stamp}{guest}{program}{place}: {text}"),
            typed => format!("{stamp}{guest}{program}: {typed}: {text}"),
        }
    }

    /// A warning about the option being read.
    pub(super) fn warn_here(&mut self, text: &str) {
        let line = self.message(&Origin::Here, &format!("warning: {text}"));
        self.config.warnings.push(line);
    }

    /// A warning about an option that was read earlier, or about none.
    pub(super) fn warn(&mut self, origin: &str, text: &str) {
        let origin = if origin.is_empty() { Origin::Nowhere } else { Origin::Typed(origin.into()) };
        let line = self.message(&origin, &format!("warning: {text}"));
        self.config.warnings.push(line);
    }

    /// Reads a flat list, with its warnings and its help.
    pub(super) fn list(&mut self, list: &List, text: &str) -> Step<Pairs> {
        self.list_with(list, text, list.implied, Flags::Warn)
    }

    /// The same with another implied key, or without warnings.
    pub(super) fn list_with(&mut self, list: &List, text: &str, implied: Option<&str>, flags: Flags) -> Step<Pairs> {
        let (mut pairs, result) = list.parse_with(text, implied, flags);
        for warning in std::mem::take(&mut pairs.warnings) {
            self.warn_here(&warning);
        }
        if pairs.help && !list.keys.is_empty() {
            return Err(Stop::Print(list.help(), 1));
        }
        result?;
        Ok(pairs)
    }
}
