//! `qemu-img dd`.

use std::ffi::OsString;

use super::args::{self, Given, flag, long, number, value};
use super::convert::Whole;
use super::copy::{Copy, DEFAULT_SPARSE_BYTES, Target, copy};
use super::create_options::options;
use super::progress::Progress;
use super::source::{Source, opener};
use super::{Failure, Outcome, program};
use crate::block::create::create;
use crate::block::driver::CreatePlace;
use crate::block::{Image, OpenFlags};
use crate::host::reason;

/// Bytes of a block, unless `bs=` says otherwise.
const DEFAULT_BLOCK_BYTES: u64 = 512;

/// Threads.
const WORKERS: usize = 4;

/// The operands.
struct Operands {
    input: String,
    output: String,
    block: u64,
    count: Option<u64>,
    skip: u64,
}

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        value('O', "output-format"),
        flag('U', "force-share"),
        long("object", true),
    ];
    let Some(given) = args::parse("dd", &specs, args)? else { return Ok(0) };
    let operands = operands(&given)?;
    given.check_image_opts(&["format"])?;
    let mut opener = opener(&given)?;
    let input = given.source(&operands.input);
    let input = input.open_with(&mut opener, OpenFlags { read_only: true, ..OpenFlags::default() })?;
    let format = given.last("output-format").unwrap_or("raw");
    let mut chosen = options(format, &operands.output, "").map_err(|failure| {
        let unknown = failure.message.contains("Unknown file format");
        if unknown { Failure::new("Unknown file format") } else { failure }
    })?;
    let range = operands.range(&input)?;
    chosen.set("size", (range.end - range.start).to_string());
    let mut progress = Progress::new(false);
    let mut place = CreatePlace { opener };
    create(&operands.output, &chosen, &mut place).map_err(|error| {
        Failure::new(format!("{}: error while creating output image: {}", operands.output, error.full_text()))
    })?;
    let output = Source { filename: operands.output.clone(), format: Some(format.to_owned()), ..Source::default() };
    let output = output.open_with(&mut place.opener, OpenFlags { no_backing: true, ..OpenFlags::default() })?;
    let total = range.end - range.start;
    let job = Copy {
        target: Target {
            image: &output,
            starts_zero: output.file.info().driver == "file",
            packed: false,
            sparse: DEFAULT_SPARSE_BYTES,
        },
        range: 0..total,
        workers: WORKERS,
        in_order: true,
        offload: false,
        rate: None,
        salvage: None,
    };
    copy(&job, &Whole { image: &input, start: range.start }, &mut progress)
        .map_err(|error| error.failure("dd", total))?;
    output.node.flush().map_err(|error| Failure::new(format!("error while writing: {}", reason(&error))))?;
    Ok(0)
}

fn operands(given: &Given) -> Result<Operands, Failure> {
    let (mut input, mut output, mut block, mut count, mut skip) = (None, None, DEFAULT_BLOCK_BYTES, None, 0);
    for text in &given.names {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "if" => input = Some(value.to_owned()),
            "of" => output = Some(value.to_owned()),
            "bs" => block = number(value, "bs", 1, i32::MAX as u64)?,
            "count" => count = Some(number(value, "count", 0, i64::MAX as u64)?),
            "skip" => skip = number(value, "skip", 0, i64::MAX as u64)?,
            _ => return Err(Failure::new(format!("unrecognized operand {name}"))),
        }
    }
    match (input, output) {
        (Some(input), Some(output)) => Ok(Operands { input, output, block, count, skip }),
        _ => Err(Failure::new("Must specify both input and output files")),
    }
}

impl Operands {
    /// The range of the input that is copied, in whole sectors of the output.
    fn range(&self, input: &Image) -> Result<std::ops::Range<u64>, Failure> {
        let len = input.node.len();
        let len =
            len.map_err(|error| Failure::new(format!("Failed to get size for '{}': {}", self.input, reason(&error))))?;
        let end = self.count.and_then(|count| count.checked_mul(self.block)).map_or(len, |bytes| bytes.min(len));
        match self.skip.checked_mul(self.block) {
            // What count leaves is skipped first, as QEMU has it.
            Some(start) if start <= end => Ok(start..end),
            Some(start) if start <= len => Ok(start..start),
            _ => {
                program::complain(format!("{}: cannot skip to specified offset", self.input));
                Ok(0..0)
            }
        }
    }
}
