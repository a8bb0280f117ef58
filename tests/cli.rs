//! Command lines that cannot work, on the real binary: one message that names the thing, and exit status 1. The texts
//! are QEMU 10.0.2's where it has one.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the binary in `folder` and returns standard error. A machine that starts after all is killed: it fails.
fn refused(folder: &Path, line: &str) -> String {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_qemu-kvm"), "-S", "-display", "none"])
        .args(line.split(' '))
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}: {text}");
    // What the host's processor lacks is no part of this.
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("warning: host doesn't support")).collect();
    lines.join("\n")
}

fn check(folder: &Path, cases: &[(&str, &str)]) {
    for (line, text) in cases {
        assert_eq!(refused(folder, line), format!("qemu-kvm: {text}"), "{line}");
    }
}

#[test]
fn what_is_wrong_before_a_machine_is_built() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("dir")).unwrap();
    check(
        folder.path(),
        &[
            (
                "-pidfile nowhere/pid",
                "cannot create PID file: Could not create 'nowhere/pid': No such file or directory",
            ),
            ("-pidfile dir", "cannot create PID file: Could not create 'dir': Is a directory"),
            ("-chardev file,id=a", "-chardev file,id=a: chardev: file: no filename given"),
            ("-smp 0", "Invalid CPU topology: CPU topology parameters must be greater than zero"),
            ("-smp 9999", "Invalid SMP CPUs 9999. The max CPUs supported by machine 'pc-i440fx-10.0' is 255"),
            ("-smp x", "Parameter 'smp.cpus' expects integer"),
            ("-machine pc,hpett=off", "Property 'pc-i440fx-10.0-machine.hpett' not found\nDid you mean 'hpet'?"),
            ("-initrd x", "-initrd only allowed with -kernel option"),
            ("-boot order=xyz", "Invalid boot device 'x'"),
        ],
    );
}

#[test]
fn images_that_cannot_be_used_are_named() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        println!("/dev/kvm cannot be opened: nothing tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("zeros.raw"), vec![0; 1 << 20]).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let corrupt = |name: &str, offset: u64, bytes: &[u8]| {
        let made = Command::new(env!("CARGO_BIN_EXE_qemu-img"))
            .args(["create", "-q", "-f", "qcow2"])
            .arg(path(name))
            .arg("8M")
            .status();
        assert!(made.unwrap().success());
        File::options().write(true).open(path(name)).unwrap().write_all_at(bytes, offset).unwrap();
    };
    corrupt("l1.qcow2", 40, &0x1234_u64.to_be_bytes());
    corrupt("l1size.qcow2", 36, &0x7fff_ffff_u32.to_be_bytes());
    corrupt("refcounts.qcow2", 48, &0xffff_ffff_ffff_0000_u64.to_be_bytes());
    corrupt("cluster.qcow2", 20, &64_u32.to_be_bytes());
    corrupt("version.qcow2", 4, &9_u32.to_be_bytes());
    corrupt("short.qcow2", 0, &[]);
    File::options().write(true).open(path("short.qcow2")).unwrap().set_len(60).unwrap();
    check(
        folder.path(),
        &[
            ("-hda missing.raw", "-hda missing.raw: Could not open 'missing.raw': No such file or directory"),
            ("-hda dir", "-hda dir: 'file' driver requires 'dir' to be a regular file"),
            ("-cdrom pipe", "-cdrom pipe: 'file' driver requires 'pipe' to be a regular file"),
            ("-hda l1.qcow2", "-hda l1.qcow2: Active L1 table offset invalid"),
            ("-hda l1size.qcow2", "-hda l1size.qcow2: Active L1 table too large"),
            ("-hda refcounts.qcow2", "-hda refcounts.qcow2: Reference count table offset invalid"),
            ("-hda cluster.qcow2", "-hda cluster.qcow2: Unsupported cluster size: 2^64"),
            ("-hda version.qcow2", "-hda version.qcow2: Unsupported qcow2 version 9"),
            ("-drive file=short.qcow2,format=qcow2", "-drive file=short.qcow2,format=qcow2: qcow2 header too short"),
            ("-drive file=zeros.raw,format=qcow2", "-drive file=zeros.raw,format=qcow2: Image is not in qcow2 format"),
            (
                "-drive file=zeros.raw,format=raw -drive file=zeros.raw,format=raw,index=1",
                "-drive file=zeros.raw,format=raw,index=1: Failed to get \"write\" lock\n\
                 Is another process using the image [zeros.raw]?",
            ),
        ],
    );
}

#[test]
fn flash_memory_that_cannot_be_is_named() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        println!("/dev/kvm cannot be opened: nothing tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, len: u64| File::create(folder.path().join(name)).unwrap().set_len(len).unwrap();
    make("odd", 5120);
    make("64k", 64 << 10);
    make("4m", 4 << 20);
    make("8m", 8 << 20);
    make("16m", 16 << 20);
    let node = "-blockdev driver=raw,node-name=f,file.driver=file,file.filename=64k";
    check(
        folder.path(),
        &[
            (
                "-drive if=pflash,format=raw,file=odd",
                "system firmware block device pflash0 has invalid size 5120\n\
                 qemu-kvm: info: its size must be a non-zero multiple of 0x1000",
            ),
            ("-drive if=pflash,format=raw,file=16m", "combined size of system firmware exceeds 8388608 bytes"),
            (
                "-drive if=pflash,format=raw,file=4m -drive if=pflash,format=raw,file=8m",
                "combined size of system firmware exceeds 8388608 bytes",
            ),
            ("-drive if=pflash,unit=1,format=raw,file=64k", "pflash1 requires pflash0"),
            ("-drive if=pflash", "can't get size of block device pflash0: No medium found"),
            ("-machine pflash0=none", "Property 'cfi.pflash01.drive' can't find value 'none'"),
            (
                &format!("{node} -machine pflash0=f -drive if=pflash,format=raw,file=4m"),
                "-drive if=pflash,format=raw,file=4m: clashes with -machine",
            ),
            (
                &format!("{node} -machine pflash0=f -device ide-hd,drive=f"),
                "-device ide-hd,drive=f: Drive 'f' is already in use by another device",
            ),
        ],
    );
}
