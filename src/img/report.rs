//! Numbers, tables and JSON as QEMU prints them.

use std::fmt::Write;

use serde_json::Value;

use crate::block::SnapshotInfo;
use crate::host::zone::local_time;

/// "1.5 GiB": three significant digits, and a larger unit from 1000 on.
pub(super) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut unit = 0;
    // 1000 of a unit are shown as 0.977 of the next one.
    while unit + 1 < UNITS.len() && u128::from(bytes) * 1024 / 1000 >= 1 << (10 * (unit + 1)) {
        unit += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    format!("{} {}B", three_digits(value), UNITS[unit])
}

/// printf's "%.3g" for values from 0 to 9999.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Pretty JSON as QEMU has it: four spaces, and empty containers on two lines.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    match value {
        Value::Object(map) => {
            out.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                let _ = write!(out, "{}: ", Value::from(key.as_str())); // a String takes all that is written
                write_value(out, value, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                write_value(out, value, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// "2026-11-20 11:33:03" in the host's zone.
fn date(seconds: u32) -> String {
    local_time(i64::from(seconds)).map_or_else(String::new, |t| {
        format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", t.year, t.month, t.day, t.hour, t.minute, t.second)
    })
}

/// The table under "Snapshot list:".
pub(super) fn snapshot_table(snapshots: &[SnapshotInfo]) -> String {
    let mut out = String::from("Snapshot list:\n");
    let _ =
        writeln!(out, "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for snapshot in snapshots {
        let ms = snapshot.vm_clock_nsec / 1_000_000;
        let clock = format!("{:04}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        let icount = snapshot.icount.map_or(String::new(), |count| count.to_string());
        let _ = writeln!(
            out,
            "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}",
            snapshot.id,
            snapshot.name,
            human_size(snapshot.vm_state_size),
            date(snapshot.date_sec),
            clock,
            icount
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(197_120), "192 KiB");
        assert_eq!(human_size(1 << 30), "1 GiB");
        assert_eq!(human_size(3 << 29), "1.5 GiB");
        assert_eq!(human_size(1000 << 20), "0.977 GiB");
        assert_eq!(human_size(999 << 20), "999 MiB");
    }

    #[test]
    fn empty_containers_take_two_lines() {
        assert_eq!(pretty(&json!({"a": [], "b": 1})), "{\n    \"a\": [\n    ],\n    \"b\": 1\n}");
    }

    #[test]
    fn the_snapshot_table_is_that_of_qemu() {
        let snapshot = SnapshotInfo {
            id: "1".to_owned(),
            name: "first".to_owned(),
            date_sec: 1_795_174_383,
            icount: Some(0),
            ..SnapshotInfo::default()
        };
        assert_eq!(
            snapshot_table(&[snapshot]),
            "Snapshot list:\n\
             ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n\
             1       first                 0 B 2026-11-20 11:33:03  0000:00:00.000          0\n"
        );
    }
}
