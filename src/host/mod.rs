//! Everything that needs the host operating system beyond what rustix offers safely: all other `libc` calls and their
//! `unsafe` live here, each wrapped once.

pub mod fd;
pub mod lock;
pub mod process;
pub mod signal;
pub mod tty;
pub mod zone;
