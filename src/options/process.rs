//! The process: names, actions, privileges, the background; and the networks that are not there.

use std::path::PathBuf;

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::keyval::value::ValueError;

use crate::machine::config::{PanicAction, WatchdogAction};

pub(super) fn read_name(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::NAME, text)?;
    if let Some(guest) = pairs.get("guest") {
        low.config.name = Some(guest.into());
    }
    if let Some(process) = pairs.get("process") {
        low.config.process_name = Some(process.into());
    }
    if let Some(threads) = pairs.switch("debug-threads")? {
        low.config.process.debug_threads = threads;
    }
    Ok(())
}

pub(super) fn read_paused(low: &mut Low<'_>, _: &str) -> Step {
    low.config.start_paused = true;
    Ok(())
}

pub(super) fn read_no_reboot(low: &mut Low<'_>, _: &str) -> Step {
    low.config.actions.reboot_shuts_down = true;
    Ok(())
}

pub(super) fn read_no_shutdown(low: &mut Low<'_>, _: &str) -> Step {
    low.config.actions.shutdown_pauses = true;
    Ok(())
}

/// One of the words that a key takes.
fn word<T: Copy>(key: &str, value: &str, words: &[(&'static str, T)]) -> Step<T> {
    match words.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(ValueError::not_accepted(key, value, words.iter().map(|(word, _)| *word)).into()),
    }
}

const WATCHDOG: &[(&str, WatchdogAction)] = &[
    ("reset", WatchdogAction::Reset),
    ("shutdown", WatchdogAction::Shutdown),
    ("poweroff", WatchdogAction::Poweroff),
    ("inject-nmi", WatchdogAction::InjectNmi),
    ("pause", WatchdogAction::Pause),
    ("debug", WatchdogAction::Debug),
    ("none", WatchdogAction::None),
];

const PANIC: &[(&str, PanicAction)] = &[
    ("none", PanicAction::None),
    ("pause", PanicAction::Pause),
    ("shutdown", PanicAction::Shutdown),
    ("exit-failure", PanicAction::ExitFailure),
];

pub(super) fn read_action(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::ACTION, text)?;
    let actions = &mut low.config.actions;
    for key in ["reboot", "shutdown", "panic", "watchdog"] {
        let Some(value) = pairs.get(key) else { continue };
        match key {
            "reboot" => {
                actions.reboot_shuts_down = word(key, value, &[("reset", false), ("shutdown", true)])?;
            }
            "shutdown" => {
                actions.shutdown_pauses = word(key, value, &[("poweroff", false), ("pause", true)])?;
            }
            "panic" => actions.panic = word(key, value, PANIC)?,
            _ => actions.watchdog = word(key, value, WATCHDOG)?,
        }
    }
    Ok(())
}

pub(super) fn read_watchdog_action(low: &mut Low<'_>, text: &str) -> Step {
    low.config.actions.watchdog = word("watchdog", text, WATCHDOG)?;
    Ok(())
}

pub(super) fn read_daemonize(low: &mut Low<'_>, _: &str) -> Step {
    low.config.process.daemonize = true;
    Ok(())
}

pub(super) fn read_pidfile(low: &mut Low<'_>, text: &str) -> Step {
    low.config.process.pidfile = Some(PathBuf::from(text));
    Ok(())
}

pub(super) fn read_run_with(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::RUN_WITH, text)?;
    if pairs.switch("async-teardown")? == Some(true) {
        return Err(Stop::unsupported("async-teardown=on"));
    }
    if let Some(folder) = pairs.get("chroot") {
        low.config.process.chroot = Some(PathBuf::from(folder));
    }
    if let Some(user) = pairs.get("user") {
        low.config.process.run_as = Some(user.into());
    }
    Ok(())
}

pub(super) fn read_runas(low: &mut Low<'_>, text: &str) -> Step {
    low.config.process.run_as = Some(text.into());
    Ok(())
}

pub(super) fn read_chroot(low: &mut Low<'_>, text: &str) -> Step {
    low.config.process.chroot = Some(PathBuf::from(text));
    Ok(())
}

pub(super) fn read_sandbox(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::SANDBOX, text)?;
    match pairs.switch("enable")? {
        Some(true) => Err(Stop::unsupported("-sandbox on")),
        // Without the filter its parts have nothing to change.
        _ => Ok(()),
    }
}

pub(super) fn read_overcommit(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::OVERCOMMIT, text)?;
    match pairs.get("mem-lock") {
        None | Some("off") => {}
        Some(value @ ("on" | "on-fault")) => return Err(Stop::unsupported(format_args!("mem-lock={value}"))),
        Some(_) => return Err(Stop::here("parameter 'mem-lock' expects one of 'on', 'off', 'on-fault'")),
    }
    match pairs.switch("cpu-pm")? {
        Some(true) => Err(Stop::unsupported("cpu-pm=on")),
        _ => Ok(()),
    }
}

pub(super) fn read_nodefaults(low: &mut Low<'_>, _: &str) -> Step {
    low.config.defaults = false;
    Ok(())
}

/// There is no configuration file of the user that could be read.
pub(super) fn read_no_user_config(_: &mut Low<'_>, _: &str) -> Step {
    Ok(())
}
