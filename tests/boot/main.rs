//! Whole machines: the real binary with real guests, seen through their serial lines, debug consoles and VNC. These tests
//! need real time. Guests run on the software CPU, and on KVM where it can be opened.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

mod bad_input;
mod crash;
mod debugger;
mod grub;
mod guests;
mod hostile;
mod machine;
mod monitor;
mod peers;
mod pictures;
mod power;
mod process;
mod rfb;
mod rsp;
mod screen;
mod terminal;
mod typing;
