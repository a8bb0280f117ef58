//! From a file name and options to an open image with everything below it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::driver::{self, Driver, Kind};
use super::error::OpenError;
use super::filter::copy_on_read::CopyOnReadNode;
use super::filter::throttle::ThrottleNode;
use super::format::qcow2::{self, create};
use super::format::raw;
use super::image::ImageOps;
use super::node::{BlockNode, Extent};
use super::options::{CacheMode, NodeOptions, Options};
use super::probe;
use super::protocol;
use super::protocol::file::{FileNode, FileOptions};
use super::sharing::{Permissions, Sharing};
use crate::object::Objects;
use crate::object::throttle::{Group, Limits};

/// Images below images at most: more is a loop.
const MAX_DEPTH: usize = 200;

/// Who else may use the image meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Share {
    /// Readers, and for a raw image nobody who writes: a guest's disk.
    #[default]
    Readers,
    /// Other writers of a raw image, too (`share-rw=on`).
    Writers,
    /// Anybody (`force-share=on`, `qemu-img -U`): no locks at all; for reading only.
    Force,
}

/// How to open an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFlags {
    /// No writes.
    pub read_only: bool,
    /// Writes go to a temporary overlay that vanishes with the image.
    pub snapshot: bool,
    /// Who else may use it.
    pub share: Share,
    /// Open a damaged image to look at it.
    pub for_check: bool,
    /// Leave the backing files closed.
    pub no_backing: bool,
}

/// An open image: the node to read and write, and what monitors ask about it. Clones are the same image.
#[derive(Clone)]
pub struct Image {
    /// What to read and write.
    pub node: Arc<dyn BlockNode>,
    /// What its driver is.
    pub kind: Kind,
    /// The "file" child; of a protocol, the node itself.
    pub file: Arc<dyn BlockNode>,
    /// "qcow2", "raw", "file", ….
    pub driver: &'static str,
    /// The file's name as QEMU shows it: as typed, relative names of backing files joined with their overlay's folder.
    pub filename: String,
    /// `node-name=`, or one of ours ("#block123").
    pub node_name: String,
    /// The backing file as the header names it.
    pub backing_name: Option<String>,
    /// The image below.
    pub backing: Option<Box<Image>>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Cache mode.
    pub cache: CacheMode,
    /// `detect-zeroes=`: "off", "on", "unmap".
    pub detect_zeroes: &'static str,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} {})", self.driver, self.filename)
    }
}

impl Image {
    /// What its format can do beyond reading and writing.
    #[must_use]
    pub fn ops(&self) -> Option<&dyn ImageOps> {
        self.node.image()
    }

    /// This image and those below, top first.
    pub fn chain(&self) -> impl Iterator<Item = &Image> {
        std::iter::successors(Some(self), |image| image.backing.as_deref())
    }
}

/// What is known of a run of an image's bytes, the images below included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// What they are.
    pub extent: Extent,
    /// For how many bytes that holds.
    pub len: u64,
    /// Which image of the chain decides; 0 is the top.
    pub depth: usize,
    /// The file that image is in.
    pub filename: String,
}

impl Image {
    /// What the bytes at `offset` are, and for how many of at most `len`.
    ///
    /// # Errors
    /// The host's, or an image is corrupt.
    pub fn status(&self, offset: u64, mut len: u64) -> io::Result<Status> {
        let mut image = self;
        let mut depth = 0;
        loop {
            let (extent, known) = image.node.extent(offset, len)?;
            len = known;
            let Some(below) = image.backing.as_deref().filter(|_| !extent.allocated) else {
                return Ok(Status { extent, len, depth, filename: image.filename.clone() });
            };
            let end = below.node.len()?;
            if offset >= end {
                // Past the end of the image below it reads as zeros.
                let extent = Extent { zero: true, ..Extent::default() };
                return Ok(Status { extent, len, depth, filename: image.filename.clone() });
            }
            len = len.min(end - offset);
            image = below;
            depth += 1;
        }
    }
}

/// Images that others may refer to by node name, and what opening had to say.
#[derive(Default)]
pub struct Opener {
    /// `-blockdev` nodes by name.
    pub nodes: BTreeMap<String, Image>,
    /// Warnings, as QEMU prints them; the caller shows them.
    pub warnings: Vec<String>,
    /// Secrets, credentials and throttle groups that options refer to.
    pub objects: Objects,
    made: u32,
}

/// Opens an image and all below it, without named nodes.
///
/// # Errors
/// QEMU's text for what is wrong.
pub fn open(options: &NodeOptions, flags: OpenFlags) -> Result<(Image, Vec<String>), OpenError> {
    let mut opener = Opener::default();
    let image = opener.open(options, flags)?;
    Ok((image, opener.warnings))
}

/// What one call hands down to the next.
#[derive(Clone, Copy)]
struct Below {
    flags: OpenFlags,
    depth: usize,
    /// It is somebody's backing file.
    backing: bool,
}

impl Opener {
    /// With objects that options may refer to.
    #[must_use]
    pub fn with_objects(objects: Objects) -> Self {
        Self { objects, ..Self::default() }
    }

    /// Opens an image and all below it.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn open(&mut self, options: &NodeOptions, flags: OpenFlags) -> Result<Image, OpenError> {
        let below = Below { flags, depth: 0, backing: flags.snapshot };
        let mut flat = Options::new(&options.options);
        if let Some(driver) = &options.driver {
            flat.insert("driver", driver.as_str());
        }
        let flags_below = OpenFlags { read_only: flags.read_only || flags.snapshot, ..flags };
        let image = self.open_image(options.filename.clone(), flat, Below { flags: flags_below, ..below })?;
        if flags.snapshot { self.overlay(image) } else { Ok(image) }
    }

    fn name(&mut self, options: &mut Options) -> Result<String, OpenError> {
        if let Some(name) = options.take_str("node-name")? {
            return Ok(name);
        }
        self.made += 1;
        Ok(format!("#block{:03}", 100 + self.made))
    }

    /// A temporary overlay whose file has no name any more.
    fn overlay(&mut self, below: Image) -> Result<Image, OpenError> {
        let folder = std::env::var("TMPDIR").unwrap_or_else(|_| "/var/tmp".to_owned());
        let failed = |error| OpenError::Io { what: "Could not create temporary overlay".to_owned(), error };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        let path = format!("{folder}/vl.{:016x}", u64::from_le_bytes(random));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let opened = FileNode::open(&path, &FileOptions { no_flush: true, unmap: true, ..FileOptions::default() });
        std::fs::remove_file(&path).map_err(failed)?;
        let file: Arc<dyn BlockNode> = Arc::new(opened?);
        let size = below.node.len().map_err(failed)?;
        create::create(file.as_ref(), &create::CreateOptions::new(size))?;
        let options = qcow2::OpenOptions { unmap: true, ..qcow2::OpenOptions::default() };
        let image = qcow2::Image::open(Arc::clone(&file), Some(Arc::clone(&below.node)), options)?;
        Ok(Image {
            node: Arc::new(image),
            kind: Kind::Format,
            file,
            driver: "qcow2",
            filename: path,
            node_name: self.name(&mut Options::default())?,
            backing_name: Some(below.filename.clone()),
            cache: CacheMode { no_flush: true, ..below.cache },
            backing: Some(Box::new(below)),
            read_only: false,
            detect_zeroes: "off",
        })
    }

    /// Opens a protocol node by its file name, without locks.
    ///
    /// # Errors
    /// The protocol's.
    pub fn open_protocol(&mut self, filename: &str, flags: OpenFlags) -> Result<Arc<dyn BlockNode>, OpenError> {
        let mut options = Options::default();
        options.insert("filename", filename);
        let below = Below { flags: OpenFlags { share: Share::Force, ..flags }, depth: 0, backing: false };
        self.open_node(None, options, below, CacheMode::default(), false).map(|image| image.node)
    }

    /// Opens an image: a node whose format is probed if no driver is named.
    fn open_image(
        &mut self,
        mut filename: Option<String>,
        mut options: Options,
        below: Below,
    ) -> Result<Image, OpenError> {
        if let Some(json) = filename.as_deref().and_then(|name| name.strip_prefix("json:")) {
            options.merge(parse_json(json)?);
            filename = None;
        }
        if below.depth > MAX_DEPTH {
            let name = filename.unwrap_or_default();
            return Err(OpenError::Image(format!("Backing file '{name}' creates an infinite loop.")));
        }
        let extras = Extras::take(&mut options)?;
        let image = match options.take_str("driver")? {
            Some(driver) => {
                let driver = driver::by_name(&driver)?;
                if driver.kind() == Kind::Protocol
                    && let Some(name) = filename.take()
                {
                    // The name is for the driver that was named, whatever it looks like.
                    options.insert("filename", name);
                }
                self.open_driver(driver, filename, options, below, None)?
            }
            None => self.open_probed(filename, options, below)?,
        };
        extras.apply(image)
    }

    /// Opens the protocol node, looks at the first bytes, and opens the format above it.
    fn open_probed(
        &mut self,
        filename: Option<String>,
        mut options: Options,
        below: Below,
    ) -> Result<Image, OpenError> {
        let common = self.common(&mut options.clone(), below)?;
        let file = self.file_child(filename, &mut options, common.below, common.cache, common.unmap)?;
        let (driver, guessed) = self.probe(file.node.as_ref(), &file.filename, common.below)?;
        self.open_driver(driver, None, options, below, Some((file, guessed)))
    }

    /// What every node takes.
    fn common(&mut self, options: &mut Options, mut below: Below) -> Result<Common, OpenError> {
        let cache = take_cache(options)?;
        let read_only = options.take_bool("read-only")?;
        below.flags.read_only |= read_only.unwrap_or(false);
        if options.take_bool("force-share")?.unwrap_or(false) {
            if !below.flags.read_only {
                return Err(OpenError::Invalid("force-share=on can only be used with read-only images".to_owned()));
            }
            below.flags.share = Share::Force;
        }
        let unmap = take_discard(options)?;
        let detect_zeroes = take_detect_zeroes(options, unmap)?;
        Ok(Common { cache, unmap, detect_zeroes, below })
    }

    /// Opens a node by its driver. `file`: its "file" child, if that is open already, and whether the driver was
    /// guessed.
    fn open_driver(
        &mut self,
        driver: &'static dyn Driver,
        filename: Option<String>,
        mut options: Options,
        below: Below,
        file: Option<(Image, bool)>,
    ) -> Result<Image, OpenError> {
        let Common { cache, unmap, detect_zeroes, below } = self.common(&mut options, below)?;
        let node_name = self.name(&mut options)?;
        let (file, guessed) = file.map_or((None, false), |(file, guessed)| (Some(file), guessed));
        let mut context =
            OpenContext { opener: self, driver, options, cache, unmap, below, filename, opened: file, guessed };
        let opened = driver.open(&mut context)?;
        Ok(Image {
            file: opened.file.unwrap_or_else(|| Arc::clone(&opened.node)),
            kind: driver.kind(),
            driver: opened.node.info().driver,
            node: opened.node,
            filename: opened.filename,
            node_name,
            backing_name: opened.backing_name,
            backing: opened.backing.map(Box::new),
            read_only: opened.read_only,
            cache,
            detect_zeroes,
        })
    }

    /// Opens a node whose format is not probed: by its driver, by its file name's protocol, or `file`.
    fn open_node(
        &mut self,
        filename: Option<String>,
        mut options: Options,
        below: Below,
        cache: CacheMode,
        unmap: bool,
    ) -> Result<Image, OpenError> {
        let mut filename = filename.or(options.take_str("filename")?);
        if below.depth > MAX_DEPTH {
            return Err(OpenError::Image(format!(
                "Block node '{}' creates an infinite loop.",
                filename.unwrap_or_default()
            )));
        }
        if let Some(json) = filename.as_deref().and_then(|name| name.strip_prefix("json:")) {
            options.merge(parse_json(json)?);
            filename = options.take_str("filename")?;
        }
        options.insert_missing("cache.direct", cache.direct);
        options.insert_missing("cache.no-flush", cache.no_flush);
        options.insert_missing("discard", if unmap { "unmap" } else { "ignore" });
        let driver = match (options.take_str("driver")?, filename.take()) {
            (Some(name), filename) => {
                if let Some(filename) = filename {
                    options.insert("filename", filename);
                }
                driver::by_name(&name)?
            }
            (None, Some(filename)) => {
                let driver = driver::protocol_of(&filename)?;
                driver.parse_filename(&filename, &mut options)?;
                driver
            }
            (None, None) => &protocol::file::File,
        };
        self.open_driver(driver, None, options, Below { depth: below.depth + 1, ..below }, None)
    }

    /// The "file" child of a node. It is opened without locks; the format takes those that it needs.
    fn file_child(
        &mut self,
        filename: Option<String>,
        options: &mut Options,
        below: Below,
        cache: CacheMode,
        unmap: bool,
    ) -> Result<Image, OpenError> {
        if let Some(Value::String(name)) = options.peek("file").cloned() {
            options.take("file");
            return self.nodes.get(&name).cloned().ok_or_else(|| no_node(&name));
        }
        let mut child = options.take_below("file.");
        if let Some(name) = filename {
            child.insert_missing("filename", name);
        }
        // Options of the protocol may be given to the drive as a whole.
        for key in ["locking", "aio", "auto-read-only"] {
            if let Some(value) = options.take(key) {
                child.insert_missing(key, value);
            }
        }
        if child.is_empty() {
            return Err(OpenError::Invalid("A block device must be specified for \"file\"".to_owned()));
        }
        self.open_node(None, child, Below { backing: false, ..below }, cache, unmap)
    }

    fn probe(
        &mut self,
        file: &dyn BlockNode,
        filename: &str,
        below: Below,
    ) -> Result<(&'static dyn Driver, bool), OpenError> {
        let mut head = [0; probe::PROBE_BYTES];
        let len = file.len().unwrap_or(0).min(head.len() as u64);
        let head = &mut head[..usize::try_from(len).unwrap_or(0)];
        file.read_at(0, head).map_err(OpenError::io("Could not read image for determining its format"))?;
        if let Some(driver) = probe::guess(head, filename) {
            return Ok((driver, false));
        }
        if let Some(name) = probe::other(head) {
            return Err(OpenError::UnsupportedDriver(name.to_owned()));
        }
        if !below.flags.read_only {
            self.warnings.push(probe::raw_warning(filename));
        }
        Ok((&raw::Raw, true))
    }
}

/// What every node takes.
struct Common {
    cache: CacheMode,
    unmap: bool,
    detect_zeroes: &'static str,
    below: Below,
}

/// What a driver opens a node from.
pub struct OpenContext<'a> {
    opener: &'a mut Opener,
    driver: &'static dyn Driver,
    /// The options that nothing took yet; [`OpenContext::finish`] refuses what is left.
    pub options: Options,
    /// The node's cache mode.
    pub cache: CacheMode,
    /// `discard=unmap`.
    pub unmap: bool,
    below: Below,
    filename: Option<String>,
    opened: Option<Image>,
    guessed: bool,
}

impl OpenContext<'_> {
    /// Whether writes are refused.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.below.flags.read_only
    }

    /// Whether a damaged image is opened to look at it.
    #[must_use]
    pub fn for_check(&self) -> bool {
        self.below.flags.for_check
    }

    /// Whether the driver was guessed from the first bytes, which hold nothing that is known.
    #[must_use]
    pub fn guessed(&self) -> bool {
        self.guessed
    }

    /// Secrets, credentials and throttle groups that options refer to by `id`.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.opener.objects
    }

    /// A warning for the user.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.opener.warnings.push(text.into());
    }

    /// The locks that a protocol node takes for itself, when no format is above it.
    #[must_use]
    pub fn protocol_sharing(&self) -> Sharing {
        if self.below.depth > 0 && !self.below.backing { Sharing::default() } else { sharing(self.below, false) }
    }

    /// The "file" child, without locks: [`OpenContext::share`] takes them when it is known what the image is.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file(&mut self) -> Result<Image, OpenError> {
        match self.opened.take() {
            Some(image) => Ok(image),
            None => {
                let filename = self.filename.take();
                self.opener.file_child(filename, &mut self.options, self.below, self.cache, self.unmap)
            }
        }
    }

    /// Another child, by its role ("image", "test", "children.0"): a node name or the options of a node, whose format is
    /// probed if `probed` and none is given. `None`: no such option.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn child(&mut self, role: &str, probed: bool) -> Result<Option<Image>, OpenError> {
        if let Some(Value::String(name)) = self.options.peek(role).cloned() {
            self.options.take(role);
            return self.opener.nodes.get(&name).cloned().map(Some).ok_or_else(|| no_node(&name));
        }
        let mut child = self.options.take_below(&format!("{role}."));
        if child.is_empty() {
            return Ok(None);
        }
        let below = Below { depth: self.below.depth + 1, backing: false, ..self.below };
        if probed {
            let filename = child.take_str("filename")?;
            return self.opener.open_image(filename, child, below).map(Some);
        }
        self.opener.open_node(None, child, below, self.cache, self.unmap).map(Some)
    }

    /// The child that a filter stands on. As with QEMU, its format is not probed.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub fn filtered(&mut self, role: &str) -> Result<Image, OpenError> {
        let child = self.child(role, false)?;
        let child =
            child.ok_or_else(|| OpenError::Invalid(format!("A block device must be specified for \"{role}\"")))?;
        if self.below.depth == 0 {
            self.share(&child.node, false)?;
        }
        Ok(child)
    }

    /// Opens one more file of the image by its name, without locks.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_protocol(&mut self, filename: &str, flags: OpenFlags) -> Result<Arc<dyn BlockNode>, OpenError> {
        self.opener.open_protocol(filename, flags)
    }

    /// Takes the image locks of a "file" child, for what this node does with it: with metadata of its own it lets
    /// nobody else write.
    ///
    /// # Errors
    /// [`OpenError::Lock`].
    pub fn share(&self, file: &Arc<dyn BlockNode>, has_metadata: bool) -> Result<(), OpenError> {
        file.set_sharing(sharing(self.below, has_metadata))
    }

    /// The backing file: as the options say, or as the image at `filename` names it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn backing(
        &mut self,
        filename: &str,
        name: Option<&str>,
        format: Option<&str>,
    ) -> Result<Option<Image>, OpenError> {
        let named = self.options.take("backing");
        let mut child = self.options.take_below("backing.");
        match named {
            Some(Value::Null) => return Ok(None),
            Some(Value::String(name)) if !name.is_empty() => {
                return self.opener.nodes.get(&name).cloned().map(Some).ok_or_else(|| no_node(&name));
            }
            Some(Value::String(_)) => return Ok(None), // backing= (empty) is none
            _ => {}
        }
        if self.below.flags.no_backing {
            return Ok(None);
        }
        let explicit = child.peek("file").is_some() || child.peek("file.filename").is_some();
        let name = if explicit { None } else { name };
        if name.is_none() && !explicit {
            return Ok(None);
        }
        if let Some(format) = format {
            child.insert_missing("driver", format);
        }
        let name = name.map(|name| backing_path(filename, name));
        let flags = OpenFlags { read_only: true, ..self.below.flags };
        let below = Below { flags, depth: self.below.depth + 1, backing: true };
        let opened = self.opener.open_image(name, child, below);
        opened.map(Some).map_err(|error| OpenError::Backing(Box::new(error)))
    }

    /// Refuses the options that nothing took.
    ///
    /// # Errors
    /// [`OpenError::UnknownOption`].
    pub fn finish(&self) -> Result<(), OpenError> {
        self.options.finish(self.driver.name(), self.driver.kind() == Kind::Protocol)
    }
}

fn no_node(name: &str) -> OpenError {
    OpenError::Invalid(format!("Cannot find device='{name}' nor node-name='{name}'"))
}

fn parse_json(text: &str) -> Result<Options, OpenError> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(map)) => Ok(Options::new(&map)),
        Ok(_) => Err(OpenError::Invalid("Invalid JSON object given".to_owned())),
        Err(error) => {
            let what = if error.is_eof() { "premature EOI".to_owned() } else { error.to_string() };
            Err(OpenError::Invalid(format!("Could not parse the JSON options: JSON parse error, {what}")))
        }
    }
}

fn take_cache(options: &mut Options) -> Result<CacheMode, OpenError> {
    let mut cache = CacheMode::default();
    if let Some(name) = options.take_str("cache")? {
        cache = CacheMode::by_name(&name).ok_or_else(|| OpenError::Invalid("invalid cache option".to_owned()))?;
    }
    cache.direct = options.take_bool("cache.direct")?.unwrap_or(cache.direct);
    cache.no_flush = options.take_bool("cache.no-flush")?.unwrap_or(cache.no_flush);
    cache.writeback = options.take_bool("cache.writeback")?.unwrap_or(cache.writeback);
    Ok(cache)
}

fn take_discard(options: &mut Options) -> Result<bool, OpenError> {
    match options.take_str("discard")?.as_deref() {
        None | Some("ignore" | "off") => Ok(false),
        Some("unmap" | "on") => Ok(true),
        Some(_) => Err(OpenError::Invalid("Invalid discard option".to_owned())),
    }
}

fn take_detect_zeroes(options: &mut Options, unmap: bool) -> Result<&'static str, OpenError> {
    match options.take_str("detect-zeroes")?.as_deref() {
        None | Some("off") => Ok("off"),
        Some("on") => Ok("on"),
        Some("unmap") if unmap => Ok("unmap"),
        Some("unmap") => Err(OpenError::Invalid(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap".to_owned(),
        )),
        Some(other) => Err(OpenError::Invalid(format!("Parameter 'detect-zeroes' does not accept value '{other}'"))),
    }
}

/// What a drive asks for beyond its image: filters above it.
struct Extras {
    copy_on_read: bool,
    limits: Limits,
}

impl Extras {
    fn take(options: &mut Options) -> Result<Self, OpenError> {
        let copy_on_read = options.take_bool("copy-on-read")?.unwrap_or(false);
        let mut given = options.take_below("throttling.");
        if given.peek("group").is_some() {
            return Err(OpenError::Unsupported("throttling.group".to_owned()));
        }
        let mut limits = Limits::default();
        while let Some(name) = given.unknown().map(str::to_owned) {
            let value = given.take_size(&name)?.unwrap_or(0);
            if !limits.set(&name, i64::try_from(value).unwrap_or(i64::MAX))? {
                return Err(OpenError::Invalid(format!("Invalid parameter 'throttling.{name}'")));
            }
        }
        limits.check()?;
        Ok(Self { copy_on_read, limits })
    }

    fn apply(self, mut image: Image) -> Result<Image, OpenError> {
        if self.copy_on_read {
            if image.read_only {
                let text = "Can't use copy-on-read on read-only device";
                return Err(OpenError::Invalid(text.to_owned()));
            }
            image.node = Arc::new(CopyOnReadNode::new(image.node)?);
        }
        if self.limits.any() {
            image.node = Arc::new(ThrottleNode::new(image.node, Arc::new(Group::new(self.limits))));
        }
        Ok(image)
    }
}

/// The locks that a node takes on its file: those seen with QEMU's own (module doc of `protocol::file`).
fn sharing(below: Below, has_metadata: bool) -> Sharing {
    if below.flags.share == Share::Force {
        return Sharing::default();
    }
    let read = Permissions::CONSISTENT_READ;
    let change = Permissions::WRITE.and(Permissions::RESIZE);
    if has_metadata || below.backing {
        let used = if below.flags.read_only { read } else { read.and(change) };
        return Sharing { used, unshared: change };
    }
    let used = if below.flags.read_only { read } else { read.and(Permissions::WRITE) };
    let unshared = if below.flags.share == Share::Writers { Permissions::NONE } else { Permissions::WRITE };
    Sharing { used, unshared }
}

/// Where a backing file is: relative to the folder of the image that names it.
#[must_use]
pub fn backing_path(overlay: &str, name: &str) -> String {
    if name.starts_with("json:") || driver::prefix(name).is_some() || Path::new(name).is_absolute() {
        return name.to_owned();
    }
    let overlay = overlay.strip_prefix("file:").unwrap_or(overlay);
    match overlay.rfind('/') {
        Some(end) => format!("{}{name}", &overlay[..=end]),
        None => name.to_owned(),
    }
}
