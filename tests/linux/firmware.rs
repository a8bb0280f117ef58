//! SeaBIOS, GRUB and OVMF.

use std::fs;

use crate::line::{Line, SERIAL};
use crate::machine::Folder;
use crate::rfb::Viewer;
use crate::{LONG, has_soft_cpu, packaged};

#[test]
fn seabios_looks_for_something_to_boot() {
    if !has_soft_cpu() {
        return;
    }
    let folder = Folder::new();
    let _vm = folder.start("-accel tcg -m 128 -smp 2 -net none -vnc unix:vnc".split(' '));
    let screen = Viewer::connect(&folder).wait_for_text_within("No bootable device.", LONG);
    assert!(screen.contains("SeaBIOS (version"), "{screen}");
}

#[test]
fn grub_boots_from_the_rescue_cd() {
    let Some(cd) = packaged("grub-rescue-pc", "/usr/lib/grub-rescue/grub-rescue-cdrom.iso") else { return };
    let folder = Folder::new();
    let _vm = folder.start("-accel tcg -vnc unix:vnc -cdrom".split(' ').chain([cd]));
    let mut viewer = Viewer::connect(&folder);
    viewer.wait_for_text_within("GNU GRUB  version", LONG);
    // The command line of the menu.
    viewer.type_text("c");
    viewer.wait_for_text_within("grub>", LONG);
    viewer.type_line("expr_is_no_command");
    viewer.wait_for_text_within("can't find command", LONG);
}

/// Waits for OVMF's shell and lets it print something. It draws each letter that is typed by itself, so what is waited
/// for is not the echo.
fn uses_the_shell(folder: &Folder) -> Line {
    let mut line = Line::connect(folder);
    line.wait_for("UEFI Interactive Shell", LONG);
    line.wait_for("Shell>", LONG);
    line.send("ver\r");
    line.wait_for("UEFI v2.70 (EDK II", LONG);
    line.wait_for("Shell>", LONG);
    line
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn ovmf_reaches_its_shell_as_bios() {
    let Some(rom) = packaged("ovmf", "/usr/share/ovmf/OVMF.fd") else { return };
    let folder = Folder::new();
    let board = format!("-accel tcg -m 256 -display none -net none {SERIAL} -bios {rom}");
    let _vm = folder.start_line(&board);
    uses_the_shell(&folder);
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn ovmf_keeps_its_variables_in_flash() {
    let Some(code) = packaged("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd") else { return };
    let folder = Folder::new();
    let fresh = fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
    fs::write(folder.path("vars"), &fresh).unwrap();
    let board = format!(
        "-accel tcg -m 256 -smp 2 -display none -net none -no-reboot {SERIAL} \
         -drive if=pflash,format=raw,readonly=on,file={code} -drive if=pflash,format=raw,file=vars"
    );
    let mut vm = folder.start_line(&board);
    let mut line = uses_the_shell(&folder);
    line.send("setvar dromaius -guid 12345678-1234-1234-1234-123456789abc -bs -nv =S\"kept\"\r");
    line.wait_for("Shell>", LONG);
    line.send("reset -s\r");
    line.read_to_end(LONG);
    assert_eq!(vm.exit_code(), 0);
    assert_ne!(fs::read(folder.path("vars")).unwrap(), fresh);
    let _vm = folder.start_line(&board);
    let mut line = uses_the_shell(&folder);
    line.send("setvar dromaius -guid 12345678-1234-1234-1234-123456789abc\r");
    line.wait_for("6B 65 70 74", LONG);
}
