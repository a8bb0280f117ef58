//! memtest86+ to the end of its first tests.

use crate::line::{Line, SERIAL};
use crate::machine::Folder;
use crate::{LONG, packaged};

#[test]
fn memtest86_finds_no_errors_in_its_first_tests() {
    let Some(kernel) = packaged("memtest86+", "/boot/memtest86+x64.bin") else { return };
    let folder = Folder::new();
    let board = format!("-accel tcg -m 32 -smp 2 -display none {SERIAL}");
    let kernel = ["-kernel", kernel, "-append", "console=ttyS0,115200"];
    let _vm = folder.start(board.split(' ').chain(kernel));
    let mut line = Line::connect(&folder);
    line.wait_for("Memtest86+ v", LONG);
    let mut text = line.wait_for("#0 ", LONG);
    // The fifth test follows five that passed; the line is updated every two seconds and may miss their names.
    text += &line.wait_for("#5 ", LONG);
    text += &line.wait_for("Pass:", LONG);
    text += &line.wait_for("Errors: 0 ", LONG);
    let errors = text.split("Errors:").skip(1);
    assert!(errors.clone().all(|rest| rest.trim_start().starts_with("0 ")), "{text}");
}
