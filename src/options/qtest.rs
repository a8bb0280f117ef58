//! `-qtest`, `-qtest-log`.

use super::chardev;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::machine::config::QtestSpec;

/// The id of the chardev that a device becomes.
const CHARDEV: &str = "qtest";

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let failed = || format!("Failed to initialize device for qtest: \"{text}\"");
    let id = match text.strip_prefix("chardev:") {
        Some(id) => id.to_owned(),
        None => {
            let spec = chardev::legacy(low, CHARDEV, text).map_err(|stop| match stop {
                Some(stop) => stop.and(failed()),
                None => Stop::here(failed()),
            })?;
            chardev::add(low, spec).map_err(|stop| stop.and(failed()))?;
            CHARDEV.to_owned()
        }
    };
    low.config.qtest = Some(QtestSpec { chardev: id, origin: low.origin.clone() });
    Ok(())
}

pub(super) fn read_log(low: &mut Low<'_>, text: &str) -> Step {
    low.config.qtest_log = Some(text.to_owned());
    Ok(())
}

/// Whether the chardev of `-qtest chardev:ID` exists.
pub(super) fn check(low: &Low<'_>) -> Step {
    match &low.config.qtest {
        Some(qtest) if low.config.chardevs.iter().all(|chardev| chardev.id != qtest.chardev) => Err(Stop::at(
            &qtest.origin,
            format!("Failed to initialize device for qtest: \"chardev:{}\"", qtest.chardev),
        )),
        _ => Ok(()),
    }
}
