//! `qemu-nbd --list`.

use std::fmt::Write;

use super::{Options, Stop};
use crate::block::nbd::Address;
use crate::block::nbd::client::{self, ExportInfo};

/// Transmission flags by bit.
const FLAGS: [&str; 13] = [
    "",
    "readonly",
    "flush",
    "fua",
    "rotational",
    "trim",
    "zeroes",
    "df",
    "multi",
    "resize",
    "cache",
    "fast-zero",
    "block-status-payload",
];

pub(super) fn run(options: &Options) -> Result<(), Stop> {
    let address = match options.address() {
        Address::Tcp(host, port) if host == "0.0.0.0" => Address::Tcp("127.0.0.1".to_owned(), port),
        other => other,
    };
    let exports = client::list(&address).map_err(|error| Stop::Error(error.to_string()))?;
    print!("{}", text(&exports));
    Ok(())
}

fn text(exports: &[ExportInfo]) -> String {
    let mut out = format!("exports available: {}\n", exports.len());
    for export in exports {
        // A String takes all that is written.
        let _ = writeln!(out, " export: '{}'", export.name);
        if !export.description.is_empty() {
            let _ = writeln!(out, "  description: {}", export.description);
        }
        let _ = writeln!(out, "  size:  {}", export.size);
        if export.flags & 1 != 0 {
            let names = FLAGS.iter().enumerate().filter(|(bit, name)| !name.is_empty() && export.flags & 1 << bit != 0);
            let names: String = names.map(|(_, name)| format!(" {name}")).collect();
            let _ = writeln!(out, "  flags: 0x{:x} ({names} )", export.flags);
        }
        if let Some([min, preferred, max]) = export.block_sizes {
            let _ = writeln!(out, "  min block: {min}\n  opt block: {preferred}\n  max block: {max}");
        }
        out.push_str("  transaction size: 32-bit\n");
        if !export.contexts.is_empty() {
            let _ = writeln!(out, "  available meta contexts: {}", export.contexts.len());
            export.contexts.iter().for_each(|name| {
                let _ = writeln!(out, "   {name}");
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_shown_as_qemu_shows_it() {
        let export = ExportInfo {
            name: "exp".to_owned(),
            description: "desc".to_owned(),
            size: 1_048_576,
            flags: 0xded,
            block_sizes: Some([1, 4096, 33_554_432]),
            contexts: vec!["base:allocation".to_owned()],
            structured: true,
        };
        assert_eq!(
            text(&[export]),
            "exports available: 1\n export: 'exp'\n  description: desc\n  size:  1048576\n  flags: 0xded ( flush fua trim \
             zeroes df multi cache fast-zero )\n  min block: 1\n  opt block: 4096\n  max block: 33554432\n  transaction \
             size: 32-bit\n  available meta contexts: 1\n   base:allocation\n"
        );
    }
}
