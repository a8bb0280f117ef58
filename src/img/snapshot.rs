//! `qemu-img snapshot -l`.

use std::ffi::OsString;

use super::args::{self, flag, long, value};
use super::{Failure, Outcome, Source, report};
use crate::block::OpenFlags;
use crate::host::reason;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        flag('l', "list"),
        value('a', "apply"),
        value('c', "create"),
        value('d', "delete"),
        flag('q', "quiet"),
        flag('U', "force-share"),
        long("image-opts", false),
    ];
    let Some(given) = args::parse("snapshot", &specs, args)? else { return Ok(0) };
    let actions: Vec<&str> =
        ["list", "apply", "create", "delete"].into_iter().filter(|action| given.has(action)).collect();
    if actions.len() > 1 {
        return Err(Failure::usage("snapshot", "Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let [filename] = given.names.as_slice() else {
        return Err(Failure::usage("snapshot", "Expecting one image file name"));
    };
    if let Some(action) = actions.first().filter(|action| **action != "list") {
        return Err(Failure::new(format!("snapshot --{action} is not supported by this version")));
    }
    let source = Source {
        filename: filename.clone(),
        format: given.last("format").map(str::to_owned),
        image_opts: given.has("image-opts"),
        cache: None,
        force_share: given.has("force-share"),
    };
    let image = source.open(OpenFlags { read_only: true, ..OpenFlags::default() })?;
    let Some(ops) = image.ops() else { return Ok(0) };
    let failed = |error: std::io::Error| Failure::new(format!("Could not list snapshots: {}", reason(&error)));
    let snapshots = ops.details().map_err(failed)?.snapshots;
    if !snapshots.is_empty() {
        print!("{}", report::snapshot_table(&snapshots));
    }
    Ok(0)
}
