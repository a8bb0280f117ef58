//! `open`, `close`, `reopen`, and the image that the command line names.

use super::command::Parsed;
use super::session::{Failure, Outcome, Session};
use crate::block::{CacheMode, Image, NodeOptions, OpenFlags};
use crate::img::args::key_values;

/// How to open an image, as the program's options and those of `open` say.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenArgs {
    read_only: bool,
    snapshot: bool,
    copy_on_read: bool,
    force_share: bool,
    cache: Option<String>,
    discard: Option<String>,
    aio: Option<String>,
    /// Buffers at odd addresses.
    pub(super) misalign: bool,
}

impl OpenArgs {
    /// Sets what an option says, by its long name.
    ///
    /// # Errors
    /// QEMU's text for a value that there is not.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "read-only" => self.read_only = true,
            "snapshot" => self.snapshot = true,
            "copy-on-read" => self.copy_on_read = true,
            "force-share" => self.force_share = true,
            "nocache" => self.cache = Some("none".to_owned()),
            "native-aio" => self.aio = Some("native".to_owned()),
            "cache" => {
                CacheMode::by_name(value).ok_or_else(|| format!("Invalid cache option: {value}"))?;
                self.cache = Some(value.to_owned());
            }
            "aio" => match value {
                "threads" | "native" | "io_uring" => self.aio = Some(value.to_owned()),
                _ => return Err(format!("Invalid aio option: {value}")),
            },
            "discard" => match value {
                "ignore" | "off" | "unmap" | "on" => self.discard = Some(value.to_owned()),
                _ => return Err(format!("Invalid discard option: {value}")),
            },
            _ => {}
        }
        Ok(())
    }

    fn apply(&self, mut options: NodeOptions) -> NodeOptions {
        let pairs = [("cache", &self.cache), ("discard", &self.discard), ("aio", &self.aio)];
        for (key, value) in pairs {
            if let Some(value) = value {
                options.options.entry(key).or_insert_with(|| value.as_str().into());
            }
        }
        // Discards reach the host unless something else is asked for.
        options.options.entry("discard").or_insert("unmap".into());
        for (key, on) in [("copy-on-read", self.copy_on_read), ("force-share", self.force_share)] {
            if on {
                options.options.entry(key).or_insert(true.into());
            }
        }
        options
    }

    fn flags(&self) -> OpenFlags {
        OpenFlags { read_only: self.read_only, snapshot: self.snapshot, ..OpenFlags::default() }
    }
}

/// The open image, and what it was opened by.
pub(super) struct Opened {
    pub(super) image: Image,
    by: (NodeOptions, OpenFlags),
}

impl Session {
    /// Opens the image of the command line.
    ///
    /// # Errors
    /// What is wrong, without the program's name.
    pub(super) fn open_first(
        &mut self,
        file: &str,
        format: Option<&str>,
        image_opts: bool,
        args: &OpenArgs,
    ) -> Result<(), String> {
        let mut options = if image_opts { from_pairs(file) } else { NodeOptions::file(file) };
        options.driver = format.map(str::to_owned).or(options.driver);
        self.open_node(args.apply(options), args.flags(), (!image_opts).then_some(file))
    }

    fn open_node(&mut self, options: NodeOptions, flags: OpenFlags, shown: Option<&str>) -> Result<(), String> {
        if flags.read_only && options.options.get("copy-on-read").is_some_and(|value| value == true) {
            return Err(cannot_open(shown, "Can't use copy-on-read on read-only device"));
        }
        let image = self.try_open(&options, flags).map_err(|text| cannot_open(shown, &text))?;
        self.open = Some(Opened { image, by: (options, flags) });
        Ok(())
    }

    fn try_open(&mut self, options: &NodeOptions, flags: OpenFlags) -> Result<Image, String> {
        let mut opener = self.opener();
        let opened = opener.open(options, flags).map_err(|error| error.full_text());
        for warning in &opener.warnings {
            eprintln!("{warning}");
        }
        opened
    }
}

fn cannot_open(shown: Option<&str>, text: &str) -> String {
    match shown {
        Some(name) => format!("can't open device {name}: {text}"),
        None => format!("can't open: {text}"),
    }
}

fn from_pairs(text: &str) -> NodeOptions {
    let mut options = NodeOptions::default();
    for (key, value) in key_values(text) {
        options.options.insert(key, value.into());
    }
    options
}

pub(super) fn open(session: &mut Session, parsed: &Parsed) -> Outcome {
    const NAMES: &[(char, &str)] = &[
        ('s', "snapshot"),
        ('n', "nocache"),
        ('C', "copy-on-read"),
        ('r', "read-only"),
        ('k', "native-aio"),
        ('i', "aio"),
        ('t', "cache"),
        ('d', "discard"),
        ('U', "force-share"),
    ];
    let mut args = OpenArgs::default();
    let mut options = NodeOptions::default();
    for (letter, value) in parsed.flags() {
        match NAMES.iter().find(|(known, _)| *known == letter) {
            Some((_, name)) => args.set(name, value).map_err(Failure::Named)?,
            None => options.options.extend(from_pairs(value).options), // -o
        }
    }
    let file = match parsed.rest.as_slice() {
        [] => None,
        [file] => Some(file.as_str()),
        _ => return Err(Failure::Usage),
    };
    if session.open.is_some() {
        return Err(Failure::Named("file open already, try 'help close'".to_owned()));
    }
    options.filename = file.map(str::to_owned);
    session.open_node(args.apply(options), args.flags(), file).map_err(Failure::Named)
}

/// Opens the image again with other options; the old one is closed before, for its locks, and comes back if the new one
/// cannot be opened.
pub(super) fn reopen(session: &mut Session, parsed: &Parsed) -> Outcome {
    if !parsed.rest.is_empty() {
        return Err(Failure::Usage);
    }
    let named = |text: &str| Failure::Named(text.to_owned());
    if parsed.flags().filter(|(letter, _)| matches!(letter, 'r' | 'w')).count() > 1 {
        return Err(named("Only one -r/-w option may be given"));
    }
    let given = parsed.value('o').map(from_pairs).unwrap_or_default().options;
    if let Some(cache) = parsed.value('c') {
        CacheMode::by_name(cache).ok_or_else(|| Failure::Named(format!("Invalid cache option: {cache}")))?;
        if given.keys().any(|key| key == "cache" || key.starts_with("cache.")) {
            return Err(named("Cannot set both -c and the cache options"));
        }
    }
    if (parsed.has('r') || parsed.has('w')) && given.contains_key("read-only") {
        return Err(named("Cannot set both -r/-w and 'read-only'"));
    }
    let open = session.open.take().ok_or(Failure::Silent)?;
    let (old_options, old_flags) = open.by.clone();
    let mut options = old_options.clone();
    let mut flags = old_flags;
    if let Some(cache) = parsed.value('c') {
        options.options.retain(|key, _| !key.starts_with("cache."));
        options.options.insert("cache".to_owned(), cache.into());
    }
    options.options.extend(given);
    if parsed.has('r') {
        flags.read_only = true;
        options.options.shift_remove("read-only");
    }
    if parsed.has('w') {
        flags.read_only = false;
        options.options.shift_remove("read-only");
    }
    session.wait_all();
    let _ = open.image.node.flush(); // a read-only image has nothing to flush
    drop(open);
    let reopened = session.try_open(&options, flags);
    match reopened {
        Ok(image) => {
            session.open = Some(Opened { image, by: (options, flags) });
            Ok(())
        }
        Err(text) => {
            let old = session.try_open(&old_options, old_flags).map_err(Failure::Named)?;
            session.open = Some(Opened { image: old, by: (old_options, old_flags) });
            Err(Failure::Named(reopen_text(&text)))
        }
    }
}

/// An option that no driver has "cannot be changed".
fn reopen_text(text: &str) -> String {
    let unknown = text.strip_prefix("Block ").and_then(|rest| rest.split_once(" the option '"));
    match unknown.and_then(|(_, rest)| rest.strip_suffix('\'')) {
        Some(option) => format!("Cannot change the option '{option}'"),
        None => text.to_owned(),
    }
}
