//! Numbers as the program reads and prints them.

use std::time::Duration;

use crate::keyval::value::{ValueError, parse_size};

/// Bytes of one request at most: 2^31, less one sector.
pub(super) const MAX_REQUEST: u64 = 2_147_483_136;

/// A number of bytes: decimal, `0x`, or with a suffix.
///
/// # Errors
/// The program's complaint.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let range = || format!("Parsing error: argument too large -- {text}");
    match parse_size("", text) {
        Ok(value) if i64::try_from(value).is_ok() => Ok(value),
        Ok(_) | Err(ValueError::SizeRange { .. }) => Err(range()),
        Err(_) => Err(format!("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}")),
    }
}

/// A byte to fill with or to compare with.
///
/// # Errors
/// The program's complaint.
pub(super) fn pattern(text: &str) -> Result<u8, String> {
    crate::keyval::value::parse_number("", text)
        .ok()
        .and_then(|value| u8::try_from(value).ok())
        .ok_or_else(|| format!("{text} is not a valid pattern byte"))
}

/// "64 KiB", "3.875 MiB", "512 bytes", "0.5 bytes" (six digits below a KiB).
pub(super) fn human(value: f64) -> String {
    const UNITS: [&str; 6] = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"];
    let mut scale = 1_u64 << 60;
    for unit in UNITS {
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let one = scale as f64;
        if value >= one {
            let text = format!("{:.3}", value / one);
            return format!("{} {unit}", text.strip_suffix(".000").unwrap_or(&text));
        }
        scale >>= 10;
    }
    let text = format!("{value:.6}");
    format!("{} bytes", text.strip_suffix(".000000").unwrap_or(&text))
}

/// A count of bytes for people.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(super) fn human_bytes(bytes: u64) -> String {
    human(bytes as f64)
}

/// What a request did.
pub(super) struct Report {
    /// "read", "wrote", "discard".
    pub(super) what: &'static str,
    /// Where it began.
    pub(super) offset: u64,
    /// Bytes that were asked for.
    pub(super) asked: u64,
    /// Bytes that were moved.
    pub(super) done: u64,
    /// How long it took.
    pub(super) time: Duration,
}

impl Report {
    /// Two lines for people, or one for programs.
    pub(super) fn text(&self, for_programs: bool) -> String {
        let Self { what, offset, asked, done, time } = self;
        let seconds = time.as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
        let rate = *done as f64 / seconds;
        let ops = 1.0 / seconds;
        if for_programs {
            return format!("{done},1,{},{rate:.3},{ops:.3}\n", clock(*time));
        }
        let elapsed = match time.as_secs() {
            0..60 => format!("{:02}.{:02} sec", time.as_secs(), time.subsec_millis() / 10),
            _ => clock(*time),
        };
        format!(
            "{what} {done}/{asked} bytes at offset {offset}\n{}, 1 ops; {elapsed} ({}/sec and {ops:.4} ops/sec)\n",
            human_bytes(*done),
            human(rate)
        )
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}.{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60, time.subsec_millis() / 10)
}

/// The bytes in hexadecimal and as letters, 16 a line.
pub(super) fn dump(offset: u64, data: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for (index, row) in data.chunks(16).enumerate() {
        let _ = write!(out, "{:08x}:  ", offset + 16 * index as u64); // a String takes all that is written
        for byte in row {
            let _ = write!(out, "{byte:02x} ");
        }
        out.push(' ');
        out.extend(row.iter().map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '.' }));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_or_have_three_digits() {
        assert_eq!(human_bytes(0), "0 bytes");
        assert_eq!(human_bytes(65536), "64 KiB");
        assert_eq!(human_bytes(0x3e_0000), "3.875 MiB");
        assert_eq!(human_bytes(0x3d_0000), "3.812 MiB");
        assert_eq!(human(2.722_945), "2.722945 bytes");
    }

    #[test]
    fn reports_have_two_lines_or_one() {
        let report = |time| Report { what: "wrote", offset: 512, asked: 65536, done: 65536, time };
        assert_eq!(
            report(Duration::from_millis(500)).text(false),
            "wrote 65536/65536 bytes at offset 512\n64 KiB, 1 ops; 00.50 sec (128 KiB/sec and 2.0000 ops/sec)\n"
        );
        assert_eq!(report(Duration::from_millis(500)).text(true), "65536,1,0:00:00.50,131072.000,2.000\n");
        assert!(report(Duration::from_secs(61)).text(false).contains(" 1 ops; 0:01:01.00 ("));
    }

    #[test]
    fn arguments_that_are_no_sizes_are_told_apart() {
        assert_eq!(size("1.5k"), Ok(1536));
        assert!(size("x").unwrap_err().ends_with("extraneous/unrecognized suffix -- x"));
        assert_eq!(size("-1").unwrap_err(), "Parsing error: argument too large -- -1");
        assert_eq!(pattern("0xa"), Ok(10));
        assert_eq!(pattern("256").unwrap_err(), "256 is not a valid pattern byte");
    }

    #[test]
    fn dumps_show_bytes_and_letters() {
        assert_eq!(dump(1, b"ab \x00"), "00000001:  61 62 20 00  ab..\n");
    }
}
