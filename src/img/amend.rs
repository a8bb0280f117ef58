//! `qemu-img amend`.

use std::ffi::OsString;

use super::args::{self, flag, long, value};
use super::create_options::{amend_help, asks_for_help};
use super::progress::Progress;
use super::source::{check_cache, opener, text_of};
use super::{Failure, Outcome};
use crate::block::create::CreateOptions;
use crate::block::{OpenError, OpenFlags};

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        value('t', "cache"),
        long("force", false),
        value('o', "options"),
        flag('p', "progress"),
        flag('q', "quiet"),
        long("object", true),
    ];
    let Some(given) = args::parse("amend", &specs, args)? else { return Ok(0) };
    if let Some(empty) = given.all("options").find(|text| text.is_empty()) {
        return Err(Failure::new(format!("Invalid option list: {empty}")));
    }
    if !given.has("options") {
        return Err(Failure::usage("amend", "Must specify options (-o)"));
    }
    let help = given.all("options").any(asks_for_help);
    if let (true, Some(format)) = (help, given.last("format")) {
        print!("{}", amend_help(format)?);
        return Ok(0);
    }
    let [filename] = given.names.as_slice() else { return Err(Failure::new("Expecting one image file name")) };
    check_cache(given.last("cache"), "cache option")?;
    let mut opener = opener(&given)?;
    let image = given.source(filename).open_with(&mut opener, OpenFlags::default())?;
    if help {
        print!("{}", amend_help(image.driver)?);
        return Ok(0);
    }
    let known = image.ops().map_or(&[][..], |ops| ops.amend_options());
    let (Some(ops), false) = (image.ops(), known.is_empty()) else { return Err(no_amend(image.driver)) };
    let mut options = CreateOptions::for_amend(image.driver, known);
    for (key, value) in given.all("options").flat_map(args::key_values) {
        if !options.knows(&key) {
            return Err(unknown(image.driver, &key));
        }
        if key == "backing_file" && image.backing_name.as_deref().unwrap_or_default() != value {
            return Err(Failure::new("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead."));
        }
        options.add(&key, &value).map_err(|error| Failure::new(error.to_string()))?;
    }
    let mut progress = Progress::new(given.has("progress") && !given.has("quiet"));
    let amended = ops.amend(&options, given.has("force"), &mut |done, total| progress.show(done, total));
    if amended.is_ok() {
        progress.show(1, 1);
    }
    progress.end();
    let amended = amended.and_then(|()| {
        image.node.flush().map_err(|error| OpenError::Io { what: "Could not flush the image".to_owned(), error })
    });
    amended.map_err(|error| Failure::new(text_of(&error)))?;
    Ok(0)
}

pub(super) fn no_amend(driver: &str) -> Failure {
    Failure::new(format!("Format driver '{driver}' does not support option amendment"))
}

fn unknown(driver: &str, key: &str) -> Failure {
    let hint = match CreateOptions::new(driver, None) {
        Ok(options) if options.knows(key) => "\nThis option is only supported for image creation",
        _ => "",
    };
    Failure::new(format!("Invalid parameter '{key}'{hint}"))
}
