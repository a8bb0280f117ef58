//! Device tests: a test does what processors would do, by the qtest protocol of our own binary.
//!
//! [`client`] and [`pci`] are what all of them share; each family of devices has a module of its own.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]
#![expect(clippy::cast_possible_truncation, reason = "registers are narrower than the numbers they come in")]

mod ahci;
mod client;
mod pci;
mod protocol;
mod q35;
mod random;
