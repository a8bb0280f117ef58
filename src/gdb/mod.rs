//! The server for gdb (`-gdb`, `-s`): the remote serial protocol (gdb manual, appendix E) on a character device.
//!
//! It runs on the main loop's thread, like the monitors, and holds no lock while it waits for a vCPU. The crate `gdbstub`
//! speaks the protocol; around it are the frames ([`packet`]), what QEMU adds to the protocol and what the crate would end
//! a session for ([`session`]). A vCPU is a thread; all of them stop together.
//!
//! Not offered: reverse execution, and the process-spawning part of the extended protocol. gdb's `record` works.

mod guest;
mod packet;
mod registers;
mod selector;
mod session;
mod target;
#[cfg(test)]
mod tests;

pub use session::Server;
