//! `qemu-img commit`: puts what an image has over its backing file into that file.
//!
//! The backing file is only written where the image has data, and the image is emptied only after all of that is on
//! stable storage: whoever stops it in between has lost nothing, and can run it again.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::args::{self, Given, flag, long, value};
use super::copy::{Content, Copy, DEFAULT_SPARSE_BYTES, Input, Target, copy};
use super::progress::Progress;
use super::source::{check_cache, opener, text_of};
use super::{Failure, Outcome};
use crate::block::create::Preallocation;
use crate::block::{Image, NodeOptions, OpenFlags, Opener};
use crate::host::{ENOTSUP, errno, reason};

/// Threads.
const WORKERS: usize = 4;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        value('t', "cache"),
        flag('d', "drop"),
        value('b', "base"),
        value('r', "rate"),
        flag('p', "progress"),
        flag('q', "quiet"),
        long("object", true),
    ];
    let Some(given) = args::parse("commit", &specs, args)? else { return Ok(0) };
    let rate = given.rate("rate")?;
    let filename = given.one_name("commit")?;
    given.check_image_opts(&["format"])?;
    check_cache(given.last("cache"), "cache option")?;
    let chain = Chain::open(&given, filename)?;
    let (top, base) = (&chain.top, &chain.base);
    let mut progress = Progress::new(given.has("progress") && !given.has("quiet"));
    let failed = |error: io::Error| Failure::new(format!("Could not commit: {}", reason(&error)));
    let size = top.node.len().map_err(failed)?;
    let base_size = base.node.len().map_err(failed)?;
    if base_size < size {
        grow(base, size)?;
    }
    let job = Copy {
        target: Target { image: base, starts_zero: false, packed: false, sparse: DEFAULT_SPARSE_BYTES },
        range: 0..size,
        workers: WORKERS,
        in_order: true,
        offload: false,
        rate,
        salvage: None,
    };
    let copied = copy(&job, &Above { chain: &chain }, &mut progress);
    if copied.is_ok() {
        progress.show(1, 1);
    }
    progress.end();
    copied.map_err(|error| error.failure("commit", size))?;
    base.node.flush().map_err(failed)?;
    if !given.has("drop") && !given.has("base") {
        let emptied = top.ops().map_or(Ok(()), |ops| ops.make_empty());
        let unsupported = |error: &io::Error| errno(error) == ENOTSUP;
        match emptied.and_then(|()| top.node.flush()) {
            Err(error) if !unsupported(&error) => {
                return Err(Failure::new(format!("Could not empty {filename}: {}", reason(&error))));
            }
            _ => {}
        }
    }
    if !given.has("quiet") {
        println!("Image committed.");
    }
    Ok(0)
}

fn grow(base: &Image, size: u64) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(format!("Could not resize '{}': {why}", base.filename));
    match base.ops() {
        Some(ops) => ops.resize(size, Preallocation::Off, false).map_err(|error| failed(text_of(&error))),
        None => base.node.truncate(size).map_err(|error| failed(reason(&error))),
    }
}

/// The image and the one that it is committed to, which is the same node in its chain.
struct Chain {
    top: Image,
    base: Image,
    /// How far the base is below the top.
    depth: usize,
}

impl Chain {
    /// Looks at the chain, and opens it again from the base up, so that the base can be written.
    fn open(given: &Given, filename: &str) -> Result<Self, Failure> {
        let mut opener = opener(given)?;
        let source = given.source(filename);
        let look = source.open_with(&mut opener, OpenFlags { read_only: true, ..OpenFlags::default() })?;
        if look.backing.is_none() {
            return Err(Failure::new("Image does not have a backing file"));
        }
        let depth = match given.last("base") {
            None => 1,
            Some(base) => find(&look, base).ok_or_else(|| {
                Failure::new(format!("Did not find '{base}' in the backing chain of '{}'", look.filename))
            })?,
        };
        let layers: Vec<NodeOptions> = look.chain().map(|image| reopened(image, given)).collect();
        drop(look);
        let failed = |image: &NodeOptions, error: &crate::block::OpenError| {
            let name = image.filename.as_deref().unwrap_or_default();
            Failure::new(format!("Could not open '{name}': {}", error.full_text()))
        };
        let base = opener.open(&layers[depth], OpenFlags::default()).map_err(|error| failed(&layers[depth], &error))?;
        let mut below = base.clone();
        for layer in layers[1..depth].iter().rev() {
            below = open_over(&mut opener, layer.clone(), below, OpenFlags { read_only: true, ..OpenFlags::default() })
                .map_err(|error| failed(layer, &error))?;
        }
        let top = open_over(&mut opener, source.options(), below, OpenFlags::default())
            .map_err(|error| Failure::new(format!("Could not open '{filename}': {}", error.full_text())))?;
        Ok(Self { top, base, depth })
    }
}

/// How to open an image of a chain by itself.
fn reopened(image: &Image, given: &Given) -> NodeOptions {
    let options = NodeOptions::file(image.filename.clone()).format(image.driver);
    options.with("cache", given.last("cache").unwrap_or("writeback"))
}

fn open_over(
    opener: &mut Opener,
    options: NodeOptions,
    below: Image,
    flags: OpenFlags,
) -> Result<Image, crate::block::OpenError> {
    let name = format!("#below{}", opener.nodes.len());
    opener.nodes.insert(name.clone(), below);
    let opened = opener.open(&options.with("backing", name), flags);
    for warning in opener.warnings.drain(..) {
        eprintln!("{warning}");
    }
    opened
}

/// How far below an image one of that name is.
pub(super) fn find(top: &Image, name: &str) -> Option<usize> {
    let same_file = |path: &str| match (Path::new(path).canonicalize(), Path::new(name).canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    let named = |image: &Image| image.filename == name || same_file(&image.filename);
    top.chain().enumerate().skip(1).find(|(_, image)| named(image)).map(|(depth, _)| depth)
}

/// What the images above the base have.
struct Above<'a> {
    chain: &'a Chain,
}

impl Input for Above<'_> {
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)> {
        let status = self.chain.top.status(at, most)?;
        let content = match (status.depth >= self.chain.depth, status.extent.allocated, status.extent.zero) {
            (true, ..) => Content::Absent,
            (false, true, false) => Content::Data,
            // Past the end of an image in between, too.
            (false, _, true) => Content::Zero,
            (false, false, false) => Content::Absent,
        };
        Ok((content, status.len))
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.chain.top.node.read_at(at, buf)
    }
}
