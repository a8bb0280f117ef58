//! getopt_long's rules and texts for the tools without subcommands.

use std::ffi::OsString;

use lexopt::Arg;

use super::args::Spec;

/// Options with their values in the order given, and the other arguments.
pub(super) type Scanned = (Vec<(&'static str, String)>, Vec<String>);

/// Reads a command line.
///
/// # Errors
/// getopt's complaint, without the program's name.
pub(super) fn scan(args: impl Iterator<Item = OsString>, specs: &[Spec]) -> Result<Scanned, String> {
    let utf8 =
        |text: OsString| text.into_string().map_err(|text| format!("'{}' is not valid UTF-8", text.to_string_lossy()));
    let (mut options, mut names) = (Vec::new(), Vec::new());
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        let (spec, missing) = match arg {
            Arg::Value(name) => {
                names.push(utf8(name)?);
                continue;
            }
            Arg::Short(letter) => {
                let spec = specs.iter().find(|spec| spec.short == Some(letter));
                let spec = spec.ok_or_else(|| format!("invalid option -- '{letter}'"))?;
                (*spec, format!("option requires an argument -- '{letter}'"))
            }
            Arg::Long(typed) => {
                let mut near = specs.iter().filter(|spec| spec.long.starts_with(typed));
                let exact = specs.iter().find(|spec| spec.long == typed);
                let found = exact.or(near.next().filter(|_| near.next().is_none()));
                let spec = *found.ok_or_else(|| format!("unrecognized option '--{typed}'"))?;
                (spec, format!("option '--{}' requires an argument", spec.long))
            }
        };
        let value = if spec.takes_value { utf8(parser.value().map_err(|_| missing)?)? } else { String::new() };
        options.push((spec.long, value));
    }
    Ok((options, names))
}
