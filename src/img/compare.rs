//! `qemu-img compare`.
//!
//! Several threads compare parts of the images; the first difference in the order of offsets is the one that is told.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::args::{self, Given, flag, long, value};
use super::progress::Progress;
use super::source::{Source, check_cache, opener};
use super::zeros::is_zero;
use super::{Failure, Outcome};
use crate::block::{Extent, Image, OpenFlags, Opener};
use crate::host::reason;

/// Bytes of a part: both sides stay in the processor's cache.
const PART_BYTES: u64 = 256 << 10;

/// Threads.
const WORKERS: usize = 4;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "a-format"),
        value('F', "b-format"),
        long("image-opts", false),
        value('T', "cache"),
        flag('s', "strict"),
        flag('p', "progress"),
        flag('q', "quiet"),
        flag('U', "force-share"),
        long("object", true),
    ];
    let Some(given) = args::parse("compare", &specs, args)? else { return Ok(0) };
    let [first, second] = given.names.as_slice() else {
        return Err(Failure::usage("compare", "Expecting two image file names"));
    };
    let (a, b) = open(&given, first, second).map_err(|failure| failure.with_status(2))?;
    let quiet = given.has("quiet");
    let say = |text: &str| {
        if !quiet {
            println!("{text}");
        }
    };
    let mut progress = Progress::new(given.has("progress") && !quiet);
    let outcome = compare(&a, &b, given.has("strict"), &mut progress, &say);
    progress.end();
    outcome
}

fn open(given: &Given, first: &str, second: &str) -> Result<(Image, Image), Failure> {
    given.check_image_opts(&["a-format", "b-format"])?;
    check_cache(given.last("cache"), "source cache option")?;
    let mut opener = opener(given)?;
    let one = |filename: &str, format: &str, opener: &mut Opener| {
        let source = Source { format: given.last(format).map(str::to_owned), ..given.source(filename) };
        source.open_with(opener, OpenFlags { read_only: true, ..OpenFlags::default() })
    };
    Ok((one(first, "a-format", &mut opener)?, one(second, "b-format", &mut opener)?))
}

/// The first difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Difference {
    Content(u64),
    Allocation(u64),
}

/// Why it ended.
enum End {
    Different(Difference),
    Failed(io::Error, &'static str),
}

fn compare(a: &Image, b: &Image, strict: bool, progress: &mut Progress, say: &dyn Fn(&str)) -> Outcome {
    let length = |image: &Image| {
        image.node.len().map_err(|error| {
            Failure::new(format!("Can't get size of {}: {}", image.filename, reason(&error))).with_status(4)
        })
    };
    let (a_len, b_len) = (length(a)?, length(b)?);
    if a_len != b_len && strict {
        say("Strict mode: Image size mismatch!");
        return Ok(1);
    }
    let (common, total) = (a_len.min(b_len), a_len.max(b_len));
    let pair = Pair { a, b, a_len, b_len, strict };
    let end = pair.compare(total, progress);
    if a_len != b_len && end.as_ref().is_none_or(|(at, _)| *at >= common) {
        say("Warning: Image size mismatch!");
    }
    match end {
        None => {
            say("Images are identical.");
            Ok(0)
        }
        Some((_, End::Different(Difference::Content(at)))) => {
            say(&format!("Content mismatch at offset {at}!"));
            Ok(1)
        }
        Some((_, End::Different(Difference::Allocation(at)))) => {
            say(&format!("Strict mode: Offset {at} block status mismatch!"));
            Ok(1)
        }
        Some((at, End::Failed(error, filename))) => {
            let what = format!("Error while reading offset {at} of {filename}");
            Err(Failure::io(&what, &error, &format!("compare stopped at byte {at} of {total}")).with_status(4))
        }
    }
}

/// What is known of a run of both images.
struct Pair<'a> {
    a: &'a Image,
    b: &'a Image,
    a_len: u64,
    b_len: u64,
    strict: bool,
}

/// Where the next part begins, and what is known of both images there, up to an offset.
struct Cursor<'a> {
    at: u64,
    a: (Extent, u64),
    b: (Extent, u64),
    progress: &'a mut Progress,
}

/// What one thread compares.
struct Part {
    at: u64,
    len: usize,
    a_zero: bool,
    b_zero: bool,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pair<'_> {
    /// The end with the lowest offset, if they are not the same.
    fn compare(&self, total: u64, progress: &mut Progress) -> Option<(u64, End)> {
        let cursor = Mutex::new(Cursor { at: 0, a: (Extent::default(), 0), b: (Extent::default(), 0), progress });
        let ended_at = AtomicU64::new(u64::MAX);
        let end: Mutex<Option<(u64, End)>> = Mutex::new(None);
        let tell = |at: u64, why: End| {
            let mut end = hold(&end);
            if end.as_ref().is_none_or(|(before, _)| at < *before) {
                *end = Some((at, why));
            }
            ended_at.fetch_min(at, Ordering::AcqRel);
        };
        let work = || {
            let mut buffers = (Vec::new(), Vec::new());
            loop {
                match self.take(&cursor, total, &ended_at) {
                    Ok(None) => return,
                    Ok(Some(part)) => {
                        if let Err((at, why)) = self.part(&part, &mut buffers) {
                            tell(at, why);
                        }
                    }
                    Err((at, why)) => {
                        tell(at, why);
                        return;
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..WORKERS.min(usize::try_from(total.div_ceil(PART_BYTES)).unwrap_or(WORKERS)) {
                scope.spawn(work);
            }
            work();
        });
        end.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part that has to be read.
    fn take(&self, cursor: &Mutex<Cursor<'_>>, total: u64, ended_at: &AtomicU64) -> Result<Option<Part>, (u64, End)> {
        let mut cursor = hold(cursor);
        loop {
            let at = cursor.at;
            if at >= total || at >= ended_at.load(Ordering::Acquire) {
                return Ok(None);
            }
            cursor.progress.check().map_err(|error| (at, End::Failed(error, "")))?;
            if cursor.a.1 <= at {
                cursor.a = self.status(true, at, total - at)?;
            }
            if cursor.b.1 <= at {
                cursor.b = self.status(false, at, total - at)?;
            }
            let (a, b) = (cursor.a.0, cursor.b.0);
            if self.strict && at < self.a_len.min(self.b_len) && flags(&a) != flags(&b) {
                // Parts before this one may differ in content.
                cursor.at = total;
                return Err((at, End::Different(Difference::Allocation(at))));
            }
            let known = cursor.a.1.min(cursor.b.1).min(total);
            let skipped = a.zero && b.zero;
            cursor.at = if skipped { known } else { known.min((at / PART_BYTES + 1) * PART_BYTES) };
            let done = cursor.at;
            cursor.progress.show(done, total);
            if !skipped {
                let len = usize::try_from(done - at).unwrap_or(usize::MAX);
                return Ok(Some(Part { at, len, a_zero: a.zero, b_zero: b.zero }));
            }
        }
    }

    /// What one image has at an offset, and up to where; zeros past its end.
    fn status(&self, first: bool, at: u64, most: u64) -> Result<(Extent, u64), (u64, End)> {
        let (image, len, name) = self.side(first);
        if at >= len {
            return Ok((Extent { zero: true, ..Extent::default() }, at + most));
        }
        let status = image.status(at, most.min(len - at)).map_err(|error| (at, End::Failed(error, name)))?;
        Ok((status.extent, at + status.len.max(1)))
    }

    fn side(&self, first: bool) -> (&Image, u64, &'static str) {
        if first { (self.a, self.a_len, "first image") } else { (self.b, self.b_len, "second image") }
    }

    fn part(&self, part: &Part, buffers: &mut (Vec<u8>, Vec<u8>)) -> Result<(), (u64, End)> {
        let Part { at, len, .. } = *part;
        let different = match (part.a_zero, part.b_zero) {
            (true, _) => non_zero(self.read(false, at, len, &mut buffers.1)?),
            (false, true) => non_zero(self.read(true, at, len, &mut buffers.0)?),
            (false, false) => {
                let left = self.read(true, at, len, &mut buffers.0)?;
                differs(left, self.read(false, at, len, &mut buffers.1)?)
            }
        };
        match different {
            Some(first) => {
                let at = at + first as u64;
                Err((at, End::Different(Difference::Content(at))))
            }
            None => Ok(()),
        }
    }

    fn read<'b>(&self, first: bool, at: u64, len: usize, buf: &'b mut Vec<u8>) -> Result<&'b [u8], (u64, End)> {
        let (image, _, name) = self.side(first);
        if buf.len() < len {
            buf.resize(len, 0);
        }
        image.node.read_at(at, &mut buf[..len]).map_err(|error| (at, End::Failed(error, name)))?;
        Ok(&buf[..len])
    }
}

/// What `-s` compares.
fn flags(extent: &Extent) -> (bool, bool, bool, bool, bool) {
    (extent.allocated, extent.zero, extent.data, extent.compressed, extent.offset.is_some())
}

/// The first sector that differs.
fn differs(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.chunks(512).zip(b.chunks(512)).position(|(a, b)| a != b).map(|sector| sector * 512)
}

/// The first sector that is not zero.
fn non_zero(buf: &[u8]) -> Option<usize> {
    buf.chunks(512).position(|sector| !is_zero(sector)).map(|sector| sector * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_the_sector() {
        let (a, mut b) = (vec![1; 4096], vec![1; 4096]);
        assert_eq!(differs(&a, &b), None);
        b[1500] = 2;
        assert_eq!(differs(&a, &b), Some(1024));
        assert_eq!(non_zero(&[0; 100]), None);
        let mut c = vec![0; 2000];
        c[1999] = 1;
        assert_eq!(non_zero(&c), Some(1536));
    }
}
