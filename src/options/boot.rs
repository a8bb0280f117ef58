//! `-boot`, `-rtc`, `-kernel` and its relatives.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::keyval::suggest::with_hint;
use crate::keyval::tree;
use crate::keyval::value::{ValueError, parse_bool, parse_integer};
use crate::machine::config::{BootSpec, KernelSpec, RtcBase, RtcClock, RtcSpec};

/// The keys, with their types, in the order in which QEMU looks at them.
const BOOT_KEYS: [(&str, &str); 7] = [
    ("order", "str"),
    ("once", "str"),
    ("menu", "bool (on/off)"),
    ("splash", "str"),
    ("splash-time", "num"),
    ("reboot-timeout", "num"),
    ("strict", "bool (on/off)"),
];

pub(super) fn read_boot(low: &mut Low<'_>, text: &str) -> Step {
    let tree = tree::parse(text, Some("order"))?;
    if tree.help {
        let mut keys: Vec<String> = BOOT_KEYS.iter().map(|(key, kind)| format!("  {key}=<{kind}>\n")).collect();
        keys.sort();
        return Err(Stop::Print(format!("boot-opts options:\n{}", keys.concat()), 0));
    }
    tree::merge(&mut low.boot, tree.map);
    Ok(())
}

pub(super) fn resolve_boot(boot: &Map<String, Value>) -> Step<BootSpec> {
    boot_spec(boot).map_err(Stop::anywhere)
}

fn boot_spec(boot: &Map<String, Value>) -> Step<BootSpec> {
    let mut spec = BootSpec::default();
    for (key, _) in BOOT_KEYS {
        let Some(value) = boot.get(key) else { continue };
        let name = format!("boot.{key}");
        let Some(text) = value.as_str() else {
            return Err(Stop::here(format!("Parameters '{name}.*' are unexpected")));
        };
        match key {
            "order" => spec.order = text.into(),
            "once" => spec.once = Some(text.into()),
            "menu" => spec.menu = Some(parse_bool(&name, text)?),
            "splash" => spec.splash = Some(text.into()),
            "splash-time" => {
                let ms = u16::try_from(parse_integer(&name, text)?);
                spec.splash_time_ms = Some(
                    ms.map_err(|_| Stop::here("splash-time is invalid,it should be a value between 0 and 65535"))?,
                );
            }
            "reboot-timeout" => {
                let ms = match parse_integer(&name, text)? {
                    -1 => Ok(u16::MAX),
                    ms => u16::try_from(ms),
                };
                spec.reboot_timeout_ms =
                    Some(ms.map_err(|_| {
                        Stop::here("reboot timeout is invalid,it should be a value between -1 and 65535")
                    })?);
            }
            _ => spec.strict = parse_bool(&name, text)?,
        }
    }
    if let Some(key) = boot.keys().find(|key| BOOT_KEYS.iter().all(|(known, _)| known != key)) {
        return Err(ValueError::unexpected("boot.", key, BOOT_KEYS.iter().map(|(key, _)| *key)).into());
    }
    check_letters(&spec.order)?;
    check_letters(spec.once.as_deref().unwrap_or(""))?;
    Ok(spec)
}

/// Letters from `a` to `p`, each once; the PC's CMOS has room for three.
fn check_letters(letters: &str) -> Step {
    for (i, c) in letters.char_indices() {
        if !('a'..='p').contains(&c) {
            return Err(Stop::here(format!("Invalid boot device '{c}'")));
        }
        if letters[..i].contains(c) {
            return Err(Stop::here(format!("Boot device '{c}' was given twice")));
        }
    }
    if letters.len() > 3 {
        return Err(Stop::here("Too many boot devices for PC"));
    }
    match letters.chars().find(|c| !"abcdn".contains(*c)) {
        Some(c) => Err(Stop::here(format!("Invalid boot device for PC: '{c}'"))),
        None => Ok(()),
    }
}

pub(super) fn read_rtc(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::RTC, text)?;
    low.rtc.pairs.extend(pairs.pairs);
    Ok(())
}

pub(super) fn resolve_rtc(low: &Low<'_>) -> Step<RtcSpec> {
    let word = |value: &str, words: &[&str]| {
        Stop::nowhere(with_hint(format!("invalid option value '{value}'"), value, words.iter().copied()))
    };
    let base = match low.rtc.get("base") {
        None | Some("utc") => RtcBase::Utc,
        Some("localtime") => RtcBase::LocalTime,
        Some(date) => RtcBase::Date(parse_date(date).ok_or_else(|| {
            Stop::nowhere("invalid datetime format\nvalid formats: '2006-06-17T16:01:21' or '2006-06-17'")
        })?),
    };
    let clock = match low.rtc.get("clock") {
        None | Some("host") => RtcClock::Host,
        Some("rt") => RtcClock::Rt,
        Some("vm") => RtcClock::Vm,
        Some(other) => return Err(word(other, &["host", "rt", "vm"])),
    };
    let slew = match low.rtc.get("driftfix") {
        None | Some("none") => false,
        Some("slew") => true,
        Some(other) => return Err(word(other, &["none", "slew"])),
    };
    Ok(RtcSpec { base, clock, slew })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// `2006-06-17` or `2006-06-17T16:01:21`, in seconds since 1970.
fn parse_date(text: &str) -> Option<i64> {
    let field = |text: &str, low: i64, high: i64| {
        let digits = !text.is_empty() && text.len() <= 4 && text.chars().all(|c| c.is_ascii_digit());
        let value: i64 = digits.then(|| text.parse().ok())??;
        (low..=high).contains(&value).then_some(value)
    };
    let (date, time) = text.split_once('T').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let year = field(parts.next()?, 1, 9999)?;
    let month = field(parts.next()?, 1, 12)?;
    let day = field(parts.next()?, 1, days_in_month(year, month))?;
    if parts.next().is_some() {
        return None;
    }
    let mut seconds = days_from_civil(year, month, day) * 86400;
    if let Some(time) = time {
        let mut parts = time.split(':');
        seconds += field(parts.next()?, 0, 23)? * 3600;
        seconds += field(parts.next()?, 0, 59)? * 60;
        seconds += field(parts.next()?, 0, 59)?;
        if parts.next().is_some() {
            return None;
        }
    }
    Some(seconds)
}

pub(super) fn read_kernel(low: &mut Low<'_>, text: &str) -> Step {
    low.kernel = Some(text.into());
    Ok(())
}

pub(super) fn read_initrd(low: &mut Low<'_>, text: &str) -> Step {
    low.initrd = Some(text.into());
    Ok(())
}

pub(super) fn read_append(low: &mut Low<'_>, text: &str) -> Step {
    low.append = Some(text.into());
    Ok(())
}

pub(super) fn read_shim(low: &mut Low<'_>, text: &str) -> Step {
    low.shim = Some(text.into());
    Ok(())
}

pub(super) fn resolve_kernel(low: &Low<'_>) -> Step<Option<KernelSpec>> {
    let Some(kernel) = &low.kernel else {
        let orphan = [("append", &low.append), ("initrd", &low.initrd), ("shim", &low.shim)];
        return match orphan.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(Stop::nowhere(format!("-{name} only allowed with -kernel option"))),
            None => Ok(None),
        };
    };
    Ok(Some(KernelSpec {
        kernel: PathBuf::from(kernel),
        initrd: low.initrd.clone(),
        append: low.append.clone().unwrap_or_default(),
        shim: low.shim.as_ref().map(PathBuf::from),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        assert_eq!(parse_date("1970-01-01"), Some(0));
        assert_eq!(parse_date("2006-06-17T16:01:21"), Some(1_150_560_081));
        assert_eq!(parse_date("2000-02-29"), Some(951_782_400));
        assert_eq!(parse_date("1969-12-31T23:59:59"), Some(-1));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        assert_eq!(parse_date("2020-13-01"), None);
        assert_eq!(parse_date("2019-02-29"), None);
        assert_eq!(parse_date("2020-01-01T24:00:00"), None);
        assert_eq!(parse_date("1234"), None);
        assert_eq!(parse_date("2020-01-01-01"), None);
    }
}
