//! `qemu-img resize`.

use std::ffi::OsString;

use super::args::{self, flag, long, value};
use super::{Failure, Outcome, Source};
use crate::block::{OpenFlags, parse_size};
use crate::host::reason;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        flag('q', "quiet"),
        long("image-opts", false),
        long("preallocation", true),
        long("shrink", false),
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
    let [filename, size] = given.names.as_slice() else {
        return Err(Failure::usage("resize", "Expecting image file name and size"));
    };
    match given.last("preallocation") {
        None | Some("off") => {}
        Some(mode @ ("metadata" | "falloc" | "full")) => {
            return Err(Failure::new(format!("--preallocation={mode} is not supported by this version")));
        }
        Some(other) => return Err(Failure::new(format!("Invalid preallocation mode '{other}'"))),
    }
    let (sign, digits) = match size.split_at_checked(1) {
        Some((sign @ ("+" | "-"), digits)) => (sign, digits),
        _ => ("", size.as_str()),
    };
    let amount = parse_size(digits).ok_or_else(|| {
        Failure::new(
            "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means \
             kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.",
        )
    })?;
    let source = Source {
        filename: filename.clone(),
        format: given.last("format").map(str::to_owned),
        image_opts: given.has("image-opts"),
        ..Source::default()
    };
    let image = source.open(OpenFlags::default())?;
    let failed = |error: std::io::Error| Failure::new(format!("Failed to resize image: {}", reason(&error)));
    let old = image.node.len().map_err(failed)?;
    let total = match sign {
        "+" => old.checked_add(amount),
        "-" => Some(old.saturating_sub(amount)),
        _ => Some(amount),
    };
    let total = total.filter(|total| *total > 0).ok_or_else(|| Failure::new("New image size must be positive"))?;
    if total < old && !given.has("shrink") {
        return Err(Failure::new(
            "Use the --shrink option to perform a shrink operation.\nqemu-img: warning: Shrinking an image will \
             delete all data beyond the shrunken image's end. Before performing such an operation, make sure there \
             is no important data there.",
        ));
    }
    image.node.truncate(total.next_multiple_of(512)).map_err(failed)?;
    image.node.flush().map_err(failed)?;
    if !given.has("quiet") {
        println!("Image resized.");
    }
    Ok(0)
}
