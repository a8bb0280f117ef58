//! The host's time zone.
#![expect(unsafe_code)] // UNSAFE: localtime_r

use std::mem::MaybeUninit;

/// A moment in the host's zone, as people read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalTime {
    /// Year.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
    /// How far it is ahead of UTC, in seconds.
    pub ahead_seconds: i64,
}

/// Converts seconds since 1970-01-01 00:00 UTC; `None` if the year does not fit.
#[must_use]
pub fn local_time(seconds: i64) -> Option<LocalTime> {
    let mut broken_down = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; the function fills the second.
    let filled = unsafe { libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: localtime_r returned success, so it has filled the structure (and zeroes are valid for it anyway).
    let tm = unsafe { broken_down.assume_init() };
    Some(LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        ahead_seconds: tm.tm_gmtoff,
    })
}
