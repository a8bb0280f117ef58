//! The host's time zone.
#![expect(unsafe_code)] // UNSAFE: rustix has no localtime_r

use std::mem::MaybeUninit;

/// Seconds that local time is ahead of UTC now.
#[must_use]
pub fn utc_offset_seconds() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to objects of this frame; localtime_r writes a whole `tm` or returns null.
    let filled = unsafe { libc::localtime_r(&raw const now, local.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: zeroed above, which is a valid `tm`, and filled in by localtime_r.
    let local = unsafe { local.assume_init() };
    local.tm_gmtoff
}
