//! `qemu-img map`.

use std::ffi::OsString;

use super::args::{self, flag, long, value};
use super::source::opener;
use super::{Failure, Outcome};
use crate::block::{Extent, OpenFlags};
use crate::host::reason;

/// A run of the disk whose bytes are all in one state.
struct Run {
    start: u64,
    len: u64,
    depth: usize,
    extent: Extent,
    file: String,
}

impl Run {
    /// Whether `next` goes on where this one ends, in the same state.
    fn goes_on(&self, next: &Run) -> bool {
        let flags = |e: &Extent| (e.allocated, e.zero, e.data, e.compressed);
        let follows = match (self.extent.offset, next.extent.offset) {
            (Some(a), Some(b)) => a + self.len == b,
            (None, None) => true,
            _ => false,
        };
        self.depth == next.depth
            && flags(&self.extent) == flags(&next.extent)
            && follows
            && (self.extent.offset.is_none() || self.file == next.file)
    }

    fn json(&self) -> String {
        let Extent { allocated, zero, data, compressed, offset } = self.extent;
        let place = offset.map_or(String::new(), |offset| format!(", \"offset\": {offset}"));
        format!(
            "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {allocated}, \"zero\": {zero}, \"data\": \
             {data}, \"compressed\": {compressed}{place}}}",
            self.start, self.len, self.depth
        )
    }

    fn human(&self) -> Option<Result<String, Failure>> {
        if !self.extent.data || self.extent.zero {
            return None;
        }
        let Some(offset) = self.extent.offset else {
            let text = "File contains external, encrypted or compressed clusters.";
            return Some(Err(Failure::new(text)));
        };
        Some(Ok(format!("{:<16}{:<16}{:<16}{}", hex(self.start), hex(self.len), hex(offset), self.file)))
    }
}

/// printf's "%#x": zero has no prefix.
fn hex(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { format!("{value:#x}") }
}

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        value('s', "start-offset"),
        value('l', "max-length"),
        flag('U', "force-share"),
        long("image-opts", false),
        long("output", true),
        long("object", true),
    ];
    let Some(given) = args::parse("map", &specs, args)? else { return Ok(0) };
    let json = given.json("map")?;
    let start = given.number("start-offset", "start offset", 0, i64::MAX as u64)?.unwrap_or(0);
    let most = given.number("max-length", "max length", 0, i64::MAX as u64)?.unwrap_or(u64::MAX);
    let filename = given.one_name("map")?;
    given.check_image_opts(&["format"])?;
    let image = given
        .source(filename)
        .open_with(&mut opener(&given)?, OpenFlags { read_only: true, ..OpenFlags::default() })?;
    let failed = |error: std::io::Error| Failure::new(format!("Failed to read image metadata: {}", reason(&error)));
    let end = image.node.len().map_err(failed)?.min(start.saturating_add(most));
    if json {
        print!("[");
    } else {
        println!("{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to");
    }
    let mut pending: Option<Run> = None;
    let mut separator = "";
    let mut show = |run: &Run| -> Result<(), Failure> {
        if json {
            print!("{separator}{}", run.json());
            separator = ",\n";
        } else if let Some(line) = run.human() {
            println!("{}", line?);
        }
        Ok(())
    };
    if start >= end {
        // Nothing is there; the JSON has a run without bytes.
        pending = Some(Run { start, len: 0, depth: 0, extent: Extent::default(), file: String::new() });
    }
    let mut at = start;
    while at < end {
        let status = image.status(at, end - at).map_err(failed)?;
        let run = Run { start: at, len: status.len, depth: status.depth, extent: status.extent, file: status.filename };
        at += run.len;
        match &mut pending {
            Some(before) if before.goes_on(&run) => before.len += run.len,
            _ => {
                if let Some(before) = pending.replace(run) {
                    show(&before)?;
                }
            }
        }
    }
    if let Some(last) = pending {
        show(&last)?;
    }
    if json {
        println!("]");
    }
    Ok(0)
}
