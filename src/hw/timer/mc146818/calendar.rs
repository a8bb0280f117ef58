//! Dates of the Gregorian calendar, and when an alarm is next due.

const DAY: i64 = 86_400;

/// A date and time as the registers hold it; fields may be out of range, as guests write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    pub year: u16,
    /// 1-12.
    pub month: u8,
    /// 1-31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// Days from 1970-01-01 to the first of March of `year`; years begin in March so that the leap day comes last.
fn days_to_march(year: i64) -> i64 {
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_468
}

/// Days from the first of March to the first of the month that is `from_march` months later.
fn days_in_months(from_march: i64) -> i64 {
    (153 * from_march + 2) / 5
}

impl Moment {
    /// Seconds since 1970-01-01 00:00; fields out of range carry over.
    pub fn seconds(self) -> i64 {
        let months = i64::from(self.month) - 3;
        let year = i64::from(self.year) + months.div_euclid(12);
        let days = days_to_march(year) + days_in_months(months.rem_euclid(12)) + i64::from(self.day) - 1;
        days * DAY + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// The moment at `seconds` since 1970-01-01 00:00, years modulo 10,000.
    pub fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY);
        // The estimate is at most a year too late.
        let estimate = (days + 719_468).div_euclid(365);
        let mut year = estimate - estimate.div_euclid(1460) - 2;
        while days_to_march(year + 1) <= days {
            year += 1;
        }
        while days_to_march(year) > days {
            year -= 1;
        }
        let day_of_year = days - days_to_march(year);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - days_in_months(from_march) + 1;
        let (month, year) = if from_march < 10 { (from_march + 3, year) } else { (from_march - 9, year + 1) };
        let second_of_day = seconds.rem_euclid(DAY);
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        Self {
            year: u16::try_from(year.rem_euclid(10_000)).unwrap_or(0),
            month: small(month),
            day: small(day),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }

    /// 1 is Sunday.
    pub fn day_of_week(self) -> u8 {
        let days = self.seconds().div_euclid(DAY);
        u8::try_from((days + 4).rem_euclid(7) + 1).unwrap_or(1)
    }
}

/// The first second after `after` whose hour, minute and second are those given; `None` matches any.
pub(super) fn next_match(after: i64, hour: Option<i64>, minute: Option<i64>, second: Option<i64>) -> Option<i64> {
    let mut at = after.checked_add(1)?;
    // Each round moves to the next second, minute or hour that may match: three of each at most are too early.
    for _ in 0..256 {
        let day_start = at - at.rem_euclid(DAY);
        let (h, m, s) = (at.rem_euclid(DAY) / 3600, at.rem_euclid(3600) / 60, at.rem_euclid(60));
        if let Some(wanted) = hour.filter(|wanted| *wanted != h) {
            let days = if wanted > h { 0 } else { DAY };
            at = day_start + days + wanted * 3600;
        } else if let Some(wanted) = minute.filter(|wanted| *wanted != m) {
            let hour_start = at - at.rem_euclid(3600);
            at = hour_start + if wanted > m { wanted * 60 } else { 3600 };
        } else if let Some(wanted) = second.filter(|wanted| *wanted != s) {
            let minute_start = at - at.rem_euclid(60);
            at = minute_start + if wanted > s { wanted } else { 60 };
        } else {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_convert_both_ways() {
        let leap_day = Moment { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 58 };
        assert_eq!(leap_day.seconds(), 1_709_251_198);
        assert_eq!(Moment::from_seconds(1_709_251_198), leap_day);
        assert_eq!(leap_day.day_of_week(), 5); // Thursday
        let epoch = Moment { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0 };
        assert_eq!(Moment::from_seconds(0), epoch);
        assert_eq!(epoch.seconds(), 0);
    }

    #[test]
    fn every_day_of_400_years_survives_the_round_trip() {
        for day in 0..146_097 {
            let seconds = day * DAY + 12_345;
            assert_eq!(Moment::from_seconds(seconds).seconds(), seconds);
        }
    }

    #[test]
    fn alarms_match_the_next_time_of_day() {
        assert_eq!(next_match(0, None, None, None), Some(1));
        assert_eq!(next_match(10, None, None, Some(10)), Some(70));
        assert_eq!(next_match(0, Some(0), Some(0), Some(0)), Some(DAY));
        assert_eq!(next_match(3600 * 5, Some(4), None, Some(7)), Some(DAY + 4 * 3600 + 7));
        assert_eq!(next_match(59, None, Some(0), None), Some(3600));
    }
}
