//! A drive: a medium that can change, worker threads that do its requests, counters, and what to do on errors.
//!
//! A request goes from the controller's thread to one worker and the worker itself calls back: one hop. Workers
//! sleep on a condition variable, are started when requests find no sleeping one, and end with the drive.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use super::graph::Image;
use super::lock;
use super::node::{BlockNode, IoResult};
use super::queue::{BlockQueue, Completion, Op, Payload, Request};
use crate::mem::{DmaError, GuestRam, Sg};

/// Workers of one drive at most.
const MAX_WORKERS: usize = 4;

/// Bytes that one step of a transfer moves at most.
const CHUNK_BYTES: usize = 256 << 10;

/// What is called when a request ended, with no lock held.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// What an error does (`rerror=`, `werror=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// Tell the guest.
    Report,
    /// Tell the guest that all is well.
    Ignore,
    /// Stop the machine and try again when it goes on.
    Stop,
}

/// `rerror=`, `werror=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorPolicy {
    /// "report".
    Report,
    /// "ignore".
    Ignore,
    /// "stop".
    Stop,
    /// "enospc": stop when the host's disk is full, else report.
    Enospc,
}

impl ErrorPolicy {
    /// By QEMU's name; "auto" is the default of its kind.
    #[must_use]
    pub fn by_name(name: &str, is_read: bool) -> Option<Self> {
        Some(match name {
            "report" => Self::Report,
            "ignore" => Self::Ignore,
            "stop" => Self::Stop,
            "enospc" if !is_read => Self::Enospc,
            "auto" if is_read => Self::Report,
            "auto" => Self::Enospc,
            _ => return None,
        })
    }

    /// QEMU's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
            Self::Enospc => "enospc",
        }
    }

    /// What it does about an error.
    #[must_use]
    pub fn action(self, error: &io::Error) -> ErrorAction {
        match self {
            Self::Report => ErrorAction::Report,
            Self::Ignore => ErrorAction::Ignore,
            Self::Stop => ErrorAction::Stop,
            Self::Enospc if error.kind() == io::ErrorKind::StorageFull => ErrorAction::Stop,
            Self::Enospc => ErrorAction::Report,
        }
    }
}

/// An error of a request, for the machine's `BLOCK_IO_ERROR` event and for stopping.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskError {
    /// Whether it was a read.
    pub read: bool,
    /// What is done about it. With [`ErrorAction::Stop`] the request waits for [`Disk::resume`].
    pub action: ErrorAction,
    /// The host's disk is full.
    pub no_space: bool,
    /// The host's text.
    pub reason: String,
}

/// What is called on errors, with no lock held.
pub type OnError = Arc<dyn Fn(DiskError) + Send + Sync>;

/// How a drive behaves.
#[derive(Clone)]
pub struct DiskOptions {
    /// The machine's memory, for DMA.
    pub ram: GuestRam,
    /// `rerror=`.
    pub read_error: ErrorPolicy,
    /// `werror=`.
    pub write_error: ErrorPolicy,
    /// Writes are on stable storage when they complete (`cache=writethrough`, `directsync`).
    pub write_through: bool,
    /// What to call on errors.
    pub on_error: Option<OnError>,
}

impl DiskOptions {
    /// QEMU's defaults.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self {
            ram,
            read_error: ErrorPolicy::Report,
            write_error: ErrorPolicy::Enospc,
            write_through: false,
            on_error: None,
        }
    }
}

/// Counters, as `info blockstats` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Bytes read.
    pub rd_bytes: u64,
    /// Bytes written.
    pub wr_bytes: u64,
    /// Bytes discarded.
    pub unmap_bytes: u64,
    /// Reads that ended well.
    pub rd_operations: u64,
    /// Writes that ended well.
    pub wr_operations: u64,
    /// Flushes that ended well.
    pub flush_operations: u64,
    /// Discards that ended well.
    pub unmap_operations: u64,
    /// Time of reads.
    pub rd_total_time_ns: u64,
    /// Time of writes.
    pub wr_total_time_ns: u64,
    /// Time of flushes.
    pub flush_total_time_ns: u64,
    /// Time of discards.
    pub unmap_total_time_ns: u64,
    /// Reads that failed.
    pub failed_rd_operations: u64,
    /// Writes that failed.
    pub failed_wr_operations: u64,
    /// Flushes that failed.
    pub failed_flush_operations: u64,
    /// Discards that failed.
    pub failed_unmap_operations: u64,
    /// The end of the last byte written.
    pub wr_highest_offset: u64,
    /// When the last request ended, if one did; QEMU shows the time since then.
    pub idle_since: Option<Instant>,
}

impl Stats {
    /// How long ago the last request ended, in nanoseconds, if one did.
    #[must_use]
    pub fn idle_time_ns(&self) -> Option<u64> {
        self.idle_since.map(|at| u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The medium, as workers use it.
struct Medium {
    image: Image,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Request, u64)>,
    /// Requests that failed and wait for the machine to go on.
    parked: Vec<(Request, u64)>,
    done: Vec<Completion>,
    running: usize,
    idle: usize,
    workers: usize,
    closing: bool,
}

struct Shared {
    options: DiskOptions,
    medium: RwLock<Option<Arc<Medium>>>,
    capacity: AtomicU64,
    read_only: AtomicBool,
    present: AtomicBool,
    queue: Mutex<Queue>,
    wake: Condvar,
    quiet: Condvar,
    /// Requests of an older epoch are cancelled. Held shared while guest memory is touched.
    epoch: RwLock<u64>,
    stats: Mutex<Stats>,
    notify: Mutex<Option<Notify>>,
}

/// The host side of a drive: the machine and its monitors hold it; [`Disk::queue`] is the controller's end.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    /// Ends the workers when the last handle goes.
    _end: Arc<End>,
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.0.queue).closing = true;
        self.0.wake.notify_all();
    }
}

impl Disk {
    /// A drive with a medium, or an empty one.
    #[must_use]
    pub fn new(image: Option<Image>, options: DiskOptions) -> Self {
        let shared = Arc::new(Shared {
            options,
            medium: RwLock::new(None),
            capacity: AtomicU64::new(0),
            read_only: AtomicBool::new(true),
            present: AtomicBool::new(false),
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            quiet: Condvar::new(),
            epoch: RwLock::new(0),
            stats: Mutex::new(Stats::default()),
            notify: Mutex::new(None),
        });
        shared.set_medium(image);
        Self { _end: Arc::new(End(Arc::clone(&shared))), shared }
    }

    /// The controller's end. `notify` is called, with no lock held, each time requests end; it replaces an earlier
    /// controller's.
    #[must_use]
    pub fn queue(&self, notify: Notify) -> Box<dyn BlockQueue> {
        *lock(&self.shared.notify) = Some(notify);
        Box::new(WorkerQueue { disk: self.clone() })
    }

    /// The medium, for monitors.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        self.shared.medium().map(|medium| medium.image.clone())
    }

    /// Takes the medium out, after what was written is on the disk. Requests that come later fail.
    ///
    /// # Errors
    /// The flush failed; the medium is out.
    pub fn eject(&self) -> IoResult<()> {
        self.replace(None)
    }

    /// Puts another medium in; the old one is flushed first.
    ///
    /// # Errors
    /// The flush of the old medium failed; the new one is in.
    pub fn insert(&self, image: Image) -> IoResult<()> {
        self.replace(Some(image))
    }

    fn replace(&self, image: Option<Image>) -> IoResult<()> {
        self.drain();
        let old = self.shared.set_medium(image);
        match old {
            Some(old) if !old.image.read_only => old.image.node.flush(),
            _ => Ok(()),
        }
    }

    /// Reads the medium's length again, after it was resized.
    pub fn refresh_capacity(&self) {
        if let Some(medium) = self.shared.medium() {
            self.shared.capacity.store(medium.image.node.len().unwrap_or(0), Ordering::Release);
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *lock(&self.shared.stats)
    }

    /// The error policies: of reads, of writes.
    #[must_use]
    pub fn error_policies(&self) -> (ErrorPolicy, ErrorPolicy) {
        (self.shared.options.read_error, self.shared.options.write_error)
    }

    /// Starts the requests again that failed and stopped the machine.
    pub fn resume(&self) {
        let parked = std::mem::take(&mut lock(&self.shared.queue).parked);
        for (request, epoch) in parked {
            self.start(request, epoch);
        }
    }

    /// Waits until nothing is in flight. Parked requests stay. Not under the board lock.
    pub fn drain(&self) {
        let mut queue = lock(&self.shared.queue);
        while queue.running > 0 || !queue.waiting.is_empty() {
            queue = self.shared.quiet.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for what is in flight and puts it on the disk: before the process ends, or the machine is saved. Not
    /// under the board lock.
    ///
    /// # Errors
    /// The host's.
    pub fn flush(&self) -> IoResult<()> {
        self.drain();
        match self.shared.medium() {
            Some(medium) if !medium.image.read_only => medium.image.node.flush(),
            _ => Ok(()),
        }
    }

    fn start(&self, request: Request, epoch: u64) {
        let mut queue = lock(&self.shared.queue);
        queue.waiting.push_back((request, epoch));
        if queue.idle >= queue.waiting.len() {
            drop(queue);
            self.shared.wake.notify_one();
            return;
        }
        if queue.workers >= MAX_WORKERS {
            return; // a worker that ends its request takes it
        }
        queue.workers += 1;
        drop(queue);
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().name("block".to_owned()).stack_size(1 << 20).spawn(move || shared.work());
        if spawned.is_err() {
            let mut queue = lock(&self.shared.queue);
            queue.workers -= 1;
            if queue.workers == 0 {
                // The host has no threads left: it must be done here.
                drop(queue);
                self.shared.work_until_idle();
            }
        }
    }
}

impl Shared {
    fn medium(&self) -> Option<Arc<Medium>> {
        self.medium.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_medium(&self, image: Option<Image>) -> Option<Arc<Medium>> {
        let new = image.map(|image| Arc::new(Medium { image }));
        let mut medium = self.medium.write().unwrap_or_else(PoisonError::into_inner);
        self.capacity.store(new.as_ref().map_or(0, |medium| medium.image.node.len().unwrap_or(0)), Ordering::Release);
        self.read_only.store(new.as_ref().is_none_or(|medium| medium.image.read_only), Ordering::Release);
        self.present.store(new.is_some(), Ordering::Release);
        std::mem::replace(&mut *medium, new)
    }

    /// A worker's life.
    fn work(&self) {
        loop {
            self.work_until_idle();
            let mut queue = lock(&self.queue);
            queue.idle += 1;
            while queue.waiting.is_empty() && !queue.closing {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.idle -= 1;
            if queue.waiting.is_empty() {
                queue.workers -= 1;
                return;
            }
        }
    }

    fn work_until_idle(&self) {
        loop {
            let (request, epoch) = {
                let mut queue = lock(&self.queue);
                let Some(next) = queue.waiting.pop_front() else { return };
                queue.running += 1;
                next
            };
            let ended = self.run(request, epoch);
            let is_done = matches!(ended, Ended::Done(_));
            let mut failed = None;
            {
                let mut queue = lock(&self.queue);
                match ended {
                    Ended::Done(completion) if self.is_current(epoch) => queue.done.push(completion),
                    Ended::Parked(request, error) if self.is_current(epoch) => {
                        queue.parked.push((request, epoch));
                        failed = Some(error);
                    }
                    Ended::Done(_) | Ended::Parked(..) => {}
                }
            }
            if let (Some(error), Some(on_error)) = (failed, &self.options.on_error) {
                on_error(error);
            }
            let notify = if is_done { lock(&self.notify).clone() } else { None };
            if let Some(notify) = notify {
                notify();
            }
            let mut queue = lock(&self.queue);
            queue.running -= 1;
            if queue.running == 0 && queue.waiting.is_empty() {
                self.quiet.notify_all();
            }
        }
    }

    fn is_current(&self, epoch: u64) -> bool {
        *self.epoch.read().unwrap_or_else(PoisonError::into_inner) == epoch
    }

    fn run(&self, mut request: Request, epoch: u64) -> Ended {
        let started = Instant::now();
        let result = match self.medium() {
            Some(medium) => self.perform(&medium.image, &mut request, epoch),
            None => Err(io::Error::from_raw_os_error(123)), // ENOMEDIUM
        };
        self.count(&request, result.is_ok(), started);
        let Err(error) = result else {
            return Ended::Done(Completion { token: request.token, result: Ok(()), payload: request.payload });
        };
        let read = request.op == Op::Read;
        let policy = if read { self.options.read_error } else { self.options.write_error };
        let action = policy.action(&error);
        let report = DiskError {
            read,
            action,
            no_space: error.kind() == io::ErrorKind::StorageFull,
            reason: crate::host::reason(&error),
        };
        if action == ErrorAction::Stop {
            return Ended::Parked(request, report);
        }
        if let Some(on_error) = &self.options.on_error
            && self.is_current(epoch)
        {
            on_error(report);
        }
        let result = if action == ErrorAction::Ignore { Ok(()) } else { Err(error) };
        Ended::Done(Completion { token: request.token, result, payload: request.payload })
    }

    fn perform(&self, image: &Image, request: &mut Request, epoch: u64) -> IoResult<()> {
        let node = image.node.as_ref();
        let offset = request.offset;
        let is_change = !matches!(request.op, Op::Read | Op::Flush);
        if is_change && image.read_only {
            return Err(io::Error::from_raw_os_error(30)); // EROFS
        }
        let fua = request.op == Op::WriteFua || self.options.write_through;
        match (request.op, &mut request.payload) {
            (Op::Flush, _) => node.flush(),
            (Op::Discard, payload) => node.discard(offset, payload_len(payload)),
            (Op::WriteZeroes { may_unmap }, payload) => {
                node.zero(offset, payload_len(payload), may_unmap)?;
                if self.options.write_through { node.flush() } else { Ok(()) }
            }
            (Op::Read, Payload::Buffer(buffer)) => node.read_at(offset, buffer),
            (Op::Read, Payload::Guest(sg)) => self.read_guest(node, offset, sg, epoch),
            (Op::Write | Op::WriteFua, Payload::Buffer(buffer)) => node.write_at(offset, buffer, fua),
            (Op::Write | Op::WriteFua, Payload::Guest(sg)) => self.write_guest(image, offset, sg, epoch, fua),
            (Op::Read | Op::Write | Op::WriteFua, Payload::Len(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn read_guest(&self, node: &dyn BlockNode, offset: u64, sg: &Sg, epoch: u64) -> IoResult<()> {
        let mut buffer = vec![0; chunk(sg.len())];
        let mut done = 0;
        while done < sg.len() {
            let step = chunk(sg.len() - done);
            node.read_at(offset + done, &mut buffer[..step])?;
            self.touch_guest(epoch, |ram| sg.write(ram, done, &buffer[..step]))?;
            done += step as u64;
        }
        Ok(())
    }

    fn write_guest(&self, image: &Image, offset: u64, sg: &Sg, epoch: u64, fua: bool) -> IoResult<()> {
        let mut buffer = vec![0; chunk(sg.len())];
        let mut done = 0;
        while done < sg.len() {
            let step = chunk(sg.len() - done);
            self.touch_guest(epoch, |ram| sg.read(ram, done, &mut buffer[..step]))?;
            done += step as u64;
            let at = offset + done - step as u64;
            if image.detect_zeroes != "off" && buffer[..step].iter().all(|byte| *byte == 0) {
                image.node.zero(at, step as u64, image.detect_zeroes == "unmap")?;
                if fua && done == sg.len() {
                    image.node.flush()?;
                }
            } else {
                image.node.write_at(at, &buffer[..step], fua && done == sg.len())?;
            }
        }
        Ok(())
    }

    /// Copies from or to guest memory unless the request was cancelled.
    fn touch_guest(&self, epoch: u64, copy: impl FnOnce(&GuestRam) -> Result<(), DmaError>) -> IoResult<()> {
        let now = self.epoch.read().unwrap_or_else(PoisonError::into_inner);
        if *now != epoch {
            return Err(io::Error::from_raw_os_error(125)); // ECANCELED
        }
        copy(&self.options.ram).map_err(|_| io::Error::from_raw_os_error(14)) // EFAULT
    }

    fn count(&self, request: &Request, ok: bool, started: Instant) {
        let len = payload_len(&request.payload);
        let now = Instant::now();
        let time_ns = u64::try_from(now.duration_since(started).as_nanos()).unwrap_or(u64::MAX);
        let mut stats = lock(&self.stats);
        let stats = &mut *stats;
        stats.idle_since = Some(now);
        let (operations, failed, time) = match request.op {
            Op::Read => (&mut stats.rd_operations, &mut stats.failed_rd_operations, &mut stats.rd_total_time_ns),
            Op::Write | Op::WriteFua | Op::WriteZeroes { .. } => {
                (&mut stats.wr_operations, &mut stats.failed_wr_operations, &mut stats.wr_total_time_ns)
            }
            Op::Flush => {
                (&mut stats.flush_operations, &mut stats.failed_flush_operations, &mut stats.flush_total_time_ns)
            }
            Op::Discard => {
                (&mut stats.unmap_operations, &mut stats.failed_unmap_operations, &mut stats.unmap_total_time_ns)
            }
        };
        *time += time_ns;
        if !ok {
            *failed += 1;
            return;
        }
        *operations += 1;
        match request.op {
            Op::Read => stats.rd_bytes += len,
            Op::Write | Op::WriteFua | Op::WriteZeroes { .. } => {
                stats.wr_bytes += len;
                stats.wr_highest_offset = stats.wr_highest_offset.max(request.offset.saturating_add(len));
            }
            Op::Discard => stats.unmap_bytes += len,
            Op::Flush => {}
        }
    }
}

enum Ended {
    Done(Completion),
    Parked(Request, DiskError),
}

fn chunk(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK_BYTES)
}

fn payload_len(payload: &Payload) -> u64 {
    match payload {
        Payload::Len(len) => *len,
        Payload::Guest(sg) => sg.len(),
        Payload::Buffer(buffer) => buffer.len() as u64,
    }
}

/// The controller's end of a [`Disk`].
struct WorkerQueue {
    disk: Disk,
}

impl BlockQueue for WorkerQueue {
    fn submit(&mut self, request: Request) {
        let epoch = *self.disk.shared.epoch.read().unwrap_or_else(PoisonError::into_inner);
        self.disk.start(request, epoch);
    }

    fn completed(&mut self) -> Vec<Completion> {
        std::mem::take(&mut lock(&self.disk.shared.queue).done)
    }

    fn cancel_all(&mut self) {
        let shared = &self.disk.shared;
        *shared.epoch.write().unwrap_or_else(PoisonError::into_inner) += 1;
        let mut queue = lock(&shared.queue);
        queue.waiting.clear();
        queue.parked.clear();
        queue.done.clear();
        if queue.running == 0 {
            shared.quiet.notify_all();
        }
    }

    fn capacity(&self) -> u64 {
        self.disk.shared.capacity.load(Ordering::Acquire)
    }

    fn read_only(&self) -> bool {
        self.disk.shared.read_only.load(Ordering::Acquire)
    }

    fn has_medium(&self) -> bool {
        self.disk.shared.present.load(Ordering::Acquire)
    }
}

impl Drop for WorkerQueue {
    fn drop(&mut self) {
        self.cancel_all();
        *lock(&self.disk.shared.notify) = None;
    }
}

#[cfg(test)]
mod tests;
