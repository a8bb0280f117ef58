//! `-gdb`, `-s`, and the device of the monitor's `gdbserver`.

use super::low::Low;
use super::stop::{Step, Stop};
use super::{Tables, chardev};
use crate::machine::config::{ChardevSpec, GdbSpec};

/// Where `-s` and `gdbserver` listen.
pub const DEFAULT_DEVICE: &str = "tcp::1234";

/// The id of the chardev that a device becomes.
pub const CHARDEV: &str = "gdb";

/// QEMU's word about a chardev that cannot be had.
pub const NO_CHARDEV: &str = "gdbstub: couldn't create chardev";

pub(super) fn read_gdb(low: &mut Low<'_>, text: &str) -> Step {
    let id = match text {
        "none" => return Ok(()),
        _ => match text.strip_prefix("chardev:") {
            Some(id) => id.to_owned(),
            None => {
                let spec = spec(low, text).map_err(|stop| match stop {
                    Some(stop) => stop.and(NO_CHARDEV.to_owned()),
                    None => Stop::here(NO_CHARDEV),
                })?;
                chardev::add(low, spec).map_err(|stop| stop.and(NO_CHARDEV.to_owned()))?;
                CHARDEV.to_owned()
            }
        },
    };
    low.config.gdb = Some(GdbSpec { chardev: id, origin: low.origin.clone() });
    Ok(())
}

pub(super) fn read_s(low: &mut Low<'_>, _: &str) -> Step {
    read_gdb(low, DEFAULT_DEVICE)
}

/// Whether the chardev of `-gdb chardev:ID` exists.
pub(super) fn check(low: &Low<'_>) -> Step {
    match &low.config.gdb {
        Some(gdb) if low.config.chardevs.iter().all(|chardev| chardev.id != gdb.chardev) => {
            Err(Stop::at(&gdb.origin, NO_CHARDEV))
        }
        _ => Ok(()),
    }
}

/// A TCP address listens and does not wait, whatever it says itself.
fn spec(low: &mut Low<'_>, device: &str) -> Result<ChardevSpec, Option<Stop>> {
    match device.starts_with("tcp:") {
        true => chardev::legacy(low, CHARDEV, &format!("{device},wait=off,nodelay=on,server=on")),
        false => chardev::legacy(low, CHARDEV, device),
    }
}

/// The chardev for a device that the monitor names ("tcp::1234").
///
/// # Errors
/// QEMU's lines about it, for the monitor.
pub fn gdb_chardev(device: &str, tables: &Tables) -> Result<ChardevSpec, String> {
    let mut low = Low::new(tables, String::new());
    spec(&mut low, device).map_err(|stop| match stop {
        Some(Stop::Fault(lines)) => lines.into_iter().map(|(_, text)| format!("{text}\n")).collect(),
        Some(Stop::Print(text, _)) => text,
        None => String::new(),
    })
}
