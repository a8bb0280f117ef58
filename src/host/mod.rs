//! Everything that needs the host operating system beyond what rustix offers safely: all other `libc` calls and their
//! `unsafe` live here, each wrapped once.

pub mod barrier;
pub mod code;
pub mod fd;
pub mod lock;
pub mod process;
pub mod signal;
pub mod trap;
pub mod tty;
pub mod zone;

/// The host's words for an error, as C programs print them: without Rust's "(os error n)".
#[must_use]
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
