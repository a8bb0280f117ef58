//! `qemu-img bench`: how fast an image answers.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::args::{self, Given, flag, long, value};
use super::progress::Progress;
use super::source::opener;
use super::{Failure, Outcome};
use crate::block::{CacheMode, Image, OpenFlags};
use crate::host::reason;

/// The largest value of most options.
const MOST: u64 = i32::MAX as u64;

/// Threads at most, whatever the depth: requests beyond wait, as they do in QEMU's pool.
const MAX_THREADS: u64 = 64;

/// What is asked for.
struct Bench<'a> {
    image: &'a Image,
    count: u64,
    depth: u64,
    offset: u64,
    buffer_size: usize,
    step: u64,
    write: Option<u8>,
    flush_interval: u64,
    drain: bool,
    image_size: u64,
}

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        value('t', "cache"),
        value('c', "count"),
        value('d', "depth"),
        value('o', "offset"),
        value('s', "buffer-size"),
        value('S', "step-size"),
        value('i', "aio"),
        flag('n', "native"),
        flag('w', "write"),
        long("pattern", true),
        long("flush-interval", true),
        long("no-drain", false),
        flag('U', "force-share"),
        flag('q', "quiet"),
        long("object", true),
    ];
    let Some(given) = args::parse("bench", &specs, args)? else { return Ok(0) };
    given.check_image_opts(&["format"])?;
    let aio = aio(&given)?;
    let count = given.number("count", "request count", 1, MOST)?.unwrap_or(75_000);
    let depth = given.number("depth", "queue depth", 1, MOST)?.unwrap_or(64);
    let buffer_size = given.number("buffer-size", "buffer size", 1, MOST)?.unwrap_or(4096);
    let step = given.number("step-size", "step size", 0, MOST)?.filter(|step| *step > 0).unwrap_or(buffer_size);
    let offset = given.number("offset", "offset", 0, i64::MAX as u64)?.unwrap_or(0);
    let pattern = given.number("pattern", "pattern byte", 0, 255)?.unwrap_or(0);
    let flush_interval = given.number("flush-interval", "flush interval", 0, MOST)?.unwrap_or(0);
    if given.last("cache").is_some_and(|name| CacheMode::by_name(name).is_none()) {
        return Err(Failure::new("Invalid cache mode"));
    }
    let filename = given.one_name("bench")?;
    let write = given.has("write");
    if flush_interval > 0 && !write {
        return Err(Failure::new("--flush-interval is only available in write tests"));
    }
    if flush_interval > 0 && flush_interval < depth {
        return Err(Failure::new("Flush interval can't be smaller than depth"));
    }
    let mut opener = opener(&given)?;
    let mut source = given.source(filename);
    source.cache = Some(given.last("cache").unwrap_or("writeback").to_owned());
    let flags = OpenFlags { read_only: !write, ..OpenFlags::default() };
    source.aio = aio;
    let image = source.open_with(&mut opener, flags)?;
    let image_size = image.node.len().map_err(|error| Failure::new(reason(&error)))?;
    let bench = Bench {
        image: &image,
        count,
        depth,
        offset,
        buffer_size: usize::try_from(buffer_size).unwrap_or(usize::MAX),
        step,
        write: write.then_some(u8::try_from(pattern).unwrap_or(0)),
        flush_interval,
        drain: !given.has("no-drain"),
        image_size,
    };
    bench.announce();
    let mut progress = Progress::new(false);
    let start = Instant::now();
    let outcome = bench.run(&mut progress);
    let seconds = start.elapsed().as_secs_f64();
    outcome.map_err(|(error, done)| {
        Failure::io("Failed request", &error, &format!("bench stopped after {done} of {count} requests"))
    })?;
    println!("Run completed in {seconds:.3} seconds.");
    Ok(0)
}

/// `-i`, `-n`.
fn aio(given: &Given) -> Result<Option<&'static str>, Failure> {
    match given.last("aio") {
        None => Ok(given.has("native").then_some("native")),
        Some("threads") => Ok(Some("threads")),
        Some("native") => Ok(Some("native")),
        Some("io_uring") => Ok(Some("io_uring")),
        Some(other) => Err(Failure::new(format!("Invalid aio option: {other}"))),
    }
}

/// What the threads share.
struct State {
    /// Requests that were started.
    started: u64,
    finished: u64,
    offset: u64,
    /// Nothing new is started before all that is under way has ended and was flushed.
    flushing: bool,
}

impl Bench<'_> {
    fn announce(&self) {
        let Self { count, buffer_size, depth, offset, step, .. } = self;
        let kind = if self.write.is_some() { "write" } else { "read" };
        println!(
            "Sending {count} {kind} requests, {buffer_size} bytes each, {depth} in parallel (starting at offset \
             {offset}, step size {step})"
        );
        if self.flush_interval > 0 {
            println!("Sending flush every {} requests", self.flush_interval);
        }
    }

    /// Where the request after one at `offset` goes.
    fn after(&self, offset: u64) -> u64 {
        let next = offset.saturating_add(self.step);
        let room = self.image_size.saturating_sub(self.buffer_size as u64);
        if self.image_size <= self.buffer_size as u64 { 0 } else { next % room.max(1) }
    }

    fn run(&self, progress: &mut Progress) -> Result<(), (io::Error, u64)> {
        let state = Mutex::new(State { started: 0, finished: 0, offset: self.offset, flushing: false });
        let changed = Condvar::new();
        let failed: Mutex<Option<io::Error>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let progress = &*progress;
        let work = || {
            let mut buf = vec![self.write.unwrap_or(0); self.buffer_size];
            while let Some((offset, flush)) = self.next(&state, &changed, &stop) {
                let done = progress.check().and_then(|()| self.request(offset, flush, &mut buf));
                let mut held = hold(&state);
                held.finished += 1;
                if flush {
                    held.flushing = false;
                }
                drop(held);
                if self.flush_interval > 0 {
                    changed.notify_all();
                }
                if let Err(error) = done {
                    hold(&failed).get_or_insert(error);
                    stop.store(true, Ordering::Release);
                    changed.notify_all();
                    return;
                }
            }
        };
        let threads = self.depth.min(MAX_THREADS).min(self.count);
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let done = hold(&state).finished;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err((error, done)),
            None => Ok(()),
        }
    }

    /// The next request's offset, and whether a flush follows it.
    fn next(&self, state: &Mutex<State>, changed: &Condvar, stop: &AtomicBool) -> Option<(u64, bool)> {
        let mut held = hold(state);
        loop {
            if stop.load(Ordering::Acquire) || held.started == self.count {
                return None;
            }
            if !held.flushing {
                break;
            }
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.started += 1;
        let offset = held.offset;
        held.offset = self.after(offset);
        let flush = self.flush_interval > 0 && held.started.is_multiple_of(self.flush_interval);
        if flush && self.drain {
            held.flushing = true;
            // Those under way end first; this thread's own request is the last of them.
            while held.finished + 1 < held.started && !stop.load(Ordering::Acquire) {
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Some((offset, flush))
    }

    fn request(&self, offset: u64, flush: bool, buf: &mut [u8]) -> io::Result<()> {
        let node = &self.image.node;
        match self.write {
            Some(_) => node.write_at(offset, buf, false)?,
            None => node.read_at(offset, buf)?,
        }
        if flush { node.flush() } else { Ok(()) }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
