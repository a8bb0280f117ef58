//! `qemu-img measure`.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::args::{self, Given, flag, long, value};
use super::convert::load_snapshot;
use super::create_options::{add_typed, options};
use super::source::{opener, snapshot_name};
use super::{Failure, Outcome, program, report};
use crate::block::create::CreateOptions;
use crate::block::driver;
use crate::block::image::{Measure, MeasureSource};
use crate::block::{Image, ImageOps, OpenFlags};
use crate::host::reason;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('O', "target-format"),
        value('s', "size"),
        value('f', "format"),
        long("image-opts", false),
        value('o', "options"),
        value('l', "snapshot"),
        long("output", true),
        flag('U', "force-share"),
        long("object", true),
    ];
    let Some(given) = args::parse("measure", &specs, args)? else { return Ok(0) };
    let json = given.json("measure")?;
    let size = given.number("size", "image size", 0, i64::MAX as u64)?;
    let snapshot = given.last("snapshot").map(snapshot_name).transpose()?;
    check_names(&given, size.is_some())?;
    let format = given.last("target-format").unwrap_or("raw");
    let mut opener = opener(&given)?;
    let image = match given.names.first() {
        Some(filename) => {
            let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
            Some(given.source(filename).open_with(&mut opener, flags)?)
        }
        None => None,
    };
    if let (Some(image), Some(name)) = (&image, &snapshot) {
        load_snapshot(image, name)?;
    }
    let mut chosen = options(format, "", "")?;
    for text in given.all("options") {
        add_typed(&mut chosen, text).map_err(|text| {
            program::complain(text);
            Failure::new(format!("Invalid options for file format '{format}'"))
        })?;
    }
    if let Some(size) = size {
        chosen.set("size", size.to_string());
    }
    let measured = measure(&chosen, image.as_ref(), size)?;
    if json {
        println!("{}", report::pretty(&json_report(&measured)));
    } else {
        println!("required size: {}", measured.required);
        println!("fully allocated size: {}", measured.fully_allocated);
        if let Some(bitmaps) = measured.bitmaps {
            println!("bitmaps size: {bitmaps}");
        }
    }
    Ok(0)
}

fn check_names(given: &Given, has_size: bool) -> Result<(), Failure> {
    given.check_image_opts(&["format"])?;
    let refusal = match given.names.len() {
        2.. => "At most one filename argument is allowed.",
        0 if ["image-opts", "format", "snapshot"].iter().any(|option| given.has(option)) => {
            "--image-opts, -f, and -l require a filename argument."
        }
        0 if !has_size => "Either --size N or one filename must be specified.",
        1 if has_size => "--size N cannot be used together with a filename.",
        _ => return Ok(()),
    };
    Err(Failure::new(refusal))
}

fn measure(chosen: &CreateOptions, image: Option<&Image>, size: Option<u64>) -> Result<Measure, Failure> {
    let driver = driver::by_name(chosen.driver()).map_err(|error| Failure::new(error.to_string()))?;
    let failed = |error: std::io::Error| Failure::new(reason(&error));
    let len = match image {
        Some(image) => image.node.len().map_err(failed)?,
        None => size.unwrap_or(0),
    };
    let bitmaps = match image.and_then(Image::ops).filter(|ops| ops.can_have_bitmaps()) {
        Some(ops) => Some(ImageOps::bitmaps(ops).map_err(failed)?),
        None => None,
    };
    let mut is_data = |at: u64, most: u64| {
        let status = image.ok_or(std::io::ErrorKind::InvalidInput)?.status(at, most)?;
        Ok((!status.extent.zero, status.len))
    };
    let mut source = MeasureSource { size: len, is_data: None, bitmaps };
    if image.is_some() {
        source.is_data = Some(&mut is_data);
    }
    let Some(creation) = driver.creation() else {
        return Err(Failure::new(format!("Format driver '{}' does not support image creation", driver.name())));
    };
    creation.measure(chosen, &mut source).map_err(|error| Failure::new(error.full_text()))
}

fn json_report(measured: &Measure) -> Value {
    let mut map = Map::new();
    if let Some(bitmaps) = measured.bitmaps {
        map.insert("bitmaps".to_owned(), bitmaps.into());
    }
    map.insert("required".to_owned(), measured.required.into());
    map.insert("fully-allocated".to_owned(), measured.fully_allocated.into());
    Value::Object(map)
}
