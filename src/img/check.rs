//! `qemu-img check`.

use std::ffi::OsString;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::args::{self, flag, long, value};
use super::source::{check_cache, opener};
use super::{Failure, Outcome, report};
use crate::block::{CheckFailed, CheckReport, OpenFlags, Repair};
use crate::host::reason;

/// The format has no check.
const NO_CHECK: u8 = 63;

pub(super) fn run(args: &[OsString]) -> Outcome {
    let specs = [
        value('f', "format"),
        value('T', "cache"),
        value('r', "repair"),
        flag('U', "force-share"),
        flag('q', "quiet"),
        long("image-opts", false),
        long("output", true),
        long("object", true),
    ];
    let Some(given) = args::parse("check", &specs, args)? else { return Ok(0) };
    let json = given.json("check")?;
    let repair = match given.last("repair") {
        None => None,
        Some("leaks") => Some(Repair::Leaks),
        Some("all") => Some(Repair::All),
        Some(other) => {
            return Err(Failure::usage("check", format!("--repair (-r) expects 'leaks' or 'all' not '{other}'")));
        }
    };
    let filename = given.one_name("check")?;
    given.check_image_opts(&["format"])?;
    check_cache(given.last("cache"), "source cache option")?;
    let flags = OpenFlags { read_only: repair.is_none(), for_check: true, ..OpenFlags::default() };
    let image = given.source(filename).open_with(&mut opener(&given)?, flags)?;
    let Some(ops) = image.ops().filter(|ops| ops.can_check()) else {
        return Err(Failure::new("This image format does not support checks").with_status(NO_CHECK));
    };
    let quiet = given.has("quiet");
    let failed = |error: std::io::Error| {
        if let Some(CheckFailed(messages)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            messages.iter().for_each(|message| eprintln!("{message}"));
        }
        Failure::new(format!("Check failed: {}", reason(&error)))
    };
    let mut found = ops.check(repair).map_err(failed)?;
    found.messages.iter().for_each(|message| eprintln!("{message}"));
    let fixed = (found.leaks_fixed, found.corruptions_fixed);
    if fixed != (0, 0) {
        if !json && !quiet {
            print!("{}", repaired_text(&found));
        }
        found = ops.check(None).map_err(failed)?;
        found.messages.iter().for_each(|message| eprintln!("{message}"));
        (found.leaks_fixed, found.corruptions_fixed) = fixed;
    }
    if json {
        println!("{}", report::pretty(&json_report(&found, filename, image.driver)));
    } else if !quiet {
        print!("{}", human_report(&found));
    }
    Ok(status(&found))
}

fn status(found: &CheckReport) -> u8 {
    match found {
        CheckReport { check_errors: 1.., .. } => 1,
        CheckReport { corruptions: 1.., .. } => 2,
        CheckReport { leaks: 1.., .. } => 3,
        _ => 0,
    }
}

fn repaired_text(found: &CheckReport) -> String {
    format!(
        "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\n\
         Double checking the fixed image now...\n",
        found.leaks_fixed, found.corruptions_fixed
    )
}

fn human_report(found: &CheckReport) -> String {
    let mut out = String::new();
    if (found.corruptions, found.leaks, found.check_errors) == (0, 0, 0) {
        out.push_str("No errors were found on the image.\n");
    }
    if found.corruptions > 0 {
        let _ = write!(
            out,
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt \
             it.\n",
            found.corruptions
        );
    }
    if found.leaks > 0 {
        let _ = write!(
            out,
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
            found.leaks
        );
    }
    if found.check_errors > 0 {
        let _ = write!(out, "\n{} internal errors have occurred during the check.\n", found.check_errors);
    }
    if found.total_clusters > 0 && found.allocated_clusters > 0 {
        #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
        let _ = writeln!(
            out,
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            found.allocated_clusters,
            found.total_clusters,
            percent(found.allocated_clusters, found.total_clusters),
            percent(found.fragmented_clusters, found.allocated_clusters),
            percent(found.compressed_clusters, found.allocated_clusters)
        );
    }
    if found.image_end_offset > 0 {
        let _ = writeln!(out, "Image end offset: {}", found.image_end_offset);
    }
    out
}

fn json_report(found: &CheckReport, filename: &str, format: &str) -> Value {
    let mut map = Map::new();
    let mut number = |key: &str, value: u64, always: bool| {
        if always || value > 0 {
            map.insert(key.to_owned(), value.into());
        }
    };
    number("image-end-offset", found.image_end_offset, false);
    number("compressed-clusters", found.compressed_clusters, false);
    number("total-clusters", found.total_clusters, false);
    number("corruptions", found.corruptions, false);
    number("check-errors", found.check_errors, true);
    number("leaks", found.leaks, false);
    number("corruptions-fixed", found.corruptions_fixed, false);
    number("leaks-fixed", found.leaks_fixed, false);
    number("allocated-clusters", found.allocated_clusters, false);
    map.insert("filename".to_owned(), filename.into());
    map.insert("format".to_owned(), format.into());
    if found.fragmented_clusters > 0 {
        map.insert("fragmented-clusters".to_owned(), found.fragmented_clusters.into());
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_that_of_qemu() {
        let found = CheckReport {
            corruptions: 3,
            leaks: 1,
            total_clusters: 16,
            allocated_clusters: 7,
            image_end_offset: 786_432,
            ..CheckReport::default()
        };
        assert_eq!(
            human_report(&found),
            "\n3 errors were found on the image.\n\
             Data may be corrupted, or further writes to the image may corrupt it.\n\
             \n1 leaked clusters were found on the image.\n\
             This means waste of disk space, but no harm to data.\n\
             7/16 = 43.75% allocated, 0.00% fragmented, 0.00% compressed clusters\n\
             Image end offset: 786432\n"
        );
        assert_eq!(status(&found), 2);
        assert_eq!(status(&CheckReport { leaks: 1, ..CheckReport::default() }), 3);
    }
}
