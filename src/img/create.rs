//! `qemu-img create`.

use std::ffi::OsString;

use super::args::{self, flag, long, value};
use super::create_options::{add_typed, asks_for_help, help_text, options};
use super::source::opener;
use super::{Failure, Outcome, program};
use crate::block::create::{CreateOptions, create};
use crate::block::driver::CreatePlace;
use crate::block::{self, NodeOptions, OpenFlags, parse_size};

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        value('o', "options"),
        value('b', "backing"),
        value('F', "backing-format"),
        flag('u', "backing-unsafe"),
        flag('q', "quiet"),
        long("object", true),
    ];
    let Some(given) = args::parse("create", &specs, args)? else { return Ok(0) };
    let opener = opener(&given)?;
    let format = given.last("format").unwrap_or("raw");
    if given.all("options").any(asks_for_help) {
        print!("{}", help_text(format, given.names.first())?);
        return Ok(0);
    }
    if let Some(empty) = given.all("options").find(|text| text.is_empty()) {
        return Err(Failure::new(format!("Invalid option list: {empty}")));
    }
    let (filename, size) = match given.names.as_slice() {
        [] => return Err(Failure::usage("create", "Expecting image file name")),
        [filename] => (filename, None),
        [filename, size] => (filename, Some(typed_size(size)?)),
        [_, _, extra, ..] => return Err(Failure::usage("create", format!("Unexpected argument: {extra}"))),
    };
    let fail = |text: String| Failure::new(format!("{filename}: {text}"));
    let mut chosen = options(format, filename, &format!("{filename}: "))?;
    for text in given.all("options") {
        add_typed(&mut chosen, text).map_err(fail)?;
    }
    if let Some(size) = size {
        if chosen.size().is_some() {
            return Err(fail("The image size must be specified only once".to_owned()));
        }
        chosen.set("size", size.to_string());
    }
    for (option, name) in [("backing", "backing_file"), ("backing-format", "backing_fmt")] {
        if let Some(value) = given.last(option) {
            if !chosen.knows(name) {
                let what = if option == "backing" { "Backing file" } else { "Backing file format" };
                return Err(fail(format!("{what} not supported for file format '{}'", chosen.driver())));
            }
            chosen.set(name, value);
        }
    }
    if chosen.given("backing_file") == Some("") {
        return Err(fail("Expected backing file name, got empty string".to_owned()));
    }
    resolve_backing(filename, &mut chosen, given.has("backing-unsafe"))?;
    if chosen.size().is_none() {
        return Err(fail("Image creation needs a size parameter".to_owned()));
    }
    if !given.has("quiet") {
        println!("Formatting '{filename}', {}", chosen.line());
    }
    create(filename, &chosen, &mut CreatePlace { opener }).map_err(|error| fail(error.full_text()))?;
    Ok(0)
}

fn typed_size(text: &str) -> Result<u64, Failure> {
    let range = || Failure::new("Invalid image size specified. Must be between 0 and 9223372036854775807.");
    match parse_size(text) {
        Some(size) if size <= i64::MAX as u64 => Ok(size),
        Some(_) => Err(range()),
        // A number with a suffix that does not fit in 64 bits.
        None if text.trim_end_matches(|c: char| "kKmMgGtTpPeE".contains(c)).parse::<u64>().is_ok() => Err(range()),
        None => Err(Failure::new(format!("Invalid image size specified: '{text}'."))),
    }
}

/// Looks at the backing file: its length is the default size, and its format is probed and recorded if it was not
/// given (QEMU refuses that since 6.1; people's notes still have it).
fn resolve_backing(filename: &str, chosen: &mut CreateOptions, blindly: bool) -> Result<(), Failure> {
    let Some(name) = chosen.get("backing_file").map(str::to_owned).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let fail = |text: &str| Failure::new(format!("{filename}: {text}"));
    if name == filename {
        return Err(fail("Error: Trying to create an image with the same filename as the backing file"));
    }
    if blindly && chosen.get("backing_fmt").is_some() {
        return Ok(());
    }
    let format = chosen.get("backing_fmt").map(str::to_owned);
    let mut options = NodeOptions::file(block::backing_path(filename, &name));
    options.driver.clone_from(&format);
    let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
    let opened = block::open(&options, flags);
    let (image, _) = match opened {
        Ok(opened) => opened,
        Err(_) if blindly => return Ok(()),
        Err(error) => return Err(fail(&format!("{}\nCould not open backing image.", error.full_text()))),
    };
    if format.is_none() {
        program::warn(format!(
            "{filename}: Backing file specified without backing format\nDetected format of {}.",
            image.driver
        ));
        chosen.set("backing_fmt", image.driver);
    }
    if chosen.size().is_none() {
        let size = image.node.len().map_err(|error| fail(&crate::host::reason(&error)))?;
        chosen.set("size", size.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_as_qemu_does() {
        let message = |text: &str| typed_size(text).unwrap_err().message;
        assert_eq!(typed_size("5G").unwrap(), 5 << 30);
        assert_eq!(message("foo"), "qemu-img: Invalid image size specified: 'foo'.");
        assert_eq!(
            message("16E"),
            "qemu-img: Invalid image size specified. Must be between 0 and 9223372036854775807."
        );
    }
}
