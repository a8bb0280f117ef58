//! `qemu-img snapshot`: internal snapshots of an image.

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{self, flag, long, value};
use super::source::{opener, text_of};
use super::{Failure, Outcome, report};
use crate::block::{Image, OpenFlags, SnapshotInfo};
use crate::host::reason;

/// What to do, as typed.
const ACTIONS: [&str; 4] = ["list", "apply", "create", "delete"];

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        long("image-opts", false),
        flag('l', "list"),
        value('a', "apply"),
        value('c', "create"),
        value('d', "delete"),
        flag('q', "quiet"),
        flag('U', "force-share"),
        long("object", true),
    ];
    let Some(given) = args::parse("snapshot", &specs, args)? else { return Ok(0) };
    let actions: Vec<(&str, &str)> = given.in_order().filter(|(name, _)| ACTIONS.contains(name)).collect();
    if actions.len() > 1 {
        return Err(Failure::usage("snapshot", "Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let filename = given.one_name("snapshot")?;
    given.check_image_opts(&["format"])?;
    let (action, name) = actions.first().copied().unwrap_or(("list", ""));
    let mut opener = opener(&given)?;
    let flags = OpenFlags { read_only: action == "list", ..OpenFlags::default() };
    let image = given.source(filename).open_with(&mut opener, flags)?;
    match action {
        "create" => take(&image, name)?,
        "apply" => apply(&image, name)?,
        "delete" => delete(&image, name)?,
        _ => list(&image)?,
    }
    Ok(0)
}

fn snapshots(image: &Image) -> Result<Vec<SnapshotInfo>, Failure> {
    let Some(ops) = image.ops() else { return Ok(Vec::new()) };
    let details = ops.details();
    details
        .map(|details| details.snapshots)
        .map_err(|error| Failure::new(format!("Could not list snapshots: {}", reason(&error))))
}

fn list(image: &Image) -> Result<(), Failure> {
    let snapshots = snapshots(image)?;
    if !snapshots.is_empty() {
        print!("{}", report::snapshot_table(&snapshots));
    }
    Ok(())
}

fn take(image: &Image, name: &str) -> Result<(), Failure> {
    // A clock before 1970 is a date of 0.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wanted = SnapshotInfo {
        name: name.to_owned(),
        date_sec: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        date_nsec: now.subsec_nanos(),
        icount: Some(0),
        ..SnapshotInfo::default()
    };
    let failed = |why: String| Failure::new(format!("Could not create snapshot '{name}': {why}"));
    let ops = image.ops().ok_or_else(|| failed("Operation not supported".to_owned()))?;
    ops.create_snapshot(&wanted).map_err(|error| failed(reason(&error)))?;
    image.node.flush().map_err(|error| failed(reason(&error)))
}

fn apply(image: &Image, name: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(format!("Could not apply snapshot '{name}': {why}"));
    let ops = image.ops().ok_or_else(|| failed("Block driver does not support snapshots".to_owned()))?;
    ops.apply_snapshot(name).map_err(|error| failed(text_of(&error)))?;
    image.node.flush().map_err(|error| failed(reason(&error)))
}

/// Names only: numbers are not looked up.
fn delete(image: &Image, name: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(format!("Could not delete snapshot '{name}': {why}"));
    let known = snapshots(image)?.into_iter().find(|snapshot| snapshot.name == name);
    let (Some(known), Some(ops)) = (known, image.ops()) else {
        return Err(failed("snapshot not found".to_owned()));
    };
    ops.delete_snapshot(&known.id).map_err(|error| failed(text_of(&error)))?;
    image.node.flush().map_err(|error| failed(reason(&error)))
}
