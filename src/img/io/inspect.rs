//! `alloc`, `map`, `length`, `info`, `truncate`: the image itself.

use std::io;

use super::command::Parsed;
use super::numbers::{self, human_bytes};
use super::session::{Failure, Outcome, Session, say};
use crate::block::create::Preallocation;
use crate::block::{Details, Image, ImageOps};
use crate::host;
use crate::img::info;

fn len(image: &Image) -> Result<u64, Failure> {
    image.node.len().map_err(|error| Failure::Named(format!("getlength: {}", host::plain_reason(&error))))
}

pub(super) fn length(image: &Image) -> Outcome {
    say(&format!("{}\n", human_bytes(len(image)?)));
    Ok(())
}

/// Runs of bytes that this image, or one below it, decides: `visit(offset, length, allocated)`.
fn runs(image: &Image, mut offset: u64, end: u64, mut visit: impl FnMut(u64, u64, bool)) -> io::Result<()> {
    while offset < end {
        let (extent, known) = image.node.extent(offset, end - offset)?;
        let known = known.clamp(1, end - offset);
        visit(offset, known, extent.allocated);
        offset += known;
    }
    Ok(())
}

pub(super) fn alloc(session: &Session, args: &[&str]) -> Outcome {
    let image = session.image()?;
    let number = |text: &&str| numbers::size(text).map_err(Failure::Said);
    let offset = args.first().map(number).transpose()?.unwrap_or(0);
    let count = args.get(1).map(number).transpose()?.unwrap_or(512);
    let end = offset.saturating_add(count).min(len(image)?);
    let asked = end.saturating_sub(offset);
    let mut sum = 0;
    runs(image, offset, end, |_, len, allocated| sum += if allocated { len } else { 0 })
        .map_err(|error| Failure::Said(format!("is_allocated failed: {}", host::plain_reason(&error))))?;
    say(&format!("{sum}/{asked} bytes allocated at offset {}\n", human_bytes(offset)));
    Ok(())
}

pub(super) fn map(image: &Image) -> Outcome {
    let end = len(image)?;
    let mut last: Option<(u64, u64, bool)> = None;
    let print = |(offset, len, allocated): (u64, u64, bool)| {
        let what = if allocated { "    allocated" } else { "not allocated" };
        say(&format!(
            "{} (0x{len:x}) bytes {what} at offset {} (0x{offset:x})\n",
            human_bytes(len),
            human_bytes(offset)
        ));
    };
    runs(image, 0, end, |offset, len, allocated| match &mut last {
        Some((_, sum, same)) if *same == allocated => *sum += len,
        _ => {
            if let Some(run) = last.replace((offset, len, allocated)) {
                print(run);
            }
        }
    })
    .map_err(|error| Failure::Named(format!("Failed to get allocation status: {}", host::plain_reason(&error))))?;
    if let Some(run) = last {
        print(run);
    }
    Ok(())
}

pub(super) fn info(image: &Image) -> Outcome {
    let details = image.ops().map(ImageOps::details).transpose();
    let details = details.map_err(|error| Failure::io("info", &error))?.unwrap_or_default();
    let Details { cluster_size, vm_state_offset, .. } = details;
    let mut text = format!(
        "format name: {}\ncluster size: {}\nvm state offset: {}\n",
        image.driver,
        human_bytes(cluster_size.unwrap_or(0)),
        human_bytes(vm_state_offset.unwrap_or(0))
    );
    text.push_str(&info::specific_text(&details));
    say(&text);
    Ok(())
}

pub(super) fn truncate(session: &Session, parsed: &Parsed) -> Outcome {
    let mode = match parsed.value('m') {
        None | Some("off") => Preallocation::Off,
        Some("metadata") => Preallocation::Metadata,
        Some("falloc") => Preallocation::Falloc,
        Some("full") => Preallocation::Full,
        Some(other) => return Err(Failure::Named(format!("Invalid preallocation mode '{other}'"))),
    };
    let [size] = parsed.rest.as_slice() else { return Err(Failure::Usage) };
    let size = numbers::size(size).map_err(Failure::Said)?;
    let image = session.image()?;
    let before = len(image)?;
    let failed = |error: io::Error| Failure::Named(format!("Failed to resize: {}", host::plain_reason(&error)));
    if mode != Preallocation::Off && size < before {
        return Err(Failure::Named("Preallocation can't be used for shrinking files".to_owned()));
    }
    if let Some(ops) = image.ops()
        && mode != Preallocation::Off
    {
        return ops.resize(size, mode, true).map_err(|error| Failure::Named(error.full_text()));
    }
    image.node.truncate(size).map_err(failed)?;
    if mode != Preallocation::Off && size > before {
        image.node.preallocate(before, size - before, mode).map_err(failed)?;
    }
    Ok(())
}
