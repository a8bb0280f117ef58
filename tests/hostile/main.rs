//! A guest that writes rubbish to every port and register of a whole machine. No accelerator is needed: the vCPU of
//! these machines executes nothing, and the test does the accesses that a guest would do.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

mod interrupts;
mod machine;
mod programs;
