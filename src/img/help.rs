//! What the tool says about itself. The text of each command is in a file of its own. Names and
//! syntax are QEMU's, the words are ours.

use super::QEMU_VERSION;
use crate::block::driver::DRIVERS;

/// Commands, what they do, and what their `--help` prints.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("amend", "change the format's own options of an image", include_str!("help/amend.txt")),
    ("bench", "measure how fast an image is read or written", include_str!("help/bench.txt")),
    ("bitmap", "make, change and remove persistent dirty bitmaps of a qcow2 image", include_str!("help/bitmap.txt")),
    ("check", "look for errors in an image, and repair them", include_str!("help/check.txt")),
    ("commit", "write what an overlay holds into the image below it", include_str!("help/commit.txt")),
    ("compare", "tell whether two images hold the same disk", include_str!("help/compare.txt")),
    ("convert", "copy one or more images into a new one, of any format", include_str!("help/convert.txt")),
    ("create", "make a new image", include_str!("help/create.txt")),
    ("dd", "copy blocks from one image into a new one", include_str!("help/dd.txt")),
    ("info", "say what an image is", include_str!("help/info.txt")),
    ("map", "show where the data of a disk is stored", include_str!("help/map.txt")),
    ("measure", "tell how large a new image will be", include_str!("help/measure.txt")),
    ("rebase", "give an overlay another backing file", include_str!("help/rebase.txt")),
    ("resize", "make a disk longer or shorter", include_str!("help/resize.txt")),
    ("snapshot", "list, make, restore and delete internal snapshots", include_str!("help/snapshot.txt")),
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
        "Makes, converts, checks and changes disk images.\n\nUsage:\n  qemu-img COMMAND [OPTIONS]\n  qemu-img COMMAND --help\n\n  \
         -h, --help\n     this text\n  -V, --version\n     the version\n  -T, --trace [enable=]PATTERN[,events=FILE][,file=FILE]\n     \
         trace points to show\n\nCommands:\n",
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
