//! The name that messages begin with: the program's own, as it was called.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

/// As it was called, and without its folder.
struct Program {
    called: String,
    name: String,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Takes note of `argv[0]`.
pub(super) fn set(called: Option<&OsString>) {
    let called = called.map_or_else(|| "qemu-img".to_owned(), |text| text.to_string_lossy().into_owned());
    let name =
        Path::new(&called).file_name().map_or_else(|| called.clone(), |name| name.to_string_lossy().into_owned());
    // A second call would change nothing.
    let _ = PROGRAM.set(Program { called, name });
}

/// What error lines begin with: `basename argv[0]`.
pub(super) fn name() -> &'static str {
    PROGRAM.get().map_or("qemu-img", |program| &program.name)
}

/// What hints tell people to type, and what getopt's complaints begin with: `argv[0]`.
pub(super) fn called() -> &'static str {
    PROGRAM.get().map_or("qemu-img", |program| &program.called)
}

/// An error that does not end the command.
pub(super) fn complain(text: impl AsRef<str>) {
    eprintln!("{}: {}", name(), text.as_ref());
}

/// A warning.
pub(super) fn warn(text: impl AsRef<str>) {
    eprintln!("{}: warning: {}", name(), text.as_ref());
}
