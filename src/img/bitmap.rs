//! `qemu-img bitmap`: persistent dirty bitmaps of an image.

use std::ffi::OsString;

use super::args::{self, Given, long, value};
use super::source::{Source, opener, text_of};
use super::{Failure, Outcome};
use crate::block::dirty::DirtyBits;
use crate::block::{Image, ImageOps, OpenError, OpenFlags, Opener};
use crate::host::reason;

/// What to do, as typed.
const ACTIONS: [&str; 6] = ["add", "remove", "clear", "enable", "disable", "merge"];

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        long("add", false),
        long("remove", false),
        long("clear", false),
        long("enable", false),
        long("disable", false),
        long("merge", true),
        value('g', "granularity"),
        value('b', "source-file"),
        value('F', "source-format"),
        long("object", true),
    ];
    let Some(given) = args::parse("bitmap", &specs, args)? else { return Ok(0) };
    given.check_image_opts(&["format"])?;
    let granularity = given.number("granularity", "granularity", 1, i64::MAX as u64)?;
    if !ACTIONS.iter().any(|action| given.has(action)) {
        return Err(Failure::new("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"));
    }
    if given.has("granularity") && !given.has("add") {
        return Err(Failure::new("granularity only supported with --add"));
    }
    if given.has("source-format") && !given.has("source-file") {
        return Err(Failure::new("-F only supported with -b"));
    }
    if given.has("source-file") && !given.has("merge") {
        return Err(Failure::new("Merge bitmap source file only supported with --merge"));
    }
    let [filename, name] = given.names.as_slice() else {
        return Err(Failure::new("Expecting filename and bitmap name"));
    };
    if granularity.is_some_and(|bytes| !bytes.is_power_of_two() || bytes < 512) {
        return Err(Failure::new(format!(
            "Operation add on bitmap {name} failed: Granularity must be power of 2 and at least 512"
        )));
    }
    let mut opener = opener(&given)?;
    let image =
        given.source(filename).open_with(&mut opener, OpenFlags { no_backing: true, ..OpenFlags::default() })?;
    let other = other_image(&given, &mut opener)?;
    for (action, argument) in given.in_order() {
        if !ACTIONS.contains(&action) {
            continue;
        }
        act(&image, name, action, argument, granularity.unwrap_or(0), other.as_ref())
            .map_err(|text| Failure::new(format!("Operation {action} on bitmap {name} failed: {text}")))?;
    }
    image.node.flush().map_err(|error| Failure::new(format!("Could not store the bitmaps: {}", reason(&error))))?;
    Ok(0)
}

/// The image that `--merge` reads from, if it is another.
fn other_image(given: &Given, opener: &mut Opener) -> Result<Option<Image>, Failure> {
    let Some(filename) = given.last("source-file") else { return Ok(None) };
    let format = given.last("source-format").map(str::to_owned);
    let source = Source { filename: filename.to_owned(), format, ..Source::default() };
    source.open_with(opener, OpenFlags { read_only: true, no_backing: true, ..OpenFlags::default() }).map(Some)
}

fn act(
    image: &Image,
    name: &str,
    action: &str,
    argument: &str,
    granularity: u64,
    other: Option<&Image>,
) -> Result<(), String> {
    let Some(ops) = image.ops().filter(|ops| ops.can_have_bitmaps()) else {
        return Err(match action {
            "add" => format!("Can't store persistent bitmaps to {}: Operation not supported", image.node_name),
            _ => format!("Dirty bitmap '{name}' not found"),
        });
    };
    let done = match action {
        "add" => ops.add_bitmap(name, granularity, true),
        "remove" => ops.remove_bitmap(name),
        "clear" => ops.clear_bitmap(name),
        "enable" => ops.enable_bitmap(name, true),
        "disable" => ops.enable_bitmap(name, false),
        _ => bits_of(other.unwrap_or(image), argument).and_then(|bits| ops.merge_bitmap(name, &bits)),
    };
    done.map_err(|error| text_of(&error))
}

fn bits_of(image: &Image, name: &str) -> Result<DirtyBits, OpenError> {
    match image.ops().filter(|ops| ops.can_have_bitmaps()) {
        Some(ops) => ImageOps::bitmap_bits(ops, name),
        None => Err(OpenError::Invalid(format!("Dirty bitmap '{name}' not found"))),
    }
}
