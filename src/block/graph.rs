//! From a file name and options to an open image with everything below it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::error::OpenError;
use super::format::qcow2::{self, create};
use super::format::raw::RawNode;
use super::node::{BlockNode, Extent};
use super::options::{CacheMode, NodeOptions, Options};
use super::probe::{self, Guess};
use super::protocol::file::{FileNode, FileOptions};
use super::protocol::null::NullNode;
use super::sharing::{Permissions, Sharing};

/// Images below images at most: more is a loop.
const MAX_DEPTH: usize = 200;

/// Drivers that QEMU has and this program does not.
const OTHER_FORMATS: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "luks",
    "parallels",
    "preallocate",
    "qcow",
    "qed",
    "quorum",
    "replication",
    "snapshot-access",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
    "vvfat",
];

/// Protocols that QEMU has and this program does not.
const OTHER_PROTOCOLS: &[&str] = &[
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "iser",
    "nbd",
    "nfs",
    "null-aio",
    "nvme",
    "nvme-io_uring",
    "rbd",
    "ssh",
    "tftp",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
    "fat",
    "nbd+tcp",
    "nbd+unix",
    "sheepdog",
];

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

/// The format's own node, for those who want more than [`BlockNode`].
#[derive(Clone)]
pub enum Format {
    /// A raw image.
    Raw,
    /// A qcow2 image.
    Qcow2(Arc<qcow2::Image>),
    /// No format: a protocol node that stands for itself.
    Protocol,
}

/// An open image: the node to read and write, and what monitors ask about it. Clones are the same image.
#[derive(Clone)]
pub struct Image {
    /// What to read and write.
    pub node: Arc<dyn BlockNode>,
    /// The format's own node.
    pub format: Format,
    /// The protocol node below, if the format is not the protocol itself.
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
    /// The qcow2 node, if it is one.
    #[must_use]
    pub fn qcow2(&self) -> Option<&Arc<qcow2::Image>> {
        match &self.format {
            Format::Qcow2(image) => Some(image),
            _ => None,
        }
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
        let image = Arc::new(qcow2::Image::open(Arc::clone(&file), Some(Arc::clone(&below.node)), options)?);
        Ok(Image {
            node: Arc::clone(&image) as Arc<dyn BlockNode>,
            format: Format::Qcow2(image),
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

    fn open_image(
        &mut self,
        mut filename: Option<String>,
        mut options: Options,
        mut below: Below,
    ) -> Result<Image, OpenError> {
        if let Some(json) = filename.as_deref().and_then(|name| name.strip_prefix("json:")) {
            options.merge(parse_json(json)?);
            filename = None;
        }
        if below.depth > MAX_DEPTH {
            let name = filename.unwrap_or_default();
            return Err(OpenError::Image(format!("Backing file '{name}' creates an infinite loop.")));
        }
        let cache = take_cache(&mut options)?;
        let read_only = options.take_bool("read-only")?;
        below.flags.read_only |= read_only.unwrap_or(false);
        if options.take_bool("force-share")?.unwrap_or(false) {
            if !below.flags.read_only {
                return Err(OpenError::Invalid("force-share=on can only be used with read-only images".to_owned()));
            }
            below.flags.share = Share::Force;
        }
        let unmap = take_discard(&mut options)?;
        let detect_zeroes = take_detect_zeroes(&mut options, unmap)?;
        refuse_unfinished(&mut options)?;
        let node_name = self.name(&mut options)?;
        let driver = options.take_str("driver")?;
        if let Some(driver) = driver.as_deref()
            && is_protocol(driver)
        {
            if let Some(name) = filename.take() {
                options.insert("filename", name);
            }
            options.insert("driver", driver);
            let sharing = sharing(below, false);
            let place = Place { cache, unmap, sharing, below };
            let (file, filename) = open_protocol(options, &place)?;
            let info = file.info();
            return Ok(Image {
                node: Arc::clone(&file),
                format: Format::Protocol,
                file,
                driver: info.driver,
                filename,
                node_name,
                backing_name: None,
                backing: None,
                read_only: info.read_only,
                cache,
                detect_zeroes,
            });
        }
        if let Some(driver) = driver.as_deref() {
            check_format(driver)?;
        }
        let place = Place { cache, unmap, sharing: Sharing::default(), below };
        let (file, filename) = self.open_file_child(filename, &mut options, &place)?;
        let (format, guessed) = match driver {
            Some(driver) => (driver, false),
            None => self.probe(file.as_ref(), &filename, below)?,
        };
        let parts = Parts { file, filename, node_name, cache, unmap, detect_zeroes, below };
        match format.as_str() {
            "qcow2" => self.open_qcow2(options, parts),
            _ => open_raw(options, parts, guessed),
        }
    }

    /// The protocol node of a format node. It is opened without locks; the format takes those that it needs.
    fn open_file_child(
        &mut self,
        filename: Option<String>,
        options: &mut Options,
        place: &Place,
    ) -> Result<(Arc<dyn BlockNode>, String), OpenError> {
        if let Some(Value::String(name)) = options.peek("file").cloned() {
            options.take("file");
            let image = self.nodes.get(&name).ok_or_else(|| no_node(&name))?;
            return Ok((Arc::clone(&image.node), image.filename.clone()));
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
        open_protocol(child, place)
    }

    fn probe(&mut self, file: &dyn BlockNode, filename: &str, below: Below) -> Result<(String, bool), OpenError> {
        let mut head = [0; probe::PROBE_BYTES];
        file.read_at(0, &mut head).map_err(OpenError::io("Could not read image for determining its format"))?;
        let len = file.len().unwrap_or(0).min(head.len() as u64);
        match probe::guess(&head[..usize::try_from(len).unwrap_or(0)]) {
            Guess::Qcow2 => Ok(("qcow2".to_owned(), false)),
            Guess::Other(name) => Err(OpenError::UnsupportedDriver(name.to_owned())),
            Guess::Raw => {
                if !below.flags.read_only {
                    self.warnings.push(probe::raw_warning(filename));
                }
                Ok(("raw".to_owned(), true))
            }
        }
    }

    fn open_qcow2(&mut self, mut options: Options, parts: Parts) -> Result<Image, OpenError> {
        let Parts { file, filename, node_name, cache, unmap, detect_zeroes, below } = parts;
        take_qcow2_tuning(&mut options)?;
        let header = qcow2::read_header(file.as_ref())?;
        let writable = !below.flags.read_only && !file.info().read_only;
        file.set_sharing(sharing(below, true))?;
        let backing = self.open_backing(&mut options, &header, &filename, below)?;
        options.finish("qcow2", false)?;
        let open = qcow2::OpenOptions { read_only: !writable, unmap, for_check: below.flags.for_check };
        let backing_node = backing.as_ref().map(|image| Arc::clone(&image.node));
        let image = Arc::new(qcow2::Image::open(Arc::clone(&file), backing_node, open)?);
        Ok(Image {
            node: Arc::clone(&image) as Arc<dyn BlockNode>,
            format: Format::Qcow2(image),
            file,
            driver: "qcow2",
            filename,
            node_name,
            backing_name: header.backing_file,
            backing: backing.map(Box::new),
            read_only: !writable,
            cache,
            detect_zeroes,
        })
    }

    fn open_backing(
        &mut self,
        options: &mut Options,
        header: &qcow2::header::Header,
        filename: &str,
        below: Below,
    ) -> Result<Option<Image>, OpenError> {
        let named = options.take("backing");
        let mut child = options.take_below("backing.");
        match named {
            Some(Value::Null) => return Ok(None),
            Some(Value::String(name)) if !name.is_empty() => {
                return self.nodes.get(&name).cloned().map(Some).ok_or_else(|| no_node(&name));
            }
            Some(Value::String(_)) => return Ok(None), // backing= (empty) is none
            _ => {}
        }
        if below.flags.no_backing {
            return Ok(None);
        }
        let explicit = child.peek("file").is_some() || child.peek("file.filename").is_some();
        let name = if explicit { None } else { header.backing_file.as_deref() };
        if name.is_none() && !explicit {
            return Ok(None);
        }
        if let Some(format) = &header.backing_format {
            child.insert_missing("driver", format.as_str());
        }
        let name = name.map(|name| backing_path(filename, name));
        let flags = OpenFlags { read_only: true, ..below.flags };
        let below = Below { flags, depth: below.depth + 1, backing: true };
        let opened = self.open_image(name, child, below);
        opened.map(Some).map_err(|error| OpenError::Backing(Box::new(error)))
    }
}

/// Everything that a format node is made of.
struct Parts {
    file: Arc<dyn BlockNode>,
    filename: String,
    node_name: String,
    cache: CacheMode,
    unmap: bool,
    detect_zeroes: &'static str,
    below: Below,
}

/// What a protocol node inherits.
struct Place {
    cache: CacheMode,
    unmap: bool,
    sharing: Sharing,
    below: Below,
}

fn no_node(name: &str) -> OpenError {
    OpenError::Invalid(format!("Cannot find device='{name}' nor node-name='{name}'"))
}

fn is_protocol(driver: &str) -> bool {
    matches!(driver, "file" | "host_device" | "null-co") || OTHER_PROTOCOLS.contains(&driver)
}

/// Whether QEMU has a driver of that name.
#[must_use]
pub fn is_known_driver(name: &str) -> bool {
    is_protocol(name) || OTHER_FORMATS.contains(&name) || matches!(name, "raw" | "qcow2")
}

fn check_format(driver: &str) -> Result<(), OpenError> {
    if matches!(driver, "raw" | "qcow2") {
        return Ok(());
    }
    if OTHER_FORMATS.contains(&driver) {
        return Err(OpenError::UnsupportedDriver(driver.to_owned()));
    }
    Err(OpenError::UnknownDriver(driver.to_owned()))
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

/// QEMU's options that this version does not have yet.
fn refuse_unfinished(options: &mut Options) -> Result<(), OpenError> {
    if options.take_bool("copy-on-read")?.unwrap_or(false) {
        return Err(OpenError::Unsupported("copy-on-read=on".to_owned()));
    }
    if let Some(option) = options.take_below("throttling.").unknown() {
        return Err(OpenError::Unsupported(format!("throttling.{option}")));
    }
    Ok(())
}

/// Sizes of caches and checks of qcow2 that change no result: checked, and our own bounds are used.
fn take_qcow2_tuning(options: &mut Options) -> Result<(), OpenError> {
    for key in ["l2-cache-size", "refcount-cache-size", "cache-size", "l2-cache-entry-size", "cache-clean-interval"] {
        if options.take_size(key)?.is_some() {
            return Err(OpenError::Unsupported(format!("The qcow2 option '{key}'")));
        }
    }
    if options.take_bool("lazy-refcounts")?.unwrap_or(false) {
        return Err(OpenError::Unsupported("lazy-refcounts=on".to_owned()));
    }
    Ok(())
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

fn open_raw(mut options: Options, parts: Parts, guessed: bool) -> Result<Image, OpenError> {
    let Parts { file, filename, node_name, cache, unmap: _, detect_zeroes, below } = parts;
    let read_only = below.flags.read_only || file.info().read_only;
    let start = options.take_size("offset")?.unwrap_or(0);
    let len = options.take_size("size")?;
    options.finish("raw", false)?;
    if let Some(len) = len {
        let real = file.len().map_err(OpenError::io("Could not get image size"))?;
        if start.checked_add(len).is_none_or(|end| end > real) {
            let text = format!(
                "The sum of offset ({start}) and size ({len}) has to be smaller or equal to the  actual size of the containing file ({real})"
            );
            return Err(OpenError::Invalid(text));
        }
    }
    file.set_sharing(sharing(below, false))?;
    let mut raw = RawNode::new(Arc::clone(&file), read_only).window(start, len);
    if guessed && !read_only {
        raw = raw.guessed();
    }
    Ok(Image {
        node: Arc::new(raw),
        format: Format::Raw,
        file,
        driver: "raw",
        filename,
        node_name,
        backing_name: None,
        backing: None,
        read_only,
        cache,
        detect_zeroes,
    })
}

/// Opens a protocol node and says what the file is called.
fn open_protocol(mut options: Options, place: &Place) -> Result<(Arc<dyn BlockNode>, String), OpenError> {
    let mut filename = options.take_str("filename")?;
    let mut driver = options.take_str("driver")?;
    if let Some(json) = filename.as_deref().and_then(|name| name.strip_prefix("json:")) {
        options.merge(parse_json(json)?);
        driver = driver.or(options.take_str("driver")?);
        filename = options.take_str("filename")?;
    }
    options.take("node-name");
    let prefix = filename.as_deref().filter(|_| driver.is_none()).and_then(protocol_prefix).map(str::to_owned);
    if let Some(prefix) = prefix {
        filename = match prefix.as_str() {
            "file" => filename.map(|name| name["file:".len()..].to_owned()),
            _ => filename,
        };
        driver = Some(prefix);
    }
    match driver.as_deref().unwrap_or("file") {
        "file" | "host_device" => open_file(options, filename, place),
        "null-co" => {
            let len = options.take_size("size")?.unwrap_or(1 << 30);
            let zeroes = options.take_bool("read-zeroes")?.unwrap_or(true);
            options.finish("null-co", true)?;
            let node = NullNode::new(len, zeroes, place.below.flags.read_only);
            Ok((Arc::new(node), filename.unwrap_or_else(|| "null-co://".to_owned())))
        }
        other if OTHER_PROTOCOLS.contains(&other) || OTHER_FORMATS.contains(&other) => {
            Err(OpenError::UnsupportedDriver(other.to_owned()))
        }
        other if prefix_of(filename.as_deref()) == Some(other) => Err(OpenError::UnknownProtocol(other.to_owned())),
        other => Err(OpenError::UnknownDriver(other.to_owned())),
    }
}

fn open_file(
    mut options: Options,
    filename: Option<String>,
    place: &Place,
) -> Result<(Arc<dyn BlockNode>, String), OpenError> {
    let filename =
        filename.ok_or_else(|| OpenError::Invalid("The 'file' block driver requires a file name".to_owned()))?;
    let direct = options.take_bool("cache.direct")?.unwrap_or(place.cache.direct);
    let no_flush = options.take_bool("cache.no-flush")?.unwrap_or(place.cache.no_flush);
    let unmap = take_discard(&mut options)? || place.unmap;
    let locking = match options.take("locking") {
        None => None,
        Some(Value::String(text)) if text == "auto" => None,
        Some(Value::String(text)) if text == "on" => Some(true),
        Some(Value::String(text)) if text == "off" => Some(false),
        Some(Value::Bool(on)) => Some(on),
        Some(other) => {
            return Err(OpenError::Invalid(format!("Parameter 'locking' does not accept value '{other}'")));
        }
    };
    match options.take_str("aio")?.as_deref() {
        None | Some("threads") => {}
        Some(other @ ("native" | "io_uring")) => return Err(OpenError::Unsupported(format!("aio={other}"))),
        Some(other) => {
            return Err(OpenError::Invalid(format!("Parameter 'aio' does not accept value '{other}'")));
        }
    }
    let read_only = options.take_bool("read-only")?.unwrap_or(false) || place.below.flags.read_only;
    let auto_read_only = options.take_bool("auto-read-only")?.unwrap_or(false);
    options.finish("file", true)?;
    let file = FileNode::open(
        &filename,
        &FileOptions { read_only, auto_read_only, direct, no_flush, locking, sharing: place.sharing, unmap },
    )?;
    Ok((Arc::new(file), filename))
}

/// The text before a colon, unless a slash comes first.
fn prefix_of(filename: Option<&str>) -> Option<&str> {
    let name = filename?;
    let end = name.find([':', '/'])?;
    name[end..].starts_with(':').then(|| &name[..end])
}

/// The protocol that a file name asks for.
fn protocol_prefix(filename: &str) -> Option<&str> {
    prefix_of(Some(filename))
}

/// Where a backing file is: relative to the folder of the image that names it.
#[must_use]
pub fn backing_path(overlay: &str, name: &str) -> String {
    if name.starts_with("json:") || protocol_prefix(name).is_some() || Path::new(name).is_absolute() {
        return name.to_owned();
    }
    let overlay = overlay.strip_prefix("file:").unwrap_or(overlay);
    match overlay.rfind('/') {
        Some(end) => format!("{}{name}", &overlay[..=end]),
        None => name.to_owned(),
    }
}
