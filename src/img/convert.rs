//! `qemu-img convert`.

use std::ffi::OsString;

use super::args::{self, Given, flag, long, value};
use super::compare::Progress;
use super::create_options::{add_typed, asks_for_help, help_text, options};
use super::{Failure, Outcome, Source};
use crate::block::create::{CreateOptions, create};
use crate::block::driver::CreatePlace;
use crate::block::{CacheMode, Image, ImageOps, OpenFlags, parse_size};
use crate::host::reason;

/// Bytes that are copied at a time.
const CHUNK_BYTES: u64 = 2 << 20;

/// Zeros of this length become holes unless `-S` says otherwise.
const DEFAULT_SPARSE_BYTES: u64 = 4096;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "source-format"),
        value('O', "target-format"),
        value('o', "target-format-options"),
        value('B', "backing"),
        value('F', "backing-format"),
        value('S', "sparse-size"),
        value('T', "source-cache"),
        value('t', "cache"),
        value('m', "parallel"),
        value('l', "snapshot"),
        value('r', "rate-limit"),
        flag('W', "oob-writes"),
        flag('C', "copy-range-offloading"),
        flag('c', "compress"),
        flag('n', "no-create"),
        flag('p', "progress"),
        flag('q', "quiet"),
        flag('U', "force-share"),
        long("image-opts", false),
        long("target-image-opts", false),
        long("target-is-zero", false),
        long("salvage", false),
        long("bitmaps", false),
        long("object", true),
    ];
    let Some(given) = args::parse("convert", &specs, args)? else { return Ok(0) };
    for option in ["snapshot", "rate-limit", "target-image-opts", "salvage", "bitmaps", "object"] {
        if given.has(option) {
            return Err(Failure::new(format!("--{option} is not supported by this version")));
        }
    }
    check_tuning(&given)?;
    let format = given.last("target-format").unwrap_or("raw");
    if given.all("target-format-options").any(asks_for_help) {
        print!("{}", help_text(format, given.names.last())?);
        return Ok(0);
    }
    let Some((output, inputs)) = given.names.split_last().filter(|(_, inputs)| !inputs.is_empty()) else {
        return Err(Failure::new("Must specify image file name"));
    };
    let sources = open_sources(&given, inputs)?;
    let lengths = lengths(&sources)?;
    let chosen = chosen(&given, format, output, lengths.iter().sum())?;
    let new = !given.has("no-create");
    if new {
        create(output, &chosen, &mut CreatePlace::default()).map_err(|error| {
            Failure::new(format!("{output}: error while converting {format}: {}", error.full_text()))
        })?;
    }
    let destination = Source {
        filename: output.clone(),
        format: Some(format.to_owned()),
        cache: Some(given.last("cache").unwrap_or("unsafe").to_owned()),
        ..Source::default()
    };
    // It is only written; over a backing file, parts of clusters come from there.
    let flags = OpenFlags { no_backing: new && chosen.get("backing_file").is_none(), ..OpenFlags::default() };
    let destination = destination.open(flags)?;
    let sparse = given.last("sparse-size").map_or(Some(DEFAULT_SPARSE_BYTES), parse_size).unwrap_or(0);
    let plan = Plan {
        starts_zero: new && destination.file.info().driver == "file" || given.has("target-is-zero"),
        keeps_backing: chosen.get("backing_file").is_some(),
        packed: given.has("compress"),
        sparse,
        destination,
    };
    let failed = |error: std::io::Error| Failure::new(format!("error while converting: {}", reason(&error)));
    plan.check_size(lengths.iter().sum())?;
    let mut progress = Progress::new(given.has("progress") && !given.has("quiet"));
    let copied = plan.copy(&sources, &lengths, &mut progress);
    progress.end();
    copied.and_then(|()| plan.destination.node.flush()).map_err(failed)?;
    Ok(0)
}

/// Options that change how fast it goes, not what comes out: their values are checked.
fn check_tuning(given: &Given) -> Result<(), Failure> {
    if let Some(text) = given.last("parallel") {
        let valid = text.parse::<u32>().is_ok_and(|count| (1..=16).contains(&count));
        if !valid {
            return Err(Failure::new("Invalid number of coroutines specified. Must be between 1 and 16."));
        }
    }
    if let Some(text) = given.last("sparse-size").filter(|text| parse_size(text).is_none()) {
        return Err(Failure::new(format!("Invalid buffer size for sparse output specified: '{text}'.")));
    }
    for (option, kind) in [("source-cache", "source "), ("cache", "")] {
        if let Some(name) = given.last(option).filter(|name| CacheMode::by_name(name).is_none()) {
            return Err(Failure::new(format!("Invalid {kind}cache option: {name}")));
        }
    }
    Ok(())
}

fn open_sources(given: &Given, inputs: &[String]) -> Result<Vec<Image>, Failure> {
    let open = |filename: &String| {
        let source = Source {
            filename: filename.clone(),
            format: given.last("source-format").map(str::to_owned),
            image_opts: given.has("image-opts"),
            cache: given.last("source-cache").map(str::to_owned),
            force_share: given.has("force-share"),
        };
        source.open(OpenFlags { read_only: true, ..OpenFlags::default() })
    };
    inputs.iter().map(open).collect()
}

fn lengths(sources: &[Image]) -> Result<Vec<u64>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("unable to get size of image: {}", reason(&error)));
    sources.iter().map(|image| image.node.len().map_err(failed)).collect()
}

fn chosen(given: &Given, format: &str, output: &str, size: u64) -> Result<CreateOptions, Failure> {
    let mut chosen = options(format, output, "")?;
    for text in given.all("target-format-options") {
        add_typed(&mut chosen, text).map_err(Failure::new)?;
    }
    if let Some(backing) = given.last("backing") {
        chosen.set("backing_file", backing);
    }
    if let Some(format) = given.last("backing-format") {
        chosen.set("backing_fmt", format);
    }
    if chosen.get("backing_file").is_some() && chosen.get("backing_fmt").is_none() {
        return Err(Failure::new("Use of backing file requires explicit backing format"));
    }
    if given.has("compress") && chosen.driver() == "raw" {
        return Err(Failure::new("Compression not supported for this file format"));
    }
    if chosen.size().is_none() {
        chosen.set("size", size.to_string());
    }
    Ok(chosen)
}

/// How to copy.
struct Plan {
    destination: Image,
    /// What is not written reads as zeros.
    starts_zero: bool,
    /// What the source's top image leaves to its backing file, the new one leaves to its own.
    keeps_backing: bool,
    packed: bool,
    /// Zeros of at least this length are not written; 0: all are.
    sparse: u64,
}

impl Plan {
    fn check_size(&self, size: u64) -> Result<(), Failure> {
        let room = self.destination.node.len();
        let room = room.map_err(|error| Failure::new(format!("unable to get output image length: {error}")))?;
        if room < size { Err(Failure::new("output file is smaller than input file")) } else { Ok(()) }
    }

    fn copy(&self, sources: &[Image], lengths: &[u64], progress: &mut Progress) -> std::io::Result<()> {
        let total: u64 = lengths.iter().sum();
        let mut base = 0;
        for (source, len) in sources.iter().zip(lengths) {
            let mut at = 0;
            while at < *len {
                at += self.step(source, at, len - at, base)?;
                progress.show(base + at, total);
            }
            base += len;
        }
        progress.show(total, total);
        Ok(())
    }

    /// Copies some bytes from `at` on; returns how many.
    fn step(&self, source: &Image, at: u64, left: u64, base: u64) -> std::io::Result<u64> {
        let unit = self.destination.ops().and_then(ImageOps::compressed_unit).unwrap_or(512);
        let (zero, absent, mut len) = if self.keeps_backing {
            let (extent, len) = source.node.extent(at, left)?;
            (extent.zero && extent.allocated, !extent.allocated, len)
        } else {
            let status = source.status(at, left)?;
            (status.extent.zero, false, status.len)
        };
        if self.packed {
            // Whole clusters only, each either all zero or read.
            let whole = len / unit * unit;
            len = if (zero || absent) && whole > 0 { whole } else { unit.min(left) };
            if (zero || absent) && (whole > 0 || len == left) {
                return self.skip(base + at, len, absent).map(|()| len);
            }
        } else if zero || absent {
            return self.skip(base + at, len, absent).map(|()| len);
        }
        let len = len.min(CHUNK_BYTES.max(unit));
        let mut buf = vec![0; usize::try_from(len).unwrap_or(0)];
        source.node.read_at(at, &mut buf)?;
        if self.packed {
            self.write_packed(base + at, &buf)?;
        } else {
            self.write_sparse(base + at, &buf)?;
        }
        Ok(len)
    }

    fn skip(&self, at: u64, len: u64, absent: bool) -> std::io::Result<()> {
        if absent || self.starts_zero && !self.keeps_backing {
            return Ok(());
        }
        self.destination.node.zero(at, len, self.sparse > 0)
    }

    fn write_packed(&self, at: u64, buf: &[u8]) -> std::io::Result<()> {
        if buf.iter().all(|byte| *byte == 0) {
            return self.skip(at, buf.len() as u64, false);
        }
        match self.destination.ops() {
            Some(image) => image.write_compressed(at, buf),
            None => self.destination.node.write_at(at, buf, false),
        }
    }

    /// Writes the runs that are not zeros.
    fn write_sparse(&self, at: u64, buf: &[u8]) -> std::io::Result<()> {
        let unit = usize::try_from(self.sparse).unwrap_or(usize::MAX);
        if unit == 0 {
            return self.destination.node.write_at(at, buf, false);
        }
        let mut start = 0;
        while start < buf.len() {
            let is_zero = |at: usize| buf[at..(at + unit).min(buf.len())].iter().all(|byte| *byte == 0);
            let zero = is_zero(start);
            let mut end = (start + unit).min(buf.len());
            while end < buf.len() && is_zero(end) == zero {
                end = (end + unit).min(buf.len());
            }
            if zero {
                self.skip(at + start as u64, (end - start) as u64, false)?;
            } else {
                self.destination.node.write_at(at + start as u64, &buf[start..end], false)?;
            }
            start = end;
        }
        Ok(())
    }
}
