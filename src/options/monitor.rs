//! `-monitor`, `-qmp`, `-mon`.

use super::low::Low;
use super::stop::{Step, Stop};
use super::{chardev, lists};
use crate::keyval::value::ValueError;
use crate::machine::config::MonitorSpec;

pub(super) fn read_monitor(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.monitor = false;
    match text {
        "none" => Ok(()),
        address => add(low, address, false, false),
    }
}

pub(super) fn read_qmp(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.monitor = false;
    add(low, text, true, false)
}

pub(super) fn read_qmp_pretty(low: &mut Low<'_>, text: &str) -> Step {
    low.defaults.monitor = false;
    add(low, text, true, true)
}

/// A monitor at a legacy address, with its own chardev.
pub(super) fn add(low: &mut Low<'_>, address: &str, qmp: bool, pretty: bool) -> Step {
    let origin = low.origin.clone();
    let id = match address.strip_prefix("chardev:") {
        Some(id) => id.to_owned(),
        None => {
            let id = format!("compat_monitor{}", low.legacy_monitors);
            let spec = chardev::legacy(low, &id, address).map_err(|stop| match stop {
                Some(stop) => stop.and(format!("parse error: {address}")),
                None => Stop::here(format!("parse error: {address}")),
            })?;
            chardev::add(low, spec).map_err(|stop| stop.and(format!("parse error: {address}")))?;
            id
        }
    };
    low.legacy_monitors += 1;
    low.monitors.push(MonitorSpec { id: Some(id.clone()), chardev: id, qmp, pretty, origin });
    Ok(())
}

pub(super) fn read_mon(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::MON, text)?;
    let qmp = match pairs.get("mode") {
        None | Some("readline") => false,
        Some("control") => true,
        Some(other) => return Err(ValueError::not_accepted("mode", other, ["readline", "control"]).into()),
    };
    let pretty = pairs.switch("pretty")?.unwrap_or(false);
    let Some(chardev) = pairs.get("chardev") else {
        return Err(ValueError::Missing { name: "chardev".into() }.into());
    };
    low.defaults.monitor = false;
    let spec = MonitorSpec { id: pairs.id.clone(), chardev: chardev.into(), qmp, pretty, origin: low.origin.clone() };
    low.monitors.push(spec);
    Ok(())
}

/// Whether every monitor's chardev exists, and its mode suits it.
pub(super) fn check(low: &Low<'_>) -> Step {
    for (i, monitor) in low.monitors.iter().enumerate() {
        let at = |text: String| Err(Stop::at(&monitor.origin, text));
        if monitor.pretty && !monitor.qmp {
            return at("'pretty' is not compatible with HMP monitors".into());
        }
        if low.config.chardevs.iter().all(|chardev| chardev.id != monitor.chardev) {
            return at(format!("chardev \"{}\" not found", monitor.chardev));
        }
        if let Some(id) = &monitor.id
            && low.monitors[..i].iter().any(|other| other.id.as_ref() == Some(id))
        {
            return at(format!("Duplicate ID '{id}' for mon"));
        }
    }
    Ok(())
}
