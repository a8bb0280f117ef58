//! Drives.

use std::fmt::Write;

use crate::monitor::info::{BlockDevice, BlockStats, InsertedMedium};

/// `info block`, `-v` with `verbose`; only one drive with `name`.
#[must_use]
pub fn block_devices(devices: &[BlockDevice], name: Option<&str>, verbose: bool) -> String {
    let mut out = String::new();
    for (place, device) in devices.iter().enumerate() {
        if name.is_some_and(|name| name != device.device) {
            continue;
        }
        if place > 0 {
            out.push('\n');
        }
        block_device(&mut out, device, verbose);
    }
    out
}

fn block_device(out: &mut String, device: &BlockDevice, verbose: bool) {
    let inserted = device.inserted.as_ref();
    if device.device.is_empty() {
        out.push_str(device.qdev.as_deref().unwrap_or(""));
    } else {
        out.push_str(&device.device);
    }
    match inserted {
        None => out.push_str(": [not inserted]\n"),
        Some(medium) => {
            if !medium.node_name.is_empty() {
                let _ = write!(out, " ({})", medium.node_name);
            }
            let read_only = if medium.read_only { ", read-only" } else { "" };
            let encrypted = if medium.encrypted { ", encrypted" } else { "" };
            let _ = writeln!(out, ": {} ({}{read_only}{encrypted})", medium.file, medium.driver);
        }
    }
    if let Some(qdev) = &device.qdev {
        let _ = writeln!(out, "    Attached to:      {qdev}");
    }
    if let Some(status) = device.io_status.filter(|status| *status != "ok") {
        let _ = writeln!(out, "    I/O status:       {status}");
    }
    if device.removable {
        let not = if device.locked { "" } else { "not " };
        let tray = if device.tray_open == Some(true) { "open" } else { "closed" };
        let _ = writeln!(out, "    Removable device: {not}locked, tray {tray}");
    }
    if let Some(medium) = inserted {
        medium_lines(out, medium, verbose);
    }
}

/// A node of `info block -n`.
#[must_use]
pub fn block_node(medium: &InsertedMedium, verbose: bool) -> String {
    let read_only = if medium.read_only { ", read-only" } else { "" };
    let mut out = format!("{}: {} ({}{read_only})\n", medium.node_name, medium.file, medium.driver);
    medium_lines(&mut out, medium, verbose);
    out
}

fn medium_lines(out: &mut String, medium: &InsertedMedium, verbose: bool) {
    let mode = if medium.writeback { "writeback" } else { "writethrough" };
    let direct = if medium.direct { ", direct" } else { "" };
    let no_flush = if medium.no_flush { ", ignore flushes" } else { "" };
    let _ = writeln!(out, "    Cache mode:       {mode}{direct}{no_flush}");
    if let Some(backing) = &medium.backing_file {
        let _ = writeln!(out, "    Backing file:     {backing} (chain depth: {})", medium.backing_depth);
    }
    if !matches!(medium.detect_zeroes, "" | "off") {
        let _ = writeln!(out, "    Detect zeroes:    {}", medium.detect_zeroes);
    }
    if verbose {
        out.push_str("\nImages:\n");
        out.push_str(&medium.image_text);
    }
}

/// `info blockstats`.
#[must_use]
pub fn block_stats(stats: &[BlockStats]) -> String {
    let mut out = String::new();
    for drive in stats.iter().filter(|drive| !drive.device.is_empty()) {
        let c = &drive.counters;
        let _ = writeln!(
            out,
            "{}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} flush_operations={} wr_total_time_ns={} \
             rd_total_time_ns={} flush_total_time_ns={} rd_merged=0 wr_merged=0 idle_time_ns={}",
            drive.device,
            c.rd_bytes,
            c.wr_bytes,
            c.rd_operations,
            c.wr_operations,
            c.flush_operations,
            c.wr_total_time_ns,
            c.rd_total_time_ns,
            c.flush_total_time_ns,
            c.idle_time_ns().unwrap_or(0),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drives() -> Vec<BlockDevice> {
        let disk = BlockDevice {
            device: "ide0-hd0".to_owned(),
            qdev: Some("/machine/unattached/device[6]".to_owned()),
            io_status: Some("ok"),
            inserted: Some(InsertedMedium {
                node_name: "#block106".to_owned(),
                file: "d.qcow2".to_owned(),
                driver: "qcow2".to_owned(),
                writeback: true,
                detect_zeroes: "off",
                image_text: "image: d.qcow2\n".to_owned(),
                ..InsertedMedium::default()
            }),
            ..BlockDevice::default()
        };
        let cdrom = BlockDevice {
            device: "ide1-cd0".to_owned(),
            qdev: Some("/machine/unattached/device[7]".to_owned()),
            removable: true,
            tray_open: Some(false),
            io_status: Some("ok"),
            ..BlockDevice::default()
        };
        vec![disk, cdrom]
    }

    #[test]
    fn drives_look_as_in_qemu() {
        assert_eq!(
            block_devices(&drives(), None, false),
            "\
ide0-hd0 (#block106): d.qcow2 (qcow2)
    Attached to:      /machine/unattached/device[6]
    Cache mode:       writeback

ide1-cd0: [not inserted]
    Attached to:      /machine/unattached/device[7]
    Removable device: not locked, tray closed
"
        );
    }

    #[test]
    fn one_drive_is_chosen_by_name() {
        assert!(block_devices(&drives(), Some("ide1-cd0"), false).starts_with("\nide1-cd0: [not inserted]\n"));
        assert_eq!(block_devices(&drives(), Some("nope"), false), "");
        assert!(
            block_devices(&drives(), Some("ide0-hd0"), true)
                .ends_with("    Cache mode:       writeback\n\nImages:\nimage: d.qcow2\n")
        );
    }

    #[test]
    fn everything_unusual_is_named() {
        let mut drive = drives().remove(0);
        drive.io_status = Some("failed");
        let medium = drive.inserted.as_mut().unwrap();
        medium.read_only = true;
        medium.direct = true;
        medium.no_flush = true;
        medium.writeback = false;
        medium.backing_file = Some("base.img".to_owned());
        medium.backing_depth = 2;
        medium.detect_zeroes = "unmap";
        assert_eq!(
            block_devices(&[drive], None, false),
            "\
ide0-hd0 (#block106): d.qcow2 (qcow2, read-only)
    Attached to:      /machine/unattached/device[6]
    I/O status:       failed
    Cache mode:       writethrough, direct, ignore flushes
    Backing file:     base.img (chain depth: 2)
    Detect zeroes:    unmap
"
        );
    }

    #[test]
    fn counters_stand_on_one_line() {
        let mut stats = BlockStats { device: "ide0-hd0".to_owned(), ..BlockStats::default() };
        stats.counters.rd_bytes = 512;
        stats.counters.rd_operations = 1;
        assert_eq!(
            block_stats(&[stats]),
            "ide0-hd0: rd_bytes=512 wr_bytes=0 rd_operations=1 wr_operations=0 flush_operations=0 wr_total_time_ns=0 \
             rd_total_time_ns=0 flush_total_time_ns=0 rd_merged=0 wr_merged=0 idle_time_ns=0\n"
        );
    }
}
