//! Breakpoints of `blkdebug`, signals, sleep: what tests steer the program by.

use std::io;
use std::time::Duration;

use super::session::{Failure, Outcome, Session};
use crate::block::{BlockNode, DebugOps, Image};
use crate::host;

/// The first node of an image, from the top, that has breakpoints.
fn with_debug<T>(image: &Image, act: impl FnOnce(&dyn DebugOps) -> T) -> io::Result<T> {
    let mut node = std::sync::Arc::clone(&image.node);
    loop {
        if let Some(debug) = node.debug() {
            return Ok(act(debug));
        }
        node = primary_child(node.as_ref()).ok_or_else(|| io::Error::from_raw_os_error(host::ENOTSUP))?;
    }
}

fn primary_child(node: &dyn BlockNode) -> Option<std::sync::Arc<dyn BlockNode>> {
    node.children().into_iter().find(|(role, _)| *role == "file").map(|(_, child)| child)
}

fn no_entry(found: bool) -> io::Result<()> {
    if found { Ok(()) } else { Err(io::Error::from_raw_os_error(host::ENOENT)) }
}

pub(super) fn set_break(session: &Session, args: &[&str]) -> Outcome {
    let [event, tag] = args else { return Err(Failure::Usage) };
    let done = with_debug(session.image()?, |debug| debug.set_breakpoint(event, tag)).and_then(no_entry);
    done.map_err(|error| Failure::Said(format!("Could not set breakpoint: {}", host::plain_reason(&error))))
}

pub(super) fn remove_break(session: &Session, args: &[&str]) -> Outcome {
    let [tag] = args else { return Err(Failure::Usage) };
    let done = with_debug(session.image()?, |debug| debug.remove_breakpoint(tag)).and_then(no_entry);
    done.map_err(|error| Failure::Said(format!("Could not remove breakpoint {tag}: {}", host::plain_reason(&error))))
}

pub(super) fn resume(session: &Session, args: &[&str]) -> Outcome {
    let [tag] = args else { return Err(Failure::Usage) };
    let done = with_debug(session.image()?, |debug| debug.resume(tag)).and_then(no_entry);
    // What was resumed has a moment to end, as other requests have.
    std::thread::sleep(Duration::from_millis(5));
    done.map_err(|error| Failure::Said(format!("Could not resume request: {}", host::plain_reason(&error))))
}

pub(super) fn wait_break(session: &Session, args: &[&str]) -> Outcome {
    let [tag] = args else { return Err(Failure::Usage) };
    let image = session.image()?;
    // Without breakpoints there is nothing to wait for.
    let _ = with_debug(image, |debug| debug.wait_suspended(tag));
    Ok(())
}

/// Lets all suspended requests go on.
pub(super) fn resume_all(image: &Image) {
    // Without breakpoints nothing is suspended.
    let _ = with_debug(image, |debug| debug.resume_all());
}

pub(super) fn raise(args: &[&str]) -> Outcome {
    let number = args.first().and_then(|text| crate::keyval::value::parse_integer("", text).ok());
    let number = number.and_then(|number| i32::try_from(number).ok()).filter(|number| (0..=64).contains(number));
    let shown = args.first().copied().unwrap_or_default();
    let number = number.ok_or_else(|| {
        Failure::Said(format!("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {shown}"))
    })?;
    host::process::raise(number).map_err(|error| Failure::io("raise", &error))
}

pub(super) fn sleep(args: &[&str]) -> Outcome {
    let shown = args.first().copied().unwrap_or_default();
    let number = crate::keyval::value::parse_number("", shown);
    let ms = number.map_err(|_| Failure::Said(format!("{shown} is not a valid number")))?;
    std::thread::sleep(Duration::from_millis(ms.min(u64::from(u32::MAX))));
    Ok(())
}

/// Zoned devices are not supported; the commands say so.
pub(super) fn zone(command: &str) -> Outcome {
    let what = match command {
        "zone_report" => "zone report",
        "zone_open" => "zone open",
        "zone_close" => "zone close",
        "zone_finish" => "zone finish",
        "zone_reset" => "zone reset",
        _ => "zone append",
    };
    Err(Failure::io(what, &io::Error::from_raw_os_error(host::ENOTSUP)))
}
