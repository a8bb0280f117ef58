//! The entropy device (5.4): one queue of buffers that the device fills with random bytes.
//!
//! A limit on bytes a period is QEMU's (`max-bytes`, `period`): guests that ask for more wait for the next period.

use std::sync::Arc;

use super::{Chain, DeviceType, Negotiated, Queue, VirtioDevice};
use crate::bus::Token;
use crate::event::Timer;

/// What this device is.
pub const TYPE: DeviceType = DeviceType { id: 4, transitional_id: 0x1005, class: 0x00_ff00, name: "rng" };

/// The event of [`Rng`]'s timer: a new period begins.
pub const PERIOD: Token = Token(0);
/// The event of a source that has bytes again.
pub const READY: Token = Token(1);

/// Entries of the queue, as QEMU has them.
const QUEUE_SIZE: u16 = 8;
/// Bytes that are fetched at a time.
const STEP: usize = 4096;
const NS_PER_MS: u64 = 1_000_000;

/// Where random bytes come from.
pub trait EntropySource: Send {
    /// Fills the front of `buf` without waiting and returns how many bytes that were. After fewer than were asked for,
    /// [`READY`] is raised when there are more.
    fn take(&mut self, buf: &mut [u8]) -> usize;
}

/// A limit on what a guest gets.
pub struct Limit {
    /// Bytes a period.
    pub max_bytes: u64,
    /// The period in milliseconds.
    pub period_ms: u32,
    /// Raises [`PERIOD`].
    pub timer: Timer,
}

/// The device.
pub struct Rng {
    // Wires.
    source: Box<dyn EntropySource>,
    limit: Option<Limit>,
    // What the driver set up.
    queue: Option<Arc<Queue>>,
    /// Bytes that are left in this period.
    quota: u64,
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng")
    }
}

impl Rng {
    /// A device that gives what `source` has; without a limit, all of it.
    #[must_use]
    pub fn new(source: Box<dyn EntropySource>, limit: Option<Limit>) -> Self {
        let quota = limit.as_ref().map_or(u64::MAX, |limit| limit.max_bytes);
        Self { source, limit, queue: None, quota }
    }

    fn serve(&mut self) {
        let Some(queue) = self.queue.clone() else { return };
        let mut served = false;
        queue.serve(|chain| {
            let written = self.fill(&queue, &chain);
            if written == 0 && !chain.writable.is_empty() {
                queue.unpop(&chain);
                return false;
            }
            queue.push(&chain, written);
            served = true;
            true
        });
        if served {
            queue.signal();
        }
    }

    /// Fills one buffer as far as quota and source go. A short buffer is a whole answer (5.4.6.2).
    fn fill(&mut self, queue: &Queue, chain: &Chain) -> u32 {
        let wanted = chain.writable.len().min(self.quota);
        let mut done = 0;
        let mut bytes = [0; STEP];
        while done < wanted {
            let step = usize::try_from(wanted - done).unwrap_or(STEP).min(STEP);
            let got = self.source.take(&mut bytes[..step]);
            if got == 0 || chain.write(queue.ram(), done, &bytes[..got]).is_err() {
                break;
            }
            done += got as u64;
        }
        self.spend(done);
        u32::try_from(done).unwrap_or(u32::MAX)
    }

    fn spend(&mut self, bytes: u64) {
        if let Some(limit) = &self.limit {
            self.quota = self.quota.saturating_sub(bytes);
            if self.quota == 0 && limit.timer.deadline().is_none() {
                limit.timer.set(limit.timer.now_ns() + u64::from(limit.period_ms) * NS_PER_MS);
            }
        }
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn activate(&mut self, negotiated: Negotiated) {
        self.queue = negotiated.queues.into_iter().next();
        self.serve();
    }

    fn notify(&mut self, _queue: usize) {
        self.serve();
    }

    fn event(&mut self, token: Token) {
        if token == PERIOD {
            self.quota = self.limit.as_ref().map_or(u64::MAX, |limit| limit.max_bytes);
        }
        self.serve();
    }

    fn reset(&mut self) {
        self.queue = None;
    }
}

/// The host's generator (`rng-builtin`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtin;

impl EntropySource for Builtin {
    fn take(&mut self, buf: &mut [u8]) -> usize {
        // A kernel without random bytes does not get this far; should it happen, the guest waits.
        if getrandom::fill(buf).is_ok() { buf.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::bench::TimeBench;
    use crate::hw::virtio::bench::{Bench, Piece};

    /// Counts up, and runs dry.
    struct Counter {
        next: u8,
        left: usize,
    }

    impl EntropySource for Counter {
        fn take(&mut self, buf: &mut [u8]) -> usize {
            let len = buf.len().min(self.left);
            for byte in &mut buf[..len] {
                *byte = self.next;
                self.next = self.next.wrapping_add(1);
            }
            self.left -= len;
            len
        }
    }

    fn bench(left: usize, limit: Option<Limit>) -> Bench {
        Bench::ready(Box::new(Rng::new(Box::new(Counter { next: 1, left }), limit)), 0)
    }

    #[test]
    fn a_buffer_is_filled_and_given_back() {
        let mut bench = bench(usize::MAX, None);
        let at = bench.offer(0, &[Piece::writable(4), Piece::writable(2)]);
        bench.kick(0);
        assert_eq!(bench.used(0), [(0, 6)]);
        assert_eq!(bench.bytes(at[0], 4), [1, 2, 3, 4]);
        assert_eq!(bench.bytes(at[1], 2), [5, 6]);
        assert_eq!(bench.messages(), 1);
    }

    #[test]
    fn a_dry_source_keeps_the_request() {
        let mut bench = bench(3, None);
        bench.offer(0, &[Piece::writable(4)]);
        bench.offer(0, &[Piece::writable(4)]);
        bench.kick(0);
        assert_eq!(bench.used(0), [(0, 3)]);
        bench.chip.device::<Rng>().unwrap().source = Box::new(Builtin);
        bench.event(READY);
        assert_eq!(bench.used(0), [(1, 4)]);
    }

    #[test]
    fn the_limit_holds_until_the_next_period() {
        let time = TimeBench::new();
        let limit = Limit { max_bytes: 5, period_ms: 100, timer: time.timer(PERIOD) };
        let mut bench = bench(usize::MAX, Some(limit));
        bench.offer(0, &[Piece::writable(4)]);
        bench.offer(0, &[Piece::writable(4)]);
        bench.offer(0, &[Piece::writable(4)]);
        bench.kick(0);
        assert_eq!(bench.used(0), [(0, 4), (1, 1)]);
        time.advance(100_000_000, 1_000_000, |token| bench.event(token));
        assert_eq!(bench.used(0), [(2, 4)]);
    }
}
