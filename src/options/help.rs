//! `-help` and `-version`.

use super::low::Low;
use super::stop::{Step, Stop};
use super::table::{Act, SECTIONS};

/// The version of QEMU whose behaviour this is.
pub const QEMU_VERSION: &str = "10.0.2";

/// What `-version` prints; scripts and libvirt look for the first line's words.
pub fn version() -> String {
    format!(
        "QEMU emulator version {QEMU_VERSION} (Dromaius {})\nCopyright (c) 2026 the Dromaius developers\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn print_version(_: &mut Low<'_>, _: &str) -> Step {
    Err(Stop::Print(version(), 0))
}

/// The column at which an option's description starts.
const INDENT: usize = 16;

pub(super) fn print(low: &mut Low<'_>, _: &str) -> Step {
    let mut out = version();
    out.push_str(&format!("usage: {} [options] [disk_image]\n\n", low.config.program));
    out.push_str("'disk_image' is an image of the first IDE disk\n");
    let mut refused = Vec::new();
    for (heading, rows) in SECTIONS {
        if !heading.is_empty() {
            out.push_str(&format!("\n{heading}\n"));
        }
        for row in *rows {
            match row.act {
                Act::Refuse => refused.push(row.name),
                Act::OtherTarget => {}
                Act::Read(_) => entry(row.name, row.argument, row.help, &mut out),
            }
        }
    }
    refused.sort_unstable();
    out.push_str("\nOptions of QEMU that this version refuses:\n");
    out.push_str(&wrap(&refused));
    out.push_str("\nWith -nographic, Ctrl-A h on the terminal lists its keys.\n");
    Err(Stop::Print(out, 0))
}

fn entry(name: &str, argument: &str, help: &str, out: &mut String) {
    let left = match argument {
        "" => format!("-{name}"),
        argument => format!("-{name} {argument}"),
    };
    let mut lines = help.lines();
    match left.len() < INDENT {
        true => out.push_str(&format!("{left:<INDENT$}{}\n", lines.next().unwrap_or_default())),
        false => out.push_str(&format!("{left}\n")),
    }
    for line in lines {
        out.push_str(&format!("{:INDENT$}{line}\n", ""));
    }
}

fn wrap(names: &[&str]) -> String {
    let mut out = String::new();
    let mut column = 0;
    for name in names {
        let word = format!("-{name}");
        if column > 0 && column + 1 + word.len() > 78 {
            out.push('\n');
            column = 0;
        }
        if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += word.len();
    }
    out.push('\n');
    out
}
