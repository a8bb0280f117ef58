//! Any bytes as code, tables and registers of the software CPU, in any mode: it must neither panic nor touch host
//! memory outside guest RAM. Run by `scripts/fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rubbish.rs"]
mod rubbish;

fuzz_target!(|data: &[u8]| rubbish::run(data));
