//! `qemu-img convert`.

mod bitmaps;
mod sources;

use std::ffi::OsString;

use super::args::{self, Given, flag, long, value};
use super::copy::{Copy, DEFAULT_SPARSE_BYTES, Salvage, Target, copy};
use super::create_options::{add_typed, asks_for_help, help_text, options};
use super::progress::Progress;
use super::source::{Source, check_cache, opener, snapshot_name, text_of};
use super::{Failure, Outcome, program};
use crate::block::create::{CreateOptions, create};
use crate::block::driver::CreatePlace;
use crate::block::{Image, ImageOps, OpenFlags, Opener, parse_size};
use crate::host::reason;
use sources::Sources;

pub(super) use sources::Whole;

/// The largest value of `-S`.
const MAX_SPARSE_BYTES: u64 = 16 << 20;

/// Threads, unless `-m` says otherwise.
const DEFAULT_WORKERS: u64 = 8;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "source-format"),
        long("source-image-opts", false),
        value('l', "source-snapshot"),
        value('T', "source-cache"),
        value('O', "target-format"),
        long("target-image-opts", false),
        value('o', "target-options"),
        flag('c', "compress"),
        value('t', "target-cache"),
        value('B', "backing"),
        value('F', "backing-format"),
        flag('n', "no-create"),
        long("target-is-zero", false),
        value('S', "sparse-size"),
        long("bitmaps", false),
        long("skip-broken-bitmaps", false),
        flag('U', "force-share"),
        value('r', "rate"),
        value('m', "parallel"),
        flag('C', "copy-range-offloading"),
        long("salvage", false),
        flag('W', "oob-writes"),
        flag('p', "progress"),
        flag('q', "quiet"),
        long("object", true),
        // As it was called before QEMU 10.
        long("image-opts", false),
    ];
    let Some(given) = args::parse("convert", &specs, args)? else { return Ok(0) };
    let wanted = Wanted::of(&given)?;
    if given.all("target-options").any(asks_for_help) {
        print!("{}", help_text(&wanted.format, given.names.last())?);
        return Ok(0);
    }
    convert(&given, &wanted)
}

/// What the options say, checked as far as that goes without an image.
struct Wanted {
    format: String,
    sparse: u64,
    workers: u64,
    rate: Option<u64>,
    new: bool,
    snapshot: Option<String>,
}

impl Wanted {
    fn of(given: &Given) -> Result<Self, Failure> {
        if let Some(empty) = given.all("target-options").find(|text| text.is_empty()) {
            return Err(Failure::new(format!("Invalid option list: {empty}")));
        }
        let snapshot = given.last("source-snapshot").map(snapshot_name).transpose()?;
        let sparse = given.last("sparse-size").map_or(Ok(DEFAULT_SPARSE_BYTES), sparse_size)?;
        let workers = given.number("parallel", "number of coroutines", 1, 16)?.unwrap_or(DEFAULT_WORKERS);
        let rate = given.rate("rate")?;
        let wanted = Self {
            format: given.last("target-format").unwrap_or("raw").to_owned(),
            sparse,
            workers,
            rate,
            new: !given.has("no-create"),
            snapshot,
        };
        wanted.check_combinations(given)?;
        Ok(wanted)
    }

    fn check_combinations(&self, given: &Given) -> Result<(), Failure> {
        let has = |name: &str| given.has(name);
        let image_opts = has("image-opts") || has("source-image-opts");
        let inputs = given.names.len().saturating_sub(1);
        let refusals = [
            (image_opts && has("source-format"), "--image-opts and --format are mutually exclusive"),
            (has("target-image-opts") && has("target-format"), "--image-opts and --format are mutually exclusive"),
            (has("copy-range-offloading") && has("compress"), "Cannot enable copy offloading when -c is used"),
            (has("copy-range-offloading") && has("sparse-size"), "Cannot enable copy offloading when -S is used"),
            (has("salvage") && has("copy-range-offloading"), "Cannot use copy offloading in salvaging mode"),
            (has("target-image-opts") && self.new, "--target-image-opts requires use of -n flag"),
            (has("target-is-zero") && self.new, "--target-is-zero requires use of -n flag"),
            (has("skip-broken-bitmaps") && !has("bitmaps"), "Use of --skip-broken-bitmaps requires --bitmaps"),
            (inputs == 0 && !given.all("target-options").any(asks_for_help), "Must specify image file name"),
            (!self.new && has("target-options"), "-o has no effect when skipping image creation"),
            (inputs > 1 && self.snapshot.is_some(), "No support for concatenating multiple snapshot"),
            (inputs > 1 && has("bitmaps"), "Copying bitmaps only possible with single source"),
        ];
        match refusals.iter().find(|(applies, _)| *applies) {
            Some((_, text)) => Err(Failure::new(*text)),
            None => {
                check_cache(given.last("target-cache"), "cache option")?;
                check_cache(given.last("source-cache"), "source cache option")
            }
        }
    }
}

fn sparse_size(text: &str) -> Result<u64, Failure> {
    let size = parse_size(text)
        .ok_or_else(|| Failure::new(format!("Invalid buffer size for sparse output specified: '{text}'.")))?;
    if size > MAX_SPARSE_BYTES || size % 512 != 0 {
        return Err(Failure::new(format!(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
             {MAX_SPARSE_BYTES}. Select 0 to disable sparse detection (fully allocates output)."
        )));
    }
    Ok(size)
}

fn convert(given: &Given, wanted: &Wanted) -> Outcome {
    let Some((output, inputs)) = given.names.split_last() else {
        return Err(Failure::new("Must specify image file name"));
    };
    let mut opener = opener(given)?;
    let images = open_sources(given, inputs, &mut opener)?;
    let with_bitmaps = given.has("bitmaps");
    if let (Some(name), Some(image)) = (&wanted.snapshot, images.first()) {
        load_snapshot(image, name)?;
    }
    if with_bitmaps && !images.iter().all(|image| image.ops().is_some_and(ImageOps::can_have_bitmaps)) {
        return Err(Failure::new("Source lacks bitmap support"));
    }
    let chosen = if wanted.new { Some(chosen(given, wanted, output, inputs.len())?) } else { None };
    let backing = chosen.as_ref().and_then(|chosen| chosen.get("backing_file")).map(str::to_owned);
    let sources = Sources::new(&images, backing.is_some())?;
    // A signal from here on ends the copy between two steps.
    let mut progress = Progress::new(given.has("progress") && !given.has("quiet"));
    if let Some(mut chosen) = chosen {
        if chosen.size().is_none() {
            chosen.set("size", sources.total().to_string());
        }
        let mut place = CreatePlace { opener: std::mem::take(&mut opener) };
        create(output, &chosen, &mut place).map_err(|error| {
            Failure::new(format!("{output}: error while converting {}: {}", wanted.format, error.full_text()))
        })?;
        opener = place.opener;
    }
    let target = open_target(given, wanted, output, backing.is_some(), &mut opener)?;
    if with_bitmaps {
        bitmaps::check(&images, &target, given.has("skip-broken-bitmaps"))?;
    }
    check_target(given, &target, sources.total())?;
    let offload = given.has("copy-range-offloading");
    let job = Copy {
        target: Target {
            image: &target,
            starts_zero: (wanted.new && target.file.info().driver == "file" || given.has("target-is-zero"))
                && backing.is_none(),
            packed: given.has("compress") || packs_only(&target),
            sparse: wanted.sparse,
        },
        range: 0..sources.total(),
        workers: usize::try_from(wanted.workers).unwrap_or(1),
        in_order: !given.has("oob-writes") && !offload,
        offload,
        rate: wanted.rate,
        salvage: given.has("salvage").then_some(Salvage { quiet: given.has("quiet") }),
    };
    let copied = copy(&job, &sources, &mut progress);
    if copied.is_ok() {
        progress.show(1, 1);
    }
    progress.end();
    copied.map_err(|error| error.failure("convert", sources.total()))?;
    if with_bitmaps {
        bitmaps::copy(&images, &target, given.has("skip-broken-bitmaps"))?;
    }
    let failed = |error: std::io::Error| Failure::new(format!("error while writing: {}", reason(&error)));
    target.node.flush().map_err(failed)?;
    Ok(0)
}

fn open_sources(given: &Given, inputs: &[String], opener: &mut Opener) -> Result<Vec<Image>, Failure> {
    let open = |filename: &String| {
        let source = Source {
            filename: filename.clone(),
            format: given.last("source-format").map(str::to_owned),
            image_opts: given.has("image-opts") || given.has("source-image-opts"),
            cache: given.last("source-cache").map(str::to_owned),
            force_share: given.has("force-share"),
            aio: None,
        };
        source.open_with(opener, OpenFlags { read_only: true, ..OpenFlags::default() })
    };
    inputs.iter().map(open).collect()
}

/// Makes the source read as it was at a snapshot.
pub(super) fn load_snapshot(image: &Image, name: &str) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(format!("Failed to load snapshot: {text}"));
    let Some(ops) = image.ops() else {
        return Err(failed(format!(
            "Block format '{}' used by device '' does not support temporarily loading internal snapshots",
            image.driver
        )));
    };
    // What cannot be listed is told by the next call.
    let known = ops.details().map_or(true, |details| details.snapshots.iter().any(|known| known.is_called(name)));
    if !known {
        return Err(failed("Can't find snapshot".to_owned()));
    }
    ops.load_snapshot(name).map_err(|error| failed(text_of(&error)))
}

fn chosen(given: &Given, wanted: &Wanted, output: &str, inputs: usize) -> Result<CreateOptions, Failure> {
    let mut chosen = options(&wanted.format, output, "")?;
    for text in given.all("target-options") {
        add_typed(&mut chosen, text).map_err(Failure::new)?;
    }
    for (option, name, what) in
        [("backing", "backing_file", "Backing file"), ("backing-format", "backing_fmt", "Backing file format")]
    {
        if let Some(value) = given.last(option) {
            if !chosen.knows(name) {
                return Err(Failure::new(format!("{what} not supported for file format '{}'", chosen.driver())));
            }
            chosen.set(name, value);
        }
    }
    if chosen.get("backing_file").is_some() {
        if inputs > 1 {
            return Err(Failure::new(
                "Having a backing file for the target makes no sense when concatenating multiple input images",
            ));
        }
        if chosen.get("backing_fmt").is_none() {
            return Err(Failure::new("Use of backing file requires explicit backing format"));
        }
    }
    if given.has("compress") {
        let encrypted = chosen.is_on("encryption") || chosen.get("encrypt.format").is_some();
        if encrypted {
            return Err(Failure::new("Compression and encryption not supported at the same time"));
        }
        if chosen.get("preallocation").is_some_and(|mode| mode != "off") {
            return Err(Failure::new("Compression and preallocation not supported at the same time"));
        }
        if chosen.driver() == "raw" {
            return Err(Failure::new("Compression not supported for this file format"));
        }
    }
    Ok(chosen)
}

fn open_target(
    given: &Given,
    wanted: &Wanted,
    output: &str,
    keeps_backing: bool,
    opener: &mut Opener,
) -> Result<Image, Failure> {
    let image_opts = given.has("target-image-opts");
    let target = Source {
        filename: output.to_owned(),
        format: (!image_opts).then(|| wanted.format.clone()),
        image_opts,
        cache: Some(given.last("target-cache").unwrap_or("unsafe").to_owned()),
        ..Source::default()
    };
    // A new image without a backing file has nothing below it.
    target.open_with(opener, OpenFlags { no_backing: wanted.new && !keeps_backing, ..OpenFlags::default() })
}

/// Whether an image has compressed clusters only: whole ones are written then, each once.
fn packs_only(target: &Image) -> bool {
    target.ops().and_then(|ops| ops.details().ok()).is_some_and(|details| details.compressed)
}

fn check_target(given: &Given, target: &Image, size: u64) -> Result<(), Failure> {
    if given.has("compress") && target.ops().and_then(ImageOps::compressed_unit).is_none() {
        return Err(Failure::new("Compression not supported for this file format"));
    }
    let room = target.node.len();
    let room = room.map_err(|error| Failure::new(format!("unable to get output image length: {}", reason(&error))))?;
    if room < size {
        return Err(Failure::new("output file is smaller than input file"));
    }
    if target.backing_name.is_some() && target.backing.is_none() && !given.has("no-create") {
        program::warn("the target's backing file is not open");
    }
    Ok(())
}
