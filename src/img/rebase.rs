//! `qemu-img rebase`: gives an image another backing file.
//!
//! What differs between the two backing files is written into the image and put on stable storage, tables included,
//! before the header names the new one: at every moment the image reads as it did.

use std::ffi::OsString;
use std::io;
use std::ops::Range;

use super::args::{self, Given, flag, long, value};
use super::commit::find;
use super::copy::{Content, Copy, DEFAULT_SPARSE_BYTES, Input, Target, copy};
use super::progress::Progress;
use super::source::{Source, check_cache, opener};
use super::{Failure, Outcome};
use crate::block::driver::is_known_driver;
use crate::block::{Image, ImageOps, OpenFlags, Opener, backing_path};
use crate::host::reason;

/// Threads.
const WORKERS: usize = 4;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        value('t', "cache"),
        value('b', "backing"),
        value('F', "backing-format"),
        value('T', "backing-cache"),
        flag('u', "backing-unsafe"),
        flag('c', "compress"),
        flag('U', "force-share"),
        flag('p', "progress"),
        flag('q', "quiet"),
        long("object", true),
    ];
    let Some(given) = args::parse("rebase", &specs, args)? else { return Ok(0) };
    let filename = given.one_name("rebase")?;
    let unsafely = given.has("backing-unsafe");
    if !unsafely && !given.has("backing") {
        return Err(Failure::usage("rebase", "Must specify backing file (-b) or use unsafe mode (-u)"));
    }
    given.check_image_opts(&["format"])?;
    check_cache(given.last("cache"), "cache option")?;
    check_cache(given.last("backing-cache"), "source cache option")?;
    let mut opener = opener(&given)?;
    let source = Source { force_share: false, ..given.source(filename) };
    let image = source.open_with(&mut opener, OpenFlags { no_backing: unsafely, ..OpenFlags::default() })?;
    let format = given.last("backing-format");
    if let Some(format) = format.filter(|format| !is_known_driver(format)) {
        return Err(Failure::new(format!("Invalid format name: '{format}'")));
    }
    if given.has("compress") && image.ops().and_then(ImageOps::compressed_unit).is_none() {
        return Err(Failure::new("Compression not supported for this file format"));
    }
    let name = given.last("backing").filter(|name| !name.is_empty());
    if !unsafely {
        let new = name.map(|name| open_new(&given, &image, name, &mut opener)).transpose()?;
        check_change(&image, name, format)?;
        fill(&given, &image, new)?;
    }
    check_change(&image, name, format)?;
    let Some(ops) = image.ops() else { return Err(cannot_change(name, "Operation not supported")) };
    ops.change_backing_file(name, name.and(format)).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => Failure::new(format!(
            "Could not change the backing file to '{}': No space left in the file header",
            name.unwrap_or_default()
        )),
        _ => cannot_change(name, &reason(&error)),
    })?;
    image.node.flush().map_err(|error| cannot_change(name, &reason(&error)))?;
    Ok(0)
}

fn cannot_change(name: Option<&str>, why: &str) -> Failure {
    Failure::new(format!("Could not change the backing file to '{}': {why}", name.unwrap_or_default()))
}

/// Refuses what the header cannot record, before anything is written.
fn check_change(image: &Image, name: Option<&str>, format: Option<&str>) -> Result<(), Failure> {
    if name.is_some() && format.is_none() {
        return Err(cannot_change(name, "backing format must be specified"));
    }
    if image.ops().is_none() {
        return Err(cannot_change(name, "Operation not supported"));
    }
    Ok(())
}

fn open_new(given: &Given, image: &Image, name: &str, opener: &mut Opener) -> Result<Image, Failure> {
    let source = Source {
        filename: backing_path(&image.filename, name),
        format: given.last("backing-format").map(str::to_owned),
        cache: given.last("backing-cache").map(str::to_owned),
        force_share: given.has("force-share"),
        ..Source::default()
    };
    let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
    source.open_as(opener, flags, &format!("Could not open new backing file '{name}'"))
}

/// Writes what the new backing file lacks into the image.
fn fill(given: &Given, image: &Image, new: Option<Image>) -> Result<(), Failure> {
    let mut progress = Progress::new(given.has("progress") && !given.has("quiet"));
    let failed =
        |error: io::Error| Failure::new(format!("Could not get the size of '{}': {}", image.filename, reason(&error)));
    let size = image.node.len().map_err(failed)?;
    let cluster = image.ops().and_then(|ops| ops.details().ok()).and_then(|details| details.cluster_size);
    let input = Difference {
        image,
        shared_depth: new.as_ref().and_then(|new| find(image, &new.filename)),
        new_len: new.as_ref().map_or(Ok(0), |new| new.node.len()).map_err(failed)?,
        new,
        unit: cluster.unwrap_or(512),
    };
    let job = Copy {
        target: Target { image, starts_zero: false, packed: given.has("compress"), sparse: DEFAULT_SPARSE_BYTES },
        range: 0..size,
        workers: WORKERS,
        in_order: true,
        offload: false,
        rate: None,
        salvage: None,
    };
    let copied = copy(&job, &input, &mut progress);
    if copied.is_ok() {
        progress.show(1, 1);
    }
    progress.end();
    copied.map_err(|error| error.failure("rebase", size))?;
    // Data and tables are on the disk before the header is touched.
    image
        .node
        .flush()
        .map_err(|error| Failure::new(format!("Could not flush '{}': {}", image.filename, reason(&error))))
}

/// What the image shows of its old backing file and the new one does not have.
struct Difference<'a> {
    image: &'a Image,
    new: Option<Image>,
    new_len: u64,
    /// Where the new backing file is in the old chain, if it is.
    shared_depth: Option<usize>,
    /// Bytes of a cluster of the image.
    unit: u64,
}

impl Difference<'_> {
    /// Whether the new backing file reads as zeros, and for how long.
    fn new_is_zero(&self, at: u64, most: u64) -> io::Result<(bool, u64)> {
        match &self.new {
            Some(new) if at < self.new_len => {
                let status = new.status(at, most.min(self.new_len - at))?;
                Ok((status.extent.zero, status.len))
            }
            _ => Ok((true, most)),
        }
    }

    fn read_new(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let inside = usize::try_from(self.new_len.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let (head, tail) = buf.split_at_mut(inside);
        tail.fill(0);
        match &self.new {
            Some(new) if !head.is_empty() => new.node.read_at(at, head),
            _ => Ok(()),
        }
    }
}

impl Input for Difference<'_> {
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)> {
        let (own, len) = self.image.node.extent(at, most)?;
        if own.allocated {
            return Ok((Content::Absent, len));
        }
        let old = self.image.status(at, len)?;
        if self.shared_depth.is_some_and(|depth| old.depth >= depth) {
            return Ok((Content::Absent, old.len));
        }
        if !old.extent.zero {
            return Ok((Content::Data, old.len));
        }
        let (zero, len) = self.new_is_zero(at, old.len)?;
        Ok((if zero { Content::Absent } else { Content::Zero }, len))
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.image.node.read_at(at, buf)
    }

    fn wanted(&self, at: u64, buf: &[u8]) -> io::Result<Option<Vec<Range<usize>>>> {
        if self.new_is_zero(at, buf.len() as u64)? == (true, buf.len() as u64) && self.new.is_none() {
            return Ok(None);
        }
        let mut new = vec![0; buf.len()];
        self.read_new(at, &mut new)?;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        while start < buf.len() {
            let to_boundary = self.unit - (at + start as u64) % self.unit;
            let end = usize::try_from(to_boundary).map_or(buf.len(), |len| (start + len).min(buf.len()));
            if buf[start..end] != new[start..end] {
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ranges.push(start..end),
                }
            }
            start = end;
        }
        Ok(Some(ranges))
    }
}
