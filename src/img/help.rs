//! What the tool says about itself.

use super::QEMU_VERSION;

/// Commands and what they do.
const COMMANDS: &[(&str, &str)] = &[
    ("check", "Check basic image integrity"),
    ("compare", "Check if two images have the same contents"),
    ("convert", "Copy one image to another with optional format conversion"),
    ("create", "Create and format new image file"),
    ("info", "Display information about image"),
    ("map", "Dump image metadata"),
    ("resize", "Resize the image to the new size"),
    ("snapshot", "List or manipulate snapshots within image"),
];

/// Drivers that work.
const FORMATS: &[&str] = &["file", "host_device", "null-co", "qcow2", "raw"];

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
         and exit\n\nRecognized commands (run qemu-img COMMAND --help for command-specific help):\n\n",
    );
    for (name, what) in COMMANDS {
        text.push_str(&format!("  {name} - {what}\n"));
    }
    text.push_str(&format!("\nSupported image formats:\n\n  {}\n", FORMATS.join(" ")));
    text
}

pub(super) fn command_text(command: &str) -> String {
    let what = COMMANDS.iter().find(|(name, _)| *name == command).map_or("", |(_, what)| what);
    format!("Usage:\n{what}.  Usage:\n\n{}", usage(command))
}

fn usage(command: &str) -> &'static str {
    match command {
        "check" => {
            "  qemu-img check [-f FMT | --image-opts] [-T CACHE] [-r leaks|all] [-U] [-q]\n        \
             [--output=human|json] FILENAME\n\n\
             Exit status: 0 no errors, 1 the check failed, 2 errors, 3 leaks only, 63 the format has no check.\n"
        }
        "compare" => {
            "  qemu-img compare [-f FMT] [-F FMT] [--image-opts] [-T CACHE] [-s] [-p] [-q] [-U]\n        \
             FILENAME1 FILENAME2\n\n\
             Exit status: 0 identical, 1 different, 2 an image cannot be opened, 3 or more: other errors.\n"
        }
        "convert" => {
            "  qemu-img convert [-f FMT | --image-opts] [-O FMT] [-o OPTIONS] [-B FILE -F FMT] [-c] [-n]\n        \
             [-S SIZE] [-T CACHE] [-t CACHE] [-p] [-q] [-U] FILENAME... OUTPUT\n"
        }
        "create" => {
            "  qemu-img create [-f FMT] [-o OPTIONS] [-b FILE [-F FMT]] [-u] [-q] FILENAME [SIZE]\n\n\
             SIZE takes a suffix: k, M, G, T, P, E. '-o help' lists a format's options.\n"
        }
        "info" => "  qemu-img info [-f FMT | --image-opts] [--backing-chain] [-U] [--output=human|json] FILENAME\n",
        "map" => "  qemu-img map [-f FMT | --image-opts] [-s OFFSET] [-l LENGTH] [-U] [--output=human|json] FILENAME\n",
        "resize" => "  qemu-img resize [-f FMT | --image-opts] [--shrink] [-q] FILENAME [+|-]SIZE\n",
        _ => "  qemu-img snapshot [-l] [-f FMT | --image-opts] [-U] [-q] FILENAME\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_what_scripts_parse() {
        assert!(version_text().starts_with("qemu-img version 10.0.2 ("));
        assert!(main_text().contains("\nSupported image formats:\n\n  file "));
    }
}
