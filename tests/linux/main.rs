//! Stock operating systems and firmware on the software CPU (`-accel tcg`), each to a point that is checked on the
//! serial line or the screen.
//!
//! `scripts/test-boots` runs them: it makes the guests (`tests/linux/build`), builds the release binary and names it in
//! `DROMAIUS_TEST_QEMU`; the unoptimized binary of the other tests would take minutes for each. The variable may name
//! QEMU as well. Without it nothing is tested. Nothing here depends on time but the limit of each wait.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

mod disk;
mod firmware;
mod kernel;
mod line;
#[path = "../boot/machine.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod machine;
mod memtest;
mod network;
#[path = "../boot/rfb.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod rfb;
#[path = "../boot/screen.rs"]
mod screen;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a guest may take from one point to the next: a hundred times what it takes on an idle machine.
const LONG: Duration = Duration::from_secs(1800);

/// Whether there is a program to test, and a software CPU in it; says so if not.
fn has_soft_cpu() -> bool {
    if std::env::var_os("DROMAIUS_TEST_QEMU").is_none() {
        println!("DROMAIUS_TEST_QEMU is not set (scripts/test-boots sets it): nothing tested");
        return false;
    }
    let help = Command::new(machine::program()).args(["-accel", "help"]).output().unwrap();
    let has = String::from_utf8_lossy(&help.stdout).lines().any(|line| line == "tcg");
    if !has {
        println!("{} has no accelerator tcg: nothing tested", machine::program().display());
    }
    has
}

/// A file that `tests/linux/build` made, where the test can run.
fn guest(name: &str) -> Option<PathBuf> {
    // .../target/PROFILE/qemu-kvm
    let target = Path::new(env!("CARGO_BIN_EXE_qemu-kvm")).ancestors().nth(2).unwrap();
    let path = target.join("guests").join(name);
    if !has_soft_cpu() {
        return None;
    }
    assert!(path.exists(), "{} is not there: run tests/linux/build", path.display());
    Some(path)
}

/// A file of a Debian package.
fn packaged(package: &str, path: &'static str) -> Option<&'static str> {
    if !has_soft_cpu() {
        return None;
    }
    assert!(Path::new(path).exists(), "{path} is not there: install {package}");
    Some(path)
}
