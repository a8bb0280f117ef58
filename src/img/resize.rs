//! `qemu-img resize`.

use std::ffi::OsString;

use super::args::{self, Given, flag, long, value};
use super::progress::Progress;
use super::source::{opener, text_of};
use super::{Failure, Outcome, program};
use crate::block::create::Preallocation;
use crate::block::{Image, OpenError, OpenFlags, parse_size};
use crate::host::{ENOTSUP, errno, reason};

/// What `size` complains about.
const BAD_SIZE: &str = "Parameter 'size' expects a non-negative number below 2^64\n\
    Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.";

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        long("preallocation", true),
        long("shrink", false),
        flag('q', "quiet"),
        long("object", true),
    ];
    // "-1M" is a size, not an option; it comes last.
    let is_relative = |last: &OsString| {
        let text = last.to_string_lossy();
        text.starts_with(['+', '-']) && text[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    let (args, relative) = match args.split_last() {
        Some((last, rest)) if is_relative(last) => (rest, Some(last.to_string_lossy().into_owned())),
        _ => (args, None),
    };
    let Some(mut given) = args::parse("resize", &specs, args)? else { return Ok(0) };
    given.names.extend(relative);
    let how = preallocation(&given)?;
    let (filename, size) = match given.names.as_slice() {
        [filename, size] => (filename, size),
        [] | [_] => return Err(Failure::usage("resize", "Expecting image file name and size")),
        _ => return Err(Failure::usage("resize", "Extra argument(s) in command line")),
    };
    given.check_image_opts(&["format"])?;
    let (sign, digits) = match size.split_at_checked(1) {
        Some((sign @ ("+" | "-"), digits)) => (sign, digits),
        _ => ("", size.as_str()),
    };
    let amount = parse_size(digits).ok_or_else(|| Failure::new(BAD_SIZE))?;
    let mut opener = opener(&given)?;
    let image = given.source(filename).open_with(&mut opener, OpenFlags::default())?;
    let old = image.node.len().map_err(|error| Failure::new(format!("Failed to get the size: {}", reason(&error))))?;
    let total = match sign {
        "+" => old.checked_add(amount),
        "-" => Some(old.saturating_sub(amount)),
        _ => Some(amount),
    };
    let total = total.filter(|total| (1..=i64::MAX as u64).contains(total));
    let total = total.ok_or_else(|| Failure::new("New image size must be positive"))?;
    check_shrink(&given, old, total, how)?;
    // From here on a signal is heeded when the image is in order again.
    let progress = Progress::new(false);
    resize(&image, total, how, given.has("shrink"))?;
    image.node.flush().map_err(|error| Failure::new(format!("Failed to flush the image: {}", reason(&error))))?;
    if !given.has("quiet") {
        println!("Image resized.");
    }
    progress.check().map_err(|error| Failure::io("", &error, "the image has its new size"))?;
    Ok(0)
}

fn preallocation(given: &Given) -> Result<Preallocation, Failure> {
    match given.last("preallocation") {
        None | Some("off") => Ok(Preallocation::Off),
        Some("metadata") => Ok(Preallocation::Metadata),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(Failure::new(format!("Invalid preallocation mode '{other}'"))),
    }
}

fn check_shrink(given: &Given, old: u64, total: u64, how: Preallocation) -> Result<(), Failure> {
    if total >= old {
        return Ok(());
    }
    if how != Preallocation::Off {
        return Err(Failure::new("Preallocation can only be used for growing images"));
    }
    if given.has("shrink") {
        return Ok(());
    }
    let refused = Failure::new("Use the --shrink option to perform a shrink operation.");
    let warning = format!(
        "{}: warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such \
         an operation, make sure there is no important data there.",
        program::name()
    );
    Err(Failure { message: format!("{}\n{warning}", refused.message), ..refused })
}

fn resize(image: &Image, total: u64, how: Preallocation, shrink: bool) -> Result<(), Failure> {
    if let Some(ops) = image.ops() {
        return match ops.resize(total, how, shrink) {
            // Some formats know nothing but lengths.
            Err(OpenError::Io { error, .. }) if is_unsupported(&error) && how == Preallocation::Off => {
                truncate(image, total)
            }
            Err(error) => Err(Failure::new(text_of(&error))),
            Ok(()) => Ok(()),
        };
    }
    let failed = |error: std::io::Error| Failure::new(format!("Failed to resize image: {}", reason(&error)));
    let old = image.node.len().map_err(failed)?;
    if how == Preallocation::Metadata {
        return Err(Failure::new("Unsupported preallocation mode: metadata"));
    }
    if how != Preallocation::Off && total > old {
        image.node.preallocate(old, total - old, how).map_err(failed)?;
    }
    truncate(image, total)
}

fn truncate(image: &Image, total: u64) -> Result<(), Failure> {
    image.node.truncate(total).map_err(|error| {
        if is_unsupported(&error) {
            return Failure::new("Image format driver does not support resize");
        }
        Failure::new(format!("Failed to resize image: {}", reason(&error)))
    })
}

fn is_unsupported(error: &std::io::Error) -> bool {
    errno(error) == ENOTSUP
}
