//! Moves data between images by several threads: what `convert`, `dd`, `commit` and `rebase` have in common.
//!
//! Each worker takes the next piece of the source, reads it, waits for its turn (unless order does not matter) and writes
//! it, so that reads, compression and writes of different pieces overlap. Pieces are small enough to stay in the
//! processor's cache between the read and the write, and end at multiples of their size, so that formats see whole
//! clusters. What the source knows to be zero or absent is never read.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::zeros;
use crate::block::image::Packed;
use crate::block::{Image, ImageOps};

/// Bytes of a piece, if clusters are not larger.
const PIECE_BYTES: u64 = 512 << 10;

/// The same for what is compressed.
const PACKED_BYTES: u64 = 128 << 10;

/// The shortest run of zeros that is left out of a write, unless `-S` says otherwise.
pub(super) const DEFAULT_SPARSE_BYTES: u64 = 4096;

/// What a part of the source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// To be read.
    Data,
    /// Zeros that belong to the target.
    Zero,
    /// Nothing: the target stays as it is.
    Absent,
}

/// Where data comes from. Offsets are those of the target.
pub(super) trait Input: Sync {
    /// What is at an offset, and for how many of at most `most` bytes (at least 1).
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)>;

    /// Fills a buffer.
    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The parts of what was read that the target lacks; `None`: all of it.
    fn wanted(&self, _at: u64, _buf: &[u8]) -> io::Result<Option<Vec<Range<usize>>>> {
        Ok(None)
    }

    /// Lets the host copy a range of data to the target; false: it has to be read and written.
    fn offload(&self, _at: u64, _len: u64, _target: &Image) -> bool {
        false
    }
}

/// How the target takes data.
pub(super) struct Target<'a> {
    pub(super) image: &'a Image,
    /// What is not written reads as zeros.
    pub(super) starts_zero: bool,
    /// Data is stored compressed.
    pub(super) packed: bool,
    /// Zeros of at least this length are not written as data; 0: all are.
    pub(super) sparse: u64,
}

/// How to go about it.
pub(super) struct Copy<'a> {
    pub(super) target: Target<'a>,
    /// The range of the target that is copied.
    pub(super) range: Range<u64>,
    /// Threads.
    pub(super) workers: usize,
    /// Writes in the order of offsets.
    pub(super) in_order: bool,
    /// The host copies what it can (`-C`). Only without an order.
    pub(super) offload: bool,
    /// Bytes a second at most.
    pub(super) rate: Option<u64>,
    /// Reads that fail give zeros; the errors are shown unless `quiet`.
    pub(super) salvage: Option<Salvage>,
}

/// What to do with data that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Salvage {
    pub(super) quiet: bool,
}

/// What failed, and where.
#[derive(Debug)]
pub(super) struct CopyError {
    /// "reading", "writing", "reading block status": for the message.
    pub(super) doing: Doing,
    /// The offset of the piece.
    pub(super) at: u64,
    pub(super) error: io::Error,
}

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Status,
    Read,
    Write,
}

impl CopyError {
    /// QEMU's line, or how far it was when a signal came.
    pub(super) fn failure(&self, what: &str, total: u64) -> super::Failure {
        let doing = match self.doing {
            Doing::Status => format!("error while reading block status at offset {}", self.at),
            Doing::Read => format!("error while reading at byte {}", self.at),
            Doing::Write => format!("error while writing at byte {}", self.at),
        };
        let how_far = format!("{what} stopped at byte {} of {total}; nothing else was changed", self.at);
        super::Failure::io(&doing, &self.error, &how_far)
    }
}

/// A part of the source that one worker has.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its place in the order of writes.
    turn: u64,
    at: u64,
    len: u64,
    content: Content,
}

/// What a worker holds of its piece.
#[derive(Default)]
struct Buffer {
    data: Vec<u8>,
    /// The parts of it that the target lacks.
    wanted: Vec<Range<usize>>,
    /// What compression made of each cluster, where the format packs apart from writing.
    packed: Vec<Option<Packed>>,
}

/// Where the next piece begins, and what is known of the bytes there.
struct Cursor {
    at: u64,
    turn: u64,
    known_until: u64,
    content: Content,
}

struct Run<'a, 'b> {
    copy: &'b Copy<'a>,
    input: &'b dyn Input,
    /// Bytes of a piece.
    piece: u64,
    /// Writes cover whole multiples of this, so that nothing is read back to fill clusters.
    unit: u64,
    packed_unit: u64,
    cursor: Mutex<Cursor>,
    turn: Mutex<u64>,
    next_turn: Condvar,
    stop: AtomicBool,
    failed: Mutex<Option<CopyError>>,
    progress: Mutex<(&'b mut Progress, u64)>,
    budget: Mutex<Option<Instant>>,
}

/// Copies; returns when all is written (not flushed) or something failed.
pub(super) fn copy(copy: &Copy<'_>, input: &dyn Input, progress: &mut Progress) -> Result<(), CopyError> {
    let cluster = cluster_size(copy.target.image);
    let packed_unit = copy.target.image.ops().and_then(ImageOps::compressed_unit).unwrap_or(cluster).max(512);
    let piece = if copy.target.packed { PACKED_BYTES.max(packed_unit) } else { PIECE_BYTES.max(cluster) };
    let unit = cluster.max(copy.target.sparse);
    let run = Run {
        copy,
        input,
        piece,
        unit,
        packed_unit,
        cursor: Mutex::new(Cursor {
            at: copy.range.start,
            turn: 0,
            known_until: copy.range.start,
            content: Content::Absent,
        }),
        turn: Mutex::new(0),
        next_turn: Condvar::new(),
        stop: AtomicBool::new(false),
        failed: Mutex::new(None),
        progress: Mutex::new((progress, 0)),
        budget: Mutex::new(None),
    };
    let pieces = copy.range.end.saturating_sub(copy.range.start).div_ceil(piece);
    // Compression keeps a processor busy: more threads than there are would only take memory.
    let most = if copy.target.packed { thread::available_parallelism().map_or(1, usize::from) } else { 64 };
    let workers = copy.workers.clamp(1, most.min(64)).min(usize::try_from(pieces).unwrap_or(usize::MAX).max(1));
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(|| run.work());
        }
        run.work();
    });
    let failed = run.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// Bytes that a format allocates at a time; 1: any.
fn cluster_size(image: &Image) -> u64 {
    let details = image.ops().and_then(|ops| ops.details().ok());
    details.and_then(|details| details.cluster_size).filter(|size| size.is_power_of_two()).unwrap_or(1)
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_, '_> {
    fn work(&self) {
        let mut buf = Buffer::default();
        loop {
            match self.take() {
                Ok(Some(piece)) => {
                    if let Err(error) = self.step(piece, &mut buf) {
                        return self.fail(error);
                    }
                    self.note(piece.len);
                }
                Ok(None) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    fn step(&self, piece: Piece, buf: &mut Buffer) -> Result<(), CopyError> {
        let offload = self.copy.offload && piece.content == Content::Data;
        if offload && self.input.offload(piece.at, piece.len, self.copy.target.image) {
            return Ok(());
        }
        self.read(piece, buf)?;
        self.put(piece, buf)
    }

    /// The error with the lowest offset is the one that is told.
    fn fail(&self, error: CopyError) {
        let mut failed = hold(&self.failed);
        if failed.as_ref().is_none_or(|before| error.at < before.at) {
            *failed = Some(error);
        }
        self.stop.store(true, Ordering::Release);
        drop(failed);
        // Whoever waits for a turn that does not come sees that it is over.
        let _turn = hold(&self.turn);
        self.next_turn.notify_all();
    }

    fn note(&self, len: u64) {
        let mut progress = hold(&self.progress);
        progress.1 += len;
        let (done, total) = (progress.1, self.copy.range.end - self.copy.range.start);
        progress.0.show(done, total);
    }

    /// The next piece that there is something to do for.
    fn take(&self) -> Result<Option<Piece>, CopyError> {
        let mut cursor = hold(&self.cursor);
        loop {
            let at = cursor.at;
            let fault = |error| CopyError { doing: Doing::Status, at, error };
            if at >= self.copy.range.end || self.stop.load(Ordering::Acquire) {
                return Ok(None);
            }
            hold(&self.progress).0.check().map_err(fault)?;
            if cursor.known_until <= at {
                let (content, len) = self.input.classify(at, self.copy.range.end - at).map_err(fault)?;
                (cursor.content, cursor.known_until) = (content, at + len.max(1));
            }
            let piece = self.next(&cursor);
            (cursor.at, cursor.known_until) = (at + piece.len, cursor.known_until.max(at + piece.len));
            let nothing = piece.content == Content::Absent
                || piece.content == Content::Zero && self.copy.target.starts_zero && self.copy.target.sparse > 0;
            if !nothing {
                cursor.turn += 1;
                return Ok(Some(piece));
            }
            self.note(piece.len);
        }
    }

    fn next(&self, cursor: &Cursor) -> Piece {
        let Cursor { at, turn, known_until, content } = *cursor;
        let mut len = known_until.min(self.copy.range.end) - at;
        let mut content = content;
        if self.copy.target.packed {
            // Whole clusters only; one that is zero in part is read.
            let whole = (at + len) / self.packed_unit * self.packed_unit;
            if whole > at {
                len = whole - at;
            } else if at + len < self.copy.range.end {
                content = Content::Data;
                len = (at / self.packed_unit + 1) * self.packed_unit - at;
                len = len.min(self.copy.range.end - at);
            }
        }
        if content == Content::Data {
            len = len.min((at / self.piece + 1) * self.piece - at);
        }
        Piece { turn, at, len, content }
    }

    fn read(&self, piece: Piece, buf: &mut Buffer) -> Result<(), CopyError> {
        if piece.content != Content::Data {
            return Ok(());
        }
        let len = usize::try_from(piece.len).unwrap_or(0);
        if buf.data.len() != len {
            buf.data.resize(len, 0);
        }
        if let Err(error) = self.input.read(piece.at, &mut buf.data) {
            match self.copy.salvage {
                Some(salvage) => self.salvage(piece.at, &mut buf.data, salvage),
                None => return Err(CopyError { doing: Doing::Read, at: piece.at, error }),
            }
        }
        let wanted = self.input.wanted(piece.at, &buf.data);
        let wanted = wanted.map_err(|error| CopyError { doing: Doing::Read, at: piece.at, error })?;
        let all = 0..buf.data.len();
        buf.wanted = wanted.unwrap_or_else(|| vec![all]);
        self.pack(buf).map_err(|error| CopyError { doing: Doing::Write, at: piece.at, error })
    }

    /// Compresses what was read, before its turn to be written comes.
    fn pack(&self, buf: &mut Buffer) -> io::Result<()> {
        buf.packed.clear();
        let Some(ops) = self.copy.target.image.ops().filter(|_| self.copy.target.packed) else { return Ok(()) };
        let unit = usize::try_from(self.packed_unit).unwrap_or(usize::MAX);
        for (index, cluster) in buf.data.chunks(unit).enumerate() {
            let wanted = buf.wanted.iter().any(|range| range.contains(&(index * unit)));
            let left_out = !wanted || self.copy.target.sparse > 0 && zeros::is_zero(cluster);
            buf.packed.push(if left_out { None } else { ops.pack(cluster)? });
        }
        Ok(())
    }

    /// Reads sector by sector what could not be read as a whole.
    fn salvage(&self, at: u64, buf: &mut [u8], salvage: Salvage) {
        let mut sector_at = at;
        for sector in buf.chunks_mut(512) {
            if let Err(error) = self.input.read(sector_at, sector) {
                sector.fill(0);
                if !salvage.quiet {
                    super::program::warn(format!(
                        "error while reading offset {sector_at}: {}",
                        crate::host::reason(&error)
                    ));
                }
            }
            sector_at += sector.len() as u64;
        }
    }

    /// Waits for its turn and writes.
    fn put(&self, piece: Piece, buf: &Buffer) -> Result<(), CopyError> {
        let fault = |error| CopyError { doing: Doing::Write, at: piece.at, error };
        self.slow_down(piece.len);
        if !self.copy.in_order {
            return self.write(piece, buf).map_err(fault);
        }
        let mut turn = hold(&self.turn);
        while *turn != piece.turn {
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            turn = self.next_turn.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        drop(turn);
        let written = self.write(piece, buf).map_err(fault);
        *hold(&self.turn) += 1;
        self.next_turn.notify_all();
        written
    }

    /// Sleeps as long as `rate` wants.
    fn slow_down(&self, len: u64) {
        let Some(rate) = self.copy.rate.filter(|rate| *rate > 0) else { return };
        let wait = {
            let mut budget = hold(&self.budget);
            let now = Instant::now();
            let start = budget.unwrap_or(now).max(now);
            let nanos = u128::from(len) * 1_000_000_000 / u128::from(rate);
            *budget = Some(start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4)));
            start - now
        };
        thread::sleep(wait);
    }

    fn write(&self, piece: Piece, buf: &Buffer) -> io::Result<()> {
        match piece.content {
            Content::Absent => Ok(()),
            Content::Zero => self.write_zeros(piece.at, piece.len),
            Content::Data => buf.wanted.iter().try_for_each(|range| self.write_data(piece.at, buf, range.clone())),
        }
    }

    fn write_zeros(&self, at: u64, len: u64) -> io::Result<()> {
        let target = &self.copy.target;
        if target.sparse > 0 {
            return if target.starts_zero { Ok(()) } else { target.image.node.zero(at, len, true) };
        }
        // -S 0: the storage is to be there.
        let zeros = vec![0; usize::try_from(len.min(self.piece)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(self.piece);
            target.image.node.write_at(at + done, &zeros[..usize::try_from(step).unwrap_or(0)], false)?;
            done += step;
        }
        Ok(())
    }

    /// Writes a range of a piece that begins at `piece_at`.
    fn write_data(&self, piece_at: u64, buf: &Buffer, range: Range<usize>) -> io::Result<()> {
        let target = &self.copy.target;
        if target.packed {
            return self.write_packed(piece_at, buf, range);
        }
        let at = piece_at + range.start as u64;
        let data = &buf.data[range];
        if target.sparse == 0 {
            return target.image.node.write_at(at, data, false);
        }
        // A piece that begins inside a unit is cut there first.
        let unit = usize::try_from(self.unit).unwrap_or(usize::MAX);
        let head = usize::try_from(at.next_multiple_of(self.unit) - at).unwrap_or(usize::MAX).min(data.len());
        for (start, part) in [(0, &data[..head]), (head, &data[head..])] {
            let base = at + start as u64;
            zeros::runs(part, unit, |zero, range| {
                let from = base + range.start as u64;
                if zero {
                    self.write_zeros(from, range.len() as u64)
                } else {
                    target.image.node.write_at(from, &part[range], false)
                }
            })?;
        }
        Ok(())
    }

    /// The range is of whole clusters, but for the end of the disk.
    fn write_packed(&self, piece_at: u64, buf: &Buffer, range: Range<usize>) -> io::Result<()> {
        let target = &self.copy.target;
        let unit = usize::try_from(self.packed_unit).unwrap_or(usize::MAX);
        for (index, cluster) in buf.data.chunks(unit).enumerate() {
            let start = index * unit;
            if !range.contains(&start) {
                continue;
            }
            let at = piece_at + start as u64;
            let packed = buf.packed.get(index).and_then(Option::as_ref);
            match (target.image.ops(), packed) {
                (Some(ops), Some(packed)) => ops.write_packed(at, cluster, packed)?,
                _ if zeros::is_zero(cluster) && target.sparse > 0 => self.write_zeros(at, cluster.len() as u64)?,
                (Some(ops), None) => ops.write_compressed(at, cluster)?,
                (None, _) => target.image.node.write_at(at, cluster, false)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
