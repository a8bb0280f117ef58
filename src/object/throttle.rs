//! `throttle-group`: limits that several disks share.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ObjectError;
use super::fields::Fields;

pub(super) const HELP: &[(&str, &str)] = &[
    ("limits", "ThrottleLimits"),
    ("x-bps-read-max-length", "int"),
    ("x-bps-read-max", "int"),
    ("x-bps-read", "int"),
    ("x-bps-total-max-length", "int"),
    ("x-bps-total-max", "int"),
    ("x-bps-total", "int"),
    ("x-bps-write-max-length", "int"),
    ("x-bps-write-max", "int"),
    ("x-bps-write", "int"),
    ("x-iops-read-max-length", "int"),
    ("x-iops-read-max", "int"),
    ("x-iops-read", "int"),
    ("x-iops-size", "int"),
    ("x-iops-total-max-length", "int"),
    ("x-iops-total-max", "int"),
    ("x-iops-total", "int"),
    ("x-iops-write-max-length", "int"),
    ("x-iops-write-max", "int"),
    ("x-iops-write", "int"),
];

/// One limit. Units are bytes or requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Units a second; 0: no limit.
    pub average: u64,
    /// Units a second in a burst; 0: no bursts.
    pub max: u64,
    /// How long a burst may be, in seconds.
    pub burst_seconds: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { average: 0, max: 0, burst_seconds: 1 }
    }
}

/// Names of the buckets, in the order of [`Limits::buckets`].
pub const BUCKETS: [&str; 6] = ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];

/// The limits of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// By [`BUCKETS`].
    pub buckets: [Bucket; 6],
    /// A request of so many bytes counts as one, larger ones as more; 0: all count as one.
    pub iops_size: u64,
}

/// The largest value of a limit.
const MAX_VALUE: u64 = 1_000_000_000_000_000;

impl Limits {
    /// Sets a value by its name without the prefix: "iops-total", "bps-read-max-length", "iops-size".
    ///
    /// `Ok(false)`: there is no such limit.
    ///
    /// # Errors
    /// It is outside the range of such limits.
    pub fn set(&mut self, name: &str, value: i64) -> Result<bool, ObjectError> {
        let unsigned = u64::try_from(value).ok().filter(|value| *value <= MAX_VALUE);
        let value = || unsigned.ok_or_else(out_of_range);
        if name == "iops-size" {
            self.iops_size = value()?;
            return Ok(true);
        }
        for (bucket, known) in self.buckets.iter_mut().zip(BUCKETS) {
            match name.strip_prefix(known) {
                Some("") => bucket.average = value()?,
                Some("-max") => bucket.max = value()?,
                Some("-max-length") => {
                    let seconds = unsigned.filter(|value| *value <= u64::from(u32::MAX));
                    let text = format!("{name} value must be in the range [0, {}]", u32::MAX);
                    bucket.burst_seconds = seconds.ok_or_else(|| ObjectError::new(text))?;
                }
                _ => continue,
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether anything is limited.
    #[must_use]
    pub fn any(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.average != 0)
    }

    /// Whether the values fit together.
    ///
    /// # Errors
    /// QEMU's text for what does not.
    pub fn check(&self) -> Result<(), ObjectError> {
        for (total, parts) in [(0, [1, 2]), (3, [4, 5])] {
            let set = |value: fn(&Bucket) -> u64, index: usize| value(&self.buckets[index]) != 0;
            for value in [|bucket: &Bucket| bucket.average, |bucket: &Bucket| bucket.max] {
                if set(value, total) && parts.iter().any(|part| set(value, *part)) {
                    let text = "bps/iops/max total values and read/write values cannot be used at the same time";
                    return Err(ObjectError::new(text));
                }
            }
        }
        if self.iops_size != 0 && self.buckets[3..].iter().all(|bucket| bucket.average == 0) {
            return Err(ObjectError::new("iops size requires an iops value to be set"));
        }
        self.buckets.iter().try_for_each(check_bucket)
    }
}

fn out_of_range() -> ObjectError {
    ObjectError::new(format!("bps/iops/max values must be within [0, {MAX_VALUE}]"))
}

fn check_bucket(bucket: &Bucket) -> Result<(), ObjectError> {
    let Bucket { average, max, burst_seconds } = *bucket;
    if burst_seconds == 0 {
        return Err(ObjectError::new("the burst length cannot be 0"));
    }
    if burst_seconds > 1 && max == 0 {
        return Err(ObjectError::new("burst length set without burst rate"));
    }
    if max != 0 && average == 0 {
        return Err(ObjectError::new("bps_max/iops_max require corresponding bps/iops values"));
    }
    if max != 0 && max < average {
        return Err(ObjectError::new("bps_max/iops_max cannot be lower than bps/iops"));
    }
    if max != 0 && burst_seconds > MAX_VALUE / max {
        return Err(ObjectError::new("burst length too high for this burst rate"));
    }
    Ok(())
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It reads.
    Read,
    /// It writes, zeros or discards.
    Write,
}

/// How full the buckets are: they fill with requests and leak at the average rate.
#[derive(Clone, Copy, Default, Debug)]
struct Level {
    /// Units in the bucket.
    amount: f64,
    /// Units in the small bucket that bounds the rate of a burst.
    burst: f64,
}

/// A group of disks that share limits.
#[derive(Debug)]
pub struct Group {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    levels: [Level; 6],
    last: Instant,
}

#[expect(clippy::cast_precision_loss, reason = "limits are below 2^50")]
impl State {
    fn leak(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        for (level, bucket) in self.levels.iter_mut().zip(&self.limits.buckets) {
            level.amount = (level.amount - seconds * bucket.average as f64).max(0.0);
            level.burst = (level.burst - seconds * bucket.max as f64).max(0.0);
        }
    }

    /// How long until a bucket has room, in seconds.
    fn delay(level: Level, bucket: &Bucket) -> f64 {
        if bucket.average == 0 {
            return 0.0;
        }
        // Without a burst rate, a tenth of a second's worth may come at once.
        let room = match bucket.max {
            0 => bucket.average as f64 / 10.0,
            max => max as f64 * bucket.burst_seconds as f64,
        };
        let slow = (level.amount - room) / bucket.average as f64;
        if slow > 0.0 {
            return slow;
        }
        if bucket.burst_seconds > 1 {
            let room = bucket.max as f64 / 10.0;
            return ((level.burst - room) / bucket.max as f64).max(0.0);
        }
        0.0
    }

    fn account(&mut self, direction: Direction, bytes: u64) {
        let side = if direction == Direction::Read { 1 } else { 2 };
        let units = match self.limits.iops_size {
            0 => 1.0,
            size => (bytes as f64 / size as f64).max(1.0),
        };
        for (index, units) in [(0, bytes as f64), (side, bytes as f64), (3, units), (3 + side, units)] {
            self.levels[index].amount += units;
            self.levels[index].burst += units;
        }
    }
}

impl Group {
    /// With these limits, and nothing used of them yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let state = State { limits, levels: [Level::default(); 6], last: Instant::now() };
        Self { state: Mutex::new(state) }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).limits.clone()
    }

    /// Waits until a request may start, and accounts it.
    pub fn wait(&self, direction: Direction, bytes: u64) {
        let side = if direction == Direction::Read { 1 } else { 2 };
        loop {
            let delay = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.leak(Instant::now());
                let delays = [0, side, 3, 3 + side].map(|i| State::delay(state.levels[i], &state.limits.buckets[i]));
                let delay = delays.into_iter().fold(0.0, f64::max);
                if delay <= 0.0 {
                    state.account(direction, bytes);
                    return;
                }
                delay
            };
            std::thread::sleep(Duration::from_secs_f64(delay.clamp(0.0005, 3600.0)));
        }
    }
}

pub(super) fn make(fields: &mut Fields) -> Result<Limits, ObjectError> {
    let mut limits = Limits::default();
    for prefix in ["limits.", "x-"] {
        for bucket in BUCKETS {
            for suffix in ["", "-max", "-max-length"] {
                let name = format!("{bucket}{suffix}");
                if let Some(value) = fields.integer(&format!("{prefix}{name}"))? {
                    limits.set(&name, value)?;
                }
            }
        }
        if let Some(value) = fields.integer(&format!("{prefix}iops-size"))? {
            limits.set("iops-size", value)?;
        }
    }
    fields.finish()?;
    limits.check()?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_delays_until_it_has_leaked() {
        let mut limits = Limits::default();
        assert_eq!(limits.set("iops-total", 100), Ok(true));
        let mut state = State { limits, levels: [Level::default(); 6], last: Instant::now() };
        let delay = |state: &State| State::delay(state.levels[3], &state.limits.buckets[3]);
        (0..10).for_each(|_| state.account(Direction::Read, 512));
        assert!(delay(&state) <= 0.0);
        (0..50).for_each(|_| state.account(Direction::Write, 512));
        assert!((delay(&state) - 0.5).abs() < 1e-9);
        let later = state.last + Duration::from_millis(500);
        state.leak(later);
        assert!(delay(&state) <= 1e-9);
    }
}
