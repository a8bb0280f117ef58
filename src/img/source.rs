//! How a command names an image, and what opening it takes.

use super::args::{Given, key_values};
use super::{Failure, program};
use crate::block::{CacheMode, Image, NodeOptions, OpenError, OpenFlags, Opener, Share};
use crate::object::{Added, Objects};

/// How a command names an image.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) filename: String,
    pub(super) format: Option<String>,
    pub(super) image_opts: bool,
    pub(super) cache: Option<String>,
    pub(super) force_share: bool,
    /// `aio=`, if it is to be given to the protocol.
    pub(super) aio: Option<&'static str>,
}

impl Source {
    /// What the block layer is asked for.
    pub(super) fn options(&self) -> NodeOptions {
        let mut options = if self.image_opts { from_text(&self.filename) } else { NodeOptions::file(&self.filename) };
        if self.format.is_some() {
            options.driver.clone_from(&self.format);
        }
        if let Some(cache) = &self.cache {
            options = options.with("cache", cache.as_str());
        }
        if let Some(aio) = self.aio {
            options = options.with("aio", aio);
        }
        options
    }

    /// Opens the image beside what `opener` knows; QEMU's warnings go to standard error.
    pub(super) fn open_with(&self, opener: &mut Opener, flags: OpenFlags) -> Result<Image, Failure> {
        self.open_as(opener, flags, &format!("Could not open '{}'", self.filename))
    }

    /// Opens the image; complaints begin with `what`.
    pub(super) fn open_as(&self, opener: &mut Opener, flags: OpenFlags, what: &str) -> Result<Image, Failure> {
        let could_not = |text: String| Failure::new(format!("{what}: {text}"));
        let reference = self.filename.split(',').next().filter(|first| self.image_opts && !first.contains('='));
        if let Some(name) = reference.filter(|name| !name.is_empty()) {
            return Err(could_not(format!("Cannot find device='{name}' nor node-name='{name}'")));
        }
        if self.force_share && !flags.read_only {
            return Err(could_not("force-share=on can only be used with read-only images".to_owned()));
        }
        if self.filename.is_empty() {
            return Err(could_not("The 'file' block driver requires a file name".to_owned()));
        }
        let share = if self.force_share { Share::Force } else { Share::Readers };
        let image = opener.open(&self.options(), OpenFlags { share, ..flags });
        for warning in opener.warnings.drain(..) {
            eprintln!("{warning}");
        }
        image.map_err(|error| could_not(error.full_text()))
    }
}

/// "driver=qcow2,file.filename=x": what `--image-opts` makes of a name.
fn from_text(text: &str) -> NodeOptions {
    let mut options = NodeOptions::default();
    for (key, value) in key_values(text) {
        options.options.insert(key, value.into());
    }
    options
}

/// Refuses a cache mode that there is not. `kind`: "source cache option".
pub(super) fn check_cache(name: Option<&str>, kind: &str) -> Result<(), Failure> {
    match name.filter(|name| CacheMode::by_name(name).is_none()) {
        Some(name) => Err(Failure::new(format!("Invalid {kind}: {name}"))),
        None => Ok(()),
    }
}

/// The block layer with what `--object` makes: secrets.
pub(super) fn opener(given: &Given) -> Result<Opener, Failure> {
    let objects = Objects::default();
    for text in given.all("object") {
        match objects.add(text) {
            Ok(Added::Made) => {}
            Ok(Added::Help(text)) => {
                print!("{text}");
                return Err(Failure { message: String::new(), status: 0, signal: None });
            }
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
    Ok(Opener::with_objects(objects))
}

/// The text for an error of the block layer: some carry nothing but the host's reason.
pub(super) fn text_of(error: &OpenError) -> String {
    match error {
        OpenError::Io { what, error } if what.is_empty() => crate::host::reason(error),
        other => other.full_text(),
    }
}

/// A snapshot as `-l` names it: by its options, or by id or name.
pub(super) fn snapshot_name(text: &str) -> Result<String, Failure> {
    if !text.starts_with("snapshot.") {
        return Ok(text.to_owned());
    }
    let mut chosen = String::new();
    for (key, value) in key_values(text) {
        match key.as_str() {
            "snapshot.id" | "snapshot.name" => chosen = value,
            other => {
                program::complain(format!("Invalid parameter '{other}'"));
                return Err(Failure::new(format!("Failed in parsing snapshot param '{text}'")));
            }
        }
    }
    Ok(chosen)
}
