//! What people get for bad input: one message that names the thing, and exit status 1. The texts are those of
//! QEMU 10.0, whose own were compared; where ours says more, that is the reason for the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::grub::qemu_img;
use crate::machine::{Folder, PATIENCE, accelerator, wait_for};
use crate::monitor::Hmp;

/// Runs a machine that cannot start; what it said without warnings.
fn refused(folder: &Folder, line: &str) -> String {
    let mut machine = folder.start_line(&format!("-accel {} -S {line}", accelerator()));
    assert_eq!(machine.exit_code(), 1, "{line}: {}", folder.text("stderr"));
    let said = folder.text("stderr");
    let lines: Vec<_> = said.lines().filter(|line| !line.contains(": warning: ")).collect();
    lines.join("\n")
}

/// The same with the display off, in a new folder.
fn refused_quietly(line: &str) -> String {
    refused(&Folder::new(), &format!("-display none {line}"))
}

/// Checks the message for a command line.
macro_rules! refusals {
    ($($name:ident: $line:literal => $text:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(refused_quietly($line), $text);
        })*
    };
}

refusals! {
    a_missing_image: "-hda nope.img" =>
        "qemu-kvm: -hda nope.img: Could not open 'nope.img': No such file or directory";
    a_missing_cd: "-cdrom nope.iso" =>
        "qemu-kvm: -cdrom nope.iso: Could not open 'nope.iso': No such file or directory";
    an_unknown_machine: "-machine foo" =>
        "qemu-kvm: unsupported machine type: \"foo\"\nUse -machine help to list supported machines";
    an_unknown_processor: "-cpu foo" => "qemu-kvm: unable to find CPU model 'foo'";
    an_unknown_device: "-device foo" => "qemu-kvm: -device foo: 'foo' is not a valid device model name";
    too_many_processors: "-smp 300" =>
        "qemu-kvm: Invalid SMP CPUs 300. The max CPUs supported by machine 'pc-i440fx-10.0' is 255";
    a_boot_order_that_is_none: "-boot order=q" => "qemu-kvm: Invalid boot device 'q'";
    more_memory_than_addresses: "-m 100T" =>
        "qemu-kvm: cannot set up guest memory 'pc.ram': Cannot allocate memory";
    a_missing_kernel: "-kernel nope" =>
        "qemu-kvm: could not open kernel file 'nope': No such file or directory";
    a_command_line_without_a_kernel: "-append x" => "qemu-kvm: -append only allowed with -kernel option";
}

#[test]
fn a_missing_rom_is_named_with_the_folders_that_were_searched() {
    let said = refused_quietly("-L nowhere -bios my-bios.bin");
    assert!(said.starts_with("qemu-kvm: could not find ROM 'my-bios.bin' (looked in /"), "{said}");
    assert!(said.ends_with("; name its folder with -L"), "{said}");
}

#[test]
fn a_damaged_image_is_refused_by_its_fault() {
    let folder = Folder::new();
    assert!(qemu_img(&folder, "create -f qcow2 disk.qcow2 1M").status.success());
    let mut image = fs::read(folder.path("disk.qcow2")).unwrap();
    // l1_table_offset (qcow2 specification, "Header": bytes 40-47).
    image[40..48].fill(0xff);
    fs::write(folder.path("disk.qcow2"), &image).unwrap();
    let said = refused(&folder, "-display none -hda disk.qcow2");
    assert_eq!(said, "qemu-kvm: -hda disk.qcow2: Active L1 table offset invalid");
}

#[test]
fn a_shortened_image_is_refused() {
    let folder = Folder::new();
    assert!(qemu_img(&folder, "create -f qcow2 disk.qcow2 1M").status.success());
    let image = fs::read(folder.path("disk.qcow2")).unwrap();
    fs::write(folder.path("disk.qcow2"), &image[..60]).unwrap();
    let said = refused(&folder, "-display none -drive file=disk.qcow2,format=qcow2");
    assert_eq!(said, "qemu-kvm: -drive file=disk.qcow2,format=qcow2: qcow2 header too short");
}

#[test]
fn an_image_in_use_is_refused() {
    let folder = Folder::new();
    assert!(qemu_img(&folder, "create -f qcow2 disk.qcow2 1M").status.success());
    let first = folder.start_line(&format!("-accel {} -S -vnc unix:vnc -hda disk.qcow2", accelerator()));
    wait_for("the first machine", PATIENCE, || folder.path("vnc").exists().then_some(()));
    let said = refused(&folder, "-display none -hda disk.qcow2");
    assert_eq!(
        said,
        "qemu-kvm: -hda disk.qcow2: Failed to get \"write\" lock\nIs another process using the image [disk.qcow2]?"
    );
    drop(first);
}

#[test]
fn a_busy_port_is_refused() {
    let busy = (60..99).find_map(|display: u16| {
        let listener = TcpListener::bind(("127.0.0.1", 5900 + display)).ok()?;
        Some((listener, display))
    });
    let (_listener, display) = busy.expect("one of forty ports is free");
    let folder = Folder::new();
    let said = refused(&folder, &format!("-vnc 127.0.0.1:{display}"));
    assert_eq!(
        said,
        format!("qemu-kvm: -vnc 127.0.0.1:{display}: Failed to find an available port: Address already in use")
    );
}

/// Whether this process may become another user; says so if not.
fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        println!("not root: nothing tested");
    }
    root
}

#[test]
fn an_image_of_somebody_else_is_refused() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path("secret"), vec![0; 512]).unwrap();
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut machine = folder.start_line(&format!(
        "-accel {} -m 32 -S -nodefaults -display none -drive if=ide,index=2,media=cdrom -run-with user=nobody \
         -monitor unix:hmp,server=on,wait=off",
        accelerator()
    ));
    let mut monitor = Hmp::connect(&folder);
    assert_eq!(monitor.run("change ide1-cd0 secret raw"), "Error: Could not open 'secret': Permission denied\r\n");
    assert!(monitor.run("info block").starts_with("ide1-cd0: [not inserted]"));
    machine.signal("TERM");
    assert_eq!(machine.exit_code(), 0);
}
