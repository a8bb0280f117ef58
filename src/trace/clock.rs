//! The wall clock as messages show it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970, zero for a host clock before that.
pub(super) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, as `-msg timestamp=on` shows it: `2026-11-20T10:56:10.047296Z`.
pub fn timestamp() -> String {
    format(since_epoch())
}

fn format(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", time.subsec_micros())
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_the_microsecond() {
        assert_eq!(format(Duration::from_micros(1_795_172_170_047_296)), "2026-11-20T10:56:10.047296Z");
        assert_eq!(format(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(format(Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000000Z");
    }
}
