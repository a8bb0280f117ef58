//! `qemu-img create`, and the making of an image that `convert` shares.

use std::ffi::OsString;
use std::sync::Arc;

use super::args::{self, flag, long, value};
use super::create_options::{Chosen, Preallocation, Target, asks_for_help, target};
use super::{Failure, Outcome};
use crate::block::format::qcow2::{self, create};
use crate::block::protocol::file::FileNode;
use crate::block::{self, BlockNode, NodeOptions, OpenError, OpenFlags, parse_size};

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
    if given.has("object") {
        return Err(Failure::new("--object is not supported by this version"));
    }
    let format = given.last("format").unwrap_or("raw");
    if given.all("options").any(asks_for_help) {
        print!("{}", target(format, "")?.help_text());
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
    let mut chosen = Chosen::new(target(format, &format!("{filename}: "))?);
    for text in given.all("options") {
        chosen.add(text).map_err(fail)?;
    }
    if let Some(size) = size {
        if chosen.size().is_some() {
            return Err(fail("The image size must be specified only once".to_owned()));
        }
        chosen.set("size", size.to_string());
    }
    for (option, name) in [("backing", "backing_file"), ("backing-format", "backing_fmt")] {
        if let Some(value) = given.last(option) {
            if chosen.target == Target::Raw {
                let what = if option == "backing" { "Backing file" } else { "Backing format" };
                return Err(fail(format!("{what} not supported for file format 'raw'")));
            }
            chosen.set(name, value);
        }
    }
    resolve_backing(filename, &mut chosen, given.has("backing-unsafe"))?;
    if chosen.size().is_none() {
        return Err(fail("Image creation needs a size parameter".to_owned()));
    }
    if !given.has("quiet") {
        println!("Formatting '{filename}', {}", chosen.line());
    }
    make(filename, &chosen).map_err(fail)?;
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
fn resolve_backing(filename: &str, chosen: &mut Chosen, blindly: bool) -> Result<(), Failure> {
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
        eprintln!(
            "qemu-img: warning: {filename}: Backing file specified without backing format\nDetected format of {}.",
            image.driver
        );
        chosen.set("backing_fmt", image.driver);
    }
    if chosen.size().is_none() {
        let size = image.node.len().map_err(|error| fail(&crate::host::reason(&error)))?;
        chosen.set("size", size.to_string());
    }
    Ok(())
}

/// Makes the image.
pub(super) fn make(filename: &str, chosen: &Chosen) -> Result<(), String> {
    let text = |error: OpenError| error.full_text();
    let io = |error: std::io::Error| format!("Could not write to image: {}", crate::host::reason(&error));
    let preallocation = chosen.preallocation()?;
    let size = chosen.size().unwrap_or(0);
    if chosen.target == Target::Raw {
        let size = size.checked_next_multiple_of(512).ok_or("Image is too big")?;
        let file = FileNode::create(filename, size).map_err(text)?;
        if preallocation == Preallocation::Off && size > 0 {
            // As QEMU: the first block has storage, so that the host's alignment can be told.
            file.write_zeros(0, size.min(4096)).map_err(io)?;
        }
        return reserve(&file, 0, size, preallocation).map_err(io);
    }
    let options = chosen.qcow2()?;
    options.validate().map_err(text)?;
    let file = Arc::new(FileNode::create(filename, 0).map_err(text)?);
    create::create(file.as_ref(), &options).map_err(text)?;
    if preallocation != Preallocation::Off {
        let open = qcow2::OpenOptions::default();
        let image = qcow2::Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, open).map_err(text)?;
        image.preallocate(&mut |offset, len| reserve(&file, offset, len, preallocation)).map_err(io)?;
        image.flush().map_err(io)?;
    }
    Ok(())
}

/// Gives a range of the file storage.
fn reserve(file: &FileNode, offset: u64, len: u64, how: Preallocation) -> std::io::Result<()> {
    match how {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc => file.preallocate(offset, len),
        Preallocation::Full => file.write_zeros(offset, len),
    }
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
