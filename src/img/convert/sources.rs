//! The images that `convert` reads, one after the other.

use std::io;
use std::sync::OnceLock;

use super::Failure;
use crate::block::Image;
use crate::host::reason;
use crate::img::copy::{Content, Input};

/// Images one after the other.
pub(super) struct Sources<'a> {
    /// Where each begins, and it.
    parts: Vec<(u64, &'a Image)>,
    total: u64,
    /// What the image leaves to its backing file, the target leaves to its own.
    keeps_backing: bool,
    /// Where in its file the target's first byte is stored, if it stores bytes as they are; found when it is needed.
    target_start: OnceLock<Option<u64>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(images: &'a [Image], keeps_backing: bool) -> Result<Self, Failure> {
        let mut total = 0_u64;
        let mut parts = Vec::new();
        for image in images {
            let len = image.node.len();
            let len = len.map_err(|error| {
                Failure::new(format!("unable to get size of image '{}': {}", image.filename, reason(&error)))
            })?;
            parts.push((total, image));
            total = total.checked_add(len).ok_or_else(|| Failure::new("the images are too long together"))?;
        }
        Ok(Self { parts, total, keeps_backing, target_start: OnceLock::new() })
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The image at an offset, the offset in it, and how much of it is left.
    fn part(&self, at: u64) -> io::Result<(&'a Image, u64, u64)> {
        let index = self.parts.partition_point(|(start, _)| *start <= at).checked_sub(1);
        let index = index.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (start, image) = self.parts[index];
        let end = self.parts.get(index + 1).map_or(self.total, |(next, _)| *next);
        Ok((image, at - start, end.saturating_sub(at)))
    }
}

impl Input for Sources<'_> {
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)> {
        let (image, inside, left) = self.part(at)?;
        let most = most.min(left);
        if self.keeps_backing {
            let (extent, len) = image.node.extent(inside, most)?;
            let content = match (extent.allocated, extent.zero) {
                (false, _) => Content::Absent,
                (true, true) => Content::Zero,
                (true, false) => Content::Data,
            };
            return Ok((content, len));
        }
        let status = image.status(inside, most)?;
        Ok((if status.extent.zero { Content::Zero } else { Content::Data }, status.len))
    }

    fn read(&self, mut at: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let (image, inside, left) = self.part(at)?;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (head, rest) = buf.split_at_mut(len);
            image.node.read_at(inside, head)?;
            at += len as u64;
            buf = rest;
        }
        Ok(())
    }

    fn offload(&self, at: u64, len: u64, target: &Image) -> bool {
        let first = || target.node.extent(0, 1).ok().and_then(|(extent, _)| extent.offset);
        let start = self.target_start.get_or_init(|| first().filter(|_| target.driver == "raw"));
        let (Some(start), Ok((image, inside, left))) = (*start, self.part(at)) else { return false };
        left >= len && offload(image, inside, len, target, start + at).is_some()
    }
}

/// Lets the host copy bytes that an image stores as they are to a place in the target's file.
fn offload(source: &Image, from: u64, len: u64, target: &Image, mut place_out: u64) -> Option<()> {
    let status = source.status(from, len).ok()?;
    let holder = source.chain().nth(status.depth)?;
    let mut place_in = status.extent.offset.filter(|_| status.len >= len && !status.extent.compressed)?;
    let (input, output) = (holder.file.host_file()?, target.file.host_file()?);
    let mut left = usize::try_from(len).ok()?;
    while left > 0 {
        let done = rustix::fs::copy_file_range(input, Some(&mut place_in), output, Some(&mut place_out), left).ok()?;
        if done == 0 {
            return None; // the file ends here: the rest is read, and is zeros
        }
        left -= done;
    }
    Some(())
}

/// One image from an offset on.
pub(in crate::img) struct Whole<'a> {
    pub(in crate::img) image: &'a Image,
    /// Where the target's first byte is.
    pub(in crate::img) start: u64,
}

impl Input for Whole<'_> {
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)> {
        let status = self.image.status(self.start + at, most)?;
        Ok((if status.extent.zero { Content::Zero } else { Content::Data }, status.len))
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.image.node.read_at(self.start + at, buf)
    }
}
