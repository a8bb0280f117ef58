//! `read`, `write`, their vectored and asynchronous forms, and `discard`.

use std::fs::File;
use std::io;
use std::io::Read;
use std::time::Instant;

use super::command::Parsed;
use super::numbers::{self, MAX_REQUEST, Report};
use super::request::Target;
use super::session::{Failure, Outcome, Session, say};
use crate::host;

/// What a written buffer holds if nothing else is asked for.
const FILL: u8 = 0xcd;
/// What a read buffer holds before.
const UNREAD: u8 = 0xab;

/// A buffer; with `-m` its first byte is at an odd address.
struct Buffer {
    store: Vec<u8>,
    skip: usize,
}

impl Buffer {
    fn new(len: usize, fill: u8, misalign: bool) -> Result<Self, Failure> {
        let skip = usize::from(misalign);
        let mut store = Vec::new();
        let full = || Failure::io("allocation", &io::ErrorKind::OutOfMemory.into());
        store.try_reserve_exact(len + skip).map_err(|_| full())?;
        store.resize(len + skip, fill);
        Ok(Self { store, skip })
    }

    fn bytes(&self) -> &[u8] {
        &self.store[self.skip..]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.skip..]
    }
}

fn said(text: impl Into<String>) -> Failure {
    Failure::Said(text.into())
}

fn size(text: &str) -> Result<u64, Failure> {
    numbers::size(text).map_err(Failure::Said)
}

fn pattern(parsed: &Parsed) -> Result<Option<u8>, Failure> {
    parsed.value('P').map(numbers::pattern).transpose().map_err(Failure::Said)
}

fn too_long(given: &str, hint: &str) -> Failure {
    said(format!("length cannot exceed {MAX_REQUEST}{hint}, given {given}"))
}

/// The two arguments of a plain request.
fn offset_and_count(parsed: &Parsed) -> Result<(u64, u64, &str), Failure> {
    let [offset, count] = parsed.rest.as_slice() else { return Err(Failure::Usage) };
    Ok((size(offset)?, size(count)?, count))
}

/// The offset and the whole length of a vectored request.
fn offset_and_lengths(parsed: &Parsed) -> Result<(u64, usize), Failure> {
    let (offset, lengths) = parsed.rest.split_first().ok_or(Failure::Usage)?;
    if lengths.is_empty() {
        return Err(Failure::Usage);
    }
    let offset = size(offset)?;
    let mut whole = 0_u64;
    for text in lengths {
        let len = size(text)?;
        if len > MAX_REQUEST {
            return Err(said(format!("Argument '{text}' exceeds maximum size {MAX_REQUEST}")));
        }
        if whole > MAX_REQUEST - len {
            return Err(said(format!("The total number of bytes exceed the maximum size {MAX_REQUEST}")));
        }
        whole += len;
    }
    Ok((offset, as_len(whole)))
}

/// A length that was checked against [`MAX_REQUEST`].
fn as_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// What is printed about a request, and whether.
#[derive(Clone, Copy)]
struct Style {
    quiet: bool,
    terse: bool,
    verbose: bool,
}

impl Style {
    fn of(parsed: &Parsed) -> Self {
        Self { quiet: parsed.has('q'), terse: parsed.has('C'), verbose: parsed.has('v') }
    }

    fn text(self, what: &'static str, offset: u64, len: u64, begun: Instant) -> String {
        if self.quiet {
            return String::new();
        }
        Report { what, offset, asked: len, done: len, time: begun.elapsed() }.text(self.terse)
    }
}

/// What to compare a read buffer with.
#[derive(Clone, Copy)]
struct Compare {
    byte: u8,
    skip: usize,
    len: usize,
}

impl Compare {
    fn matches(self, data: &[u8]) -> bool {
        data[self.skip..self.skip + self.len].iter().all(|byte| *byte == self.byte)
    }

    fn complaint(self, offset: u64) -> String {
        format!("Pattern verification failed at offset {}, {} bytes", offset + self.skip as u64, self.len)
    }
}

/// What a read found, as text, and whether it was what was expected.
fn read_report(style: Style, compare: Option<Compare>, offset: u64, data: &[u8], begun: Instant) -> (String, bool) {
    let report = style.text("read", offset, data.len() as u64, begun);
    let mut out = String::new();
    let differs = compare.filter(|compare| !compare.matches(data));
    if let Some(compare) = differs {
        out.push_str(&format!("{}\n", compare.complaint(offset)));
    }
    if style.verbose && !style.quiet {
        out.push_str(&numbers::dump(offset, data));
    }
    out.push_str(&report);
    (out, differs.is_none())
}

pub(super) fn read(session: &Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    let given_len = parsed.value('l').map(size).transpose()?;
    let skip = parsed.value('s').map(size).transpose()?;
    let (offset, count, typed) = offset_and_count(parsed)?;
    if count > MAX_REQUEST {
        return Err(too_long(typed, ""));
    }
    if byte.is_none() && (given_len.is_some() || skip.is_some()) {
        return Err(Failure::Usage);
    }
    let skip = skip.unwrap_or(0);
    let compared = given_len.unwrap_or(count.wrapping_sub(skip));
    if skip.checked_add(compared).is_none_or(|end| end > count) {
        return Err(said("pattern verification range exceeds end of read data"));
    }
    let compare = byte.map(|byte| Compare { byte, skip: as_len(skip), len: as_len(compared) });
    let mut buffer = Buffer::new(as_len(count), UNREAD, session.misalign)?;
    let target = session.target()?;
    let begun = Instant::now();
    let result = if parsed.has('b') {
        state_range(offset, count)?;
        target.read_state(offset, buffer.bytes_mut())
    } else {
        target.read(offset, buffer.bytes_mut())
    };
    result.map_err(|error| Failure::io("read", &error))?;
    finish_read(Style::of(parsed), compare, offset, buffer.bytes(), begun)
}

fn finish_read(style: Style, compare: Option<Compare>, offset: u64, data: &[u8], begun: Instant) -> Outcome {
    let (text, matched) = read_report(style, compare, offset, data, begun);
    say(&text);
    if matched { Ok(()) } else { Err(Failure::Silent) }
}

/// The machine's state is read and written by sectors.
fn state_range(offset: u64, count: u64) -> Outcome {
    for (value, name) in [(offset, "offset"), (count, "count")] {
        if !value.is_multiple_of(512) {
            return Err(said(format!("{value} is not a sector-aligned value for '{name}'")));
        }
    }
    Ok(())
}

pub(super) fn readv(session: &Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    let (offset, len) = offset_and_lengths(parsed)?;
    let mut buffer = Buffer::new(len, UNREAD, session.misalign)?;
    let target = session.target()?;
    let begun = Instant::now();
    target.read(offset, buffer.bytes_mut()).map_err(|error| Failure::io("readv", &error))?;
    let compare = byte.map(|byte| Compare { byte, skip: 0, len });
    finish_read(Style::of(parsed), compare, offset, buffer.bytes(), begun)
}

pub(super) fn aio_read(session: &mut Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    if parsed.has('i') {
        say("injecting invalid read request\n");
        return Ok(());
    }
    let (offset, len) = offset_and_lengths(parsed)?;
    let style = Style::of(parsed);
    let mut buffer = Buffer::new(len, UNREAD, session.misalign)?;
    let target = session.target()?;
    session.launch(move || {
        let begun = Instant::now();
        match target.read(offset, buffer.bytes_mut()) {
            Err(error) => format!("readv failed: {}\n", host::plain_reason(&error)),
            Ok(()) => {
                let compare = byte.map(|byte| Compare { byte, skip: 0, len });
                read_report(style, compare, offset, buffer.bytes(), begun).0
            }
        }
    })
}

/// How a `write` writes.
enum How {
    Data { fua: bool },
    Compressed,
    State,
    Zeros { unmap: bool, fua: bool, fast_only: bool },
}

fn how_to_write(parsed: &Parsed) -> Result<How, Failure> {
    let has = |letter| parsed.has(letter);
    if has('b') && has('z') {
        return Err(said("-b and -z cannot be specified at the same time"));
    }
    if has('f') && (has('b') || has('c')) {
        return Err(said("-f and -b or -c cannot be specified at the same time"));
    }
    if has('n') && !has('z') {
        return Err(said("-n requires -z to be specified"));
    }
    if has('u') && !has('z') {
        return Err(said("-u requires -z to be specified"));
    }
    if [has('z'), has('P'), has('s')].iter().filter(|given| **given).count() > 1 {
        return Err(said("Only one of -z, -P, and -s can be specified at the same time"));
    }
    Ok(match () {
        () if has('b') => How::State,
        () if has('z') => How::Zeros { unmap: has('u'), fua: has('f'), fast_only: has('n') },
        () if has('c') => How::Compressed,
        () => How::Data { fua: has('f') },
    })
}

pub(super) fn write(session: &Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    let how = how_to_write(parsed)?;
    let (offset, count, typed) = offset_and_count(parsed)?;
    if count > MAX_REQUEST && !parsed.has('n') {
        return Err(too_long(typed, " without -n"));
    }
    if parsed.has('b') {
        state_range(offset, count)?;
    }
    let len = if matches!(how, How::Zeros { .. }) { 0 } else { as_len(count) };
    let mut buffer = Buffer::new(len, byte.unwrap_or(FILL), session.misalign)?;
    if let Some(path) = parsed.value('s') {
        fill_from(path, buffer.bytes_mut())?;
    }
    let target = session.target()?;
    let begun = Instant::now();
    match how {
        How::Data { fua } => target.write(offset, buffer.bytes(), fua),
        How::Compressed => target.write_compressed(offset, buffer.bytes()),
        How::State => target.write_state(offset, buffer.bytes()),
        How::Zeros { unmap, fua, fast_only } => target.zero(offset, count, unmap, fua, fast_only),
    }
    .map_err(|error| Failure::io("write", &error))?;
    say(&Style::of(parsed).text("wrote", offset, count, begun));
    Ok(())
}

/// Fills a buffer with a file's content, over and over.
fn fill_from(path: &str, buf: &mut [u8]) -> Outcome {
    let failed = |error: io::Error| Failure::Complained(format!("{path}: {}", host::plain_reason(&error)));
    let mut content = Vec::new();
    let limit = buf.len() as u64;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut content).map_err(failed)?;
    if content.is_empty() {
        return Err(Failure::Complained(format!("{path}: file is empty")));
    }
    for piece in buf.chunks_mut(content.len()) {
        piece.copy_from_slice(&content[..piece.len()]);
    }
    Ok(())
}

pub(super) fn writev(session: &Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    let (offset, len) = offset_and_lengths(parsed)?;
    let buffer = Buffer::new(len, byte.unwrap_or(FILL), session.misalign)?;
    let target = session.target()?;
    let begun = Instant::now();
    target.write(offset, buffer.bytes(), parsed.has('f')).map_err(|error| Failure::io("writev", &error))?;
    say(&Style::of(parsed).text("wrote", offset, len as u64, begun));
    Ok(())
}

pub(super) fn aio_write(session: &mut Session, parsed: &Parsed) -> Outcome {
    let byte = pattern(parsed)?;
    if parsed.has('i') {
        say("injecting invalid write request\n");
        return Ok(());
    }
    let zeros = parsed.has('z');
    if zeros && parsed.rest.len() != 2 {
        return Err(said("-z supports only a single length parameter"));
    }
    if parsed.has('u') && !zeros {
        return Err(said("-u requires -z to be specified"));
    }
    let (offset, len) = if zeros {
        let (offset, count, _) = offset_and_count(parsed)?;
        (offset, count)
    } else {
        let (offset, len) = offset_and_lengths(parsed)?;
        (offset, len as u64)
    };
    let (style, unmap, fua) = (Style::of(parsed), parsed.has('u'), parsed.has('f'));
    let data = if zeros { None } else { Some(Buffer::new(as_len(len), byte.unwrap_or(FILL), session.misalign)?) };
    let target = session.target()?;
    session.launch(move || {
        let begun = Instant::now();
        let result = match &data {
            Some(data) => target.write(offset, data.bytes(), fua),
            None => target.zero(offset, len, unmap, fua, false),
        };
        match result {
            Err(error) => format!("aio_write failed: {}\n", host::plain_reason(&error)),
            Ok(()) => style.text("wrote", offset, len, begun),
        }
    })
}

pub(super) fn discard(session: &Session, parsed: &Parsed) -> Outcome {
    let (offset, count, typed) = offset_and_count(parsed)?;
    if count > MAX_REQUEST {
        return Err(too_long(typed, ""));
    }
    let target: Target = session.target()?;
    let begun = Instant::now();
    target.discard(offset, count).map_err(|error| Failure::io("discard", &error))?;
    say(&Style::of(parsed).text("discard", offset, count, begun));
    Ok(())
}
