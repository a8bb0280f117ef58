//! `throttle-group`: limits that several disks share.

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
