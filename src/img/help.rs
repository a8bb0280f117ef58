//! What the tool says about itself. The text of each command is in a file of its own, as QEMU 10.0 prints it.

use super::QEMU_VERSION;
use crate::block::driver::DRIVERS;

/// Commands, what they do, and what their `--help` prints.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("amend", "Update format-specific options of the image", include_str!("help/amend.txt")),
    ("bench", "Run simple image benchmark", include_str!("help/bench.txt")),
    ("bitmap", "Perform modifications of the persistent bitmap in the image", include_str!("help/bitmap.txt")),
    ("check", "Check basic image integrity", include_str!("help/check.txt")),
    ("commit", "Commit image to its backing file", include_str!("help/commit.txt")),
    ("compare", "Check if two images have the same contents", include_str!("help/compare.txt")),
    ("convert", "Copy one image to another with optional format conversion", include_str!("help/convert.txt")),
    ("create", "Create and format new image file", include_str!("help/create.txt")),
    ("dd", "Copy input to output with optional format conversion", include_str!("help/dd.txt")),
    ("info", "Display information about image", include_str!("help/info.txt")),
    ("map", "Dump image metadata", include_str!("help/map.txt")),
    ("measure", "Calculate file size requred for a new image", include_str!("help/measure.txt")),
    ("rebase", "Change backing file of the image", include_str!("help/rebase.txt")),
    ("resize", "Resize the image to the new size", include_str!("help/resize.txt")),
    ("snapshot", "List or manipulate snapshots within image", include_str!("help/snapshot.txt")),
];

/// The widest line of the list of formats.
const LIST_WIDTH: usize = 75;

pub(super) fn version_text() -> String {
    format!(
        "qemu-img version {QEMU_VERSION} (Dromaius {})\nCopyright (c) 2026 the Dromaius developers\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn main_text() -> String {
    let mut text = version_text();
    text.push_str(
        "QEMU disk image utility.  Usage:\n\n  qemu-img [standard options] COMMAND [--help | command options]\n\n\
         Standard options:\n  -h, --help\n     display this help and exit\n  -V, --version\n     display version info \
         and exit\n  -T,--trace TRACE\n     specify tracing options:\n        \
         [[enable=]<pattern>][,events=<file>][,file=<file>]\n\nRecognized commands (run qemu-img COMMAND --help for \
         command-specific help):\n\n",
    );
    for (name, what, _) in COMMANDS {
        text.push_str(&format!("  {name} - {what}\n"));
    }
    let mut names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name()).collect();
    names.sort_unstable();
    text.push_str(&format!("\nSupported image formats:\n\n{}", list(&names)));
    text
}

/// Names in lines, each indented.
fn list(names: &[&str]) -> String {
    let mut text = String::new();
    let mut line = String::from(" ");
    for name in names {
        if line.len() + 1 + name.len() > LIST_WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(name);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

pub(super) fn command_text(command: &str) -> &'static str {
    COMMANDS.iter().find(|(name, _, _)| *name == command).map_or("", |(_, _, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_what_scripts_parse() {
        assert!(version_text().starts_with("qemu-img version 10.0.2 ("));
        assert!(main_text().contains("\nSupported image formats:\n\n  "));
    }

    #[test]
    fn the_list_of_formats_breaks_where_that_of_qemu_does() {
        let names = ["blkdebug", "blklogwrites", "blkverify", "bochs", "cloop", "compress", "copy-before-write", "dmg"];
        assert_eq!(list(&names), "  blkdebug blklogwrites blkverify bochs cloop compress copy-before-write\n  dmg\n");
    }
}
