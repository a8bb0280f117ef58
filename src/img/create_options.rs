//! What `-o` takes: the options of new images as they are typed.

use super::{Failure, args};
use crate::block::create::CreateOptions;
use crate::block::{Kind, OpenError, driver};

/// Options of QEMU's that this version does not have.
const REFUSED: &[&str] = &[
    "data_file",
    "data_file_raw",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.format",
    "encrypt.hash-alg",
    "encrypt.iter-time",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.key-secret",
    "encryption",
    "extent_size_hint",
    "nocow",
];

/// Whether an `-o` argument asks for the list.
pub(super) fn asks_for_help(text: &str) -> bool {
    text.split(',').any(|item| matches!(item, "help" | "?" | "list"))
}

/// Takes an `-o` argument. Errors are without the image's name.
pub(super) fn add_typed(options: &mut CreateOptions, text: &str) -> Result<(), String> {
    for (key, value) in args::key_values(text) {
        if REFUSED.contains(&key.as_str()) && !options.knows(&key) {
            return Err(format!("The option '{key}' is not supported by this version"));
        }
        options.add(&key, &value).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The options of an image of the format named by `-f` or `-O`. `subject` ("x.qcow2: ", or nothing) comes before the
/// complaint.
pub(super) fn options(format: &str, filename: &str, subject: &str) -> Result<CreateOptions, Failure> {
    CreateOptions::new(format, Some(filename)).map_err(|error| complaint(&error, format, subject))
}

fn complaint(error: &OpenError, format: &str, subject: &str) -> Failure {
    match error {
        OpenError::UnknownDriver(_) => Failure::new(format!("{subject}Unknown file format '{format}'")),
        other => Failure::new(format!("{subject}{other}")),
    }
}

/// What `-o help` prints; with a file name its protocol's options are among them.
pub(super) fn help_text(format: &str, filename: Option<&String>) -> Result<String, Failure> {
    let options = CreateOptions::new(format, filename.map(String::as_str));
    let options = options.map_err(|error| complaint(&error, format, ""))?;
    let is_format = driver::by_name(format).is_ok_and(|driver| driver.kind() == Kind::Format);
    if filename.is_some() || !is_format {
        return Ok(format!("Supported options:\n{}", options.help_lines()));
    }
    Ok(format!(
        "Supported {format} options:\n{}\nThe protocol level may support further options.\nSpecify the target filename \
         to include those options.\n",
        options.help_lines()
    ))
}

/// What `amend -o help` prints.
pub(super) fn amend_help(format: &str) -> Result<String, Failure> {
    let driver = driver::by_name(format).map_err(|error| complaint(&error, format, ""))?;
    let known = driver.creation().map_or(&[][..], |creation| creation.amend_options());
    if known.is_empty() {
        return Err(super::amend::no_amend(format));
    }
    let options = CreateOptions::for_amend(driver.name(), known);
    Ok(format!("Amend options for '{format}':\n{}", options.help_lines()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let mut chosen = options("qcow2", "x", "").unwrap();
        assert_eq!(
            add_typed(&mut chosen, "nocow=on").unwrap_err(),
            "The option 'nocow' is not supported by this version"
        );
        add_typed(&mut chosen, "size=1M,backing_file=a,,b").unwrap();
        assert_eq!(chosen.get("backing_file"), Some("a,b"));
        assert_eq!(options("nope", "x", "x: ").unwrap_err().message, "qemu-img: x: Unknown file format 'nope'");
    }
}
