//! `qemu-img compare`.

use std::ffi::OsString;
use std::io::Write;

use super::args::{self, flag, long, value};
use super::{Failure, Outcome, Source};
use crate::block::{Extent, Image, OpenFlags};
use crate::host::reason;

/// Bytes that are compared at a time.
const CHUNK_BYTES: u64 = 2 << 20;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        value('F', "a-format"),
        value('T', "cache"),
        flag('s', "strict"),
        flag('p', "progress"),
        flag('q', "quiet"),
        flag('U', "force-share"),
        long("image-opts", false),
    ];
    let Some(given) = args::parse("compare", &specs, args)? else { return Ok(0) };
    let [first, second] = given.names.as_slice() else {
        return Err(Failure::usage("compare", "Expecting two image file names"));
    };
    let open = |filename: &String, format: &str| {
        let source = Source {
            filename: filename.clone(),
            format: given.last(format).map(str::to_owned),
            image_opts: given.has("image-opts"),
            cache: given.last("cache").map(str::to_owned),
            force_share: given.has("force-share"),
        };
        let flags = OpenFlags { read_only: true, ..OpenFlags::default() };
        source.open(flags).map_err(|failure| failure.with_status(2))
    };
    let (a, b) = (open(first, "format")?, open(second, "a-format")?);
    let quiet = given.has("quiet");
    let say = |text: &str| {
        if !quiet {
            println!("{text}");
        }
    };
    let mut progress = Progress::new(given.has("progress") && !quiet);
    let outcome = compare(&a, &b, given.has("strict"), &mut progress, &say);
    progress.end();
    outcome.map_err(|error| error.with_status(4))
}

/// The line that `-p` shows.
pub(super) struct Progress {
    on: bool,
    last_hundredths: Option<u64>,
}

impl Progress {
    pub(super) fn new(on: bool) -> Self {
        let mut progress = Self { on, last_hundredths: None };
        progress.show(0, 1);
        progress
    }

    /// So much is done.
    pub(super) fn show(&mut self, done: u64, of: u64) {
        let hundredths =
            if of == 0 { 10_000 } else { u64::try_from(u128::from(done) * 10_000 / u128::from(of)).unwrap_or(10_000) };
        // A change of less than one percent is not shown.
        let worth = self.last_hundredths.is_none_or(|last| hundredths >= last + 100 || hundredths == 10_000);
        if self.on && worth {
            print!("    ({}.{:02}/100%)\r", hundredths / 100, hundredths % 100);
            // A closed standard output ends nothing here.
            let _ = std::io::stdout().flush();
            self.last_hundredths = Some(hundredths);
        }
    }

    pub(super) fn end(&mut self) {
        if self.on {
            println!();
        }
    }
}

fn compare(a: &Image, b: &Image, strict: bool, progress: &mut Progress, say: &dyn Fn(&str)) -> Outcome {
    let failed = |error: std::io::Error| Failure::new(format!("Error while reading: {}", reason(&error)));
    let (a_len, b_len) = (a.node.len().map_err(failed)?, b.node.len().map_err(failed)?);
    if a_len != b_len {
        if strict {
            say("Strict mode: Image size mismatch!");
            return Ok(1);
        }
        say("Warning: Image size mismatch!");
    }
    let common = a_len.min(b_len);
    let (longer, total) = if a_len > b_len { (a, a_len) } else { (b, b_len) };
    let mut at = 0;
    while at < total {
        let len = if at < common { CHUNK_BYTES.min(common - at) } else { CHUNK_BYTES.min(total - at) };
        let difference = if at < common {
            differ(a, b, at, len, strict).map_err(failed)?
        } else {
            non_zero(longer, at, len).map_err(failed)?
        };
        match difference {
            None => {}
            Some(Difference::Content(at)) => {
                say(&format!("Content mismatch at offset {at}!"));
                return Ok(1);
            }
            Some(Difference::Allocation(at)) => {
                say(&format!("Strict mode: Offset {at} block status mismatch!"));
                return Ok(1);
            }
        }
        at += len;
        progress.show(at, total);
    }
    say("Images are identical.");
    Ok(0)
}

enum Difference {
    Content(u64),
    Allocation(u64),
}

/// Both read as zeros over the range, as far as the formats know.
fn both_zero(a: &Image, b: &Image, at: u64, len: u64) -> std::io::Result<bool> {
    for image in [a, b] {
        let status = image.status(at, len)?;
        if !status.extent.zero || status.len < len {
            return Ok(false);
        }
    }
    Ok(true)
}

fn differ(a: &Image, b: &Image, at: u64, len: u64, strict: bool) -> std::io::Result<Option<Difference>> {
    if strict && let Some(at) = allocation_differs(a, b, at, len)? {
        return Ok(Some(Difference::Allocation(at)));
    }
    if both_zero(a, b, at, len)? {
        return Ok(None);
    }
    let size = usize::try_from(len).unwrap_or(0);
    let (mut left, mut right) = (vec![0; size], vec![0; size]);
    a.node.read_at(at, &mut left)?;
    b.node.read_at(at, &mut right)?;
    let first = left.iter().zip(&right).position(|(l, r)| l != r);
    Ok(first.map(|first| Difference::Content((at + first as u64) & !511)))
}

fn allocation_differs(a: &Image, b: &Image, start: u64, len: u64) -> std::io::Result<Option<u64>> {
    let mut at = start;
    while at < start + len {
        let (left, right) = (a.status(at, start + len - at)?, b.status(at, start + len - at)?);
        let flags = |e: &Extent| (e.allocated, e.zero, e.data, e.compressed, e.offset.is_some());
        if flags(&left.extent) != flags(&right.extent) {
            return Ok(Some(at));
        }
        at += left.len.min(right.len);
    }
    Ok(None)
}

fn non_zero(image: &Image, at: u64, len: u64) -> std::io::Result<Option<Difference>> {
    let status = image.status(at, len)?;
    if status.extent.zero && status.len >= len {
        return Ok(None);
    }
    let mut buf = vec![0; usize::try_from(len).unwrap_or(0)];
    image.node.read_at(at, &mut buf)?;
    Ok(buf.iter().position(|byte| *byte != 0).map(|first| Difference::Content((at + first as u64) & !511)))
}
