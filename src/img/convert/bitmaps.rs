//! `--bitmaps`: persistent bitmaps go along with the data.

use super::Failure;
use crate::block::image::BitmapInfo;
use crate::block::{Image, ImageOps};
use crate::host::reason;
use crate::img::program;
use crate::img::source::text_of;

fn of_source(images: &[Image]) -> Result<Vec<BitmapInfo>, Failure> {
    let Some(ops) = images.first().and_then(Image::ops) else { return Ok(Vec::new()) };
    ops.bitmaps().map_err(|error| Failure::new(format!("Could not read bitmaps: {}", reason(&error))))
}

/// Refuses what [`copy`] could not do, before anything is copied.
pub(super) fn check(images: &[Image], target: &Image, skip_broken: bool) -> Result<(), Failure> {
    if !target.ops().is_some_and(ImageOps::can_have_bitmaps) {
        return Err(Failure::new(format!("Format driver '{}' does not support bitmaps", target.driver)));
    }
    match of_source(images)?.iter().find(|bitmap| bitmap.in_use && !skip_broken) {
        Some(bitmap) => Err(broken(&bitmap.name)),
        None => Ok(()),
    }
}

fn broken(name: &str) -> Failure {
    Failure::new(format!(
        "Cannot copy inconsistent bitmap '{name}'\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap --remove {name}'"
    ))
}

/// Copies all bitmaps.
pub(super) fn copy(images: &[Image], target: &Image, skip_broken: bool) -> Result<(), Failure> {
    let (Some(from), Some(to)) = (images.first().and_then(Image::ops), target.ops()) else { return Ok(()) };
    for bitmap in of_source(images)? {
        if bitmap.in_use {
            if !skip_broken {
                return Err(broken(&bitmap.name));
            }
            program::warn(format!("Skipping inconsistent bitmap '{}'", bitmap.name));
            continue;
        }
        let failed = |what: &str, error: &crate::block::OpenError| {
            Failure::new(format!("Failed to {what} bitmap {}: {}", bitmap.name, text_of(error)))
        };
        to.add_bitmap(&bitmap.name, bitmap.granularity, bitmap.auto).map_err(|error| failed("create", &error))?;
        let copied = from.bitmap_bits(&bitmap.name).and_then(|bits| to.merge_bitmap(&bitmap.name, &bits));
        if let Err(error) = copied {
            // The half-made one goes; what it held is still in the source.
            let _ = to.remove_bitmap(&bitmap.name);
            return Err(failed("populate", &error));
        }
    }
    Ok(())
}
